//! Keeps container logs small: the runtime writes them, we move them away when they have grown.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::cri::{Cri, CriError};
use super::names::{self, Folders, PodKey};

/// How often sizes are looked at.
const PERIOD: Duration = Duration::from_secs(10);
/// Kubelets' defaults: a log is moved away at this size, and so many are kept, the one in use included.
const LIMIT: u64 = 10 << 20;
const KEEP: usize = 5;

/// A log could not be moved away.
#[derive(Debug, thiserror::Error)]
enum RotateError {
    #[error(transparent)]
    Cri(#[from] CriError),
    #[error("{}", path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// Rotates the logs of all running containers until `stop`.
pub async fn run(cri: Cri, folders: Folders, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(PERIOD) => {}
            () = stop.cancelled() => return,
        }
        if let Err(error) = rotate_all(&cri, &folders).await {
            tracing::warn!(error = super::worker::chain(&error), "logs are not rotated");
        }
    }
}

async fn rotate_all(cri: &Cri, folders: &Folders) -> Result<(), RotateError> {
    let running = k8s_cri::v1::ContainerState::ContainerRunning as i32;
    for container in cri.containers(names::everything()).await? {
        let key = PodKey::from_labels(&container.labels);
        let (Some(key), Some(metadata), true) = (key, container.metadata, container.state == running) else {
            continue;
        };
        let path = folders.log(&key, &metadata.name, metadata.attempt);
        if fs::metadata(&path).is_ok_and(|metadata| metadata.len() >= LIMIT) {
            let failed = |source| RotateError::Io { path: path.clone(), source };
            move_away(&path, Timestamp::now(), KEEP).map_err(failed)?;
            cri.reopen_log(&container.id).await?;
        }
    }
    Ok(())
}

/// `0.log` becomes `0.log.20260102-030405`; the oldest go.
fn move_away(path: &Path, now: Timestamp, keep: usize) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(now.strftime(".%Y%m%d-%H%M%S").to_string());
    fs::rename(path, &name)?;
    let (Some(dir), Some(file)) = (path.parent(), path.file_name()) else { return Ok(()) };
    let prefix = format!("{}.", file.to_string_lossy());
    let mut old: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            old.push(entry.path());
        }
    }
    // Their names sort by time.
    old.sort();
    let surplus = (old.len() + 1).saturating_sub(keep);
    old.iter().take(surplus).try_for_each(fs::remove_file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_newest_logs_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("0.log");
        for second in 0..7 {
            fs::write(&log, second.to_string()).unwrap();
            move_away(&log, Timestamp::from_second(second).unwrap(), 3).unwrap();
        }
        let mut names: Vec<String> = fs::read_dir(dir.path())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["0.log.19700101-000005", "0.log.19700101-000006"]);
    }
}
