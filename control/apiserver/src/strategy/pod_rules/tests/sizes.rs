//! What containers and pods may need.

use serde_json::{Value, json};

use super::{CONTAINER, check, told, with};
use crate::strategy::pod_rules::Whole;

#[test]
fn sizes_are_of_known_things_and_requests_within_limits() {
    let sizes =
        |requests: Value, limits: Value| json!({"resources": {"requests": requests, "limits": limits}});
    let page = "hugepages-2Mi";
    check(
        "/containers/0",
        CONTAINER,
        vec![
            (sizes(json!({"cpu": "1"}), json!({"cpu": "1", "memory": "1Gi", "x.io/gpu": "2"})), vec![]),
            (
                sizes(json!({"cpu": "2"}), json!({"cpu": "1"})),
                vec![
                    ".resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
                ],
            ),
            (
                sizes(json!({"x.io/gpu": "1"}), json!({"x.io/gpu": "2"})),
                vec![".resources.requests: Invalid value: \"1\": must be equal to x.io/gpu limit of 2"],
            ),
            (
                sizes(json!({"x.io/gpu": "1"}), json!({})),
                vec![".resources.limits: Required value: Limit must be set for non overcommitable resources"],
            ),
            (
                sizes(json!({}), json!({"x.io/gpu": "1500m"})),
                vec![
                    ".resources.limits[x.io/gpu]: Invalid value: \"1500m\": must be an integer",
                    ".resources.requests[x.io/gpu]: Invalid value: \"1500m\": must be an integer",
                ],
            ),
            (
                sizes(json!({"cpu": "-1"}), json!({})),
                vec![".resources.requests[cpu]: Invalid value: \"-1\": must be greater than or equal to 0"],
            ),
            (
                sizes(json!({"gpu": "1"}), json!({})),
                vec![
                    ".resources.requests[gpu]: Invalid value: \"gpu\": must be a standard resource type or fully qualified",
                    ".resources.requests[gpu]: Invalid value: \"gpu\": must be a standard resource for containers",
                ],
            ),
            (
                sizes(json!({"pods": "1"}), json!({})),
                vec![
                    ".resources.requests[pods]: Invalid value: \"pods\": must be a standard resource for containers",
                ],
            ),
            (sizes(json!({}), json!({"cpu": "1", page: "4Mi"})), vec![]),
            (
                sizes(json!({}), json!({page: "4Mi"})),
                vec![".resources: Forbidden: HugePages require cpu or memory"],
            ),
            (
                sizes(json!({"cpu": "1", page: "3Mi"}), json!({page: "3Mi"})),
                vec![
                    ".resources.limits[hugepages-2Mi]: Invalid value: \"3Mi\": 3Mi is not positive integer multiple of hugepages-2Mi",
                    ".resources.requests[hugepages-2Mi]: Invalid value: \"3Mi\": 3Mi is not positive",
                ],
            ),
            (json!({"resizePolicy": [{"resourceName": "cpu", "restartPolicy": "NotRequired"}]}), vec![]),
            (
                json!({"resizePolicy": [{"resourceName": "disk", "restartPolicy": ""}]}),
                vec![
                    ".resizePolicy: Unsupported value: \"disk\": supported values: \"cpu\", \"memory\"",
                    ".resizePolicy: Required value",
                ],
            ),
            (
                json!({"resizePolicy": [{"resourceName": "cpu", "restartPolicy": "NotRequired"}, {"resourceName": "cpu", "restartPolicy": "NotRequired"}]}),
                vec![".resizePolicy[1]: Duplicate value: \"cpu\""],
            ),
        ],
    );
    let old = with("/containers/0", &sizes(json!({}), json!({"cpu": "1", page: "3Mi"})));
    assert_eq!(told(Some(&old), &old, Whole::Pod), Vec::<String>::new());
    check(
        "",
        "spec.overhead",
        vec![
            (json!({"overhead": {"cpu": "1"}}), vec![]),
            (json!({"overhead": {"pods": "1"}}), vec![".limits[pods]: Invalid value"]),
        ],
    );
}

#[test]
fn what_never_starts_again_is_not_restarted_to_resize() {
    let spec = |restarts: &str, kind: &str| {
        let container = json!([{"name": "c", "image": "i",
            "resizePolicy": [{"resourceName": "cpu", "restartPolicy": kind}]}]);
        json!({"restartPolicy": restarts, "containers": container})
    };
    check(
        "",
        CONTAINER,
        vec![
            (
                spec("Never", "RestartContainer"),
                vec![
                    ".resizePolicy: Invalid value: \"RestartContainer\": must be 'NotRequired' when pod `restartPolicy` is 'Never'",
                ],
            ),
            (spec("Never", "NotRequired"), vec![]),
            (spec("OnFailure", "RestartContainer"), vec![]),
            (spec("Always", "RestartContainer"), vec![]),
        ],
    );
}

