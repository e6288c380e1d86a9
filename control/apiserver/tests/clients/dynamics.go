package main

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	openapi "github.com/google/gnostic-models/openapiv2"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/disk"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/openapi3"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/scale"
)

var widgets = schema.GroupVersionResource{Group: "clients.example.org", Version: "v1", Resource: "widgets"}

// defineWidgets makes a kind with status, scale, defaults and columns, and waits until it is served.
func defineWidgets(t *T) {
	text, count := apiextensionsv1.JSONSchemaProps{Type: "string"}, apiextensionsv1.JSONSchemaProps{Type: "integer"}
	size := count
	size.Default = &apiextensionsv1.JSON{Raw: []byte("3")}
	size.Minimum = ptr(0.0)
	object := func(properties map[string]apiextensionsv1.JSONSchemaProps) apiextensionsv1.JSONSchemaProps {
		return apiextensionsv1.JSONSchemaProps{Type: "object", Properties: properties}
	}
	definition := &apiextensionsv1.CustomResourceDefinition{
		ObjectMeta: metav1.ObjectMeta{Name: "widgets.clients.example.org"},
		Spec: apiextensionsv1.CustomResourceDefinitionSpec{
			Group: widgets.Group, Scope: apiextensionsv1.NamespaceScoped,
			Names: apiextensionsv1.CustomResourceDefinitionNames{Plural: "widgets", Kind: "Widget", ShortNames: []string{"wd"}, Categories: []string{"all"}},
			Versions: []apiextensionsv1.CustomResourceDefinitionVersion{{
				Name: "v1", Served: true, Storage: true,
				Subresources: &apiextensionsv1.CustomResourceSubresources{
					Status: &apiextensionsv1.CustomResourceSubresourceStatus{},
					Scale:  &apiextensionsv1.CustomResourceSubresourceScale{SpecReplicasPath: ".spec.size", StatusReplicasPath: ".status.size", LabelSelectorPath: ptr(".status.selector")},
				},
				AdditionalPrinterColumns: []apiextensionsv1.CustomResourceColumnDefinition{{Name: "Size", Type: "integer", JSONPath: ".spec.size"}},
				Schema: &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: ptr(object(map[string]apiextensionsv1.JSONSchemaProps{
					"spec":   object(map[string]apiextensionsv1.JSONSchemaProps{"size": size, "colour": text}),
					"status": object(map[string]apiextensionsv1.JSONSchemaProps{"size": count, "selector": text}),
				}))},
			}},
		},
	}
	t.defined(definition)
}

func widget(name string, spec map[string]any) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "clients.example.org/v1", "kind": "Widget", "metadata": map[string]any{"name": name}, "spec": spec}}
}

