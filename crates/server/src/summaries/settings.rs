//! The section `context_manager.summaries`.

use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use contextkeep_core::summary::ModelLimits;
use schemars::JsonSchema;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use crate::endpoint::{Guards, Target};

/// What is added to the base URL.
pub(super) const PATH: &str = "/chat/completions";

/// Summaries by a model: when one is configured, whoever asks for a summary gets the one made of sentences that were said
/// at once, and the model's as soon as it is there. The model is asked in the background, never by an append, and only for
/// what somebody asked a summary of. What it is sent is the conversation: configure an endpoint that may see it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SummariesSettings {
    /// Base URL of an OpenAI-compatible service, to which `/chat/completions` is added: `https://api.openai.com/v1`,
    /// `http://127.0.0.1:11434/v1`. Absent: no model is asked. Redirects are not followed; proxies of the environment are
    /// not used.
    pub endpoint: Option<String>,
    /// The model's name there.
    pub model: Option<String>,
    /// Sent as `Authorization: Bearer …` to that host alone; `env:NAME` and `file:PATH` keep it out of the file.
    #[serde(skip_serializing)]
    #[schemars(with = "Option<String>")]
    pub api_key: Option<SecretString>,
    /// PEM file with the certificates that may sign the host's; absent: those that the system trusts.
    pub ca_file: Option<PathBuf>,
    /// Longest time for one summary, all attempts and the waits between them together.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String", extend("format" = "duration"))]
    pub timeout: Duration,
    /// Longest time for one attempt.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String", extend("format" = "duration"))]
    pub attempt_timeout: Duration,
    /// Further attempts after one that failed in a way that may pass; `Retry-After` is obeyed. All summaries together get
    /// one for every five that are begun, and ten besides.
    #[schemars(range(min = 0, max = 10))]
    pub max_retries: u32,
    /// Most tokens of what the model is sent, as the context counts them, which may not be as the model does.
    #[schemars(range(min = 1000, max = 1_000_000))]
    pub max_input_tokens: u32,
    /// Most tokens of a summary. The model is told, and what is longer is cut.
    #[schemars(range(min = 50, max = 4000))]
    pub max_output_tokens: u32,
    /// How the model is told. Some reasoning models take `max_completion_tokens` only, most servers know
    /// `max_tokens`.
    pub output_tokens_field: OutputTokensField,
    /// Largest reply that is read.
    #[schemars(with = "String", extend("format" = "byte-size"))]
    pub max_reply_size: ByteSize,
    /// Most summaries that are asked for at the same time.
    #[schemars(range(min = 1, max = 256))]
    pub max_concurrent: u32,
    /// Most contexts that wait for a summary. Tenants take turns; when it is full, the tenant with most of them gives way.
    #[schemars(range(min = 1, max = 100_000))]
    pub queue: usize,
    /// How long a context waits after a failure before the model is asked for it again.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String", extend("format" = "duration"))]
    pub rest: Duration,
    /// Failures in a row after which the model is not asked for a while.
    #[schemars(range(min = 1, max = 1000))]
    pub failure_threshold: u16,
    /// How long that is.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String", extend("format" = "duration"))]
    pub open_time: Duration,
}

/// The field of a request that bounds the answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OutputTokensField {
    /// Known to nearly every server.
    #[default]
    MaxTokens,
    /// The only one that newer models of `OpenAI` take.
    MaxCompletionTokens,
}

impl Default for SummariesSettings {
    fn default() -> Self {
        Self {
            endpoint: None,
            model: None,
            api_key: None,
            ca_file: None,
            timeout: Duration::from_mins(2),
            attempt_timeout: Duration::from_mins(1),
            max_retries: 2,
            max_input_tokens: 16_000,
            max_output_tokens: 800,
            output_tokens_field: OutputTokensField::default(),
            max_reply_size: ByteSize::mib(1),
            max_concurrent: 2,
            queue: 256,
            rest: Duration::from_mins(1),
            failure_threshold: 5,
            open_time: Duration::from_secs(30),
        }
    }
}

impl SummariesSettings {
    /// What contradicts itself: key, problem, hint.
    pub fn problems(&self) -> Vec<(&'static str, String, &'static str)> {
        let mut problems = Vec::new();
        match (&self.endpoint, &self.model) {
            (Some(endpoint), _) => {
                if let Err(problem) = Target::parse(endpoint, PATH) {
                    problems.push(("endpoint", problem, "for instance https://api.openai.com/v1"));
                }
                if self.model.as_ref().is_none_or(|model| model.trim().is_empty()) {
                    let problem = "is missing, and endpoint is set".to_owned();
                    problems.push(("model", problem, "name the model that is to be asked"));
                }
            }
            (None, Some(_)) => {
                let problem = "is missing, and model is set".to_owned();
                problems.push(("endpoint", problem, "for instance https://api.openai.com/v1"));
            }
            (None, None) => {}
        }
        for (key, duration) in [
            ("timeout", self.timeout),
            ("attempt_timeout", self.attempt_timeout),
            ("open_time", self.open_time),
        ] {
            if duration.is_zero() {
                problems.push((key, "is 0, so that no summary could be made".to_owned(), "60s"));
            }
        }
        problems
    }

    /// What the core keeps to.
    pub(super) fn limits(&self) -> ModelLimits {
        ModelLimits {
            max_input_tokens: self.max_input_tokens,
            max_output_tokens: self.max_output_tokens,
            max_concurrent: usize::try_from(self.max_concurrent).unwrap_or(usize::MAX),
            queue: self.queue,
            rest: self.rest,
        }
    }

    /// How the endpoint is guarded.
    pub(super) fn guards(&self) -> Guards {
        Guards {
            name: "summaries",
            timeout: self.timeout,
            attempt_timeout: self.attempt_timeout,
            max_retries: self.max_retries,
            failure_threshold: self.failure_threshold,
            open_time: self.open_time,
            max_concurrent: self.max_concurrent,
        }
    }
}
