package main

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/retry"
)

// statuses is what is written to the status of every kind that has one.
var statuses = map[string]string{
	"certificatesigningrequests":  `{"conditions":[{"type":"Told","status":"True","reason":"Said"}]}`,
	"cronjobs":                    `{"lastScheduleTime":"2026-01-02T03:04:05Z"}`,
	"daemonsets":                  `{"conditions":[{"type":"Told","status":"True"}]}`,
	"deployments":                 `{"conditions":[{"type":"Told","status":"True"}]}`,
	"flowschemas":                 `{"conditions":[{"type":"Told","status":"False","reason":"Said"}]}`,
	"horizontalpodautoscalers":    `{"currentReplicas":1,"desiredReplicas":2}`,
	"ingresses":                   `{"loadBalancer":{"ingress":[{"ip":"169.1.1.1"}]}}`,
	"jobs":                        `{"startTime":"2026-01-02T03:04:05Z"}`,
	"namespaces":                  `{"conditions":[{"type":"Told","status":"True","reason":"Said"}]}`,
	"nodes":                       `{"conditions":[{"type":"Told","status":"True"}]}`,
	"persistentvolumeclaims":      `{"conditions":[{"type":"Told","status":"True"}]}`,
	"persistentvolumes":           `{"message":"told","reason":"Said"}`,
	"poddisruptionbudgets":        `{"disruptedPods":{"p":"2026-01-02T03:04:05Z"}}`,
	"pods":                        `{"conditions":[{"type":"Told","status":"True"}]}`,
	"prioritylevelconfigurations": `{"conditions":[{"type":"Told","status":"False","reason":"Said"}]}`,
	"replicasets":                 `{"conditions":[{"type":"Told","status":"True"}]}`,
	"replicationcontrollers":      `{"conditions":[{"type":"Told","status":"True"}]}`,
	"resourceclaims":              `{"allocation":{}}`,
	"resourcequotas":              `{"hard":{"cpu":"1"},"used":{"cpu":"500m"}}`,
	"servicecidrs":                `{"conditions":[{"type":"Told","status":"True","reason":"Said","message":"","lastTransitionTime":"2026-01-02T03:04:05Z"}]}`,
	"services":                    `{"conditions":[{"type":"Told","status":"True","reason":"Said","message":"","lastTransitionTime":"2026-01-02T03:04:05Z"}]}`,
	"statefulsets":                `{"conditions":[{"type":"Told","status":"True"}]}`,
	"volumeattachments":           `{"attached":true}`,
}

// single are the kinds of which nothing but the status is written with the status.
var single = []string{"flowschemas", "prioritylevelconfigurations", "resourceclaims", "volumeattachments"}

// operations asks of every kind what Kubernetes' tests ask of an API, with the dynamic client, and holds informers against it.
func operations(t *T) {
	namespace := t.Namespace()
	typed := t.Clients(t.Config())
	clients, err := dynamic.NewForConfig(t.Config())
	t.Must(err, "dynamic client")
	var all sync.WaitGroup
	places := make(chan struct{}, 8)
	for _, one := range append(namespacedLives(typed, typed, namespace), clusterLives(typed, typed)...) {
		places <- struct{}{}
		all.Go(func() {
			defer func() { <-places }()
			t.Alone(func(t *T) {
				kind := kindOf(one.sample)
				resource := resourceOf(t, typed, kind)
				object := unstructured.Unstructured{Object: tree(one.sample).(map[string]any)}
				object.SetGroupVersionKind(kind)
				object.SetName("operated-" + one.kind)
				object.SetLabels(map[string]string{"operated": one.kind})
				o := &operated{T: t, name: one.kind, resource: resource, sample: &object, everywhere: clients.Resource(resource)}
				o.client = o.everywhere
				if one.sample.GetNamespace() != "" || o.isNamespaced() {
					o.client = clients.Resource(resource).Namespace(namespace)
				}
				o.run(clients)
			})
		})
	}
	all.Wait()
}

