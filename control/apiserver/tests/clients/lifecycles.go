package main

import (
	"encoding/json"
	"encoding/pem"
	"fmt"
	"strings"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	networkingv1 "k8s.io/api/networking/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/util/retry"
)

// particular lets some kinds live as Kubernetes' own tests have them, where that is more than every kind is asked.
func particular(t *T) {
	namespace := t.Namespace()
	for _, part := range []func(*T, string){
		unchangeable, emptyKeys, sysctls, qualities, tokensMounted, requested, leased, related, serviceStatuses, namespaceStatuses,
		twoAddresses, registered, noTables, rootAuthority, ownEndpoints, circle, inlineVolumes, oldEndpoints,
	} {
		t.Alone(func(t *T) { part(t, namespace) })
	}
}

// unchangeable maps and secrets keep their data and take labels.
func unchangeable(t *T, namespace string) {
	core := t.Clients(t.Config()).CoreV1()
	maps, secrets := core.ConfigMaps(namespace), core.Secrets(namespace)
	one, err := maps.Create(t, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "fixed"}, Data: map[string]string{"a": "1"}}, metav1.CreateOptions{})
	t.Must(err, "create a map")
	one.Immutable = ptr(true)
	one, err = maps.Update(t, one, metav1.UpdateOptions{})
	t.Must(err, "make it immutable")
	for what, edit := range map[string]func(*corev1.ConfigMap){
		"data":      func(one *corev1.ConfigMap) { one.Data["a"] = "2" },
		"immutable": func(one *corev1.ConfigMap) { one.Immutable = ptr(false) },
		"binary":    func(one *corev1.ConfigMap) { one.BinaryData = map[string][]byte{"b": {1}} },
	} {
		changed := one.DeepCopy()
		edit(changed)
		_, err := maps.Update(t, changed, metav1.UpdateOptions{})
		t.Refused(err, errors.IsInvalid, "change the "+what+" of an immutable map")
	}
	one.Labels = map[string]string{"l": "1"}
	_, err = maps.Update(t, one, metav1.UpdateOptions{})
	t.Must(err, "label an immutable map")
	t.Must(maps.Delete(t, "fixed", metav1.DeleteOptions{}), "delete an immutable map")
	secret, err := secrets.Create(t, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "fixed"}, Immutable: ptr(true), Data: map[string][]byte{"a": []byte("1")}}, metav1.CreateOptions{})
	t.Must(err, "create an immutable secret")
	changed := secret.DeepCopy()
	changed.Data["a"] = []byte("2")
	_, err = secrets.Update(t, changed, metav1.UpdateOptions{})
	t.Refused(err, errors.IsInvalid, "change the data of an immutable secret")
	secret.Labels = map[string]string{"l": "1"}
	_, err = secrets.Update(t, secret, metav1.UpdateOptions{})
	t.Must(err, "label an immutable secret")
}

func emptyKeys(t *T, namespace string) {
	core := t.Clients(t.Config()).CoreV1()
	_, err := core.ConfigMaps(namespace).Create(t, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "e"}, Data: map[string]string{"": "v"}}, metav1.CreateOptions{})
	t.Refused(err, errors.IsInvalid, "a map with an empty key")
	_, err = core.Secrets(namespace).Create(t, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "e"}, Data: map[string][]byte{"": []byte("v")}}, metav1.CreateOptions{})
	t.Refused(err, errors.IsInvalid, "a secret with an empty key")
}

// bare is a pod that nobody runs.
func bare(name string) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: podSpec()}
}

// sysctls with wrong names are refused, each by its own; those that may be unsafe are the node's matter.
func sysctls(t *T, namespace string) {
	pod := bare("sysctls")
	pod.Spec.SecurityContext = &corev1.PodSecurityContext{Sysctls: []corev1.Sysctl{
		{Name: "foo-", Value: "bar"}, {Name: "kernel.shmmax", Value: "100000000"}, {Name: "safe-and-unsafe", Value: "100000000"}, {Name: "bar..", Value: "42"}}}
	_, err := t.Clients(t.Config()).CoreV1().Pods(namespace).Create(t, pod, metav1.CreateOptions{})
	t.Refused(err, func(err error) bool {
		text := err.Error()
		return strings.Contains(text, `Invalid value: "foo-"`) && strings.Contains(text, `Invalid value: "bar.."`) &&
			!strings.Contains(text, "safe-and-unsafe") && !strings.Contains(text, "kernel.shmmax")
	}, "sysctls of wrong names")
}

