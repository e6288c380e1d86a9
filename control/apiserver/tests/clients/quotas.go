package main

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
)

// limited looks at what quotas count, and at what limits give and refuse.
func limited(t *T) {
	t.Together(quotaStatus, quotaUse, limits)
}

// amounts are of resources, by name and amount in turn.
func amounts(words ...string) corev1.ResourceList {
	list := corev1.ResourceList{}
	for i := 0; i < len(words); i += 2 {
		list[corev1.ResourceName(words[i])] = resource.MustParse(words[i+1])
	}
	return list
}

// quotaStatus is told what the quota does not say, and is corrected.
func quotaStatus(t *T) {
	namespace := t.Namespace()
	quotas := t.Clients(t.Config()).CoreV1().ResourceQuotas(namespace)
	made, err := quotas.Create(t, &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Name: "corrected"},
		Spec: corev1.ResourceQuotaSpec{Hard: amounts("cpu", "700m", "memory", "700Mi")}}, metav1.CreateOptions{})
	t.Must(err, "create a quota")
	allows := func(version, cpu, memory string) {
		tells(t, quotas.Watch, version, "", "the quota allows "+cpu+" and "+memory, func(_ watch.EventType, one *corev1.ResourceQuota) bool {
			return equality.Semantic.DeepEqual(one.Status.Hard, amounts("cpu", cpu, "memory", memory))
		})
	}
	allows(made.ResourceVersion, "700m", "700Mi")
	patched, err := quotas.Patch(t, "corrected", types.StrategicMergePatchType, []byte(`{"spec":{"hard":{"cpu":"1","memory":"1Gi"}}}`), metav1.PatchOptions{})
	t.Must(err, "patch the quota")
	allows(patched.ResourceVersion, "1", "1Gi")
	told, err := quotas.Patch(t, "corrected", types.StrategicMergePatchType, []byte(`{"status":{"hard":{"cpu":"2","memory":"2Gi"}}}`), metav1.PatchOptions{}, "status")
	t.Must(err, "patch the status")
	t.Want(equality.Semantic.DeepEqual(told.Status.Hard, amounts("cpu", "2", "memory", "2Gi")), "the status was patched to %v", told.Status)
	allows(told.ResourceVersion, "1", "1Gi")
}

// quotaUse is counted as objects come and go.
func quotaUse(t *T) {
	namespace := t.Namespace()
	clients := t.Clients(t.Config())
	core := clients.CoreV1()
	const claims, storage = "fast.storageclass.storage.k8s.io/persistentvolumeclaims", "fast.storageclass.storage.k8s.io/requests.storage"
	_, err := core.ResourceQuotas(namespace).Create(t, &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Name: "used"}, Spec: corev1.ResourceQuotaSpec{
		Hard: amounts("resourcequotas", "1", "pods", "5", "cpu", "1", "memory", "800Mi", "ephemeral-storage", "40Gi", "requests.example.org/stick", "3",
			"services", "10", "services.nodeports", "1", "count/replicasets.apps", "5", "persistentvolumeclaims", "10", "requests.storage", "10Gi",
			claims, "10", storage, "10Gi")}}, metav1.CreateOptions{})
	t.Must(err, "create a quota")
	uses := func(words ...string) {
		t.Until(fmt.Sprint("used are ", words), func() bool {
			one, err := core.ResourceQuotas(namespace).Get(t, "used", metav1.GetOptions{})
			t.Must(err, "get the quota")
			for name, want := range amounts(words...) {
				if have, is := one.Status.Used[name]; !is || have.Cmp(want) != 0 {
					return false
				}
			}
			return true
		})
	}
	uses("resourcequotas", "1", "persistentvolumeclaims", "0", storage, "0", "pods", "0")
	_, err = core.PersistentVolumeClaims(namespace).Create(t, &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: "c"}, Spec: corev1.PersistentVolumeClaimSpec{
		StorageClassName: ptr("fast"), AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
		Resources: corev1.VolumeResourceRequirements{Requests: amounts("storage", "1Gi")}}}, metav1.CreateOptions{})
	t.Must(err, "create a claim")
	uses("persistentvolumeclaims", "1", "requests.storage", "1Gi", claims, "1", storage, "1Gi")
	t.lightPod(namespace, "p", func(pod *corev1.Pod) {
		pod.Spec.Containers[0].Resources = corev1.ResourceRequirements{Limits: amounts("example.org/stick", "2"),
			Requests: amounts("cpu", "450m", "memory", "210Mi", "ephemeral-storage", "20Gi", "example.org/stick", "2")}
	})
	uses("pods", "1", "cpu", "450m", "memory", "210Mi", "ephemeral-storage", "20Gi", "requests.example.org/stick", "2")
	_, err = core.Services(namespace).Create(t, &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "s"},
		Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeNodePort, Ports: []corev1.ServicePort{{Port: 80}}}}, metav1.CreateOptions{})
	t.Must(err, "create a service")
	uses("services", "1", "services.nodeports", "1")
	replicaSets.create(t, namespace, "r", 0)
	uses("count/replicasets.apps", "1")
	t.Must(clients.AppsV1().ReplicaSets(namespace).Delete(t, "r", metav1.DeleteOptions{}), "delete the set")
	t.Must(core.Pods(namespace).Delete(t, "p", *metav1.NewDeleteOptions(0)), "delete the pod")
	uses("count/replicasets.apps", "0", "pods", "0", "cpu", "0", "memory", "0", "ephemeral-storage", "0", "requests.example.org/stick", "0")
}

