//! Label and field selectors: parsed once per request, matched against headers.

use std::sync::Arc;

use serde_json::Value;
use store::Entry;

use crate::name::Name;
use crate::object::{self, Header};
use crate::resources::Row;
use crate::status::{Refusal, Result};

/// What a list or watch is narrowed to.
#[derive(Debug, Clone, Default)]
pub struct Selector {
    labels: Vec<Requirement>,
    fields: Vec<FieldRequirement>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Requirement {
    key: String,
    test: Test,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Test {
    Exists,
    Missing,
    In(Vec<String>),
    NotIn(Vec<String>),
    Above(i64),
    Below(i64),
}

#[derive(Debug, Clone)]
struct FieldRequirement {
    field: Field,
    value: String,
    equal: bool,
}

#[derive(Debug, Clone)]
enum Field {
    Name,
    Namespace,
    /// Position in the row's selectable fields.
    Selectable(usize),
    /// A field of a custom resource as the row shows it. Which ones can be asked for changes with the definition, so no
    /// header has them.
    Path(Arc<Row>, Vec<Name>),
}

impl Selector {
    /// Parses both selectors of a request.
    pub fn parse(resource: &Arc<Row>, labels: &str, fields: &str) -> Result<Self> {
        Ok(Self { labels: parse_labels(labels)?, fields: parse_fields(resource, fields)? })
    }

    /// Adds the requirement that the object has this name.
    pub fn named(mut self, name: &str) -> Self {
        self.fields.push(FieldRequirement { field: Field::Name, value: name.to_owned(), equal: true });
        self
    }

    /// Whether everything matches.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// The only name an object can have that is selected.
    pub fn name(&self) -> Option<&str> {
        self.only(|field| matches!(field, Field::Name))
    }

    /// The only node an object can be for that is selected; see [`object::node`].
    pub fn node(&self, row: &Row) -> Option<&str> {
        let is_node = |at: usize| row.selectable.get(at).is_some_and(|(field, _)| *field == *object::NODE);
        self.only(|field| matches!(field, Field::Selectable(at) if is_node(*at)))
    }

    fn only(&self, is: impl Fn(&Field) -> bool) -> Option<&str> {
        let wanted = self.fields.iter().find(|requirement| requirement.equal && is(&requirement.field));
        wanted.map(|requirement| &*requirement.value)
    }

    /// Whether an object is selected.
    pub fn matches(&self, entry: &Entry<Header>) -> bool {
        self.labels.iter().all(|requirement| requirement.holds(&entry.header))
            && self.fields.iter().all(|requirement| requirement.holds(entry))
    }
}

impl Requirement {
    fn holds(&self, header: &Header) -> bool {
        let value = header.labels.iter().find(|(key, _)| **key == self.key).map(|(_, value)| &**value);
        match (&self.test, value) {
            (Test::Exists, value) => value.is_some(),
            (Test::Missing, value) => value.is_none(),
            (Test::In(set), value) => value.is_some_and(|value| set.iter().any(|one| one == value)),
            (Test::NotIn(set), value) => value.is_none_or(|value| set.iter().all(|one| one != value)),
            (Test::Above(bound), value) => {
                value.and_then(|v| v.parse::<i64>().ok()).is_some_and(|v| v > *bound)
            }
            (Test::Below(bound), value) => {
                value.and_then(|v| v.parse::<i64>().ok()).is_some_and(|v| v < *bound)
            }
        }
    }
}

impl FieldRequirement {
    fn holds(&self, entry: &Entry<Header>) -> bool {
        let header = &entry.header;
        let same = match &self.field {
            Field::Name => *header.name == *self.value,
            Field::Namespace => *header.namespace == *self.value,
            Field::Selectable(at) => header.fields.get(*at).map_or("", |value| &**value) == self.value,
            Field::Path(row, path) => {
                let tree = row.read(entry);
                match path.iter().try_fold(&tree, |tree, step| tree.get(&**step)) {
                    Some(Value::String(text)) => *text == self.value,
                    Some(Value::Null) | None => self.value.is_empty(),
                    Some(other) => {
                        let text = other.to_string();
                        text == self.value
                    }
                }
            }
        };
        same == self.equal
    }
}

fn unparsable(text: &str, why: &str) -> Refusal {
    Refusal::bad_request(format!("unable to parse requirement in {text:?}: {why}"))
}

fn parse_labels(text: &str) -> Result<Vec<Requirement>> {
    let mut out = Vec::new();
    if text.trim().is_empty() {
        return Ok(out);
    }
    for part in split_outside_parentheses(text) {
        let part = part.trim();
        if part.is_empty() {
            return Err(unparsable(text, "found ',', expected: !, identifier, or 'end of string'"));
        }
        let requirement = parse_label(part)?;
        crate::validate::label_key(&requirement.key).map_err(|why| unparsable(part, &why))?;
        if let Test::In(values) | Test::NotIn(values) = &requirement.test {
            values
                .iter()
                .try_for_each(|v| crate::validate::label_value(v))
                .map_err(|why| unparsable(part, &why))?;
        }
        out.push(requirement);
    }
    Ok(out)
}

fn parse_label(part: &str) -> Result<Requirement> {
    let one = |key: &str, test| Ok(Requirement { key: key.trim().to_owned(), test });
    let single = |value: &str| vec![value.trim().to_owned()];
    if let Some((head, values)) = part.split_once('(') {
        let values = values.strip_suffix(')').ok_or_else(|| unparsable(part, "found no ')'"))?;
        let values: Vec<String> = values.split(',').map(|value| value.trim().to_owned()).collect();
        let words: Vec<&str> = head.split_whitespace().collect();
        return match words.as_slice() {
            [key, "in"] => one(key, Test::In(values)),
            [key, "notin"] => one(key, Test::NotIn(values)),
            _ => Err(unparsable(part, "expected 'key in (...)' or 'key notin (...)'")),
        };
    }
    if let Some(key) = part.strip_prefix('!') {
        return one(key, Test::Missing);
    }
    for (sign, negated) in [("!=", true), ("==", false), ("=", false)] {
        if let Some((key, value)) = part.split_once(sign) {
            return one(key, if negated { Test::NotIn(single(value)) } else { Test::In(single(value)) });
        }
    }
    for (sign, above) in [('>', true), ('<', false)] {
        if let Some((key, bound)) = part.split_once(sign) {
            let bound = bound.trim().parse().map_err(|_ignored: std::num::ParseIntError| {
                unparsable(part, "for 'Gt', 'Lt' operators, the value must be an integer")
            })?;
            return one(key, if above { Test::Above(bound) } else { Test::Below(bound) });
        }
    }
    match part.split_whitespace().collect::<Vec<_>>().as_slice() {
        [key] => one(key, Test::Exists),
        _ => Err(unparsable(part, "expected an operator")),
    }
}

fn split_outside_parentheses(text: &str) -> Vec<&str> {
    let mut depth = 0_usize;
    text.split(move |c| {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    })
    .collect()
}

fn parse_fields(resource: &Arc<Row>, text: &str) -> Result<Vec<FieldRequirement>> {
    let mut out = Vec::new();
    for part in text.split(',').filter(|part| !part.trim().is_empty()) {
        let split = [("!=", false), ("==", true), ("=", true)]
            .into_iter()
            .find_map(|(sign, equal)| part.split_once(sign).map(|(name, value)| (name, value, equal)));
        let Some((name, value, equal)) = split else {
            return Err(Refusal::bad_request(format!(
                "invalid field selector: {text:?}; can't understand {part:?}"
            )));
        };
        let name = name.trim();
        let field = match name {
            "metadata.name" => Field::Name,
            "metadata.namespace" => Field::Namespace,
            _ => match resource.selectable.iter().position(|(known, _)| *known == name) {
                Some(at) if resource.custom.is_some() => {
                    Field::Path(Arc::clone(resource), resource.selectable[at].1.clone())
                }
                Some(at) => Field::Selectable(at),
                None => {
                    let message = format!("field label not supported: {name}");
                    return Err(Refusal::bad_request(message));
                }
            },
        };
        out.push(FieldRequirement { field, value: value.trim().to_owned(), equal });
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pods() -> Arc<Row> {
        Arc::clone(crate::resources::builtin().find("", "v1", "pods").unwrap())
    }

    fn entry(labels: &[(&str, &str)]) -> Entry<Header> {
        let header = Header {
            name: "a".into(),
            labels: labels.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(),
            fields: pods()
                .selectable
                .iter()
                .map(|(n, _)| if *n == "spec.nodeName" { "n1".into() } else { "".into() })
                .collect(),
            ..Header::default()
        };
        Entry {
            key: "".into(),
            value: bytes::Bytes::new().into(),
            mod_revision: 1,
            create_revision: 1,
            expires: 0,
            header,
        }
    }

    #[test]
    fn a_selector_knows_the_only_name_and_the_only_node() {
        for (fields, name, node) in [
            ("", None, None),
            ("metadata.name=a", Some("a"), None),
            ("metadata.name!=a,spec.nodeName!=n", None, None),
            ("spec.nodeName=n,status.phase=Running", None, Some("n")),
            ("status.phase=Running", None, None),
            ("spec.nodeName=,metadata.name=a", Some("a"), Some("")),
        ] {
            let selector = Selector::parse(&pods(), "", fields).unwrap();
            assert_eq!((selector.name(), selector.node(&pods())), (name, node), "{fields}");
        }
    }

    #[test]
    fn label_selectors_match_as_documented() {
        let labels = entry(&[("app", "web"), ("tier", "1")]);
        let cases = [
            ("", true),
            ("app=web", true),
            ("app==web,tier=1", true),
            ("app!=web", false),
            ("missing!=x", true),
            ("app in (api, web)", true),
            ("app notin (api,web)", false),
            ("missing notin (a)", true),
            ("app", true),
            ("!app", false),
            ("!missing", true),
            ("tier>0", true),
            ("tier<1", false),
            ("app in (web),tier notin (2)", true),
        ];
        for (text, want) in cases {
            let selector = Selector::parse(&pods(), text, "").unwrap();
            assert_eq!(selector.matches(&labels), want, "{text}");
        }
    }

    #[test]
    fn field_selectors_match_names_and_the_rows_fields() {
        let object = entry(&[]);
        for (text, want) in [
            ("metadata.name=a", true),
            ("metadata.name!=a", false),
            ("spec.nodeName=n1", true),
            ("spec.nodeName=", false),
            ("spec.nodeName==n1,metadata.name=a", true),
        ] {
            assert_eq!(Selector::parse(&pods(), "", text).unwrap().matches(&object), want, "{text}");
        }
    }

    #[test]
    fn bad_selectors_are_bad_requests() {
        for (labels, fields) in
            [("a in (b", ""), ("a b", ""), ("a>x", ""), ("-bad-=x", ""), ("", "spec.x=1"), ("", "nonsense")]
        {
            let refusal = Selector::parse(&pods(), labels, fields).unwrap_err();
            assert_eq!(refusal.code, 400, "{labels} {fields}");
        }
    }
}
