//! The paths of OpenAPI documents: which operations a resource has, and the parameters kubectl looks for.

use serde_json::{Map, Value, json};

use super::openapi::Form;
use crate::resources::Row;
use crate::schema::schema;

/// Paths of a row.
pub fn paths(row: &Row, form: Form) -> Map<String, Value> {
    let (group, version) = (&row.group, &row.version);
    let root = if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") };
    let mut out = Map::new();
    let place = if row.namespaced { "/namespaces/{namespace}" } else { "" };
    let collection = format!("{root}{place}/{}", row.plural);
    let mut on_all = Map::new();
    for (verb, method, action) in [
        ("create", "post", "post"),
        ("list", "get", "list"),
        ("deletecollection", "delete", "deletecollection"),
    ] {
        if row.verbs().contains(&verb) {
            on_all.insert(method.to_owned(), operation(row, action, form));
        }
    }
    out.insert(collection.clone(), Value::Object(on_all));
    if row.review {
        return out;
    }
    let mut on_one = Map::new();
    for (verb, method) in [("get", "get"), ("update", "put"), ("patch", "patch"), ("delete", "delete")] {
        if row.verbs().contains(&verb) {
            on_one.insert(method.to_owned(), operation(row, method, form));
        }
    }
    out.insert(format!("{collection}/{{name}}"), Value::Object(on_one));
    if row.namespaced {
        let all = json!({ "get": operation(row, "list", form) });
        out.insert(format!("{root}/{}", row.plural), all);
    }
    out
}

fn operation(row: &Row, action: &str, form: Form) -> Value {
    let mut names = Vec::new();
    match action {
        "post" | "put" => names.extend(["dryRun", "fieldManager", "fieldValidation"]),
        "patch" => names.extend(["dryRun", "fieldManager", "fieldValidation", "force"]),
        "delete" => names.extend(["dryRun", "gracePeriodSeconds", "propagationPolicy"]),
        "list" => {
            names.extend(["continue", "fieldSelector", "labelSelector", "limit", "resourceVersion", "watch"]);
        }
        _ => {}
    }
    let v3 = form == Form::V3;
    let parameters: Vec<Value> = names
        .into_iter()
        .map(|name| {
            if v3 {
                json!({ "name": name, "in": "query", "schema": { "type": "string", "uniqueItems": true } })
            } else {
                json!({ "name": name, "in": "query", "type": "string", "uniqueItems": true })
            }
        })
        .collect();
    let kind = json!({ "group": row.group, "version": row.version, "kind": row.kind });
    let reference = json!({ "$ref": format!("{}{}", form.base(), type_name(row)) });
    let ok = if v3 {
        json!({ "description": "OK", "content": { "application/json": { "schema": reference } } })
    } else {
        json!({ "description": "OK", "schema": reference })
    };
    json!({
        "operationId": format!("{action}{}{}{}", row.group.replace(['.', '-'], ""), row.version, row.kind),
        "parameters": parameters, "responses": { "200": ok },
        "x-kubernetes-action": action, "x-kubernetes-group-version-kind": kind,
    })
}

/// The published name of a row's kind.
fn type_name(row: &Row) -> String {
    match schema().kind(&row.group, &row.version, &row.kind) {
        Some(id) if row.custom.is_none() => schema().types[id].name.to_string(),
        _ => super::custom::type_name(row, &row.kind),
    }
}
