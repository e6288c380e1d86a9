//! The configuration of a pod's sandbox, out of its object: pure.

use k8s_cri::v1 as cri;
use k8s_openapi::api::core::v1 as core;

use super::dns::Dns;
use super::names::{self, Folders, PodKey};
use super::resources;

/// What every pod of the node has in common.
#[derive(Debug, Clone)]
pub struct NodeFacts {
    /// The node's name.
    pub name: String,
    /// The cgroup above all pods.
    pub cgroup_parent: String,
    /// Bytes of memory.
    pub memory: i64,
    /// How names are resolved.
    pub dns: Dns,
    /// Where pods live on disk.
    pub folders: Folders,
}

/// The configuration a sandbox is made with.
pub fn config(pod: &core::Pod, attempt: u32, node: &NodeFacts) -> cri::PodSandboxConfig {
    let key = PodKey::of(pod);
    let spec = pod.spec.clone().unwrap_or_default();
    let mut labels = key.labels();
    labels.extend(pod.metadata.labels.clone().unwrap_or_default());
    let linux = cri::LinuxPodSandboxConfig {
        cgroup_parent: resources::cgroup(&node.cgroup_parent, &spec, &key.uid),
        security_context: Some(security(&spec)),
        sysctls: sysctls(&spec),
        ..Default::default()
    };
    cri::PodSandboxConfig {
        metadata: Some(cri::PodSandboxMetadata {
            name: key.name.clone(),
            uid: key.uid.clone(),
            namespace: key.namespace.clone(),
            attempt,
        }),
        hostname: if spec.host_network == Some(true) { String::new() } else { hostname(pod) },
        log_directory: node.folders.logs(&key).display().to_string(),
        dns_config: Some(node.dns.config(&spec, &key.namespace)),
        port_mappings: port_mappings(&spec),
        labels,
        annotations: names::annotations(pod),
        linux: Some(linux),
        ..Default::default()
    }
}

/// Ports of the host that lead to the pod; one that shares the host's network has them anyway.
fn port_mappings(spec: &core::PodSpec) -> Vec<cri::PortMapping> {
    if spec.host_network == Some(true) {
        return Vec::new();
    }
    // Sidecars are init containers that stay; others hold their ports for as long as they run.
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let ports = containers.flat_map(|container| container.ports.iter().flatten());
    let mapped = ports.filter_map(|port| {
        let protocol = match port.protocol.as_deref() {
            Some("UDP") => cri::Protocol::Udp,
            Some("SCTP") => cri::Protocol::Sctp,
            _ => cri::Protocol::Tcp,
        };
        Some(cri::PortMapping {
            protocol: protocol as i32,
            container_port: port.container_port,
            host_port: port.host_port.filter(|number| *number != 0)?,
            host_ip: port.host_ip.clone().unwrap_or_default(),
        })
    });
    mapped.collect()
}

/// The pod's own name for itself.
pub fn hostname(pod: &core::Pod) -> String {
    let asked = pod.spec.as_ref().and_then(|spec| spec.hostname.clone()).filter(|name| !name.is_empty());
    let mut name = asked.or_else(|| pod.metadata.name.clone()).unwrap_or_default();
    // The kernel takes 64 bytes; DNS labels have 63.
    name.truncate(63);
    name.trim_end_matches(['-', '.']).to_owned()
}

fn security(spec: &core::PodSpec) -> cri::LinuxSandboxSecurityContext {
    let context = spec.security_context.clone().unwrap_or_default();
    let privileged = spec
        .containers
        .iter()
        .chain(spec.init_containers.iter().flatten())
        .any(|container| container.security_context.as_ref().is_some_and(|c| c.privileged == Some(true)));
    cri::LinuxSandboxSecurityContext {
        namespace_options: Some(namespaces(spec)),
        run_as_user: context.run_as_user.map(|value| cri::Int64Value { value }),
        run_as_group: context.run_as_user.and(context.run_as_group).map(|value| cri::Int64Value { value }),
        supplemental_groups: groups(&context),
        privileged,
        seccomp: Some(default_profile()),
        ..Default::default()
    }
}

/// Which namespaces the pod shares with the host, and its containers with each other.
pub fn namespaces(spec: &core::PodSpec) -> cri::NamespaceOption {
    let host = |asked: Option<bool>, otherwise: cri::NamespaceMode| {
        if asked == Some(true) { cri::NamespaceMode::Node as i32 } else { otherwise as i32 }
    };
    let pid = if spec.share_process_namespace == Some(true) {
        cri::NamespaceMode::Pod
    } else {
        cri::NamespaceMode::Container
    };
    cri::NamespaceOption {
        network: host(spec.host_network, cri::NamespaceMode::Pod),
        pid: host(spec.host_pid, pid),
        ipc: host(spec.host_ipc, cri::NamespaceMode::Pod),
        ..Default::default()
    }
}

/// fsGroup and supplementalGroups.
pub fn groups(context: &core::PodSecurityContext) -> Vec<i64> {
    context.fs_group.into_iter().chain(context.supplemental_groups.iter().flatten().copied()).collect()
}

/// Where nothing is asked for, seccomp does not filter: as with kubelets by default.
pub fn default_profile() -> cri::SecurityProfile {
    profile(None)
}

/// A seccomp profile.
pub fn profile(asked: Option<&core::SeccompProfile>) -> cri::SecurityProfile {
    use cri::security_profile::ProfileType;
    let (kind, localhost_ref) = match asked.map(|asked| (asked.type_.as_str(), &asked.localhost_profile)) {
        Some(("RuntimeDefault", _)) => (ProfileType::RuntimeDefault, String::new()),
        Some(("Localhost", path)) => (ProfileType::Localhost, path.clone().unwrap_or_default()),
        _ => (ProfileType::Unconfined, String::new()),
    };
    cri::SecurityProfile { profile_type: kind as i32, localhost_ref }
}

fn sysctls(spec: &core::PodSpec) -> std::collections::HashMap<String, String> {
    let asked = spec.security_context.iter().flat_map(|context| context.sysctls.iter().flatten());
    asked.map(|sysctl| (sysctl.name.clone(), sysctl.value.clone())).collect()
}
