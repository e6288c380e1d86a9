//! Services: addresses and node ports are given out once and come back.

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::cluster::cluster;

const SERVICES: &str = "/api/v1/namespaces/default/services";

fn service(name: &str, spec: Value) -> Value {
    let mut object = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"selector": {"app": "a"}, "ports": [{"port": 80}]}});
    for (field, value) in spec.as_object().unwrap() {
        object["spec"][field] = value.clone();
    }
    object
}

#[tokio::test]
async fn addresses_and_ports_are_unique_also_when_many_ask_at_once() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    let creations = (0..40).map(|at| {
        let admin = admin.clone();
        tokio::spawn(async move {
            let object =
                service(&format!("s{at}"), json!({"type": "NodePort", "ipFamilyPolicy": "PreferDualStack"}));
            admin.send("POST", SERVICES, &object).await.expect(201)
        })
    });
    let (mut addresses, mut ports) = (HashSet::new(), HashSet::new());
    for creation in creations.collect::<Vec<_>>() {
        let created = creation.await.unwrap();
        for address in created["spec"]["clusterIPs"].as_array().unwrap() {
            assert!(addresses.insert(address.clone()), "{address} twice");
        }
        assert!(ports.insert(created["spec"]["ports"][0]["nodePort"].clone()));
        assert_eq!(created["spec"]["ipFamilies"], json!(["IPv4", "IPv6"]));
    }
    assert_eq!((addresses.len(), ports.len()), (80, 40));
}

#[tokio::test]
async fn what_was_asked_for_is_given_once_and_comes_back() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    let wanted =
        json!({"type": "NodePort", "clusterIP": "10.96.5.5", "ports": [{"port": 80, "nodePort": 30080}]});
    let first = admin.send("POST", SERVICES, &service("a", wanted.clone())).await.expect(201);
    assert_eq!(
        (&first["spec"]["clusterIP"], &first["spec"]["ports"][0]["nodePort"]),
        (&json!("10.96.5.5"), &json!(30080))
    );
    admin
        .send("POST", SERVICES, &service("b", json!({"clusterIP": "10.96.5.5"})))
        .await
        .refused(422, "Invalid");
    let port = json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30080}]});
    admin.send("POST", SERVICES, &service("b", port)).await.refused(422, "Invalid");
    let outside = json!({"clusterIP": "10.200.0.1"});
    admin.send("POST", SERVICES, &service("b", outside)).await.refused(422, "Invalid");
    let outside = json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 80}]});
    admin.send("POST", SERVICES, &service("b", outside)).await.refused(422, "Invalid");
    let taken = admin.get("/apis/networking.k8s.io/v1/ipaddresses/10.96.5.5").await.expect(200);
    let parent = taken["spec"]["parentRef"].as_object().unwrap();
    assert!(!parent.contains_key("group"), "the core group has no name: {taken}");
    admin.delete(&format!("{SERVICES}/a")).await.expect(200);
    admin.get("/apis/networking.k8s.io/v1/ipaddresses/10.96.5.5").await.refused(404, "NotFound");
    admin.send("POST", SERVICES, &service("b", wanted)).await.expect(201);
}

#[tokio::test]
async fn a_load_balancer_with_a_local_policy_has_a_health_port() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    let local = json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local"});
    let created = admin.send("POST", SERVICES, &service("a", local.clone())).await.expect(201);
    let port = created["spec"]["healthCheckNodePort"].clone();
    assert!((30_000..32_768).contains(&port.as_i64().unwrap()), "{port}");
    let replaced =
        admin.send("PUT", &format!("{SERVICES}/a"), &service("a", local.clone())).await.expect(200);
    assert_eq!(replaced["spec"]["healthCheckNodePort"], port, "a PUT without the port keeps it");
    let mut same = local.clone();
    same["healthCheckNodePort"] = port.clone();
    admin.send("POST", SERVICES, &service("b", same)).await.refused(422, "Invalid");
    let uri = format!("{SERVICES}/a");
    let spread = json!({"spec": {"externalTrafficPolicy": "Cluster"}});
    let spread = admin.patch("merge", &uri, &spread).await.expect(200);
    assert!(spread["spec"].get("healthCheckNodePort").is_none());
    let node_port = json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": port}]});
    admin.send("POST", SERVICES, &service("b", node_port)).await.expect(201);
}

