//! Field errors in the words of upstream, and the syntax of names, labels and numbers.

use serde_json::Value;

use crate::status::Cause;

/// Field errors found in one object.
#[derive(Debug, Default)]
pub struct Errors {
    causes: Vec<Cause>,
    /// Bytes of the messages and fields of all causes.
    said: usize,
}

/// Bytes after which no more is said of an object: some rules show a whole value for each of its parts.
const MOST_SAID: usize = 1 << 20;

impl Errors {
    fn push(&mut self, reason: &'static str, field: impl Into<String>, message: String) {
        let field = field.into();
        if !self.is_full() {
            self.said += message.len() + field.len();
            self.causes.push(Cause { reason, message, field });
        }
    }

    /// Whether so much is wrong that nobody reads more of it.
    pub fn is_full(&self) -> bool {
        self.said > MOST_SAID
    }

    pub fn required(&mut self, field: impl Into<String>, detail: &str) {
        let message =
            if detail.is_empty() { "Required value".to_owned() } else { format!("Required value: {detail}") };
        self.push("FieldValueRequired", field, message);
    }

    pub fn invalid(&mut self, field: impl Into<String>, value: &Value, detail: &str) {
        if self.is_full() {
            return;
        }
        self.push("FieldValueInvalid", field, format!("Invalid value: {}: {detail}", shown(value)));
    }

    /// Reports something without saying what it is.
    pub fn unfit(&mut self, field: impl Into<String>, detail: &str) {
        self.push("FieldValueInvalid", field, format!("Invalid value: {detail}"));
    }

    pub fn unsupported(&mut self, field: impl Into<String>, value: &str, known: &[&str]) {
        let mut known: Vec<String> = known.iter().map(|one| format!("{one:?}")).collect();
        known.sort();
        let message = format!("Unsupported value: {value:?}: supported values: {}", known.join(", "));
        self.push("FieldValueNotSupported", field, message);
    }

    pub fn duplicate(&mut self, field: impl Into<String>, value: &Value) {
        self.push("FieldValueDuplicate", field, format!("Duplicate value: {}", shown(value)));
    }

    /// Reports what is there twice, and why that matters.
    pub fn repeated(&mut self, field: impl Into<String>, value: &Value, detail: &str) {
        let message = format!("Duplicate value: {}: {detail}", shown(value));
        self.push("FieldValueDuplicate", field, message);
    }

    pub fn forbidden(&mut self, field: impl Into<String>, detail: &str) {
        self.push("FieldValueForbidden", field, format!("Forbidden: {detail}"));
    }

    pub fn not_found(&mut self, field: impl Into<String>, value: &Value) {
        self.push("FieldValueNotFound", field, format!("Not found: {}", shown(value)));
    }

    /// Reports something that is not there, and where it should be.
    pub fn absent(&mut self, field: impl Into<String>, value: &Value, detail: &str) {
        self.push("FieldValueNotFound", field, format!("Not found: {}: {detail}", shown(value)));
    }

    pub fn too_long(&mut self, field: impl Into<String>, limit: usize) {
        self.push("FieldValueTooLong", field, format!("Too long: may not be more than {limit} bytes"));
    }

    /// Reports a value of another type than its field's.
    pub fn type_invalid(&mut self, field: impl Into<String>, given: &str, detail: &str) {
        self.push("FieldValueTypeInvalid", field, format!("Invalid value: {given:?}: {detail}"));
    }

    /// Reports a value whose text is not of the form its field has.
    pub fn form_invalid(&mut self, field: impl Into<String>, value: &Value, detail: &str) {
        self.push("FieldValueTypeInvalid", field, format!("Invalid value: {}: {detail}", shown(value)));
    }

    /// Reports a list or map with more than `most` entries.
    pub fn too_many(&mut self, field: impl Into<String>, count: u64, most: u64) {
        self.push("FieldValueTooMany", field, format!("Too many: {count}: must have at most {most} items"));
    }

