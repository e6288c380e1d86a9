//! Gathers what an HTTP/2 connection writes in one turn, so that it leaves in few TLS records and system calls.
//!
//! The protocol's codec asks for a flush behind every frame of some size. Here that flush waits: [`Gathered::drive`]
//! sends when the connection has nothing more to say and whoever else was due to run has run, because those are often
//! streams of the same connection (an event that a hundred watches deliver). Only what drives the connection may write
//! to it, so connections that are handed to somebody else (upgrades of HTTP/1.1) do without.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::body::BodyError;
use crate::copy;

/// Bytes that may wait; a writer with more goes on when they have left.
const LIMIT: usize = 64 << 10;
/// Memory a connection keeps while it writes little.
const KEPT: usize = 4 << 10;

/// One end of the stream: the connection's, or that of the one who drives it.
#[derive(Debug)]
pub struct Gathered<S>(Arc<Mutex<Outgoing<S>>>);

#[derive(Debug)]
struct Outgoing<S> {
    stream: S,
    waiting: Vec<u8>,
    /// How many of the waiting bytes have left.
    sent: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Gathered<S> {
    /// The end the connection writes to, and the one that drives it.
    pub fn pair(stream: S) -> (Self, Self) {
        let shared = Arc::new(Mutex::new(Outgoing { stream, waiting: Vec::new(), sent: 0 }));
        (Self(Arc::clone(&shared)), Self(shared))
    }

    /// Runs the connection to its end, and after each of its turns sends what it wrote.
    ///
    /// # Errors
    /// The connection's own, or that of the stream when it takes nothing more.
    pub async fn drive<C, E>(&self, mut connection: Pin<&mut C>) -> Result<(), BodyError>
    where
        C: Future<Output = Result<(), E>>,
        E: Into<BodyError>,
    {
        let mut gave_way = false;
        std::future::poll_fn(|context| {
            if let Poll::Ready(ended) = connection.as_mut().poll(context) {
                return Poll::Ready(ended.map_err(Into::into));
            }
            let mut outgoing = self.0.lock();
            gave_way = !gave_way && !outgoing.waiting.is_empty();
            if gave_way {
                // To the end of the queue.
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

impl<S: AsyncWrite + Unpin> Outgoing<S> {
    fn send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.waiting.is_empty() {
            return Poll::Ready(Ok(()));
        }
        while self.sent < self.waiting.len() {
            // TLS copies them one by one.
            let (slices, count) = copy::slices::<{ LIMIT / copy::PIECE }>(&self.waiting[self.sent..]);
            match ready!(Pin::new(&mut self.stream).poll_write_vectored(context, &slices[..count]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                sent => self.sent += sent,
            }
        }
        // One who writes much at once soon does it again.
        let little = self.waiting.len() <= KEPT;
        self.sent = 0;
        self.waiting.clear();
        if little {
            self.waiting.shrink_to(KEPT);
        }
        Pin::new(&mut self.stream).poll_flush(context)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gathered<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.lock().stream).poll_read(context, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gathered<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut outgoing = self.0.lock();
        if outgoing.waiting.len() >= LIMIT {
            ready!(outgoing.send(context))?;
        }
        let taken = bytes.len().min(LIMIT - outgoing.waiting.len());
        if outgoing.waiting.len() + taken > KEPT {
            let more = LIMIT - outgoing.waiting.len();
            outgoing.waiting.reserve_exact(more);
        }
        copy::append(&mut outgoing.waiting, &bytes[..taken]);
        Poll::Ready(Ok(taken))
    }

    /// Nothing: see [`Gathered::drive`].
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut outgoing = self.0.lock();
        ready!(outgoing.send(context))?;
        Pin::new(&mut outgoing.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn what_is_written_in_one_turn_leaves_at_its_end_and_whole() {
        // A pipe much smaller than what is written: the rest leaves as the other side reads.
        let (stream, mut other) = tokio::io::duplex(1000);
        let (mut end, driver) = Gathered::pair(stream);
        let text: Vec<u8> = (0..3 * LIMIT).map(|n| u8::try_from(n % 251).unwrap()).collect();
        let wanted = text.clone();
        let connection = async move {
            for piece in text.chunks(10_000) {
                end.write_all(piece).await?;
                end.flush().await?;
            }
            // As a connection that waits for the next request.
            std::future::pending::<()>().await;
            io::Result::Ok(())
        };
        let driven = tokio::spawn(async move { driver.drive(std::pin::pin!(connection)).await });
        let mut found = vec![0; wanted.len()];
        let read = tokio::time::timeout(std::time::Duration::from_secs(30), other.read_exact(&mut found));
        read.await.unwrap().unwrap();
        assert!(found == wanted);
        drop(other);
        driven.abort();
    }

    #[tokio::test]
    async fn a_flush_sends_nothing_and_the_end_of_the_turn_sends_all_at_once() {
        let (stream, mut other) = tokio::io::duplex(1 << 20);
        let (mut end, driver) = Gathered::pair(stream);
        for _ in 0..10 {
            end.write_all(b"frame").await.unwrap();
            end.flush().await.unwrap();
        }
        let waits = std::future::pending::<io::Result<()>>();
        let mut waits = std::pin::pin!(waits);
        let mut driven = std::pin::pin!(driver.drive(waits.as_mut()));
        let mut one = [0; 1];
        for when in ["a flush", "a turn before others had theirs"] {
            let early = std::future::poll_fn(|context| {
                let mut into = ReadBuf::new(&mut one);
                Poll::Ready(Pin::new(&mut other).poll_read(context, &mut into).is_ready())
            });
            assert!(!early.await, "{when} sent something");
            std::future::poll_fn(|context| Poll::Ready(driven.as_mut().poll(context).is_ready())).await;
        }
        let mut found = vec![0; 100];
        let length = other.read(&mut found).await.unwrap();
        assert_eq!(found[..length], b"frame".repeat(10));
    }

    #[tokio::test]
    async fn the_end_of_a_connection_sends_what_waits() {
        let (stream, mut other) = tokio::io::duplex(1 << 20);
        let (mut end, driver) = Gathered::pair(stream);
        let connection = async move {
            end.write_all(b"goodbye").await?;
            end.shutdown().await
        };
        driver.drive(std::pin::pin!(connection)).await.unwrap();
        let mut found = String::new();
        other.read_to_string(&mut found).await.unwrap();
        assert_eq!(found, "goodbye");
    }

    #[tokio::test]
    async fn a_stream_that_takes_nothing_more_ends_the_connection() {
        let (stream, other) = tokio::io::duplex(10);
        let (mut end, driver) = Gathered::pair(stream);
        drop(other);
        let connection = async move {
            end.write_all(b"unheard").await?;
            std::future::pending::<()>().await;
            io::Result::Ok(())
        };
        let mut connection = std::pin::pin!(connection);
        let ended = driver.drive(connection.as_mut());
        let ended = tokio::time::timeout(std::time::Duration::from_secs(30), ended).await;
        assert!(ended.expect("it ends").is_err());
    }
}
