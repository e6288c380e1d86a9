package main

// An Exchange is a request that two servers have to answer alike.
type Exchange struct {
	method, path, body string
	// The type of the body; JSON where nothing is said.
	media string
	// What is wanted; JSON where nothing is said.
	accept string
	// Changes the object that the path has on the server that is asked, which is then the body.
	edit func(object map[string]any)
	// What follows is written in another second.
	isLater bool
}

const (
	definitionsPath = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
	gadgets         = "/apis/compare.example.org/v1/namespaces/default/gadgets"

	mergePatch = "application/merge-patch+json"
	jsonPatch  = "application/json-patch+json"
	applyPatch = "application/apply-patch+yaml"
	asHeads    = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
	asTable    = "application/json;as=Table;v=v1;g=meta.k8s.io"
	asOldTable = "application/json;as=Table;v=v1beta1;g=meta.k8s.io"
)

// gadgetDefinition has a little of everything that schemas can say.
const gadgetDefinition = `{"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
 "metadata": {"name": "gadgets.compare.example.org"},
 "spec": {"group": "compare.example.org", "scope": "Namespaced", "names": {"plural": "gadgets", "kind": "Gadget"},
  "versions": [{"name": "v1", "served": true, "storage": true, "subresources": {"status": {},
    "scale": {"specReplicasPath": ".spec.size", "statusReplicasPath": ".status.size", "labelSelectorPath": ".status.word"}},
   "additionalPrinterColumns": [{"name": "Size", "type": "integer", "jsonPath": ".spec.size", "description": "how big"}],
   "selectableFields": [{"jsonPath": ".spec.colour"}],
   "schema": {"openAPIV3Schema": {"type": "object", "properties": {
    "spec": {"type": "object", "required": ["colour"], "properties": {
     "size": {"type": "integer", "default": 3, "minimum": 0, "maximum": 10},
     "small": {"type": "integer", "format": "int32"}, "large": {"type": "integer", "format": "int64"},
     "colour": {"type": "string", "enum": ["red", "green"]},
     "when": {"type": "string", "format": "date-time"},
     "parts": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
      "items": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}, "v": {"type": "integer"}}}},
     "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
     "any": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
     "either": {"x-kubernetes-int-or-string": true},
     "map": {"type": "object", "additionalProperties": {"type": "string"}},
     "whole": {"type": "object", "x-kubernetes-map-type": "atomic", "properties": {"a": {"type": "string"}, "b": {"type": "string"}}},
     "ratio": {"type": "number", "multipleOf": 0.5},
     "word": {"type": "string", "pattern": "^a+$"},
     "inner": {"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true},
     "one": {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
      "oneOf": [{"required": ["a"]}, {"required": ["b"]}]}}},
    "status": {"type": "object", "properties": {"size": {"type": "integer"}, "word": {"type": "string"}}}}}}}]}}`

func gadgetOf(name, spec string) string {
	return `{"apiVersion": "compare.example.org/v1", "kind": "Gadget", "metadata": {"name": "` + name + `"}, "spec": ` + spec + `}`
}

func creation(name, spec string) Exchange {
	return Exchange{method: "POST", path: gadgets, body: gadgetOf(name, spec)}
}

func patchOf(media, query, body string) Exchange {
	return Exchange{method: "PATCH", path: gadgets + "/a" + query, media: media, body: body}
}

func application(query, spec string) Exchange {
	return later(patchOf(applyPatch, query, gadgetOf("a", spec)))
}

// later lets what follows be written in another second.
func later(one Exchange) Exchange {
	one.isLater = true
	return one
}

func replacement(query string, edit func(map[string]any)) Exchange {
	return Exchange{method: "PUT", path: gadgets + "/a" + query, edit: edit}
}

func within(object map[string]any, field string) map[string]any {
	return object[field].(map[string]any)
}

// exchanges are all requests, in their order.
func exchanges() []Exchange {
	var all []Exchange
	all = append(all, creations()...)
	all = append(all, writes()...)
	all = append(all, scales()...)
	all = append(all, applications()...)
	all = append(all, ownerships()...)
	all = append(all, reads()...)
	return append(all, deletions()...)
}

