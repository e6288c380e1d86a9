//! What a container may say.

use serde_json::{Value, json};

use super::{CONTAINER, check, told, with};
use crate::strategy::pod_rules::Whole;

#[test]
fn containers_have_names_images_and_policies() {
    check(
        "/containers/0",
        CONTAINER,
        vec![
            (json!({"name": ""}), vec![".name: Required value"]),
            (json!({"name": "A"}), vec![".name: Invalid value: \"A\": a lowercase RFC 1123 label"]),
            (json!({"image": ""}), vec![".image: Required value"]),
            (
                json!({"image": " i"}),
                vec![".image: Invalid value: \" i\": must not have leading or trailing whitespace"],
            ),
            (
                json!({"imagePullPolicy": "Soon"}),
                vec![
                    ".imagePullPolicy: Unsupported value: \"Soon\": supported values: \"Always\", \"IfNotPresent\", \"Never\"",
                ],
            ),
            (
                json!({"terminationMessagePolicy": "Log"}),
                vec![
                    ".terminationMessagePolicy: Unsupported value: \"Log\": supported values: \"File\", \"FallbackToLogsOnError\"",
                ],
            ),
            (json!({"restartPolicy": "Never"}), vec![]),
            (
                json!({"restartPolicy": "Soon"}),
                vec![
                    ".restartPolicy: Unsupported value: \"Soon\": supported values: \"Always\", \"Never\", \"OnFailure\"",
                ],
            ),
            (
                json!({"restartPolicyRules": [{"action": "Restart", "exitCodes": {"operator": "In", "values": [1]}}]}),
                vec![
                    ".restartPolicy: Required value: must specify restartPolicy when restart rules are used",
                ],
            ),
            (
                json!({"restartPolicy": "Never", "restartPolicyRules": [{"action": "Stop"}]}),
                vec![
                    ".restartPolicyRules[0].action: Unsupported value: \"Stop\": supported values: \"Restart\", \"RestartAllContainers\"",
                    ".restartPolicyRules[0].exitCodes: Required value: must be specified",
                ],
            ),
            (
                json!({"restartPolicy": "Never", "restartPolicyRules":
                [{"action": "Restart", "exitCodes": {"operator": "Is", "values": vec![1; 256]}}]}),
                vec![
                    ".restartPolicyRules[0].exitCodes.operator: Unsupported value: \"Is\": supported values: \"In\", \"NotIn\"",
                    ".restartPolicyRules[0].exitCodes.values: Too many: 256: must have at most 255 items",
                ],
            ),
        ],
    );
}

#[test]
fn names_are_unique_over_all_lists() {
    let c = |name: &str| json!({"name": name, "image": "i", "resources": {}});
    check(
        "",
        "spec",
        vec![
            (json!({"containers": []}), vec![".containers: Required value"]),
            (json!({"containers": [c("a"), c("a")]}), vec![".containers[1].name: Duplicate value: \"a\""]),
            (
                json!({"initContainers": [c("a"), c("c")]}),
                vec![".initContainers[1].name: Duplicate value: \"c\""],
            ),
            (
                json!({"initContainers": [c("a")], "ephemeralContainers": [c("a"), c("b")]}),
                vec![".ephemeralContainers[0].name: Duplicate value: \"a\""],
            ),
            (
                json!({"ephemeralContainers": [{"name": "d", "image": "i", "targetContainerName": "x"}]}),
                vec![".ephemeralContainers[0].targetContainerName: Not found: \"x\""],
            ),
            (
                json!({"ephemeralContainers": [{"name": "d", "image": "i", "ports": [{"containerPort": 1}]}]}),
                vec![".ephemeralContainers[0].ports: Forbidden: cannot be set for an Ephemeral Container"],
            ),
        ],
    );
}

