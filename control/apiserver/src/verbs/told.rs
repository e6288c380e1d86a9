//! Events as they were last written: all watchers who are told the same thing in the same words share its bytes.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::object::Stored;
use crate::resources::Row;

/// Lines that are remembered. Watchers of one kind are told of an event within moments, so the newest are enough.
const KEPT: usize = 32;

/// What makes two lines the same.
#[derive(Debug, Clone, Copy)]
pub struct Line<'a> {
    pub entry: &'a Stored,
    pub revision: u64,
    /// `ADDED`, `MODIFIED` or `DELETED`.
    pub kind: &'static str,
    pub row: &'a Arc<Row>,
    pub protobuf: bool,
}

/// A line that was told. It holds the version of the object, so that its address stays its own.
#[derive(Debug)]
struct Known {
    entry: Stored,
    revision: u64,
    kind: &'static str,
    row: Arc<Row>,
    protobuf: bool,
    bytes: Bytes,
}

impl Known {
    fn new(line: Line<'_>, bytes: Bytes) -> Self {
        let Line { entry, revision, kind, row, protobuf } = line;
        Self { entry: Arc::clone(entry), revision, kind, row: Arc::clone(row), protobuf, bytes }
    }

    fn is(&self, line: Line<'_>) -> bool {
        Arc::ptr_eq(&self.entry, line.entry)
            && self.revision == line.revision
            && self.kind == line.kind
            && Arc::ptr_eq(&self.row, line.row)
            && self.protobuf == line.protobuf
    }
}

/// The newest lines.
#[derive(Debug, Default)]
pub struct Told(Mutex<VecDeque<Known>>);

impl Told {
    /// The bytes of a line, which `write` makes if nobody did lately.
    pub fn line(&self, line: Line<'_>, write: impl FnOnce() -> Bytes) -> Bytes {
        if let Some(known) = self.0.lock().iter().rev().find(|known| known.is(line)) {
            return known.bytes.clone();
        }
        // Without the lock: two who write the same at once do no harm.
        let bytes = write();
        let mut lines = self.0.lock();
        if lines.len() == KEPT {
            lines.pop_front();
        }
        lines.push_back(Known::new(line, bytes.clone()));
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
        let (key, value, header) = ("/registry/pods/a/b".into(), Bytes::new().into(), Header::default());
        Arc::new(Entry { key, value, mod_revision: 7, create_revision: 7, expires: 0, header })
    }

    #[test]
    fn a_line_is_written_once_and_only_the_same_line_is_shared() {
        let told = Told::default();
        let table = resources::builtin();
        let [pods, nodes, ..] = table.rows() else { panic!("a table of two rows at least") };
        let (one, same) = (entry(), entry());
        let line = Line { entry: &one, revision: 7, kind: "ADDED", row: pods, protobuf: false };
        let others = [
            Line { entry: &same, ..line },
            Line { revision: 8, ..line },
            Line { kind: "DELETED", ..line },
            Line { row: nodes, ..line },
            Line { protobuf: true, ..line },
        ];
        assert_eq!(told.line(line, || Bytes::from_static(b"first")), "first");
        for other in others {
            assert_eq!(told.line(other, || Bytes::from_static(b"other")), "other");
        }
        assert_eq!(told.line(line, || Bytes::from_static(b"again")), "first");
        for revision in 100..100 + KEPT as u64 {
            told.line(Line { revision, ..line }, Bytes::new);
        }
        assert_eq!(told.0.lock().len(), KEPT);
        assert_eq!(told.line(line, || Bytes::from_static(b"again")), "again", "it was long ago");
    }
}
