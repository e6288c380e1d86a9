//! An API server that has the kind or not, lets it be read or not, and what becomes of the policies.

use std::convert::Infallible;

use http::{Request, Response};
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::mpsc::Receiver;

use super::*;
use crate::tables::Source;

/// What the API server says for each version.
type Served = Arc<Mutex<BTreeMap<&'static str, u16>>>;

/// An API server that has one ClusterNetworkPolicy of each version it answers 200 for, by the version's name; what it was
/// not told of it does not have.
fn client(served: Served) -> Client {
    let service = tower::service_fn(move |request: Request<Body>| {
        let version = request.uri().path().split('/').nth(3).unwrap_or_default().to_owned();
        assert!(request.uri().path().ends_with("/clusternetworkpolicies"));
        let code = served.lock().get(version.as_str()).copied().unwrap_or(404);
        let is_watch = request.uri().query().is_some_and(|query| query.contains("watch=true"));
        async move {
            let object = json!({ "metadata": { "name": version }, "spec": {} });
            let answer = match (code, is_watch) {
                (200, false) => {
                    json!({ "metadata": { "resourceVersion": "1" }, "items": [object] }).to_string()
                }
                (200, true) => String::new(),
                (403, _) => {
                    json!({ "status": "Failure", "code": 403, "message": "n1 cannot list them" }).to_string()
                }
                _ => "404 page not found\n".to_owned(),
            };
            let response = Response::builder().status(code).body(Body::from(answer.into_bytes()));
            Ok::<_, Infallible>(response.expect("it has a status"))
        }
    });
    Client::new(service, "default")
}

/// Tells a story while the policies are followed.
async fn while_followed<F: Future<Output = ()>>(served: &Served, story: impl FnOnce(Arc<Tables>) -> F) {
    let (tables, stop) = (Arc::<Tables>::default(), CancellationToken::new());
    let following = follow(client(Arc::clone(served)), Arc::clone(&tables), "n1", &stop);
    let story = async {
        story(Arc::clone(&tables)).await;
        stop.cancel();
    };
    let both = async { tokio::join!(following, story) };
    tokio::time::timeout(Duration::from_secs(60), both).await.expect("it gets there");
}

/// Waits for the policies with these names, read or known to be none.
async fn known(tables: &Tables, names: &[&str]) {
    let mut changes = tables.changes();
    let is_so = || {
        tables.look(|rows| {
            rows.synced.contains(&Source::ClusterPolicies) && rows.policy.cluster.keys().eq(names)
        })
    };
    changes.wait_for(|_| is_so()).await.unwrap();
}

/// What the node's owner is told.
async fn told(complaints: &mut Receiver<Complaint>) -> String {
    loop {
        let complaint = complaints.recv().await.unwrap();
        if (complaint.kind, complaint.reason) == ("Node", "PoliciesNotRead") {
            assert_eq!(complaint.object.name, "n1");
            return complaint.message;
        }
    }
}

#[tokio::test]
async fn a_kind_that_comes_and_goes_is_followed_while_it_is_there() {
    let served = Served::default();
    while_followed(&served, async |tables| {
        known(&tables, &[]).await;
        assert!(tables.unread().is_empty(), "not to have the kind is nothing to complain about");
        served.lock().insert("v1alpha2", 200);
        known(&tables, &["v1alpha2"]).await;
        served.lock().clear();
        known(&tables, &[]).await;
    })
    .await;
}

#[tokio::test]
async fn of_two_versions_the_first_that_is_served_is_read() {
    let served = Served::default();
    served.lock().insert("v1beta1", 200);
    while_followed(&served, async |tables| {
        known(&tables, &["v1beta1"]).await;
        served.lock().clear();
        known(&tables, &[]).await;
        served.lock().extend([("v1alpha2", 200), ("v1beta1", 200)]);
        known(&tables, &["v1alpha2"]).await;
        served.lock().remove("v1alpha2");
        known(&tables, &["v1beta1"]).await;
    })
    .await;
}

#[tokio::test]
async fn without_the_right_to_read_them_there_are_none_until_it_is_given() {
    let served = Served::default();
    served.lock().insert("v1alpha2", 403);
    while_followed(&served, async |tables| {
        let mut complaints = tables.complaints().unwrap();
        known(&tables, &[]).await;
        let message = told(&mut complaints).await;
        assert_eq!(tables.unread().get(KIND), Some(&message));
        assert!(
            message.contains("none is enforced") && message.ends_with("n1 cannot list them"),
            "{message}"
        );
        tokio::time::sleep(AGAIN * 5).await;
        assert!(complaints.try_recv().is_err(), "it is said once");
        served.lock().insert("v1alpha2", 200);
        known(&tables, &["v1alpha2"]).await;
        assert!(tables.unread().is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_right_that_is_taken_away_takes_no_policy_away() {
    let served = Served::default();
    served.lock().insert("v1alpha2", 200);
    while_followed(&served, async |tables| {
        let mut complaints = tables.complaints().unwrap();
        known(&tables, &["v1alpha2"]).await;
        served.lock().insert("v1alpha2", 403);
        let message = told(&mut complaints).await;
        assert!(message.contains("those that were read before hold on"), "{message}");
        known(&tables, &["v1alpha2"]).await;
        served.lock().clear();
        known(&tables, &[]).await;
        assert!(tables.unread().is_empty(), "without the kind there is nothing to read");
    })
    .await;
}
