package main

import (
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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
