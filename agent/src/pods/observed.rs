//! What the runtime has of one pod: sandboxes and containers, newest first.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use jiff::Timestamp;
use k8s_cri::v1 as cri;

use super::cri::{Cri, CriError};
use super::names::{self, PodKey};

/// A sandbox of a pod.
#[derive(Debug, Clone, PartialEq)]
pub struct Sandbox {
    /// The runtime's id.
    pub id: String,
    /// How many were before.
    pub attempt: u32,
    /// Is it up, network included?
    pub ready: bool,
    /// Since when.
    pub created: Timestamp,
    /// Its addresses; none for a pod in the host's network.
    pub addresses: Vec<IpAddr>,
}

/// Where a container is.
#[derive(Debug, Clone, PartialEq)]
pub enum State {
    /// Made and never started: we died in between, or the start failed.
    Created,
    /// Running.
    Running {
        /// Since when.
        started: Timestamp,
    },
    /// Over.
    Exited {
        /// When it began; the epoch when it never did.
        started: Timestamp,
        /// When it ended.
        finished: Timestamp,
        /// Its exit code.
        code: i32,
        /// The runtime's word for why: "Completed", "Error", "OOMKilled".
        reason: String,
        /// The runtime's sentence, or the container's last words.
        message: String,
    },
    /// The runtime has lost track of it.
    Unknown,
}

/// A container of a pod.
#[derive(Debug, Clone, PartialEq)]
pub struct Container {
    /// The runtime's id.
    pub id: String,
    /// Its name in the pod.
    pub name: String,
    /// How many were before.
    pub attempt: u32,
    /// The sandbox it is in.
    pub sandbox: String,
    /// Where it is.
    pub state: State,
    /// The image it was made from, as the user said it.
    pub image: String,
    /// The image's digest.
    pub image_ref: String,
    /// The hash of the definition it was made from.
    pub hash: String,
    /// Made when.
    pub created: Timestamp,
}

impl Container {
    /// Does it run?
    pub fn is_running(&self) -> bool {
        matches!(self.state, State::Running { .. })
    }

    /// Its exit code, when it is over.
    pub fn exit_code(&self) -> Option<i32> {
        match self.state {
            State::Exited { code, .. } => Some(code),
            _ => None,
        }
    }
}

/// Sandboxes and containers of one pod.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Observed {
    /// Newest first.
    pub sandboxes: Vec<Sandbox>,
    /// Newest first.
    pub containers: Vec<Container>,
}

impl Observed {
    /// The newest sandbox, if it is up.
    pub fn sandbox(&self) -> Option<&Sandbox> {
        self.sandboxes.first().filter(|sandbox| sandbox.ready)
    }

    /// The newest container of a name, whatever its sandbox.
    pub fn latest(&self, name: &str) -> Option<&Container> {
        self.containers.iter().find(|container| container.name == name)
    }

    /// The newest container of a name in a sandbox.
    pub fn latest_in(&self, sandbox: &str, name: &str) -> Option<&Container> {
        self.containers.iter().find(|container| container.name == name && container.sandbox == sandbox)
    }

    /// Those that run.
    pub fn running(&self) -> impl Iterator<Item = &Container> {
        self.containers.iter().filter(|container| container.is_running())
    }
}

/// Reads one pod; what has ended does not change and is asked for only once.
#[derive(Debug, Default)]
pub struct Observer {
    ended: BTreeMap<String, Container>,
}

