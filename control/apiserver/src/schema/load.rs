//! Reads the generated table `data/schema.json`.
//!
//! A type is `{"n": name, "f": {field: node}, "r": [required], "a": atomic, "g": [group, version, kind]}`. A node is a
//! letter for a scalar (s string, i int32, l int64, n number, b bool, q quantity, x int-or-string, t time, u micro
//! time, y bytes, a anything), a capital where its zero is left out, the index of a type, `["list", node]`,
//! `["map", node]`, or an object whose `k` is one of these and that adds `d` default, `lt` list type, `lk` list map
//! keys, `ps` patch strategy, `pk` merge key, `mt` map type.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::{ListType, Node, Schema, Shape, Type};
use crate::name::Name;

static TABLE: &str = include_str!("../../data/schema.json");

/// The schema of this build.
pub fn schema() -> &'static Schema {
    static SCHEMA: LazyLock<Schema> = LazyLock::new(load);
    &SCHEMA
}

/// The table, of which one type after the other becomes a tree: all at once would leave much memory behind.
#[derive(Deserialize)]
struct Unread<'a> {
    #[serde(borrow)]
    types: Vec<&'a RawValue>,
}

fn load() -> Schema {
    let table: Unread<'_> = serde_json::from_str(TABLE).expect("the generated table is JSON");
    let mut names = Names::default();
    let mut types = Vec::with_capacity(table.types.len());
    for one in table.types {
        types.push(read_type(&mut names, serde_json::from_str(one.get()).expect("so are its types")));
    }
    let by_kind =
        types.iter().enumerate().filter_map(|(id, t)| t.kind.clone().map(|kind| (kind, id))).collect();
    let by_name: HashMap<_, _> = types.iter().enumerate().map(|(id, t)| (t.name.clone(), id)).collect();
    Schema { types, by_kind, by_name }
}

fn read_type(names: &mut Names, mut value: Value) -> Type {
    let fields = match value["f"].take() {
        Value::Object(fields) => {
            fields.into_iter().map(|(name, node)| (names.keep(&name), read_node(names, node))).collect()
        }
        _ => Vec::new(),
    };
    let mut fields: Vec<(Name, Node)> = fields;
    fields.sort_by(|(a, _), (b, _)| a.cmp(b));
    let kind =
        value["g"].as_array().map(|kind| (names.word(&kind[0]), names.word(&kind[1]), names.word(&kind[2])));
    Type {
        name: names.word(&value["n"]),
        kind,
        fields,
        required: names.words(&value["r"]),
        atomic: value["a"] == Value::Bool(true),
        open: false,
    }
}

fn read_node(names: &mut Names, value: Value) -> Node {
    let Value::Object(mut extra) = value else { return read_kind(names, value) };
    let plain = read_kind(names, extra.shift_remove("k").expect("an extended node has a kind"));
    let strategy = extra.get("ps").and_then(Value::as_str).unwrap_or_default().to_owned();
    Node {
        list: match extra.get("lt").and_then(Value::as_str) {
            Some("set") => ListType::Set,
            Some("map") => ListType::Map,
            _ => ListType::Atomic,
        },
        keys: extra.get("lk").map(|keys| names.words(keys)).unwrap_or_default(),
        merges: strategy.contains("merge"),
        retains: strategy.contains("retainKeys"),
        merge_key: extra.get("pk").map(|key| names.word(key)),
        atomic: extra.get("mt").is_some_and(|t| t == "atomic"),
        default: extra.shift_remove("d").map(Box::new),
        present: extra.contains_key("z"),
        ..plain
    }
}

fn read_kind(names: &mut Names, value: Value) -> Node {
    let omits_zero = value.as_str().is_some_and(|letter| letter.starts_with(char::is_uppercase));
    Node { omits_zero, ..Node::of(read_shape(names, value)) }
}

fn read_shape(names: &mut Names, value: Value) -> Shape {
    match value {
        Value::Number(index) => {
            let index = index.as_u64().and_then(|index| usize::try_from(index).ok());
            Shape::Object(index.expect("a type index is a small number"))
        }
        Value::Array(mut pair) => {
            let node = Box::new(read_node(names, pair.pop().unwrap_or_default()));
            if pair.first().is_some_and(|kind| kind == "list") { Shape::List(node) } else { Shape::Map(node) }
        }
        Value::String(letter) => match letter.to_ascii_lowercase().as_str() {
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

/// Makes every name once, however often the table mentions it.
#[derive(Default)]
struct Names(HashSet<Name>);

impl Names {
    fn keep(&mut self, word: &str) -> Name {
        if let Some(known) = self.0.get(word) {
            return known.clone();
        }
        let name = Name::from(word);
        self.0.insert(name.clone());
        name
    }

    fn word(&mut self, value: &Value) -> Name {
        self.keep(value.as_str().unwrap_or_default())
    }

    fn words(&mut self, value: &Value) -> Vec<Name> {
        value.as_array().into_iter().flatten().map(|word| self.word(word)).collect()
    }
}
