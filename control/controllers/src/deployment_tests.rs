//! Deployment stories: what is there, and what one look writes.

use super::*;
use crate::view::tests::world;

fn deployment(replicas: i32, image: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "d", "uid": "dep", "generation": 1, "annotations": {REVISION: "1"}},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "template": template(image),
            "progressDeadlineSeconds": 600,
        },
        "status": {"observedGeneration": 1},
    })
}

fn template(image: &str) -> Value {
    json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": image}]}})
}

/// A set of the deployment that asks for `replicas`, all of them available.
fn set(name: &str, image: &str, revision: i64, replicas: i32) -> Value {
    let mut template = template(image);
    template["metadata"]["labels"][HASH] = json!(name);
    json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": {
            "name": name, "namespace": "d", "uid": name, "generation": 1, "labels": {"app": "web", HASH: name},
            "annotations": {REVISION: revision.to_string(), DESIRED: "3", MAXIMUM: "4"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": "dep", "controller": true}],
        },
        "spec": {"replicas": replicas, "selector": {}, "template": template},
        "status": {"replicas": replicas, "readyReplicas": replicas, "availableReplicas": replicas, "observedGeneration": 1},
    })
}

fn look(objects: &[Value]) -> Outcome {
    DeploymentController.reconcile(
        &Key::new("d", "web"),
        &world(objects),
        "2026-01-01T00:00:00Z".parse().unwrap(),
    )
}

/// Writes to ReplicaSets: `create N` or `name=N`.
fn sizes(outcome: &Outcome) -> Vec<String> {
    let told = outcome.writes.iter().filter_map(|write| match write {
        Write::Create { target, body } if target.plural == "replicasets" => {
            Some(format!("create {}", body["spec"]["replicas"]))
        }
        Write::Patch { target, body, .. } if body["spec"].is_object() => {
            Some(format!("{}={}", target.key.name, body["spec"]["replicas"]))
        }
        Write::Delete { target, .. } => Some(format!("delete {}", target.key.name)),
        _ => None,
    });
    told.collect()
}

fn conditions(outcome: &Outcome) -> Vec<String> {
    let status = outcome.writes.iter().rev().find_map(|write| match write {
        Write::Patch { subresource: Some("status"), body, .. } => Some(body["status"]["conditions"].clone()),
        _ => None,
    });
    let listed = status.unwrap_or_default();
    let told = listed.as_array().into_iter().flatten();
    told.map(|condition| {
        format!("{}={}", condition["type"].as_str().unwrap(), condition["reason"].as_str().unwrap())
    })
    .collect()
}

#[test]
fn a_new_deployment_makes_its_set() {
    let outcome = look(&[deployment(3, "v1")]);
    assert_eq!(sizes(&outcome), ["create 3"]);
    let Write::Create { body, .. } = &outcome.writes[0] else { panic!() };
    let hash = &body["metadata"]["labels"][HASH];
    assert_eq!(&body["spec"]["selector"]["matchLabels"][HASH], hash);
    assert_eq!(&body["spec"]["template"]["metadata"]["labels"][HASH], hash);
    assert_eq!(body["metadata"]["annotations"][REVISION], "1");
    assert_eq!(
        conditions(&outcome),
        ["Available=MinimumReplicasUnavailable", "Progressing=ReplicaSetUpdated"]
    );
}

#[test]
fn a_new_template_rolls_out_and_the_old_set_stays_for_undo() {
    let mut next = deployment(3, "v2");
    next["metadata"]["annotations"][REVISION] = json!("2");
    assert_eq!(sizes(&look(&[next.clone(), set("one", "v1", 1, 3)])), ["create 1"]);
    assert_eq!(sizes(&look(&[next.clone(), set("one", "v1", 1, 3), set("two", "v2", 2, 1)])), ["one=2"]);
    assert_eq!(sizes(&look(&[next.clone(), set("one", "v1", 1, 2), set("two", "v2", 2, 1)])), ["two=2"]);
    let done = look(&[next, set("one", "v1", 1, 0), set("two", "v2", 2, 3)]);
    assert_eq!(sizes(&done), [] as [&str; 0]);
    assert_eq!(
        conditions(&done),
        ["Available=MinimumReplicasAvailable", "Progressing=NewReplicaSetAvailable"]
    );
}

