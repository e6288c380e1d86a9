package main

import (
	"fmt"
	"strconv"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/util/retry"
)

// revision is where deployments and their sets keep which change they are of.
const revision = "deployment.kubernetes.io/revision"

// rolled follows deployments as they go from one template to the next.
func rolled(t *T) {
	t.hollowNodes(2)
	t.Together(changedTwice, takenOver, replacedWhole, cleanedUp, changedMeanwhile)
}

// deployed makes a deployment that goes by its name, after it was edited.
func deployed(t *T, namespace, name, image string, edits ...func(*appsv1.DeploymentSpec)) *appsv1.Deployment {
	one := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": name}},
		Spec: appsv1.DeploymentSpec{Replicas: ptr(int32(1)), Selector: selecting(name), Template: light(name, image)}}
	for _, edit := range edits {
		edit(&one.Spec)
	}
	made, err := t.Clients(t.Config()).AppsV1().Deployments(namespace).Create(t, one, metav1.CreateOptions{})
	t.Must(err, "create "+name)
	return made
}

// setBefore makes a set with a running pod that a deployment of the name is going to find.
func setBefore(t *T, namespace, name, number string) *appsv1.ReplicaSet {
	of := light(name, "example.org/c:1")
	of.Labels["older"] = "yes"
	set := &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Name: "before", Labels: of.Labels}, Spec: appsv1.ReplicaSetSpec{
		Replicas: ptr(int32(1)), Selector: &metav1.LabelSelector{MatchLabels: of.Labels}, Template: of}}
	if number != "" {
		set.Annotations = map[string]string{revision: number}
	}
	made, err := t.Clients(t.Config()).AppsV1().ReplicaSets(namespace).Create(t, set, metav1.CreateOptions{})
	t.Must(err, "create a set")
	t.running(namespace, name, 1)
	return made
}

func finished(one *appsv1.Deployment) bool {
	want, status := *one.Spec.Replicas, one.Status
	return status.Replicas == want && status.UpdatedReplicas == want && status.ReadyReplicas == want && status.AvailableReplicas == want &&
		status.UnavailableReplicas == 0 && status.ObservedGeneration == one.Generation
}

// completes waits until a deployment is where it is to be, and holds it and its set to a revision.
func completes(t *T, namespace, name, number, image string) {
	apps := t.Clients(t.Config()).AppsV1()
	var one *appsv1.Deployment
	t.Until(name+" is complete", func() bool {
		var err error
		one, err = apps.Deployments(namespace).Get(t, name, metav1.GetOptions{})
		t.Must(err, "get "+name)
		return finished(one) && one.Spec.Template.Spec.Containers[0].Image == image
	})
	t.Want(one.Annotations[revision] == number, "%s is of revision %s and not %s", name, one.Annotations[revision], number)
	sets, err := apps.ReplicaSets(namespace).List(t, metav1.ListOptions{})
	t.Must(err, "list sets")
	for _, set := range sets.Items {
		if set.Spec.Template.Spec.Containers[0].Image != image {
			continue
		}
		hash := set.Labels[appsv1.DefaultDeploymentUniqueLabelKey]
		t.Want(hash != "" && set.Spec.Selector.MatchLabels[appsv1.DefaultDeploymentUniqueLabelKey] == hash &&
			set.Spec.Template.Labels[appsv1.DefaultDeploymentUniqueLabelKey] == hash, "the set %s has the hash %q", set.Name, hash)
		t.Want(metav1.IsControlledBy(&set, one) && set.Annotations[revision] == number, "the set is %v", set.ObjectMeta)
		return
	}
	t.Errorf("%s has no set of %s", name, image)
}

