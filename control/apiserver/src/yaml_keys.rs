//! YAML text as Go's library takes it: the first of several documents, keys that are in their map twice or no text, and what
//! JSON cannot say.

use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_saphyr::{DuplicateKeyPolicy, Error, NonFiniteFloatPolicy, Spanned};

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

/// Why text cannot become JSON.
#[derive(Debug)]
pub enum Fault {
    /// It is no YAML.
    Syntax(Error),
    /// It says what JSON has no words for; told in those of Go's library.
    Sense(String),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Syntax(error)
    }
}

/// Reads text in which no key is in its map more than once.
pub fn read(text: &str) -> Result<Value, Fault> {
    tree(text, DuplicateKeyPolicy::Error)?.value(&mut Vec::new()).map_err(Fault::Sense)
}

/// Reads text with keys that are in their map more than once, of which the last counts, and says which.
pub fn with_duplicates(text: &str) -> Result<(Value, Vec<String>), Fault> {
    let mut twice = Vec::new();
    let value = tree(text, DuplicateKeyPolicy::LastWins)?.value(&mut twice).map_err(Fault::Sense)?;
    Ok((value, twice))
}

fn tree(text: &str, duplicate_keys: DuplicateKeyPolicy) -> Result<Tree, Error> {
    let options = serde_saphyr::options! {
        legacy_octal_numbers: true,
        duplicate_keys: duplicate_keys,
        non_finite_float_policy: NonFiniteFloatPolicy::PassThrough,
    };
    serde_saphyr::from_str_with_options(text, options)
}

/// More are not told one by one.
const MAX_TOLD: usize = 100;

/// A tree in which a map has all it was written with.
enum Tree {
    Scalar(Value),
    /// Infinite, or not a number.
    Endless(f64),
    List(Vec<Tree>),
    Map(Vec<(Tree, Spanned<Tree>)>),
}

impl Tree {
    fn value(self, twice: &mut Vec<String>) -> Result<Value, String> {
        let pairs = match self {
            Self::Scalar(value) => return Ok(value),
            Self::Endless(number) => return Err(format!("json: unsupported value: {}", go_endless(number))),
            Self::List(items) => return items.into_iter().map(|item| item.value(twice)).collect(),
            Self::Map(pairs) => pairs,
        };
        let mut fields = Map::new();
        let mut known = HashSet::new();
        for (key, pair) in pairs {
            let name = key.name(&pair.value)?;
            let line = pair.referenced.line();
            let value = pair.value.value(twice)?;
            let said = key.go();
            if known.contains(&said) && twice.len() < MAX_TOLD {
                twice.push(format!("line {line}: key {said} already set in map"));
            }
            known.insert(said);
            fields.insert(name, value);
        }
        Ok(Value::Object(fields))
    }

    /// The key of a map in JSON. Words for true and false that nobody quoted are just that, `y` and `on` too.
    fn name(&self, value: &Self) -> Result<String, String> {
        let kind = match self {
            Self::List(_) | Self::Map(_) => return Err(format!("yaml: invalid map key: {}", self.go())),
            Self::Endless(number) if number.is_nan() => return Ok(".nan".to_owned()),
            Self::Endless(number) if *number < 0.0 => return Ok("-.inf".to_owned()),
            Self::Endless(_) => return Ok(".inf".to_owned()),
            Self::Scalar(Value::String(text)) => return Ok(text.clone()),
            Self::Scalar(Value::Bool(value)) => return Ok(value.to_string()),
            Self::Scalar(Value::Number(number)) => match (number.as_i64(), number.as_u64()) {
                (Some(number), _) => return Ok(number.to_string()),
                (None, None) => return Ok(go_float(number.as_f64().unwrap_or_default())),
                (None, Some(_)) => "uint64",
            },
            Self::Scalar(_) => "%!s(<nil>)",
        };
        let told = [self, value].map(|one| if one.is_null() { "<nil>".to_owned() } else { one.go() });
        Err(format!("unsupported map key of type: {kind}, key: {}, value: {}", told[0], told[1]))
    }

    fn is_null(&self) -> bool {
        matches!(self, Self::Scalar(Value::Null))
    }

    /// As Go writes it down in its own language.
    fn go(&self) -> String {
        let joined = |items: Vec<String>| items.join(", ");
        match self {
            Self::Scalar(Value::Null) => "interface {}(nil)".to_owned(),
            Self::Scalar(Value::Number(number)) if number.is_f64() => {
                number.as_f64().map_or_else(String::new, go_float)
            }
            Self::Scalar(Value::Number(number)) if !number.is_i64() => {
                format!("{:#x}", number.as_u64().unwrap_or_default())
            }
            Self::Scalar(value) => value.to_string(),
            Self::Endless(number) => go_endless(*number).to_owned(),
            Self::List(items) => {
                format!("[]interface {{}}{{{}}}", joined(items.iter().map(Self::go).collect()))
            }
            Self::Map(pairs) => {
                let pair =
                    |(key, value): &(Self, Spanned<Self>)| format!("{}:{}", key.go(), value.value.go());
                let mut pairs: Vec<String> = pairs.iter().map(pair).collect();
                pairs.sort();
                format!("map[interface {{}}]interface {{}}{{{}}}", joined(pairs))
            }
        }
    }
}