// qualities of service are told as soon as a pod is made.
func qualities(t *T, namespace string) {
	same := corev1.ResourceList{"cpu": resource.MustParse("100m"), "memory": resource.MustParse("100Mi")}
	for want, resources := range map[corev1.PodQOSClass]corev1.ResourceRequirements{
		corev1.PodQOSGuaranteed: {Requests: same, Limits: same}, corev1.PodQOSBurstable: {Requests: same}, corev1.PodQOSBestEffort: {},
	} {
		pod := bare("quality-" + strings.ToLower(string(want)))
		pod.Spec.Containers[0].Resources = resources
		made, err := t.Clients(t.Config()).CoreV1().Pods(namespace).Create(t, pod, metav1.CreateOptions{})
		t.Must(err, "create a pod")
		t.Want(made.Status.QOSClass == want, "the class is %q and not %q", made.Status.QOSClass, want)
	}
}

// tokensMounted follows what the pod says of its token, and the account where the pod says nothing.
func tokensMounted(t *T, namespace string) {
	core := t.Clients(t.Config()).CoreV1()
	choices := map[string]*bool{"default": nil, "yes": ptr(true), "no": ptr(false)}
	for account, ofAccount := range choices {
		_, err := core.ServiceAccounts(namespace).Create(t, &corev1.ServiceAccount{
			ObjectMeta: metav1.ObjectMeta{Name: "mount-" + account}, AutomountServiceAccountToken: ofAccount}, metav1.CreateOptions{})
		t.Must(err, "create an account")
		for pod, ofPod := range choices {
			one := bare("mount-" + account + "-" + pod)
			one.Spec.ServiceAccountName, one.Spec.AutomountServiceAccountToken = "mount-"+account, ofPod
			made, err := core.Pods(namespace).Create(t, one, metav1.CreateOptions{})
			t.Must(err, "create a pod")
			mounted := 0
			for _, mount := range made.Spec.Containers[0].VolumeMounts {
				if mount.MountPath == "/var/run/secrets/kubernetes.io/serviceaccount" {
					mounted++
				}
			}
			want := pod == "yes" || pod == "default" && account != "no"
			t.Want((mounted == 1) == want, "%d tokens for a pod that says %s with an account that says %s", mounted, pod, account)
		}
	}
}

// requested goes through what is asked of requests for certificates beside other kinds.
func requested(t *T, _ string) {
	requests := t.Clients(t.Config()).CertificatesV1().CertificateSigningRequests()
	made, err := requests.Create(t, &certificatesv1.CertificateSigningRequest{ObjectMeta: metav1.ObjectMeta{GenerateName: "asked-"},
		Spec: certificatesv1.CertificateSigningRequestSpec{Request: certificateRequest(), SignerName: "example.org/asked", ExpirationSeconds: ptr(int32(3600)),
			Usages: []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageKeyEncipherment, certificatesv1.UsageServerAuth}}}, metav1.CreateOptions{})
	t.Must(err, "ask for a certificate")
	listed, err := requests.List(t, metav1.ListOptions{FieldSelector: "spec.signerName=example.org/asked"})
	t.Must(err, "list by signer")
	t.Want(len(listed.Items) == 1, "%d of 1 listed by signer", len(listed.Items))
	patched, err := requests.Patch(t, made.Name, types.MergePatchType,
		[]byte(`{"metadata":{"annotations":{"patchedapproval":"true"}},"status":{"conditions":[{"type":"ApprovalPatch","status":"True","reason":"e2e"}]}}`), metav1.PatchOptions{}, "approval")
	t.Must(err, "patch the approval")
	t.Want(patched.Annotations["patchedapproval"] == "true" && len(patched.Status.Conditions) == 1, "patched to %v", patched)
	patched.Status.Conditions = append(patched.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{
		Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue, Reason: "E2E", Message: "m"})
	approved, err := requests.UpdateApproval(t, made.Name, patched, metav1.UpdateOptions{})
	t.Must(err, "approve")
	t.Want(len(approved.Status.Conditions) == 2 && approved.Status.Conditions[1].Type == certificatesv1.CertificateApproved, "approved to %v", approved.Status)
	certificate := t.servingCertificate().Certificate[0]
	give := func(certificate []byte) error {
		text, err := json.Marshal(certificate)
		t.Must(err, "write JSON")
		_, err = requests.Patch(t, made.Name, types.MergePatchType, []byte(`{"status":{"certificate":`+string(text)+`}}`), metav1.PatchOptions{}, "status")
		return err
	}
	t.Refused(give(certificate), errors.IsInvalid, "a certificate that is no PEM")
	one := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate})
	t.Must(give(append(one, one...)), "give a certificate with that of its authority")
	t.Must(requests.DeleteCollection(t, metav1.DeleteOptions{}, metav1.ListOptions{FieldSelector: "spec.signerName=example.org/asked"}), "delete by signer")
}

