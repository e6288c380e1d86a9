package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
	utilexec "k8s.io/client-go/util/exec"
	"k8s.io/streaming/pkg/httpstream"
)

// placed makes a node that is played here, and a pod that is said to run on it.
func placed(t *T, clients *kubernetes.Clientset, namespace, name string, old bool) *corev1.Pod {
	kubelet := playNode(t, old)
	node, err := clients.CoreV1().Nodes().Create(t, &corev1.Node{ObjectMeta: metav1.ObjectMeta{GenerateName: "player-"}}, metav1.CreateOptions{})
	t.Must(err, "create a node")
	t.After(func() {
		if err := clients.CoreV1().Nodes().Delete(background, node.Name, metav1.DeleteOptions{}); err != nil {
			t.Errorf("delete the node: %v", err)
		}
	})
	where := fmt.Sprintf(`{"status":{"addresses":[{"type":"InternalIP","address":"127.0.0.1"}],"daemonEndpoints":{"kubeletEndpoint":{"Port":%d}}}}`, kubelet.port)
	_, err = clients.CoreV1().Nodes().Patch(t, node.Name, "application/merge-patch+json", []byte(where), metav1.PatchOptions{}, "status")
	t.Must(err, "say where the node is")
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": name}},
		Spec: corev1.PodSpec{NodeName: node.Name, Containers: []corev1.Container{{Name: "c", Image: "example.org/c:1"}},
			TerminationGracePeriodSeconds: ptr(int64(0))}}
	pods := clients.CoreV1().Pods(namespace)
	_, err = pods.Create(t, pod, metav1.CreateOptions{})
	t.Must(err, "create a pod")
	runs := `{"status":{"phase":"Running","conditions":[{"type":"Ready","status":"True"}],"containerStatuses":[{"name":"c","ready":true,"image":"i","imageID":"i","restartCount":0,"state":{"running":{}}}]}}`
	pod, err = pods.Patch(t, name, "application/merge-patch+json", []byte(runs), metav1.PatchOptions{}, "status")
	t.Must(err, "say that the pod runs")
	return pod
}

// handedThrough runs processes and reads logs on nodes of both kinds, by client-go as kubectl uses it.
func handedThrough(t *T) {
	namespace, clients := t.Namespace(), t.Clients(t.Config())
	for name, old := range map[string]bool{"new": false, "old": true} {
		placed(t, clients, namespace, name, old)
		pods := clients.CoreV1().Pods(namespace)
		told, err := pods.GetLogs(name, &corev1.PodLogOptions{TailLines: ptr(int64(5)), Follow: true}).DoRaw(t)
		t.Must(err, "logs")
		want := fmt.Sprintf("/containerLogs/%s/%s/c tail=5 since=\nline 0\nline 1\nline 2\n", namespace, name)
		t.Want(string(told) == want, "logs are %q", told)
		_, err = pods.GetLogs(name, &corev1.PodLogOptions{Container: "none"}).DoRaw(t)
		t.Refused(err, apierrors.IsBadRequest, "logs of no container")

		var out, wrong bytes.Buffer
		err = t.execute(clients, namespace, name, []string{"tell", "me"}, remotecommand.StreamOptions{Stdout: &out, Stderr: &wrong})
		t.Must(err, "execute")
		t.Want(out.String() == fmt.Sprintf("/exec/%s/%s/c tell me\n", namespace, name), "it said %q", out.String())
		out.Reset()
		err = t.execute(clients, namespace, name, []string{"cat"}, remotecommand.StreamOptions{Stdin: strings.NewReader("hear me"), Stdout: &out, Stderr: &wrong})
		t.Must(err, "execute with input")
		t.Want(out.String() == "HEAR ME", "it heard %q", out.String())
		err = t.execute(clients, namespace, name, []string{"fail"}, remotecommand.StreamOptions{Stdout: &out, Stderr: &wrong})
		var code utilexec.CodeExitError
		t.Want(errors.As(err, &code) && code.Code == 7 && wrong.String() == "it failed\n", "it failed with %v and %q", err, wrong.String())
		t.forwarded(clients, namespace, name)
	}
}

