package main

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	watchtools "k8s.io/client-go/tools/watch"
)

// T is a case that runs: what it asks, whom, and what it has to complain about.
type T struct {
	context.Context
	Server *Server

	lock       sync.Mutex
	complaints []string
	after      []func()
}

// background is for what goes on when the case's own time may be up.
var background = context.Background()

// mostComplaints is enough to see what is wrong.
const mostComplaints = 60

func runOne(server *Server, one Case, patience time.Duration) []string {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	t := &T{Context: ctx, Server: server}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer t.end()
		one.Run(t)
	}()
	select {
	case <-done:
	case <-time.After(patience + 10*time.Second):
		t.Errorf("it hangs")
	}
	t.lock.Lock()
	defer t.lock.Unlock()
	return t.complaints
}

func (t *T) end() {
	if panicked := recover(); panicked != nil {
		t.Errorf("panic: %v\n%s", panicked, debug.Stack())
	}
	for i := len(t.after) - 1; i >= 0; i-- {
		t.after[i]()
	}
}

// After runs something when the case has ended.
func (t *T) After(do func()) {
	t.lock.Lock()
	defer t.lock.Unlock()
	t.after = append(t.after, do)
}

// Errorf complains and goes on.
func (t *T) Errorf(format string, values ...any) {
	t.lock.Lock()
	defer t.lock.Unlock()
	if len(t.complaints) < mostComplaints {
		t.complaints = append(t.complaints, strings.TrimSpace(fmt.Sprintf(format, values...)))
	}
}

// Fatalf complains and ends the case.
func (t *T) Fatalf(format string, values ...any) {
	t.Errorf(format, values...)
	runtime.Goexit()
}

// Must ends the case where something did not work that has to.
func (t *T) Must(err error, what string) {
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// Want complains where something is not so.
func (t *T) Want(so bool, format string, values ...any) {
	if !so {
		t.Errorf(format, values...)
	}
}

// Refused complains unless the error is the one that is asked for.
func (t *T) Refused(err error, is func(error) bool, what string) {
	if err == nil {
		t.Errorf("%s: was not refused", what)
	} else if !is(err) {
		t.Errorf("%s: another refusal: %v", what, err)
	}
}

// Until asks again and again until it is so, and ends the case when it does not become so in time.
func (t *T) Until(what string, so func() bool) {
	end := time.Now().Add(30 * time.Second)
	for !so() {
		if time.Now().After(end) || t.Err() != nil {
			t.Fatalf("%s: not in time", what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// Config is what the administrator connects with, in protobuf as Kubernetes' own tests do.
func (t *T) Config() *rest.Config { return t.Server.Config() }

// JSON is the same with JSON on the wire.
func (t *T) JSON() *rest.Config {
	config := t.Server.Config()
	config.ContentType, config.AcceptContentTypes = "application/json", "application/json"
	return config
}

// Clients are the typed clients of a configuration.
func (t *T) Clients(config *rest.Config) *kubernetes.Clientset {
	clients, err := kubernetes.NewForConfig(config)
	t.Must(err, "typed clients")
	return clients
}

// Namespace makes a namespace of the case's own, which goes with it.
func (t *T) Namespace() string {
	clients := t.Clients(t.Config())
	made, err := clients.CoreV1().Namespaces().Create(
		t, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "case-"}}, metav1.CreateOptions{})
	t.Must(err, "create a namespace")
	t.After(func() {
		err := clients.CoreV1().Namespaces().Delete(background, made.Name, metav1.DeleteOptions{})
		if err != nil {
			t.Errorf("delete the namespace: %v", err)
		}
	})
	// Pods may come when their account is there.
	t.Until("the default account is there", func() bool {
		_, err := clients.CoreV1().ServiceAccounts(made.Name).Get(t, "default", metav1.GetOptions{})
		return err == nil
	})
	return made.Name
}

// Alone runs a part whose end is not the end of the case.
func (t *T) Alone(part func(*T)) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() {
			if panicked := recover(); panicked != nil {
				t.Errorf("panic: %v\n%s", panicked, debug.Stack())
			}
		}()
		part(t)
	}()
	<-done
}

// Together runs parts at the same time, each alone.
func (t *T) Together(parts ...func(*T)) {
	var all sync.WaitGroup
	for _, part := range parts {
		all.Go(func() { t.Alone(part) })
	}
	all.Wait()
}

// watches is how the objects of a typed client are watched.
type watches func(context.Context, metav1.ListOptions) (watch.Interface, error)

// tells waits until a watch of what is selected, from a version on, tells what is wanted.
func tells[O metav1.Object](t *T, objects watches, version, selector, what string, so func(watch.EventType, O) bool) {
	ctx, cancel := context.WithTimeout(t, 30*time.Second)
	defer cancel()
	selected := &cache.ListWatch{WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
		options.LabelSelector = selector
		return objects(ctx, options)
	}}
	var last O
	_, err := watchtools.Until(ctx, version, selected, func(event watch.Event) (bool, error) {
		one, is := any(event.Object).(O)
		if is {
			last = one
		}
		return is && so(event.Type, one), nil
	})
	if err != nil {
		text, _ := json.Marshal(last)
		t.Fatalf("%s: %v; the last that was told is %.1500s", what, err, text)
	}
}
