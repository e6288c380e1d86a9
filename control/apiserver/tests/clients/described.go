package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/controller/openapi/builder"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/retry"
	"k8s.io/kube-openapi/pkg/handler"
	"sigs.k8s.io/yaml"
)

// describedSchemas are of kinds whose descriptions are held against those that Kubernetes' own code makes of them.
var describedSchemas = map[string]string{
	"bars": `
description: "given: what a thing is"
type: object
properties:
  spec:
    description: "given: what a thing should be"
    type: object
    properties:
      bars:
        description: "given: all its bars"
        type: array
        items:
          type: object
          required: [name]
          properties:
            name: {description: "given: what the bar is called", type: string}
            mood: {description: "given: how the bar feels", type: string, enum: [Great, Down]}
            words: {description: "given: what it says", type: array, items: {type: string}}
  status:
    type: object
    properties:
      ready: {type: boolean}
      kind: {type: string, pattern: in-tree|out-of-tree}`,
	"empties": `{type: object, x-kubernetes-preserve-unknown-fields: true}`,
	"opens":   `{type: object, x-kubernetes-preserve-unknown-fields: true, description: "given: it may say anything", properties: {spec: {type: object, properties: {a: {type: string}}}}}`,
	"nesteds": `
description: "given: a part may say anything"
type: object
required: [spec]
properties:
  spec: {type: object, x-kubernetes-preserve-unknown-fields: true, required: [a], properties: {a: {type: string}, l: {type: array, items: {type: string}}}}`,
	"odds": `
type: object
required: [empty, plain]
properties:
  plain: {type: string, default: x, maxLength: 3, title: a title}
  empty: {type: string, nullable: true}
  nulls: {type: object, required: [a, b], properties: {a: {type: string, nullable: true}, b: {type: integer, minimum: 0, exclusiveMinimum: true, format: int64}}}
  nulllist: {type: array, nullable: true, items: {type: string}}
  nullmap: {type: object, additionalProperties: {type: string, nullable: true}}
  map: {type: object, additionalProperties: {type: number, multipleOf: 0.5}}
  openlist: {type: array, items: {type: object, x-kubernetes-preserve-unknown-fields: true}}
  either: {x-kubernetes-int-or-string: true}
  bounded: {x-kubernetes-int-or-string: true, anyOf: [{type: integer}, {type: string}], pattern: ^a}
  other: {x-kubernetes-int-or-string: true, allOf: [{pattern: ^b}]}
  inner: {type: object, x-kubernetes-embedded-resource: true, properties: {spec: {type: object}}}
  openinner: {type: object, x-kubernetes-embedded-resource: true, x-kubernetes-preserve-unknown-fields: true}
  list: {type: array, x-kubernetes-list-type: map, x-kubernetes-list-map-keys: [k], items: {type: object, required: [k], properties: {k: {type: string}}}}
  atomic: {type: object, x-kubernetes-map-type: atomic, properties: {a: {type: string}}}
  one: {type: object, properties: {a: {type: string}, b: {type: string}}, oneOf: [{required: [a]}, {required: [b]}]}`,
}

// publishedDefinitions holds what is published of kinds against what Kubernetes' own code makes of their schemas.
func publishedDefinitions(t *T) {
	for plural := range describedSchemas {
		versions := []string{"v1"}
		if plural == "bars" {
			versions = []string{"v1", "v2"}
		}
		definition := anyDefinition(plural, versions...)
		definition.Spec.Versions[0].Subresources = &apiextensionsv1.CustomResourceSubresources{Status: &apiextensionsv1.CustomResourceSubresourceStatus{}}
		for i := range definition.Spec.Versions {
			schema := &apiextensionsv1.JSONSchemaProps{}
			t.Must(yaml.UnmarshalStrict([]byte(describedSchemas[plural]), schema), "read a schema")
			definition.Spec.Versions[i].Schema.OpenAPIV3Schema = schema
		}
		if plural == "bars" {
			definition.Spec.Versions[0].SelectableFields = []apiextensionsv1.SelectableField{{JSONPath: ".status.kind"}}
		}
		made := t.defined(definition)
		for _, version := range versions {
			t.describedAlike(made, version)
		}
	}
	t.explained()
	t.describedWhenServed("bars.defined.example.org")
}

