//! Columns that a CustomResourceDefinition names by JSONPath.

use std::fmt::Write;
use std::sync::OnceLock;

use jiff::Timestamp;
use jsonpath_rust::parser::errors::JsonPathError;
use jsonpath_rust::parser::model::JpQuery;
use jsonpath_rust::parser::parse_json_path;
use jsonpath_rust::query::{QueryRef, js_path_process};
use serde_json::{Value, json};

use crate::tree::{int, text};

/// One column.
#[derive(Debug)]
pub struct PathColumn {
    name: Box<str>,
    kind: Box<str>,
    format: Box<str>,
    description: Box<str>,
    priority: i64,
    path: Box<str>,
    query: OnceLock<Option<JpQuery>>,
}

impl PathColumn {
    /// Reads a `CustomResourceColumnDefinition`.
    pub fn read(given: &Value) -> Self {
        let word = |field: &str| text(given, &[field]).into();
        Self {
            name: word("name"),
            kind: word("type"),
            format: word("format"),
            description: word("description"),
            priority: int(given, &["priority"]).unwrap_or_default(),
            path: word("jsonPath"),
            query: OnceLock::new(),
        }
    }

    pub fn definition(&self) -> Value {
        let path = || format!("Custom resource definition column (in JSONPath format): {}", self.path);
        let description = if self.description.is_empty() { path() } else { self.description.to_string() };
        json!({ "name": self.name, "type": self.kind, "format": self.format, "description": description,
                "priority": self.priority })
    }

    /// What the first match of the path says, in the type of the column; null where there is none.
    pub fn cell(&self, object: &Value, now: Timestamp) -> Value {
        let query = self.query.get_or_init(|| parse(&self.path).ok());
        let found = query.as_ref().and_then(|query| js_path_process(query, object).ok());
        let Some(value) = found.and_then(|found| found.into_iter().next()).map(QueryRef::val) else {
            return Value::Null;
        };
        match (&*self.kind, value) {
            ("string", Value::String(_)) | ("number", Value::Number(_)) | ("boolean", Value::Bool(_)) => {
                value.clone()
            }
            ("string", Value::Null) => Value::Null,
            ("string", other) => json!(other.to_string()),
            ("integer", Value::Number(number)) => {
                #[expect(clippy::cast_possible_truncation, reason = "upstream cuts numbers off as well")]
                let whole = number.as_i64().or_else(|| number.as_f64().map(|number| number as i64));
                json!(whole)
            }
            ("date", Value::String(time)) => match time.parse::<Timestamp>() {
                Ok(_) => json!(super::since(time, now)),
                Err(_) => json!("<invalid>"),
            },
            _ => Value::Null,
        }
    }
}

/// Reads a path as Kubernetes writes it, such as `.status.conditions[?(@.type=="Ready")].status`.
pub fn parse(path: &str) -> Result<JpQuery, JsonPathError> {
    parse_json_path(&standard(path))
}

/// The path in the form of RFC 9535. Names may hold escaped dots and dashes here, so all of them are quoted.
fn standard(path: &str) -> String {
    let path = path.trim();
    let path = path.strip_prefix('{').and_then(|inner| inner.strip_suffix('}')).unwrap_or(path);
    let mut out = String::from("$");
    let mut rest = path.strip_prefix('$').unwrap_or(path);
    while let Some(first) = rest.chars().next() {
        if first == '[' {
            let end = closing(rest);
            out.push_str(&rest[..end]);
            rest = &rest[end..];
            continue;
        }
        if let Some(after) = rest.strip_prefix("..") {
            out.push_str("..");
            rest = after;
        } else {
            rest = rest.strip_prefix('.').unwrap_or(rest);
        }
        let (name, after) = name(rest);
        if name == "*" {
            out.push_str("[*]");
        } else {
            let quoted = name.replace('\\', "\\\\").replace('\'', "\\'");
            write!(out, "['{quoted}']").expect("writing to a string does not fail");
        }
        // A bracket may follow `..` directly.
        rest = after;
    }
    out
}

/// The length of the bracket that opens `text`, with what is in it.
fn closing(text: &str) -> usize {
    let (mut depth, mut quote) = (0_usize, None);
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, '[') => depth += 1,
            (None, ']') => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + c.len_utf8();
        }
    }
    text.len()
}

/// A name up to the next step, without its escapes, and what follows.
fn name(text: &str) -> (String, &str) {
    let mut out = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '.' | '[' => return (out, &text[at..]),
            '\\' => out.extend(chars.next().map(|(_, escaped)| escaped)),
            c => out.push(c),
        }
    }
    (out, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(kind: &str, path: &str) -> Value {
        let object = json!({
            "metadata": { "creationTimestamp": "1970-01-01T00:00:00Z", "labels": { "app.io/name": "x", "a-b": "y" } },
            "spec": { "replicas": 3, "ratio": 2.7, "on": true, "list": ["a", "b"], "map": { "a": 1 } },
            "status": { "conditions": [{ "type": "Other", "status": "False" }, { "type": "Ready", "status": "True" }] },
        });
        let column = PathColumn::read(&json!({ "name": "X", "type": kind, "jsonPath": path }));
        column.cell(&object, Timestamp::from_second(300).unwrap())
    }

    #[test]
    fn a_cell_is_the_first_match_in_the_columns_type() {
        for (kind, path, want) in [
            ("integer", ".spec.replicas", json!(3)),
            ("integer", ".spec.ratio", json!(2)),
            ("string", ".spec.replicas", json!("3")),
            ("boolean", ".spec.on", json!(true)),
            ("string", ".spec.map", json!(r#"{"a":1}"#)),
            ("string", ".spec.list[1]", json!("b")),
            ("string", ".spec.list[-1:]", json!("b")),
            ("string", ".spec.list[*]", json!("a")),
            ("string", r#".status.conditions[?(@.type=="Ready")].status"#, json!("True")),
            ("string", r".metadata.labels.app\.io/name", json!("x")),
            ("string", ".metadata.labels['app.io/name']", json!("x")),
            ("string", ".metadata.labels.a-b", json!("y")),
            ("string", "{.spec.list[0]}", json!("a")),
            ("date", ".metadata.creationTimestamp", json!("5m")),
            ("date", ".spec.on", Value::Null),
            ("date", ".metadata.labels.a-b", json!("<invalid>")),
            ("string", ".spec.missing", Value::Null),
            ("integer", ".spec.on", Value::Null),
        ] {
            assert_eq!(cell(kind, path), want, "{kind} {path}");
        }
    }

    #[test]
    fn what_is_no_path_is_refused() {
        for path in [".a[", ".a[?(", ".a['x", ""] {
            let parsed = parse(path);
            assert!(parsed.is_err() || path.is_empty(), "{path}: {parsed:?}");
        }
    }
}
