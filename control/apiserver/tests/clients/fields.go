package main

import (
	"fmt"
	"strings"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/client/clientset/clientset"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
)

// strictFields sends objects with fields that are unknown or there twice, and holds the words of the refusals to what
// Kubernetes' own tests look for in them.
func strictFields(t *T) {
	t.strictDeployments(t.Namespace())
	anything := ptr(true)
	text := func(pattern string) apiextensionsv1.JSONSchemaProps {
		return apiextensionsv1.JSONSchemaProps{Type: "string", Pattern: pattern}
	}
	port := apiextensionsv1.JSONSchemaProps{Type: "object", Required: []string{"number", "protocol"},
		Properties: map[string]apiextensionsv1.JSONSchemaProps{"number": {Type: "integer", Format: "int32"}, "protocol": text(""), "name": text("")}}
	spec := apiextensionsv1.JSONSchemaProps{Type: "object", Properties: map[string]apiextensionsv1.JSONSchemaProps{
		"word": text(""), "turns": text(`^(\d+|\*)(/\d+)?(\s+(\d+|\*)(/\d+)?){4}$`),
		"ports": {Type: "array", XListType: ptr("map"), XListMapKeys: []string{"number", "protocol"}, Items: &apiextensionsv1.JSONSchemaPropsOrArray{Schema: &port}},
	}}
	open := spec.DeepCopy()
	open.XPreserveUnknownFields = anything
	open.Properties["inner"] = apiextensionsv1.JSONSchemaProps{Type: "object", XEmbeddedResource: true, Properties: map[string]apiextensionsv1.JSONSchemaProps{
		"metadata": {Type: "object", Properties: map[string]apiextensionsv1.JSONSchemaProps{"name": text("")}}, "spec": {Type: "object"}}}
	of := func(spec apiextensionsv1.JSONSchemaProps) apiextensionsv1.JSONSchemaProps {
		return apiextensionsv1.JSONSchemaProps{Type: "object", Properties: map[string]apiextensionsv1.JSONSchemaProps{"spec": spec}}
	}
	for _, one := range []struct {
		name   string
		schema apiextensionsv1.JSONSchemaProps
		// The lines of the object from the sixth on, behind a name in lines that begin with the second.
		lines []string
		want  string
	}{
		{"valid", of(spec), []string{"spec:", "  word: a"}, ""},
		{"schemaless", apiextensionsv1.JSONSchemaProps{Type: "object", XPreserveUnknownFields: anything}, []string{"spec:", "  strange: a"}, ""},
		{"unknown", of(spec), []string{"strange: a", "spec:", "  word: a"}, ".strange: field not declared in schema"},
		{"unknownhead", of(*open), []string{"  strange: a", "spec:", "  word: a"}, ".metadata.strange: field not declared in schema"},
		{"unknowninner", of(*open), []string{"spec:", "  inner:", "    apiVersion: v1", "    kind: Sub", "    metadata:", "      name: s", "      strange: a"},
			".spec.inner.metadata.strange: field not declared in schema"},
		{"twice", of(*open), []string{"spec:", "  strange: a", "  word: a", "  word: b"}, `line 9: key \"word\" already set in map`},
	} {
		t.Alone(func(t *T) {
			clients, plural := t.define(one.name, one.schema)
			head := []string{"", "apiVersion: strict.example.org/v1", "kind: " + kindName(one.name), "metadata:", "  name: a"}
			tail := []string{"  turns: \"* * * * */5\"", "  ports:", "  - {name: x, number: 80, protocol: TCP}"}
			if one.name == "unknowninner" {
				tail = nil
			}
			body := strings.Join(append(append(head, one.lines...), tail...), "\n")
			answer, err := clients.Patch(types.ApplyPatchType).AbsPath("/apis/strict.example.org/v1", plural, "a").
				Param("fieldManager", "strict").Param("fieldValidation", "Strict").Body([]byte(body)).DoRaw(t)
			if one.want == "" {
				t.Must(err, one.name+": apply")
			} else if err == nil || !strings.Contains(string(answer), one.want) {
				t.Errorf("%s: apply: %v: %s", one.name, err, answer)
			}
		})
	}
}

func kindName(name string) string { return strings.ToUpper(name[:1]) + name[1:] }

// define makes a kind outside of namespaces with a schema, and waits until it is served.
func (t *T) define(name string, schema apiextensionsv1.JSONSchemaProps) (rest.Interface, string) {
	// As the clients of Kubernetes' tests of this, which ask for JSON.
	clients, err := apiextensions.NewForConfig(t.JSON())
	t.Must(err, "clients of definitions")
	definition := &apiextensionsv1.CustomResourceDefinition{
		ObjectMeta: metav1.ObjectMeta{Name: name + "s.strict.example.org"},
		Spec: apiextensionsv1.CustomResourceDefinitionSpec{
			Group: "strict.example.org", Scope: apiextensionsv1.ClusterScoped,
			Names:    apiextensionsv1.CustomResourceDefinitionNames{Plural: name + "s", Kind: kindName(name)},
			Versions: []apiextensionsv1.CustomResourceDefinitionVersion{{Name: "v1", Served: true, Storage: true, Schema: &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: &schema}}},
		},
	}
	t.defined(definition)
	return clients.Discovery().RESTClient(), name + "s"
}

func (t *T) strictDeployments(namespace string) {
	clients := t.Clients(t.Config())
	for _, one := range []struct{ head, spec, want string }{
		{`"name":"d"`, `"strange":"a","replicas":2,"replicas":3,`, `strict decoding error: unknown field "spec.strange", duplicate field "spec.replicas"`},
		{`"name":"d","strange":"a"`, ``, `strict decoding error: unknown field "metadata.strange"`},
	} {
		body := fmt.Sprintf(`{"apiVersion":"apps/v1","kind":"Deployment","metadata":{%s},"spec":{%s"selector":{"matchLabels":{"app":"d"}},`+
			`"template":{"metadata":{"labels":{"app":"d"}},"spec":{"containers":[{"name":"c","image":"example.org/c"}]}}}}`, one.head, one.spec)
		err := clients.CoreV1().RESTClient().Post().AbsPath("/apis/apps/v1").Namespace(namespace).Resource("deployments").
			Param("fieldManager", "strict").Param("fieldValidation", "Strict").Body([]byte(body)).Do(t).Error()
		t.Want(err != nil && strings.Contains(err.Error(), one.want), "create a deployment strictly: %v", err)
	}
}
