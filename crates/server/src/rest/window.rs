//! The window: what a model should see, as items or in a provider's words.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Response};
use contextkeep_core::window::{Cut, Format, Window};
use contextkeep_core::{Answer, Error, Invalid, WindowRequest};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::dto::StoredItem;
use super::extract::{Key, Params};
use super::problem::{Problem, ProblemDocument};
use super::{Answered, Rest, raw_with, tagged};

pub(super) fn routes() -> OpenApiRouter<Rest> {
    OpenApiRouter::new().routes(routes!(window))
}

/// The part of a context that fits a token budget: whole turns, calls with their results, instructions and
/// pinned items always.
///
/// Its beginning stays put while the context grows, so that a provider's prompt cache keeps hitting, and then jumps; with
/// `cut=tight` the window is as full as it can be, and its beginning moves with nearly every turn.
///
/// With `summary=true` a summary of what is left out stands in its place, as a message of the user: in `items` with the seq
/// of the newest item that is left out. A quarter of the budget is set aside for it, at most 1064 tokens; a longer one is
/// cut at its end. It stays the same until the cut moves or a model's or a client's summary of the same range takes the
/// place of the one made of sentences; `prefix_hash` says so. Put yours for the range that `omitted` names.
#[utoipa::path(get, path = "/v1/contexts/{id}/window", tag = "items",
    params(
        ("id" = String, Path),
        ("max_tokens" = Option<u64>, Query, description = "The budget; the context's own if absent"),
        ("reserve" = Option<u64>, Query, description = "Tokens of the budget that the answer will need"),
        ("format" = Option<String>, Query, description = "`items` (the default) as they were sent, `openai.chat`, `openai.responses` or `anthropic`: ready to be sent to the provider"),
        ("cut" = Option<String>, Query, description = "`sticky` (the default) or `tight`"),
        ("summary" = Option<bool>, Query, description = "Whether a summary of what is left out is to stand in its place; `false` by default")),
    responses((status = 200, body = WindowBody), (status = "default", body = ProblemDocument<'_>, content_type = "application/problem+json")))]
async fn window(State(rest): State<Rest>, Key(key): Key, params: Params<'static>) -> Answered {
    let asked = asked(params)?;
    let ready = rest.manager.window(&key, asked.request).await?;
    Ok(answer(HeaderMap::new(), &ready, asked.format))
}

/// The route above, for metrics.
pub(super) const PATH: &str = "/v1/contexts/{id}/window";

/// What a request asks for.
pub(super) struct Asked {
    pub(super) request: WindowRequest,
    pub(super) format: Format,
}

pub(super) fn asked(mut params: Params<'_>) -> Result<Asked, Problem> {
    let max_tokens = params.number("max_tokens")?;
    let reserve = params.number("reserve")?.unwrap_or(0);
    let format = match params.one("format")? {
        None => Format::default(),
        Some(name) => parse_format(&name)?,
    };
    let cut = match params.one("cut")?.as_deref() {
        None | Some("sticky") => Cut::Sticky,
        Some("tight") => Cut::Tight,
        Some(other) => {
            let invalid = Invalid::new("cut", format!("{other:?} is not a cut")).hint("sticky or tight");
            return Err(Error::from(invalid).into());
        }
    };
    let summary = params.flag("summary")?;
    params.finish()?;
    let request = WindowRequest {
        max_tokens,
        reserve,
        cut,
        summary,
    };
    Ok(Asked { request, format })
}

/// The answer. `headers` is an empty map, which may have room.
pub(super) fn answer<B: From<Bytes>>(
    headers: HeaderMap,
    answer: &Answer<Arc<Window>>,
    format: Format,
) -> Response<B> {
    let window = &answer.value;
    // Whoever asks alike gets the same bytes: a window that was kept ready is not written again.
    let body = window
        .written
        .get_or_write(format, || write::window(window, format));
    tagged(raw_with(headers, body, answer.origin), window.version)
}

fn parse_format(name: &str) -> Result<Format, Problem> {
    Format::parse(name).ok_or_else(|| {
        let known = Format::ALL.map(Format::as_str).join(", ");
        Error::from(
            Invalid::new("format", format!("{name:?} is not a format")).hint(format!("one of {known}")),
        )
        .into()
    })
}

/// The part that fits a budget. `items` is there by default, `messages` with `format=openai.chat` and `anthropic`, `input`
/// with `openai.responses`, `system` with `anthropic`. Only documents the shape.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Window)]
pub(crate) struct WindowBody {
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    items: Option<Vec<StoredItem>>,
    /// Messages of Chat Completions or of Anthropic.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<Vec<Object>>)]
    messages: Option<Vec<serde_json::Value>>,
    /// Input items of Responses.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<Vec<Object>>)]
    input: Option<Vec<serde_json::Value>>,
    /// Blocks of Anthropic's system prompt.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<Vec<Object>>)]
    system: Option<Vec<serde_json::Value>>,
    /// Tokens of the items, as they were counted when they came.
    tokens: u64,
    omitted: Option<OmittedBody>,
    /// The summary of what is left out, which is one of the items or messages; only with `summary=true`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    summary: Option<PlacedBody>,
    /// Names the window's beginning: of two windows of one context with the same name the older is a prefix of the newer.
    prefix_hash: String,
    /// The oldest item that is in for its place; null if all are instructions or pinned.
    cut_seq: Option<u64>,
    /// Where a provider's cache breakpoint is best put, at most four.
    cache_breakpoints: Vec<BreakpointBody>,
    version: u64,
    /// `everything_fits`, `cut_at_turn`, `cut_inside_turn`, `kept_pinned`, `cut_kept`, `estimated_tokens`; with
    /// `summary=true` also `summary_pending` (it is being made: ask again) and `summary_left_out` (no room); of a provider's format also `reasoning_dropped`, `unanswered_call_dropped`, `result_without_call_dropped`,
    /// `opaque_dropped`, `error_flag_dropped`, `opening_added`.
    reasons: Vec<String>,
}

/// A place after which the prompt is likely to go on unchanged next time.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CacheBreakpoint)]
pub(crate) struct BreakpointBody {
    /// The last item before it.
    seq: u64,
    /// Where that is in `items`, `messages` or `input`; null for the end of `system`.
    index: Option<u64>,
}

/// Where a window has a summary of what `omitted` names.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PlacedSummary)]
pub(crate) struct PlacedBody {
    /// `extractive`, `model` or `external`.
    kind: String,
    tokens: u64,
    /// The seq that it bears among `items`: that of the newest item that is left out.
    seq: u64,
    /// Where it is in `items`, `messages` or `input`; of messages that were put together, the one that it is part of.
    index: Option<u64>,
}

/// What is not in a window.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Omitted)]
pub(crate) struct OmittedBody {
    first_seq: u64,
    last_seq: u64,
    items: u64,
    tokens: u64,
}

/// Writes a window whose items are copied as they are.
pub(crate) mod write {
    use std::io::Write as _;

    use contextkeep_core::window::{Format, Placed, Rendered, Window};

    use crate::rest::dto::write::{capacity, each, item, number, string};

    pub(crate) fn window(window: &Window, format: Format) -> Vec<u8> {
        let mut out = Vec::with_capacity(capacity(&window.items));
        out.push(b'{');
        let rendered = format.render(&window.items);
        match &rendered {
            None => each(&mut out, "items", &window.items, item),
            Some(rendered) => messages(&mut out, format, rendered),
        }
        out.push(b',');
        number(&mut out, "tokens", window.tokens);
        out.extend_from_slice(b",\"omitted\":");
        match window.omitted {
            None => out.extend_from_slice(b"null"),
            Some(omitted) => write!(
                out,
                "{{\"first_seq\":{},\"last_seq\":{},\"items\":{},\"tokens\":{}}}",
                omitted.first_seq, omitted.last_seq, omitted.items, omitted.tokens
            )
            .expect("invariant: writing to memory does not fail"),
        }
        if let Some(placed) = &window.summary {
            summary(&mut out, placed, window.summary_index(rendered.as_ref()));
        }
        out.extend_from_slice(b",\"prefix_hash\":");
        string(&mut out, &window.prefix_hash);
        out.extend_from_slice(b",\"cut_seq\":");
        nullable(&mut out, window.cut_seq);
        out.push(b',');
        each(
            &mut out,
            "cache_breakpoints",
            &window.breakpoints(rendered.as_ref()),
            |out, (seq, index)| {
                out.push(b'{');
                number(out, "seq", *seq);
                out.extend_from_slice(b",\"index\":");
                nullable(out, index.map(|index| index as u64));
                out.push(b'}');
            },
        );
        out.push(b',');
        number(&mut out, "version", window.version);
        out.push(b',');
        let rendering = rendered.iter().flat_map(|rendered| &rendered.reasons);
        let reasons: Vec<_> = window.reasons.iter().chain(rendering).collect();
        each(&mut out, "reasons", &reasons, |out, reason| {
            string(out, reason.as_str());
        });
        out.push(b'}');
        out
    }

    fn summary(out: &mut Vec<u8>, placed: &Placed, index: Option<usize>) {
        out.extend_from_slice(b",\"summary\":{\"kind\":");
        string(out, placed.kind.as_str());
        for (name, value) in [("tokens", u64::from(placed.tokens)), ("seq", placed.seq)] {
            out.push(b',');
            number(out, name, value);
        }
        out.extend_from_slice(b",\"index\":");
        nullable(out, index.map(|index| index as u64));
        out.push(b'}');
    }

    fn messages(out: &mut Vec<u8>, format: Format, rendered: &Rendered) {
        let copied = |out: &mut Vec<u8>, json: &String| out.extend_from_slice(json.as_bytes());
        if format == Format::Anthropic {
            each(out, "system", &rendered.system, copied);
            out.push(b',');
        }
        let name = if format == Format::Responses {
            "input"
        } else {
            "messages"
        };
        each(out, name, &rendered.messages, copied);
    }

    fn nullable(out: &mut Vec<u8>, value: Option<u64>) {
        match value {
            None => out.extend_from_slice(b"null"),
            Some(value) => write!(out, "{value}").expect("invariant: writing to memory does not fail"),
        }
    }
}
