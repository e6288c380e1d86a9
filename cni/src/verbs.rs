//! The verbs: a request in, what to print and the exit code out.

use std::io;
use std::path::Path;

use serde::Serialize;

use crate::answer::{self, Failure, Versions};
use crate::client::{Agent, CallError};
use crate::proto;
use crate::request::{PortMapping, Request, SUPPORTED, Target, Verb};
use crate::spool::Waiting;

/// What goes to standard output, and whether it is a success.
#[derive(Debug, PartialEq)]
pub enum Answer {
    /// A success that has nothing to say.
    Silent,
    /// A success with JSON.
    Printed(String),
    /// A failure.
    Failed(Failure),
}

/// A DEL that could neither be delivered nor queued.
#[derive(Debug, thiserror::Error)]
#[error("the agent is away and DEL cannot be queued in {}", dir.display())]
struct Unqueued {
    dir: std::path::PathBuf,
    #[source]
    source: std::io::Error,
}

/// Does what was asked; `queue` keeps a DEL in a directory while the agent is away.
pub fn serve(
    request: &Request,
    agent: &impl Agent,
    queue: impl FnOnce(&Path, &Waiting) -> io::Result<()>,
) -> Answer {
    let version = request.config.cni_version.as_str();
    let failed = |error: &CallError| Answer::Failed(Failure::new(version, error.code(), error));
    match &request.verb {
        Verb::Version => versions(),
        Verb::Add(target) => {
            match agent.add(add_request(target, &request.config.runtime_config.port_mappings)) {
                Ok(reply) => {
                    let ours = result_of(reply);
                    let earlier = request.config.prev_result.clone().unwrap_or_default();
                    printed(&ours.after(earlier).for_version(version))
                }
                Err(error) => failed(&error),
            }
        }
        Verb::Del(target) => del(request, target, agent, queue),
        Verb::Check(target) => {
            let believed = request.config.prev_result.as_ref().map(|prev| prev.addresses_of(&target.ifname));
            let check = proto::CheckRequest {
                attachment: Some(attachment(target)),
                netns: target.netns.clone(),
                addresses: believed.unwrap_or_default(),
            };
            agent.check(check).map_or_else(|error| failed(&error), |()| Answer::Silent)
        }
        Verb::Status => match agent.status() {
            Ok(()) => Answer::Silent,
            // 50: the plugin is not available, existing containers keep their network.
            Err(error) => Answer::Failed(Failure::new(version, 50, &error)),
        },
        Verb::Gc(valid) => {
            let valid = valid.iter().map(|known| proto::Attachment {
                container_id: known.container_id.clone(),
                ifname: known.ifname.clone(),
            });
            let gc = proto::GcRequest { valid: valid.collect() };
            agent.gc(gc).map_or_else(|error| failed(&error), |()| Answer::Silent)
        }
    }
}

/// DEL must not fail because the agent is away: then it waits on disk.
fn del(
    request: &Request,
    target: &Target,
    agent: &impl Agent,
    queue: impl FnOnce(&Path, &Waiting) -> io::Result<()>,
) -> Answer {
    let version = request.config.cni_version.as_str();
    match agent.del(proto::DelRequest { attachment: Some(attachment(target)) }) {
        Ok(()) => Answer::Silent,
        Err(error) if error.is_away() => {
            let waiting =
                Waiting { container_id: target.container_id.clone(), ifname: target.ifname.clone() };
            let dir = request.config.spool_dir.clone();
            match queue(&dir, &waiting) {
                Ok(()) => Answer::Silent,
                // 5: an I/O failure.
                Err(source) => Answer::Failed(Failure::new(version, 5, &Unqueued { dir, source })),
            }
        }
        Err(error) => Answer::Failed(Failure::new(version, error.code(), &error)),
    }
}

fn add_request(target: &Target, ports: &[PortMapping]) -> proto::AddRequest {
    proto::AddRequest {
        attachment: Some(attachment(target)),
        netns: target.netns.clone(),
        pod: Some(proto::Pod {
            namespace: target.pod.namespace.clone(),
            name: target.pod.name.clone(),
            uid: target.pod.uid.clone(),
        }),
        port_mappings: ports.iter().map(port_mapping).collect(),
    }
}

fn port_mapping(port: &PortMapping) -> proto::PortMapping {
    proto::PortMapping {
        host_port: port.host_port.into(),
        container_port: port.container_port.into(),
        protocol: port.protocol.clone(),
        host_ip: port.host_ip.clone(),
    }
}

fn attachment(target: &Target) -> proto::Attachment {
    proto::Attachment { container_id: target.container_id.clone(), ifname: target.ifname.clone() }
}

fn result_of(reply: proto::AddReply) -> answer::Result {
    let interface = |made: proto::Interface| answer::Interface {
        name: made.name,
        mac: made.mac,
        mtu: (made.mtu > 0).then_some(made.mtu),
        sandbox: made.sandbox,
        ..answer::Interface::default()
    };
    let ip = |given: proto::Address| answer::Ip {
        version: None,
        interface: Some(given.interface),
        address: given.address,
        gateway: given.gateway,
    };
    answer::Result {
        interfaces: reply.interfaces.into_iter().map(interface).collect(),
        ips: reply.ips.into_iter().map(ip).collect(),
        routes: reply
            .routes
            .into_iter()
            .map(|route| answer::Route { dst: route.dst, gw: route.gw, ..answer::Route::default() })
            .collect(),
        ..answer::Result::default()
    }
}

/// The answer to VERSION.
pub(crate) fn versions() -> Answer {
    printed(&Versions {
        cni_version: SUPPORTED[SUPPORTED.len() - 1].to_owned(),
        supported_versions: SUPPORTED.map(str::to_owned).to_vec(),
    })
}

pub(crate) fn printed(value: &impl Serialize) -> Answer {
    Answer::Printed(serde_json::to_string(value).expect("plain structs of strings and numbers serialize"))
}
