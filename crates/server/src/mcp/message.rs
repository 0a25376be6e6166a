//! The request as it came over the wire. The SDK parses arguments into a tree, which forgets the order of
//! keys and the spelling of numbers; what has to be kept byte for byte is read from here (M4).

use bytes::Bytes;
use contextkeep_core::error::{Error, Invalid};
use serde::Deserialize;
use serde_json::value::RawValue;

/// The bytes of one JSON-RPC message; each transport puts them into the extensions of the request.
#[derive(Clone, Debug)]
pub(super) struct Message(pub(super) Bytes);

impl Message {
    /// The arguments of a `tools/call` that are kept as text.
    ///
    /// # Errors
    /// [`Error::Invalid`] if a key on the way stands twice, which two readers would understand differently.
    pub(super) fn verbatim(&self) -> Result<Verbatim<'_>, Error> {
        serde_json::from_slice::<Request<'_>>(&self.0)
            .map(|request| request.params.arguments)
            .map_err(|error| Invalid::new("arguments", error.to_string()).into())
    }
}

#[derive(Deserialize)]
struct Request<'a> {
    #[serde(borrow)]
    params: Params<'a>,
}

#[derive(Deserialize)]
struct Params<'a> {
    #[serde(borrow, default)]
    arguments: Verbatim<'a>,
}

/// Arguments as the client spelled them.
#[derive(Default, Deserialize)]
pub(super) struct Verbatim<'a> {
    /// See `context_append`.
    #[serde(borrow, default)]
    pub(super) items: Vec<&'a RawValue>,
    /// See `context_create`.
    #[serde(borrow, default)]
    pub(super) metadata: Option<&'a RawValue>,
}
