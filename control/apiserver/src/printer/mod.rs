//! Server-side tables: which columns `kubectl get` shows for a kind, and their cells.

pub mod access;

pub mod autoscaler;
pub mod cluster;
pub mod config;
pub mod devices;
pub mod extension;
pub mod flow_control;
pub mod network;
pub mod paths;
pub mod pods;
pub mod previews;
pub mod storage;
pub mod workloads;

use std::sync::{LazyLock, OnceLock};

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::documents::descriptions;
use crate::tree::{at, strings, text};

/// Columns of a kind and the function that fills them.
#[derive(Debug)]
pub struct Printer {
    pub columns: &'static [Column],
    pub cells: fn(&Value, Timestamp) -> Vec<Value>,
}

/// How the objects of a row are shown.
#[derive(Debug)]
pub enum Columns {
    Fixed(&'static Printer, OnceLock<Value>),
    /// The name, and what the definition of the kind asks for.
    Paths(Vec<paths::PathColumn>),
}

impl Columns {
    pub fn fixed(printer: &'static Printer) -> Self {
        Self::Fixed(printer, OnceLock::new())
    }

    pub fn len(&self) -> usize {
        match self {
            Self::Fixed(printer, _) => printer.columns.len(),
            Self::Paths(columns) => columns.len() + 1,
        }
    }

    /// The cells of an object.
    pub fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        match self {
            Self::Fixed(printer, _) => (printer.cells)(object, now),
            Self::Paths(columns) => {
                let own = columns.iter().map(|column| column.cell(object, now));
                std::iter::once(name(object)).chain(own).collect()
            }
        }
    }

    /// Column definitions of a table.
    pub fn definitions(&self) -> Value {
        match self {
            Self::Fixed(printer, made) => {
                made.get_or_init(|| printer.columns.iter().map(Column::definition).collect()).clone()
            }
            Self::Paths(columns) => {
                let own = columns.iter().map(paths::PathColumn::definition);
                std::iter::once(NAME.definition()).chain(own).collect()
            }
        }
    }
}

/// One column. Those with a priority above 0 are shown by `-o wide`.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    pub name: &'static str,
    pub kind: &'static str,
    pub format: &'static str,
    pub priority: i32,
    pub description: Description,
}

/// What is said of a column.
#[derive(Debug, Clone, Copy)]
pub enum Description {
    Nothing,
    Text(&'static str),
    /// What is said of a field in the API's documentation: its type, without what the names of types begin with, and name.
    Field(&'static str, &'static str),
    /// The same of a field of metadata.
    Metadata(&'static str),
}

impl Column {
    const fn new(name: &'static str, kind: &'static str) -> Self {
        Self { name, kind, format: "", priority: 0, description: Description::Nothing }
    }

    pub const fn says(self, text: &'static str) -> Self {
        Self { description: Description::Text(text), ..self }
    }

    /// Says what the documentation says of a field, `core.v1.PodSpec` and `nodeName` for example.
    pub const fn of(self, kind: &'static str, field: &'static str) -> Self {
        Self { description: Description::Field(kind, field), ..self }
    }

    pub const fn formatted(self, format: &'static str) -> Self {
        Self { format, ..self }
    }

    fn definition(&self) -> Value {
        let description = match self.description {
            Description::Nothing => String::new(),
            Description::Text(text) => text.to_owned(),
            Description::Field(kind, field) => descriptions::field(&format!("io.k8s.api.{kind}"), field),
            Description::Metadata(field) => of_metadata(field).to_owned(),
        };
        json!({ "name": self.name, "type": self.kind, "format": self.format, "description": description,
                "priority": self.priority })
    }
}

/// What is said of a field of metadata.
pub(crate) fn of_metadata(field: &str) -> &'static str {
    static TEXTS: LazyLock<[(&str, String); 2]> = LazyLock::new(|| {
        ["name", "creationTimestamp"].map(|field| (field, descriptions::field(OBJECT_META, field)))
    });
    let found = TEXTS.iter().find(|(known, _)| *known == field);
    found.map_or("", |(_, text)| text)
}

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// A column of text.
pub const fn column(name: &'static str) -> Column {
    Column::new(name, "string")
}

/// A column of numbers.
pub const fn number(name: &'static str) -> Column {
    Column::new(name, "integer")
}

/// A column of answers, which the cells may give in words.
pub const fn boolean(name: &'static str) -> Column {
    Column::new(name, "boolean")
}

/// A column of `-o wide`.
pub const fn wide(name: &'static str) -> Column {
    Column { priority: 1, ..column(name) }
}

/// The name column.
pub const NAME: Column =
    Column { format: "name", description: Description::Metadata("name"), ..column("Name") };
/// The age column.
pub const AGE: Column = Column { description: Description::Metadata("creationTimestamp"), ..column("Age") };
/// Names of the containers of a template.
pub const CONTAINERS: Column = wide("Containers").says("Names of each container in the template.");
/// Their images.
pub const IMAGES: Column = wide("Images").says("Images referenced by each container in the template.");

/// Kinds without columns of their own.
pub static NAME_AND_AGE: Printer = Printer {
    columns: &[NAME, Column { name: "Created At", kind: "date", ..AGE }],
    cells: |object, _| vec![name(object), created(object)],
};

fn created(object: &Value) -> Value {
    at(object, &["metadata", "creationTimestamp"]).clone()
}

pub(crate) fn name(object: &Value) -> Value {
    at(object, &["metadata", "name"]).clone()
}

/// How long ago the object was created.
pub(crate) fn age(object: &Value, now: Timestamp) -> Value {
    json!(since(text(object, &["metadata", "creationTimestamp"]), now))
}

/// How long ago `time` was; `<unknown>` when it is no time.
pub(crate) fn since(time: &str, now: Timestamp) -> String {
    match time.parse::<Timestamp>() {
        Ok(time) => duration(now.as_second() - time.as_second()),
        Err(_) => "<unknown>".to_owned(),
    }
}

/// Seconds in the two most significant units, as upstream's `HumanDuration`.
pub(crate) fn duration(seconds: i64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let pair = |a: i64, unit: &str, b: i64, lower: &str| {
        if b == 0 { format!("{a}{unit}") } else { format!("{a}{unit}{b}{lower}") }
    };
    match seconds {
        s if s < -1 => "<invalid>".to_owned(),
        s if s < 0 => "0s".to_owned(),
        s if s < 120 => format!("{s}s"),
        s if minutes < 10 => pair(minutes, "m", s % 60, "s"),
        _ if minutes < 180 => format!("{minutes}m"),
        _ if hours < 8 => pair(hours, "h", minutes % 60, "m"),
        _ if hours < 48 => format!("{hours}h"),
        _ if hours < 192 => pair(days, "d", hours % 24, "h"),
        _ if days < 365 * 2 => format!("{days}d"),
        _ if days < 365 * 8 => pair(days / 365, "y", days % 365, "d"),
        _ => format!("{}y", days / 365),
    }
}

/// `a=1,b=2`, or `<none>`.
pub(crate) fn labels(object: &Value, path: &[&str]) -> String {
    let mut pairs: Vec<String> = strings(object, path).map(|(key, value)| format!("{key}={value}")).collect();
    pairs.sort();
    or_none(&pairs.join(","))
}

/// A LabelSelector in the form kubectl takes on its command line.
pub(crate) fn selector(object: &Value, path: &[&str]) -> String {
    let selector = at(object, path);
    let mut parts: Vec<String> =
        strings(selector, &["matchLabels"]).map(|(key, value)| format!("{key}={value}")).collect();
    parts.sort();
    for expression in crate::tree::list(selector, &["matchExpressions"]) {
        let key = text(expression, &["key"]);
        let values = words(expression, &["values"]).join(",");
        parts.push(match text(expression, &["operator"]) {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "Exists" => key.to_owned(),
            _ => format!("!{key}"),
        });
    }
    or_none(&parts.join(","))
}

/// The strings of a list.
pub(crate) fn words<'a>(object: &'a Value, path: &[&str]) -> Vec<&'a str> {
    crate::tree::list(object, path).iter().filter_map(Value::as_str).collect()
}

