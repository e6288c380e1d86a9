//! The commands that ask a running agent.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;

use super::explain::{Explanation, Question};
use super::monitor::line::{Filter, Line};
use super::report::Report;
use super::request::{Answer, Request};
use super::server::socket;
use super::what_if::{Consequences, Proposal};

/// Asks the agent with this run directory for its state.
pub fn report(run_dir: &Path) -> Result<Report> {
    whole(&mut ask(run_dir, &Request::Report)?)
}

/// Asks it what happens to a packet.
pub fn explain(run_dir: &Path, question: Question) -> Result<Explanation> {
    match whole(&mut ask(run_dir, &Request::Explain(question))?)? {
        Answer::Ok(explanation) => Ok(explanation),
        Answer::Error(why) => bail!("{why}"),
    }
}

/// Asks it which flows policies would cut.
pub fn what_if(run_dir: &Path, proposal: Proposal) -> Result<Consequences> {
    match whole(&mut ask(run_dir, &Request::WhatIf(proposal))?)? {
        Answer::Ok(consequences) => Ok(consequences),
        Answer::Error(why) => bail!("{why}"),
    }
}

/// Hands its events to `show` until it ends.
pub fn monitor(run_dir: &Path, filter: Filter, mut show: impl FnMut(&Line) -> Result<()>) -> Result<()> {
    let stream = ask(run_dir, &Request::Monitor(filter))?;
    for line in BufReader::new(stream).lines() {
        let line = line.context("read the agent's events")?;
        show(&serde_json::from_str(&line).context("an event is none we know; are both of one version?")?)?;
    }
    Ok(())
}

fn ask(run_dir: &Path, request: &Request) -> Result<UnixStream> {
    let path = socket(run_dir);
    let mut stream = UnixStream::connect(&path).with_context(|| {
        format!("no agent answers on {}; is it running, with this --run-dir?", path.display())
    })?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line).context("ask the agent")?;
    Ok(stream)
}

fn whole<T: DeserializeOwned>(stream: &mut UnixStream) -> Result<T> {
    let mut text = Vec::new();
    stream.read_to_end(&mut text).context("read the agent's answer")?;
    serde_json::from_slice(&text)
        .context("the agent's answer is not what was asked for; are both of one version?")
}
