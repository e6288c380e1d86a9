//! Validation of a pod's volumes.

use std::collections::HashMap;

use serde_json::Value;

use super::projected::{downward_files, projected};
use super::volume_sources::{
    ISCSI_TOO_LONG, Source, aws_disk, azure_disk, azure_file, ceph, cinder, claim, config_map_files, csi,
    ephemeral, fibre_channel, flex, flocker, gce_disk, git_repo, glusterfs, host_path, image, iscsi,
    iscsi_session_is_long, nfs, photon, portworx, quobyte, rbd, scale_io, secret_files, source, storage_os,
    validate_one, vsphere,
};
use crate::schema::quantity_millis;
use crate::tree::{at, list, text};
use crate::validate::{self, Errors};

/// Volumes that containers may mount, by name.
pub type Volumes<'a> = HashMap<&'a str, &'a Value>;

/// What a volume of a pod can be, in the order in which upstream looks.
const SOURCES: &[Source] = &[
    source("emptyDir", empty_dir),
    source("hostPath", host_path),
    source("gitRepo", git_repo),
    Source { place: "persistentDisk", ..source("gcePersistentDisk", gce_disk) },
    source("awsElasticBlockStore", aws_disk),
    source("secret", secret_files),
    source("nfs", nfs),
    source("iscsi", iscsi),
    source("glusterfs", glusterfs),
    source("flocker", flocker),
    source("persistentVolumeClaim", claim),
    source("rbd", rbd),
    source("cinder", cinder),
    Source { refused: "cephFS", ..source("cephfs", ceph) },
    source("quobyte", quobyte),
    Source { refused: "downwarAPI", ..source("downwardAPI", downward_files) },
    source("fc", fibre_channel),
    source("flexVolume", flex),
    source("configMap", config_map_files),
    source("azureFile", azure_file),
    source("vsphereVolume", vsphere),
    source("photonPersistentDisk", photon),
    source("portworxVolume", portworx),
    source("azureDisk", azure_disk),
    source("storageos", storage_os),
    source("projected", projected),
    source("scaleIO", scale_io),
    source("csi", csi),
    source("ephemeral", ephemeral),
    source("image", image),
];

/// Checks the volumes of a pod spec at `here`, and returns those that are good. Images without a name may stay where `old`
/// had such.
pub fn validate_volumes<'a>(
    spec: &'a Value,
    old: Option<&Value>,
    here: &str,
    errors: &mut Errors,
) -> Volumes<'a> {
    let images_have_names = !old.is_some_and(|old| list(old, &["volumes"]).iter().any(is_nameless_image));
    let mut volumes = Volumes::new();
    for (at, volume) in list(spec, &["volumes"]).iter().enumerate() {
        let before = errors.len();
        let place = format!("{here}.volumes[{at}]");
        if images_have_names && is_nameless_image(volume) {
            errors.required(format!("{place}.image.reference"), "");
        }
        validate_source(volume, &place, errors);
        let name = text(volume, &["name"]);
        errors.named(format!("{place}.name"), name, validate::label);
        if volumes.contains_key(name) {
            errors.duplicate(format!("{place}.name"), &Value::from(name));
        }
        if errors.len() == before {
            volumes.insert(name, volume);
        }
    }
    volumes
}

fn is_nameless_image(volume: &Value) -> bool {
    at(volume, &["image"]).is_object() && text(volume, &["image", "reference"]).is_empty()
}

fn validate_source(volume: &Value, here: &str, errors: &mut Errors) {
    if !validate_one(SOURCES, volume, here, errors) {
        errors.required(here, "must specify a volume type");
    }
    let name = text(volume, &["name"]);
    if iscsi_session_is_long(at(volume, &["iscsi"]), name) {
        errors.invalid(format!("{here}.name"), &Value::from(name), ISCSI_TOO_LONG);
    }
}

