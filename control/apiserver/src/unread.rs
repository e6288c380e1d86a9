//! The body of a request before it is read: nothing of it is kept until its sender is known and may send it.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;

use crate::body::{self, Body, BodyError};
use crate::status::{Refusal, Result};

/// Largest body of a request, as upstream's.
pub const MAX_BODY: usize = 3 << 20;

/// A body that is still to be read.
pub struct Unread {
    body: Option<Body>,
    /// How long its reading may take.
    patience: Duration,
}

impl std::fmt::Debug for Unread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.body.is_some() { "Unread" } else { "Empty" })
    }
}

impl Unread {
    /// Takes a body as it comes, of which nothing is read yet, and how long its reading may take.
    pub fn of<B>(body: B, patience: Duration) -> Self
    where
        B: hyper::body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BodyError>,
    {
        let body = (!body.is_end_stream()).then(|| Body::new(body.map_err(Into::into)));
        Self { body, patience }
    }

    /// The body for somebody else to read, without a bound.
    pub fn into_body(self) -> Body {
        self.body.unwrap_or_else(|| body::full(""))
    }

    /// Reads all of it.
    ///
    /// # Errors
    ///
    /// A refusal with code 413 for more than [`MAX_BODY`] bytes, 408 for a body that takes too long, 400 for one
    /// that ends early.
    pub async fn read(self) -> Result<Bytes> {
        match self.body {
            Some(body) => read(body, self.patience).await,
            None => Ok(Bytes::new()),
        }
    }
}

async fn read(mut body: Body, patience: Duration) -> Result<Bytes> {
    let whole = async {
        let (mut pieces, mut length) = (Vec::new(), 0);
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| ended_early(&error))?;
            let Ok(piece) = frame.into_data() else { continue };
            length += piece.len();
            if length > MAX_BODY {
                let message = format!("Request entity too large: limit is {MAX_BODY}");
                return Err(Refusal::new(413, "RequestEntityTooLarge", message));
            }
            pieces.push(piece);
        }
        // Most come in one piece, which is not copied.
        Ok(if let [only] = pieces.as_slice() { only.clone() } else { pieces.concat().into() })
    };
    tokio::time::timeout(patience, whole).await.unwrap_or_else(|_elapsed| {
        Err(Refusal::new(408, "Timeout", "the body of the request did not arrive in time"))
    })
}

fn ended_early(error: &BodyError) -> Refusal {
    Refusal::bad_request(format!("the body of the request ended early: {error}"))
}
