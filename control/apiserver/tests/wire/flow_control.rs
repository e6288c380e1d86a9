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
