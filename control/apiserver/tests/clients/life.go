package main

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/util/retry"
)

// object is what a kind's Go type can do.
type object interface {
	metav1.Object
	runtime.Object
}

// client is the typed client of a kind.
type client[O object, L runtime.Object] interface {
	Create(context.Context, O, metav1.CreateOptions) (O, error)
	Update(context.Context, O, metav1.UpdateOptions) (O, error)
	Delete(context.Context, string, metav1.DeleteOptions) error
	Get(context.Context, string, metav1.GetOptions) (O, error)
	List(context.Context, metav1.ListOptions) (L, error)
	Watch(context.Context, metav1.ListOptions) (watch.Interface, error)
	Patch(context.Context, string, types.PatchType, []byte, metav1.PatchOptions, ...string) (O, error)
}

// collection is what most of them can do besides.
type collection interface {
	DeleteCollection(context.Context, metav1.DeleteOptions, metav1.ListOptions) error
}

// A life is a kind with an object that can be created, and what its client is asked.
type life struct {
	kind   string
	sample object
	live   func(*T)
}

// lives takes the typed client in protobuf and in JSON.
func lives[O object, L runtime.Object](
	kind string, protobuf, inJSON client[O, L], sample O,
) life {
	sample.SetName("life-of-" + kind)
	sample.SetLabels(map[string]string{"life": kind})
	return life{kind, sample, func(t *T) {
		walk := &walk[O, L]{t, kind, protobuf, sample}
		made := walk.settled(walk.create())
		walk.read(made, inJSON)
		watcher := walk.watch(made)
		last := walk.settled(walk.patch(walk.settled(walk.update(made))))
		walk.delete(last)
		walk.seen(watcher, last)
		walk.deleteMany(inJSON)
	}}
}

type walk[O object, L runtime.Object] struct {
	t      *T
	kind   string
	client client[O, L]
	sample O
}

func (w *walk[O, L]) must(err error, what string) { w.t.Must(err, w.kind+": "+what) }

func (w *walk[O, L]) create() O {
	t := w.t
	dry, err := w.client.Create(t, w.copy(), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	w.must(err, "dry run")
	t.Want(dry.GetUID() != "", "%s: a dry run answers without uid", w.kind)
	_, err = w.client.Get(t, w.sample.GetName(), metav1.GetOptions{})
	t.Refused(err, errors.IsNotFound, w.kind+": get what was created dry")
	made, err := w.client.Create(t, w.copy(), metav1.CreateOptions{FieldValidation: "Strict", FieldManager: "life"})
	w.must(err, "create")
	born := made.GetCreationTimestamp()
	t.Want(made.GetUID() != "" && made.GetResourceVersion() != "" && !born.IsZero(),
		"%s: metadata is missing: %v", w.kind, made)
	managed := made.GetManagedFields()
	t.Want(len(managed) > 0 && managed[0].Manager == "life" && managed[0].Operation == metav1.ManagedFieldsOperationUpdate,
		"%s: managed by %v", w.kind, managed)
	_, err = w.client.Create(t, w.copy(), metav1.CreateOptions{})
	t.Refused(err, errors.IsAlreadyExists, w.kind+": create again")
	generated := w.copy()
	generated.SetName("")
	generated.SetGenerateName("generated-")
	if dry, err := w.client.Create(t, generated, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}); err == nil {
		t.Want(len(dry.GetName()) > len("generated-"), "%s: generated %q", w.kind, dry.GetName())
	} else {
		t.Errorf("%s: generate a name: %v", w.kind, err)
	}
	return made
}

// acted are the kinds that controllers write to.
var acted = map[string]bool{"deployments": true, "replicasets": true, "pods": true, "nodes": true, "namespaces": true, "services": true,
	"poddisruptionbudgets": true, "servicecidrs": true, "flowschemas": true, "replicationcontrollers": true, "cronjobs": true,
	"resourcequotas": true, "endpoints": true}

// settled waits until nobody writes to an object any more.
func (w *walk[O, L]) settled(one O) O {
	if !acted[w.kind] {
		return one
	}
	last := ""
	w.t.Until(w.kind+" is left alone", func() bool {
		last = one.GetResourceVersion()
		time.Sleep(300 * time.Millisecond)
		var err error
		one, err = w.client.Get(w.t, one.GetName(), metav1.GetOptions{})
		w.must(err, "get")
		return last == one.GetResourceVersion()
	})
	return one
}

