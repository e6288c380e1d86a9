//! Reading an object from a request.

use bytes::Bytes;
use serde_json::Value;

use crate::api::Call;
use crate::json_syntax;
use crate::negotiate::{ACCEPTED, content_type, yaml};
use crate::protobuf;
use crate::schema::decode::{DecodeError, Decoded, from_slice, from_value};
use crate::schema::{Node, schema};
use crate::status::{Cause, Refusal, Result};
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
    let (decoded, twice) = if content_type(&call.headers) == protobuf::MEDIA {
        let tree = protobuf::decode(type_name, &call.body);
        (from_value(node, tree.map_err(|error| Refusal::bad_request(error.to_string()))?), None)
    } else {
        let (text, twice) = json_text(call, type_name, kind.2)?;
        (from_slice(node, &text), twice)
    };
    let mut decoded = decoded.map_err(|error| refuse(kind, &error, &call.body))?;
    decoded.strange.splice(..0, twice);
    // Of a built-in kind the path says which it is.
    if is_custom(call, kind) && decoded.value.is_object() && text(&decoded.value, &["kind"]).is_empty() {
        let why = format!("Object 'Kind' is missing in '{}'", String::from_utf8_lossy(&call.body));
        return Err(unrecognized(kind.2, &why, &call.body));
    }
    finish(call, decoded, kind)
}

/// Whether a custom object is wanted, and not something of it, such as its Scale.
fn is_custom(call: &Call, kind: (&str, &str, &str)) -> bool {
    let row = &call.row;
    row.custom.is_some() && kind == (&*row.group, &*row.version, &*row.kind)
}

/// The body as JSON, whatever it is written in, and what is said of a key that is in YAML twice. `type_name` is the
/// schema's name of what is expected, and `kind` its kind.
fn json_text(call: &Call, type_name: &str, kind: &str) -> Result<(Bytes, Option<String>)> {
    let written = |tree: &Value| Bytes::from(serde_json::to_vec(tree).expect("a tree always encodes"));
    match content_type(&call.headers) {
        protobuf::MEDIA => {
            let tree = protobuf::decode(type_name, &call.body);
            let tree = tree.map_err(|error| Refusal::bad_request(error.to_string()))?;
            Ok((written(&tree), None))
        }
        "" | "application/json" | "*/*" => Ok((call.body.clone(), None)),
        "application/yaml" | "text/yaml" | "application/x-yaml" => {
            let read = yaml(&call.body).map_err(|fault| unrecognized(kind, &fault, &call.body))?;
            Ok((written(&read.value), read.twice))
        }
        _ => Err(Refusal::unsupported_media_type(ACCEPTED)),
    }
}

/// Decodes a tree in the version of the call.
pub fn decoded(call: &Call, tree: Value) -> Result<Value> {
    let row = &call.row;
    let kind = (&*row.group, &*row.version, &*row.kind);
    let decoded = from_value(row.node(), tree).map_err(|error| refuse(kind, &error, &[]))?;
    finish(call, decoded, kind)
}

/// Decodes a tree that a patch of fields made, in the version of the call, and brings it into the stored one. `twice` is what
/// was strange about the patch itself, and `shown` what refusals show of it.
///
/// # Errors
/// 422 about the patch, where upstream's decoding of what a patch made fails.
pub fn edited(call: &Call, tree: Value, twice: &[String], shown: impl Fn() -> String) -> Result<Value> {
    let row = &call.row;
    let value = made(call, row.node(), tree, twice, shown)?;
    let mut object = identified(call, value, (&row.group, &row.version, &row.kind))?;
    row.store(&mut object);
    Ok(object)
}

/// Decodes what a patch made of something, such as a Scale.
///
/// # Errors
/// As [`edited`].
pub fn made(
    call: &Call,
    node: &Node,
    tree: Value,
    twice: &[String],
    shown: impl Fn() -> String,
) -> Result<Value> {
    let refused = |why: &str| {
        let message = format!("Invalid value: {:?}: {why}", shown());
        let cause = Cause { reason: "FieldValueInvalid", message, field: "patch".to_owned() };
        Refusal::invalid_kind("", "", "", vec![cause])
    };
    let decoded = from_value(node, tree).map_err(|error| refused(&error.to_string()))?;
    let strange = [twice, &decoded.strange[..]].concat();
    if strict(call) && !strange.is_empty() {
        return Err(refused(&format!("strict decoding error: {}", strange.join(", "))));
    }
    warn(call, &strange);
    Ok(decoded.value)
}

/// Decodes a tree that a patch made in the version of the call, and brings it into the stored one.
pub fn patched(call: &Call, tree: Value) -> Result<Value> {
    let mut object = decoded(call, tree)?;
    call.row.store(&mut object);
    Ok(object)
}

