package main

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/util/retry"
)

// budgeted holds budgets to what they count, and evictions to the budgets.
func budgeted(t *T) {
	t.hollowNodes(2)
	t.Together(spent, disrupted)
}

// budget makes one that wants so many of the pods of an app.
func budget(t *T, namespace, app string, least int32) {
	_, err := t.Clients(t.Config()).PolicyV1().PodDisruptionBudgets(namespace).Create(t, &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Name: "b"},
		Spec: policyv1.PodDisruptionBudgetSpec{MinAvailable: ptr(intstr.FromInt32(least)), Selector: selecting(app)}}, metav1.CreateOptions{})
	t.Must(err, "create a budget")
}

// allows waits until the budget has counted so many pods and lets so many of them go.
func allows(t *T, namespace string, healthy, gone int32) {
	state := map[bool]metav1.ConditionStatus{true: metav1.ConditionTrue, false: metav1.ConditionFalse}[gone > 0]
	t.Until(fmt.Sprintf("of %d pods %d may go", healthy, gone), func() bool {
		one, err := t.Clients(t.Config()).PolicyV1().PodDisruptionBudgets(namespace).Get(t, "b", metav1.GetOptions{})
		t.Must(err, "get the budget")
		return one.Status.ObservedGeneration == one.Generation && one.Status.CurrentHealthy == healthy && one.Status.DisruptionsAllowed == gone &&
			meta.IsStatusConditionPresentAndEqual(one.Status.Conditions, policyv1.DisruptionAllowedCondition, state)
	})
}

// spent is a budget of three pods, as one after the other is to go.
func spent(t *T) {
	namespace := t.Namespace()
	clients := t.Clients(t.Config())
	budget(t, namespace, "spent", 3)
	for i := range 3 {
		t.lightPod(namespace, fmt.Sprint("spent-", i), func(pod *corev1.Pod) { pod.Labels["app"] = "spent" })
	}
	allows(t, namespace, 3, 0)
	evict := func(name string) error {
		return clients.CoreV1().Pods(namespace).EvictV1(t, &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace}})
	}
	guarded := func(err error) bool { return errors.HasStatusCause(err, policyv1.DisruptionBudgetCause) }
	t.Refused(evict("spent-0"), guarded, "evict the first of three")
	budgets := clients.PolicyV1().PodDisruptionBudgets(namespace)
	_, err := budgets.Patch(t, "b", types.MergePatchType, []byte(`{"spec":{"minAvailable":2}}`), metav1.PatchOptions{})
	t.Must(err, "patch the budget")
	allows(t, namespace, 3, 1)
	t.Must(evict("spent-0"), "evict one when two are enough")
	t.Refused(evict("spent-1"), guarded, "evict another at once")
	allows(t, namespace, 2, 0)
	t.Refused(evict("spent-1"), guarded, "evict one of two")
	t.running(namespace, "spent", 2)
}

// disrupted are pods of which somebody says that they are about to go; as long as they do not, the budget has them down.
func disrupted(t *T) {
	namespace := t.Namespace()
	budgets := t.Clients(t.Config()).PolicyV1().PodDisruptionBudgets(namespace)
	t.lightPod(namespace, "here")
	budget(t, namespace, "here", 0)
	allows(t, namespace, 1, 1)
	t.Must(retry.RetryOnConflict(retry.DefaultRetry, func() error {
		one, err := budgets.Get(t, "b", metav1.GetOptions{})
		t.Must(err, "get the budget")
		one.Status.DisruptedPods = map[string]metav1.Time{"here": metav1.Now(), "nowhere": metav1.Now()}
		_, err = budgets.UpdateStatus(t, one, metav1.UpdateOptions{})
		return err
	}), "say that pods go")
	t.Until("one that is not there is forgotten", func() bool {
		one, err := budgets.Get(t, "b", metav1.GetOptions{})
		t.Must(err, "get the budget")
		_, is := one.Status.DisruptedPods["nowhere"]
		return !is
	})
	// It does not count as there.
	allows(t, namespace, 0, 0)
	one, err := budgets.Patch(t, "b", types.MergePatchType, []byte(`{"status":{"disruptedPods":null}}`), metav1.PatchOptions{}, "status")
	t.Must(err, "say that no pod goes")
	t.Want(len(one.Status.DisruptedPods) == 0, "the status is %v", one.Status)
	allows(t, namespace, 1, 1)
}
