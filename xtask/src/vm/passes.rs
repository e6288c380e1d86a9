//! What has passed on a kernel, kept beside it, so that a run is taken up where it was cut short.

use std::collections::HashMap;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{ErrorKind, Write as _};
use std::path::Path;

use anyhow::{Context, Result};

/// A number for the content of files: other content, another number.
pub fn stamp(files: &[&Path]) -> Result<u64> {
    let mut hasher = DefaultHasher::new();
    for file in files {
        fs::read(file).with_context(|| format!("read {}", file.display()))?.hash(&mut hasher);
    }
    Ok(hasher.finish())
}

/// The tests that have passed, each with the stamp of what ran; lines of `name stamp` in a file.
pub struct Passes {
    known: HashMap<String, u64>,
    file: File,
}

impl Passes {
    /// Reads what is kept, or forgets it to begin `again`.
    pub fn open(path: &Path, again: bool) -> Result<Self> {
        let shown = || path.display().to_string();
        let kept = match fs::read_to_string(path) {
            Ok(kept) if !again => kept,
            Ok(_) => String::new(),
            Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error).with_context(|| format!("read {}", shown())),
        };
        // A line that was cut short is no pass.
        let known = kept.lines().filter_map(|line| {
            let (name, stamp) = line.split_once(' ')?;
            Some((name.to_owned(), u64::from_str_radix(stamp, 16).ok()?))
        });
        let known = known.collect();
        let mut file = File::options().append(true).create(true).open(path).with_context(shown)?;
        if again {
            file.set_len(0).with_context(shown)?;
        } else if !kept.is_empty() && !kept.ends_with('\n') {
            writeln!(file).with_context(shown)?;
        }
        Ok(Self { known, file })
    }

    /// Whether a test has passed with this stamp.
    pub fn has(&self, test: &str, stamp: u64) -> bool {
        self.known.get(test) == Some(&stamp)
    }

    /// Writes down that a test has passed.
    pub fn add(&mut self, test: &str, stamp: u64) -> Result<()> {
        self.known.insert(test.to_owned(), stamp);
        writeln!(self.file, "{test} {stamp:016x}").context("write down what has passed")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> std::path::PathBuf {
        let folder = std::env::temp_dir().join(format!("hawser-passes-{}-{name}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[test]
    fn what_has_passed_is_known_to_the_next_run() {
        let folder = folder("kept");
        let path = folder.join("passes");
        Passes::open(&path, false).unwrap().add("cases", 7).unwrap();
        let mut kept = Passes::open(&path, false).unwrap();
        assert!(kept.has("cases", 7) && !kept.has("cases", 8) && !kept.has("flows", 7));
        kept.add("cases", 8).unwrap();
        let kept = Passes::open(&path, false).unwrap();
        assert!(kept.has("cases", 8) && !kept.has("cases", 7), "the last one counts");
        assert!(!Passes::open(&path, true).unwrap().has("cases", 8), "forgotten");
        assert!(!Passes::open(&path, false).unwrap().has("cases", 8), "for good");
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_line_that_was_cut_short_is_no_pass_and_spoils_no_other() {
        let folder = folder("cut");
        let path = folder.join("passes");
        fs::write(&path, "cases").unwrap();
        Passes::open(&path, false).unwrap().add("flows", 9).unwrap();
        let kept = Passes::open(&path, false).unwrap();
        assert!(!kept.has("cases", 0) && kept.has("flows", 9));
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn other_content_has_another_stamp() {
        let folder = folder("stamp");
        let (a, b) = (folder.join("a"), folder.join("b"));
        fs::write(&a, "one").unwrap();
        fs::write(&b, "two").unwrap();
        let both = stamp(&[&a, &b]).unwrap();
        assert_eq!(both, stamp(&[&a, &b]).unwrap());
        fs::write(&b, "three").unwrap();
        assert_ne!(both, stamp(&[&a, &b]).unwrap());
        fs::remove_dir_all(folder).unwrap();
    }
}
