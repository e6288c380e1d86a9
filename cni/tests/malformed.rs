//! Whatever a runtime sends, the plugin answers as the spec says and does not panic.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;

use cni::answer::Failure;
use cni::client::{Agent, CallError};
use cni::proto;
use cni::request::parse;
use cni::verbs::{Answer, serve};
use proptest::prelude::*;
use serde_json::{Value, json};
use tonic::{Code, Status};

/// An agent that answers, or refuses.
#[derive(Debug)]
struct Whoever(Option<Code>);

impl Whoever {
    fn answer<T: Default>(&self) -> Result<T, CallError> {
        match self.0 {
            Some(code) => Err(CallError::Refused(Box::new(Status::new(code, "refused")))),
            None => Ok(T::default()),
        }
    }
}

impl Agent for Whoever {
    fn add(&self, _: proto::AddRequest) -> Result<proto::AddReply, CallError> {
        self.answer()
    }

    fn del(&self, _: proto::DelRequest) -> Result<(), CallError> {
        self.answer()
    }

    fn check(&self, _: proto::CheckRequest) -> Result<(), CallError> {
        self.answer()
    }

    fn status(&self) -> Result<(), CallError> {
        self.answer()
    }

    fn gc(&self, _: proto::GcRequest) -> Result<(), CallError> {
        self.answer()
    }
}

fn valid() -> Value {
    json!({
        "cniVersion": "1.1.0", "name": "hawser", "type": "hawser-cni",
        "agentSocket": "/nowhere/cni.sock", "spoolDir": "/proc/nowhere",
        "capabilities": { "portMappings": true },
        "runtimeConfig": { "portMappings": [
            { "hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": "192.0.2.1" },
        ] },
        "prevResult": {
            "cniVersion": "1.1.0",
            "interfaces": [{ "name": "eth0", "mac": "02:00:00:00:00:01", "sandbox": "/n", "mtu": 1500 }],
            "ips": [{ "interface": 0, "address": "10.0.0.5/32", "gateway": "169.254.1.1" }],
            "routes": [{ "dst": "0.0.0.0/0", "gw": "169.254.1.1" }],
            "dns": { "nameservers": ["10.96.0.10"] },
        },
        "cni.dev/valid-attachments": [{ "containerID": "c1", "ifname": "eth0" }],
    })
}

/// What may stand where something else is expected.
fn odd() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        prop::sample::select(vec!["0.3.1", "0.4.0", "1.0.0", "1.1.0", "", "../..", "4294967296"])
            .prop_map(Value::from),
        Just(json!([])),
        Just(json!({})),
        Just(json!([[[{}]]])),
    ]
}

/// Every place of a document, by its pointer.
fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    match value {
        Value::Object(fields) => {
            for (key, inside) in fields {
                places(inside, &format!("{at}/{}", key.replace('~', "~0").replace('/', "~1")), found);
            }
        }
        Value::Array(elements) => {
            for (number, inside) in elements.iter().enumerate() {
                places(inside, &format!("{at}/{number}"), found);
            }
        }
        _ => {}
    }
}

/// A valid document with some places changed or gone, as text that may be cut or have bytes changed.
fn configuration() -> impl Strategy<Value = Vec<u8>> {
    let changes = prop::collection::vec((any::<prop::sample::Index>(), prop::option::of(odd())), 0..4);
    let bytes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3);
    (changes, prop::bool::weighted(0.3), bytes, any::<prop::sample::Index>(), prop::bool::weighted(0.1))
        .prop_map(|(changes, damaged, bytes, end, cut)| {
            let mut document = valid();
            for (place, value) in changes {
                let mut all = Vec::new();
                places(&document, "", &mut all);
                let place = place.get(&all).clone();
                match (value, place.rsplit_once('/')) {
                    (Some(value), _) => *document.pointer_mut(&place).unwrap() = value,
                    (None, Some((parent, key))) => {
                        if let Some(fields) = document.pointer_mut(parent).and_then(Value::as_object_mut) {
                            fields.remove(&key.replace("~1", "/").replace("~0", "~"));
                        }
                    }
                    (None, None) => {}
                }
            }
            let mut text = document.to_string().into_bytes();
            for (place, byte) in bytes.into_iter().filter(|_| damaged) {
                let at = place.index(text.len());
                text[at] = byte;
            }
            if cut {
                text.truncate(end.index(text.len()));
            }
            text
        })
}

fn environment() -> impl Strategy<Value = BTreeMap<String, String>> {
    let verb = prop::sample::select(vec!["ADD", "DEL", "CHECK", "STATUS", "GC", "VERSION"]);
    let names = ["CNI_COMMAND", "CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS"];
    let change = (prop::sample::select(names.to_vec()), prop::option::of(any::<String>()));
    (verb, prop::collection::vec(change, 0..2), prop::bool::weighted(0.3)).prop_map(
        move |(verb, changes, changed)| {
            let values = [verb, "c1", "/n", "eth0", "IgnoreUnknown=1;K8S_POD_NAME=p;K8S_POD_NAMESPACE=n"];
            let mut all: BTreeMap<String, String> = names
                .iter()
                .zip(values)
                .map(|(name, value)| ((*name).to_owned(), value.to_owned()))
                .collect();
            for (name, value) in changes.into_iter().filter(|_| changed) {
                match value {
                    Some(value) => drop(all.insert(name.to_owned(), value)),
                    None => drop(all.remove(name)),
                }
            }
            all
        },
    )
}

fn agent() -> impl Strategy<Value = Whoever> {
    prop::option::of((0..17_i32).prop_map(Code::from)).prop_map(Whoever)
}

/// A failure as the spec wants it: readable, with a code and a sentence.
fn hold_failure(failure: &Failure) -> Result<(), TestCaseError> {
    let printed = serde_json::to_value(failure).unwrap();
    prop_assert!(printed["code"].as_u64().is_some_and(|code| code > 0), "{}", printed);
    prop_assert!(
        !failure.msg.is_empty() && cni::request::SUPPORTED.contains(&failure.cni_version.as_str()),
        "{}",
        printed
    );
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_sent_is_answered_as_the_spec_says(
        environment in environment(),
        stdin in configuration(),
        agent in agent(),
    ) {
        let request = match parse(&environment, &stdin) {
            Ok(request) => request,
            Err((version, error)) => {
                prop_assert!(matches!(error.code(), 1 | 4 | 6 | 7), "{}", error);
                return hold_failure(&Failure::new(&version, error.code(), &error));
            }
        };
        match serve(&request, &agent) {
            Answer::Silent => {}
            Answer::Printed(text) => {
                let printed: Value = serde_json::from_str(&text).unwrap();
                prop_assert!(printed["cniVersion"].is_string(), "{}", text);
            }
            Answer::Failed(failure) => hold_failure(&failure)?,
        }
    }

    #[test]
    fn noise_is_answered_as_well(stdin in prop::collection::vec(any::<u8>(), 0..64)) {
        let environment = BTreeMap::from([("CNI_COMMAND".to_owned(), "ADD".to_owned())]);
        let (version, error) = parse(&environment, &stdin).unwrap_err();
        hold_failure(&Failure::new(&version, error.code(), &error))?;
    }
}

#[test]
fn a_document_that_is_too_deep_is_refused() {
    let environment = BTreeMap::from([("CNI_COMMAND".to_owned(), "ADD".to_owned())]);
    let stdin = format!(r#"{{"prevResult":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(parse(&environment, stdin.as_bytes()).unwrap_err().1.code(), 6);
}
