//! Claims of devices from their request to their use.

use serde_json::json;

use crate::cluster::cluster;
use crate::objects::{all, collection, named};

#[tokio::test]
async fn a_claim_is_allocated_once_and_its_request_stays() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    let (version, plural, namespaced, object) =
        all().into_iter().find(|(_, plural, ..)| *plural == "resourceclaims").unwrap();
    let claims = collection(version, plural, namespaced);
    let answer = admin.send("POST", &claims, &named(version, object, "one")).await;
    assert!(answer.headers["warning"].to_str().unwrap().contains("no driver"));
    let made = answer.expect(201);
    assert_eq!(made["spec"]["devices"]["requests"][0]["exactly"]["count"], 1);
    let one = format!("{claims}/one");
    admin.patch("merge", &one, &json!({"spec": {"devices": {"requests": []}}})).await.refused(422, "Invalid");
    let consumer = json!([{"resource": "pods", "name": "p", "uid": "1"}]);
    let status = format!("{one}/status");
    admin
        .patch("merge", &status, &json!({"status": {"reservedFor": consumer}}))
        .await
        .refused(422, "Invalid");
    let result = json!({"request": "gpu", "driver": "d.example.com", "pool": "n", "device": "d"});
    let allocated =
        json!({"status": {"allocation": {"devices": {"results": [result]}}, "reservedFor": consumer}});
    let after = admin.patch("merge", &status, &allocated).await.expect(200);
    assert_eq!((&after["status"], &after["spec"]), (&allocated["status"], &made["spec"]));
    let other = json!({"status": {"allocation": {"devices": {"results": []}}}});
    admin.patch("merge", &status, &other).await.refused(422, "Invalid");
    let accept = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let table = admin.ask("GET", &claims, &accept, "").await.expect(200);
    assert_eq!(table["rows"][0]["cells"][1], "allocated,reserved");
}

#[tokio::test]
async fn slices_are_found_by_node_and_driver() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    let (version, plural, namespaced, object) =
        all().into_iter().find(|(_, plural, ..)| *plural == "resourceslices").unwrap();
    let slices = collection(version, plural, namespaced);
    let made = admin.send("POST", &slices, &named(version, object, "one")).await.expect(201);
    assert_eq!(made["metadata"]["generation"], 1);
    for (selector, count) in [
        ("spec.nodeName=n", 1),
        ("spec.nodeName=m", 0),
        ("spec.driver=d.example.com,spec.nodeName=n", 1),
        ("spec.driver=e.example.com", 0),
    ] {
        let found = admin.get(&format!("{slices}?fieldSelector={selector}")).await.expect(200);
        assert_eq!(found["items"].as_array().unwrap().len(), count, "{selector}");
    }
}
