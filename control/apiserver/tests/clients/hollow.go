package main

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
)

// absentImage is what no hollow node finds, so that containers of it wait.
const absentImage = "example.org/absent:1"

// A hollow node is ready and holds nothing. Its pods are said to run as soon as they are there, to have failed when
// their time is up, and to have ended when they are deleted; then they go.
type hollow struct {
	*T
	name    string
	clients *kubernetes.Clientset
	pods    cache.SharedInformer
	work    workqueue.TypedRateLimitingInterface[string]
}

// addresses counts those that pods of hollow nodes were given.
var addresses atomic.Uint32

// hollowNodes starts nodes that go with the case, and returns their names when pods may come.
func (t *T) hollowNodes(count int) []string {
	clients := t.Clients(t.Config())
	ctx, stop := context.WithCancel(background)
	names := make([]string, count)
	for i := range names {
		names[i] = fmt.Sprint("hollow-", i)
		ofNode := fields.OneTermEqualSelector("spec.nodeName", names[i])
		node := &hollow{T: t, name: names[i], clients: clients,
			pods: cache.NewSharedInformer(cache.NewListWatchFromClient(clients.CoreV1().RESTClient(), "pods", "", ofNode), &corev1.Pod{}, 0),
			work: workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[string](5*time.Millisecond, time.Second))}
		node.register()
		node.run(ctx)
	}
	t.After(func() {
		stop()
		for _, name := range names {
			removeNode(t, clients, name)
		}
	})
	t.Until("the nodes have lost the taints they came with", func() bool {
		list, err := clients.CoreV1().Nodes().List(t, metav1.ListOptions{FieldSelector: "spec.unschedulable=false"})
		t.Must(err, "list nodes")
		free := slices.DeleteFunc(list.Items, func(one corev1.Node) bool {
			return len(one.Spec.Taints) > 0 || !slices.Contains(names, one.Name)
		})
		return len(free) == count
	})
	return names
}

// removeNode takes what is left on a node with it.
func removeNode(t *T, clients *kubernetes.Clientset, name string) {
	left, err := clients.CoreV1().Pods("").List(background, metav1.ListOptions{FieldSelector: "spec.nodeName=" + name})
	if err != nil {
		t.Errorf("list what is left on %s: %v", name, err)
		return
	}
	for _, pod := range left.Items {
		err := clients.CoreV1().Pods(pod.Namespace).Delete(background, pod.Name, *metav1.NewDeleteOptions(0))
		if err != nil && !errors.IsNotFound(err) {
			t.Errorf("delete %s: %v", pod.Name, err)
		}
	}
	if err := clients.CoordinationV1().Leases(corev1.NamespaceNodeLease).Delete(background, name, metav1.DeleteOptions{}); err != nil {
		t.Errorf("delete the lease of %s: %v", name, err)
	}
	if err := clients.CoreV1().Nodes().Delete(background, name, metav1.DeleteOptions{}); err != nil {
		t.Errorf("delete %s: %v", name, err)
	}
}

// register makes the node and its lease.
func (n *hollow) register() {
	now := metav1.Now()
	amount := corev1.ResourceList{"cpu": resource.MustParse("4"), "memory": resource.MustParse("8Gi"), "pods": resource.MustParse("110")}
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: n.name, Labels: map[string]string{corev1.LabelHostname: n.name}},
		Status: corev1.NodeStatus{Capacity: amount, Allocatable: amount,
			Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "127.0.0.1"}},
			NodeInfo:  corev1.NodeSystemInfo{KubeletVersion: "v1.36.0", OperatingSystem: "linux", Architecture: "amd64"}}}
	for _, kind := range []corev1.NodeConditionType{corev1.NodeMemoryPressure, corev1.NodeDiskPressure, corev1.NodePIDPressure, corev1.NodeReady} {
		value := corev1.ConditionFalse
		if kind == corev1.NodeReady {
			value = corev1.ConditionTrue
		}
		node.Status.Conditions = append(node.Status.Conditions, corev1.NodeCondition{
			Type: kind, Status: value, Reason: "Hollow", LastHeartbeatTime: now, LastTransitionTime: now})
	}
	_, err := n.clients.CoreV1().Nodes().Create(n, node, metav1.CreateOptions{})
	n.Must(err, "create "+n.name)
	_, err = n.clients.CoordinationV1().Leases(corev1.NamespaceNodeLease).Create(n, &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: n.name},
		Spec: coordinationv1.LeaseSpec{HolderIdentity: &n.name, LeaseDurationSeconds: ptr(int32(40)), RenewTime: ptr(metav1.NowMicro())}}, metav1.CreateOptions{})
	n.Must(err, "create the lease of "+n.name)
}

