//! Cluster addresses and node ports: chosen here, taken in the same transaction that writes the Service.
//!
//! What is taken is itself stored: an IPAddress object per address, a marker per node port. A second Service with the
//! same address therefore loses the transaction, whoever serves it. At start the markers are compared with the
//! Services and repaired.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use bytes::Bytes;
use rand::Rng;
use serde_json::{Value, json};
use store::{Compare, Op, RangeError, Txn};

use crate::object::{self, Objects, ROOT, encode, key};
use crate::resources::{Row, known};
use crate::status::{Cause, Refusal, Result};
use crate::tree::{at, int, list, list_mut, remove, set, text};

/// The node ports a Service may have.
pub const NODE_PORTS: std::ops::RangeInclusive<i64> = 30_000..=32_767;
/// Random tries before the range is searched in order.
const RANDOM_TRIES: usize = 64;

/// A range of addresses for Services.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    pub base: IpAddr,
    pub length: u8,
}

/// A service range that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a range of addresses like 10.96.0.0/16")]
pub struct RangeSyntax(String);

impl std::str::FromStr for Range {
    type Err = RangeSyntax;

    fn from_str(text: &str) -> Result<Self, RangeSyntax> {
        let wrong = || RangeSyntax(text.to_owned());
        let (base, length) = text.trim().split_once('/').ok_or_else(wrong)?;
        let base: IpAddr = base.parse().ok().ok_or_else(wrong)?;
        let length: u8 = length.parse().ok().ok_or_else(wrong)?;
        let bits = if base.is_ipv4() { 32 } else { 128 };
        // Fewer than two host bits leave no room; upstream wants at most 20.
        if length > bits - 2 || bits - length > 32 {
            return Err(wrong());
        }
        Ok(Self { base, length })
    }
}

impl std::fmt::Display for Range {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}/{}", self.base, self.length)
    }
}

impl Range {
    fn size(&self) -> u64 {
        let bits = if self.base.is_ipv4() { 32 } else { 128 };
        1 << (bits - self.length)
    }

    /// The address at `offset`.
    pub fn address(&self, offset: u64) -> IpAddr {
        match self.base {
            IpAddr::V4(base) => {
                let mask = u32::MAX << (32 - u32::from(self.length));
                let offset = u32::try_from(offset).unwrap_or_default();
                Ipv4Addr::from((u32::from(base) & mask) + offset).into()
            }
            IpAddr::V6(base) => {
                let mask = u128::MAX << (128 - u32::from(self.length));
                Ipv6Addr::from((u128::from(base) & mask) + u128::from(offset)).into()
            }
        }
    }

    fn contains(&self, address: IpAddr) -> bool {
        let last = self.address(self.size() - 1);
        address.is_ipv4() == self.base.is_ipv4() && self.address(0) < address && address < last
    }

    fn family(&self) -> &'static str {
        if self.base.is_ipv4() { "IPv4" } else { "IPv6" }
    }
}

/// Chooses what is free.
#[derive(Debug)]
pub struct Allocator {
    /// The first range is of the cluster's primary family.
    ranges: Vec<Range>,
}

/// What a write takes and gives back besides its own object.
#[derive(Debug, Default)]
pub struct Reservation {
    compares: Vec<Compare>,
    ops: Vec<Op>,
}

impl Reservation {
    /// Everything a Service holds, given back.
    pub fn release(service: &Value) -> Self {
        let ops = held(service).into_iter().map(|key| Op::Delete { key }).collect();
        Self { compares: Vec::new(), ops }
    }

    /// The transaction that does both.
    pub fn join(self, mut txn: Txn) -> Txn {
        txn.compares.extend(self.compares);
        txn.ops.extend(self.ops);
        txn
    }

    fn take(&mut self, key: String, value: Bytes) {
        self.compares.push(Compare { key: key.clone(), mod_revision: 0 });
        self.ops.push(Op::Put { key, value });
    }
}

fn address_key(address: &str) -> String {
    key(known("networking.k8s.io", "ipaddresses"), "", address)
}

fn port_key(protocol: &str, port: i64) -> String {
    format!("{ROOT}ranges/servicenodeports/{protocol}/{port}")
}

/// Keys of everything a Service holds.
fn held(service: &Value) -> Vec<String> {
    let addresses = list(service, &["spec", "clusterIPs"]).iter().filter_map(Value::as_str);
    let addresses = addresses.filter(|address| !address.is_empty() && *address != "None").map(address_key);
    let ports = list(service, &["spec", "ports"]).iter().filter_map(|port| {
        let number = int(port, &["nodePort"]).filter(|number| *number > 0)?;
        Some(port_key(text(port, &["protocol"]), number))
    });
    let health = int(service, &["spec", "healthCheckNodePort"]).filter(|number| *number > 0);
    addresses.chain(ports).chain(health.map(|number| port_key("TCP", number))).collect()
}

