//! The table of the protobuf form: field numbers joined with the names and types of the schema.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

/// Optional scalar fields that Go holds as pointers: their zero says something, and must survive. All other zeros are
/// what a field that was never set looks like on the wire, and are not written. Where only some fields of a name are
/// pointers, the type stands before it, and its group and version where they differ.
const POINTERS: &[&str] = &[
    "AzureDiskVolumeSource.cachingMode",
    "AzureDiskVolumeSource.fsType",
    "AzureDiskVolumeSource.kind",
    "AzureDiskVolumeSource.readOnly",
    "AzureFilePersistentVolumeSource.secretNamespace",
    "BasicDevice.allNodes",
    "BasicDevice.nodeName",
    "CSIDriverSpec.attachRequired",
    "CSIDriverSpec.fsGroupPolicy",
    "CSIDriverSpec.nodeAllocatableUpdatePeriodSeconds",
    "CSIDriverSpec.podInfoOnMount",
    "CSIDriverSpec.preventPodSchedulingIfMissing",
    "CSIDriverSpec.requiresRepublish",
    "CSIDriverSpec.seLinuxMount",
    "CSIDriverSpec.serviceAccountTokenInSecrets",
    "CSIDriverSpec.storageCapacity",
    "CSIVolumeSource.fsType",
    "CSIVolumeSource.readOnly",
    "ClientIPConfig.timeoutSeconds",
    "ClusterTrustBundleProjection.name",
    "ClusterTrustBundleProjection.signerName",
    "Container.restartPolicy",
    "ContainerStatus.started",
    "CronJobSpec.failedJobsHistoryLimit",
    "CronJobSpec.startingDeadlineSeconds",
    "CronJobSpec.successfulJobsHistoryLimit",
    "CronJobSpec.timeZone",
    "CustomResourceDefinitionVersion.deprecationWarning",
    "CustomResourceSubresourceScale.labelSelectorPath",
    "DeleteOptions.gracePeriodSeconds",
    "DeleteOptions.ignoreStoreReadErrorWithClusterBreakingPotential",
    "DeleteOptions.orphanDependents",
    "DeleteOptions.propagationPolicy",
    "DeploymentSpec.progressDeadlineSeconds",
    "DeploymentSpec.replicas",
    "Device.allNodes",
    "Device.nodeName",
    "DeviceAttribute.version",
    "DeviceTaintSelector.pool",
    "Endpoint.hostname",
    "Endpoint.nodeName",
    "Endpoint.zone",
    "EndpointAddress.nodeName",
    "EndpointConditions.serving",
    "EphemeralContainer.restartPolicy",
    "EphemeralContainerCommon.restartPolicy",
    "FCVolumeSource.lun",
    "GRPCAction.service",
    "GlusterfsPersistentVolumeSource.endpointsNamespace",
    "HPAScalingRules.selectPolicy",
    "HPAScalingRules.stabilizationWindowSeconds",
    "HTTPIngressPath.pathType",
    "HorizontalPodAutoscalerSpec.targetCPUUtilizationPercentage",
    "HorizontalPodAutoscalerStatus.currentCPUUtilizationPercentage",
    "HorizontalPodAutoscalerStatus.observedGeneration",
    "HostPathVolumeSource.type",
    "IngressClassParametersReference.apiGroup",
    "IngressClassParametersReference.namespace",
    "IngressClassParametersReference.scope",
    "IngressPortStatus.error",
    "IngressSpec.ingressClassName",
    "JSONSchemaProps.$ref",
    "JSONSchemaProps.maxItems",
    "JSONSchemaProps.maxLength",
    "JSONSchemaProps.maxProperties",
    "JSONSchemaProps.maximum",
    "JSONSchemaProps.minItems",
    "JSONSchemaProps.minLength",
    "JSONSchemaProps.minProperties",
    "JSONSchemaProps.minimum",
    "JSONSchemaProps.multipleOf",
    "JSONSchemaProps.x-kubernetes-list-type",
    "JSONSchemaProps.x-kubernetes-map-type",
    "JSONSchemaProps.x-kubernetes-preserve-unknown-fields",
    "JobSpec.backoffLimit",
    "JobSpec.backoffLimitPerIndex",
    "JobSpec.completionMode",
    "JobSpec.completions",
    "JobSpec.managedBy",
    "JobSpec.manualSelector",
    "JobSpec.maxFailedIndexes",
    "JobSpec.parallelism",
    "JobSpec.podReplacementPolicy",
    "JobSpec.ttlSecondsAfterFinished",
    "JobStatus.failedIndexes",
    "LeaseSpec.holderIdentity",
    "LeaseSpec.leaseDurationSeconds",
    "LeaseSpec.leaseTransitions",
    "LeaseSpec.preferredHolder",
    "LeaseSpec.strategy",
    "LimitedPriorityLevelConfiguration.borrowingLimitPercent",
    "ListMeta.remainingItemCount",
    "LoadBalancerIngress.ipMode",
    "LocalVolumeSource.fsType",
    "MutatingWebhook.reinvocationPolicy",
    "MutatingWebhook.timeoutSeconds",
    "NamedRuleWithOperations.scope",
    "NetworkPolicyPort.endPort",
    "NetworkPolicyPort.protocol",
    "NodeRuntimeHandlerFeatures.recursiveReadOnlyMounts",
    "NodeRuntimeHandlerFeatures.userNamespaces",
    "NodeSwapStatus.capacity",
    "ObjectMeta.deletionGracePeriodSeconds",
    "OwnerReference.blockOwnerDeletion",
    "OwnerReference.controller",
    "PersistentVolumeClaimSpec.storageClassName",
    "PersistentVolumeClaimStatus.currentVolumeAttributesClassName",
    "PodDNSConfigOption.value",
    "PodDisruptionBudgetSpec.unhealthyPodEvictionPolicy",
    "PodFailurePolicyOnExitCodesRequirement.containerName",
    "PodGroupSpec.priority",
    "PodGroupTemplate.priority",
    "PodSchedulingGroup.podGroupName",
    "PodSecurityContext.fsGroup",
    "PodSecurityContext.fsGroupChangePolicy",
    "PodSecurityContext.seLinuxChangePolicy",
    "PodSpec.enableServiceLinks",
    "PodSpec.hostUsers",
    "PodSpec.hostnameOverride",
    "PodSpec.priority",
    "PodSpec.runtimeClassName",
    "PodSpec.setHostnameAsFQDN",
    "PodSpec.shareProcessNamespace",
    "PoolStatus.allocatedDevices",
    "PoolStatus.availableDevices",
    "PoolStatus.nodeName",
    "PoolStatus.resourceSliceCount",
    "PoolStatus.totalDevices",
    "PoolStatus.unavailableDevices",
    "PoolStatus.validationError",
    "PortStatus.error",
    "Preconditions.resourceVersion",
    "Preconditions.uid",
    "ReplicaSetSpec.replicas",
    "ReplicationControllerSpec.replicas",
    "ResourceHealth.message",
    "ResourcePoolStatusRequestSpec.limit",
    "ResourcePoolStatusRequestSpec.poolName",
    "ResourcePoolStatusRequestStatus.poolCount",
    "RollingUpdateStatefulSetStrategy.partition",
    "Rule.scope",
    "RuleWithOperations.scope",
    "SecurityContext.allowPrivilegeEscalation",
    "SecurityContext.privileged",
    "SecurityContext.procMount",
    "SecurityContext.readOnlyRootFilesystem",
    "ServiceReference.path",
    "ServiceSpec.allocateLoadBalancerNodePorts",
    "ServiceSpec.internalTrafficPolicy",
    "ServiceSpec.ipFamilyPolicy",
    "ServiceSpec.loadBalancerClass",
    "ServiceSpec.trafficDistribution",
    "StatefulSetSpec.replicas",
    "StorageClass.allowVolumeExpansion",
    "StorageClass.reclaimPolicy",
    "StorageClass.volumeBindingMode",
    "StorageVersionStatus.commonEncodingVersion",
    "SuccessPolicyRule.succeededCount",
    "SuccessPolicyRule.succeededIndexes",
    "TopologySpreadConstraint.minDomains",
    "TopologySpreadConstraint.nodeAffinityPolicy",
    "TopologySpreadConstraint.nodeTaintsPolicy",
    "TypedObjectReference.apiGroup",
    "TypedObjectReference.namespace",
    "ValidatingWebhook.timeoutSeconds",
    "Validation.reason",
    "ValidationRule.optionalOldSelf",
    "ValidationRule.reason",
    "VolumeAttachmentSource.persistentVolumeName",
    "VolumeError.errorCode",
    "VolumeMount.mountPropagation",
    "VolumeNodeResources.count",
    "WebhookClientConfig.url",
    "WindowsSecurityContextOptions.gmsaCredentialSpec",
    "WindowsSecurityContextOptions.gmsaCredentialSpecName",
    "WindowsSecurityContextOptions.hostProcess",
    "WindowsSecurityContextOptions.runAsUserName",
    "activeDeadlineSeconds",
    "adminAccess",
    "allowMultipleAllocations",
    "appProtocol",
    "automountServiceAccountToken",
    "averageUtilization",
    "bindsToNode",
    "bool",
    "capacityKey",
    "collisionCount",
    "core.v1.TypedLocalObjectReference.apiGroup",
    "defaultMode",
    "device",
    "discovery.v1.EndpointPort.name",
    "discovery.v1.EndpointPort.protocol",
    "disruptionMode",
    "distinctAttribute",
    "driver",
    "expirationSeconds",
    "extendedResourceName",
    "failurePolicy",
    "immutable",
    "initiatorName",
    "int",
    "lendablePercent",
    "localhostProfile",
    "matchAttribute",
    "matchPolicy",
    "maxExpirationSeconds",
    "maxSurge",
    "maxUnavailable",
    "minAvailable",
    "minReplicas",
    "mode",
    "nominalConcurrencyShares",
    "optional",
    "parameterNotFoundAction",
    "perDeviceNodeSelection",
    "port",
    "preemptionPolicy",
    "ready",
    "recursiveReadOnly",
    "resource.v1.ResourceSliceSpec.allNodes",
    "resource.v1.ResourceSliceSpec.nodeName",
    "resource.v1beta2.ResourceSliceSpec.allNodes",
    "resource.v1beta2.ResourceSliceSpec.nodeName",
    "resourceClaimName",
    "resourceClaimTemplateName",
    "revisionHistoryLimit",
    "runAsGroup",
    "runAsNonRoot",
    "runAsUser",
    "shareID",
    "sideEffects",
    "stopSignal",
    "string",
    "supplementalGroupsPolicy",
    "suspend",
    "terminating",
    "terminatingReplicas",
    "terminationGracePeriodSeconds",
    "tolerationSeconds",
    "volumeAttributesClassName",
    "volumeMode",
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

/// Whether Go holds an optional scalar field of a type or message as a pointer.
pub fn is_pointer(owner: &str, field: &str) -> bool {
    let path = format!("{owner}.{field}");
    POINTERS.iter().any(|known| path.strip_suffix(*known).is_some_and(|before| before.ends_with('.')))
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
    let keeps = if required || any || is_pointer(message, name) { 2 } else { 0 };
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
