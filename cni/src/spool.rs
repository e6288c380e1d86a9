//! DEL requests that wait on disk for an agent that is away: one file each, read by the agent when it is back.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// A DEL nobody has heard yet.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Waiting {
    /// The container.
    pub container_id: String,
    /// Its interface.
    pub ifname: String,
}

impl Waiting {
    /// Container ids and interface names hold no '/', so this is one path component; ':' is in neither.
    fn file_name(&self) -> String {
        format!("{}:{}.json", self.container_id, self.ifname)
    }
}

/// Puts a DEL on disk; it is durable when this returns.
pub fn queue(dir: &Path, waiting: &Waiting) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    let path = dir.join(waiting.file_name());
    let scratch = dir.join(format!(".{}.{}", waiting.file_name(), std::process::id()));
    let mut file = File::create(&scratch)?;
    file.write_all(&serde_json::to_vec(waiting)?)?;
    file.sync_all()?;
    fs::rename(&scratch, &path)?;
    File::open(dir)?.sync_all()
}

/// All that wait; a directory that is not there holds none, and a file that is not ours is left alone.
pub fn waiting(dir: &Path) -> io::Result<Vec<(PathBuf, Waiting)>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if hidden || path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        if let Ok(waiting) = serde_json::from_slice(&fs::read(&path)?) {
            found.push((path, waiting));
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_queued_twice_waits_once() {
        let dir = tempfile::tempdir().unwrap();
        let spool = dir.path().join("spool");
        assert!(waiting(&spool).unwrap().is_empty());
        let del = Waiting { container_id: "c1".into(), ifname: "eth0".into() };
        queue(&spool, &del).unwrap();
        queue(&spool, &del).unwrap();
        let found = waiting(&spool).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].1, del);
    }

    #[test]
    fn a_torn_file_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("x.json"), b"{\"contai").unwrap();
        assert!(waiting(dir.path()).unwrap().is_empty());
    }
}
