use std::time::Duration;

use super::{BreakerSettings, Profile};
use crate::breaker::State;
use crate::{ManualClock, SplitMix, Why};

const PROFILES: [Profile; 4] = [
    Profile::PostgresWrite,
    Profile::PostgresRead,
    Profile::RedisCache,
    Profile::RestUpstream,
];

#[test]
fn every_profile_builds() {
    for profile in PROFILES {
        profile.breaker("p").build().unwrap();
        BreakerSettings::default().breaker("p", profile).build().unwrap();
    }
}

#[test]
fn each_setting_does_what_it_says() {
    let clock = ManualClock::new();
    let settings = BreakerSettings {
        failure_threshold: 3,
        success_threshold: 4,
        ..BreakerSettings::default()
    };
    let breaker = settings
        .breaker("s", Profile::PostgresWrite)
        .clock(clock.clone())
        .random(SplitMix::seeded(1))
        .build()
        .unwrap();
    for _ in 0..3 {
        assert_eq!(breaker.state(), State::Closed);
        breaker.try_acquire().unwrap().failure();
    }
    assert_eq!(breaker.state(), State::Open, "failure_threshold");
    clock.advance(Duration::from_secs(53));
    assert_eq!(breaker.try_acquire().unwrap_err().why, Why::Open, "timeout");
    clock.advance(Duration::from_secs(7));
    for _ in 0..4 {
        assert_ne!(breaker.state(), State::Closed);
        breaker.try_acquire().unwrap().success();
    }
    assert_eq!(breaker.state(), State::Closed, "success_threshold");
    assert_eq!(
        settings.bulkhead("s", Profile::PostgresWrite).unwrap().limit(),
        100,
        "max_concurrent_requests"
    );
}

#[test]
fn switched_off_it_measures_and_never_rejects() {
    let settings = BreakerSettings {
        enabled: false,
        ..BreakerSettings::default()
    };
    let breaker = settings.breaker("s", Profile::PostgresWrite).build().unwrap();
    for _ in 0..100 {
        breaker.try_acquire().unwrap().failure();
    }
    assert_eq!(breaker.snapshot().failed, 100);
    assert!(settings.bulkhead("s", Profile::PostgresWrite).is_none());
}

#[test]
fn everything_wrong_is_reported_at_once() {
    let settings = BreakerSettings {
        enabled: true,
        failure_threshold: 0,
        success_threshold: 255,
        timeout: Duration::ZERO,
        max_concurrent_requests: 0,
    };
    let errors = settings.validate().unwrap_err();
    let keys: Vec<_> = errors.iter().map(|error| error.key).collect();
    assert_eq!(
        keys,
        [
            "failure_threshold",
            "success_threshold",
            "timeout",
            "max_concurrent_requests"
        ]
    );
    assert!(errors.iter().all(|error| !error.hint.is_empty()));
    assert_eq!(BreakerSettings::default().validate(), Ok(()));
}

#[cfg(feature = "serde")]
#[test]
fn durations_read_as_people_write_them() {
    let settings: BreakerSettings =
        serde_json::from_str(r#"{"failure_threshold": 7, "timeout": "1m 30s"}"#).unwrap();
    assert_eq!(
        (settings.failure_threshold, settings.timeout),
        (7, Duration::from_secs(90))
    );
    assert_eq!(settings.success_threshold, 2);
    let written = serde_json::to_string(&settings).unwrap();
    assert_eq!(
        serde_json::from_str::<BreakerSettings>(&written).unwrap(),
        settings
    );
    assert!(serde_json::from_str::<BreakerSettings>(r#"{"treshold": 7}"#).is_err());
}

#[cfg(feature = "schema")]
#[test]
fn the_schema_knows_durations_and_bounds() {
    let schema = serde_json::to_value(schemars::schema_for!(BreakerSettings)).unwrap();
    let timeout = &schema["properties"]["timeout"];
    assert_eq!(
        (timeout["type"].as_str(), timeout["format"].as_str()),
        (Some("string"), Some("duration"))
    );
    assert!(timeout["description"].as_str().unwrap().contains("open breaker"));
}
