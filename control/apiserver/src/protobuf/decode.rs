//! Reads the protobuf form that Go clients send, into the same tree JSON gives.

use base64::Engine;
use serde_json::{Map, Value, json};

use super::table::{Field, Kind, MessageId, Union, messages};
use super::{MAGIC, MAX_DEPTH, WireError};
use crate::tree::is_zero;

/// The apiVersion that the object in `body` says it has.
pub fn api_version(body: &[u8]) -> Result<String, WireError> {
    Ok(Envelope::read(body)?.version)
}

/// What stands around an object.
struct Envelope<'a> {
    version: String,
    kind: String,
    raw: &'a [u8],
}

/// The object in `body`, whose type has this name in the schema.
pub fn decode(type_name: &str, body: &[u8]) -> Result<Value, WireError> {
    let Envelope { version, kind, raw } = Envelope::read(body)?;
    let mut fields = match messages().named(type_name) {
        Some(id) => message(id, raw, 0)?,
        None => Map::new(),
    };
    for (name, value) in [("apiVersion", version), ("kind", kind)] {
        if !value.is_empty() {
            fields.insert(name.to_owned(), Value::String(value));
        }
    }
    Ok(Value::Object(fields))
}

impl<'a> Envelope<'a> {
    fn read(body: &'a [u8]) -> Result<Self, WireError> {
        let envelope = body.strip_prefix(MAGIC).ok_or(WireError::Magic)?;
        let (mut kind, mut version, mut raw) = (String::new(), String::new(), &[][..]);
        for part in parts(envelope) {
            match part? {
                (1, Wire::Bytes(meta)) => {
                    for part in parts(meta) {
                        match part? {
                            (1, Wire::Bytes(bytes)) => version = text(bytes)?,
                            (2, Wire::Bytes(bytes)) => kind = text(bytes)?,
                            _ => {}
                        }
                    }
                }
                (2, Wire::Bytes(bytes)) => raw = bytes,
                _ => {}
            }
        }
        Ok(Self { version, kind, raw })
    }
}

/// One value on the wire.
#[derive(Debug, Clone, Copy)]
enum Wire<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message, one after the other.
fn parts(mut rest: &[u8]) -> impl Iterator<Item = Result<(u64, Wire<'_>), WireError>> {
    let mut broken = false;
    std::iter::from_fn(move || {
        if rest.is_empty() || broken {
            return None;
        }
        let part = part(&mut rest);
        broken = part.is_err();
        Some(part)
    })
}

fn part<'a>(rest: &mut &'a [u8]) -> Result<(u64, Wire<'a>), WireError> {
    let tag = varint(rest)?;
    let wire = match tag & 7 {
        0 => Wire::Number(varint(rest)?),
        1 => Wire::Number(u64::from_le_bytes(take(rest, 8)?.try_into().unwrap_or_default())),
        2 => {
            let length = usize::try_from(varint(rest)?).unwrap_or(usize::MAX);
            Wire::Bytes(take(rest, length)?)
        }
        5 => Wire::Number(u32::from_le_bytes(take(rest, 4)?.try_into().unwrap_or_default()).into()),
        _ => return Err(WireError::Type("of the message")),
    };
    Ok((tag >> 3, wire))
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8], WireError> {
    let (head, tail) = rest.split_at_checked(length).ok_or(WireError::Truncated)?;
    *rest = tail;
    Ok(head)
}

fn varint(rest: &mut &[u8]) -> Result<u64, WireError> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, tail) = rest.split_first().ok_or(WireError::Truncated)?;
        *rest = tail;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(WireError::Varint)
}

fn text(bytes: &[u8]) -> Result<String, WireError> {
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_invalid| WireError::Text)
}

