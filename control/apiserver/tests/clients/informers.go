package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	watchtools "k8s.io/client-go/tools/watch"
)

// churn writes ConfigMaps as many clients would, and forgets what was refused because another was faster.
func churn(t *T, clients *kubernetes.Clientset, namespace string, writers int, length time.Duration) {
	end := time.Now().Add(length)
	var all sync.WaitGroup
	for writer := range writers {
		all.Go(func() {
			maps := clients.CoreV1().ConfigMaps(namespace)
			for round := 0; time.Now().Before(end); round++ {
				name := fmt.Sprintf("churn-%d", rand.IntN(40))
				var err error
				switch rand.IntN(4) {
				case 0:
					err = maps.Delete(t, name, metav1.DeleteOptions{})
				case 1:
					body := fmt.Sprintf(`{"data":{"round":"%d-%d"}}`, writer, round)
					_, err = maps.Patch(t, name, types.MergePatchType, []byte(body), metav1.PatchOptions{})
				default:
					_, err = maps.Create(t, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
				}
				if err != nil && !errors.IsNotFound(err) && !errors.IsAlreadyExists(err) && !errors.IsConflict(err) && !gone(err) {
					t.Errorf("writer: %v", err)
				}
			}
		})
	}
	all.Wait()
}

// gone is what a client sees of a server that was killed.
func gone(err error) bool {
	return errors.IsServiceUnavailable(err) || isNetwork(err)
}

// informed watches many kinds through a shared factory while others write, and compares the stores with lists.
func informed(t *T) {
	namespace := t.Namespace()
	config := t.Config()
	asked := &counted{}
	config.Wrap(asked.over)
	clients := t.Clients(config)
	factory := informers.NewSharedInformerFactory(clients, 0)
	maps := factory.Core().V1().ConfigMaps()
	follow := newFollower(t)
	_, err := maps.Informer().AddEventHandler(follow)
	t.Must(err, "add a handler")
	for _, one := range append(namespacedLives(clients, clients, namespace), clusterLives(clients, clients)...) {
		_, err := factory.ForResource(resourceOf(t, clients, kindOf(one.sample)))
		t.Must(err, "informer of "+one.kind)
	}
	factory.Start(t.Done())
	for kind, synced := range factory.WaitForCacheSync(t.Done()) {
		t.Want(synced, "%v has not synced", kind)
	}
	t.Want(asked.streams.Load() > 40, "only %d lists came as watches", asked.streams.Load())
	t.Want(asked.lists.Load() == 0, "%d informers had to list", asked.lists.Load())
	churn(t, clients, namespace, 6, 3*time.Second)
	t.sameStore(clients, namespace, maps.Informer())
	follow.complete(maps.Informer())
}

// counted counts how informers begin.
type counted struct {
	streams, lists atomic.Int32
	next           http.RoundTripper
}

func (c *counted) over(next http.RoundTripper) http.RoundTripper {
	c.next = next
	return c
}

func (c *counted) RoundTrip(request *http.Request) (*http.Response, error) {
	query := request.URL.Query()
	switch {
	case query.Get("sendInitialEvents") == "true":
		c.streams.Add(1)
	case query.Has("resourceVersion") && !query.Has("watch"):
		c.lists.Add(1)
	}
	return c.next.RoundTrip(request)
}

// restarted kills the server twice under an informer and writers: watches go on, and what the informer holds is true.
func restarted(t *T) {
	namespace := t.Namespace()
	clients := t.Clients(t.Config())
	factory := informers.NewSharedInformerFactoryWithOptions(clients, 0, informers.WithNamespace(namespace))
	maps := factory.Core().V1().ConfigMaps()
	follow := newFollower(t)
	_, err := maps.Informer().AddEventHandler(follow)
	t.Must(err, "add a handler")
	factory.Start(t.Done())
	factory.WaitForCacheSync(t.Done())
	for range 2 {
		var writers sync.WaitGroup
		writers.Go(func() { churn(t, clients, namespace, 3, 2*time.Second) })
		time.Sleep(time.Second)
		t.Must(t.Server.Kill(), "kill the server")
		t.Must(t.Server.Start(), "start the server")
		writers.Wait()
	}
	t.sameStore(clients, namespace, maps.Informer())
	follow.complete(maps.Informer())
}

// sameStore waits until the informer holds what a list says.
func (t *T) sameStore(clients *kubernetes.Clientset, namespace string, informer cache.SharedIndexInformer) {
	listed, err := clients.CoreV1().ConfigMaps(namespace).List(t, metav1.ListOptions{})
	t.Must(err, "list")
	t.Until("the informer holds what is there", func() bool {
		held := 0
		for _, one := range informer.GetStore().List() {
			if one.(*corev1.ConfigMap).Namespace == namespace {
				held++
			}
		}
		if held != len(listed.Items) {
			return false
		}
		for i := range listed.Items {
			one, is, _ := informer.GetStore().Get(&listed.Items[i])
			if !is || differs(one.(*corev1.ConfigMap), &listed.Items[i]) != "" {
				return false
			}
		}
		return true
	})
}

// A follower is a handler that holds each event against those before it.
type follower struct {
	t    *T
	lock sync.Mutex
	held map[string]*corev1.ConfigMap
}

func newFollower(t *T) *follower { return &follower{t: t, held: map[string]*corev1.ConfigMap{}} }

func (f *follower) OnAdd(one any, _ bool) {
	f.lock.Lock()
	defer f.lock.Unlock()
	added := one.(*corev1.ConfigMap)
	key := added.Namespace + "/" + added.Name
	f.t.Want(f.held[key] == nil, "%s was added twice", key)
	f.held[key] = added
}

func (f *follower) OnUpdate(before, after any) {
	f.lock.Lock()
	defer f.lock.Unlock()
	old, changed := before.(*corev1.ConfigMap), after.(*corev1.ConfigMap)
	key := changed.Namespace + "/" + changed.Name
	known := f.held[key]
	f.t.Want(known != nil && known.ResourceVersion == old.ResourceVersion, "%s: an update of what was not there", key)
	f.held[key] = changed
}

func (f *follower) OnDelete(one any) {
	f.lock.Lock()
	defer f.lock.Unlock()
	if unknown, is := one.(cache.DeletedFinalStateUnknown); is {
		one = unknown.Obj
	}
	deleted := one.(*corev1.ConfigMap)
	key := deleted.Namespace + "/" + deleted.Name
	f.t.Want(f.held[key] != nil, "%s: deleted and was not there", key)
	delete(f.held, key)
}

// complete waits until the handler was told everything.
func (f *follower) complete(informer cache.SharedIndexInformer) {
	f.t.Until("the handler has seen everything", func() bool {
		f.lock.Lock()
		defer f.lock.Unlock()
		if len(f.held) != len(informer.GetStore().ListKeys()) {
			return false
		}
		for key, one := range f.held {
			stored, is, _ := informer.GetStore().GetByKey(key)
			if !is || stored.(*corev1.ConfigMap).ResourceVersion != one.ResourceVersion {
				return false
			}
		}
		return true
	})
}

// streamed asks for a list as a watch, and for bookmarks.
func streamed(t *T) {
	namespace := t.Namespace()
	maps := t.Clients(t.Config()).CoreV1().ConfigMaps(namespace)
	for i := range 5 {
		_, err := maps.Create(t, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("m-", i)}}, metav1.CreateOptions{})
		t.Must(err, "create")
	}
	watcher, err := maps.Watch(t, metav1.ListOptions{
		SendInitialEvents: ptr(true), ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan, AllowWatchBookmarks: true})
	t.Must(err, "watch")
	defer watcher.Stop()
	added := 0
	for event := range watcher.ResultChan() {
		if event.Type == watch.Added {
			added++
			continue
		}
		marked := event.Object.(*corev1.ConfigMap)
		t.Want(event.Type == watch.Bookmark, "an event of type %s", event.Type)
		t.Want(marked.Annotations[metav1.InitialEventsAnnotationKey] == "true", "a bookmark with %v", marked.Annotations)
		t.Want(marked.ResourceVersion != "" && marked.Name == "", "a bookmark is %v", marked)
		break
	}
	// kube-root-ca.crt is there too, if its controller was fast.
	t.Want(added == 5 || added == 6, "%d objects came", added)
}

