//! Export and import over HTTP, both as streams.

use std::borrow::Cow;
use std::sync::Arc;

use axum::body::Body as HttpBody;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Response, StatusCode, header};
use contextkeep_core::{ContextKey, ContextManager, Error, Invalid};
use futures_util::{StreamExt as _, TryStreamExt as _};
use http_body_util::BodyExt as _;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::extract::{Key, Params};
use super::problem::{Problem, ProblemDocument};
use super::{Answered, Rest, plain};
use crate::auth::Principal;
use crate::transfer::{Format, Import, LINE_BYTES_MAX, Report, export_context};

pub(super) fn routes() -> OpenApiRouter<Rest> {
    OpenApiRouter::new()
        .routes(routes!(export))
        .routes(routes!(import))
}

/// A context as JSON lines.
#[utoipa::path(get, path = "/v1/contexts/{id}/export", tag = "transfer",
    params(("id" = String, Path), ("format" = Option<String>, Query, description = "`contextkeep` (the default) or `openai-chat`")),
    responses((status = 200, content_type = "application/x-ndjson", body = String), (status = "default", body = ProblemDocument<'_>, content_type = "application/problem+json")))]
async fn export(State(rest): State<Rest>, Key(key): Key, mut params: Params<'static>) -> Answered {
    let format = match params.one("format")? {
        None => Format::default(),
        Some(name) => Format::parse(&name).ok_or_else(|| {
            Error::from(
                Invalid::new("format", format!("{name:?} is not a format"))
                    .hint("contextkeep or openai-chat"),
            )
        })?,
    };
    params.finish()?;
    // What can be wrong before the first byte is a problem document; afterwards only the stream can break.
    rest.manager.get(&key).await?;
    let mut response = Response::new(HttpBody::from_stream(stream(rest.manager.clone(), key, format)));
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/x-ndjson"),
    );
    Ok(response)
}

/// Owns what the export borrows, for as long as the client reads.
fn stream(
    manager: Arc<dyn ContextManager>,
    key: ContextKey,
    format: Format,
) -> impl futures_util::Stream<Item = Result<Vec<u8>, Error>> + Send {
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    tokio::spawn(async move {
        let mut pieces = Box::pin(export_context(manager.as_ref(), &key, format));
        while let Some(piece) = pieces.next().await {
            // A client that stopped reading ends the export.
            if sender.send(piece).await.is_err() {
                return;
            }
        }
    });
    futures_util::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|piece| (piece, receiver))
    })
    .inspect_err(|error| tracing::warn!(%error, "an export broke off"))
}

/// Import contexts: Contextkeep's own export or `OpenAI` chat lines. Importing the same again changes nothing, except for conversations without an `id`, which are new each time.
#[utoipa::path(post, path = "/v1/import", tag = "transfer",
    params(("agent_id" = Option<String>, Query, description = "For conversations that name no agent; `import` if absent")),
    request_body(content = String, content_type = "application/x-ndjson"),
    responses((status = 200, body = Report), (status = "default", body = ProblemDocument<'_>, content_type = "application/problem+json")))]
async fn import(
    State(rest): State<Rest>,
    principal: Principal,
    mut params: Params<'static>,
    request: Request,
) -> Answered {
    let agent_id = params.one("agent_id")?;
    let agent_id = agent_id.map_or_else(|| "import".to_owned(), Cow::into_owned);
    params.finish()?;
    let mut import = Import::new(rest.manager.as_ref(), &rest.limits, principal.tenant, agent_id);
    let mut body = request.into_body();
    let mut line: Vec<u8> = Vec::new();
    while let Some(frame) = next_frame(&rest, &mut body).await? {
        let mut rest_of_frame: &[u8] = &frame;
        while let Some(end) = rest_of_frame.iter().position(|byte| *byte == b'\n') {
            let (head, tail) = rest_of_frame.split_at(end);
            line.extend_from_slice(head);
            import.line(&line).await?;
            line.clear();
            rest_of_frame = &tail[1..];
        }
        line.extend_from_slice(rest_of_frame);
        if line.len() > LINE_BYTES_MAX {
            let (actual, limit) = (line.len() as u64, LINE_BYTES_MAX as u64);
            return Err(Error::TooLarge {
                what: "a line in bytes".into(),
                actual,
                limit,
            }
            .into());
        }
    }
    import.line(&line).await?;
    Ok(plain(StatusCode::OK, &import.finish()))
}

/// The next piece of the body, waited for no longer than `server.request_timeout`.
async fn next_frame(rest: &Rest, body: &mut HttpBody) -> Result<Option<bytes::Bytes>, Problem> {
    loop {
        let frame = tokio::time::timeout(rest.settings.request_timeout, body.frame())
            .await
            .map_err(|_| {
                Problem::new("timeout", "the rest of the file did not arrive")
                    .hint("import the file again; what is there is not imported twice")
            })?;
        match frame {
            None => return Ok(None),
            Some(Err(error)) => {
                return Err(Problem::new(
                    "malformed_request",
                    format!("the body did not arrive whole: {error}"),
                ));
            }
            // Trailers are not lines.
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
}