func (w *walk[O, L]) read(made O, inJSON client[O, L]) {
	t, name := w.t, made.GetName()
	got, err := w.client.Get(t, name, metav1.GetOptions{ResourceVersion: "0"})
	w.must(err, "get")
	w.same(got, made, "got and created")
	read, err := inJSON.Get(t, name, metav1.GetOptions{})
	w.must(err, "get in JSON")
	w.same(read, made, "JSON and protobuf")
	for _, options := range []metav1.ListOptions{
		{LabelSelector: "life=" + w.kind},
		{LabelSelector: "life in (" + w.kind + ",other),!death"},
		{FieldSelector: "metadata.name=" + name},
		{LabelSelector: "life=" + w.kind, ResourceVersion: "0"},
		{LabelSelector: "life=" + w.kind, ResourceVersion: made.GetResourceVersion(), ResourceVersionMatch: "NotOlderThan"},
		{LabelSelector: "life=" + w.kind, ResourceVersion: made.GetResourceVersion(), ResourceVersionMatch: "Exact"},
	} {
		listed, err := w.client.List(t, options)
		w.must(err, "list")
		items := w.items(listed)
		if len(items) != 1 {
			t.Errorf("%s: %d of 1 listed by %v", w.kind, len(items), options)
			continue
		}
		w.same(items[0], made, "listed and created")
	}
	none, err := w.client.List(t, metav1.ListOptions{LabelSelector: "life=other"})
	w.must(err, "list")
	t.Want(len(w.items(none)) == 0, "%s: listed by a selector that selects nothing", w.kind)
}

func (w *walk[O, L]) watch(made O) watch.Interface {
	watcher, err := w.client.Watch(w.t, metav1.ListOptions{
		LabelSelector: "life=" + w.kind, ResourceVersion: made.GetResourceVersion()})
	w.must(err, "watch")
	return watcher
}

// update writes against an old version and again against the new one.
func (w *walk[O, L]) update(made O) O {
	t := w.t
	first := made.DeepCopyObject().(O)
	annotate(first, "by", "update")
	updated, err := w.client.Update(t, first, metav1.UpdateOptions{})
	w.must(err, "update")
	t.Want(updated.GetAnnotations()["by"] == "update", "%s: updated to %v", w.kind, updated.GetAnnotations())
	t.Want(updated.GetResourceVersion() != made.GetResourceVersion(), "%s: an update has no version", w.kind)
	updated = w.settled(updated)
	again, err := w.client.Update(t, updated.DeepCopyObject().(O), metav1.UpdateOptions{})
	w.must(err, "update to the same")
	t.Want(again.GetResourceVersion() == updated.GetResourceVersion(), "%s: an update to the same was written", w.kind)
	stale := made.DeepCopyObject().(O)
	annotate(stale, "by", "nobody")
	_, err = w.client.Update(t, stale, metav1.UpdateOptions{})
	t.Refused(err, errors.IsConflict, w.kind+": update of an old version")
	tries, last := 0, updated
	err = retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		tries++
		if tries > 1 {
			if stale, err = w.client.Get(t, made.GetName(), metav1.GetOptions{}); err != nil {
				return err
			}
		}
		annotate(stale, "by", "retry")
		last, err = w.client.Update(t, stale, metav1.UpdateOptions{})
		return err
	})
	w.must(err, "update with retries")
	t.Want(tries >= 2, "%s: %d tries", w.kind, tries)
	return last
}

// patch sends all four kinds of patches.
func (w *walk[O, L]) patch(last O) O {
	t, name := w.t, last.GetName()
	apply, err := json.Marshal(map[string]any{
		"apiVersion": w.gvk().GroupVersion().String(), "kind": w.gvk().Kind,
		"metadata": map[string]any{"name": name, "annotations": map[string]string{"apply": "yes"}},
	})
	w.must(err, "write JSON")
	force := true
	for _, one := range []struct {
		kind    types.PatchType
		body    string
		options metav1.PatchOptions
		key     string
	}{
		{types.JSONPatchType, `[{"op":"add","path":"/metadata/annotations/json","value":"yes"}]`, metav1.PatchOptions{}, "json"},
		{types.MergePatchType, `{"metadata":{"annotations":{"merge":"yes"}}}`, metav1.PatchOptions{}, "merge"},
		{types.StrategicMergePatchType, `{"metadata":{"annotations":{"strategic":"yes"}}}`, metav1.PatchOptions{}, "strategic"},
		{types.ApplyYAMLPatchType, string(apply), metav1.PatchOptions{FieldManager: "applier", Force: &force}, "apply"},
	} {
		patched, err := w.client.Patch(t, name, one.kind, []byte(one.body), one.options)
		w.must(err, string(one.kind))
		t.Want(patched.GetAnnotations()[one.key] == "yes", "%s: %s: %v", w.kind, one.kind, patched.GetAnnotations())
		t.Want(patched.GetUID() == last.GetUID(), "%s: %s has another uid", w.kind, one.kind)
		last = patched
	}
	return last
}

func (w *walk[O, L]) delete(last O) {
	t, name := w.t, last.GetName()
	other, background := types.UID("other"), metav1.DeletePropagationBackground
	err := w.client.Delete(t, name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &other}})
	t.Refused(err, errors.IsConflict, w.kind+": delete with another uid")
	err = w.client.Delete(t, name, metav1.DeleteOptions{DryRun: []string{metav1.DryRunAll}})
	w.must(err, "delete dry")
	now, uid, version := int64(0), last.GetUID(), last.GetResourceVersion()
	err = w.client.Delete(t, name, metav1.DeleteOptions{
		GracePeriodSeconds: &now, PropagationPolicy: &background,
		Preconditions: &metav1.Preconditions{UID: &uid, ResourceVersion: &version}})
	w.must(err, "delete")
	t.Until(w.kind+" is gone", func() bool {
		_, err := w.client.Get(t, name, metav1.GetOptions{})
		return errors.IsNotFound(err)
	})
	t.Refused(w.client.Delete(t, name, metav1.DeleteOptions{}), errors.IsNotFound, w.kind+": delete again")
}

