//! Paths below an object.

use serde_json::{Value, json};

use super::body;
use super::reply::{self, document};
use super::update::{answer, update};
use super::write;
use super::{evict, patch, scale, unsupported};
use crate::api::Call;
use crate::auth::token::{Bound, ISSUER, Request};
use crate::body::Reply;
use crate::managed::Manager;
use crate::object;
use crate::resources::{Row, Sub, known};
use crate::status::{Cause, Refusal, Result};
use crate::tree::{at, int, list, remove, set, strings, text};

/// Carries out a call on a subresource.
pub async fn dispatch(call: &Call, sub: Sub) -> Result<Reply> {
    match (sub, call.target.verb) {
        (Sub::Scale, _) => scale::dispatch(call).await,
        (Sub::Status | Sub::EphemeralContainers | Sub::Resize | Sub::Approval, verb) => match verb {
            "get" => reply::stored(call, &call.stored()?),
            "update" => update(call, Some(sub)).await,
            "patch" => patch::patch(call, Some(sub)).await,
            _ => Err(unsupported()),
        },
        (Sub::Finalize, "update") => finalize(call).await,
        (Sub::Binding, "create") => bind(call).await,
        (Sub::Eviction, "create") => evict::evict(call).await,
        (Sub::Token, "create") => token(call),
        (Sub::Log, "get") => crate::kubelets::logs(call).await,
        (Sub::Exec | Sub::Attach | Sub::PortForward, "create" | "get") => {
            crate::kubelets::stream(call, sub).await
        }
        (Sub::Proxy, _) => crate::proxy::hand_through(call).await,
        _ => Err(unsupported()),
    }
}

/// The namespace controller removes the finalizer when the content is gone.
async fn finalize(call: &Call) -> Result<Reply> {
    let wanted = body::object(call)?;
    if list(&wanted, &["spec", "finalizers"]).is_empty() {
        refuse_while_filled(call)?;
    }
    let manager = Manager::update(call);
    let outcome = write::change(call, Some(Sub::Finalize), &manager, |old| {
        let mut new = old.clone();
        set(&mut new, &["spec", "finalizers"], list(&wanted, &["spec", "finalizers"]).to_vec());
        let given = text(&wanted, &["metadata", "resourceVersion"]);
        if !given.is_empty() {
            set(&mut new, &["metadata", "resourceVersion"], given);
        }
        body::patched(call, new)
    });
    answer(call, outcome.await?)
}

/// Custom objects may be of a kind made a moment ago, of which the namespace controller does not know yet.
fn refuse_while_filled(call: &Call) -> Result<()> {
    let name = &call.target.name;
    let table = call.api.table.load();
    for row in table.rows().iter().filter(|row| row.custom.is_some() && row.namespaced) {
        let count = call.api.objects.count(&object::prefix(row, name));
        if count > 0 {
            let why = format!("the namespace still holds {count} of {}", row.qualified());
            return Err(Refusal::conflict(&call.row, name, &why));
        }
    }
    Ok(())
}

/// Gives a pod its node, once.
async fn bind(call: &Call) -> Result<Reply> {
    let binding = body::of_kind(call, ("", "v1", "Binding"))?;
    bind_pod(call, &binding).await
}

/// Binds the pod the call names as the Binding says.
pub async fn bind_pod(call: &Call, binding: &Value) -> Result<Reply> {
    let node = text(binding, &["target", "name"]);
    let kind = text(binding, &["target", "kind"]);
    if node.is_empty() || !(kind.is_empty() || kind == "Node") {
        let field = if node.is_empty() { "target.name" } else { "target.kind" };
        let cause = Cause {
            reason: "FieldValueRequired",
            message: "Required value: a pod is bound to a Node".to_owned(),
            field: field.to_owned(),
        };
        return Err(Refusal::invalid(known("", "bindings"), &call.target.name, vec![cause]));
    }
    let uid = text(binding, &["metadata", "uid"]);
    let manager = Manager::update(call);
    let outcome = write::change(call, Some(Sub::Binding), &manager, |pod| {
        let conflict = |why: String| Err(Refusal::conflict(known("", "pods"), &call.target.name, &why));
        if !uid.is_empty() && uid != text(pod, &["metadata", "uid"]) {
            return conflict(format!(
                "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
                text(pod, &["metadata", "uid"])
            ));
        }
        if !at(pod, &["metadata", "deletionTimestamp"]).is_null() {
            return conflict(format!(
                "pod {} is being deleted, cannot be assigned to a host",
                call.target.name
            ));
        }
        let bound = text(pod, &["spec", "nodeName"]);
        if !bound.is_empty() {
            return conflict(format!("pod {} is already assigned to node {bound:?}", call.target.name));
        }
        if !list(pod, &["spec", "schedulingGates"]).is_empty() {
            return conflict(format!("pod {} has non-empty .spec.schedulingGates", call.target.name));
        }
        let mut new = pod.clone();
        set(&mut new, &["spec", "nodeName"], node);
        for field in ["annotations", "labels"] {
            for (name, value) in strings(binding, &["metadata", field]) {
                set(&mut new, &["metadata", field, name], value);
            }
        }
        crate::admission::label_place(&call.api.objects, &mut new);
        // Where it was to go is of no more use, and whoever still plans with it would plan with what is gone.
        remove(&mut new, &["status", "nominatedNodeName"]);
        let now = write::timestamp(jiff::Timestamp::now());
        let condition = json!({ "type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": now });
        let mut conditions: Vec<Value> = list(pod, &["status", "conditions"])
            .iter()
            .filter(|c| text(c, &["type"]) != "PodScheduled")
            .cloned()
            .collect();
        conditions.push(condition);
        set(&mut new, &["status", "conditions"], conditions);
        body::patched(call, new)
    });
    outcome.await?;
    done(call)
}