// leased keeps moments to their microseconds, and is patched with what two-way merges make.
func leased(t *T, namespace string) {
	leases := t.Clients(t.Config()).CoordinationV1().Leases(namespace)
	now := metav1.NewMicroTime(time.Now().Truncate(time.Microsecond))
	one := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: "l"}, Spec: coordinationv1.LeaseSpec{
		HolderIdentity: ptr("a"), LeaseDurationSeconds: ptr(int32(30)), AcquireTime: &now, RenewTime: &now, LeaseTransitions: ptr(int32(0))}}
	made, err := leases.Create(t, one, metav1.CreateOptions{})
	t.Must(err, "create a lease")
	t.Want(equality.Semantic.DeepEqual(made.Spec, one.Spec), "created %v of %v", made.Spec, one.Spec)
	changed := made.DeepCopy()
	changed.Spec.HolderIdentity, changed.Spec.LeaseTransitions, changed.Spec.LeaseDurationSeconds = ptr("b"), ptr(int32(1)), nil
	before, err := json.Marshal(made)
	t.Must(err, "write JSON")
	after, err := json.Marshal(changed)
	t.Must(err, "write JSON")
	patch, err := strategicpatch.CreateTwoWayMergePatch(before, after, coordinationv1.Lease{})
	t.Must(err, "make a patch")
	patched, err := leases.Patch(t, "l", types.StrategicMergePatchType, patch, metav1.PatchOptions{})
	t.Must(err, "patch a lease")
	t.Want(equality.Semantic.DeepEqual(patched.Spec, changed.Spec), "patched to %v and not %v", patched.Spec, changed.Spec)
}

