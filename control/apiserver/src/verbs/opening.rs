//! What a watch begins with.

use bytes::{Bytes, BytesMut};

use super::reply::CHUNK;
use super::watch::Writer;
use crate::object::Stored;

/// What a client is told before anything happens: an event for each object there is, and maybe a bookmark behind them.
/// Each chunk is made when the one before it has left: a thousand clients that begin at once, or read slowly, hold
/// objects that are there anyhow.
#[derive(Debug, Default)]
pub struct Opening {
    entries: std::vec::IntoIter<Stored>,
    /// The revision of the bookmark.
    bookmark: Option<u64>,
    /// What was asked for and what there is, where the one is too old.
    expired: Option<(u64, u64)>,
}

impl Opening {
    /// The objects of one revision, and the revision if a bookmark is to say that they were all.
    pub fn state(entries: Vec<Stored>, bookmark: Option<u64>) -> Self {
        Self { entries: entries.into_iter(), bookmark, expired: None }
    }

    /// Nothing but that the history from `asked` on is gone.
    pub fn expired(asked: u64, current: u64) -> Self {
        Self { expired: Some((asked, current)), ..Self::default() }
    }

    /// The next chunk; `None` when everything has been told.
    pub fn chunk(&mut self, writer: &Writer) -> Option<Bytes> {
        let mut out = BytesMut::new();
        while out.len() < CHUNK {
            let Some(entry) = self.entries.next() else {
                self.end(writer, &mut out);
                break;
            };
            if writer.selects(&entry) {
                writer.event(&mut out, "ADDED", &entry, entry.mod_revision);
            }
        }
        (!out.is_empty()).then(|| out.freeze())
    }

    fn end(&mut self, writer: &Writer, out: &mut BytesMut) {
        if let Some(revision) = self.bookmark.take() {
            writer.bookmark(out, revision, true);
        }
        if let Some((asked, current)) = self.expired.take() {
            writer.expired(out, asked, current);
        }
    }
}
