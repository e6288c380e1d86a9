//! The servers that say how the node is.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Run;
use crate::desired::NodeFacts;
use crate::health::proxy::Proxy;
use crate::health::services;
use crate::plain_http;
use crate::tables::Tables;

/// kube-proxy's port for `/healthz`.
const HEALTHZ: u16 = 10256;

/// Starts them.
pub(super) fn start(
    config: &Run,
    proxy: &Arc<Proxy>,
    facts: NodeFacts,
    tables: &Arc<Tables>,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) {
    for address in config.healthz_bind_address.addresses(&config.node_ip, HEALTHZ) {
        let proxy = Arc::clone(proxy);
        let answer = move |path: String| {
            let reply = proxy.answer(&path);
            async move { reply }
        };
        tasks.spawn(plain_http::run(address, "the proxy's health", answer, stop.clone()));
    }
    tasks.spawn(services::run(Arc::clone(tables), facts, Arc::clone(proxy), stop.clone()));
}
