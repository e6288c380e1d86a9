package main

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// placedWell gives each part a node of its own, and looks at who comes there, waits and has to leave.
func placedWell(t *T) {
	parts := []func(*T, string){selectedNode, fullNode, takenPort, badNode, betterNode, classes}
	var all []func(*T)
	for i, node := range t.hollowNodes(len(parts)) {
		all = append(all, func(t *T) { parts[i](t, node) })
	}
	t.Together(all...)
}

// only is a pod's wish for a node.
func only(node string) func(*corev1.Pod) {
	return func(pod *corev1.Pod) { pod.Spec.NodeSelector = map[string]string{corev1.LabelHostname: node} }
}

// waits until a pod is said to fit nowhere, by its condition and by an event.
func waits(t *T, namespace, name string) {
	clients := t.Clients(t.Config())
	t.Until(name+" fits nowhere", func() bool {
		pod, err := clients.CoreV1().Pods(namespace).Get(t, name, metav1.GetOptions{})
		t.Must(err, "get "+name)
		return slices.ContainsFunc(pod.Status.Conditions, func(one corev1.PodCondition) bool {
			return one.Type == corev1.PodScheduled && one.Status == corev1.ConditionFalse && one.Reason == corev1.PodReasonUnschedulable
		})
	})
	t.Until("an event says that "+name+" fits nowhere", func() bool {
		list, err := clients.CoreV1().Events(namespace).List(t, metav1.ListOptions{FieldSelector: "reason=FailedScheduling,involvedObject.name=" + name})
		t.Must(err, "list events")
		return len(list.Items) > 0
	})
}

// selectedNode has a label late.
func selectedNode(t *T, node string) {
	namespace := t.Namespace()
	t.lightPod(namespace, "selecting", func(pod *corev1.Pod) { pod.Spec.NodeSelector = map[string]string{"example.org/late": "42"} })
	waits(t, namespace, "selecting")
	_, err := t.Clients(t.Config()).CoreV1().Nodes().Patch(t, node, types.MergePatchType, []byte(`{"metadata":{"labels":{"example.org/late":"42"}}}`), metav1.PatchOptions{})
	t.Must(err, "label the node")
	pod := t.running(namespace, "selecting", 1)[0]
	t.Want(pod.Spec.NodeName == node, "it runs on %s and not on %s", pod.Spec.NodeName, node)
}

// fullNode has no room for another until one goes.
func fullNode(t *T, node string) {
	namespace := t.Namespace()
	wants := func(amount string) func(*corev1.Pod) {
		return func(pod *corev1.Pod) {
			same := corev1.ResourceList{"cpu": resource.MustParse(amount)}
			pod.Spec.Containers[0].Resources = corev1.ResourceRequirements{Requests: same, Limits: same}
		}
	}
	t.lightPod(namespace, "large", only(node), wants("3500m"))
	t.running(namespace, "large", 1)
	t.lightPod(namespace, "small", only(node), wants("501m"))
	t.lightPod(namespace, "fitting", only(node), wants("500m"))
	t.running(namespace, "fitting", 1)
	waits(t, namespace, "small")
	t.Must(t.Clients(t.Config()).CoreV1().Pods(namespace).Delete(t, "large", metav1.DeleteOptions{}), "delete the large one")
	t.running(namespace, "small", 1)
}

// takenPort is one of the node, on all its addresses.
func takenPort(t *T, node string) {
	namespace := t.Namespace()
	port := func(address string, protocol corev1.Protocol) func(*corev1.Pod) {
		return func(pod *corev1.Pod) {
			pod.Spec.Containers[0].Ports = []corev1.ContainerPort{{HostPort: 50123, ContainerPort: 8080, HostIP: address, Protocol: protocol}}
		}
	}
	t.lightPod(namespace, "everywhere", only(node), port("", corev1.ProtocolTCP))
	t.running(namespace, "everywhere", 1)
	t.lightPod(namespace, "same", only(node), port("127.0.0.1", corev1.ProtocolTCP))
	t.lightPod(namespace, "other", only(node), port("127.0.0.1", corev1.ProtocolUDP))
	t.running(namespace, "other", 1)
	waits(t, namespace, "same")
}

