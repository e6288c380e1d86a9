package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"k8s.io/client-go/rest"
)

// A Side is one of the two servers that are asked the same.
type Side struct {
	host    string
	clients *http.Client
}

// twin starts Kubernetes' own server of custom resources over an etcd of its own. Who somebody is and what they may, whose
// certificates count, and which namespaces there are, it asks our server.
func (s *Server) twin() (*Side, func(), error) {
	ports, err := freePorts(3)
	if err != nil {
		return nil, nil, err
	}
	folder := filepath.Join(s.Folder, "twin")
	at, peer := fmt.Sprintf("http://127.0.0.1:%d", ports[0]), fmt.Sprintf("http://127.0.0.1:%d", ports[1])
	etcd := exec.Command(s.TwinEtcd, "--data-dir", folder,
		"--listen-client-urls", at, "--advertise-client-urls", at, "--listen-peer-urls", peer,
		"--initial-advertise-peer-urls", peer, "--initial-cluster", "default="+peer)
	program := exec.Command(s.Twin, "--bind-address", "127.0.0.1", "--secure-port", fmt.Sprint(ports[2]),
		"--cert-dir", filepath.Join(folder, "certificates"), "--etcd-servers", at, "--kubeconfig", s.Kubeconfig(),
		"--authentication-kubeconfig", s.Kubeconfig(), "--authorization-kubeconfig", s.Kubeconfig(),
		"--enable-priority-and-fairness=false",
		"--disable-admission-plugins", "MutatingAdmissionPolicy,MutatingAdmissionWebhook,ValidatingAdmissionPolicy,ValidatingAdmissionWebhook")
	end := func() {
		for _, process := range []*exec.Cmd{program, etcd} {
			if process.Process != nil {
				_ = process.Process.Kill()
				_ = process.Wait()
			}
		}
	}
	for process, log := range map[*exec.Cmd]string{etcd: "twin-etcd.log", program: "twin.log"} {
		if err := s.run(process, log); err != nil {
			end()
			return nil, nil, err
		}
	}
	config := s.Config()
	config.Host = fmt.Sprintf("https://127.0.0.1:%d", ports[2])
	// It signs its own certificate.
	config.TLSClientConfig.CAData, config.TLSClientConfig.CAFile, config.TLSClientConfig.Insecure = nil, "", true
	side, err := sideOf(config)
	if err != nil {
		end()
		return nil, nil, err
	}
	return side, end, nil
}

func sideOf(config *rest.Config) (*Side, error) {
	clients, err := rest.HTTPClientFor(config)
	return &Side{config.Host, clients}, err
}

// An Answer is what can be compared of one.
type Answer struct {
	code int
	tree any
	text string
	// Whether it ends its last line.
	isLine bool
}

