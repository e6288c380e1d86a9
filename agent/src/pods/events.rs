//! Events: what happened to a pod or the node, for people who ask `kubectl describe`. Never in anybody's way.

use std::collections::HashMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Waiting events beyond this are dropped: they must not hold pods up.
const QUEUE: usize = 256;
/// Series that are counted instead of written anew.
const REMEMBERED: usize = 1024;

/// Says what happened.
#[derive(Debug, Clone)]
pub struct Recorder {
    queue: mpsc::Sender<Draft>,
}

#[derive(Debug)]
struct Draft {
    about: core::ObjectReference,
    warning: bool,
    reason: &'static str,
    message: String,
    when: Timestamp,
}

type SeriesKey = (String, String, &'static str, String);

struct Series {
    name: String,
    count: i32,
}

/// Writes events as `component` of `node`, until `stop`.
pub fn start(client: kube::Client, node: String, stop: CancellationToken) -> Recorder {
    let (queue, drafts) = mpsc::channel(QUEUE);
    tokio::spawn(write_all(client, node, drafts, stop));
    Recorder { queue }
}

impl Recorder {
    /// Something usual happened to a pod.
    pub fn normal(&self, pod: &core::Pod, reason: &'static str, message: String) {
        self.push(reference(pod, None), false, reason, message);
    }

    /// Something bad happened to a pod.
    pub fn warning(&self, pod: &core::Pod, reason: &'static str, message: String) {
        self.push(reference(pod, None), true, reason, message);
    }

    /// Something happened to a container of a pod.
    pub fn container(
        &self,
        pod: &core::Pod,
        container: &str,
        warning: bool,
        reason: &'static str,
        message: String,
    ) {
        self.push(reference(pod, Some(container)), warning, reason, message);
    }

    /// Something is wrong with an object.
    pub fn object(&self, about: core::ObjectReference, reason: &'static str, message: String) {
        self.push(about, true, reason, message);
    }

    /// Something happened to the node.
    pub fn node(&self, node: &str, reason: &'static str, message: String) {
        let about = core::ObjectReference {
            kind: Some("Node".to_owned()),
            name: Some(node.to_owned()),
            uid: Some(node.to_owned()),
            ..Default::default()
        };
        self.push(about, false, reason, message);
    }

    fn push(&self, about: core::ObjectReference, warning: bool, reason: &'static str, message: String) {
        let draft = Draft { about, warning, reason, message, when: Timestamp::now() };
        if let Err(error) = self.queue.try_send(draft) {
            tracing::debug!(%error, "an event is dropped");
        }
    }
}

fn reference(pod: &core::Pod, container: Option<&str>) -> core::ObjectReference {
    let is_init = |name: &str| {
        let spec = pod.spec.as_ref();
        spec.is_some_and(|spec| spec.init_containers.iter().flatten().any(|init| init.name == name))
    };
    core::ObjectReference {
        api_version: Some("v1".to_owned()),
        field_path: container.map(|name| {
            let list = if is_init(name) { "initContainers" } else { "containers" };
            format!("spec.{list}{{{name}}}")
        }),
        kind: Some("Pod".to_owned()),
        name: pod.metadata.name.clone(),
        namespace: pod.metadata.namespace.clone(),
        resource_version: pod.metadata.resource_version.clone(),
        uid: pod.metadata.uid.clone(),
    }
}

async fn write_all(
    client: kube::Client,
    node: String,
    mut drafts: mpsc::Receiver<Draft>,
    stop: CancellationToken,
) {
    let mut series: HashMap<SeriesKey, Series> = HashMap::new();
    loop {
        let draft = tokio::select! {
            draft = drafts.recv() => draft,
            () = stop.cancelled() => return,
        };
        let Some(draft) = draft else { return };
        if series.len() > REMEMBERED {
            series.clear();
        }
        if let Err(error) = write(&client, &node, &mut series, &draft).await {
            tracing::warn!(reason = draft.reason, %error, "an event was not written");
        }
    }
}

async fn write(
    client: &kube::Client,
    node: &str,
    series: &mut HashMap<SeriesKey, Series>,
    draft: &Draft,
) -> Result<(), kube::Error> {
    let namespace = draft.about.namespace.clone().unwrap_or_else(|| "default".to_owned());
    let api: Api<core::Event> = Api::namespaced(client.clone(), &namespace);
    let about = (
        draft.about.uid.clone().unwrap_or_default(),
        draft.about.field_path.clone().unwrap_or_default(),
        draft.reason,
        draft.message.clone(),
    );
    let now = Timestamp::from_second(draft.when.as_second()).unwrap_or(draft.when);
    if let Some(known) = series.get_mut(&about) {
        known.count += 1;
        let patch = json!({ "count": known.count, "lastTimestamp": Time(now) });
        match api.patch(&known.name, &PatchParams::default(), &Patch::Merge(patch)).await {
            Ok(_) => return Ok(()),
            // Events are forgotten after a while: begin anew.
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(error),
        }
    }
    let object = draft.about.name.clone().unwrap_or_default();
    let name = format!("{object}.{:x}", draft.when.as_nanosecond());
    let event = core::Event {
        count: Some(1),
        first_timestamp: Some(Time(now)),
        involved_object: draft.about.clone(),
        last_timestamp: Some(Time(now)),
        message: Some(draft.message.clone()),
        metadata: ObjectMeta { name: Some(name.clone()), namespace: Some(namespace), ..Default::default() },
        reason: Some(draft.reason.to_owned()),
        reporting_component: Some("hawser-agent".to_owned()),
        reporting_instance: Some(node.to_owned()),
        source: Some(core::EventSource {
            component: Some("hawser-agent".to_owned()),
            host: Some(node.to_owned()),
        }),
        type_: Some(if draft.warning { "Warning" } else { "Normal" }.to_owned()),
        ..Default::default()
    };
    api.create(&PostParams::default(), &event).await?;
    series.insert(about, Series { name, count: 1 });
    Ok(())
}
