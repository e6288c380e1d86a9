package main

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/client-go/tools/record"
)

// elected has three candidates, of whom the one who leads is silenced.
func elected(t *T) {
	namespace := t.Namespace()
	clients := t.Clients(t.Config())
	var leading atomic.Int32
	led := make(chan int, 3)
	stops := make([]context.CancelFunc, 3)
	for i := range 3 {
		ctx, stop := context.WithCancel(t)
		stops[i] = stop
		lock, err := resourcelock.New(resourcelock.LeasesResourceLock, namespace, "leader", clients.CoreV1(), clients.CoordinationV1(),
			resourcelock.ResourceLockConfig{Identity: fmt.Sprint("candidate-", i)})
		t.Must(err, "a lock")
		go leaderelection.RunOrDie(ctx, leaderelection.LeaderElectionConfig{
			Lock: lock, LeaseDuration: 2 * time.Second, RenewDeadline: time.Second, RetryPeriod: 200 * time.Millisecond,
			Callbacks: leaderelection.LeaderCallbacks{
				OnStartedLeading: func(context.Context) {
					t.Want(leading.Add(1) == 1, "two lead at once")
					led <- i
				},
				OnStoppedLeading: func() {},
			}})
	}
	var first int
	for round := range 2 {
		select {
		case leader := <-led:
			t.Want(round == 0 || leader != first, "one who has left leads again")
			first = leader
			lease, err := clients.CoordinationV1().Leases(namespace).Get(t, "leader", metav1.GetOptions{})
			t.Must(err, "get the lease")
			t.Want(*lease.Spec.HolderIdentity == fmt.Sprint("candidate-", leader), "the lease is held by %s", *lease.Spec.HolderIdentity)
			leading.Add(-1)
			stops[leader]()
		case <-time.After(20 * time.Second):
			t.Fatalf("nobody leads in round %d", round)
		}
	}
	for _, stop := range stops {
		stop()
	}
}

// told records events of both generations and counts them where they are the same.
func told(t *T) {
	namespace := t.Namespace()
	clients := t.Clients(t.Config())
	about := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "subject", Namespace: namespace, UID: "u-1"}}
	old := record.NewBroadcaster()
	defer old.Shutdown()
	old.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: clients.CoreV1().Events("")})
	recorder := old.NewRecorder(scheme.Scheme, corev1.EventSource{Component: "clients"})
	for range 3 {
		recorder.Eventf(about, corev1.EventTypeWarning, "Old", "the same %s", "thing")
	}
	t.Until("the old event is counted", func() bool {
		list, err := clients.CoreV1().Events(namespace).List(t, metav1.ListOptions{FieldSelector: "reason=Old,involvedObject.uid=u-1"})
		return err == nil && len(list.Items) == 1 && list.Items[0].Count == 3
	})
	fresh := events.NewBroadcaster(&events.EventSinkImpl{Interface: clients.EventsV1()})
	t.Must(fresh.StartRecordingToSinkWithContext(t), "record events")
	defer fresh.Shutdown()
	teller := fresh.NewRecorder(scheme.Scheme, "example.org/clients")
	for range 3 {
		teller.Eventf(about, nil, corev1.EventTypeNormal, "New", "Tell", "the same %s", "thing")
	}
	var told *eventsv1.Event
	t.Until("the new event has a series", func() bool {
		list, err := clients.EventsV1().Events(namespace).List(t, metav1.ListOptions{FieldSelector: "reason=New"})
		if err != nil || len(list.Items) != 1 {
			return false
		}
		told = &list.Items[0]
		return told.Series != nil && told.Series.Count >= 2
	})
	t.Want(told.ReportingController == "example.org/clients" && strings.HasPrefix(told.Name, "subject."), "the event is %v", told)
}