/// A number without end as Go's `strconv` writes it.
fn go_endless(number: f64) -> &'static str {
    match number {
        number if number.is_nan() => "NaN",
        number if number < 0.0 => "-Inf",
        _ => "+Inf",
    }
}

/// A number in as few digits as make the same `float32`, with an exponent from a million on and below a ten-thousandth: what
/// Go's library makes of keys.
fn go_float(number: f64) -> String {
    #[expect(clippy::cast_possible_truncation, reason = "so it is done there")]
    let short = number as f32;
    let scientific = format!("{short:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    match exponent.parse::<i32>() {
        Ok(power) if !(-4..6).contains(&power) => {
            let sign = if power < 0 { '-' } else { '+' };
            format!("{digits}e{sign}{:02}", power.abs())
        }
        _ => short.to_string(),
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

    fn visit_f64<E>(self, value: f64) -> Result<Tree, E> {
        Ok(Number::from_f64(value).map_or(Tree::Endless(value), |number| Tree::Scalar(number.into())))
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
    fn keys_are_what_go_makes_of_them() {
        for (text, want) in [
            ("y: a", r#"{"true": "a"}"#),
            ("on: a", r#"{"true": "a"}"#),
            ("No: a", r#"{"false": "a"}"#),
            ("off: a", r#"{"false": "a"}"#),
            ("'y': a\n\"on\": b", r#"{"y": "a", "on": "b"}"#),
            ("!!str y: a", r#"{"y": "a"}"#),
            ("yo: a", r#"{"yo": "a"}"#),
            ("1: a", r#"{"1": "a"}"#),
            ("0x10: a", r#"{"16": "a"}"#),
            ("-7: a", r#"{"-7": "a"}"#),
            ("1.5: a", r#"{"1.5": "a"}"#),
            ("1e3: a", r#"{"1000": "a"}"#),
            ("1e6: a", r#"{"1e+06": "a"}"#),
            ("0.00001: a", r#"{"1e-05": "a"}"#),
            (".inf: a", r#"{".inf": "a"}"#),
            ("-.Inf: a", r#"{"-.inf": "a"}"#),
            (".NaN: a", r#"{".nan": "a"}"#),
            ("2001-01-01: a", r#"{"2001-01-01": "a"}"#),
            ("'null': a", r#"{"null": "a"}"#),
            ("a: y\nb: 'y'", r#"{"a": true, "b": "y"}"#),
            ("a: &x {b: 1}\nc: {<<: *x, d: 2}", r#"{"a": {"b": 1}, "c": {"b": 1, "d": 2}}"#),
        ] {
            let found = read(text).unwrap();
            assert_eq!(found, serde_json::from_str::<Value>(want).unwrap(), "{text}");
            assert_eq!(with_duplicates(text).unwrap(), (found, Vec::new()), "{text}");
        }
    }

    #[test]
    fn what_json_cannot_say_is_refused_in_the_words_of_go() {
        for (text, want) in [
            ("null: a", r#"unsupported map key of type: %!s(<nil>), key: <nil>, value: "a""#),
            ("~: null", "unsupported map key of type: %!s(<nil>), key: <nil>, value: <nil>"),
            (
                "? \n: {b: [1, x]}",
                r#"unsupported map key of type: %!s(<nil>), key: <nil>, value: map[interface {}]interface {}{"b":[]interface {}{1, "x"}}"#,
            ),
            (
                "18446744073709551615: a",
                r#"unsupported map key of type: uint64, key: 0xffffffffffffffff, value: "a""#,
            ),
            ("[a, 1]: b", r#"yaml: invalid map key: []interface {}{"a", 1}"#),
            ("{a: 1}: b", r#"yaml: invalid map key: map[interface {}]interface {}{"a":1}"#),
            ("a: .inf", "json: unsupported value: +Inf"),
            ("a: [-.INF]", "json: unsupported value: -Inf"),
            ("a: {b: .nan}", "json: unsupported value: NaN"),
        ] {
            match read(text) {
                Err(Fault::Sense(said)) => assert_eq!(said, want, "{text}"),
                other => panic!("{text}: {other:?}"),
            }
        }
        assert_eq!(read("a: '.inf'").unwrap(), json!({ "a": ".inf" }));
    }

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
