//! The endpoints of the `kubernetes` Service: every API server that is alive, as its clients in pods find it.
//!
//! Servers that share a store each keep an entry under [`LEASES`] that vanishes when they do (kube-apiserver's key and
//! time to live), and write what all entries say. A server with a store of its own is the only one.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use store::{Op, Txn, TxnError};

use crate::api::Api;
use crate::bootstrap::Advertised;
use crate::expiry::unix_seconds;
use crate::object::{self, Header, Objects, encode, key};
use crate::resources::{Row, known};
use crate::tree::set;
use crate::verbs::write::timestamp;

/// Entries of the servers that are alive.
pub const LEASES: &str = "/registry/masterleases/";
/// Seconds for which a server counts as alive.
const ALIVE: u64 = 15;
const EVERY: Duration = Duration::from_secs(10);

/// Renews this server's entry, and the endpoints with it, until the server stops; then takes the entry away.
pub async fn run(api: Arc<Api>, advertised: Advertised) {
    if !api.objects.is_shared() {
        return;
    }
    loop {
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            () = api.stopping.cancelled() => break,
        }
        match refresh(&api.objects, &advertised, Timestamp::now()).await {
            // Another server was faster and knew the same.
            Ok(()) | Err(TxnError::Conflict { .. }) => {}
            Err(error) => tracing::warn!(%error, "the endpoints of the kubernetes Service were not renewed"),
        }
    }
    let mut txn = Txn::new();
    txn.ops
        .extend(advertised.addresses.iter().map(|address| Op::Delete { key: format!("{LEASES}{address}") }));
    if let Err(error) = api.objects.txn(txn).await {
        tracing::warn!(%error, "this server stays an endpoint for some seconds after its end");
    }
}

/// Says that this server is alive, and writes who else is.
pub async fn refresh(
    objects: &Objects,
    advertised: &Advertised,
    now: Timestamp,
) -> Result<(), TxnError<Header>> {
    let mut addresses: BTreeSet<IpAddr> = advertised.addresses.iter().copied().collect();
    if objects.is_shared() {
        let mut txn = Txn::new().expiring(unix_seconds(now) + ALIVE);
        for address in &addresses {
            let value = json!({ "apiVersion": "v1", "kind": "Endpoints", "metadata": {},
                                "subsets": [{ "addresses": [{ "ip": address }] }] });
            txn.ops.push(Op::Put { key: format!("{LEASES}{address}"), value: encode(&value) });
        }
        objects.txn(txn).await?;
        let page = objects.range(LEASES, None, 0, None);
        let others = page.into_iter().flat_map(|page| page.entries);
        addresses.extend(others.filter_map(|entry| entry.key.strip_prefix(LEASES)?.parse::<IpAddr>().ok()));
    }
    let changes =
        wanted(&addresses, advertised.port).into_iter().filter_map(|wanted| wanted.write(objects, now));
    for txn in Txn::grouped(changes) {
        objects.txn(txn).await?;
    }
    Ok(())
}

/// One object as it should be; none at all when there is nothing to say.
struct Wanted {
    row: &'static Row,
    name: &'static str,
    object: Option<Value>,
    /// Fields that count when it is compared with what is there.
    compared: &'static [&'static str],
}

fn wanted(addresses: &BTreeSet<IpAddr>, port: u16) -> [Wanted; 3] {
    let of_family =
        |v4: bool| -> Vec<&IpAddr> { addresses.iter().filter(|one| one.is_ipv4() == v4).collect() };
    let slice = |name, family, v4| Wanted {
        row: known("discovery.k8s.io", "endpointslices"),
        name,
        object: (!of_family(v4).is_empty()).then(|| {
            json!({
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
                "metadata": { "name": name, "namespace": "default", "generation": 1,
                              "labels": { "kubernetes.io/service-name": "kubernetes" } },
                "addressType": family,
                "endpoints": [{ "addresses": of_family(v4), "conditions": { "ready": true } }],
                "ports": [{ "name": "https", "protocol": "TCP", "port": port }],
            })
        }),
        compared: &["addressType", "endpoints", "ports"],
    };
    // Endpoints know one family: that of most clusters first.
    let primary = [of_family(true), of_family(false)].into_iter().find(|family| !family.is_empty());
    let endpoints = Wanted {
        row: known("", "endpoints"),
        name: "kubernetes",
        object: primary.map(|addresses| {
            let addresses: Vec<Value> = addresses.iter().map(|address| json!({ "ip": address })).collect();
            json!({
                "apiVersion": "v1", "kind": "Endpoints",
                // The slices are not mirrored from this object.
                "metadata": { "name": "kubernetes", "namespace": "default",
                              "labels": { "endpointslice.kubernetes.io/skip-mirror": "true" } },
                "subsets": [{ "addresses": addresses,
                              "ports": [{ "name": "https", "port": port, "protocol": "TCP" }] }],
            })
        }),
        compared: &["subsets"],
    };
    [slice("kubernetes", "IPv4", true), slice("kubernetes-ipv6", "IPv6", false), endpoints]
}

impl Wanted {
    /// The write that makes it so; `None` when it is so already.
    fn write(self, objects: &Objects, now: Timestamp) -> Option<Txn> {
        let key = key(self.row, "default", self.name);
        let old = objects.get(&key);
        let Some(mut object) = self.object else {
            return old.map(|old| Txn::delete(&*old.key, old.mod_revision));
        };
        match &old {
            None => {
                set(&mut object, &["metadata", "uid"], uuid::Uuid::new_v4().to_string());
                set(&mut object, &["metadata", "creationTimestamp"], timestamp(now));
            }
            Some(entry) => {
                let before = object::decode(entry);
                if self.compared.iter().all(|field| before[*field] == object[*field]) {
                    return None;
                }
                object["metadata"] = before["metadata"].clone();
            }
        }
        let revision = old.map_or(0, |old| old.mod_revision);
        Some(Txn::update(key, revision, encode(&object)))
    }
}