// An operated kind is one that goes through its operations.
type operated struct {
	*T
	name       string
	resource   schema.GroupVersionResource
	sample     *unstructured.Unstructured
	client     dynamic.ResourceInterface
	everywhere dynamic.ResourceInterface
	seen       *seenEvents
}

func (o *operated) must(err error, what string) { o.Must(err, o.name+": "+what) }

func (o *operated) selected() metav1.ListOptions {
	return metav1.ListOptions{LabelSelector: "operated=" + o.name}
}

// entries are what discovery says of the kind and what is below it, in its old form.
func (o *operated) entries() []metav1.APIResource {
	found := discovery.NewDiscoveryClientForConfigOrDie(o.Config())
	raw, err := found.RESTClient().Get().AbsPath(groupPath(o.resource.GroupVersion())).
		SetHeader("Accept", "application/json").DoRaw(o)
	o.must(err, "read its group's document")
	var list metav1.APIResourceList
	o.must(json.Unmarshal(raw, &list), "read its group's document")
	return slices.DeleteFunc(list.APIResources, func(one metav1.APIResource) bool {
		return one.Name != o.resource.Resource && !strings.HasPrefix(one.Name, o.resource.Resource+"/")
	})
}

func (o *operated) isNamespaced() bool {
	entries := o.entries()
	return len(entries) > 0 && entries[0].Namespaced
}

func (o *operated) hasStatus() bool {
	return slices.ContainsFunc(o.entries(), func(one metav1.APIResource) bool { return one.Name == o.resource.Resource+"/status" })
}

func (o *operated) run(clients dynamic.Interface) {
	o.Want(len(o.entries()) > 0, "%s: its group's document does not have it", o.name)
	o.seen = &seenEvents{}
	informer := dynamicinformer.NewFilteredDynamicInformer(clients, o.resource, "", 0, nil, func(options *metav1.ListOptions) {
		options.LabelSelector = o.selected().LabelSelector
	}).Informer()
	_, err := informer.AddEventHandler(o.seen)
	o.must(err, "listen to an informer")
	go informer.Run(o.Done())
	cache.WaitForCacheSync(o.Done(), informer.HasSynced)

	made, err := o.client.Create(o, o.sample, metav1.CreateOptions{FieldValidation: "Strict"})
	o.must(err, "create strictly")
	o.sees("^(add|update)(,update)*$")
	o.holds(made, map[string]any{"metadata": o.sample.Object["metadata"]}, "what was created")
	o.updated()
	// It takes ten seconds until such an object is gone, which is once enough.
	lingers := o.name == "servicecidrs"
	if !lingers {
		o.patched()
	}
	if o.hasStatus() {
		o.statusUpdated()
	}
	if o.hasStatus() && !lingers {
		o.statusPatched()
	}
	o.listed()
	if o.name == "namespaces" {
		o.must(o.client.Delete(o, o.sample.GetName(), metav1.DeleteOptions{}), "delete the namespace")
	} else {
		o.must(o.client.DeleteCollection(o, metav1.DeleteOptions{GracePeriodSeconds: ptr(int64(0))}, o.selected()), "delete all that are selected")
	}
	o.gone()
}

// change writes what is read, again where somebody else wrote meanwhile.
func (o *operated) change(edit func(*unstructured.Unstructured), below ...string) *unstructured.Unstructured {
	var written *unstructured.Unstructured
	o.must(retry.RetryOnConflict(retry.DefaultRetry, func() error {
		read, err := o.client.Get(o, o.sample.GetName(), metav1.GetOptions{}, below...)
		if err != nil {
			return err
		}
		edit(read)
		written, err = o.client.Update(o, read, metav1.UpdateOptions{}, below...)
		return err
	}), fmt.Sprint("update ", below))
	return written
}

func (o *operated) updated() {
	written := o.change(func(one *unstructured.Unstructured) { annotate(one, "updated", "yes") })
	o.Want(written.GetAnnotations()["updated"] == "yes", "%s: updated to %v", o.name, written.GetAnnotations())
	o.sees("^update(,update)*$")
}

