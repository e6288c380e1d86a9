//! Tests that go from JSON to protobuf and back, and that another implementation reads and writes the same bytes.

use proptest::prelude::*;
use prost::Message as _;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Map, Value, json};

use super::table::{Field, Kind, MessageId, Union, messages};
use super::{Typed, decode, tree};

/// An object with any of the fields of a message; what is absent and what is zero are the same, so nothing is zero.
fn object(random: &mut StdRng, id: MessageId, depth: usize) -> Map<String, Value> {
    let mut out = Map::new();
    for field in &messages().message(id).fields {
        let deep = match &field.kind {
            Kind::Map(value) => is_deep(value),
            kind => is_deep(kind),
        };
        // Schemas hold schemas in a dozen places.
        if random.random_bool(if deep { (0.2 + 0.13 * depth as f64).min(1.0) } else { 0.3 }) {
            continue;
        }
        match &field.kind {
            Kind::Message(inner) if field.name.is_empty() => out.extend(object(random, *inner, depth)),
            _ => {
                out.insert(field.name.to_owned(), several(random, field, depth));
            }
        }
    }
    out
}

fn is_deep(kind: &Kind) -> bool {
    matches!(kind, Kind::Message(_) | Kind::Union(_))
}

fn several(random: &mut StdRng, field: &Field, depth: usize) -> Value {
    let count = random.random_range(1..3);
    match &field.kind {
        Kind::Map(kind) => {
            let entries = (0..count).map(|_| (word(random), one(random, kind, depth)));
            Value::Object(entries.collect())
        }
        kind if field.repeated => (0..count).map(|_| one(random, kind, depth)).collect(),
        kind => one(random, kind, depth),
    }
}

fn word(random: &mut StdRng) -> String {
    let length = if random.random_bool(0.05) { 300 } else { random.random_range(1..12) };
    let letters = ['a', 'ß', '"', '\\', '\n', '€', '🦀', '\u{1}', '/', ' '];
    (0..length).map(|_| letters[random.random_range(0..letters.len())]).collect()
}

