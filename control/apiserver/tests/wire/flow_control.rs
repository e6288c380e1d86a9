//! Flow schemas and priority levels: those every cluster starts with, and what is asked of others.

use serde_json::json;

use crate::cluster::cluster;

const FLOW: &str = "/apis/flowcontrol.apiserver.k8s.io/v1";

#[tokio::test]
async fn a_cluster_starts_with_upstreams_levels_and_keeps_those_it_needs() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    for (plural, count) in [("flowschemas", 11), ("prioritylevelconfigurations", 8)] {
        let all = admin.get(&format!("{FLOW}/{plural}")).await.expect(200);
        assert_eq!(all["items"].as_array().unwrap().len(), count, "{plural}");
        // Written again as they are, in either encoding.
        for name in ["catch-all", "exempt"] {
            let uri = format!("{FLOW}/{plural}/{name}");
            for client in [admin.clone(), admin.in_protobuf()] {
                let mut read = client.get(&uri).await.expect(200);
                read["metadata"]["labels"] = json!({"a": client.media().len().to_string()});
                client.send("PUT", &uri, &read).await.expect(200);
            }
        }
    }
    let more = json!({"spec": {"matchingPrecedence": 9999}});
    admin.patch("merge", &format!("{FLOW}/flowschemas/catch-all"), &more).await.refused(422, "Invalid");
    let more = json!({"spec": {"limited": {"nominalConcurrencyShares": 6}}});
    let levels = format!("{FLOW}/prioritylevelconfigurations");
    admin.patch("merge", &format!("{levels}/catch-all"), &more).await.refused(422, "Invalid");
    let other = admin.patch("merge", &format!("{levels}/workload-low"), &more).await.expect(200);
    assert_eq!(other["metadata"]["generation"], 2);
    let accept = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let table = admin.ask("GET", &format!("{levels}/workload-low"), &accept, "").await.expect(200);
    assert_eq!(
        table["rows"][0]["cells"].as_array().unwrap()[1..6],
        [json!("Limited"), json!(6), json!(128), json!(6), json!(50)]
    );
}

#[tokio::test]
async fn most_statuses_are_written_with_the_metadata_and_some_without() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    let ingress = json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": "a"},
        "spec": {"defaultBackend": {"service": {"name": "s", "port": {"number": 80}}}}});
    let ingresses = "/apis/networking.k8s.io/v1/namespaces/default/ingresses";
    admin.send("POST", ingresses, &ingress).await.expect(201);
    for (path, kept) in [
        (format!("{ingresses}/a"), true),
        (format!("{FLOW}/flowschemas/global-default"), false),
        (format!("{FLOW}/prioritylevelconfigurations/global-default"), false),
    ] {
        let before = admin.get(&path).await.expect(200);
        let owner = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "a", "uid": "u"});
        let metadata = json!({"annotations": {"a": "1"}, "labels": {"l": "1"}, "finalizers": ["example.org/f"],
            "ownerReferences": [owner]});
        let patch =
            json!({"metadata": metadata, "status": {"conditions": []}, "spec": {"ingressClassName": "x"}});
        let written = admin.patch("merge", &format!("{path}/status"), &patch).await.expect(200);
        for (field, value) in metadata.as_object().unwrap() {
            let want = if kept { value } else { &before["metadata"][field] };
            assert_eq!(&written["metadata"][field], want, "{path} {field}");
        }
        assert_eq!(written["spec"], before["spec"], "{path}");
    }
}