// custom takes a kind that is defined through the dynamic and metadata clients and their informers.
func custom(t *T) {
	defineWidgets(t)
	namespace := t.Namespace()
	clients, err := dynamic.NewForConfig(t.Config())
	t.Must(err, "dynamic client")
	ours := clients.Resource(widgets).Namespace(namespace)
	partial, err := metadata.NewForConfig(t.Config())
	t.Must(err, "metadata client")
	whole := dynamicinformer.NewFilteredDynamicSharedInformerFactory(clients, 0, namespace, nil)
	heads := metadatainformer.NewFilteredSharedInformerFactory(partial, 0, namespace, nil)
	wholeInformer, headInformer := whole.ForResource(widgets).Informer(), heads.ForResource(widgets).Informer()
	whole.Start(t.Done())
	heads.Start(t.Done())
	whole.WaitForCacheSync(t.Done())
	heads.WaitForCacheSync(t.Done())

	made, err := ours.Create(t, widget("a", map[string]any{"colour": "red"}), metav1.CreateOptions{})
	t.Must(err, "create")
	size, _, _ := unstructured.NestedInt64(made.Object, "spec", "size")
	t.Want(size == 3, "the default is %d", size)
	_, err = ours.Create(t, widget("b", map[string]any{"size": int64(-1)}), metav1.CreateOptions{})
	t.Refused(err, errors.IsInvalid, "create what the schema forbids")
	_, err = ours.Create(t, widget("b", map[string]any{"shape": "x"}), metav1.CreateOptions{FieldValidation: "Strict"})
	t.Refused(err, errors.IsBadRequest, "create an unknown field strictly")
	applied, err := ours.Apply(t, "b", widget("b", map[string]any{"size": int64(1)}), metav1.ApplyOptions{FieldManager: "one"})
	t.Must(err, "apply")
	_, err = ours.Apply(t, "b", widget("b", map[string]any{"size": int64(2)}), metav1.ApplyOptions{FieldManager: "two"})
	t.Refused(err, errors.IsConflict, "apply over another's field")
	applied.Object["status"] = map[string]any{"size": int64(1), "selector": "a=b"}
	_, err = ours.UpdateStatus(t, applied, metav1.UpdateOptions{})
	t.Must(err, "update the status")
	scales := scaleClient(t)
	got, err := scales.Scales(namespace).Get(t, widgets.GroupResource(), "b", metav1.GetOptions{})
	t.Must(err, "get the scale")
	t.Want(got.Spec.Replicas == 1 && got.Status.Replicas == 1 && got.Status.Selector == "a=b", "the scale is %v", got)
	got.Spec.Replicas = 5
	_, err = scales.Scales(namespace).Update(t, widgets.GroupResource(), got, metav1.UpdateOptions{})
	t.Must(err, "scale")
	head, err := partial.Resource(widgets).Namespace(namespace).Patch(t, "b", types.MergePatchType, []byte(`{"metadata":{"labels":{"x":"y"}}}`), metav1.PatchOptions{})
	t.Must(err, "patch through metadata")
	t.Want(head.Labels["x"] == "y" && head.Name == "b", "the head is %v", head)
	t.Until("both informers hold the last version", func() bool {
		one, is, _ := wholeInformer.GetStore().GetByKey(namespace + "/b")
		other, too, _ := headInformer.GetStore().GetByKey(namespace + "/b")
		return is && too && one.(*unstructured.Unstructured).GetLabels()["x"] == "y" &&
			other.(*metav1.PartialObjectMetadata).ResourceVersion == head.ResourceVersion
	})
	list, err := ours.List(t, metav1.ListOptions{})
	t.Must(err, "list")
	t.Want(len(list.Items) == 2 && list.GetKind() == "WidgetList" && list.Items[0].GetKind() == "Widget", "the list is %v", list)
	t.Must(ours.DeleteCollection(t, metav1.DeleteOptions{}, metav1.ListOptions{}), "delete all")
	t.Until("the informers hold nothing", func() bool {
		return len(wholeInformer.GetStore().ListKeys())+len(headInformer.GetStore().ListKeys()) == 0
	})
}

func scaleClient(t *T) scale.ScalesGetter {
	found := discovery.NewDiscoveryClientForConfigOrDie(t.Config())
	mapper := restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(found))
	scales, err := scale.NewForConfig(t.Config(), mapper, dynamic.LegacyAPIPathResolverFunc, scale.NewDiscoveryScaleKindResolver(found))
	t.Must(err, "scale client")
	return scales
}

// builtIn reads built-in kinds through the dynamic and metadata clients.
func builtIn(t *T) {
	namespace := t.Namespace()
	clients, err := dynamic.NewForConfig(t.Config())
	t.Must(err, "dynamic client")
	partial, err := metadata.NewForConfig(t.Config())
	t.Must(err, "metadata client")
	maps := schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}
	ours := clients.Resource(maps).Namespace(namespace)
	one := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": "a", "labels": map[string]any{"x": "y"}}, "data": map[string]any{"k": "v"}}}
	made, err := ours.Create(t, one, metav1.CreateOptions{})
	t.Must(err, "create")
	list, err := ours.List(t, metav1.ListOptions{LabelSelector: "x=y"})
	t.Must(err, "list")
	t.Want(len(list.Items) == 1 && list.Items[0].GetKind() == "ConfigMap" && list.Items[0].GetAPIVersion() == "v1", "the list is %v", list)
	heads, err := partial.Resource(maps).Namespace(namespace).List(t, metav1.ListOptions{LabelSelector: "x=y"})
	t.Must(err, "list heads")
	t.Want(len(heads.Items) == 1 && heads.Items[0].UID == made.GetUID(), "the heads are %v", heads)
	t.Must(partial.Resource(maps).Namespace(namespace).Delete(t, "a", metav1.DeleteOptions{}), "delete through metadata")
	_, err = ours.Get(t, "a", metav1.GetOptions{})
	t.Refused(err, errors.IsNotFound, "get what is deleted")
}