func creations() []Exchange {
	all := []Exchange{
		creation("a", `{"colour": "red", "parts": [{"name": "x", "v": 1}]}`),
		creation("a", `{"colour": "red"}`),
		{method: "GET", path: gadgets + "/a"},
		creation("numbers", `{"colour": "red", "size": 2.0, "ratio": 1.50, "any": {"of": [1.0, 1e3, -2.50, 0.1, 0.000001, 1.5E-7,
			52.51736479999999, 1.1111110000000001e48, 1e21, 999999999999999999999, 9223372036854775807, 9223372036854775808,
			18446744073709551615, 123456789012345678901234567890, 5e-324, -0, -0.0, 0.0]}}`),
		{method: "GET", path: gadgets + "/numbers"},
		{method: "PATCH", path: gadgets + "/numbers", media: mergePatch, body: `{"spec": {"size": 3e0, "any": {"of": [2.0]}}}`},
		{method: "GET", path: gadgets + "/numbers"},
		creation("b", `{"colour": "red", "size": 1.5}`),
		creation("b", `{"colour": "red", "size": 11.5}`),
		creation("b", `{"colour": "red", "size": -99999999999999999999}`),
		creation("b", `{"colour": "red", "small": 1.5}`),
		creation("b", `{"colour": "red", "large": 1.5}`),
		creation("b", `{"colour": "red", "small": 1099511627776}`),
		creation("b", `{"colour": "red", "large": 9223372036854775808}`),
		creation("b", `{"colour": "red", "large": 9007199254740993.0}`),
		creation("b", `{"colour": "red", "small": true}`),
		creation("b", `{"colour": "red", "when": 5}`),
		creation("b", `{"colour": "red", "when": {"a": 1}}`),
		creation("b", `{"colour": "red", "parts": [{"name": "x", "v": 0.5}]}`),
		{method: "POST", path: gadgets, body: `{"metadata": {"name": "x"}, "spec": {"colour": "red"}}`},
		{method: "POST", path: gadgets, body: `{"apiVersion": "compare.example.org/v1", "kind": "Gizmo", "metadata": {"name": "x"}}`},
		{method: "POST", path: gadgets, body: `{"apiVersion": "compare.example.org/v7", "kind": "Gadget", "metadata": {"name": "x"}}`},
		{method: "POST", path: gadgets, body: ``},
		{method: "POST", path: gadgets, body: `x`, media: "text/plain"},
		{method: "POST", path: gadgets, body: `x`},
		{method: "POST", path: gadgets, body: `{"kind": "Gadget", "spec": {"size" 1}}`},
		{method: "POST", path: gadgets, body: `{"kind": "Gadget", "spec": [1, 2.}`},
		{method: "POST", path: gadgets, body: "{\"kind\": \"Gad\nget\"}"},
		{method: "POST", path: gadgets, body: `{"kind": "Gadget"} {}`},
		{method: "POST", path: gadgets, body: "kind: Gadget\nspec: {size: 1", media: "application/yaml"},
		{method: "POST", path: gadgets, body: "kind: Gadget\n  spec: x\n", media: "application/yaml"},
		{method: "POST", path: gadgets, body: "kind: Gadget\n\tspec: x\n", media: "application/yaml"},
		{method: "POST", path: gadgets, body: "kind: [Gadget\nspec: x\n", media: "application/yaml"},
		{method: "POST", path: gadgets + "?dryRun=Some", body: gadgetOf("b", `{"colour": "red"}`)},
		{method: "POST", path: gadgets + "?fieldValidation=Perhaps", body: gadgetOf("b", `{"colour": "red"}`)},
		{method: "POST", path: gadgets + "?fieldValidation=Strict", body: gadgetOf("b", `{"colour": "red", "odd": 1}`)},
		{method: "POST", path: "/apis/compare.example.org/v1/namespaces/nowhere/gadgets", body: gadgetOf("b", `{"colour": "red"}`)},
		{method: "POST", path: gadgets, body: `{"apiVersion": "compare.example.org/v1", "kind": "Gadget", "metadata": {"name": "b", "namespace": "other"}, "spec": {"colour": "red"}}`},
		creation("", `{"colour": "red"}`),
		creation("A_b", `{"colour": "red"}`),
		{method: "POST", path: gadgets + "?fieldValidation=Strict", media: "application/yaml",
			body: "apiVersion: compare.example.org/v1\nkind: Gadget\nmetadata: {name: twice}\nspec:\n  colour: red\n  colour: green\n"},
	}
	for _, spec := range []string{
		`{}`, `{"colour": "blue"}`, `{"colour": 5}`, `{"colour": null}`, `{"colour": "red", "size": -1}`, `{"colour": "red", "size": 11}`,
		`{"colour": "red", "size": "x"}`, `{"colour": "red", "when": "yesterday"}`, `{"colour": "red", "parts": [{"name": "a"}, {"name": "a"}]}`,
		`{"colour": "red", "parts": [{"v": 1}]}`, `{"colour": "red", "tags": ["a", "a"]}`, `{"colour": "red", "either": true}`,
		`{"colour": "red", "map": {"a": 5}}`, `{"colour": "red", "ratio": 0.3}`, `{"colour": "red", "word": "b"}`,
		`{"colour": "red", "inner": {"x": 1}}`, `{"colour": "red", "one": {}}`, `{"colour": "red", "one": {"a": "1", "b": "2"}}`, `[]`, `"x"`, `5`,
		`{"colour": "red", "inner": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x", "labels": {"a": "b!"}}}}`,
	} {
		all = append(all, creation("b", spec))
	}
	return all
}