// describedAlike compares both documents.
func (t *T) describedAlike(made *apiextensionsv1.CustomResourceDefinition, version string) {
	kind := made.Spec.Names.Kind
	old, err := builder.BuildOpenAPIV2(made, version, builder.Options{V2: true, IncludeSelectableFields: true})
	t.Must(err, "make OpenAPI v2")
	old.Definitions = handler.PruneDefaults(old.Definitions)
	recent, err := builder.BuildOpenAPIV3(made, version, builder.Options{IncludeSelectableFields: true})
	t.Must(err, "make OpenAPI v3")
	for path, wanted := range map[string]any{"/openapi/v2": old, "/openapi/v3/apis/defined.example.org/" + version: recent} {
		want := ownParts(asTree(wanted), version, kind)
		t.Want(len(want) == 2, "Kubernetes' own code describes %d parts of %s", len(want), kind)
		var document, got map[string]any
		t.Until(kind+" is described in "+path, func() bool {
			document = t.document(path)
			got = ownParts(document, version, kind)
			return len(got) > 0
		})
		for _, difference := range differences("", got, want) {
			t.Errorf("%s of %s in %s: %s", version, kind, path, difference)
		}
		root := "/apis/" + made.Spec.Group + "/" + version + "/"
		operations := ownOperations(asTree(wanted), root, made.Spec.Names.Plural)
		t.Want(len(operations) >= 7, "Kubernetes' own code describes %d operations on %s", len(operations), kind)
		for _, difference := range differences("", ownOperations(document, root, made.Spec.Names.Plural), operations) {
			t.Errorf("%s of %s in %s: %s", version, kind, path, difference)
		}
	}
}

func asTree(document any) map[string]any {
	text, err := json.Marshal(document)
	if err != nil {
		panic(err) // Documents can be written as JSON.
	}
	var read map[string]any
	if err := json.Unmarshal(text, &read); err != nil {
		panic(err)
	}
	return read
}

// document reads a document as a client that does not say what it accepts.
func (t *T) document(path string) map[string]any {
	clients := t.definitions().Discovery().RESTClient().(*rest.RESTClient)
	request, err := http.NewRequestWithContext(t, http.MethodGet, clients.Get().AbsPath(path).URL().String(), nil)
	t.Must(err, "a request")
	request.Close = true
	answer, err := clients.Client.Do(request)
	t.Must(err, "read "+path)
	defer answer.Body.Close()
	var document map[string]any
	if answer.StatusCode == http.StatusOK {
		t.Must(json.NewDecoder(answer.Body).Decode(&document), "read "+path)
	}
	return document
}

// ownParts are the schemas of a document that are about a version of a kind.
func ownParts(document map[string]any, version, kind string) map[string]any {
	schemas, _ := document["definitions"].(map[string]any)
	if components, is := document["components"].(map[string]any); is {
		schemas, _ = components["schemas"].(map[string]any)
	}
	own := map[string]any{}
	for name, one := range schemas {
		if end := version + "." + kind; strings.HasSuffix(name, end) || strings.HasSuffix(name, end+"List") {
			own[name] = withoutWords(one)
		}
	}
	return own
}

// ownOperations are what can be done with objects of a kind: what that takes and gives, by method and path.
func ownOperations(document map[string]any, root, plural string) map[string]any {
	own := map[string]any{}
	paths, _ := document["paths"].(map[string]any)
	for path, item := range paths {
		inner, is := strings.CutPrefix(path, root)
		if !is || !slices.Contains(strings.Split(inner, "/"), plural) {
			continue
		}
		for method, one := range item.(map[string]any) {
			operation, is := one.(map[string]any)
			if !is {
				continue
			}
			responses := map[string]any{}
			for code, response := range operation["responses"].(map[string]any) {
				responses[code] = mediaOf(response)
			}
			own[method+" "+path] = map[string]any{
				"action":   operation["x-kubernetes-action"],
				"kind":     operation["x-kubernetes-group-version-kind"],
				"consumes": asSet(operation["consumes"]),
				"produces": asSet(operation["produces"]),
				"takes":    mediaOf(operation["requestBody"]),
				"gives":    responses,
			}
		}
	}
	return own
}

