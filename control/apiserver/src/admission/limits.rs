//! LimitRanges: what a container gets that asks for nothing, and how little and how much may be asked for.

use std::collections::{BTreeMap, HashSet};

use serde_json::Value;

use crate::api::Call;
use crate::object::{self, prefix};
use crate::resources::known;
use crate::schema::Quantity;
use crate::status::{Refusal, Result};
use crate::tree::{at, list, list_mut, set, set_default, strings, text};

/// Where a pod says what it was given.
const ANNOTATION: &str = "kubernetes.io/limit-ranger";
/// Resources a pod may ask for as a whole.
const OF_PODS: &[&str] = &["cpu", "memory"];

/// Completes a new pod by the namespace's LimitRanges and refuses a pod or claim that is outside of them.
pub fn apply(call: &Call, object: &mut Value) -> Result<()> {
    let ranges = ranges(call)?;
    if call.row.own() == "pods" {
        ranges.iter().for_each(|range| complete(object, range));
    }
    refuse(call, object, &ranges)
}

/// Refuses a changed pod or claim that is outside of the namespace's LimitRanges.
pub fn check(call: &Call, object: &Value) -> Result<()> {
    refuse(call, object, &ranges(call)?)
}

fn ranges(call: &Call) -> Result<Vec<Value>> {
    let prefix = prefix(known("", "limitranges"), &call.target.namespace);
    let page = call.api.objects.range(&prefix, None, 0, None).map_err(Refusal::internal)?;
    Ok(page.entries.iter().map(|entry| object::decode(entry)).collect())
}

fn refuse(call: &Call, object: &Value, ranges: &[Value]) -> Result<()> {
    let breaks = if call.row.own() == "pods" { pod_breaks } else { claim_breaks };
    for range in ranges {
        let mut broken: Vec<String> =
            list(range, &["spec", "limits"]).iter().flat_map(|limit| breaks(object, limit)).collect();
        let mut known = HashSet::new();
        broken.retain(|sentence| known.insert(sentence.clone()));
        let why = match broken.as_slice() {
            [] => continue,
            [one] => one.clone(),
            several => format!("[{}]", several.join(", ")),
        };
        return Err(Refusal::forbidden(&call.row, text(object, &["metadata", "name"]), &why));
    }
    Ok(())
}

/// Gives containers what they do not ask for, and notes it at the pod.
fn complete(pod: &mut Value, range: &Value) {
    let mut given = Vec::new();
    for (group, called) in [("containers", "container"), ("initContainers", "init container")] {
        for container in list_mut(pod, &["spec", group]) {
            let name = text(container, &["name"]).to_owned();
            for (from, to, word) in
                [("defaultRequest", "requests", "request"), ("default", "limits", "limit")]
            {
                let new = fill_in(container, range, from, to);
                if !new.is_empty() {
                    given.push(format!("{} {word} for {called} {name}", new.join(", ")));
                }
            }
        }
    }
    if !given.is_empty() {
        let note = format!("LimitRanger plugin set: {}", given.join("; "));
        set(pod, &["metadata", "annotations", ANNOTATION], note);
    }
}

/// The resources of which the container now has what the range says.
fn fill_in(container: &mut Value, range: &Value, from: &str, to: &str) -> Vec<String> {
    let limits =
        list(range, &["spec", "limits"]).iter().filter(|limit| text(limit, &["type"]) == "Container");
    // Of two that speak of one resource the later counts.
    let amounts: BTreeMap<&str, &str> = limits.flat_map(|limit| strings(limit, &[from])).collect();
    let missing =
        amounts.into_iter().filter(|(resource, _)| at(container, &["resources", to, resource]).is_null());
    let missing: Vec<(&str, &str)> = missing.collect();
    for (resource, amount) in &missing {
        set(container, &["resources", to, resource], *amount);
    }
    missing.into_iter().map(|(resource, _)| resource.to_owned()).collect()
}

