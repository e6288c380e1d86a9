//! YAML text as Go's library takes it where ours is stricter: several documents, and keys that are in their map twice.

use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_saphyr::{DuplicateKeyPolicy, Error, Spanned};

/// The text up to where a second document begins, which nobody reads.
pub fn first_document(text: &str) -> &str {
    let (mut begun, mut at) = (false, 0);
    for line in text.split_inclusive('\n') {
        let word = line.split([' ', '\t', '\r', '\n']).next().unwrap_or_default();
        match word {
            "---" | "..." if begun => return &text[..at],
            "---" => begun = true,
            "" => {}
            _ if line.starts_with(['#', '%']) => {}
            _ => begun = true,
        }
        at += line.len();
    }
    text
}

/// Reads text with keys that are in their map more than once, of which the last counts, and says which.
pub fn with_duplicates(text: &str) -> Result<(Value, Vec<String>), Error> {
    let options =
        serde_saphyr::options! { legacy_octal_numbers: true, duplicate_keys: DuplicateKeyPolicy::LastWins };
    let tree: Tree = serde_saphyr::from_str_with_options(text, options)?;
    let mut twice = Vec::new();
    let value = tree.value(&mut twice);
    Ok((value, twice))
}

/// More are not told one by one.
const MAX_TOLD: usize = 100;

/// A tree in which a map has all it was written with.
enum Tree {
    Scalar(Value),
    List(Vec<Tree>),
    Map(Vec<(Value, Spanned<Tree>)>),
}

impl Tree {
    fn value(self, twice: &mut Vec<String>) -> Value {
        let pairs = match self {
            Self::Scalar(value) => return value,
            Self::List(items) => return items.into_iter().map(|item| item.value(twice)).collect(),
            Self::Map(pairs) => pairs,
        };
        let mut fields = Map::new();
        let mut known = HashSet::new();
        for (key, pair) in pairs {
            let line = pair.referenced.line();
            let value = pair.value.value(twice);
            if !known.insert(key.to_string()) && twice.len() < MAX_TOLD {
                twice.push(format!("line {line}: key {key} already set in map"));
            }
            let name = key.as_str().map_or_else(|| key.to_string(), str::to_owned);
            fields.insert(name, value);
        }
        Value::Object(fields)
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Tree;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Scalar(Value::Null))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Tree, E> {
        let number = Number::from_f64(value).ok_or_else(|| E::custom("number out of range"))?;
        Ok(Tree::Scalar(number.into()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Tree, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Tree::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Tree, A::Error> {
        let mut pairs = Vec::new();
        while let Some(key) = entries.next_key()? {
            pairs.push((key, entries.next_value()?));
        }
        Ok(Tree::Map(pairs))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Text, what it says and what Go's library says of its keys.
    const TWICE: &[(&str, &str, &[&str])] = &[
        ("a: 1\na: 2\na: 3", r#"{"a": 3}"#, &[r#"line 2: key "a""#, r#"line 3: key "a""#]),
        (
            "a: 1\na: 2\nb:\n  c: 1\n  c: 2\nb: 3",
            r#"{"a": 2, "b": 3}"#,
            &[r#"line 2: key "a""#, r#"line 5: key "c""#, r#"line 6: key "b""#],
        ),
        (
            "a: {x: 1, x: 2}\nb: [{z: 1, z: 2}]",
            r#"{"a": {"x": 2}, "b": [{"z": 2}]}"#,
            &[r#"line 1: key "x""#, r#"line 2: key "z""#],
        ),
        ("a: 1\na:\n  b: 2", r#"{"a": {"b": 2}}"#, &[r#"line 3: key "a""#]),
        (
            "a:\n  x: 1\na:\n  x: 1\n  x: 2",
            r#"{"a": {"x": 2}}"#,
            &[r#"line 5: key "x""#, r#"line 4: key "a""#],
        ),
        ("a: 1\n\n\na:\n\n  - 1", r#"{"a": [1]}"#, &[r#"line 6: key "a""#]),
        ("a: 1\na: \n", r#"{"a": null}"#, &[r#"line 2: key "a""#]),
        ("true: a\ntrue: b", r#"{"true": "b"}"#, &["line 2: key true"]),
    ];

    #[test]
    fn every_key_that_is_there_already_is_told_as_go_tells_it() {
        for (text, value, told) in TWICE {
            let (read, twice) = with_duplicates(text).unwrap();
            assert_eq!(read, serde_json::from_str::<Value>(value).unwrap(), "{text}");
            let want: Vec<String> = told.iter().map(|key| format!("{key} already set in map")).collect();
            assert_eq!(twice, want, "{text}");
        }
        let (_, twice) = with_duplicates(&"a: 1\n".repeat(1000)).unwrap();
        assert_eq!(twice.len(), MAX_TOLD);
    }

    #[test]
    fn only_the_first_document_is_read() {
        for text in [
            "a: 1\n---\nb: 2",
            "---\na: 1\n...\nb: 2",
            "---\na: 1\n---\n",
            "# c\n%YAML 1.1\n---\na: 1\n",
            "a: 1\n--- [\n",
        ] {
            let first: Value = serde_saphyr::from_str(first_document(text)).unwrap();
            assert_eq!(first, json!({ "a": 1 }), "{text}");
        }
        assert_eq!(first_document("a: --- x\n  ---\n----\n"), "a: --- x\n  ---\n----\n");
    }
}
