//! A pod's volumes on the host: made before the sandbox, kept up to date while it runs, removed after.

mod atomic;
mod payload;

use std::collections::HashMap;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use k8s_openapi::api::core::v1 as core;
use nix::mount::{MntFlags, MsFlags};

use super::names::{Folders, PodKey};
use super::objects::{ObjectError, Objects};
use super::resources;

/// A volume cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// What it is made from does not exist.
    #[error("volume {volume:?}: {kind} {name:?} not found")]
    NoObject {
        /// The volume.
        volume: String,
        /// What.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// A key it asks for is not there.
    #[error("volume {volume:?}: {name:?} has no key {key:?}")]
    NoKey {
        /// The volume.
        volume: String,
        /// The object.
        name: String,
        /// The key.
        key: String,
    },
    /// A path that leaves the volume.
    #[error("volume {volume:?}: the path {path:?} leaves the volume")]
    BadPath {
        /// The volume.
        volume: String,
        /// The path.
        path: String,
    },
    /// A kind this node does not have.
    #[error("volume {volume:?}: volumes of this kind are not supported yet")]
    Unsupported {
        /// The volume.
        volume: String,
    },
    /// A hostPath that is not of its type.
    #[error("volume {volume:?}: {} is not of type {kind}", path.display())]
    HostPath {
        /// The volume.
        volume: String,
        /// The path.
        path: PathBuf,
        /// The type.
        kind: String,
    },
    /// The API server could not be asked.
    #[error("volume {volume:?}")]
    Api {
        /// The volume.
        volume: String,
        /// Why.
        #[source]
        source: ObjectError,
    },
    /// The disk said no.
    #[error("volume {volume:?}: {}", path.display())]
    Io {
        /// The volume.
        volume: String,
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Makes volumes.
#[derive(Debug, Clone)]
pub struct Volumes {
    objects: Objects,
    folders: Folders,
}

impl Volumes {
    /// Below `folders`, out of `objects`.
    pub fn new(objects: Objects, folders: Folders) -> Self {
        Self { objects, folders }
    }

    /// Puts every volume of a pod in place, or up to date, and says where they are.
    pub async fn prepare(&self, pod: &core::Pod) -> Result<HashMap<String, PathBuf>, VolumeError> {
        let key = PodKey::of(pod);
        let spec = pod.spec.clone().unwrap_or_default();
        let mut places = HashMap::new();
        for volume in spec.volumes.iter().flatten() {
            places.insert(volume.name.clone(), self.one(pod, &spec, &key, volume).await?);
        }
        Ok(places)
    }

    async fn one(
        &self,
        pod: &core::Pod,
        spec: &core::PodSpec,
        key: &PodKey,
        volume: &core::Volume,
    ) -> Result<PathBuf, VolumeError> {
        let path = self.folders.volume(&key.uid, &volume.name);
        let group = spec.security_context.as_ref().and_then(|context| context.fs_group);
        let failed = |source| VolumeError::Io { volume: volume.name.clone(), path: path.clone(), source };
        if let Some(source) = &volume.host_path {
            return host_path(&volume.name, source);
        }
        if let Some(source) = &volume.empty_dir {
            empty_dir(&path, source, group).map_err(failed)?;
            return Ok(path);
        }
        let payload = payload::collect(&self.objects, pod, key, volume).await?;
        fs::create_dir_all(&path).map_err(failed)?;
        if is_secret(volume) {
            in_memory(&path, None).map_err(failed)?;
        }
        atomic::write(&path, &payload, group).map_err(failed)?;
        Ok(path)
    }

    /// `subPath` and `subPathExpr` of a container's mounts, made and resolved: by mount path.
    pub fn sub_paths(
        &self,
        container: &core::Container,
        places: &HashMap<String, PathBuf>,
        environment: &[(String, String)],
    ) -> Result<HashMap<String, PathBuf>, VolumeError> {
        let mut resolved = HashMap::new();
        for mount in container.volume_mounts.iter().flatten() {
            let asked = match (&mount.sub_path, &mount.sub_path_expr) {
                (Some(path), _) if !path.is_empty() => path.clone(),
                (_, Some(expression)) if !expression.is_empty() => {
                    super::env::expand(expression, environment)
                }
                _ => continue,
            };
            let Some(place) = places.get(&mount.name) else { continue };
            resolved.insert(mount.mount_path.clone(), sub_path(&mount.name, place, &asked)?);
        }
        Ok(resolved)
    }

    /// Unmounts and removes everything a pod had on disk.
    pub fn remove(&self, uid: &str) -> io::Result<()> {
        let folder = self.folders.pod(uid);
        let volumes = match fs::read_dir(folder.join("volumes")) {
            Ok(entries) => entries.collect::<io::Result<Vec<_>>>()?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        for volume in volumes {
            if is_mounted(&volume.path())? {
                nix::mount::umount2(&volume.path(), MntFlags::MNT_DETACH)?;
            }
        }
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

fn empty_dir(path: &Path, source: &core::EmptyDirVolumeSource, group: Option<i64>) -> io::Result<()> {
    fs::create_dir_all(path)?;
    if source.medium.as_deref() == Some("Memory") {
        let size = source.size_limit.as_ref().and_then(resources::units).filter(|size| *size > 0);
        in_memory(path, size)?;
    }
    let mode = if group.is_some() { 0o2777 } else { 0o777 };
    own(path, group)?;
    fs::set_permissions(path, Permissions::from_mode(mode))
}

/// Passwords and tokens never reach the disk.
fn is_secret(volume: &core::Volume) -> bool {
    let projected = volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten());
    let mut parts = projected.map(|part| part.secret.is_some() || part.service_account_token.is_some());
    volume.secret.is_some() || parts.any(|secret| secret)
}

fn in_memory(path: &Path, size: Option<i64>) -> io::Result<()> {
    if is_mounted(path)? {
        return Ok(());
    }
    let options = size.map(|size| format!("size={size}"));
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    Ok(nix::mount::mount(Some("tmpfs"), path, Some("tmpfs"), flags, options.as_deref())?)
}

/// Gives a file to a group.
fn own(path: &Path, group: Option<i64>) -> io::Result<()> {
    let Some(group) = group else { return Ok(()) };
    let group = u32::try_from(group).map_err(io::Error::other)?;
    std::os::unix::fs::lchown(path, None, Some(group))
}

fn is_mounted(path: &Path) -> io::Result<bool> {
    let Some(parent) = path.parent() else { return Ok(true) };
    Ok(fs::symlink_metadata(path)?.dev() != fs::metadata(parent)?.dev())
}

fn host_path(volume: &str, source: &core::HostPathVolumeSource) -> Result<PathBuf, VolumeError> {
    let path = PathBuf::from(&source.path);
    let kind = source.type_.clone().unwrap_or_default();
    let failed = |error| VolumeError::Io { volume: volume.to_owned(), path: path.clone(), source: error };
    match kind.as_str() {
        "DirectoryOrCreate" => fs::create_dir_all(&path).map_err(failed)?,
        "FileOrCreate" => {
            fs::OpenOptions::new().create(true).append(true).open(&path).map_err(failed)?;
        }
        _ => {}
    }
    let metadata = fs::metadata(&path);
    let fits = match (kind.as_str(), &metadata) {
        ("", _) => true,
        (_, Err(_)) => false,
        ("Directory" | "DirectoryOrCreate", Ok(metadata)) => metadata.is_dir(),
        ("File" | "FileOrCreate", Ok(metadata)) => metadata.is_file(),
        ("Socket", Ok(metadata)) => std::os::unix::fs::FileTypeExt::is_socket(&metadata.file_type()),
        ("CharDevice", Ok(metadata)) => std::os::unix::fs::FileTypeExt::is_char_device(&metadata.file_type()),
        ("BlockDevice", Ok(metadata)) => {
            std::os::unix::fs::FileTypeExt::is_block_device(&metadata.file_type())
        }
        _ => false,
    };
    if fits { Ok(path) } else { Err(VolumeError::HostPath { volume: volume.to_owned(), path, kind }) }
}

/// A path inside a volume; symbolic links a container may have left there do not lead out of it.
fn sub_path(volume: &str, place: &Path, asked: &str) -> Result<PathBuf, VolumeError> {
    let bad = || VolumeError::BadPath { volume: volume.to_owned(), path: asked.to_owned() };
    let inside =
        Path::new(asked).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if !inside {
        return Err(bad());
    }
    let path = place.join(asked);
    let failed = |source| VolumeError::Io { volume: volume.to_owned(), path: path.clone(), source };
    if !path.exists() {
        fs::create_dir_all(&path).map_err(failed)?;
    }
    let real = fs::canonicalize(&path).map_err(failed)?;
    let root = fs::canonicalize(place).map_err(failed)?;
    if real.starts_with(&root) { Ok(real) } else { Err(bad()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sub_path_does_not_leave_its_volume() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc", dir.path().join("out")).unwrap();
        fs::create_dir(dir.path().join("in")).unwrap();
        assert!(sub_path("v", dir.path(), "in").is_ok());
        assert!(sub_path("v", dir.path(), "made/deep").is_ok());
        for bad in ["..", "/etc", "in/../../x", "out"] {
            assert!(matches!(sub_path("v", dir.path(), bad), Err(VolumeError::BadPath { .. })), "{bad}");
        }
    }

    #[test]
    fn a_host_path_has_to_be_what_it_says() {
        let source = |path: &str, kind: &str| core::HostPathVolumeSource {
            path: path.to_owned(),
            type_: Some(kind.to_owned()),
        };
        assert!(host_path("v", &source("/etc", "Directory")).is_ok());
        assert!(host_path("v", &source("/nowhere", "")).is_ok());
        for (path, kind) in [("/etc", "File"), ("/nowhere", "Directory"), ("/etc/passwd", "Socket")] {
            assert!(host_path("v", &source(path, kind)).is_err(), "{path} {kind}");
        }
    }
}
