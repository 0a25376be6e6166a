//! The HTTP endpoint: the SDK's Streamable HTTP service without sessions, behind a handler that keeps the
//! request's bytes and turns the SDK's plain-text refusals of a body into JSON-RPC errors.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use contextkeep_core::ContextManager;
use contextkeep_core::settings::LimitSettings;
use http_body_util::LengthLimitError;
use rmcp::ErrorData;
use rmcp::model::{ErrorCode, JsonRpcError, RequestId};
use rmcp::transport::streamable_http_server::session::never::NeverSessionManager;
use rmcp::transport::{StreamableHttpServerConfig, StreamableHttpService};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::handler::Handler;
use super::message::Message;
use super::settings::McpSettings;
use crate::session;

/// The endpoint, to be nested at `/mcp` behind a layer that puts a [`Principal`](crate::auth::Principal) into
/// the extensions of every request.
///
/// `shutdown` ends what is still running: cancel it when draining is over, not when it begins.
pub fn service(
    manager: Arc<dyn ContextManager>,
    limits: LimitSettings,
    settings: &McpSettings,
    shutdown: CancellationToken,
) -> Router {
    let handler = Handler::new(manager, limits, settings.clone());
    let body_bytes_max = settings.request_bytes_max();
    // Sessions would cost memory per anonymous `initialize` and tie a client to a node; without them both
    // revisions work.
    let config = StreamableHttpServerConfig::default()
        .with_legacy_session_mode(false)
        .with_json_response(settings.json_response)
        .with_allowed_hosts(settings.allowed_hosts.iter().cloned())
        .with_allowed_origins(settings.allowed_origins.iter().cloned())
        .enforce_origin_validation()
        .with_max_request_body_bytes(body_bytes_max)
        .with_cancellation_token(shutdown);
    let sessions = Arc::new(NeverSessionManager::default());
    let endpoint = Endpoint {
        rpc: StreamableHttpService::new(move || Ok(handler.clone()), sessions, config),
        body_bytes_max,
        is_json: settings.json_response,
    };
    Router::new()
        .route("/", axum::routing::any(serve))
        .with_state(endpoint)
}

#[derive(Clone)]
struct Endpoint {
    rpc: StreamableHttpService<Handler, NeverSessionManager>,
    body_bytes_max: usize,
    /// Answers are whole before their head is sent.
    is_json: bool,
}

async fn serve(State(endpoint): State<Endpoint>, request: Request) -> Response {
    if request.method() != Method::POST {
        return endpoint.rpc.handle(request).await.into_response();
    }
    let is_json = has_json_content_type(&request);
    let (mut parts, body) = request.into_parts();
    let bytes = match axum::body::to_bytes(body, endpoint.body_bytes_max).await {
        Ok(bytes) => bytes,
        Err(error) => return unreadable(&error, endpoint.body_bytes_max),
    };
    let session = match session::asked_explicitly(&parts.headers) {
        Ok(session) => session,
        Err(error) => {
            let error = ErrorData::invalid_request(error.to_string(), None);
            return json_rpc(StatusCode::BAD_REQUEST, id_of(&bytes), error);
        }
    };
    parts.extensions.insert(Message(bytes.clone()));
    if let Some(session) = &session {
        parts.extensions.insert(session.clone());
    }
    let request = Request::from_parts(parts, Body::from(bytes.clone()));
    let response = endpoint.rpc.handle(request).await;
    if is_json && response.status() == StatusCode::UNSUPPORTED_MEDIA_TYPE {
        let (id, error) = refusal(&bytes);
        return json_rpc(StatusCode::BAD_REQUEST, id, error);
    }
    let mut response = response.into_response();
    // The head of a stream is gone before anybody knows what the client will have seen.
    if let Some(session) = session.filter(|_| endpoint.is_json) {
        session::tell(&session, &mut response);
    }
    response
}

fn id_of(bytes: &Bytes) -> Option<RequestId> {
    let message: Value = serde_json::from_slice(bytes).ok()?;
    serde_json::from_value(message.get("id")?.clone()).ok()
}

fn has_json_content_type(request: &Request) -> bool {
    request
        .headers()
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .is_some_and(|essence| essence.trim().eq_ignore_ascii_case("application/json"))
}

/// The body could not be read: it is over the limit, or the client stopped sending.
fn unreadable(error: &axum::Error, bytes_max: usize) -> Response {
    let too_large =
        std::error::Error::source(error).is_some_and(<dyn std::error::Error>::is::<LengthLimitError>);
    if too_large {
        json_rpc(StatusCode::PAYLOAD_TOO_LARGE, None, too_long(bytes_max))
    } else {
        let error = ErrorData::parse_error("the request broke off", None);
        json_rpc(StatusCode::BAD_REQUEST, None, error)
    }
}

/// The error for a message over the limit, on both transports.
pub(super) fn too_long(bytes_max: usize) -> ErrorData {
    let text =
        format!("the request is over {bytes_max} bytes (mcp.max_request_size); append fewer items at once");
    ErrorData::new(ErrorCode::INVALID_REQUEST, text, None)
}

/// Why bytes are not a message of the protocol, and the id to answer under where there is one.
pub(super) fn refusal(bytes: &Bytes) -> (Option<RequestId>, ErrorData) {
    match serde_json::from_slice::<Value>(bytes) {
        Err(error) => (None, ErrorData::parse_error(format!("not JSON: {error}"), None)),
        Ok(Value::Array(_)) => {
            let text = "batches are not part of the protocol; send one message per request";
            (None, ErrorData::invalid_request(text, None))
        }
        Ok(value) => {
            let id = value
                .get("id")
                .and_then(|id| serde_json::from_value(id.clone()).ok());
            (
                id,
                ErrorData::invalid_request("not a JSON-RPC 2.0 message of the protocol", None),
            )
        }
    }
}

fn json_rpc(status: StatusCode, id: Option<RequestId>, error: ErrorData) -> Response {
    (status, axum::Json(JsonRpcError::new(id, error))).into_response()
}