// related events are patched with a series, in either generation.
func related(t *T, namespace string) {
	clients := t.Clients(t.Config())
	events := clients.EventsV1().Events(namespace)
	one := &eventsv1.Event{ObjectMeta: metav1.ObjectMeta{Name: "happened", Labels: map[string]string{"event": "yes"}},
		Regarding: corev1.ObjectReference{Namespace: namespace}, EventTime: metav1.NowMicro(), Note: "n", Reason: "Test", Action: "Do", Type: "Normal",
		ReportingController: "test-controller", ReportingInstance: "test-node",
		Series: &eventsv1.EventSeries{Count: 2, LastObservedTime: metav1.NewMicroTime(time.Unix(1505828956, 0))}}
	made, err := events.Create(t, one, metav1.CreateOptions{})
	t.Must(err, "create an event")
	everywhere, err := clients.EventsV1().Events("").List(t, metav1.ListOptions{LabelSelector: "event=yes", FieldSelector: "reportingController=test-controller"})
	t.Must(err, "list events everywhere")
	t.Want(len(everywhere.Items) == 1, "%d of 1 events listed", len(everywhere.Items))
	old, err := clients.CoreV1().Events(namespace).List(t, metav1.ListOptions{FieldSelector: "reportingComponent=test-controller"})
	t.Must(err, "list events of the old generation")
	t.Want(len(old.Items) == 1 && old.Items[0].Message == "n" && old.Items[0].Series.Count == 2, "the old form is %v", old.Items)
	made.Series = &eventsv1.EventSeries{Count: 4, LastObservedTime: metav1.NewMicroTime(time.Unix(1505828951, 0))}
	before, err := json.Marshal(one)
	t.Must(err, "write JSON")
	changed := one.DeepCopy()
	changed.Series = made.Series
	after, err := json.Marshal(changed)
	t.Must(err, "write JSON")
	patch, err := strategicpatch.CreateTwoWayMergePatch(before, after, eventsv1.Event{})
	t.Must(err, "make a patch")
	_, err = events.Patch(t, "happened", types.StrategicMergePatchType, patch, metav1.PatchOptions{})
	t.Must(err, "patch an event")
	read, err := events.Get(t, "happened", metav1.GetOptions{})
	t.Must(err, "get an event")
	t.Want(read.Series != nil && read.Series.Count == 4 && read.Series.LastObservedTime.Equal(&made.Series.LastObservedTime), "the series is %v", read.Series)
	read.Series = &eventsv1.EventSeries{Count: 100, LastObservedTime: metav1.NewMicroTime(time.Unix(1505828951, 0))}
	_, err = events.Update(t, read, metav1.UpdateOptions{})
	t.Must(err, "update an event")
	t.Must(events.DeleteCollection(t, metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "event=yes"}), "delete events")
}

// serviceStatuses writes the status of a service that waits for a load balancer.
func serviceStatuses(t *T, namespace string) {
	services := t.Clients(t.Config()).CoreV1().Services(namespace)
	made, err := services.Create(t, &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "status", Labels: map[string]string{"status": "yes"}}, Spec: corev1.ServiceSpec{
		Type: corev1.ServiceTypeLoadBalancer, LoadBalancerClass: ptr("example.com/internal-load-balancer"),
		Ports: []corev1.ServicePort{{Name: "http", Protocol: corev1.ProtocolTCP, Port: 80, TargetPort: intstr.FromInt32(80)}}}}, metav1.CreateOptions{})
	t.Must(err, "create a service")
	patched, err := services.Patch(t, "status", types.MergePatchType,
		[]byte(`{"metadata":{"annotations":{"patchedstatus":"true"}},"status":{"loadBalancer":{"ingress":[{"ip":"203.0.113.1"}]}}}`), metav1.PatchOptions{}, "status")
	t.Must(err, "patch the status")
	tells(t, services.Watch, made.ResourceVersion, "status=yes", "the status is patched", func(_ watch.EventType, one *corev1.Service) bool {
		return one.Annotations["patchedstatus"] == "true" && len(one.Status.LoadBalancer.Ingress) == 1
	})
	patched.Status.Conditions = append(patched.Status.Conditions, metav1.Condition{Type: "StatusUpdate", Status: metav1.ConditionTrue, Reason: "E2E", Message: "m"})
	_, err = services.UpdateStatus(t, patched, metav1.UpdateOptions{})
	t.Must(err, "update the status")
	tells(t, services.Watch, patched.ResourceVersion, "status=yes", "the status is updated", func(_ watch.EventType, one *corev1.Service) bool {
		return len(one.Status.Conditions) == 1
	})
	relabelled, err := services.Patch(t, "status", types.StrategicMergePatchType, []byte(`{"metadata":{"labels":{"status":"yes","more":"1"}}}`), metav1.PatchOptions{})
	t.Must(err, "patch the service")
	t.Must(services.Delete(t, "status", metav1.DeleteOptions{}), "delete the service")
	tells(t, services.Watch, relabelled.ResourceVersion, "status=yes", "it is gone", func(kind watch.EventType, _ *corev1.Service) bool {
		return kind == watch.Deleted
	})
}

