//! The objects every cluster has from its first moment, made and kept at each start.

use std::net::IpAddr;

use futures::future::try_join_all;
use jiff::Timestamp;
use serde_json::{Value, json};
use store::{Txn, TxnError};

use crate::allocate::Allocator;
use crate::endpoints;
use crate::object::{self, Objects, encode, key};
use crate::resources::{RESOURCES, Row, known};
use crate::schema::apply_defaults;
use crate::tree::{at, list, set, text};
use crate::verbs::write::timestamp;

/// Read again where it is needed, which is seldom.
fn table() -> Value {
    serde_json::from_str(include_str!("../data/bootstrap.json")).expect("the generated table is JSON")
}

/// An object of this name that every cluster starts with.
pub fn shipped(plural: &str, name: &str) -> Option<Value> {
    let mut lists = table();
    let all = lists.get_mut(plural)?.as_array_mut()?;
    all.iter_mut().find(|object| text(object, &["metadata", "name"]) == name).map(Value::take)
}

/// Where clients inside the cluster reach the API server.
#[derive(Debug, Clone)]
pub struct Advertised {
    pub addresses: Vec<IpAddr>,
    pub port: u16,
}

/// Why the first objects could not be written.
#[derive(Debug, thiserror::Error)]
#[error("the cluster's own objects could not be written: {0}")]
pub struct BootstrapError(String);

impl From<store::TxnError<object::Header>> for BootstrapError {
    fn from(error: store::TxnError<object::Header>) -> Self {
        Self(error.to_string())
    }
}

/// How often others may be faster at writing the same.
const ATTEMPTS: usize = 10;

