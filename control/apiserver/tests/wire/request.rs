//! A request as the files of the corpus are written, and what has to hold of every answer. The fuzz target
//! `fuzz/fuzz_targets/api_request.rs` compiles this file too.
//!
//! The first line is a method and a path, the lines behind it are headers, what comes after an empty line is the body.

use apiserver::{Body, InProcess};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use tower::Service;

/// The request in `text`; `None` where no client of HTTP could send it.
pub fn read(text: &[u8]) -> Option<Request<Full<Bytes>>> {
    let (head, body) = match text.windows(2).position(|pair| pair == b"\n\n") {
        Some(end) => (&text[..end], &text[end + 2..]),
        None => (text, &[][..]),
    };
    let mut lines = head.split(|byte| *byte == b'\n');
    let first = lines.next()?;
    let space = first.iter().position(|byte| *byte == b' ')?;
    let mut request = Request::builder().method(&first[..space]).uri(&first[space + 1..]);
    for line in lines {
        let colon = line.iter().position(|byte| *byte == b':')?;
        request = request.header(&line[..colon], line[colon + 1..].trim_ascii());
    }
    request.body(Full::new(Bytes::copy_from_slice(body))).ok()
}

/// Whether an answer may have no end. `?watch` is one, `?w%61tch=1` and `/api/v1/watch/pods` are too.
fn may_be_a_watch(shown: &str) -> bool {
    shown.contains("watch") || shown.contains('%')
}

/// Sends the request and returns the code and what the answer says; of a watch that was begun, nothing.
///
/// Panics for an answer that no request deserves: one of 500, or a refusal that is no Status.
pub async fn hold(service: &InProcess, request: Request<Full<Bytes>>) -> (u16, Bytes) {
    let shown = format!("{} {}", request.method(), request.uri());
    let reply: Response<Body> = match service.clone().call(request).await {
        Ok(reply) => reply,
        Err(never) => match never {},
    };
    let code = reply.status().as_u16();
    assert!(code < 500 || matches!(code, 501 | 503 | 504), "{shown}: {code}");
    if code < 300 && may_be_a_watch(&shown) {
        return (code, Bytes::new());
    }
    let media = reply.headers().get(http::header::CONTENT_TYPE).cloned();
    let said =
        reply.into_body().collect().await.unwrap_or_else(|error| panic!("{shown}: {error}")).to_bytes();
    let is_json = media.is_some_and(|media| media == "application/json");
    if code >= 400 && is_json {
        let status: serde_json::Value = serde_json::from_slice(&said).unwrap_or_default();
        let message = status["message"].as_str().unwrap_or_default();
        assert!(
            status["kind"] == "Status" && status["code"] == code && !message.is_empty(),
            "{shown}: {status}"
        );
    }
    (code, said)
}