// namespaceStatuses writes the status and the finalizers of a namespace.
func namespaceStatuses(t *T, _ string) {
	namespaces := t.Clients(t.Config()).CoreV1().Namespaces()
	made, err := namespaces.Create(t, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "finalized-"}}, metav1.CreateOptions{})
	t.Must(err, "create a namespace")
	patched, err := namespaces.Patch(t, made.Name, types.MergePatchType,
		[]byte(`{"metadata":{"annotations":{"e2e-patched-ns-status":"yes"}},"status":{"conditions":[{"type":"StatusPatch","status":"True","reason":"E2E","message":"m"}]}}`), metav1.PatchOptions{}, "status")
	t.Must(err, "patch the status")
	t.Want(patched.Annotations["e2e-patched-ns-status"] == "yes" && len(patched.Status.Conditions) == 1 && patched.Status.Phase == corev1.NamespaceActive, "patched to %v", patched)
	held := patched.DeepCopy()
	held.Spec.Finalizers = []corev1.FinalizerName{"e2e.example.com/fakeFinalizer"}
	held, err = namespaces.Finalize(t, held, metav1.UpdateOptions{})
	t.Must(err, "finalize")
	t.Want(len(held.Spec.Finalizers) == 1 && held.Spec.Finalizers[0] == "e2e.example.com/fakeFinalizer", "finalizers are %v", held.Spec.Finalizers)
	held.Spec.Finalizers = []corev1.FinalizerName{corev1.FinalizerKubernetes}
	held, err = namespaces.Finalize(t, held, metav1.UpdateOptions{})
	t.Must(err, "finalize again")
	t.Want(len(held.Spec.Finalizers) == 1, "finalizers are %v", held.Spec.Finalizers)
	t.Must(namespaces.Delete(t, made.Name, metav1.DeleteOptions{}), "delete the namespace")
}

// twoAddresses are objects, whoever they are said to be of.
func twoAddresses(t *T, _ string) {
	addresses := t.Clients(t.Config()).NetworkingV1().IPAddresses()
	for name, label := range map[string]string{"255.255.255.255": "broadcast", "fe80::42:1dff:fe84:f9e2": "link-local"} {
		_, err := addresses.Create(t, &networkingv1.IPAddress{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"type": label}},
			Spec: networkingv1.IPAddressSpec{ParentRef: &networkingv1.ParentReference{Group: "mygroup", Resource: "myresources", Namespace: "foo", Name: "bar"}}}, metav1.CreateOptions{})
		t.Must(err, "create "+name)
		patched, err := addresses.Patch(t, name, types.MergePatchType, []byte(`{"metadata":{"annotations":{"patched":"true"}}}`), metav1.PatchOptions{})
		t.Must(err, "patch "+name)
		patched.Annotations["updated"] = "true"
		_, err = addresses.Update(t, patched, metav1.UpdateOptions{})
		t.Must(err, "update "+name)
	}
	t.Must(addresses.Delete(t, "255.255.255.255", metav1.DeleteOptions{}), "delete an address")
	t.Must(addresses.DeleteCollection(t, metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "type=link-local"}), "delete addresses")
	left, err := addresses.List(t, metav1.ListOptions{LabelSelector: "type"})
	t.Must(err, "list addresses")
	t.Want(len(left.Items) == 0, "%d addresses are left", len(left.Items))
}

