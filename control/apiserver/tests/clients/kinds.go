package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	eventsv1 "k8s.io/api/events/v1"
	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	networkingv1 "k8s.io/api/networking/v1"
	nodev1 "k8s.io/api/node/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	resourcev1 "k8s.io/api/resource/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
)

// kindOf is what a Go type is called on the wire.
func kindOf(one runtime.Object) schema.GroupVersionKind {
	kinds, _, err := scheme.Scheme.ObjectKinds(one)
	if err != nil {
		panic(err) // Every type here is one of the scheme's.
	}
	return kinds[0]
}

func ptr[V any](value V) *V { return &value }

func selecting(app string) *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{"app": app}}
}

func template(app string) corev1.PodTemplateSpec {
	return corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": app}},
		Spec:       podSpec(),
	}
}

func podSpec() corev1.PodSpec {
	return corev1.PodSpec{
		// No node is called so: nobody runs it.
		NodeSelector: map[string]string{"nobody": "here"},
		Containers: []corev1.Container{{
			Name: "one", Image: "example.org/one:1",
			Env: []corev1.EnvVar{
				{Name: "A", Value: "a"},
				{Name: "IP", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "status.podIP"}}},
			},
			Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}},
			Resources: corev1.ResourceRequirements{
				Requests: corev1.ResourceList{"cpu": resource.MustParse("100m"), "memory": resource.MustParse("16Mi")},
				Limits:   corev1.ResourceList{"cpu": resource.MustParse("1"), "memory": resource.MustParse("1.5Gi")},
			},
			ReadinessProbe: &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Port: intstr.FromString("http")}}},
			LivenessProbe:  &corev1.Probe{ProbeHandler: corev1.ProbeHandler{GRPC: &corev1.GRPCAction{Port: 9}}},
			VolumeMounts:   []corev1.VolumeMount{{Name: "data", MountPath: "/data"}},
		}},
		Volumes: []corev1.Volume{
			{Name: "data", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{SizeLimit: ptr(resource.MustParse("1Gi"))}}},
			{Name: "config", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
				LocalObjectReference: corev1.LocalObjectReference{Name: "c"}, Items: []corev1.KeyToPath{{Key: "k", Path: "p"}}}}},
		},
		Tolerations: []corev1.Toleration{{Key: "t", Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: ptr(int64(5))}},
	}
}

