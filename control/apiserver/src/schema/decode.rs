//! Decodes an object against its schema: one pass that checks types, canonicalises scalars, and reports unknown and
//! duplicate fields.
//!
//! What the schema does not know is dropped, as by a server with typed structs; so are nulls, and empty lists and maps
//! and most zeros where the field is optional. Of custom objects only unknown fields are dropped, and nulls where none may be; a value
//! of the wrong type is kept for [`super::check`] to name.

use std::cell::RefCell;
use std::fmt;

use base64::Engine;
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::quantity::canonical_quantity;
use super::time::canonical_time;
use super::{ANY, Node, Shape, schema};
use crate::tree::is_zero;

/// A decoded object and what was strange about its text.
#[derive(Debug)]
pub struct Decoded {
    pub value: Value,
    /// Sentences like `unknown field "spec.foo"`, in the order met.
    pub strange: Vec<String>,
}

/// Why a body is not an object of its kind.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The text is not JSON.
    #[error("{0}")]
    Syntax(#[source] serde_json::Error),
    /// A value does not fit its field.
    #[error("{0}")]
    Type(String),
}

/// Decodes JSON text.
pub fn from_slice(node: &Node, text: &[u8]) -> Result<Decoded, DecodeError> {
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let decoded = run(node, &mut deserializer)?;
    deserializer.end().map_err(DecodeError::Syntax)?;
    Ok(decoded)
}

/// Decodes a tree, such as a patched object or parsed YAML; what is given away whole is not copied.
pub fn from_value<'de, D>(node: &Node, value: D) -> Result<Decoded, DecodeError>
where
    D: Deserializer<'de, Error = serde_json::Error>,
{
    run(node, value)
}

fn run<'de, D>(node: &Node, deserializer: D) -> Result<Decoded, DecodeError>
where
    D: Deserializer<'de, Error = serde_json::Error>,
{
    let place = Place::default();
    match (Seed { node, place: &place }).deserialize(deserializer) {
        Ok(value) => Ok(Decoded { value, strange: place.strange.into_inner() }),
        Err(error) => Err(match place.mismatch.into_inner() {
            Some(text) => DecodeError::Type(text),
            None => DecodeError::Syntax(error),
        }),
    }
}

/// Where the decoder is, and what it met so far.
#[derive(Default)]
struct Place {
    path: RefCell<String>,
    strange: RefCell<Vec<String>>,
    mismatch: RefCell<Option<String>>,
    depth: std::cell::Cell<usize>,
}

/// More than this many strange fields are not reported one by one.
const MAX_STRANGE: usize = 100;

impl Place {
    fn report(&self, what: &str, name: &str) {
        let mut strange = self.strange.borrow_mut();
        let sentence = format!("{what} field \"{}\"", self.join(name));
        if strange.len() < MAX_STRANGE && !strange.contains(&sentence) {
            strange.push(sentence);
        }
    }

    fn join(&self, name: &str) -> String {
        let path = self.path.borrow();
        if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
    }

    /// Runs `inner` one level below, at `step`.
    fn below<T>(&self, step: &str, inner: impl FnOnce() -> T) -> T {
        let length = self.path.borrow().len();
        {
            let mut path = self.path.borrow_mut();
            if length > 0 && !step.starts_with('[') {
                path.push('.');
            }
            path.push_str(step);
        }
        self.depth.set(self.depth.get() + 1);
        let result = inner();
        self.depth.set(self.depth.get() - 1);
        self.path.borrow_mut().truncate(length);
        result
    }

    fn mismatch<E: de::Error>(&self, given: &str, wanted: &str) -> E {
        let text =
            format!("json: cannot unmarshal {given} into field {} of type {wanted}", self.path.borrow());
        *self.mismatch.borrow_mut() = Some(text);
        E::custom("mismatch")
    }

    fn invalid<E: de::Error>(&self, text: String) -> E {
        *self.mismatch.borrow_mut() = Some(format!("{}: {text}", self.path.borrow()));
        E::custom("mismatch")
    }
}

