package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// A command is what kubectl is told, and what has to be in what it prints.
type command struct {
	line string
	want string
	// fails says that kubectl has to end with an error, which is then what is read.
	fails bool
	input string
}

const deploymentYAML = `apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 0
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: "example.org/web:1"}]}
`

const definitionYAML = `apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: ships.kubectl.example.org}
spec:
  group: kubectl.example.org
  scope: Namespaced
  names: {plural: ships, singular: ship, kind: Ship}
  versions:
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, properties: {spec: {type: object, properties: {size: {type: integer}, masts: {type: integer}}}}}}
`
const shipYAML = "apiVersion: kubectl.example.org/v1\nkind: Ship\nmetadata: {name: one}\nspec: {size: 1}\n"
const carriedYAML = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: carried}\ndata: {k: v}\n"
const mapYAML = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {k: v}\n"

// commands are run one after the other in a namespace of their own.
var commands = []command{
	{line: "version", want: `Server Version: v1\.36\.`},
	{line: "cluster-info", want: `control plane.* is running at`},
	{line: "get --raw /readyz?verbose", want: `readyz check passed`},
	{line: "api-versions", want: `(?m)^apps/v1$`},
	{line: "api-resources --namespaced=true --verbs=list -o name", want: `(?m)^deployments\.apps$`},
	{line: "api-resources -o wide", want: `(?m)^pods +po +v1 +true +Pod +create,delete`},
	{line: "explain deployment.spec.strategy --recursive", want: `rollingUpdate`},
	{line: "explain pods.spec.containers.image", want: `FIELD: image <string>`},
	{line: "explain cronjob --output=plaintext-openapiv2", want: `KIND: +CronJob`},
	{line: "create -f -", input: deploymentYAML, want: `deployment.apps/web created`},
	{line: "create -f -", input: deploymentYAML, want: `AlreadyExists`, fails: true},
	{line: "create -f - --dry-run=server -o name", input: mapYAML, want: `configmap/settings`},
	{line: "apply -f -", input: mapYAML, want: `configmap/settings created`},
	{line: "apply -f -", input: mapYAML, want: `configmap/settings unchanged`},
	{line: "apply -f -", input: strings.Replace(mapYAML, "k: v", "k: w", 1), want: `configmap/settings configured`},
	{line: "diff -f -", input: mapYAML, want: `(?m)^\+  k: v$`, fails: true},
	{line: "apply view-last-applied configmap/settings", want: `k: w`},
	{line: "apply --server-side --field-manager=other -f -", input: mapYAML, want: `conflict`, fails: true},
	{line: "apply --server-side --force-conflicts --field-manager=other -f -", input: mapYAML, want: `serverside-applied`},
	// The other takes over what kubectl owned, and does not want its annotation.
	{line: "get configmap settings -o jsonpath={.metadata.annotations}", want: `^$`},
	{line: "apply -f -", input: carriedYAML, want: `configmap/carried created`},
	{line: "apply --server-side -f -", input: strings.Replace(carriedYAML, "k: v", "k: w", 1), want: `serverside-applied`},
	{line: "apply view-last-applied configmap/carried", want: `k: w`},
	{line: "apply -f -", input: definitionYAML, want: `ships.kubectl.example.org created`},
	{line: "wait crd/ships.kubectl.example.org --for=condition=Established --timeout=20s", want: `condition met`},
	{line: "apply -f -", input: shipYAML, want: `ship.kubectl.example.org/one created`},
	{line: "apply -f -", input: shipYAML, want: `ship.kubectl.example.org/one unchanged`},
	{line: "apply -f -", input: strings.Replace(shipYAML, "size: 1", "size: 2, masts: 3", 1), want: `ship.kubectl.example.org/one configured`},
	{line: "apply -f -", input: strings.Replace(shipYAML, "size: 1", "size: 2", 1), want: `ship.kubectl.example.org/one configured`},
	{line: "get ships -o jsonpath={.items[*].spec}", want: `^{"size":2}$`},
	{line: "apply --server-side -f -", input: shipYAML, want: `serverside-applied`},
	{line: "patch ship one -p {\"spec\":{}}", want: `strategic-merge-patch\+json is not supported`, fails: true},
	{line: "patch ship one --type=merge -p {\"spec\":{\"masts\":1}}", want: `patched`},
	{line: "label ship one a=b", want: `labeled`},
	{line: "get ship one", want: `NAME +AGE`},
	{line: "explain ship.spec", want: `masts\s+<integer>`},
	{line: "delete crd ships.kubectl.example.org", want: `deleted`},
	{line: "create -f - --validate=strict", input: strings.Replace(mapYAML, "\ndata", "\ndate", 1), want: `unknown field "date"`, fails: true},
	{line: "get configmap settings -o jsonpath={.data.k}", want: `^v$`},
	{line: "get configmaps -o custom-columns=N:.metadata.name,K:.data.k --no-headers", want: `settings +v`},
	{line: "get configmaps --sort-by=.metadata.name -o name", want: `(?s)kube-root-ca.crt.*settings`},
	{line: "get deployment,configmap -o wide", want: `(?s)deployment.apps/web +0/0 +0 +0 .*example.org/web:1 +app=web.*configmap/settings`},
	{line: "get deployment web -o yaml", want: `(?m)^  progressDeadlineSeconds: 600$`},
	{line: "get deployment web -o json --show-managed-fields", want: `"manager": "kubectl-create"`},
	{line: "get all --show-labels", want: `deployment.apps/web .* app=web`},
	{line: "patch deployment web -p {\"spec\":{\"revisionHistoryLimit\":3}}", want: `patched`},
	{line: "patch deployment web --type=json -p [{\"op\":\"test\",\"path\":\"/spec/revisionHistoryLimit\",\"value\":3}]", want: `no change`},
	{line: "patch deployment web --subresource=status --type=merge -p {\"status\":{\"observedGeneration\":1}}", want: `patched`},
	{line: "label deployment web tier=front", want: `labeled`},
	{line: "label deployment web tier=back", want: `already has a value`, fails: true},
	{line: "annotate deployment web note=one", want: `annotated`},
	{line: "set image deployment/web web=example.org/web:2", want: `image updated`},
	{line: "set env deployment/web A=b", want: `env updated`},
	{line: "set resources deployment/web --limits=cpu=1", want: `resource requirements updated`},
	{line: "rollout status deployment/web --timeout=20s", want: `successfully rolled out`},
	{line: "rollout history deployment/web", want: `REVISION`},
	{line: "rollout restart deployment/web", want: `restarted`},
	{line: "rollout pause deployment/web", want: `paused`},
	{line: "rollout resume deployment/web", want: `resumed`},
	{line: "rollout undo deployment/web", want: `rolled back`},
	{line: "scale deployment web --replicas=1 --current-replicas=0", want: `scaled`},
	{line: "wait pods -l app=web --for=create --timeout=20s", want: `condition met`},
	{line: "get pods -l app=web -o wide", want: `web-.* 0/1 +Pending`},
	{line: "describe deployment web", want: `(?s)Replicas: +1 desired.*Pod Template.*Events:`},
	{line: "describe pods -l app=web", want: `(?s)Status: +Pending.*FailedScheduling`},
	{line: "get events", want: `(?s)LAST SEEN.*ScalingReplicaSet|FailedScheduling`},
	{line: "events --for deployment/web", want: `LAST SEEN|No events`},
	{line: "expose deployment web --port=80 --target-port=8080", want: `service/web exposed`},
	{line: "get service web", want: `web +ClusterIP +10\.96\.`},
	{line: "describe service web", want: `(?s)IP: +10\.96\..*Endpoints:`},
	{line: "autoscale deployment web --min=1 --max=3 --cpu=70%", want: `horizontalpodautoscaler.autoscaling/web autoscaled`},
	{line: "get hpa", want: `(?s)NAME +REFERENCE +TARGETS +MINPODS +MAXPODS +REPLICAS +AGE.*web +Deployment/web +cpu: <unknown>/70% +1 +3 +0`},
	{line: "describe hpa web", want: `(?s)Reference: +Deployment/web.*resource cpu on pods +\(as a percentage of request\): +<unknown> / 70%.*Max replicas: +3`},
	{line: "get horizontalpodautoscalers.v1.autoscaling web -o jsonpath={.spec.targetCPUUtilizationPercentage}", want: `^70$`},
	{line: "explain hpa --api-version=autoscaling/v1 --recursive", want: `targetCPUUtilizationPercentage`},
	{line: "create -f -", input: "CSR", want: `certificatesigningrequest.certificates.k8s.io/clients-jane created`},
	{line: "get csr clients-jane", want: `example.org/signer +\S+ +60m +Pending`},
	{line: "certificate approve clients-jane", want: `clients-jane approved`},
	{line: "get csr clients-jane", want: `Approved`},
	{line: "certificate deny clients-jane", want: `(?i)denied|approved`, fails: true},
	{line: "describe csr clients-jane", want: `(?s)Requesting User: +\S+.*Common Name: +jane`},
	{line: "delete csr clients-jane", want: `deleted`},
	{line: "get endpointslices -l kubernetes.io/service-name=web", want: `web-`},
	{line: "run one --image=example.org/one --labels=app=one --command -- sleep 1", want: `pod/one created`},
	{line: "wait pod/one --for=condition=Ready --timeout=1s", want: `timed out`, fails: true},
	{line: "wait pod/one --for=jsonpath={.status.phase}=Pending --timeout=10s", want: `condition met`},
	{line: "edit configmap settings", want: `edited`},
	{line: "get configmap settings -o go-template={{.data.edited}}", want: `^yes$`},
	{line: "replace -f -", input: mapYAML, want: `replaced`},
	{line: "create secret generic s --from-literal=a=b", want: `created`},
	{line: "create secret tls t --cert=CERT --key=KEY", want: `created`},
	{line: "run never --image=example.org/one --restart=Never --labels=app=never", want: `pod/never created`},
	{line: "get pod never -o jsonpath={.spec.restartPolicy}", want: `^Never$`},
	{line: "label pod never --dry-run=server seen=dry -o name", want: `pod/never`},
	{line: "get pod never -o jsonpath={.metadata.labels}", want: `^{"app":"never"}$`},
	{line: "delete pod never --now", want: `deleted`},
	{line: "create configmap c --from-literal=a=b -o yaml --dry-run=client", want: `a: b`},
	{line: "create job j --image=example.org/j", want: `job.batch/j created`},
	{line: "create cronjob cj --image=example.org/j --schedule=*/5,*,*,*,*", want: `created`},
	{line: "create serviceaccount robot", want: `created`},
	{line: "create token robot --duration=10m", want: `^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.`},
	{line: "create role reader --verb=get,list --resource=pods", want: `created`},
	{line: "create rolebinding reader --role=reader --serviceaccount=NAMESPACE:robot", want: `created`},
	{line: "create quota q --hard=count/widgets.example.org=5", want: `created`},
	{line: "create poddisruptionbudget b --selector=app=web --min-available=1", want: `created`},
	{line: "create ingress i --rule=example.org/=web:80", want: `created`},
	{line: "create priorityclass clients --value=5", want: `created`},
	{line: "delete priorityclass clients", want: `deleted`},
	{line: "describe quota,poddisruptionbudget,ingress,role,rolebinding,serviceaccount,secret", want: `(?s)Min available: +1.*example.org`},
	{line: "auth whoami", want: `system:masters`},
	{line: "auth can-i --list", want: `\*\.\*`},
	{line: "auth can-i list pods --as=system:serviceaccount:NAMESPACE:robot", want: `^yes`},
	{line: "auth can-i delete pods --as=system:serviceaccount:NAMESPACE:robot", want: `^no`, fails: true},
	{line: "auth reconcile -f -", input: "apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {name: reader, namespace: NAMESPACE}\nrules: [{apiGroups: [\"\"], resources: [pods], verbs: [get, list, watch]}]\n", want: `reconciled`},
	{line: "get nodes", want: `No resources found`},
	{line: "create -f -", input: "apiVersion: v1\nkind: Node\nmetadata: {name: clients-node}\n", want: `node/clients-node created`},
	{line: "cordon clients-node", want: `cordoned`},
	{line: "taint node clients-node k=v:NoSchedule", want: `tainted`},
	{line: "drain clients-node --ignore-daemonsets --timeout=10s", want: `drained`},
	{line: "uncordon clients-node", want: `uncordoned`},
	{line: "describe node clients-node", want: `(?s)Taints: .*k=v:NoSchedule`},
	{line: "delete node clients-node", want: `deleted`},
	{line: "top pods", want: `Metrics API not available`, fails: true},
	{line: "kustomize FOLDER", want: `(?m)^  name: pre-settings$`},
	{line: "apply -k FOLDER", want: `configmap/pre-settings created`},
	{line: "apply -f - --prune -l prune=yes", input: strings.Replace(mapYAML, "settings", "kept, labels: {prune: \"yes\"}", 1), want: `configmap/kept created`},
	{line: "delete -f - --ignore-not-found", input: mapYAML, want: `configmap "settings" deleted`},
	{line: "delete deployment web --cascade=foreground --timeout=20s", want: `deleted`},
	{line: "delete pod one --grace-period=0 --force", want: `force deleted`},
	{line: "wait configmap/settings --for=delete --timeout=5s", want: ``},
	{line: "get configmap nothing", want: `Error from server \(NotFound\): configmaps "nothing" not found`, fails: true},
	{line: "get nothing", want: `the server doesn't have a resource type "nothing"`, fails: true},
}

