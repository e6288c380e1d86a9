//! `hawser-control run --roles apiserver` as a process of its own, for measurements and for tests that kill it.

use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Starts the API server on a folder and a port of this machine; it says nothing.
pub fn spawn(folder: &Path, port: u16) -> std::io::Result<Child> {
    Command::new(env!("CARGO_BIN_EXE_hawser-control"))
        .args(["run", "--roles", "apiserver", "--data-dir"])
        .arg(folder)
        .args(["--bind-address", &format!("127.0.0.1:{port}")])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
}

/// A port that nobody listens on.
pub fn free_port() -> std::io::Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
