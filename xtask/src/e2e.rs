//! End to end: the cluster tests on namespaces of this machine, or the installed agent on a kind cluster.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process::{cargo, on_path, output, root, run};
use crate::{build, setup};

/// What the nodes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Provider {
    /// Network namespaces with a containerd each; needs no Docker.
    Netns,
    /// Containers with upstream's kubelet and API server, made by kind.
    Kind,
}

/// Name of the kind cluster, and with it of its containers.
const CLUSTER: &str = "hawser-e2e";
const ROLLOUT: &str = "--timeout=180s";

/// Runs the tests on nodes of this provider.
pub fn run_on(provider: Provider) -> Result<()> {
    match provider {
        Provider::Netns => {
            setup::ready()?;
            build::bpf()?;
            build::binaries(true)?;
            run(cargo().args(["test", "--package", "e2e", "--test", "suite"]))
        }
        Provider::Kind => {
            preflight()?;
            setup::ready()?;
            build::image()?;
            let outcome = on_kind();
            let removed = run(kind().args(["delete", "cluster", "--name", CLUSTER]));
            outcome.and(removed)
        }
    }
}

/// What cannot be mended here is said before anything is built.
fn preflight() -> Result<()> {
    for (program, from) in [
        ("docker", "https://docs.docker.com/engine/install"),
        ("kind", "https://kind.sigs.k8s.io"),
        ("kubectl", "https://kubernetes.io/docs/tasks/tools"),
    ] {
        if !on_path(program) {
            bail!("`{program}` is not installed ({from}); `--provider netns` needs neither Docker nor kind");
        }
    }
    output(Command::new("docker").args(["version", "--format", "{{.Server.Version}}"]))
        .context("Docker's daemon does not answer; `--provider netns` needs none")?;
    Ok(())
}

fn on_kind() -> Result<()> {
    let config = root().join("deploy/kind.yaml");
    run(kind().args(["create", "cluster", "--name", CLUSTER, "--config"]).arg(config))?;
    for image in ["target/hawser-image.tar", "target/hello-image.tar"] {
        run(kind().args(["load", "image-archive", "--name", CLUSTER]).arg(root().join(image)))?;
    }
    install()?;
    run(kubectl().args(["wait", "--for=condition=Ready", "nodes", "--all", ROLLOUT]))?;
    run(kubectl().args(["apply", "-f"]).arg(root().join("deploy/examples/hello.yaml")))?;
    run(kubectl().args(["rollout", "status", "deployment/hello", ROLLOUT]))?;
    traffic()
}

/// The manifest, with the API server's own address: there is no kube-proxy to provide its service.
fn install() -> Result<()> {
    run(kubectl().args(["apply", "-f"]).arg(root().join("deploy/hawser.yaml")))?;
    let container = format!("{CLUSTER}-control-plane");
    let shown = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
    let address = output(Command::new("docker").args(["inspect", "--format", shown, &container]))?;
    let patch = format!(r#"{{"data":{{"HAWSER_API_SERVER":"https://{}:6443"}}}}"#, address.trim());
    let system = ["--namespace", "kube-system"];
    run(kubectl().args(system).args(["patch", "configmap", "hawser", "--patch", &patch]))?;
    run(kubectl().args(system).args(["rollout", "restart", "daemonset/hawser"]))?;
    run(kubectl().args(system).args(["rollout", "status", "daemonset/hawser", ROLLOUT]))
}

/// Every node reaches the example by its NodePort on every node, and by its ClusterIP.
fn traffic() -> Result<()> {
    let ask = |path: &str| {
        output(kubectl().args(["get", "service", "hello", "--output", &format!("jsonpath={{{path}}}")]))
    };
    let (vip, port) = (ask(".spec.clusterIP")?, ask(".spec.ports[0].nodePort")?);
    let nodes = output(kind().args(["get", "nodes", "--name", CLUSTER]))?;
    let nodes: Vec<&str> = nodes.lines().collect();
    for from in &nodes {
        let mut targets: Vec<String> = nodes.iter().map(|to| format!("{to}:{port}")).collect();
        targets.push(format!("{vip}:80"));
        for target in targets {
            let url = format!("http://{target}/");
            let answer = output(Command::new("docker").args(["exec", from, "curl", "-sf", "-m", "5", &url]))?;
            println!("{from} > {target}: {}", answer.trim());
        }
    }
    Ok(())
}

fn kind() -> Command {
    Command::new("kind")
}

fn kubectl() -> Command {
    let mut command = Command::new("kubectl");
    command.args(["--context", &format!("kind-{CLUSTER}")]);
    command
}
