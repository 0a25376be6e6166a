//! The SDK's handler: finds out who calls, bounds the call, and hands it to the part that answers.

use std::sync::Arc;

use contextkeep_core::session::Session;
use contextkeep_core::settings::LimitSettings;
use contextkeep_core::{ContextManager, Error, TenantId};
use rmcp::model::{
    CacheScope, CallToolRequestParams, CallToolResponse, CallToolResult, CompleteRequestParams,
    CompleteResult, ContentBlock, DiscoverResult, GetPromptRequestParams, GetPromptResponse, Implementation,
    ListPromptsResult, ListResourceTemplatesResult, ListResourcesResult, ListToolsResult, MetaObject,
    PaginatedRequestParams, ProtocolVersion, ReadResourceRequestParams, ReadResourceResponse,
    ServerCapabilities, ServerConfig, Tool,
};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer, ServerHandler};

use super::fault::Fault;
use super::message::Message;
use super::settings::McpSettings;
use super::{completion, prompts, resources, tools};
use crate::auth::Principal;
use crate::telemetry::traces::Calls;

/// Lists that only a new release changes may be kept for this long.
const STATIC_TTL_MS: u64 = 300_000;
const SERVER_INFO_KEY: &str = "io.modelcontextprotocol/serverInfo";
const INSTRUCTIONS: &str = "Contextkeep stores the history of conversations and tasks outside the model. \
    Create a context once, append every message and tool result to it, and read context_window to resume: it \
    returns the newest whole turns that fit a token budget. Use context_search for what no longer fits.";

/// Answers requests. Cheap to clone; has no state between requests.
#[derive(Clone, Debug)]
pub(super) struct Handler {
    pub(super) manager: Arc<dyn ContextManager>,
    pub(super) limits: Arc<LimitSettings>,
    pub(super) settings: Arc<McpSettings>,
}

impl Handler {
    pub(super) fn new(
        manager: Arc<dyn ContextManager>,
        limits: LimitSettings,
        settings: McpSettings,
    ) -> Self {
        Self {
            manager,
            limits: Arc::new(limits),
            settings: Arc::new(settings),
        }
    }

    /// Runs work in its client's session until it is done, takes too long, or the client goes away.
    async fn bounded<T>(
        &self,
        context: &RequestContext<RoleServer>,
        work: impl Future<Output = Result<T, Fault>> + Send,
    ) -> Result<T, Fault> {
        let after = self.settings.call_timeout;
        let work = in_session(extension(context), work);
        tokio::select! {
            biased;
            () = context.ct.cancelled() => Err(Fault::Cancelled),
            outcome = tokio::time::timeout(after, work) => outcome.unwrap_or(Err(Fault::TimedOut { after })),
        }
    }

    async fn call(
        &self,
        request: CallToolRequestParams,
        context: &RequestContext<RoleServer>,
    ) -> Result<CallToolResult, ErrorData> {
        let call = tools::Call {
            manager: &*self.manager,
            limits: &self.limits,
            chars_max: self.settings.max_result_chars,
            tenant: tenant(context)?,
            arguments: request.arguments.unwrap_or_default(),
            message: extension::<Message>(context).ok_or_else(|| {
                ErrorData::internal_error("the transport kept no copy of the request", None)
            })?,
        };
        let Some(work) = tools::run(&request.name, call) else {
            let text = format!(
                "there is no tool {:?}; tools/list names those that are",
                request.name
            );
            return Err(ErrorData::invalid_params(text, None));
        };
        // What the name is worth is settled: it is one of ours.
        let trace = extension::<Calls>(context)
            .zip(tools::find(&request.name))
            .and_then(|(calls, tool)| calls.begin(tool.name.clone(), context.meta.get_traceparent()));
        let work = self.bounded(context, async { Ok(work.await?.into_result()?) });
        let outcome = match &trace {
            None => work.await,
            Some(trace) => Box::pin(trace.scope(work)).await,
        };
        if let Some(trace) = trace {
            trace.called(outcome.as_ref().err().map(Fault::code));
        }
        Ok(outcome.unwrap_or_else(|fault| {
            tracing::debug!(tool = %request.name, code = fault.code(), "a tool call was refused");
            CallToolResult::error(vec![ContentBlock::text(fault.text())])
        }))
    }
}

/// What a transport put beside the request: over HTTP into the request's parts, over stdio into the message.
fn extension<T: Clone + Send + Sync + 'static>(context: &RequestContext<RoleServer>) -> Option<&T> {
    match context.extensions.get::<axum::http::request::Parts>() {
        Some(parts) => parts.extensions.get(),
        None => context.extensions.get(),
    }
}

/// M5. A session that lost what it had seen in a failover is told so once, and goes on with what is left: the one of a
/// process has nobody who could begin another.
async fn in_session<T>(
    session: Option<&Arc<Session>>,
    work: impl Future<Output = Result<T, Fault>> + Send,
) -> Result<T, Fault> {
    let Some(session) = session else {
        return work.await;
    };
    let outcome = session.scope(work).await;
    if let Err(Fault::Manager(Error::SessionLost { .. })) = &outcome {
        session.forget();
    }
    outcome
}

/// Whose data the request may touch (M1).
fn tenant(context: &RequestContext<RoleServer>) -> Result<&TenantId, ErrorData> {
    extension::<Principal>(context)
        .map(|principal| &principal.tenant)
        .ok_or_else(|| {
            tracing::error!("a request reached the MCP face without a principal");
            ErrorData::internal_error("the server does not know who is calling", None)
        })
}

