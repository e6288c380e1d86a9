//! Puts the plugin and its configuration where the container runtime looks, each by an atomic rename.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::json;

/// Runtimes take the first file in the order of names.
const CONFLIST: &str = "05-hawser.conflist";
const PLUGIN: &str = "hawser-cni";

/// Something could not be put in place.
#[derive(Debug, thiserror::Error)]
#[error("cannot install {}", path.display())]
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
    replace(&path, &bytes, 0o755).map_err(|error| failed(&path, error))?;
    let loopback = dir.join(cni::loopback::NAME);
    match std::os::unix::fs::symlink(PLUGIN, &loopback) {
        // Another one does as well.
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(failed(&loopback, error)),
        Ok(()) | Err(_) => Ok(()),
    }
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
    replace(&path, &text, 0o644).map_err(|source| InstallError { path, source })
}

fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    if fs::read(path).is_ok_and(|present| present == bytes) {
        return fs::set_permissions(path, Permissions::from_mode(mode));
    }
    let dir = path.parent().ok_or_else(|| io::Error::other("it has no folder"))?;
    fs::create_dir_all(dir)?;
    // Runtimes read only *.conf, *.conflist and *.json.
    let scratch = path.with_extension(format!("new{}", std::process::id()));
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
    fn the_configuration_names_the_socket_of_this_agent() {
        let dir = tempfile::tempdir().unwrap();
        conflist(dir.path(), Path::new("/run/a/cni.sock"), Path::new("/var/a")).unwrap();
        let text = fs::read(dir.path().join(CONFLIST)).unwrap();
        let value: serde_json::Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(value["plugins"][0]["agentSocket"], "/run/a/cni.sock");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
