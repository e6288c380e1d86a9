//! Gathers what an HTTP/2 connection writes in one turn, so that it leaves in few TLS records and system calls.
//!
//! The protocol's codec asks for a flush behind every frame of some size. Here that flush waits: [`Gathered::drive`]
//! sends when neither the connection nor its streams had anything more to say after whoever else was due to run has run
//! (an event that a hundred watches deliver, or the next one), or when much is sealed. Whole records are
//! sealed as they are written, without a copy in between; what is less waits for company. Only what drives the
//! connection may write to it, so connections that are handed to somebody else (upgrades of HTTP/1.1) do without.

use std::future::Future;
use std::io::{self, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::server::TlsStream;

use crate::body::BodyError;
use crate::copy;
use crate::streams::Streams;

/// Bytes a TLS record holds at most (RFC 8446, section 5.1).
const RECORD: usize = 16 << 10;
/// Sealed bytes that may wait to be sent; a writer with more goes on when they have left.
const LIMIT: usize = 64 << 10;
/// Bytes of one write that are taken at once.
const TAKEN: usize = 64 << 10;
/// Memory a connection keeps while it writes little.
const KEPT: usize = 4 << 10;

/// One end of the stream: the connection's, or that of the one who drives it.
#[derive(Debug)]
pub struct Gathered<S>(Arc<Mutex<Outgoing<S>>>);

#[derive(Debug)]
struct Outgoing<S> {
    tls: TlsStream<S>,
    /// Less than a record.
    waiting: Vec<u8>,
    /// Bytes that were sealed since all of them had left.
    sealed: usize,
    /// Whether anything was written in this turn.
    wrote: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Gathered<S> {
    /// The end the connection writes to, and the one that drives it.
    pub fn pair(mut tls: TlsStream<S>) -> (Self, Self) {
        // What is sealed is limited here.
        tls.get_mut().1.set_buffer_limit(None);
        let shared = Arc::new(Mutex::new(Outgoing { tls, waiting: Vec::new(), sealed: 0, wrote: false }));
        (Self(Arc::clone(&shared)), Self(shared))
    }

    /// Runs the connection and its streams to the connection's end, and after each turn sends what they wrote.
    ///
    /// # Errors
    /// The connection's own, or that of the stream when it takes nothing more.
    pub async fn drive<C, E>(
        &self,
        mut connection: Pin<&mut C>,
        streams: &mut Streams,
    ) -> Result<(), BodyError>
    where
        C: Future<Output = Result<(), E>>,
        E: Into<BodyError>,
    {
        std::future::poll_fn(|context| {
            loop {
                streams.poll(context);
                if let Poll::Ready(ended) = connection.as_mut().poll(context) {
                    return Poll::Ready(ended.map_err(Into::into));
                }
                if !streams.has_new() {
                    break;
                }
            }
            let mut outgoing = self.0.lock();
            if std::mem::take(&mut outgoing.wrote) && outgoing.sealed < LIMIT {
                // To the end of the queue: who writes may not be done, as when a thousand watches are woken one by one.
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            match outgoing.send(context) {
                Poll::Ready(Err(error)) => Poll::Ready(Err(error.into())),
                Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
            }
        })
        .await
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Outgoing<S> {
    /// Makes records of what waits and of further bytes, which leave with the next flush.
    fn seal(&mut self, bytes: &[u8]) -> io::Result<()> {
        // TLS copies them one by one.
        let (slices, count) = copy::slices::<{ (RECORD + TAKEN) / copy::PIECE }>([&self.waiting, bytes]);
        let taken = self.tls.get_mut().1.writer().write_vectored(&slices[..count])?;
        if taken != self.waiting.len() + bytes.len() {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.sealed += taken;
        let little = self.waiting.len() <= KEPT;
        self.waiting.clear();
        // One who writes much at once soon does it again.
        if little {
            self.waiting.shrink_to(KEPT);
        }
        Ok(())
    }

    /// Keeps what fills no record.
    fn wait(&mut self, bytes: &[u8]) {
        if self.waiting.len() + bytes.len() > KEPT {
            let more = RECORD - self.waiting.len();
            self.waiting.reserve_exact(more);
        }
        copy::append(&mut self.waiting, bytes);
    }

    /// Sends what is sealed.
    fn flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.tls).poll_flush(context))?;
        self.sealed = 0;
        Poll::Ready(Ok(()))
    }

    /// Sends everything.
    fn send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.waiting.is_empty() {
            self.seal(&[])?;
        }
        if self.sealed == 0 {
            return Poll::Ready(Ok(()));
        }
        self.flush(context)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Gathered<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.lock().tls).poll_read(context, into)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Gathered<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut outgoing = self.0.lock();
        if outgoing.sealed >= LIMIT {
            ready!(outgoing.flush(context))?;
        }
        let bytes = &bytes[..bytes.len().min(TAKEN)];
        // Of both together, what fills records.
        let whole = (outgoing.waiting.len() + bytes.len()) / RECORD * RECORD;
        let (now, rest) = bytes.split_at(whole.saturating_sub(outgoing.waiting.len()));
        if !now.is_empty() {
            outgoing.seal(now)?;
        }
        outgoing.wait(rest);
        outgoing.wrote = true;
        Poll::Ready(Ok(bytes.len()))
    }

    /// Nothing: see [`Gathered::drive`].
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut outgoing = self.0.lock();
        ready!(outgoing.send(context))?;
        Pin::new(&mut outgoing.tls).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::ServerName;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
    use tokio_rustls::{TlsAcceptor, TlsConnector, client};

    use super::*;
    use crate::pki::Pki;
    use crate::tls::{self, Rotating};

    /// Both ends of a connection through a pipe that holds `size` bytes.
    async fn connected(size: usize) -> (TlsStream<DuplexStream>, client::TlsStream<DuplexStream>) {
        let folder = tempfile::tempdir().unwrap();
        let pki = Pki::open(folder.path()).unwrap();
        let serving = Rotating::new(&pki.apiserver(&[]).unwrap()).unwrap();
        let server = tls::server(serving, &pki.ca_pem).unwrap();
        let shown = Rotating::new(&pki.kubelet_client().unwrap()).unwrap();
        let client = tls::client(shown, &pki.ca_pem).unwrap();
        let (here, there) = tokio::io::duplex(size);
        let connector = TlsConnector::from(Arc::new(client));
        let connects = connector.connect(ServerName::try_from("localhost").unwrap(), there);
        let (server, client) = tokio::join!(TlsAcceptor::from(Arc::new(server)).accept(here), connects);
        (server.unwrap(), client.unwrap())
    }

    /// As a connection that waits for the next request.
    async fn wait() -> io::Result<()> {
        std::future::pending().await
    }

    async fn in_time<T>(what: impl Future<Output = T>) -> T {
        tokio::time::timeout(std::time::Duration::from_secs(30), what)
            .await
            .expect("it is a matter of moments")
    }

    #[tokio::test]
    async fn what_is_written_in_one_turn_leaves_at_its_end_and_whole() {
        // A pipe much smaller than what is written: the rest leaves as the other side reads.
        let (stream, mut other) = connected(1000).await;
        let (mut end, driver) = Gathered::pair(stream);
        let text: Vec<u8> = (0..5 * LIMIT).map(|n| u8::try_from(n % 251).unwrap()).collect();
        let wanted = text.clone();
        let connection = async move {
            for piece in text.chunks(10_000) {
                end.write_all(piece).await?;
                end.flush().await?;
            }
            wait().await
        };
        let drives = async move { driver.drive(std::pin::pin!(connection), &mut Streams::default()).await };
        let driven = tokio::spawn(drives);
        let mut found = vec![0; wanted.len()];
        in_time(other.read_exact(&mut found)).await.unwrap();
        assert!(found == wanted);
        driven.abort();
    }

    #[tokio::test]
    async fn a_flush_sends_nothing_and_the_end_of_the_turn_sends_all_at_once() {
        let (stream, mut other) = connected(1 << 20).await;
        let (mut end, driver) = Gathered::pair(stream);
        for _ in 0..10 {
            end.write_all(b"frame").await.unwrap();
            end.flush().await.unwrap();
        }
        let mut one = [0; 1];
        let early = std::future::poll_fn(|context| {
            let mut into = ReadBuf::new(&mut one);
            Poll::Ready(Pin::new(&mut other).poll_read(context, &mut into).is_ready())
        });
        assert!(!early.await, "a flush sent something");
        let mut waits = std::pin::pin!(wait());
        let mut streams = Streams::default();
        let mut driven = std::pin::pin!(driver.drive(waits.as_mut(), &mut streams));
        // The first turn gives way.
        for _ in 0..2 {
            std::future::poll_fn(|context| Poll::Ready(driven.as_mut().poll(context).is_ready())).await;
        }
        let mut found = vec![0; 100];
        let length = in_time(other.read(&mut found)).await.unwrap();
        assert_eq!(found[..length], b"frame".repeat(10));
    }

    /// One turn of the driver.
    async fn turn(driven: Pin<&mut impl Future<Output = Result<(), BodyError>>>) {
        let mut driven = driven;
        std::future::poll_fn(|context| Poll::Ready(driven.as_mut().poll(context).is_ready())).await;
    }

    /// What the other side can read without waiting.
    async fn arrived(other: &mut client::TlsStream<DuplexStream>) -> usize {
        let mut bytes = vec![0; 2 * LIMIT];
        std::future::poll_fn(|context| {
            let mut into = ReadBuf::new(&mut bytes);
            drop(Pin::new(&mut *other).poll_read(context, &mut into));
            Poll::Ready(into.filled().len())
        })
        .await
    }

    #[tokio::test]
    async fn what_is_written_over_several_turns_leaves_together() {
        const TURNS: usize = 5;
        let (stream, mut other) = connected(1 << 20).await;
        let (mut end, driver) = Gathered::pair(stream);
        let connection = async move {
            for _ in 0..TURNS {
                end.write_all(b"frame").await?;
                tokio::task::yield_now().await;
            }
            wait().await
        };
        let mut connection = std::pin::pin!(connection);
        let mut streams = Streams::default();
        let mut driven = std::pin::pin!(driver.drive(connection.as_mut(), &mut streams));
        for _ in 0..TURNS {
            turn(driven.as_mut()).await;
            assert_eq!(arrived(&mut other).await, 0, "it did not wait for the turns to come");
        }
        // The first in which nothing is written.
        turn(driven.as_mut()).await;
        assert_eq!(arrived(&mut other).await, TURNS * b"frame".len());
    }

    #[tokio::test]
    async fn who_never_stops_writing_is_sent_too() {
        const EACH: usize = 1000;
        let (stream, mut other) = connected(1 << 20).await;
        let (mut end, driver) = Gathered::pair(stream);
        let connection = async move {
            loop {
                if let Err(error) = end.write_all(&[0; EACH]).await {
                    return io::Result::<()>::Err(error);
                }
                tokio::task::yield_now().await;
            }
        };
        let mut connection = std::pin::pin!(connection);
        let mut streams = Streams::default();
        let mut driven = std::pin::pin!(driver.drive(connection.as_mut(), &mut streams));
        // What waits besides what is sealed is less than a record.
        for _ in 0..(LIMIT + RECORD) / EACH + 1 {
            turn(driven.as_mut()).await;
        }
        assert!(arrived(&mut other).await > 0, "it waits for a turn that never comes");
    }

    #[tokio::test]
    async fn records_are_full_until_the_last_of_a_turn() {
        let (stream, other) = connected(1 << 20).await;
        let (mut end, driver) = Gathered::pair(stream);
        let connection = async move {
            // Frames of HTTP/2, of which one alone is more than a record.
            for _ in 0..3 {
                end.write_all(&[0; RECORD + 9]).await?;
            }
            end.write_all(&[0; 100]).await?;
            wait().await
        };
        let mut connection = std::pin::pin!(connection);
        let mut streams = Streams::default();
        let mut driven = std::pin::pin!(driver.drive(connection.as_mut(), &mut streams));
        for _ in 0..2 {
            std::future::poll_fn(|context| Poll::Ready(driven.as_mut().poll(context).is_ready())).await;
        }
        let (mut raw, _) = other.into_inner();
        let (mut lengths, last) = (Vec::new(), 3 * 9 + 100);
        while lengths.last() != Some(&last) {
            // A header with the length, and then the bytes, their kind and a tag.
            let mut header = [0; 5];
            in_time(raw.read_exact(&mut header)).await.unwrap();
            let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
            in_time(raw.read_exact(&mut vec![0; length])).await.unwrap();
            lengths.push(length - 17);
        }
        // Before them, tickets with which the client might come back.
        assert!(lengths.ends_with(&[RECORD, RECORD, RECORD, last]), "{lengths:?}");
    }

    #[tokio::test]
    async fn the_end_of_a_connection_sends_what_waits() {
        let (stream, mut other) = connected(1 << 20).await;
        let (mut end, driver) = Gathered::pair(stream);
        let connection = async move {
            end.write_all(b"goodbye").await?;
            end.shutdown().await
        };
        driver.drive(std::pin::pin!(connection), &mut Streams::default()).await.unwrap();
        let mut found = String::new();
        in_time(other.read_to_string(&mut found)).await.unwrap();
        assert_eq!(found, "goodbye");
    }

    #[tokio::test]
    async fn a_stream_that_takes_nothing_more_ends_the_connection() {
        let (stream, other) = connected(1000).await;
        let (mut end, driver) = Gathered::pair(stream);
        drop(other);
        let connection = async move {
            end.write_all(b"unheard").await?;
            wait().await
        };
        let mut connection = std::pin::pin!(connection);
        let mut streams = Streams::default();
        assert!(in_time(driver.drive(connection.as_mut(), &mut streams)).await.is_err());
    }
}
