//! A private containerd: own root, state, socket and configuration, so that nothing of the machine's is touched.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Where a private containerd has what.
#[derive(Debug, Clone)]
pub struct Containerd {
    /// Images and containers; survives a restart.
    pub root: PathBuf,
    /// Sockets of shims and mounts; does not survive a restart of the machine.
    pub state: PathBuf,
    /// Where it listens.
    pub socket: PathBuf,
    /// Where it looks for CNI plugins.
    pub cni_bin: PathBuf,
    /// Where it looks for CNI configurations.
    pub cni_conf: PathBuf,
    /// The image that holds a pod's namespaces; must have been imported.
    pub sandbox_image: String,
}

impl Containerd {
    /// Everything below one folder.
    pub fn below(folder: &Path, sandbox_image: &str) -> Self {
        Self {
            root: folder.join("root"),
            state: folder.join("state"),
            socket: folder.join("containerd.sock"),
            cni_bin: folder.join("cni/bin"),
            cni_conf: folder.join("cni/net.d"),
            sandbox_image: sandbox_image.to_owned(),
        }
    }

    /// The configuration.
    pub fn config_toml(&self) -> String {
        config_toml(
            &self.root,
            &self.state,
            &self.socket,
            (&self.cni_bin, &self.cni_conf),
            &self.sandbox_image,
        )
    }

    /// Where its configuration is written.
    pub fn config_path(&self) -> PathBuf {
        self.root.with_extension("toml")
    }

    /// Makes its folders and writes its configuration.
    pub fn prepare(&self) -> Result<()> {
        for folder in [&self.root, &self.state, &self.cni_bin, &self.cni_conf] {
            std::fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        }
        let config = self.config_path();
        std::fs::write(&config, self.config_toml()).with_context(|| format!("write {}", config.display()))
    }

    /// The command that runs it in the foreground.
    pub fn command(&self) -> Command {
        let mut command = Command::new("containerd");
        command.arg("--config").arg(self.config_path());
        command
    }

    /// Prepares and starts it with its log in `log`, and waits until it answers.
    pub fn start(&self, log: &Path) -> Result<Child> {
        self.prepare()?;
        let log_file = std::fs::File::create(log).with_context(|| format!("create {}", log.display()))?;
        let mut child = self
            .command()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log_file)
            .spawn()
            .context("start containerd: apt-get install containerd runc")?;
        let deadline = Instant::now() + Duration::from_secs(20);
        while !self.answers() {
            if let Some(status) = child.try_wait().context("ask after containerd")? {
                bail!("containerd ended with {status}; its log is {}", log.display());
            }
            if Instant::now() > deadline {
                child.kill().context("stop containerd")?;
                bail!("containerd does not answer; its log is {}", log.display());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(child)
    }

    /// Does it answer?
    pub fn answers(&self) -> bool {
        self.ctr(&["version"]).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|s| s.success())
    }

    /// Imports an image archive into the namespace of Kubernetes.
    pub fn import(&self, archive: &[u8]) -> Result<()> {
        use std::io::Write;
        let mut child = self
            .ctr(&["-n", "k8s.io", "images", "import", "--digests=false", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("start ctr")?;
        child.stdin.take().context("ctr has no standard input")?.write_all(archive).context("feed ctr")?;
        let output = child.wait_with_output().context("wait for ctr")?;
        if !output.status.success() {
            bail!("ctr images import: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }

    /// `ctr` for this containerd.
    pub fn ctr(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("ctr");
        command.arg("--address").arg(&self.socket).arg("--connect-timeout").arg("2s").args(arguments);
        command
    }
}

/// The configuration of a private containerd 1.6 or 1.7 for pods.
///
/// `cgroupfs` because there may be no systemd; huge pages and lowered OOM scores are given up where root lacks the
/// capabilities for them, as in containers and many virtual machines.
pub fn config_toml(
    root: &Path,
    state: &Path,
    socket: &Path,
    (cni_bin, cni_conf): (&Path, &Path),
    sandbox_image: &str,
) -> String {
    let (root, state, socket) = (root.display(), state.display(), socket.display());
    let (cni_bin, cni_conf) = (cni_bin.display(), cni_conf.display());
    format!(
        r#"version = 2
root = "{root}"
state = "{state}"
oom_score = 0
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs", "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing",
]

[grpc]
  address = "{socket}"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{sandbox_image}"
  disable_hugetlb_controller = true
  restrict_oom_score_adj = true
  disable_apparmor = true
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  netns_mounts_under_state_dir = true

  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{cni_bin}"
    conf_dir = "{cni_conf}"

  [plugins."io.containerd.grpc.v1.cri".containerd]
    default_runtime_name = "runc"

    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"

      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_names_every_place() {
        let text = Containerd::below(Path::new("/x"), "pause:1").config_toml();
        for part in ["/x/root", "/x/state", "/x/containerd.sock", "/x/cni/bin", "/x/cni/net.d", "\"pause:1\""]
        {
            assert!(text.contains(part), "{part}");
        }
    }
}
