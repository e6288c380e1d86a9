//! What is applied and says nothing, such as a null, an empty map or a zero: it is not stored, and owned all the same.

use serde_json::{Value, json};

use super::set::Set;
use super::walk::{by_step, has_parts};
use crate::schema::{ANY, ListType, Node};
use crate::tree::is_zero;

/// What was decoded of an applied object, with all that decoding left out and the applier yet owns.
pub fn with_nothings(node: &Node, mut decoded: Value, applied: &Value) -> Value {
    put_nothings(node, &mut decoded, applied);
    decoded
}

fn put_nothings(node: &Node, decoded: &mut Value, applied: &Value) {
    match (decoded, applied) {
        (Value::Object(decoded), Value::Object(applied)) => {
            for (name, value) in applied {
                match decoded.get_mut(name) {
                    Some(known) => put_nothings(node.child(name).unwrap_or(&ANY), known, value),
                    None if is_nothing(value) => _ = decoded.insert(name.clone(), value.clone()),
                    None => {}
                }
            }
        }
        // What is in other lists is owned with the list.
        (Value::Array(decoded), Value::Array(applied)) if node.list == ListType::Map => {
            let Some(item) = node.item() else { return };
            let positions = by_step(node, decoded);
            for (step, at) in by_step(node, applied) {
                if let Some(known) = positions.get(&step) {
                    put_nothings(item, &mut decoded[*known], &applied[at]);
                }
            }
        }
        _ => {}
    }
}

/// Puts empty maps into what has become of `old`, where somebody owns the map as such and all that was in it has been taken
/// back: to its owner it is still there.
pub fn hold(node: &Node, old: &Value, new: &mut Value, held: &Set) {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            for (name, before) in old {
                let Some(step) = held.step(&format!("f:{name}")) else { continue };
                let child = node.child(name).unwrap_or(&ANY);
                let is_map = step.own && step.below.is_empty() && before.is_object() && has_parts(child);
                match new.get_mut(name) {
                    Some(after) => hold(child, before, after, &step.below),
                    None if is_map => _ = new.insert(name.clone(), json!({})),
                    None => {}
                }
            }
        }
        (Value::Array(old), Value::Array(new)) if node.list == ListType::Map => {
            let Some(item) = node.item() else { return };
            let positions = by_step(node, new);
            for (at, before) in by_step(node, old) {
                if let (Some(step), Some(after)) = (held.step(&at), positions.get(&at)) {
                    hold(item, &old[before], &mut new[*after], &step.below);
                }
            }
        }
        _ => {}
    }
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        scalar => is_zero(scalar),
    }
}

/// Whether there is anything in an object that decoding might leave out.
pub fn has_nothing(value: &Value) -> bool {
    match value {
        Value::Object(fields) => fields.values().any(|value| is_nothing(value) || has_nothing(value)),
        Value::Array(items) => items.iter().any(has_nothing),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::resources::known;

    #[test]
    fn nothing_is_put_where_it_was() {
        let applied = json!({"spec": {"hostNetwork": false, "volumes": [], "containers": [
            {"name": "b", "tty": false, "args": []}, {"name": "c", "env": [{"name": "A", "value": ""}]}]}});
        let stored = json!({"spec": {"containers": [
            {"name": "a"}, {"name": "c", "env": [{"name": "A"}, {"name": "B"}]}, {"name": "b"}]}});
        let want = json!({"spec": {"hostNetwork": false, "volumes": [], "containers": [
            {"name": "a"}, {"name": "c", "env": [{"name": "A", "value": ""}, {"name": "B"}]},
            {"name": "b", "tty": false, "args": []}]}});
        let node = known("", "pods").node();
        assert!(has_nothing(&applied) && !has_nothing(&stored));
        assert_eq!(with_nothings(node, stored, &applied), want);
    }
}
