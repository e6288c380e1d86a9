//! `hawser-control run --roles apiserver` as a process of its own, and what it uses.

use std::process::{Child, Command};
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::client::Client;
use crate::process::{free_port, spawn};

/// Ticks of `/proc/PID/stat` in a second.
const TICKS: f64 = 100.0;

/// A server with a data folder of its own; both are gone with it.
pub struct Server {
    process: Child,
    folder: tempfile::TempDir,
    port: u16,
    /// Requests measured so far: the number of the next one.
    pub sent: AtomicUsize,
    /// From the start to the first good answer of `/readyz`.
    pub ready_ms: f64,
}

impl Server {
    pub async fn start() -> Result<Self> {
        let folder = tempfile::tempdir().context("make a folder")?;
        let free = free_port()?;
        let process = spawn(folder.path(), free).context("start hawser-control")?;
        let mut server = Self { process, folder, port: free, sent: AtomicUsize::new(0), ready_ms: 0.0 };
        server.wait(Instant::now()).await?;
        Ok(server)
    }

    /// Ends the server in order and starts it on the same folder.
    pub async fn restart(&mut self) -> Result<()> {
        self.stop();
        let began = Instant::now();
        self.process = spawn(self.folder.path(), self.port).context("start hawser-control")?;
        self.wait(began).await
    }

    async fn wait(&mut self, began: Instant) -> Result<()> {
        while began.elapsed() < Duration::from_secs(60) {
            if let Ok(client) = self.client(1).await
                && client.send("GET", "/readyz", &serde_json::Value::Null).await.is_ok()
            {
                self.ready_ms = began.elapsed().as_secs_f64() * 1e3;
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        bail!("the API server was not ready within a minute")
    }

    pub async fn client(&self, connections: usize) -> Result<Client> {
        Client::connect(&self.folder.path().join("admin.kubeconfig"), self.port, connections).await
    }

    /// User and system time of the process so far.
    pub fn cpu_seconds(&self) -> Result<f64> {
        let stat =
            std::fs::read_to_string(format!("/proc/{}/stat", self.process.id())).context("read its stat")?;
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
        let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<f64>().ok());
        let (user, system) = ticks(11).zip(ticks(12)).context("its stat has no times")?;
        Ok((user + system) / TICKS)
    }

    /// Resident memory in MiB.
    pub fn resident_mib(&self) -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("it has no VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
    }

    fn stop(&mut self) {
        // SIGTERM by the tool everybody has; a process that is gone needs none.
        drop(Command::new("kill").arg(self.process.id().to_string()).status());
        drop(self.process.wait());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}