// taint gives a node a taint that pods leave for, or takes all it has.
func taint(t *T, node, taints string) {
	_, err := t.Clients(t.Config()).CoreV1().Nodes().Patch(t, node, types.MergePatchType, []byte(`{"spec":{"taints":`+taints+`}}`), metav1.PatchOptions{})
	t.Must(err, "taint the node")
}

const bad = `[{"key":"example.org/bad","value":"so","effect":"NoExecute"}]`

// bearing tolerates a bad node for so many seconds.
func bearing(seconds int64) func(*corev1.Pod) {
	return func(pod *corev1.Pod) {
		pod.Spec.Tolerations = append(pod.Spec.Tolerations, corev1.Toleration{Key: "example.org/bad", Value: "so", Effect: corev1.TaintEffectNoExecute, TolerationSeconds: &seconds})
	}
}

// badNode is left by each pod when it cannot bear it any longer.
func badNode(t *T, node string) {
	namespace := t.Namespace()
	pods := t.Clients(t.Config()).CoreV1().Pods(namespace)
	for name, edit := range map[string]func(*corev1.Pod){"proud": func(*corev1.Pod) {}, "patient": bearing(1), "humble": bearing(3)} {
		t.lightPod(namespace, name, only(node), edit)
		t.running(namespace, name, 1)
	}
	begin := time.Now()
	taint(t, node, bad)
	for _, one := range []struct {
		name  string
		after time.Duration
	}{{"proud", 0}, {"patient", time.Second}, {"humble", 3 * time.Second}} {
		t.Until(one.name+" has left", func() bool {
			_, err := pods.Get(t, one.name, metav1.GetOptions{})
			return errors.IsNotFound(err)
		})
		took := time.Since(begin)
		t.Want(took >= one.after && took < one.after+10*time.Second, "%s left after %v", one.name, took)
	}
}

// betterNode was bad for a while, which its pod could bear.
func betterNode(t *T, node string) {
	namespace := t.Namespace()
	t.lightPod(namespace, "bearing", only(node), bearing(3))
	uid := t.running(namespace, "bearing", 1)[0].UID
	taint(t, node, bad)
	time.Sleep(time.Second)
	taint(t, node, "null")
	time.Sleep(4 * time.Second)
	pod, err := t.Clients(t.Config()).CoreV1().Pods(namespace).Get(t, "bearing", metav1.GetOptions{})
	t.Must(err, "get the pod")
	t.Want(pod.UID == uid && pod.DeletionTimestamp == nil, "it was evicted: %v", pod.ObjectMeta)
}

// classes of runtimes say what their pods cost more, and where they may be.
func classes(t *T, node string) {
	namespace := t.Namespace()
	kinds := t.Clients(t.Config()).NodeV1().RuntimeClasses()
	dear := corev1.ResourceList{"cpu": resource.MustParse("10m"), "memory": resource.MustParse("1Mi")}
	for name, class := range map[string]*nodev1.RuntimeClass{
		"plain": {Handler: "hollow"},
		"dear": {Handler: "hollow", Overhead: &nodev1.Overhead{PodFixed: dear},
			Scheduling: &nodev1.Scheduling{NodeSelector: map[string]string{corev1.LabelHostname: node}}},
	} {
		class.GenerateName = name + "-"
		class, err := kinds.Create(t, class, metav1.CreateOptions{})
		t.Must(err, "create a class")
		of := func(pod *corev1.Pod) { pod.Spec.RuntimeClassName = &class.Name }
		made := t.lightPod(namespace, name, only(node), of)
		want := corev1.ResourceList(nil)
		if class.Overhead != nil {
			want = dear
		}
		t.Want(equality.Semantic.DeepEqual(made.Spec.Overhead, want), "the overhead is %v", made.Spec.Overhead)
		t.running(namespace, name, 1)
		t.Must(kinds.Delete(t, class.Name, metav1.DeleteOptions{}), "delete the class")
		pod := bare("classless-" + name)
		of(pod)
		_, err = t.Clients(t.Config()).CoreV1().Pods(namespace).Create(t, pod, metav1.CreateOptions{})
		t.Refused(err, errors.IsForbidden, "a pod of a class that is gone")
	}
}
