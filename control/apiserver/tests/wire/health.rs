//! Health, as probes and people ask for it.

use serde_json::json;

use crate::cluster::{Client, cluster};

async fn text(client: &Client, uri: &str, code: u16) -> String {
    let answer = client.get(uri).await;
    let text = String::from_utf8(answer.body.to_vec()).unwrap();
    assert_eq!(answer.code, code, "{uri}: {text}");
    assert_eq!(answer.headers["content-type"], "text/plain; charset=utf-8", "{uri}");
    text
}

#[tokio::test]
async fn a_healthy_server_says_ok_and_its_checks_when_asked() {
    let cluster = cluster().await;
    let anyone = cluster.user("probe", &[]);
    for question in ["livez", "readyz", "healthz"] {
        assert_eq!(text(&anyone, &format!("/{question}"), 200).await, "ok");
        let verbose = text(&anyone, &format!("/{question}?verbose"), 200).await;
        assert!(verbose.starts_with("[+]ping ok\n"), "{verbose}");
        assert!(verbose.ends_with(&format!("\n{question} check passed\n")), "{verbose}");
        assert_eq!(verbose.contains("[+]etcd ok\n"), question != "livez", "{verbose}");
        assert!(verbose.contains("[+]poststarthook/rbac/bootstrap-roles ok\n"), "{verbose}");
    }
}

#[tokio::test]
async fn a_check_is_asked_by_its_name_or_left_out() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    assert_eq!(text(&admin, "/readyz/etcd", 200).await, "ok");
    assert_eq!(text(&admin, "/healthz/poststarthook/crd-informer-synced", 200).await, "ok");
    for unknown in ["/livez/etcd", "/readyz/nothing", "/readyz/ping/more"] {
        admin.get(unknown).await.no_page();
    }
    let without = text(&admin, "/readyz?verbose&exclude=etcd&exclude=typo", 200).await;
    assert!(without.contains("[+]etcd excluded: ok\n"), "{without}");
    assert!(
        without.contains("warn: some health checks cannot be excluded: no matches for \"typo\"\n"),
        "{without}"
    );
    cluster.user("probe", &[]).get("/readyz/etcd").await.refused(403, "Forbidden");
}

#[tokio::test]
async fn the_store_is_a_component_whose_health_is_told() {
    const COMPONENTS: &str = "/api/v1/componentstatuses";
    let cluster = cluster().await;
    let admin = cluster.admin();
    let list = admin.get(COMPONENTS).await;
    assert_eq!(list.headers["warning"], "299 - \"v1 ComponentStatus is deprecated in v1.19+\"");
    let healthy = json!({"metadata": {"name": "etcd-0"},
        "conditions": [{"type": "Healthy", "status": "True", "message": "ok"}]});
    let want = json!({"kind": "ComponentStatusList", "apiVersion": "v1", "metadata": {}, "items": [healthy]});
    assert_eq!(list.expect(200), want);
    let one = admin.get(&format!("{COMPONENTS}/etcd-0")).await.expect(200);
    assert_eq!((&one["kind"], &one["conditions"]), (&json!("ComponentStatus"), &healthy["conditions"]));
    let packed = admin.in_protobuf().get(COMPONENTS).await.expect(200);
    assert_eq!(packed["items"][0]["conditions"], healthy["conditions"]);
    let none = admin.get(&format!("{COMPONENTS}?fieldSelector=metadata.name%3Dscheduler")).await.expect(200);
    assert_eq!(none["items"], json!([]));
    let accept = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let table = admin.ask("GET", COMPONENTS, &accept, "").await.expect(200);
    assert_eq!(table["rows"][0]["cells"], json!(["etcd-0", "Healthy", "ok", ""]));
    admin.get(&format!("{COMPONENTS}/scheduler")).await.refused(404, "NotFound");
    admin.get(&format!("{COMPONENTS}?watch=1")).await.refused(405, "MethodNotAllowed");
    admin.delete(&format!("{COMPONENTS}/etcd-0")).await.refused(405, "MethodNotAllowed");
}
