//! A process over WebSocket (`v5.channel.k8s.io`, `v4.channel.k8s.io`): one byte of channel number before each message.
//! Towards the runtime it is SPDY, which, unlike the runtime's own WebSocket, can end standard input alone.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use futures::{SinkExt, StreamExt};
use http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};
use tokio_tungstenite::tungstenite::{self, Message, Utf8Bytes};

use super::relay::{self, STREAM_PROTOCOL};
use super::spdy::{self, Encoder, Frame};
use super::{Body, Refusal};

/// What we speak, the best first.
const PROTOCOLS: [&str; 2] = ["v5.channel.k8s.io", "v4.channel.k8s.io"];
const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
/// v5: the next byte names the channel that ends.
const CLOSE: u8 = 255;

/// The streams of a process.
#[derive(Debug, Clone, Copy)]
pub(super) struct Channels {
    pub(super) stdin: bool,
    pub(super) stdout: bool,
    pub(super) stderr: bool,
    pub(super) tty: bool,
}

impl Channels {
    /// Channel numbers and the names of their streams, in the order they are opened.
    fn list(self) -> Vec<(u8, &'static str)> {
        let all = [
            (ERROR, "error", true),
            (STDIN, "stdin", self.stdin),
            (STDOUT, "stdout", self.stdout),
            (STDERR, "stderr", self.stderr),
            (RESIZE, "resize", self.tty),
        ];
        all.into_iter().filter(|(_, _, wanted)| *wanted).map(|(channel, name, _)| (channel, name)).collect()
    }
}

/// Upgrades the caller to WebSocket and joins it with the streaming server behind `url`.
pub(super) async fn join(
    request: Request<Incoming>,
    url: &str,
    channels: Channels,
) -> Result<Response<Body>, Refusal> {
    let offered: Vec<&str> = request
        .headers()
        .get_all(header::SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .collect();
    let chosen = PROTOCOLS.into_iter().find(|known| offered.contains(known)).ok_or_else(|| {
        let message = format!("none of the protocols {offered:?} is spoken, only {PROTOCOLS:?}");
        Refusal::new(StatusCode::FORBIDDEN, message)
    })?;
    let key = request
        .headers()
        .get(header::SEC_WEBSOCKET_KEY)
        .ok_or_else(|| Refusal::new(StatusCode::BAD_REQUEST, "Sec-WebSocket-Key is missing"))?;
    let accept = HeaderValue::from_str(&derive_accept_key(key.as_bytes()))
        .map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, error.to_string()))?;
    let mut upstream = relay::upgrade(url, &[HeaderValue::from_static("v4.channel.k8s.io")]).await?;
    if upstream.status() != StatusCode::SWITCHING_PROTOCOLS {
        let message = format!("the runtime's streaming server answers {}", upstream.status());
        return Err(Refusal::new(StatusCode::BAD_GATEWAY, message));
    }
    let there = hyper::upgrade::on(&mut upstream);
    tokio::spawn(async move {
        let (here, there) = tokio::join!(hyper::upgrade::on(request), there);
        match (here, there) {
            (Ok(here), Ok(there)) => {
                if let Err(error) = relay_all(here, there, channels).await {
                    tracing::debug!(%error, "an exec or attach ended");
                }
            }
            (Err(error), _) | (_, Err(error)) => tracing::debug!(%error, "an upgrade was not completed"),
        }
    });
    let mut response = relay::switching("websocket", None);
    let headers = response.headers_mut();
    headers.remove(STREAM_PROTOCOL);
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(chosen));
    Ok(response)
}

