//! The table of the protobuf form: field numbers joined with the names and types of the schema.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

/// Scalar fields that Go holds as pointers: their zero says something, and must survive. All other zeros are what
/// a field that was never set looks like on the wire. Names that other types have too stand behind that of their type.
const POINTERS: &[&str] = &[
    "AllocatedDeviceStatus.shareID",
    "AppArmorProfile.localhostProfile",
    "AzureDiskVolumeSource.cachingMode",
    "AzureDiskVolumeSource.fsType",
    "AzureDiskVolumeSource.kind",
    "AzureDiskVolumeSource.readOnly",
    "AzureFilePersistentVolumeSource.secretNamespace",
    "BasicDevice.allNodes",
    "BasicDevice.nodeName",
    "CSIDriverSpec.fsGroupPolicy",
    "CSIDriverSpec.nodeAllocatableUpdatePeriodSeconds",
    "CSIDriverSpec.preventPodSchedulingIfMissing",
    "CSIDriverSpec.serviceAccountTokenInSecrets",
    "CSIVolumeSource.fsType",
    "CSIVolumeSource.readOnly",
    "ClientIPConfig.timeoutSeconds",
    "ClusterTrustBundleProjection.name",
    "ClusterTrustBundleProjection.signerName",
    "Container.restartPolicy",
    "ContainerStatus.stopSignal",
    "CronJobSpec.timeZone",
    "CustomResourceDefinitionVersion.deprecationWarning",
    "CustomResourceSubresourceScale.labelSelectorPath",
    "Device.allNodes",
    "Device.nodeName",
    "DeviceAttribute.bool",
    "DeviceAttribute.int",
    "DeviceAttribute.string",
    "DeviceAttribute.version",
    "DeviceClassSpec.extendedResourceName",
    "DeviceConstraint.distinctAttribute",
    "DeviceConstraint.matchAttribute",
    "DeviceRequestAllocationResult.shareID",
    "DeviceTaintSelector.device",
    "DeviceTaintSelector.driver",
    "DeviceTaintSelector.pool",
    "Endpoint.hostname",
    "Endpoint.nodeName",
    "Endpoint.zone",
    "EndpointAddress.nodeName",
    "EndpointPort.appProtocol",
    "EndpointPort.name",
    "EndpointPort.port",
    "EndpointPort.protocol",
    "EphemeralContainerCommon.restartPolicy",
    "FCVolumeSource.lun",
    "GRPCAction.service",
    "GlusterfsPersistentVolumeSource.endpointsNamespace",
    "HorizontalPodAutoscalerStatus.observedGeneration",
    "HostPathVolumeSource.type",
    "ISCSIPersistentVolumeSource.initiatorName",
    "ISCSIVolumeSource.initiatorName",
    "IngressClassParametersReference.apiGroup",
    "IngressClassParametersReference.namespace",
    "IngressClassParametersReference.scope",
    "IngressPortStatus.error",
    "JSONSchemaProps.$ref",
    "JSONSchemaProps.x-kubernetes-list-type",
    "JSONSchemaProps.x-kubernetes-map-type",
    "JobSpec.completionMode",
    "JobSpec.managedBy",
    "JobSpec.podReplacementPolicy",
    "JobStatus.failedIndexes",
    "LeaseSpec.leaseDurationSeconds",
    "LeaseSpec.preferredHolder",
    "LeaseSpec.strategy",
    "Lifecycle.stopSignal",
    "LoadBalancerIngress.ipMode",
    "LocalVolumeSource.fsType",
    "MatchResources.matchPolicy",
    "MutatingAdmissionPolicySpec.failurePolicy",
    "MutatingWebhook.failurePolicy",
    "MutatingWebhook.matchPolicy",
    "MutatingWebhook.reinvocationPolicy",
    "MutatingWebhook.timeoutSeconds",
    "NetworkPolicyPort.endPort",
    "NetworkPolicyPort.protocol",
    "NodeAllocatableResourceMapping.capacityKey",
    "NodeFeatures.supplementalGroupsPolicy",
    "NodeRuntimeHandlerFeatures.recursiveReadOnlyMounts",
    "NodeRuntimeHandlerFeatures.userNamespaces",
    "NodeSwapStatus.capacity",
    "ParamRef.parameterNotFoundAction",
    "PersistentVolumeClaimSpec.volumeMode",
    "PersistentVolumeClaimStatus.currentVolumeAttributesClassName",
    "PersistentVolumeSpec.volumeMode",
    "PodCertificateProjection.maxExpirationSeconds",
    "PodCertificateRequestSpec.maxExpirationSeconds",
    "PodDNSConfigOption.value",
    "PodDisruptionBudgetSpec.unhealthyPodEvictionPolicy",
    "PodFailurePolicyOnExitCodesRequirement.containerName",
    "PodGroupResourceClaim.resourceClaimName",
    "PodGroupResourceClaim.resourceClaimTemplateName",
    "PodGroupResourceClaimStatus.resourceClaimName",
    "PodGroupSpec.disruptionMode",
    "PodGroupTemplate.disruptionMode",
    "PodResourceClaim.resourceClaimName",
    "PodResourceClaim.resourceClaimTemplateName",
    "PodResourceClaimStatus.resourceClaimName",
    "PodSchedulingGroup.podGroupName",
    "PodSecurityContext.fsGroupChangePolicy",
    "PodSecurityContext.seLinuxChangePolicy",
    "PodSecurityContext.supplementalGroupsPolicy",
    "PodSpec.hostnameOverride",
    "PodSpec.preemptionPolicy",
    "PodSpec.runtimeClassName",
    "PoolStatus.allocatedDevices",
    "PoolStatus.availableDevices",
    "PoolStatus.nodeName",
    "PoolStatus.resourceSliceCount",
    "PoolStatus.totalDevices",
    "PoolStatus.unavailableDevices",
    "PoolStatus.validationError",
    "PortStatus.error",
    "PriorityClass.preemptionPolicy",
    "ResourceHealth.message",
    "ResourcePoolStatusRequestSpec.limit",
    "ResourcePoolStatusRequestSpec.poolName",
    "ResourceSliceSpec.allNodes",
    "ResourceSliceSpec.nodeName",
    "Rule.scope",
    "SeccompProfile.localhostProfile",
    "SecurityContext.procMount",
    "ServicePort.appProtocol",
    "ServiceReference.path",
    "ServiceReference.port",
    "ServiceSpec.internalTrafficPolicy",
    "ServiceSpec.ipFamilyPolicy",
    "ServiceSpec.trafficDistribution",
    "StorageClass.reclaimPolicy",
    "StorageClass.volumeBindingMode",
    "StorageVersionStatus.commonEncodingVersion",
    "SuccessPolicyRule.succeededCount",
    "SuccessPolicyRule.succeededIndexes",
    "TopologySpreadConstraint.minDomains",
    "TopologySpreadConstraint.nodeAffinityPolicy",
    "TopologySpreadConstraint.nodeTaintsPolicy",
    "TypedLocalObjectReference.apiGroup",
    "TypedObjectReference.apiGroup",
    "TypedObjectReference.namespace",
    "ValidatingAdmissionPolicySpec.failurePolicy",
    "ValidatingWebhook.failurePolicy",
    "ValidatingWebhook.matchPolicy",
    "ValidatingWebhook.timeoutSeconds",
    "Validation.reason",
    "ValidationRule.reason",
    "VolumeAttachmentSource.persistentVolumeName",
    "VolumeError.errorCode",
    "VolumeMount.mountPropagation",
    "VolumeMount.recursiveReadOnly",
    "VolumeMountStatus.recursiveReadOnly",
    "VolumeNodeResources.count",
    "WebhookClientConfig.url",
    "WindowsSecurityContextOptions.gmsaCredentialSpec",
    "WindowsSecurityContextOptions.gmsaCredentialSpecName",
    "WindowsSecurityContextOptions.runAsUserName",
    "activeDeadlineSeconds",
    "adminAccess",
    "allocateLoadBalancerNodePorts",
    "allowMultipleAllocations",
    "allowPrivilegeEscalation",
    "allowVolumeExpansion",
    "attachRequired",
    "automountServiceAccountToken",
    "averageUtilization",
    "backoffLimit",
    "backoffLimitPerIndex",
    "bindsToNode",
    "blockOwnerDeletion",
    "borrowingLimitPercent",
    "collisionCount",
    "completions",
    "controller",
    "currentCPUUtilizationPercentage",
    "defaultMode",
    "deletionGracePeriodSeconds",
    "enableServiceLinks",
    "expirationSeconds",
    "failedJobsHistoryLimit",
    "fsGroup",
    "gracePeriodSeconds",
    "holderIdentity",
    "hostProcess",
    "hostUsers",
    "immutable",
    "ingressClassName",
    "leaseTransitions",
    "lendablePercent",
    "loadBalancerClass",
    "manualSelector",
    "maxFailedIndexes",
    "maxItems",
    "maxLength",
    "maxProperties",
    "maxSurge",
    "maxUnavailable",
    "maximum",
    "minAvailable",
    "minItems",
    "minLength",
    "minProperties",
    "minReplicas",
    "minimum",
    "mode",
    "multipleOf",
    "nominalConcurrencyShares",
    "optional",
    "optionalOldSelf",
    "orphanDependents",
    "parallelism",
    "partition",
    "perDeviceNodeSelection",
    "periodSeconds",
    "podInfoOnMount",
    "priority",
    "privileged",
    "progressDeadlineSeconds",
    "readOnlyRootFilesystem",
    "ready",
    "replicas",
    "requiresRepublish",
    "revisionHistoryLimit",
    "runAsGroup",
    "runAsNonRoot",
    "runAsUser",
    "seLinuxMount",
    "selectPolicy",
    "serving",
    "setHostnameAsFQDN",
    "shareProcessNamespace",
    "stabilizationWindowSeconds",
    "started",
    "startingDeadlineSeconds",
    "storageCapacity",
    "storageClassName",
    "successfulJobsHistoryLimit",
    "suspend",
    "targetCPUUtilizationPercentage",
    "terminating",
    "terminatingReplicas",
    "terminationGracePeriodSeconds",
    "tolerationSeconds",
    "ttlSecondsAfterFinished",
    "volumeAttributesClassName",
    "x-kubernetes-preserve-unknown-fields",
];

