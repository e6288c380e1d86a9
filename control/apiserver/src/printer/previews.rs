//! Tables of kinds that are not stable.

use serde_json::json;

use super::{AGE, NAME, Printer, age, column, name};
use crate::tree::{list, text};

pub static TRUST_BUNDLE: Printer = Printer {
    columns: &[NAME, column("SignerName").of("certificates.v1beta1.ClusterTrustBundleSpec", "signerName")],
    cells: |object, _| vec![name(object), json!(text(object, &["spec", "signerName"]))],
};

pub static POD_CERTIFICATE: Printer = Printer {
    columns: &[
        NAME,
        column("PodName"),
        column("ServiceAccountName"),
        column("NodeName"),
        column("SignerName"),
        column("State"),
    ],
    cells: |object, _| {
        let spec = |field: &str| json!(text(object, &["spec", field]));
        let decided = list(object, &["status", "conditions"]).first();
        let state = decided.map_or("Pending", |condition| text(condition, &["type"]));
        vec![
            name(object),
            spec("podName"),
            spec("serviceAccountName"),
            spec("nodeName"),
            spec("signerName"),
            json!(state),
        ]
    },
};

pub static CANDIDATE: Printer = Printer {
    columns: &[
        NAME,
        column("LeaseName").of("coordination.v1beta1.LeaseCandidateSpec", "leaseName"),
        column("BinaryVersion"),
        column("EmulationVersion"),
        column("PingTime"),
        column("RenewTime"),
        column("Strategy"),
        AGE,
    ],
    cells: |object, now| {
        let spec = |field: &str| json!(text(object, &["spec", field]));
        let fields = ["leaseName", "binaryVersion", "emulationVersion", "pingTime", "renewTime", "strategy"];
        let mut cells = vec![name(object)];
        cells.extend(fields.map(spec));
        cells.push(age(object, now));
        cells
    },
};

pub static STORAGE_VERSION: Printer = Printer {
    columns: &[
        NAME,
        column("CommonEncodingVersion")
            .of("apiserverinternal.v1alpha1.StorageVersionStatus", "commonEncodingVersion"),
        column("StorageVersions").of("apiserverinternal.v1alpha1.StorageVersionStatus", "storageVersions"),
        AGE,
    ],
    cells: |object, now| {
        let servers = list(object, &["status", "storageVersions"]).iter();
        let all: Vec<String> = servers
            .map(|server| {
                format!("{}={}", text(server, &["apiServerID"]), text(server, &["encodingVersion"]))
            })
            .collect();
        let common = match text(object, &["status", "commonEncodingVersion"]) {
            "" => "<unset>",
            common => common,
        };
        vec![name(object), json!(common), json!(all.join(",")), age(object, now)]
    },
};