const controllerYAML = `apiVersion: v1
kind: ReplicationController
metadata: {name: shown, labels: {app: shown, role: first}}
spec:
  replicas: 1
  selector: {app: shown}
  template:
    metadata: {labels: {app: shown, role: first}}
    spec: {containers: [{name: c, image: "example.org/c:1", ports: [{name: web, containerPort: 8080}]}]}
`

const serviceYAML = `apiVersion: v1
kind: Service
metadata: {name: shown, labels: {app: shown}}
spec: {selector: {app: shown}, ports: [{port: 80, targetPort: web}]}
`

// shows are run when a pod runs on the node NODE.
var shows = []command{
	{line: "wait pod -l app=shown --for=condition=Ready --timeout=20s", want: `condition met`},
	{line: "get pods -l app=shown -o wide", want: `shown-\S+ +1/1 +Running +0 +\S+ +10\.244\.\S+ +NODE`},
	{line: "describe pod -l app=shown", want: `(?s)^Name: +shown-\S+\nNamespace: +NAMESPACE\n.*Node: +NODE/127\.0\.0\.1\n.*Labels: +app=shown\n +role=first\n.*Status: +Running\n` +
		`IP: +10\.244\..*Controlled By: +ReplicationController/shown\n.*Image: +example\.org/c:1\n.*State: +Running\n.*Ready: +True\n.*QoS Class: +BestEffort\n.*Scheduled`},
	{line: "describe rc shown", want: `(?s)^Name: +shown\nNamespace: +NAMESPACE\nSelector: +app=shown\nLabels: +app=shown\n +role=first\n.*Replicas: +1 current / 1 desired\n` +
		`Pods Status: +1 Running / 0 Waiting / 0 Succeeded / 0 Failed\n.*Image: +example\.org/c:1\n.*SuccessfulCreate`},
	{line: "describe service shown", want: `(?s)Selector: +app=shown\n.*Type: +ClusterIP\n.*Port: +<unset> +80/TCP\nTargetPort: +web/TCP\nEndpoints: +10\.244\.\S+:8080\nSession Affinity: +None`},
	{line: "describe node NODE", want: `(?s)Conditions:.*MemoryPressure +False.*Ready +True.*InternalIP: +127\.0\.0\.1\n.*Capacity:\n +cpu: +4\n.*Kubelet Version: +v1\.36\.0\n.*NAMESPACE +shown-`},
	{line: "get nodes", want: `NODE +Ready +<none> +\S+ +v1\.36\.0`},
	{line: "label pods -l app=shown mark=here", want: `labeled`},
	{line: "get pods -l app=shown -L mark", want: `(?s)MARK\n.* here\n`},
	{line: "label pods -l app=shown mark-", want: `unlabeled`},
	{line: "get pods -l mark", want: `No resources found`},
	{line: "run alone --image=example.org/c:1 --labels=app=alone", want: `pod/alone created`},
	{line: "wait pod/alone --for=condition=Ready --timeout=20s", want: `condition met`},
	{line: "set image pod/alone alone=example.org/c:2", want: `image updated`},
	{line: "wait pod/alone --for=jsonpath={.status.containerStatuses[0].image}=example.org/c:2 --timeout=20s", want: `condition met`},
	{line: "delete pod alone --timeout=20s", want: `deleted`},
	{line: "delete -f - --grace-period=0 --force", input: controllerYAML, want: `force deleted`},
	{line: "get rc -l app=shown", want: `No resources found`},
	{line: "get service -l app=shown -o name", want: `service/shown`},
}

