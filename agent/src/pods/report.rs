//! Tells the API server what a pod's status is, only when it is another.

use std::sync::Arc;

use k8s_openapi::api::core::v1 as core;
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use serde_json::{Map, Value, json};

use super::names::PodKey;

/// Reports one pod.
#[derive(Clone)]
pub struct Reporter {
    api: Api<core::Pod>,
    key: PodKey,
    /// What was last written, and at which revision: the watch may be behind.
    written: Option<(u64, Arc<core::PodStatus>)>,
}

impl std::fmt::Debug for Reporter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reporter").field("key", &self.key).finish_non_exhaustive()
    }
}

impl Reporter {
    /// Reports the pod `key`.
    pub fn new(client: kube::Client, key: PodKey) -> Self {
        Self { api: Api::namespaced(client, &key.namespace), key, written: None }
    }

    /// Writes `status` unless the object, or the last write, has it already; false when it has to be tried again.
    pub async fn report(&mut self, pod: &core::Pod, status: core::PodStatus) -> bool {
        // Once the watch has caught up the object counts: somebody else may have written since.
        let ahead = self.written.as_ref().filter(|(revision, _)| *revision > revision_of(pod));
        let known = ahead.map_or(pod.status.as_ref(), |(_, status)| Some(status));
        if known == Some(&status) {
            return true;
        }
        let patch = json!({
            "metadata": { "uid": self.key.uid },
            "status": difference(&value(known), &value(Some(&status))),
        });
        match self.api.patch_status(&self.key.name, &PatchParams::default(), &Patch::Merge(patch)).await {
            Ok(object) => {
                self.written = Some((revision_of(&object), Arc::new(status)));
                true
            }
            // It is gone, or another by the same name: the watch will say so.
            Err(kube::Error::Api(answer)) if matches!(answer.code, 404 | 409) => {
                tracing::debug!(pod = %self.key, code = answer.code, "the status has nobody to be told");
                true
            }
            // Trying again would not change the answer, and must not hold up the pod's end.
            Err(kube::Error::Api(answer)) if matches!(answer.code, 400 | 413 | 422) => {
                tracing::error!(pod = %self.key, why = answer.message, "the status is refused");
                true
            }
            Err(error) => {
                tracing::warn!(pod = %self.key, %error, "the status is not written");
                false
            }
        }
    }

    /// Lets the object go; true when it is gone.
    pub async fn release(&self) -> bool {
        let preconditions = Preconditions { uid: Some(self.key.uid.clone()), resource_version: None };
        let params = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(preconditions),
            ..DeleteParams::default()
        };
        match self.api.delete(&self.key.name, &params).await {
            Ok(_) => true,
            Err(kube::Error::Api(answer)) if matches!(answer.code, 404 | 409) => true,
            Err(error) => {
                tracing::warn!(pod = %self.key, %error, "the object is not let go yet");
                false
            }
        }
    }
}

fn revision_of(pod: &core::Pod) -> u64 {
    pod.metadata.resource_version.as_deref().and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn value(status: Option<&core::PodStatus>) -> Map<String, Value> {
    match serde_json::to_value(status) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    }
}

/// A merge patch from one status to the other: lists as a whole, what is gone as null.
fn difference(before: &Map<String, Value>, after: &Map<String, Value>) -> Map<String, Value> {
    let gone = before.keys().filter(|key| !after.contains_key(*key)).map(|key| (key.clone(), Value::Null));
    let changed = after.iter().filter(|(key, value)| before.get(*key) != Some(value));
    gone.chain(changed.map(|(key, value)| (key.clone(), value.clone()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_names_only_what_is_different() {
        let map = |value: Value| value.as_object().unwrap().clone();
        let before = map(json!({ "phase": "Running", "podIP": "10.0.0.1", "reason": "x" }));
        let after = map(json!({ "phase": "Running", "podIP": "10.0.0.2" }));
        assert_eq!(
            Value::Object(difference(&before, &after)),
            json!({ "reason": null, "podIP": "10.0.0.2" })
        );
    }
}
