//! Reads the generated table `data/schema.json`.
//!
//! A type is `{"n": name, "f": {field: node}, "r": [required], "a": atomic, "g": [group, version, kind]}`. A node is a
//! letter for a scalar (s string, i int32, l int64, n number, b bool, q quantity, x int-or-string, t time, u micro
//! time, y bytes, a anything), the index of a type, `["list", node]`, `["map", node]`, or an object whose `k` is one
//! of these and that adds `d` default, `lt` list type, `lk` list map keys, `ps` patch strategy, `pk` merge key, `mt`
//! map type.

use std::collections::HashMap;
use std::sync::LazyLock;

use serde_json::Value;

use super::{ListType, Node, Schema, Shape, Type};

static TABLE: &str = include_str!("../../data/schema.json");

/// The schema of this build.
pub fn schema() -> &'static Schema {
    static SCHEMA: LazyLock<Schema> = LazyLock::new(load);
    &SCHEMA
}

fn load() -> Schema {
    let mut table: Value = serde_json::from_str(TABLE).expect("the generated table is JSON");
    let types: Vec<Type> = match table["types"].take() {
        Value::Array(types) => types.into_iter().map(read_type).collect(),
        _ => Vec::new(),
    };
    let by_kind = types.iter().enumerate().filter_map(|(id, t)| t.kind.map(|kind| (kind, id))).collect();
    let by_name: HashMap<_, _> = types.iter().enumerate().map(|(id, t)| (t.name, id)).collect();
    Schema { types, by_kind, by_name }
}

fn read_type(mut value: Value) -> Type {
    let fields = match value["f"].take() {
        Value::Object(fields) => {
            fields.into_iter().map(|(name, node)| (keep(&name), read_node(node))).collect()
        }
        _ => Vec::new(),
    };
    let mut fields: Vec<(&'static str, Node)> = fields;
    fields.sort_by_key(|(name, _)| *name);
    let kind = value["g"].as_array().map(|kind| (word(&kind[0]), word(&kind[1]), word(&kind[2])));
    Type {
        name: word(&value["n"]),
        kind,
        fields,
        required: words(&value["r"]),
        atomic: value["a"] == Value::Bool(true),
    }
}

fn read_node(value: Value) -> Node {
    let Value::Object(mut extra) = value else { return Node::of(read_shape(value)) };
    let shape = read_shape(extra.shift_remove("k").expect("an extended node has a kind"));
    let strategy = extra.get("ps").and_then(Value::as_str).unwrap_or_default().to_owned();
    Node {
        shape,
        list: match extra.get("lt").and_then(Value::as_str) {
            Some("set") => ListType::Set,
            Some("map") => ListType::Map,
            _ => ListType::Atomic,
        },
        keys: extra.get("lk").map(words).unwrap_or_default(),
        merges: strategy.contains("merge"),
        retains: strategy.contains("retainKeys"),
        merge_key: extra.get("pk").map(word),
        atomic: extra.get("mt").is_some_and(|t| t == "atomic"),
        default: extra.shift_remove("d"),
    }
}

fn read_shape(value: Value) -> Shape {
    match value {
        Value::Number(index) => {
            let index = index.as_u64().and_then(|index| usize::try_from(index).ok());
            Shape::Object(index.expect("a type index is a small number"))
        }
        Value::Array(mut pair) => {
            let node = Box::new(read_node(pair.pop().unwrap_or_default()));
            if pair.first().is_some_and(|kind| kind == "list") { Shape::List(node) } else { Shape::Map(node) }
        }
        Value::String(letter) => match letter.as_str() {
            "s" => Shape::String,
            "i" => Shape::Int32,
            "l" => Shape::Int64,
            "n" => Shape::Number,
            "b" => Shape::Bool,
            "q" => Shape::Quantity,
            "x" => Shape::IntOrString,
            "t" => Shape::Time,
            "u" => Shape::MicroTime,
            "y" => Shape::Bytes,
            _ => Shape::Any,
        },
        _ => Shape::Any,
    }
}

fn word(value: &Value) -> &'static str {
    keep(value.as_str().unwrap_or_default())
}

fn words(value: &Value) -> Vec<&'static str> {
    value.as_array().into_iter().flatten().map(word).collect()
}

/// The table's own text for `word`: names are compared all the time and live as long as the process.
fn keep(word: &str) -> &'static str {
    use std::cell::RefCell;
    use std::collections::HashSet;
    thread_local! { static SEEN: RefCell<HashSet<&'static str>> = RefCell::new(HashSet::new()); }
    SEEN.with(|seen| {
        let mut seen = seen.borrow_mut();
        if let Some(known) = seen.get(word) {
            return *known;
        }
        let kept: &'static str = Box::leak(word.to_owned().into_boxed_str());
        seen.insert(kept);
        kept
    })
}