type Amounts = BTreeMap<String, Quantity>;

/// What is asked for.
#[derive(Debug, Default)]
struct Asked {
    requests: Amounts,
    limits: Amounts,
}

fn amounts(holder: &Value, kind: &str) -> Amounts {
    let given = strings(holder, &["resources", kind]);
    given.filter_map(|(resource, amount)| Some((resource.to_owned(), Quantity::parse(amount)?))).collect()
}

fn add(sum: &mut Amounts, more: &Amounts) {
    for (resource, amount) in more {
        sum.entry(resource.clone()).and_modify(|known| *known = known.plus(*amount)).or_insert(*amount);
    }
}

fn raise(most: &mut Amounts, other: Amounts) {
    for (resource, amount) in other {
        let known = most.entry(resource).or_insert(amount);
        if amount > *known {
            *known = amount;
        }
    }
}

/// What a pod asks for as a whole: what its containers do together, or one of the init containers beside the sidecars that
/// run by then, whichever is more; and what the pod itself says before both.
fn total(pod: &Value, kind: &str) -> Amounts {
    let (mut sum, mut sidecars, mut most) = (Amounts::new(), Amounts::new(), Amounts::new());
    list(pod, &["spec", "containers"]).iter().for_each(|container| add(&mut sum, &amounts(container, kind)));
    for container in list(pod, &["spec", "initContainers"]) {
        let mut own = amounts(container, kind);
        if text(container, &["restartPolicy"]) == "Always" {
            add(&mut sum, &own);
            add(&mut sidecars, &own);
            own = sidecars.clone();
        } else {
            add(&mut own, &sidecars);
        }
        raise(&mut most, own);
    }
    raise(&mut sum, most);
    let own = amounts(at(pod, &["spec"]), kind);
    sum.extend(own.into_iter().filter(|(resource, _)| OF_PODS.contains(&resource.as_str())));
    sum
}

fn pod_breaks(pod: &Value, limit: &Value) -> Vec<String> {
    match text(limit, &["type"]) {
        "Container" => {
            let containers = list(pod, &["spec", "containers"]).iter();
            let all = containers.chain(list(pod, &["spec", "initContainers"]));
            let asked =
                all.map(|one| Asked { requests: amounts(one, "requests"), limits: amounts(one, "limits") });
            asked.flat_map(|asked| breaks(limit, "Container", &asked)).collect()
        }
        "Pod" => {
            breaks(limit, "Pod", &Asked { requests: total(pod, "requests"), limits: total(pod, "limits") })
        }
        _ => Vec::new(),
    }
}

/// A claim has requests alone.
fn claim_breaks(claim: &Value, limit: &Value) -> Vec<String> {
    let kind = "PersistentVolumeClaim";
    if text(limit, &["type"]) != kind {
        return Vec::new();
    }
    let requests = amounts(at(claim, &["spec"]), "requests");
    let least = bounds(limit, "min").filter_map(|(resource, min)| {
        too_little(&told("minimum", resource, kind, min), min, requests.get(resource).copied(), None)
    });
    let most = bounds(limit, "max").filter_map(|(resource, max)| {
        let told = told("maximum", resource, kind, max);
        match requests.get(resource) {
            None => Some(format!("{told}.  No request is specified")),
            Some(request) if *request > max => Some(format!("{told}, but request is {request}")),
            Some(_) => None,
        }
    });
    least.chain(most).collect()
}

