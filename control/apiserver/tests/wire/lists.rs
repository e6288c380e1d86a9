//! Lists in pages, at revisions, and collections that are deleted.

use std::time::Duration;

use apiserver::Patience;
use serde_json::{Value, json};

use crate::cluster::{Client, cluster, cluster_with};
use crate::objects::config_map;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn fill(admin: &Client, count: usize) {
    for at in 0..count {
        let mut object = config_map(&format!("m{at:03}"), "1");
        object["metadata"]["labels"] = json!({"even": (at % 2 == 0).to_string()});
        admin.send("POST", MAPS, &object).await.expect(201);
    }
}

fn names(list: &Value) -> Vec<String> {
    list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["metadata"]["name"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn pages_show_one_revision_also_when_objects_change_between_them() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    fill(&admin, 10).await;
    let first = admin.get(&format!("{MAPS}?limit=4")).await.expect(200);
    assert_eq!((names(&first).len(), &first["metadata"]["remainingItemCount"]), (4, &json!(6)));
    admin.delete(&format!("{MAPS}/m005")).await.expect(200);
    admin.send("POST", MAPS, &config_map("m0045", "1")).await.expect(201);
    let mut all = names(&first);
    let mut token = first["metadata"]["continue"].as_str().unwrap().to_owned();
    while !token.is_empty() {
        let page = admin.get(&format!("{MAPS}?limit=4&continue={token}")).await.expect(200);
        assert_eq!(page["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
        all.extend(names(&page));
        token = page["metadata"]["continue"].as_str().unwrap_or_default().to_owned();
    }
    let want: Vec<String> = (0..10).map(|at| format!("m{at:03}")).collect();
    assert_eq!(all, want);
}

#[tokio::test]
async fn a_token_expires_and_its_refusal_has_one_that_goes_on_with_what_is_there() {
    let pages = Duration::from_millis(200);
    let cluster = cluster_with(Patience { pages, ..Patience::default() }).await;
    let admin = cluster.admin();
    fill(&admin, 5).await;
    let first = admin.get(&format!("{MAPS}?limit=2")).await.expect(200);
    let token = first["metadata"]["continue"].as_str().unwrap();
    admin.delete(&format!("{MAPS}/m002")).await.expect(200);
    let expired = async {
        loop {
            let page = admin.get(&format!("{MAPS}?limit=2&continue={token}")).await;
            if page.code == 410 {
                return page.refused(410, "Expired");
            }
            assert_eq!(names(&page.expect(200)), ["m002", "m003"]);
            tokio::time::sleep(pages / 4).await;
        }
    };
    let expired =
        tokio::time::timeout(Duration::from_secs(30), expired).await.expect("it is a matter of moments");
    let token = expired["metadata"]["continue"].as_str().unwrap();
    let page = admin.get(&format!("{MAPS}?limit=1&continue={token}")).await.expect(200);
    assert_eq!((names(&page), &page["metadata"]["remainingItemCount"]), (vec!["m003".to_owned()], &json!(1)));
    assert_ne!(page["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    let token = page["metadata"]["continue"].as_str().unwrap();
    let last = admin.get(&format!("{MAPS}?continue={token}")).await.expect(200);
    assert_eq!(names(&last), ["m004"]);
}

#[tokio::test]
async fn a_selector_fills_pages_and_hides_the_count() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    fill(&admin, 10).await;
    let page = admin.get(&format!("{MAPS}?limit=3&labelSelector=even%3Dtrue")).await.expect(200);
    assert_eq!(names(&page), ["m000", "m002", "m004"]);
    assert!(page["metadata"].get("remainingItemCount").is_none());
    let token = page["metadata"]["continue"].as_str().unwrap();
    let rest = admin.get(&format!("{MAPS}?labelSelector=even%3Dtrue&continue={token}")).await.expect(200);
    assert_eq!(names(&rest), ["m006", "m008"]);
}

#[tokio::test]
async fn a_list_can_show_the_past() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    fill(&admin, 2).await;
    let then = admin.get(MAPS).await.expect(200)["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    admin.delete(&format!("{MAPS}/m000")).await.expect(200);
    let exact =
        admin.get(&format!("{MAPS}?resourceVersion={then}&resourceVersionMatch=Exact")).await.expect(200);
    assert_eq!(names(&exact), ["m000", "m001"]);
    let newer = admin
        .get(&format!("{MAPS}?resourceVersion={then}&resourceVersionMatch=NotOlderThan"))
        .await
        .expect(200);
    assert_eq!(names(&newer), ["m001"]);
    let gone = admin.get(&format!("{MAPS}?resourceVersion=1&resourceVersionMatch=Exact")).await;
    assert!(gone.code == 200 || gone.code == 410);
}

#[tokio::test]
async fn a_collection_is_deleted_as_selected() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    fill(&admin, 4).await;
    let deleted = admin.delete(&format!("{MAPS}?labelSelector=even%3Dtrue")).await.expect(200);
    assert_eq!(names(&deleted), ["m000", "m002"]);
    assert_eq!(names(&admin.get(MAPS).await.expect(200)), ["m001", "m003"]);
}

#[tokio::test]
async fn names_are_generated_and_writers_do_not_overwrite_each_other() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    let generated = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "g-"}});
    let name = admin.send("POST", MAPS, &generated).await.expect(201)["metadata"]["name"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(name.starts_with("g-") && name.len() == 7, "{name}");
    admin.send("POST", MAPS, &config_map("c", "0")).await.expect(201);
    let writers = (0..8).map(|writer| {
        let admin = admin.clone();
        tokio::spawn(async move {
            for step in 0..10 {
                let patch = json!({"data": {format!("w{writer}"): step.to_string()}});
                admin.patch("merge", &format!("{MAPS}/c"), &patch).await.expect(200);
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    let data = admin.get(&format!("{MAPS}/c")).await.expect(200)["data"].clone();
    assert!((0..8).all(|writer| data[format!("w{writer}")] == "9"), "{data}");
}

#[tokio::test]
async fn a_large_list_is_compressed_for_those_who_can_read_it() {
    let cluster = cluster().await;
    let admin = cluster.admin();
    let value = "x".repeat(50_000);
    for at in 0..4 {
        admin.send("POST", MAPS, &config_map(&format!("m{at}"), &value)).await.expect(201);
    }
    let plain = admin.get(MAPS).await;
    assert!(!plain.headers.contains_key("content-encoding"));
    let packed = admin.ask("GET", MAPS, &[("accept-encoding", "gzip")], "").await;
    assert_eq!(packed.headers["content-encoding"], "gzip");
    let mut text = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&packed.body[..]), &mut text).unwrap();
    assert_eq!(text, plain.body);
}