#[tokio::test]
async fn a_change_of_type_takes_and_gives_back() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    let created = admin.send("POST", SERVICES, &service("a", json!({}))).await.expect(201);
    let uri = format!("{SERVICES}/a");
    let outward = admin.patch("merge", &uri, &json!({"spec": {"type": "NodePort"}})).await.expect(200);
    assert_eq!(outward["spec"]["clusterIP"], created["spec"]["clusterIP"]);
    let port = outward["spec"]["ports"][0]["nodePort"].clone();
    assert!(port.is_number());
    let replaced = admin.send("PUT", &uri, &service("a", json!({"type": "NodePort"}))).await.expect(200);
    assert_eq!(replaced["spec"]["ports"][0]["nodePort"], port, "a PUT without the port keeps it");
    assert_eq!(replaced["spec"]["clusterIP"], created["spec"]["clusterIP"]);
    let inward = admin.patch("merge", &uri, &json!({"spec": {"type": "ClusterIP"}})).await.expect(200);
    assert!(inward["spec"]["ports"][0].get("nodePort").is_none());
    let again = json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": port}]});
    admin.send("POST", SERVICES, &service("b", again)).await.expect(201);
    let both = admin
        .patch("merge", &uri, &json!({"spec": {"ipFamilyPolicy": "RequireDualStack"}}))
        .await
        .expect(200);
    assert_eq!(both["spec"]["clusterIPs"].as_array().unwrap().len(), 2);
    admin
        .patch("merge", &uri, &json!({"spec": {"clusterIP": "10.96.9.9", "clusterIPs": ["10.96.9.9"]}}))
        .await
        .refused(422, "Invalid");
    let headless =
        admin.send("POST", SERVICES, &service("h", json!({"clusterIP": "None"}))).await.expect(201);
    assert_eq!(headless["spec"]["clusterIPs"], json!(["None"]));
    let name = admin
        .send("POST", SERVICES, &service("e", json!({"type": "ExternalName", "externalName": "x.io"})))
        .await;
    assert!(name.expect(201)["spec"].get("clusterIP").is_none());
}

const CIDRS: &str = "/apis/networking.k8s.io/v1/servicecidrs";

#[tokio::test]
async fn a_range_that_is_added_is_used_while_it_is_ready() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    let cidr = json!({ "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": { "name": "more" },
        "spec": { "cidrs": ["10.200.0.0/28"] } });
    admin.send("POST", CIDRS, &cidr).await.expect(201);
    let wanted = service("a", json!({ "clusterIP": "10.200.0.5" }));
    admin.send("POST", SERVICES, &wanted).await.refused(422, "Invalid");
    let ready = |status: &str| {
        json!({ "status": { "conditions": [{ "type": "Ready", "status": status, "reason": "", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z" }] } })
    };
    let uri = format!("{CIDRS}/more");
    admin.patch("merge", &format!("{uri}/status"), &ready("True")).await.expect(200);
    admin.send("POST", SERVICES, &wanted).await.expect(201);
    let taken = admin.get("/apis/networking.k8s.io/v1/ipaddresses/10.200.0.5").await.expect(200);
    assert_eq!(taken["spec"]["parentRef"]["name"], "a");
    admin.patch("merge", &format!("{uri}/status"), &ready("False")).await.expect(200);
    let other = service("b", json!({ "clusterIP": "10.200.0.6" }));
    admin.send("POST", SERVICES, &other).await.refused(422, "Invalid");
    let unchanged = json!({ "metadata": { "labels": { "a": "b" } } });
    admin.patch("merge", &format!("{SERVICES}/a"), &unchanged).await.expect(200);
}

#[tokio::test]
async fn what_nobody_named_comes_from_the_upper_part() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    for at in 0..30 {
        let spec = json!({ "type": "NodePort" });
        let made = admin.send("POST", SERVICES, &service(&format!("s{at}"), spec)).await.expect(201);
        let address: std::net::Ipv4Addr = made["spec"]["clusterIP"].as_str().unwrap().parse().unwrap();
        assert!(address >= std::net::Ipv4Addr::new(10, 96, 1, 0), "{address}");
        assert!(made["spec"]["ports"][0]["nodePort"].as_i64() >= Some(30086), "{made}");
    }
}

#[tokio::test]
async fn ports_of_endpoints_are_of_tcp_unless_they_say_more() {
    let cluster = cluster().await;
    let path = "/api/v1/namespaces/default/endpoints";
    let one = json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "a"},
        "subsets": [{"addresses": [{"ip": "10.0.0.1"}], "ports": [{"name": "t", "port": 80}, {"name": "u", "port": 81, "protocol": "UDP"}]}]});
    let made = cluster.admin().send("POST", path, &one).await.expect(201);
    let ports = &made["subsets"][0]["ports"];
    assert_eq!((&ports[0]["protocol"], &ports[1]["protocol"]), (&json!("TCP"), &json!("UDP")));
}

#[tokio::test]
async fn who_writes_what_is_old_or_ignored_is_warned() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    let old = json!({"trafficDistribution": "PreferClose", "externalName": "a"});
    let made = admin.send("POST", SERVICES, &service("a", old)).await;
    let warnings = |reply: &http::HeaderMap| -> Vec<String> {
        reply.get_all("warning").iter().map(|one| one.to_str().unwrap().to_owned()).collect()
    };
    let want = [
        r#"299 - "spec.externalName is ignored when spec.type is not \"ExternalName\"""#,
        r#"299 - "spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"""#,
    ];
    assert_eq!((made.code, warnings(&made.headers)), (201, want.map(str::to_owned).to_vec()));
    let better = json!({"spec": {"trafficDistribution": "PreferSameZone", "externalName": null}});
    let changed = admin.patch("merge", &format!("{SERVICES}/a"), &better).await;
    assert_eq!((changed.code, warnings(&changed.headers)), (200, vec![]));
}