impl Allocator {
    pub fn new(ranges: Vec<Range>) -> Self {
        Self { ranges }
    }

    /// The address of the `kubernetes` Service in each range.
    pub fn first_addresses(&self) -> Vec<IpAddr> {
        self.ranges.iter().map(|range| range.address(1)).collect()
    }

    pub fn ranges(&self) -> &[Range] {
        &self.ranges
    }

    /// Whether objects of the kind reserve anything.
    pub fn serves(row: &Row) -> bool {
        row.own() == "services"
    }

    /// Fills in addresses and ports of a Service; other kinds reserve nothing.
    pub fn reserve(
        &self,
        row: &Row,
        objects: &Objects,
        old: Option<&Value>,
        new: &mut Value,
    ) -> Result<Reservation> {
        let mut reservation = Reservation::default();
        if !Self::serves(row) {
            return Ok(reservation);
        }
        let before: Vec<String> = old.map(held).unwrap_or_default();
        if text(new, &["spec", "type"]) != "ExternalName" {
            self.addresses(objects, &before, new)?;
            self.ports(objects, &before, new)?;
        }
        let after = held(new);
        for key in after.iter().filter(|key| !before.contains(key)) {
            reservation.take(key.clone(), marker(key, new));
        }
        reservation
            .ops
            .extend(before.into_iter().filter(|key| !after.contains(key)).map(|key| Op::Delete { key }));
        Ok(reservation)
    }

    fn addresses(&self, objects: &Objects, before: &[String], service: &mut Value) -> Result<()> {
        let families = self.families(service)?;
        let policy = if families.len() > 1 && text(service, &["spec", "ipFamilyPolicy"]).is_empty() {
            "RequireDualStack"
        } else {
            "SingleStack"
        };
        crate::tree::set_default(service, &["spec", "ipFamilyPolicy"], policy);
        let given = text(service, &["spec", "clusterIP"]).to_owned();
        let mut addresses: Vec<String> = list(service, &["spec", "clusterIPs"])
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect();
        if let Some(first) = addresses.first()
            && !given.is_empty()
            && *first != given
        {
            return Err(invalid(
                service,
                "spec.clusterIPs",
                &json!(addresses),
                "first value must match `clusterIP`",
            ));
        }
        if addresses.is_empty() && !given.is_empty() {
            addresses.push(given);
        }
        set(service, &["spec", "ipFamilies"], families.clone());
        if addresses.first().is_some_and(|first| first == "None") {
            set(service, &["spec", "clusterIP"], "None");
            set(service, &["spec", "clusterIPs"], json!(["None"]));
            return Ok(());
        }
        addresses.truncate(families.len());
        for (position, family) in families.iter().enumerate() {
            let range = self.ranges.iter().find(|range| range.family() == family);
            let Some(range) = range else {
                return Err(invalid(
                    service,
                    "spec.ipFamilies",
                    &json!([family]),
                    "not configured on this cluster",
                ));
            };
            match addresses.get(position) {
                Some(address) => self.check_address(objects, before, range, address, service)?,
                None => addresses.push(free_address(range, objects, service)?.to_string()),
            }
        }
        set(service, &["spec", "clusterIP"], addresses[0].as_str());
        set(service, &["spec", "clusterIPs"], addresses);
        Ok(())
    }

    /// The families of a Service, in order: as asked, else from its addresses, else the cluster's.
    fn families(&self, service: &Value) -> Result<Vec<String>> {
        let asked: Vec<String> = list(service, &["spec", "ipFamilies"])
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect();
        let from_addresses = list(service, &["spec", "clusterIPs"])
            .iter()
            .chain(std::iter::once(at(service, &["spec", "clusterIP"])))
            .filter_map(|address| address.as_str()?.parse::<IpAddr>().ok())
            .map(|address| if address.is_ipv4() { "IPv4".to_owned() } else { "IPv6".to_owned() });
        let mut families = asked;
        for family in from_addresses {
            if !families.contains(&family) {
                families.push(family);
            }
        }
        let all = self.ranges.iter().map(|range| range.family().to_owned());
        let headless = text(service, &["spec", "clusterIP"]) == "None";
        let unselecting = at(service, &["spec", "selector"]).is_null();
        let dual = match text(service, &["spec", "ipFamilyPolicy"]) {
            "RequireDualStack" if self.ranges.len() < 2 => {
                let value = json!("RequireDualStack");
                return Err(invalid(
                    service,
                    "spec.ipFamilyPolicy",
                    &value,
                    "this cluster is not configured for dual-stack services",
                ));
            }
            "PreferDualStack" | "RequireDualStack" => true,
            "" => families.len() > 1 || (headless && unselecting && families.is_empty()),
            _ => false,
        };
        if families.is_empty() {
            families.extend(self.ranges.first().map(|range| range.family().to_owned()));
        }
        if dual {
            families.extend(all.filter(|family| !families.contains(family)).collect::<Vec<_>>());
        } else {
            families.truncate(1);
        }
        Ok(families)
    }