// retried reads with the watcher that begins again where it was, over a server that is killed.
func retried(t *T) {
	namespace := t.Namespace()
	clients := t.Clients(t.Config())
	maps := clients.CoreV1().ConfigMaps(namespace)
	first, err := maps.Create(t, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "first"}}, metav1.CreateOptions{})
	t.Must(err, "create")
	selected := fields.OneTermNotEqualSelector("metadata.name", "kube-root-ca.crt").String()
	watcher, err := watchtools.NewRetryWatcherWithContext(t, first.ResourceVersion, &cache.ListWatch{
		WatchFunc: func(options metav1.ListOptions) (watch.Interface, error) {
			options.FieldSelector = selected
			return maps.Watch(t, options)
		}})
	t.Must(err, "watch again and again")
	defer watcher.Stop()
	var writers sync.WaitGroup
	writers.Go(func() {
		for i := range 200 {
			one := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("m-", i)}}
			t.Until("it is created", func() bool {
				_, err := maps.Create(t, one, metav1.CreateOptions{})
				return err == nil || errors.IsAlreadyExists(err)
			})
		}
	})
	time.Sleep(100 * time.Millisecond)
	t.Must(t.Server.Kill(), "kill the server")
	t.Must(t.Server.Start(), "start the server")
	for i := range 200 {
		select {
		case event := <-watcher.ResultChan():
			one, is := event.Object.(*corev1.ConfigMap)
			if !is || event.Type != watch.Added || one.Name != fmt.Sprint("m-", i) {
				t.Fatalf("event %d is %v", i, event)
			}
		case <-time.After(30 * time.Second):
			t.Fatalf("event %d does not come", i)
		}
	}
	writers.Wait()
}

