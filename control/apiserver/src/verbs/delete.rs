//! Delete: at once, after a grace period, or when the last finalizer is gone.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::write::{self, Failure, commit_delete, timestamp};
use super::{body, options, reply};
use crate::api::Call;
use crate::body::Reply;
use crate::definitions;
use crate::object::{self, Stored};
use crate::resources::Row;
use crate::status::{self, Cause, Refusal, Result};
use crate::tree::{at, int, list, set, text};

/// What the client said about the deletion.
#[derive(Debug, Default, Clone)]
pub struct Options {
    grace: Option<i64>,
    uid: String,
    pub revision: String,
    policy: Policy,
    /// Nothing is written. The request may say so too.
    pub dry: bool,
}

/// What happens to objects owned by the deleted one.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Policy {
    /// As the finalizers on the object say, or else its kind.
    #[default]
    Unsaid,
    Background,
    Foreground,
    Orphan,
}

impl Options {
    /// From the body, else from the query.
    pub fn of(call: &Call) -> Result<Self> {
        let mut given = if call.body.is_empty() {
            json!({})
        } else {
            let kind = crate::schema::schema().named("io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions");
            match kind {
                Some(id) => body::delete_options(call, id)?,
                None => json!({}),
            }
        };
        if let Some(seconds) = call.query.given("gracePeriodSeconds") {
            let seconds: i64 = seconds.parse().map_err(|_error: std::num::ParseIntError| {
                Refusal::bad_request(format!(
                    "gracePeriodSeconds: Invalid value: {seconds:?}: must be an integer"
                ))
            })?;
            set(&mut given, &["gracePeriodSeconds"], seconds);
        }
        if let Some(policy) = call.query.given("propagationPolicy") {
            set(&mut given, &["propagationPolicy"], policy);
        }
        Self::read(&given)
    }

    /// The options an object carries.
    pub fn read(given: &Value) -> Result<Self> {
        let dry = list(given, &["dryRun"]);
        if dry.iter().any(|one| one != "All") {
            return Err(invalid(options::dry_run(&Value::Array(dry.to_vec()))));
        }
        let orphan = at(given, &["orphanDependents"]).as_bool();
        let policy = match (text(given, &["propagationPolicy"]), orphan) {
            ("", None) => Policy::Unsaid,
            ("Orphan", None) | ("", Some(true)) => Policy::Orphan,
            ("Background", None) | ("", Some(false)) => Policy::Background,
            ("Foreground", None) => Policy::Foreground,
            (other, None) => return Err(invalid(options::propagation_policy(other))),
            (policy, Some(_)) => {
                let why = "orphanDependents and deletionPropagation cannot be both set";
                let message = format!("Invalid value: {policy:?}: {why}");
                let field = "propagationPolicy".to_owned();
                return Err(invalid(Cause { reason: "FieldValueInvalid", message, field }));
            }
        };
        Ok(Self {
            grace: int(given, &["gracePeriodSeconds"]),
            uid: text(given, &["preconditions", "uid"]).to_owned(),
            revision: text(given, &["preconditions", "resourceVersion"]).to_owned(),
            policy,
            dry: !dry.is_empty(),
        })
    }
}

fn invalid(cause: Cause) -> Refusal {
    Refusal::invalid_kind("meta.k8s.io", "DeleteOptions", "", vec![cause])
}

/// What a deletion led to.
pub enum Deletion {
    Gone(Value),
    /// The object stays until grace period and finalizers are over.
    Pending(Value),
}

/// Deletes the object the call names.
pub async fn delete(call: &Call) -> Result<Reply> {
    let options = Options::of(call)?;
    match one(call, &call.target.name, &options).await? {
        Deletion::Pending(object) => reply::tree(call, 200, object),
        Deletion::Gone(object) if call.row.returns_deleted => reply::tree(call, 200, object),
        Deletion::Gone(object) => {
            let uid = text(&object, &["metadata", "uid"]);
            reply::document(call, 200, &status::success(&call.row, &call.target.name, uid))
        }
    }
}

/// Conflicts after which a deletion without preconditions gives up.
const ATTEMPTS: usize = 10;

