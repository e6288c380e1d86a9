//! Sets of field paths, in the form managedFields store them.
//!
//! A step is text: `f:name` a field or map key, `k:{"key":value}` an item of a keyed list, `v:value` a member of a set.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use serde_json::{Map, Value, json};

/// A set of paths, as a tree of steps.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Set {
    steps: BTreeMap<String, Step>,
}

/// What is in the set at and below one step.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Step {
    /// The path that ends here is a member.
    pub own: bool,
    pub below: Set,
}

impl Set {
    pub const EMPTY: Self = Self { steps: BTreeMap::new() };

    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Adds what is at and below one step; nothing when that is empty.
    pub fn add(&mut self, step: String, own: bool, below: Set) {
        if !own && below.is_empty() {
            return;
        }
        match self.steps.entry(step) {
            Entry::Vacant(place) => _ = place.insert(Step { own, below }),
            Entry::Occupied(mut known) => {
                known.get_mut().own |= own;
                known.get_mut().below.unite(below);
            }
        }
    }

    /// Adds every path of `other`.
    pub fn unite(&mut self, other: Set) {
        for (step, theirs) in other.steps {
            self.add(step, theirs.own, theirs.below);
        }
    }

    /// What is in both.
    pub fn common(&self, other: &Set) -> Set {
        let mut out = Set::default();
        for (step, mine) in &self.steps {
            if let Some(theirs) = other.steps.get(step) {
                out.add(step.clone(), mine.own && theirs.own, mine.below.common(&theirs.below));
            }
        }
        out
    }

    /// What is here and not in `other`.
    pub fn without(mut self, other: &Set) -> Set {
        if !other.is_empty() {
            self.subtract(other);
        }
        self
    }

    fn subtract(&mut self, other: &Set) {
        for (step, theirs) in &other.steps {
            let Some(mine) = self.steps.get_mut(step) else { continue };
            mine.own &= !theirs.own;
            mine.below.subtract(&theirs.below);
            if !mine.own && mine.below.is_empty() {
                self.steps.remove(step);
            }
        }
    }

    /// Whether a member is in the set that `stored` is the JSON of.
    pub fn meets(&self, stored: &Value) -> bool {
        self.steps.iter().any(|(step, mine)| {
            stored.get(step).is_some_and(|theirs| (mine.own && is_own(theirs)) || mine.below.meets(theirs))
        })
    }

    /// Whether all members are in the set that `stored` is the JSON of.
    pub fn within(&self, stored: &Value) -> bool {
        self.steps.iter().all(|(step, mine)| {
            stored.get(step).is_some_and(|theirs| (!mine.own || is_own(theirs)) && mine.below.within(theirs))
        })
    }

    /// What is in the set at and below a step.
    pub fn step(&self, step: &str) -> Option<&Step> {
        self.steps.get(step)
    }

    /// Removes a step with everything below it.
    pub fn drop_step(&mut self, path: &[&str]) {
        let Some((first, rest)) = path.split_first() else { return };
        if rest.is_empty() {
            self.steps.remove(*first);
            return;
        }
        if let Some(step) = self.steps.get_mut(*first) {
            step.below.drop_step(rest);
            if !step.own && step.below.is_empty() {
                self.steps.remove(*first);
            }
        }
    }

    /// The JSON of `fieldsV1`.
    pub fn json(&self) -> Value {
        let mut out = Map::new();
        for (step, entry) in &self.steps {
            let mut below = entry.below.json();
            if entry.own
                && !entry.below.is_empty()
                && let Some(fields) = below.as_object_mut()
            {
                fields.shift_insert(0, ".".to_owned(), json!({}));
            }
            out.insert(step.clone(), below);
        }
        Value::Object(out)
    }

    /// Reads `fieldsV1`.
    pub fn read(value: &Value) -> Set {
        let mut out = Set::default();
        for (step, inner) in value.as_object().into_iter().flatten().filter(|(step, _)| *step != ".") {
            out.add(step.clone(), is_own(inner), Self::read(inner));
        }
        out
    }

    /// Whether [`Set::read`] understands everything that is there; nothing is understood.
    pub fn is_readable(value: &Value) -> bool {
        let is_step = |step: &str| match step.split_once(':') {
            Some(("f", _)) => true,
            Some(("k", keys)) => serde_json::from_str::<Map<String, Value>>(keys).is_ok(),
            Some(("v", value)) => serde_json::from_str::<Value>(value).is_ok(),
            Some(("i", index)) => index.parse::<u32>().is_ok(),
            _ => step == ".",
        };
        match value {
            Value::Null => true,
            Value::Object(steps) => {
                steps.iter().all(|(step, below)| is_step(step) && Self::is_readable(below))
            }
            _ => false,
        }
    }

    /// Every member as a readable path, such as `.spec.containers[name="a"].image`; those that end at a step before those that
    /// go on there.
    pub fn paths(&self) -> Vec<String> {
        let mut out = Vec::new();
        self.collect("", &mut out);
        out
    }

    fn collect(&self, prefix: &str, out: &mut Vec<String>) {
        for (step, entry) in &self.steps {
            let path = format!("{prefix}{}", readable(step));
            if entry.own {
                out.push(path);
            }
        }
        for (step, entry) in &self.steps {
            entry.below.collect(&format!("{prefix}{}", readable(step)), out);
        }
    }
}

/// Whether the path that ends at this JSON is a member.
fn is_own(inner: &Value) -> bool {
    inner.as_object().is_none_or(|fields| fields.is_empty() || fields.contains_key("."))
}

/// A step as people read it: `.spec`, `[name="a"]`, `[="x"]`.
pub fn readable(step: &str) -> String {
    match step.split_once(':') {
        Some(("f", name)) => format!(".{name}"),
        Some(("k", keys)) => {
            let keys: Map<String, Value> = serde_json::from_str(keys).unwrap_or_default();
            let pairs: Vec<String> = keys.iter().map(|(name, value)| format!("{name}={value}")).collect();
            format!("[{}]", pairs.join(","))
        }
        Some((_, value)) => format!("[={value}]"),
        None => step.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(value: Value) -> Set {
        Set::read(&value)
    }

    #[test]
    fn sets_survive_their_json() {
        let value = json!({"f:spec": {"f:containers": {"k:{\"name\":\"a\"}": {".": {}, "f:image": {}}}, "f:replicas": {}}});
        assert_eq!(set(value.clone()).json(), value);
    }

    #[test]
    fn the_usual_laws_hold() {
        let a = set(json!({"f:a": {}, "f:b": {".": {}, "f:c": {}}}));
        let b = set(json!({"f:b": {"f:c": {}}, "f:d": {}}));
        assert_eq!(a.common(&b), set(json!({"f:b": {"f:c": {}}})));
        let rest = a.clone().without(&b);
        assert_eq!(rest.paths(), [".a", ".b"]);
        let mut all = rest;
        all.unite(a.common(&b));
        assert_eq!(all, a);
        assert!(a.clone().without(&a).is_empty());
    }

    #[test]
    fn paths_can_be_read_by_people() {
        let set = set(
            json!({"f:spec": {"f:ports": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {"f:name": {}}}, "f:finalizers": {"v:\"x\"": {}}}}),
        );
        assert_eq!(set.paths(), [r#".spec.finalizers[="x"]"#, r#".spec.ports[port=80,protocol="TCP"].name"#]);
    }
}