#[derive(Clone, Copy)]
struct Seed<'a> {
    node: &'a Node,
    place: &'a Place,
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Seed<'_> {
    fn wanted(&self) -> &str {
        match self.node.shape {
            Shape::String => "string",
            Shape::Int32 => "int32",
            Shape::Int64 => "int64",
            Shape::Number => "float64",
            Shape::Bool => "bool",
            Shape::Quantity => "resource.Quantity",
            Shape::IntOrString => "intstr.IntOrString",
            Shape::Time => "v1.Time",
            Shape::MicroTime => "v1.MicroTime",
            Shape::Bytes => "[]byte",
            Shape::Any => "runtime.RawExtension",
            Shape::List(_) => "[]",
            Shape::Map(_) => "map",
            Shape::Object(_) | Shape::Struct(_) => self
                .node
                .object()
                .map_or("object", |kind| kind.name.rsplit_once("api.").map_or(&*kind.name, |(_, n)| n)),
        }
    }

    /// Whether the value is kept as it came.
    fn keeps(&self) -> bool {
        self.node.custom || matches!(self.node.shape, Shape::Any)
    }

    fn integer<E: de::Error>(&self, number: Number) -> Result<Value, E> {
        if self.keeps() {
            return Ok(Value::Number(number));
        }
        match self.node.shape {
            Shape::Int32 | Shape::IntOrString
                if number.as_i64().is_some_and(|n| i32::try_from(n).is_ok()) =>
            {
                Ok(Value::Number(number))
            }
            Shape::Int64 if number.as_i64().is_some() => Ok(Value::Number(number)),
            Shape::Number => Ok(Value::Number(number)),
            Shape::Quantity => self.text(&number.to_string()),
            _ => Err(self.place.mismatch(&format!("number {number}"), self.wanted())),
        }
    }

    fn text<E: de::Error>(&self, text: &str) -> Result<Value, E> {
        if self.keeps() {
            return Ok(Value::String(text.to_owned()));
        }
        if matches!(self.node.shape, Shape::String | Shape::IntOrString) {
            return Ok(Value::String(text.to_owned()));
        }
        let place = self.place;
        let kept = match self.node.shape {
            Shape::Quantity => Some(canonical_quantity(text).ok_or_else(|| {
                place.invalid(format!(
                    "quantities must match the regular expression \
                     '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$' (given {text:?})"
                ))
            })?),
            Shape::Time | Shape::MicroTime => {
                let micro = matches!(self.node.shape, Shape::MicroTime);
                Some(canonical_time(text, micro).ok_or_else(|| {
                    place.invalid(format!("parsing time {text:?} as \"2006-01-02T15:04:05Z07:00\" failed"))
                })?)
            }
            Shape::Bytes => {
                let bytes = base64::engine::general_purpose::STANDARD.decode(text.replace(['\n', '\r'], ""));
                let bytes = bytes.map_err(|error| place.invalid(format!("illegal base64 data: {error}")))?;
                Some(base64::engine::general_purpose::STANDARD.encode(bytes))
            }
            _ => None,
        };
        kept.map(Value::String).ok_or_else(|| place.mismatch("string", self.wanted()))
    }

    /// Whether a field is left out: as upstream's `omitempty` would, or for a null where a custom schema allows none.
    fn leaves_out(&self, field: &Node, value: &Value) -> bool {
        match (&field.shape, value) {
            (_, Value::Null) if field.custom => !field.nullable,
            _ if field.custom => false,
            // Plain maps keep everything, and so do places of which a custom schema knows nothing.
            (Shape::Any, _) if self.node.custom => false,
            _ if matches!(self.node.shape, Shape::Map(_)) => false,
            (_, Value::Null) => true,
            (Shape::List(of), Value::Array(items)) => items.is_empty() && !is_owner(of),
            (Shape::Map(_), Value::Object(fields)) => fields.is_empty(),
            (_, value) => field.omits_zero && is_zero(value),
        }
    }
}