/// Writes what is missing and brings roles up to date; another server may be doing the same.
pub async fn run(
    objects: &Objects,
    allocator: &Allocator,
    advertised: &Advertised,
) -> Result<(), BootstrapError> {
    for attempt in 1..=ATTEMPTS {
        match once(objects, allocator, advertised.port).await {
            Ok(()) => break,
            Err(TxnError::Conflict { .. }) if attempt < ATTEMPTS => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(endpoints::refresh(objects, advertised, Timestamp::now()).await?)
}

async fn once(objects: &Objects, allocator: &Allocator, port: u16) -> Result<(), TxnError<object::Header>> {
    allocator.repair(objects).await?;
    let missing = wanted(allocator, port).into_iter().filter_map(|(row, object)| add(objects, row, object));
    let missing: Vec<Txn> = missing.collect();
    if missing.is_empty() {
        return Ok(());
    }
    let count = missing.len();
    // All at once, so that the disk is waited for once.
    try_join_all(Txn::grouped(missing).into_iter().map(|txn| objects.txn(txn))).await?;
    tracing::info!(count, "wrote the cluster's own objects");
    // The Service's addresses are marked as taken.
    allocator.repair(objects).await
}

fn wanted(allocator: &Allocator, port: u16) -> Vec<(&'static Row, Value)> {
    let lists = table();
    let mut out = Vec::new();
    for entry in RESOURCES {
        let row = known(entry.group, entry.plural);
        // Events and the like have no list of their own in the table.
        out.extend(list(&lists, &[entry.plural]).iter().map(|object| (row, object.clone())));
    }
    out.extend(controllers_role(&out));
    out.extend(agents_roles());
    out.push((known("networking.k8s.io", "servicecidrs"), service_ranges(allocator)));
    out.push((known("", "services"), kubernetes_service(allocator, port)));
    out
}

/// Upstream gives every controller an account of its own. Ours run in one process under one name, which gets what all
/// of them may do together.
fn controllers_role(objects: &[(&'static Row, Value)]) -> Vec<(&'static Row, Value)> {
    let name = "system:hawser:controllers";
    // Upstream's API server does the first itself, and the second by whole updates.
    let own = [
        json!({ "apiGroups": ["flowcontrol.apiserver.k8s.io"], "resources": ["flowschemas/status"], "verbs": ["patch"] }),
        json!({ "apiGroups": [""], "resources": ["secrets"], "verbs": ["patch"] }),
    ];
    let rules: Vec<Value> = objects
        .iter()
        .filter(|(row, object)| {
            row.own() == "clusterroles"
                && text(object, &["metadata", "name"]).starts_with("system:controller:")
        })
        .flat_map(|(_, object)| list(object, &["rules"]).to_vec())
        .chain(own)
        .collect();
    let subject = json!({ "kind": "User", "name": crate::CONTROLLERS });
    granted("ClusterRole", &meta(name, None), json!(rules), subject).into()
}

/// What agents do on their nodes beyond a kubelet's duties: pools of addresses, and the Leases about them.
fn agents_roles() -> Vec<(&'static Row, Value)> {
    let name = "system:hawser:agents";
    let subject = json!({ "kind": "Group", "name": "system:nodes" });
    let everywhere = json!([{ "apiGroups": [""], "resources": ["services/status"], "verbs": ["patch"] }]);
    let own = json!([
        { "apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["hawser"], "verbs": ["get", "list", "watch"] },
        { "apiGroups": ["coordination.k8s.io"], "resources": ["leases"],
          "verbs": ["get", "list", "watch", "create", "update"] },
    ]);
    let mut all = granted("ClusterRole", &meta(name, None), everywhere, subject.clone()).to_vec();
    all.extend(granted("Role", &meta(name, Some("kube-system")), own, subject));
    all
}

fn meta(name: &str, namespace: Option<&str>) -> Value {
    let mut meta = json!({ "name": name, "annotations": { "rbac.authorization.kubernetes.io/autoupdate": "true" },
                           "labels": { "kubernetes.io/bootstrapping": "rbac-defaults" } });
    if let Some(namespace) = namespace {
        meta["namespace"] = json!(namespace);
    }
    meta
}

/// A role and its binding to one subject.
fn granted(kind: &str, meta: &Value, rules: Value, mut subject: Value) -> [(&'static Row, Value); 2] {
    let group = "rbac.authorization.k8s.io";
    let version = "rbac.authorization.k8s.io/v1";
    subject["apiGroup"] = json!(group);
    let role = json!({ "apiVersion": version, "kind": kind, "metadata": meta, "rules": rules });
    let binding = json!({
        "apiVersion": version, "kind": format!("{kind}Binding"), "metadata": meta,
        "roleRef": { "apiGroup": group, "kind": kind, "name": meta["name"] }, "subjects": [subject],
    });
    let plural = kind.to_lowercase();
    [(known(group, &format!("{plural}s")), role), (known(group, &format!("{plural}bindings")), binding)]
}

fn service_ranges(allocator: &Allocator) -> Value {
    let ranges: Vec<String> = allocator.ranges().iter().map(ToString::to_string).collect();
    json!({ "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": { "name": "kubernetes" },
            "spec": { "cidrs": ranges },
            "status": { "conditions": [{ "type": "Ready", "status": "True", "reason": "", "message": "Kubernetes Service CIDR is ready",
                                         "lastTransitionTime": timestamp(Timestamp::now()) }] } })
}

fn kubernetes_service(allocator: &Allocator, port: u16) -> Value {
    let address = allocator.first_addresses().first().map(ToString::to_string).unwrap_or_default();
    let family = if address.contains(':') { "IPv6" } else { "IPv4" };
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": "kubernetes", "namespace": "default", "labels": { "component": "apiserver", "provider": "kubernetes" } },
        "spec": { "type": "ClusterIP", "clusterIP": address, "clusterIPs": [address], "ipFamilies": [family],
                  "ipFamilyPolicy": "SingleStack", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster",
                  "ports": [{ "name": "https", "protocol": "TCP", "port": 443, "targetPort": port }] },
        "status": { "loadBalancer": {} },
    })
}

/// Adds the object to the transaction when it is missing, or its rules when some of them are.
fn add(objects: &Objects, row: &'static Row, mut object: Value) -> Option<Txn> {
    apply_defaults(row.node(), &mut object);
    (row.defaults)(&mut object);
    if row.own() == "namespaces" {
        set(&mut object, &["spec", "finalizers"], json!(["kubernetes"]));
        set(&mut object, &["status", "phase"], "Active");
    }
    if row.generation {
        set(&mut object, &["metadata", "generation"], 1);
    }
    let key = key(row, text(&object, &["metadata", "namespace"]), text(&object, &["metadata", "name"]));
    let (revision, value) = match objects.get(&key) {
        None => {
            set(&mut object, &["metadata", "uid"], uuid::Uuid::new_v4().to_string());
            set(&mut object, &["metadata", "creationTimestamp"], timestamp(Timestamp::now()));
            (0, object)
        }
        Some(entry) => match completed(object::decode(&entry), &object) {
            Some(value) => (entry.mod_revision, value),
            None => return None,
        },
    };
    Some(Txn::update(key, revision, encode(&value)))
}

/// A role or binding that follows upstream, with the rules or subjects it lacks; `None` when it lacks none.
fn completed(mut current: Value, wanted: &Value) -> Option<Value> {
    let follows =
        text(&current, &["metadata", "annotations", "rbac.authorization.kubernetes.io/autoupdate"]) == "true";
    if !follows {
        return None;
    }
    let mut changed = false;
    for field in ["rules", "subjects"] {
        let mut all = list(&current, &[field]).to_vec();
        let missing: Vec<Value> =
            list(wanted, &[field]).iter().filter(|one| !all.contains(one)).cloned().collect();
        if !missing.is_empty() && at(wanted, &["aggregationRule"]).is_null() {
            all.extend(missing);
            set(&mut current, &[field], all);
            changed = true;
        }
    }
    changed.then_some(current)
}