// namespacedLives is a life of every kind that lives in namespaces.
func namespacedLives(p, j *kubernetes.Clientset, ns string) []life {
	replicas := ptr(int32(0))
	return []life{
		lives("configmaps", p.CoreV1().ConfigMaps(ns), j.CoreV1().ConfigMaps(ns),
			&corev1.ConfigMap{Data: map[string]string{"k": "v", "empty": ""}, BinaryData: map[string][]byte{"b": {0, 255}}}),
		lives("endpoints", p.CoreV1().Endpoints(ns), j.CoreV1().Endpoints(ns),
			&corev1.Endpoints{Subsets: []corev1.EndpointSubset{{
				Addresses: []corev1.EndpointAddress{{IP: "10.1.2.3", NodeName: ptr("n")}}, Ports: []corev1.EndpointPort{{Port: 80}}}}}),
		lives("events", p.CoreV1().Events(ns), j.CoreV1().Events(ns),
			&corev1.Event{InvolvedObject: corev1.ObjectReference{Kind: "Pod", Name: "p", Namespace: ns}, Reason: "R", Message: "m", Type: "Normal"}),
		lives("limitranges", p.CoreV1().LimitRanges(ns), j.CoreV1().LimitRanges(ns),
			&corev1.LimitRange{Spec: corev1.LimitRangeSpec{Limits: []corev1.LimitRangeItem{{
				Type: corev1.LimitTypePersistentVolumeClaim, Max: corev1.ResourceList{"storage": resource.MustParse("1Ti")}}}}}),
		lives("persistentvolumeclaims", p.CoreV1().PersistentVolumeClaims(ns), j.CoreV1().PersistentVolumeClaims(ns),
			&corev1.PersistentVolumeClaim{Spec: corev1.PersistentVolumeClaimSpec{
				AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
				Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{"storage": resource.MustParse("1Gi")}}}}),
		lives("pods", p.CoreV1().Pods(ns), j.CoreV1().Pods(ns), &corev1.Pod{Spec: podSpec()}),
		lives("podtemplates", p.CoreV1().PodTemplates(ns), j.CoreV1().PodTemplates(ns), &corev1.PodTemplate{Template: template("pt")}),
		lives("replicationcontrollers", p.CoreV1().ReplicationControllers(ns), j.CoreV1().ReplicationControllers(ns),
			&corev1.ReplicationController{Spec: corev1.ReplicationControllerSpec{
				Replicas: replicas, Selector: map[string]string{"app": "rc"}, Template: ptr(template("rc"))}}),
		lives("resourcequotas", p.CoreV1().ResourceQuotas(ns), j.CoreV1().ResourceQuotas(ns),
			&corev1.ResourceQuota{Spec: corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{"count/widgets.example.org": resource.MustParse("5")}}}),
		lives("secrets", p.CoreV1().Secrets(ns), j.CoreV1().Secrets(ns),
			&corev1.Secret{Data: map[string][]byte{"k": []byte("v")}, StringData: map[string]string{"s": "t"}}),
		lives("serviceaccounts", p.CoreV1().ServiceAccounts(ns), j.CoreV1().ServiceAccounts(ns),
			&corev1.ServiceAccount{AutomountServiceAccountToken: ptr(false)}),
		lives("services", p.CoreV1().Services(ns), j.CoreV1().Services(ns),
			&corev1.Service{Spec: corev1.ServiceSpec{Selector: map[string]string{"app": "s"},
				Ports: []corev1.ServicePort{{Name: "a", Port: 80, TargetPort: intstr.FromString("http")}, {Name: "b", Port: 81, Protocol: corev1.ProtocolUDP}}}}),
		lives("controllerrevisions", p.AppsV1().ControllerRevisions(ns), j.AppsV1().ControllerRevisions(ns),
			&appsv1.ControllerRevision{Data: runtime.RawExtension{Raw: []byte(`{"a":[1,"b",null]}`)}, Revision: 3}),
		lives("daemonsets", p.AppsV1().DaemonSets(ns), j.AppsV1().DaemonSets(ns),
			&appsv1.DaemonSet{Spec: appsv1.DaemonSetSpec{Selector: selecting("ds"), Template: template("ds")}}),
		lives("deployments", p.AppsV1().Deployments(ns), j.AppsV1().Deployments(ns),
			&appsv1.Deployment{Spec: appsv1.DeploymentSpec{Paused: true, Replicas: replicas, Selector: selecting("d"), Template: template("d")}}),
		lives("replicasets", p.AppsV1().ReplicaSets(ns), j.AppsV1().ReplicaSets(ns),
			&appsv1.ReplicaSet{Spec: appsv1.ReplicaSetSpec{Replicas: replicas, Selector: selecting("rs"), Template: template("rs")}}),
		lives("statefulsets", p.AppsV1().StatefulSets(ns), j.AppsV1().StatefulSets(ns),
			&appsv1.StatefulSet{Spec: appsv1.StatefulSetSpec{Replicas: replicas, ServiceName: "s", Selector: selecting("ss"), Template: template("ss")}}),
		lives("autoscalers", p.AutoscalingV1().HorizontalPodAutoscalers(ns), j.AutoscalingV1().HorizontalPodAutoscalers(ns),
			&autoscalingv1.HorizontalPodAutoscaler{Spec: autoscalingv1.HorizontalPodAutoscalerSpec{MaxReplicas: 3, TargetCPUUtilizationPercentage: ptr(int32(60)),
				ScaleTargetRef: autoscalingv1.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "d"}}}),
		lives("newautoscalers", p.AutoscalingV2().HorizontalPodAutoscalers(ns), j.AutoscalingV2().HorizontalPodAutoscalers(ns),
			&autoscalingv2.HorizontalPodAutoscaler{Spec: autoscalerSpec()}),
		lives("jobs", p.BatchV1().Jobs(ns), j.BatchV1().Jobs(ns), &batchv1.Job{Spec: jobSpec()}),
		lives("cronjobs", p.BatchV1().CronJobs(ns), j.BatchV1().CronJobs(ns),
			&batchv1.CronJob{Spec: batchv1.CronJobSpec{Schedule: "*/5 * * * *", Suspend: ptr(true), JobTemplate: batchv1.JobTemplateSpec{Spec: jobSpec()}}}),
		lives("leases", p.CoordinationV1().Leases(ns), j.CoordinationV1().Leases(ns),
			&coordinationv1.Lease{Spec: coordinationv1.LeaseSpec{HolderIdentity: ptr("me"), LeaseDurationSeconds: ptr(int32(15)), RenewTime: ptr(metav1.NowMicro())}}),
		lives("endpointslices", p.DiscoveryV1().EndpointSlices(ns), j.DiscoveryV1().EndpointSlices(ns),
			&discoveryv1.EndpointSlice{AddressType: discoveryv1.AddressTypeIPv6,
				Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"fd00::1"}, Conditions: discoveryv1.EndpointConditions{Ready: ptr(false)}}},
				Ports:     []discoveryv1.EndpointPort{{Name: ptr(""), Port: ptr(int32(80)), Protocol: ptr(corev1.ProtocolTCP)}}}),
		lives("newevents", p.EventsV1().Events(ns), j.EventsV1().Events(ns),
			&eventsv1.Event{EventTime: metav1.NowMicro(), ReportingController: "example.org/c", ReportingInstance: "c-1", Action: "Act", Reason: "R",
				Type: "Normal", Note: "n", Regarding: corev1.ObjectReference{Kind: "Pod", Name: "p", Namespace: ns}}),
		lives("ingresses", p.NetworkingV1().Ingresses(ns), j.NetworkingV1().Ingresses(ns),
			&networkingv1.Ingress{Spec: networkingv1.IngressSpec{Rules: []networkingv1.IngressRule{{Host: "a.example.org",
				IngressRuleValue: networkingv1.IngressRuleValue{HTTP: &networkingv1.HTTPIngressRuleValue{Paths: []networkingv1.HTTPIngressPath{{
					Path: "/", PathType: ptr(networkingv1.PathTypePrefix), Backend: networkingv1.IngressBackend{
						Service: &networkingv1.IngressServiceBackend{Name: "s", Port: networkingv1.ServiceBackendPort{Number: 80}}}}}}}}}}}),
		lives("networkpolicies", p.NetworkingV1().NetworkPolicies(ns), j.NetworkingV1().NetworkPolicies(ns),
			&networkingv1.NetworkPolicy{Spec: networkingv1.NetworkPolicySpec{Ingress: []networkingv1.NetworkPolicyIngressRule{{
				From:  []networkingv1.NetworkPolicyPeer{{NamespaceSelector: &metav1.LabelSelector{}}, {IPBlock: &networkingv1.IPBlock{CIDR: "10.0.0.0/8", Except: []string{"10.1.0.0/16"}}}},
				Ports: []networkingv1.NetworkPolicyPort{{Port: ptr(intstr.FromInt32(80)), EndPort: ptr(int32(90))}}}}}}),
		lives("poddisruptionbudgets", p.PolicyV1().PodDisruptionBudgets(ns), j.PolicyV1().PodDisruptionBudgets(ns),
			&policyv1.PodDisruptionBudget{Spec: policyv1.PodDisruptionBudgetSpec{MinAvailable: ptr(intstr.FromString("50%")), Selector: selecting("b")}}),
		lives("resourceclaims", p.ResourceV1().ResourceClaims(ns), j.ResourceV1().ResourceClaims(ns),
			&resourcev1.ResourceClaim{Spec: claimSpec()}),
		lives("resourceclaimtemplates", p.ResourceV1().ResourceClaimTemplates(ns), j.ResourceV1().ResourceClaimTemplates(ns),
			&resourcev1.ResourceClaimTemplate{Spec: resourcev1.ResourceClaimTemplateSpec{Spec: claimSpec()}}),
		lives("roles", p.RbacV1().Roles(ns), j.RbacV1().Roles(ns),
			&rbacv1.Role{Rules: []rbacv1.PolicyRule{{Verbs: []string{"get"}, APIGroups: []string{""}, Resources: []string{"pods"}, ResourceNames: []string{"p"}}}}),
		lives("rolebindings", p.RbacV1().RoleBindings(ns), j.RbacV1().RoleBindings(ns),
			&rbacv1.RoleBinding{Subjects: []rbacv1.Subject{{Kind: "User", Name: "u"}}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "view"}}),
		lives("csistoragecapacities", p.StorageV1().CSIStorageCapacities(ns), j.StorageV1().CSIStorageCapacities(ns),
			&storagev1.CSIStorageCapacity{StorageClassName: "c", Capacity: ptr(resource.MustParse("1500Mi"))}),
	}
}

