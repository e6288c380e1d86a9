//! A ServiceCIDR is ready until it is deleted, and stays until no address depends on it any more.
//!
//! API servers give out no address of a ServiceCIDR that is being deleted; one they gave out just before is seen after the
//! grace. An address that another ServiceCIDR has too does not hold this one.

use std::net::IpAddr;
use std::time::Duration;

use ipnetwork::IpNetwork;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use crate::change::Change;
use crate::controller::{Controller, Key, Outcome};
use crate::objects::{ServiceCidr, deleting};
use crate::view::View;
use crate::write::{Target, Write};

const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";
/// How long a write may be under way that took an address before the deletion was seen.
const GRACE: Duration = Duration::from_secs(10);
const READY: &str = "Ready";

pub(crate) struct ServiceCidrController;

impl Controller for ServiceCidrController {
    fn name(&self) -> &'static str {
        "service-cidr-controller"
    }

    fn wakes(&self, change: &Change<'_>, view: &View) -> Vec<Key> {
        let gone = change.is("ipaddresses.networking.k8s.io") && change.new.is_none();
        let changed = change.is("servicecidrs.networking.k8s.io");
        if !gone && !changed {
            return Vec::new();
        }
        // Those that are being deleted wait for addresses, or for another range that has them.
        let waiting = view.service_cidrs.all().filter(|(_, cidr)| deleting(&cidr.metadata).is_some());
        waiting.map(|(key, _)| key.clone()).chain(changed.then(|| change.key.clone())).collect()
    }

    fn reconcile(&self, key: &Key, view: &View, now: Timestamp) -> Outcome {
        let Some(cidr) = view.service_cidrs.row(key) else { return Outcome::nothing() };
        let held = cidr.metadata.finalizers.iter().flatten().any(|name| name == FINALIZER);
        match deleting(&cidr.metadata) {
            None => keep(key, cidr, held, now),
            Some(since) if held => let_go(key, cidr, view, since, now),
            Some(_) => Outcome::nothing(),
        }
    }
}

/// The finalizer first, so that nothing is ready that could go at once.
fn keep(key: &Key, cidr: &ServiceCidr, held: bool, now: Timestamp) -> Outcome {
    let mut writes = Vec::new();
    if !held {
        let mut all = cidr.metadata.finalizers.clone().unwrap_or_default();
        all.push(FINALIZER.to_owned());
        writes.push(finalizers(key, cidr, &all));
    }
    writes.extend(condition(key, cidr, "True", "", "Kubernetes Service CIDR is ready", now));
    Outcome::writes(writes)
}

fn let_go(key: &Key, cidr: &ServiceCidr, view: &View, since: &Time, now: Timestamp) -> Outcome {
    if holds(cidr, key, view) {
        let message = "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR";
        return Outcome::writes(
            condition(key, cidr, "False", "Terminating", message, now).into_iter().collect(),
        );
    }
    let waited = Duration::try_from(now.duration_since(since.0)).unwrap_or_default();
    if waited < GRACE {
        let mut outcome = Outcome::nothing();
        outcome.look_again(GRACE - waited);
        return outcome;
    }
    let mut left = cidr.metadata.finalizers.clone().unwrap_or_default();
    left.retain(|name| name != FINALIZER);
    Outcome::writes(vec![finalizers(key, cidr, &left)])
}

/// Whether an address depends on this ServiceCIDR: no other that stays has it.
fn holds(cidr: &ServiceCidr, key: &Key, view: &View) -> bool {
    let own = ranges(cidr);
    let others: Vec<IpNetwork> = view
        .service_cidrs
        .all()
        .filter(|(other, cidr)| *other != key && deleting(&cidr.metadata).is_none())
        .flat_map(|(_, cidr)| ranges(cidr))
        .collect();
    let within = |ranges: &[IpNetwork], address| ranges.iter().any(|range| range.contains(address));
    let mut addresses =
        view.ip_addresses.all().filter_map(|(address, _)| address.name.parse::<IpAddr>().ok());
    addresses.any(|address| within(&own, address) && !within(&others, address))
}

fn ranges(cidr: &ServiceCidr) -> Vec<IpNetwork> {
    cidr.spec.cidrs.iter().filter_map(|text| text.parse().ok()).collect()
}

fn target(key: &Key) -> Target {
    Target::new("networking.k8s.io/v1", "servicecidrs", key.clone())
}

/// Only as the object was seen: others have finalizers too.
fn finalizers(key: &Key, cidr: &ServiceCidr, all: &[String]) -> Write {
    let metadata = json!({ "finalizers": all, "resourceVersion": cidr.metadata.resource_version });
    Write::Patch { target: target(key), subresource: None, body: json!({ "metadata": metadata }) }
}