// kubectlOnNodes is what kubectl says of a pod that runs, and of all that is around it.
func kubectlOnNodes(t *T) {
	node, namespace := t.hollowNodes(1)[0], t.Namespace()
	for _, input := range []string{controllerYAML, serviceYAML} {
		printed, err := t.kubectl(namespace, input, "create", "-f", "-")
		t.Want(err == nil, "kubectl create: %v: %s", err, printed)
	}
	t.running(namespace, "shown", 1)
	t.commanded(namespace, shows, strings.NewReplacer("NODE", node, "NAMESPACE", namespace))
	t.running(namespace, "shown", 0)
}

// kubectled runs kubectl as people do.
func kubectled(t *T) {
	namespace := t.Namespace()
	folder, err := os.MkdirTemp(t.Server.Folder, "kubectl-")
	t.Must(err, "a folder")
	t.Must(os.WriteFile(filepath.Join(folder, "kustomization.yaml"), []byte("namePrefix: pre-\nresources: [map.yaml]\n"), 0o600), "write")
	t.Must(os.WriteFile(filepath.Join(folder, "map.yaml"), []byte(mapYAML), 0o600), "write")
	request := "apiVersion: certificates.k8s.io/v1\nkind: CertificateSigningRequest\nmetadata: {name: clients-jane}\nspec:\n" +
		"  signerName: example.org/signer\n  usages: [client auth]\n  expirationSeconds: 3600\n  request: " +
		base64.StdEncoding.EncodeToString(certificateRequest()) + "\n"
	words := strings.NewReplacer("CSR", request, "NAMESPACE", namespace, "FOLDER", folder,
		"CERT", filepath.Join(t.Server.Folder, "pki", "ca.crt"), "KEY", filepath.Join(t.Server.Folder, "pki", "ca.key"), ",*", " *")
	t.commanded(namespace, commands, words)
}

