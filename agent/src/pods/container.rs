//! The configuration of one container, out of its definition and what was prepared for it: pure.

use std::collections::HashMap;
use std::path::PathBuf;

use k8s_cri::v1 as cri;
use k8s_openapi::api::core::v1 as core;

use super::env;
use super::names::{self, PodKey};
use super::resources;
use super::sandbox::{self, NodeFacts};

/// What has been prepared for one container.
#[derive(Debug, Clone, Default)]
pub struct Prepared {
    /// The image's digest.
    pub image: String,
    /// Its environment.
    pub environment: Vec<(String, String)>,
    /// Volumes: name and where they are on the host.
    pub volumes: HashMap<String, PathBuf>,
    /// `subPath` and `subPathExpr` resolved: by mount path.
    pub sub_paths: HashMap<String, PathBuf>,
    /// The image's own user, when it has a number.
    pub image_user: Option<i64>,
}

/// A container cannot be made as it is defined.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A mount of a volume that is not there.
    #[error("container {container} mounts volume {volume:?}, which the pod does not have")]
    NoVolume {
        /// The container.
        container: String,
        /// The volume.
        volume: String,
    },
    /// `runAsNonRoot` with a root image.
    #[error("container has runAsNonRoot and image will run as root")]
    Root,
}

/// The configuration a container is made with.
pub fn config(
    pod: &core::Pod,
    container: &core::Container,
    attempt: u32,
    prepared: &Prepared,
    node: &NodeFacts,
) -> Result<cri::ContainerConfig, ConfigError> {
    let key = PodKey::of(pod);
    let spec = pod.spec.clone().unwrap_or_default();
    let qos = resources::qos(&spec);
    let expanded = |words: &Option<Vec<String>>| {
        words.iter().flatten().map(|word| env::expand(word, &prepared.environment)).collect()
    };
    Ok(cri::ContainerConfig {
        metadata: Some(cri::ContainerMetadata { name: container.name.clone(), attempt }),
        image: Some(cri::ImageSpec {
            image: prepared.image.clone(),
            user_specified_image: container.image.clone().unwrap_or_default(),
            ..Default::default()
        }),
        command: expanded(&container.command),
        args: expanded(&container.args),
        working_dir: container.working_dir.clone().unwrap_or_default(),
        envs: prepared
            .environment
            .iter()
            .map(|(key, value)| cri::KeyValue { key: key.clone(), value: value.clone() })
            .collect(),
        mounts: mounts(&key, &spec, container, attempt, (prepared, node))?,
        labels: key.container_labels(&container.name),
        annotations: annotations(&spec, container, attempt),
        log_path: names::log_path(&container.name, attempt),
        stdin: container.stdin == Some(true),
        stdin_once: container.stdin_once == Some(true),
        tty: container.tty == Some(true),
        linux: Some(cri::LinuxContainerConfig {
            resources: Some(resources::of_container(container, qos, node.memory)),
            security_context: Some(security(&spec, container, prepared)?),
        }),
        ..Default::default()
    })
}

/// Where a container leaves its last words unless it says otherwise.
const MESSAGE_PATH: &str = "/dev/termination-log";

fn message_path(container: &core::Container) -> &str {
    container.termination_message_path.as_deref().filter(|path| !path.is_empty()).unwrap_or(MESSAGE_PATH)
}

fn annotations(spec: &core::PodSpec, container: &core::Container, attempt: u32) -> HashMap<String, String> {
    let policy = container.termination_message_policy.as_deref().unwrap_or("File");
    let mut annotations = HashMap::from([
        (names::HASH.to_owned(), names::hash(container)),
        (names::RESTART_COUNT.to_owned(), attempt.to_string()),
        (names::MESSAGE_PATH.to_owned(), message_path(container).to_owned()),
        (names::MESSAGE_POLICY.to_owned(), policy.to_owned()),
    ]);
    if let Some(grace) = spec.termination_grace_period_seconds {
        annotations.insert(names::GRACE.to_owned(), grace.to_string());
    }
    annotations
}