// changedTwice is patched and then written whole, and is told of by a watch all the way.
func changedTwice(t *T) {
	namespace := t.Namespace()
	ours := t.Clients(t.Config()).AppsV1().Deployments(namespace)
	list, err := ours.List(t, metav1.ListOptions{})
	t.Must(err, "list deployments")
	told := func(version, what string, so func(watch.EventType, *appsv1.Deployment) bool) {
		tells(t, ours.Watch, version, "app=changed", what, so)
	}
	completely := func(image string, replicas int32) func(watch.EventType, *appsv1.Deployment) bool {
		return func(_ watch.EventType, one *appsv1.Deployment) bool {
			return finished(one) && *one.Spec.Replicas == replicas && one.Spec.Template.Spec.Containers[0].Image == image
		}
	}
	made := deployed(t, namespace, "changed", "example.org/c:1", func(one *appsv1.DeploymentSpec) { one.Replicas = ptr(int32(2)) })
	told(list.ResourceVersion, "it is there", func(kind watch.EventType, _ *appsv1.Deployment) bool { return kind == watch.Added })
	told(list.ResourceVersion, "two run", completely("example.org/c:1", 2))
	// Nobody has a field of the second spelling.
	patched, err := ours.Patch(t, "changed", types.StrategicMergePatchType, []byte(`{"spec":{"replicas":1,"template":{"spec":{
		"terminationGracePeriodSeconds":2,"TerminationGracePeriodSeconds":3,"containers":[{"name":"c","image":"example.org/c:2"}]}}}}`), metav1.PatchOptions{})
	t.Must(err, "patch it")
	t.Want(*patched.Spec.Template.Spec.TerminationGracePeriodSeconds == 2, "patched to %v", patched.Spec.Template.Spec)
	told(made.ResourceVersion, "one runs of the second", completely("example.org/c:2", 1))
	whole := made.DeepCopy()
	whole.ResourceVersion, whole.UID = "", ""
	whole.Labels["written"] = "whole"
	whole.Spec.Template.Spec.Containers[0].Image = "example.org/c:3"
	written, err := ours.Update(t, whole, metav1.UpdateOptions{})
	t.Must(err, "write it whole")
	t.Want(written.Labels["written"] == "whole", "written as %v", written.ObjectMeta)
	told(patched.ResourceVersion, "two run of the third", completely("example.org/c:3", 2))
	completes(t, namespace, "changed", "3", "example.org/c:3")
	t.Must(ours.DeleteCollection(t, metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "app=changed"}), "delete what is selected")
	told(written.ResourceVersion, "it is gone", func(kind watch.EventType, _ *appsv1.Deployment) bool { return kind == watch.Deleted })
}

// takenOver is a set that was there before, whose revision is counted on from, however large it is.
func takenOver(t *T) {
	namespace := t.Namespace()
	const before = 1<<53 + 1
	set := setBefore(t, namespace, "taking", strconv.Itoa(before))
	one := deployed(t, namespace, "taking", "example.org/c:2")
	completes(t, namespace, "taking", strconv.Itoa(before+1), "example.org/c:2")
	left, err := t.Clients(t.Config()).AppsV1().ReplicaSets(namespace).Get(t, set.Name, metav1.GetOptions{})
	t.Must(err, "get the set")
	t.Want(metav1.IsControlledBy(left, one) && *left.Spec.Replicas == 0, "the set that was there is %v", left)
}

// replacedWhole never runs pods of both templates.
func replacedWhole(t *T) {
	namespace := t.Namespace()
	clients := t.Clients(t.Config())
	deployed(t, namespace, "replaced", "example.org/c:1", func(one *appsv1.DeploymentSpec) {
		one.Strategy.Type, one.Replicas = appsv1.RecreateDeploymentStrategyType, ptr(int32(3))
	})
	completes(t, namespace, "replaced", "1", "example.org/c:1")
	list, err := clients.CoreV1().Pods(namespace).List(t, metav1.ListOptions{LabelSelector: "app=replaced"})
	t.Must(err, "list pods")
	old := map[string]bool{}
	for _, pod := range list.Items {
		old[pod.Name] = true
	}
	patch := []byte(`{"spec":{"template":{"spec":{"containers":[{"name":"c","image":"example.org/c:2"}]}}}}`)
	_, err = clients.AppsV1().Deployments(namespace).Patch(t, "replaced", types.StrategicMergePatchType, patch, metav1.PatchOptions{})
	t.Must(err, "patch it")
	running := 0
	tells(t, clients.CoreV1().Pods(namespace).Watch, list.ResourceVersion, "app=replaced", "three pods of the second run", func(kind watch.EventType, pod *corev1.Pod) bool {
		if old[pod.Name] && (kind == watch.Deleted || pod.Status.Phase == corev1.PodSucceeded) {
			delete(old, pod.Name)
		}
		if kind == watch.Added && pod.Spec.Containers[0].Image == "example.org/c:2" {
			running++
			t.Want(len(old) == 0, "%s comes while %v are there", pod.Name, old)
		}
		return running == 3
	})
	completes(t, namespace, "replaced", "2", "example.org/c:2")
}