#[test]
fn claims_are_those_of_the_pod() {
    let spec = |claims: Value, used: Value| json!({"resourceClaims": claims, "containers": [{"name": "c", "image": "i", "resources": {"claims": used}}]});
    let own =
        json!([{"name": "a", "resourceClaimName": "x"}, {"name": "b", "resourceClaimTemplateName": "y"}]);
    check(
        "",
        "spec",
        vec![
            (
                spec(
                    own.clone(),
                    json!([{"name": "a", "request": "r"}, {"name": "a", "request": "s"}, {"name": "b"}]),
                ),
                vec![],
            ),
            (
                spec(own.clone(), json!([{"name": "z"}])),
                vec![
                    ".containers[0].resources.claims[0]: Not found: \"z\": must be one of the names in pod.spec.resourceClaims: a, b",
                ],
            ),
            (
                spec(json!([]), json!([{"name": "z"}])),
                vec![
                    ".containers[0].resources.claims[0]: Not found: \"z\": must be one of the names in pod.spec.resourceClaims which is empty",
                ],
            ),
            (
                spec(own.clone(), json!([{"name": "a"}, {"name": "a", "request": "r"}])),
                vec![".containers[0].resources.claims[1]: Duplicate value: \"a\""],
            ),
            (
                spec(own.clone(), json!([{"name": "a", "request": "r"}, {"name": "a"}])),
                vec![".containers[0].resources.claims[1]: Duplicate value: \"a\""],
            ),
            (
                spec(own.clone(), json!([{"name": "a", "request": "r"}, {"name": "a", "request": "r"}])),
                vec![".containers[0].resources.claims[1]: Duplicate value: \"a/r\""],
            ),
            (spec(own, json!([{"name": ""}])), vec![".containers[0].resources.claims[0]: Required value"]),
            (
                spec(json!([{"name": "a"}]), json!([])),
                vec![".resourceClaims[0]: Invalid value: {\"name\":\"a\"}: must specify one of"],
            ),
            (
                spec(
                    json!([{"name": "a", "resourceClaimName": "x", "resourceClaimTemplateName": "Y"}]),
                    json!([]),
                ),
                vec![
                    ".resourceClaims[0]: Invalid value",
                    ".resourceClaims[0].resourceClaimTemplateName: Invalid value: \"Y\"",
                ],
            ),
            (
                spec(
                    json!([{"name": "a", "resourceClaimName": "x"}, {"name": "a", "resourceClaimName": "x"}, {"name": "A", "resourceClaimName": "x"}]),
                    json!([]),
                ),
                vec![
                    ".resourceClaims[1].name: Duplicate value: \"a\"",
                    ".resourceClaims[2].name: Invalid value: \"A\"",
                ],
            ),
        ],
    );
}

#[test]
fn sizes_of_a_pod_hold_those_of_its_containers() {
    let spec = |own: Value, of_container: Value| json!({"resources": own, "containers": [{"name": "c", "image": "i", "resources": of_container}]});
    check(
        "",
        "spec.resources",
        vec![
            (spec(json!({"limits": {"cpu": "2"}}), json!({"requests": {"cpu": "1"}})), vec![]),
            (
                spec(json!({"requests": {"cpu": "1"}}), json!({"requests": {"cpu": "2"}})),
                vec![
                    ".requests[cpu]: Invalid value: \"1\": must be greater than or equal to aggregate container requests of 2",
                ],
            ),
            (
                spec(
                    json!({"limits": {"cpu": "1"}, "requests": {"cpu": "1"}}),
                    json!({"requests": {"cpu": "1"}, "limits": {"cpu": "2"}}),
                ),
                vec![
                    ".containers[0][cpu].limits: Invalid value: \"2\": must be less than or equal to pod limits of 1",
                ],
            ),
            (
                spec(json!({"requests": {"ephemeral-storage": "1"}}), json!({})),
                vec![
                    ".requests[ephemeral-storage]: Unsupported value: \"ephemeral-storage\": supported values: \"cpu\", \"hugepages-\", \"memory\"",
                ],
            ),
            (
                spec(json!({"claims": [], "requests": {"cpu": "1"}}), json!({})),
                vec![".claims: Forbidden: claims may not be set for Resources at pod-level"],
            ),
        ],
    );
    let mut windows = spec(json!({"limits": {"cpu": "2"}}), json!({}));
    windows["os"] = json!({"name": "windows"});
    check("", "spec.resources", vec![(windows, vec![": Forbidden: may not be set for a windows pod"])]);
}
