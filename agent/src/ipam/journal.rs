//! The journal of addresses: one JSON line per change, written before the change is acknowledged.
//!
//! It outlives the agent, whenever that is killed, and not the machine: networks of pods do not either. So nobody waits for the
//! disk, which would be most of the time of an ADD; and what an earlier boot has left holds no address.
//!
//! The last line may be torn by the agent's end: it was never acknowledged and is cut off. A line in the middle that cannot be
//! read is damage, and is said, unless it is of an earlier boot, which the machine's end may have left in any state.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::tables::{Endpoint, EndpointId};

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "camelCase")]
pub enum Record {
    /// What follows is of this boot of the machine.
    Boot {
        /// The kernel's random name for it.
        id: String,
    },
    /// An attachment got its addresses, one of each of these networks.
    Add {
        /// The attachment.
        endpoint: Endpoint,
        /// Where its addresses are from.
        networks: Vec<IpNetwork>,
    },
    /// An attachment gave them back.
    Del {
        /// Which.
        id: EndpointId,
    },
    /// Where the search for a free address of a network goes on.
    Cursor {
        /// The network.
        network: IpNetwork,
        /// The address given out last.
        last: IpAddr,
    },
}

/// Why the journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The disk said no.
    #[error("the address journal {} cannot be read or written", path.display())]
    Io {
        /// The journal.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A line that was once acknowledged cannot be read.
    #[error("the address journal {} is damaged in line {line}; restore it, or move it away when no pod runs", path.display())]
    Damaged {
        /// The journal.
        path: PathBuf,
        /// Counted from one.
        line: usize,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

/// What a journal adds up to.
#[derive(Debug, Default)]
pub(super) struct Restored {
    /// The boot it is of, if it says so.
    pub(super) boot: Option<String>,
    pub(super) endpoints: BTreeMap<EndpointId, Endpoint>,
    pub(super) cursors: BTreeMap<IpNetwork, IpAddr>,
}

#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    boot: String,
    file: File,
    /// Bytes that are whole lines; a failed append is cut back to here.
    length: u64,
    lines: usize,
}

impl Journal {
    /// Opens the journal in the boot of the machine that has this name.
    pub(super) fn open(path: &Path, boot: &str) -> Result<(Self, Restored), JournalError> {
        let failed = |source| JournalError::Io { path: path.to_owned(), source };
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).map_err(failed)?;
        }
        let file = OpenOptions::new().create(true).append(true).read(true).open(path).map_err(failed)?;
        let bytes = fs::read(path).map_err(failed)?;
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let (mut restored, mut lines, mut damage) = (Restored::default(), 0, None);
        for line in bytes[..whole].split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            lines += 1;
            match serde_json::from_slice(line) {
                Ok(record) => restored.apply(record),
                Err(source) => {
                    damage = Some(JournalError::Damaged { path: path.to_owned(), line: lines, source });
                    break;
                }
            }
        }
        let mut journal =
            Self { path: path.to_owned(), boot: boot.to_owned(), file, length: whole as u64, lines };
        if restored.boot.as_deref() != Some(boot) && (lines == 0 || restored.boot.is_some()) {
            if !restored.endpoints.is_empty() {
                tracing::info!(
                    count = restored.endpoints.len(),
                    "the machine has forgotten these attachments"
                );
            }
            restored.endpoints.clear();
            journal.rewrite(&restored.cursors, &restored.endpoints)?;
        } else if let Some(damage) = damage {
            return Err(damage);
        } else if whole < bytes.len() {
            journal.file.set_len(whole as u64).map_err(failed)?;
        }
        Ok((journal, restored))
    }

    /// Beyond the agent's reach when this returns.
    pub(super) fn append(&mut self, record: &Record) -> Result<(), JournalError> {
        let line = line(record);
        if let Err(source) = self.file.write_all(&line) {
            // Half a line would make the next one unreadable; should this fail too, the next append says so again.
            if let Err(error) = self.file.set_len(self.length) {
                tracing::error!(path = %self.path.display(), %error, "a torn line stays in the address journal");
            }
            return Err(JournalError::Io { path: self.path.clone(), source });
        }
        self.length += line.len() as u64;
        self.lines += 1;
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn fill_disk(&mut self) {
        self.file = OpenOptions::new().write(true).open("/dev/full").unwrap();
    }

    /// Is it worth rewriting for so many live attachments?
    pub(super) fn is_long(&self, live: usize) -> bool {
        self.lines > 1024 + 4 * live
    }

    /// Replaces the journal by the shortest one that says the same.
    pub(super) fn rewrite(
        &mut self,
        cursors: &BTreeMap<IpNetwork, IpAddr>,
        endpoints: &BTreeMap<EndpointId, Endpoint>,
    ) -> Result<(), JournalError> {
        let failed = |source| JournalError::Io { path: self.path.clone(), source };
        let adds = endpoints
            .values()
            .map(|endpoint| Record::Add { endpoint: endpoint.clone(), networks: Vec::new() });
        // The cursors come last: an Add moves none of a network it does not name.
        let cursors = cursors.iter().map(|(network, last)| Record::Cursor { network: *network, last: *last });
        let boot = Record::Boot { id: self.boot.clone() };
        let records: Vec<Record> = std::iter::once(boot).chain(adds).chain(cursors).collect();
        let scratch = self.path.with_extension("new");
        let mut file = File::create(&scratch).map_err(failed)?;
        let bytes: Vec<u8> = records.iter().flat_map(line).collect();
        file.write_all(&bytes).and_then(|()| file.sync_all()).map_err(failed)?;
        fs::rename(&scratch, &self.path).map_err(failed)?;
        sync_dir(&self.path).map_err(failed)?;
        self.file = OpenOptions::new().append(true).read(true).open(&self.path).map_err(failed)?;
        self.length = bytes.len() as u64;
        self.lines = records.len();
        Ok(())
    }
}

