package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"
	"k8s.io/streaming/pkg/httpstream/wsstream"
)

// A node is a kubelet that plays: it has logs to tell, processes that shout what they hear, and ports that echo.
type node struct {
	port int
	// old nodes know SPDY only, as kubelets did before.
	old bool
}

// playNode listens until the case ends.
func playNode(t *T, old bool) *node {
	one := &node{old: old}
	mux := http.NewServeMux()
	mux.HandleFunc("/containerLogs/", one.logs)
	mux.HandleFunc("/exec/", one.process)
	mux.HandleFunc("/attach/", one.process)
	mux.HandleFunc("/portForward/", one.forward)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	t.Must(err, "listen")
	one.port = listener.Addr().(*net.TCPAddr).Port
	server := &http.Server{Handler: mux, TLSConfig: &tls.Config{Certificates: []tls.Certificate{t.servingCertificate()}},
		// Connections are taken over, which the second version of HTTP has no way to do.
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){}}
	go func() { _ = server.ServeTLS(listener, "", "") }()
	t.After(func() { _ = server.Close() })
	return one
}

// servingCertificate is one that the API server trusts a node with.
func (t *T) servingCertificate() tls.Certificate {
	folder := filepath.Join(t.Server.Folder, "pki")
	pair, err := tls.LoadX509KeyPair(filepath.Join(folder, "ca.crt"), filepath.Join(folder, "ca.key"))
	t.Must(err, "the authority")
	authority, err := x509.ParseCertificate(pair.Certificate[0])
	t.Must(err, "the authority's certificate")
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	t.Must(err, "a key")
	template := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "system:node:player"},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	signed, err := x509.CreateCertificate(rand.Reader, template, authority, key.Public(), pair.PrivateKey)
	t.Must(err, "sign")
	return tls.Certificate{Certificate: [][]byte{signed}, PrivateKey: key}
}

// logs tells what it was asked, and goes on for a while when it is followed.
func (n *node) logs(out http.ResponseWriter, asked *http.Request) {
	query := asked.URL.Query()
	fmt.Fprintf(out, "%s tail=%s since=%s\n", asked.URL.Path, query.Get("tailLines"), query.Get("sinceSeconds"))
	for i := 0; query.Get("follow") == "true" && i < 3; i++ {
		_ = http.NewResponseController(out).Flush()
		time.Sleep(50 * time.Millisecond)
		fmt.Fprintf(out, "line %d\n", i)
	}
}

// streams are those of a process; any may be missing.
type streams struct {
	input                io.Reader
	output, wrong, ended io.WriteCloser
}

// process runs whatever the command says: nothing but shouting.
func (n *node) process(out http.ResponseWriter, asked *http.Request) {
	if wsstream.IsWebSocketRequest(asked) {
		if n.old {
			http.Error(out, "no WebSocket here", http.StatusBadRequest)
			return
		}
		channels := []wsstream.ChannelType{wsstream.ReadChannel, wsstream.WriteChannel, wsstream.WriteChannel, wsstream.WriteChannel, wsstream.IgnoreChannel}
		connection := wsstream.NewConn(map[string]wsstream.ChannelProtocolConfig{"v5.channel.k8s.io": {Binary: true, Channels: channels}})
		_, opened, err := connection.Open(out, asked)
		if err != nil {
			return
		}
		defer connection.Close()
		shout(asked, streams{opened[0], opened[1], opened[2], opened[3]})
		return
	}
	if _, err := httpstream.Handshake(asked, out, []string{"v4.channel.k8s.io"}); err != nil {
		http.Error(out, err.Error(), http.StatusBadRequest)
		return
	}
	opened := make(chan httpstream.Stream, 8)
	connection := spdy.NewResponseUpgrader().UpgradeResponse(out, asked, func(stream httpstream.Stream, _ <-chan struct{}) error {
		opened <- stream
		return nil
	})
	if connection == nil {
		return
	}
	defer connection.Close()
	query, want, have := asked.URL.Query(), 1, streams{}
	for _, name := range []string{"input", "output", "error"} {
		if query.Get(name) == "1" {
			want++
		}
	}
	for range want {
		switch stream := <-opened; stream.Headers().Get("streamType") {
		case "stdin":
			have.input = stream
		case "stdout":
			have.output = stream
		case "stderr":
			have.wrong = stream
		case "error":
			have.ended = stream
		}
	}
	shout(asked, have)
	// What was written is to arrive before the connection ends.
	select {
	case <-connection.CloseChan():
	case <-time.After(5 * time.Second):
	}
}

func shout(asked *http.Request, have streams) {
	query := asked.URL.Query()
	if have.input != nil && query.Get("input") == "1" {
		heard, _ := io.ReadAll(have.input)
		_, _ = have.output.Write(bytes.ToUpper(heard))
	} else {
		fmt.Fprintf(have.output, "%s %s\n", asked.URL.Path, strings.Join(query["command"], " "))
	}
	status := metav1.Status{Status: metav1.StatusSuccess}
	if query.Get("command") == "fail" {
		fmt.Fprintln(have.wrong, "it failed")
		status = metav1.Status{Status: metav1.StatusFailure, Reason: "NonZeroExitCode", Message: "command terminated with exit code 7",
			Details: &metav1.StatusDetails{Causes: []metav1.StatusCause{{Type: "ExitCode", Message: "7"}}}}
	}
	said, err := json.Marshal(status)
	if err != nil {
		panic(err) // A status can be written as JSON.
	}
	_, _ = have.ended.Write(said)
	for _, one := range []io.WriteCloser{have.output, have.wrong, have.ended} {
		if one != nil {
			_ = one.Close()
		}
	}
}

// forward echoes what is sent to a port, behind the port's number.
func (n *node) forward(out http.ResponseWriter, asked *http.Request) {
	if _, err := httpstream.Handshake(asked, out, []string{"portforward.k8s.io"}); err != nil {
		http.Error(out, err.Error(), http.StatusBadRequest)
		return
	}
	connection := spdy.NewResponseUpgrader().UpgradeResponse(out, asked, func(stream httpstream.Stream, replied <-chan struct{}) error {
		go func() {
			<-replied
			defer stream.Close()
			if stream.Headers().Get("streamType") == "data" {
				fmt.Fprintf(stream, "%s ", stream.Headers().Get("port"))
				_, _ = io.Copy(stream, stream)
			}
		}()
		return nil
	})
	if connection != nil {
		<-connection.CloseChan()
	}
}