func writes() []Exchange {
	return []Exchange{
		replacement("", func(one map[string]any) {}),
		replacement("", func(one map[string]any) { within(one, "spec")["size"] = 5 }),
		replacement("", func(one map[string]any) { within(one, "metadata")["resourceVersion"] = "1" }),
		replacement("", func(one map[string]any) { within(one, "metadata")["name"] = "b" }),
		replacement("", func(one map[string]any) { delete(within(one, "metadata"), "resourceVersion") }),
		replacement("", func(one map[string]any) { one["status"] = map[string]any{"size": 1} }),
		replacement("/status", func(one map[string]any) {
			one["status"] = map[string]any{"size": 1, "word": "w"}
			within(one, "spec")["colour"] = "green"
		}),
		patchOf(mergePatch, "", `{"spec": {"size": 1, "any": {"q": {"r": 1}}}, "metadata": {"labels": {"l": "1"}}}`),
		patchOf(mergePatch, "", `{"spec": {"size": 99}}`),
		patchOf(mergePatch, "", `{"metadata": {"name": "b"}}`),
		patchOf(mergePatch, "", `{"metadata": {"resourceVersion": "1"}}`),
		patchOf(mergePatch, "", `{"kind": "Gizmo"}`),
		patchOf(mergePatch, "?force=true", `{"spec": {"size": 1}}`),
		later(patchOf(mergePatch, "", `{}`)),
		patchOf(jsonPatch, "", `[{"op": "replace", "path": "/spec/size", "value": 2}]`),
		patchOf(jsonPatch, "", `[{"op": "add", "path": "/spec/parts/-", "value": {"name": "z"}}]`),
		patchOf(mergePatch, "?fieldValidation=Strict", `{"spec": {"odd": 1}}`),
		patchOf(mergePatch, "?fieldValidation=Strict", `{"spec": {"size": 1, "size": 2}}`),
		patchOf(mergePatch, "", `{"spec": {"size": 1, "size": 2}}`),
		patchOf(jsonPatch, "?fieldValidation=Strict", `[{"op": "add", "path": "/spec/odd", "value": {"b": 1, "a": [2]}}]`),
		patchOf(mergePatch, "/status?fieldValidation=Strict", `{"status": {"odd": 1}}`),
		patchOf("application/strategic-merge-patch+json", "", `{"spec": {"size": 1}}`),
		patchOf(mergePatch, "", `{"spec": {"size": 1,}}`),
		patchOf(mergePatch, "", `[{"spec": 1}]`),
		patchOf(mergePatch, "", `"x"`),
		patchOf(mergePatch, "", ``),
		patchOf(jsonPatch, "", `[{"op": "replace", "path": "/spec/size", "value": 2]`),
		{method: "PATCH", path: gadgets + "/none", media: mergePatch, body: `{"spec": {"size": 1}}`},
	}
}

