//! Kinds and versions of beta and alpha, which are served when a [`super::RuntimeConfig`] asks for them.

use super::families::{DEVICES, NO_CANDIDATES, NO_CONTROLLER, NO_GROUPS, NO_SIGNER, STATUS};
use super::{BASE, Deprecated, RESOURCES, Resource};
use crate::conversion::{Conversion, SAME, devices};
use crate::printer::previews as tables;
use crate::strategy::{
    device_taint, lease_candidate, pod_certificate, pod_group, storage_version, trust_bundle,
};

/// Kinds that have no stable version, in the version they are stored in.
pub static KINDS: &[Resource] = &[
    Resource {
        group: "certificates.k8s.io",
        version: "v1beta1",
        kind: "ClusterTrustBundle",
        plural: "clustertrustbundles",
        namespaced: false,
        storage: "clustertrustbundles",
        selectable: &[("spec.signerName", &["spec", "signerName"])],
        name: trust_bundle::bundle_name,
        validate: trust_bundle::validate_bundle,
        printer: &tables::TRUST_BUNDLE,
        ..BASE
    },
    Resource {
        group: "certificates.k8s.io",
        version: "v1beta1",
        kind: "PodCertificateRequest",
        plural: "podcertificaterequests",
        storage: "podcertificaterequests",
        subresources: STATUS,
        selectable: &[("spec.signerName", &["spec", "signerName"]), ("spec.nodeName", &["spec", "nodeName"])],
        missing: NO_SIGNER,
        validate: pod_certificate::validate_request,
        validate_part: pod_certificate::validate_part,
        printer: &tables::POD_CERTIFICATE,
        ..BASE
    },
    Resource {
        group: "scheduling.k8s.io",
        version: "v1alpha2",
        kind: "PodGroup",
        plural: "podgroups",
        storage: "podgroups",
        subresources: STATUS,
        generation: true,
        missing: NO_GROUPS,
        validate: pod_group::validate_group,
        ..BASE
    },
    Resource {
        group: "scheduling.k8s.io",
        version: "v1alpha2",
        kind: "Workload",
        plural: "workloads",
        storage: "workloads",
        generation: true,
        missing: NO_GROUPS,
        validate: pod_group::validate_workload,
        ..BASE
    },
    Resource {
        group: "coordination.k8s.io",
        version: "v1beta1",
        kind: "LeaseCandidate",
        plural: "leasecandidates",
        storage: "leasecandidates",
        selectable: &[("spec.leaseName", &["spec", "leaseName"])],
        deprecated: Some(Deprecated { since: 36, gone: Some(39), instead: None }),
        missing: NO_CANDIDATES,
        validate: lease_candidate::validate_candidate,
        printer: &tables::CANDIDATE,
        ..BASE
    },
    Resource {
        version: "v1beta2",
        kind: "DeviceTaintRule",
        plural: "devicetaintrules",
        namespaced: false,
        storage: "devicetaintrules",
        subresources: STATUS,
        generation: true,
        validate: device_taint::validate_rule,
        ..DEVICES
    },
    Resource {
        version: "v1alpha3",
        kind: "ResourcePoolStatusRequest",
        plural: "resourcepoolstatusrequests",
        namespaced: false,
        storage: "resourcepoolstatusrequests",
        subresources: STATUS,
        missing: NO_CONTROLLER,
        validate: device_taint::validate_pool_request,
        validate_part: device_taint::validate_pool_answer,
        ..DEVICES
    },
    Resource {
        group: "internal.apiserver.k8s.io",
        version: "v1alpha1",
        kind: "StorageVersion",
        plural: "storageversions",
        namespaced: false,
        storage: "storageversions",
        subresources: STATUS,
        missing: NO_CONTROLLER,
        name: storage_version::version_name,
        validate_part: storage_version::validate_status,
        printer: &tables::STORAGE_VERSION,
        ..BASE
    },
    Resource {
        group: "storagemigration.k8s.io",
        version: "v1beta1",
        kind: "StorageVersionMigration",
        plural: "storageversionmigrations",
        namespaced: false,
        storage: "storageversionmigrations",
        subresources: STATUS,
        missing: NO_CONTROLLER,
        validate: storage_version::validate_migration,
        ..BASE
    },
];

/// A version of kinds that the table has in the version they are stored in.
struct Preview {
    group: &'static str,
    version: &'static str,
    plurals: &'static [&'static str],
    conversion: &'static Conversion,
    deprecated: Option<Deprecated>,
}

impl Preview {
    /// A version with the fields of the stored one, deprecated in a minor release and gone three releases later.
    const fn same(
        group: &'static str,
        version: &'static str,
        plurals: &'static [&'static str],
        since: u8,
    ) -> Self {
        let deprecated = Deprecated { since, gone: Some(since + 3), instead: None };
        Self { group, version, plurals, conversion: &SAME, deprecated: Some(deprecated) }
    }
}

const RESOURCE: &str = "resource.k8s.io";
const ADMISSION: &str = "admissionregistration.k8s.io";
const MUTATING: &[&str] = &["mutatingadmissionpolicies", "mutatingadmissionpolicybindings"];

/// When each is deprecated is what Kubernetes 1.36 says.
const PREVIEWS: &[Preview] = &[
    Preview::same("networking.k8s.io", "v1beta1", &["ipaddresses", "servicecidrs"], 34),
    Preview::same(
        RESOURCE,
        "v1beta2",
        &["deviceclasses", "resourceclaims", "resourceclaimtemplates", "resourceslices"],
        36,
    ),
    Preview::same(RESOURCE, "v1beta1", &["deviceclasses"], 35),
    Preview { conversion: &devices::CLAIM, ..Preview::same(RESOURCE, "v1beta1", &["resourceclaims"], 35) },
    Preview {
        conversion: &devices::TEMPLATE,
        ..Preview::same(RESOURCE, "v1beta1", &["resourceclaimtemplates"], 35)
    },
    Preview { conversion: &devices::SLICE, ..Preview::same(RESOURCE, "v1beta1", &["resourceslices"], 35) },
    Preview { deprecated: None, ..Preview::same(ADMISSION, "v1beta1", MUTATING, 37) },
    Preview::same(ADMISSION, "v1alpha1", MUTATING, 35),
    Preview {
        deprecated: Some(Deprecated {
            since: 34,
            gone: Some(37),
            instead: Some("storage.k8s.io/v1 VolumeAttributesClass"),
        }),
        ..Preview::same("storage.k8s.io", "v1beta1", &["volumeattributesclasses"], 34)
    },
    Preview::same("certificates.k8s.io", "v1alpha1", &["clustertrustbundles"], 34),
    Preview::same("coordination.k8s.io", "v1alpha2", &["leasecandidates"], 35),
    Preview::same(RESOURCE, "v1alpha3", &["devicetaintrules"], 36),
];

/// Every kind in every version of beta and alpha.
pub fn previews() -> impl Iterator<Item = Resource> {
    let versions = PREVIEWS.iter().flat_map(|one| one.plurals.iter().map(|plural| entry(one, plural)));
    KINDS.iter().copied().chain(versions)
}

fn entry(preview: &Preview, plural: &str) -> Resource {
    let mut stored = RESOURCES.iter().chain(KINDS);
    let stored = stored.find(|entry| entry.group == preview.group && entry.plural == plural);
    Resource {
        version: preview.version,
        conversion: Some(preview.conversion),
        deprecated: preview.deprecated,
        ..*stored.expect("every preview is stored as a kind of the table")
    }
}
