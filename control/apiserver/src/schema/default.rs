//! Defaults that are facts of the schema; those that depend on other fields are in `strategy`.

use serde_json::Value;

use super::{Node, Shape};

/// Fills in missing fields that have a default, all the way down.
pub fn apply_defaults(node: &Node, value: &mut Value) {
    match (&node.shape, value) {
        (Shape::Object(_) | Shape::Struct(_), Value::Object(fields)) => {
            let Some(kind) = node.object() else { return };
            for (name, child) in &kind.fields {
                if let (None, Some(default)) = (fields.get(&**name), &child.default) {
                    fields.insert(name.to_string(), Value::clone(default));
                }
                if let Some(present) = fields.get_mut(&**name) {
                    apply_defaults(child, present);
                }
            }
        }
        (Shape::List(item), Value::Array(items)) => {
            for value in items {
                if let (Value::Null, true, Some(default)) =
                    (&*value, item.custom && !item.nullable, &item.default)
                {
                    *value = Value::clone(default);
                }
                apply_defaults(item, value);
            }
        }
        (Shape::Map(item), Value::Object(fields)) => {
            fields.values_mut().for_each(|value| apply_defaults(item, value));
        }
        _ => {}
    }
}
