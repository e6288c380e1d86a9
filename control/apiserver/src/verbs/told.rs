//! Events as they were last written: all watchers who are told the same thing in the same words share its bytes.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::object::Stored;
use crate::resources::Row;

/// Lines that are remembered. Watchers of one kind are told of an event within moments, so the newest are enough.
const KEPT: usize = 32;

/// What makes two lines the same. The version of an object is held, so that its address stays its own.
#[derive(Debug, Clone)]
pub struct Line {
    pub entry: Stored,
    pub revision: u64,
    /// `ADDED`, `MODIFIED` or `DELETED`.
    pub kind: &'static str,
    pub row: Arc<Row>,
    pub protobuf: bool,
}

impl PartialEq for Line {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.entry, &other.entry)
            && self.revision == other.revision
            && self.kind == other.kind
            && Arc::ptr_eq(&self.row, &other.row)
            && self.protobuf == other.protobuf
    }
}

/// The newest lines.
#[derive(Debug, Default)]
pub struct Told(Mutex<VecDeque<(Line, Bytes)>>);

impl Told {
    /// The bytes of a line, which `write` makes if nobody did lately.
    pub fn line(&self, line: Line, write: impl FnOnce() -> Bytes) -> Bytes {
        if let Some((_, bytes)) = self.0.lock().iter().rev().find(|(known, _)| *known == line) {
            return bytes.clone();
        }
        // Without the lock: two who write the same at once do no harm.
        let bytes = write();
        let mut lines = self.0.lock();
        if lines.len() == KEPT {
            lines.pop_front();
        }
        lines.push_back((line, bytes.clone()));
        bytes
    }
}

#[cfg(test)]
mod tests {
    use store::Entry;

    use super::*;
    use crate::object::Header;
    use crate::resources;

    fn entry() -> Stored {
        let (key, value, header) = ("/registry/pods/a/b".into(), Bytes::new(), Header::default());
        Arc::new(Entry { key, value, mod_revision: 7, create_revision: 7, expires: 0, header })
    }

    #[test]
    fn a_line_is_written_once_and_only_the_same_line_is_shared() {
        let told = Told::default();
        let table = resources::builtin();
        let [pods, nodes, ..] = table.rows() else { panic!("a table of two rows at least") };
        let (pods, nodes) = (Arc::clone(pods), Arc::clone(nodes));
        let line = Line { entry: entry(), revision: 7, kind: "ADDED", row: pods, protobuf: false };
        let others = [
            Line { entry: entry(), ..line.clone() },
            Line { revision: 8, ..line.clone() },
            Line { kind: "DELETED", ..line.clone() },
            Line { row: nodes, ..line.clone() },
            Line { protobuf: true, ..line.clone() },
        ];
        assert_eq!(told.line(line.clone(), || Bytes::from_static(b"first")), "first");
        for other in others {
            assert_eq!(told.line(other, || Bytes::from_static(b"other")), "other");
        }
        assert_eq!(told.line(line.clone(), || Bytes::from_static(b"again")), "first");
        for revision in 100..100 + KEPT as u64 {
            told.line(Line { revision, ..line.clone() }, Bytes::new);
        }
        assert_eq!(told.0.lock().len(), KEPT);
        assert_eq!(told.line(line, || Bytes::from_static(b"again")), "again", "it was long ago");
    }
}
