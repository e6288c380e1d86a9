//! What a pod may do on its node.

use serde_json::{Value, json};

use super::{check, told, with};
use crate::strategy::pod_rules::{Whole, annotations};

fn context(value: Value) -> Value {
    json!({"securityContext": value})
}

#[test]
fn security_contexts_do_not_contradict_themselves() {
    check(
        "/containers/0",
        "spec.containers[0].securityContext",
        vec![
            (context(json!({"runAsUser": 0, "privileged": true, "procMount": "Default"})), vec![]),
            (
                context(json!({"runAsUser": -1, "runAsGroup": 2_147_483_648_i64})),
                vec![
                    ".runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive",
                    ".runAsGroup: Invalid value: 2147483648",
                ],
            ),
            (
                context(json!({"procMount": "Bare"})),
                vec![".procMount: Unsupported value: \"Bare\": supported values: \"Default\", \"Unmasked\""],
            ),
            (
                context(json!({"procMount": "Unmasked"})),
                vec![".procMount: Invalid value: \"Unmasked\": `hostUsers` must be false to use `Unmasked`"],
            ),
            (
                context(json!({"privileged": true, "allowPrivilegeEscalation": false})),
                vec![
                    ": Invalid value: {\"privileged\":true,\"allowPrivilegeEscalation\":false}: cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
                ],
            ),
            (
                context(
                    json!({"allowPrivilegeEscalation": false, "capabilities": {"add": ["CAP_SYS_ADMIN"]}}),
                ),
                vec![": Invalid value"],
            ),
        ],
    );
}

#[test]
fn profiles_are_named_where_they_are_of_the_node() {
    check(
        "/containers/0",
        "spec.containers[0].securityContext",
        vec![
            (context(json!({"seccompProfile": {"type": "Localhost", "localhostProfile": "a/b"}})), vec![]),
            (
                context(json!({"seccompProfile": {"type": "Localhost"}})),
                vec![
                    ".seccompProfile.localhostProfile: Required value: must be set when seccomp type is Localhost",
                ],
            ),
            (
                context(json!({"seccompProfile": {"type": "Localhost", "localhostProfile": "/../b"}})),
                vec![
                    ".seccompProfile.localhostProfile: Invalid value: \"/../b\": must be a relative path",
                    ".seccompProfile.localhostProfile: Invalid value: \"/../b\": must not contain '..'",
                ],
            ),
            (
                context(json!({"seccompProfile": {"type": "Unconfined", "localhostProfile": "a"}})),
                vec![".seccompProfile.localhostProfile: Invalid value: {"],
            ),
            (
                context(json!({"seccompProfile": {"type": ""}})),
                vec![".seccompProfile.type: Required value: type is required when seccompProfile is set"],
            ),
            (
                context(json!({"seccompProfile": {"type": "x"}})),
                vec![
                    ".seccompProfile.type: Unsupported value: \"x\": supported values: \"Localhost\", \"RuntimeDefault\", \"Unconfined\"",
                ],
            ),
            (context(json!({"appArmorProfile": {"type": "Localhost", "localhostProfile": "a"}})), vec![]),
            (
                context(json!({"appArmorProfile": {"type": "Localhost", "localhostProfile": " a"}})),
                vec![".appArmorProfile.localhostProfile: Invalid value: \" a\": must not be padded"],
            ),
            (
                context(
                    json!({"appArmorProfile": {"type": "Localhost", "localhostProfile": "a".repeat(4096)}}),
                ),
                vec![".appArmorProfile.localhostProfile: Too long: may not be more than 4095 bytes"],
            ),
            (
                context(json!({"appArmorProfile": {"type": "Localhost"}})),
                vec![
                    ".appArmorProfile.localhostProfile: Required value: must be set when AppArmor type is Localhost",
                ],
            ),
            (
                context(json!({"appArmorProfile": {"type": "Unconfined", "localhostProfile": "a"}})),
                vec![".appArmorProfile.localhostProfile: Invalid value: \"a\": can only be set"],
            ),
            (
                context(json!({"appArmorProfile": {"type": ""}})),
                vec![".appArmorProfile.type: Required value"],
            ),
            (
                context(json!({"appArmorProfile": {"type": "x"}})),
                vec![".appArmorProfile.type: Unsupported value: \"x\""],
            ),
        ],
    );
}

