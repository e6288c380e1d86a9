package main

import (
	"errors"
	"net"
	"net/url"
)

// cases are all of them, in the order they run.
func cases() []Case {
	return []Case{
		{"typed clients: every kind lives its life, in protobuf and JSON", wholeLife},
		{"what is sent is what Go's generated code reads and would write, for every kind", golden},
		{"informers of every kind hold what is there under churn", informed},
		{"a list comes as a watch, with its bookmark", streamed},
		{"tools wait until something is there", untilThere},
		{"versions too old, too new and wrong are refused as they have to be", tooOld},
		{"a defined kind is served to dynamic, metadata and scale clients and their informers", custom},
		{"built-in kinds are served to dynamic and metadata clients", builtIn},
		{"every kind goes through the operations that are asked of an API", operations},
		{"some kinds live as they do in Kubernetes' own tests", particular},
		{"what is owned goes with its owner, or stays without", owned},
		{"pods that run go with who made them, or stay without", ownedPods},
		{"pods live on nodes and leave them as they are told", lived},
		{"copies of pods are counted, scaled, adopted and released", replicated},
		{"deployments go from one template to the next", rolled},
		{"budgets count pods that are ready and let as many go as may", budgeted},
		{"pods come to nodes that suit them and leave those they cannot bear", placedWell},
		{"quotas count what is there and limits give what is not said", limited},
		{"services lead to pods, and endpoints are mirrored", reached},
		{"strict writes say what is unknown and what is there twice", strictFields},
		{"definitions are listed, written to, and give defaults and watches", definitionOperations},
		{"definitions are described as Kubernetes describes them", publishedDefinitions},
		{"discovery in both forms, mappers, caches and descriptions agree", discovered},
		{"generated configurations are applied, refused, forced and extracted", applied},
		{"pages are of one revision while others write", paged},
		{"pods are selected by their fields", selectedPods},
		{"warnings, strictness and compression arrive", warned},
		{"people, robots and pretenders are known and may what they may", known},
		{"secrets hold tokens of accounts as long as both are there", heldTokens},
		{"a flow schema says whether its priority level is there", dangling},
		{"of three candidates one leads, and then another", elected},
		{"events of both generations are recorded and counted", told},
		{"logs, processes and ports of pods come through, with and without WebSocket", handedThrough},
		{"kubectl reads logs, runs processes and forwards ports, with and without WebSocket", kubectlOnPods},
		{"an eviction is refused while a budget forbids it, and then is not", evicted},
		{"kubectl does what people do with it", kubectled},
		{"kubectl shows what runs", kubectlOnNodes},
		{"kubectl's proxy is one", proxied},
		{"Kubernetes' own server of custom resources answers as ours does", compared},
		{"an informer goes on over a server that is killed", restarted},
		{"a watcher that retries misses nothing over a server that is killed", retried},
		// Last, because a server over etcd reads the history it leaves when it starts.
		{"whoever stays away too long is told so, and reflectors begin again", stayedAway},
	}
}

// isNetwork is an error of the connection, not of the server.
func isNetwork(err error) bool {
	var ofNet net.Error
	var ofURL *url.Error
	return errors.As(err, &ofNet) || errors.As(err, &ofURL)
}