/// The condition, unless it is there already.
fn condition(
    key: &Key,
    cidr: &ServiceCidr,
    status: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
) -> Option<Write> {
    let own = |one: &&Value| one["type"] == READY;
    if cidr
        .status
        .conditions
        .iter()
        .find(own)
        .is_some_and(|one| one["status"] == status && one["reason"] == reason)
    {
        return None;
    }
    let others = cidr.status.conditions.iter().filter(|one| !own(one)).cloned();
    let ready = json!({ "type": READY, "status": status, "reason": reason, "message": message, "lastTransitionTime": Time(now) });
    let conditions: Vec<Value> = others.chain([ready]).collect();
    let body = json!({ "status": { "conditions": conditions } });
    Some(Write::Patch { target: target(key), subresource: Some("status"), body })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::tests::world;

    const DELETED: &str = "2026-01-01T00:00:00Z";

    fn cidr(name: &str, range: &str, deleted: bool) -> Value {
        let mut object = json!({ "kind": "ServiceCIDR", "apiVersion": "networking.k8s.io/v1",
            "metadata": { "name": name, "uid": name, "finalizers": ["a/b", FINALIZER] }, "spec": { "cidrs": [range] },
            "status": { "conditions": [{ "type": READY, "status": "True", "reason": "" }] } });
        if deleted {
            object["metadata"]["deletionTimestamp"] = json!(DELETED);
        }
        object
    }

    fn address(name: &str) -> Value {
        json!({ "kind": "IPAddress", "apiVersion": "networking.k8s.io/v1", "metadata": { "name": name, "uid": name } })
    }

    fn look(objects: &[Value], seconds: i64) -> Outcome {
        let now = DELETED.parse::<Timestamp>().unwrap() + jiff::SignedDuration::from_secs(seconds);
        ServiceCidrController.reconcile(&Key::cluster("a"), &world(objects), now)
    }

    /// The bodies of the patches.
    fn bodies(outcome: &Outcome) -> Vec<&Value> {
        let mut bodies = Vec::new();
        for write in &outcome.writes {
            let Write::Patch { body, .. } = write else { panic!("{write:?}") };
            bodies.push(body);
        }
        bodies
    }

    #[test]
    fn a_new_one_is_held_and_ready() {
        let mut new = cidr("a", "10.0.0.0/24", false);
        assert_eq!(look(&[new.clone()], 0), Outcome::nothing());
        new["metadata"]["finalizers"] = json!(["a/b"]);
        new["status"] = json!({});
        let outcome = look(&[new], 0);
        let [first, second] = bodies(&outcome)[..] else { panic!("{outcome:?}") };
        assert_eq!(first["metadata"]["finalizers"], json!(["a/b", FINALIZER]));
        assert_eq!(second["status"]["conditions"][0]["status"], "True");
    }

    #[test]
    fn one_that_is_deleted_waits_for_its_addresses() {
        let own = cidr("a", "10.0.0.0/24", true);
        let outcome = look(&[own.clone(), address("10.0.0.7")], 60);
        let [told] = bodies(&outcome)[..] else { panic!("{outcome:?}") };
        assert_eq!(told["status"]["conditions"][0]["reason"], "Terminating");

        let goes = |objects: &[Value]| {
            let outcome = look(objects, 60);
            bodies(&outcome)[0]["metadata"]["finalizers"] == json!(["a/b"])
        };
        assert!(goes(&[own.clone(), address("10.0.1.7")]), "an address of nobody's range");
        let wider = cidr("b", "10.0.0.0/16", false);
        assert!(goes(&[own.clone(), address("10.0.0.7"), wider]), "another range has it");
        let going = cidr("b", "10.0.0.0/16", true);
        assert!(!goes(&[own.clone(), address("10.0.0.7"), going]), "the other goes too");
        assert_eq!(look(&[own], 4).again, Some(Duration::from_secs(6)));
    }

    #[test]
    fn an_address_that_goes_wakes_those_that_wait() {
        let view = world(&[cidr("a", "10.0.0.0/24", true), cidr("b", "10.0.1.0/24", false)]);
        let (key, meta) =
            (Key::cluster("10.0.0.7"), k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta::default());
        let change = |old, new| Change { resource: "ipaddresses.networking.k8s.io", key: &key, old, new };
        assert_eq!(ServiceCidrController.wakes(&change(Some(&meta), None), &view), [Key::cluster("a")]);
        assert_eq!(ServiceCidrController.wakes(&change(None, Some(&meta)), &view), []);
    }
}
