//! Chat Completions, as `OpenAI` has defined it and many others serve it, behind guards.
//!
//! - **E1** A summary takes at most `timeout`, whatever the endpoint does.
//! - **E2** After `failure_threshold` failures in a row nobody asks for `open_time`; after a `Retry-After` for as long as it
//!   says, for `open_time` at least and [`WAIT_MAX`] at most.
//! - **E3** What is tried again is paid for by a budget, and only when it may fare better.
//! - **E4** Neither the key nor a body is in any message.

use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use contextkeep_core::summary::{Draft, Fault, Summariser};
use contextkeep_resilience::breaker::{Breaker, State};
use contextkeep_resilience::classify::http;
use contextkeep_resilience::settings::Profile;
use contextkeep_resilience::{
    Again, Backoff, Budget, Error, Idempotent, Jitter, Outcome, Policy, Retry, Verdict,
};
use serde::{Deserialize, Serialize};

use super::endpoint::{Endpoint, Target, Trouble};
use super::settings::{OutputTokensField, SummariesSettings};

/// What the guards are called.
const NAME: &str = "summaries";
/// Share of retries among the calls, and retries besides (E3).
const RETRY_SHARE: f64 = 0.2;
const RETRY_RESERVE: u32 = 10;
/// Waits between attempts.
const BACKOFF_FIRST: Duration = Duration::from_millis(500);
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// The longest that an endpoint may send everybody away for.
const WAIT_MAX: Duration = Duration::from_mins(10);

type Judge = fn(Result<&String, &Trouble>) -> Outcome;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Chat {
    endpoint: Endpoint,
    model: String,
    output_tokens_field: OutputTokensField,
    policy: Policy<Judge>,
    breaker: Breaker,
}

/// A request, as far as it is needed.
#[derive(Serialize)]
struct Request<'a> {
    model: &'a str,
    messages: [Message<'a>; 2],
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_completion_tokens: Option<u32>,
}

#[derive(Serialize)]
struct Message<'a> {
    role: &'static str,
    content: &'a str,
}

/// A reply, as far as it is understood.
#[derive(Deserialize)]
struct Reply {
    choices: Vec<Choice>,
}

#[derive(Deserialize)]
struct Choice {
    message: Said,
}

#[derive(Deserialize)]
struct Said {
    content: Option<String>,
}

impl Chat {
    /// The client that the settings describe; none if they name no endpoint.
    pub(super) fn new(settings: &SummariesSettings) -> anyhow::Result<Option<Self>> {
        let (Some(endpoint), Some(model)) = (&settings.endpoint, &settings.model) else {
            return Ok(None);
        };
        let target = Target::parse(endpoint).map_err(|problem| anyhow::anyhow!("endpoint {problem}"))?;
        let endpoint = Endpoint::new(
            target,
            settings.api_key.as_ref(),
            settings.ca_file.as_deref(),
            settings.max_reply_size.as_u64(),
        )?;
        let guards = settings.guards();
        let breaker = guards
            .breaker(NAME, Profile::RestUpstream)
            .max_retry_after(WAIT_MAX)
            .build()
            .context("failure_threshold, open_time")?;
        let retry = Retry::new(settings.max_retries, &Budget::tokens(RETRY_SHARE, RETRY_RESERVE))
            .backoff(Backoff::exponential(BACKOFF_FIRST, BACKOFF_MAX).jitter(Jitter::Full))
            .max_wait(settings.timeout);
        let judge: Judge = judge;
        let policy = Policy::named(NAME)
            .classify(judge)
            .total_timeout(settings.timeout)
            .retry(retry)
            .guard(breaker.clone(), guards.bulkhead(NAME, Profile::RestUpstream))
            .attempt_timeout(settings.attempt_timeout)
            .build();
        Ok(Some(Self {
            endpoint,
            model: model.clone(),
            output_tokens_field: settings.output_tokens_field,
            policy,
            breaker,
        }))
    }

    pub(super) fn origin(&self) -> String {
        self.endpoint.target.origin()
    }

    pub(super) fn breaker(&self) -> State {
        self.breaker.state()
    }

    fn body(&self, draft: &Draft) -> Result<Bytes, Fault> {
        let limit = |field| (self.output_tokens_field == field).then_some(draft.max_tokens);
        let request = Request {
            model: &self.model,
            messages: [
                Message {
                    role: "system",
                    content: draft.instructions,
                },
                Message {
                    role: "user",
                    content: &draft.material,
                },
            ],
            max_tokens: limit(OutputTokensField::MaxTokens),
            max_completion_tokens: limit(OutputTokensField::MaxCompletionTokens),
        };
        let body = serde_json::to_vec(&request);
        body.map(Bytes::from)
            .map_err(|error| Fault::NotAsked(error.to_string()))
    }

    async fn ask(&self, body: Bytes) -> Result<String, Trouble> {
        read(&self.endpoint.post(body).await?)
    }
}

#[async_trait::async_trait]
impl Summariser for Chat {
    async fn summarise(&self, draft: &Draft) -> Result<String, Fault> {
        let body = self.body(draft)?;
        let asked = self.policy.run(Idempotent::Yes, |_| self.ask(body.clone())).await;
        asked.map_err(|error| match error {
            Error::Inner(Trouble::Garbage(what)) => Fault::Unusable(what.to_owned()),
            Error::Rejected(rejected) if rejected.why.is_unsent() => Fault::NotAsked(rejected.to_string()),
            error => Fault::Failed(error.to_string()),
        })
    }
}

/// What an attempt says of the endpoint. A reply that is none is a failure: whatever answers there is no model.
fn judge(result: Result<&String, &Trouble>) -> Outcome {
    match result {
        Ok(_) => Outcome::SUCCESS,
        Err(Trouble::NotConnected(_)) => http::transport(false),
        Err(Trouble::Broken(_)) => http::transport(true),
        Err(Trouble::Status { status, retry_after }) => http::status(*status, *retry_after),
        Err(Trouble::Garbage(_)) => Outcome::new(Verdict::Failure, Again::No),
    }
}

fn read(body: &[u8]) -> Result<String, Trouble> {
    let reply: Reply =
        serde_json::from_slice(body).map_err(|_| Trouble::Garbage("the reply is no chat completion"))?;
    let said = reply
        .choices
        .into_iter()
        .next()
        .and_then(|choice| choice.message.content);
    said.filter(|text| !text.trim().is_empty())
        .ok_or(Trouble::Garbage("the reply says nothing"))
}
