//! Eviction: a deletion of a pod that asks the disruption budget which selects it.

use serde_json::{Value, json};

use super::subresource::done;
use super::{body, delete, write};
use crate::api::Call;
use crate::body::Reply;
use crate::managed::Manager;
use crate::object::{self, Stored};
use crate::resources::{Sub, known};
use crate::status::{Cause, Refusal, Result};
use crate::strategy::workload::selects;
use crate::tree::{at, int, list, set, text};

/// How often somebody else may change the pod or its budget in between.
const ATTEMPTS: usize = 10;
/// Most pods that may be evicted without the controller of budgets having seen them go.
const MOST_DISRUPTED: usize = 2000;

/// Deletes a pod unless a disruption budget forbids it.
pub async fn evict(call: &Call) -> Result<Reply> {
    let eviction = body::of_kind(call, ("policy", "v1", "Eviction"))?;
    let name = text(&eviction, &["metadata", "name"]);
    if !name.is_empty() && name != call.target.name {
        return Err(Refusal::bad_request("name in URL does not match name in Eviction object"));
    }
    let mut given = delete::Options::read(at(&eviction, &["deleteOptions"]))?;
    given.dry |= call.dry_run();
    let mut last = None;
    for _ in 0..ATTEMPTS {
        let entry = call.stored()?;
        let pod = object::decode(&entry);
        if !counts(&pod) {
            // A pod that has not come up yet may do so meanwhile, and then counts.
            let bound = at(&pod, &["metadata", "deletionTimestamp"]).is_null()
                && text(&pod, &["status", "phase"]) == "Pending";
            match remove(call, &entry, &given, bound && given.revision.is_empty()).await {
                Err(refusal) if bound && given.revision.is_empty() && refusal.code == 409 => {
                    last = Some(refusal);
                    continue;
                }
                other => return other,
            }
        }
        let Some(budget) = budget_of(call, &pod)? else { return remove(call, &entry, &given, false).await };
        if spares(&budget.1, &pod) {
            let removed = remove(call, &entry, &given, given.revision.is_empty()).await;
            return removed.map_err(|refusal| match refusal.code {
                409 if given.revision.is_empty() => try_later(&budget.1),
                _ => refusal,
            });
        }
        match spend(call, &budget, &pod, given.dry).await? {
            Spent::Yes => return remove(call, &entry, &given, false).await,
            Spent::Conflict => last = Some(try_later(&budget.1)),
        }
    }
    Err(last.unwrap_or_else(|| Refusal::internal("no eviction was tried")))
}

/// Whether the pod may be one of those a budget wants to keep.
fn counts(pod: &Value) -> bool {
    at(pod, &["metadata", "deletionTimestamp"]).is_null()
        && !matches!(text(pod, &["status", "phase"]), "Succeeded" | "Failed" | "Pending")
}

/// Deletes the pod and says why in its status; when `bound`, only as it was seen.
async fn remove(call: &Call, entry: &Stored, given: &delete::Options, bound: bool) -> Result<Reply> {
    let mut options = given.clone();
    if bound {
        options.revision = entry.mod_revision.to_string();
    }
    if !options.dry {
        let manager = Manager::update(call);
        let outcome = write::change(call, Some(Sub::Status), &manager, |pod| {
            let mut new = pod.clone();
            if !options.revision.is_empty() {
                set(&mut new, &["metadata", "resourceVersion"], options.revision.as_str());
            }
            mark(&mut new);
            body::patched(call, new)
        });
        if let write::Outcome::Written(pod) = outcome.await?
            && let Some((_, revision)) = pod.stored()
            && !options.revision.is_empty()
        {
            options.revision = revision.to_string();
        }
    }
    delete::one(call, &call.target.name, &options).await?;
    done(call)
}

/// The condition that tells an eviction from a failure.
fn mark(pod: &mut Value) {
    let now = write::timestamp(jiff::Timestamp::now());
    let condition = json!({ "type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
        "message": "Eviction API: evicting", "lastProbeTime": null, "lastTransitionTime": now });
    put_condition(pod, condition);
}

fn put_condition(object: &mut Value, condition: Value) {
    let mut conditions = list(object, &["status", "conditions"]).to_vec();
    match conditions.iter_mut().find(|one| one["type"] == condition["type"]) {
        Some(one) if one["status"] == condition["status"] => return,
        Some(one) => *one = condition,
        None => conditions.push(condition),
    }
    set(object, &["status", "conditions"], conditions);
}