/// What is exchanged besides the kinds of the schema: parts of objects, and discovery.
const BESIDES: &[&str] = &[
    "io.k8s.api.apidiscovery.v2.APIGroupDiscoveryList",
    "io.k8s.apimachinery.pkg.apis.meta.v1.PartialObjectMetadata",
    "io.k8s.apimachinery.pkg.apis.meta.v1.PartialObjectMetadataList",
];

/// Message name to `[number, field, type, flags]`; a field without a name is written into its parent. Flags: 1
/// repeated, 2 keeps its zero.
pub fn table(schemas: &Value, messages: &Value, kinds: &[&str]) -> Result<Value> {
    let messages = messages.as_object().context("protobuf.json is not an object")?;
    let mut reached: BTreeMap<String, Value> = BTreeMap::new();
    let mut open: Vec<String> = kinds.iter().chain(BESIDES).map(|name| message_name(name)).collect();
    while let Some(name) = open.pop() {
        if reached.contains_key(&name) {
            continue;
        }
        let Some(fields) = messages.get(&name).and_then(Value::as_object) else { continue };
        let schema = &schemas[schema_name(&name)];
        let mut out = Vec::new();
        for (field, description) in fields {
            let kind = resolve(&name, description[1].as_str().unwrap_or_default());
            open.push(kind.trim_start_matches("map<string,").trim_end_matches('>').to_owned());
            out.push(row(&name, schema, messages, field, &kind, description));
        }
        reached.insert(name, Value::Array(out));
    }
    Ok(Value::Object(reached.into_iter().collect::<Map<_, _>>()))
}