fn message(id: MessageId, bytes: &[u8], depth: usize) -> Result<Map<String, Value>, WireError> {
    if depth > MAX_DEPTH {
        return Err(WireError::Depth);
    }
    let mut out = Map::new();
    let fields = messages().message(id);
    for part in parts(bytes) {
        let (number, wire) = part?;
        let Some(field) = fields.numbered(number) else { continue };
        match (&field.kind, wire) {
            (Kind::Map(kind), wire) => {
                let (key, value) = entry(field, kind, wire, depth)?;
                if let Some(map) = out.entry(field.name).or_insert_with(|| json!({})).as_object_mut() {
                    map.insert(key, value);
                }
            }
            (Kind::Message(inner), Wire::Bytes(bytes)) if field.name.is_empty() => {
                out.extend(message(*inner, bytes, depth + 1)?);
            }
            (kind, wire) => {
                let value = single(field, kind, wire, depth)?;
                if field.repeated {
                    if let Some(list) = out.entry(field.name).or_insert_with(|| json!([])).as_array_mut() {
                        list.push(value);
                    }
                } else if field.keeps_zero || !is_zero(&value) {
                    out.insert(field.name.to_owned(), value);
                }
            }
        }
    }
    Ok(out)
}

fn entry(field: &Field, kind: &Kind, wire: Wire<'_>, depth: usize) -> Result<(String, Value), WireError> {
    let Wire::Bytes(bytes) = wire else { return Err(WireError::Type(field.name)) };
    let (mut key, mut value) = (String::new(), None);
    for part in parts(bytes) {
        match part? {
            (1, Wire::Bytes(bytes)) => key = text(bytes)?,
            (2, wire) => value = Some(single(field, kind, wire, depth + 1)?),
            _ => {}
        }
    }
    let value = value.map_or_else(|| single(field, kind, Wire::Bytes(&[]), depth + 1), Ok)?;
    Ok((key, value))
}

fn single(field: &Field, kind: &Kind, wire: Wire<'_>, depth: usize) -> Result<Value, WireError> {
    let bytes = match (kind, wire) {
        (Kind::Bool, Wire::Number(number)) => return Ok(json!(number != 0)),
        // Numbers are written as the two's complement of their 64-bit form.
        (Kind::Integer, Wire::Number(number)) => return Ok(json!(number.cast_signed())),
        (Kind::Double, Wire::Number(number)) => return Ok(json!(f64::from_bits(number))),
        (_, Wire::Bytes(bytes)) => bytes,
        (_, Wire::Number(_)) => return Err(WireError::Type(field.name)),
    };
    match kind {
        Kind::String => text(bytes).map(Value::String),
        Kind::Bytes => Ok(json!(base64::engine::general_purpose::STANDARD.encode(bytes))),
        Kind::Bool | Kind::Integer | Kind::Double | Kind::Map(_) => Err(WireError::Type(field.name)),
        Kind::Quantity => Ok(json!(numbered(bytes)?.text)),
        Kind::IntOrString => {
            let inner = numbered(bytes)?;
            Ok(if inner.first == 1 { json!(inner.text) } else { json!(inner.second) })
        }
        Kind::Time => time(bytes),
        Kind::Raw => raw(bytes),
        Kind::Strings => strings(bytes, 1).map(Value::Array),
        Kind::Union(union) => alternative(*union, bytes, depth),
        Kind::Message(inner) => message(*inner, bytes, depth + 1).map(Value::Object),
    }
}

/// Every text under a number of a message.
fn strings(bytes: &[u8], wanted: u64) -> Result<Vec<Value>, WireError> {
    let mut items = Vec::new();
    for part in parts(bytes) {
        match part? {
            (number, Wire::Bytes(item)) if number == wanted => items.push(Value::String(text(item)?)),
            _ => {}
        }
    }
    Ok(items)
}

/// One of two forms, told apart by which field is there.
fn alternative(union: Union, bytes: &[u8], depth: usize) -> Result<Value, WireError> {
    let schema = |bytes| message(messages().json_schema, bytes, depth + 1).map(Value::Object);
    let (mut allows, mut schemas) = (false, Vec::new());
    for part in parts(bytes) {
        match (union, part?) {
            (Union::Bool, (1, Wire::Number(number))) => allows = number != 0,
            (Union::Bool, (2, Wire::Bytes(inner))) | (_, (1, Wire::Bytes(inner))) => return schema(inner),
            (Union::Schemas, (2, Wire::Bytes(inner))) => schemas.push(schema(inner)?),
            (Union::Strings, (2, _)) => return strings(bytes, 2).map(Value::Array),
            _ => {}
        }
    }
    Ok(if union == Union::Bool { json!(allows) } else { Value::Array(schemas) })
}

/// A small message of numbers 1 and 2 and a text.
#[derive(Default)]
struct Numbered {
    first: i64,
    second: i64,
    text: String,
}

