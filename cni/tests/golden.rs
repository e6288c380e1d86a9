//! Standard input and environment in, standard output and exit code out, for every file in testdata: the real binary
//! against an agent that answers by rote. `HAWSER_BLESS=1` rewrites the expected output.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use cni::proto;
use cni::proto::attachments_server::{Attachments, AttachmentsServer};
use tonic::{Request, Response, Status};

/// Answers every call the same way.
struct ByRote(&'static str);

impl ByRote {
    fn answer<T>(&self, good: T) -> Result<Response<T>, Status> {
        match self.0 {
            "ok" => Ok(Response::new(good)),
            "starting" => Err(Status::unavailable("the node has no podCIDR yet")),
            "exhausted" => Err(Status::resource_exhausted("10.244.0.0/24 has no free address")),
            "unknown" => Err(Status::not_found("there is no attachment c1 eth0")),
            "differs" => Err(Status::failed_precondition("eth0 has no address 10.244.0.5")),
            other => panic!("no such agent: {other}"),
        }
    }
}

#[tonic::async_trait]
impl Attachments for ByRote {
    async fn add(&self, request: Request<proto::AddRequest>) -> Result<Response<proto::AddReply>, Status> {
        let request = request.into_inner();
        let interface = |name: &str, sandbox: &str| proto::Interface {
            name: name.into(),
            mac: "02:00:00:00:00:01".into(),
            mtu: 1500,
            sandbox: sandbox.into(),
        };
        let ip =
            |address: &str| proto::Address { address: address.into(), gateway: String::new(), interface: 1 };
        let ifname = request.attachment.unwrap().ifname;
        self.answer(proto::AddReply {
            interfaces: vec![interface("hw1234", ""), interface(&ifname, &request.netns)],
            ips: vec![ip("10.244.0.5/32"), ip("fd00:244::5/128")],
            routes: vec![proto::Route { dst: "0.0.0.0/0".into(), gw: "169.254.1.1".into() }],
        })
    }

    async fn del(&self, _: Request<proto::DelRequest>) -> Result<Response<proto::DelReply>, Status> {
        self.answer(proto::DelReply {})
    }

    async fn check(&self, _: Request<proto::CheckRequest>) -> Result<Response<proto::CheckReply>, Status> {
        self.answer(proto::CheckReply {})
    }

    async fn status(&self, _: Request<proto::StatusRequest>) -> Result<Response<proto::StatusReply>, Status> {
        self.answer(proto::StatusReply {})
    }

    async fn gc(&self, _: Request<proto::GcRequest>) -> Result<Response<proto::GcReply>, Status> {
        self.answer(proto::GcReply { removed: 1 })
    }
}

fn section<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let start = text.find(&format!("-- {name} --\n"))? + name.len() + 7;
    let end = text[start..].find("\n-- ").map_or(text.len(), |at| start + at + 1);
    Some(text[start..end].trim_end_matches('\n'))
}

fn run(text: &str, dir: &Path) -> String {
    let socket = dir.join("cni.sock");
    let spool = dir.join("spool");
    let filled =
        text.replace("@SOCKET@", socket.to_str().unwrap()).replace("@SPOOL@", spool.to_str().unwrap());
    let agent: &'static str = Box::leak(section(&filled, "agent").unwrap().to_owned().into_boxed_str());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    if agent != "away" {
        let listener = runtime.block_on(async { tokio::net::UnixListener::bind(&socket).unwrap() });
        let incoming = tokio_stream::wrappers::UnixListenerStream::new(listener);
        let service = AttachmentsServer::new(ByRote(agent));
        runtime.spawn(async move {
            tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming(incoming)
                .await
                .unwrap();
        });
    }
    let env = section(&filled, "env").unwrap().lines().map(|line| line.split_once('=').unwrap());
    let mut child = Command::new(env!("CARGO_BIN_EXE_hawser-cni"))
        .env_clear()
        .envs(env)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(section(&filled, "stdin").unwrap().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let mut queued: Vec<String> = fs::read_dir(&spool)
        .map(|entries| entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect())
        .unwrap_or_default();
    queued.sort();
    let stdout = String::from_utf8(output.stdout).unwrap().replace(dir.to_str().unwrap(), "@DIR@");
    format!("{stdout}exit {}\nqueued {queued:?}\n", output.status.code().unwrap())
}

#[test]
fn every_verb_answers_as_the_golden_files_say() {
    let mut failures = Vec::new();
    let mut files: Vec<_> = fs::read_dir("testdata").unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 20, "the golden files are missing");
    for path in files {
        let text = fs::read_to_string(&path).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let got = run(&text, dir.path());
        let want = section(&text, "stdout").map(|want| format!("{want}\n")).unwrap_or_default();
        if got == want {
            continue;
        }
        if std::env::var_os("HAWSER_BLESS").is_some() {
            let head = text.split("-- stdout --\n").next().unwrap();
            fs::write(&path, format!("{head}-- stdout --\n{got}")).unwrap();
        } else {
            failures.push(format!("{}:\nwant {want}\ngot {got}", path.display()));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
