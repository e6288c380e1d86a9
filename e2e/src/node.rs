//! One node: a namespace with containerd and the agent in it.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::cgroup;
use crate::cluster::Binaries;
use crate::containerd::Containerd;
use crate::daemon::{self, Daemon};
use crate::image;
use crate::layout::{Layout, NodeLayout};
use crate::network;
use crate::place::Place;

const PAUSE_IMAGE: &str = "hawser.dev/pause:local";
const CONTAINERD_PATIENCE: Duration = Duration::from_secs(20);

/// A node of a running cluster.
#[derive(Debug, Clone)]
pub struct Node {
    pub layout: NodeLayout,
    pub agent: Daemon,
    containerd: Daemon,
    cluster: Layout,
}

impl Node {
    pub(crate) fn new(cluster: &Layout, number: u8) -> Self {
        let daemon = |program: &str| Daemon::new(cluster, &format!("n{number}-{program}"));
        Self {
            layout: cluster.node(number),
            agent: daemon("agent"),
            containerd: daemon("containerd"),
            cluster: cluster.clone(),
        }
    }

    /// The node's namespace and cgroup, where its host processes run.
    pub fn place(&self) -> Result<Place> {
        let cgroup = cgroup::unified()?.join(self.layout.scope());
        Ok(Place { netns: Some(self.layout.netns()), cgroup: Some(cgroup) })
    }

    /// What happens to a node that loses its power: its link is down and no process of it runs. [`Node::start`] brings it back.
    pub fn crash(&self) -> Result<()> {
        network::unplug(&self.layout)?;
        for daemon in [&self.agent, &self.containerd] {
            daemon.kill()?;
        }
        daemon::kill_all(&daemon::strays(&[self.layout.state(), self.layout.run()])?);
        cgroup::kill_node(&self.layout.scope())
    }

    /// Makes the node one on which nothing has run yet: no process, a new namespace, an empty cgroup, no pin.
    pub fn clear(&self) -> Result<()> {
        self.crash()?;
        network::remove_node(&self.layout)?;
        cgroup::remove_node(&self.layout.scope())?;
        let pins = self.layout.bpffs();
        if pins.exists() {
            std::fs::remove_dir_all(&pins).with_context(|| format!("remove {}", pins.display()))?;
        }
        network::make_node(&self.cluster, &self.layout)?;
        cgroup::make(&self.layout.scope()).map(drop)
    }

    /// Makes the namespace, starts containerd, imports the images and starts the agent; returns before it is Ready.
    pub fn start(&self, binaries: &Binaries) -> Result<()> {
        network::make_node(&self.cluster, &self.layout)?;
        cgroup::make(&self.layout.scope())?;
        for folder in [self.layout.state(), self.layout.run()] {
            std::fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
        }
        self.issue_credentials(binaries)?;
        let containerd = self.containerd_layout();
        containerd.prepare()?;
        self.containerd.start(containerd.command(), &self.place()?)?;
        self.wait_for_containerd(&containerd)?;
        containerd.import(&image::pause_image(PAUSE_IMAGE)?)?;
        containerd.import(&image::program_image(image::HELLO, &binaries.hello)?)?;
        self.start_agent(binaries)
    }

    /// Gives the node an image.
    pub fn import(&self, archive: &[u8]) -> Result<()> {
        self.containerd_layout().import(archive)
    }

    /// Starts the agent alone, as after a crash of it.
    pub fn start_agent(&self, binaries: &Binaries) -> Result<()> {
        self.start_agent_with(binaries, 1)
    }

    /// Starts an agent whose maps are so many times as large.
    pub fn start_agent_with(&self, binaries: &Binaries, map_scale: u32) -> Result<()> {
        let state = self.layout.state();
        let credentials = self.credentials();
        let addresses = self.layout.addresses().map(|address| address.to_string()).join(",");
        let mut command = Command::new(&binaries.agent);
        command.arg("run").args(["--node-name", &self.layout.name()]).args(["--node-ip", &addresses]);
        command.arg("--kubeconfig").arg(credentials.join("kubeconfig"));
        command.args(["--pods", "on", "--cri-endpoint"]);
        command.arg(format!("unix://{}", self.layout.containerd_socket().display()));
        command.arg("--state-dir").arg(state.join("agent")).arg("--run-dir").arg(self.layout.run());
        command.arg("--bpffs").arg(self.layout.bpffs());
        command.arg("--cgroup-root").arg(cgroup::unified()?.join(self.layout.scope()));
        command.args(["--cgroup-parent", &self.layout.scope(), "--uplink", "eth0"]);
        command.arg("--cni-bin-dir").arg(state.join("cni/bin"));
        command.arg("--cni-conf-dir").arg(state.join("cni/net.d"));
        command.args(["--kubelet-address", &format!("{}:10250", self.layout.v4())]);
        command.arg("--kubelet-cert").arg(credentials.join("kubelet.crt"));
        command.arg("--kubelet-key").arg(credentials.join("kubelet.key"));
        command.arg("--client-ca").arg(credentials.join("ca.crt"));
        command.args(["--map-scale", &map_scale.to_string()]);
        self.agent.start(command, &self.place()?)
    }

    /// An error with the end of a log when one of the node's processes is gone.
    pub(crate) fn check(&self) -> Result<()> {
        self.containerd.check()?;
        self.agent.check()
    }

    fn credentials(&self) -> PathBuf {
        self.layout.state().join("credentials")
    }

    fn containerd_layout(&self) -> Containerd {
        let state = self.layout.state();
        Containerd {
            root: state.join("containerd"),
            state: self.layout.run().join("containerd"),
            socket: self.layout.containerd_socket(),
            cni_bin: state.join("cni/bin"),
            cni_conf: state.join("cni/net.d"),
            sandbox_image: PAUSE_IMAGE.to_owned(),
        }
    }

    fn issue_credentials(&self, binaries: &Binaries) -> Result<()> {
        let addresses = self.layout.addresses().map(|address| address.to_string()).join(",");
        let output = Command::new(&binaries.control)
            .arg("node-credentials")
            .arg("--data-dir")
            .arg(self.cluster.control())
            .args(["--node", &self.layout.name(), "--address", &addresses])
            .args(["--server", &format!("https://{}:{}", self.cluster.host_v4(), self.cluster.api_port())])
            .arg("--out")
            .arg(self.credentials())
            .stdin(Stdio::null())
            .output()
            .context("start hawser-control node-credentials")?;
        if !output.status.success() {
            bail!("hawser-control node-credentials: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(())
    }

    fn wait_for_containerd(&self, containerd: &Containerd) -> Result<()> {
        let deadline = Instant::now() + CONTAINERD_PATIENCE;
        while !containerd.answers() {
            self.containerd.check()?;
            if Instant::now() > deadline {
                bail!("containerd does not answer; the end of its log is:\n{}", self.containerd.tail());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}
