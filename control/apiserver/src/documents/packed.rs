//! The old OpenAPI document in protobuf, which clients that do not read JSON there ask for.
//!
//! Its messages are those of gnostic's `openapi.v2`. What is a map in JSON is a list of names and values there, and
//! what may be anything is text. A message that comes in pieces is put together by its reader, so that a document can
//! be written piece by piece.

use serde_json::{Map, Value};

use crate::protobuf::wire::{EIGHT, NUMBER, bytes, close, integer, open, tag};

/// The media type as clients ask for it, and as it is answered: the first is none that may stand in a header.
pub const ASKED: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
pub const MEDIA: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// The fields of a message, and the number under which those are that begin with `x-`.
struct Message {
    fields: &'static [Field],
    vendor: u32,
}

/// Where a field of JSON is.
struct Field {
    name: &'static str,
    /// Messages around the field.
    around: &'static [u32],
    number: u32,
    /// Messages inside every value of the field.
    inside: &'static [u32],
    kind: Kind,
}

enum Kind {
    Text,
    Flag,
    Integer,
    Double,
    /// Anything, as text.
    Any,
    Message(&'static Message),
    /// A parameter, which is another message in the body, in the query and in the path.
    Parameter,
    /// A map of names to messages.
    Named(&'static Message),
}

const fn field(name: &'static str, number: u32, kind: Kind) -> Field {
    Field { name, around: &[], number, inside: &[], kind }
}

const fn within(name: &'static str, around: &'static [u32], number: u32, kind: Kind) -> Field {
    Field { name, around, number, inside: &[], kind }
}

static DOCUMENT: Message = Message {
    fields: &[
        field("swagger", 1, Kind::Text),
        field("info", 2, Kind::Message(&INFO)),
        within("paths", &[8], 2, Kind::Named(&PATH)),
        within("definitions", &[9], 1, Kind::Named(&SCHEMA)),
    ],
    vendor: 16,
};

static INFO: Message =
    Message { fields: &[field("title", 1, Kind::Text), field("version", 2, Kind::Text)], vendor: 7 };

static PATH: Message = Message {
    fields: &[
        field("get", 2, Kind::Message(&OPERATION)),
        field("put", 3, Kind::Message(&OPERATION)),
        field("post", 4, Kind::Message(&OPERATION)),
        field("delete", 5, Kind::Message(&OPERATION)),
        field("options", 6, Kind::Message(&OPERATION)),
        field("head", 7, Kind::Message(&OPERATION)),
        field("patch", 8, Kind::Message(&OPERATION)),
        field("parameters", 9, Kind::Parameter),
    ],
    vendor: 10,
};

static OPERATION: Message = Message {
    fields: &[
        field("tags", 1, Kind::Text),
        field("description", 3, Kind::Text),
        field("operationId", 5, Kind::Text),
        field("produces", 6, Kind::Text),
        field("consumes", 7, Kind::Text),
        field("parameters", 8, Kind::Parameter),
        field("schemes", 10, Kind::Text),
        Field { name: "responses", around: &[9], number: 1, inside: &[1], kind: Kind::Named(&RESPONSE) },
    ],
    vendor: 13,
};

/// What parameters are, by where they stand: the messages around the last, and that.
static PARAMETERS: [(&str, &[u32], &Message); 3] =
    [("body", &[1, 1], &IN_BODY), ("query", &[1, 2, 3], &IN_QUERY), ("path", &[1, 2, 4], &IN_PATH)];

static IN_BODY: Message = Message {
    fields: &[
        field("description", 1, Kind::Text),
        field("name", 2, Kind::Text),
        field("in", 3, Kind::Text),
        field("required", 4, Kind::Flag),
        field("schema", 5, Kind::Message(&SCHEMA)),
    ],
    vendor: 6,
};

static IN_QUERY: Message = Message {
    fields: &[
        field("required", 1, Kind::Flag),
        field("in", 2, Kind::Text),
        field("description", 3, Kind::Text),
        field("name", 4, Kind::Text),
        field("type", 6, Kind::Text),
        field("uniqueItems", 20, Kind::Flag),
    ],
    vendor: 23,
};

static IN_PATH: Message = Message {
    fields: &[
        field("required", 1, Kind::Flag),
        field("in", 2, Kind::Text),
        field("description", 3, Kind::Text),
        field("name", 4, Kind::Text),
        field("type", 5, Kind::Text),
        field("uniqueItems", 19, Kind::Flag),
    ],
    vendor: 22,
};

static RESPONSE: Message = Message {
    fields: &[field("description", 1, Kind::Text), within("schema", &[2], 1, Kind::Message(&SCHEMA))],
    vendor: 5,
};

static SCHEMA: Message = Message {
    fields: &[
        field("$ref", 1, Kind::Text),
        field("format", 2, Kind::Text),
        field("title", 3, Kind::Text),
        field("description", 4, Kind::Text),
        field("default", 5, Kind::Any),
        field("multipleOf", 6, Kind::Double),
        field("maximum", 7, Kind::Double),
        field("exclusiveMaximum", 8, Kind::Flag),
        field("minimum", 9, Kind::Double),
        field("exclusiveMinimum", 10, Kind::Flag),
        field("maxLength", 11, Kind::Integer),
        field("minLength", 12, Kind::Integer),
        field("pattern", 13, Kind::Text),
        field("maxItems", 14, Kind::Integer),
        field("minItems", 15, Kind::Integer),
        field("uniqueItems", 16, Kind::Flag),
        field("maxProperties", 17, Kind::Integer),
        field("minProperties", 18, Kind::Integer),
        field("required", 19, Kind::Text),
        field("enum", 20, Kind::Any),
        within("additionalProperties", &[21], 1, Kind::Message(&SCHEMA)),
        within("type", &[22], 1, Kind::Text),
        within("items", &[23], 1, Kind::Message(&SCHEMA)),
        within("properties", &[25], 1, Kind::Named(&SCHEMA)),
        field("example", 30, Kind::Any),
    ],
    vendor: 31,
};

/// A piece of a document.
pub fn piece(document: &Map<String, Value>) -> Vec<u8> {
    let mut out = Vec::new();
    message(&mut out, &DOCUMENT, document);
    out
}

fn message(out: &mut Vec<u8>, kind: &Message, object: &Map<String, Value>) {
    for (name, value) in object {
        if let Some(field) = kind.fields.iter().find(|field| field.name == name) {
            let around: Vec<usize> = field.around.iter().map(|number| open(out, *number)).collect();
            several(out, field, value);
            around.into_iter().rev().for_each(|start| close(out, start));
        } else if name.starts_with("x-") {
            let entry = open(out, kind.vendor);
            bytes(out, 1, name.as_bytes());
            any(out, 2, value);
            close(out, entry);
        }
    }
}

fn several(out: &mut Vec<u8>, field: &Field, value: &Value) {
    match (value, &field.kind) {
        // A default or an example is one value, whatever it is.
        (Value::Array(items), _) if !matches!(field.name, "default" | "example") => {
            items.iter().for_each(|item| one(out, field, item));
        }
        (Value::Object(entries), Kind::Named(kind)) => {
            for (name, value) in entries {
                let entry = open(out, field.number);
                bytes(out, 1, name.as_bytes());
                nested(out, 2, field.inside, kind, value);
                close(out, entry);
            }
        }
        _ => one(out, field, value),
    }
}

fn one(out: &mut Vec<u8>, field: &Field, value: &Value) {
    match (&field.kind, value) {
        (Kind::Any, _) => any(out, field.number, value),
        (Kind::Text, Value::String(text)) => bytes(out, field.number, text.as_bytes()),
        (Kind::Flag, Value::Bool(flag)) => flagged(out, field.number, *flag),
        // Whether there may be other fields at all stands beside what they may be.
        (Kind::Message(_), Value::Bool(flag)) => flagged(out, field.number + 1, *flag),
        (Kind::Integer, Value::Number(number)) => {
            integer(out, field.number, number.as_i64().unwrap_or(i64::MAX));
        }
        (Kind::Double, Value::Number(number)) => {
            tag(out, field.number, EIGHT);
            out.extend_from_slice(&number.as_f64().unwrap_or_default().to_le_bytes());
        }
        (Kind::Message(kind), value) => nested(out, field.number, field.inside, kind, value),
        (Kind::Parameter, value) => {
            let known = PARAMETERS.iter().find(|(place, ..)| value["in"] == **place);
            let (_, inside, kind) = known.expect("the server's own documents have no others");
            nested(out, field.number, inside, kind, value);
        }
        // A definition is checked before it is published: what it says is of its type.
        _ => {}
    }
}

fn nested(out: &mut Vec<u8>, number: u32, inside: &[u32], kind: &Message, value: &Value) {
    let mut open_ones = vec![open(out, number)];
    open_ones.extend(inside.iter().map(|number| open(out, *number)));
    if let Value::Object(object) = value {
        message(out, kind, object);
    }
    open_ones.into_iter().rev().for_each(|start| close(out, start));
}

fn any(out: &mut Vec<u8>, number: u32, value: &Value) {
    let start = open(out, number);
    bytes(out, 2, value.to_string().as_bytes());
    close(out, start);
}

fn flagged(out: &mut Vec<u8>, number: u32, flag: bool) {
    tag(out, number, NUMBER);
    out.push(flag.into());
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use serde_json::json;

    use super::*;

    /// Parts of gnostic's messages, numbered by hand from its published definitions.
    #[derive(Clone, PartialEq, prost::Message)]
    struct Document {
        #[prost(string, tag = "1")]
        swagger: String,
        #[prost(message, optional, tag = "8")]
        paths: Option<Paths>,
        #[prost(message, optional, tag = "9")]
        definitions: Option<Schemas>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    struct Paths {
        #[prost(message, repeated, tag = "2")]
        path: Vec<NamedPath>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    struct NamedPath {
        #[prost(string, tag = "1")]
        name: String,
        #[prost(message, optional, tag = "2")]
        value: Option<Path>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    struct Path {
        #[prost(message, optional, tag = "4")]
        post: Option<Operation>,
        #[prost(message, repeated, tag = "9")]
        parameters: Vec<Around1>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    struct Operation {
        #[prost(string, repeated, tag = "1")]
        tags: Vec<String>,
        #[prost(string, tag = "3")]
        description: String,
        #[prost(string, tag = "5")]
        id: String,
        #[prost(string, repeated, tag = "6")]
        produces: Vec<String>,
        #[prost(string, repeated, tag = "7")]
        consumes: Vec<String>,
        #[prost(string, repeated, tag = "10")]
        schemes: Vec<String>,
        #[prost(message, repeated, tag = "8")]
        parameters: Vec<Around1>,
        #[prost(message, repeated, tag = "13")]
        vendor: Vec<NamedAny>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    struct Around1 {
        #[prost(message, optional, tag = "1")]
        parameter: Option<Around2>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    struct Around2 {
        #[prost(message, optional, tag = "1")]
        body: Option<InBody>,
        #[prost(message, optional, tag = "2")]
        outside_of_body: Option<Around3>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    struct Around3 {
        #[prost(message, optional, tag = "3")]
        query: Option<InQuery>,
        #[prost(message, optional, tag = "4")]
        path: Option<InPath>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    struct InBody {
        #[prost(string, tag = "2")]
        name: String,
        #[prost(message, optional, tag = "5")]
        schema: Option<Schema>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    struct InQuery {
        #[prost(string, tag = "2")]
        place: String,
        #[prost(string, tag = "4")]
        name: String,
        #[prost(string, tag = "6")]
        kind: String,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    struct InPath {
        #[prost(bool, tag = "1")]
        required: bool,
        #[prost(string, tag = "4")]
        name: String,
        #[prost(string, tag = "5")]
        kind: String,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    struct Schemas {
        #[prost(message, repeated, tag = "1")]
        all: Vec<NamedSchema>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    struct NamedSchema {
        #[prost(string, tag = "1")]
        name: String,
        #[prost(message, optional, tag = "2")]
        value: Option<Schema>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    struct Schema {
        #[prost(string, tag = "1")]
        reference: String,
        #[prost(string, tag = "4")]
        description: String,
        #[prost(double, tag = "7")]
        maximum: f64,
        #[prost(int64, tag = "12")]
        min_length: i64,
        #[prost(string, repeated, tag = "19")]
        required: Vec<String>,
        #[prost(message, repeated, tag = "20")]
        alternatives: Vec<Any>,
        #[prost(message, optional, tag = "21")]
        additional: Option<Additional>,
        #[prost(message, optional, tag = "22")]
        kind: Option<Kinds>,
        #[prost(message, optional, tag = "25")]
        properties: Option<Schemas>,
        #[prost(message, repeated, tag = "31")]
        vendor: Vec<NamedAny>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    struct Additional {
        #[prost(bool, optional, tag = "2")]
        allowed: Option<bool>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    struct Kinds {
        #[prost(string, repeated, tag = "1")]
        value: Vec<String>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    struct NamedAny {
        #[prost(string, tag = "1")]
        name: String,
        #[prost(message, optional, tag = "2")]
        value: Option<Any>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    struct Any {
        #[prost(string, tag = "2")]
        yaml: String,
    }

    fn any(text: &str) -> Any {
        Any { yaml: text.to_owned() }
    }

    fn named(name: &str, text: &str) -> NamedAny {
        NamedAny { name: name.to_owned(), value: Some(any(text)) }
    }

    #[test]
    fn another_implementation_reads_a_document_that_comes_in_pieces() {
        let whole = |name: &str, value: Value| NamedSchema {
            name: name.to_owned(),
            value: Some(match value {
                Value::String(reference) => Schema { reference, ..Schema::default() },
                _ => Schema { kind: Some(Kinds { value: vec!["string".to_owned()] }), ..Schema::default() },
            }),
        };
        let pieces = [
            json!({ "swagger": "2.0" }),
            json!({ "definitions": { "A": { "description": "d", "type": "object", "required": ["x", "y"], "maximum": 1.5,
                "minLength": 300, "enum": ["a", 1], "additionalProperties": false, "x-kubernetes-list-map-keys": ["k"],
                "properties": { "x": { "type": "string" }, "y": { "$ref": "#/definitions/B" } } } } }),
            json!({ "paths": { "/a/{name}": {
                "parameters": [{ "name": "name", "in": "path", "required": true, "type": "string" }],
                "post": { "operationId": "o", "tags": ["t"], "description": "d", "produces": ["p"], "consumes": ["c"],
                    "schemes": ["https"], "x-kubernetes-action": "post", "parameters": [
                        { "name": "force", "in": "query", "type": "boolean" },
                        { "name": "body", "in": "body", "schema": { "$ref": "#/definitions/B" } }] } } } }),
            json!({ "definitions": { "B": { "type": "string" } } }),
        ];
        let bytes: Vec<u8> = pieces.iter().flat_map(|one| piece(one.as_object().unwrap())).collect();
        let read = Document::decode(&*bytes).unwrap();
        let own = Schema {
            description: "d".to_owned(),
            maximum: 1.5,
            min_length: 300,
            required: vec!["x".to_owned(), "y".to_owned()],
            alternatives: vec![any("\"a\""), any("1")],
            additional: Some(Additional { allowed: Some(false) }),
            kind: Some(Kinds { value: vec!["object".to_owned()] }),
            properties: Some(Schemas {
                all: vec![whole("x", json!(1)), whole("y", json!("#/definitions/B"))],
            }),
            vendor: vec![named("x-kubernetes-list-map-keys", "[\"k\"]")],
            ..Schema::default()
        };
        let around = |body, outside| Around1 { parameter: Some(Around2 { body, outside_of_body: outside }) };
        let query =
            InQuery { place: "query".to_owned(), name: "force".to_owned(), kind: "boolean".to_owned() };
        let body = InBody { name: "body".to_owned(), schema: whole("", json!("#/definitions/B")).value };
        let place = InPath { required: true, name: "name".to_owned(), kind: "string".to_owned() };
        let post = Operation {
            tags: vec!["t".to_owned()],
            description: "d".to_owned(),
            id: "o".to_owned(),
            produces: vec!["p".to_owned()],
            consumes: vec!["c".to_owned()],
            schemes: vec!["https".to_owned()],
            parameters: vec![
                around(None, Some(Around3 { query: Some(query), path: None })),
                around(Some(body), None),
            ],
            vendor: vec![named("x-kubernetes-action", "\"post\"")],
        };
        let parameters = vec![around(None, Some(Around3 { query: None, path: Some(place) }))];
        let path =
            NamedPath { name: "/a/{name}".to_owned(), value: Some(Path { post: Some(post), parameters }) };
        let want = Document {
            swagger: "2.0".to_owned(),
            paths: Some(Paths { path: vec![path] }),
            definitions: Some(Schemas {
                all: vec![NamedSchema { name: "A".to_owned(), value: Some(own) }, whole("B", json!(1))],
            }),
        };
        assert_eq!(read, want);
    }
}
