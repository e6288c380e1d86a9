//! Admission: what the cluster adds to an object or refuses, whoever writes it.

pub mod account_token;
mod certificates;
pub mod limits;
mod node;
mod runtime;
mod topology;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::api::Call;
use crate::auth::node::MIRROR;
use crate::object::{self, key, prefix};
use crate::resources::{Row, Sub, known};
use crate::status::{Cause, Refusal, Result};
use crate::strategy::device_taint::date_taints;
use crate::tree::{at, flag, int, list, list_mut, set, set_default, text};

/// Namespaces that cannot be deleted.
const IMMORTAL: &[&str] = &["default", "kube-node-lease", "kube-public", "kube-system"];

/// An object can be created only in a namespace that exists and stays.
pub fn namespace_accepts(call: &Call, object: &Value) -> Result<()> {
    if !call.row.namespaced {
        return Ok(());
    }
    let name = &call.target.namespace;
    let row = known("", "namespaces");
    let entry = call.api.objects.get(&key(row, "", name)).ok_or_else(|| Refusal::not_found(row, name))?;
    let at_phase = row.selectable.iter().position(|(field, _)| *field == "status.phase").unwrap_or_default();
    let terminating = entry.header.fields.get(at_phase).is_some_and(|phase| &**phase == "Terminating");
    // Events tell what happens while the content goes.
    if !terminating || call.row.own() == "events" {
        return Ok(());
    }
    let why = format!("unable to create new content in namespace {name} because it is being terminated");
    let cause = Cause {
        reason: "NamespaceTerminating",
        message: format!("namespace {name} is being terminated"),
        field: "metadata.namespace".to_owned(),
    };
    Err(Refusal::forbidden(&call.row, text(object, &["metadata", "name"]), &why).because(vec![cause]))
}

/// Refuses to delete what the cluster cannot be without.
pub fn delete(row: &Row, name: &str) -> Result<()> {
    if row.own() == "namespaces" && IMMORTAL.contains(&name) {
        return Err(Refusal::forbidden(row, name, "this namespace may not be deleted"));
    }
    Ok(())
}

/// Whether new objects of the kind are completed: what was added has defaults of its own.
pub fn completes(row: &Row) -> bool {
    matches!(row.own(), "pods" | "persistentvolumeclaims")
}

/// Completes and checks a new object.
pub fn create(call: &Call, object: &mut Value) -> Result<()> {
    node::create(call, object)?;
    if call.row.own() == "pods" {
        service_account(call, object)?;
        priority(call, object)?;
        tolerations(object);
        runtime::apply(call, object)?;
        topology::label(&call.api.objects, object);
    }
    if completes(&call.row) {
        limits::apply(call, object)?;
    }
    if matches!(call.row.own(), "roles" | "clusterroles" | "rolebindings" | "clusterrolebindings") {
        crate::auth::escalation::check(call, None, object)?;
    }
    match call.row.own() {
        "certificatesigningrequests" => certificates::create(call, object)?,
        "clustertrustbundles" => certificates::attest(call, None, object)?,
        "devicetaintrules" | "resourceslices" => date_taints(object, Timestamp::now()),
        _ => {}
    }
    Ok(())
}

/// Checks what was changed through a path below the object.
pub fn part(call: &Call, sub: Sub, old: &Value, object: &Value) -> Result<()> {
    node::change(call, sub.name(), old, object)?;
    if call.row.own() == "certificatesigningrequests" {
        certificates::part(call, sub, old, object)?;
    }
    if sub == Sub::Resize {
        limits::check(call, object)?;
    }
    Ok(())
}

pub use node::token as node_token;
pub use topology::label as label_place;

/// Completes and checks a changed object.
pub fn update(call: &Call, old: &Value, object: &mut Value) -> Result<()> {
    node::change(call, "", old, object)?;
    if matches!(call.row.own(), "roles" | "clusterroles" | "rolebindings" | "clusterrolebindings")
        && ["rules", "aggregationRule", "subjects", "roleRef"]
            .iter()
            .any(|field| old.get(*field) != object.get(*field))
    {
        crate::auth::escalation::check(call, Some(old), object)?;
    }
    match call.row.own() {
        "persistentvolumeclaims" => limits::check(call, object)?,
        "secrets" => account_token::fill(call, object)?,
        "clustertrustbundles" => certificates::attest(call, Some(old), object)?,
        "devicetaintrules" | "resourceslices" => date_taints(object, Timestamp::now()),
        _ => {}
    }
    Ok(())
}

/// Where a pod finds its token.
const TOKEN_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Upstream asks for an hour and seven seconds, so that the token can be told from one somebody asked for.
const TOKEN_SECONDS: i64 = 3607;