fn one(random: &mut StdRng, kind: &Kind, depth: usize) -> Value {
    let second = random.random_range(1_i64..4_000_000_000);
    match kind {
        Kind::Bool => json!(true),
        Kind::Integer => json!(random.random_range(1_i64..i64::MAX) * if random.random() { 1 } else { -1 }),
        Kind::Double => json!(random.random_range(0.1..1e300)),
        Kind::String | Kind::Quantity => json!(word(random)),
        Kind::Bytes => json!("aGF3c2Vy"),
        Kind::IntOrString => {
            [json!(word(random)), json!(random.random_range(1..70_000))][random.random_range(0..2)].take()
        }
        Kind::Time => json!(jiff::Timestamp::from_second(second).unwrap().to_string()),
        Kind::Raw => json!({ word(random): [1, null, { "x": word(random) }], "f:metadata": {} }),
        Kind::Strings => json!([word(random), word(random)]),
        Kind::Union(union) => {
            let schema = Value::Object(object(random, messages().json_schema, depth + 2));
            let other = match union {
                Union::Bool => json!(random.random::<bool>()),
                Union::Schemas => json!([schema.clone()]),
                Union::Strings => json!([word(random)]),
            };
            if random.random() { schema } else { other }
        }
        Kind::Map(_) => unreachable!("no map holds maps"),
        Kind::Message(id) => Value::Object(object(random, *id, depth + 1)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn what_is_written_is_what_is_read(seed: u64) {
        let mut random = StdRng::seed_from_u64(seed);
        for row in crate::resources::builtin().rows() {
            let kind = Typed::of(&row.api_version(), &row.kind).unwrap();
            let mut want = Value::Object(object(&mut random, kind.message, 0));
            want["kind"] = json!(row.kind);
            want["apiVersion"] = json!(row.api_version());
            let written = tree(&want).unwrap().unwrap();
            let name = row.node().object().map(|kind| kind.name.to_string()).unwrap();
            prop_assert_eq!(decode(&name, &written).unwrap(), want);
        }
    }

    #[test]
    fn no_json_makes_the_writer_panic(seed: u64, cut in 0_usize..4000, change: u8) {
        let kind = Typed::of("v1", "Pod").unwrap();
        let mut text = serde_json::to_vec(&object(&mut StdRng::seed_from_u64(seed), kind.message, 0)).unwrap();
        let at = cut % text.len();
        text[at] ^= change;
        drop(kind.object(&mut Vec::new(), &text, Some(1)));
        drop(kind.object(&mut Vec::new(), &text[..at], Some(1)));
    }
}

/// Parts of upstream's messages, numbered by hand from its published definitions.
#[derive(Clone, PartialEq, prost::Message)]
struct Unknown {
    #[prost(message, tag = "1")]
    type_meta: Option<TypeMeta>,
    #[prost(bytes, tag = "2")]
    raw: Vec<u8>,
    #[prost(string, optional, tag = "3")]
    content_encoding: Option<String>,
    #[prost(string, optional, tag = "4")]
    content_type: Option<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct TypeMeta {
    #[prost(string, tag = "1")]
    api_version: String,
    #[prost(string, tag = "2")]
    kind: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Service {
    #[prost(message, tag = "1")]
    metadata: Option<Metadata>,
    #[prost(message, tag = "2")]
    spec: Option<ServiceSpec>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Metadata {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "6")]
    resource_version: String,
    #[prost(int64, optional, tag = "7")]
    generation: Option<i64>,
    #[prost(message, tag = "8")]
    creation: Option<Time>,
    #[prost(btree_map = "string, string", tag = "11")]
    labels: std::collections::BTreeMap<String, String>,
    #[prost(message, repeated, tag = "17")]
    managed: Vec<Managed>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Time {
    #[prost(int64, optional, tag = "1")]
    seconds: Option<i64>,
    #[prost(int32, optional, tag = "2")]
    nanos: Option<i32>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Managed {
    #[prost(string, tag = "1")]
    manager: String,
    #[prost(message, tag = "7")]
    fields: Option<Raw>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Raw {
    #[prost(bytes, tag = "1")]
    raw: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ServiceSpec {
    #[prost(message, repeated, tag = "1")]
    ports: Vec<ServicePort>,
    #[prost(string, repeated, tag = "18")]
    cluster_ips: Vec<String>,
    #[prost(bool, optional, tag = "20")]
    allocate_node_ports: Option<bool>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ServicePort {
    #[prost(int32, optional, tag = "3")]
    port: Option<i32>,
    #[prost(message, tag = "4")]
    target: Option<IntOrString>,
    #[prost(int32, optional, tag = "5")]
    node_port: Option<i32>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct IntOrString {
    #[prost(int64, optional, tag = "1")]
    kind: Option<i64>,
    #[prost(int32, optional, tag = "2")]
    number: Option<i32>,
    #[prost(string, optional, tag = "3")]
    text: Option<String>,
}

/// A Service with something of everything, and a label that makes lengths take two bytes.
fn service() -> (Value, Service) {
    let long = "v".repeat(200);
    let fields = r#"{"f:spec":{"f:ports":{}}}"#;
    let json = json!({"kind": "Service", "apiVersion": "v1", "metadata": {
            "name": "s", "generation": 3, "creationTimestamp": "2024-05-06T07:08:09Z", "labels": {"a": "1", "b": long},
            "managedFields": [{"manager": "kubectl", "fieldsV1": serde_json::from_str::<Value>(fields).unwrap()}]},
        "spec": {"ports": [{"port": 80, "targetPort": "http", "nodePort": -1}, {"port": 81, "targetPort": 8080}],
            "clusterIPs": ["10.0.0.1", "fd00::1"], "allocateLoadBalancerNodePorts": false}});
    let port = |port, kind, number, text: Option<&str>, node_port| ServicePort {
        port: Some(port),
        target: Some(IntOrString { kind: Some(kind), number, text: text.map(str::to_owned) }),
        node_port,
    };
    let message = Service {
        metadata: Some(Metadata {
            name: "s".to_owned(),
            resource_version: "42".to_owned(),
            generation: Some(3),
            creation: Some(Time { seconds: Some(1_714_979_289), nanos: Some(0) }),
            labels: [("a".to_owned(), "1".to_owned()), ("b".to_owned(), long)].into(),
            managed: vec![Managed {
                manager: "kubectl".to_owned(),
                fields: Some(Raw { raw: fields.into() }),
            }],
        }),
        spec: Some(ServiceSpec {
            ports: vec![port(80, 1, None, Some("http"), Some(-1)), port(81, 0, Some(8080), None, None)],
            cluster_ips: vec!["10.0.0.1".to_owned(), "fd00::1".to_owned()],
            allocate_node_ports: Some(false),
        }),
    };
    (json, message)
}

#[test]
fn another_implementation_reads_what_is_written() {
    let (json, want) = service();
    let mut written = Vec::new();
    let kind = Typed::of("v1", "Service").unwrap();
    kind.object(&mut written, json.to_string().as_bytes(), Some(42)).unwrap();
    let unknown = Unknown::decode(written.strip_prefix(b"k8s\0").unwrap()).unwrap();
    let type_meta = TypeMeta { api_version: "v1".to_owned(), kind: "Service".to_owned() };
    assert_eq!((unknown.type_meta, unknown.content_type), (Some(type_meta), Some(String::new())));
    assert_eq!(Service::decode(&*unknown.raw).unwrap(), want);
}

#[test]
fn what_another_implementation_writes_is_read() {
    let (mut want, message) = service();
    want["metadata"]["resourceVersion"] = json!("42");
    let type_meta = TypeMeta { api_version: "v1".to_owned(), kind: "Service".to_owned() };
    let unknown = Unknown { type_meta: Some(type_meta), raw: message.encode_to_vec(), ..Unknown::default() };
    let body = [b"k8s\0".to_vec(), unknown.encode_to_vec()].concat();
    assert_eq!(decode("io.k8s.api.core.v1.Service", &body).unwrap(), want);
}

/// Every byte by hand: magic, TypeMeta, the message, and the empty encoding and type behind it.
#[test]
fn a_small_object_is_written_byte_by_byte() {
    let map = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "a"}, "data": {"k": "v"},
        "immutable": true, "binaryData": {"b": "/w=="}});
    let want = [
        &b"k8s\0"[..],
        b"\x0a\x0f\x0a\x02v1\x12\x09ConfigMap",
        b"\x12\x17",
        b"\x0a\x03\x0a\x01a",
        b"\x12\x06\x0a\x01k\x12\x01v",
        b"\x20\x01",
        b"\x1a\x06\x0a\x01b\x12\x01\xff",
        b"\x1a\x00\x22\x00",
    ];
    assert_eq!(&*tree(&map).unwrap().unwrap(), want.concat());
}
