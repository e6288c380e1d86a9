//! The short-lived namespace in which check makes its traffic: over the public API, and removed whatever happens.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, Pod, Service, ServiceAccount};
use kube::api::{Api, DeleteParams, ListParams, LogParams, Patch, PatchParams, PostParams};

use super::matrix::Server;
use super::nodes::Chosen;
use super::objects;
use super::traffic::{Ask, Heard};

/// Between two looks at objects that change.
const PAUSE: Duration = Duration::from_millis(50);
/// How long the namespace may take to go, with the pods in it.
const REMOVAL: Duration = Duration::from_secs(60);
/// Nobody checks for longer than this, with the longest patience: what is older was left behind.
const LEFT_BEHIND: Duration = Duration::from_secs(3600);

/// A namespace of ours.
pub struct Stage {
    client: kube::Client,
    name: String,
    image: String,
    patience: Duration,
}

impl Stage {
    /// Makes the namespace.
    pub async fn make(client: kube::Client, image: String, patience: Duration) -> Result<Self, kube::Error> {
        let namespaces = Api::<Namespace>::all(client.clone());
        let made = namespaces.create(&PostParams::default(), &objects::namespace()).await?;
        let name = made.metadata.name.unwrap_or_default();
        Ok(Self { client, name, image, patience })
    }

    /// Removes what a check that was killed has left.
    pub async fn sweep(client: &kube::Client) -> Result<(), kube::Error> {
        let namespaces = Api::<Namespace>::all(client.clone());
        for namespace in namespaces.list(&ListParams::default().labels(objects::LABEL)).await? {
            let Some(made) = namespace.metadata.creation_timestamp else { continue };
            let age = Duration::try_from(Timestamp::now().duration_since(made.0)).unwrap_or_default();
            if age > LEFT_BEHIND
                && let Some(name) = namespace.metadata.name
            {
                namespaces.delete(&name, &DeleteParams::default()).await?;
            }
        }
        Ok(())
    }

