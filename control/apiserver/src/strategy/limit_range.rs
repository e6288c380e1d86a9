//! LimitRanges.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use serde_json::Value;

use super::Change;
use super::resource_names::{may_be_overcommitted, validate_any, validate_of_container};
use crate::schema::Quantity;
use crate::tree::{at, list, strings, text};
use crate::validate::{self, Errors};

const TYPES: &[&str] = &["Pod", "Container", "PersistentVolumeClaim"];

pub fn validate_limit_range(change: &Change<'_>, errors: &mut Errors) {
    let mut types = HashSet::new();
    for (index, limit) in list(change.new, &["spec", "limits"]).iter().enumerate() {
        let here = format!("spec.limits[{index}]");
        let kind = text(limit, &["type"]);
        validate_type(kind, &format!("{here}.type"), errors);
        if !types.insert(kind) {
            errors.duplicate(format!("{here}.type"), &Value::from(kind));
        }
        validate_limit(limit, &here, errors);
    }
}

fn validate_type(kind: &str, place: &str, errors: &mut Errors) {
    let found = errors.len();
    errors.check(place, kind, validate::label_key);
    if errors.len() == found && !kind.contains('/') && !TYPES.contains(&kind) {
        let detail = "must be a standard limit type or fully qualified";
        errors.invalid(place, &Value::from(kind), detail);
    }
}

fn validate_limit(limit: &Value, here: &str, errors: &mut Errors) {
    let kind = text(limit, &["type"]);
    let check = if matches!(kind, "Pod" | "Container") { validate_of_container } else { validate_any };
    let amounts = |field: &'static str, errors: &mut Errors| -> BTreeMap<String, Quantity> {
        strings(limit, &[field])
            .inspect(|(name, _)| check(name, &format!("{here}.{field}[{name}]"), errors))
            .filter_map(|(name, amount)| Some((name.to_owned(), Quantity::parse(amount)?)))
            .collect()
    };
    let (max, min) = (amounts("max", errors), amounts("min", errors));
    let (mut default, mut request) = (BTreeMap::new(), BTreeMap::new());
    if kind == "Pod" {
        for field in ["default", "defaultRequest"] {
            if strings(limit, &[field]).next().is_some() {
                errors.forbidden(format!("{here}.{field}"), "may not be specified when `type` is 'Pod'");
            }
        }
    } else {
        default = amounts("default", errors);
        request = amounts("defaultRequest", errors);
    }
    let has_storage = |field: &str| !at(limit, &[field, "storage"]).is_null();
    if kind == "PersistentVolumeClaim" && !has_storage("min") && !has_storage("max") {
        let detail = "either minimum or maximum storage value is required, but neither was provided";
        errors.required(format!("{here}.limits"), detail);
    }
    let ratio = amounts("maxLimitRequestRatio", errors);
    let all = [&max, &min, &default, &request, &ratio];
    let names: BTreeSet<&String> = all.iter().flat_map(|amounts| amounts.keys()).collect();
    for name in names {
        let [max, min, default, request, ratio] = all.map(|amounts| amounts.get(name).copied());
        Bounds { max, min, default, request, ratio }.validate(name, here, errors);
    }
}

/// What a limit says of one resource.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    max: Option<Quantity>,
    min: Option<Quantity>,
    default: Option<Quantity>,
    request: Option<Quantity>,
    ratio: Option<Quantity>,
}

impl Bounds {
    fn validate(self, name: &str, here: &str, errors: &mut Errors) {
        let Self { max, min, default, request, .. } = self;
        // The field that is named, what is shown of it, and the two of which the first may not be more.
        let orders = [
            ("min", min, ("min", min), ("max", max)),
            ("defaultRequest", request, ("min", min), ("default request", request)),
            ("defaultRequest", request, ("default request", request), ("max", max)),
            ("defaultRequest", request, ("default request", request), ("default limit", default)),
            ("default", min, ("min", min), ("default", default)),
            ("default", max, ("default", default), ("max", max)),
        ];
        for (field, shown, (less, small), (more, large)) in orders {
            if let (Some(shown), Some(small), Some(large)) = (shown, small, large)
                && small > large
            {
                let detail = format!("{less} value {small} is greater than {more} value {large}");
                errors.invalid(format!("{here}.{field}[{name}]"), &Value::from(shown.to_string()), &detail);
            }
        }
        self.validate_ratio(&format!("{here}.maxLimitRequestRatio[{name}]"), errors);
        if let (Some(default), Some(request)) = (default, request)
            && !may_be_overcommitted(name)
            && default != request
        {
            let detail =
                format!("default value {default} must equal to defaultRequest value {request} in {name}");
            let place = format!("{here}.defaultRequest[{name}]");
            errors.invalid(place, &Value::from(request.to_string()), &detail);
        }
    }