    /// Reports a value that is none of `known`, in their order.
    pub fn not_among(&mut self, field: impl Into<String>, value: &Value, known: &[Value]) {
        let known: Vec<String> = known.iter().map(shown).collect();
        let message = format!("Unsupported value: {}: supported values: {}", shown(value), known.join(", "));
        self.push("FieldValueNotSupported", field, message);
    }

    /// Takes over what another check found.
    pub fn append(&mut self, other: Self) {
        self.said += other.said;
        self.causes.extend(other.causes);
    }

    pub fn len(&self) -> usize {
        self.causes.len()
    }

    /// Checks `value` and reports it as invalid at `field` when `check` objects.
    pub fn check(&mut self, field: impl Into<String>, value: &str, check: fn(&str) -> Result<(), String>) {
        if let Err(why) = check(value) {
            self.invalid(field, &Value::from(value), &why);
        }
    }

    /// Reports a value outside `known`, which are named in their order; empty text is one as well.
    pub fn must_be(&mut self, field: impl Into<String>, value: &str, known: &[&str]) {
        if !known.contains(&value) {
            let known: Vec<Value> = known.iter().map(|one| Value::from(*one)).collect();
            self.not_among(field, &Value::from(value), &known);
        }
    }

    /// Reports empty text, and else what `check` objects to.
    pub fn named(&mut self, field: impl Into<String>, value: &str, check: fn(&str) -> Result<(), String>) {
        match value {
            "" => self.required(field, ""),
            _ => self.check(field, value, check),
        }
    }

    /// Reports empty text, and else what is outside `known`, which are named in their order.
    pub fn chosen(&mut self, field: impl Into<String>, value: &str, known: &[&str]) {
        match value {
            "" => self.required(field, ""),
            _ => self.must_be(field, value, known),
        }
    }

    /// Reports everything that is wrong with the name of a port.
    pub fn port_name(&mut self, field: &str, name: &str) {
        for why in port_name_faults(name) {
            self.invalid(field, &Value::from(name), why);
        }
    }

    /// Reports a value outside `known`; empty text is not checked.
    pub fn one_of(&mut self, field: impl Into<String>, value: &str, known: &[&str]) {
        if !value.is_empty() && !known.contains(&value) {
            self.unsupported(field, value, known);
        }
    }

    /// Reports a change of something that must stay.
    pub fn immutable(&mut self, field: &str, old: &Value, new: &Value) {
        if old != new {
            self.invalid(field, new, "field is immutable");
        }
    }

    /// Reports a negative number.
    pub fn not_negative(&mut self, field: impl Into<String>, value: Option<i64>) {
        if let Some(value) = value.filter(|value| *value < 0) {
            self.invalid(field, &Value::from(value), "must be greater than or equal to 0");
        }
    }

    /// Reports a number that is not above nothing.
    pub fn positive(&mut self, field: impl Into<String>, value: i64) {
        if value <= 0 {
            self.invalid(field, &Value::from(value), "must be greater than 0");
        }
    }

    /// Reports a number that is no port.
    pub fn port(&mut self, field: impl Into<String>, value: i64) {
        if !(1..=65535).contains(&value) {
            self.invalid(field, &Value::from(value), "must be between 1 and 65535, inclusive");
        }
    }

    pub fn is_empty(&self) -> bool {
        self.causes.is_empty()
    }

    pub fn into_causes(self) -> Vec<Cause> {
        self.causes
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => format!("{text:?}"),
        other => other.to_string(),
    }
}

const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must \
     start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
     '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or \
     '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
     '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const QUALIFIED: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end \
     with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
     '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or \
     '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex \
     used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

const WILDCARD: &str = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must \
     consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. \
     '*.example.com', regex used for validation is \
     '\\*\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";

fn label_shaped(text: &str) -> bool {
    let edge = |c: Option<u8>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    edge(text.bytes().next())
        && edge(text.bytes().last())
        && text.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-')
}

fn within(text: &str, limit: usize) -> Result<(), String> {
    if text.len() > limit { Err(format!("must be no more than {limit} characters")) } else { Ok(()) }
}

