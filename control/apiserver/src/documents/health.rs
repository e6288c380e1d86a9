//! Health: `/livez`, `/readyz` and `/healthz`, each with its checks by name below it.
//!
//! The names are kube-apiserver's, as far as there is something to check: `etcd` is the store, whichever it is, and a
//! `poststarthook` is a step of start-up. `/livez` does not ask the store: a server started anew would not mend it.

use std::sync::atomic::Ordering;

use crate::api::Api;
use crate::body::{self, Reply};
use crate::query::Query;
use crate::status::{Refusal, Result};

/// A check: its name, and what is wrong when it does not pass.
pub type Check = (&'static str, Option<&'static str>);

/// The three questions.
pub const QUESTIONS: [&str; 3] = ["livez", "readyz", "healthz"];

/// What start-up does before the first request is answered.
const START: [&str; 6] = [
    "poststarthook/crd-informer-synced",
    "poststarthook/start-system-namespaces-controller",
    "poststarthook/start-service-ip-repair-controllers",
    "poststarthook/rbac/bootstrap-roles",
    "poststarthook/scheduling/bootstrap-system-priority-classes",
    "poststarthook/bootstrap-controller",
];

/// The answer to a path that is one of the questions, or one of their checks; `None` for any other path.
pub fn answer(api: &Api, path: &str, query: &Query) -> Option<Result<Reply>> {
    let path = path.strip_prefix('/')?;
    let (question, check) = path.split_once('/').unwrap_or((path, ""));
    let question = QUESTIONS.into_iter().find(|known| *known == question)?;
    let checks = checks(api, question);
    if check.is_empty() {
        return Some(Ok(all(question, &checks, query)));
    }
    let found = checks.into_iter().find(|(name, _)| *name == check);
    Some(found.ok_or_else(Refusal::no_page).map(|found| one(&found)))
}

/// What is wrong with the store.
pub fn store_fault(api: &Api) -> Option<&'static str> {
    let connected = api.objects.is_connected().then_some(()).ok_or("the store's news do not arrive");
    let writes = api.store_writes.load(Ordering::Relaxed).then_some(()).ok_or("the last write failed");
    connected.and(writes).err()
}

/// The checks behind a question.
pub fn checks(api: &Api, question: &str) -> Vec<Check> {
    let mut checks = vec![("ping", None)];
    if question != "livez" {
        checks.push(("etcd", store_fault(api)));
    }
    let started = api.ready.load(Ordering::Acquire);
    checks.extend(START.map(|name| (name, (!started).then_some("not finished"))));
    if question == "readyz" {
        checks.push(("shutdown", api.stopping.is_cancelled().then_some("the server is stopping")));
    }
    checks
}

/// `ok`, or a line for each check when one of them fails or the client wants to see them. `exclude` leaves checks out.
fn all(question: &str, checks: &[Check], query: &Query) -> Reply {
    let excluded: Vec<&str> = query.all("exclude").filter(|name| !name.is_empty()).collect();
    let mut lines = String::new();
    let mut failed = false;
    for (name, fault) in checks {
        lines += &match fault {
            _ if excluded.contains(name) => format!("[+]{name} excluded: ok\n"),
            None => format!("[+]{name} ok\n"),
            Some(why) => {
                tracing::warn!(question, check = name, why, "a health check fails");
                failed = true;
                // Who may ask for health need not be told more.
                format!("[-]{name} failed: reason withheld\n")
            }
        };
    }
    let unknown = excluded.iter().filter(|name| checks.iter().all(|(known, _)| known != *name));
    let unknown: Vec<String> = unknown.map(|name| format!("{name:?}")).collect();
    if !unknown.is_empty() {
        lines +=
            &format!("warn: some health checks cannot be excluded: no matches for {}\n", unknown.join(","));
    }
    match (failed, query.first("verbose").is_some()) {
        (true, _) => body::plain(500, format!("{lines}{question} check failed\n")),
        (false, true) => body::plain(200, format!("{lines}{question} check passed\n")),
        (false, false) => body::plain(200, "ok"),
    }
}

fn one((_, fault): &Check) -> Reply {
    match fault {
        None => body::plain(200, "ok"),
        Some(why) => body::plain(500, format!("internal server error: {why}\n")),
    }
}
