//! What is handed through to nodes, pods and services. A node is played here; pods have no addresses these tests may use.

use std::fmt::Write as _;

use http_body_util::BodyExt;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

use crate::objects::pod;
use crate::streams::{admin, ask, with_pod};

const NODE: &str = "/api/v1/nodes/n1/proxy";
const DEFAULT: &str = "/api/v1/namespaces/default";

/// What a request to `/echo` is told: its own head, and its body.
pub async fn echo<S: AsyncReadExt + AsyncWriteExt + Unpin>(stream: &mut BufReader<S>, head: &str) {
    let lower = head.to_ascii_lowercase();
    let length = lower.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).await.unwrap();
    let told = [head.as_bytes(), &body].concat();
    let mut reply = "HTTP/1.1 418 I'm a teapot\r\nx-kept: yes\r\nx-hop: no\r\n".to_owned();
    write!(reply, "connection: close, x-hop\r\ncontent-length: {}\r\n\r\n", told.len()).unwrap();
    stream.get_mut().write_all(&[reply.as_bytes(), &told].concat()).await.unwrap();
}

/// What a request to `/page` is told.
pub const PAGE: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/html; charset=utf-8\r\ncontent-length: 29\r\n\r\n<a href=\"/rewriteme\">test</a>";

async fn read(response: http::Response<apiserver::Body>) -> (u16, http::HeaderMap, String) {
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    (parts.status.as_u16(), parts.headers, String::from_utf8_lossy(&bytes).into_owned())
}

#[tokio::test]
async fn every_method_and_its_body_get_there_and_back() {
    let cluster = with_pod().await;
    let admin = cluster.admin();
    // More than the server would read of a request of its own.
    let long = "x".repeat(4 << 20);
    for (method, body) in
        [("GET", ""), ("POST", "a=b"), ("PUT", &*long), ("PATCH", "p"), ("DELETE", "d"), ("OPTIONS", "")]
    {
        let headers = [
            ("content-type", "text/odd"),
            ("x-mine", "1"),
            ("connection", "x-once"),
            ("x-once", "1"),
            ("accept-encoding", "gzip"),
        ];
        let uri = format!("{NODE}/echo/a%2Fb/?c=d%20e&c=f");
        let (code, found, text) = read(admin.raw(method, &uri, &headers, body.to_owned()).await).await;
        assert_eq!(code, 418, "{method}");
        assert!(text.starts_with(&format!("{method} /echo/a%2Fb/?c=d%20e&c=f HTTP/1.1\r\n")), "{method}");
        assert!(text.ends_with(&format!("\r\n\r\n{body}")), "{method}");
        let head = text.split("\r\n\r\n").next().unwrap();
        for kept in
            ["content-type: text/odd", "x-mine: 1", "x-forwarded-uri: /api/v1/nodes/n1/proxy/echo/a%2Fb/"]
        {
            assert!(head.contains(kept), "{method}: {kept}: {head}");
        }
        for gone in ["x-once", "accept-encoding"] {
            assert!(!head.contains(gone), "{method}: {gone}: {head}");
        }
        assert_eq!(found.get("x-kept").unwrap(), "yes");
        assert!(!found.contains_key("x-hop") && !found.contains_key("connection"), "{found:?}");
    }
    let (code, found, text) = read(admin.raw("HEAD", &format!("{NODE}/page"), &[], "").await).await;
    assert_eq!((code, found["content-length"].to_str().unwrap(), &*text), (200, "29", ""));
}

#[tokio::test]
async fn credentials_stay_here() {
    let cluster = with_pod().await;
    let mut stream = BufReader::new(admin(&cluster).await);
    let request = format!(
        "GET {NODE}/echo HTTP/1.1\r\nhost: here\r\nauthorization: Bearer x\r\nimpersonate-user: system:admin\r\n\
         impersonate-group: system:masters\r\n\r\n"
    );
    let told = told(&mut stream, &request).await;
    assert!(told.contains("host: here\r\n"), "{told}");
    assert!(!told.contains("authorization") && !told.contains("impersonate"), "{told}");
}

/// The head that a request to `/echo` becomes, in lower case.
async fn told<S: AsyncReadExt + AsyncWriteExt + Unpin>(stream: &mut BufReader<S>, request: &str) -> String {
    let answer = ask(stream, request).await;
    assert!(answer.starts_with("HTTP/1.1 418"), "{answer}");
    let mut told = String::new();
    while !told.ends_with("\r\n\r\n") {
        stream.read_line(&mut told).await.unwrap();
    }
    told.to_lowercase()
}

