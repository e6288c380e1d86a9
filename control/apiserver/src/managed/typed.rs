//! Whether what is applied has the types its kind wants, in the words of Kubernetes' structured merge.

use std::collections::HashSet;

use serde_json::{Number, Value};

use super::set::readable;
use super::walk::item_step;
use crate::schema::{ANY, ListType, Node, Shape};

/// What is wrong with the types of an object; `None` where nothing is.
pub fn faults(node: &Node, value: &Value) -> Option<String> {
    let mut walk = Walk::default();
    walk.value(node, value);
    match &*walk.faults {
        [] => None,
        [one] => Some(one.clone()),
        many => Some(format!("errors:\n  {}", many.join("\n  "))),
    }
}

/// With so many bytes of faults it is not looked for more.
const ENOUGH: usize = 16 << 10;

#[derive(Default)]
struct Walk {
    path: String,
    faults: Vec<String>,
    told: usize,
}

impl Walk {
    fn fault(&mut self, what: &str) {
        let fault = if self.path.is_empty() { what.to_owned() } else { format!("{}: {what}", self.path) };
        self.told += fault.len();
        self.faults.push(fault);
    }

    fn below(&mut self, step: &str, node: &Node, value: &Value) {
        let length = self.path.len();
        self.path += &readable(step);
        self.value(node, value);
        self.path.truncate(length);
    }

    fn value(&mut self, node: &Node, value: &Value) {
        match (&node.shape, value) {
            (Shape::Any, _) | (_, Value::Null) => {}
            (Shape::Object(_) | Shape::Struct(_) | Shape::Map(_), Value::Object(fields)) => {
                self.fields(node, fields);
            }
            (Shape::Object(_) | Shape::Struct(_) | Shape::Map(_), _) => self.other("map", value),
            (Shape::List(item), Value::Array(items)) => self.items(node, item, items),
            (Shape::List(_), _) => self.other("list", value),
            (Shape::String | Shape::Bytes, Value::String(_)) => {}
            (Shape::String | Shape::Bytes, _) => {
                let given = go(value, Form::Source);
                self.fault(&format!("expected string, got &value.valueUnstructured{{Value:{given}}}"));
            }
            (Shape::Int32 | Shape::Int64 | Shape::Number, Value::Number(_)) => {}
            (Shape::Int32 | Shape::Int64 | Shape::Number, _) => {
                self.fault(&format!("expected numeric (int or float), got {}", go_type(value)));
            }
            (Shape::Bool, Value::Bool(_)) => {}
            (Shape::Bool, _) => self.other("boolean", value),
            (_, Value::Object(_) | Value::Array(_)) => self.other("any scalar", value),
            (Shape::Quantity | Shape::IntOrString | Shape::Time | Shape::MicroTime, _) => {}
        }
    }

    fn other(&mut self, wanted: &str, given: &Value) {
        self.fault(&format!("expected {wanted}, got &{{{}}}", go(given, Form::Text)));
    }

    fn fields(&mut self, node: &Node, fields: &serde_json::Map<String, Value>) {
        for (name, value) in fields {
            let step = format!("f:{name}");
            let Some(child) = node.child(name) else {
                let length = self.path.len();
                self.path += &readable(&step);
                self.fault("field not declared in schema");
                self.path.truncate(length);
                return;
            };
            self.below(&step, child, value);
            if self.told > ENOUGH {
                return;
            }
        }
    }

    fn items(&mut self, node: &Node, item_node: &Node, items: &[Value]) {
        let mut known = HashSet::new();
        for (position, item) in items.iter().enumerate() {
            let step = match node.list {
                ListType::Atomic => format!("[{position}]"),
                ListType::Set | ListType::Map => match unusable(node, item) {
                    Some(why) => return self.fault(&format!("element {position}: {why}")),
                    None => item_step(node, item),
                },
            };
            if node.list != ListType::Atomic && !known.insert(step.clone()) {
                self.fault(&format!("duplicate entries for key {}", readable(&step)));
            }
            self.below(&step, item_node, item);
            if self.told > ENOUGH {
                return;
            }
        }
    }
}