// renew says that the node is still there.
func (n *hollow) renew(ctx context.Context) {
	leases := n.clients.CoordinationV1().Leases(corev1.NamespaceNodeLease)
	lease, err := leases.Get(ctx, n.name, metav1.GetOptions{})
	if err == nil {
		lease.Spec.RenewTime = ptr(metav1.NowMicro())
		_, err = leases.Update(ctx, lease, metav1.UpdateOptions{})
	}
	if err != nil && ctx.Err() == nil {
		n.Errorf("renew the lease of %s: %v", n.name, err)
	}
}

// run follows the pods of the node until the context ends.
func (n *hollow) run(ctx context.Context) {
	put := func(one any) {
		key, err := cache.MetaNamespaceKeyFunc(one)
		n.Want(err == nil, "%s is told of something without a name: %v", n.name, err)
		n.work.Add(key)
	}
	_, err := n.pods.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: put, UpdateFunc: func(_, one any) { put(one) }})
	n.Must(err, "follow the pods of "+n.name)
	go n.pods.RunWithContext(ctx)
	go wait.UntilWithContext(ctx, n.renew, 10*time.Second)
	for range 4 {
		go func() {
			for n.next(ctx) {
			}
		}()
	}
	context.AfterFunc(ctx, n.work.ShutDown)
}

// next treats one pod, or says that there is nothing to come.
func (n *hollow) next(ctx context.Context) bool {
	key, done := n.work.Get()
	if done {
		return false
	}
	defer n.work.Done(key)
	found, is, _ := n.pods.GetStore().GetByKey(key)
	if !is {
		return true
	}
	again, err := n.treat(ctx, found.(*corev1.Pod).DeepCopy())
	switch {
	case errors.IsConflict(err):
		n.work.AddRateLimited(key)
		return true
	case err != nil && !errors.IsNotFound(err) && ctx.Err() == nil:
		n.Errorf("%s: %s: %v", n.name, key, err)
	case again > 0:
		n.work.AddAfter(key, again)
	}
	n.work.Forget(key)
	return true
}

// treat does the next thing with a pod, and says when to look again.
func (n *hollow) treat(ctx context.Context, pod *corev1.Pod) (time.Duration, error) {
	pods := n.clients.CoreV1().Pods(pod.Namespace)
	ended := pod.Status.Phase == corev1.PodFailed || pod.Status.Phase == corev1.PodSucceeded
	if ended && pod.DeletionTimestamp == nil {
		return 0, nil
	}
	if ended {
		return 0, pods.Delete(ctx, pod.Name, metav1.DeleteOptions{GracePeriodSeconds: ptr(int64(0)), Preconditions: metav1.NewUIDPreconditions(string(pod.UID))})
	}
	before := pod.Status.DeepCopy()
	if pod.Status.StartTime == nil {
		start(&pod.Status)
	}
	left := timeLeft(pod)
	switch {
	case pod.DeletionTimestamp != nil:
		end(pod, corev1.PodSucceeded)
	case left < 0:
		end(pod, corev1.PodFailed)
		pod.Status.Reason, pod.Status.Message = "DeadlineExceeded", "its time is up"
	default:
		hold(pod)
	}
	if equality.Semantic.DeepEqual(*before, pod.Status) {
		return left, nil
	}
	_, err := pods.UpdateStatus(ctx, pod, metav1.UpdateOptions{})
	return left, err
}

// timeLeft is how long a pod may still run, and 0 where it may for ever.
func timeLeft(pod *corev1.Pod) time.Duration {
	if pod.Spec.ActiveDeadlineSeconds == nil {
		return 0
	}
	return time.Until(pod.Status.StartTime.Add(time.Duration(*pod.Spec.ActiveDeadlineSeconds) * time.Second))
}