impl Observer {
    /// What the runtime has of `key` now.
    pub async fn observe(&mut self, cri: &Cri, key: &PodKey) -> Result<Observed, CriError> {
        let labels = HashMap::from([(names::POD_UID.to_owned(), key.uid.clone())]);
        let mut sandboxes = Vec::new();
        for listed in cri.sandboxes(labels.clone()).await? {
            if let Some(status) = cri.sandbox(&listed.id).await? {
                sandboxes.push(sandbox(status));
            }
        }
        let mut containers = Vec::new();
        for listed in cri.containers(labels).await? {
            if let Some(known) = self.ended.get(&listed.id) {
                containers.push(known.clone());
            } else if let Some(status) = cri.container(&listed.id).await? {
                containers.push(container(status, listed.pod_sandbox_id));
            }
        }
        sandboxes.sort_by_key(|sandbox| std::cmp::Reverse((sandbox.attempt, sandbox.created)));
        containers.sort_by_key(|container| std::cmp::Reverse((container.attempt, container.created)));
        let over = |container: &&Container| matches!(container.state, State::Exited { .. });
        self.ended = containers.iter().filter(over).map(|c| (c.id.clone(), c.clone())).collect();
        Ok(Observed { sandboxes, containers })
    }
}

fn sandbox(status: cri::PodSandboxStatus) -> Sandbox {
    let network = status.network.unwrap_or_default();
    let texts = std::iter::once(network.ip).chain(network.additional_ips.into_iter().map(|more| more.ip));
    Sandbox {
        id: status.id,
        attempt: status.metadata.map_or(0, |metadata| metadata.attempt),
        ready: status.state == cri::PodSandboxState::SandboxReady as i32,
        created: instant(status.created_at),
        addresses: texts.filter_map(|text| text.parse().ok()).collect(),
    }
}

fn container(status: cri::ContainerStatus, sandbox: String) -> Container {
    let state = match cri::ContainerState::try_from(status.state) {
        Ok(cri::ContainerState::ContainerCreated) => State::Created,
        Ok(cri::ContainerState::ContainerRunning) => State::Running { started: instant(status.started_at) },
        Ok(cri::ContainerState::ContainerExited) => State::Exited {
            started: instant(status.started_at),
            finished: instant(status.finished_at),
            code: status.exit_code,
            reason: status.reason.clone(),
            message: last_words(&status).unwrap_or_else(|| status.message.clone()),
        },
        Ok(cri::ContainerState::ContainerUnknown) | Err(_) => State::Unknown,
    };
    let metadata = status.metadata.unwrap_or_default();
    Container {
        id: status.id,
        name: metadata.name,
        attempt: metadata.attempt,
        sandbox,
        state,
        image: status.image.map(|image| image.image).unwrap_or_default(),
        image_ref: status.image_ref,
        hash: status.annotations.get(names::HASH).cloned().unwrap_or_default(),
        created: instant(status.created_at),
    }
}

/// Kubelets read no more than this of the file for last words, and of a log that stands in for it.
const MESSAGE_LIMIT: u64 = 4096;
const LOG_LIMIT: u64 = 2048;

/// What a container left in its file; the end of its log when it failed without a word and may be quoted.
fn last_words(status: &cri::ContainerStatus) -> Option<String> {
    let inside = status.annotations.get(names::MESSAGE_PATH)?;
    let outside = &status.mounts.iter().find(|mount| mount.container_path == *inside)?.host_path;
    let said = read_end(outside, MESSAGE_LIMIT).filter(|said| !said.is_empty());
    let quotes =
        status.annotations.get(names::MESSAGE_POLICY).is_some_and(|policy| policy == "FallbackToLogsOnError");
    if said.is_some() || !quotes || status.exit_code == 0 {
        return said;
    }
    let log = read_end(&status.log_path, LOG_LIMIT)?;
    // Time, stream and tag are not what the container said.
    let content = |line: &str| line.splitn(4, ' ').nth(3).unwrap_or_default().to_owned();
    Some(log.lines().map(content).collect::<Vec<String>>().join("\n"))
}

fn read_end(path: &str, limit: u64) -> Option<String> {
    use std::io::{Read, Seek, SeekFrom};
    let mut file = std::fs::File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(limit))).ok()?;
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// CRI counts nanoseconds since the epoch.
fn instant(nanoseconds: i64) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(nanoseconds)).unwrap_or(Timestamp::UNIX_EPOCH)
}