fn bounds<'a>(limit: &'a Value, which: &str) -> impl Iterator<Item = (&'a str, Quantity)> + use<'a> {
    strings(limit, &[which]).filter_map(|(resource, bound)| Some((resource, Quantity::parse(bound)?)))
}

fn told(which: &str, resource: &str, kind: &str, bound: Quantity) -> String {
    format!("{which} {resource} usage per {kind} is {bound}")
}

/// Sentences about every bound that does not hold.
fn breaks(limit: &Value, kind: &str, asked: &Asked) -> Vec<String> {
    let of = |resource: &str| (asked.requests.get(resource).copied(), asked.limits.get(resource).copied());
    let least = bounds(limit, "min").filter_map(|(resource, min)| {
        let (request, limit) = of(resource);
        too_little(&told("minimum", resource, kind, min), min, request, limit)
    });
    let most = bounds(limit, "max").filter_map(|(resource, max)| {
        let (request, limit) = of(resource);
        too_much(&told("maximum", resource, kind, max), max, request, limit)
    });
    let ratios = bounds(limit, "maxLimitRequestRatio").filter_map(|(resource, ratio)| {
        let (request, limit) = of(resource);
        let told = format!("{resource} max limit to request ratio per {kind} is {ratio}");
        too_far_apart(&told, ratio, request, limit)
    });
    least.chain(most).chain(ratios).collect()
}

fn too_little(
    told: &str,
    min: Quantity,
    request: Option<Quantity>,
    limit: Option<Quantity>,
) -> Option<String> {
    let Some(request) = request else { return Some(format!("{told}.  No request is specified")) };
    if request < min {
        return Some(format!("{told}, but request is {request}"));
    }
    limit.filter(|limit| *limit < min).map(|limit| format!("{told}, but limit is {limit}"))
}

fn too_much(told: &str, max: Quantity, request: Option<Quantity>, limit: Option<Quantity>) -> Option<String> {
    let Some(limit) = limit else { return Some(format!("{told}.  No limit is specified")) };
    if limit > max {
        return Some(format!("{told}, but limit is {limit}"));
    }
    request.filter(|request| *request > max).map(|request| format!("{told}, but request is {request}"))
}

fn too_far_apart(
    told: &str,
    ratio: Quantity,
    request: Option<Quantity>,
    limit: Option<Quantity>,
) -> Option<String> {
    let Some(request) = request.filter(|request| !request.is_zero()) else {
        return Some(format!("{told}, but no request is specified or request is 0"));
    };
    let Some(limit) = limit.filter(|limit| !limit.is_zero()) else {
        return Some(format!("{told}, but no limit is specified or limit is 0"));
    };
    let found = || format!("{told}, but provided ratio is {:.6}", limit.ratio(request));
    limit.exceeds(request, ratio).then(found)
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
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a", "resources": resources}]}})
    }

    #[test]
    fn a_container_that_asks_for_nothing_gets_the_default_and_the_pod_says_so() {
        let mut range = json!({"spec": {"limits": [{"type": "Container", "max": {"cpu": "2"}, "min": {"memory": "1Mi"}, "default": {"cpu": "500m"}}]}});
        default_limit_range(&mut range);
        assert_eq!(range["spec"]["limits"][0]["defaultRequest"], json!({"cpu": "500m", "memory": "1Mi"}));
        let mut given = pod(json!({}));
        given["spec"]["initContainers"] =
            json!([{"name": "b", "resources": {"requests": {"cpu": "1", "memory": "1Mi"}}}]);
        complete(&mut given, &range);
        let want = json!({"limits": {"cpu": "500m"}, "requests": {"cpu": "500m", "memory": "1Mi"}});
        assert_eq!(given["spec"]["containers"][0]["resources"], want);
        let note = "LimitRanger plugin set: cpu, memory request for container a; cpu limit for container a; cpu limit for init container b";
        assert_eq!(given["metadata"]["annotations"][ANNOTATION], note);
        let mut complete_already = pod(want);
        complete(&mut complete_already, &range);
        assert_eq!(complete_already["metadata"], json!({"name": "p"}));
    }

    #[test]
    fn bounds_are_told_in_upstreams_words() {
        let limit = json!({"type": "Container", "min": {"cpu": "100m", "memory": "100Mi"}, "max": {"cpu": "1"}, "maxLimitRequestRatio": {"cpu": "2"}});
        let asks = |requests: Value, limits: Value| json!({"requests": requests, "limits": limits});
        for (resources, want) in [
            (asks(json!({"cpu": "500m", "memory": "100Mi"}), json!({"cpu": "1"})), vec![]),
            (
                asks(json!({"cpu": "50m", "memory": "50Mi"}), json!({"cpu": "100m"})),
                vec![
                    "minimum cpu usage per Container is 100m, but request is 50m",
                    "minimum memory usage per Container is 100Mi, but request is 50Mi",
                ],
            ),
            (
                asks(json!({"cpu": "1", "memory": "1Gi"}), json!({"cpu": "2", "memory": "99Mi"})),
                vec![
                    "minimum memory usage per Container is 100Mi, but limit is 99Mi",
                    "maximum cpu usage per Container is 1, but limit is 2",
                ],
            ),
            (
                asks(json!({"cpu": "300m", "memory": "1Gi"}), json!({"cpu": "1"})),
                vec!["cpu max limit to request ratio per Container is 2, but provided ratio is 3.333333"],
            ),
            (
                asks(json!({"cpu": "2", "memory": "1Gi"}), json!({"cpu": "1"})),
                vec!["maximum cpu usage per Container is 1, but request is 2"],
            ),
            (
                json!({}),
                vec![
                    "minimum cpu usage per Container is 100m.  No request is specified",
                    "minimum memory usage per Container is 100Mi.  No request is specified",
                    "maximum cpu usage per Container is 1.  No limit is specified",
                    "cpu max limit to request ratio per Container is 2, but no request is specified or request is 0",
                ],
            ),
        ] {
            assert_eq!(pod_breaks(&pod(resources.clone()), &limit), want, "{resources}");
        }
    }

    #[test]
    fn a_pod_is_what_runs_at_once_or_what_it_says_itself() {
        let asks = |amount: &str| json!({"requests": {"memory": amount}});
        let init = |amount: &str, policy: Value| json!({"restartPolicy": policy, "resources": asks(amount)});
        let limit = json!({"type": "Pod", "max": {}, "min": {"memory": "1Ti"}});
        for (containers, inits, own, want) in [
            (vec!["1Gi", "512Mi"], vec![], Value::Null, "1536Mi"),
            (vec!["1Gi"], vec![init("2Gi", Value::Null), init("1Gi", Value::Null)], Value::Null, "2Gi"),
            (vec!["1Gi"], vec![init("1Gi", json!("Always"))], Value::Null, "2Gi"),
            (vec!["1Gi"], vec![init("1Gi", json!("Always")), init("3Gi", Value::Null)], Value::Null, "4Gi"),
            (vec!["1Gi"], vec![], asks("3Gi"), "3Gi"),
        ] {
            let containers: Vec<Value> =
                containers.iter().map(|one| json!({"resources": asks(one)})).collect();
            let pod = json!({"spec": {"containers": containers, "initContainers": inits, "resources": own}});
            let sentence = format!("minimum memory usage per Pod is 1Ti, but request is {want}");
            assert_eq!(pod_breaks(&pod, &limit), [sentence]);
        }
    }

    #[test]
    fn a_claim_is_bound_by_what_it_requests() {
        let limit =
            json!({"type": "PersistentVolumeClaim", "min": {"storage": "2Gi"}, "max": {"storage": "10Gi"}});
        for (request, want) in [
            ("5Gi", vec![]),
            ("1Gi", vec!["minimum storage usage per PersistentVolumeClaim is 2Gi, but request is 1Gi"]),
            ("20Gi", vec!["maximum storage usage per PersistentVolumeClaim is 10Gi, but request is 20Gi"]),
        ] {
            let claim = json!({"spec": {"resources": {"requests": {"storage": request}}}});
            assert_eq!(claim_breaks(&claim, &limit), want, "{request}");
        }
    }
}
