//! Ports as Services, EndpointSlices and Endpoints have them, in one form that can be compared and ordered.

use k8s_openapi::api::core::v1::{self as core, ContainerPort, ServicePort};
use k8s_openapi::api::discovery::v1 as discovery;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::objects::{Pod, Service};

const TCP: &str = "TCP";

/// A port of an endpoint, with the defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Port {
    /// The name of the Service's port, empty if it has none.
    pub(crate) name: String,
    pub(crate) protocol: String,
    pub(crate) number: i32,
    pub(crate) application: Option<String>,
}

impl From<&discovery::EndpointPort> for Port {
    fn from(port: &discovery::EndpointPort) -> Self {
        Self {
            name: port.name.clone().unwrap_or_default(),
            protocol: port.protocol.clone().unwrap_or_else(|| TCP.to_owned()),
            number: port.port.unwrap_or_default(),
            application: port.app_protocol.clone(),
        }
    }
}

impl From<&core::EndpointPort> for Port {
    fn from(port: &core::EndpointPort) -> Self {
        Self {
            name: port.name.clone().unwrap_or_default(),
            protocol: port.protocol.clone().unwrap_or_else(|| TCP.to_owned()),
            number: port.port,
            application: port.app_protocol.clone(),
        }
    }
}

impl From<&Port> for discovery::EndpointPort {
    fn from(port: &Port) -> Self {
        Self {
            name: Some(port.name.clone()),
            protocol: Some(port.protocol.clone()),
            port: Some(port.number),
            app_protocol: port.application.clone(),
        }
    }
}

impl From<&Port> for core::EndpointPort {
    fn from(port: &Port) -> Self {
        Self {
            name: Some(port.name.clone()).filter(|name| !name.is_empty()),
            protocol: Some(port.protocol.clone()),
            port: port.number,
            app_protocol: port.application.clone(),
        }
    }
}

/// The Service's ports as numbers in this pod; a name the pod does not have leaves its port out.
pub(crate) fn resolved_ports(service: &Service, pod: &Pod) -> Vec<Port> {
    let resolve = |port: &ServicePort| {
        let protocol = port.protocol.clone().unwrap_or_else(|| TCP.to_owned());
        let number = match port.target_port.as_ref() {
            None | Some(IntOrString::Int(0)) => port.port,
            Some(IntOrString::Int(number)) => *number,
            Some(IntOrString::String(name)) => named_port(pod, name, &protocol)?,
        };
        let name = port.name.clone().unwrap_or_default();
        Some(Port { name, protocol, number, application: port.app_protocol.clone() })
    };
    let mut ports: Vec<Port> = service.spec.ports.iter().filter_map(resolve).collect();
    ports.sort();
    ports
}

fn named_port(pod: &Pod, name: &str, protocol: &str) -> Option<i32> {
    let sidecars =
        pod.spec.init_containers.iter().filter(|one| one.restart_policy.as_deref() == Some("Always"));
    let matches = |port: &&ContainerPort| {
        port.name.as_deref() == Some(name) && port.protocol.as_deref().unwrap_or(TCP) == protocol
    };
    pod.spec
        .containers
        .iter()
        .chain(sidecars)
        .flat_map(|container| &container.ports)
        .find(matches)
        .map(|port| port.container_port)
}