    fn check_address(
        &self,
        objects: &Objects,
        before: &[String],
        range: &Range,
        address: &str,
        service: &Value,
    ) -> Result<()> {
        let value = json!([address]);
        let Ok(parsed) = address.parse::<IpAddr>() else {
            return Err(invalid(
                service,
                "spec.clusterIPs[0]",
                &json!(address),
                "must be empty, 'None', or a valid IP address",
            ));
        };
        if !range.contains(parsed) {
            let why = format!(
                "failed to allocate IP {address}: the provided IP ({address}) is not in the valid range. The range of valid IPs is {range}"
            );
            return Err(invalid(service, "spec.clusterIPs", &value, &why));
        }
        let key = address_key(&parsed.to_string());
        if !before.contains(&key) && objects.get(&key).is_some() {
            let why = format!("failed to allocate IP {address}: provided IP is already allocated");
            return Err(invalid(service, "spec.clusterIPs", &value, &why));
        }
        Ok(())
    }

    fn ports(&self, objects: &Objects, before: &[String], service: &mut Value) -> Result<()> {
        let kind = text(service, &["spec", "type"]);
        let wanted = match kind {
            "NodePort" => true,
            "LoadBalancer" => at(service, &["spec", "allocateLoadBalancerNodePorts"]) != false,
            _ => false,
        };
        let shown = service.clone();
        let mut taken: Vec<i64> = Vec::new();
        for (position, port) in list_mut(service, &["spec", "ports"]).iter_mut().enumerate() {
            let protocol = text(port, &["protocol"]).to_owned();
            let number = int(port, &["nodePort"]).unwrap_or_default();
            if number == 0 && !wanted {
                remove(port, &["nodePort"]);
                continue;
            }
            let place = format!("spec.ports[{position}].nodePort");
            let number = node_port(objects, before, &shown, (&place, &protocol, number), &taken)?;
            taken.push(number);
            set(port, &["nodePort"], number);
        }
        if has_health_port(service) {
            let number = int(service, &["spec", "healthCheckNodePort"]).unwrap_or_default();
            let place = ("spec.healthCheckNodePort", "TCP", number);
            let number = node_port(objects, before, &shown, place, &taken)?;
            set(service, &["spec", "healthCheckNodePort"], number);
        }
        Ok(())
    }

    /// Makes the markers agree with the Services: adds missing ones, removes those of Services that are gone.
    pub async fn repair(
        &self,
        objects: &Objects,
    ) -> std::result::Result<(), store::TxnError<object::Header>> {
        let disagreements = loop {
            // The log no longer reaches back to the moment before: a newer one is looked at.
            if let Ok(found) = disagreements(objects) {
                break found;
            }
        };
        for txn in Txn::grouped(disagreements) {
            objects.txn(txn).await?;
        }
        Ok(())
    }
}

/// What to write so that markers and Services agree, as they are at one revision.
fn disagreements(objects: &Objects) -> std::result::Result<Vec<Txn>, RangeError> {
    let revision = objects.revision();
    let all = |prefix: &str| objects.range(prefix, None, 0, Some(revision)).map(|page| page.entries);
    let mut wanted = std::collections::BTreeMap::new();
    for entry in all(&object::prefix(known("", "services"), ""))? {
        let service = object::decode(&entry);
        for key in held(&service) {
            wanted.insert(key, (Arc::clone(&entry), service.clone()));
        }
    }
    let mut writes = Vec::new();
    let addresses = object::prefix(known("networking.k8s.io", "ipaddresses"), "");
    for prefix in [addresses, format!("{ROOT}ranges/servicenodeports/")] {
        for entry in all(&prefix)? {
            if wanted.remove(&*entry.key).is_none() && managed_here(&entry) {
                tracing::debug!(key = %entry.key, "gives back what no Service holds");
                writes.push(Txn::delete(&*entry.key, entry.mod_revision));
            }
        }
    }
    for (key, (service, tree)) in wanted {
        tracing::debug!(%key, "takes again what a Service holds");
        let value = marker(&key, &tree);
        let mut txn = Txn::create(key, value);
        txn.compares.push(Compare { key: service.key.to_string(), mod_revision: service.mod_revision });
        writes.push(txn);
    }
    Ok(writes)
}