// again deletes the object and makes it anew.
func (o *operated) again() *unstructured.Unstructured {
	o.must(o.client.Delete(o, o.sample.GetName(), metav1.DeleteOptions{GracePeriodSeconds: ptr(int64(0))}), "delete")
	o.gone()
	made, err := o.client.Create(o, o.sample, metav1.CreateOptions{})
	o.must(err, "create again")
	return made
}

func (o *operated) gone() {
	o.Until(o.name+" is gone", func() bool {
		_, err := o.client.Get(o, o.sample.GetName(), metav1.GetOptions{})
		return errors.IsNotFound(err)
	})
	o.sees("^(update,)*delete$")
}

// A way to patch, and what it needs besides.
type patchWay struct {
	kind    types.PatchType
	body    func(identity, change map[string]any) any
	options metav1.PatchOptions
}

// patchWays are all that there are. Identities with the uid keep a patch off an object of the same name.
func patchWays(field string) []patchWay {
	merged := func(identity, change map[string]any) any {
		all := map[string]any{"apiVersion": identity["apiVersion"], "kind": identity["kind"]}
		head := runtime.DeepCopyJSON(identity["metadata"].(map[string]any))
		for key, value := range change {
			if key == "metadata" {
				for inner, value := range value.(map[string]any) {
					head[inner] = value
				}
			} else {
				all[key] = value
			}
		}
		all["metadata"] = head
		return all
	}
	added := func(_, change map[string]any) any {
		if field == "status" {
			return []any{map[string]any{"op": "add", "path": "/status", "value": change["status"]}}
		}
		return []any{map[string]any{"op": "add", "path": "/metadata/labels/patched", "value": "yes"}}
	}
	strict := metav1.PatchOptions{FieldValidation: "Strict"}
	apply := metav1.PatchOptions{FieldValidation: "Strict", FieldManager: "applier", Force: ptr(true)}
	return []patchWay{
		{types.StrategicMergePatchType, merged, strict}, {types.ApplyYAMLPatchType, merged, apply},
		{types.MergePatchType, merged, strict}, {types.JSONPatchType, added, strict},
	}
}

func (o *operated) patch(way patchWay, on *unstructured.Unstructured, change map[string]any, below ...string) *unstructured.Unstructured {
	identity := map[string]any{"apiVersion": on.GetAPIVersion(), "kind": on.GetKind(), "metadata": map[string]any{
		"name": on.GetName(), "uid": string(on.GetUID())}}
	if on.GetNamespace() != "" {
		identity["metadata"].(map[string]any)["namespace"] = on.GetNamespace()
	}
	body, err := json.Marshal(way.body(identity, change))
	o.must(err, "write JSON")
	written, err := o.client.Patch(o, on.GetName(), way.kind, body, way.options, below...)
	o.must(err, fmt.Sprint(way.kind, " of ", below))
	return written
}

func (o *operated) patched() {
	for _, way := range patchWays("metadata") {
		made := o.again()
		written := o.patch(way, made, map[string]any{"metadata": map[string]any{"labels": map[string]any{"patched": "yes"}}})
		o.Want(written.GetLabels()["patched"] == "yes" && written.GetLabels()["operated"] == o.name,
			"%s: %s made labels %v", o.name, way.kind, written.GetLabels())
		o.sees("^add(,update)+$")
	}
}

func (o *operated) status() map[string]any {
	text, is := statuses[o.resource.Resource]
	if !is {
		o.Fatalf("%s: nothing is known that its status may say", o.name)
	}
	var status map[string]any
	o.must(json.Unmarshal([]byte(text), &status), "read what its status is to say")
	return status
}

func (o *operated) statusUpdated() {
	status := o.status()
	written := o.change(func(one *unstructured.Unstructured) {
		o.must(unstructured.SetNestedField(one.Object, runtime.DeepCopyJSONValue(status), "status"), "set the status")
	}, "status")
	o.holds(written, map[string]any{"status": status}, "an updated status")
	read, err := o.client.Get(o, o.sample.GetName(), metav1.GetOptions{}, "status")
	o.must(err, "read the status")
	o.Want(read.GroupVersionKind() == o.sample.GroupVersionKind() && read.GetUID() == written.GetUID(),
		"%s: its status is of %v %s", o.name, read.GroupVersionKind(), read.GetUID())
	o.sees("^update(,update)*$")
}

