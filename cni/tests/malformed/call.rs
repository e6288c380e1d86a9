//! A call of the plugin, written as the files in testdata are, and what has to hold of every answer. The fuzz target
//! `fuzz/fuzz_targets/cni_call.rs` compiles this file too.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use cni::answer;
use cni::client::{Agent, CallError};
use cni::front_end::{self, Output};
use cni::proto;
use cni::request::{self, Config, PortMapping, Request, SUPPORTED, Target, Verb};
use serde_json::{Value, json};
use tonic::{Code, Status};

/// What a runtime hands over, and how the agent takes it: with success, or with a code of gRPC.
#[derive(Debug, Clone)]
pub struct Call {
    pub agent: Option<Code>,
    pub environment: Vec<(OsString, OsString)>,
    pub stdin: Vec<u8>,
}

/// Panics unless the plugin answers the call in `text` as the specification says, by each of its names.
pub fn hold(text: &[u8]) {
    Call::read(text).hold();
}

impl Call {
    /// The sections `agent`, `env` and `stdin`; one that is missing is empty.
    pub fn read(text: &[u8]) -> Self {
        let agent = match section(text, "agent") {
            b"ok" => None,
            b"away" | b"starting" => Some(Code::Unavailable),
            b"exhausted" => Some(Code::ResourceExhausted),
            other => Some(Code::from(i32::from(other.first().copied().unwrap_or_default() % 17))),
        };
        let lines = section(text, "env").split(|byte| *byte == b'\n');
        // No process can be given a variable with a zero byte in it.
        let environment = lines.filter(|line| !line.contains(&0)).filter_map(|line| {
            let at = line.iter().position(|byte| *byte == b'=')?;
            let word = |bytes| OsStr::from_bytes(bytes).to_owned();
            Some((word(&line[..at]), word(&line[at + 1..])))
        });
        Self { agent, environment: environment.collect(), stdin: section(text, "stdin").to_vec() }
    }

    /// Panics unless every answer is as the specification says.
    pub fn hold(&self) {
        for program in ["/opt/cni/bin/hawser-cni", "/opt/cni/bin/loopback"] {
            let output = self.run(program);
            match self.parsed() {
                Ok(request) => {
                    hold_round_trip(&request);
                    hold_answer(&request, &output);
                }
                Err(code) => assert_eq!(hold_failure(&output), code, "{self:?}"),
            }
        }
    }

    /// What the plugin does with it when it is called `program`.
    pub fn run(&self, program: &str) -> Output {
        let queue = |dir: &Path, _: &cni::spool::Waiting| match dir.starts_with("/full") {
            true => Err(io::ErrorKind::StorageFull.into()),
            false => Ok(()),
        };
        let agent = |_: &Path| Whoever(self.agent);
        front_end::run(Path::new(program), self.environment.clone(), &self.stdin, agent, queue)
    }

    /// The request, or the code it has to be refused with.
    fn parsed(&self) -> Result<Request, u64> {
        let mut environment = BTreeMap::new();
        for (key, value) in &self.environment {
            let ours = key.to_str().filter(|key| key.starts_with("CNI_") && *key != "CNI_PATH");
            match (ours, value.to_str()) {
                (Some(key), Some(value)) => drop(environment.insert(key.to_owned(), value.to_owned())),
                (Some("CNI_COMMAND" | "CNI_CONTAINERID" | "CNI_NETNS" | "CNI_IFNAME" | "CNI_ARGS"), None) => {
                    return Err(4);
                }
                _ => {}
            }
        }
        request::parse(&environment, &self.stdin).map_err(|(_, error)| error.code().into())
    }
}

fn section<'a>(text: &'a [u8], name: &str) -> &'a [u8] {
    let find = |text: &[u8], what: &[u8]| text.windows(what.len()).position(|window| window == what);
    let head = format!("-- {name} --\n");
    let Some(start) = find(text, head.as_bytes()).map(|at| at + head.len()) else { return b"" };
    let end = find(&text[start..], b"\n-- ").map_or(text.len(), |at| start + at);
    &text[start..end]
}

/// A failure is an error object with a code that the specification or this plugin knows; returns it.
fn hold_failure(output: &Output) -> u64 {
    let error: Value = serde_json::from_str(&output.stdout).expect("an error object");
    let code = error["code"].as_u64().expect("a code");
    assert!(matches!(code, 1..=7 | 11 | 50 | 51 | 100..=102), "{output:?}");
    assert!(error["msg"].as_str().is_some_and(|msg| !msg.is_empty()), "{output:?}");
    assert!(error["cniVersion"].as_str().is_some_and(|version| SUPPORTED.contains(&version)), "{output:?}");
    assert!(!output.is_success, "{output:?}");
    code
}

