package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"sort"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	jsonserializer "k8s.io/apimachinery/pkg/runtime/serializer/json"
	protobufserializer "k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
)

const (
	mediaProtobuf = "application/vnd.kubernetes.protobuf"
	mediaJSON     = "application/json"
)

// golden holds what the server sends against what the generated code of Go understands and would write for the same
// object: every object and list of every kind, in both forms.
func golden(t *T) {
	namespace := t.Namespace()
	clients := t.Clients(t.Config())
	samples := append(namespacedLives(clients, clients, namespace), clusterLives(clients, clients)...)
	for _, one := range samples {
		t.Alone(func(t *T) {
			one.sample.SetName("golden-" + one.kind)
			path := collectionPath(t, clients, kindOf(one.sample), namespace)
			body, err := json.Marshal(withKind(one.sample))
			t.Must(err, "write JSON")
			rest := clients.CoreV1().RESTClient()
			answer := rest.Post().AbsPath(path).Body(body).SetHeader("Content-Type", mediaJSON).Do(t)
			t.Must(answer.Error(), "create at "+path)
			t.After(func() { rest.Delete().AbsPath(path, one.sample.GetName()).Do(context.Background()) })
		})
	}
	for _, path := range servedCollections(t, clients) {
		t.Alone(func(t *T) { held(t, clients, path) })
	}
}

// held compares what a path says with what Go would say.
func held(t *T, clients *kubernetes.Clientset, path string) {
	inJSON := both(t, clients, path)
	var items struct {
		Items []struct{ Metadata metav1.ObjectMeta }
	}
	t.Must(json.Unmarshal(inJSON, &items), path)
	for _, item := range items.Items {
		one := path + "/" + item.Metadata.Name
		if item.Metadata.Namespace != "" {
			place := strings.LastIndex(path, "/")
			one = path[:place] + "/namespaces/" + item.Metadata.Namespace + path[place:] + "/" + item.Metadata.Name
		}
		both(t, clients, one)
	}
}

// both reads in both forms, which have to say the same.
func both(t *T, clients *kubernetes.Clientset, path string) []byte {
	inJSON := raw(t, clients, path, mediaJSON)
	decoded := fromProtobuf(t, path, raw(t, clients, path, mediaProtobuf))
	if difference := differs(withoutVersion(sameJSON(t, path, inJSON)), withoutVersion(decoded)); difference != "" {
		t.Errorf("%s: JSON and protobuf differ: %s", path, difference)
	}
	return inJSON
}

func withoutVersion(list runtime.Object) runtime.Object {
	list = list.DeepCopyObject()
	if listed, is := list.(metav1.ListInterface); is {
		listed.SetResourceVersion("")
	}
	return list
}

func raw(t *T, clients *kubernetes.Clientset, path, media string) []byte {
	body, err := clients.CoreV1().RESTClient().Get().RequestURI(path).SetHeader("Accept", media).DoRaw(t)
	t.Must(err, path)
	return body
}

func fromProtobuf(t *T, path string, body []byte) runtime.Object {
	object, _, err := protobufserializer.NewSerializer(scheme.Scheme, scheme.Scheme).Decode(body, nil, nil)
	t.Must(err, path+" in protobuf")
	return object
}

// sameJSON decodes strictly and encodes: nothing is unknown, and nothing is said that Go would leave out, or the other
// way round.
func sameJSON(t *T, path string, body []byte) runtime.Object {
	strict := serializer.NewCodecFactory(scheme.Scheme, serializer.EnableStrict).UniversalDeserializer()
	object, kind, err := strict.Decode(body, nil, nil)
	t.Must(err, path+" in strict JSON")
	object.GetObjectKind().SetGroupVersionKind(*kind)
	var out bytes.Buffer
	writer := jsonserializer.NewSerializerWithOptions(jsonserializer.DefaultMetaFactory, scheme.Scheme, scheme.Scheme, jsonserializer.SerializerOptions{})
	t.Must(writer.Encode(object, &out), path)
	var got, want any
	t.Must(json.Unmarshal(body, &got), path)
	t.Must(json.Unmarshal(out.Bytes(), &want), path)
	for _, difference := range treeDifferences("", got, want) {
		t.Errorf("%s: JSON: %s", path, difference)
	}
	return object
}

// treeDifferences names the first few places where two trees differ.
func treeDifferences(at string, got, want any) []string {
	left, isMap := got.(map[string]any)
	right, areMaps := want.(map[string]any)
	if isMap && areMaps {
		var found []string
		for key := range union(left, right) {
			one, in := left[key]
			other, inBoth := right[key]
			switch {
			// Go says null for what was never set; that, and an empty text, is no more than saying nothing.
			case one == nil && other == nil:
			case !inBoth && one == "":
			case !in:
				found = append(found, fmt.Sprintf("%s.%s is missing, Go says %v", at, key, other))
			case !inBoth:
				found = append(found, fmt.Sprintf("%s.%s is %v, Go leaves it out", at, key, one))
			default:
				found = append(found, treeDifferences(at+"."+key, one, other)...)
			}
		}
		sort.Strings(found)
		return found[:min(len(found), 3)]
	}
	first, isList := got.([]any)
	second, areLists := want.([]any)
	if isList && areLists && len(first) == len(second) {
		for i := range first {
			if found := treeDifferences(fmt.Sprintf("%s[%d]", at, i), first[i], second[i]); len(found) > 0 {
				return found
			}
		}
		return nil
	}
	if reflect.DeepEqual(got, want) {
		return nil
	}
	return []string{fmt.Sprintf("%s is %v, Go says %v", at, got, want)}
}

func union(left, right map[string]any) map[string]bool {
	keys := map[string]bool{}
	for _, one := range []map[string]any{left, right} {
		for key := range one {
			keys[key] = true
		}
	}
	return keys
}

// servedCollections are the paths of everything that can be listed.
func servedCollections(t *T, clients *kubernetes.Clientset) []string {
	_, lists, err := clients.Discovery().ServerGroupsAndResources()
	t.Must(err, "discovery")
	var paths []string
	for _, list := range discovery.FilteredBy(discovery.SupportsAllVerbs{Verbs: []string{"list"}}, lists) {
		version, err := schema.ParseGroupVersion(list.GroupVersion)
		t.Must(err, "discovery")
		for _, resource := range list.APIResources {
			if scheme.Scheme.Recognizes(version.WithKind(resource.Kind)) {
				paths = append(paths, groupPath(version)+"/"+resource.Name)
			}
		}
	}
	t.Want(len(paths) > 40, "only %d kinds can be listed", len(paths))
	return paths
}

func groupPath(version schema.GroupVersion) string {
	if version.Group == "" {
		return "/api/" + version.Version
	}
	return "/apis/" + version.String()
}

func collectionPath(t *T, clients *kubernetes.Clientset, kind schema.GroupVersionKind, namespace string) string {
	list, err := clients.Discovery().ServerResourcesForGroupVersion(kind.GroupVersion().String())
	t.Must(err, "discovery")
	for _, resource := range list.APIResources {
		if resource.Kind == kind.Kind && !strings.Contains(resource.Name, "/") {
			if resource.Namespaced {
				return groupPath(kind.GroupVersion()) + "/namespaces/" + namespace + "/" + resource.Name
			}
			return groupPath(kind.GroupVersion()) + "/" + resource.Name
		}
	}
	t.Fatalf("%v is not served", kind)
	return ""
}

func withKind(one runtime.Object) runtime.Object {
	one = one.DeepCopyObject()
	one.GetObjectKind().SetGroupVersionKind(kindOf(one))
	return one
}
