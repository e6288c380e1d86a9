//! Response bodies, and the answers every path builds from.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use serde_json::Value;

use crate::negotiate::{Media, document};
use crate::status::Refusal;

/// An error while a body streams.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// The body of every response.
pub type Body = UnsyncBoxBody<Bytes, BodyError>;

/// The response of every request.
pub type Reply = Response<Body>;

/// A body that is there at once.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// A body made of chunks, each taken when there is room for it.
pub fn chunks(chunks: impl IntoIterator<Item = Bytes, IntoIter: Send + 'static>) -> Body {
    let frames = chunks.into_iter().map(|chunk| Ok(Frame::data(chunk)));
    StreamBody::new(futures::stream::iter(frames)).boxed_unsync()
}

/// A body that goes on until the stream ends.
pub fn stream(stream: impl futures::Stream<Item = Result<Bytes, BodyError>> + Send + 'static) -> Body {
    use futures::StreamExt;
    StreamBody::new(stream.map(|chunk| chunk.map(Frame::data))).boxed_unsync()
}

/// A body that keeps `held` until it ends or nobody reads it any more.
pub fn holding(body: Body, held: impl Send + 'static) -> Body {
    body.map_frame(move |frame| {
        let _here = &held;
        frame
    })
    .boxed_unsync()
}

/// A reply with a media type.
pub fn reply(code: u16, media: &'static str, body: Body) -> Reply {
    let mut reply = Response::new(body);
    *reply.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    reply.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    reply.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    reply
}

/// An object of the API in JSON: a line, as Go's encoder ends it.
pub fn line(code: u16, value: &Value) -> Reply {
    let mut text = serde_json::to_vec(value).expect("a tree always encodes");
    text.push(b'\n');
    reply(code, "application/json", full(text))
}

/// A JSON document that is no object of the API.
pub fn json(code: u16, value: &Value) -> Reply {
    let text = serde_json::to_vec(value).expect("a tree always encodes");
    reply(code, "application/json", full(text))
}

/// Plain text.
pub fn plain(code: u16, text: impl Into<String>) -> Reply {
    reply(code, "text/plain; charset=utf-8", full(text.into()))
}

/// A refusal as a Status, in the encoding the client reads. Where it reads none, as Go's server lays it out.
pub fn refusal(refusal: &Refusal, media: Option<Media>) -> Reply {
    let status = refusal.status();
    let mut reply = match media {
        Some(media) => document(media, refusal.code, &status).expect("a Status has every form"),
        None => {
            let text = serde_json::to_vec_pretty(&status).expect("a tree always encodes");
            reply(refusal.code, "application/json", full(text))
        }
    };
    if let Some(seconds) = refusal.retry_seconds() {
        reply.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    reply
}