/// As [`within`], in the words upstream has for labels.
fn within_bytes(text: &str, limit: usize) -> Result<(), String> {
    if text.len() > limit { Err(format!("must be no more than {limit} bytes")) } else { Ok(()) }
}

/// An RFC 1123 label, such as a container's name.
pub fn label(text: &str) -> Result<(), String> {
    within(text, 63)?;
    match text {
        _ if label_shaped(text) => Ok(()),
        _ if text.split('.').all(label_shaped) => Err("must not contain dots".to_owned()),
        _ => Err(LABEL.to_owned()),
    }
}

/// An RFC 1035 label, such as the plural of a kind.
pub fn dns1035_label(text: &str) -> Result<(), String> {
    within(text, 63)?;
    if label_shaped(text) && text.starts_with(|c: char| c.is_ascii_lowercase()) {
        return Ok(());
    }
    Err("a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic \
         character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation \
         is '[a-z]([-a-z0-9]*[a-z0-9])?')"
        .to_owned())
}

/// An RFC 1123 subdomain, such as most objects' names.
pub fn subdomain(text: &str) -> Result<(), String> {
    within(text, 253)?;
    if text.split('.').all(label_shaped) { Ok(()) } else { Err(SUBDOMAIN.to_owned()) }
}

/// A name that may be one segment of a path, such as a role's.
pub fn path_segment(text: &str) -> Result<(), String> {
    if matches!(text, "." | "..") {
        return Err(format!("may not be '{text}'"));
    }
    match text.chars().find(|c| matches!(c, '/' | '%')) {
        Some(c) => Err(format!("may not contain '{c}'")),
        None => Ok(()),
    }
}

fn qualified(text: &str) -> bool {
    let edge = |c: Option<u8>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    edge(text.bytes().next())
        && edge(text.bytes().last())
        && text.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_.".contains(&c))
}

/// The key of a label or annotation.
pub fn label_key(text: &str) -> Result<(), String> {
    if text.matches('/').count() > 1 {
        let form = QUALIFIED.replacen("name part", "a valid label key", 1);
        return Err(format!(
            "{form} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
        ));
    }
    let name = match text.split_once('/') {
        Some((prefix, name)) => {
            if prefix.is_empty() {
                return Err("prefix part must be non-empty".to_owned());
            }
            subdomain(prefix).map_err(|why| format!("prefix part {why}"))?;
            name
        }
        None => text,
    };
    if name.is_empty() {
        return Err("name part must be non-empty".to_owned());
    }
    within_bytes(name, 63).map_err(|why| format!("name part {why}"))?;
    if qualified(name) { Ok(()) } else { Err(QUALIFIED.to_owned()) }
}

/// The value of a label.
pub fn label_value(text: &str) -> Result<(), String> {
    within_bytes(text, 63)?;
    if text.is_empty() || qualified(text) { Ok(()) } else { Err(LABEL_VALUE.to_owned()) }
}

/// What is wrong with the name of a port.
fn port_name_faults(name: &str) -> impl Iterator<Item = &'static str> {
    let allowed = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    let faults = [
        (name.len() > 15, "must be no more than 15 characters"),
        (
            name.is_empty() || !name.bytes().all(allowed),
            "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",
        ),
        (!name.bytes().any(|c| c.is_ascii_lowercase()), "must contain at least one letter (a-z)"),
        (name.contains("--"), "must not contain consecutive hyphens"),
        (name.starts_with('-') || name.ends_with('-'), "must not begin or end with a hyphen"),
    ];
    faults.into_iter().filter(|(is_wrong, _)| *is_wrong).map(|(_, why)| why)
}

/// A subdomain below which everything is meant, such as `*.example.com`.
pub fn wildcard_subdomain(text: &str) -> Result<(), String> {
    within(text, 253)?;
    match text.strip_prefix("*.") {
        Some(domain) if domain.split('.').all(label_shaped) => Ok(()),
        _ => Err(WILDCARD.to_owned()),
    }
}

