//! The commands that ask a running agent.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context, Result};

use super::report::Report;
use super::server::socket;

/// Asks the agent with this run directory.
pub fn ask(run_dir: &Path) -> Result<Report> {
    let path = socket(run_dir);
    let mut stream = UnixStream::connect(&path).with_context(|| {
        format!("no agent answers on {}; is it running, with this --run-dir?", path.display())
    })?;
    let mut text = Vec::new();
    stream.read_to_end(&mut text).context("read the agent's answer")?;
    serde_json::from_slice(&text).context("the agent's answer is not a report; are both of one version?")
}
