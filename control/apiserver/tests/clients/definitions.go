package main

import (
	"fmt"
	"slices"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/client/clientset/clientset"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/util/retry"
)

// definitions are the clients of definitions.
func (t *T) definitions() *apiextensions.Clientset {
	clients, err := apiextensions.NewForConfig(t.Config())
	t.Must(err, "clients of definitions")
	return clients
}

// defined makes a definition that goes with the case, and returns it when its kind is served.
func (t *T) defined(definition *apiextensionsv1.CustomResourceDefinition) *apiextensionsv1.CustomResourceDefinition {
	definitions := t.definitions().ApiextensionsV1().CustomResourceDefinitions()
	made, err := definitions.Create(t, definition, metav1.CreateOptions{})
	t.Must(err, "define "+definition.Name)
	t.After(func() { t.undefine(made.Name) })
	t.Until(made.Name+" is served", func() bool {
		made, err = definitions.Get(t, made.Name, metav1.GetOptions{})
		t.Must(err, "get the definition")
		return slices.ContainsFunc(made.Status.Conditions, func(one apiextensionsv1.CustomResourceDefinitionCondition) bool {
			return one.Type == apiextensionsv1.Established && one.Status == apiextensionsv1.ConditionTrue
		})
	})
	return made
}

func (t *T) undefine(name string) {
	definitions := t.definitions().ApiextensionsV1().CustomResourceDefinitions()
	if err := definitions.Delete(background, name, metav1.DeleteOptions{}); err != nil && !errors.IsNotFound(err) {
		t.Errorf("delete the definition: %v", err)
	}
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if _, err := definitions.Get(background, name, metav1.GetOptions{}); errors.IsNotFound(err) {
			return
		}
	}
	t.Errorf("the definition of %s does not go", name)
}

// anyDefinition is of a kind whose objects may say anything.
func anyDefinition(plural string, versions ...string) *apiextensionsv1.CustomResourceDefinition {
	definition := &apiextensionsv1.CustomResourceDefinition{
		ObjectMeta: metav1.ObjectMeta{Name: plural + ".defined.example.org", Labels: map[string]string{"defined": plural}},
		Spec: apiextensionsv1.CustomResourceDefinitionSpec{
			Group: "defined.example.org", Scope: apiextensionsv1.ClusterScoped,
			Names: apiextensionsv1.CustomResourceDefinitionNames{Plural: plural, Singular: plural + "one", Kind: kindName(plural), ListKind: kindName(plural) + "List"},
		},
	}
	for i, version := range versions {
		definition.Spec.Versions = append(definition.Spec.Versions, apiextensionsv1.CustomResourceDefinitionVersion{
			Name: version, Served: true, Storage: i == 0,
			Schema: &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: &apiextensionsv1.JSONSchemaProps{
				Type: "object", XPreserveUnknownFields: ptr(true), Properties: map[string]apiextensionsv1.JSONSchemaProps{"a": {Type: "string"}, "b": {Type: "string"}}}},
		})
	}
	return definition
}

// definitionOperations asks of definitions what Kubernetes' own tests ask of them.
func definitionOperations(t *T) {
	for _, part := range []func(*T){definitionStatus, definitionLists, defaultsFromStorage, watchedObjects, foundFirst} {
		t.Alone(part)
	}
}

// definitionStatus writes conditions that say nothing but a message.
func definitionStatus(t *T) {
	made := t.defined(anyDefinition("statuses", "v1"))
	definitions := t.definitions().ApiextensionsV1().CustomResourceDefinitions()
	clients, err := dynamic.NewForConfig(t.Config())
	t.Must(err, "dynamic client")
	has := func(one *apiextensionsv1.CustomResourceDefinition, message string) bool {
		return slices.ContainsFunc(one.Status.Conditions, func(one apiextensionsv1.CustomResourceDefinitionCondition) bool { return one.Message == message })
	}
	t.Must(retry.RetryOnConflict(retry.DefaultRetry, func() error {
		read, err := clients.Resource(apiextensionsv1.SchemeGroupVersion.WithResource("customresourcedefinitions")).
			Get(t, made.Name, metav1.GetOptions{}, "status")
		t.Must(err, "get the status")
		var one apiextensionsv1.CustomResourceDefinition
		t.Must(runtime.DefaultUnstructuredConverter.FromUnstructured(read.Object, &one), "read the status")
		t.Want(equality.Semantic.DeepEqual(one.Spec, made.Spec), "its spec is %v", one.Spec)
		one.Status.Conditions = append(one.Status.Conditions, apiextensionsv1.CustomResourceDefinitionCondition{Message: "updated"})
		updated, err := definitions.UpdateStatus(t, &one, metav1.UpdateOptions{})
		if err == nil {
			t.Want(has(updated, "updated"), "an updated status is %v", updated.Status)
		}
		return err
	}), "update the status")
	patched, err := definitions.Patch(t, made.Name, types.JSONPatchType,
		[]byte(`[{"op": "add", "path": "/status/conditions", "value": [{"message": "patched"}]}]`), metav1.PatchOptions{}, "status")
	t.Must(err, "patch the status")
	t.Want(has(patched, "patched"), "a patched status is %v", patched.Status)
}

