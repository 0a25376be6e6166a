//! Chat Completions, as `OpenAI` has defined it and many others serve it, behind guards.

use bytes::Bytes;
use contextkeep_core::summary::{Draft, Fault, Summariser};
use contextkeep_resilience::Error;
use contextkeep_resilience::breaker::State;
use serde::{Deserialize, Serialize};

use super::settings::{OutputTokensField, PATH, SummariesSettings};
use crate::endpoint::{Endpoint, Guarded, Trouble};

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Chat {
    endpoint: Guarded<String>,
    model: String,
    output_tokens_field: OutputTokensField,
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
        let endpoint = Endpoint::new(
            (endpoint, PATH),
            settings.api_key.as_ref(),
            settings.ca_file.as_deref(),
            settings.max_reply_size.as_u64(),
        )?;
        Ok(Some(Self {
            endpoint: Guarded::new(endpoint, &settings.guards())?,
            model: model.clone(),
            output_tokens_field: settings.output_tokens_field,
        }))
    }

    pub(super) fn origin(&self) -> String {
        self.endpoint.origin()
    }

    pub(super) fn breaker(&self) -> State {
        self.endpoint.breaker()
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
}

#[async_trait::async_trait]
impl Summariser for Chat {
    async fn summarise(&self, draft: &Draft) -> Result<String, Fault> {
        let asked = self
            .endpoint
            .ask(self.body(draft)?, |reply| async move { read(&reply) })
            .await;
        asked.map_err(|error| match error {
            Error::Inner(Trouble::Garbage(what)) => Fault::Unusable(what.to_owned()),
            Error::Rejected(rejected) if rejected.why.is_unsent() => Fault::NotAsked(rejected.to_string()),
            error => Fault::Failed(error.to_string()),
        })
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