// untilThere waits for conditions with the tools controllers use.
func untilThere(t *T) {
	namespace := t.Namespace()
	clients := t.Clients(t.Config())
	listed := cache.NewListWatchFromClient(clients.CoreV1().RESTClient(), "configmaps", namespace, fields.OneTermEqualSelector("metadata.name", "late"))
	go func() {
		time.Sleep(200 * time.Millisecond)
		one := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "late"}, Data: map[string]string{"k": "v"}}
		if _, err := clients.CoreV1().ConfigMaps(namespace).Create(t, one, metav1.CreateOptions{}); err != nil {
			t.Errorf("create: %v", err)
		}
	}()
	event, err := watchtools.UntilWithSync(t, listed, &corev1.ConfigMap{}, nil, func(event watch.Event) (bool, error) {
		return event.Type == watch.Added, nil
	})
	t.Must(err, "until it is there")
	t.Want(event.Object.(*corev1.ConfigMap).Data["k"] == "v", "it is %v", event.Object)
}

// tooOld asks for what nobody remembers.
func tooOld(t *T) {
	clients := t.Clients(t.Config())
	maps := clients.CoreV1().ConfigMaps(t.Namespace())
	_, err := maps.List(t, metav1.ListOptions{ResourceVersion: "99999999999", ResourceVersionMatch: "Exact"})
	t.Want(err != nil, "a list at a version that is not yet was answered")
	// Left alone, a client would ask ten times.
	err = clients.CoreV1().RESTClient().Get().MaxRetries(0).AbsPath("/api/v1/configmaps").
		Param("resourceVersion", "99999999999").Param("resourceVersionMatch", "NotOlderThan").Do(t).Error()
	t.Refused(err, func(err error) bool {
		return errors.IsTimeout(err) && errors.HasStatusCause(err, metav1.CauseTypeResourceVersionTooLarge)
	}, "list what is not yet")
	_, err = maps.List(t, metav1.ListOptions{ResourceVersion: "abc"})
	t.Refused(err, func(err error) bool { return errors.IsBadRequest(err) || errors.IsInvalid(err) }, "list at no number")
	_, err = maps.List(t, metav1.ListOptions{Limit: 1, Continue: "rubbish"})
	t.Refused(err, errors.IsBadRequest, "continue at rubbish")
}

// stayedAway goes on from a version that is older than what the server remembers.
func stayedAway(t *T) {
	clients := t.Clients(t.Config())
	maps := clients.CoreV1().ConfigMaps(t.Namespace())
	first, err := maps.Create(t, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "large"}}, metav1.CreateOptions{})
	t.Must(err, "create")
	// More than is remembered of the past, in few writes.
	for i := range 60 {
		first.Data = map[string]string{"k": strings.Repeat(string(rune('a'+i%26)), 900_000)}
		first.ResourceVersion = ""
		_, err = maps.Update(t, first, metav1.UpdateOptions{})
		t.Must(err, "update")
	}
	listed, err := maps.List(t, metav1.ListOptions{Limit: 1})
	t.Must(err, "list")
	old := "1"
	t.Want(listed.ResourceVersion > old, "nothing happened")
	watcher, err := maps.Watch(t, metav1.ListOptions{ResourceVersion: old})
	t.Must(err, "watch")
	event := <-watcher.ResultChan()
	watcher.Stop()
	t.Want(event.Type == watch.Error, "a watch of the past begins with %v", event.Type)
	err = errors.FromObject(event.Object)
	t.Want(errors.IsResourceExpired(err) || errors.IsGone(err), "a watch of the past is refused by %v", err)

	lists := atomic.Int32{}
	source := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			list, err := maps.List(ctx, options)
			// As if the first list had been long ago.
			if err == nil && lists.Add(1) == 1 {
				list.ResourceVersion, list.Items = old, nil
			}
			return list, err
		},
		WatchFuncWithContext: maps.Watch,
	}
	store := cache.NewStore(cache.MetaNamespaceKeyFunc)
	reflector := cache.NewReflector(plainLists{source}, &corev1.ConfigMap{}, store, 0)
	ctx, cancel := context.WithCancel(t)
	defer cancel()
	go reflector.RunWithContext(ctx)
	t.Until("the reflector lists again", func() bool { return lists.Load() > 1 && len(store.List()) >= 2 })
}

// plainLists keeps a reflector from having its list told as a watch.
type plainLists struct{ *cache.ListWatch }

func (plainLists) IsWatchListSemanticsUnSupported() bool { return true }

func resourceOf(t *T, clients *kubernetes.Clientset, kind schema.GroupVersionKind) schema.GroupVersionResource {
	list, err := clients.Discovery().ServerResourcesForGroupVersion(kind.GroupVersion().String())
	t.Must(err, "discovery")
	for _, resource := range list.APIResources {
		if resource.Kind == kind.Kind {
			return kind.GroupVersion().WithResource(resource.Name)
		}
	}
	t.Fatalf("%v is not served", kind)
	return schema.GroupVersionResource{}
}
