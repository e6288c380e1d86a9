package main

import (
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/pager"
)

// paged reads pages with client-go's pager while others write, and holds them to one revision.
func paged(t *T) {
	namespace := t.Namespace()
	clients := t.Clients(t.Config())
	maps := clients.CoreV1().ConfigMaps(namespace)
	for i := range 120 {
		one := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("p-%03d", i), Labels: map[string]string{"paged": "yes"}}}
		_, err := maps.Create(t, one, metav1.CreateOptions{})
		t.Must(err, "create")
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		churn(t, clients, namespace, 2, time.Second)
	}()
	versions := map[string]bool{}
	reader := pager.New(func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
		list, err := maps.List(ctx, options)
		if err == nil {
			versions[list.ResourceVersion] = true
		}
		return list, err
	})
	reader.PageSize = 7
	seen := map[string]bool{}
	err := reader.EachListItem(t, metav1.ListOptions{LabelSelector: "paged=yes"}, func(one runtime.Object) error {
		access, err := meta.Accessor(one)
		seen[access.GetName()] = true
		return err
	})
	t.Must(err, "pages")
	t.Want(len(seen) == 120, "%d of 120 came in pages", len(seen))
	t.Want(len(versions) == 1, "pages of %d versions", len(versions))
	<-done
	first, err := maps.List(t, metav1.ListOptions{Limit: 100})
	t.Must(err, "list a page")
	t.Want(len(first.Items) == 100 && first.Continue != "" && first.RemainingItemCount != nil && *first.RemainingItemCount > 0, "a page has %v", first.ListMeta)
	exact, err := maps.List(t, metav1.ListOptions{ResourceVersion: first.ResourceVersion, ResourceVersionMatch: "Exact", LabelSelector: "paged=yes"})
	t.Must(err, "list exactly")
	t.Want(exact.ResourceVersion == first.ResourceVersion && len(exact.Items) == 120, "exactly %s has %d", exact.ResourceVersion, len(exact.Items))
}

// selectedPods lists and watches by the fields kubelets and controllers use.
func selectedPods(t *T) {
	namespace := t.Namespace()
	pods := t.Clients(t.Config()).CoreV1().Pods(namespace)
	for _, node := range []string{"n1", "n2"} {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "on-" + node}, Spec: podSpec()}
		pod.Spec.NodeName = node
		_, err := pods.Create(t, pod, metav1.CreateOptions{})
		t.Must(err, "create a pod")
	}
	for selector, count := range map[string]int{
		"spec.nodeName=n1": 1, "spec.nodeName!=n1": 1, "metadata.name=on-n2": 1, "status.phase=Pending": 2,
		"spec.nodeName=n1,status.phase!=Running": 1, "metadata.namespace=" + namespace: 2, "spec.restartPolicy=Always": 2,
	} {
		list, err := pods.List(t, metav1.ListOptions{FieldSelector: selector})
		t.Must(err, selector)
		t.Want(len(list.Items) == count, "%s selects %d pods", selector, len(list.Items))
	}
	_, err := pods.List(t, metav1.ListOptions{FieldSelector: "spec.image=x"})
	t.Refused(err, errors.IsBadRequest, "a field nobody selects by")
	now := int64(0)
	for _, name := range []string{"on-n1", "on-n2"} {
		t.Must(pods.Delete(t, name, metav1.DeleteOptions{GracePeriodSeconds: &now}), "delete a pod")
	}
}

// warned counts the warnings a client is given, and reads a large list compressed.
func warned(t *T) {
	namespace := t.Namespace()
	config := t.Config()
	var warnings []string
	config.WarningHandler = warningsTo(func(text string) { warnings = append(warnings, text) })
	clients := t.Clients(config)
	body := []byte(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"w"},"unknown":1,"data":{"k":"` + strings.Repeat("x", 200<<10) + `"}}`)
	err := clients.CoreV1().RESTClient().Post().Namespace(namespace).Resource("configmaps").SetHeader("Content-Type", mediaJSON).Body(body).Do(t).Error()
	t.Must(err, "create with an unknown field")
	t.Want(len(warnings) == 1 && warnings[0] == `unknown field "unknown"`, "the warnings are %q", warnings)
	err = clients.CoreV1().RESTClient().Post().Namespace(namespace).Resource("configmaps").SetHeader("Content-Type", mediaJSON).
		Param("fieldValidation", "Strict").Body(body).Do(t).Error()
	t.Refused(err, func(err error) bool {
		return errors.IsBadRequest(err) && strings.Contains(err.Error(), `strict decoding error: unknown field "unknown"`)
	}, "create strictly")

	plain, err := rest.HTTPClientFor(config)
	t.Must(err, "a client of HTTP")
	request, err := http.NewRequestWithContext(t, http.MethodGet, config.Host+"/api/v1/namespaces/"+namespace+"/configmaps", nil)
	t.Must(err, "a request")
	request.Header.Set("Accept-Encoding", "gzip")
	answer, err := plain.Do(request)
	t.Must(err, "ask for gzip")
	defer answer.Body.Close()
	t.Want(answer.Header.Get("Content-Encoding") == "gzip", "the answer is not compressed: %v", answer.Header)
	unpacked, err := gzip.NewReader(answer.Body)
	t.Must(err, "unpack")
	text, err := io.ReadAll(unpacked)
	t.Must(err, "unpack")
	t.Want(len(text) > 200<<10, "unpacked %d bytes", len(text))
}

type warningsTo func(string)

func (w warningsTo) HandleWarningHeader(code int, _ string, text string) {
	if code == 299 {
		w(text)
	}
}

// fetch reads without any credentials.
func fetch(ctx context.Context, address string) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return "", err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	return string(text), err
}
