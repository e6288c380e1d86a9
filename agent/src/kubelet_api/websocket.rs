//! A process over WebSocket (`v5.channel.k8s.io`, `v4.channel.k8s.io`): one byte of channel number before each message.
//! Towards the runtime it is SPDY, which, unlike the runtime's own WebSocket, can end standard input alone.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::mpsc;
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

type Caller = WebSocketStream<TokioIo<Upgraded>>;
type Runtime = TokioIo<Upgraded>;

/// Both directions at once, neither waiting for the other: a process that echoes its input would block both for ever.
async fn relay_all(here: Upgraded, there: Upgraded, channels: Channels) -> Result<(), RelayError> {
    let socket = WebSocketStream::from_raw_socket(TokioIo::new(here), Role::Server, None).await;
    let (to_caller, from_caller) = socket.split();
    let (from_runtime, to_runtime) = tokio::io::split(TokioIo::new(there));
    // A runtime that pings faster than it reads the answers does not get all of them.
    let (pings, pongs) = mpsc::channel(8);
    tokio::select! {
        result = towards_runtime(from_caller, to_runtime, pongs, Outward::new(channels)) => result,
        result = towards_caller(from_runtime, to_caller, pings, Inward::new(channels)) => result,
    }
}

/// Until the caller has gone.
async fn towards_runtime(
    mut from_caller: SplitStream<Caller>,
    mut to_runtime: WriteHalf<Runtime>,
    mut pongs: mpsc::Receiver<u32>,
    mut outward: Outward,
) -> Result<(), RelayError> {
    let mut out = BytesMut::new();
    outward.open(&mut out);
    to_runtime.write_all_buf(&mut out).await?;
    loop {
        tokio::select! {
            message = from_caller.next() => match message.transpose()? {
                None | Some(Message::Close(_)) => {
                    outward.end_all(&mut out);
                    to_runtime.write_all_buf(&mut out).await?;
                    return Ok(to_runtime.shutdown().await?);
                }
                Some(Message::Binary(message)) => outward.caller_said(&message, &mut out),
                // Pings are answered by the WebSocket itself.
                Some(_) => {}
            },
            Some(id) = pongs.recv() => Encoder::pong(id, &mut out),
        }
        to_runtime.write_all_buf(&mut out).await?;
    }
}

/// Until the runtime has said everything.
async fn towards_caller(
    mut from_runtime: ReadHalf<Runtime>,
    mut to_caller: SplitSink<Caller, Message>,
    pings: mpsc::Sender<u32>,
    mut inward: Inward,
) -> Result<(), RelayError> {
    let mut buffer = BytesMut::with_capacity(64 << 10);
    loop {
        let ended = from_runtime.read_buf(&mut buffer).await? == 0;
        while let Some(frame) = spdy::decode(&mut buffer) {
            match frame {
                Frame::Ping { id } => {
                    if pings.try_send(id).is_err() {
                        tracing::debug!(id, "a ping is not answered");
                    }
                }
                frame => {
                    if let Some(message) = inward.runtime_said(frame) {
                        to_caller.send(Message::Binary(message)).await?;
                    }
                }
            }
        }
        if ended || inward.open.is_empty() {
            to_caller.send(Message::Close(Some(normal_end()))).await?;
            return Ok(to_caller.close().await?);
        }
    }
}

/// Anything but 1000 is an error to kubectl.
fn normal_end() -> CloseFrame {
    CloseFrame { code: CloseCode::Normal, reason: Utf8Bytes::from_static("") }
}

/// Channels and their streams; streams a client opens have odd numbers.
fn streams(channels: Channels) -> BTreeMap<u8, u32> {
    channels.list().iter().zip((1..).step_by(2)).map(|((channel, _), id)| (*channel, id)).collect()
}

