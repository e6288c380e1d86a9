//! LimitRanges: what a container gets that asks for nothing, and how little and how much may be asked for.

use serde_json::Value;

use crate::api::Call;
use crate::object::{self, prefix};
use crate::resources::known;
use crate::schema::quantity_millis;
use crate::status::{Refusal, Result};
use crate::tree::{at, list, list_mut, set_default, strings, text};

/// Completes a new pod or claim by the namespace's LimitRanges and refuses what is outside of them.
pub fn apply(call: &Call, object: &mut Value) -> Result<()> {
    let row = known("", "limitranges");
    let page = call
        .api
        .objects
        .range(&prefix(row, &call.target.namespace), None, 0, None)
        .map_err(Refusal::internal)?;
    let ranges: Vec<Value> = page.entries.iter().map(|entry| object::decode(entry)).collect();
    let limits: Vec<&Value> = ranges.iter().flat_map(|range| list(range, &["spec", "limits"])).collect();
    let pod = call.row.own() == "pods";
    if pod {
        limits
            .iter()
            .filter(|limit| text(limit, &["type"]) == "Container")
            .for_each(|limit| fill_in(object, limit));
    }
    let broken: Vec<String> = limits
        .iter()
        .flat_map(|limit| if pod { pod_breaks(object, limit) } else { claim_breaks(object, limit) })
        .collect();
    match broken.as_slice() {
        [] => Ok(()),
        [one] => Err(Refusal::forbidden(&call.row, text(object, &["metadata", "name"]), one)),
        several => {
            let why = format!("[{}]", several.join(", "));
            Err(Refusal::forbidden(&call.row, text(object, &["metadata", "name"]), &why))
        }
    }
}

fn fill_in(pod: &mut Value, limit: &Value) {
    for group in ["initContainers", "containers"] {
        for container in list_mut(pod, &["spec", group]) {
            for (from, to) in [("default", "limits"), ("defaultRequest", "requests")] {
                for (resource, amount) in strings(limit, &[from]) {
                    set_default(container, &["resources", to, resource], amount);
                }
            }
        }
    }
}

/// Amounts of one resource in thousandths.
#[derive(Debug, Clone, Copy, Default)]
struct Asked {
    request: Option<i128>,
    limit: Option<i128>,
}

fn asked(holder: &Value, resource: &str) -> Asked {
    let amount = |kind: &str| quantity_millis(text(holder, &["resources", kind, resource]));
    Asked { request: amount("requests"), limit: amount("limits") }
}

fn pod_breaks(pod: &Value, limit: &Value) -> Vec<String> {
    let containers = list(pod, &["spec", "containers"]);
    match text(limit, &["type"]) {
        "Container" => {
            let all = containers.iter().chain(list(pod, &["spec", "initContainers"]));
            all.flat_map(|container| breaks(limit, "Container", |resource| asked(container, resource)))
                .collect()
        }
        "Pod" => breaks(limit, "Pod", |resource| {
            let parts: Vec<Asked> = containers.iter().map(|container| asked(container, resource)).collect();
            // A sum is known only when every part is.
            let sum = |part: fn(&Asked) -> Option<i128>| parts.iter().map(part).sum::<Option<i128>>();
            Asked { request: sum(|asked| asked.request), limit: sum(|asked| asked.limit) }
        }),
        _ => Vec::new(),
    }
}

fn claim_breaks(claim: &Value, limit: &Value) -> Vec<String> {
    if text(limit, &["type"]) != "PersistentVolumeClaim" {
        return Vec::new();
    }
    breaks(limit, "PersistentVolumeClaim", |resource| {
        let request = quantity_millis(text(claim, &["spec", "resources", "requests", resource]));
        Asked { request, limit: request }
    })
}

