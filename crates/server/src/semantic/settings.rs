//! The section `context_manager.semantic`.

use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use contextkeep_core::semantic::SemanticLimits;
use schemars::JsonSchema;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use crate::endpoint::{Guards, Target};

/// What is added to the base URL.
pub(super) const PATH: &str = "/embeddings";
/// What is left to a batch beside its requests.
const LEASE_RESERVE: Duration = Duration::from_mins(1);

/// Search by meaning. `contextkeep serve` and `contextkeep mcp` embed, other commands do not.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SemanticSettings {
    /// Base URL of an OpenAI-compatible service, to which `/embeddings` is added: `https://api.openai.com/v1`,
    /// `http://127.0.0.1:11434/v1`. Absent: nothing is embedded, and searches by meaning are refused. Redirects are not
    /// followed; proxies of the environment are not used.
    pub endpoint: Option<String>,
    /// The model's name there. Vectors of another model, or of other dimensions, are not compared with its: after a change
    /// everything is embedded anew, and what is left of the old one is removed when it was not used for 30 days.
    pub model: Option<String>,
    /// Components of the model's vectors. A reply with others is not used.
    #[schemars(range(min = 1, max = 4096))]
    pub dimensions: Option<u16>,
    /// Whether `dimensions` is sent along, for models that can shorten their vectors.
    pub send_dimensions: bool,
    /// Sent as `Authorization: Bearer …` to that host alone; `env:NAME` and `file:PATH` keep it out of the file.
    #[serde(skip_serializing)]
    #[schemars(with = "Option<String>")]
    pub api_key: Option<SecretString>,
    /// PEM file with the certificates that may sign the host's; absent: those that the system trusts.
    pub ca_file: Option<PathBuf>,
    /// Longest time for one request, all attempts and the waits between them together.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String", extend("format" = "duration"))]
    pub timeout: Duration,
    /// Longest time for one attempt.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String", extend("format" = "duration"))]
    pub attempt_timeout: Duration,
    /// Further attempts after one that failed in a way that may pass; `Retry-After` is obeyed. All requests together get
    /// one for every five that are begun, and ten besides.
    #[schemars(range(min = 0, max = 10))]
    pub max_retries: u32,
    /// Most items in one request.
    #[schemars(range(min = 1, max = 512))]
    pub batch: u32,
    /// Longest text of an item that is sent, in characters; what is beyond is not part of its vector. Models take
    /// so many tokens at most, 8192 for those of `OpenAI`.
    #[schemars(range(min = 100, max = 1_000_000))]
    pub max_item_chars: usize,
    /// Largest reply that is read.
    #[schemars(with = "String", extend("format" = "byte-size"))]
    pub max_reply_size: ByteSize,
    /// Most requests at the same time: one for items, the others for questions.
    #[schemars(range(min = 2, max = 256))]
    pub max_concurrent: u32,
    /// How often the server looks for items without a vector when there were none.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String", extend("format" = "duration"))]
    pub poll: Duration,
    /// How long it rests after each request for items, which bounds how many a minute there are.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String", extend("format" = "duration"))]
    pub rest: Duration,
    /// Most items that one question is compared with, the newest first; an answer says when there were more.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub scan_max: u32,
    /// Failures in a row after which nothing is asked for a while.
    #[schemars(range(min = 1, max = 1000))]
    pub failure_threshold: u16,
    /// How long that is.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String", extend("format" = "duration"))]
    pub open_time: Duration,
}

impl Default for SemanticSettings {
    fn default() -> Self {
        Self {
            endpoint: None,
            model: None,
            dimensions: None,
            send_dimensions: false,
            api_key: None,
            ca_file: None,
            timeout: Duration::from_secs(20),
            attempt_timeout: Duration::from_secs(10),
            max_retries: 2,
            batch: 64,
            max_item_chars: 8000,
            max_reply_size: ByteSize::mib(16),
            max_concurrent: 8,
            poll: Duration::from_secs(2),
            rest: Duration::ZERO,
            scan_max: 10_000,
            failure_threshold: 5,
            open_time: Duration::from_secs(30),
        }
    }
}

impl SemanticSettings {
    /// What contradicts itself: key, problem, hint.
    pub fn problems(&self) -> Vec<(&'static str, String, &'static str)> {
        let mut problems = Vec::new();
        if let Some(endpoint) = &self.endpoint {
            if let Err(problem) = Target::parse(endpoint, PATH) {
                problems.push(("endpoint", problem, "for instance https://api.openai.com/v1"));
            }
            let missing = || "is missing, and endpoint is set".to_owned();
            if self.model.as_ref().is_none_or(|model| model.trim().is_empty()) {
                problems.push(("model", missing(), "name the model that is to be asked"));
            }
            if self.dimensions.is_none() {
                problems.push((
                    "dimensions",
                    missing(),
                    "how many components the model's vectors have",
                ));
            }
        } else if self.model.is_some() {
            let problem = "is missing, and model is set".to_owned();
            problems.push(("endpoint", problem, "for instance https://api.openai.com/v1"));
        }
        for (key, duration, hint) in [
            ("timeout", self.timeout, "20s"),
            ("attempt_timeout", self.attempt_timeout, "10s"),
            ("poll", self.poll, "2s"),
            ("open_time", self.open_time, "30s"),
        ] {
            if duration.is_zero() {
                problems.push((key, "is 0, so that nothing could be embedded".to_owned(), hint));
            }
        }
        problems
    }

    /// What the core keeps to.
    pub(super) fn limits(&self) -> SemanticLimits {
        SemanticLimits {
            scan_max: self.scan_max,
            batch: self.batch,
            item_chars: self.max_item_chars,
            lease: self.timeout.saturating_mul(2).saturating_add(LEASE_RESERVE),
            poll: self.poll,
            rest: self.rest,
            ..SemanticLimits::default()
        }
    }

    /// How the endpoint is guarded.
    pub(super) fn guards(&self) -> Guards {
        Guards {
            name: "embeddings",
            timeout: self.timeout,
            attempt_timeout: self.attempt_timeout,
            max_retries: self.max_retries,
            failure_threshold: self.failure_threshold,
            open_time: self.open_time,
            max_concurrent: self.max_concurrent,
        }
    }
}
