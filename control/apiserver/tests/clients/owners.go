package main

import (
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// owned looks at what becomes of objects whose owner is deleted.
func owned(t *T) {
	namespace := t.Namespace()
	for _, part := range []func(*T, string){setsOfDeployments, slicesOfServices} {
		t.Alone(func(t *T) { part(t, namespace) })
	}
}

// setsOfDeployments go with their deployment, or stay without it.
func setsOfDeployments(t *T, namespace string) {
	apps := t.Clients(t.Config()).AppsV1()
	for policy, stays := range map[metav1.DeletionPropagation]bool{
		metav1.DeletePropagationOrphan: true, metav1.DeletePropagationBackground: false, metav1.DeletePropagationForeground: false,
	} {
		name := map[bool]string{true: "stays", false: "goes"}[stays]
		_, err := apps.Deployments(namespace).Create(t, &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: appsv1.DeploymentSpec{
			Replicas: ptr(int32(0)), Selector: selecting(name), Template: template(name)}}, metav1.CreateOptions{})
		t.Must(err, "create a deployment")
		sets := func() []appsv1.ReplicaSet {
			list, err := apps.ReplicaSets(namespace).List(t, metav1.ListOptions{LabelSelector: "app=" + name})
			t.Must(err, "list sets")
			return list.Items
		}
		t.Until("the deployment has a set", func() bool { return len(sets()) == 1 })
		t.Must(apps.Deployments(namespace).Delete(t, name, metav1.DeleteOptions{PropagationPolicy: &policy}), "delete with "+string(policy))
		t.Until("the deployment is gone with "+string(policy), func() bool {
			_, err := apps.Deployments(namespace).Get(t, name, metav1.GetOptions{})
			return errors.IsNotFound(err)
		})
		if stays {
			left := sets()
			t.Want(len(left) == 1 && len(left[0].OwnerReferences) == 0, "an orphaned set is %v", left)
		} else {
			t.Until("its set is gone with "+string(policy), func() bool { return len(sets()) == 0 })
		}
	}
}

// slicesOfServices are there without any pod, and go with their service.
func slicesOfServices(t *T, namespace string) {
	clients := t.Clients(t.Config())
	_, err := clients.CoreV1().Services(namespace).Create(t, &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "empty"}, Spec: corev1.ServiceSpec{
		Selector: map[string]string{"nobody": "here"}, Ports: []corev1.ServicePort{{Name: "example", Port: 80}}}}, metav1.CreateOptions{})
	t.Must(err, "create a service")
	slices := func() int {
		list, err := clients.DiscoveryV1().EndpointSlices(namespace).List(t, metav1.ListOptions{LabelSelector: "kubernetes.io/service-name=empty"})
		t.Must(err, "list slices")
		return len(list.Items)
	}
	t.Until("a service without pods has a slice", func() bool { return slices() > 0 })
	t.Must(clients.CoreV1().Services(namespace).Delete(t, "empty", metav1.DeleteOptions{}), "delete the service")
	t.Until("its slices are gone", func() bool { return slices() == 0 })
}

// ownedPods looks at what becomes of pods that run when who made them is deleted.
func ownedPods(t *T) {
	t.hollowNodes(2)
	t.Together(goneLater, goneBefore, gonePartly, goneTogether,
		func(t *T) { orphaned(t, metav1.DeleteOptions{PropagationPolicy: ptr(metav1.DeletePropagationOrphan)}) },
		// The first version orphans where nothing is said.
		func(t *T) { orphaned(t, metav1.DeleteOptions{}) })
}

// maker makes a controller of a name with so many pods that run.
func maker(t *T, namespace, name string, pods int) types.UID {
	made := controllers.create(t, namespace, name, pods)
	controllers.counts(t, namespace, name, int64(pods))
	return made.GetUID()
}

// unmake deletes a controller, if it is the one that is meant, and waits until it is gone.
func unmake(t *T, namespace, name string, of types.UID, options metav1.DeleteOptions) {
	ours := t.Clients(t.Config()).CoreV1().ReplicationControllers(namespace)
	options.Preconditions = metav1.NewUIDPreconditions("another")
	t.Refused(ours.Delete(t, name, options), errors.IsConflict, "delete another "+name)
	options.Preconditions = metav1.NewUIDPreconditions(string(of))
	t.Must(ours.Delete(t, name, options), "delete "+name)
	t.Until(name+" is gone", func() bool {
		_, err := ours.Get(t, name, metav1.GetOptions{})
		return errors.IsNotFound(err)
	})
}