#[test]
fn undo_gives_the_old_set_the_highest_revision() {
    let outcome = look(&[deployment(3, "v1"), set("one", "v1", 1, 0), set("two", "v2", 2, 3)]);
    let numbered = outcome.writes.iter().filter_map(|write| match write {
        Write::Patch { target, body, .. } if body["metadata"]["annotations"][REVISION] == "3" => {
            Some(target.plural.as_str())
        }
        _ => None,
    });
    assert_eq!(numbered.collect::<Vec<_>>(), ["replicasets", "deployments"]);
    assert_eq!(sizes(&outcome), ["one=1"]);
}

#[test]
fn scaling_resizes_the_running_set() {
    assert_eq!(sizes(&look(&[deployment(5, "v1"), set("one", "v1", 1, 3)])), ["one=5"]);
    assert_eq!(sizes(&look(&[deployment(1, "v1"), set("one", "v1", 1, 3)])), ["one=1"]);
    assert_eq!(sizes(&look(&[deployment(0, "v1"), set("one", "v1", 1, 3)])), ["one=0"]);
}

#[test]
fn a_paused_deployment_scales_but_does_not_roll() {
    let mut paused = deployment(3, "v2");
    paused["spec"]["paused"] = json!(true);
    assert_eq!(sizes(&look(&[paused.clone(), set("one", "v1", 1, 3)])), [] as [&str; 0]);
    paused["spec"]["replicas"] = json!(4);
    assert_eq!(sizes(&look(&[paused, set("one", "v1", 1, 3)])), ["one=4"]);
}

#[test]
fn recreate_waits_until_the_old_pods_are_gone() {
    let mut recreate = deployment(3, "v2");
    recreate["spec"]["strategy"] = json!({"type": "Recreate"});
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "p", "namespace": "d", "uid": "p", "deletionTimestamp": "2026-01-01T00:00:00Z",
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "one", "uid": "one", "controller": true}]},
    });
    assert_eq!(sizes(&look(&[recreate.clone(), set("one", "v1", 1, 3)])), ["one=0"]);
    assert_eq!(sizes(&look(&[recreate.clone(), set("one", "v1", 1, 0), pod])), [] as [&str; 0]);
    assert_eq!(sizes(&look(&[recreate, set("one", "v1", 1, 0)])), ["create 3"]);
}

#[test]
fn a_rollout_that_does_not_move_exceeds_its_deadline() {
    let mut stuck = deployment(3, "v1");
    stuck["status"]["conditions"] = json!([
        {"type": "Progressing", "status": "True", "reason": "ReplicaSetUpdated", "lastUpdateTime": "2025-12-31T23:00:00Z"},
    ]);
    let mut set = set("one", "v1", 1, 3);
    set["status"] = json!({"observedGeneration": 1});
    let outcome = look(&[stuck, set]);
    assert_eq!(conditions(&outcome)[1], "Progressing=ProgressDeadlineExceeded");
}

#[test]
fn history_above_the_limit_is_forgotten() {
    let mut limited = deployment(3, "v3");
    limited["spec"]["revisionHistoryLimit"] = json!(1);
    limited["metadata"]["annotations"][REVISION] = json!("3");
    let objects = [limited, set("one", "v1", 1, 0), set("two", "v2", 2, 0), set("three", "v3", 3, 3)];
    assert_eq!(sizes(&look(&objects)), ["delete one"]);
}

#[test]
fn a_set_is_adopted_before_another_is_made() {
    for image in ["a", "b"] {
        let mut orphan = set("before", image, 7, 3);
        orphan["metadata"].as_object_mut().unwrap().remove("ownerReferences");
        let outcome = look(&[deployment(3, "a"), orphan]);
        let [Write::Patch { target, body, .. }] = outcome.writes.as_slice() else { panic!("{outcome:?}") };
        assert_eq!(
            (target.key.name.as_str(), &body["metadata"]["ownerReferences"][0]["uid"]),
            ("before", &json!("dep"))
        );
    }
}
