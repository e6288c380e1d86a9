//! Objects that kubectl applied in its own way, by an annotation, before it applied them here.

use serde_json::Value;

use super::set::Set;
use super::{Manager, scoped, walk};
use crate::resources::{Row, Sub};
use crate::tree::{in_order, remove, set, strings, text};

/// The manager as which kubectl applies if it is not told otherwise.
pub const KUBECTL: &str = "kubectl";

const PATH: &[&str] = &["metadata", "annotations", "kubectl.kubernetes.io/last-applied-configuration"];
/// Bytes that the annotations of an object may have, names and values.
const MAX_ANNOTATIONS: usize = 256 << 10;

/// What the annotation says of an object: the object without it, as Go writes it.
pub fn annotation(sent: &Value) -> String {
    let mut sent = sent.clone();
    remove(&mut sent, PATH);
    format!("{}\n", in_order(&sent))
}

/// The fields of a live object that are as kubectl applied them last: it may take them over from its own other name.
pub fn own(row: &Row, live: &Value, manager: &Manager, sub: Option<Sub>) -> Set {
    if sub.is_some() || manager.last_applied.is_none() {
        return Set::EMPTY;
    }
    let last: Value = serde_json::from_str(text(live, PATH)).unwrap_or_default();
    if text(&last, &["apiVersion"]) != row.api_version() {
        return Set::EMPTY;
    }
    let difference = walk::difference(row.node(), &last, live);
    let fields = scoped(row, walk::fields(row.node(), &last), None);
    fields.without(&difference.changed).without(&difference.removed)
}

/// Has the annotation say what was applied now, so that whoever applies by it again does not take that back. One that is too
/// long goes.
pub fn renew(object: &mut Value, manager: &Manager) {
    let Some(now) = manager.last_applied.as_deref().filter(|_| !text(object, PATH).is_empty()) else {
        return;
    };
    set(object, PATH, now);
    let size: usize =
        strings(object, &["metadata", "annotations"]).map(|(name, value)| name.len() + value.len()).sum();
    if size > MAX_ANNOTATIONS {
        remove(object, PATH);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::tree::at;

    fn kubectl(last_applied: Option<&str>) -> Manager {
        let last_applied = last_applied.map(str::to_owned);
        Manager { name: KUBECTL.to_owned(), apply: true, force: false, wanted: None, last_applied }
    }

    #[test]
    fn what_is_as_it_was_applied_last_is_its_own() {
        let row = crate::resources::known("", "configmaps");
        let last = |version: &str| json!({"apiVersion": version, "kind": "ConfigMap", "data": {"a": "1", "b": "1", "c": "1"}});
        let live = |annotation: &str| {
            let annotations = json!({"kubectl.kubernetes.io/last-applied-configuration": annotation});
            json!({"metadata": {"annotations": annotations}, "data": {"a": "1", "b": "2", "d": "1"}})
        };
        let own =
            |annotation: &str, manager: &Manager, sub| own(row, &live(annotation), manager, sub).paths();
        let (known, now) = (last("v1").to_string(), kubectl(Some("")));
        assert!(own(&known, &now, None).contains(&".data.a".to_owned()));
        for other in [".data.b", ".data.c", ".data.d"] {
            assert!(!own(&known, &now, None).contains(&other.to_owned()), "{other}");
        }
        let none: [String; 0] = [];
        assert_eq!(own(&known, &kubectl(None), None), none);
        assert_eq!(own(&known, &now, Some(Sub::Scale)), none);
        assert_eq!(own(&last("v2").to_string(), &now, None), none);
        assert_eq!(own("{", &now, None), none);
        assert_eq!(own("", &now, None), none);
    }

    #[test]
    fn the_annotation_follows_what_is_applied_where_it_is() {
        let sent = json!({"kind": "ConfigMap", "data": {"b": "1", "a": "2"}, "metadata": {"annotations": {"x": "y"}}});
        let mut again = sent.clone();
        set(&mut again, PATH, "old");
        let text = "{\"data\":{\"a\":\"2\",\"b\":\"1\"},\"kind\":\"ConfigMap\",\"metadata\":{\"annotations\":{\"x\":\"y\"}}}\n";
        assert_eq!([annotation(&sent), annotation(&again)], [text, text]);
        for (before, now, want) in [
            ("old", Some(text), json!(text)),
            ("", Some(text), json!("")),
            ("old", None, json!("old")),
            ("old", Some(&*"x".repeat(MAX_ANNOTATIONS)), Value::Null),
        ] {
            let mut object = json!({});
            set(&mut object, PATH, before);
            renew(&mut object, &kubectl(now));
            assert_eq!(*at(&object, PATH), want);
        }
    }
}
