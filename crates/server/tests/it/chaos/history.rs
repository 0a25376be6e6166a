//! What clients asked and what they were answered, in the order in which it ended. Plain data: whoever checks it needs
//! no server.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// The tenants of a run, by number.
pub(crate) const TENANTS: [&str; 2] = ["acme", "other"];

/// Since the run began, on the one monotonic clock of the process that runs all clients.
pub(crate) type Moment = Duration;
/// A context of one tenant.
pub(crate) type Name = Arc<str>;

/// The name of an item, which its text spells out. Nobody sends the same twice, except to repeat an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Item {
    pub(crate) tenant: u8,
    pub(crate) client: u16,
    pub(crate) append: u32,
    pub(crate) index: u8,
    /// Whether it has a `client_id`.
    pub(crate) named: bool,
}

impl Item {
    /// The item as it is sent.
    pub(crate) fn body(self) -> String {
        let text = self.to_string();
        if self.named {
            format!(r#"{{"role":"user","content":"{text} and some words to count","client_id":"{text}"}}"#)
        } else {
            format!(r#"{{"role":"user","content":"{text} and some words to count"}}"#)
        }
    }

    /// Reads the item of a body; nothing if a byte of it differs from what was sent.
    pub(crate) fn parse(body: &str) -> Option<Self> {
        let text = body.split_once(r#""content":""#)?.1.split_once(' ')?.0;
        let mut parts = text.split('.');
        let tenant = parts.next()?;
        let tenant = TENANTS.iter().position(|known| *known == tenant)?;
        let item = Self {
            tenant: u8::try_from(tenant).ok()?,
            client: parts.next()?.parse().ok()?,
            append: parts.next()?.parse().ok()?,
            index: parts.next()?.parse().ok()?,
            named: body.contains("client_id"),
        };
        (item.body() == body).then_some(item)
    }
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tenant = TENANTS.get(usize::from(self.tenant)).unwrap_or(&"nobody");
        write!(f, "{tenant}.{}.{}.{}", self.client, self.append, self.index)
    }
}

/// What a client says of how fresh an answer has to be, and whether it sends its token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Demand {
    /// Its token, and the default.
    Session,
    /// No token, and the default.
    Bare,
    /// `strong`.
    Strong,
    /// `bounded`.
    Bounded,
    /// `any`.
    Any,
}

impl Demand {
    /// Whether the request carries the client's token, and what it has seen with it is a floor.
    pub(crate) fn has_floor(self) -> bool {
        matches!(self, Self::Session | Self::Strong)
    }
}

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Create,
    /// Items, and the key that the append is known by.
    Append {
        key: Option<String>,
        items: Vec<Item>,
    },
    Replace {
        items: Vec<Item>,
    },
    Truncate,
    Delete,
    /// Of this context, into the one that the operation names.
    Fork {
        parent: Name,
    },
    Head,
    /// A page of items.
    Items,
    Window,
    List,
    Search,
    BatchGet,
    /// The head of a context that only another tenant has.
    Foreign,
}

impl What {
    pub(crate) fn as_str(&self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Append { .. } => "append",
            Self::Replace { .. } => "replace",
            Self::Truncate => "truncate",
            Self::Delete => "delete",
            Self::Fork { .. } => "fork",
            Self::Head => "head",
            Self::Items => "items",
            Self::Window => "window",
            Self::List => "list",
            Self::Search => "search",
            Self::BatchGet => "batch",
            Self::Foreign => "foreign",
        }
    }

    pub(crate) fn is_write(&self) -> bool {
        matches!(
            self,
            Self::Create
                | Self::Append { .. }
                | Self::Replace { .. }
                | Self::Truncate
                | Self::Delete
                | Self::Fork { .. }
        )
    }
}

/// Where an answer says it came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Origin {
    L1,
    L2,
    Replica,
    Primary,
    Stale,
}

impl Origin {
    pub(crate) fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "l1" => Self::L1,
            "l2" => Self::L2,
            "replica" => Self::Replica,
            "primary" => Self::Primary,
            "stale" => Self::Stale,
            _ => return None,
        })
    }
}

/// How far a context reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) first_seq: u64,
    pub(crate) next_seq: u64,
    pub(crate) items: u64,
}