/// The name of a message for the name of its schema; packages have no dashes.
fn message_name(schema: &str) -> String {
    schema.replacen("io.k8s.", "k8s.io.", 1).replace('-', "_")
}

fn schema_name(message: &str) -> String {
    message.replacen("k8s.io.", "io.k8s.", 1).replacen(
        "apiextensions_apiserver",
        "apiextensions-apiserver",
        1,
    )
}

fn row(
    message: &str,
    schema: &Value,
    messages: &Map<String, Value>,
    field: &str,
    kind: &str,
    description: &Value,
) -> Value {
    let known = schema["properties"].as_object().and_then(|properties| {
        properties
            .keys()
            .find(|name| *name == field)
            .or_else(|| properties.keys().find(|name| letters(name) == letters(field)))
    });
    let inline = known.is_none() && schema["properties"].is_object() && messages.contains_key(kind);
    let name = known.map_or(if inline { "" } else { field }, String::as_str);
    let required = schema["required"].as_array().is_some_and(|all| all.iter().any(|one| one == name));
    let repeated = u8::from(description[2] == "repeated");
    // Values of any kind say what they say, also when that is nothing.
    let any = kind.ends_with("apiextensions.v1.JSON") || kind.contains("JSONSchemaPropsOr");
    let own = message.rsplit('.').next().unwrap_or(message);
    let pointer = POINTERS.contains(&name) || POINTERS.contains(&&*format!("{own}.{name}"));
    let keeps = if required || any || pointer { 2 } else { 0 };
    json!([description[0], name, kind, repeated | keeps])
}

/// What is the same in `x-kubernetes-map-type` and `xKubernetesMapType`, in `$ref` and `ref`.
fn letters(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

/// A type as written in `message`, with its full name.
fn resolve(message: &str, kind: &str) -> String {
    if let Some(value) = kind.strip_prefix("map<string,").and_then(|rest| rest.strip_suffix('>')) {
        return format!("map<string,{}>", resolve(message, value));
    }
    let kind = kind.trim_start_matches('.');
    let scalar = kind.starts_with(char::is_lowercase) && !kind.contains('.');
    if scalar || kind.contains('.') {
        return kind.to_owned();
    }
    let package = message.rsplit_once('.').map_or("", |(package, _)| package);
    format!("{package}.{kind}")
}
