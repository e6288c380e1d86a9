//! Strategic merge patch: lists merge by the keys of the schema, and directives say what plain JSON cannot.
//!
//! `$patch: replace|delete|merge`, `$retainKeys`, `$deleteFromPrimitiveList/<field>`, `$setElementOrder/<field>`.

use serde_json::{Map, Value};

use crate::schema::{ANY, Node};
use crate::status::{Refusal, Result};

const DIRECTIVE: &str = "$patch";
const RETAIN: &str = "$retainKeys";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";
const ORDER: &str = "$setElementOrder/";

/// Applies `patch` to an object of the node's type.
pub fn apply(node: &Node, old: &Value, patch: &Value) -> Result<Value> {
    let (Value::Object(old), Value::Object(patch)) = (old, patch) else {
        return Err(Refusal::bad_request("a strategic merge patch must be an object"));
    };
    Ok(Value::Object(merge_map(node, old.clone(), patch)?))
}

fn merge_map(
    node: &Node,
    mut old: Map<String, Value>,
    patch: &Map<String, Value>,
) -> Result<Map<String, Value>> {
    match patch.get(DIRECTIVE).and_then(Value::as_str) {
        None | Some("merge") => {}
        Some("replace") => {
            let mut new = patch.clone();
            new.shift_remove(DIRECTIVE);
            return Ok(new);
        }
        Some("delete") => return Ok(Map::new()),
        Some(other) => return Err(Refusal::bad_request(format!("unknown patch type found: {other}"))),
    }
    if let Some(Value::Array(retained)) = patch.get(RETAIN) {
        old.retain(|name, _| retained.iter().any(|one| one == name));
    }
    for (name, change) in patch {
        let is_list_directive = name == RETAIN || name.starts_with(ORDER) || name.starts_with(DELETE_FROM);
        if is_list_directive && !change.is_array() {
            return Err(Refusal::bad_request(format!("invalid patch: {name} is not a list")));
        }
        if name == DIRECTIVE || name == RETAIN || name.starts_with(ORDER) {
            continue;
        }
        if let Some(field) = name.strip_prefix(DELETE_FROM) {
            if let (Some(Value::Array(items)), Value::Array(gone)) = (old.get_mut(field), change) {
                items.retain(|item| !gone.contains(item));
            }
            continue;
        }
        if change.is_null() {
            old.shift_remove(name);
            continue;
        }
        let order = patch.get(&format!("{ORDER}{name}")).and_then(Value::as_array);
        let child = node.child(name).unwrap_or(&ANY);
        let new = merge_field(child, old.get(name), change, order)?;
        old.insert(name.clone(), new);
    }
    reorder_untouched(node, &mut old, patch);
    Ok(old)
}

/// An order may be given for a list that is otherwise left alone.
fn reorder_untouched(node: &Node, old: &mut Map<String, Value>, patch: &Map<String, Value>) {
    for (name, order) in patch {
        let Some(field) = name.strip_prefix(ORDER).filter(|field| !patch.contains_key(*field)) else {
            continue;
        };
        let (Some(Value::Array(items)), Value::Array(order)) = (old.get_mut(field), order) else { continue };
        let key = node.child(field).and_then(|child| child.merge_key.as_deref());
        let before = items.clone();
        *items = ordered(std::mem::take(items), &before, order, key);
    }
}

fn merge_field(
    node: &Node,
    old: Option<&Value>,
    change: &Value,
    order: Option<&Vec<Value>>,
) -> Result<Value> {
    match (old, change) {
        (Some(Value::Object(fields)), Value::Object(patch)) => {
            Ok(Value::Object(merge_map(node, fields.clone(), patch)?))
        }
        (_, Value::Object(patch)) => Ok(Value::Object(merge_map(node, Map::new(), patch)?)),
        (Some(Value::Array(items)), Value::Array(patch)) if node.merges => {
            let merged = merge_list(node, items.clone(), patch)?;
            Ok(Value::Array(match order {
                Some(order) => ordered(merged, items, order, node.merge_key.as_deref()),
                None => merged,
            }))
        }
        (_, Value::Array(patch)) => Ok(Value::Array(merge_list(node, Vec::new(), patch)?)),
        (_, scalar) => Ok(scalar.clone()),
    }
}

fn merge_list(node: &Node, mut items: Vec<Value>, patch: &[Value]) -> Result<Vec<Value>> {
    let item_node = node.item().unwrap_or(&ANY);
    let Some(key) = node.merge_key.as_deref().filter(|_| node.merges) else {
        for item in patch {
            let item = match item {
                Value::Object(fields) => Value::Object(merge_map(item_node, Map::new(), fields)?),
                other => other.clone(),
            };
            let keep_both = !node.merges || !items.contains(&item);
            if keep_both {
                items.push(item);
            }
        }
        return Ok(items);
    };
    let directive = |item: &Value| item.get(DIRECTIVE).and_then(Value::as_str).map(str::to_owned);
    if patch.iter().any(|item| directive(item).as_deref() == Some("replace")) {
        return Ok(patch.iter().filter(|item| directive(item).is_none()).cloned().collect());
    }
    for change in patch {
        let Value::Object(fields) = change else {
            return Err(Refusal::bad_request("a list that is merged by key may only hold objects"));
        };
        let Some(identity) = fields.get(key) else {
            return Err(Refusal::bad_request(format!(
                "map: {change} does not contain declared merge key: {key}"
            )));
        };
        let found = items.iter().position(|item| item.get(key) == Some(identity));
        if directive(change).as_deref() == Some("delete") {
            if let Some(at) = found {
                items.remove(at);
            }
            continue;
        }
        match found {
            Some(at) => {
                let old = items[at].as_object().cloned().unwrap_or_default();
                items[at] = Value::Object(merge_map(item_node, old, fields)?);
            }
            None => items.push(Value::Object(merge_map(item_node, Map::new(), fields)?)),
        }
    }
    Ok(items)
}

