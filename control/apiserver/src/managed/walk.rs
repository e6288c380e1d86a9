//! Walks over objects guided by the schema: which fields one has, how two differ, how one is merged into another.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use serde_json::{Map, Value, json};

use super::set::Set;
use crate::schema::{ANY, ListType, Node, Shape};

/// How a value is owned.
enum Grain<'a> {
    /// As a whole.
    Leaf,
    /// Field by field.
    Fields,
    /// Item by item, found by key or by value.
    Items(&'a Node),
}

fn grain<'a>(node: &'a Node, value: &Value) -> Grain<'a> {
    if node.atomic || node.object().is_some_and(|kind| kind.atomic) {
        return Grain::Leaf;
    }
    match (&node.shape, value) {
        (Shape::Object(_) | Shape::Struct(_) | Shape::Map(_) | Shape::Any, Value::Object(_)) => Grain::Fields,
        (Shape::List(item), Value::Array(_)) if node.list != ListType::Atomic => Grain::Items(item),
        _ => Grain::Leaf,
    }
}

/// The step to an item of a list.
pub fn item_step(node: &Node, item: &Value) -> String {
    if node.list == ListType::Set {
        return format!("v:{item}");
    }
    let mut keys: Vec<&str> = node.keys.iter().map(|key| &**key).collect();
    keys.sort_unstable();
    let mut key = Map::new();
    for name in keys {
        // An absent key field counts with its default.
        let default =
            node.item().and_then(|item| item.child(name)).and_then(|child| child.default.as_deref());
        if let Some(value) = item.get(name).or(default) {
            key.insert(name.to_owned(), value.clone());
        }
    }
    format!("k:{}", Value::Object(key))
}

/// Positions of a list's items by their steps; of two with the same step the first counts.
pub fn by_step(node: &Node, items: &[Value]) -> BTreeMap<String, usize> {
    let mut known = BTreeMap::new();
    for (position, item) in items.iter().enumerate() {
        known.entry(item_step(node, item)).or_insert(position);
    }
    known
}

/// Every field an object sets.
pub fn fields(node: &Node, value: &Value) -> Set {
    let mut out = Set::default();
    match (grain(node, value), value) {
        (Grain::Fields, Value::Object(children)) => {
            for (name, child) in children {
                let child_node = node.child(name).unwrap_or(&ANY);
                let below = fields(child_node, child);
                // A map without anything in it is owned, a list whose items would be is not.
                let is_hollow = matches!(grain(child_node, child), Grain::Items(_)) && below.is_empty();
                // What nobody has declared is owned like the key of a map.
                let is_declared = node.object().is_some_and(|kind| kind.field(name).is_some());
                let own = !is_declared || (below.is_empty() && !is_hollow);
                out.add(format!("f:{name}"), own, below);
            }
        }
        (Grain::Items(item_node), Value::Array(items)) => {
            for item in items {
                out.add(item_step(node, item), true, fields(item_node, item));
            }
        }
        _ => {}
    }
    out
}

/// The same of a value that was not there before: what holds other fields is a member itself.
fn added(node: &Node, value: &Value) -> Set {
    let mut out = Set::default();
    match (grain(node, value), value) {
        (Grain::Fields, Value::Object(children)) => {
            for (name, child) in children {
                out.add(format!("f:{name}"), true, added(node.child(name).unwrap_or(&ANY), child));
            }
        }
        (Grain::Items(item_node), Value::Array(items)) => {
            for item in items {
                out.add(item_step(node, item), true, added(item_node, item));
            }
        }
        _ => {}
    }
    out
}

/// What stands in a field that an object does not have, as Go has it: a structure that is no pointer, or a list or map that
/// is always written.
fn absent(parent: &Node, name: &str) -> Option<Value> {
    let child = parent.child(name)?;
    let is_written = || !child.custom && parent.object().is_some_and(|kind| kind.requires(name));
    match child.shape {
        _ if child.present => Some(json!({})),
        Shape::List(_) if is_written() => Some(json!([])),
        Shape::Map(_) if is_written() => Some(json!({})),
        _ => None,
    }
}

/// How one version differs from another.
#[derive(Debug, Default)]
pub struct Difference {
    /// Added or changed.
    pub changed: Set,
    pub removed: Set,
}

impl Difference {
    fn add(&mut self, step: String, own: bool, inner: Difference) {
        self.changed.add(step.clone(), own, inner.changed);
        self.removed.add(step, false, inner.removed);
    }
}

