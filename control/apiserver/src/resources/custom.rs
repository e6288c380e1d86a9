//! What rows of custom resources have besides: their definition, and objects that may be older than it.

use bytes::Bytes;
use serde_json::{Value, json};
use store::{Compare, Entry, Revision};

use super::Row;
use crate::definitions::compile;
use crate::name::Name;
use crate::object::{self, Header, Stored};
use crate::schema::{Node, apply_defaults, decode};
use crate::tree::{at, go_text, list, set};
use crate::validate::Errors;

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
}

/// Where an object keeps what a Scale shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scale {
    pub spec: Vec<Name>,
    pub status: Vec<Name>,
    pub selector: Option<Vec<Name>>,
}

impl Scale {
    /// Checks what a Scale would show: of a write of the status only that.
    pub fn check(&self, object: &Value, only_status: bool, errors: &mut Errors) {
        if !only_status {
            check_count(object, &self.spec, errors);
        }
        check_count(object, &self.status, errors);
        if let Some(path) = &self.selector
            && let Err(why) = walk(object, path).and_then(|found| match found {
                None | Some(Value::String(_)) => Ok(()),
                Some(other) => Err(mistyped(path, other, "string")),
            })
        {
            errors.invalid(dotted(path), &json!(""), &why);
        }
    }
}

/// Replicas are numbers of 32 bits, and not negative.
fn check_count(object: &Value, path: &[Name], errors: &mut Errors) {
    let count = walk(object, path).and_then(|found| match found {
        None => Ok(0),
        Some(value) => value.as_i64().ok_or_else(|| mistyped(path, value, "int64")),
    });
    match count {
        Err(why) => errors.invalid(dotted(path), &json!(0), &why),
        Ok(count) if count < 0 => {
            errors.invalid(dotted(path), &json!(count), "should be a non-negative integer");
        }
        Ok(count) if count > i64::from(i32::MAX) => {
            let why = format!("should be less than or equal to {}", i32::MAX);
            errors.invalid(dotted(path), &json!(count), &why);
        }
        Ok(_) => {}
    }
}

fn dotted(path: &[Name]) -> String {
    path.iter().map(|name| format!(".{name}")).collect()
}

/// What lies at a path; the sentence of upstream's where something on the way is no object.
fn walk<'a>(object: &'a Value, path: &[Name]) -> Result<Option<&'a Value>, String> {
    let mut place = object;
    for (depth, name) in path.iter().enumerate() {
        place = match place {
            Value::Object(fields) => match fields.get(&**name) {
                Some(next) => next,
                None => return Ok(None),
            },
            Value::Null => return Ok(None),
            other => return Err(mistyped(&path[..=depth], other, "map[string]interface{}")),
        };
    }
    Ok(Some(place))
}

fn mistyped(path: &[Name], value: &Value, wanted: &str) -> String {
    let given = match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    };
    format!("{} accessor error: {} is of the type {given}, expected {wanted}", dotted(path), go_text(value))
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

    /// Gives what nobody has said the value that it then has.
    pub fn fill_in(&self, object: &mut Value) {
        apply_defaults(self.node(), object);
        (self.defaults)(object);
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