#[tokio::test]
async fn the_target_hears_who_asked_and_how() {
    let cluster = with_pod().await;
    let mut stream = BufReader::new(admin(&cluster).await);
    let request = format!(
        "GET {NODE}/echo HTTP/1.1\r\nhost: here\r\nx-forwarded-for: 192.0.2.1\r\nx-forwarded-proto: gopher\r\n\r\n"
    );
    let told = told(&mut stream, &request).await;
    for line in
        ["x-forwarded-for: 192.0.2.1, 127.0.0.1", "x-forwarded-host: here", "x-forwarded-proto: https"]
    {
        assert!(told.contains(&format!("{line}\r\n")), "{line}: {told}");
    }
    assert!(!told.contains("gopher"), "{told}");
}

#[tokio::test]
async fn links_of_a_page_lead_back_through_the_server() {
    let cluster = with_pod().await;
    let admin = cluster.admin();
    let (code, headers, text) = read(admin.raw("GET", &format!("{NODE}/page"), &[], "").await).await;
    assert_eq!((code, &*text), (200, "<a href=\"/api/v1/nodes/n1/proxy/rewriteme\">test</a>"));
    assert!(!headers.contains_key("content-length"));
}

#[tokio::test]
async fn a_path_without_its_last_slash_is_sent_to_the_one_with_it() {
    let cluster = with_pod().await;
    let admin = cluster.admin();
    for method in ["GET", "HEAD"] {
        let (code, headers, _) = read(admin.raw(method, &format!("{NODE}?a=b"), &[], "").await).await;
        assert_eq!((code, headers["location"].to_str().unwrap()), (301, "/api/v1/nodes/n1/proxy/?a=b"));
    }
    // With two slashes it would be on a host of the name api.
    let (code, headers, _) = read(admin.raw("GET", &format!("/{NODE}"), &[], "").await).await;
    assert_eq!((code, headers["location"].to_str().unwrap()), (301, "/api/v1/nodes/n1/proxy/"));
    let away = admin.get(&format!("{NODE}/containerLogs/x?tailLines=302")).await;
    away.refused(502, "InternalError");
    assert!(!away.headers.contains_key("location"), "a node sends nobody elsewhere");
}

#[tokio::test]
async fn a_connection_that_leaves_http_is_joined() {
    let cluster = with_pod().await;
    let mut stream = BufReader::new(admin(&cluster).await);
    let request = format!(
        "GET {NODE}/socket HTTP/1.1\r\nhost: x\r\nconnection: keep-alive, Upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: eA==\r\n\r\n"
    );
    let answer = ask(&mut stream, &request).await.to_lowercase();
    assert!(answer.starts_with("http/1.1 101") && answer.contains("upgrade: websocket"), "{answer}");
    let mut asked = String::new();
    stream.read_line(&mut asked).await.unwrap();
    assert!(asked.starts_with("GET /socket "), "{asked}");
    stream.get_mut().write_all(b"\x00\xff bytes\n").await.unwrap();
    let mut echoed = [0; 9];
    stream.read_exact(&mut echoed).await.unwrap();
    assert_eq!(&echoed, b"\x00\xff bytes\n");
}

#[tokio::test]
async fn what_leads_nowhere_says_why() {
    let cluster = with_pod().await;
    let admin = cluster.admin();
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}});
    admin.send("POST", &format!("{DEFAULT}/services"), &service).await.expect(201);
    let mut lonely = pod("lonely", json!({}));
    lonely["spec"]["nodeName"] = json!("n1");
    admin.send("POST", &format!("{DEFAULT}/pods"), &lonely).await.expect(201);
    let local = json!({"status": {"podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}]}});
    admin.patch("merge", &format!("{DEFAULT}/pods/lonely/status"), &local).await.expect(200);
    for (path, code, reason, message) in [
        ("pods/none", 404, "NotFound", "pods \"none\" not found"),
        ("pods/p", 400, "BadRequest", "pod p has no address"),
        ("pods/lonely", 400, "BadRequest", "address not allowed"),
        ("pods/ftp:p:1", 400, "BadRequest", "invalid pod request \"ftp:p:1\""),
        ("services/s", 503, "ServiceUnavailable", "no endpoints available for service \"s\""),
        ("services/s:81", 503, "ServiceUnavailable", "no service port 81 found for service \"s\""),
        ("services/a:b:c:d", 400, "BadRequest", "invalid service request \"a:b:c:d\""),
    ] {
        let answer = admin.get(&format!("{DEFAULT}/{path}/proxy/")).await;
        assert_eq!(answer.refused(code, reason)["message"], message, "{path}");
    }
}