/// Compares two versions field by field.
pub fn difference(node: &Node, old: &Value, new: &Value) -> Difference {
    let mut out = Difference::default();
    match (grain(node, new), old, new) {
        (Grain::Fields, Value::Object(before), Value::Object(after)) => {
            for (name, value) in after {
                let child = node.child(name).unwrap_or(&ANY);
                let zero = if before.contains_key(name) { None } else { absent(node, name) };
                step(&mut out, child, format!("f:{name}"), before.get(name).or(zero.as_ref()), value);
            }
            for (name, value) in before.iter().filter(|(name, _)| !after.contains_key(*name)) {
                let child = node.child(name).unwrap_or(&ANY);
                out.removed.add(format!("f:{name}"), true, added(child, value));
            }
        }
        (Grain::Items(item), Value::Array(before), Value::Array(after)) => {
            let (mut known, after_steps) = (by_step(node, before), by_step(node, after));
            for value in after {
                let at = item_step(node, value);
                let old = known.get(&at).map(|position| &before[*position]);
                step(&mut out, item, at, old, value);
            }
            known.retain(|at, _| !after_steps.contains_key(at));
            for (at, position) in known {
                out.removed.add(at, true, added(item, &before[position]));
            }
        }
        _ => {}
    }
    out
}

fn step(out: &mut Difference, node: &Node, at: String, old: Option<&Value>, new: &Value) {
    match old {
        None => out.changed.add(at, true, added(node, new)),
        Some(old) if old == new => {}
        Some(old) => {
            let leaf = matches!(grain(node, new), Grain::Leaf)
                || old.is_object() != new.is_object()
                || old.is_array() != new.is_array();
            let inner = if leaf { Difference::default() } else { difference(node, old, new) };
            out.add(at, leaf, inner);
        }
    }
}

pub(super) static NOTHING: Set = Set::EMPTY;

/// Whether values of a node are owned by their parts.
pub(super) fn has_parts(node: &Node) -> bool {
    let is_whole = node.atomic || node.object().is_some_and(|kind| kind.atomic);
    match node.shape {
        _ if is_whole => false,
        Shape::Object(_) | Shape::Struct(_) | Shape::Map(_) => true,
        Shape::List(_) => node.list != ListType::Atomic,
        _ => false,
    }
}

/// `live` with everything `wanted` says. A null says nothing of parts that others own.
pub fn merge(node: &Node, live: &Value, wanted: &Value) -> Value {
    match (grain(node, wanted), live, wanted) {
        (_, _, Value::Null) if has_parts(node) => live.clone(),
        (Grain::Fields, Value::Object(before), Value::Object(after)) => {
            let mut out = before.clone();
            for (name, value) in after {
                let child = node.child(name).unwrap_or(&ANY);
                let merged = before.get(name).map_or_else(|| value.clone(), |old| merge(child, old, value));
                out.insert(name.clone(), merged);
            }
            Value::Object(out)
        }
        (Grain::Items(item), Value::Array(before), Value::Array(after)) => {
            let mut out = before.clone();
            let mut known = by_step(node, before);
            for value in after {
                match known.entry(item_step(node, value)) {
                    Entry::Occupied(known) => out[*known.get()] = merge(item, &out[*known.get()], value),
                    Entry::Vacant(unknown) => {
                        unknown.insert(out.len());
                        out.push(value.clone());
                    }
                }
            }
            Value::Array(out)
        }
        _ => wanted.clone(),
    }
}

/// Removes the members of `gone` from a value; an item goes when nothing but its key is left. What is empty then goes too,
/// if it is not in `kept`.
pub fn prune(node: &Node, value: &mut Value, gone: &Set, kept: &Set) {
    let below = |step: &str| kept.step(step).map_or(&NOTHING, |step| &step.below);
    let kind = grain(node, value);
    match (kind, value) {
        (Grain::Fields, Value::Object(fields)) => {
            let names: Vec<String> = fields.keys().cloned().collect();
            for name in names {
                let at = format!("f:{name}");
                let Some(step) = gone.step(&at) else { continue };
                let child = node.child(&name).unwrap_or(&ANY);
                let Some(inner) = fields.get_mut(&name) else { continue };
                prune(child, inner, &step.below, below(&at));
                let leaf = matches!(grain(child, inner), Grain::Leaf) && step.own;
                let is_kept = kept.step(&at).is_some_and(|step| step.own);
                let emptied = !is_kept && (*inner == json!({}) || *inner == json!([]));
                if leaf || emptied {
                    fields.shift_remove(&name);
                }
            }
        }
        (Grain::Items(item), Value::Array(items)) => items.retain_mut(|one| {
            let at = item_step(node, one);
            let Some(step) = gone.step(&at) else { return true };
            prune(item, one, &step.below, below(&at));
            !step.own || has_more_than_key(node, one)
        }),
        _ => {}
    }
}

