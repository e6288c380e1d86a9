//! Upstream's cases of `netpol` on pods of the cluster: nine pods on all nodes, of which each asks all others, over both families.
//! The machine's kernel may lack SCTP; those questions are left to the cases on packets.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::Cluster;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{AttachParams, AttachedProcess, DeleteParams, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::runtime::Handle;

use crate::cases::{CASES, NAMESPACES, Protocol, Reach, Stage, all_pods};

const PATIENCE: Duration = Duration::from_secs(60);
/// How long an answer is waited for that may not come.
const SILENCE: Duration = Duration::from_millis(300);
/// How long a policy has to be there before it is asked whether it holds.
const NEWS: Duration = Duration::from_millis(150);

pub async fn cases(cluster: &Cluster) -> Result<()> {
    let began = Instant::now();
    let client = cluster.api.client.clone();
    let mut pods = Pods::up(cluster).await?;
    let ready = began.elapsed();
    // A case that does not hold panics: that is for the caller, who has a cluster to take down.
    let played = tokio::task::spawn_blocking(move || {
        let mut unasked = Vec::new();
        for case in CASES {
            pods.title = case.title;
            let before = pods.rounds;
            (case.play)(&mut pods);
            unasked.extend((pods.rounds == before).then_some(case.title));
            pods.reset();
        }
        (pods.rounds, unasked)
    });
    let (rounds, unasked) = played.await.context("a case of upstream's does not hold")?;
    let about_sctp = |title: &&str| title.starts_with("NetworkPolicySCTP ");
    ensure!(unasked.iter().all(about_sctp), "nothing is asked by some of {unasked:#?}");
    unasked.iter().for_each(|title| println!("  not asked here: {title}"));
    println!(
        "  pods after {ready:.1?}, {} cases in {:.1?}, {rounds} rounds",
        CASES.len() - unasked.len(),
        began.elapsed() - ready
    );
    let namespaces = Api::<Namespace>::all(client);
    for namespace in NAMESPACES {
        namespaces.delete(namespace, &DeleteParams::default()).await?;
    }
    // What comes next looks at maps that do not change meanwhile.
    let deadline = Instant::now() + PATIENCE;
    for namespace in NAMESPACES {
        while namespaces.get_opt(namespace).await?.is_some() {
            ensure!(Instant::now() < deadline, "namespace {namespace} is still there");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    Ok(())
}

/// A pod, and the program in it that asks.
struct Asker {
    addresses: [IpAddr; 2],
    questions: Box<dyn tokio::io::AsyncWrite + Send + Unpin>,
    answers: Lines<BufReader<Box<dyn tokio::io::AsyncRead + Send + Unpin>>>,
    _process: AttachedProcess,
}

/// The pods, by `namespace/name`.
struct Pods {
    client: Client,
    title: &'static str,
    askers: BTreeMap<String, Asker>,
    applied: BTreeSet<(String, String)>,
    /// Labels that a case has added: of a pod, or of a namespace.
    labelled: Vec<(String, Value)>,
    changed: Instant,
    rounds: usize,
}

/// Whom a pod asks, and whether there should be an answer.
type Expected = BTreeMap<SocketAddr, (String, bool)>;

fn ends(text: &str) -> (&str, &str) {
    text.split_once('/').expect("a pod has a namespace")
}

impl Pods {
    async fn up(cluster: &Cluster) -> Result<Self> {
        for namespace in NAMESPACES {
            let object = json!({
                "apiVersion": "v1", "kind": "Namespace",
                "metadata": { "name": namespace, "labels": { "ns": namespace } },
            });
            cluster.api.apply(&object.to_string()).await?;
        }
        for text in all_pods() {
            let (namespace, _) = ends(&text);
            let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/default");
            cluster.api.eventually::<Value>(&path, PATIENCE, |_| true).await?;
            cluster.api.apply(&pod(&text).to_string()).await?;
        }
        let mut askers = BTreeMap::new();
        for text in all_pods() {
            let (namespace, name) = ends(&text);
            let path = format!("/api/v1/namespaces/{namespace}/pods/{name}");
            let is_there = |pod: &Pod| is_running(pod) && addresses(pod).is_some();
            let running: Pod = cluster.api.eventually(&path, PATIENCE, is_there).await?;
            let own = addresses(&running).context("a running pod has both addresses")?;
            askers.insert(text.clone(), Asker::start(&cluster.api.client, &text, own).await?);
        }
        Ok(Self {
            client: cluster.api.client.clone(),
            title: "",
            askers,
            applied: BTreeSet::new(),
            labelled: Vec::new(),
            changed: Instant::now(),
            rounds: 0,
        })
    }

    fn policies(&self, namespace: &str) -> Api<NetworkPolicy> {
        Api::namespaced(self.client.clone(), namespace)
    }

    fn patch_labels(&mut self, whose: &str, labels: &Value) {
        let patch = Patch::Merge(json!({ "metadata": { "labels": labels } }));
        let parameters = PatchParams::default();
        let done = Handle::current().block_on(async {
            match whose.split_once('/') {
                Some((namespace, name)) => {
                    let pods = Api::<Pod>::namespaced(self.client.clone(), namespace);
                    pods.patch(name, &parameters, &patch).await.map(drop)
                }
                None => {
                    let namespaces = Api::<Namespace>::all(self.client.clone());
                    namespaces.patch(whose, &parameters, &patch).await.map(drop)
                }
            }
        });
        done.expect("labels can be patched");
        self.changed = Instant::now();
    }

    fn reset(&mut self) {
        for (namespace, name) in self.applied.clone() {
            self.delete(&namespace, &name);
        }
        for (whose, labels) in std::mem::take(&mut self.labelled) {
            let keys = labels.as_object().expect("labels").keys();
            let none: serde_json::Map<String, Value> = keys.map(|key| (key.clone(), Value::Null)).collect();
            self.patch_labels(&whose, &Value::Object(none));
        }
    }

    /// Asks everybody for everybody once; answers with who does not reach, or reaches, whom it should.
    async fn round(&mut self, reach: &Reach, protocol: &str, port: u16) -> Vec<String> {
        self.rounds += 1;
        let to: BTreeMap<String, [IpAddr; 2]> =
            self.askers.iter().map(|(text, asker)| (text.clone(), asker.addresses)).collect();
        let mut expected = BTreeMap::<String, Expected>::new();
        for (from, target, want) in reach.expected().filter(|(from, to, _)| from != to) {
            let own = expected.entry(from).or_default();
            own.extend(to[&target].map(|ip| (SocketAddr::new(ip, port), (target.clone(), want))));
        }
        let mut wrong = Vec::new();
        for (from, asker) in &mut self.askers {
            let asked = asker.ask(protocol, &expected[from]).await;
            wrong.extend(asked.err().map(|error| format!("{from}: {error:#}")));
        }
        for (from, asker) in &mut self.askers {
            let heard = tokio::time::timeout(PATIENCE, asker.hear(protocol, &expected[from])).await;
            let heard = heard.context("no answer from the program in a pod").and_then(|heard| heard);
            let heard = heard.unwrap_or_else(|error| vec![format!("{error:#}")]);
            wrong.extend(heard.into_iter().map(|what| format!("{from} {what}")));
        }
        wrong
    }
}

impl Asker {
    async fn start(client: &Client, text: &str, addresses: [IpAddr; 2]) -> Result<Self> {
        let (namespace, name) = ends(text);
        let pods = Api::<Pod>::namespaced(client.clone(), namespace);
        let parameters = AttachParams::default().stdin(true).stdout(true).stderr(false);
        let mut process = pods.exec(name, ["hawser-hello", "probe"], &parameters).await?;
        let questions = Box::new(process.stdin().context("exec takes standard input")?);
        let out: Box<dyn tokio::io::AsyncRead + Send + Unpin> =
            Box::new(process.stdout().context("exec gives standard output")?);
        Ok(Self { addresses, questions, answers: BufReader::new(out).lines(), _process: process })
    }

    async fn ask(&mut self, protocol: &str, expected: &Expected) -> Result<()> {
        let all: String = expected.keys().map(|to| question(protocol, to) + "\n").collect();
        self.questions.write_all(all.as_bytes()).await?;
        Ok(self.questions.flush().await?)
    }

    /// What is not as it should be.
    async fn hear(&mut self, protocol: &str, expected: &Expected) -> Result<Vec<String>> {
        let mut wrong = Vec::new();
        for _ in 0..expected.len() {
            let line = self.answers.next_line().await?.context("the program in the pod has ended")?;
            let (asked, answer) = line.rsplit_once(' ').context("an answer follows its question")?;
            let to = expected.keys().find(|to| question(protocol, to) == asked);
            let (to, (pod, want)) = to.and_then(|to| expected.get_key_value(to)).context("that was asked")?;
            if (answer == "yes") != *want {
                wrong.push(format!("to {pod} ({to}): {answer}"));
            }
        }
        Ok(wrong)
    }
}

fn question(protocol: &str, to: &SocketAddr) -> String {
    format!("{protocol} {to} {}", SILENCE.as_millis())
}

impl Stage for Pods {
    fn apply(&mut self, namespace: &str, name: &str, spec: Value) {
        let metadata = json!({ "namespace": namespace, "name": name });
        let object = json!({ "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec });
        let parameters = PatchParams::apply("netpol").force();
        let policies = self.policies(namespace);
        let patch = Patch::Apply(object);
        let applied = policies.patch(name, &parameters, &patch);
        Handle::current().block_on(applied).expect("a policy can be applied");
        self.applied.insert((namespace.to_owned(), name.to_owned()));
        self.changed = Instant::now();
    }

    fn delete(&mut self, namespace: &str, name: &str) {
        let policies = self.policies(namespace);
        let parameters = DeleteParams::default();
        let gone = policies.delete(name, &parameters);
        Handle::current().block_on(gone).expect("a policy can be deleted");
        self.applied.remove(&(namespace.to_owned(), name.to_owned()));
        self.changed = Instant::now();
    }

    fn label(&mut self, pod: &str, more: &Value) {
        self.labelled.push((pod.to_owned(), more.clone()));
        self.patch_labels(pod, more);
    }

    fn label_namespace(&mut self, namespace: &str, more: &Value) {
        self.labelled.push((namespace.to_owned(), more.clone()));
        self.patch_labels(namespace, more);
    }

    fn addresses(&self, pod: &str) -> [IpAddr; 2] {
        self.askers[pod].addresses
    }

    fn check(&mut self, reach: &Reach, protocol: Protocol, port: u16) {
        let protocol = match protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => return,
        };
        let deadline = Instant::now() + PATIENCE / 4;
        std::thread::sleep(NEWS.saturating_sub(self.changed.elapsed()));
        loop {
            let wrong = Handle::current().block_on(self.round(reach, protocol, port));
            if wrong.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "{}: {protocol} {port}: {}", self.title, wrong.join(", "));
        }
    }
}

/// A pod that serves both ports, which have names.
fn pod(text: &str) -> Value {
    let (namespace, name) = ends(text);
    let port = |(protocol, number): (&str, u16)| {
        let port_name = format!("serve-{number}-{}", protocol.to_lowercase());
        json!({ "name": port_name, "containerPort": number, "protocol": protocol })
    };
    let all = ["TCP", "UDP", "SCTP"].into_iter().flat_map(|protocol| [(protocol, 80), (protocol, 81)]);
    let container = json!({
        "name": "serve", "image": "hawser.dev/hello:local", "imagePullPolicy": "Never",
        "command": ["hawser-hello", "serve", "80", "81"], "ports": all.map(port).collect::<Vec<_>>(),
    });
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "namespace": namespace, "name": name, "labels": { "pod": name } },
        "spec": { "terminationGracePeriodSeconds": 0, "containers": [container] },
    })
}

fn is_running(pod: &Pod) -> bool {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running")
}

/// IPv4 and IPv6.
fn addresses(pod: &Pod) -> Option<[IpAddr; 2]> {
    let ips = pod.status.as_ref()?.pod_ips.as_ref()?;
    let mut parsed: Vec<IpAddr> = ips.iter().filter_map(|ip| ip.ip.parse().ok()).collect();
    parsed.sort_by_key(IpAddr::is_ipv6);
    parsed.try_into().ok()
}
