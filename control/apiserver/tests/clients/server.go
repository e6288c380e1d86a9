package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// Options are the programs that are run.
type Options struct {
	Control, Kubectl, Etcd string
	// Kubernetes' own server of custom resources, and the etcd it keeps them in.
	Twin, TwinEtcd string
}

// A Server is a hawser-control with all its roles, which can be killed and started again.
type Server struct {
	Options
	Folder   string
	port     int
	etcdPort int
	process  *exec.Cmd
	etcd     *exec.Cmd
}

// StartServer returns when the server is ready.
func StartServer(options Options) (*Server, error) {
	folder, err := os.MkdirTemp("", "clients-")
	if err != nil {
		return nil, err
	}
	ports, err := freePorts(3)
	if err != nil {
		return nil, err
	}
	server := &Server{Options: options, Folder: folder, port: ports[0], etcdPort: ports[1]}
	if options.Etcd != "" {
		if err := server.startEtcd(ports[2]); err != nil {
			return nil, errors.Join(err, server.Close())
		}
	}
	if err := server.Start(); err != nil {
		return nil, errors.Join(err, server.Close())
	}
	return server, nil
}

// Start runs the program on what the folder holds and waits until it is ready.
func (s *Server) Start() error {
	arguments := []string{"run", "--data-dir", s.Folder, "--bind-address", fmt.Sprintf("127.0.0.1:%d", s.port)}
	if s.etcd != nil {
		arguments = append(arguments, "--etcd-servers", fmt.Sprintf("http://127.0.0.1:%d", s.etcdPort))
	}
	s.process = exec.Command(s.Control, arguments...)
	if err := s.run(s.process, "control.log"); err != nil {
		return err
	}
	return s.ready()
}

// Kill ends the process as kill -9 does.
func (s *Server) Kill() error {
	if err := s.process.Process.Kill(); err != nil {
		return err
	}
	// It was killed, which is what Wait would say.
	_ = s.process.Wait()
	return nil
}

// Close ends everything and removes the folder.
func (s *Server) Close() error {
	for _, process := range []*exec.Cmd{s.process, s.etcd} {
		if process != nil && process.Process != nil {
			_ = process.Process.Kill()
			_ = process.Wait()
		}
	}
	return os.RemoveAll(s.Folder)
}

// Kubeconfig is the administrator's.
func (s *Server) Kubeconfig() string { return filepath.Join(s.Folder, "admin.kubeconfig") }

// Config is what the administrator connects with. The content types are those of Kubernetes' own tests.
func (s *Server) Config() *rest.Config {
	config, err := clientcmd.BuildConfigFromFlags("", s.Kubeconfig())
	if err != nil {
		panic(err) // The server has written the file before it was ready.
	}
	config.ContentType = "application/vnd.kubernetes.protobuf"
	config.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	config.QPS = -1
	return config
}

func (s *Server) startEtcd(peerPort int) error {
	at, peer := fmt.Sprintf("http://127.0.0.1:%d", s.etcdPort), fmt.Sprintf("http://127.0.0.1:%d", peerPort)
	s.etcd = exec.Command(s.Etcd, "--data-dir", filepath.Join(s.Folder, "etcd"),
		"--listen-client-urls", at, "--advertise-client-urls", at, "--listen-peer-urls", peer,
		"--initial-advertise-peer-urls", peer, "--initial-cluster", "default="+peer)
	return s.run(s.etcd, "etcd.log")
}

// run starts a process that ends with this one.
func (s *Server) run(process *exec.Cmd, log string) error {
	file, err := os.OpenFile(filepath.Join(s.Folder, log), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer file.Close()
	process.Stdout, process.Stderr = file, file
	process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return process.Start()
}

func (s *Server) ready() error {
	var last error
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		config, err := clientcmd.BuildConfigFromFlags("", s.Kubeconfig())
		if err != nil {
			last = err
			continue
		}
		clients, err := kubernetes.NewForConfig(config)
		if err != nil {
			return err
		}
		_, last = clients.Discovery().RESTClient().Get().AbsPath("/readyz").DoRaw(context.Background())
		if last == nil {
			return nil
		}
	}
	log, err := os.ReadFile(filepath.Join(s.Folder, "control.log"))
	return fmt.Errorf("the server is not ready after a minute: %w\n%s", errors.Join(last, err), log)
}

func freePorts(count int) ([]int, error) {
	ports := make([]int, count)
	for i := range ports {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		// Held until all are known, so that they differ.
		defer listener.Close()
		ports[i] = listener.Addr().(*net.TCPAddr).Port
	}
	return ports, nil
}