#[test]
fn users_and_credentials_of_windows_have_a_form() {
    check(
        "/containers/0",
        "spec.containers[0].securityContext",
        vec![
            (
                context(
                    json!({"windowsOptions": {"runAsUserName": "D\\u", "gmsaCredentialSpec": "x", "gmsaCredentialSpecName": "n"}}),
                ),
                vec![],
            ),
            (
                context(
                    json!({"windowsOptions": {"runAsUserName": "", "gmsaCredentialSpec": "", "gmsaCredentialSpecName": "N"}}),
                ),
                vec![
                    ".windowsOptions.gmsaCredentialSpecName: Invalid value: \"N\"",
                    ".windowsOptions.gmsaCredentialSpec: Invalid value: \"\": gmsaCredentialSpec cannot be an empty string",
                    ".windowsOptions.runAsUserName: Invalid value: \"\": runAsUserName cannot be an empty string",
                ],
            ),
            (
                context(
                    json!({"windowsOptions": {"runAsUserName": ".x\\..", "gmsaCredentialSpec": "x".repeat(65537)}}),
                ),
                vec![
                    ".windowsOptions.gmsaCredentialSpec: Invalid value: \"xxx",
                    ".windowsOptions.runAsUserName: Invalid value: \".x\\\\..\": runAsUserName's Domain doesn't match the NetBios nor the DNS format",
                    ".windowsOptions.runAsUserName: Invalid value: \".x\\\\..\": runAsUserName's User cannot contain only periods or spaces",
                ],
            ),
            (
                context(json!({"windowsOptions": {"runAsUserName": "a\\b\\c"}})),
                vec![
                    ".windowsOptions.runAsUserName: Invalid value: \"a\\\\b\\\\c\": runAsUserName cannot contain more than one backslash",
                ],
            ),
            (
                context(json!({"windowsOptions": {"runAsUserName": "a@b"}})),
                vec![
                    ".windowsOptions.runAsUserName: Invalid value: \"a@b\": runAsUserName's User cannot contain the following characters: \"/\\:;|=,+*?<>@[]",
                ],
            ),
            (
                context(json!({"windowsOptions": {"runAsUserName": "a\tb"}})),
                vec![
                    ".windowsOptions.runAsUserName: Invalid value: \"a\\tb\": runAsUserName cannot contain control characters",
                ],
            ),
            (
                context(json!({"windowsOptions": {"runAsUserName": "D\\"}})),
                vec![
                    ".windowsOptions.runAsUserName: Invalid value: \"D\\\\\": runAsUserName's User cannot be empty",
                ],
            ),
        ],
    );
}

#[test]
fn the_security_context_of_a_pod_has_ids_and_policies() {
    check(
        "",
        "spec.securityContext",
        vec![
            (
                context(
                    json!({"fsGroup": 1, "supplementalGroups": [1], "fsGroupChangePolicy": "Always", "supplementalGroupsPolicy": "Strict", "seLinuxChangePolicy": "Recursive"}),
                ),
                vec![],
            ),
            (
                context(
                    json!({"fsGroup": -1, "runAsUser": -1, "runAsGroup": -1, "supplementalGroups": [0, -1]}),
                ),
                vec![
                    ".fsGroup: Invalid",
                    ".runAsUser: Invalid",
                    ".runAsGroup: Invalid",
                    ".supplementalGroups[1]: Invalid value: -1",
                ],
            ),
            (
                context(
                    json!({"fsGroupChangePolicy": "x", "supplementalGroupsPolicy": "", "seLinuxChangePolicy": "y"}),
                ),
                vec![
                    ".fsGroupChangePolicy: Unsupported value: \"x\": supported values: \"Always\", \"OnRootMismatch\"",
                    ".supplementalGroupsPolicy: Unsupported value: \"\": supported values: \"Merge\", \"Strict\"",
                    ".seLinuxChangePolicy: Unsupported value: \"y\": supported values: \"MountOption\", \"Recursive\"",
                ],
            ),
            (
                json!({"hostPID": true, "shareProcessNamespace": true}),
                vec![
                    ".shareProcessNamespace: Invalid value: true: ShareProcessNamespace and HostPID cannot both be enabled",
                ],
            ),
        ],
    );
}

#[test]
fn users_of_its_own_go_with_no_other_namespace_of_the_host() {
    check(
        "",
        "spec",
        vec![
            (json!({"hostUsers": false}), vec![]),
            (json!({"hostUsers": true, "hostPID": true}), vec![]),
            (
                json!({"hostUsers": false, "hostNetwork": true, "hostPID": true, "hostIPC": true}),
                vec![
                    ".hostNetwork: Forbidden: when `hostUsers` is false",
                    ".HostPID: Forbidden",
                    ".HostIPC: Forbidden",
                ],
            ),
        ],
    );
    let device = json!({"hostUsers": false, "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "a"}}],
        "containers": [{"name": "c", "image": "i", "volumeDevices": [{"name": "v", "devicePath": "/d"}]}]});
    check(
        "",
        "spec",
        vec![(device.clone(), vec![".containers[0].volumeDevices: Forbidden: when `hostUsers` is false"])],
    );
    let old = with("", &device);
    assert_eq!(told(Some(&old), &old, Whole::Pod), Vec::<String>::new());
}