/// Brings merged items into the order the client knows; items only the server has keep their place among those.
fn ordered(merged: Vec<Value>, before: &[Value], order: &[Value], key: Option<&str>) -> Vec<Value> {
    let identity = |item: &Value| key.map_or_else(|| item.clone(), |key| item[key].clone());
    let rank = |item: &Value| {
        let own = identity(item);
        order.iter().position(|one| identity(one) == own)
    };
    let was = |item: &Value| {
        let own = identity(item);
        before.iter().position(|one| identity(one) == own)
    };
    let (mut known, rest): (Vec<Value>, Vec<Value>) =
        merged.into_iter().partition(|item| rank(item).is_some());
    known.sort_by_key(|item| rank(item));
    let (mut known, mut rest) = (known.into_iter().peekable(), rest.into_iter().peekable());
    let mut out = Vec::new();
    loop {
        let first_known = match (known.peek(), rest.peek()) {
            (None, None) => return out,
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (Some(a), Some(b)) => match (was(a), was(b)) {
                (Some(a), Some(b)) => a < b,
                _ => true,
            },
        };
        out.extend(if first_known { known.next() } else { rest.next() });
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn patch(old: Value, patch: Value) -> Value {
        apply(crate::resources::known("", "pods").node(), &old, &patch).unwrap()
    }

    fn containers(items: Value) -> Value {
        json!({ "spec": { "containers": items } })
    }

    #[test]
    fn lists_merge_by_their_key() {
        let old = containers(json!([{"name": "a", "image": "1"}, {"name": "b", "image": "1"}]));
        let new = patch(old, containers(json!([{"name": "b", "image": "2"}, {"name": "c", "image": "3"}])));
        let want = containers(
            json!([{"name": "a", "image": "1"}, {"name": "b", "image": "2"}, {"name": "c", "image": "3"}]),
        );
        assert_eq!(new, want);
    }

    #[test]
    fn an_item_is_deleted_by_directive() {
        let old = containers(json!([{"name": "a"}, {"name": "b"}]));
        let new = patch(old, containers(json!([{"name": "a", "$patch": "delete"}])));
        assert_eq!(new, containers(json!([{"name": "b"}])));
    }

    #[test]
    fn replace_and_null_and_retained_keys() {
        let old = json!({"metadata": {"labels": {"a": "1", "b": "2"}}, "spec": {"nodeName": "x"}});
        let new = patch(old.clone(), json!({"metadata": {"labels": {"a": null, "c": "3"}}}));
        assert_eq!(new["metadata"]["labels"], json!({"b": "2", "c": "3"}));
        let new = patch(old.clone(), json!({"metadata": {"labels": {"$patch": "replace", "c": "3"}}}));
        assert_eq!(new["metadata"]["labels"], json!({"c": "3"}));
        let new = patch(old, json!({"metadata": {"labels": {"$retainKeys": ["b", "c"], "c": "3"}}}));
        assert_eq!(new["metadata"]["labels"], json!({"b": "2", "c": "3"}));
    }

    #[test]
    fn lists_of_scalars_merge_and_shrink_by_directive() {
        let old = json!({"metadata": {"finalizers": ["a", "b"]}});
        let new = patch(
            old,
            json!({"metadata": {"finalizers": ["b", "c"], "$deleteFromPrimitiveList/finalizers": ["a"]}}),
        );
        assert_eq!(new["metadata"]["finalizers"], json!(["b", "c"]));
    }

    #[test]
    fn the_clients_order_counts_and_the_servers_items_stay() {
        let old = containers(json!([{"name": "a"}, {"name": "server"}, {"name": "b"}]));
        let new = patch(
            old,
            json!({"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}], "containers": [{"name": "b", "image": "x"}]}}),
        );
        let names: Vec<&str> = new["spec"]["containers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|c| c["name"].as_str().unwrap())
            .collect();
        assert_eq!(names.len(), 3);
        assert!(names.iter().position(|n| *n == "b") < names.iter().position(|n| *n == "a"));
    }

    #[test]
    fn lists_without_a_merge_strategy_are_replaced() {
        let old = json!({"spec": {"tolerations": [{"key": "a"}]}});
        let new = patch(old, json!({"spec": {"tolerations": [{"key": "b"}]}}));
        assert_eq!(new, json!({"spec": {"tolerations": [{"key": "b"}]}}));
    }
}