fn service_account(call: &Call, pod: &mut Value) -> Result<()> {
    let mirror = !at(pod, &["metadata", "annotations", MIRROR]).is_null();
    if mirror {
        return Ok(());
    }
    set_default(pod, &["spec", "serviceAccountName"], "default");
    let name = text(pod, &["spec", "serviceAccountName"]).to_owned();
    set(pod, &["spec", "serviceAccount"], name.as_str());
    let row = known("", "serviceaccounts");
    let namespace = &call.target.namespace;
    let Some(entry) = call.api.objects.get(&key(row, namespace, &name)) else {
        let why =
            format!("error looking up service account {namespace}/{name}: serviceaccount {name:?} not found");
        return Err(Refusal::forbidden(&call.row, text(pod, &["metadata", "name"]), &why));
    };
    let account = object::decode(&entry);
    if list(pod, &["spec", "imagePullSecrets"]).is_empty()
        && !list(&account, &["imagePullSecrets"]).is_empty()
    {
        set(pod, &["spec", "imagePullSecrets"], account["imagePullSecrets"].clone());
    }
    let wanted = at(pod, &["spec", "automountServiceAccountToken"])
        .as_bool()
        .or_else(|| at(&account, &["automountServiceAccountToken"]).as_bool());
    if wanted.unwrap_or(true) {
        mount_token(pod);
    }
    Ok(())
}

fn mount_token(pod: &mut Value) {
    let name = crate::verbs::write::generate_name("kube-api-access-");
    let mut mounted = false;
    for group in ["initContainers", "containers"] {
        for container in list_mut(pod, &["spec", group]) {
            let has = list(container, &["volumeMounts"])
                .iter()
                .any(|mount| text(mount, &["mountPath"]) == TOKEN_PATH);
            if has {
                continue;
            }
            let mut mounts = list(container, &["volumeMounts"]).to_vec();
            mounts.push(json!({ "name": name, "readOnly": true, "mountPath": TOKEN_PATH }));
            set(container, &["volumeMounts"], mounts);
            mounted = true;
        }
    }
    if !mounted {
        return;
    }
    let mut volumes = list(pod, &["spec", "volumes"]).to_vec();
    volumes.push(json!({ "name": name, "projected": { "defaultMode": 0o644, "sources": [
        { "serviceAccountToken": { "expirationSeconds": TOKEN_SECONDS, "path": "token" } },
        { "configMap": { "name": "kube-root-ca.crt", "items": [{ "key": "ca.crt", "path": "ca.crt" }] } },
        { "downwardAPI": { "items": [
            { "path": "namespace", "fieldRef": { "apiVersion": "v1", "fieldPath": "metadata.namespace" } }] } },
    ] } }));
    set(pod, &["spec", "volumes"], volumes);
}

fn priority(call: &Call, pod: &mut Value) -> Result<()> {
    let row = known("scheduling.k8s.io", "priorityclasses");
    let name = text(pod, &["spec", "priorityClassName"]).to_owned();
    let class = if name.is_empty() {
        let page = call.api.objects.range(&prefix(row, ""), None, 0, None).map_err(Refusal::internal)?;
        page.entries.iter().map(|entry| object::decode(entry)).find(|class| flag(class, &["globalDefault"]))
    } else {
        let entry = call.api.objects.get(&key(row, "", &name));
        let Some(entry) = entry else {
            let why = format!("no PriorityClass with name {name} was found");
            return Err(Refusal::forbidden(&call.row, text(pod, &["metadata", "name"]), &why));
        };
        Some(object::decode(&entry))
    };
    let class = class.unwrap_or_default();
    if !class.is_null() && name.is_empty() {
        set(pod, &["spec", "priorityClassName"], text(&class, &["metadata", "name"]));
    }
    let value = int(&class, &["value"]).unwrap_or_default();
    if let Some(given) = int(pod, &["spec", "priority"]).filter(|given| *given != value) {
        let why = format!(
            "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller computed {value} from the given PriorityClass name"
        );
        return Err(Refusal::forbidden(&call.row, text(pod, &["metadata", "name"]), &why));
    }
    set(pod, &["spec", "priority"], value);
    let policy = text(&class, &["preemptionPolicy"]);
    set_default(
        pod,
        &["spec", "preemptionPolicy"],
        if policy.is_empty() { "PreemptLowerPriority" } else { policy },
    );
    Ok(())
}

/// Seconds a pod stays on a node that is not ready or cannot be reached.
const PATIENCE: i64 = 300;

fn tolerations(pod: &mut Value) {
    let mut all = list(pod, &["spec", "tolerations"]).to_vec();
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let tolerated = all.iter().any(|one| {
            let same_key = text(one, &["key"]) == key || text(one, &["key"]).is_empty();
            same_key && matches!(text(one, &["effect"]), "NoExecute" | "")
        });
        if !tolerated {
            all.push(json!({ "key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": PATIENCE }));
        }
    }
    set(pod, &["spec", "tolerations"], all);
}