// definitionLists deletes those of many that a selector selects.
func definitionLists(t *T) {
	definitions := t.definitions().ApiextensionsV1().CustomResourceDefinitions()
	made := map[string]apiextensionsv1.CustomResourceDefinitionSpec{}
	for i := range 10 {
		one := anyDefinition(fmt.Sprintf("many%d", i), "v1")
		one.Labels = map[string]string{"many": "yes"}
		made[one.Name] = t.defined(one).Spec
	}
	other := t.defined(anyDefinition("others", "v1"))
	selected := metav1.ListOptions{LabelSelector: "many=yes"}
	list, err := definitions.List(t, selected)
	t.Must(err, "list definitions")
	t.Want(len(list.Items) == 10, "%d definitions of 10", len(list.Items))
	for _, one := range list.Items {
		t.Want(equality.Semantic.DeepEqual(one.Spec, made[one.Name]), "%s is listed as %v", one.Name, one.Spec)
	}
	t.Must(definitions.DeleteCollection(t, metav1.DeleteOptions{}, selected), "delete all that are selected")
	t.Until("the selected ones are gone", func() bool {
		list, err := definitions.List(t, selected)
		return err == nil && len(list.Items) == 0
	})
	_, err = definitions.Get(t, other.Name, metav1.GetOptions{})
	t.Must(err, "get one that was not selected")
}

// defaultsFromStorage changes what is the default of objects that are there.
func defaultsFromStorage(t *T) {
	made := t.defined(anyDefinition("defaults", "v1"))
	definitions := t.definitions().ApiextensionsV1().CustomResourceDefinitions()
	clients, err := dynamic.NewForConfig(t.Config())
	t.Must(err, "dynamic client")
	objects := clients.Resource(schema.GroupVersionResource{Group: made.Spec.Group, Version: "v1", Resource: "defaults"})
	create := func(name string) *unstructured.Unstructured {
		one, err := objects.Create(t, &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "defined.example.org/v1", "kind": "Defaults", "metadata": map[string]any{"name": name}}}, metav1.CreateOptions{})
		t.Must(err, "create "+name)
		return one
	}
	patch := func(body string) {
		_, err := definitions.Patch(t, made.Name, types.JSONPatchType, []byte(body), metav1.PatchOptions{})
		t.Must(err, "patch the schema")
	}
	comes := func(name, field, value string) {
		t.Until(name+" has "+field, func() bool {
			one, err := objects.Get(t, name, metav1.GetOptions{})
			t.Must(err, "get "+name)
			got, found, _ := unstructured.NestedString(one.Object, field)
			t.Want(!found || got == value, "%s of %s is %q", field, name, got)
			return found
		})
	}
	const properties = "/spec/versions/0/schema/openAPIV3Schema/properties/"
	create("one")
	patch(`[{"op":"add","path":"` + properties + `a/default","value":"A"}]`)
	comes("one", "a", "A")
	two := create("two")
	t.Want(two.Object["a"] == "A", "two was made with %v", two.Object)
	patch(`[{"op":"remove","path":"` + properties + `a/default"},{"op":"add","path":"` + properties + `b/default","value":"B"}]`)
	comes("one", "b", "B")
	comes("two", "b", "B")
	one, err := objects.Get(t, "one", metav1.GetOptions{})
	t.Must(err, "get one")
	_, found := one.Object["a"]
	t.Want(!found, "a default that was never written is still there: %v", one.Object)
	again, err := objects.Get(t, "two", metav1.GetOptions{})
	t.Must(err, "get two")
	t.Want(again.Object["a"] == "A", "a default that was written is gone: %v", again.Object)
}

