package main

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// reached follows where services lead, in both generations.
func reached(t *T) {
	t.hollowNodes(2)
	t.Together(leading, mirrored)
}

// service makes one whose first port is called so.
func service(t *T, namespace, name string, selector map[string]string, target intstr.IntOrString) {
	_, err := t.Clients(t.Config()).CoreV1().Services(namespace).Create(t, &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.ServiceSpec{Selector: selector, Ports: []corev1.ServicePort{{Name: "p", Port: 80, TargetPort: target}}}}, metav1.CreateOptions{})
	t.Must(err, "create a service")
}

// leads is where a service leads in the older generation, or an error; addresses that are not ready have a mark.
func leads(t *T, namespace, name string) ([]string, error) {
	one, err := t.Clients(t.Config()).CoreV1().Endpoints(namespace).Get(t, name, metav1.GetOptions{})
	var all []string
	if err != nil {
		return nil, err
	}
	for _, subset := range one.Subsets {
		for _, port := range subset.Ports {
			for _, address := range subset.Addresses {
				all = append(all, fmt.Sprint(address.IP, ":", port.Port))
			}
			for _, address := range subset.NotReadyAddresses {
				all = append(all, fmt.Sprint("?", address.IP, ":", port.Port))
			}
		}
	}
	slices.Sort(all)
	return all, nil
}

// slicesLead is the same in the newer, of the slices that somebody keeps.
func slicesLead(t *T, namespace, name, keeper string) []string {
	list, err := t.Clients(t.Config()).DiscoveryV1().EndpointSlices(namespace).List(t, metav1.ListOptions{
		LabelSelector: discoveryv1.LabelServiceName + "=" + name + "," + discoveryv1.LabelManagedBy + "=" + keeper})
	t.Must(err, "list slices")
	var all []string
	for _, slice := range list.Items {
		for _, port := range slice.Ports {
			for _, one := range slice.Endpoints {
				mark := map[bool]string{true: "", false: "?"}[one.Conditions.Ready == nil || *one.Conditions.Ready]
				all = append(all, fmt.Sprint(mark, one.Addresses[0], ":", *port.Port))
			}
		}
	}
	slices.Sort(all)
	return all
}

// leading services lead nowhere, to a pod that waits for its image, to pods that run, and to those that are left.
func leading(t *T) {
	namespace := t.Namespace()
	clients := t.Clients(t.Config())
	pods := clients.CoreV1().Pods(namespace)
	service(t, namespace, "led", map[string]string{"led": "yes"}, intstr.FromString("web"))
	comes := func(want ...string) {
		slices.Sort(want)
		t.Until(fmt.Sprint("the service leads to ", want), func() bool {
			older, err := leads(t, namespace, "led")
			return err == nil && slices.Equal(older, want) && slices.Equal(slicesLead(t, namespace, "led", "endpointslice-controller.k8s.io"), want)
		})
	}
	comes()
	at := func(name string, port int32, image string) string {
		t.lightPod(namespace, name, func(pod *corev1.Pod) {
			pod.Labels["led"], pod.Spec.Containers[0].Image = "yes", image
			pod.Spec.Containers[0].Ports = []corev1.ContainerPort{{Name: "web", ContainerPort: port}}
		})
		var address string
		t.Until(name+" has an address", func() bool {
			pod, err := pods.Get(t, name, metav1.GetOptions{})
			t.Must(err, "get "+name)
			address = pod.Status.PodIP
			return address != ""
		})
		return fmt.Sprint(address, ":", port)
	}
	one := at("one", 8080, "example.org/c:1")
	comes(one)
	other := at("other", 8081, absentImage)
	comes(one, "?"+other)
	t.changePod(namespace, "other", func(pod *corev1.Pod) { pod.Spec.Containers[0].Image = "example.org/c:1" })
	comes(one, other)
	t.Must(pods.Delete(t, "one", metav1.DeleteOptions{}), "delete a pod")
	comes(other)
	t.Must(clients.CoreV1().Services(namespace).Delete(t, "led", metav1.DeleteOptions{}), "delete the service")
	t.Until("its endpoints are gone", func() bool {
		_, err := leads(t, namespace, "led")
		return errors.IsNotFound(err)
	})
}

// mirrored are endpoints that somebody writes, for a service that selects nothing.
func mirrored(t *T) {
	namespace := t.Namespace()
	endpoints := t.Clients(t.Config()).CoreV1().Endpoints(namespace)
	service(t, namespace, "written", nil, intstr.FromInt32(80))
	one := &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Name: "written"}, Subsets: []corev1.EndpointSubset{{
		Addresses: []corev1.EndpointAddress{{IP: "10.9.0.1"}}, NotReadyAddresses: []corev1.EndpointAddress{{IP: "10.9.0.2"}}, Ports: []corev1.EndpointPort{{Name: "p", Port: 8080}}}}}
	comes := func(want ...string) {
		t.Until(fmt.Sprint("the mirror leads to ", want), func() bool {
			return slices.Equal(slicesLead(t, namespace, "written", "endpointslicemirroring-controller.k8s.io"), want)
		})
	}
	one, err := endpoints.Create(t, one, metav1.CreateOptions{})
	t.Must(err, "write endpoints")
	comes("10.9.0.1:8080", "?10.9.0.2:8080")
	one.Subsets[0].Addresses[0].IP, one.Subsets[0].NotReadyAddresses = "10.9.0.3", nil
	_, err = endpoints.Update(t, one, metav1.UpdateOptions{})
	t.Must(err, "write other endpoints")
	comes("10.9.0.3:8080")
	t.Must(endpoints.Delete(t, "written", metav1.DeleteOptions{}), "delete the endpoints")
	comes()
}