// kept are the pods of a namespace that are not about to go.
func kept(t *T, namespace string) []corev1.Pod {
	list, err := t.Clients(t.Config()).CoreV1().Pods(namespace).List(t, metav1.ListOptions{})
	t.Must(err, "list pods")
	var stay []corev1.Pod
	for _, pod := range list.Items {
		if pod.DeletionTimestamp == nil {
			stay = append(stay, pod)
		}
	}
	return stay
}

func goneLater(t *T) {
	namespace := t.Namespace()
	unmake(t, namespace, "later", maker(t, namespace, "later", 3), metav1.DeleteOptions{PropagationPolicy: ptr(metav1.DeletePropagationBackground)})
	t.Until("its pods are gone", func() bool { return len(kept(t, namespace)) == 0 })
}

// goneBefore are the pods of an owner that waits for them.
func goneBefore(t *T) {
	namespace := t.Namespace()
	unmake(t, namespace, "before", maker(t, namespace, "before", 30), metav1.DeleteOptions{PropagationPolicy: ptr(metav1.DeletePropagationForeground)})
	left := kept(t, namespace)
	t.Want(len(left) == 0, "%d pods stay", len(left))
}

// orphaned pods run on, and are nobody's.
func orphaned(t *T, options metav1.DeleteOptions) {
	namespace := t.Namespace()
	unmake(t, namespace, "orphans", maker(t, namespace, "orphans", 20), options)
	for range 10 {
		left := kept(t, namespace)
		t.Want(len(left) == 20, "%d of 20 orphans stay", len(left))
		for _, pod := range left {
			t.Want(len(pod.OwnerReferences) == 0, "an orphan is owned by %v", pod.OwnerReferences)
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// gonePartly are the pods of an owner that have no other.
func gonePartly(t *T) {
	namespace := t.Namespace()
	pods := t.Clients(t.Config()).CoreV1().Pods(namespace)
	goes := maker(t, namespace, "goes", 10)
	stays := maker(t, namespace, "stays", 0)
	patch := fmt.Sprintf(`{"metadata":{"ownerReferences":[{"apiVersion":"v1","kind":"ReplicationController","name":"stays","uid":%q}]}}`, stays)
	shared := map[string]bool{}
	for _, pod := range t.running(namespace, "goes", 10)[:5] {
		_, err := pods.Patch(t, pod.Name, types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{})
		t.Must(err, "give a pod another owner")
		shared[pod.Name] = true
	}
	unmake(t, namespace, "goes", goes, metav1.DeleteOptions{PropagationPolicy: ptr(metav1.DeletePropagationForeground)})
	left := kept(t, namespace)
	t.Want(len(left) == 5, "%d pods stay of 5 that have another owner", len(left))
	for _, pod := range left {
		t.Want(shared[pod.Name] && len(pod.OwnerReferences) == 1 && pod.OwnerReferences[0].UID == stays, "%s stays with %v", pod.Name, pod.OwnerReferences)
	}
}

// goneTogether are the pods of sets that are deleted by what selects them.
func goneTogether(t *T) {
	namespace := t.Namespace()
	sets := t.Clients(t.Config()).AppsV1().ReplicaSets(namespace)
	for _, name := range []string{"one", "other"} {
		replicaSets.create(t, namespace, name, 2)
		_, err := sets.Patch(t, name, types.MergePatchType, []byte(`{"metadata":{"labels":{"together":"`+name+`"}}}`), metav1.PatchOptions{})
		t.Must(err, "label a set")
		replicaSets.counts(t, namespace, name, 2)
	}
	t.Must(sets.DeleteCollection(t, metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "together=one"}), "delete what is selected")
	t.Until("the pods of one are gone", func() bool { return len(kept(t, namespace)) == 2 })
	for _, pod := range kept(t, namespace) {
		t.Want(pod.Labels["app"] == "other", "%s of %v stays", pod.Name, pod.Labels)
	}
}