// cleanedUp is a set that was there before, by a deployment that keeps no history; it makes one pod and no more.
func cleanedUp(t *T) {
	namespace := t.Namespace()
	clients := t.Clients(t.Config())
	set := setBefore(t, namespace, "cleaning", "")
	list, err := clients.CoreV1().Pods(namespace).List(t, metav1.ListOptions{})
	t.Must(err, "list pods")
	deployed(t, namespace, "cleaning", "example.org/c:2", func(one *appsv1.DeploymentSpec) { one.RevisionHistoryLimit = ptr(int32(0)) })
	tells(t, clients.AppsV1().ReplicaSets(namespace).Watch, set.ResourceVersion, "", "the set that was there is gone", func(kind watch.EventType, one *appsv1.ReplicaSet) bool {
		return kind == watch.Deleted && one.Name == set.Name
	})
	made := podsMade(t, namespace, list.ResourceVersion)
	t.Want(len(made) == 1 && made[0] == "example.org/c:2", "pods were made of %q", made)
}

// changedMeanwhile has another template before the pods of the last have come, and before they count as there.
func changedMeanwhile(t *T) {
	namespace := t.Namespace()
	apps := t.Clients(t.Config()).AppsV1()
	setBefore(t, namespace, "hasty", "")
	deployed(t, namespace, "hasty", absentImage, func(one *appsv1.DeploymentSpec) {
		one.MinReadySeconds = 2
		one.Strategy.RollingUpdate = &appsv1.RollingUpdateDeployment{MaxUnavailable: ptr(intstr.FromInt32(0)), MaxSurge: ptr(intstr.FromInt32(1))}
	})
	sets := func() map[string]string {
		list, err := apps.ReplicaSets(namespace).List(t, metav1.ListOptions{})
		t.Must(err, "list sets")
		sizes := map[string]string{}
		for _, set := range list.Items {
			sizes[set.Spec.Template.Spec.Containers[0].Image] = fmt.Sprint(*set.Spec.Replicas, set.Status.Replicas)
		}
		return sizes
	}
	t.Until("there is a pod of each set", func() bool {
		sizes := sets()
		return sizes["example.org/c:1"] == "1 1" && sizes[absentImage] == "1 1"
	})
	begin := time.Now()
	t.Must(retry.RetryOnConflict(retry.DefaultRetry, func() error {
		one, err := apps.Deployments(namespace).Get(t, "hasty", metav1.GetOptions{})
		t.Must(err, "get the deployment")
		one.Spec.Template.Spec.Containers[0].Image = "example.org/c:2"
		_, err = apps.Deployments(namespace).Update(t, one, metav1.UpdateOptions{})
		return err
	}), "change it again")
	completes(t, namespace, "hasty", "2", "example.org/c:2")
	// That a pod is ready is said in whole seconds.
	t.Want(time.Since(begin) > time.Second, "it was complete after %v", time.Since(begin))
	t.Until("the other sets are empty", func() bool {
		sizes := sets()
		return len(sizes) == 3 && sizes["example.org/c:1"] == "0 0" && sizes[absentImage] == "0 0"
	})
}
