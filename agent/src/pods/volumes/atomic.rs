//! Writes a volume's files so that a reader sees all of the old or all of the new.
//!
//! ```text
//! token       -> ..data/token
//! ..data      -> ..1700000000.123      swapped by rename
//! ..1700000000.123/token
//! ```

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use super::own;
use super::payload::{File, Payload};

const DATA: &str = "..data";

/// Makes `dir` hold exactly `payload`; says whether something changed.
pub(super) fn write(dir: &Path, payload: &Payload, group: Option<i64>) -> io::Result<bool> {
    let current = fs::read_link(dir.join(DATA)).ok();
    if current.as_ref().is_some_and(|current| holds(&dir.join(current), payload)) {
        return Ok(false);
    }
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let version = format!("..{}.{:09}", since.as_secs(), since.subsec_nanos());
    let fresh = dir.join(&version);
    fs::create_dir(&fresh)?;
    fs::set_permissions(dir, Permissions::from_mode(if group.is_some() { 0o2755 } else { 0o755 }))?;
    own(dir, group)?;
    own(&fresh, group)?;
    for (path, file) in payload {
        put(&fresh, path, file, group)?;
    }
    let scratch = dir.join("..data_new");
    match fs::remove_file(&scratch) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    symlink(&version, &scratch)?;
    fs::rename(&scratch, dir.join(DATA))?;
    link(dir, payload)?;
    if let Some(old) = current {
        fs::remove_dir_all(dir.join(old))?;
    }
    Ok(true)
}

fn holds(dir: &Path, payload: &Payload) -> bool {
    let mut count = 0;
    let same = payload.iter().all(|(path, file)| {
        count += 1;
        fs::read(dir.join(path)).is_ok_and(|bytes| bytes == file.bytes)
    });
    same && files(dir).is_ok_and(|found| found == count)
}

fn files(dir: &Path) -> io::Result<usize> {
    let mut count = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        count += if entry.file_type()?.is_dir() { files(&entry.path())? } else { 1 };
    }
    Ok(count)
}

fn put(root: &Path, path: &str, file: &File, group: Option<i64>) -> io::Result<()> {
    let target = root.join(path);
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(&target, &file.bytes)?;
    // A group that owns the volume may read it.
    let mode = if group.is_some() { file.mode | 0o440 } else { file.mode };
    own(&target, group)?;
    fs::set_permissions(&target, Permissions::from_mode(mode))
}

/// What users see: one link per first component, into the current version.
fn link(dir: &Path, payload: &Payload) -> io::Result<()> {
    let wanted: BTreeSet<&str> = payload.keys().map(|path| path.split('/').next().unwrap_or(path)).collect();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let name = name.to_string_lossy();
        if !name.starts_with("..") && !wanted.contains(name.as_ref()) {
            fs::remove_file(dir.join(name.as_ref()))?;
        }
    }
    for name in wanted {
        match symlink(Path::new(DATA).join(name), dir.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(files: &[(&str, &str)]) -> Payload {
        let file = |text: &str| File { bytes: text.as_bytes().to_vec(), mode: 0o644 };
        files.iter().map(|(path, text)| ((*path).to_owned(), file(text))).collect()
    }

    #[test]
    fn an_update_swaps_all_files_and_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path();
        assert!(write(path, &payload(&[("a", "1"), ("d/b", "2")]), None).unwrap());
        assert!(!write(path, &payload(&[("a", "1"), ("d/b", "2")]), None).unwrap());
        let before = fs::read_link(path.join(DATA)).unwrap();
        assert!(write(path, &payload(&[("a", "3"), ("c", "4")]), None).unwrap());
        assert_ne!(fs::read_link(path.join(DATA)).unwrap(), before);
        assert_eq!(fs::read_to_string(path.join("a")).unwrap(), "3");
        let mut names: Vec<String> =
            fs::read_dir(path).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|name| !name.starts_with("..1"));
        names.sort();
        assert_eq!(names, ["..data", "a", "c"]);
        assert!(!path.join(before).exists());
    }
}