    fn validate_ratio(self, place: &str, errors: &mut Errors) {
        let Some(ratio) = self.ratio else { return };
        let shown = Value::from(ratio.to_string());
        let one = Quantity::parse("1").expect("it is a quantity");
        if ratio < one {
            errors.invalid(place, &shown, &format!("ratio {ratio} is less than 1"));
        }
        if let (Some(max), Some(min)) = (self.max, self.min)
            && !min.is_zero()
            && ratio.ratio(one) > max.ratio(min)
        {
            let detail = format!("ratio {ratio} is greater than max/min = {:.6}", max.ratio(min));
            errors.invalid(place, &shown, &detail);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refused(limits: Value) -> Vec<String> {
        let mut errors = Errors::default();
        let mut new = json!({ "spec": { "limits": limits } });
        validate_limit_range(&Change { old: None, new: &mut new }, &mut errors);
        errors.into_causes().into_iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect()
    }

    #[test]
    fn limits_are_for_pods_containers_and_claims_once_each() {
        let limit = |kind: &str, more: Value| {
            let mut limit = json!({ "type": kind });
            json_patch::merge(&mut limit, &more);
            limit
        };
        for (limits, want) in [
            (
                vec![limit("Pod", json!({})), limit("Container", json!({})), limit("x.io/a", json!({}))],
                vec![],
            ),
            (vec![limit("PersistentVolumeClaim", json!({ "min": { "storage": "1" } }))], vec![]),
            (
                vec![limit("Node", json!({}))],
                vec![
                    "spec.limits[0].type: Invalid value: \"Node\": must be a standard limit type or fully qualified",
                ],
            ),
            (vec![limit("Pod", json!({})); 2], vec!["spec.limits[1].type: Duplicate value: \"Pod\""]),
            (
                vec![limit("Pod", json!({ "default": { "cpu": "1" } }))],
                vec!["spec.limits[0].default: Forbidden: may not be specified when `type` is 'Pod'"],
            ),
            (
                vec![limit("PersistentVolumeClaim", json!({}))],
                vec![
                    "spec.limits[0].limits: Required value: either minimum or maximum storage value is required, but neither was provided",
                ],
            ),
            (
                vec![limit("Container", json!({ "max": { "storage": "1" } }))],
                vec![
                    "spec.limits[0].max[storage]: Invalid value: \"storage\": must be a standard resource for containers",
                ],
            ),
        ] {
            assert_eq!(refused(json!(limits)), want);
        }
    }

    #[test]
    fn what_is_given_lies_between_the_bounds() {
        let of = |limit: Value| {
            let mut whole = json!({ "type": "Container" });
            json_patch::merge(&mut whole, &limit);
            refused(json!([whole]))
        };
        let cpu = |amount: &str| json!({ "cpu": amount });
        let place = "spec.limits[0]";
        assert_eq!(
            of(json!({ "min": cpu("1"), "defaultRequest": cpu("1"), "default": cpu("2"), "max": cpu("2") })),
            [""; 0]
        );
        for (limit, want) in [
            (
                json!({ "min": cpu("2"), "max": cpu("1") }),
                "min[cpu]: Invalid value: \"2\": min value 2 is greater than max value 1",
            ),
            (
                json!({ "min": cpu("2"), "defaultRequest": cpu("1") }),
                "defaultRequest[cpu]: Invalid value: \"1\": min value 2 is greater than default request value 1",
            ),
            (
                json!({ "max": cpu("1"), "defaultRequest": cpu("2") }),
                "defaultRequest[cpu]: Invalid value: \"2\": default request value 2 is greater than max value 1",
            ),
            (
                json!({ "default": cpu("1"), "defaultRequest": cpu("2") }),
                "defaultRequest[cpu]: Invalid value: \"2\": default request value 2 is greater than default limit value 1",
            ),
            (
                json!({ "min": cpu("2"), "default": cpu("1") }),
                "default[cpu]: Invalid value: \"2\": min value 2 is greater than default value 1",
            ),
            (
                json!({ "max": cpu("1"), "default": cpu("2") }),
                "default[cpu]: Invalid value: \"1\": default value 2 is greater than max value 1",
            ),
            (
                json!({ "maxLimitRequestRatio": cpu("500m") }),
                "maxLimitRequestRatio[cpu]: Invalid value: \"500m\": ratio 500m is less than 1",
            ),
            (
                json!({ "min": cpu("1"), "max": cpu("2"), "maxLimitRequestRatio": cpu("3") }),
                "maxLimitRequestRatio[cpu]: Invalid value: \"3\": ratio 3 is greater than max/min = 2.000000",
            ),
        ] {
            assert_eq!(of(limit), [format!("{place}.{want}")]);
        }
        let gpu = |amount: &str| json!({ "x.io/gpu": amount });
        let want = "defaultRequest[x.io/gpu]: Invalid value: \"1\": default value 2 must equal to defaultRequest value 1 in x.io/gpu";
        assert_eq!(
            of(json!({ "default": gpu("2"), "defaultRequest": gpu("1") })),
            [format!("{place}.{want}")]
        );
    }
}