/// Why an item of a set or of a keyed list cannot be told from others.
fn unusable(node: &Node, item: &Value) -> Option<String> {
    let why = match (node.list, item) {
        (ListType::Map, Value::Null) => "associative list with keys may not have a null element",
        (ListType::Map, Value::Object(fields)) => {
            let default = |key: &str| node.item().unwrap_or(&ANY).child(key)?.default.as_ref();
            let has_one = node.keys.iter().any(|key| fields.contains_key(&**key) || default(key).is_some());
            // Of a built-in kind a key that is absent is its type's zero.
            if has_one || !node.custom {
                return None;
            }
            let keys: Vec<String> = node.keys.iter().map(|key| format!("{:?}", &**key)).collect();
            let keys = keys.join(" ");
            return Some(format!(
                "associative list with keys has an element that omits all key fields [{keys}] (and doesn't have default \
                 values for any key fields)"
            ));
        }
        (ListType::Map, _) => "associative list with keys may not have non-map elements",
        (_, Value::Object(_)) => "associative list without keys has an element that's a map type",
        (_, Value::Array(_)) => "not supported: associative list with lists as elements",
        (_, Value::Null) => "associative list without keys has an element that's an explicit null",
        _ => return None,
    };
    Some(why.to_owned())
}

fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(_) => "float64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

/// The two ways in which Go prints a value.
#[derive(Clone, Copy, PartialEq)]
enum Form {
    /// `%v`
    Text,
    /// `%#v`
    Source,
}

fn go(value: &Value, form: Form) -> String {
    match (value, form) {
        (Value::Null, Form::Text) => "<nil>".to_owned(),
        (Value::Null, Form::Source) => "interface {}(nil)".to_owned(),
        (Value::Bool(value), _) => value.to_string(),
        (Value::Number(number), _) => float(number),
        (Value::String(text), Form::Text) => text.clone(),
        (Value::String(text), Form::Source) => format!("{text:?}"),
        (Value::Array(items), _) => {
            let items: Vec<String> = items.iter().map(|item| go(item, form)).collect();
            match form {
                Form::Text => format!("[{}]", items.join(" ")),
                Form::Source => format!("[]interface {{}}{{{}}}", items.join(", ")),
            }
        }
        (Value::Object(fields), _) => {
            let sorted: std::collections::BTreeMap<&String, &Value> = fields.iter().collect();
            let fields = sorted.into_iter().map(|(name, value)| (name, go(value, form)));
            match form {
                Form::Text => {
                    let fields: Vec<String> = fields.map(|(name, value)| format!("{name}:{value}")).collect();
                    format!("map[{}]", fields.join(" "))
                }
                Form::Source => {
                    let fields: Vec<String> =
                        fields.map(|(name, value)| format!("{name:?}:{value}")).collect();
                    format!("map[string]interface {{}}{{{}}}", fields.join(", "))
                }
            }
        }
    }
}