// execute tries WebSocket and then SPDY, as kubectl does.
func (t *T) execute(clients *kubernetes.Clientset, namespace, name string, command []string, streams remotecommand.StreamOptions) error {
	options := &corev1.PodExecOptions{Command: command, Stdin: streams.Stdin != nil, Stdout: true, Stderr: true}
	at := clients.CoreV1().RESTClient().Post().Resource("pods").Namespace(namespace).Name(name).SubResource("exec").
		VersionedParams(options, scheme.ParameterCodec).URL()
	socket, err := remotecommand.NewWebSocketExecutor(t.Config(), "GET", at.String())
	t.Must(err, "a WebSocket")
	older, err := remotecommand.NewSPDYExecutor(t.Config(), "POST", at)
	t.Must(err, "SPDY")
	either, err := remotecommand.NewFallbackExecutor(socket, older, httpstream.IsUpgradeFailure)
	t.Must(err, "either")
	return either.StreamWithContext(t, streams)
}

// forwarded reaches a port of the pod through a tunnel and without one.
func (t *T) forwarded(clients *kubernetes.Clientset, namespace, name string) {
	at := clients.CoreV1().RESTClient().Post().Resource("pods").Namespace(namespace).Name(name).SubResource("portforward").URL()
	transport, upgrader, err := spdy.RoundTripperFor(t.Config())
	t.Must(err, "SPDY")
	plain := spdy.NewDialerForStreaming(upgrader, &http.Client{Transport: transport}, "POST", at)
	tunnel, err := portforward.NewSPDYOverWebsocketDialerForStreaming(at, t.Config())
	t.Must(err, "a tunnel")
	for what, dialer := range map[string]httpstream.Dialer{"plain": plain, "tunnelled": tunnel} {
		stop, ready := make(chan struct{}), make(chan struct{})
		forwarder, err := portforward.NewOnAddressesForStreaming(dialer, []string{"127.0.0.1"}, []string{"0:8080"}, stop, ready, io.Discard, os.Stderr)
		t.Must(err, what)
		ended := make(chan error, 1)
		go func() { ended <- forwarder.ForwardPorts() }()
		select {
		case <-ready:
		case err := <-ended:
			t.Fatalf("%s: %v", what, err)
		}
		ports, err := forwarder.GetPorts()
		t.Must(err, what)
		t.echoed(int(ports[0].Local), what)
		close(stop)
		t.Must(<-ended, what)
	}
}

// echoed talks to a forwarded port over several connections at once.
func (t *T) echoed(port int, what string) {
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			connection, err := net.Dial("tcp", fmt.Sprint("127.0.0.1:", port))
			if err != nil {
				t.Errorf("%s: %v", what, err)
				return
			}
			defer connection.Close()
			sent := strings.Repeat(fmt.Sprint("ping ", i), 1000)
			_, err = io.WriteString(connection, sent)
			if err == nil {
				err = connection.(*net.TCPConn).CloseWrite()
			}
			heard, readErr := io.ReadAll(connection)
			t.Want(err == nil && readErr == nil && string(heard) == "8080 "+sent, "%s: %v, %v, heard %d bytes", what, err, readErr, len(heard))
		})
	}
	all.Wait()
}

