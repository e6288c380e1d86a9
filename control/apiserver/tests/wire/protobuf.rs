//! The protobuf form as a client has it, written and read by the table of messages without any code of the server.

use std::collections::{BTreeMap, HashMap};
use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

pub const MEDIA: &str = "application/vnd.kubernetes.protobuf";

type Rows = Vec<(u64, String, String, u64)>;

static TABLE: LazyLock<HashMap<String, Rows>> =
    LazyLock::new(|| serde_json::from_str(include_str!("../../data/protobuf.json")).unwrap());

/// The message of a kind: packages are called after the first word of their group.
fn message_of(api_version: &str, kind: &str) -> String {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let package = group.split('.').next().unwrap();
    let candidates = [
        format!("k8s.io.api.{}.{version}.{kind}", if package.is_empty() { "core" } else { package }),
        format!("k8s.io.api.apiserver{package}.{version}.{kind}"),
        format!("k8s.io.apimachinery.pkg.apis.meta.v1.{kind}"),
        format!("k8s.io.apiextensions_apiserver.pkg.apis.{package}.{version}.{kind}"),
        format!("k8s.io.kube_aggregator.pkg.apis.{package}.{version}.{kind}"),
    ];
    candidates
        .into_iter()
        .find(|name| TABLE.contains_key(name))
        .unwrap_or_else(|| panic!("{api_version} {kind}"))
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    loop {
        let more = value > 0x7f;
        out.push((value & 0x7f) as u8 | if more { 0x80 } else { 0 });
        value >>= 7;
        if !more {
            return out;
        }
    }
}

fn bytes(number: u64, content: &[u8]) -> Vec<u8> {
    [varint(number << 3 | 2), varint(content.len() as u64), content.to_vec()].concat()
}

fn number(number: u64, value: i64) -> Vec<u8> {
    [varint(number << 3), varint(value.cast_unsigned())].concat()
}

/// The bytes a client sends for an object.
pub fn encode(object: &Value) -> Vec<u8> {
    let (version, kind) = (object["apiVersion"].as_str().unwrap(), object["kind"].as_str().unwrap());
    let meta = [bytes(1, version.as_bytes()), bytes(2, kind.as_bytes())].concat();
    let raw = message(&message_of(version, kind), object);
    [b"k8s\0".to_vec(), bytes(1, &meta), bytes(2, &raw)].concat()
}

fn message(name: &str, object: &Value) -> Vec<u8> {
    let mut out = BTreeMap::new();
    for (id, field, kind, flags) in &TABLE[name] {
        let value = &object[field];
        let written = if field.is_empty() {
            bytes(*id, &message(kind, object))
        } else if value.is_null() {
            continue;
        } else if let Some(kind) = kind.strip_prefix("map<string,") {
            let entries = value.as_object().unwrap().iter().map(|(key, value)| {
                bytes(*id, &[bytes(1, key.as_bytes()), one(kind.trim_end_matches('>'), 2, value)].concat())
            });
            entries.collect::<Vec<_>>().concat()
        } else if flags & 1 != 0 {
            value.as_array().unwrap().iter().map(|value| one(kind, *id, value)).collect::<Vec<_>>().concat()
        } else {
            one(kind, *id, value)
        };
        out.insert(*id, written);
    }
    out.into_values().collect::<Vec<_>>().concat()
}

fn one(kind: &str, id: u64, value: &Value) -> Vec<u8> {
    let text = value.as_str().unwrap_or_default();
    match kind.rsplit('.').next().unwrap() {
        "string" => bytes(id, text.as_bytes()),
        "bool" => number(id, value.as_bool().unwrap().into()),
        "int32" | "int64" => number(id, value.as_i64().unwrap()),
        "double" => [varint(id << 3 | 1), value.as_f64().unwrap().to_le_bytes().to_vec()].concat(),
        "bytes" => bytes(id, &STANDARD.decode(text).unwrap()),
        "Quantity" => bytes(id, &bytes(1, text.as_bytes())),
        "IntOrString" if value.is_string() => bytes(id, &[number(1, 1), bytes(3, text.as_bytes())].concat()),
        "IntOrString" => bytes(id, &number(2, value.as_i64().unwrap())),
        "Time" | "MicroTime" => {
            let time: jiff::Timestamp = text.parse().unwrap();
            let parts = [number(1, time.as_second()), number(2, time.subsec_nanosecond().into())];
            bytes(id, &parts.concat())
        }
        "RawExtension" | "FieldsV1" | "JSON" => bytes(id, &bytes(1, value.to_string().as_bytes())),
        "ExtraValue" | "Verbs" => {
            let items =
                value.as_array().unwrap().iter().map(|one| bytes(1, one.as_str().unwrap().as_bytes()));
            bytes(id, &items.collect::<Vec<_>>().concat())
        }
        _ => bytes(id, &message(kind, value)),
    }
}