// limits say what containers get that ask for nothing, and which may not be.
func limits(t *T) {
	namespace := t.Namespace()
	core := t.Clients(t.Config()).CoreV1()
	all := func(cpu, memory, disk string) corev1.ResourceList {
		return amounts("cpu", cpu, "memory", memory, "ephemeral-storage", disk)
	}
	made, err := core.LimitRanges(namespace).Create(t, &corev1.LimitRange{ObjectMeta: metav1.ObjectMeta{Name: "l"}, Spec: corev1.LimitRangeSpec{Limits: []corev1.LimitRangeItem{{
		Type: corev1.LimitTypeContainer, Min: all("40m", "80Mi", "80Gi"), Max: all("400m", "400Mi", "400Gi"),
		Default: all("350m", "360Mi", "370Gi"), DefaultRequest: all("110m", "120Mi", "130Gi")}}}}, metav1.CreateOptions{})
	t.Must(err, "create limits")
	create := func(name string, requests, limits corev1.ResourceList) (corev1.ResourceRequirements, error) {
		pod := bare(name)
		pod.Spec.Containers[0].Resources = corev1.ResourceRequirements{Requests: requests, Limits: limits}
		made, err := core.Pods(namespace).Create(t, pod, metav1.CreateOptions{})
		if err != nil {
			return corev1.ResourceRequirements{}, err
		}
		return made.Spec.Containers[0].Resources, nil
	}
	for _, one := range []struct {
		name     string
		asks     corev1.ResourceRequirements
		requests corev1.ResourceList
		limits   corev1.ResourceList
	}{
		{"nothing", corev1.ResourceRequirements{}, all("110m", "120Mi", "130Gi"), all("350m", "360Mi", "370Gi")},
		// A limit that is said is also what is asked for.
		{"something", corev1.ResourceRequirements{Requests: amounts("memory", "90Mi", "ephemeral-storage", "95Gi"), Limits: amounts("cpu", "290m")},
			all("290m", "90Mi", "95Gi"), all("290m", "360Mi", "370Gi")},
	} {
		got, err := create(one.name, one.asks.Requests, one.asks.Limits)
		t.Must(err, "a pod that asks for "+one.name)
		t.Want(equality.Semantic.DeepEqual(got.Requests, one.requests) && equality.Semantic.DeepEqual(got.Limits, one.limits), "who asks for %s gets %v", one.name, got)
	}
	little, much := all("20m", "30Mi", "40Gi"), all("410m", "420Mi", "430Gi")
	_, err = create("little", little, nil)
	t.Refused(err, errors.IsForbidden, "a pod that asks for too little")
	_, err = create("much", much, much)
	t.Refused(err, errors.IsForbidden, "a pod that asks for too much")
	made.Spec.Limits[0].Min = all("15m", "25Mi", "35Gi")
	written, err := core.LimitRanges(namespace).Update(t, made, metav1.UpdateOptions{})
	t.Must(err, "update the limits")
	t.Want(equality.Semantic.DeepEqual(written.Spec, made.Spec), "updated to %v", written.Spec)
	t.Until("little is enough", func() bool {
		_, err := create("little", little, nil)
		return err == nil
	})
	t.Must(core.LimitRanges(namespace).Delete(t, "l", metav1.DeleteOptions{}), "delete the limits")
	t.Until("much is not too much", func() bool {
		_, err := create("much", much, much)
		return err == nil
	})
}
