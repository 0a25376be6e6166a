//! Embeddings, as `OpenAI` has defined them and many others serve them, behind guards.

use bytes::Bytes;
use contextkeep_core::semantic::{Embedder, Fault};
use contextkeep_resilience::Error;
use contextkeep_resilience::breaker::State;
use serde::{Deserialize, Serialize};

use super::settings::{PATH, SemanticSettings};
use crate::endpoint::{Endpoint, Guarded, Trouble};

/// Replies over this many bytes are read off the reactor.
const INLINE_BYTES_MAX: usize = 64 * 1024;
/// What a service says of an input that it does not take: malformed, too large, not to be processed.
const REFUSED: [u16; 3] = [400, 413, 422];

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Embeddings {
    endpoint: Guarded<Vec<Vec<f32>>>,
    model: String,
    dimensions: u16,
    send_dimensions: bool,
}

/// A request, as far as it is needed.
#[derive(Serialize)]
struct Request<'a> {
    model: &'a str,
    input: &'a [&'a str],
    #[serde(skip_serializing_if = "Option::is_none")]
    dimensions: Option<u16>,
}

/// A reply, as far as it is understood.
#[derive(Deserialize)]
struct Reply {
    data: Vec<Embedding>,
}

#[derive(Deserialize)]
struct Embedding {
    /// Of its text; as they come if it is not said.
    index: Option<usize>,
    embedding: Vec<f32>,
}

impl Embeddings {
    /// The client that the settings describe; none if they name no endpoint.
    pub(super) fn new(settings: &SemanticSettings) -> anyhow::Result<Option<Self>> {
        let (Some(endpoint), Some(model), Some(dimensions)) =
            (&settings.endpoint, &settings.model, settings.dimensions)
        else {
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
            dimensions,
            send_dimensions: settings.send_dimensions,
        }))
    }

    pub(super) fn origin(&self) -> String {
        self.endpoint.origin()
    }

    pub(super) fn breaker(&self) -> State {
        self.endpoint.breaker()
    }
}

#[async_trait::async_trait]
impl Embedder for Embeddings {
    fn model(&self) -> &str {
        &self.model
    }

    fn dimensions(&self) -> u16 {
        self.dimensions
    }

    fn is_ready(&self) -> bool {
        !matches!(self.breaker(), State::Open | State::Isolated)
    }

    async fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, Fault> {
        let request = Request {
            model: &self.model,
            input: texts,
            dimensions: self.send_dimensions.then_some(self.dimensions),
        };
        let body = serde_json::to_vec(&request).map_err(|error| Fault::Refused(error.to_string()))?;
        let (count, dimensions) = (texts.len(), usize::from(self.dimensions));
        let asked = self
            .endpoint
            .ask(body.into(), |reply| read(reply, count, dimensions))
            .await;
        asked.map_err(fault)
    }
}

fn fault(error: Error<Trouble>) -> Fault {
    match error {
        Error::Inner(Trouble::Garbage(what)) => Fault::Unusable(what.to_owned()),
        Error::Inner(Trouble::Status { status, .. }) if REFUSED.contains(&status) => {
            Fault::Refused(format!("status {status}"))
        }
        Error::Inner(Trouble::Status { status, retry_after }) => Fault::Failed {
            detail: format!("status {status}"),
            retry_after,
        },
        Error::Rejected(rejected) if rejected.why.is_unsent() => Fault::NotAsked {
            retry_after: rejected.retry_after,
            detail: rejected.to_string(),
        },
        error => Fault::Failed {
            detail: error.to_string(),
            retry_after: None,
        },
    }
}

/// The vectors of a reply, in the order of the texts.
async fn read(body: Bytes, count: usize, dimensions: usize) -> Result<Vec<Vec<f32>>, Trouble> {
    if body.len() <= INLINE_BYTES_MAX {
        return parse(&body, count, dimensions);
    }
    tokio::task::spawn_blocking(move || parse(&body, count, dimensions))
        .await
        .map_err(|_| Trouble::Garbage("reading the reply panicked"))?
}

fn parse(body: &[u8], count: usize, dimensions: usize) -> Result<Vec<Vec<f32>>, Trouble> {
    let reply: Reply =
        serde_json::from_slice(body).map_err(|_| Trouble::Garbage("the reply holds no embeddings"))?;
    if reply.data.len() != count {
        return Err(Trouble::Garbage("the reply has not one embedding for each text"));
    }
    let mut vectors: Vec<Option<Vec<f32>>> = vec![None; count];
    for (place, one) in reply.data.into_iter().enumerate() {
        if one.embedding.len() != dimensions {
            return Err(Trouble::Garbage(
                "the reply's embeddings do not have as many dimensions as are configured",
            ));
        }
        if !one.embedding.iter().all(|component| component.is_finite()) {
            return Err(Trouble::Garbage(
                "the reply's embeddings have components that are no numbers",
            ));
        }
        match vectors.get_mut(one.index.unwrap_or(place)) {
            Some(free @ None) => *free = Some(one.embedding),
            _ => return Err(Trouble::Garbage("the reply's embeddings are not of the texts")),
        }
    }
    // As many as there are places, each another one: none is left out.
    Ok(vectors.into_iter().flatten().collect())
}