// kubectlOnPods is what kubectl says of pods on nodes of both kinds.
func kubectlOnPods(t *T) {
	namespace, clients := t.Namespace(), t.Clients(t.Config())
	for name, old := range map[string]bool{"new": false, "old": true} {
		placed(t, clients, namespace, name, old)
		for _, one := range []command{
			{line: "logs " + name + " --tail=3", want: `/c tail=3 since=\n$`},
			{line: "logs -f " + name + " -c c", want: `line 2\n$`},
			{line: "logs -l app=" + name + " --prefix", want: `\[pod/` + name + `/c\] /containerLogs`},
			{line: "exec " + name + " -- tell me", want: `/exec/.*/c tell me`},
			{line: "exec -i " + name + " -- cat", input: "hear me", want: `HEAR ME`},
			{line: "exec " + name + " -- fail", want: `(?s)it failed.*exit code 7`, fails: true},
			{line: "attach " + name, want: `/attach/`},
		} {
			printed, err := t.kubectl(namespace, one.input, strings.Fields(one.line)...)
			t.Want((err != nil) == one.fails && regexp.MustCompile(one.want).MatchString(printed), "kubectl %s: %v: %q", one.line, err, printed)
		}
		t.kubectlForwards(namespace, name)
	}
}

func (t *T) kubectlForwards(namespace, name string) {
	ctx, cancel := context.WithCancel(t)
	process := exec.CommandContext(ctx, t.Server.Kubectl, "--namespace", namespace, "port-forward", "pod/"+name, ":8080", "--address=127.0.0.1")
	process.Env = append(os.Environ(), "KUBECONFIG="+t.Server.Kubeconfig())
	said, err := process.StdoutPipe()
	t.Must(err, "a pipe")
	t.Must(process.Start(), "start kubectl")
	defer func() {
		cancel()
		_ = process.Wait()
	}()
	line := make([]byte, 200)
	count, err := said.Read(line)
	t.Must(err, "kubectl port-forward")
	found := regexp.MustCompile(`127\.0\.0\.1:(\d+) -> 8080`).FindSubmatch(line[:count])
	if found == nil {
		t.Fatalf("kubectl port-forward said %q", line[:count])
	}
	local, err := url.Parse("tcp://127.0.0.1:" + string(found[1]))
	t.Must(err, "the port")
	var port int
	_, err = fmt.Sscan(local.Port(), &port)
	t.Must(err, "the port")
	t.echoed(port, "kubectl port-forward")
}

// evicted asks a budget whether a pod may go.
func evicted(t *T) {
	namespace, clients := t.Namespace(), t.Clients(t.Config())
	pod := placed(t, clients, namespace, "kept", false)
	budgets := clients.PolicyV1().PodDisruptionBudgets(namespace)
	_, err := budgets.Create(t, &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Name: "b"},
		Spec: policyv1.PodDisruptionBudgetSpec{MinAvailable: ptr(intstr.FromInt32(1)), Selector: &metav1.LabelSelector{MatchLabels: pod.Labels}}}, metav1.CreateOptions{})
	t.Must(err, "create a budget")
	t.Until("the budget is counted", func() bool {
		budget, err := budgets.Get(t, "b", metav1.GetOptions{})
		return err == nil && budget.Status.ObservedGeneration == budget.Generation && budget.Status.CurrentHealthy == 1
	})
	evict := func() error {
		return clients.PolicyV1().Evictions(namespace).Evict(t, &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: pod.Name, Namespace: namespace}})
	}
	err = evict()
	t.Refused(err, apierrors.IsTooManyRequests, "evict under a budget")
	t.Want(apierrors.HasStatusCause(err, policyv1.DisruptionBudgetCause), "the cause is not the budget: %v", err)
	_, delayed := apierrors.SuggestsClientDelay(err)
	t.Want(!delayed, "a client would try again by itself: %v", err)
	printed, err := t.kubectl(namespace, "", "drain", pod.Spec.NodeName, "--force", "--timeout=3s")
	t.Want(err != nil && strings.Contains(printed, "Cannot evict pod as it would violate the pod's disruption budget"), "drain: %v: %s", err, printed)
	t.Must(budgets.Delete(t, "b", metav1.DeleteOptions{}), "delete the budget")
	t.Until("the pod may go", func() bool { return evict() == nil })
	_, err = clients.CoreV1().Pods(namespace).Get(t, pod.Name, metav1.GetOptions{})
	t.Want(apierrors.IsNotFound(err) || err == nil, "the evicted pod: %v", err)
}