#[derive(Debug, thiserror::Error)]
enum RelayError {
    #[error("the runtime")]
    Runtime(#[from] std::io::Error),
    #[error("the caller")]
    Caller(#[from] tungstenite::Error),
}

async fn relay_all(here: Upgraded, there: Upgraded, channels: Channels) -> Result<(), RelayError> {
    let socket = WebSocketStream::from_raw_socket(TokioIo::new(here), Role::Server, None).await;
    let (mut to_caller, mut from_caller) = socket.split();
    let (mut from_runtime, mut to_runtime) = tokio::io::split(TokioIo::new(there));
    let mut joint = Joint::new(channels);
    let mut out = BytesMut::new();
    joint.open(&mut out);
    to_runtime.write_all_buf(&mut out).await?;
    let mut buffer = BytesMut::with_capacity(64 << 10);
    loop {
        tokio::select! {
            message = from_caller.next() => {
                match message.transpose()? {
                    None | Some(Message::Close(_)) => {
                        joint.end_all(&mut out);
                        to_runtime.write_all_buf(&mut out).await?;
                        break;
                    }
                    Some(Message::Ping(payload)) => to_caller.send(Message::Pong(payload)).await?,
                    Some(message) => joint.caller_said(&message.into_data(), &mut out),
                }
                to_runtime.write_all_buf(&mut out).await?;
            }
            read = from_runtime.read_buf(&mut buffer) => {
                let ended = read? == 0;
                while let Some(frame) = spdy::decode(&mut buffer) {
                    if let Some(message) = joint.runtime_said(frame, &mut out) {
                        to_caller.send(Message::Binary(message)).await?;
                    }
                }
                to_runtime.write_all_buf(&mut out).await?;
                if ended || joint.is_over() {
                    to_caller.send(Message::Close(Some(normal_end()))).await?;
                    break;
                }
            }
        }
    }
    to_caller.close().await?;
    to_runtime.shutdown().await?;
    Ok(())
}

/// Anything but 1000 is an error to kubectl.
fn normal_end() -> CloseFrame {
    CloseFrame { code: CloseCode::Normal, reason: Utf8Bytes::from_static("") }
}

/// Which channel is which stream, and which have ended: pure.
#[derive(Debug)]
struct Joint {
    encoder: Encoder,
    channels: Vec<(u8, &'static str)>,
    streams: BTreeMap<u8, u32>,
    /// Streams the runtime will say more on.
    open: Vec<u8>,
    /// Streams we have ended.
    ended: Vec<u8>,
}

impl Joint {
    fn new(channels: Channels) -> Self {
        let channels = channels.list();
        // Streams a client opens have odd numbers.
        let streams =
            channels.iter().zip((1..).step_by(2)).map(|((channel, _), id)| (*channel, id)).collect();
        let open =
            channels.iter().map(|(channel, _)| *channel).filter(|c| matches!(*c, STDOUT | STDERR | ERROR));
        Self { encoder: Encoder::default(), open: open.collect(), streams, channels, ended: Vec::new() }
    }

    fn open(&mut self, out: &mut BytesMut) {
        for (channel, name) in self.channels.clone() {
            self.encoder.open(self.streams[&channel], "streamtype", name, out);
        }
    }

    fn end(&mut self, channel: u8, out: &mut BytesMut) {
        if let Some(stream) = self.streams.get(&channel)
            && !self.ended.contains(&channel)
        {
            Encoder::end(*stream, out);
            self.ended.push(channel);
        }
    }

    fn end_all(&mut self, out: &mut BytesMut) {
        for channel in [STDIN, RESIZE] {
            self.end(channel, out);
        }
    }

    fn caller_said(&mut self, message: &[u8], out: &mut BytesMut) {
        match message {
            [CLOSE, channel] => self.end(*channel, out),
            [channel @ (STDIN | RESIZE), bytes @ ..] if !self.ended.contains(channel) => {
                if let Some(stream) = self.streams.get(channel) {
                    Encoder::data(*stream, bytes, out);
                }
            }
            _ => {}
        }
    }

    fn runtime_said(&mut self, frame: Frame, out: &mut BytesMut) -> Option<Bytes> {
        let channel = |stream: u32, streams: &BTreeMap<u8, u32>| {
            streams.iter().find(|(_, id)| **id == stream).map(|(channel, _)| *channel)
        };
        match frame {
            Frame::Data { stream, bytes, end } => {
                let channel = channel(stream, &self.streams)?;
                if end {
                    self.open.retain(|open| *open != channel);
                }
                (!bytes.is_empty()).then(|| {
                    let mut message = BytesMut::with_capacity(bytes.len() + 1);
                    message.extend_from_slice(&[channel]);
                    message.extend_from_slice(&bytes);
                    message.freeze()
                })
            }
            Frame::Reset { stream } => {
                let channel = channel(stream, &self.streams)?;
                self.open.retain(|open| *open != channel);
                None
            }
            Frame::Ping { id } => {
                Encoder::pong(id, out);
                None
            }
            Frame::GoAway | Frame::Other => None,
        }
    }

    fn is_over(&self) -> bool {
        self.open.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joint(tty: bool) -> (Joint, BytesMut) {
        let mut joint = Joint::new(Channels { stdin: true, stdout: true, stderr: !tty, tty });
        let mut out = BytesMut::new();
        joint.open(&mut out);
        out.clear();
        (joint, out)
    }

    fn data(stream: u32, bytes: &'static [u8], end: bool) -> Frame {
        Frame::Data { stream, bytes: Bytes::from_static(bytes), end }
    }

    #[test]
    fn what_the_process_says_gets_the_number_of_its_channel() {
        let (mut joint, mut out) = joint(false);
        for (stream, channel) in [(1, ERROR), (5, STDOUT), (7, STDERR)] {
            let message = joint.runtime_said(data(stream, b"x", true), &mut out).unwrap();
            assert_eq!(&message[..], [channel, b'x']);
        }
        assert!(joint.is_over());
        assert_eq!(joint.runtime_said(data(99, b"x", false), &mut out), None);
    }

    #[test]
    fn closing_standard_input_ends_only_that() {
        let (mut joint, mut out) = joint(false);
        joint.caller_said(b"\0hi", &mut out);
        joint.caller_said(&[CLOSE, STDIN], &mut out);
        assert_eq!(spdy::decode(&mut out), Some(data(3, b"hi", false)));
        assert_eq!(spdy::decode(&mut out), Some(data(3, b"", true)));
        joint.caller_said(b"\0late", &mut out);
        joint.caller_said(&[CLOSE, STDIN], &mut out);
        assert!(out.is_empty());
        assert!(!joint.is_over());
    }

    #[test]
    fn a_terminal_is_resized_and_has_one_output() {
        let (mut joint, mut out) = joint(true);
        joint.caller_said(b"\x04{\"Width\":80}", &mut out);
        assert_eq!(spdy::decode(&mut out), Some(data(7, b"{\"Width\":80}", false)));
        assert_eq!(joint.open, [ERROR, STDOUT]);
    }
}
