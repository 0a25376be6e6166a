//! The section `telemetry.traces`.

use std::path::PathBuf;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use schemars::JsonSchema;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use crate::endpoint::Target;

/// What an endpoint has to look like.
const URL: &str = "the collector's, for instance http://127.0.0.1:4318/v1/traces";
/// What the client sets itself.
const RESERVED: [HeaderName; 6] = [
    header::HOST,
    header::CONTENT_TYPE,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::CONNECTION,
    header::ACCEPT,
];

/// Traces by OTLP over HTTP (protobuf): a span for each traced request and tool call, and one for each thing that it
/// waited for. Nothing that a client stored is in a span. Spans that a collector does not take are lost and counted; no
/// request ever waits for one.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TracesSettings {
    /// Whether requests are traced at all.
    pub enabled: bool,
    /// The collector's URL, with its path. Redirects are not followed; proxies of the environment are not used.
    pub endpoint: String,
    /// Sent with each export, to that host alone.
    pub headers: Vec<TraceHeader>,
    /// PEM file with the certificates that may sign the host's; absent: those that the system trusts.
    pub ca_file: Option<PathBuf>,
    /// What this server is called in traces: `service.name`.
    pub service_name: String,
    /// Share of the requests that are traced, of those without a `traceparent`.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub sample_ratio: f64,
    /// Whether the flag of a `traceparent` decides: a request whose caller traces it is traced, one whose caller does not
    /// is not. If false, `sample_ratio` decides for these as well. A traced request continues its caller's trace
    /// either way. Only requests that are let in count.
    pub follow_parent: bool,
    /// Most traces in a second, whoever asked for them; more are left out and counted.
    #[schemars(range(min = 1, max = 100_000))]
    pub max_per_second: u32,
    /// Most spans that wait to be exported or are being exported; more are dropped and counted. A request has about five.
    #[schemars(range(min = 64, max = 1_000_000))]
    pub queue: usize,
    /// Most spans of one export.
    #[schemars(range(min = 1, max = 100_000))]
    pub batch: usize,
    /// Longest time until a span is exported; sooner when a batch is full.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String", extend("format" = "duration"))]
    pub export_interval: Duration,
    /// Longest time for one export. One that failed is not tried again.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String", extend("format" = "duration"))]
    pub timeout: Duration,
    /// Longest time for what is left to export when the server stops.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String", extend("format" = "duration"))]
    pub flush_timeout: Duration,
}

/// A header of each export.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TraceHeader {
    /// Such as `authorization` or `x-api-key`.
    pub name: String,
    /// `env:NAME` and `file:PATH` keep it out of the file.
    #[serde(skip_serializing)]
    #[schemars(with = "String")]
    pub value: SecretString,
}

impl Default for TracesSettings {
    fn default() -> Self {
        Self {
            enabled: false,
            endpoint: "http://127.0.0.1:4318/v1/traces".to_owned(),
            headers: Vec::new(),
            ca_file: None,
            service_name: "contextkeep".to_owned(),
            sample_ratio: 0.1,
            follow_parent: true,
            max_per_second: 100,
            queue: 4096,
            batch: 512,
            export_interval: Duration::from_secs(5),
            timeout: Duration::from_secs(5),
            flush_timeout: Duration::from_secs(2),
        }
    }
}

impl TracesSettings {
    /// What contradicts itself: key, problem, hint.
    pub fn problems(&self) -> Vec<(String, String, &'static str)> {
        let mut problems = Vec::new();
        let mut problem = |key: &str, problem: String, hint| problems.push((key.to_owned(), problem, hint));
        match Target::parse(&self.endpoint, "") {
            Err(wrong) => problem("endpoint", wrong, URL),
            Ok(target) if target.has_no_path() => problem("endpoint", "has no path".to_owned(), URL),
            Ok(_) => {}
        }
        if self.service_name.trim().is_empty() {
            problem("service_name", "is empty".to_owned(), "contextkeep");
        }
        // A file of TOML can say NaN, which no range of the schema holds against it.
        if !(0.0..=1.0).contains(&self.sample_ratio) {
            problem(
                "sample_ratio",
                "is not a share".to_owned(),
                "a number from 0 to 1",
            );
        }
        if self.batch > self.queue {
            problem("batch", "is larger than queue".to_owned(), "at most queue");
        }
        for (key, duration) in [
            ("export_interval", self.export_interval),
            ("timeout", self.timeout),
        ] {
            if duration.is_zero() {
                problem(key, "is 0, so that nothing could be exported".to_owned(), "5s");
            }
        }
        for (index, header) in self.headers.iter().enumerate() {
            if let Err((key, wrong)) = header.parse() {
                problem(
                    &format!("headers.{index}.{key}"),
                    wrong.to_owned(),
                    "authorization",
                );
            }
        }
        problems
    }

    /// The headers of each export; those that are none were refused as problems.
    pub(super) fn header_map(&self) -> HeaderMap {
        let parsed = self.headers.iter().filter_map(|header| header.parse().ok());
        parsed.collect()
    }
}

impl TraceHeader {
    fn parse(&self) -> Result<(HeaderName, HeaderValue), (&'static str, &'static str)> {
        let name: HeaderName = self.name.parse().map_err(|_| ("name", "is not a header's"))?;
        if RESERVED.contains(&name) {
            return Err(("name", "is one that the client sets itself"));
        }
        let mut value = HeaderValue::from_str(self.value.expose_secret())
            .map_err(|_| ("value", "has characters that no header can have"))?;
        value.set_sensitive(true);
        Ok((name, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(settings: &TracesSettings) -> Vec<String> {
        settings.problems().into_iter().map(|(key, ..)| key).collect()
    }

    #[test]
    fn the_defaults_have_no_problem_and_nonsense_has() {
        assert_eq!(keys(&TracesSettings::default()), [""; 0]);
        let header = |name: &str, value: &str| TraceHeader {
            name: name.to_owned(),
            value: value.into(),
        };
        let nonsense = TracesSettings {
            endpoint: "http://127.0.0.1:4318".to_owned(),
            headers: vec![
                header("x-key", "fine"),
                header("Host", "elsewhere"),
                header("no name", "v"),
                header("x-key", "two\nlines"),
            ],
            service_name: " ".to_owned(),
            sample_ratio: f64::NAN,
            queue: 64,
            batch: 65,
            export_interval: Duration::ZERO,
            timeout: Duration::ZERO,
            ..TracesSettings::default()
        };
        assert_eq!(
            keys(&nonsense),
            [
                "endpoint",
                "service_name",
                "sample_ratio",
                "batch",
                "export_interval",
                "timeout",
                "headers.1.name",
                "headers.2.name",
                "headers.3.value"
            ]
        );
        assert_eq!(nonsense.header_map().len(), 1);
    }

    #[test]
    fn an_endpoint_is_a_url() {
        for (endpoint, fine) in [
            ("http://127.0.0.1:4318/v1/traces", true),
            ("https://otel.example.com/v1/traces", true),
            ("https://otel.example.com/", false),
            ("grpc://127.0.0.1:4317/v1/traces", false),
            ("127.0.0.1:4318", false),
        ] {
            let settings = TracesSettings {
                endpoint: endpoint.to_owned(),
                ..TracesSettings::default()
            };
            assert_eq!(settings.problems().is_empty(), fine, "{endpoint}");
        }
    }
}
