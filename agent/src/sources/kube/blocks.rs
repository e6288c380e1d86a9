//! Networks for the pods of this node out of pools, where the cluster allocates none: the steps of
//! [`ipam::blocks`](crate::ipam::blocks), carried out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ipnetwork::IpNetwork;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::decode::Context;
use super::{decode, objects};
use crate::ipam::blocks::{ASKED, Claims, HELD, NoBlock, Step, networks, step};
use crate::pools::{self, Place, PoolsError};
use crate::tables::{Complaint, ObjectName, Tables};

/// How often is looked whether the node has its networks, and whether there are pools.
const PERIOD: Duration = Duration::from_secs(5);
/// Somebody else changes Node objects as well: such a conflict is no reason to wait long.
const CONFLICT: u16 = 409;

/// Why the node has no networks out of pools.
#[derive(Debug, thiserror::Error)]
pub enum BlocksError {
    /// The API server did not do its part.
    #[error("cannot {what}")]
    Request {
        /// What was asked.
        what: &'static str,
        /// Its answer.
        #[source]
        source: Box<kube::Error>,
    },
    /// The pools cannot be used.
    #[error(transparent)]
    Pools(#[from] PoolsError),
    /// They are used up.
    #[error(transparent)]
    NoBlock(#[from] NoBlock),
}

/// Whoever takes blocks for a node.
pub struct Taker {
    /// The way to the API server.
    pub client: Client,
    /// The ConfigMap with the pools.
    pub pools: Place,
    /// The node.
    pub node: String,
    /// Where its networks appear when it has some.
    pub tables: Arc<Tables>,
}

impl Taker {
    /// Sees to it that the node has networks, until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let (mut attempt, mut told) = (0, String::new());
        // A cluster that allocates podCIDRs has done so by then.
        let mut pause = PERIOD;
        loop {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => return,
            }
            let again = match self.round(&mut attempt).await {
                Ok(again) => {
                    told.clear();
                    again
                }
                Err(error) => {
                    let shown = crate::pods::worker::chain(&error);
                    if shown != told {
                        self.complain(&error, &shown);
                        told = shown;
                    }
                    false
                }
            };
            pause = if again { Duration::ZERO } else { PERIOD };
        }
    }

    /// What somebody has to mend is an Event of the Node; who has to wait for the API server only says so.
    fn complain(&self, error: &BlocksError, shown: &str) {
        tracing::error!(error = shown, "this node has no networks for its pods");
        if !matches!(error, BlocksError::Request { .. }) {
            self.tables.complain(Complaint {
                kind: "Node",
                object: ObjectName { namespace: String::new(), name: self.node.clone() },
                uid: 0,
                reason: "NoPodNetworks",
                message: shown.to_owned(),
            });
        }
    }

    /// One step; answers whether the next one is due at once.
    async fn round(&self, attempt: &mut u32) -> Result<bool, BlocksError> {
        if self.tables.node(&self.node).is_none_or(|own| !own.pod_cidrs.is_empty()) {
            return Ok(false);
        }
        let pools = self.pools().await?;
        if !pools.iter().any(|pool| pool.kind == pools::Kind::Pod) {
            return Ok(false);
        }
        // A list without a version is up to date: it shows what was written before.
        let all = Api::<objects::Node>::all(self.client.clone()).list(&ListParams::default()).await;
        let all = all.map_err(failed("list the nodes"))?;
        let version =
            all.iter().find(|node| node.name_any() == self.node).and_then(ResourceExt::resource_version);
        let claims: BTreeMap<String, Claims> =
            all.items.into_iter().map(|node| (node.name_any(), claims(node))).collect();
        let (held, asked) = match step(&self.node, &claims, &pools, *attempt)? {
            Step::Done => return Ok(false),
            Step::Ask(asked) => (Vec::new(), asked),
            Step::Hold(held) => {
                tracing::info!(networks = ?held, "this node has networks for its pods");
                (held, Vec::new())
            }
            Step::Retract => {
                *attempt += 1;
                (Vec::new(), Vec::new())
            }
        };
        self.write(version, &held, &asked).await
    }

