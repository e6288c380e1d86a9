//! The corpus of malformed requests, `fuzz/corpus/api_request`: each gets the code in its file's name, and whatever is made
//! of them by damage gets an answer that is not the server's fault.

use std::path::PathBuf;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::json;

use crate::cluster::{Cluster, cluster};
use crate::objects::{config_map, pod};
use crate::request;

/// Damaged copies of each request.
const COPIES: usize = 20;

fn corpus() -> Vec<(String, Vec<u8>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/api_request");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() > 100, "the corpus is not what it was");
    files
        .into_iter()
        .map(|path| (path.file_stem().unwrap().to_str().unwrap().to_owned(), std::fs::read(path).unwrap()))
        .collect()
}

/// A cluster with the objects that the requests are about.
async fn with_objects() -> Cluster {
    let cluster = cluster().await;
    let admin = cluster.admin();
    let maps = "/api/v1/namespaces/default/configmaps";
    admin.send("POST", maps, &config_map("there", "1")).await.expect(201);
    admin.send("POST", "/api/v1/namespaces/default/pods", &pod("there", json!({}))).await.expect(201);
    cluster
}

#[tokio::test]
async fn every_request_of_the_corpus_gets_its_code() {
    let cluster = with_objects().await;
    let service = cluster.admin().service();
    let mut wrong = Vec::new();
    for (name, text) in corpus() {
        let want: u16 = name.split('-').next().unwrap().parse().unwrap();
        let request = request::read(&text).unwrap_or_else(|| panic!("{name} cannot be sent"));
        let (code, said) = request::hold(&service, request).await;
        if code != want {
            wrong.push(format!("{name}: {code} {}", String::from_utf8_lossy(&said[..said.len().min(300)])));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// One change: a byte, a cut, a piece twice, or something that parsers trip over.
fn damage(text: &mut Vec<u8>, random: &mut SmallRng) {
    const INSERTED: [&[u8]; 8] =
        [b"\"", b"{", b"\\u0000", b"\xff\xff\xff\xff\x0f", b"%00", b"/..", b"null", b"99999999999999999999"];
    let (one, other) = (random.random_range(0..=text.len()), random.random_range(0..=text.len()));
    let (from, to) = (one.min(other), one.max(other));
    match random.random_range(0..4) {
        0 if from < text.len() => text[from] = random.random(),
        1 => drop(text.drain(from..to)),
        2 => {
            let again = text[from..to].to_vec();
            text.splice(to..to, again);
        }
        _ => drop(text.splice(from..from, INSERTED[random.random_range(0..INSERTED.len())].iter().copied())),
    }
}

#[tokio::test]
async fn no_damage_to_a_request_is_the_servers_fault() {
    let cluster = with_objects().await;
    let service = cluster.admin().service();
    let mut random = SmallRng::seed_from_u64(7);
    let (mut sent, mut refused) = (0, 0);
    for (_, text) in corpus() {
        for _ in 0..COPIES {
            let mut text = text.clone();
            for _ in 0..random.random_range(1..4) {
                damage(&mut text, &mut random);
            }
            let Some(request) = request::read(&text) else { continue };
            let (code, _) = request::hold(&service, request).await;
            sent += 1;
            refused += usize::from(code >= 400);
        }
    }
    assert!(sent > 1000 && refused > sent / 2, "{sent} were sent, {refused} refused");
}
