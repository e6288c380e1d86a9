//! What slices Endpoints become, and when they go.

use super::*;
use crate::view::tests::world;
use serde_json::Value;

fn service() -> Value {
    json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "db", "namespace": "d", "uid": "svc" },
            "spec": { "ports": [{ "port": 80 }] } })
}

fn endpoints(subsets: Value) -> Value {
    json!({ "apiVersion": "v1", "kind": "Endpoints",
            "metadata": { "name": "db", "namespace": "d", "uid": "e", "labels": { "tier": "back" },
                          "annotations": { "note": "by hand", TRIGGER_TIME: "x", LAST_APPLIED: "{}" } },
            "subsets": subsets })
}

fn one(ip: &str) -> Value {
    json!([{ "addresses": [{ "ip": ip }], "ports": [{ "port": 80, "protocol": "TCP" }] }])
}

fn look(objects: &[Value]) -> Vec<Write> {
    let now = Timestamp::UNIX_EPOCH;
    EndpointSliceMirroringController.reconcile(&Key::new("d", "db"), &world(objects), now).writes
}

/// The slices that are made, as they come back.
fn made(objects: &[Value]) -> Vec<Value> {
    let mut slices = Vec::new();
    for (at, write) in look(objects).iter().enumerate() {
        let Write::Create { body, .. } = write else { panic!("{write:?}") };
        let mut slice = body.clone();
        slice["metadata"]["name"] = json!(format!("db-{at}"));
        slice["metadata"]["uid"] = json!(format!("s{at}"));
        slices.push(slice);
    }
    slices
}

fn deleted(writes: &[Write]) -> bool {
    matches!(writes, [Write::Delete { .. }])
}

#[test]
fn what_is_written_by_hand_is_mirrored_with_its_labels_and_owned_by_it() {
    let slices = made(&[service(), endpoints(one("10.1.2.3"))]);
    let [slice] = &slices[..] else { panic!("{slices:?}") };
    assert_eq!(slice["addressType"], "IPv4");
    assert_eq!(slice["ports"], json!([{ "name": "", "port": 80, "protocol": "TCP" }]));
    let endpoint = json!({ "addresses": ["10.1.2.3"], "conditions": { "ready": true } });
    assert_eq!(slice["endpoints"], json!([endpoint]));
    let meta = &slice["metadata"];
    assert_eq!(meta["generateName"], "db-");
    assert_eq!(meta["labels"], json!({ "tier": "back", SERVICE_LABEL: "db", MANAGED_BY: MANAGER }));
    assert_eq!(meta["annotations"], json!({ "note": "by hand" }));
    let owner = json!({ "apiVersion": "v1", "kind": "Endpoints", "name": "db", "uid": "e",
                        "controller": true, "blockOwnerDeletion": true });
    assert_eq!(meta["ownerReferences"], json!([owner]));
    assert_eq!(look(&[service(), endpoints(one("10.1.2.3")), slice.clone()]), []);
}

#[test]
fn each_set_of_ports_and_family_has_a_slice() {
    let ports = |port: i32| json!([{ "port": port, "protocol": "TCP" }]);
    let subsets = json!([
        { "addresses": [{ "ip": "10.0.0.1" }, { "ip": "fd00::1" }], "ports": ports(80) },
        { "notReadyAddresses": [{ "ip": "10.0.0.2", "nodeName": "n", "hostname": "h" }], "ports": ports(81) },
        { "addresses": [{ "ip": "::ffff:10.0.0.3" }], "ports": ports(81) },
        { "ports": ports(82) },
    ]);
    let slices = made(&[service(), endpoints(subsets)]);
    let told: Vec<_> = slices
        .iter()
        .map(|slice| {
            let ends = slice["endpoints"].as_array().unwrap();
            let ips: Vec<_> = ends.iter().map(|end| end["addresses"][0].as_str().unwrap()).collect();
            (slice["addressType"].as_str().unwrap(), slice["ports"][0]["port"].as_i64().unwrap(), ips)
        })
        .collect();
    let v4 = "IPv4";
    assert_eq!(
        told,
        [(v4, 80, vec!["10.0.0.1"]), (v4, 81, vec!["10.0.0.2", "10.0.0.3"]), ("IPv6", 80, vec!["fd00::1"])]
    );
    let waiting = json!({ "addresses": ["10.0.0.2"], "conditions": { "ready": false }, "nodeName": "n", "hostname": "h" });
    assert_eq!(slices[1]["endpoints"][0], waiting);
}