// autoscalerSpec says what the older version has no fields for.
func autoscalerSpec() autoscalingv2.HorizontalPodAutoscalerSpec {
	metric := autoscalingv2.MetricIdentifier{Name: "m", Selector: selecting("m")}
	service := autoscalingv2.CrossVersionObjectReference{Kind: "Service", Name: "s"}
	return autoscalingv2.HorizontalPodAutoscalerSpec{
		MinReplicas: ptr(int32(2)), MaxReplicas: 3,
		ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: "d"},
		Metrics: []autoscalingv2.MetricSpec{
			{Type: autoscalingv2.ObjectMetricSourceType, Object: &autoscalingv2.ObjectMetricSource{DescribedObject: service, Metric: metric,
				Target: autoscalingv2.MetricTarget{Type: autoscalingv2.ValueMetricType, Value: ptr(resource.MustParse("10"))}}},
			{Type: autoscalingv2.PodsMetricSourceType, Pods: &autoscalingv2.PodsMetricSource{Metric: metric,
				Target: autoscalingv2.MetricTarget{Type: autoscalingv2.AverageValueMetricType, AverageValue: ptr(resource.MustParse("1500m"))}}},
			{Type: autoscalingv2.ResourceMetricSourceType, Resource: &autoscalingv2.ResourceMetricSource{Name: "cpu",
				Target: autoscalingv2.MetricTarget{Type: autoscalingv2.UtilizationMetricType, AverageUtilization: ptr(int32(70))}}},
		},
		Behavior: &autoscalingv2.HorizontalPodAutoscalerBehavior{ScaleDown: &autoscalingv2.HPAScalingRules{
			StabilizationWindowSeconds: ptr(int32(0)), SelectPolicy: ptr(autoscalingv2.MinChangePolicySelect),
			Policies: []autoscalingv2.HPAScalingPolicy{{Type: autoscalingv2.PodsScalingPolicy, Value: 1, PeriodSeconds: 60}}}},
	}
}