// mediaOf are the media types of a body in OpenAPI v3.
func mediaOf(body any) string {
	described, _ := body.(map[string]any)
	content, _ := described["content"].(map[string]any)
	return strings.Join(slices.Sorted(maps.Keys(content)), " ")
}

func asSet(list any) string {
	items, _ := list.([]any)
	var words []string
	for _, item := range items {
		words = append(words, item.(string))
	}
	slices.Sort(words)
	return strings.Join(words, " ")
}

// withoutWords leaves out the descriptions that a definition does not give: both servers have their own words there.
func withoutWords(entry any) any {
	switch entry := entry.(type) {
	case map[string]any:
		out := map[string]any{}
		for name, value := range entry {
			if text, is := value.(string); name == "description" && is && !strings.HasPrefix(text, "given:") {
				continue
			}
			out[name] = withoutWords(value)
		}
		return out
	case []any:
		var out []any
		for _, one := range entry {
			out = append(out, withoutWords(one))
		}
		return out
	}
	return entry
}

// explained asks kubectl what it makes of the descriptions.
func (t *T) explained() {
	for _, one := range []struct{ path, want string }{
		{"bars", `(?s)DESCRIPTION:.*what a thing is.*FIELDS:.*apiVersion.*<string>.*APIVersion defines.*spec.*<Object>.*what a thing should be`},
		{"bars.metadata", `(?s)DESCRIPTION:.*Standard object's metadata.*FIELDS:.*creationTimestamp.*<string>.*CreationTimestamp is a timestamp`},
		{"bars.spec", `(?s)DESCRIPTION:.*what a thing should be.*FIELDS:.*bars.*<\[\]Object>.*all its bars`},
		{"bars.spec.bars", `(?s)FIELD: bars.*<\[\]Object>.*DESCRIPTION:.*all its bars.*FIELDS:.*name.*<string>.*what the bar is called.*words.*<\[\]string>.*what it says`},
		{"empties", `(?s)DESCRIPTION:.*<empty>`},
		{"opens", `(?s)KIND:.*Opens`},
		{"nesteds", `(?s)DESCRIPTION:.*a part may say anything`},
	} {
		text, err := t.kubectl("default", "", "explain", one.path)
		t.Want(err == nil && regexp.MustCompile(one.want).MatchString(text), "kubectl explain %s: %v: %s", one.path, err, text)
	}
	text, err := t.kubectl("default", "", "explain", "bars.spec.none")
	t.Want(err != nil && strings.Contains(text, `field "none" does not exist`), "kubectl explain of no field: %v: %s", err, text)
}

// describedWhenServed changes which versions of a kind are served, and deletes it.
func (t *T) describedWhenServed(name string) {
	definitions := t.definitions().ApiextensionsV1().CustomResourceDefinitions()
	serve := func(edit func(*apiextensionsv1.CustomResourceDefinitionVersion)) {
		t.Must(retry.RetryOnConflict(retry.DefaultRetry, func() error {
			one, err := definitions.Get(t, name, metav1.GetOptions{})
			t.Must(err, "get the definition")
			edit(&one.Spec.Versions[1])
			_, err = definitions.Update(t, one, metav1.UpdateOptions{})
			return err
		}), "change a version")
	}
	described := func(version string) bool {
		schemas, _ := t.document("/openapi/v2")["definitions"].(map[string]any)
		_, is := schemas[fmt.Sprintf("org.example.defined.%s.Bars", version)]
		return is
	}
	t.Want(described("v1") && described("v2"), "the versions are not described")
	serve(func(version *apiextensionsv1.CustomResourceDefinitionVersion) { version.Served = false })
	t.Until("what is not served is not described", func() bool { return described("v1") && !described("v2") })
	serve(func(version *apiextensionsv1.CustomResourceDefinitionVersion) {
		version.Served, version.Name = true, "v3"
	})
	t.Until("the new name is described", func() bool { return described("v1") && described("v3") && !described("v2") })
	t.undefine(name)
	t.Until("what is gone is not described", func() bool { return !described("v1") })
}