#[test]
fn a_change_mends_the_slice_that_is_there_and_surplus_ones_go() {
    let slice = made(&[service(), endpoints(one("10.1.2.3"))]).remove(0);
    let mut twin = slice.clone();
    (twin["metadata"]["name"], twin["metadata"]["uid"]) = (json!("db-9"), json!("s9"));
    let writes = look(&[service(), endpoints(one("10.2.3.4")), slice.clone(), twin]);
    let [Write::Patch { target, body, .. }, Write::Delete { uid, .. }] = &writes[..] else {
        panic!("{writes:?}")
    };
    assert_eq!((target.key.name.as_str(), uid.as_str()), ("db-0", "s9"));
    assert_eq!(body["endpoints"][0]["addresses"], json!(["10.2.3.4"]));

    let mut relabelled = endpoints(one("10.1.2.3"));
    relabelled["metadata"]["labels"] = json!({ "tier": "middle" });
    relabelled["metadata"]["annotations"] = json!({});
    let writes = look(&[service(), relabelled, slice]);
    let [Write::Patch { body, .. }] = &writes[..] else { panic!("{writes:?}") };
    assert_eq!(body["metadata"]["labels"]["tier"], "middle");
    assert_eq!(body["metadata"]["annotations"], json!({ "note": null }));
}

#[test]
fn mirrors_go_when_there_is_nothing_to_mirror_any_more() {
    let whole = || endpoints(one("10.1.2.3"));
    let slice = made(&[service(), whole()]).remove(0);
    let (mut skipped, mut lock, mut selecting) = (whole(), whole(), service());
    skipped["metadata"]["labels"][SKIP] = json!("true");
    lock["metadata"]["annotations"][LEADER] = json!("{}");
    selecting["spec"]["selector"] = json!({ "app": "db" });
    for objects in [
        vec![service()],
        vec![whole()],
        vec![service(), skipped],
        vec![service(), lock],
        vec![selecting, whole()],
        vec![service(), endpoints(json!([]))],
    ] {
        let writes = look(&[objects.clone(), vec![slice.clone()]].concat());
        assert!(deleted(&writes), "{objects:?}: {writes:?}");
        assert_eq!(look(&objects), []);
    }
}

#[test]
fn slices_of_others_are_left_alone() {
    let mut foreign = made(&[service(), endpoints(one("10.1.2.3"))]).remove(0);
    foreign["metadata"]["labels"][MANAGED_BY] = json!("somebody");
    assert_eq!(look(&[service(), foreign]), []);
}

#[test]
fn what_is_not_mirrored_is_told() {
    let addresses: Vec<Value> = (0..1003)
        .map(|at| json!({ "ip": format!("10.0.{}.{}", at / 250, at % 250) }))
        .chain([json!({ "ip": "nowhere" })])
        .collect();
    let mut subsets = json!([{ "addresses": addresses, "ports": [{ "port": 80 }] }]);
    subsets[0]["addresses"].as_array_mut().unwrap().insert(0, json!({ "ip": "here" }));
    let writes = look(&[service(), endpoints(subsets)]);
    let [Write::Create { body, .. }, invalid, skipped] = &writes[..] else { panic!("{}", writes.len()) };
    assert_eq!(body["endpoints"].as_array().unwrap().len(), 1000);
    let told = |write: &Write| {
        let Write::Create { body, .. } = write else { panic!("{write:?}") };
        format!("{} {}", body["reason"].as_str().unwrap(), body["message"].as_str().unwrap())
    };
    assert!(told(invalid).starts_with("InvalidIPAddress Skipped 1 invalid"), "{}", told(invalid));
    assert!(told(skipped).ends_with("4 addresses were skipped"), "{}", told(skipped));
}

#[test]
fn only_endpoints_and_services_that_concern_mirrors_wake_it() {
    let (key, empty) = (Key::new("d", "db"), ObjectMeta::default());
    let mut selecting = service();
    selecting["spec"]["selector"] = json!({ "app": "db" });
    let written = endpoints(one("10.1.2.3"));
    let slice = made(&[service(), written.clone()]).remove(0);
    for (resource, objects, want) in [
        ("endpoints", vec![service()], 1),
        ("endpoints", vec![], 1),
        ("endpoints", vec![selecting.clone()], 0),
        ("services", vec![service()], 0),
        ("services", vec![service(), written.clone()], 1),
        ("services", vec![selecting.clone(), written.clone()], 0),
        ("services", vec![selecting, written.clone(), slice.clone()], 1),
        ("services", vec![written, slice], 1),
        ("pods", vec![service()], 0),
    ] {
        let change = Change { resource, key: &key, old: Some(&empty), new: Some(&empty) };
        let woken = EndpointSliceMirroringController.wakes(&change, &world(&objects));
        assert_eq!(woken.len(), want, "{resource} {objects:?}");
    }
}