func scales() []Exchange {
	scaled := func(query string, edit func(map[string]any)) Exchange { return replacement("/scale"+query, edit) }
	size := func(count any) func(map[string]any) {
		return func(one map[string]any) { within(one, "spec")["replicas"] = count }
	}
	return []Exchange{
		{method: "GET", path: gadgets + "/a/scale"},
		{method: "GET", path: gadgets + "/none/scale"},
		scaled("?fieldManager=scaler", size(4)),
		scaled("?fieldManager=scaler", size(4)),
		scaled("", size(-1)),
		scaled("", size(11)),
		scaled("", func(one map[string]any) { within(one, "metadata")["name"] = "b" }),
		scaled("", func(one map[string]any) { within(one, "metadata")["resourceVersion"] = "1" }),
		scaled("?dryRun=All", size(5)),
		patchOf(mergePatch, "/scale?fieldManager=patcher", `{"spec": {"replicas": 3}}`),
		patchOf(mergePatch, "/scale", `{"spec": {"replicas": -1}}`),
		patchOf(jsonPatch, "/scale", `[{"op": "replace", "path": "/spec/replicas", "value": 2}]`),
		{method: "GET", path: gadgets + "/a"},
		// Of two owners in a conflict Kubernetes names any first.
		patchOf(mergePatch, "", `{"spec": {"size": 8}}`),
	}
}

func applications() []Exchange {
	return []Exchange{
		application("", `{"size": 6}`),
		application("?fieldManager=one", `{"size": 6, "colour": "green"}`),
		application("?fieldManager=one&force=true", `{"size": 6, "parts": [{"name": "n", "v": 1}], "tags": ["q", "r"], "whole": {"a": "1"}, "map": {"k": "v"}}`),
		application("?fieldManager=one", `{"size": 6, "parts": [{"name": "n", "v": 1}], "tags": ["q", "r"], "whole": {"a": "1"}, "map": {"k": "v"}}`),
		application("?fieldManager=one", `{"parts": [{"name": "o", "v": 1}], "tags": ["q"], "whole": {"b": "1"}}`),
		application("?fieldManager=two", `{"parts": [{"name": "o", "v": 2}], "tags": ["s"], "whole": {"b": "2"}}`),
		application("?fieldManager=two&force=true", `{"parts": [{"name": "o", "v": 2}], "tags": ["s"], "whole": {"b": "2"}}`),
		patchOf(applyPatch, "?fieldManager=one", `{"apiVersion": "compare.example.org/v1", "kind": "Gadget", "metadata": {"managedFields": []}}`),
		patchOf(applyPatch, "?fieldManager=one", `{"apiVersion": "compare.example.org/v3", "kind": "Gadget"}`),
		patchOf(applyPatch, "?fieldManager=one", "kind: [Gadget\nspec: x\n"),
		patchOf(applyPatch, "?fieldManager=one&force=true&fieldValidation=Strict",
			"apiVersion: compare.example.org/v1\nkind: Gadget\nspec:\n  size: 1\n  size: 2\n"),
		patchOf(applyPatch, "/status?fieldManager=one", `{"apiVersion": "compare.example.org/v1", "kind": "Gadget", "spec": {"size": 1}, "status": {"size": 9}}`),
		// Of what nobody has declared.
		application("?fieldManager=any&force=true", `{"any": {"x": {"y": {"z": 1}}, "l": [{"a": 1}], "e": {}, "n": null},
			"inner": {"apiVersion": "v1", "kind": "Inner", "metadata": {"name": "i", "labels": {"a": "b"}}, "spec": {"a": {"b": 1}}}}`),
		application("?fieldManager=any", `{"any": {"x": {"y": {"w": 2}}, "e": {"f": 1}}, "inner": {"apiVersion": "v1", "kind": "Inner", "spec": {"c": 1}}}`),
		replacement("?fieldManager=taker", func(one map[string]any) { within(one, "spec")["tags"] = []any{"s", "t"} }),
		{method: "GET", path: gadgets + "/a"},
	}
}