impl Restored {
    fn apply(&mut self, record: Record) {
        match record {
            Record::Boot { id } => self.boot = Some(id),
            Record::Add { endpoint, networks } => {
                for network in networks {
                    let given = endpoint.addresses.iter().find(|address| network.contains(**address));
                    if let Some(address) = given {
                        self.cursors.insert(network, *address);
                    }
                }
                self.endpoints.insert(endpoint.id(), endpoint);
            }
            Record::Del { id } => {
                self.endpoints.remove(&id);
            }
            Record::Cursor { network, last } => {
                self.cursors.insert(network, last);
            }
        }
    }
}

fn line(record: &Record) -> Vec<u8> {
    let mut line = serde_json::to_vec(record).expect("a record has only string keys");
    line.push(b'\n');
    line
}

fn sync_dir(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => File::open(dir)?.sync_all(),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rewritten_journal_says_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let (mut journal, _) = Journal::open(&path, "this").unwrap();
        let endpoint = Endpoint {
            container_id: "c".into(),
            ifname: "eth0".into(),
            netns_path: "/n".into(),
            pod_namespace: "a".into(),
            pod_name: "b".into(),
            addresses: vec!["10.0.0.1".parse().unwrap()],
            pod_uid: "c".into(),
            host_ports: Vec::new(),
        };
        let cursors = BTreeMap::from([("10.0.0.0/24".parse().unwrap(), "10.0.0.9".parse().unwrap())]);
        let endpoints = BTreeMap::from([(endpoint.id(), endpoint)]);
        journal.rewrite(&cursors, &endpoints).unwrap();
        let (_, restored) = Journal::open(&path, "this").unwrap();
        assert_eq!(restored.cursors, cursors);
        assert_eq!(restored.endpoints, endpoints);
    }

    #[test]
    fn what_an_earlier_boot_has_left_holds_no_address_and_may_be_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let (mut journal, _) = Journal::open(&path, "earlier").unwrap();
        let network: IpNetwork = "10.0.0.0/24".parse().unwrap();
        let endpoint = Endpoint { container_id: "c".into(), ifname: "eth0".into(), ..Endpoint::default() };
        journal.append(&Record::Cursor { network, last: "10.0.0.9".parse().unwrap() }).unwrap();
        journal.append(&Record::Add { endpoint, networks: Vec::new() }).unwrap();
        assert_eq!(Journal::open(&path, "earlier").unwrap().1.endpoints.len(), 1);
        // As a machine that went down leaves it.
        OpenOptions::new().append(true).open(&path).unwrap().write_all(&[0, 0, b'\n', 0]).unwrap();
        assert!(matches!(Journal::open(&path, "earlier"), Err(JournalError::Damaged { line: 4, .. })));
        for _ in 0..2 {
            let (_, restored) = Journal::open(&path, "this").unwrap();
            assert!(restored.endpoints.is_empty());
            assert_eq!(
                restored.cursors[&network],
                "10.0.0.9".parse::<IpAddr>().unwrap(),
                "addresses go on resting"
            );
        }
    }

    #[test]
    fn damage_in_the_middle_is_said_with_its_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        fs::write(&path, "{\"op\":\"cursor\",\"network\":\"10.0.0.0/24\",\"last\":\"10.0.0.1\"}\nrubbish\n")
            .unwrap();
        let error = Journal::open(&path, "this").unwrap_err();
        assert!(error.to_string().contains("damaged in line 2"), "{error}");
    }
}
