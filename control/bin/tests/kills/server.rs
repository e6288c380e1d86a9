//! `hawser-control run --roles apiserver` as a process that is killed and started again on the same folder.

use std::process::Child;
use std::time::Duration;

use crate::client::Client;
use crate::process::{free_port, spawn};

pub struct Server {
    process: Child,
    folder: tempfile::TempDir,
    port: u16,
}

impl Server {
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = free_port().unwrap();
        Self { process: spawn(folder.path(), port).unwrap(), folder, port }
    }

    /// Starts a killed server again.
    pub fn respawn(&mut self) {
        self.process = spawn(self.folder.path(), self.port).unwrap();
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