/// The server's name on a result, which revision 2026-07-28 asks for.
fn signed(context: &RequestContext<RoleServer>) -> Option<MetaObject> {
    let version = context.protocol_version()?;
    (version.as_str() >= ProtocolVersion::V_2026_07_28.as_str()).then(|| {
        let mut meta = MetaObject::new();
        let info = serde_json::json!({"name": "contextkeep", "version": env!("CARGO_PKG_VERSION")});
        meta.insert(SERVER_INFO_KEY.to_owned(), info);
        meta
    })
}

/// Lists of one page take no cursor.
fn no_cursor(request: Option<PaginatedRequestParams>) -> Result<(), ErrorData> {
    match request.and_then(|request| request.cursor) {
        None => Ok(()),
        Some(_) => Err(ErrorData::invalid_params(
            "cursor: this list has one page; leave the cursor out",
            None,
        )),
    }
}

impl ServerHandler for Handler {
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder()
            .enable_tools()
            .enable_resources()
            .enable_prompts()
            .enable_completions()
            .build();
        let implementation =
            Implementation::new("contextkeep", env!("CARGO_PKG_VERSION")).with_title("Contextkeep");
        ServerConfig::new(capabilities)
            .with_server_info(implementation)
            .with_instructions(INSTRUCTIONS)
    }

    async fn discover(&self, _context: RequestContext<RoleServer>) -> Result<DiscoverResult, ErrorData> {
        let versions = self.supported_protocol_versions().into_owned();
        Ok(DiscoverResult::from_server_info(versions, self.get_info())
            .with_ttl_ms(STATIC_TTL_MS)
            .with_cache_scope(CacheScope::Private))
    }

    async fn list_tools(
        &self,
        request: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        no_cursor(request)?;
        let mut result = ListToolsResult::with_all_items(tools::list())
            .with_ttl_ms(STATIC_TTL_MS)
            .with_cache_scope(CacheScope::Private);
        result.meta = signed(&context);
        Ok(result)
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        tools::find(name).cloned()
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let result = self.call(request, &context).await?;
        Ok(result.with_meta(signed(&context)).into())
    }

    async fn list_resources(
        &self,
        request: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        let tenant = tenant(&context)?;
        let cursor = request.and_then(|request| request.cursor);
        let page = resources::page(&*self.manager, tenant, cursor.as_deref());
        let mut result = self
            .bounded(&context, page)
            .await
            .map_err(|fault| fault.into_protocol(None))?;
        result.meta = signed(&context);
        Ok(result)
    }

    async fn list_resource_templates(
        &self,
        request: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        no_cursor(request)?;
        let mut result = ListResourceTemplatesResult::with_all_items(resources::templates())
            .with_ttl_ms(STATIC_TTL_MS)
            .with_cache_scope(CacheScope::Private);
        result.meta = signed(&context);
        Ok(result)
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let tenant = tenant(&context)?;
        let chars_max = self.settings.max_result_chars;
        let read = resources::read(&*self.manager, tenant, &request.uri, chars_max);
        let mut result = self
            .bounded(&context, read)
            .await
            .map_err(|fault| fault.into_protocol(Some(&request.uri)))?;
        result.meta = signed(&context);
        Ok(result.into())
    }

    async fn list_prompts(
        &self,
        request: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListPromptsResult, ErrorData> {
        no_cursor(request)?;
        let mut result = ListPromptsResult::with_all_items(prompts::list())
            .with_ttl_ms(STATIC_TTL_MS)
            .with_cache_scope(CacheScope::Private);
        result.meta = signed(&context);
        Ok(result)
    }

    async fn get_prompt(
        &self,
        request: GetPromptRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<GetPromptResponse, ErrorData> {
        let tenant = tenant(&context)?;
        let chars_max = self.settings.max_result_chars;
        let prompt = prompts::get(&*self.manager, tenant, &request, chars_max);
        let mut result = self
            .bounded(&context, prompt)
            .await
            .map_err(|fault| fault.into_protocol(None))?;
        result.meta = signed(&context);
        Ok(result.into())
    }

    async fn complete(
        &self,
        request: CompleteRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CompleteResult, ErrorData> {
        let tenant = tenant(&context)?;
        let values = completion::complete(&*self.manager, tenant, &request);
        let mut result = self
            .bounded(&context, values)
            .await
            .map_err(|fault| fault.into_protocol(None))?;
        result.meta = signed(&context);
        Ok(result)
    }
}

#[cfg(test)]
mod tests {
    use contextkeep_core::session::{Consistency, Token};
    use contextkeep_core::{ContextId, ContextKey};

    use super::*;

    #[tokio::test]
    async fn what_a_session_lost_is_said_once() {
        let session = Session::new(Consistency::Session, Token::default());
        let key = ContextKey::new(TenantId::parse("acme").unwrap(), ContextId::parse("c").unwrap());
        session.saw(&key, 7);
        let refused = async || Err::<(), _>(Fault::Manager(Error::NotFound));
        in_session(Some(&session), refused()).await.unwrap_err();
        assert_eq!(session.floor(&key).0, Some(7));
        let lost = async || Err::<(), _>(Fault::Manager(Error::SessionLost { seen: 7, actual: 5 }));
        let fault = in_session(Some(&session), lost()).await.unwrap_err();
        assert_eq!(fault.code(), "session_lost");
        assert_eq!(session.floor(&key).0, None);
    }
}
