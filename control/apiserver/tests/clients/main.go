// Clients of the API server as people have them: client-go, with the defaults of Kubernetes' own tests, and kubectl.
//
// The program starts the servers it asks, runs every case against them, and says which passed. `cargo xtask clients`
// builds it and brings what it needs.

//go:debug default=go1.26
package main

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
)

// A Case is what one kind of client wants, as a sentence.
type Case struct {
	Name string
	Run  func(*T)
}

func main() {
	var options Options
	flag.StringVar(&options.Control, "control", "", "the program hawser-control")
	flag.StringVar(&options.Kubectl, "kubectl", "", "the program kubectl")
	flag.StringVar(&options.Etcd, "etcd", "", "the program etcd, if objects are kept in one")
	flag.StringVar(&options.Twin, "twin", "", "the program apiextensions-apiserver")
	flag.StringVar(&options.TwinEtcd, "twin-etcd", "", "the program etcd for it")
	only := flag.String("run", "", "run only the cases whose names match")
	patience := flag.Duration("patience", 2*time.Minute, "how long a case may take")
	flag.Parse()
	// A case says itself what is wrong.
	klog.SetLogger(logr.Discard())
	rest.SetDefaultWarningHandler(rest.NoWarnings{})

	failed, err := runAll(options, regexp.MustCompile(*only), *patience)
	if err != nil {
		fmt.Fprintln(os.Stderr, "clients:", err)
		os.Exit(2)
	}
	if failed > 0 {
		fmt.Printf("%d of the cases FAILED\n", failed)
		os.Exit(1)
	}
}

func runAll(options Options, only *regexp.Regexp, patience time.Duration) (int, error) {
	server, err := StartServer(options)
	if err != nil {
		return 0, err
	}
	defer server.Close()
	failed, ran := 0, 0
	for _, one := range cases() {
		if !only.MatchString(one.Name) {
			continue
		}
		ran++
		begin := time.Now()
		complaints := runOne(server, one, patience)
		verdict := "ok  "
		if len(complaints) > 0 {
			verdict = "FAIL"
			failed++
		}
		fmt.Printf("%s %s (%.1f s)\n", verdict, one.Name, time.Since(begin).Seconds())
		for _, complaint := range complaints {
			fmt.Println("     ", complaint)
		}
	}
	if ran == 0 {
		return 0, fmt.Errorf("no case is called like %q", only)
	}
	fmt.Printf("%d cases ran\n", ran)
	return failed, nil
}