#[test]
fn a_pod_for_one_system_says_nothing_of_the_other() {
    let containers = |context: Value| json!([{"name": "c", "image": "i", "securityContext": context}]);
    let no = "Forbidden: cannot be set for a windows pod";
    let windows = json!({"os": {"name": "windows"}, "hostPID": true, "hostUsers": true, "shareProcessNamespace": false,
        "securityContext": {"runAsUser": 1, "sysctls": [{"name": "a.b", "value": "1"}], "seccompProfile": {"type": "Unconfined"}},
        "containers": containers(json!({"privileged": false, "capabilities": {}}))});
    let want: Vec<String> = [
        "hostUsers",
        "hostPID",
        "securityContext.seccompProfile",
        "securityContext.sysctls",
        "shareProcessNamespace",
        "securityContext.runAsUser",
        "containers[0].securityContext.capabilities",
        "containers[0].securityContext.privileged",
    ]
    .iter()
    .map(|field| format!(".{field}: {no}"))
    .collect();
    check(
        "",
        "spec",
        vec![
            (json!({"os": {"name": "linux"}, "hostPID": true}), vec![]),
            (json!({"os": {"name": ""}}), vec![".os.name: Required value"]),
            (
                json!({"os": {"name": "plan9"}}),
                vec![".os: Unsupported value: \"plan9\": supported values: \"linux\", \"windows\""],
            ),
            (windows, want.iter().map(String::as_str).collect()),
            (
                json!({"os": {"name": "linux"}, "securityContext": {"windowsOptions": {}}, "containers": containers(json!({"windowsOptions": {}}))}),
                vec![
                    ".securityContext.windowsOptions: Forbidden: windows options cannot be set for a linux pod",
                    ".containers[0].securityContext.windowsOptions: Forbidden",
                ],
            ),
            (
                json!({"hostNetwork": true, "securityContext": {"windowsOptions": {"hostProcess": true}}}),
                vec![],
            ),
            (
                json!({"securityContext": {"windowsOptions": {"hostProcess": true}}}),
                vec![".hostNetwork: Invalid value: false: hostNetwork must be true"],
            ),
            (
                json!({"hostNetwork": true, "securityContext": {"windowsOptions": {"hostProcess": true}},
            "containers": [{"name": "a", "image": "i"}, {"name": "b", "image": "i", "securityContext": {"windowsOptions": {"hostProcess": false}}}]}),
                vec![
                    ".containers[1].securityContext.windowsOptions.hostProcess: Invalid value: false: pod hostProcess value must be identical if both are specified, was true",
                    ": Invalid value: \"\": If pod contains any hostProcess containers",
                ],
            ),
        ],
    );
}

#[test]
fn annotations_say_what_fields_say() {
    let annotated = |key: &str, value: &str, spec: &Value| {
        let mut pod = with("", spec);
        pod["metadata"]["annotations"][key] = json!(value);
        pod
    };
    let (seccomp, apparmor) =
        ("seccomp.security.alpha.kubernetes.io/pod", "container.apparmor.security.beta.kubernetes.io/c");
    let own = "container.seccomp.security.alpha.kubernetes.io/c";
    let cost = "controller.kubernetes.io/pod-deletion-cost";
    for (key, value, spec, want) in [
        (seccomp, "localhost/a", json!({}), ""),
        (
            seccomp,
            "x",
            json!({}),
            "metadata.annotations.seccomp.security.alpha.kubernetes.io/pod: Invalid value: \"x\": must be a valid seccomp profile",
        ),
        (own, "localhost//a", json!({}), "must be a relative path"),
        (
            seccomp,
            "unconfined",
            context(json!({"seccompProfile": {"type": "RuntimeDefault"}})),
            "spec.securityContext.seccompProfile.type: Forbidden: seccomp type in annotation and field must match",
        ),
        (seccomp, "docker/default", context(json!({"seccompProfile": {"type": "RuntimeDefault"}})), ""),
        (
            seccomp,
            "localhost/a",
            context(json!({"seccompProfile": {"type": "Localhost", "localhostProfile": "b"}})),
            "spec.securityContext.seccompProfile.localhostProfile: Forbidden: seccomp profile in annotation",
        ),
        (apparmor, "localhost/a", json!({}), ""),
        (apparmor, "a", json!({}), "Invalid value: \"a\": invalid AppArmor profile name: \"a\""),
        (
            "container.apparmor.security.beta.kubernetes.io/d",
            "unconfined",
            json!({}),
            "Invalid value: \"d\": container not found",
        ),
        (
            apparmor,
            "unconfined",
            context(json!({"appArmorProfile": {"type": "Localhost", "localhostProfile": "b"}})),
            "spec.containers[0].securityContext.appArmorProfile.type: Forbidden: apparmor type in annotation",
        ),
        (annotations::MIRROR, "x", json!({}), "must set spec.nodeName if mirror pod annotation is set"),
        (annotations::MIRROR, "x", json!({"nodeName": "n"}), ""),
        (cost, "-5", json!({}), ""),
        (cost, "05", json!({}), "Invalid value: \"05\": must be a 32bit integer"),
        (
            "scheduler.alpha.kubernetes.io/tolerations",
            "[{\"key\":\"a\",\"operator\":\"Is\"}]",
            json!({}),
            "metadata.annotations.scheduler.alpha.kubernetes.io/tolerations[0].operator: Unsupported value",
        ),
    ] {
        let found = told(None, &annotated(key, value, &spec), Whole::Pod);
        assert_eq!(found.len(), usize::from(!want.is_empty()), "{key} {value} {found:?}");
        assert!(found.iter().all(|one| one.contains(want)), "{key} {value} {found:?}");
    }
    let old = annotated(cost, "x", &json!({}));
    assert_eq!(told(Some(&old), &old, Whole::Pod), Vec::<String>::new());
}
