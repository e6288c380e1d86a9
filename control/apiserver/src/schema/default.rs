//! Defaults that are facts of the schema; those that depend on other fields are in `strategy`.

use serde_json::Value;

use super::{Node, Shape};

/// Fills in missing fields that have a default, all the way down.
pub fn apply_defaults(node: &Node, value: &mut Value) {
    match (&node.shape, value) {
        (Shape::Object(_), Value::Object(fields)) => {
            let Some(kind) = node.object() else { return };
            for (name, child) in &kind.fields {
                match (fields.get_mut(&**name), &child.default) {
                    (Some(present), _) => apply_defaults(child, present),
                    (None, Some(default)) => {
                        fields.insert(name.to_string(), default.clone());
                    }
                    (None, None) => {}
                }
            }
        }
        (Shape::List(item), Value::Array(items)) => {
            items.iter_mut().for_each(|value| apply_defaults(item, value));
        }
        (Shape::Map(item), Value::Object(fields)) => {
            fields.values_mut().for_each(|value| apply_defaults(item, value));
        }
        _ => {}
    }
}
