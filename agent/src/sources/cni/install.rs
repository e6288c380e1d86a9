//! Puts the plugin and its configuration where the container runtime looks, each by an atomic rename.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::json;

/// Runtimes take the first file in the order of names.
const CONFLIST: &str = "05-hawser.conflist";
const PLUGIN: &str = "hawser-cni";
/// How the extension of a file begins that is being written; the writer's number follows. Runtimes read only *.conf, *.conflist and
/// *.json.
const SCRATCH: &str = "new";

/// Something could not be put in place.
#[derive(Debug, thiserror::Error)]
#[error("cannot install or remove {}", path.display())]
pub struct InstallError {
    /// What.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: io::Error,
}

/// Copies the plugin that lies beside this program into `dir`, and links it as `loopback` where there is none.
pub fn plugin(dir: &Path) -> Result<(), InstallError> {
    let failed = |path: &Path, source| InstallError { path: path.to_owned(), source };
    let own = std::env::current_exe().map_err(|error| failed(Path::new(PLUGIN), error))?;
    let source = own.with_file_name(PLUGIN);
    let bytes = fs::read(&source).map_err(|error| failed(&source, error))?;
    let path = dir.join(PLUGIN);
    remove(begun(&path)?)?;
    replace(&path, &bytes, 0o755).map_err(|error| failed(&path, error))?;
    let loopback = dir.join(cni::loopback::NAME);
    match std::os::unix::fs::symlink(PLUGIN, &loopback) {
        // Another one does as well.
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(failed(&loopback, error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Where the plugin finds an agent with this run directory.
pub fn socket(run_dir: &Path) -> PathBuf {
    run_dir.join("cni.sock")
}

/// Writes the network configuration into `dir`. It speaks 1.0.0: what every runtime of today understands.
pub fn conflist(dir: &Path, socket: &Path, spool: &Path) -> Result<(), InstallError> {
    let configuration = json!({
        "cniVersion": "1.0.0",
        "name": "hawser",
        "plugins": [{ "type": PLUGIN, "agentSocket": socket, "spoolDir": spool, "capabilities": {"portMappings": true} }],
    });
    let text = serde_json::to_vec_pretty(&configuration).expect("a literal with string keys");
    let path = dir.join(CONFLIST);
    remove(begun(&path)?)?;
    replace(&path, &text, 0o644).map_err(|source| InstallError { path, source })
}

/// Takes the plugin away again, and the link to it.
pub fn remove_plugin(dir: &Path) -> Result<Vec<String>, InstallError> {
    let loopback = dir.join(cni::loopback::NAME);
    let is_ours = fs::read_link(&loopback).is_ok_and(|target| target == Path::new(PLUGIN));
    let own = dir.join(PLUGIN);
    let begun = begun(&own)?;
    remove([Some(own), is_ours.then_some(loopback)].into_iter().flatten().chain(begun))
}

/// Takes the network configuration away again.
pub fn remove_conflist(dir: &Path) -> Result<Vec<String>, InstallError> {
    let own = dir.join(CONFLIST);
    let begun = begun(&own)?;
    remove([own].into_iter().chain(begun))
}

/// Takes the sockets of an agent that is gone away, and their folder, unless it is somebody else's too or mounted.
pub fn remove_sockets(run_dir: &Path, sockets: [PathBuf; 2]) -> Result<Vec<String>, InstallError> {
    let mut removed = remove(sockets)?;
    match fs::remove_dir(run_dir) {
        Ok(()) => removed.push(format!("folder {}", run_dir.display())),
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::ResourceBusy => {}
            _ => return Err(InstallError { path: run_dir.to_owned(), source: error }),
        },
    }
    Ok(removed)
}

fn remove(paths: impl IntoIterator<Item = PathBuf>) -> Result<Vec<String>, InstallError> {
    let mut removed = Vec::new();
    for path in paths {
        match fs::remove_file(&path) {
            Ok(()) => removed.push(format!("file {}", path.display())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(InstallError { path, source }),
        }
    }
    Ok(removed)
}

/// What agents have left that died while they wrote this file.
fn begun(path: &Path) -> Result<Vec<PathBuf>, InstallError> {
    let failed = |source| InstallError { path: path.to_owned(), source };
    let folder = match fs::read_dir(path.parent().unwrap_or(path)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        folder => folder.map_err(failed)?,
    };
    let mut found = Vec::new();
    for entry in folder {
        let other = entry.map_err(failed)?.path();
        let number = other.extension().and_then(|end| end.to_str()).and_then(|end| end.strip_prefix(SCRATCH));
        let is_number = number.is_some_and(|number| number.parse::<u32>().is_ok());
        if is_number && other.file_stem() == path.file_stem() {
            found.push(other);
        }
    }
    Ok(found)
}

fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    if fs::read(path).is_ok_and(|present| present == bytes) {
        return fs::set_permissions(path, Permissions::from_mode(mode));
    }
    let dir = path.parent().ok_or_else(|| io::Error::other("it has no folder"))?;
    fs::create_dir_all(dir)?;
    let scratch = path.with_extension(format!("{SCRATCH}{}", std::process::id()));
    let mut file = File::create(&scratch)?;
    file.write_all(bytes)?;
    file.set_permissions(Permissions::from_mode(mode))?;
    file.sync_all()?;
    fs::rename(&scratch, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_installed_is_removed_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        conflist(dir.path(), Path::new("/run/a/cni.sock"), Path::new("/var/a")).unwrap();
        fs::write(dir.path().join(PLUGIN), "").unwrap();
        std::os::unix::fs::symlink(PLUGIN, dir.path().join(cni::loopback::NAME)).unwrap();
        fs::write(dir.path().join("10-other.conflist"), "").unwrap();
        assert_eq!(remove_conflist(dir.path()).unwrap().len(), 1);
        assert_eq!(remove_plugin(dir.path()).unwrap().len(), 2);
        // Somebody else's loopback stays.
        fs::write(dir.path().join(cni::loopback::NAME), "").unwrap();
        assert_eq!(remove_plugin(dir.path()).unwrap(), Vec::<String>::new());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn what_an_agent_has_left_that_died_while_it_wrote_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let left =
            || ["05-hawser.new17", "hawser-cni.new18"].map(|name| fs::write(dir.path().join(name), ""));
        left().into_iter().for_each(Result::unwrap);
        for other in ["05-hawser.newer", "05-other.new17"] {
            fs::write(dir.path().join(other), "").unwrap();
        }
        conflist(dir.path(), Path::new("/run/a/cni.sock"), Path::new("/var/a")).unwrap();
        assert!(!dir.path().join("05-hawser.new17").exists(), "by the next one that writes it");
        left().into_iter().for_each(Result::unwrap);
        assert_eq!(remove_conflist(dir.path()).unwrap().len(), 2);
        assert_eq!(remove_plugin(dir.path()).unwrap().len(), 1);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "files of others stay");
    }

    #[test]
    fn sockets_are_removed_and_their_folder_unless_others_use_it() {
        let dir = tempfile::tempdir().unwrap();
        let run_dir = dir.path().join("run");
        let sockets = || [run_dir.join("admin.sock"), socket(&run_dir)];
        fs::create_dir(&run_dir).unwrap();
        fs::write(socket(&run_dir), "").unwrap();
        fs::write(run_dir.join("other.sock"), "").unwrap();
        assert_eq!(remove_sockets(&run_dir, sockets()).unwrap().len(), 1);
        fs::remove_file(run_dir.join("other.sock")).unwrap();
        assert_eq!(remove_sockets(&run_dir, sockets()).unwrap(), [format!("folder {}", run_dir.display())]);
        assert_eq!(remove_sockets(&run_dir, sockets()).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn the_configuration_names_the_socket_of_this_agent() {
        let dir = tempfile::tempdir().unwrap();
        conflist(dir.path(), Path::new("/run/a/cni.sock"), Path::new("/var/a")).unwrap();
        let text = fs::read(dir.path().join(CONFLIST)).unwrap();
        let value: serde_json::Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(value["plugins"][0]["agentSocket"], "/run/a/cni.sock");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
