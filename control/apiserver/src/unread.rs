//! The body of a request before it is read: nothing of it is kept until its sender is known and may send it.

use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Body;

use crate::status::{Refusal, Result};

/// Largest body of a request, as upstream's.
pub const MAX_BODY: usize = 3 << 20;

/// A body that is still to be read.
pub struct Unread(Option<BoxFuture<'static, Result<Bytes>>>);

impl std::fmt::Debug for Unread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "Unread" } else { "Empty" })
    }
}

impl Unread {
    /// Takes a body as it comes, of which nothing is read yet, and how long its reading may take.
    pub fn of<B>(body: B, patience: Duration) -> Self
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        Self((!body.is_end_stream()).then(|| read(body, patience).boxed()))
    }

    /// Reads all of it.
    ///
    /// # Errors
    ///
    /// A refusal with code 413 for more than [`MAX_BODY`] bytes, 408 for a body that takes too long, 400 for one
    /// that ends early.
    pub async fn read(self) -> Result<Bytes> {
        match self.0 {
            Some(body) => body.await,
            None => Ok(Bytes::new()),
        }
    }
}

async fn read<B>(body: B, patience: Duration) -> Result<Bytes>
where
    B: Body<Data = Bytes> + Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    match tokio::time::timeout(patience, Limited::new(body, MAX_BODY).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            let message = format!("Request entity too large: limit is {MAX_BODY}");
            Err(Refusal::new(413, "RequestEntityTooLarge", message))
        }
        Ok(Err(error)) => Err(Refusal::bad_request(format!("the body of the request ended early: {error}"))),
        Err(_elapsed) => Err(Refusal::new(408, "Timeout", "the body of the request did not arrive in time")),
    }
}
