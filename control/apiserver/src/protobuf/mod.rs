//! The protobuf form of built-in kinds: what Go clients send and ask for unless they are told otherwise.

mod decode;
mod encode;
mod json;
#[cfg(test)]
mod published_tests;
mod table;
#[cfg(test)]
mod tests;
pub mod wire;

pub use decode::{api_version, decode};
pub use encode::{Typed, frame, list_head, list_tail, tree};

/// The media type of this form.
pub const MEDIA: &str = "application/vnd.kubernetes.protobuf";

/// What stands before every object in this form.
const MAGIC: &[u8] = b"k8s\0";
/// Messages of a body may lie this deep in each other.
const MAX_DEPTH: usize = 64;

/// Why something is no object in this form, or cannot become one.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum WireError {
    #[error("the body does not begin like a protobuf object")]
    Magic,
    #[error("the body ends in the middle of a field")]
    Truncated,
    #[error("a number of the body is too long")]
    Varint,
    #[error("field {0} has another wire type than expected")]
    Type(&'static str),
    #[error("messages lie too deep in each other")]
    Depth,
    #[error("text of the body is not UTF-8")]
    Text,
    #[error("raw content of the body is not JSON")]
    Raw,
    #[error("the object is not JSON at byte {0}")]
    Json(usize),
    #[error("field {0} holds another type than its kind has")]
    Value(&'static str),
}

/// Whether these bytes are an object in protobuf.
pub fn is(body: &[u8]) -> bool {
    body.starts_with(MAGIC)
}
