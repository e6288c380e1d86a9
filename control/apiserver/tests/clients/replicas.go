package main

import (
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/util/retry"
)

// A copier is a kind that keeps copies of a pod.
type copier struct {
	kind     string
	resource schema.GroupVersionResource
	// labelled says that labels are written with the status.
	labelled bool
	// adopts says that it owns pods itself.
	adopts bool
}

var (
	deployments = copier{"Deployment", appsv1.SchemeGroupVersion.WithResource("deployments"), false, false}
	replicaSets = copier{"ReplicaSet", appsv1.SchemeGroupVersion.WithResource("replicasets"), true, true}
	controllers = copier{"ReplicationController", corev1.SchemeGroupVersion.WithResource("replicationcontrollers"), true, true}
)

// replicated asks of all that keep copies what they do with them.
func replicated(t *T) {
	t.hollowNodes(2)
	var parts []func(*T)
	for _, one := range []copier{deployments, replicaSets, controllers} {
		parts = append(parts, one.scaled, one.corrected)
		if one.adopts {
			parts = append(parts, one.adopted)
		}
	}
	t.Together(parts...)
}

func (c copier) client(t *T, namespace string) dynamic.ResourceInterface {
	clients, err := dynamic.NewForConfig(t.Config())
	t.Must(err, "dynamic client")
	return clients.Resource(c.resource).Namespace(namespace)
}

// create makes one that keeps so many copies of a light pod; the pods have its name as their app.
func (c copier) create(t *T, namespace, name string, replicas int) *unstructured.Unstructured {
	var selector any = map[string]any{"matchLabels": map[string]any{"app": name}}
	if c == controllers {
		selector = map[string]any{"app": name}
	}
	template := light(name, "example.org/c:1")
	made, err := c.client(t, namespace).Create(t, &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": c.resource.GroupVersion().String(), "kind": c.kind, "metadata": map[string]any{"name": name},
		"spec": map[string]any{"replicas": int64(replicas), "selector": selector, "template": tree(&corev1.Pod{ObjectMeta: template.ObjectMeta, Spec: template.Spec})},
	}}, metav1.CreateOptions{})
	t.Must(err, "create a "+c.kind)
	return made
}

// counts waits until the status says that so many copies are there and ready.
func (c copier) counts(t *T, namespace, name string, count int64) {
	t.Until(fmt.Sprintf("the %s %s counts %d", c.kind, name, count), func() bool {
		one, err := c.client(t, namespace).Get(t, name, metav1.GetOptions{})
		t.Must(err, "get "+name)
		all, _, _ := unstructured.NestedInt64(one.Object, "status", "replicas")
		ready, _, _ := unstructured.NestedInt64(one.Object, "status", "readyReplicas")
		seen, _, _ := unstructured.NestedInt64(one.Object, "status", "observedGeneration")
		return all == count && ready == count && seen == one.GetGeneration()
	})
}

// scaled goes from one to two to three copies, and has another image when the next is made.
func (c copier) scaled(t *T) {
	namespace, scales := t.Namespace(), scaleClient(t)
	c.create(t, namespace, "scaled", 1)
	c.counts(t, namespace, "scaled", 1)
	ours, group := scales.Scales(namespace), c.resource.GroupResource()
	scale, err := ours.Get(t, group, "scaled", metav1.GetOptions{})
	t.Must(err, "get the scale")
	t.Want(scale.Spec.Replicas == 1 && scale.Status.Replicas == 1 && scale.Status.Selector == "app=scaled", "the scale of a %s is %v", c.kind, scale)
	// Whatever version is there is meant.
	scale.ResourceVersion, scale.Spec.Replicas = "", 2
	scale, err = ours.Update(t, group, scale, metav1.UpdateOptions{})
	t.Must(err, "update the scale of a "+c.kind)
	t.Want(scale.Spec.Replicas == 2, "the updated scale of a %s is %v", c.kind, scale)
	c.counts(t, namespace, "scaled", 2)
	scale, err = ours.Patch(t, c.resource, "scaled", types.MergePatchType, []byte(`{"spec":{"replicas":3}}`), metav1.PatchOptions{})
	t.Must(err, "patch the scale of a "+c.kind)
	t.Want(scale.Spec.Replicas == 3, "the patched scale of a %s is %v", c.kind, scale)
	c.counts(t, namespace, "scaled", 3)
	if c.adopts {
		c.changed(t, namespace)
	}
}