func claimSpec() resourcev1.ResourceClaimSpec {
	return resourcev1.ResourceClaimSpec{Devices: resourcev1.DeviceClaim{
		Requests: []resourcev1.DeviceRequest{
			{Name: "gpu", Exactly: &resourcev1.ExactDeviceRequest{DeviceClassName: "class.example.org", AdminAccess: ptr(false),
				Selectors: []resourcev1.DeviceSelector{{CEL: &resourcev1.CELDeviceSelector{Expression: "true"}}}}},
			{Name: "any", FirstAvailable: []resourcev1.DeviceSubRequest{{Name: "big", DeviceClassName: "class.example.org", Count: 2}}}},
		Constraints: []resourcev1.DeviceConstraint{{Requests: []string{"gpu"}, MatchAttribute: ptr(resourcev1.FullyQualifiedName("d.example.org/numa"))}},
	}}
}

// certificateRequest asks for a certificate with a key that nobody keeps.
func certificateRequest() []byte {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err) // There is always randomness.
	}
	subject := pkix.Name{CommonName: "jane", Organization: []string{"dev"}}
	asked, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: subject}, key)
	if err != nil {
		panic(err) // The template is complete.
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: asked})
}

func jobSpec() batchv1.JobSpec {
	pod := template("")
	pod.Labels = nil
	pod.Spec.RestartPolicy = corev1.RestartPolicyNever
	return batchv1.JobSpec{Suspend: ptr(true), Parallelism: ptr(int32(2)), Template: pod}
}