func (o *operated) statusPatched() {
	change := map[string]any{"status": o.status()}
	keeps := !slices.Contains(single, o.resource.Resource)
	for _, way := range patchWays("status") {
		made := o.again()
		change := runtime.DeepCopyJSON(change)
		if way.kind != types.JSONPatchType {
			change["metadata"] = map[string]any{"annotations": map[string]any{"patched": "yes"}}
		}
		written := o.patch(way, made, change, "status")
		o.holds(written, map[string]any{"status": change["status"]}, fmt.Sprint("a status after ", way.kind))
		if way.kind != types.JSONPatchType {
			o.Want((written.GetAnnotations()["patched"] == "yes") == keeps,
				"%s: %s of the status made annotations %v", o.name, way.kind, written.GetAnnotations())
		}
		o.sees("^add(,update)+$")
	}
}

// listed finds the object in its namespace and in all.
func (o *operated) listed() {
	for _, where := range []dynamic.ResourceInterface{o.client, o.everywhere} {
		list, err := where.List(o, o.selected())
		o.must(err, "list")
		o.Want(len(list.Items) == 1, "%s: %d of 1 listed", o.name, len(list.Items))
	}
}

// holds complains of what was sent and is not there; what else is there does not matter.
func (o *operated) holds(got *unstructured.Unstructured, want map[string]any, what string) {
	for _, missing := range missing("", got.Object, want) {
		o.Errorf("%s: %s: %s", o.name, what, missing)
	}
}

func missing(at string, got, want any) []string {
	switch want := want.(type) {
	case map[string]any:
		have, _ := got.(map[string]any)
		var out []string
		for key, value := range want {
			// Go writes null where nothing was said.
			if value != nil {
				out = append(out, missing(at+"/"+key, have[key], value)...)
			}
		}
		return out
	case []any:
		have, _ := got.([]any)
		var out []string
		for i, value := range want {
			if !slices.ContainsFunc(have, func(one any) bool { return len(missing("", one, value)) == 0 }) {
				out = append(out, fmt.Sprintf("%s/%d is not in %v", at, i, have))
			}
		}
		return out
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		return []string{fmt.Sprintf("%s is %v and not %v", at, got, want)}
	}
	return nil
}

// seenEvents are what an informer told since they were last looked at.
type seenEvents struct {
	lock    sync.Mutex
	told    []string
	version uint64
	faults  []string
}

func (s *seenEvents) OnAdd(one any, _ bool) { s.add("add", one) }
func (s *seenEvents) OnUpdate(_, after any) { s.add("update", after) }
func (s *seenEvents) OnDelete(one any)      { s.add("delete", one) }

func (s *seenEvents) add(what string, one any) {
	s.lock.Lock()
	defer s.lock.Unlock()
	s.told = append(s.told, what)
	if late, is := one.(cache.DeletedFinalStateUnknown); is {
		one = late.Obj
	}
	head, err := meta.Accessor(one)
	if err != nil {
		s.faults = append(s.faults, err.Error())
		return
	}
	version, err := strconv.ParseUint(head.GetResourceVersion(), 10, 64)
	if err != nil || version < s.version {
		s.faults = append(s.faults, fmt.Sprintf("%s of version %q after %d", what, head.GetResourceVersion(), s.version))
	}
	s.version = version
}

// sees waits until the informer has told what the expression says, and forgets it.
func (o *operated) sees(expression string) {
	wanted, told := regexp.MustCompile(expression), ""
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		o.seen.lock.Lock()
		told = strings.Join(o.seen.told, ",")
		faults, done := o.seen.faults, wanted.MatchString(told)
		if done {
			o.seen.told, o.seen.faults = nil, nil
		}
		o.seen.lock.Unlock()
		if done {
			o.Want(len(faults) == 0, "%s: the informer was told %q", o.name, faults)
			return
		}
		if time.Now().After(end) {
			o.Fatalf("%s: the informer was told %q and not %s", o.name, told, expression)
		}
	}
}