/// A number as Go prints what it has read as a double: with an exponent from a million on.
fn float(number: &Number) -> String {
    let Some(value) = number.as_f64() else { return number.to_string() };
    let scientific = format!("{value:e}");
    let parts = scientific.split_once('e').and_then(|(digits, power)| Some((digits, power.parse().ok()?)));
    match parts {
        Some((digits, power)) if !(-4..6_i32).contains(&power) => {
            let sign = if power < 0 { '-' } else { '+' };
            format!("{digits}e{sign}{:02}", power.abs())
        }
        _ => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The spec of a Deployment's only container, and what Kubernetes says of it.
    const OF_CONTAINERS: &[(&str, &str)] = &[
        (r#"{"a": "b"}"#, ": expected list, got &{map[a:b]}"),
        (r#"["x"]"#, ": element 0: associative list with keys may not have non-map elements"),
        ("[null]", ": element 0: associative list with keys may not have a null element"),
        (r#"[{"name": "a", "command": "x"}]"#, r#"[name="a"].command: expected list, got &{x}"#),
        (
            r#"[{"name": "a", "command": ["x", 1]}]"#,
            r#"[name="a"].command[1]: expected string, got &value.valueUnstructured{Value:1}"#,
        ),
        (r#"[{"name": 1}]"#, "[name=1].name: expected string, got &value.valueUnstructured{Value:1}"),
        (r#"[{"name": "a", "foo": 1}]"#, r#"[name="a"].foo: field not declared in schema"#),
        (
            r#"[{"name": "a", "resources": {"limits": {"cpu": {"a": 1}}}}]"#,
            r#"[name="a"].resources.limits.cpu: expected any scalar, got &{map[a:1]}"#,
        ),
        (
            r#"[{"name": "a", "ports": [{"containerPort": 80, "protocol": "UDP"}, {"containerPort": 80, "protocol": "UDP"}]}]"#,
            r#"[name="a"].ports: duplicate entries for key [containerPort=80,protocol="UDP"]"#,
        ),
        (
            r#"[{"name": "a", "ports": [{"containerPort": "80"}]}]"#,
            r#"[name="a"].ports[containerPort="80",protocol="TCP"].containerPort: expected numeric (int or float), got string"#,
        ),
    ];

    #[test]
    fn types_of_a_deployment_are_told_as_upstream_tells_them() {
        let node = crate::resources::known("apps", "deployments").node();
        for (text, want) in OF_CONTAINERS {
            let containers: Value = serde_json::from_str(text).unwrap();
            let object = json!({ "spec": { "template": { "spec": { "containers": containers } } } });
            let want = format!(".spec.template.spec.containers{want}");
            assert_eq!(faults(node, &object), Some(want), "{text}");
        }
        for (replicas, want) in [
            (json!("3"), "string"),
            (json!(true), "bool"),
            (json!([1]), "[]interface {}"),
            (json!({}), "map[string]interface {}"),
        ] {
            let want = format!(".spec.replicas: expected numeric (int or float), got {want}");
            assert_eq!(faults(node, &json!({ "spec": { "replicas": replicas } })), Some(want));
        }
        for replicas in [json!(3), json!(1.5), json!(null)] {
            assert_eq!(faults(node, &json!({ "spec": { "replicas": replicas } })), None);
        }
    }

    /// A ConfigMap without what it says it is, and what Kubernetes says of it.
    const OF_MAPS: &[(&str, &str)] = &[
        (r#"{"data": ["a"]}"#, ".data: expected map, got &{[a]}"),
        (r#"{"data": "x"}"#, ".data: expected map, got &{x}"),
        (r#"{"metadata": []}"#, ".metadata: expected map, got &{[]}"),
        (
            r#"{"data": {"a.b/c d": 1}}"#,
            ".data.a.b/c d: expected string, got &value.valueUnstructured{Value:1}",
        ),
        (
            r#"{"data": {"a": [1234567, 1e-5, 123456, 0.5, null, true, "q\"x", {"b": 1, "a": []}, {}]}}"#,
            r#".data.a: expected string, got &value.valueUnstructured{Value:[]interface {}{1.234567e+06, 1e-05, 123456, 0.5, interface {}(nil), true, "q\"x", map[string]interface {}{"a":[]interface {}{}, "b":1}, map[string]interface {}{}}}"#,
        ),
        (r#"{"immutable": "yes"}"#, ".immutable: expected boolean, got &{yes}"),
        (
            r#"{"immutable": [1e7, null, "q\"x", {"b": 1, "a": [2]}]}"#,
            r#".immutable: expected boolean, got &{[1e+07 <nil> q"x map[a:[2] b:1]]}"#,
        ),
        (
            r#"{"metadata": {"creationTimestamp": [5]}}"#,
            ".metadata.creationTimestamp: expected any scalar, got &{[5]}",
        ),
        (
            r#"{"metadata": {"finalizers": ["a", "a", {}]}}"#,
            "errors:\n  .metadata.finalizers: duplicate entries for key [=\"a\"]\n  \
             .metadata.finalizers: element 2: associative list without keys has an element that's a map type",
        ),
        (
            r#"{"metadata": {"finalizers": ["a", 1, null]}}"#,
            "errors:\n  .metadata.finalizers[=1]: expected string, got &value.valueUnstructured{Value:1}\n  \
             .metadata.finalizers: element 2: associative list without keys has an element that's an explicit null",
        ),
        (
            r#"{"metadata": {"finalizers": ["a", ["b"]]}}"#,
            ".metadata.finalizers: element 1: not supported: associative list with lists as elements",
        ),
        (r#"{"unknown": 1}"#, ".unknown: field not declared in schema"),
    ];

    #[test]
    fn types_of_a_map_are_told_as_upstream_tells_them() {
        let node = crate::resources::known("", "configmaps").node();
        for (text, want) in OF_MAPS {
            let object = serde_json::from_str(text).unwrap();
            assert_eq!(faults(node, &object).as_deref(), Some(*want), "{text}");
        }
        let nulls = json!({ "metadata": { "labels": null, "finalizers": null }, "data": { "a": null }, "immutable": null });
        assert_eq!(faults(node, &nulls), None);
    }

    #[test]
    fn what_is_told_of_many_faults_is_bounded() {
        let node = crate::resources::known("", "configmaps").node();
        let data: serde_json::Map<String, Value> = (0..100_000).map(|n| (n.to_string(), json!(n))).collect();
        let told = faults(node, &json!({ "data": data })).unwrap();
        assert!(told.len() < 2 * ENOUGH, "{}", told.len());
    }
}
