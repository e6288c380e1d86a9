//! `hawser-control run --roles apiserver` as a process that is killed and started again on the same folder.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::client::Client;

pub struct Server {
    process: Child,
    folder: tempfile::TempDir,
    port: u16,
}

impl Server {
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        Self { process: spawn(&folder, port), folder, port }
    }

    /// Starts a killed server again.
    pub fn respawn(&mut self) {
        self.process = spawn(&self.folder, self.port);
    }

    pub fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// A connection of the administrator, as soon as the server takes one.
    pub async fn client(&self) -> Client {
        let kubeconfig = self.folder.path().join("admin.kubeconfig");
        let connected = async {
            loop {
                if let Ok(client) = Client::connect(&kubeconfig, self.port, 1).await
                    && client.send("GET", "/readyz", &serde_json::Value::Null).await.is_ok()
                {
                    return client;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), connected).await.expect("the server in a minute")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

fn spawn(folder: &tempfile::TempDir, port: u16) -> Child {
    Command::new(env!("CARGO_BIN_EXE_hawser-control"))
        .args(["run", "--roles", "apiserver", "--data-dir"])
        .arg(folder.path())
        .args(["--bind-address", &format!("127.0.0.1:{port}")])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}
