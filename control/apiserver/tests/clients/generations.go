package main

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/retry"
)

// changePod writes a pod that is read, again where somebody else wrote meanwhile.
func (t *T) changePod(namespace, name string, edit func(*corev1.Pod)) *corev1.Pod {
	pods := t.Clients(t.Config()).CoreV1().Pods(namespace)
	var written *corev1.Pod
	t.Must(retry.OnError(retry.DefaultBackoff, errors.IsConflict, func() error {
		read, err := pods.Get(t, name, metav1.GetOptions{})
		t.Must(err, "get "+name)
		edit(read)
		written, err = pods.Update(t, read, metav1.UpdateOptions{})
		return err
	}), "update "+name)
	return written
}

// reported is what a status is told beside its node, and only that.
func reported(t *T) {
	namespace := t.Namespace()
	pods := t.Clients(t.Config()).CoreV1().Pods(namespace)
	t.lightPod(namespace, "reported")
	t.running(namespace, "reported", 1)
	patched, err := pods.Patch(t, "reported", types.StrategicMergePatchType, []byte(`{"spec":{"containers":[{"name":"c","image":"example.org/never"}]},
		"status":{"message":"told","reason":"Said","conditions":[{"type":"example.org/told","status":"True"}]}}`), metav1.PatchOptions{}, "status")
	t.Must(err, "patch the status")
	told := patched.Status
	t.Want(told.Message == "told" && told.Reason == "Said" && told.Phase == corev1.PodRunning && len(told.Conditions) > 3, "the status is %v", told)
	t.Want(patched.Spec.Containers[0].Image == "example.org/c:1", "with the status came %s", patched.Spec.Containers[0].Image)
	_, err = pods.Patch(t, "reported", types.StrategicMergePatchType, []byte(`{"spec":{"containers":[{"name":"c","image":"example.org/c:2"}]}}`), metav1.PatchOptions{})
	t.Must(err, "patch the image")
	t.Until("the node has the other image", func() bool {
		one, err := pods.Get(t, "reported", metav1.GetOptions{})
		t.Must(err, "get the pod")
		return one.Status.ContainerStatuses[0].Image == "example.org/c:2" && one.Status.Message == "told"
	})
}

// generations count what is changed of what a pod is to be.
func generations(t *T) {
	namespace := t.Namespace()
	made := t.lightPod(namespace, "changing", func(one *corev1.Pod) {
		one.Spec.InitContainers = []corev1.Container{{Name: "i", Image: "example.org/i:1"}}
	})
	t.running(namespace, "changing", 1)
	want := made.Generation
	t.Want(want == 1, "it begins with %d", want)
	for _, one := range []struct {
		name   string
		edit   func(*corev1.Pod)
		counts int64
	}{
		{"nothing", func(*corev1.Pod) {}, 0},
		{"a toleration", func(one *corev1.Pod) {
			one.Spec.Tolerations = append(one.Spec.Tolerations, corev1.Toleration{Key: "k", Operator: corev1.TolerationOpExists})
		}, 1},
		{"a deadline", func(one *corev1.Pod) { one.Spec.ActiveDeadlineSeconds = ptr(int64(900)) }, 1},
		{"an image", func(one *corev1.Pod) { one.Spec.Containers[0].Image = "example.org/c:2" }, 1},
		{"an image of the beginning", func(one *corev1.Pod) { one.Spec.InitContainers[0].Image = "example.org/i:2" }, 1},
		{"an annotation", func(one *corev1.Pod) { one.Annotations = map[string]string{"a": "1"} }, 0},
		{"the count itself", func(one *corev1.Pod) { one.Generation = 1 }, 0},
	} {
		want += one.counts
		written := t.changePod(namespace, "changing", one.edit)
		t.Want(written.Generation == want, "with %s changed it is %d and not %d", one.name, written.Generation, want)
	}
}

// generationsGiven are not those that are asked for; the last is of the deletion.
func generationsGiven(t *T) {
	namespace := t.Namespace()
	pods := t.Clients(t.Config()).CoreV1().Pods(namespace)
	t.lightPod(namespace, "given", func(one *corev1.Pod) { one.Generation, one.Finalizers = 100, []string{"example.org/held"} })
	// That it has a node does not count.
	one := t.running(namespace, "given", 1)[0]
	t.Want(one.Generation == 1 && one.Status.ObservedGeneration == 1, "it begins with %d and %d", one.Generation, one.Status.ObservedGeneration)
	for range 2 {
		t.Must(pods.Delete(t, "given", *metav1.NewDeleteOptions(60)), "delete it")
	}
	left, err := pods.Get(t, "given", metav1.GetOptions{})
	t.Must(err, "get it")
	t.Want(left.Generation == 2, "it is of generation %d when it is deleted", left.Generation)
	t.changePod(namespace, "given", func(one *corev1.Pod) { one.Finalizers = nil })
}

// manyGenerations are all seen by the node, which writes meanwhile.
func manyGenerations(t *T) {
	namespace := t.Namespace()
	t.lightPod(namespace, "busy", func(one *corev1.Pod) { one.Spec.ActiveDeadlineSeconds = ptr(int64(4000)) })
	t.running(namespace, "busy", 1)
	const changes = 150
	for range changes {
		t.changePod(namespace, "busy", func(one *corev1.Pod) { *one.Spec.ActiveDeadlineSeconds-- })
	}
	t.Until("the node has seen the last", func() bool {
		one, err := t.Clients(t.Config()).CoreV1().Pods(namespace).Get(t, "busy", metav1.GetOptions{})
		t.Must(err, "get it")
		return one.Generation == 1+changes && one.Status.ObservedGeneration == one.Generation && *one.Spec.ActiveDeadlineSeconds == 4000-changes
	})
}