/// The budget that selects the pod.
fn budget_of(call: &Call, pod: &Value) -> Result<Option<(Stored, Value)>> {
    let labels = at(pod, &["metadata", "labels"]);
    if labels.as_object().is_none_or(serde_json::Map::is_empty) {
        return Ok(None);
    }
    let row = known("policy", "poddisruptionbudgets");
    let prefix = object::prefix(row, &call.target.namespace);
    let page = call.api.objects.range(&prefix, None, 0, None).map_err(Refusal::internal)?;
    let budgets = page.entries.into_iter().map(|entry| {
        let budget = object::decode(&entry);
        (entry, budget)
    });
    let mut selecting = budgets.filter(|(_, budget)| {
        let selector = at(budget, &["spec", "selector"]);
        selector.is_object() && selects(selector, labels)
    });
    let first = selecting.next();
    if selecting.next().is_some() {
        let why = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
        return Err(Refusal::new(500, "", why));
    }
    Ok(first)
}

/// Whether a pod that is not ready may go without being counted.
fn spares(budget: &Value, pod: &Value) -> bool {
    let ready = list(pod, &["status", "conditions"])
        .iter()
        .any(|condition| text(condition, &["type"]) == "Ready" && text(condition, &["status"]) == "True");
    let count = |field: &str| int(budget, &["status", field]).unwrap_or_default();
    let always = text(budget, &["spec", "unhealthyPodEvictionPolicy"]) == "AlwaysAllow";
    let enough = count("currentHealthy") >= count("desiredHealthy") && count("desiredHealthy") > 0;
    !ready && (always || enough)
}

/// What came of taking a disruption from a budget.
enum Spent {
    Yes,
    /// Somebody else wrote the budget first.
    Conflict,
}

/// Takes one allowed disruption from the budget.
async fn spend(call: &Call, budget: &(Stored, Value), pod: &Value, dry: bool) -> Result<Spent> {
    let (entry, budget) = budget;
    let left = allowed(budget)? - 1;
    if dry {
        return Ok(Spent::Yes);
    }
    let now = write::timestamp(jiff::Timestamp::now());
    let mut new = budget.clone();
    set(&mut new, &["status", "disruptionsAllowed"], left);
    if left == 0 {
        let observed = int(budget, &["status", "observedGeneration"]).unwrap_or_default();
        let condition = json!({ "type": "DisruptionAllowed", "status": "False", "reason": "InsufficientPods",
            "message": "", "observedGeneration": observed, "lastTransitionTime": now });
        put_condition(&mut new, condition);
    }
    set(&mut new, &["status", "disruptedPods", text(pod, &["metadata", "name"])], now);
    let txn = store::Txn::update(&*entry.key, entry.mod_revision, object::encode(&new));
    match call.api.txn(txn).await.map_err(write::failure_of_update) {
        Ok(_) => Ok(Spent::Yes),
        Err(write::Failure::Conflict { .. }) => Ok(Spent::Conflict),
        Err(write::Failure::Refused(refusal)) => Err(refusal),
    }
}

/// How many disruptions the budget allows now, at least one.
fn allowed(budget: &Value) -> Result<i64> {
    let row = known("policy", "poddisruptionbudgets");
    let name = text(budget, &["metadata", "name"]);
    let number = |path: &[&str]| int(budget, path).unwrap_or_default();
    if number(&["status", "observedGeneration"]) < number(&["metadata", "generation"]) {
        return Err(try_later(budget));
    }
    let allowed = number(&["status", "disruptionsAllowed"]);
    if allowed < 0 {
        return Err(Refusal::forbidden(row, name, "pdb disruptions allowed is negative"));
    }
    let disrupted = at(budget, &["status", "disruptedPods"]).as_object().map_or(0, serde_json::Map::len);
    if disrupted > MOST_DISRUPTED {
        let why = "DisruptedPods map too big - too many evictions not confirmed by PDB controller";
        return Err(Refusal::forbidden(row, name, why));
    }
    if allowed > 0 {
        return Ok(allowed);
    }
    let failed = list(budget, &["status", "conditions"]).iter().find(|condition| {
        text(condition, &["type"]) == "DisruptionAllowed" && text(condition, &["reason"]) == "SyncFailed"
    });
    let (wanted, healthy) = (number(&["status", "desiredHealthy"]), number(&["status", "currentHealthy"]));
    Err(violated(match failed {
        Some(condition) => format!(
            "The disruption budget {name} does not allow evicting pods currently because it failed sync: {}",
            text(condition, &["message"])
        ),
        None => {
            format!("The disruption budget {name} needs {wanted} healthy pods and has {healthy} currently")
        }
    }))
}

fn try_later(budget: &Value) -> Refusal {
    let name = text(budget, &["metadata", "name"]);
    violated(format!("The disruption budget {name} is still being processed by the server.")).retry_after(10)
}

fn violated(message: String) -> Refusal {
    let why = "Cannot evict pod as it would violate the pod's disruption budget.";
    let cause = Cause { reason: "DisruptionBudget", message, field: String::new() };
    Refusal::new(429, "TooManyRequests", why).because(vec![cause])
}
