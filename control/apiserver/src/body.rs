//! Response bodies, and the answers every path builds from.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, SizeHint};
use serde_json::Value;

use crate::negotiate::{Media, document};
use crate::status::Refusal;

/// An error while a body streams.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// The body of every response, and what it keeps until it ends or nobody reads it any more.
pub struct Body {
    frames: UnsyncBoxBody<Bytes, BodyError>,
    held: Option<Box<dyn Send>>,
}

impl Body {
    /// Any body.
    pub fn new(body: impl hyper::body::Body<Data = Bytes, Error = BodyError> + Send + 'static) -> Self {
        Self { frames: body.boxed_unsync(), held: None }
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Pin::new(&mut self.get_mut().frames).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.frames.size_hint()
    }
}

/// The response of every request.
pub type Reply = Response<Body>;

/// A body that is there at once.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Body::new(Full::new(bytes.into()).map_err(|never| match never {}))
}

/// How long chunks of one body may be in the making before others have their turn.
const TURN: Duration = Duration::from_micros(500);

/// A body made of chunks, each taken when there is room for it.
pub fn chunks(chunks: impl IntoIterator<Item = Bytes, IntoIter: Send + 'static>) -> Body {
    let frames =
        futures::stream::unfold((chunks.into_iter(), Duration::ZERO), |(mut chunks, mut taken)| async move {
            if taken > TURN {
                tokio::task::yield_now().await;
                taken = Duration::ZERO;
            }
            let begun = Instant::now();
            let chunk = chunks.next()?;
            Some((Ok(Frame::data(chunk)), (chunks, taken + begun.elapsed())))
        });
    Body::new(StreamBody::new(frames))
}

/// A body that goes on until the stream ends.
pub fn stream(stream: impl futures::Stream<Item = Result<Bytes, BodyError>> + Send + 'static) -> Body {
    use futures::StreamExt;
    Body::new(StreamBody::new(stream.map(|chunk| chunk.map(Frame::data))))
}

/// The answer to HEAD: it says how long the content would be. Over HTTP/2 nobody else leaves that out.
pub fn headers_only(reply: Reply) -> Reply {
    let (mut parts, content) = reply.into_parts();
    if let Some(length) = hyper::body::Body::size_hint(&content).exact() {
        parts.headers.entry(header::CONTENT_LENGTH).or_insert(length.into());
    }
    Response::from_parts(parts, full(""))
}

/// A body that keeps `held` too.
pub fn holding(mut body: Body, held: impl Send + 'static) -> Body {
    body.held = Some(match body.held {
        Some(before) => Box::new((before, held)),
        None => Box::new(held),
    });
    body
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
    if refusal.plain {
        let mut reply = plain(refusal.code, format!("{}\n", refusal.message));
        reply.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        return reply;
    }
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn chunks_that_take_long_let_others_run() {
        let others = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&others);
        tokio::spawn(async move {
            loop {
                count.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
        });
        let made = (0..5).map(move |n| {
            std::thread::sleep(2 * TURN);
            Bytes::from(vec![n])
        });
        assert_eq!(chunks(made).collect().await.unwrap().to_bytes(), vec![0, 1, 2, 3, 4]);
        assert!(others.load(Ordering::Relaxed) >= 4);
    }
}