/// What is answered when there is no object to show.
pub fn done(call: &Call) -> Result<Reply> {
    let status =
        json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201 });
    document(call, 201, &status)
}

/// Bounds of a token's life in seconds; upstream's.
const TOKEN_SECONDS: std::ops::RangeInclusive<i64> = 600..=4_294_967_296;

/// Issues a token for a service account.
fn token(call: &Call) -> Result<Reply> {
    let mut request = body::of_kind(call, ("authentication.k8s.io", "v1", "TokenRequest"))?;
    let account = call.stored()?;
    crate::admission::node_token(call, at(&request, &["spec"]))?;
    let seconds = int(&request, &["spec", "expirationSeconds"]).unwrap_or(3600);
    let invalid = |field: &str, message: &str| {
        let cause =
            Cause { reason: "FieldValueInvalid", message: message.to_owned(), field: field.to_owned() };
        let row = Row::unlisted("authentication.k8s.io", "v1", "TokenRequest");
        Refusal::invalid(&row, &call.target.name, vec![cause])
    };
    if !TOKEN_SECONDS.contains(&seconds) {
        return Err(invalid(
            "spec.expirationSeconds",
            &format!(
                "Invalid value: {seconds}: may not specify a duration less than 10 minutes or longer than 2^32 seconds"
            ),
        ));
    }
    let audiences: Vec<String> = list(&request, &["spec", "audiences"])
        .iter()
        .filter_map(Value::as_str)
        .filter(|a| !a.is_empty())
        .map(str::to_owned)
        .collect();
    let audiences = if audiences.is_empty() { vec![ISSUER.to_owned()] } else { audiences };
    let bound = bound_object(call, at(&request, &["spec", "boundObjectRef"]))?;
    let node = bound.as_ref().filter(|(kind, ..)| kind == "Pod").and_then(|(.., pod)| node_of(call, pod));
    let of =
        |wanted: &str| bound.as_ref().filter(|(kind, ..)| kind == wanted).map(|(_, bound, _)| bound.clone());
    let now = jiff::Timestamp::now();
    let signed = call.api.tokens.sign(Request {
        namespace: call.target.namespace.clone(),
        account: Bound { name: call.target.name.clone(), uid: account.header.uid.to_string() },
        pod: of("Pod"),
        node: node.or_else(|| of("Node")),
        secret: of("Secret"),
        audiences: audiences.clone(),
        now: now.as_second(),
        seconds,
    });
    let expires = now.checked_add(jiff::SignedDuration::from_secs(seconds)).unwrap_or(jiff::Timestamp::MAX);
    set(&mut request, &["spec", "audiences"], audiences);
    set(&mut request, &["spec", "expirationSeconds"], seconds);
    set(&mut request, &["metadata", "name"], call.target.name.as_str());
    set(&mut request, &["metadata", "namespace"], call.target.namespace.as_str());
    set(&mut request, &["metadata", "creationTimestamp"], write::timestamp(now));
    let status = json!({ "token": signed.map_err(Refusal::internal)?, "expirationTimestamp": write::timestamp(expires) });
    set(&mut request, &["status"], status);
    document(call, 201, &request)
}

/// Kind, identity and tree of the object a token is to be bound to.
fn bound_object(call: &Call, reference: &Value) -> Result<Option<(String, Bound, Value)>> {
    if !reference.is_object() {
        return Ok(None);
    }
    let (kind, name) = (text(reference, &["kind"]), text(reference, &["name"]));
    let plural = match kind {
        "Pod" => "pods",
        "Secret" => "secrets",
        "Node" => "nodes",
        other => {
            return Err(Refusal::bad_request(format!(
                "cannot bind a token to a {other:?}: supported are Node, Pod, Secret"
            )));
        }
    };
    let row = known("", plural);
    let entry = call.api.objects.get(&object::key(row, &call.target.namespace, name));
    let entry = entry.ok_or_else(|| Refusal::not_found(row, name))?;
    let uid = text(reference, &["uid"]);
    if !uid.is_empty() && *uid != *entry.header.uid {
        let why = format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record ({})",
            entry.header.uid
        );
        return Err(Refusal::conflict(row, name, &why));
    }
    let bound = Bound { name: name.to_owned(), uid: entry.header.uid.to_string() };
    Ok(Some((kind.to_owned(), bound, object::decode(&entry))))
}

fn node_of(call: &Call, pod: &Value) -> Option<Bound> {
    let name = text(pod, &["spec", "nodeName"]);
    let entry = call.api.objects.get(&object::key(known("", "nodes"), "", name));
    let uid = entry.map(|entry| entry.header.uid.to_string()).unwrap_or_default();
    (!name.is_empty()).then(|| Bound { name: name.to_owned(), uid })
}