    async fn pools(&self) -> Result<Vec<pools::Pool>, BlocksError> {
        let Place { namespace, name } = &self.pools;
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), namespace);
        let found = api.get_opt(name).await.map_err(failed("read the pools"))?;
        let data = found.and_then(|found| found.data).unwrap_or_default();
        Ok(pools::parse(data.get(pools::KEY).map_or("", String::as_str))?)
    }

    /// Writes the claims of this node, unless it has changed since it was listed.
    async fn write(
        &self,
        version: Option<String>,
        held: &[IpNetwork],
        asked: &[IpNetwork],
    ) -> Result<bool, BlocksError> {
        let annotations = json!({ HELD: annotation(held), ASKED: annotation(asked) });
        let patch = json!({ "metadata": { "resourceVersion": version, "annotations": annotations } });
        let api: Api<objects::Node> = Api::all(self.client.clone());
        match api.patch(&self.node, &PatchParams::default(), &Patch::Merge(patch)).await {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(answer)) if answer.code == CONFLICT => Ok(true),
            Err(error) => Err(failed("write the networks of this node")(error)),
        }
    }
}

fn claims(node: objects::Node) -> Claims {
    let asked = networks(node.annotations().get(ASKED));
    Claims { held: decode::node(node, &mut Context::default()).pod_cidrs, asked }
}

/// Null takes an annotation away.
fn annotation(networks: &[IpNetwork]) -> Value {
    if networks.is_empty() {
        return Value::Null;
    }
    networks.iter().map(ToString::to_string).collect::<Vec<_>>().join(",").into()
}

fn failed(what: &'static str) -> impl FnOnce(kube::Error) -> BlocksError {
    move |source| BlocksError::Request { what, source: Box::new(source) }
}

#[cfg(test)]
mod tests {
    use http::{Method, Request, Response};
    use http_body_util::BodyExt;
    use kube::client::Body;
    use parking_lot::Mutex;

    use super::*;
    use crate::tables::Node;

    /// As much of an API server as is asked for: pools, and nodes whose patches follow their versions.
    #[derive(Default)]
    struct Server {
        pools: &'static str,
        nodes: BTreeMap<String, Value>,
        version: u64,
        conflicts: u32,
    }

    impl Server {
        fn answer(&mut self, method: &Method, path: &str, body: &[u8]) -> (u16, Value) {
            match (method, path) {
                (&Method::GET, "/api/v1/namespaces/kube-system/configmaps/hawser") => {
                    (200, json!({ "metadata": { "name": "hawser" }, "data": { pools::KEY: self.pools } }))
                }
                (&Method::GET, "/api/v1/nodes") => {
                    (200, json!({ "metadata": {}, "items": self.nodes.values().collect::<Vec<_>>() }))
                }
                (&Method::PATCH, path) => self.patch(path.rsplit('/').next().unwrap(), body),
                _ => panic!("{method} {path}"),
            }
        }

        fn patch(&mut self, name: &str, body: &[u8]) -> (u16, Value) {
            let patch: Value = serde_json::from_slice(body).unwrap();
            let node = self.nodes.get_mut(name).unwrap();
            if self.conflicts > 0
                || patch["metadata"]["resourceVersion"] != node["metadata"]["resourceVersion"]
            {
                self.conflicts = self.conflicts.saturating_sub(1);
                return (
                    409,
                    json!({ "status": "Failure", "message": "stale", "reason": "Conflict", "code": 409 }),
                );
            }
            self.version += 1;
            let metadata = node["metadata"].as_object_mut().unwrap();
            metadata.insert("resourceVersion".into(), json!(self.version.to_string()));
            let annotations = metadata.entry("annotations").or_insert(json!({})).as_object_mut().unwrap();
            for (key, value) in patch["metadata"]["annotations"].as_object().unwrap() {
                match value {
                    Value::Null => drop(annotations.remove(key)),
                    value => drop(annotations.insert(key.clone(), value.clone())),
                }
            }
            (200, node.clone())
        }
    }