fn refuse((_, version, kind): (&str, &str, &str), error: &DecodeError, body: &[u8]) -> Refusal {
    match error {
        DecodeError::Syntax(error) => {
            let why = json_syntax::fault(body).unwrap_or_else(|| error.to_string());
            unrecognized(kind, &format!("couldn't get version/kind; json parse error: {why}"), body)
        }
        DecodeError::Type(text) => Refusal::bad_request(format!(
            "{kind} in version {version:?} cannot be handled as a {kind}: {text}"
        )),
    }
}

/// The refusal of a body that does not even say what it is.
fn unrecognized(kind: &str, why: &str, body: &[u8]) -> Refusal {
    let message =
        format!("the object provided is unrecognized (must be of type {kind}): {why} ({})", summary(body));
    Refusal::bad_request(message)
}

/// So many bytes of a body are shown to who sent it.
const SUMMARY: usize = 30;

/// The beginning of a body: as it is where it may be JSON, else in hexadecimal digits.
fn summary(body: &[u8]) -> String {
    let shown = &body[..body.len().min(SUMMARY)];
    let text = match shown.first() {
        None => return "<empty>".to_owned(),
        Some(b'{') => String::from_utf8_lossy(shown).into_owned(),
        Some(_) => shown.iter().map(|byte| format!("{byte:02x}")).collect(),
    };
    if body.len() > SUMMARY { format!("{text} ...") } else { text }
}

/// A custom object that says it is of another kind or version than the path.
fn other_than(group: &str, kind: &str, value: &Value, field: &str, given: &str, wanted: &str) -> Refusal {
    let message = format!("Invalid value: {given:?}: must be {wanted}");
    let cause = Cause { reason: "FieldValueInvalid", message, field: field.to_owned() };
    Refusal::invalid_kind(group, kind, text(value, &["metadata", "name"]), vec![cause])
}

fn finish(call: &Call, decoded: Decoded, kind: (&str, &str, &str)) -> Result<Value> {
    report(call, &decoded.strange, kind)?;
    identified(call, decoded.value, kind)
}

/// The object, if it is of the kind it has to be.
fn identified(call: &Call, mut value: Value, kind: (&str, &str, &str)) -> Result<Value> {
    if !value.is_object() {
        return Err(Refusal::bad_request("the body of the request must be an object"));
    }
    let (group, version, name) = kind;
    let api_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    let given = text(&value, &["kind"]);
    if !given.is_empty() && given != name {
        if is_custom(call, kind) {
            return Err(other_than(group, given, &value, "kind", given, name));
        }
        let given_version = text(&value, &["apiVersion"]);
        let (of, version) = given_version.rsplit_once('/').unwrap_or(("", given_version));
        let types = match schema().kind(of, version, given) {
            Some(_) => format!("({version}.{given}) to ({}.{name})", go_package(group)),
            None => format!("({given}) to ({name})"),
        };
        return Err(Refusal::bad_request(format!(
            "{given} in version {version:?} cannot be handled as a {name}: converting {types}: unknown conversion"
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

/// The name of the package in which upstream has the types of a group without a version.
fn go_package(group: &str) -> &str {
    match group {
        "" | "events.k8s.io" => "core",
        "internal.apiserver.k8s.io" => "apiserverinternal",
        other => other.split('.').next().unwrap_or_default(),
    }
}

/// Unknown and duplicate fields: refused, warned about or ignored, as the client asked.
fn report(call: &Call, strange: &[String], (_, _, kind): (&str, &str, &str)) -> Result<()> {
    if strict(call) && !strange.is_empty() {
        return Err(Refusal::bad_request(format!(
            "{kind} in version {:?} cannot be handled as a {kind}: strict decoding error: {}",
            call.row.version,
            strange.join(", ")
        )));
    }
    warn(call, strange);
    Ok(())
}

/// Whether what is unknown or there twice is refused.
pub fn strict(call: &Call) -> bool {
    call.query.given("fieldValidation") == Some("Strict")
}

fn warn(call: &Call, strange: &[String]) {
    if call.query.given("fieldValidation").unwrap_or("Warn") == "Warn" {
        strange.iter().for_each(|sentence| call.warn(sentence.clone()));
    }
}

/// Decodes the body as options of a deletion; their kind carries any group.
pub fn delete_options(call: &Call, id: crate::schema::TypeId) -> Result<Value> {
    let (body, _) = json_text(call, &schema().types[id].name, "DeleteOptions")?;
    let decoded = from_slice(&schema().root(id), &body);
    decoded.map(|decoded| decoded.value).map_err(|error| refuse(("", "v1", "DeleteOptions"), &error, &body))
}