pub(crate) fn or_none(text: &str) -> String {
    if text.is_empty() { "<none>".to_owned() } else { text.to_owned() }
}

/// Names and images of containers, comma-separated.
pub(crate) fn containers(object: &Value, path: &[&str]) -> [Value; 2] {
    let containers = crate::tree::list(object, path);
    let join = |field: &str| containers.iter().map(|c| text(c, &[field])).collect::<Vec<_>>().join(",");
    [json!(join("name")), json!(join("image"))]
}

/// A number, 0 when absent.
pub(crate) fn count(object: &Value, path: &[&str]) -> i64 {
    crate::tree::int(object, path).unwrap_or_default()
}

/// What stands at `path`, shown as text; `<unset>` when absent.
pub(crate) fn shown(object: &Value, path: &[&str]) -> Value {
    match at(object, path) {
        Value::Null => json!("<unset>"),
        Value::String(text) => json!(text),
        other => json!(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_like_upstreams() {
        for (seconds, want) in [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (150, "2m30s"),
            (601, "10m"),
            (10_799, "179m"),
            (10_800, "3h"),
            (11_400, "3h10m"),
            (86_400, "24h"),
            (200_000, "2d7h"),
            (1_000_000, "11d"),
            (-5, "<invalid>"),
        ] {
            assert_eq!(duration(seconds), want, "{seconds}");
        }
    }

    #[test]
    fn every_row_has_as_many_cells_as_columns() {
        for row in crate::resources::builtin().rows() {
            let cells = row.printer.cells(&json!({ "metadata": { "name": "a" } }), Timestamp::UNIX_EPOCH);
            assert_eq!(cells.len(), row.printer.len(), "{}", row.qualified());
        }
    }

    #[test]
    fn every_field_a_column_names_is_documented() {
        for row in crate::resources::builtin().rows() {
            let Columns::Fixed(printer, _) = &row.printer else { panic!("built-in kinds have columns") };
            for column in printer.columns {
                let of_a_field =
                    matches!(column.description, Description::Field(..) | Description::Metadata(_));
                let said = column.definition()["description"] != "";
                assert!(said || !of_a_field, "{}: {}", row.qualified(), column.name);
            }
        }
    }

    #[test]
    fn columns_are_described_and_typed_as_upstreams() {
        let row = crate::resources::find("", "secrets").unwrap();
        let said = "Data contains the secret data. Each key must consist of alphanumeric characters, '-', '_' or '.'. The \
                    serialized form of the secret data is a base64 encoded string, representing the arbitrary (possibly \
                    non-string) data value here. Described in https://tools.ietf.org/html/rfc4648#section-4";
        let want =
            json!({ "name": "Data", "type": "string", "format": "", "description": said, "priority": 0 });
        assert_eq!(row.printer.definitions()[2], want);
        let row = crate::resources::find("apps", "deployments").unwrap();
        let want = json!({ "name": "Images", "type": "string", "format": "", "priority": 1,
                           "description": "Images referenced by each container in the template." });
        assert_eq!(row.printer.definitions()[6], want);
    }
}