// discovered goes through discovery in both forms, the mappers and caches made of it, and the descriptions.
func discovered(t *T) {
	defineWidgets(t)
	found := discovery.NewDiscoveryClientForConfigOrDie(t.Config())
	legacy := discovery.NewDiscoveryClientForConfigOrDie(t.Config())
	legacy.UseLegacyDiscovery = true
	var told []string
	for _, one := range []*discovery.DiscoveryClient{found, legacy} {
		groups, lists, err := one.ServerGroupsAndResources()
		t.Must(err, "groups and resources")
		all := ""
		for _, group := range groups {
			all += fmt.Sprintln(group.Name, group.PreferredVersion.GroupVersion, len(group.Versions))
		}
		// They come out of a map.
		slices.SortFunc(lists, func(a, b *metav1.APIResourceList) int { return strings.Compare(a.GroupVersion, b.GroupVersion) })
		for _, list := range lists {
			for _, resource := range list.APIResources {
				if strings.Contains(resource.Name, "/") {
					// The client takes the parent's in the aggregated form.
					resource.SingularName = ""
				}
				verbs := slices.Clone(resource.Verbs)
				slices.Sort(verbs)
				all += fmt.Sprintln(list.GroupVersion, resource.Name, resource.Kind, resource.Namespaced, verbs, resource.ShortNames, resource.Categories, resource.SingularName)
			}
		}
		told = append(told, all)
	}
	if told[0] != told[1] {
		t.Errorf("aggregated and legacy discovery differ: %s", firstLine(told[0], told[1]))
	}
	preferred, err := found.ServerPreferredResources()
	t.Must(err, "preferred resources")
	t.Want(len(preferred) > 10, "%d preferred lists", len(preferred))
	mapper := restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(found))
	mapping, err := mapper.RESTMapping(schema.GroupKind{Group: widgets.Group, Kind: "Widget"})
	t.Must(err, "map a kind")
	t.Want(mapping.Resource == widgets, "widgets map to %v", mapping.Resource)
	expander := restmapper.NewShortcutExpander(mapper, memory.NewMemCacheClient(found), nil)
	short, err := expander.ResourceFor(schema.GroupVersionResource{Resource: "deploy"})
	t.Must(err, "expand a short name")
	t.Want(short.Resource == "deployments", "deploy is %v", short)
	folder := filepath.Join(t.Server.Folder, "cache")
	cached, err := disk.NewCachedDiscoveryClientForConfig(t.Config(), folder, filepath.Join(folder, "http"), time.Minute)
	t.Must(err, "discovery on disk")
	for range 2 {
		_, lists, err := cached.ServerGroupsAndResources()
		t.Must(err, "cached discovery")
		t.Want(len(lists) > 10, "%d lists in the cache", len(lists))
	}
	t.Until("the old description has the new kind", func() bool {
		document, err := found.OpenAPISchema()
		t.Must(err, "OpenAPI v2 in protobuf")
		return slices.ContainsFunc(document.Definitions.AdditionalProperties, func(one *openapi.NamedSchema) bool {
			return one.Name == "org.example.clients.v1.Widget"
		})
	})
	root := openapi3.NewRoot(found.OpenAPIV3())
	versions, err := root.GroupVersions()
	t.Must(err, "OpenAPI v3")
	for _, version := range versions {
		if _, err := root.GVSpec(version); err != nil {
			t.Errorf("OpenAPI v3 of %v: %v", version, err)
		}
	}
	said, err := found.ServerVersion()
	t.Must(err, "version")
	t.Want(said.Major == "1" && said.Minor == "36" && strings.HasPrefix(said.GitVersion, "v1.36."), "the version is %v", said)
}

// firstLine is where two texts begin to differ.
func firstLine(left, right string) string {
	one, other := strings.Split(left, "\n"), strings.Split(right, "\n")
	for i := range one {
		if i >= len(other) || one[i] != other[i] {
			return fmt.Sprintf("%q and %q", one[i], other[min(i, len(other)-1)])
		}
	}
	return "one is longer"
}