// seen holds the watch against what was done.
func (w *walk[O, L]) seen(watcher watch.Interface, last O) {
	defer watcher.Stop()
	version := ""
	for {
		select {
		case event, open := <-watcher.ResultChan():
			if !open {
				w.t.Errorf("%s: the watch ended", w.kind)
				return
			}
			one, is := event.Object.(O)
			if !is {
				w.t.Errorf("%s: the watch holds %v", w.kind, event.Object)
				return
			}
			if event.Type == watch.Deleted {
				w.t.Want(version >= last.GetResourceVersion(), "%s: deleted after %s, last was %s", w.kind, version, last.GetResourceVersion())
				w.t.Want(one.GetUID() == last.GetUID(), "%s: another was deleted", w.kind)
				return
			}
			w.t.Want(event.Type == watch.Modified, "%s: an event of type %s", w.kind, event.Type)
			version = one.GetResourceVersion()
		case <-time.After(20 * time.Second):
			w.t.Errorf("%s: no event that it was deleted", w.kind)
			return
		}
	}
}

func (w *walk[O, L]) deleteMany(inJSON client[O, L]) {
	t := w.t
	many, can := any(w.client).(collection)
	if !can {
		return
	}
	if w.kind == "namespaces" {
		// Clients have the method all the same.
		err := many.DeleteCollection(t, metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "life=" + w.kind})
		if !errors.IsMethodNotSupported(err) {
			w.must(fmt.Errorf("all namespaces can be deleted at once: %v", err), "delete a collection")
		}
		return
	}
	for i := range 3 {
		one := w.copy()
		one.SetName(fmt.Sprintf("%s-%d", w.sample.GetName(), i))
		_, err := inJSON.Create(t, one, metav1.CreateOptions{})
		w.must(err, "create in JSON")
	}
	now := int64(0)
	err := many.DeleteCollection(t, metav1.DeleteOptions{GracePeriodSeconds: &now}, metav1.ListOptions{LabelSelector: "life=" + w.kind})
	w.must(err, "delete a collection")
	t.Until(w.kind+" are gone", func() bool {
		listed, err := w.client.List(t, metav1.ListOptions{LabelSelector: "life=" + w.kind})
		return err == nil && len(w.items(listed)) == 0
	})
}

func (w *walk[O, L]) copy() O { return w.sample.DeepCopyObject().(O) }

func (w *walk[O, L]) gvk() schema.GroupVersionKind {
	return kindOf(w.sample)
}

func (w *walk[O, L]) items(list L) []O {
	var items []O
	err := meta.EachListItem(list, func(item runtime.Object) error {
		items = append(items, item.(O))
		return nil
	})
	w.must(err, "the items of a list")
	return items
}

// same compares objects, which need not say what kind they are.
func (w *walk[O, L]) same(got, want O, what string) {
	if difference := differs(got, want); difference != "" {
		w.t.Errorf("%s: %s differ: %s", w.kind, what, difference)
	}
}

func annotate(one metav1.Object, key, value string) {
	annotations := map[string]string{key: value}
	for key, value := range one.GetAnnotations() {
		if _, is := annotations[key]; !is {
			annotations[key] = value
		}
	}
	one.SetAnnotations(annotations)
}

// differs says in what two objects of one type differ, or nothing.
func differs(got, want runtime.Object) string {
	got, want = got.DeepCopyObject(), want.DeepCopyObject()
	for _, one := range []runtime.Object{got, want} {
		one.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
	}
	if equality.Semantic.DeepEqual(got, want) {
		return ""
	}
	left, right := tree(got), tree(want)
	if differences := treeDifferences("", left, right); len(differences) > 0 {
		return strings.Join(differences, ", ")
	}
	return fmt.Sprintf("%#v and %#v", reflect.Indirect(reflect.ValueOf(got)), reflect.Indirect(reflect.ValueOf(want)))
}

func tree(one runtime.Object) any {
	text, err := json.Marshal(one)
	if err != nil {
		panic(err) // Objects can be written as JSON.
	}
	var out any
	if err := json.Unmarshal(text, &out); err != nil {
		panic(err)
	}
	return out
}

// wholeLife sends every kind through its life.
func wholeLife(t *T) {
	namespace := t.Namespace()
	protobuf, inJSON := t.Clients(t.Config()), t.Clients(t.JSON())
	for _, one := range append(namespacedLives(protobuf, inJSON, namespace), clusterLives(protobuf, inJSON)...) {
		t.Alone(one.live)
	}
}
