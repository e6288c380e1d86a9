//! What is owned, and by whom, when an owner goes.

use http::Method;
use serde_json::{Value, json};

use crate::{ask, becomes, cluster, create, delete, gone};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn map(name: &str, owners: &[&Value]) -> Value {
    let reference = |owner: &&Value| {
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "name": owner["metadata"]["name"],
                "uid": owner["metadata"]["uid"], "blockOwnerDeletion": true })
    };
    let owners: Vec<Value> = owners.iter().map(reference).collect();
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name, "ownerReferences": owners } })
}

#[tokio::test]
async fn an_owner_deleted_by_each_policy_waits_lets_go_or_leaves_what_others_own() {
    let (running, client) = cluster().await;
    let stays = create(&client, MAPS, &map("stays", &[])).await;
    for (policy, own) in [("Foreground", false), ("Background", false), ("Orphan", true)] {
        let goes = create(&client, MAPS, &map("goes", &[])).await;
        create(&client, MAPS, &map("own", &[&goes])).await;
        create(&client, MAPS, &map("shared", &[&goes, &stays])).await;
        let options = json!({ "apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": policy });
        ask(&client, Method::DELETE, &format!("{MAPS}/goes"), &options).await.unwrap();
        gone(&client, &format!("{MAPS}/goes")).await;
        let owners = |found: &Value| found["metadata"]["ownerReferences"].clone();
        let only = |found: &Value| owners(found).as_array().map_or(0, Vec::len) == 1;
        let kept = becomes(&client, &format!("{MAPS}/shared"), only).await;
        assert_eq!(owners(&kept)[0]["name"], "stays", "{policy}");
        if own {
            becomes(&client, &format!("{MAPS}/own"), |found| !found.is_null() && owners(found).is_null())
                .await;
        } else {
            gone(&client, &format!("{MAPS}/own")).await;
        }
        for name in ["shared", "own"].into_iter().take(1 + usize::from(own)) {
            delete(&client, &format!("{MAPS}/{name}")).await;
        }
    }
    running.end().await;
}