// ownerships are writes that say who owns what, or that nobody is known to.
func ownerships() []Exchange {
	said := func(entries string) Exchange {
		return later(patchOf(mergePatch, "?fieldManager=editor", `{"metadata": {"managedFields": `+entries+`}, "spec": {"size": 5}}`))
	}
	entry := func(manager, operation, fields string) string {
		return `{"manager": "` + manager + `", "operation": "` + operation + `", "apiVersion": "compare.example.org/v1",
			"time": "2020-01-02T03:04:05Z", "fieldsType": "FieldsV1", "fieldsV1": ` + fields + `}`
	}
	annotated := func(one map[string]any) {
		within(one, "metadata")["annotations"] = map[string]any{"kubectl.kubernetes.io/last-applied-configuration": gadgetOf("a", `{"colour": "green", "size": 5, "word": "aa"}`)}
		within(one, "spec")["colour"], within(one, "spec")["word"] = "green", "a"
	}
	return []Exchange{
		said(`[` + entry("heir", "Apply", `{"f:spec": {"f:tags": {}, "f:map": {"f:k": {}}}}`) + `, ` + entry("heir", "Update", `{"f:spec": {"f:size": {}}}`) + `]`),
		application("?fieldManager=heir", `{"tags": ["z"]}`),
		said(`[` + entry("liar", "Own", `{}`) + `]`),
		said(`[` + entry("liar", "Update", `{"x": {}}`) + `]`),
		said(`[` + entry("twice", "Update", `{"f:spec": {"f:tags": {}}}`) + `, ` + entry("twice", "Update", `{"f:spec": {"f:colour": {}}}`) + `]`),
		said(`[{}, {}]`),
		patchOf(mergePatch, "/status?fieldManager=editor", `{"metadata": {"managedFields": [{}]}, "status": {"size": 4}}`),
		said(`[]`),
		later(patchOf(mergePatch, "?fieldManager=editor", `{"spec": {"size": 6}}`)),
		application("?fieldManager=one", `{"size": 7, "tags": ["z"]}`),
		application("?fieldManager=one&force=true", `{"size": 7, "tags": ["z"]}`),
		said(`[{}]`),
		later(replacement("?fieldManager=kubectl-client-side-apply", annotated)),
		application("?fieldManager=kubectl", `{"size": 8, "colour": "green", "word": "aaa"}`),
		said(`[` + entry("kubectl-client-side-apply", "Update", `{"f:metadata": {"f:annotations": {}}, "f:spec": {"f:colour": {}, "f:size": {}}}`) + `]`),
		application("?fieldManager=kubectl", `{"size": 8, "colour": "red"}`),
		application("?fieldManager=kubectl&force=true", `{"size": 8, "colour": "red"}`),
		patchOf(applyPatch, "/status?fieldManager=kubectl&force=true", gadgetOf("a", `{}`)),
		{method: "GET", path: gadgets + "/a"},
	}
}

func reads() []Exchange {
	var all []Exchange
	for _, query := range []string{
		"", "?limit=0", "?limit=-1", "?labelSelector=l%3D1", "?labelSelector=l+in+(1,2)", "?labelSelector=!m", "?fieldSelector=spec.colour%3Dred",
		"?fieldSelector=spec.size%3D1", "?fieldSelector=metadata.name%3Da", "?resourceVersion=0", "?resourceVersionMatch=Exact",
		"?resourceVersion=0&resourceVersionMatch=Exact", "?resourceVersion=1&resourceVersionMatch=Newest", "?sendInitialEvents=true",
		"?watch=1&sendInitialEvents=true", "?watch=1&resourceVersionMatch=NotOlderThan", "?watch=1&continue=x", "?watch=1&fieldSelector=foo%3Dbar",
	} {
		// A list of nothing more says so with an empty token there.
		all = append(all, Exchange{method: "GET", path: gadgets + query, accept: asHeads})
	}
	return append(all,
		Exchange{method: "GET", path: gadgets + "/none"},
		Exchange{method: "GET", path: "/apis/compare.example.org"},
		Exchange{method: "GET", path: "/apis/compare.example.org/v1"},
		Exchange{method: "GET", path: gadgets},
		Exchange{method: "GET", path: gadgets, accept: "text/xml"},
		Exchange{method: "GET", path: gadgets + "/a", accept: asTable},
		Exchange{method: "GET", path: gadgets + "/a", accept: asOldTable},
		Exchange{method: "GET", path: gadgets + "/a?includeObject=Object", accept: asTable},
		Exchange{method: "GET", path: gadgets + "/a?includeObject=Some", accept: asTable},
		Exchange{method: "GET", path: definitionsPath + "/gadgets.compare.example.org?includeObject=None", accept: asTable},
	)
}

func deletions() []Exchange {
	return []Exchange{
		{method: "DELETE", path: gadgets + "/a?dryRun=Some"},
		{method: "DELETE", path: gadgets + "/a?propagationPolicy=Some"},
		{method: "DELETE", path: gadgets + "/a", body: `{"preconditions": {"uid": "x"}}`},
		{method: "DELETE", path: gadgets + "/a", body: `{"propagationPolicy": "Orphan", "orphanDependents": true}`},
		{method: "DELETE", path: gadgets + "/none"},
		{method: "DELETE", path: gadgets + "/a?dryRun=All"},
		{method: "DELETE", path: gadgets + "/a"},
	}
}
