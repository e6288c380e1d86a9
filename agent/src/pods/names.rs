//! Labels, annotations and paths: how a pod is recognised in the runtime and on disk, the way kubelets do it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, Pod};
use sha2::{Digest, Sha256};

/// Label: the pod's name.
pub const POD_NAME: &str = "io.kubernetes.pod.name";
/// Label: the pod's namespace.
pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
/// Label: the pod's uid.
pub const POD_UID: &str = "io.kubernetes.pod.uid";
/// Label: the container's name.
pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";
/// Annotation: a hash of the container's definition.
pub const HASH: &str = "io.kubernetes.container.hash";
/// Annotation: how often the container was restarted.
pub const RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
/// Annotation: where the container leaves its last words.
pub const MESSAGE_PATH: &str = "io.kubernetes.container.terminationMessagePath";
/// Annotation: whether the log stands in for last words that are missing.
pub const MESSAGE_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
/// Annotation: the pod's grace period in seconds.
pub const GRACE: &str = "io.kubernetes.pod.terminationGracePeriod";

/// Name and namespace and uid of a pod, as plain strings.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodKey {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

impl PodKey {
    /// The key of a Pod object.
    pub fn of(pod: &Pod) -> Self {
        let metadata = &pod.metadata;
        Self {
            namespace: metadata.namespace.clone().unwrap_or_default(),
            name: metadata.name.clone().unwrap_or_default(),
            uid: metadata.uid.clone().unwrap_or_default(),
        }
    }

    /// The key a sandbox or container was labelled with; `None` for what is not ours.
    pub fn from_labels(labels: &HashMap<String, String>) -> Option<Self> {
        Some(Self {
            namespace: labels.get(POD_NAMESPACE)?.clone(),
            name: labels.get(POD_NAME)?.clone(),
            uid: labels.get(POD_UID)?.clone(),
        })
    }

    /// The labels a sandbox is found by.
    pub fn labels(&self) -> HashMap<String, String> {
        HashMap::from([
            (POD_NAMESPACE.to_owned(), self.namespace.clone()),
            (POD_NAME.to_owned(), self.name.clone()),
            (POD_UID.to_owned(), self.uid.clone()),
        ])
    }

    /// The labels a container is found by.
    pub fn container_labels(&self, container: &str) -> HashMap<String, String> {
        let mut labels = self.labels();
        labels.insert(CONTAINER_NAME.to_owned(), container.to_owned());
        labels
    }
}

impl std::fmt::Display for PodKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Where pods live on disk.
#[derive(Debug, Clone)]
pub struct Folders {
    state_dir: PathBuf,
}

impl Folders {
    /// Below the agent's state folder.
    pub fn new(state_dir: &Path) -> Self {
        Self { state_dir: state_dir.to_owned() }
    }

    /// All pods' folders.
    pub fn pods(&self) -> PathBuf {
        self.state_dir.join("pods")
    }

    /// A pod's folder: volumes, hosts file, last words.
    pub fn pod(&self, uid: &str) -> PathBuf {
        self.pods().join(uid)
    }

    /// One volume of a pod.
    pub fn volume(&self, uid: &str, volume: &str) -> PathBuf {
        self.pod(uid).join("volumes").join(volume)
    }

    /// The pod's `/etc/hosts`.
    pub fn hosts(&self, uid: &str) -> PathBuf {
        self.pod(uid).join("etc-hosts")
    }

    /// Where one run of a container leaves its last words.
    pub fn last_words(&self, uid: &str, container: &str, attempt: u32) -> PathBuf {
        self.pod(uid).join("last-words").join(format!("{container}-{attempt}"))
    }

    /// The folder of a pod's logs.
    pub fn logs(&self, key: &PodKey) -> PathBuf {
        self.state_dir.join("logs").join(format!("{}_{}_{}", key.namespace, key.name, key.uid))
    }

    /// Every pod that has a folder; of one without logs only the uid is known.
    pub fn present(&self) -> Vec<PodKey> {
        let names = |folder: PathBuf| {
            let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned())
        };
        let of_logs = names(self.state_dir.join("logs")).filter_map(|name| {
            let mut parts = name.splitn(3, '_').map(str::to_owned);
            Some(PodKey { namespace: parts.next()?, name: parts.next()?, uid: parts.next()? })
        });
        let mut keys: Vec<PodKey> = of_logs.collect();
        for uid in names(self.pods()) {
            if keys.iter().all(|key| key.uid != uid) {
                keys.push(PodKey { namespace: String::new(), name: String::new(), uid });
            }
        }
        keys
    }

    /// The log of one run of a container.
    pub fn log(&self, key: &PodKey, container: &str, attempt: u32) -> PathBuf {
        self.logs(key).join(log_path(container, attempt))
    }
}

/// The log of one run of a container, relative to the pod's log folder.
pub fn log_path(container: &str, attempt: u32) -> String {
    format!("{container}/{attempt}.log")
}

/// Changes when the container has to be made anew: name and image, the mutable part of a container's definition.
pub fn hash(container: &Container) -> String {
    let mut hasher = Sha256::new();
    hasher.update(&container.name);
    hasher.update([0]);
    hasher.update(container.image.as_deref().unwrap_or_default());
    hasher.finalize()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Annotations without those kept for clients.
pub fn annotations(pod: &Pod) -> HashMap<String, String> {
    let annotations = pod.metadata.annotations.clone().unwrap_or_default();
    annotations
        .into_iter()
        .filter(|(key, _)| key != "kubectl.kubernetes.io/last-applied-configuration")
        .collect()
}

/// A label selector that matches everything.
pub fn everything() -> HashMap<String, String> {
    HashMap::new()
}
