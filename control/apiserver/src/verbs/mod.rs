//! What can be done with a resource: one file per verb, one place that chooses.

mod body;
mod collection;
mod components;
mod create;
pub mod delete;
mod evict;
mod gzipped;
mod joined;
mod keep;
mod opening;
mod options;
mod packed;
mod patch;
pub mod read;
mod reply;
mod review;
mod scale;
mod session;
mod spliced;
mod subresource;
pub mod told;
mod update;
mod watch;
pub mod write;

use crate::api::Call;
use crate::body::Reply;
use crate::documents;
use crate::status::{Refusal, Result};

/// Carries out a call.
pub async fn dispatch(call: &Call) -> Result<Reply> {
    let target = &call.target;
    let misplaced = if call.row.namespaced {
        // What is done with all of a custom kind is looked for by its verb, not by its path.
        let with_all = matches!(target.verb, "list" | "watch") || call.row.custom.is_none();
        target.namespace.is_empty() && !(target.name.is_empty() && with_all)
    } else {
        !target.namespace.is_empty() && call.row.own() != "namespaces"
    };
    if misplaced {
        return Err(documents::absent(&call.api.own, call.uri.path()));
    }
    // Headers alone are had only of what is behind a proxy.
    if call.method == http::Method::HEAD && target.subresource != "proxy" {
        return Err(unsupported());
    }
    if target.subresource.is_empty() {
        options::check(call)?;
        return main(call).await;
    }
    let Some(sub) = call.row.subresource(&target.subresource) else {
        let custom = call.row.custom.is_some();
        return Err(if custom { Refusal::not_found(&call.row, &target.name) } else { Refusal::no_path() });
    };
    if options::has_options(sub) {
        options::check(call)?;
    }
    subresource::dispatch(call, sub).await
}

async fn main(call: &Call) -> Result<Reply> {
    let named = !call.target.name.is_empty();
    let placed = !call.row.namespaced || !call.target.namespace.is_empty();
    if call.row.review || call.row.own() == "bindings" {
        return match call.target.verb {
            "create" if !named => review::create(call).await,
            _ => Err(unsupported()),
        };
    }
    if call.row.computed {
        return match call.target.verb {
            "get" => components::get(call),
            "list" => components::list(call),
            _ => Err(unsupported()),
        };
    }
    match call.target.verb {
        "get" if placed => read::get(call).await,
        "list" => read::list(call).await,
        "watch" => watch::watch(call),
        "create" if !named && placed => create::create(call).await,
        "update" if named && placed => update::update(call, None).await,
        "patch" if named && placed => patch::patch(call, None).await,
        "delete" if placed => delete::delete(call).await,
        "deletecollection" if placed && call.row.verbs().contains(&"deletecollection") => {
            collection::delete(call).await
        }
        _ => Err(unsupported()),
    }
}

/// The refusal of a verb the resource does not have. Upstream finds no route for it, and says as much of any path.
fn unsupported() -> Refusal {
    Refusal::method_not_allowed(crate::status::NO_METHOD)
}
