package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
)

// lived follows pods from when they come to when they go.
func lived(t *T) {
	t.hollowNodes(2)
	t.Together(leaves, late, manyLeave, reported, generations, generationsGiven, manyGenerations, emptied)
}

// leaves is told of, with the grace it has, before it is gone.
func leaves(t *T) {
	namespace := t.Namespace()
	pods := t.Clients(t.Config()).CoreV1().Pods(namespace)
	made := t.lightPod(namespace, "leaving")
	t.running(namespace, "leaving", 1)
	t.Must(pods.Delete(t, "leaving", *metav1.NewDeleteOptions(30)), "delete it")
	var grace []int64
	tells(t, pods.Watch, made.ResourceVersion, "app=leaving", "it is gone", func(kind watch.EventType, one *corev1.Pod) bool {
		if one.DeletionTimestamp != nil && !slices.Contains(grace, *one.DeletionGracePeriodSeconds) {
			grace = append(grace, *one.DeletionGracePeriodSeconds)
		}
		t.Want(kind != watch.Deleted || one.Status.Phase == corev1.PodSucceeded && one.Status.PodIP != "", "it is gone as %v", one.Status)
		return kind == watch.Deleted
	})
	t.Want(len(grace) > 0 && grace[0] == 30, "it was told to go in %v seconds", grace)
	list, err := pods.List(t, metav1.ListOptions{})
	t.Must(err, "list pods")
	t.Want(len(list.Items) == 0, "%d pods are left", len(list.Items))
}

// late is a pod whose time is set when it runs.
func late(t *T) {
	namespace := t.Namespace()
	t.lightPod(namespace, "late")
	t.running(namespace, "late", 1)
	t.changePod(namespace, "late", func(one *corev1.Pod) { one.Spec.ActiveDeadlineSeconds = ptr(int64(1)) })
	failed := metav1.ListOptions{FieldSelector: "status.phase=Failed"}
	t.Until("its time is up", func() bool {
		list, err := t.Clients(t.Config()).CoreV1().Pods(namespace).List(t, failed)
		t.Must(err, "list pods")
		return len(list.Items) == 1 && list.Items[0].Status.Reason == "DeadlineExceeded"
	})
}

func manyLeave(t *T) {
	namespace := t.Namespace()
	for i := range 6 {
		t.lightPod(namespace, fmt.Sprint("many-", i), func(one *corev1.Pod) { one.Labels["app"] = []string{"go", "stay"}[i%2] })
	}
	t.running(namespace, "go", 3)
	t.Must(t.Clients(t.Config()).CoreV1().Pods(namespace).DeleteCollection(t, metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "app=go"}), "delete what is selected")
	t.running(namespace, "go", 0)
	t.running(namespace, "stay", 3)
	t.Until("those that were selected are gone", func() bool {
		list, err := t.Clients(t.Config()).CoreV1().Pods(namespace).List(t, metav1.ListOptions{LabelSelector: "app=go"})
		t.Must(err, "list pods")
		return len(list.Items) == 0
	})
}

// emptied is a namespace that keeps the rest as long as a pod is there, and says so; when it comes again nothing is in it.
func emptied(t *T) {
	clients := t.Clients(t.Config())
	namespace := t.Namespace()
	t.lightPod(namespace, "held", func(one *corev1.Pod) { one.Finalizers = []string{"example.org/held"} })
	t.running(namespace, "held", 1)
	maps := clients.CoreV1().ConfigMaps(namespace)
	_, err := maps.Create(t, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "kept"}}, metav1.CreateOptions{})
	t.Must(err, "create a map")
	t.Must(clients.CoreV1().Namespaces().Delete(t, namespace, metav1.DeleteOptions{}), "delete the namespace")
	t.Until("it says that something stays, and for what", func() bool {
		one, err := clients.CoreV1().Namespaces().Get(t, namespace, metav1.GetOptions{})
		t.Must(err, "get the namespace")
		says := map[corev1.NamespaceConditionType]corev1.NamespaceCondition{}
		for _, condition := range one.Status.Conditions {
			says[condition.Type] = condition
		}
		return one.Status.Phase == corev1.NamespaceTerminating && says[corev1.NamespaceDeletionContentFailure].Status == corev1.ConditionFalse &&
			says[corev1.NamespaceContentRemaining].Status == corev1.ConditionTrue && strings.Contains(says[corev1.NamespaceFinalizersRemaining].Message, "example.org/held")
	})
	time.Sleep(time.Second)
	_, err = maps.Get(t, "kept", metav1.GetOptions{})
	t.Must(err, "get a map beside a pod that stays")
	_, err = maps.Create(t, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "more"}}, metav1.CreateOptions{})
	t.Refused(err, func(err error) bool { return errors.HasStatusCause(err, corev1.NamespaceTerminatingCause) }, "create a map meanwhile")
	held := t.changePod(namespace, "held", func(one *corev1.Pod) {
		t.Want(one.DeletionTimestamp != nil, "the pod was not deleted: %v", one.ObjectMeta)
		one.Finalizers = nil
	})
	t.Until("all is gone after "+held.Name, func() bool {
		_, err := clients.CoreV1().Namespaces().Get(t, namespace, metav1.GetOptions{})
		return errors.IsNotFound(err)
	})
	_, err = clients.CoreV1().Namespaces().Create(t, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, metav1.CreateOptions{})
	t.Must(err, "create it again")
	for what, get := range map[string]func() error{
		"the pod": func() error {
			_, err := clients.CoreV1().Pods(namespace).Get(t, "held", metav1.GetOptions{})
			return err
		},
		"the map": func() error { _, err := maps.Get(t, "kept", metav1.GetOptions{}); return err },
	} {
		t.Refused(get(), errors.IsNotFound, "get "+what+" of before")
	}
}
