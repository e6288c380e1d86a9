//! Claims, templates and slices of resource.k8s.io/v1beta1, which are stored as those of v1: a request has the fields of its
//! `exactly` there itself, and a device has all but its name in `basic`.

use serde_json::{Map, Value};

use super::Conversion;
use crate::tree::list_mut;

pub static CLAIM: Conversion =
    Conversion { store: |claim| deepen(claim, REQUESTS), show: |claim| flatten(claim, REQUESTS) };

pub static TEMPLATE: Conversion = Conversion {
    store: |template| deepen(template, TEMPLATE_REQUESTS),
    show: |template| flatten(template, TEMPLATE_REQUESTS),
};

pub static SLICE: Conversion = Conversion {
    store: |slice| list_mut(slice, DEVICES).iter_mut().for_each(|device| lift(device, "basic")),
    show: |slice| list_mut(slice, DEVICES).iter_mut().for_each(|device| lower(device, "basic", &["name"])),
};

const DEVICES: &[&str] = &["spec", "devices"];
const REQUESTS: &[&str] = &["spec", "devices", "requests"];
const TEMPLATE_REQUESTS: &[&str] = &["spec", "spec", "devices", "requests"];
/// What a request itself has in v1.
const REQUEST: &[&str] = &["name", "exactly", "firstAvailable"];

fn deepen(object: &mut Value, path: &[&str]) {
    for request in list_mut(object, path) {
        let is_flat = |fields: &Map<String, Value>| fields.keys().any(|key| !REQUEST.contains(&&**key));
        if request.as_object().is_some_and(is_flat) {
            lower(request, "exactly", REQUEST);
        }
    }
}

fn flatten(object: &mut Value, path: &[&str]) {
    list_mut(object, path).iter_mut().for_each(|request| lift(request, "exactly"));
}

/// Moves the fields of a part one level up.
fn lift(object: &mut Value, part: &str) {
    let Some(fields) = object.as_object_mut() else { return };
    if let Some(Value::Object(inner)) = fields.shift_remove(part) {
        fields.extend(inner);
    }
}

/// Moves all fields but the kept ones into a part.
fn lower(object: &mut Value, part: &str, kept: &[&str]) {
    let Some(fields) = object.as_object_mut() else { return };
    let (outer, inner): (Map<String, Value>, Map<String, Value>) =
        std::mem::take(fields).into_iter().partition(|(key, _)| kept.contains(&&**key));
    *fields = outer;
    fields.insert(part.to_owned(), Value::Object(inner));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn both_ways(conversion: &Conversion, here: &Value, stored: &Value) {
        let mut object = here.clone();
        (conversion.store)(&mut object);
        assert_eq!(&object, stored);
        (conversion.show)(&mut object);
        assert_eq!(&object, here);
    }

    #[test]
    fn requests_and_devices_are_the_same_in_both_versions() {
        let flat = json!([{"name": "a", "deviceClassName": "c", "count": 2}, {"name": "b", "firstAvailable": [{"name": "x"}]}]);
        let deep = json!([{"name": "a", "exactly": {"deviceClassName": "c", "count": 2}}, {"name": "b", "firstAvailable": [{"name": "x"}]}]);
        let claim = |requests: &Value| json!({"spec": {"devices": {"requests": requests}}});
        both_ways(&CLAIM, &claim(&flat), &claim(&deep));
        both_ways(&TEMPLATE, &json!({"spec": claim(&flat)}), &json!({"spec": claim(&deep)}));
        both_ways(
            &SLICE,
            &json!({"spec": {"devices": [{"name": "d", "basic": {"attributes": {"a": {"int": 1}}}}]}}),
            &json!({"spec": {"devices": [{"name": "d", "attributes": {"a": {"int": 1}}}]}}),
        );
    }
}
