//! Requests that are slow, endless, or taken back: they are cut, and cost others nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use apiserver::{Config, Patience, Storage, start};
use bytes::Bytes;
use futures::StreamExt;
use http::Request;
use http_body_util::StreamBody;
use hyper::body::Frame;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::cluster::{Client, cluster, cluster_with};
use crate::objects::config_map;
use crate::streams::connect;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const CHUNK: usize = 64 << 10;
const LIMIT: usize = 3 << 20;
const SHORT: Duration = Duration::from_millis(100);

/// Creates a ConfigMap with a body that never ends; returns the code and how many bytes of it were taken.
async fn endless(client: &Client) -> (u16, usize) {
    let taken = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&taken);
    let chunks = futures::stream::repeat_with(move || {
        counter.fetch_add(CHUNK, Ordering::Relaxed);
        Ok::<_, std::io::Error>(Frame::data(Bytes::from_static(&[b' '; CHUNK])))
    });
    let request = Request::post(MAPS).header("content-type", "application/json");
    let reply = client.call(request.body(StreamBody::new(chunks)).unwrap()).await;
    (reply.status().as_u16(), taken.load(Ordering::Relaxed))
}

#[tokio::test]
async fn an_endless_body_is_cut_and_that_of_a_stranger_is_not_even_begun() {
    let cluster = cluster().await;
    let (code, taken) = endless(&cluster.admin()).await;
    assert_eq!(code, 413);
    assert!((LIMIT..=LIMIT + 2 * CHUNK).contains(&taken), "{taken}");
    assert_eq!(endless(&cluster.user("stranger", &[])).await, (403, 0));
}

#[tokio::test]
async fn a_body_that_stops_coming_is_given_up() {
    let cluster = cluster_with(Patience { body: SHORT, ..Patience::default() }).await;
    let first = futures::stream::iter([Ok::<_, std::io::Error>(Frame::data(Bytes::from_static(b"{")))]);
    let body = StreamBody::new(first.chain(futures::stream::pending()));
    let request = Request::post(MAPS).header("content-type", "application/json").body(body).unwrap();
    let reply = tokio::time::timeout(Duration::from_secs(20), cluster.admin().call(request)).await;
    assert_eq!(reply.expect("the server goes on waiting").status(), 408);
}

/// How often the answer with an object is asked for until it is there.
async fn polls(client: &Client, name: &str) -> usize {
    let uri = format!("{MAPS}/{name}");
    let mut answer = std::pin::pin!(client.raw("GET", &uri, &[], ""));
    let mut polls = 0;
    let reply = std::future::poll_fn(|context| {
        polls += 1;
        answer.as_mut().poll(context)
    });
    assert_eq!(reply.await.status(), 200);
    polls
}

#[tokio::test]
async fn an_answer_is_there_at_once_unless_its_object_is_so_large_that_others_go_first() {
    let folder = tempfile::tempdir().unwrap();
    // An etcd would be asked what is newest.
    let running = start(Config::loopback(folder.path(), Storage::Memory)).await.unwrap();
    let client = Client::of(&running);
    for (name, size, want) in [("small", 1000, 1), ("large", 100_000, 2)] {
        let object = config_map(name, &"x".repeat(size));
        client.send("POST", MAPS, &object).await.expect(201);
        assert_eq!(polls(&client, name).await, want, "{name}");
    }
}

/// Reads until the other side closes the connection, sooner than it does by itself.
async fn closed(stream: &mut (impl AsyncReadExt + Unpin)) -> Vec<u8> {
    let mut said = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut said)).await;
    // An end without TLS's farewell is an error of this side's library; what counts is that there is an end.
    drop(ended.expect("the server goes on waiting"));
    said
}

#[tokio::test]
async fn connections_that_say_nothing_or_half_a_request_are_closed() {
    let cluster = cluster_with(Patience { head: SHORT, ..Patience::default() }).await;
    let mut half = connect(&cluster, None).await;
    half.write_all(b"GET /version HTTP/1.1\r\nhost: a\r\nx-slow: ").await.unwrap();
    let said = closed(&mut half).await;
    assert!(said.is_empty() || said.starts_with(b"HTTP/1.1 408"), "{}", String::from_utf8_lossy(&said));
    let cluster = cluster_with(Patience { handshake: SHORT, ..Patience::default() }).await;
    let mut silent = TcpStream::connect(cluster.address()).await.unwrap();
    assert!(closed(&mut silent).await.is_empty());
}

/// A frame of HTTP/2 (RFC 9113, section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Asks for `/` on one stream after another and takes every request back at once.
async fn reset_rapidly(mut stream: TlsStream<TcpStream>) {
    const HEADERS: u8 = 1;
    const RST_STREAM: u8 = 3;
    const SETTINGS: u8 = 4;
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    stream.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
    // GET, https, / out of the static table of HPACK, and an authority.
    let request = [0x82, 0x87, 0x84, 0x41, 1, b'a'];
    for number in 0..20_000 {
        let id = 2 * number + 1;
        let pair = [frame(HEADERS, 0x5, id, &request), frame(RST_STREAM, 0, id, &8_u32.to_be_bytes())];
        if stream.write_all(&pair.concat()).await.is_err() {
            break;
        }
    }
    let said = closed(&mut stream).await;
    // What GOAWAY carries behind ENHANCE_YOUR_CALM.
    assert!(said.ends_with(b"too_many_resets"), "{:?}", String::from_utf8_lossy(&said));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_are_taken_back_by_the_thousand_end_their_connection_alone() {
    let cluster = cluster().await;
    let mut other = connect(&cluster, None).await;
    reset_rapidly(connect(&cluster, None).await).await;
    other.write_all(b"GET /livez HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
    assert!(closed(&mut other).await.starts_with(b"HTTP/1.1 200"));
    cluster.admin().send("POST", MAPS, &config_map("a", "1")).await.expect(201);
}