fn hold_answer(request: &Request, output: &Output) {
    let version = request.config.cni_version.as_str();
    if !output.is_success {
        hold_failure(output);
        return;
    }
    match &request.verb {
        Verb::Add(target) => {
            let result: answer::Result = serde_json::from_str(&output.stdout).expect("a result");
            assert_eq!(result.cni_version, version);
            let is_ours = |interface: &answer::Interface| {
                interface.name == target.ifname && interface.sandbox == target.netns
            };
            assert!(result.interfaces.last().is_some_and(is_ours), "{output:?}");
            let last = result.ips.last().and_then(|ip| ip.interface).expect("an address of ours");
            assert_eq!(last as usize, result.interfaces.len() - 1, "{output:?}");
            assert!(result.ips.iter().all(|ip| ip.version.is_some() == version.starts_with("0.")));
        }
        Verb::Version => {
            let versions: Value = serde_json::from_str(&output.stdout).expect("versions");
            assert_eq!(versions["supportedVersions"], json!(SUPPORTED));
        }
        Verb::Del(_) | Verb::Check(_) | Verb::Status | Verb::Gc(_) => assert_eq!(output.stdout, ""),
    }
}

/// What was understood, written again, is understood the same.
fn hold_round_trip(request: &Request) {
    let (environment, stdin) = written(request);
    let again = request::parse(&environment, &stdin).expect("a request that was understood before");
    assert_eq!(&again, request);
}

fn written(request: &Request) -> (BTreeMap<String, String>, Vec<u8>) {
    let (command, target) = match &request.verb {
        Verb::Add(target) => ("ADD", Some(target)),
        Verb::Del(target) => ("DEL", Some(target)),
        Verb::Check(target) => ("CHECK", Some(target)),
        Verb::Status => ("STATUS", None),
        Verb::Gc(_) => ("GC", None),
        Verb::Version => ("VERSION", None),
    };
    let mut environment = BTreeMap::from([("CNI_COMMAND".to_owned(), command.to_owned())]);
    environment.extend(target.map(variables).into_iter().flatten());
    (environment, configuration(&request.config).to_string().into_bytes())
}

fn variables(target: &Target) -> [(String, String); 4] {
    let pod = &target.pod;
    let arguments =
        format!("K8S_POD_NAMESPACE={};K8S_POD_NAME={};K8S_POD_UID={}", pod.namespace, pod.name, pod.uid);
    [
        ("CNI_CONTAINERID", target.container_id.clone()),
        ("CNI_IFNAME", target.ifname.clone()),
        ("CNI_NETNS", target.netns.clone()),
        ("CNI_ARGS", arguments),
    ]
    .map(|(key, value)| (key.to_owned(), value))
}

fn configuration(config: &Config) -> Value {
    let port = |port: &PortMapping| {
        json!({
            "hostPort": port.host_port, "containerPort": port.container_port,
            "protocol": port.protocol, "hostIP": port.host_ip,
        })
    };
    let attachment =
        |known: &request::Attachment| json!({ "containerID": known.container_id, "ifname": known.ifname });
    let ports: Vec<Value> = config.runtime_config.port_mappings.iter().map(port).collect();
    let valid = config.valid_attachments.as_ref();
    json!({
        "cniVersion": config.cni_version, "name": config.name,
        "agentSocket": config.agent_socket, "spoolDir": config.spool_dir,
        "prevResult": config.prev_result, "runtimeConfig": { "portMappings": ports },
        "cni.dev/valid-attachments": valid.map(|all| all.iter().map(attachment).collect::<Vec<_>>()),
    })
}

/// An agent that answers, or refuses.
#[derive(Debug)]
struct Whoever(Option<Code>);

impl Whoever {
    fn answer<T>(&self, good: T) -> Result<T, CallError> {
        match self.0 {
            Some(code) => Err(CallError::Refused(Box::new(Status::new(code, "refused")))),
            None => Ok(good),
        }
    }
}

impl Agent for Whoever {
    fn add(&self, request: proto::AddRequest) -> Result<proto::AddReply, CallError> {
        let interface =
            |name: String, sandbox| proto::Interface { name, sandbox, mtu: 1500, mac: String::new() };
        let ip =
            |address: &str| proto::Address { address: address.into(), gateway: String::new(), interface: 1 };
        let ifname = request.attachment.map(|attachment| attachment.ifname).unwrap_or_default();
        self.answer(proto::AddReply {
            interfaces: vec![interface("hw1".into(), String::new()), interface(ifname, request.netns)],
            ips: vec![ip("10.244.0.5/32"), ip("fd00:244::5/128")],
            routes: vec![proto::Route { dst: "0.0.0.0/0".into(), gw: "169.254.1.1".into() }],
        })
    }

    fn del(&self, _: proto::DelRequest) -> Result<(), CallError> {
        self.answer(())
    }

    fn check(&self, _: proto::CheckRequest) -> Result<(), CallError> {
        self.answer(())
    }

    fn status(&self) -> Result<(), CallError> {
        self.answer(())
    }

    fn gc(&self, _: proto::GcRequest) -> Result<(), CallError> {
        self.answer(())
    }
}