// watchedObjects watches objects of a kind that was just made, by their names.
func watchedObjects(t *T) {
	t.defined(anyDefinition("watches", "v1"))
	clients, err := dynamic.NewForConfig(t.Config())
	t.Must(err, "dynamic client")
	objects := clients.Resource(schema.GroupVersionResource{Group: "defined.example.org", Version: "v1", Resource: "watches"})
	watchers := map[string]watch.Interface{}
	for _, name := range []string{"one", "two"} {
		watchers[name], err = objects.Watch(t, metav1.ListOptions{FieldSelector: "metadata.name=" + name})
		t.Must(err, "watch "+name)
		defer watchers[name].Stop()
	}
	tells := func(name string, kind watch.EventType) {
		select {
		case event := <-watchers[name].ResultChan():
			one, is := event.Object.(*unstructured.Unstructured)
			t.Want(is && event.Type == kind && one.GetName() == name, "the watch of %s tells %v", name, event)
		case <-time.After(10 * time.Second):
			t.Fatalf("the watch of %s does not tell %s", name, kind)
		}
	}
	for _, name := range []string{"one", "two"} {
		_, err := objects.Create(t, &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "defined.example.org/v1", "kind": "Watches", "metadata": map[string]any{"name": name}}}, metav1.CreateOptions{})
		t.Must(err, "create "+name)
		tells(name, watch.Added)
		_, err = objects.Patch(t, name, types.JSONPatchType, []byte(`[{"op":"add","path":"/dummy","value":"test"}]`), metav1.PatchOptions{})
		t.Must(err, "patch "+name)
		tells(name, watch.Modified)
	}
	for _, name := range []string{"one", "two"} {
		t.Must(objects.Delete(t, name, metav1.DeleteOptions{}), "delete "+name)
		tells(name, watch.Deleted)
	}
}

// foundFirst uses a kind as soon as discovery tells of it, in both of its versions; then it is told of no more.
func foundFirst(t *T) {
	definition := anyDefinition("founds", "v1beta1", "v1")
	definitions := t.definitions()
	_, err := definitions.ApiextensionsV1().CustomResourceDefinitions().Create(t, definition, metav1.CreateOptions{})
	t.Must(err, "define")
	t.After(func() { t.undefine(definition.Name) })
	clients, err := dynamic.NewForConfig(t.Config())
	t.Must(err, "dynamic client")
	objects := func(version string) dynamic.ResourceInterface {
		return clients.Resource(schema.GroupVersionResource{Group: "defined.example.org", Version: version, Resource: "founds"})
	}
	found := func(version string) bool {
		list, err := definitions.Discovery().ServerResourcesForGroupVersion("defined.example.org/" + version)
		t.Want(err == nil || errors.IsNotFound(err), "discover %s: %v", version, err)
		return err == nil && slices.ContainsFunc(list.APIResources, func(one metav1.APIResource) bool { return one.Name == "founds" })
	}
	t.Until("both versions are found", func() bool { return found("v1beta1") && found("v1") })
	made, err := objects("v1beta1").Create(t, &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "defined.example.org/v1beta1", "kind": "Founds", "metadata": map[string]any{"name": "one"}, "a": "b"}}, metav1.CreateOptions{})
	t.Must(err, "create one at once")
	t.Must(objects("v1").Delete(t, "one", metav1.DeleteOptions{}), "delete it in the other version")
	for _, version := range []string{"v1beta1", "v1"} {
		watcher, err := objects(version).Watch(t, metav1.ListOptions{ResourceVersion: made.GetResourceVersion(), TimeoutSeconds: ptr(int64(5))})
		t.Must(err, "watch "+version)
		event := <-watcher.ResultChan()
		watcher.Stop()
		last, is := event.Object.(*unstructured.Unstructured)
		t.Want(event.Type == watch.Deleted && is && last.GetAPIVersion() == "defined.example.org/"+version && last.Object["a"] == "b", "in %s comes %v", version, event)
	}
	t.undefine(definition.Name)
	t.Until("no version is found", func() bool { return !found("v1beta1") && !found("v1") })
}