// registered nodes say what they are when they come.
func registered(t *T, _ string) {
	nodes := t.Clients(t.Config()).CoreV1().Nodes()
	made, err := nodes.Create(t, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "registered"}, Spec: corev1.NodeSpec{Unschedulable: true},
		Status: corev1.NodeStatus{Phase: corev1.NodeRunning, Conditions: []corev1.NodeCondition{{
			Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "E2E", Message: "Set from e2e test"}}}}, metav1.CreateOptions{})
	t.Must(err, "create a node")
	t.Want(made.Status.Phase == corev1.NodeRunning && len(made.Status.Conditions) == 1, "its status is %v", made.Status)
	patched, err := nodes.Patch(t, "registered", types.StrategicMergePatchType, []byte(`{"metadata":{"labels":{"registered":"patched"}}}`), metav1.PatchOptions{})
	t.Must(err, "patch the node")
	t.Want(patched.Labels["registered"] == "patched", "patched to %v", patched.Labels)
	t.Must(retry.RetryOnConflict(retry.DefaultRetry, func() error {
		read, err := nodes.Get(t, "registered", metav1.GetOptions{})
		t.Must(err, "get the node")
		read.Labels["registered"] = "updated"
		_, err = nodes.Update(t, read, metav1.UpdateOptions{})
		return err
	}), "update the node")
	t.Must(nodes.Delete(t, "registered", metav1.DeleteOptions{}), "delete the node")
	left, err := nodes.List(t, metav1.ListOptions{LabelSelector: "registered=updated"})
	t.Must(err, "list nodes")
	t.Want(len(left.Items) == 0, "%d nodes are left", len(left.Items))
}

// noTables are made of reviews.
func noTables(t *T, _ string) {
	review := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{
		NonResourceAttributes: &authorizationv1.NonResourceAttributes{Path: "/", Verb: "get"}}}
	err := t.Clients(t.Config()).AuthorizationV1().RESTClient().Post().Resource("selfsubjectaccessreviews").
		SetHeader("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io").Body(review).Do(t).Into(&metav1.Table{})
	t.Refused(err, errors.IsNotAcceptable, "a table of a review")
	t.Refused(err, func(err error) bool { return err.(errors.APIStatus).Status().Code == 406 }, "a table of a review")
}

// rootAuthority comes again when it is deleted or changed.
func rootAuthority(t *T, namespace string) {
	maps := t.Clients(t.Config()).CoreV1().ConfigMaps(namespace)
	comes := func() {
		t.Until("the root's certificate is there", func() bool {
			one, err := maps.Get(t, "kube-root-ca.crt", metav1.GetOptions{})
			return err == nil && one.Data["ca.crt"] != ""
		})
	}
	comes()
	t.Must(maps.Delete(t, "kube-root-ca.crt", metav1.DeleteOptions{GracePeriodSeconds: ptr(int64(0))}), "delete it")
	comes()
	_, err := maps.Update(t, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "kube-root-ca.crt"}, Data: map[string]string{"ca.crt": ""}}, metav1.UpdateOptions{})
	t.Must(err, "empty it")
	comes()
}

// ownEndpoints are those of the API server itself.
func ownEndpoints(t *T, _ string) {
	clients := t.Clients(t.Config())
	service, err := clients.CoreV1().Services("default").Get(t, "kubernetes", metav1.GetOptions{})
	t.Must(err, "get the service")
	t.Want(len(service.Spec.Ports) == 1 && service.Spec.Ports[0].Port == 443, "its ports are %v", service.Spec.Ports)
	old, err := clients.CoreV1().Endpoints("default").Get(t, "kubernetes", metav1.GetOptions{})
	t.Must(err, "get its endpoints")
	slice, err := clients.DiscoveryV1().EndpointSlices("default").Get(t, "kubernetes", metav1.GetOptions{})
	t.Must(err, "get its slice")
	t.Want(slice.Labels["kubernetes.io/service-name"] == "kubernetes" && len(slice.Endpoints) > 0 && len(slice.Ports) > 0, "the slice is %v", slice)
	t.Want(len(old.Subsets) == 1 && len(old.Subsets[0].Addresses) == len(slice.Endpoints) && old.Subsets[0].Ports[0].Port == *slice.Ports[0].Port,
		"the endpoints are %v", old.Subsets)
}