/// Sentences about every bound that does not hold.
fn breaks(limit: &Value, kind: &str, asked: impl Fn(&str) -> Asked) -> Vec<String> {
    let mut out = Vec::new();
    for (resource, min) in strings(limit, &["min"]) {
        let least = quantity_millis(min).unwrap_or_default();
        let told = format!("minimum {resource} usage per {kind} is {min}");
        match asked(resource).request {
            None => out.push(format!("{told}.  No request is specified")),
            Some(request) if request < least => {
                out.push(format!("{told}, but request is {}", shown(request)));
            }
            Some(_) => {}
        }
    }
    for (resource, max) in strings(limit, &["max"]) {
        let most = quantity_millis(max).unwrap_or(i128::MAX);
        let told = format!("maximum {resource} usage per {kind} is {max}");
        match asked(resource).limit {
            None => out.push(format!("{told}.  No limit is specified")),
            Some(limit) if limit > most => out.push(format!("{told}, but limit is {}", shown(limit))),
            Some(_) => {}
        }
    }
    for (resource, ratio) in strings(limit, &["maxLimitRequestRatio"]) {
        let most = quantity_millis(ratio).unwrap_or(i128::MAX);
        let told = format!("{resource} max limit to request ratio per {kind} is {ratio}");
        match asked(resource) {
            Asked { request: Some(request @ 1..), limit: Some(limit) }
                if limit * 1000 > most.saturating_mul(request) =>
            {
                out.push(format!("{told}, but provided ratio is {}", shown(limit * 1000 / request)));
            }
            Asked { request: Some(1..), limit: Some(_) } => {}
            _ => out.push(format!("{told}, but no request or limit is specified")),
        }
    }
    out
}

/// Thousandths as a quantity.
fn shown(millis: i128) -> String {
    crate::schema::canonical_quantity(&format!("{millis}m")).unwrap_or_default()
}

/// Defaults of a LimitRange itself: a bound is also what a container gets that says nothing.
pub fn default_limit_range(range: &mut Value) {
    for limit in list_mut(range, &["spec", "limits"]) {
        if text(limit, &["type"]) != "Container" {
            continue;
        }
        for (from, to) in [("max", "default"), ("default", "defaultRequest"), ("min", "defaultRequest")] {
            let bounds = at(limit, &[from]).clone();
            for (resource, amount) in strings(&bounds, &[]) {
                set_default(limit, &[to, resource], amount);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(resources: Value) -> Value {
        json!({"spec": {"containers": [{"name": "a", "resources": resources}]}})
    }

    #[test]
    fn a_container_that_asks_for_nothing_gets_the_default() {
        let mut range = json!({"spec": {"limits": [{"type": "Container", "max": {"cpu": "2"}, "min": {"memory": "1Mi"}, "default": {"cpu": "500m"}}]}});
        default_limit_range(&mut range);
        let limit = &range["spec"]["limits"][0];
        assert_eq!(limit["defaultRequest"], json!({"cpu": "500m", "memory": "1Mi"}));
        let mut given = pod(json!({}));
        fill_in(&mut given, limit);
        let want = json!({"limits": {"cpu": "500m"}, "requests": {"cpu": "500m", "memory": "1Mi"}});
        assert_eq!(given["spec"]["containers"][0]["resources"], want);
    }

    #[test]
    fn bounds_are_told_in_upstreams_words() {
        let limit = json!({"type": "Container", "min": {"cpu": "100m"}, "max": {"cpu": "1"}, "maxLimitRequestRatio": {"cpu": "2"}});
        for (resources, want) in [
            (json!({"requests": {"cpu": "500m"}, "limits": {"cpu": "1"}}), vec![]),
            (
                json!({"requests": {"cpu": "50m"}, "limits": {"cpu": "100m"}}),
                vec!["minimum cpu usage per Container is 100m, but request is 50m"],
            ),
            (
                json!({"requests": {"cpu": "1"}, "limits": {"cpu": "2"}}),
                vec!["maximum cpu usage per Container is 1, but limit is 2"],
            ),
            (
                json!({"requests": {"cpu": "100m"}, "limits": {"cpu": "1"}}),
                vec!["cpu max limit to request ratio per Container is 2, but provided ratio is 10"],
            ),
        ] {
            assert_eq!(pod_breaks(&pod(resources.clone()), &limit), want, "{resources}");
        }
    }
}
