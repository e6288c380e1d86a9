//! Cluster addresses and node ports: chosen here, taken in the same transaction that writes the Service.
//!
//! What is taken is itself stored: an IPAddress object per address, a marker per node port. A second Service with the
//! same address therefore loses the transaction, whoever serves it. At start the markers are compared with the
//! Services and repaired.
//!
//! Addresses come from the ranges of the configuration and from those of ServiceCIDRs that are ready. What nobody asked
//! for is taken from the upper part of a range first, so that the lower part is left to those who name what they want
//! (KEP-3070 for addresses, KEP-3668 for node ports).

mod range;
mod repair;

use std::net::IpAddr;

use bytes::Bytes;
use rand::Rng;
use serde_json::{Value, json};
use store::{Compare, Op, Txn};

use crate::definitions::condition_is;
use crate::object::{self, Objects, ROOT, key, prefix};
use crate::resources::{Row, known};
use crate::status::{Cause, Refusal, Result};
use crate::tree::{at, int, list, list_mut, remove, set, text};

pub use range::{Range, RangeSyntax};
use repair::marker;

/// The node ports a Service may have.
pub const NODE_PORTS: std::ops::RangeInclusive<i64> = 30_000..=32_767;
/// Node ports below it are given to those who name them, as long as there are others: `min(max(16, size / 32), 128)`.
const NAMED_PORTS: i64 = 30_086;
/// Random tries before the range is searched in order.
const RANDOM_TRIES: usize = 64;

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

    /// The ranges of a family from which addresses may be taken now: the configuration's, and those of ServiceCIDRs that
    /// are ready and stay.
    fn usable(&self, objects: &Objects, family: &str) -> Result<Vec<Range>> {
        let mut ranges: Vec<Range> =
            self.ranges.iter().filter(|range| range.family() == family).copied().collect();
        let added = objects.range(&prefix(known("networking.k8s.io", "servicecidrs"), ""), None, 0, None);
        for entry in added.map_err(Refusal::internal)?.entries {
            let object = object::decode(&entry);
            let stays = at(&object, &["metadata", "deletionTimestamp"]).is_null();
            if stays && condition_is(&object, "Ready", "True") {
                let cidrs =
                    list(&object, &["spec", "cidrs"]).iter().filter_map(|cidr| cidr.as_str()?.parse().ok());
                let more: Vec<Range> = cidrs.filter(|range: &Range| range.family() == family).collect();
                ranges.extend(more.into_iter().filter(|range| !self.ranges.contains(range)));
            }
        }
        Ok(ranges)
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
            let ranges = self.usable(objects, family)?;
            if ranges.is_empty() {
                return Err(invalid(
                    service,
                    "spec.ipFamilies",
                    &json!([family]),
                    "not configured on this cluster",
                ));
            }
            match addresses.get(position) {
                Some(address) => check_address(objects, before, &ranges, address, service)?,
                None => addresses.push(free_address(&ranges, objects, service)?.to_string()),
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
}

fn check_address(
    objects: &Objects,
    before: &[String],
    ranges: &[Range],
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
    let key = address_key(&parsed.to_string());
    if before.contains(&key) {
        return Ok(());
    }
    if !ranges.iter().any(|range| range.contains(parsed)) {
        let valid = ranges.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let why = format!(
            "failed to allocate IP {address}: the provided IP ({address}) is not in the valid range. The range of valid IPs is {valid}"
        );
        return Err(invalid(service, "spec.clusterIPs", &value, &why));
    }
    if objects.get(&key).is_some() {
        let why = format!("failed to allocate IP {address}: provided IP is already allocated");
        return Err(invalid(service, "spec.clusterIPs", &value, &why));
    }
    Ok(())
}

fn free_address(ranges: &[Range], objects: &Objects, service: &Value) -> Result<IpAddr> {
    let free = |address: &IpAddr| objects.get(&address_key(&address.to_string())).is_none();
    let mut random = rand::rng();
    // At random also in the lower part: servers that search in order take the same address again and again.
    let mut any_of = |range: &Range, band: std::ops::Range<u64>| {
        let tries = if band.is_empty() { 0 } else { RANDOM_TRIES };
        (0..tries).map(|_| range.address(random.random_range(band.clone()))).find(free)
    };
    let in_upper = ranges.iter().find_map(|range| any_of(range, range.bands().1));
    let tried = in_upper.or_else(|| ranges.iter().find_map(|range| any_of(range, range.bands().0)));
    let in_order = |range: &Range| {
        let (lower, upper) = range.bands();
        upper.chain(lower).map(|offset| range.address(offset)).find(free)
    };
    tried.or_else(|| ranges.iter().find_map(in_order)).ok_or_else(|| {
        let name = text(service, &["metadata", "name"]);
        let all = ranges.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        Refusal::internal(format!("failed to allocate a serviceIP for {name}: range {all} is full"))
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
    let bands = [NAMED_PORTS..*NODE_PORTS.end() + 1, *NODE_PORTS.start()..NAMED_PORTS];
    let tried =
        bands.iter().find_map(|band| (0..RANDOM_TRIES).map(|_| random.random_range(band.clone())).find(free));
    tried.or_else(|| bands.into_iter().flatten().find(free))
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
