//! Defaults that are facts of the schema; those that depend on other fields are in `strategy`.

use serde_json::Value;

use super::{Node, Shape};

/// Fills in missing fields that have a default, all the way down.
pub fn apply_defaults(node: &Node, value: &mut Value) {
    match (&node.shape, value) {
        (Shape::Object(_) | Shape::Struct(_), Value::Object(fields)) => {
            let Some(kind) = node.object() else { return };
            for (name, child) in &kind.fields {
                if let Some(default) = &child.default
                    && !fields.contains_key(&**name)
                {
                    fields.insert(name.to_string(), Value::clone(default));
                }
            }
            let nested = fields.iter_mut().filter(|(_, value)| value.is_object() || value.is_array());
            for (name, value) in nested {
                if let Some(child) = kind.field(name) {
                    apply_defaults(child, value);
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