    fn taker(server: &Arc<Mutex<Server>>, node: &str) -> Taker {
        let name = json!({ "metadata": { "name": node, "resourceVersion": "0" } });
        server.lock().nodes.insert(node.to_owned(), name);
        let server = Arc::clone(server);
        let service = tower::service_fn(move |request: Request<Body>| {
            let server = Arc::clone(&server);
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect().await.expect("a whole body").to_bytes();
                let (status, answer) = server.lock().answer(&parts.method, parts.uri.path(), &body);
                let bytes = Body::from(answer.to_string().into_bytes());
                Ok::<_, kube::Error>(Response::builder().status(status).body(bytes).expect("a plain answer"))
            }
        });
        let tables = Arc::<Tables>::default();
        tables.update(|rows| drop(rows.nodes.insert(node.to_owned(), Arc::new(Node::default()))));
        let pools = "kube-system/hawser".parse().unwrap();
        Taker { client: Client::new(service, "default"), pools, node: node.to_owned(), tables }
    }

    fn held(server: &Mutex<Server>, node: &str) -> Option<String> {
        let server = server.lock();
        server.nodes[node]["metadata"]["annotations"][HELD].as_str().map(str::to_owned)
    }

    #[tokio::test]
    async fn nodes_take_blocks_of_their_own_and_everybody_reads_them() {
        let pools = "- {name: p, kind: Pod, cidrs: [10.0.0.0/28], blockSizes: [30]}";
        let server = Arc::new(Mutex::new(Server { pools, conflicts: 1, ..Server::default() }));
        let takers = ["a", "b", "c", "d", "e"].map(|node| taker(&server, node));
        let mut attempts = [0; 5];
        for _ in 0..20 {
            for (taker, attempt) in takers.iter().zip(&mut attempts) {
                // The fifth finds none.
                drop(taker.round(attempt).await);
            }
        }
        let mut all: Vec<String> = takers.iter().filter_map(|taker| held(&server, &taker.node)).collect();
        all.sort();
        assert_eq!(all, ["10.0.0.0/30", "10.0.0.12/30", "10.0.0.4/30", "10.0.0.8/30"]);
        let last = takers.iter().find(|taker| held(&server, &taker.node).is_none()).unwrap();
        let error = last.round(&mut 0).await.unwrap_err();
        assert!(error.to_string().contains("no pool for pods has a free block of IPv4"), "{error}");
        last.complain(&error, &error.to_string());
        let complaint = last.tables.complaints().unwrap().try_recv().unwrap();
        assert_eq!((complaint.kind, &complaint.object.name), ("Node", &last.node));
        assert_eq!(complaint.message, error.to_string());
        let object =
            server.lock().nodes[&takers.iter().find(|taker| taker.node != last.node).unwrap().node].clone();
        let read = decode::node(serde_json::from_value(object).unwrap(), &mut Context::default());
        assert!(all.contains(&read.pod_cidrs[0].to_string()), "as everybody reads it: {read:?}");
    }

    #[tokio::test]
    async fn a_cluster_that_allocates_or_has_no_pools_for_pods_is_left_alone() {
        let pools = "- {name: p, kind: LoadBalancer, cidrs: [10.0.0.0/28]}";
        let server = Arc::new(Mutex::new(Server { pools, ..Server::default() }));
        let taker = taker(&server, "a");
        assert!(!taker.round(&mut 0).await.unwrap());
        server.lock().pools = "- {name: p, kind: Pod, cidrs: [10.0.0.0/16]}";
        let given = Node { pod_cidrs: vec!["10.244.0.0/24".parse().unwrap()], ..Node::default() };
        taker.tables.update(|rows| drop(rows.nodes.insert("a".into(), Arc::new(given))));
        assert!(!taker.round(&mut 0).await.unwrap());
        assert_eq!(server.lock().version, 0, "nothing is written");
    }
}