// commanded runs commands one after the other, with words that are only known now.
func (t *T) commanded(namespace string, commands []command, words *strings.Replacer) {
	for _, one := range commands {
		var arguments []string
		for word := range strings.FieldsSeq(one.line) {
			arguments = append(arguments, words.Replace(word))
		}
		printed, err := t.kubectl(namespace, words.Replace(one.input), arguments...)
		switch {
		case (err != nil) != one.fails:
			t.Errorf("kubectl %s: %v: %s", one.line, err, printed)
		case !regexp.MustCompile(words.Replace(one.want)).MatchString(printed):
			t.Errorf("kubectl %s printed %q", one.line, printed)
		}
	}
}

func (t *T) kubectl(namespace, input string, arguments ...string) (string, error) {
	ctx, cancel := context.WithTimeout(t, 40*time.Second)
	defer cancel()
	process := exec.CommandContext(ctx, t.Server.Kubectl, append([]string{"--namespace", namespace}, arguments...)...)
	process.Env = append(os.Environ(), "KUBECONFIG="+t.Server.Kubeconfig(), "HOME="+t.Server.Folder,
		"KUBE_EDITOR=sed -i -e 's/^data:/data:\\n  edited: \"yes\"/'")
	process.Stdin = strings.NewReader(input)
	var printed bytes.Buffer
	process.Stdout, process.Stderr = &printed, &printed
	err := process.Run()
	return printed.String(), err
}

// proxied reads through kubectl's proxy.
func proxied(t *T) {
	ports, err := freePorts(1)
	t.Must(err, "a port")
	process := exec.CommandContext(t, t.Server.Kubectl, "proxy", fmt.Sprint("--port=", ports[0]))
	process.Env = append(os.Environ(), "KUBECONFIG="+t.Server.Kubeconfig())
	t.Must(process.Start(), "start the proxy")
	defer func() {
		_ = process.Process.Kill()
		_ = process.Wait()
	}()
	t.Until("the proxy answers", func() bool {
		text, err := fetch(t, fmt.Sprintf("http://127.0.0.1:%d/api/v1/namespaces", ports[0]))
		return err == nil && strings.Contains(text, "kube-system")
	})
}