/// Deletes one object of the call's namespace.
pub async fn one(call: &Call, name: &str, options: &Options) -> Result<Deletion> {
    let row = call.row.stored_as();
    let key = object::key(row, &call.target.namespace, name);
    let _names = call.api.definitions.turn(row).await;
    let _turn = call.api.turns.wait(&key).await;
    for _ in 0..ATTEMPTS {
        let entry = call.api.objects.get(&key).ok_or_else(|| Refusal::not_found(&call.row, name))?;
        let old = row.read(&entry);
        check_preconditions(&call.row, name, &old, options)?;
        crate::admission::delete(&call.row, name)?;
        match step(call, row, &entry, &old, options).await {
            Ok(deletion) => return Ok(deletion),
            Err(Failure::Conflict { .. }) => {}
            Err(Failure::Refused(refusal)) => return Err(refusal),
        }
    }
    Err(Refusal::modified(&call.row, name))
}

async fn step(
    call: &Call,
    row: &Row,
    entry: &Stored,
    old: &Value,
    options: &Options,
) -> Result<Deletion, Failure> {
    let dry = options.dry || call.dry_run();
    let marked = mark(row, old, options, Timestamp::now());
    let Some(mut marked) = marked else {
        if !dry {
            commit_delete(call, row, entry, old).await?;
        }
        return Ok(Deletion::Gone(old.clone()));
    };
    if marked == *old || dry {
        return Ok(Deletion::Pending(marked));
    }
    let txn = store::Txn::update(&*entry.key, entry.mod_revision, row.encode(&marked));
    let revision = call.api.txn(txn).await.map_err(write::failure_of_update)?;
    set(&mut marked, &["metadata", "resourceVersion"], revision.to_string());
    Ok(Deletion::Pending(marked))
}

fn check_preconditions(row: &Row, name: &str, old: &Value, options: &Options) -> Result<()> {
    let pairs = [
        ("UID", &options.uid, "uid", "deleted and then recreated"),
        ("ResourceVersion", &options.revision, "resourceVersion", "modified"),
    ];
    for (shown, wanted, field, guess) in pairs {
        let is = text(old, &["metadata", field]);
        if !wanted.is_empty() && wanted != is {
            let why = format!(
                "the {shown} in the precondition ({wanted}) does not match the {shown} in record ({is}). The object might have been {guess}"
            );
            return Err(Refusal::conflict_of_kind(row, name, &why));
        }
    }
    Ok(())
}

/// The object marked for deletion; `None` when nothing holds it.
fn mark(row: &Row, old: &Value, options: &Options, now: Timestamp) -> Option<Value> {
    let mut finalizers = finalizers(row, old, options.policy);
    let waiting = !at(old, &["metadata", "deletionTimestamp"]).is_null();
    if definitions::is_definition(row) && !waiting {
        finalizers.push(json!(definitions::CLEANUP));
    }
    let grace = grace_seconds(row, old, options);
    let namespace_content = row.own() == "namespaces" && !list(old, &["spec", "finalizers"]).is_empty();
    if finalizers.is_empty() && grace == 0 && !namespace_content {
        return None;
    }
    let mut new = old.clone();
    if finalizers.is_empty() {
        crate::tree::remove(&mut new, &["metadata", "finalizers"]);
    } else {
        set(&mut new, &["metadata", "finalizers"], finalizers);
    }
    let before = int(old, &["metadata", "deletionGracePeriodSeconds"]);
    // A grace period can be shortened, never prolonged.
    if !waiting || before.is_some_and(|before| grace < before) {
        let end = now.checked_add(SignedDuration::from_secs(grace)).unwrap_or(now);
        set(&mut new, &["metadata", "deletionTimestamp"], timestamp(end));
        set(&mut new, &["metadata", "deletionGracePeriodSeconds"], grace);
        if !waiting && let Some(generation) = int(old, &["metadata", "generation"]) {
            set(&mut new, &["metadata", "generation"], generation + 1);
        }
    }
    if row.own() == "namespaces" {
        set(&mut new, &["status", "phase"], "Terminating");
    }
    if definitions::is_definition(row) && !waiting {
        let why = "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon";
        let text = ("InstanceDeletionPending", why);
        definitions::set_condition(&mut new, "Terminating", "True", text, &timestamp(now));
    }
    Some(new)
}

fn finalizers(row: &Row, old: &Value, policy: Policy) -> Vec<Value> {
    let mut finalizers = list(old, &["metadata", "finalizers"]).to_vec();
    let named = |name: &str| json!(name);
    let is_policy = |one: &Value| one == "orphan" || one == "foregroundDeletion";
    if policy != Policy::Unsaid {
        finalizers.retain(|one| !is_policy(one));
    } else if row.leaves_dependents && !finalizers.iter().any(is_policy) {
        finalizers.push(named("orphan"));
    }
    match policy {
        Policy::Orphan => finalizers.push(named("orphan")),
        Policy::Foreground => finalizers.push(named("foregroundDeletion")),
        Policy::Background | Policy::Unsaid => {}
    }
    finalizers
}

