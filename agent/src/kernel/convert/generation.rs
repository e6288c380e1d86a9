//! Agents that are too old for the maps they meet: who goes back to one of them is told so, before anything is changed.
//!
//! Layouts are converted in either direction by the names of fields. That is not enough where rows have come to mean something that
//! agents before cannot read in them: such maps carry a higher [`abi::GENERATION`], in the name of their folder, so that everybody
//! can tell.

use std::fmt;
use std::path::{Path, PathBuf};

use super::crossing::has_crossed;
use super::{DESCRIPTION, KernelError, others};

/// Names the maps of one generation, layout and scale: the folder they are pinned in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    /// What rows mean.
    pub generation: u32,
    /// Where their fields are.
    pub layout: u32,
    /// How many there may be.
    pub scale: u32,
}

impl Version {
    /// That of this agent, with maps of this scale.
    pub fn own(scale: u32) -> Self {
        Self { generation: abi::GENERATION, layout: abi::LAYOUT_HASH, scale }
    }

    /// What a folder is named after; agents before there were generations left that part out.
    fn read(folder: &str) -> Option<Self> {
        let (names, scale) = folder.strip_prefix('v')?.split_once('x')?;
        let (generation, layout) = names.split_once('-').unwrap_or(("0", names));
        Some(Self {
            generation: generation.parse().ok()?,
            layout: u32::from_str_radix(layout, 16).ok()?,
            scale: scale.parse().ok()?,
        })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}-{:08x}x{}", self.generation, self.layout, self.scale)
    }
}

/// Refuses to start beside maps in use that this agent cannot read. An upgrade that has not come as far as its own programs does not
/// count: going back from it is what its failure is mended by.
pub fn check(bpffs: &Path, own: &Path) -> Result<(), KernelError> {
    for folder in others(bpffs, own)? {
        let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let is_newer = Version::read(name).is_some_and(|version| version.generation > abi::GENERATION);
        if is_newer && (folder.join(DESCRIPTION).exists() || has_crossed(&folder)?) {
            return Err(KernelError::TooOld(TooOld { folder }));
        }
    }
    Ok(())
}

/// This agent is older than the one whose maps are in use.
#[derive(Debug, thiserror::Error)]
#[error(
    "the maps in {} are those of a newer agent, and this one would misread the connections in them (it knows generation {}): \
     start the newer agent again, or give all connections up by `hawser-agent cleanup`. Nothing was changed",
    folder.display(), abi::GENERATION
)]
pub struct TooOld {
    /// Of the newer agent's maps.
    pub folder: PathBuf,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_say_their_generation_and_those_without_one_are_of_the_first() {
        let own = Version::own(4);
        assert_eq!(Version::read(&own.to_string()), Some(own));
        let before = Version { generation: 0, layout: 0xaa84_f2ac, scale: 2 };
        assert_eq!(Version::read("vaa84f2acx2"), Some(before));
        for other in ["v", "v1", "vx", "v1-x1", "vaa84f2acx", "w1-aa84f2acx1"] {
            assert_eq!(Version::read(other), None, "{other}");
        }
    }

    #[test]
    fn only_maps_in_use_of_a_later_generation_stop_an_agent() {
        let bpffs = tempfile::tempdir().unwrap();
        let own = bpffs.path().join(Version::own(1).to_string());
        let folder = |generation, complete: bool| {
            let version = Version { generation, layout: 7, scale: 1 };
            let folder = bpffs.path().join(version.to_string());
            std::fs::create_dir_all(&folder).unwrap();
            if complete {
                std::fs::write(folder.join(DESCRIPTION), "").unwrap();
            }
            folder
        };
        check(&bpffs.path().join("none"), &own).unwrap();
        folder(abi::GENERATION, true);
        folder(abi::GENERATION + 1, false);
        check(bpffs.path(), &own).unwrap();
        let later = folder(abi::GENERATION + 2, true);
        let told = check(bpffs.path(), &own).unwrap_err().to_string();
        assert!(told.contains(&*later.to_string_lossy()) && told.contains("cleanup"), "{told}");
    }
}