fn numbered(bytes: &[u8]) -> Result<Numbered, WireError> {
    let mut out = Numbered::default();
    for part in parts(bytes) {
        match part? {
            (1, Wire::Number(number)) => out.first = number.cast_signed(),
            (2, Wire::Number(number)) => out.second = number.cast_signed(),
            (_, Wire::Bytes(bytes)) => out.text = text(bytes)?,
            _ => {}
        }
    }
    Ok(out)
}

/// A time; null when it is not set.
fn time(bytes: &[u8]) -> Result<Value, WireError> {
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    let inner = numbered(bytes)?;
    let nanos = i32::try_from(inner.second).unwrap_or_default();
    let time = jiff::Timestamp::new(inner.first, nanos).map_err(|_range| WireError::Type("of a time"))?;
    Ok(json!(time.to_string()))
}

/// JSON inside a message.
fn raw(bytes: &[u8]) -> Result<Value, WireError> {
    for part in parts(bytes) {
        if let (1, Wire::Bytes(inner)) = part? {
            return serde_json::from_slice(inner).map_err(|_syntax| WireError::Raw);
        }
    }
    Ok(Value::Null)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2, u8::try_from(bytes.len()).unwrap()];
        out.extend_from_slice(bytes);
        out
    }

    fn envelope(kind: &str, raw: &[u8]) -> Vec<u8> {
        let meta = [field(1, b"v1"), field(2, kind.as_bytes())].concat();
        [MAGIC.to_vec(), field(1, &meta), field(2, raw)].concat()
    }

    #[test]
    fn names_maps_and_inlined_messages_are_read() {
        let meta =
            [field(1, b"a"), field(2, b""), field(11, &[field(1, b"k"), field(2, b"v")].concat())].concat();
        let volume = [field(1, b"data"), field(2, &field(2, b""))].concat();
        let spec = [field(1, &volume), vec![4 << 3, 0], field(10, b"")].concat();
        let body = envelope("Pod", &[field(1, &meta), field(2, &spec)].concat());
        let pod = decode("io.k8s.api.core.v1.Pod", &body).unwrap();
        let want = json!({"metadata": {"name": "a", "labels": {"k": "v"}}, "kind": "Pod", "apiVersion": "v1",
            "spec": {"volumes": [{"name": "data", "emptyDir": {}}], "terminationGracePeriodSeconds": 0}});
        assert_eq!(pod, want);
    }

    #[test]
    fn schemas_keep_their_unions_and_what_is_false_or_zero() {
        // Numbers above 15 take a second byte: the tag's low seven bits first.
        let high = |number: u16, bytes: &[u8]| {
            let tag = number << 3 | 2;
            let mut out =
                vec![(tag & 0x7f) as u8 | 0x80, (tag >> 7) as u8, u8::try_from(bytes.len()).unwrap()];
            out.extend_from_slice(bytes);
            out
        };
        let items = high(24, &field(1, &field(5, b"string")));
        let closed = high(30, &[1 << 3, 0]);
        let default = field(8, &field(1, b"false"));
        let maximum = [vec![9 << 3 | 1], 0_f64.to_le_bytes().to_vec()].concat();
        let raw = [field(5, b"array"), default, maximum, items, closed].concat();
        let name = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps";
        let mut schema = decode(name, &envelope("", &raw)).unwrap();
        schema.as_object_mut().unwrap().shift_remove("apiVersion");
        let want = json!({"type": "array", "items": {"type": "string"}, "additionalProperties": false,
            "default": false, "maximum": 0.0});
        assert_eq!(schema, want);
    }

    #[test]
    fn broken_bodies_are_errors_and_never_panics() {
        let good = envelope("Pod", &field(1, &field(1, b"a")));
        for end in 0..good.len() {
            drop(decode("io.k8s.api.core.v1.Pod", &good[..end]));
        }
        for at in 4..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0xff;
            drop(decode("io.k8s.api.core.v1.Pod", &bad));
        }
        assert_eq!(decode("io.k8s.api.core.v1.Pod", b"{}"), Err(WireError::Magic));
        assert_eq!(decode("io.k8s.api.core.v1.Pod", b"k8s\0\x12\x7f"), Err(WireError::Truncated));
    }
}