// changed has another template, which is for pods to come.
func (c copier) changed(t *T, namespace string) {
	typed := t.Clients(t.Config())
	patched, err := c.client(t, namespace).Patch(t, "scaled", types.StrategicMergePatchType, []byte(`{"metadata":{"labels":{"changed":"yes"}},
		"spec":{"replicas":4,"template":{"spec":{"containers":[{"name":"c","image":"example.org/c:2"}]}}}}`), metav1.PatchOptions{})
	t.Must(err, "patch a "+c.kind)
	t.Want(patched.GetLabels()["changed"] == "yes", "patched to %v", patched.GetLabels())
	c.counts(t, namespace, "scaled", 4)
	pods, err := typed.CoreV1().Pods(namespace).List(t, metav1.ListOptions{LabelSelector: "app=scaled"})
	t.Must(err, "list pods")
	images := map[string]int{}
	for _, pod := range pods.Items {
		images[pod.Spec.Containers[0].Image]++
	}
	t.Want(images["example.org/c:1"] == 3 && images["example.org/c:2"] == 1, "the images of a %s are %v", c.kind, images)
}

// corrected is what others write to a status that is somebody's own.
func (c copier) corrected(t *T) {
	namespace := t.Namespace()
	c.create(t, namespace, "corrected", 2)
	c.counts(t, namespace, "corrected", 2)
	ours := c.client(t, namespace)
	patched, err := ours.Patch(t, "corrected", types.StrategicMergePatchType,
		[]byte(`{"metadata":{"labels":{"said":"yes"}},"status":{"readyReplicas":0,"availableReplicas":0}}`), metav1.PatchOptions{}, "status")
	t.Must(err, "patch the status of a "+c.kind)
	ready, _, _ := unstructured.NestedInt64(patched.Object, "status", "readyReplicas")
	t.Want(ready == 0 && (patched.GetLabels()["said"] == "yes") == c.labelled, "the status of a %s was patched to %v", c.kind, patched)
	c.counts(t, namespace, "corrected", 2)
	t.Must(retry.RetryOnConflict(retry.DefaultRetry, func() error {
		one, err := ours.Get(t, "corrected", metav1.GetOptions{}, "status")
		t.Must(err, "get the status")
		t.Must(unstructured.SetNestedField(one.Object, int64(1), "status", "readyReplicas"), "set the status")
		t.Must(unstructured.SetNestedField(one.Object, int64(1), "status", "availableReplicas"), "set the status")
		t.Must(unstructured.SetNestedField(one.Object, int64(7), "spec", "replicas"), "set the spec")
		written, err := ours.UpdateStatus(t, one, metav1.UpdateOptions{})
		if err == nil {
			replicas, _, _ := unstructured.NestedInt64(written.Object, "spec", "replicas")
			t.Want(replicas == 2, "with the status of a %s its replicas became %d", c.kind, replicas)
		}
		return err
	}), "update the status of a "+c.kind)
	c.counts(t, namespace, "corrected", 2)
}

// adopted is a pod that is nobody's and has the labels; without them it is nobody's again, and another takes its place.
func (c copier) adopted(t *T) {
	namespace := t.Namespace()
	pods := t.Clients(t.Config()).CoreV1().Pods(namespace)
	t.lightPod(namespace, "orphan")
	t.running(namespace, "orphan", 1)
	owner := c.create(t, namespace, "orphan", 1)
	t.Until("the pod is adopted by a "+c.kind, func() bool {
		pod, err := pods.Get(t, "orphan", metav1.GetOptions{})
		t.Must(err, "get the pod")
		of := metav1.GetControllerOf(pod)
		return of != nil && of.UID == owner.GetUID() && *of.BlockOwnerDeletion
	})
	c.counts(t, namespace, "orphan", 1)
	more := podsMade(t, namespace, owner.GetResourceVersion())
	t.Want(len(more) == 0, "a %s that has its pod made %q", c.kind, more)
	_, err := pods.Patch(t, "orphan", types.StrategicMergePatchType, []byte(`{"metadata":{"labels":{"app":"free"}}}`), metav1.PatchOptions{})
	t.Must(err, "change its labels")
	t.Until("the pod is released by a "+c.kind, func() bool {
		pod, err := pods.Get(t, "orphan", metav1.GetOptions{})
		t.Must(err, "get the pod")
		return len(pod.OwnerReferences) == 0
	})
	t.running(namespace, "orphan", 1)
	t.running(namespace, "free", 1)
}

// podsMade are the images of the pods that were made since a version, or are within the next second.
func podsMade(t *T, namespace, version string) []string {
	watcher, err := t.Clients(t.Config()).CoreV1().Pods(namespace).Watch(t, metav1.ListOptions{ResourceVersion: version, TimeoutSeconds: ptr(int64(1))})
	t.Must(err, "watch pods")
	var images []string
	for event := range watcher.ResultChan() {
		if event.Type == watch.Added {
			images = append(images, event.Object.(*corev1.Pod).Spec.Containers[0].Image)
		}
	}
	return images
}
