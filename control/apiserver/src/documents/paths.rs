//! The paths of OpenAPI documents: which operations a resource has, and the parameters kubectl looks for.

use serde_json::{Map, Value, json};

use crate::resources::{Row, Table};
use crate::schema::schema;

/// Paths of a group and version; references begin with `base`.
pub fn paths(table: &Table, group: &str, version: &str, base: &str) -> Map<String, Value> {
    let root = if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") };
    let mut out = Map::new();
    for row in table.of(group, version) {
        let place = if row.namespaced { "/namespaces/{namespace}" } else { "" };
        let collection = format!("{root}{place}/{}", row.plural);
        let mut on_all = Map::new();
        on_all.insert("post".to_owned(), operation(row, "post", base));
        if !row.review {
            on_all.insert("get".to_owned(), operation(row, "list", base));
            on_all.insert("delete".to_owned(), operation(row, "deletecollection", base));
        }
        out.insert(collection.clone(), Value::Object(on_all));
        if row.review {
            continue;
        }
        let mut on_one = Map::new();
        for method in ["get", "put", "patch", "delete"] {
            on_one.insert(method.to_owned(), operation(row, method, base));
        }
        out.insert(format!("{collection}/{{name}}"), Value::Object(on_one));
        if row.namespaced {
            let all = json!({ "get": operation(row, "list", base) });
            out.insert(format!("{root}/{}", row.plural), all);
        }
    }
    out
}

fn operation(row: &Row, action: &str, base: &str) -> Value {
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
    let v3 = base.contains("components");
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
    let reference = schema()
        .kind(&row.group, &row.version, &row.kind)
        .map(|id| json!({ "$ref": format!("{base}{}", schema().types[id].name) }))
        .unwrap_or_default();
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
