//! What Endpoints become of Services and pods.

use super::*;
use crate::view::tests::world;
use serde_json::Value;

const NOW: &str = "2026-01-01T00:00:10Z";

fn service(ports: Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": "web", "namespace": "d", "uid": "svc", "labels": { "tier": "front" },
                      "creationTimestamp": "2026-01-01T00:00:05Z" },
        "spec": { "selector": { "app": "web" }, "ipFamilies": ["IPv4", "IPv6"], "type": "ClusterIP",
                  "clusterIP": "10.96.0.7", "ports": ports },
    })
}

fn web() -> Value {
    service(json!([{ "name": "http", "port": 80, "targetPort": "web" }]))
}

fn pod(name: &str, last: usize, ready: bool) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "namespace": "d", "uid": name, "labels": { "app": "web" } },
        "spec": { "nodeName": "n", "hostname": "host", "subdomain": "web",
                  "containers": [{ "ports": [{ "name": "web", "containerPort": 8080 }] }] },
        "status": { "phase": "Running",
                    "podIPs": [{ "ip": "fd00::1" }, { "ip": format!("10.0.{}.{}", last / 250, last % 250) }],
                    "conditions": [{ "type": "Ready", "status": if ready { "True" } else { "False" },
                                     "lastTransitionTime": format!("2026-01-01T00:00:{:02}Z", 10 + last % 10) }] },
    })
}

fn look(objects: &[Value]) -> Outcome {
    EndpointsController.reconcile(&Key::new("d", "web"), &world(objects), NOW.parse().unwrap())
}

/// The object a creation makes, as it comes back.
fn made(objects: &[Value]) -> Value {
    let outcome = look(objects);
    let [Write::Create { body, .. }] = &outcome.writes[..] else { panic!("{outcome:?}") };
    let mut object = body.clone();
    object["metadata"]["uid"] = json!("e");
    object
}

/// The addresses of a list of a subset.
fn ips(subset: &Value, list: &str) -> Vec<String> {
    let addresses = subset[list].as_array().into_iter().flatten();
    addresses.map(|address| address["ip"].as_str().unwrap().to_owned()).collect()
}

fn patched(objects: &[Value]) -> Value {
    let outcome = look(objects);
    let [Write::Patch { body, .. }] = &outcome.writes[..] else { panic!("{outcome:?}") };
    body.clone()
}

#[test]
fn a_service_without_pods_has_an_empty_object_under_its_name() {
    let object = made(&[web()]);
    assert_eq!(object["metadata"]["name"], "web");
    assert_eq!(object["metadata"]["labels"], json!({ "tier": "front", MANAGED_BY: MANAGER }));
    assert_eq!(object["subsets"], json!([]));
    assert_eq!(look(&[web(), object]), Outcome::nothing());
}

#[test]
fn pods_stand_in_the_first_family_with_their_names_and_nodes_and_as_ready_as_they_are() {
    let object = made(&[web(), pod("a", 1, true), pod("b", 2, false)]);
    let reference = json!({ "kind": "Pod", "namespace": "d", "name": "a", "uid": "a" });
    let address = json!({ "ip": "10.0.0.1", "nodeName": "n", "hostname": "host", "targetRef": reference });
    let [subset] = &object["subsets"].as_array().unwrap()[..] else { panic!("{object}") };
    assert_eq!(subset["addresses"], json!([address]));
    assert_eq!(ips(subset, "notReadyAddresses"), ["10.0.0.2"]);
    assert_eq!(subset["ports"], json!([{ "name": "http", "port": 8080, "protocol": "TCP" }]));
    assert_eq!(look(&[web(), pod("a", 1, true), pod("b", 2, false), object]), Outcome::nothing());
}

#[test]
fn finished_and_leaving_pods_are_not_listed_unless_unready_ones_are_wanted() {
    let mut leaving = pod("a", 1, true);
    leaving["metadata"]["deletionTimestamp"] = json!(NOW);
    let mut finished = pod("b", 2, true);
    finished["status"]["phase"] = json!("Succeeded");
    assert_eq!(made(&[web(), leaving.clone(), finished.clone()])["subsets"], json!([]));
    let mut all = web();
    all["spec"]["publishNotReadyAddresses"] = json!(true);
    let object = made(&[all, leaving, finished, pod("c", 3, false)]);
    assert_eq!(ips(&object["subsets"][0], "addresses"), ["10.0.0.1", "10.0.0.3"]);
}

#[test]
fn ports_of_the_same_pods_share_a_subset_and_ports_of_some_have_their_own() {
    let ports = json!([
        { "name": "a", "port": 1 }, { "name": "b", "port": 2, "protocol": "UDP" },
        { "name": "named", "port": 3, "targetPort": "web" },
    ]);
    let mut other = pod("b", 2, true);
    other["spec"]["containers"] = json!([]);
    let object = made(&[service(ports), pod("a", 1, true), other]);
    let told = object["subsets"].as_array().unwrap().iter().map(|subset| {
        let names = subset["ports"].as_array().unwrap().iter().map(|port| port["name"].as_str().unwrap());
        (names.collect::<Vec<_>>().join(" "), ips(subset, "addresses").len())
    });
    let mut told: Vec<_> = told.collect();
    told.sort();
    assert_eq!(told, [("a b".to_owned(), 2), ("named".to_owned(), 1)]);
}