#[test]
fn containers_that_run_first_are_neither_probed_nor_told_to_end() {
    let probe = json!({"exec": {"command": ["a"]}});
    let c = |more: Value| {
        let mut container = json!({"name": "a", "image": "i"});
        json_patch::merge(&mut container, &more);
        json!({"initContainers": [container]})
    };
    let only_sidecars = "Forbidden: may not be set for init containers without restartPolicy=Always";
    let all = ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"]
        .map(|field| format!(".initContainers[0].{field}: {only_sidecars}"));
    let said = json!({"lifecycle": {"preStop": probe}, "livenessProbe": probe, "readinessProbe": probe,
        "startupProbe": probe});
    let mut sidecar = said.clone();
    sidecar["restartPolicy"] = json!("Always");
    let resize = json!({"resizePolicy": [{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]});
    let mut resized_sidecar = resize.clone();
    resized_sidecar["restartPolicy"] = json!("Always");
    check(
        "",
        "spec",
        vec![
            (c(said), all.iter().map(String::as_str).collect()),
            (c(sidecar), vec![]),
            (
                c(resize.clone()),
                vec![
                    ".initContainers[0].resizePolicy[0].restartPolicy: Invalid value: \"RestartContainer\": must not be set",
                ],
            ),
            (c(resized_sidecar), vec![]),
            (
                c(json!({"restartPolicy": "Soon"})),
                vec![".initContainers[0].restartPolicy: Unsupported value: \"Soon\""],
            ),
        ],
    );
    let old = with("", &c(resize));
    assert_eq!(told(Some(&old), &old, Whole::Pod), Vec::<String>::new());
}

#[test]
fn ports_are_ports_and_taken_once() {
    check(
        "/containers/0",
        CONTAINER,
        vec![
            (json!({"ports": [{"containerPort": 80, "name": "http"}]}), vec![]),
            (json!({"ports": [{}]}), vec![".ports[0].containerPort: Required value"]),
            (
                json!({"ports": [{"containerPort": 70000}]}),
                vec![".ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535"],
            ),
            (
                json!({"ports": [{"containerPort": 1, "hostPort": -1}]}),
                vec![".ports[0].hostPort: Invalid value: -1"],
            ),
            (
                json!({"ports": [{"containerPort": 1, "protocol": "X"}]}),
                vec![
                    ".ports[0].protocol: Unsupported value: \"X\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
                ],
            ),
            (
                json!({"ports": [{"containerPort": 1, "name": "A"}]}),
                vec![
                    ".ports[0].name: Invalid value: \"A\": must contain only alpha-numeric",
                    ".ports[0].name: Invalid value: \"A\": must contain at least one letter",
                ],
            ),
            (
                json!({"ports": [{"containerPort": 1, "name": "a"}, {"containerPort": 2, "name": "a"}]}),
                vec![".ports[1].name: Duplicate value: \"a\""],
            ),
            (
                json!({"ports": [{"containerPort": 1, "hostPort": 9}, {"containerPort": 2, "hostPort": 9}]}),
                vec![".ports[1].hostPort: Duplicate value: \"TCP//9\""],
            ),
        ],
    );
    let ports = json!({"hostNetwork": true, "containers": [{"name": "c", "image": "i",
        "ports": [{"containerPort": 1, "hostPort": 2}]}]});
    check(
        "",
        CONTAINER,
        vec![(
            ports,
            vec![
                ".ports[0].hostPort: Invalid value: 2: must match `containerPort` when `hostNetwork` is true",
            ],
        )],
    );
    let mut template =
        with("", &json!({"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 1}]}]}));
    template["spec"]["hostNetwork"] = json!(true);
    assert_eq!(told(None, &template, Whole::Template), Vec::<String>::new());
    assert_eq!(told(None, &template, Whole::Pod).len(), 1);
}

fn from(source: Value) -> Value {
    json!({"env": [{"name": "A", "valueFrom": source}]})
}

#[test]
fn variables_have_one_source() {
    check(
        "/containers/0",
        CONTAINER,
        vec![
            (json!({"env": [{"name": "a.b-c", "value": "x"}]}), vec![]),
            (json!({"env": [{"name": ""}]}), vec![".env[0].name: Required value"]),
            (
                json!({"env": [{"name": "a=b"}]}),
                vec![".env[0].name: Invalid value: \"a=b\": a valid environment variable name"],
            ),
            (
                from(json!({})),
                vec![
                    ".env[0].valueFrom: Invalid value: \"\": must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
                ],
            ),
            (
                from(
                    json!({"secretKeyRef": {"name": "a", "key": "b"}, "configMapKeyRef": {"name": "a", "key": "b"}}),
                ),
                vec![
                    ".env[0].valueFrom: Invalid value: \"\": may not have more than one field specified at a time",
                ],
            ),
            (
                json!({"env": [{"name": "A", "value": "x", "valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}}]}),
                vec![
                    ".env[0].valueFrom: Invalid value: \"\": may not be specified when `value` is not empty",
                ],
            ),
            (
                from(json!({"secretKeyRef": {"name": "A", "key": ""}})),
                vec![
                    ".env[0].valueFrom.secretKeyRef.name: Invalid value: \"A\"",
                    ".env[0].valueFrom.secretKeyRef.key: Required",
                ],
            ),
            (from(json!({"fieldRef": {"fieldPath": "metadata.labels['a/b']"}})), vec![]),
            (from(json!({"fieldRef": {"fieldPath": "status.podIPs"}})), vec![]),
            (
                from(json!({"fieldRef": {"fieldPath": ""}})),
                vec![".env[0].valueFrom.fieldRef.fieldPath: Required value"],
            ),
            (
                from(json!({"fieldRef": {"fieldPath": "status.phase"}})),
                vec![
                    ".env[0].valueFrom.fieldRef.fieldPath: Unsupported value: \"status.phase\": supported values: \"metadata.name\", \"metadata.namespace\"",
                ],
            ),
            (
                from(json!({"fieldRef": {"fieldPath": "spec.x"}})),
                vec![
                    ".env[0].valueFrom.fieldRef.fieldPath: Invalid value: \"spec.x\": error converting fieldPath: field label not supported: spec.x",
                ],
            ),
            (
                from(json!({"fieldRef": {"fieldPath": "metadata.name['x']"}})),
                vec![
                    ".env[0].valueFrom.fieldRef.fieldPath: Invalid value: \"metadata.name['x']\": error converting fieldPath: field label does not support subscript",
                ],
            ),
            (
                from(json!({"fieldRef": {"fieldPath": "metadata.labels['-']"}})),
                vec![".env[0].valueFrom.fieldRef: Invalid value: \"-\""],
            ),
            (
                from(json!({"fieldRef": {"apiVersion": "v2", "fieldPath": "metadata.name"}})),
                vec![
                    ".env[0].valueFrom.fieldRef.fieldPath: Invalid value: \"metadata.name\": error converting fieldPath: unsupported pod version: v2",
                ],
            ),
        ],
    );
}

#[test]
fn sizes_in_variables_are_divided_evenly() {
    check(
        "/containers/0",
        CONTAINER,
        vec![
            (from(json!({"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1m"}})), vec![]),
            (from(json!({"resourceFieldRef": {"resource": "limits.hugepages-2Mi"}})), vec![]),
            (
                from(json!({"resourceFieldRef": {"resource": "limits.cpu", "divisor": "2m"}})),
                vec![
                    ".env[0].valueFrom.resourceFieldRef.divisor: Invalid value: \"limits.cpu\": only divisor's values 1m and 1 are supported with the cpu resource",
                ],
            ),
            (
                from(json!({"resourceFieldRef": {"resource": "requests.memory", "divisor": "2Mi"}})),
                vec![
                    ".env[0].valueFrom.resourceFieldRef.divisor: Invalid value: \"requests.memory\": only divisor's values 1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei are supported with the memory resource",
                ],
            ),
            (
                from(json!({"resourceFieldRef": {"resource": "limits.gpu"}})),
                vec![".env[0].valueFrom.resourceFieldRef.resource: Unsupported value: \"limits.gpu\""],
            ),
            (
                from(json!({"resourceFieldRef": {"resource": ""}})),
                vec![".env[0].valueFrom.resourceFieldRef.resource: Required value"],
            ),
        ],
    );
}

#[test]
fn many_variables_have_one_source_too() {
    check(
        "/containers/0",
        CONTAINER,
        vec![
            (json!({"envFrom": [{"secretRef": {"name": "a"}, "prefix": "A_"}]}), vec![]),
            (
                json!({"envFrom": [{"prefix": "a=", "secretRef": {"name": "a"}}]}),
                vec![".envFrom[0].prefix: Invalid value: \"a=\""],
            ),
            (
                json!({"envFrom": [{}]}),
                vec![".envFrom: Invalid value: \"\": must specify one of: `configMapRef` or `secretRef`"],
            ),
            (
                json!({"envFrom": [{"secretRef": {"name": ""}, "configMapRef": {"name": "A"}}]}),
                vec![
                    ".envFrom[0].configMapRef.name: Invalid value: \"A\"",
                    ".envFrom[0].secretRef.name: Required value",
                    ".envFrom: Invalid value: \"\": may not have more than one field specified at a time",
                ],
            ),
        ],
    );
}

#[test]
fn files_of_variables_are_in_volumes_that_begin_empty() {
    let spec = |source: Value, volume: Value| {
        json!({"containers": [{"name": "c", "image": "i", "env": [{"name": "A", "valueFrom": {"fileKeyRef": source}}]}],
            "volumes": [volume]})
    };
    let (file, empty) =
        (json!({"volumeName": "v", "path": "a/b", "key": "K"}), json!({"name": "v", "emptyDir": {}}));
    check(
        "",
        "spec.containers[0].env[0].valueFrom.fileKeyRef",
        vec![
            (spec(file.clone(), empty.clone()), vec![]),
            (spec(file.clone(), json!({"name": "w", "emptyDir": {}})), vec![".volumeName: Not found: \"v\""]),
            (
                spec(file, json!({"name": "v", "secret": {"secretName": "s"}})),
                vec![".volumeName: Invalid value: \"v\": referenced volume must be of type emptyDir"],
            ),
            (
                spec(json!({"volumeName": "v", "path": "../b", "key": ""}), empty),
                vec![".key: Required value", ".path: Invalid value: \"../b\": must not contain '..'"],
            ),
        ],
    );
}

#[test]
fn probes_and_hooks_do_one_thing() {
    let exec = json!({"exec": {"command": ["a"]}});
    let probe = |kind: &str, more: Value| {
        let mut probe = exec.clone();
        json_patch::merge(&mut probe, &more);
        json!({kind: probe})
    };
    let sleep = |seconds: i64| json!({"lifecycle": {"preStop": {"sleep": {"seconds": seconds}}}});
    check(
        "/containers/0",
        CONTAINER,
        vec![
            (probe("livenessProbe", json!({})), vec![]),
            (
                json!({"livenessProbe": {}}),
                vec![".livenessProbe: Required value: must specify a handler type"],
            ),
            (
                probe("livenessProbe", json!({"grpc": {"port": 1}})),
                vec![".livenessProbe.grpc: Forbidden: may not specify more than 1 handler type"],
            ),
            (
                probe("livenessProbe", json!({"successThreshold": 2})),
                vec![".livenessProbe.successThreshold: Invalid value: 2: must be 1"],
            ),
            (
                probe("startupProbe", json!({"successThreshold": 2})),
                vec![".startupProbe.successThreshold: Invalid value: 2: must be 1"],
            ),
            (probe("readinessProbe", json!({"successThreshold": 2})), vec![]),
            (
                probe("readinessProbe", json!({"periodSeconds": -1})),
                vec![".readinessProbe.periodSeconds: Invalid value: -1: must be greater than or equal to 0"],
            ),
            (
                probe("livenessProbe", json!({"terminationGracePeriodSeconds": 0})),
                vec![
                    ".livenessProbe.terminationGracePeriodSeconds: Invalid value: 0: must be greater than 0",
                ],
            ),
            (
                probe("readinessProbe", json!({"terminationGracePeriodSeconds": 1})),
                vec![
                    ".readinessProbe.terminationGracePeriodSeconds: Invalid value: 1: must not be set for readinessProbes",
                ],
            ),
            (json!({"livenessProbe": {"exec": {}}}), vec![".livenessProbe.exec.command: Required value"]),
            (
                json!({"livenessProbe": {"grpc": {"port": 0}}}),
                vec![".livenessProbe.grpc.port: Invalid value: 0"],
            ),
            (
                json!({"livenessProbe": {"tcpSocket": {"port": "Web"}}}),
                vec![".livenessProbe.tcpSocket.port: Invalid value: \"Web\": must contain only"],
            ),
            (json!({"livenessProbe": {"httpGet": {"port": "web", "scheme": "HTTPS"}}}), vec![]),
            (
                json!({"livenessProbe": {"httpGet": {"port": 80, "scheme": "FTP"}}}),
                vec![
                    ".livenessProbe.httpGet.scheme: Unsupported value: \"FTP\": supported values: \"HTTP\", \"HTTPS\"",
                ],
            ),
            (
                json!({"livenessProbe": {"httpGet": {"port": 80, "httpHeaders": [{"name": "a b", "value": ""}]}}}),
                vec![
                    ".livenessProbe.httpGet.httpHeaders: Invalid value: \"a b\": a valid HTTP header must consist",
                ],
            ),
            (sleep(30), vec![]),
            (
                sleep(31),
                vec![
                    ".lifecycle.preStop.sleep: Invalid value: 31: must be non-negative and less than terminationGracePeriodSeconds (30)",
                ],
            ),
            (sleep(-1), vec![".lifecycle.preStop.sleep: Invalid value: -1"]),
            (
                json!({"lifecycle": {"postStart": {}}}),
                vec![".lifecycle.postStart: Required value: must specify a handler type"],
            ),
        ],
    );
}