/// Whether a list is of owners of fields, of which none is more than nothing: it makes forget those that are known.
fn is_owner(node: &Node) -> bool {
    let Shape::Object(id) = node.shape else { return false };
    *schema().types[id].name == *"io.k8s.apimachinery.pkg.apis.meta.v1.ManagedFieldsEntry"
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.wanted())
    }

    fn visit_unit<E: de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Value, E> {
        match self.node.shape {
            Shape::Bool => Ok(Value::Bool(value)),
            _ if self.keeps() => Ok(Value::Bool(value)),
            _ => Err(self.place.mismatch("bool", self.wanted())),
        }
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Value, E> {
        self.integer(value.into())
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Value, E> {
        self.integer(value.into())
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        let number = Number::from_f64(value).ok_or_else(|| E::custom("number out of range"))?;
        match self.node.shape {
            Shape::Number => Ok(Value::Number(number)),
            _ if self.keeps() => Ok(Value::Number(number)),
            Shape::Quantity => self.text(&number.to_string()),
            _ => Err(self.place.mismatch(&format!("number {number}"), self.wanted())),
        }
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Value, E> {
        self.text(value)
    }

    fn visit_string<E: de::Error>(self, value: String) -> Result<Value, E> {
        if self.keeps() || matches!(self.node.shape, Shape::String | Shape::IntOrString) {
            return Ok(Value::String(value));
        }
        self.text(&value)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let item = match self.node.item() {
            Some(item) => item,
            None if self.node.custom => &ANY,
            None => return Err(self.place.mismatch("array", self.wanted())),
        };
        let mut out = Vec::new();
        loop {
            let step = format!("[{}]", out.len());
            let seed = Seed { node: item, place: self.place };
            match self.place.below(&step, || items.next_element_seed(seed))? {
                Some(Value::Null) if !self.keeps() => out.push(zero(item)),
                Some(value) => out.push(value),
                None => return Ok(Value::Array(out)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let place = self.place;
        let fits =
            matches!(self.node.shape, Shape::Object(_) | Shape::Struct(_) | Shape::Map(_) | Shape::Any);
        if !fits && self.node.custom {
            return Seed { node: &ANY, place }.visit_map(entries);
        }
        if !fits {
            return Err(place.mismatch("object", self.wanted()));
        }
        let mut out = Map::new();
        let mut met: Vec<String> = Vec::new();
        while let Some(name) = entries.next_key::<String>()? {
            let Some(child) = self.node.child(&name) else {
                place.report(if met.contains(&name) { "duplicate" } else { "unknown" }, &name);
                met.push(name);
                entries.next_value::<de::IgnoredAny>()?;
                continue;
            };
            let value = place.below(&name, || entries.next_value_seed(Seed { node: child, place }))?;
            if out.contains_key(&name) || met.contains(&name) {
                place.report("duplicate", &name);
            }
            match (&self.node.shape, value) {
                (Shape::Map(_), Value::Null) if !child.custom => _ = out.insert(name, zero(child)),
                (Shape::Object(_) | Shape::Struct(_) | Shape::Map(_), value)
                    if self.leaves_out(child, &value) =>
                {
                    // The last of two duplicates counts, also when it says nothing.
                    out.shift_remove(&name);
                    if !value.is_null() && self.node.object().is_some_and(|own| own.requires(&name)) {
                        out.insert(name.clone(), value);
                    }
                    met.push(name);
                }
                (_, value) => _ = out.insert(name, value),
            }
        }
        Ok(Value::Object(out))
    }
}

/// What a null in a list or map becomes in a typed server.
fn zero(node: &Node) -> Value {
    match node.shape {
        Shape::String | Shape::Bytes => Value::String(String::new()),
        Shape::Object(_) | Shape::Struct(_) | Shape::Map(_) => Value::Object(Map::new()),
        Shape::List(_) => Value::Array(Vec::new()),
        Shape::Int32 | Shape::Int64 => Value::from(0),
        Shape::Bool => Value::Bool(false),
        Shape::Quantity => Value::from("0"),
        _ => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::{Schema, schema};
    use super::*;

    fn decode(kind: &str, text: &str) -> Result<Decoded, DecodeError> {
        let schema: &'static Schema = schema();
        let id = schema.kind("", "v1", kind).unwrap();
        from_slice(&schema.root(id), text.as_bytes())
    }

    #[test]
    fn unknown_and_duplicate_fields_are_reported_and_dropped() {
        let decoded =
            decode("Pod", r#"{"spec":{"foo":1,"nodeName":"a","nodeName":"b","containers":[{"nme":"x"}]}}"#);
        let decoded = decoded.unwrap();
        assert_eq!(decoded.value, json!({"spec": {"nodeName": "b", "containers": [{}]}}));
        let want = [
            r#"unknown field "spec.foo""#,
            r#"duplicate field "spec.nodeName""#,
            r#"unknown field "spec.containers[0].nme""#,
        ];
        assert_eq!(decoded.strange, want);
        let decoded =
            decode("Pod", r#"{"spec":{"nodeName":"a","nodeName":"b","nodeName":"c","a":1,"a":2,"a":3}}"#);
        let want = [
            r#"duplicate field "spec.nodeName""#,
            r#"unknown field "spec.a""#,
            r#"duplicate field "spec.a""#,
        ];
        assert_eq!(decoded.unwrap().strange, want);
    }

    #[test]
    fn a_wrong_type_names_its_field() {
        let error = decode("Pod", r#"{"spec":{"containers":"x"}}"#).unwrap_err();
        assert_eq!(error.to_string(), "json: cannot unmarshal string into field spec.containers of type []");
        let error = decode("Service", r#"{"spec":{"ports":[{"port":"80"}]}}"#).unwrap_err();
        assert_eq!(
            error.to_string(),
            "json: cannot unmarshal string into field spec.ports[0].port of type int32"
        );
    }

    #[test]
    fn broken_text_is_refused() {
        for text in ["", "{", "{\"a\":}", "[1", "{} x", "\u{0}"] {
            assert!(decode("Pod", text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn deep_nesting_is_refused_not_overflowed() {
        let text = format!("{}{}", r#"{"data":"#.repeat(10_000), "}".repeat(10_000));
        let schema = schema();
        let id = schema.kind("apps", "v1", "ControllerRevision").unwrap();
        assert!(from_slice(&schema.root(id), text.as_bytes()).is_err());
    }

    #[test]
    fn nulls_and_empty_optional_lists_are_left_out() {
        let decoded =
            decode("Pod", r#"{"metadata":{"creationTimestamp":null,"labels":{}},"spec":{"volumes":[]}}"#);
        assert_eq!(decoded.unwrap().value, json!({"metadata": {}, "spec": {}}));
    }

    #[test]
    fn zeros_are_left_out_where_go_does_not_write_them() {
        let read = |kind, text: &str| decode(kind, text).unwrap().value;
        let given = r#"{"metadata":{"generateName":"","annotations":{"a":""}},"spec":{
            "hostNetwork":false,"hostPID":false,"nodeName":"","priority":0,"terminationGracePeriodSeconds":0,
            "automountServiceAccountToken":false,"containers":[{"name":"","tty":false,"args":[""],
            "env":[{"name":"A","value":""}],"livenessProbe":{"initialDelaySeconds":0,
            "terminationGracePeriodSeconds":0,"grpc":{"port":0,"service":""}}}],
            "ephemeralContainers":[{"restartPolicy":""}]}}"#;
        let kept = json!({
            "metadata": {"annotations": {"a": ""}},
            "spec": {
                "priority": 0, "terminationGracePeriodSeconds": 0, "automountServiceAccountToken": false,
                "containers": [{
                    "name": "", "args": [""], "env": [{"name": "A"}],
                    "livenessProbe": {"terminationGracePeriodSeconds": 0, "grpc": {"port": 0, "service": ""}},
                }],
                "ephemeralContainers": [{"restartPolicy": ""}],
            },
        });
        assert_eq!(read("Pod", given), kept);
        let event = json!({"involvedObject": {}, "metadata": {}, "reportingComponent": "", "count": 0});
        let mut kept = event.clone();
        kept.as_object_mut().unwrap().shift_remove("count");
        assert_eq!(read("Event", &event.to_string()), kept);
    }

    #[test]
    fn quantities_are_canonical_and_bad_ones_are_refused() {
        let text =
            |q: &str| format!(r#"{{"spec":{{"containers":[{{"resources":{{"limits":{{"cpu":{q}}}}}}}]}}}}"#);
        let decoded = decode("Pod", &text("1")).unwrap();
        assert_eq!(decoded.value["spec"]["containers"][0]["resources"]["limits"]["cpu"], "1");
        let decoded = decode("Pod", &text("\"1500m\"")).unwrap();
        assert_eq!(decoded.value["spec"]["containers"][0]["resources"]["limits"]["cpu"], "1500m");
        assert!(decode("Pod", &text("\"lots\"")).is_err());
    }
}