    /// Removes everything, and waits until it is gone.
    pub async fn remove(&self) -> Result<()> {
        let namespaces = Api::<Namespace>::all(self.client.clone());
        let deleted = namespaces.delete(&self.name, &DeleteParams::default()).await;
        deleted.with_context(|| format!("delete namespace {}", self.name))?;
        let deadline = Instant::now() + REMOVAL;
        while namespaces.get_opt(&self.name).await?.is_some() {
            if Instant::now() > deadline {
                bail!("namespace {} is still there {} s after it was deleted", self.name, REMOVAL.as_secs());
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &self.name)
    }

    /// Pods are refused before their namespace has this account.
    async fn wait_for_account(&self) -> Result<()> {
        let accounts = Api::<ServiceAccount>::namespaced(self.client.clone(), &self.name);
        let deadline = Instant::now() + self.patience;
        while accounts.get_opt("default").await?.is_none() {
            if Instant::now() > deadline {
                bail!("namespace {} got no service account `default`", self.name);
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    /// Makes a server with its Service on each of these nodes and waits until all answer.
    pub async fn serve(&self, nodes: &[(&str, &Chosen)], asks_cluster: bool) -> Result<Vec<Server>> {
        self.wait_for_account().await?;
        let services = Api::<Service>::namespaced(self.client.clone(), &self.name);
        for (name, node) in nodes {
            let pod = objects::server(name, &node.name, &self.image);
            self.pods()
                .create(&PostParams::default(), &pod)
                .await
                .with_context(|| format!("make pod {name}"))?;
            let service = objects::service(name, asks_cluster);
            let made = services.create(&PostParams::default(), &service).await;
            made.with_context(|| format!("make service {name}"))?;
        }
        let mut servers = Vec::new();
        for (number, (name, node)) in nodes.iter().enumerate() {
            if !asks_cluster {
                self.give_addresses(&services, number, name).await?;
            }
            let pod = self.wait_for(name, is_ready).await?;
            let service = if asks_cluster {
                self.wait_for_addresses(&services, name).await
            } else {
                services.get(name).await
            };
            servers.push(Server { node: node.addresses.clone(), ..server(name, &pod, &service?)? });
        }
        Ok(servers)
    }

    async fn give_addresses(&self, services: &Api<Service>, number: usize, name: &str) -> Result<()> {
        let spec = services.get(name).await?.spec.unwrap_or_default();
        let status = objects::balanced(number, &spec.ip_families.unwrap_or_default());
        let given = services.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await;
        given.map(drop).with_context(|| format!("give service {name} a load balancer's address"))
    }

    /// The Service with addresses, or without if nobody gives any.
    async fn wait_for_addresses(&self, services: &Api<Service>, name: &str) -> Result<Service, kube::Error> {
        let deadline = Instant::now() + self.patience;
        loop {
            let service = services.get(name).await?;
            if !balancers(&service).is_empty() || Instant::now() > deadline {
                return Ok(service);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Has a pod on this node ask, and hears what it heard.
    pub async fn ask(
        &self,
        caller: &str,
        node: &str,
        asks: &[Ask],
        patience: Duration,
    ) -> Result<Vec<Heard>> {
        let asks = serde_json::to_string(asks)?;
        let pod = objects::caller(caller, node, &self.image, &asks, patience.as_secs());
        self.pods()
            .create(&PostParams::default(), &pod)
            .await
            .with_context(|| format!("make pod {caller}"))?;
        // What cannot be reached is tried for as long as patience lasts, over TCP and then over UDP.
        let pod = self.wait_for(caller, has_ended).await?;
        let log = self.pods().logs(caller, &LogParams::default()).await;
        let log = log.with_context(|| format!("read what pod {caller} heard"))?;
        match serde_json::from_str(log.trim()) {
            Ok(heard) => Ok(heard),
            Err(_) => bail!("pod {caller} ended as {} and said {log:?}", phase(&pod)),
        }
    }

    async fn wait_for(&self, name: &str, is_so: fn(&Pod) -> bool) -> Result<Pod> {
        let deadline = Instant::now() + self.patience;
        loop {
            let pod = self.pods().get(name).await.with_context(|| format!("look at pod {name}"))?;
            if is_so(&pod) {
                return Ok(pod);
            }
            if Instant::now() > deadline || phase(&pod) == "Failed" {
                bail!("pod {name} is {} after {} s{}", phase(&pod), self.patience.as_secs(), trouble(&pod));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending")
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn has_ended(pod: &Pod) -> bool {
    ["Succeeded", "Failed"].contains(&phase(pod))
}

/// What keeps its container from running, for the end of a sentence.
fn trouble(pod: &Pod) -> String {
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    let state = statuses.and_then(|statuses| statuses.first()).and_then(|status| status.state.as_ref());
    let waiting = state.and_then(|state| state.waiting.as_ref());
    let said = waiting.map(|waiting| (waiting.reason.clone(), waiting.message.clone()));
    match said {
        Some((Some(reason), message)) => format!(": {reason} {}", message.unwrap_or_default()),
        _ => String::new(),
    }
}

fn balancers(service: &Service) -> Vec<std::net::IpAddr> {
    let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = balancer.and_then(|balancer| balancer.ingress.as_ref());
    ingress.into_iter().flatten().filter_map(|one| one.ip.as_deref()?.parse().ok()).collect()
}

fn server(name: &str, pod: &Pod, service: &Service) -> Result<Server> {
    let ips = pod.status.as_ref().and_then(|status| status.pod_ips.as_ref()).into_iter().flatten();
    let spec = service.spec.as_ref().with_context(|| format!("service {name} has no spec"))?;
    let ports = spec.ports.iter().flatten().filter_map(|port| u16::try_from(port.node_port?).ok());
    let ports: Vec<u16> = ports.collect();
    let &[tcp, udp] = ports.as_slice() else { bail!("service {name} has node ports {ports:?}, not two") };
    let given = balancers(service);
    Ok(Server {
        name: name.to_owned(),
        pod: ips.filter_map(|ip| ip.ip.parse().ok()).collect(),
        cluster_ips: spec.cluster_ips.iter().flatten().filter_map(|ip| ip.parse().ok()).collect(),
        node_ports: [tcp, udp],
        node: Vec::new(),
        balancers: if given.is_empty() {
            Err("the cluster gives load balancers no addresses".to_owned())
        } else {
            Ok(given)
        },
    })
}