/// The key of a ConfigMap or Secret.
pub fn config_key(text: &str) -> Result<(), String> {
    within(text, 253)?;
    if text.is_empty() || !text.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_.".contains(&c)) {
        return Err("a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or \
                    'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"
            .to_owned());
    }
    match text {
        "." | ".." => Err(format!("must not be '{text}'")),
        _ if text.starts_with("..") => Err("must not start with '..'".to_owned()),
        _ => Ok(()),
    }
}

/// The name of an environment variable.
pub fn env_name(text: &str) -> Result<(), String> {
    if text.is_empty() || text.contains('=') || !text.bytes().all(|c| (0x20..0x7f).contains(&c)) {
        return Err("a valid environment variable name must consist only of printable ASCII characters other than '='"
            .to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_has_an_end() {
        let mut errors = Errors::default();
        let long = Value::from("x".repeat(100_000));
        (0..1000).for_each(|index| errors.invalid(format!("field[{index}]"), &long, "is long"));
        assert_eq!(errors.len(), 11, "a mebibyte and what was being said");
        errors.required("other", "");
        assert_eq!(errors.len(), 11);
    }

    #[test]
    fn names_follow_their_syntax() {
        let long = "a".repeat(64);
        for (check, good, bad) in [
            (label as fn(&str) -> _, vec!["a", "a-1", "1a"], vec!["", "A", "-a", "a-", "a.b", "a_b", &long]),
            (subdomain, vec!["a.b", "a-1.c"], vec!["", ".", "a..b", "a.", "a/b", "ä"]),
            (label_key, vec!["a", "x.io/A_b.c", "A"], vec!["", "/a", "x/", "a/b/c", "X.io/a", "-a"]),
            (label_value, vec!["", "A-b_c.d"], vec!["-a", "a b", &long]),
            (dns1035_label, vec!["a-1"], vec!["", "1a", "a.b"]),
            (wildcard_subdomain, vec!["*.a", "*.a.b"], vec!["*", "*.", "*.*.a", "*a.b", "a.*", "a.b"]),
            (config_key, vec!["a.b", ".x", "A_1"], vec!["", "..", "..a", "a/b", "a b"]),
            (path_segment, vec!["system:node", "a.b"], vec!["a/b", "..", "a%b"]),
            (env_name, vec!["A", "a.b"], vec!["", "A=B"]),
        ] {
            good.iter().for_each(|text| assert!(check(text).is_ok(), "{text}"));
            bad.iter().for_each(|text| assert!(check(text).is_err(), "{text}"));
        }
    }

    #[test]
    fn all_that_is_wrong_with_the_name_of_a_port_is_said() {
        let [long, charset, letter, twice, edge] = [
            "must be no more than 15 characters",
            "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",
            "must contain at least one letter (a-z)",
            "must not contain consecutive hyphens",
            "must not begin or end with a hyphen",
        ];
        for (name, want) in [
            ("http", &[][..]),
            ("a-1", &[]),
            ("", &[charset, letter]),
            ("123", &[letter]),
            ("a--b", &[twice]),
            ("-a", &[edge]),
            ("waytoolongportname", &[long]),
            ("A_", &[charset, letter]),
        ] {
            assert_eq!(port_name_faults(name).collect::<Vec<_>>(), want, "{name}");
        }
    }

    #[test]
    fn refusals_of_names_are_upstreams() {
        let long = "a".repeat(64);
        for (why, start) in [
            (label("a.b"), "must not contain dots"),
            (label(&long), "must be no more than 63 characters"),
            (label_key(&long), "name part must be no more than 63 bytes"),
            (label_value(&long), "must be no more than 63 bytes"),
            (label_key("a/b/c"), "a valid label key must consist of alphanumeric"),
            (config_key("."), "must not be '.'"),
            (config_key("..a"), "must not start with '..'"),
            (config_key(""), "a valid config key must consist"),
        ] {
            let why = why.unwrap_err();
            assert!(why.starts_with(start), "{why}");
        }
    }
}