// clusterLives is a life of every kind outside of namespaces.
func clusterLives(p, j *kubernetes.Clientset) []life {
	return []life{
		lives("namespaces", p.CoreV1().Namespaces(), j.CoreV1().Namespaces(), &corev1.Namespace{}),
		lives("nodes", p.CoreV1().Nodes(), j.CoreV1().Nodes(),
			&corev1.Node{Spec: corev1.NodeSpec{Taints: []corev1.Taint{{Key: "k", Effect: corev1.TaintEffectNoSchedule}}}}),
		lives("persistentvolumes", p.CoreV1().PersistentVolumes(), j.CoreV1().PersistentVolumes(),
			&corev1.PersistentVolume{Spec: corev1.PersistentVolumeSpec{
				Capacity: corev1.ResourceList{"storage": resource.MustParse("1Gi")}, AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteMany},
				PersistentVolumeSource: corev1.PersistentVolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/tmp"}}}}),
		lives("certificatesigningrequests", p.CertificatesV1().CertificateSigningRequests(), j.CertificatesV1().CertificateSigningRequests(),
			&certificatesv1.CertificateSigningRequest{Spec: certificatesv1.CertificateSigningRequestSpec{Request: certificateRequest(),
				SignerName: "example.org/signer", Usages: []certificatesv1.KeyUsage{certificatesv1.UsageClientAuth}, ExpirationSeconds: ptr(int32(3600))}}),
		lives("flowschemas", p.FlowcontrolV1().FlowSchemas(), j.FlowcontrolV1().FlowSchemas(),
			&flowcontrolv1.FlowSchema{Spec: flowcontrolv1.FlowSchemaSpec{
				PriorityLevelConfiguration: flowcontrolv1.PriorityLevelConfigurationReference{Name: "global-default"}, MatchingPrecedence: 9000,
				DistinguisherMethod: &flowcontrolv1.FlowDistinguisherMethod{Type: flowcontrolv1.FlowDistinguisherMethodByUserType},
				Rules: []flowcontrolv1.PolicyRulesWithSubjects{{
					Subjects:         []flowcontrolv1.Subject{{Kind: flowcontrolv1.SubjectKindUser, User: &flowcontrolv1.UserSubject{Name: "u"}}},
					NonResourceRules: []flowcontrolv1.NonResourcePolicyRule{{Verbs: []string{"get"}, NonResourceURLs: []string{"/x"}}},
					ResourceRules:    []flowcontrolv1.ResourcePolicyRule{{Verbs: []string{"get"}, APIGroups: []string{""}, Resources: []string{"pods"}, Namespaces: []string{"n"}}}}}}}),
		lives("prioritylevelconfigurations", p.FlowcontrolV1().PriorityLevelConfigurations(), j.FlowcontrolV1().PriorityLevelConfigurations(),
			&flowcontrolv1.PriorityLevelConfiguration{Spec: flowcontrolv1.PriorityLevelConfigurationSpec{
				Type: flowcontrolv1.PriorityLevelEnablementLimited, Limited: &flowcontrolv1.LimitedPriorityLevelConfiguration{
					NominalConcurrencyShares: ptr(int32(0)), LendablePercent: ptr(int32(10)), BorrowingLimitPercent: ptr(int32(0)),
					LimitResponse: flowcontrolv1.LimitResponse{Type: flowcontrolv1.LimitResponseTypeQueue,
						Queuing: &flowcontrolv1.QueuingConfiguration{Queues: 8, HandSize: 2, QueueLengthLimit: 5}}}}}),
		lives("deviceclasses", p.ResourceV1().DeviceClasses(), j.ResourceV1().DeviceClasses(),
			&resourcev1.DeviceClass{Spec: resourcev1.DeviceClassSpec{ExtendedResourceName: ptr("example.org/gpu"),
				Selectors: []resourcev1.DeviceSelector{{CEL: &resourcev1.CELDeviceSelector{Expression: "true"}}}}}),
		lives("resourceslices", p.ResourceV1().ResourceSlices(), j.ResourceV1().ResourceSlices(),
			&resourcev1.ResourceSlice{Spec: resourcev1.ResourceSliceSpec{Driver: "d.example.org", NodeName: ptr("n"),
				Pool: resourcev1.ResourcePool{Name: "n", Generation: 0, ResourceSliceCount: 1},
				Devices: []resourcev1.Device{{Name: "d",
					Attributes: map[resourcev1.QualifiedName]resourcev1.DeviceAttribute{"size": {IntValue: ptr(int64(0))}, "fast": {BoolValue: ptr(false)}, "kind": {StringValue: ptr("")}},
					Capacity:   map[resourcev1.QualifiedName]resourcev1.DeviceCapacity{"memory": {Value: resource.MustParse("1Gi")}}}}}}),
		lives("ingressclasses", p.NetworkingV1().IngressClasses(), j.NetworkingV1().IngressClasses(),
			&networkingv1.IngressClass{Spec: networkingv1.IngressClassSpec{Controller: "example.org/c"}}),
		lives("servicecidrs", p.NetworkingV1().ServiceCIDRs(), j.NetworkingV1().ServiceCIDRs(),
			&networkingv1.ServiceCIDR{Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{"10.120.0.0/24"}}}),
		lives("clusterroles", p.RbacV1().ClusterRoles(), j.RbacV1().ClusterRoles(),
			&rbacv1.ClusterRole{Rules: []rbacv1.PolicyRule{{Verbs: []string{"get"}, NonResourceURLs: []string{"/x/*"}}}}),
		lives("clusterrolebindings", p.RbacV1().ClusterRoleBindings(), j.RbacV1().ClusterRoleBindings(),
			&rbacv1.ClusterRoleBinding{Subjects: []rbacv1.Subject{{Kind: "Group", Name: "g"}}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "view"}}),
		lives("priorityclasses", p.SchedulingV1().PriorityClasses(), j.SchedulingV1().PriorityClasses(), &schedulingv1.PriorityClass{Value: -5}),
		lives("runtimeclasses", p.NodeV1().RuntimeClasses(), j.NodeV1().RuntimeClasses(),
			&nodev1.RuntimeClass{Handler: "h", Overhead: &nodev1.Overhead{PodFixed: corev1.ResourceList{"cpu": resource.MustParse("10m")}}}),
		lives("csidrivers", p.StorageV1().CSIDrivers(), j.StorageV1().CSIDrivers(),
			&storagev1.CSIDriver{Spec: storagev1.CSIDriverSpec{AttachRequired: ptr(false)}}),
		lives("csinodes", p.StorageV1().CSINodes(), j.StorageV1().CSINodes(),
			&storagev1.CSINode{Spec: storagev1.CSINodeSpec{Drivers: []storagev1.CSINodeDriver{{Name: "d.example.org", NodeID: "n", Allocatable: &storagev1.VolumeNodeResources{Count: ptr(int32(0))}}}}}),
		lives("storageclasses", p.StorageV1().StorageClasses(), j.StorageV1().StorageClasses(),
			&storagev1.StorageClass{Provisioner: "example.org/p", Parameters: map[string]string{"a": "b"}}),
		lives("volumeattachments", p.StorageV1().VolumeAttachments(), j.StorageV1().VolumeAttachments(),
			&storagev1.VolumeAttachment{Spec: storagev1.VolumeAttachmentSpec{Attacher: "a.example.org", NodeName: "n",
				Source: storagev1.VolumeAttachmentSource{PersistentVolumeName: ptr("v")}}}),
		lives("volumeattributesclasses", p.StorageV1().VolumeAttributesClasses(), j.StorageV1().VolumeAttributesClasses(),
			&storagev1.VolumeAttributesClass{DriverName: "d.example.org", Parameters: map[string]string{"a": "b"}}),
	}
}