#[test]
fn a_headless_service_may_do_without_ports_and_is_marked() {
    let mut headless = service(json!([]));
    assert_eq!(made(&[headless.clone(), pod("a", 1, true)])["subsets"], json!([]), "an address needs ports");
    headless["spec"]["clusterIP"] = json!("None");
    let object = made(&[headless, pod("a", 1, true)]);
    assert_eq!(ips(&object["subsets"][0], "addresses"), ["10.0.0.1"]);
    assert_eq!(object["subsets"][0].get("ports"), None);
    assert_eq!(object["metadata"]["labels"][HEADLESS], "");
}

#[test]
fn what_changed_is_patched_as_it_was_seen_and_labels_that_went_are_taken_away() {
    let mut object = made(&[web(), pod("a", 1, true)]);
    object["metadata"]["resourceVersion"] = json!("7");
    object["metadata"]["labels"]["old"] = json!("yes");
    let body = patched(&[web(), pod("a", 1, true), object]);
    assert_eq!(body["metadata"]["resourceVersion"], "7");
    assert_eq!(body["metadata"]["labels"], json!({ "tier": "front", MANAGED_BY: MANAGER, "old": null }));
}

#[test]
fn the_object_says_when_what_it_carries_began() {
    let object = made(&[web(), pod("a", 1, true)]);
    assert_eq!(object["metadata"]["annotations"][TRIGGER_TIME], "2026-01-01T00:00:05Z");
    let began = |pods: &[Value]| {
        let body = patched(&[&[web(), object.clone()], pods].concat());
        body["metadata"]["annotations"][TRIGGER_TIME].clone()
    };
    assert_eq!(began(&[pod("a", 1, true), pod("c", 3, true), pod("b", 2, false)]), "2026-01-01T00:00:12Z");
    assert_eq!(began(&[pod("a", 1, false), pod("b", 2, false)]), "2026-01-01T00:00:11Z");
    assert_eq!(began(&[]), Value::Null, "nobody says when a pod went");
}

#[test]
fn beyond_a_thousand_addresses_the_object_is_cut_and_says_so() {
    let pods = |ready: usize, waiting: usize| {
        let pods = (0..ready + waiting).map(|at| pod(&format!("p{at:04}"), at, at < ready));
        [web()].into_iter().chain(pods).collect::<Vec<_>>()
    };
    for (ready, waiting, want) in
        [(1000, 0, (1000, 0, false)), (900, 300, (900, 100, true)), (1200, 50, (1000, 0, true))]
    {
        let object = made(&pods(ready, waiting));
        let subset = &object["subsets"][0];
        let told = (ips(subset, "addresses").len(), ips(subset, "notReadyAddresses").len());
        let said = object["metadata"]["annotations"].get(OVER_CAPACITY) == Some(&json!(TRUNCATED));
        assert_eq!((told.0, told.1, said), want, "{ready} ready and {waiting} not");
    }
    let object = made(&pods(1200, 0));
    let body = patched(&[web(), pod("p0000", 0, true), object]);
    assert_eq!(body["metadata"]["annotations"][OVER_CAPACITY], Value::Null);
}

#[test]
fn subsets_are_cut_in_proportion() {
    let addresses = |many: usize| Some(vec![EndpointAddress::default(); many]);
    let mut subsets: Vec<EndpointSubset> = [900, 600, 1]
        .map(|many| EndpointSubset { addresses: addresses(many), ..EndpointSubset::default() })
        .into();
    assert!(cut(&mut subsets));
    let left: Vec<usize> = subsets.iter().map(|subset| length(subset.addresses.as_ref())).collect();
    assert_eq!(left, [600, 400, 0], "shares are rounded up as long as there is room");
    assert_eq!(subsets[2].addresses, None);
}

#[test]
fn a_large_object_rests_between_writes() {
    let pods = (0..500).map(|at| pod(&format!("p{at:04}"), at, true)).collect::<Vec<_>>();
    assert_eq!(look(&[vec![web()], pods].concat()).rest, Duration::from_millis(500));
    assert_eq!(look(&[web()]).rest, Duration::ZERO);
}

#[test]
fn services_that_are_not_ours_are_left_alone() {
    let mut without = web();
    without["spec"]["selector"] = json!({});
    let mut outside = web();
    outside["spec"]["type"] = json!("ExternalName");
    for object in [without, outside] {
        assert_eq!(look(&[object, pod("a", 1, true)]), Outcome::nothing());
    }
}

#[test]
fn the_object_goes_with_its_service_unless_it_is_a_lock() {
    let mut object = made(&[web()]);
    let outcome = look(&[object.clone()]);
    assert!(matches!(&outcome.writes[..], [Write::Delete { uid, .. }] if uid == "e"), "{outcome:?}");
    object["metadata"]["annotations"][LEADER] = json!("{}");
    assert_eq!(look(&[object]), Outcome::nothing());
}

#[test]
fn objects_without_a_service_are_looked_at_only_if_they_are_ours() {
    let (key, empty) = (Key::new("d", "web"), ObjectMeta::default());
    let own =
        ObjectMeta { labels: Some([(MANAGED_BY.to_owned(), MANAGER.to_owned())].into()), ..empty.clone() };
    let (alone, with) = (world(&[]), world(&[web()]));
    for (old, new, view, want) in [
        (None, Some(&empty), &alone, 0),
        (None, Some(&own), &alone, 1),
        (None, Some(&own), &with, 0),
        (Some(&own), Some(&own), &alone, 0),
        (Some(&empty), None, &with, 1),
    ] {
        let change = Change { resource: "endpoints", key: &key, old, new };
        assert_eq!(EndpointsController.wakes(&change, view).len(), want, "{change:?}");
    }
}