fn has_more_than_key(node: &Node, item: &Value) -> bool {
    item.as_object()
        .is_some_and(|fields| fields.keys().any(|name| !node.keys.iter().any(|key| *key == **name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment() -> &'static Node {
        crate::resources::known("apps", "deployments").node()
    }

    fn pod(containers: Value) -> Value {
        json!({"spec": {"template": {"spec": {"containers": containers}}}})
    }

    #[test]
    fn fields_follow_the_schema() {
        let object = json!({"metadata": {"labels": {"a": "1"}, "finalizers": ["x"]},
            "spec": {"replicas": 1, "selector": {"matchLabels": {"a": "1"}},
                "template": {"spec": {"containers": [{"name": "c", "image": "i", "command": ["a"]}]}}}});
        let want = [
            ".metadata.finalizers[=\"x\"]",
            ".metadata.labels.a",
            ".spec.replicas",
            ".spec.selector",
            ".spec.template.spec.containers[name=\"c\"]",
            ".spec.template.spec.containers[name=\"c\"].command",
            ".spec.template.spec.containers[name=\"c\"].image",
            ".spec.template.spec.containers[name=\"c\"].name",
        ];
        assert_eq!(fields(deployment(), &object).paths(), want);
    }

    #[test]
    fn a_difference_names_what_changed_and_what_went() {
        let old = pod(json!([{"name": "a", "image": "1"}, {"name": "b"}]));
        let new = pod(json!([{"name": "a", "image": "2"}]));
        let found = difference(deployment(), &old, &new);
        assert_eq!(found.changed.paths(), [".spec.template.spec.containers[name=\"a\"].image"]);
        assert!(found.removed.paths().contains(&".spec.template.spec.containers[name=\"b\"]".to_owned()));
        let same = difference(deployment(), &new, &new);
        assert!(same.changed.is_empty() && same.removed.is_empty());
    }

    #[test]
    fn merging_and_pruning_are_by_key() {
        let live = pod(json!([{"name": "a", "image": "1", "tty": true}, {"name": "b", "image": "1"}]));
        let merged = merge(deployment(), &live, &pod(json!([{"name": "a", "image": "2"}])));
        assert_eq!(
            merged,
            pod(json!([{"name": "a", "image": "2", "tty": true}, {"name": "b", "image": "1"}]))
        );
        let mut pruned = merged;
        let gone = fields(deployment(), &pod(json!([{"name": "b", "image": "1"}])));
        prune(deployment(), &mut pruned, &gone, &NOTHING);
        assert_eq!(pruned, pod(json!([{"name": "a", "image": "2", "tty": true}])));
    }

    /// Any deployment built from small parts, so that two of them overlap often.
    fn any_object() -> impl proptest::strategy::Strategy<Value = Value> {
        use proptest::prelude::*;
        let word = prop::sample::select(vec!["a", "b", "c"]);
        let labels = prop::collection::btree_map(word.clone(), word.clone(), 0..3);
        let container = (word.clone(), prop::option::of(word.clone()), prop::bool::ANY);
        let containers = prop::collection::btree_map(word, container, 0..3);
        (labels, containers, prop::option::of(0..3)).prop_map(|(labels, containers, replicas)| {
            let containers: Vec<Value> = containers
                .into_iter()
                .map(|(name, (image, command, tty))| {
                    let mut one = json!({"name": name, "image": image, "tty": tty});
                    if let Some(command) = command {
                        one["command"] = json!([command]);
                    }
                    one
                })
                .collect();
            let mut object = pod(json!(containers));
            object["metadata"] = json!({ "labels": labels });
            if let Some(replicas) = replicas {
                object["spec"]["replicas"] = json!(replicas);
            }
            object
        })
    }

    proptest::proptest! {
        #[test]
        fn after_merging_everything_wanted_is_there(live in any_object(), wanted in any_object()) {
            let node = deployment();
            let merged = merge(node, &live, &wanted);
            let missing = difference(node, &merged, &wanted).changed;
            proptest::prop_assert!(missing.is_empty(), "{:?}", missing.paths());
            proptest::prop_assert_eq!(merge(node, &merged, &wanted), merged);
        }

        #[test]
        fn a_difference_is_empty_only_between_equals(old in any_object(), new in any_object()) {
            let node = deployment();
            let found = difference(node, &old, &new);
            let none = found.changed.is_empty() && found.removed.is_empty();
            proptest::prop_assert_eq!(none, fields(node, &old) == fields(node, &new) && old == new);
        }

        #[test]
        fn pruning_what_was_added_leaves_no_trace_of_it(live in any_object(), wanted in any_object()) {
            let node = deployment();
            let mut merged = merge(node, &live, &wanted);
            let added = fields(node, &merged).without(&fields(node, &live));
            prune(node, &mut merged, &added, &NOTHING);
            let left = fields(node, &merged).without(&fields(node, &live));
            proptest::prop_assert!(left.is_empty(), "{:?}", left.paths());
        }

        #[test]
        fn a_set_is_compared_with_the_json_of_another_as_with_the_other(
            one in any_object(), two in any_object(), three in any_object(),
        ) {
            let node = deployment();
            let one = fields(node, &one);
            let two = fields(node, &two).without(&fields(node, &three));
            proptest::prop_assert_eq!(one.meets(&two.json()), !one.common(&two).is_empty());
            proptest::prop_assert_eq!(two.meets(&one.json()), !one.common(&two).is_empty());
            proptest::prop_assert_eq!(one.within(&two.json()), one.clone().without(&two).is_empty());
            proptest::prop_assert_eq!(two.within(&one.json()), two.clone().without(&one).is_empty());
        }

        #[test]
        fn sets_survive_their_json_whatever_they_hold(object in any_object()) {
            let set = fields(deployment(), &object);
            proptest::prop_assert_eq!(Set::read(&set.json()), set);
        }
    }
}