/// The object an answer holds.
pub fn decode(body: &[u8]) -> Value {
    let envelope = body.strip_prefix(b"k8s\0").expect("the magic of an object");
    let (mut object, mut kind) = (Value::Null, [Value::Null, Value::Null]);
    for (id, part) in parts(envelope) {
        match id {
            1 => parts(&part.content).into_iter().for_each(|(id, part)| kind[id as usize - 1] = part.text()),
            2 => {
                let name = message_of(kind[0].as_str().unwrap_or("v1"), kind[1].as_str().unwrap());
                object = read(&name, &part.content);
            }
            _ => assert!(part.content.is_empty(), "neither compressed nor in another form"),
        }
    }
    object["apiVersion"] = kind[0].take();
    object["kind"] = kind[1].take();
    object
}

/// The events that frames hold, and how many bytes they take.
pub fn event(buffer: &[u8]) -> Option<(Value, usize)> {
    let length = u32::from_be_bytes(buffer.get(..4)?.try_into().unwrap()) as usize;
    let mut out = json!({});
    for (id, part) in parts(buffer.get(4..4 + length)?) {
        match id {
            1 => out["type"] = part.text(),
            _ => out["object"] = decode(&parts(&part.content)[0].1.content),
        }
    }
    Some((out, 4 + length))
}

/// A value on the wire: its number, or its bytes.
struct Part {
    number: u64,
    content: Vec<u8>,
}

impl Part {
    fn text(&self) -> Value {
        json!(String::from_utf8(self.content.clone()).unwrap())
    }
}

fn parts(mut rest: &[u8]) -> Vec<(u64, Part)> {
    fn next(rest: &mut &[u8]) -> u64 {
        let end = rest.iter().position(|byte| byte & 0x80 == 0).unwrap();
        let (own, others) = rest.split_at(end + 1);
        *rest = others;
        own.iter().rev().fold(0, |value, byte| value << 7 | u64::from(byte & 0x7f))
    }
    let mut out = Vec::new();
    while !rest.is_empty() {
        let tag = next(&mut rest);
        let mut part = Part { number: 0, content: Vec::new() };
        match tag & 7 {
            0 => part.number = next(&mut rest),
            wire => {
                let length = if wire == 1 { 8 } else { next(&mut rest) as usize };
                let (own, others) = rest.split_at(length);
                (part.content, rest) = (own.to_vec(), others);
            }
        }
        out.push((tag >> 3, part));
    }
    out
}

fn read(name: &str, content: &[u8]) -> Value {
    let mut out = Map::new();
    for (id, part) in parts(content) {
        let (_, field, kind, flags) =
            TABLE[name].iter().find(|row| row.0 == id).unwrap_or_else(|| panic!("{name} has no field {id}"));
        if field.is_empty() {
            out.extend(read(kind, &part.content).as_object().unwrap().clone());
        } else if let Some(kind) = kind.strip_prefix("map<string,") {
            let entry = parts(&part.content);
            let value = value(kind.trim_end_matches('>'), &entry[1].1);
            out.entry(field).or_insert(json!({}))[entry[0].1.text().as_str().unwrap()] = value;
        } else if flags & 1 != 0 {
            let list = out.entry(field).or_insert(json!([]));
            list.as_array_mut().unwrap().push(value(kind, &part));
        } else {
            out.insert(field.clone(), value(kind, &part));
        }
    }
    Value::Object(out)
}

fn value(kind: &str, part: &Part) -> Value {
    let inner = |id: u64| parts(&part.content).into_iter().find(|(own, _)| *own == id).map(|(_, part)| part);
    let whole = |id: u64| inner(id).map_or(0, |part| part.number.cast_signed());
    match kind.rsplit('.').next().unwrap() {
        "string" => part.text(),
        "bool" => json!(part.number == 1),
        "int32" | "int64" => json!(part.number.cast_signed()),
        "double" => json!(f64::from_le_bytes(part.content.clone().try_into().unwrap())),
        "bytes" => json!(STANDARD.encode(&part.content)),
        "Quantity" => inner(1).unwrap().text(),
        "IntOrString" if whole(1) == 1 => inner(3).unwrap().text(),
        "IntOrString" => json!(whole(2)),
        "Time" => json!(jiff::Timestamp::from_second(whole(1)).unwrap().to_string()),
        "MicroTime" => {
            let time = jiff::Timestamp::new(whole(1), i32::try_from(whole(2)).unwrap()).unwrap();
            json!(time.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string())
        }
        "RawExtension" | "FieldsV1" | "JSON" => serde_json::from_slice(&inner(1).unwrap().content).unwrap(),
        "ExtraValue" | "Verbs" => parts(&part.content).iter().map(|(_, part)| part.text()).collect(),
        _ => read(kind, &part.content),
    }
}