/// What an answer shows of one context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sight {
    pub(crate) context: Name,
    /// Of the context, unless the answer does not say (a search).
    pub(crate) version: Option<u64>,
    pub(crate) extent: Option<Extent>,
    /// By seq. `None`: an item that nobody sent, or whose bytes differ.
    pub(crate) items: Vec<(u64, Option<Item>)>,
}

impl Sight {
    pub(crate) fn of(context: Name, version: Option<u64>) -> Self {
        Self {
            context,
            version,
            extent: None,
            items: Vec::new(),
        }
    }
}

/// What an append or a replacement answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Appended {
    pub(crate) first_seq: u64,
    pub(crate) last_seq: u64,
    pub(crate) tokens: u64,
    pub(crate) version: u64,
}

/// A good answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Done {
    /// As the header says it; nothing where there is none or an unknown one.
    pub(crate) origin: Option<Origin>,
    /// The header `Age`, in seconds.
    pub(crate) age: Option<u64>,
    /// The `ETag`.
    pub(crate) tag: Option<u64>,
    pub(crate) sights: Vec<Sight>,
    /// Contexts that a batch says are not there.
    pub(crate) absent: Vec<Name>,
    pub(crate) appended: Option<Appended>,
    /// What a truncation says it dropped.
    pub(crate) dropped: Vec<(u64, u64)>,
}

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Done(Done),
    /// It did not happen: 4xx but 429.
    Refused {
        status: u16,
        code: String,
    },
    /// It may have happened, or may yet happen: no answer, 429, 5xx.
    Unknown {
        /// 0 without an answer.
        status: u16,
        why: String,
    },
}

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Operation {
    pub(crate) client: u16,
    pub(crate) node: usize,
    pub(crate) tenant: u8,
    pub(crate) began: Moment,
    pub(crate) ended: Moment,
    /// What it is about; empty for lists, searches and batches.
    pub(crate) context: Name,
    pub(crate) what: What,
    pub(crate) demand: Demand,
    /// What the token that was sent has seen of the contexts in question.
    pub(crate) floors: BTreeMap<Name, u64>,
    pub(crate) answer: Answer,
}

impl Operation {
    pub(crate) fn done(&self) -> Option<&Done> {
        match &self.answer {
            Answer::Done(done) => Some(done),
            _ => None,
        }
    }

    pub(crate) fn is_unknown(&self) -> bool {
        matches!(self.answer, Answer::Unknown { .. })
    }

    /// Whether a single context was said not to be there.
    pub(crate) fn found_nothing(&self) -> bool {
        matches!(&self.answer, Answer::Refused { status: 404, .. })
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "client {} node {} {} {}/{} {:?} {:.3}..{:.3}s floors {:?}: {}",
            self.client,
            self.node,
            self.what.as_str(),
            TENANTS.get(usize::from(self.tenant)).unwrap_or(&"nobody"),
            self.context,
            self.demand,
            self.began.as_secs_f64(),
            self.ended.as_secs_f64(),
            self.floors,
            self.shown()
        )
    }
}

impl Operation {
    /// The answer for a message: long lists of items would hide what matters.
    fn shown(&self) -> String {
        let text = format!("{:?}", self.answer);
        text.chars().take(700).collect()
    }
}

/// A context as the database has it in the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) version: u64,
    pub(crate) deleted: bool,
    pub(crate) extent: Extent,
    pub(crate) items: BTreeMap<u64, Option<Item>>,
}

/// What a node acknowledged in this span may have been unknown to the shared level at that time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Untold {
    pub(crate) node: usize,
    pub(crate) from: Moment,
    pub(crate) to: Moment,
    /// By then the shared level had been told; nothing: the node died before.
    pub(crate) until: Option<Moment>,
}

/// What is checked.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    /// In the order in which they ended.
    pub(crate) operations: Vec<Operation>,
    pub(crate) untold: Vec<Untold>,
    /// By tenant and context.
    pub(crate) kept: BTreeMap<(u8, Name), Kept>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_is_known_by_its_text_and_only_byte_for_byte() {
        let item = Item {
            tenant: 1,
            client: 3,
            append: 40,
            index: 2,
            named: true,
        };
        let body = item.body();
        assert_eq!(Item::parse(&body), Some(item));
        assert_eq!(Item::parse(&body.replace("words", "word")), None);
        assert_eq!(Item::parse(&body.replace("other", "nobody")), None);
        assert_eq!(Item::parse("{}"), None);
    }
}
