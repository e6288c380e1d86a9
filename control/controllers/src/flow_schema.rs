//! A FlowSchema says whether the priority level it names is there.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use crate::change::Change;
use crate::controller::{Controller, Key, Outcome};
use crate::objects::{FlowSchema, Kind, PriorityLevelConfiguration};
use crate::view::View;
use crate::write::{Target, Write};

const DANGLING: &str = "Dangling";

pub(crate) struct FlowSchemaController;

impl Controller for FlowSchemaController {
    fn name(&self) -> &'static str {
        "api-priority-and-fairness-config-consumer"
    }

    fn wakes(&self, change: &Change<'_>, view: &View) -> Vec<Key> {
        if change.is(FlowSchema::RESOURCE) {
            return vec![change.key.clone()];
        }
        if !change.is(PriorityLevelConfiguration::RESOURCE) {
            return Vec::new();
        }
        let names = |schema: &FlowSchema| schema.spec.priority_level_configuration.name == change.key.name;
        view.flow_schemas.all().filter(|(_, schema)| names(schema)).map(|(key, _)| key.clone()).collect()
    }

    fn reconcile(&self, key: &Key, view: &View, now: Timestamp) -> Outcome {
        let Some(schema) = view.flow_schemas.row(key) else { return Outcome::nothing() };
        let level = &schema.spec.priority_level_configuration.name;
        let there = view.priority_levels.row(&Key::cluster(level)).is_some();
        let (status, reason, found) = if there {
            ("False", "Found", "it exists")
        } else {
            ("True", "NotFound", "there is no such object")
        };
        let joined = if there { "and" } else { "but" };
        let message = format!(
            "This FlowSchema references the PriorityLevelConfiguration object named {level:?} {joined} {found}"
        );
        let own = |one: &&Value| one["type"] == DANGLING;
        let said =
            |one: &Value| one["status"] == status && one["reason"] == reason && one["message"] == *message;
        if schema.status.conditions.iter().find(own).is_some_and(said) {
            return Outcome::nothing();
        }
        let others = schema.status.conditions.iter().filter(|one| !own(one)).cloned();
        let condition = json!({ "type": DANGLING, "status": status, "reason": reason, "message": message,
                                "lastTransitionTime": Time(now) });
        let conditions: Vec<Value> = others.chain([condition]).collect();
        let target = Target::new("flowcontrol.apiserver.k8s.io/v1", "flowschemas", key.clone());
        let body = json!({ "status": { "conditions": conditions } });
        Outcome::writes(vec![Write::Patch { target, subresource: Some("status"), body }])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::tests::world;

    fn schema(conditions: Value) -> Value {
        json!({ "kind": "FlowSchema", "apiVersion": "flowcontrol.apiserver.k8s.io/v1", "metadata": { "name": "a", "uid": "a" },
                "spec": { "priorityLevelConfiguration": { "name": "l" } }, "status": { "conditions": conditions } })
    }

    fn level() -> Value {
        json!({ "kind": "PriorityLevelConfiguration", "apiVersion": "flowcontrol.apiserver.k8s.io/v1",
                "metadata": { "name": "l", "uid": "l" } })
    }

    /// The conditions that are written.
    fn look(objects: &[Value]) -> Option<Value> {
        let outcome =
            FlowSchemaController.reconcile(&Key::cluster("a"), &world(objects), Timestamp::UNIX_EPOCH);
        match outcome.writes.as_slice() {
            [] => None,
            [Write::Patch { subresource: Some("status"), body, .. }] => {
                Some(body["status"]["conditions"].clone())
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_schema_dangles_as_long_as_its_level_is_missing() {
        let other = json!({ "type": "Other", "status": "True" });
        let dangling = look(&[schema(json!([other]))]).unwrap();
        assert_eq!((&dangling[0], &dangling[1]["status"]), (&other, &json!("True")));
        let message = "This FlowSchema references the PriorityLevelConfiguration object named \"l\" but there is no such object";
        assert_eq!((&dangling[1]["reason"], &dangling[1]["message"]), (&json!("NotFound"), &json!(message)));
        assert_eq!(look(&[schema(dangling.clone())]), None);
        let found = look(&[schema(dangling), level()]).unwrap();
        assert_eq!((&found[1]["status"], &found[1]["reason"]), (&json!("False"), &json!("Found")));
        assert_eq!(look(&[schema(found), level()]), None);
    }

    #[test]
    fn a_level_wakes_the_schemas_that_name_it() {
        let view = world(&[schema(json!([]))]);
        for (resource, name, want) in [
            (PriorityLevelConfiguration::RESOURCE, "l", 1),
            (PriorityLevelConfiguration::RESOURCE, "m", 0),
            (FlowSchema::RESOURCE, "b", 1),
            ("pods", "l", 0),
        ] {
            let change = Change { resource, key: &Key::cluster(name), old: None, new: None };
            assert_eq!(FlowSchemaController.wakes(&change, &view).len(), want, "{resource} {name}");
        }
    }
}