var (
	uids    = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)
	moments = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z`)
	// Also within the texts of refusals, where quotes are escaped.
	versions = regexp.MustCompile(`"resourceVersion(\\*)":\s*\\*"\d+\\*"`)
)

// ask sends a request and makes what differs by nature alike: numbers of objects, moments, revisions.
func (s *Side) ask(ctx context.Context, one Exchange) (Answer, error) {
	body := one.body
	if one.edit != nil {
		current, err := s.ask(ctx, Exchange{method: "GET", path: one.path})
		if err != nil {
			return Answer{}, err
		}
		var tree map[string]any
		if err := json.Unmarshal([]byte(current.text), &tree); err != nil {
			return Answer{}, err
		}
		one.edit(tree)
		edited, err := json.Marshal(tree)
		if err != nil {
			return Answer{}, err
		}
		body = string(edited)
	}
	request, err := http.NewRequestWithContext(ctx, one.method, s.host+one.path, strings.NewReader(body))
	if err != nil {
		return Answer{}, err
	}
	media := one.media
	if media == "" {
		media = "application/json"
	}
	request.Header.Set("Content-Type", media)
	request.Header.Set("Accept", "application/json")
	if one.accept != "" {
		request.Header.Set("Accept", one.accept)
	}
	request.Header.Set("User-Agent", "compare/1")
	response, err := s.clients.Do(request)
	if err != nil {
		return Answer{}, err
	}
	defer response.Body.Close()
	raw, err := io.ReadAll(response.Body)
	if err != nil {
		return Answer{}, err
	}
	alike := uids.ReplaceAll(raw, []byte("UID"))
	alike = moments.ReplaceAll(alike, []byte("TIME"))
	alike = versions.ReplaceAll(alike, []byte(`"resourceVersion$1":$1"REVISION$1"`))
	answer := Answer{code: response.StatusCode, text: string(raw), isLine: bytes.HasSuffix(raw, []byte("\n"))}
	decoder := json.NewDecoder(bytes.NewReader(alike))
	decoder.UseNumber()
	if decoder.Decode(&answer.tree) != nil {
		answer.tree = string(alike)
	}
	return answer, nil
}

// differences are the paths at which two trees are not the same.
func differences(path string, ours, theirs any) []string {
	left, isMap := ours.(map[string]any)
	right, areMaps := theirs.(map[string]any)
	if isMap && areMaps {
		var out []string
		names := map[string]bool{}
		for name := range left {
			names[name] = true
		}
		for name := range right {
			names[name] = true
		}
		for _, name := range slices.Sorted(keysOf(names)) {
			out = append(out, differences(path+"/"+name, left[name], right[name])...)
		}
		return out
	}
	first, isList := ours.([]any)
	second, areLists := theirs.([]any)
	if isList && areLists && len(first) == len(second) {
		var out []string
		for i := range first {
			out = append(out, differences(fmt.Sprintf("%s/%d", path, i), first[i], second[i])...)
		}
		return out
	}
	if reflect.DeepEqual(ours, theirs) {
		return nil
	}
	one, other := apart(shown(ours), shown(theirs))
	return []string{fmt.Sprintf("%s: ours %.300s, theirs %.300s", path, one, other)}
}

// apart leaves out most of what two texts have in common at their beginnings.
func apart(one, other string) (string, string) {
	same := 0
	for same < min(len(one), len(other)) && one[same] == other[same] {
		same++
	}
	if same < 80 {
		return one, other
	}
	return "..." + one[same-40:], "..." + other[same-40:]
}

func keysOf(names map[string]bool) func(func(string) bool) {
	return func(yield func(string) bool) {
		for name := range names {
			if !yield(name) {
				return
			}
		}
	}
}

func shown(value any) string {
	text, err := json.Marshal(value)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// compared asks both servers the same and complains wherever their answers differ.
func compared(t *T) {
	if t.Server.Twin == "" {
		t.Fatalf("Kubernetes' own server is not given")
	}
	ours, err := sideOf(t.Server.Config())
	t.Must(err, "a client of ours")
	theirs, end, err := t.Server.twin()
	t.Must(err, "start Kubernetes' own server")
	t.After(end)
	t.Until("Kubernetes' own server is ready", func() bool {
		answer, err := theirs.ask(t, Exchange{method: "GET", path: "/readyz"})
		return err == nil && answer.code == 200
	})
	sides := []*Side{ours, theirs}
	for _, side := range sides {
		answer, err := side.ask(t, Exchange{method: "POST", path: definitionsPath, body: gadgetDefinition})
		t.Must(err, "define gadgets")
		t.Want(answer.code == 201, "define gadgets: %s", answer.text)
	}
	t.After(func() {
		_, err := ours.ask(background, Exchange{method: "DELETE", path: definitionsPath + "/gadgets.compare.example.org"})
		if err != nil {
			t.Errorf("delete the definition: %v", err)
		}
	})
	for _, side := range sides {
		t.Until("gadgets are served", func() bool {
			answer, err := side.ask(t, Exchange{method: "GET", path: gadgets})
			return err == nil && answer.code == 200
		})
	}
	for number, one := range exchanges() {
		var answers []Answer
		for _, side := range sides {
			answer, err := side.ask(t, one)
			t.Must(err, one.method+" "+one.path)
			answers = append(answers, answer)
		}
		name := fmt.Sprintf("%d: %s %s %.120s", number, one.method, one.path, one.body)
		if answers[0].code != answers[1].code {
			t.Errorf("%s: ours %d, theirs %d: %.400s", name, answers[0].code, answers[1].code, answers[1].text)
			continue
		}
		if answers[0].isLine != answers[1].isLine {
			t.Errorf("%s: ends with a line end: ours %v, theirs %v", name, answers[0].isLine, answers[1].isLine)
		}
		for _, difference := range differences("", answers[0].tree, answers[1].tree) {
			t.Errorf("%s: %s", name, difference)
		}
		// Entries of managedFields are ordered by seconds.
		if one.isLater {
			time.Sleep(1100 * time.Millisecond)
		}
	}
}