func start(status *corev1.PodStatus) {
	count := addresses.Add(1)
	status.StartTime = ptr(metav1.Now())
	status.PodIP, status.HostIP = fmt.Sprintf("10.244.%d.%d", count/250, count%250+1), "127.0.0.1"
	status.PodIPs, status.HostIPs = []corev1.PodIP{{IP: status.PodIP}}, []corev1.HostIP{{IP: status.HostIP}}
}

// hold says that the containers run, or wait for their image.
func hold(pod *corev1.Pod) {
	status := &pod.Status
	status.Phase, status.ObservedGeneration, status.ContainerStatuses = corev1.PodRunning, pod.Generation, nil
	ready := corev1.ConditionTrue
	for _, one := range pod.Spec.Containers {
		says := corev1.ContainerStatus{Name: one.Name, Image: one.Image, ImageID: "hollow", Ready: true, Started: ptr(true)}
		if one.Image == absentImage {
			says.Ready, says.Started = false, ptr(false)
			says.State.Waiting = &corev1.ContainerStateWaiting{Reason: "ErrImagePull"}
			status.Phase, ready = corev1.PodPending, corev1.ConditionFalse
		} else {
			says.ContainerID = "hollow://" + one.Name
			says.State.Running = &corev1.ContainerStateRunning{StartedAt: *status.StartTime}
		}
		status.ContainerStatuses = append(status.ContainerStatuses, says)
	}
	setCondition(status, corev1.PodInitialized, corev1.ConditionTrue)
	setCondition(status, corev1.ContainersReady, ready)
	setCondition(status, corev1.PodReady, ready)
}

// end says that the containers have ended.
func end(pod *corev1.Pod, phase corev1.PodPhase) {
	status := &pod.Status
	status.Phase = phase
	for i := range status.ContainerStatuses {
		one := &status.ContainerStatuses[i]
		one.Ready, one.Started = false, ptr(false)
		one.State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
			Reason: "Completed", StartedAt: *status.StartTime, FinishedAt: metav1.Now(), ContainerID: one.ContainerID}}
	}
	setCondition(status, corev1.ContainersReady, corev1.ConditionFalse)
	setCondition(status, corev1.PodReady, corev1.ConditionFalse)
}

func setCondition(status *corev1.PodStatus, kind corev1.PodConditionType, value corev1.ConditionStatus) {
	at := slices.IndexFunc(status.Conditions, func(one corev1.PodCondition) bool { return one.Type == kind })
	if at < 0 {
		at = len(status.Conditions)
		status.Conditions = append(status.Conditions, corev1.PodCondition{Type: kind})
	}
	if one := &status.Conditions[at]; one.Status != value {
		one.Status, one.LastTransitionTime = value, metav1.Now()
	}
}

// light is a pod that hollow nodes run, by its image.
func light(app, image string) corev1.PodTemplateSpec {
	return corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": app}},
		Spec: corev1.PodSpec{TerminationGracePeriodSeconds: ptr(int64(1)), Containers: []corev1.Container{{Name: "c", Image: image}}}}
}

// lightPod makes a pod that hollow nodes run, labelled with its own name, as the edits have it.
func (t *T) lightPod(namespace, name string, edits ...func(*corev1.Pod)) *corev1.Pod {
	of := light(name, "example.org/c:1")
	pod := &corev1.Pod{ObjectMeta: of.ObjectMeta, Spec: of.Spec}
	pod.Name = name
	for _, edit := range edits {
		edit(pod)
	}
	made, err := t.Clients(t.Config()).CoreV1().Pods(namespace).Create(t, pod, metav1.CreateOptions{})
	t.Must(err, "create "+name)
	return made
}

// running waits until so many of the pods of an app run that are not about to go, and returns them.
func (t *T) running(namespace, app string, count int) []corev1.Pod {
	pods := t.Clients(t.Config()).CoreV1().Pods(namespace)
	var run []corev1.Pod
	t.Until(fmt.Sprint(count, " pods of ", app, " run"), func() bool {
		list, err := pods.List(t, metav1.ListOptions{LabelSelector: "app=" + app})
		t.Must(err, "list pods")
		run = slices.DeleteFunc(list.Items, func(one corev1.Pod) bool {
			return one.DeletionTimestamp != nil || one.Status.Phase != corev1.PodRunning
		})
		return len(run) == count
	})
	return run
}