/// Only pods that run somewhere are given time.
fn grace_seconds(row: &Row, old: &Value, options: &Options) -> i64 {
    if row.own() != "pods" {
        return 0;
    }
    let finished = matches!(text(old, &["status", "phase"]), "Failed" | "Succeeded");
    if text(old, &["spec", "nodeName"]).is_empty() || finished {
        return 0;
    }
    let own = int(old, &["spec", "terminationGracePeriodSeconds"]).unwrap_or(30);
    options.grace.unwrap_or(own).max(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(plural: &str, old: Value, options: Options) -> Option<Value> {
        let row = crate::resources::known(if plural == "deployments" { "apps" } else { "" }, plural);
        mark(row, &old, &options, Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn a_running_pod_gets_its_grace_period() {
        let pod =
            json!({"metadata": {"name": "a"}, "spec": {"nodeName": "n", "terminationGracePeriodSeconds": 5}});
        let marked = run("pods", pod.clone(), Options::default()).unwrap();
        assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 5);
        assert_eq!(marked["metadata"]["deletionTimestamp"], "1970-01-01T00:00:05Z");
        assert_eq!(run("pods", pod, Options { grace: Some(0), ..Options::default() }), None);
        assert_eq!(run("pods", json!({"metadata": {}, "spec": {}}), Options::default()), None);
    }

    #[test]
    fn a_grace_period_is_shortened_and_never_prolonged() {
        let pod = json!({"metadata": {"deletionTimestamp": "x", "deletionGracePeriodSeconds": 10}, "spec": {"nodeName": "n"}});
        let longer = run("pods", pod.clone(), Options { grace: Some(60), ..Options::default() }).unwrap();
        assert_eq!(longer, pod);
        let shorter = run("pods", pod, Options { grace: Some(1), ..Options::default() }).unwrap();
        assert_eq!(shorter["metadata"]["deletionGracePeriodSeconds"], 1);
    }

    #[test]
    fn the_policy_is_written_as_a_finalizer() {
        for (policy, want) in [(Policy::Orphan, "orphan"), (Policy::Foreground, "foregroundDeletion")] {
            let marked =
                run("deployments", json!({"metadata": {}}), Options { policy, ..Options::default() })
                    .unwrap();
            assert_eq!(marked["metadata"]["finalizers"], json!([want]));
        }
        let held = json!({"metadata": {"finalizers": ["orphan"]}});
        assert_eq!(
            run("deployments", held, Options { policy: Policy::Background, ..Options::default() }),
            None
        );
    }

    #[test]
    fn replication_controllers_and_jobs_leave_their_pods_when_nothing_is_said() {
        for (group, plural) in [("", "replicationcontrollers"), ("batch", "jobs")] {
            let row = crate::resources::known(group, plural);
            let held = |finalizers: Value, policy| {
                let old = json!({"metadata": {"finalizers": finalizers}});
                let marked =
                    mark(row, &old, &Options { policy, ..Options::default() }, Timestamp::UNIX_EPOCH);
                marked.map_or(json!([]), |marked| marked["metadata"]["finalizers"].clone())
            };
            for (before, policy, want) in [
                (json!([]), Policy::Unsaid, json!(["orphan"])),
                (json!(["x.io/a"]), Policy::Unsaid, json!(["x.io/a", "orphan"])),
                (json!(["foregroundDeletion"]), Policy::Unsaid, json!(["foregroundDeletion"])),
                (json!(["orphan"]), Policy::Unsaid, json!(["orphan"])),
                (json!([]), Policy::Background, json!([])),
                (json!([]), Policy::Foreground, json!(["foregroundDeletion"])),
            ] {
                assert_eq!(held(before.clone(), policy), want, "{plural} {before} {policy:?}");
            }
        }
        assert_eq!(run("deployments", json!({"metadata": {}}), Options::default()), None);
    }

    #[test]
    fn a_namespace_waits_for_its_content() {
        let namespace = json!({"metadata": {}, "spec": {"finalizers": ["kubernetes"]}});
        assert_eq!(
            run("namespaces", namespace, Options::default()).unwrap()["status"]["phase"],
            "Terminating"
        );
    }
}
