//! What rows of custom resources have besides: their definition, and objects that may be older than it.

use bytes::Bytes;
use serde_json::Value;
use store::{Compare, Entry, Revision};

use super::Row;
use crate::definitions::compile;
use crate::name::Name;
use crate::object::{self, Header, Stored};
use crate::schema::{Node, apply_defaults, decode};
use crate::tree::{at, list, set};

/// Where a row comes from.
#[derive(Debug)]
pub struct Custom {
    /// The CustomResourceDefinition as stored; schema and documents are made from its bytes when they are needed.
    pub definition: Stored,
    /// Position of the version in `spec.versions`.
    pub position: usize,
    /// The apiVersion that objects carry in the store.
    pub stored_version: String,
    /// No other version writes objects.
    pub alone: bool,
    /// Objects written up to this revision may have been written under another schema.
    pub since: Revision,
    /// Changes with everything a client can see of the version.
    pub digest: String,
    /// The definition is being deleted: nothing new is created.
    pub terminating: bool,
    pub scale: Option<Scale>,
    /// The sentence with which users of a deprecated version are warned.
    pub deprecation: Option<String>,
}

/// Where an object keeps what a Scale shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scale {
    pub spec: Vec<Name>,
    pub status: Vec<Name>,
    pub selector: Option<Vec<Name>>,
}

impl Custom {
    /// The version of the definition this row is, as a tree.
    pub fn version(&self) -> Value {
        let definition = object::decode(&self.definition);
        list(&definition, &["spec", "versions"]).get(self.position).cloned().unwrap_or_default()
    }

    /// The identity of the definition: one made again under the same name is another.
    pub fn uid(&self) -> &str {
        &self.definition.header.uid
    }

    /// Holds as long as the definition is the one this row was made from. A write that is bound to it follows the
    /// schema and leaves no object behind a deleted definition.
    pub fn unchanged(&self) -> Compare {
        Compare { key: self.definition.key.to_string(), mod_revision: self.definition.mod_revision }
    }

    pub fn schema(&self) -> Node {
        compile::root(at(&self.version(), &["schema", "openAPIV3Schema"]))
    }

    /// Whether the object was written in this version and under this schema.
    fn wrote(&self, entry: &Entry<Header>) -> bool {
        self.alone && entry.mod_revision > self.since
    }
}

impl Row {
    /// Whether an object can be served as the bytes that are stored.
    pub fn serves_as_stored(&self, entry: &Entry<Header>) -> bool {
        self.conversion.is_none() && self.custom.as_ref().is_none_or(|custom| custom.wrote(entry))
    }

    /// Whether objects look in the store as this row shows them when it writes them.
    pub fn shows_what_it_stores(&self) -> bool {
        self.conversion.is_none()
            && self.custom.as_ref().is_none_or(|custom| custom.stored_version == self.api_version())
    }

    /// The object as this row has it; of a built-in kind, in the version it is stored in.
    pub fn read(&self, entry: &Entry<Header>) -> Value {
        self.read_at(entry, entry.mod_revision)
    }

    /// The same with `revision` as its resourceVersion.
    pub fn read_at(&self, entry: &Entry<Header>, revision: Revision) -> Value {
        let stored = object::decode_at(entry, revision);
        match &self.custom {
            Some(custom) if !custom.wrote(entry) => self.convert(stored),
            _ => stored,
        }
    }

    /// An object of another version or schema: unknown fields go, and defaults come that were not there yet.
    fn convert(&self, stored: Value) -> Value {
        // What cannot be decoded any more is shown as it is, so that it can be mended.
        let mut shown = decode::from_value(self.node(), &stored).map_or(stored, |decoded| decoded.value);
        set(&mut shown, &["apiVersion"], self.api_version());
        apply_defaults(self.node(), &mut shown);
        shown
    }

    /// The bytes of an object for the store.
    pub fn encode(&self, object: &Value) -> Bytes {
        match &self.custom {
            Some(custom) if custom.stored_version != self.api_version() => {
                object::encode_as(Some(&custom.stored_version), object)
            }
            _ => object::encode(object),
        }
    }
}
