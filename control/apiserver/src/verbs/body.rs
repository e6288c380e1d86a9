//! Reading an object from a request.

use serde_json::Value;

use crate::api::Call;
use crate::negotiate::{content_type, json_body};
use crate::protobuf;
use crate::schema::decode::{DecodeError, Decoded, from_slice, from_value};
use crate::schema::{Node, schema};
use crate::status::{Refusal, Result};
use crate::tree::{set, text};

/// Decodes the body as the call's kind.
pub fn object(call: &Call) -> Result<Value> {
    let row = &call.row;
    decode(call, row.node(), (&row.group, &row.version, &row.kind))
}

/// Decodes the body as another kind, such as a Scale.
pub fn of_kind(call: &Call, kind: (&'static str, &'static str, &'static str)) -> Result<Value> {
    let id = schema().kind(kind.0, kind.1, kind.2).ok_or_else(Refusal::no_path)?;
    decode(call, &schema().root(id), kind)
}

fn decode(call: &Call, node: &Node, kind: (&str, &str, &str)) -> Result<Value> {
    if call.row.custom.is_some() && content_type(&call.headers) == protobuf::MEDIA {
        return Err(Refusal::unsupported_media_type("application/json, application/yaml"));
    }
    let type_name = node.object().map_or("", |kind| &*kind.name);
    let decoded = if content_type(&call.headers) == protobuf::MEDIA {
        let tree = protobuf::decode(type_name, &call.body);
        from_value(node, tree.map_err(|error| Refusal::bad_request(error.to_string()))?)
    } else {
        let body = json_body(&call.headers, &call.body, type_name)?;
        if body.is_empty() {
            let why = "the body of the request is empty: an object is expected";
            return Err(Refusal::bad_request(why));
        }
        from_slice(node, &body)
    };
    finish(call, decoded.map_err(|error| refuse(kind, &error))?, kind)
}

/// Decodes a tree in the version of the call.
pub fn decoded(call: &Call, tree: Value) -> Result<Value> {
    let row = &call.row;
    let kind = (&*row.group, &*row.version, &*row.kind);
    let decoded = from_value(row.node(), tree).map_err(|error| refuse(kind, &error))?;
    finish(call, decoded, kind)
}

/// Decodes a tree that a patch made in the version of the call, and brings it into the stored one.
pub fn patched(call: &Call, tree: Value) -> Result<Value> {
    let mut object = decoded(call, tree)?;
    call.row.store(&mut object);
    Ok(object)
}

fn refuse((group, version, kind): (&str, &str, &str), error: &DecodeError) -> Refusal {
    let version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    Refusal::bad_request(match error {
        DecodeError::Syntax(error) => {
            format!("couldn't get version/kind; json parse error: {error}")
        }
        DecodeError::Type(text) => {
            format!("{kind} in version {version:?} cannot be handled as a {kind}: {text}")
        }
    })
}

fn finish(call: &Call, decoded: Decoded, kind: (&str, &str, &str)) -> Result<Value> {
    report(call, &decoded.strange, kind)?;
    let mut value = decoded.value;
    if !value.is_object() {
        return Err(Refusal::bad_request("the body of the request must be an object"));
    }
    let (group, version, name) = kind;
    let api_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    let given = text(&value, &["kind"]);
    if !given.is_empty() && given != name {
        return Err(Refusal::bad_request(format!(
            "{given} in version {:?} cannot be handled as a {name}: converting ({given}) to ({name}): unknown conversion",
            text(&value, &["apiVersion"])
        )));
    }
    let given = text(&value, &["apiVersion"]);
    if !given.is_empty() && given != api_version {
        return Err(Refusal::bad_request(format!(
            "the API version in the data ({given}) does not match the expected API version ({api_version})"
        )));
    }
    set(&mut value, &["apiVersion"], api_version);
    set(&mut value, &["kind"], name);
    Ok(value)
}

/// Unknown and duplicate fields: refused, warned about or ignored, as the client asked.
fn report(call: &Call, strange: &[String], (_, _, kind): (&str, &str, &str)) -> Result<()> {
    match call.query.given("fieldValidation").unwrap_or("Warn") {
        "Strict" if !strange.is_empty() => Err(Refusal::bad_request(format!(
            "{kind} in version {:?} cannot be handled as a {kind}: strict decoding error: {}",
            call.row.version,
            strange.join(", ")
        ))),
        "Warn" => {
            strange.iter().for_each(|sentence| call.warn(sentence.clone()));
            Ok(())
        }
        "Strict" | "Ignore" => Ok(()),
        other => Err(Refusal::new(
            422,
            "Invalid",
            format!(
                "fieldValidation: Unsupported value: {other:?}: supported values: \"Ignore\", \"Strict\", \"Warn\""
            ),
        )),
    }
}

/// Decodes the body as options of a deletion; their kind carries any group.
pub fn delete_options(call: &Call, id: crate::schema::TypeId) -> Result<Value> {
    let body = json_body(&call.headers, &call.body, &schema().types[id].name)?;
    let decoded = from_slice(&schema().root(id), &body);
    decoded.map(|decoded| decoded.value).map_err(|error| refuse(("", "v1", "DeleteOptions"), &error))
}
