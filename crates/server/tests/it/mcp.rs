//! The MCP face, through the SDK's own client and through plain HTTP.

mod bounds;
mod clients;
mod isolation;
mod refusals;
mod resources;
mod sessions;
mod surface;
mod tools;
mod wire;

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::serve::ListenerExt as _;
use contextkeep_core::fake::FakeStore;
use contextkeep_core::settings::LimitSettings;
use contextkeep_core::{ContextManager, StandardContextManager, SystemClock, TenantId};
use contextkeep_server::auth::Principal;
use contextkeep_server::mcp::{self, McpSettings};
use rmcp::model::{CallToolRequestParams, ProtocolVersion};
use rmcp::service::RunningService;
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use rmcp::{ClientLifecycleMode, ClientServiceExt as _, RoleClient};
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Names the tenant, in the place of a credential.
const TENANT_HEADER: &str = "x-test-tenant";

/// The two revisions that the contract names.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Era {
    Legacy,
    Modern,
}

impl Era {
    const BOTH: [Self; 2] = [Self::Legacy, Self::Modern];

    fn lifecycle(self) -> ClientLifecycleMode {
        match self {
            Self::Legacy => ClientLifecycleMode::Initialize,
            Self::Modern => ClientLifecycleMode::Discover {
                preferred_versions: vec![ProtocolVersion::V_2026_07_28],
            },
        }
    }
}

fn principal(tenant: &str) -> Principal {
    Principal {
        admin: false,
        tenant: TenantId::parse(tenant).unwrap(),
        name: format!("{tenant}-key").into(),
    }
}

fn manager() -> Arc<dyn ContextManager> {
    let store = FakeStore::new(Arc::new(SystemClock));
    Arc::new(StandardContextManager::new(
        Arc::new(store),
        LimitSettings::default(),
    ))
}

/// A server on a free port; stops when dropped.
struct Server {
    url: String,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    async fn start() -> Self {
        Self::with(manager(), McpSettings::default()).await
    }

    async fn with(manager: Arc<dyn ContextManager>, settings: McpSettings) -> Self {
        let service = mcp::service(
            manager,
            LimitSettings::default(),
            &settings,
            CancellationToken::new(),
        );
        let app = axum::Router::new()
            .nest("/mcp", service)
            .layer(axum::middleware::from_fn(authenticate));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/mcp", listener.local_addr().unwrap());
        let listener = listener.tap_io(|stream| stream.set_nodelay(true).unwrap());
        let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { url, task }
    }

    async fn client(&self, era: Era, tenant: &str) -> Client {
        let headers = HashMap::from([(
            HeaderName::from_static(TENANT_HEADER),
            HeaderValue::from_str(tenant).unwrap(),
        )]);
        let config = StreamableHttpClientTransportConfig::with_uri(self.url.as_str()).custom_headers(headers);
        let transport = StreamableHttpClientTransport::from_config(config);
        Client(().serve_with_lifecycle(transport, era.lifecycle()).await.unwrap())
    }
}

async fn authenticate(mut request: Request, next: Next) -> axum::response::Response {
    let tenant = request
        .headers()
        .get(TENANT_HEADER)
        .map_or("acme", |value| value.to_str().unwrap())
        .to_owned();
    if tenant != "nobody" {
        request.extensions_mut().insert(principal(&tenant));
    }
    next.run(request).await
}

/// A client of a stdio server in this process.
async fn stdio_client(manager: Arc<dyn ContextManager>, era: Era) -> Client {
    let (ours, theirs) = tokio::io::duplex(4096);
    let (reader, writer) = tokio::io::split(theirs);
    let (limits, settings) = (LimitSettings::default(), McpSettings::default());
    tokio::spawn(mcp::serve_streams(
        manager,
        limits,
        settings,
        principal("acme"),
        None,
        reader,
        writer,
    ));
    Client(().serve_with_lifecycle(ours, era.lifecycle()).await.unwrap())
}

/// The SDK's client, with the two outcomes that tests look at.
struct Client(RunningService<RoleClient, ()>);

impl Client {
    async fn result(&self, tool: &'static str, arguments: Value) -> rmcp::model::CallToolResult {
        let Value::Object(arguments) = arguments else {
            panic!("arguments are an object");
        };
        let request = CallToolRequestParams::new(tool).with_arguments(arguments);
        self.0.call_tool(request).await.unwrap()
    }

    /// The text of a result, which says the same as its structured content.
    async fn text(&self, tool: &'static str, arguments: Value) -> String {
        let result = self.result(tool, arguments).await;
        let text = result.content[0].as_text().unwrap().text.clone();
        assert_ne!(result.is_error, Some(true), "{tool}: {text}");
        let parsed: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(result.structured_content.as_ref(), Some(&parsed), "{tool}");
        text
    }

    async fn call(&self, tool: &'static str, arguments: Value) -> Value {
        serde_json::from_str(&self.text(tool, arguments).await).unwrap()
    }

    /// The text of a refusal.
    async fn refusal(&self, tool: &'static str, arguments: Value) -> String {
        let result = self.result(tool, arguments).await;
        let text = result.content[0].as_text().unwrap().text.clone();
        assert_eq!(result.is_error, Some(true), "{tool} answered {text}");
        assert!(result.structured_content.is_none());
        text
    }

    /// A context with these messages of the user.
    async fn context(&self, id: &str, messages: &[&str]) {
        self.call(
            "context_create",
            serde_json::json!({"id": id, "agent_id": "planner"}),
        )
        .await;
        for message in messages {
            let item = serde_json::json!({"role": "user", "content": message});
            self.call("context_append", serde_json::json!({"id": id, "items": [item]}))
                .await;
        }
    }
}
