//! Writes the addresses of Services into their status: what the elected agent does.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1 as core;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;

use super::assign::{Given, Wish, assign};
use crate::pools::Pool;
use crate::tables::{Complaint, ObjectName, Tables};

/// The class of Services that are ours by name; those without a class are ours where there are pools.
const CLASS: &str = "hawser.dev/pools";
const POOL: &str = "hawser.dev/load-balancer-pool";
const ADDRESSES: &str = "hawser.dev/load-balancer-ips";

/// Gives every Service its addresses once. Services that lack some are complained about when that is news.
pub async fn pass(
    client: &Client,
    pools: &[Pool],
    tables: &Tables,
    complained: &mut BTreeMap<ObjectName, String>,
) -> Result<(), kube::Error> {
    let all = Api::<core::Service>::all(client.clone());
    let services = all.list(&ListParams::default().fields("spec.type=LoadBalancer")).await?.items;
    let ours: Vec<(&core::Service, Wish)> = services
        .iter()
        .map(|service| (service, wish(service)))
        .filter(|(service, wish)| is_ours(service, wish, pools))
        .collect();
    let wishes: Vec<Wish> = ours.iter().map(|(_, wish)| wish.clone()).collect();
    let given = assign(&wishes, pools);
    complained.retain(|name, _| given.contains_key(name));
    for (service, wish) in &ours {
        let Some(own) = given.get(&wish.name) else { continue };
        complain(tables, wish, own, complained);
        if own.addresses != wish.has {
            write(client, service, &own.addresses).await?;
        }
    }
    Ok(())
}

/// A Service without a class that has addresses of no pool has them from somebody else, who would write them again.
fn is_ours(service: &core::Service, wish: &Wish, pools: &[Pool]) -> bool {
    let class = service.spec.as_ref().and_then(|spec| spec.load_balancer_class.as_deref());
    let in_pools =
        |address: &IpAddr| pools.iter().flat_map(|pool| &pool.cidrs).any(|cidr| cidr.contains(*address));
    let free = class.is_none() && wish.has.iter().all(in_pools);
    (free || class == Some(CLASS)) && service.metadata.deletion_timestamp.is_none()
}

fn wish(service: &core::Service) -> Wish {
    let spec = service.spec.clone().unwrap_or_default();
    let annotation = |name: &str| service.annotations().get(name).cloned();
    let asked = annotation(ADDRESSES).or(spec.load_balancer_ip).unwrap_or_default();
    let ingress = service.status.as_ref().and_then(|status| status.load_balancer.as_ref()?.ingress.as_ref());
    let families = spec.ip_families.unwrap_or_default();
    Wish {
        name: ObjectName { namespace: service.namespace().unwrap_or_default(), name: service.name_any() },
        created: service.creation_timestamp().map_or(0, |time| time.0.as_second()),
        families: families.iter().map(|family| family == "IPv4").collect(),
        pool: annotation(POOL),
        addresses: asked.split(',').filter_map(|address| address.trim().parse().ok()).collect(),
        has: ingress.into_iter().flatten().filter_map(|one| one.ip.as_ref()?.parse().ok()).collect(),
    }
}

fn complain(tables: &Tables, wish: &Wish, given: &Given, complained: &mut BTreeMap<ObjectName, String>) {
    let Some(reason) = &given.refused else {
        complained.remove(&wish.name);
        return;
    };
    if complained.insert(wish.name.clone(), reason.clone()).as_ref() != Some(reason) {
        tables.complain(Complaint {
            kind: "Service",
            object: wish.name.clone(),
            uid: 0,
            reason: "NoLoadBalancerAddress",
            message: reason.clone(),
        });
    }
}

/// Somebody else's change in between is a conflict, and the next pass sees it.
async fn write(client: &Client, service: &core::Service, addresses: &[IpAddr]) -> Result<(), kube::Error> {
    let api = Api::<core::Service>::namespaced(client.clone(), &service.namespace().unwrap_or_default());
    let ingress: Vec<_> = addresses.iter().map(|ip| json!({ "ip": ip, "ipMode": "VIP" })).collect();
    let patch = json!({
        "metadata": { "resourceVersion": service.resource_version() },
        "status": { "loadBalancer": { "ingress": ingress } },
    });
    api.patch_status(&service.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await?;
    tracing::info!(service = %service.name_any(), ?addresses, "a load balancer has its addresses");
    Ok(())
}