// circle is of three pods that own each other; deleting one deletes all.
func circle(t *T, namespace string) {
	pods := t.Clients(t.Config()).CoreV1().Pods(namespace)
	var made []*corev1.Pod
	for i := range 3 {
		one, err := pods.Create(t, bare(fmt.Sprint("circle-", i)), metav1.CreateOptions{})
		t.Must(err, "create a pod")
		made = append(made, one)
	}
	for i, one := range made {
		owner := made[(i+2)%3]
		patch := fmt.Sprintf(`{"metadata":{"ownerReferences":[{"apiVersion":"v1","kind":"Pod","name":%q,"uid":%q,"controller":true,"blockOwnerDeletion":true}]}}`, owner.Name, owner.UID)
		_, err := pods.Patch(t, one.Name, types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{})
		t.Must(err, "give it an owner")
	}
	t.Must(pods.Delete(t, made[0].Name, metav1.DeleteOptions{PropagationPolicy: ptr(metav1.DeletePropagationForeground)}), "delete one")
	t.Until("the circle is gone", func() bool {
		for _, one := range made {
			if _, err := pods.Get(t, one.Name, metav1.GetOptions{}); !errors.IsNotFound(err) {
				return false
			}
		}
		return true
	})
}

// inlineVolumes are kept as they are given.
func inlineVolumes(t *T, namespace string) {
	clients := t.Clients(t.Config())
	driver, err := clients.StorageV1().CSIDrivers().Create(t, &storagev1.CSIDriver{ObjectMeta: metav1.ObjectMeta{Name: "inline.csi.example.org"},
		Spec: storagev1.CSIDriverSpec{VolumeLifecycleModes: []storagev1.VolumeLifecycleMode{storagev1.VolumeLifecycleEphemeral}}}, metav1.CreateOptions{})
	t.Must(err, "create a driver")
	t.After(func() {
		if err := clients.StorageV1().CSIDrivers().Delete(background, driver.Name, metav1.DeleteOptions{}); err != nil {
			t.Errorf("delete the driver: %v", err)
		}
	})
	pod := bare("inline")
	pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: "csi", VolumeSource: corev1.VolumeSource{CSI: &corev1.CSIVolumeSource{
		Driver: driver.Name, ReadOnly: ptr(true), VolumeAttributes: map[string]string{"a": "b"}}}})
	_, err = clients.CoreV1().Pods(namespace).Create(t, pod, metav1.CreateOptions{})
	t.Must(err, "create a pod")
	patched, err := clients.CoreV1().Pods(namespace).Patch(t, "inline", types.StrategicMergePatchType, []byte(`{"metadata":{"labels":{"inline":"patched"}}}`), metav1.PatchOptions{})
	t.Must(err, "patch the pod")
	t.Want(patched.Labels["inline"] == "patched" && equality.Semantic.DeepEqual(patched.Spec.Volumes[len(pod.Spec.Volumes)-1], pod.Spec.Volumes[len(pod.Spec.Volumes)-1]),
		"its volumes are %v", patched.Spec.Volumes)
}

// oldEndpoints are patched whole: their subsets are nobody's list with keys.
func oldEndpoints(t *T, namespace string) {
	endpoints := t.Clients(t.Config()).CoreV1().Endpoints(namespace)
	_, err := endpoints.Create(t, &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Name: "old", Labels: map[string]string{"old": "yes"}},
		Subsets: []corev1.EndpointSubset{{Addresses: []corev1.EndpointAddress{{IP: "10.0.0.24"}}, Ports: []corev1.EndpointPort{{Name: "http", Port: 80, Protocol: corev1.ProtocolTCP}}}}}, metav1.CreateOptions{})
	t.Must(err, "create endpoints")
	patched, err := endpoints.Patch(t, "old", types.StrategicMergePatchType,
		[]byte(`{"metadata":{"labels":{"more":"patched"}},"subsets":[{"addresses":[{"ip":"10.0.0.25"}],"ports":[{"name":"http-test","port":8080}]}]}`), metav1.PatchOptions{})
	t.Must(err, "patch endpoints")
	t.Want(len(patched.Subsets) == 1 && patched.Subsets[0].Addresses[0].IP == "10.0.0.25" && patched.Subsets[0].Ports[0].Name == "http-test" &&
		patched.Subsets[0].Ports[0].Protocol == corev1.ProtocolTCP, "patched to %v", patched.Subsets)
	t.Must(endpoints.DeleteCollection(t, metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "old=yes"}), "delete endpoints")
}
