//! What the server notes about its own work.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What the server notes about its own work.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct MonitoringSettings {
    /// Whether `GET /metrics` shows figures for Prometheus. Off: they are not kept either.
    pub metrics_enabled: bool,
    /// A statement that took at least this long is listed in `GET /admin/v1/queries`; 0 lists every one.
    /// Postgres only.
    #[serde(with = "humantime_serde")]
    #[cfg_attr(feature = "schema", schemars(with = "String", extend("format" = "duration")))]
    pub slow_query_threshold: Duration,
    /// A request that took at least this long has a line in the log, with where its time went: at most ten a second,
    /// and how many were left out. Imports, exports and streams of events do not count. 0 logs every one.
    #[serde(with = "humantime_serde")]
    #[cfg_attr(feature = "schema", schemars(with = "String", extend("format" = "duration")))]
    pub slow_request_threshold: Duration,
    /// Share of those slow statements whose plan is taken as well, at most one a second and one a minute of the
    /// same statement; 0 takes none. Postgres only.
    #[cfg_attr(feature = "schema", schemars(range(min = 0.0, max = 1.0)))]
    pub sampling_rate: f64,
}

impl Default for MonitoringSettings {
    fn default() -> Self {
        Self {
            metrics_enabled: true,
            slow_query_threshold: Duration::from_millis(100),
            slow_request_threshold: Duration::from_millis(500),
            sampling_rate: 0.1,
        }
    }
}

impl MonitoringSettings {
    /// What contradicts itself: key below the section, problem, way out.
    pub fn problems(&self) -> Vec<(String, String, String)> {
        let mut problems = Vec::new();
        if !(0.0..=1.0).contains(&self.sampling_rate) {
            problems.push((
                "sampling_rate".to_owned(),
                "is not a share".to_owned(),
                "a number from 0 to 1".to_owned(),
            ));
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_that_is_no_share_is_a_problem() {
        assert_eq!(MonitoringSettings::default().problems(), []);
        for (sampling_rate, problems) in [(0.0, 0), (1.0, 0), (1.01, 1), (-0.1, 1), (f64::NAN, 1)] {
            let settings = MonitoringSettings {
                sampling_rate,
                ..MonitoringSettings::default()
            };
            assert_eq!(settings.problems().len(), problems, "{sampling_rate}");
        }
    }

    #[test]
    fn it_is_read_as_it_is_written_in_files() {
        let text = r#"{"slow_query_threshold": "250ms", "sampling_rate": 1}"#;
        let settings: MonitoringSettings = serde_json::from_str(text).expect("as documented");
        assert_eq!(settings.slow_query_threshold, Duration::from_millis(250));
        assert!(settings.metrics_enabled);
    }
}