/// Whether an IPAddress or port marker was made by this allocator.
fn managed_here(entry: &object::Stored) -> bool {
    let label = "ipaddress.kubernetes.io/managed-by";
    let labels = &entry.header.labels;
    labels.is_empty() || labels.iter().any(|(key, value)| **key == *label && &**value == MANAGER)
}

const MANAGER: &str = "ipallocator.k8s.io";

/// The value stored under a key that a Service holds.
fn marker(key: &str, service: &Value) -> Bytes {
    let meta = |field: &str| text(service, &["metadata", field]).to_owned();
    let name = key.rsplit('/').next().unwrap_or_default();
    if !key.starts_with(&address_key("")) {
        return encode(&json!({ "service": format!("{}/{}", meta("namespace"), meta("name")) }));
    }
    let family = if name.contains(':') { "IPv6" } else { "IPv4" };
    encode(&json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "IPAddress",
        "metadata": {
            "name": name, "uid": uuid::Uuid::new_v4().to_string(),
            "creationTimestamp": crate::verbs::write::timestamp(jiff::Timestamp::now()),
            "labels": { "ipaddress.kubernetes.io/ip-family": family, "ipaddress.kubernetes.io/managed-by": MANAGER },
        },
        "spec": { "parentRef": { "resource": "services", "namespace": meta("namespace"), "name": meta("name") } },
    }))
}

fn free_address(range: &Range, objects: &Objects, service: &Value) -> Result<IpAddr> {
    let free = |address: &IpAddr| objects.get(&address_key(&address.to_string())).is_none();
    // The first address is the `kubernetes` Service's; the last is a broadcast address in IPv4.
    let (first, end) = (2, range.size() - 1);
    let mut random = rand::rng();
    let tried = (0..RANDOM_TRIES).map(|_| range.address(random.random_range(first..end))).find(free);
    tried.or_else(|| (first..end).map(|offset| range.address(offset)).find(free)).ok_or_else(|| {
        let name = text(service, &["metadata", "name"]);
        Refusal::internal(format!("failed to allocate a serviceIP for {name}: range {range} is full"))
    })
}

/// The port a field gets: the one it names, if that is in the range and free, or one that is free.
fn node_port(
    objects: &Objects,
    before: &[String],
    service: &Value,
    (field, protocol, number): (&str, &str, i64),
    taken: &[i64],
) -> Result<i64> {
    if number == 0 {
        return free_port(objects, protocol, taken).ok_or_else(|| {
            Refusal::new(500, "InternalError", "failed to allocate a nodePort: range is full")
        });
    }
    let key = port_key(protocol, number);
    if before.contains(&key) {
        return Ok(number);
    }
    let refuse = |why| Err(invalid(service, field, &json!(number), why));
    if !NODE_PORTS.contains(&number) {
        return refuse("provided port is not in the valid range. The range of valid ports is 30000-32767");
    }
    if objects.get(&key).is_some() {
        return refuse("provided port is already allocated");
    }
    Ok(number)
}

/// Whether load balancers ask a port of their own which nodes have endpoints of this Service.
pub(crate) fn has_health_port(service: &Value) -> bool {
    text(service, &["spec", "type"]) == "LoadBalancer"
        && text(service, &["spec", "externalTrafficPolicy"]) == "Local"
}

fn free_port(objects: &Objects, protocol: &str, taken: &[i64]) -> Option<i64> {
    let free = |port: &i64| !taken.contains(port) && objects.get(&port_key(protocol, *port)).is_none();
    let mut random = rand::rng();
    let tried = (0..RANDOM_TRIES).map(|_| random.random_range(NODE_PORTS)).find(free);
    tried.or_else(|| NODE_PORTS.into_iter().find(free))
}

fn invalid(service: &Value, field: &str, value: &Value, why: &str) -> Refusal {
    let shown = match value {
        Value::String(text) => format!("{text:?}"),
        other => other.to_string(),
    };
    let cause = Cause {
        reason: "FieldValueInvalid",
        message: format!("Invalid value: {shown}: {why}"),
        field: field.to_owned(),
    };
    Refusal::invalid(known("", "services"), text(service, &["metadata", "name"]), vec![cause])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_and_bounded() {
        let v4: Range = "10.96.0.0/16".parse().unwrap();
        assert_eq!(v4.address(1).to_string(), "10.96.0.1");
        assert!(v4.contains("10.96.3.4".parse().unwrap()));
        assert!(!v4.contains("10.97.0.1".parse().unwrap()));
        assert!(!v4.contains("10.96.0.0".parse().unwrap()));
        let v6: Range = "fd00:96::/112".parse().unwrap();
        assert_eq!(v6.address(10).to_string(), "fd00:96::a");
        for wrong in ["", "10.0.0.0", "10.0.0.0/31", "x/8", "fd00::/64"] {
            assert!(wrong.parse::<Range>().is_err(), "{wrong}");
        }
    }
}