fn mounts(
    key: &PodKey,
    spec: &core::PodSpec,
    container: &core::Container,
    attempt: u32,
    (prepared, node): (&Prepared, &NodeFacts),
) -> Result<Vec<cri::Mount>, ConfigError> {
    let mut mounts = Vec::new();
    for mount in container.volume_mounts.iter().flatten() {
        let volume = prepared.volumes.get(&mount.name).ok_or_else(|| ConfigError::NoVolume {
            container: container.name.clone(),
            volume: mount.name.clone(),
        })?;
        let host_path = prepared.sub_paths.get(&mount.mount_path).unwrap_or(volume);
        let propagation = match mount.mount_propagation.as_deref() {
            Some("HostToContainer") => cri::MountPropagation::PropagationHostToContainer,
            Some("Bidirectional") => cri::MountPropagation::PropagationBidirectional,
            _ => cri::MountPropagation::PropagationPrivate,
        };
        mounts.push(cri::Mount {
            container_path: mount.mount_path.clone(),
            host_path: host_path.display().to_string(),
            readonly: mount.read_only == Some(true),
            propagation: propagation as i32,
            ..Default::default()
        });
    }
    let taken = |path: &str, mounts: &[cri::Mount]| mounts.iter().any(|m| m.container_path == path);
    let private_network = spec.host_network != Some(true) || spec.host_aliases.is_some();
    if private_network && !taken("/etc/hosts", &mounts) {
        mounts.push(bind("/etc/hosts", node.folders.hosts(&key.uid)));
    }
    let last_words = message_path(container);
    if !taken(last_words, &mounts) {
        mounts.push(bind(last_words, node.folders.last_words(&key.uid, &container.name, attempt)));
    }
    Ok(mounts)
}

fn bind(container_path: &str, host_path: PathBuf) -> cri::Mount {
    cri::Mount {
        container_path: container_path.to_owned(),
        host_path: host_path.display().to_string(),
        ..Default::default()
    }
}

fn security(
    spec: &core::PodSpec,
    container: &core::Container,
    prepared: &Prepared,
) -> Result<cri::LinuxContainerSecurityContext, ConfigError> {
    let own = container.security_context.clone().unwrap_or_default();
    let pods = spec.security_context.clone().unwrap_or_default();
    let privileged = own.privileged == Some(true);
    let user = own.run_as_user.or(pods.run_as_user);
    let non_root = own.run_as_non_root.or(pods.run_as_non_root) == Some(true);
    if non_root && user.or(prepared.image_user).unwrap_or(0) == 0 {
        return Err(ConfigError::Root);
    }
    let group = own.run_as_group.or(pods.run_as_group);
    let capabilities = own.capabilities.as_ref().map(|asked| cri::Capability {
        add_capabilities: asked.add.clone().unwrap_or_default(),
        drop_capabilities: asked.drop.clone().unwrap_or_default(),
        ..Default::default()
    });
    let (masked_paths, readonly_paths) = if privileged || own.proc_mount.as_deref() == Some("Unmasked") {
        (Vec::new(), Vec::new())
    } else {
        (MASKED.map(str::to_owned).to_vec(), READ_ONLY.map(str::to_owned).to_vec())
    };
    let seccomp = own.seccomp_profile.as_ref().or(pods.seccomp_profile.as_ref());
    Ok(cri::LinuxContainerSecurityContext {
        capabilities,
        privileged,
        namespace_options: Some(sandbox::namespaces(spec)),
        // CRI takes a group only together with a user.
        run_as_user: user
            .or(group.and(prepared.image_user.or(Some(0))))
            .map(|value| cri::Int64Value { value }),
        run_as_group: group.map(|value| cri::Int64Value { value }),
        readonly_rootfs: own.read_only_root_filesystem == Some(true),
        supplemental_groups: sandbox::groups(&pods),
        no_new_privs: own.allow_privilege_escalation == Some(false),
        masked_paths,
        readonly_paths,
        seccomp: Some(if privileged { sandbox::default_profile() } else { sandbox::profile(seccomp) }),
        ..Default::default()
    })
}

/// What containers do not see of /proc and /sys, and what they cannot write: the defaults of kubelets.
const MASKED: [&str; 9] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/sys/firmware",
];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