/// What goes to the runtime: pure.
#[derive(Debug)]
struct Outward {
    encoder: Encoder,
    channels: Channels,
    streams: BTreeMap<u8, u32>,
    /// Channels that have ended.
    ended: Vec<u8>,
}

impl Outward {
    fn new(channels: Channels) -> Self {
        Self { encoder: Encoder::default(), channels, streams: streams(channels), ended: Vec::new() }
    }

    fn open(&mut self, out: &mut BytesMut) {
        for (channel, name) in self.channels.list() {
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
}

/// What comes from the runtime: pure.
#[derive(Debug)]
struct Inward {
    streams: BTreeMap<u8, u32>,
    /// Channels the runtime will say more on.
    open: Vec<u8>,
}

impl Inward {
    fn new(channels: Channels) -> Self {
        let streams = streams(channels);
        let open =
            streams.keys().copied().filter(|channel| matches!(*channel, STDOUT | STDERR | ERROR)).collect();
        Self { streams, open }
    }

    fn runtime_said(&mut self, frame: Frame) -> Option<Bytes> {
        let (stream, bytes, end) = match frame {
            Frame::Data { stream, bytes, end } => (stream, bytes, end),
            Frame::Reset { stream } => (stream, Bytes::new(), true),
            Frame::Ping { .. } | Frame::GoAway | Frame::Other => return None,
        };
        let (channel, _) = self.streams.iter().find(|(_, id)| **id == stream)?;
        if end {
            self.open.retain(|open| open != channel);
        }
        (!bytes.is_empty()).then(|| {
            let mut message = BytesMut::with_capacity(bytes.len() + 1);
            message.extend_from_slice(&[*channel]);
            message.extend_from_slice(&bytes);
            message.freeze()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIPES: Channels = Channels { stdin: true, stdout: true, stderr: true, tty: false };
    const TERMINAL: Channels = Channels { stdin: true, stdout: true, stderr: false, tty: true };

    fn outward(channels: Channels) -> (Outward, BytesMut) {
        let mut outward = Outward::new(channels);
        let mut out = BytesMut::new();
        outward.open(&mut out);
        out.clear();
        (outward, out)
    }

    fn data(stream: u32, bytes: &'static [u8], end: bool) -> Frame {
        Frame::Data { stream, bytes: Bytes::from_static(bytes), end }
    }

    #[test]
    fn what_the_process_says_gets_the_number_of_its_channel() {
        let mut inward = Inward::new(PIPES);
        for (stream, channel) in [(1, ERROR), (5, STDOUT), (7, STDERR)] {
            let message = inward.runtime_said(data(stream, b"x", channel != STDERR)).unwrap();
            assert_eq!(&message[..], [channel, b'x']);
        }
        assert_eq!(inward.open, [STDERR]);
        assert_eq!(inward.runtime_said(Frame::Reset { stream: 7 }), None);
        assert!(inward.open.is_empty());
        assert_eq!(inward.runtime_said(data(99, b"x", false)), None);
    }

    #[test]
    fn closing_standard_input_ends_only_that() {
        let (mut outward, mut out) = outward(PIPES);
        outward.caller_said(b"\0hi", &mut out);
        outward.caller_said(&[CLOSE, STDIN], &mut out);
        assert_eq!(spdy::decode(&mut out), Some(data(3, b"hi", false)));
        assert_eq!(spdy::decode(&mut out), Some(data(3, b"", true)));
        outward.caller_said(b"\0late", &mut out);
        outward.caller_said(&[CLOSE, STDIN], &mut out);
        assert!(out.is_empty());
    }

    #[test]
    fn a_terminal_is_resized_and_has_one_output() {
        let (mut outward, mut out) = outward(TERMINAL);
        outward.caller_said(b"\x04{\"Width\":80}", &mut out);
        assert_eq!(spdy::decode(&mut out), Some(data(7, b"{\"Width\":80}", false)));
        assert_eq!(Inward::new(TERMINAL).open, [STDOUT, ERROR]);
    }
}