fn empty_dir(source: &Value, here: &str, errors: &mut Errors) {
    if quantity_millis(text(source, &["sizeLimit"])).is_some_and(|limit| limit < 0) {
        errors.forbidden(format!("{here}.sizeLimit"), "SizeLimit field must be a valid resource quantity");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::strategy::told;

    fn found(volumes: &Value) -> String {
        told(|errors| _ = validate_volumes(&json!({ "volumes": volumes }), None, "spec", errors)).join("; ")
    }

    /// What is said of one source, without the volume's place.
    fn of(source: &Value) -> String {
        let mut volume = json!({ "name": "v" });
        json_patch::merge(&mut volume, source);
        found(&json!([volume])).replace("spec.volumes[0]", "")
    }

    #[test]
    fn a_volume_is_one_thing_and_has_a_name_of_its_own() {
        let empty = json!({ "name": "a", "emptyDir": {} });
        assert_eq!(found(&json!([empty])), "");
        assert_eq!(found(&json!([empty, empty])), "spec.volumes[1].name: Duplicate value: \"a\"");
        assert_eq!(found(&json!([{ "emptyDir": {} }])), "spec.volumes[0].name: Required value");
        assert_eq!(of(&json!({})), ": Required value: must specify a volume type");
        for (second, called) in
            [("cephfs", "cephFS"), ("downwardAPI", "downwarAPI"), ("gcePersistentDisk", "gcePersistentDisk")]
        {
            let want = format!(".{called}: Forbidden: may not specify more than 1 volume type");
            assert_eq!(of(&json!({ "emptyDir": {}, second: {} })), want);
        }
        let volumes = json!({ "volumes": [{ "name": "a", "secret": {} }, empty] });
        let mut errors = Errors::default();
        let good = validate_volumes(&volumes, None, "spec", &mut errors);
        assert_eq!(good.len(), 1, "what is wrong cannot be mounted");
    }

    #[test]
    fn good_volumes_are_taken() {
        for source in [
            json!({"emptyDir": {"sizeLimit": "1Gi", "medium": "Memory"}}),
            json!({"hostPath": {"path": "/a", "type": ""}}),
            json!({"hostPath": {"path": "/a", "type": "DirectoryOrCreate"}}),
            json!({"gitRepo": {"repository": "r", "directory": "a/b"}}),
            json!({"gcePersistentDisk": {"pdName": "d", "partition": 1}}),
            json!({"awsElasticBlockStore": {"volumeID": "d"}}),
            json!({"secret": {"secretName": "s", "defaultMode": 0o644, "items": [{"key": "k", "path": "a/b", "mode": 0}]}}),
            json!({"nfs": {"server": "s", "path": "/"}}),
            json!({"iscsi": {"targetPortal": "127.0.0.1", "iqn": "iqn.2015-02.example.com:test", "lun": 1}}),
            json!({"iscsi": {"targetPortal": "127.0.0.1", "iqn": "eui.0123456789ABCDEF", "lun": 255}}),
            json!({"glusterfs": {"endpoints": "e", "path": "p"}}),
            json!({"flocker": {"datasetName": "d"}}),
            json!({"persistentVolumeClaim": {"claimName": "c"}}),
            json!({"rbd": {"monitors": ["m"], "image": "i"}}),
            json!({"cinder": {"volumeID": "v"}}),
            json!({"cephfs": {"monitors": ["m"]}}),
            json!({"quobyte": {"registry": "r:1,[::1]:2", "volume": "v"}}),
            json!({"downwardAPI": {"items": [{"path": "l", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.labels"}}]}}),
            json!({"fc": {"targetWWNs": ["w"], "lun": 0}}),
            json!({"fc": {"wwids": ["w"]}}),
            json!({"flexVolume": {"driver": "d", "options": {"a": "b", "x.io/a": "b"}}}),
            json!({"configMap": {"name": "c"}}),
            json!({"azureFile": {"secretName": "s", "shareName": "n"}}),
            json!({"azureDisk": {"diskName": "d", "diskURI": "https://x/y.vhd", "kind": "Shared", "cachingMode": "None"}}),
            json!({"storageos": {"volumeName": "v", "volumeNamespace": "n"}}),
            json!({"csi": {"driver": "Csi.example.com", "nodePublishSecretRef": {"name": "s"}}}),
            json!({"image": {"reference": "a/b", "pullPolicy": "Always"}}),
        ] {
            assert_eq!(of(&source), "", "{source}");
        }
    }

    #[test]
    fn sources_say_what_they_need() {
        const MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";
        for (source, want) in [
            (json!({"emptyDir": {"sizeLimit": "-1"}}), ".emptyDir.sizeLimit: Forbidden: SizeLimit field must be a valid resource quantity".to_owned()),
            (json!({"hostPath": {}}), ".hostPath.path: Required value".to_owned()),
            (json!({"hostPath": {"path": "/a/../b"}}), ".hostPath.path: Invalid value: \"/a/../b\": must not contain '..'".to_owned()),
            (json!({"hostPath": {"path": "/a", "type": "Dir"}}), ".hostPath.type: Unsupported value: \"Dir\": supported values: \"\", \"BlockDevice\", \"CharDevice\", \"Directory\", \"DirectoryOrCreate\", \"File\", \"FileOrCreate\", \"Socket\"".to_owned()),
            (json!({"gitRepo": {"directory": "/a"}}), ".gitRepo.repository: Required value; .gitRepo.directory: Invalid value: \"/a\": must be a relative path".to_owned()),
            (json!({"gcePersistentDisk": {"partition": 256}}), ".persistentDisk.pdName: Required value; .persistentDisk.partition: Invalid value: 256: must be between 1 and 255, inclusive".to_owned()),
            (json!({"secret": {"defaultMode": 512}}), format!(".secret.secretName: Required value; .secret.defaultMode: Invalid value: 512: {MODE}")),
            (json!({"configMap": {"name": "c", "items": [{"path": "..a", "mode": -1}]}}), format!(".configMap.items[0].key: Required value; .configMap.items[0].path: Invalid value: \"..a\": must not start with '..'; .configMap.items[0].mode: Invalid value: -1: {MODE}")),
            (json!({"nfs": {"server": "s", "path": "a"}}), ".nfs.path: Invalid value: \"a\": must be an absolute path".to_owned()),
            (json!({"iscsi": {"targetPortal": "p", "iqn": "x", "lun": 256, "chapAuthSession": true}}), ".iscsi.iqn: Invalid value: \"x\": must be valid format starting with iqn, eui, or naa; .iscsi.lun: Invalid value: 256: must be between 0 and 255, inclusive; .iscsi.secretRef: Required value".to_owned()),
            (json!({"iscsi": {"targetPortal": "p", "iqn": "iqn.x", "initiatorName": "eui.1"}}), ".iscsi.iqn: Invalid value: \"iqn.x\": must be valid format; .iscsi.initiatorname: Invalid value: \"eui.1\": must be valid format".to_owned()),
            (json!({"flocker": {}}), ".flocker: Required value: one of datasetName and datasetUUID is required".to_owned()),
            (json!({"flocker": {"datasetName": "a/b"}}), ".flocker.datasetName: Invalid value: \"a/b\": must not contain '/'".to_owned()),
            (json!({"rbd": {}}), ".rbd.monitors: Required value; .rbd.image: Required value".to_owned()),
            (json!({"cinder": {"volumeID": "v", "secretRef": {}}}), ".cinder.secretRef.name: Required value".to_owned()),
            (json!({"quobyte": {"registry": "r", "volume": "v"}}), ".quobyte.registry: Invalid value: \"r\": must be a host:port pair or multiple pairs separated by commas".to_owned()),
            (json!({"fc": {}}), ".fc.targetWWNs: Required value: must specify either targetWWNs or wwids, but not both".to_owned()),
            (json!({"fc": {"targetWWNs": ["w"], "wwids": ["w"]}}), ".fc.targetWWNs: Invalid value: [\"w\"]: targetWWNs and wwids can not be specified simultaneously; .fc.lun: Required value: lun is required if targetWWNs is specified".to_owned()),
            (json!({"flexVolume": {"driver": "d", "options": {"a.k8s.io/b": ""}}}), ".flexVolume.options[a.k8s.io/b]: Invalid value: \"a.k8s.io/b\": kubernetes.io and k8s.io namespaces are reserved".to_owned()),
            (json!({"azureDisk": {"diskName": "d", "diskURI": "u", "kind": "Managed"}}), ".azureDisk.diskURI: Unsupported value: \"u\": supported values: \"/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}\"".to_owned()),
            (json!({"scaleIO": {"gateway": "g", "system": "s"}}), ".scaleIO.volumeName: Required value".to_owned()),
            (json!({"csi": {"nodePublishSecretRef": {}, "driver": "d"}}), ".csi.nodePublishSecretRef.name: Required value".to_owned()),
            (json!({"csi": {"driver": "a".repeat(64)}}), ".csi.driver: Too long: may not be more than 63 bytes".to_owned()),
            (json!({"ephemeral": {}}), ".ephemeral.volumeClaimTemplate: Required value".to_owned()),
            (json!({"image": {"pullPolicy": "Always"}}), ".image.reference: Required value".to_owned()),
            (json!({"image": {"reference": "a", "pullPolicy": "Often"}}), ".image.pullPolicy: Unsupported value: \"Often\": supported values: \"Always\", \"IfNotPresent\", \"Never\"".to_owned()),
            (json!({"downwardAPI": {"items": [{"path": "a", "fieldRef": {"apiVersion": "v1", "fieldPath": "spec.nodeName"}}]}}), ".downwardAPI.fieldRef.fieldPath: Unsupported value: \"spec.nodeName\": supported values: \"metadata.annotations\", \"metadata.labels\", \"metadata.name\", \"metadata.namespace\", \"metadata.uid\"".to_owned()),
            (json!({"downwardAPI": {"items": [{"path": "a", "resourceFieldRef": {"resource": "limits.cpu"}}]}}), ".downwardAPI.resourceFieldRef.containerName: Required value".to_owned()),
            (json!({"downwardAPI": {"items": [{"path": "a/../b"}]}}), ".downwardAPI.path: Invalid value: \"a/../b\": must not contain '..'; .downwardAPI: Required value: one of fieldRef and resourceFieldRef is required".to_owned()),
        ] {
            assert_eq!(of(&source), want, "{source}");
        }
    }

    #[test]
    fn an_image_without_a_name_may_stay() {
        let spec = json!({"volumes": [{"name": "v", "image": {"pullPolicy": "Always"}}]});
        let of = |old: &Value| told(|errors| _ = validate_volumes(&spec, Some(old), "spec", errors));
        assert_eq!(of(&spec), [""; 0]);
        let named = json!({"volumes": [{"name": "v", "image": {"reference": "a", "pullPolicy": "Always"}}]});
        assert_eq!(of(&named), ["spec.volumes[0].image.reference: Required value"]);
    }

    #[test]
    fn a_session_has_a_short_name() {
        let source = json!({"iscsi": {"targetPortal": "p".repeat(63), "iqn": "iqn.2015-02.example.com:test", "initiatorName": "iqn.2015-02.example.com:init"}});
        assert_eq!(of(&source), format!(".name: Invalid value: \"v\": {ISCSI_TOO_LONG}"));
    }

    #[test]
    fn projections_put_each_file_in_one_place() {
        let projected = |sources: Value| of(&json!({ "projected": { "sources": sources } }));
        let token = json!({"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}});
        let map = json!({"configMap": {"name": "m", "items": [{"key": "a", "path": "a"}]}});
        assert_eq!(projected(json!([token, map, {}])), "");
        assert_eq!(
            projected(json!([map, map])),
            ".projected: Invalid value: \"m\": conflicting duplicate paths"
        );
        let both = json!({"secret": {"name": "s"}, "configMap": {"name": "m"}});
        assert_eq!(
            projected(json!([both])),
            ".projected.sources[0]: Forbidden: may not specify more than 1 volume type per source"
        );
        for (token, want) in [
            (
                json!({"path": "t", "expirationSeconds": 599}),
                ".projected.sources[0].serviceAccountToken.expirationSeconds: Invalid value: 599: may not specify a duration less than 10 minutes",
            ),
            (
                json!({"path": "t", "expirationSeconds": (1_i64 << 32) + 1}),
                ".projected.sources[0].serviceAccountToken.expirationSeconds: Invalid value: 4294967297: may not specify a duration larger than 2^32 seconds",
            ),
            (json!({"expirationSeconds": 600}), ".projected.path: Required value"),
            (
                json!({"path": "/t", "expirationSeconds": 600}),
                ".projected.path: Invalid value: \"/t\": must be a relative path",
            ),
        ] {
            assert_eq!(projected(json!([{ "serviceAccountToken": token }])), want);
        }
        for (bundle, want) in [
            (json!({"name": "a:b", "path": "p"}), ""),
            (json!({"signerName": "x.io/s", "path": "p"}), ""),
            (
                json!({"path": "p"}),
                ".projected.sources[0].clusterTrustBundle: Required value: either name or signerName must be specified",
            ),
            (
                json!({"name": "a", "path": ""}),
                ".projected.sources[0].clusterTrustBundle.path: Required value",
            ),
            (
                json!({"name": "a", "signerName": "x.io/s", "path": "p"}),
                ".projected.sources[0].clusterTrustBundle: Invalid value: {\"Name\":\"a\",\"SignerName\":\"x.io/s\",\"LabelSelector\":null,\"Optional\":null,\"Path\":\"p\"}: only one of name and signerName may be used",
            ),
            (
                json!({"name": "a", "labelSelector": {}, "path": "p"}),
                ".projected.sources[0].clusterTrustBundle.labelSelector: Invalid value: {}: labelSelector must be unset if name is specified",
            ),
        ] {
            assert_eq!(projected(json!([{ "clusterTrustBundle": bundle }])), want);
        }
    }
}
