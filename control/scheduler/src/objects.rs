//! Slim views of pods and nodes: only what scheduling reads.

use std::borrow::Cow;
use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{NodeAffinity, Taint, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::DynamicResourceScope;
use serde::Deserialize;

macro_rules! kind {
    ($name:ident, $plural:literal, $spec:ty, $status:ty) => {
        #[derive(Debug, Clone, Default, Deserialize)]
        pub(crate) struct $name {
            #[serde(default)]
            pub(crate) metadata: ObjectMeta,
            #[serde(default)]
            pub(crate) spec: $spec,
            #[serde(default)]
            pub(crate) status: $status,
        }

        impl kube::Resource for $name {
            type DynamicType = ();
            type Scope = DynamicResourceScope;

            fn kind((): &()) -> Cow<'_, str> {
                stringify!($name).into()
            }
            fn group((): &()) -> Cow<'_, str> {
                "".into()
            }
            fn version((): &()) -> Cow<'_, str> {
                "v1".into()
            }
            fn plural((): &()) -> Cow<'_, str> {
                $plural.into()
            }
            fn meta(&self) -> &ObjectMeta {
                &self.metadata
            }
            fn meta_mut(&mut self) -> &mut ObjectMeta {
                &mut self.metadata
            }
        }
    };
}

kind!(Pod, "pods", PodSpec, PodStatus);
kind!(Node, "nodes", NodeSpec, NodeStatus);

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct PodSpec {
    pub(crate) node_name: Option<String>,
    pub(crate) node_selector: BTreeMap<String, String>,
    pub(crate) affinity: Affinity,
    pub(crate) tolerations: Vec<Toleration>,
    pub(crate) containers: Vec<Container>,
    pub(crate) init_containers: Vec<Container>,
    pub(crate) overhead: BTreeMap<String, String>,
    pub(crate) priority: i32,
    pub(crate) scheduler_name: String,
    pub(crate) scheduling_gates: Vec<serde_json::Value>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Affinity {
    pub(crate) node_affinity: Option<NodeAffinity>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Container {
    pub(crate) resources: Requirements,
    pub(crate) ports: Vec<Port>,
    /// `Always` makes an init container a sidecar.
    pub(crate) restart_policy: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Requirements {
    pub(crate) requests: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Port {
    pub(crate) host_port: u16,
    #[serde(rename = "hostIP")]
    pub(crate) host_ip: String,
    pub(crate) protocol: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct PodStatus {
    pub(crate) phase: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct NodeSpec {
    pub(crate) taints: Vec<Taint>,
    pub(crate) unschedulable: bool,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct NodeStatus {
    pub(crate) allocatable: BTreeMap<String, String>,
}

impl Pod {
    pub(crate) fn uid(&self) -> &str {
        self.metadata.uid.as_deref().unwrap_or_default()
    }

    /// Waits for this scheduler: no node yet, not ended, not leaving, no gate closed.
    pub(crate) fn is_waiting(&self, scheduler: &str) -> bool {
        self.spec.node_name.is_none()
            && self.spec.scheduler_name == scheduler
            && self.spec.scheduling_gates.is_empty()
            && self.metadata.deletion_timestamp.is_none()
            && !self.is_finished()
    }

    /// Whether scheduling would decide the same about both versions.
    pub(crate) fn spec_equals(&self, other: &Self) -> bool {
        self.spec == other.spec
    }

    /// Ended, so that it holds no resources any more.
    pub(crate) fn is_finished(&self) -> bool {
        matches!(self.status.phase.as_str(), "Succeeded" | "Failed")
    }
}
