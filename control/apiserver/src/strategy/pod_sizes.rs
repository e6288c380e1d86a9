//! What a pod needs as a whole: its containers together, and what follows from that for its own sizes.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::resource_names::{is_huge_page, may_be_overcommitted};
use crate::schema::Quantity;
use crate::tree::{at, list, object_mut, strings, text};

/// The sum over all containers of `kind` (`requests` or `limits`) of a resource; `None` when none of them says
/// anything of it. Containers that run before the others need what they have together with those that go on.
pub fn sum(spec: &Value, kind: &str, name: &str) -> Option<Quantity> {
    let amount = |container: &Value| Quantity::parse(text(container, &["resources", kind, name]));
    let plus = |left: Option<Quantity>, right: Option<Quantity>| match (left, right) {
        (Some(left), Some(right)) => Some(left.plus(right)),
        (left, right) => left.or(right),
    };
    let together = list(spec, &["containers"]).iter().map(amount).fold(None, plus);
    let (mut running, mut going_on, mut first) = (together, None, None::<Quantity>);
    for container in list(spec, &["initContainers"]) {
        let own = amount(container);
        let needed = plus(own, going_on);
        if text(container, &["restartPolicy"]) == "Always" {
            running = plus(running, own);
            going_on = needed;
        }
        first = larger(first, needed);
    }
    larger(running, first)
}

fn larger(left: Option<Quantity>, right: Option<Quantity>) -> Option<Quantity> {
    match (left, right) {
        (Some(left), Some(right)) if right > left => Some(right),
        (left, right) => left.or(right),
    }
}

/// Names of all resources that a container says something of, each once.
fn names<'a>(spec: &'a Value, kind: &str) -> BTreeSet<&'a str> {
    let containers = ["containers", "initContainers"].into_iter().flat_map(|group| list(spec, &[group]));
    containers.flat_map(|one| strings(one, &["resources", kind])).map(|(name, _)| name).collect()
}

fn is_of_pods(name: &str) -> bool {
    matches!(name, "cpu" | "memory") || is_huge_page(name)
}

/// Fills in the sizes of a pod that has some.
pub fn default_sizes(spec: &mut Value) {
    if !at(spec, &["resources"]).is_object() {
        return;
    }
    default_pages(spec);
    default_requests(spec);
    default_limits(spec);
}

fn amounts(spec: &Value, kind: &str) -> Map<String, Value> {
    at(spec, &["resources", kind]).as_object().cloned().unwrap_or_default()
}

fn add(spec: &mut Value, kind: &str, added: Vec<(String, Quantity)>) {
    if added.is_empty() {
        return;
    }
    let all = object_mut(spec, &["resources", kind]);
    for (name, amount) in added {
        all.entry(name).or_insert_with(|| Value::from(amount.to_string()));
    }
}

/// Huge pages of containers that the pod says nothing of are its limit.
fn default_pages(spec: &mut Value) {
    let (limits, requests) = (amounts(spec, "limits"), amounts(spec, "requests"));
    if limits.is_empty() && requests.is_empty() {
        return;
    }
    let open =
        |name: &&str| is_huge_page(name) && !limits.contains_key(*name) && !requests.contains_key(*name);
    let added = names(spec, "limits").into_iter().filter(open);
    let added = added.filter_map(|name| Some((name.to_owned(), sum(spec, "limits", name)?))).collect();
    add(spec, "limits", added);
}

/// Where a pod has limits it requests what its containers do, and else as much as the limit.
fn default_requests(spec: &mut Value) {
    let limits = amounts(spec, "limits");
    if limits.is_empty() {
        return;
    }
    let of_containers =
        names(spec, "requests").into_iter().filter(|name| is_of_pods(name) && may_be_overcommitted(name));
    let of_containers =
        of_containers.filter_map(|name| Some((name.to_owned(), sum(spec, "requests", name)?)));
    let of_limits = limits.iter().filter(|(name, _)| is_of_pods(name));
    let of_limits =
        of_limits.filter_map(|(name, amount)| Some((name.clone(), Quantity::parse(amount.as_str()?)?)));
    let added = of_containers.chain(of_limits).collect();
    add(spec, "requests", added);
}

/// A pod that only requests has limits where every container has.
fn default_limits(spec: &mut Value) {
    let has = |kind: &str| amounts(spec, kind).keys().any(|name| is_of_pods(name));
    if has("limits") || !has("requests") {
        return;
    }
    let everywhere = |name: &str| {
        let containers = list(spec, &["containers"]).iter();
        let sidecars = list(spec, &["initContainers"]).iter();
        containers.chain(sidecars).all(|container| !at(container, &["resources", "limits", name]).is_null())
    };
    let added = names(spec, "limits")
        .into_iter()
        .filter(|name| is_of_pods(name) && may_be_overcommitted(name) && everywhere(name));
    let added = added.filter_map(|name| Some((name.to_owned(), sum(spec, "limits", name)?))).collect();
    add(spec, "limits", added);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn containers_that_run_first_count_where_they_need_more() {
        let of = |cpu: &str, policy: Value| json!({"restartPolicy": policy, "resources": {"requests": {"cpu": cpu}}});
        for (first, want) in [
            (json!([]), "2"),
            (json!([of("1", Value::Null)]), "2"),
            (json!([of("3", Value::Null)]), "3"),
            (json!([of("1", json!("Always"))]), "3"),
            (json!([of("1", json!("Always")), of("4", Value::Null)]), "5"),
            (json!([of("4", Value::Null), of("1", json!("Always"))]), "4"),
        ] {
            let spec =
                json!({"containers": [of("1", Value::Null), of("1", Value::Null)], "initContainers": first});
            assert_eq!(sum(&spec, "requests", "cpu").unwrap().to_string(), want, "{first}");
            assert!(sum(&spec, "requests", "memory").is_none());
        }
    }

    #[test]
    fn sizes_of_a_pod_follow_from_its_limits_and_containers() {
        let container = |sizes: Value| json!([{"resources": sizes}]);
        for (own, containers, want) in [
            (
                json!({"limits": {"cpu": "2"}}),
                container(json!({})),
                json!({"limits": {"cpu": "2"}, "requests": {"cpu": "2"}}),
            ),
            (
                json!({"limits": {"cpu": "2"}}),
                container(json!({"requests": {"cpu": "1", "memory": "1Gi"}})),
                json!({"limits": {"cpu": "2"}, "requests": {"cpu": "1", "memory": "1Gi"}}),
            ),
            (
                json!({"requests": {"cpu": "2"}}),
                container(json!({"limits": {"cpu": "3"}})),
                json!({"requests": {"cpu": "2"}, "limits": {"cpu": "3"}}),
            ),
            (
                json!({"limits": {"cpu": "1"}}),
                container(json!({"limits": {"hugepages-2Mi": "4Mi"}})),
                json!({"limits": {"cpu": "1", "hugepages-2Mi": "4Mi"}, "requests": {"cpu": "1", "hugepages-2Mi": "4Mi"}}),
            ),
            (json!({}), container(json!({"limits": {"cpu": "3"}})), json!({})),
        ] {
            let mut spec = json!({"resources": own, "containers": containers});
            default_sizes(&mut spec);
            assert_eq!(spec["resources"], want, "{own}");
        }
    }
}
