//! The Jobs of CronJobs. The schedule comes once a year, so that no test meets it by accident.

use serde_json::{Value, json};

use crate::{becomes, cluster, create, gone, merge};

const CRON_JOBS: &str = "/apis/batch/v1/namespaces/default/cronjobs";
const JOBS: &str = "/apis/batch/v1/namespaces/default/jobs";
const EVENTS: &str = "/api/v1/namespaces/default/events";
const DUE: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";

fn cron(name: &str, policy: &str) -> Value {
    let pod = json!({ "restartPolicy": "Never", "containers": [{ "name": "c", "image": "i" }] });
    json!({ "apiVersion": "batch/v1", "kind": "CronJob", "metadata": { "name": name },
            "spec": { "schedule": "0 0 1 1 *", "concurrencyPolicy": policy, "successfulJobsHistoryLimit": 0,
                      "jobTemplate": { "spec": { "template": { "spec": pod } } } } })
}

fn active(found: &Value) -> Vec<&str> {
    let active = found["status"]["active"].as_array();
    active.into_iter().flatten().filter_map(|job| job["name"].as_str()).collect()
}

/// Has the schedule have come long ago for the last time, so that this year's first of January is due.
async fn came_long_ago(client: &kube::Client, name: &str) {
    let last = json!({ "status": { "lastScheduleTime": "2020-02-01T00:00:00Z" } });
    merge(client, &format!("{CRON_JOBS}/{name}/status"), &last).await;
}

#[tokio::test]
async fn jobs_are_made_noted_finished_and_cleared_away() {
    let (running, client) = cluster().await;
    let path = format!("{CRON_JOBS}/many");
    create(&client, CRON_JOBS, &cron("many", "Allow")).await;
    came_long_ago(&client, "many").await;
    let begun = becomes(&client, &path, |found| active(found).len() == 1).await;
    let name = active(&begun)[0].to_owned();
    let job = becomes(&client, &format!("{JOBS}/{name}"), |found| !found.is_null()).await;
    assert_eq!(job["metadata"]["annotations"][DUE], begun["status"]["lastScheduleTime"]);
    assert_eq!(job["metadata"]["ownerReferences"][0]["uid"], begun["metadata"]["uid"]);

    merge(&client, &path, &json!({ "spec": { "suspend": true } })).await;
    let end = "2026-01-01T00:00:00Z";
    let conditions = json!([{ "type": "SuccessCriteriaMet", "status": "True", "lastTransitionTime": end },
                            { "type": "Complete", "status": "True", "lastTransitionTime": end }]);
    let complete = json!({ "status": { "startTime": end, "completionTime": end, "conditions": conditions } });
    merge(&client, &format!("{JOBS}/{name}/status"), &complete).await;
    gone(&client, &format!("{JOBS}/{name}")).await;
    becomes(&client, &path, |found| active(found).is_empty() && found["status"]["lastSuccessfulTime"] == end)
        .await;
    running.end().await;
}

#[tokio::test]
async fn a_job_that_still_runs_is_replaced_or_waited_for() {
    let (running, client) = cluster().await;
    for policy in ["Replace", "Forbid"] {
        let name = policy.to_lowercase();
        let path = format!("{CRON_JOBS}/{name}");
        let mut suspended = cron(&name, policy);
        suspended["spec"]["suspend"] = json!(true);
        let made = create(&client, CRON_JOBS, &suspended).await;
        let first = create(&client, JOBS, &earlier(&format!("{name}-1"), &made)).await;
        becomes(&client, &path, |found| active(found) == [format!("{name}-1")]).await;
        came_long_ago(&client, &name).await;
        merge(&client, &path, &json!({ "spec": { "suspend": false } })).await;
        if policy == "Replace" {
            gone(&client, &format!("{JOBS}/{name}-1")).await;
            becomes(&client, &path, |found| matches!(active(found)[..], [now] if now != format!("{name}-1")))
                .await;
        } else {
            becomes(&client, EVENTS, |found| has_event(found, &made, "JobAlreadyActive")).await;
            let kept = becomes(&client, &format!("{JOBS}/{name}-1"), |found| !found.is_null()).await;
            assert_eq!(kept["metadata"]["uid"], first["metadata"]["uid"]);
        }
    }
    running.end().await;
}

/// A Job the CronJob made for an earlier time.
fn earlier(name: &str, cron: &Value) -> Value {
    let owner = json!({ "apiVersion": "batch/v1", "kind": "CronJob", "name": cron["metadata"]["name"],
                        "uid": cron["metadata"]["uid"], "controller": true });
    json!({ "apiVersion": "batch/v1", "kind": "Job",
            "metadata": { "name": name, "annotations": { DUE: "2020-01-01T00:00:00Z" }, "ownerReferences": [owner] },
            "spec": cron["spec"]["jobTemplate"]["spec"] })
}

fn has_event(found: &Value, object: &Value, reason: &str) -> bool {
    let events = found["items"].as_array().into_iter().flatten();
    let uid = &object["metadata"]["uid"];
    events.into_iter().any(|event| event["reason"] == reason && event["involvedObject"]["uid"] == *uid)
}
