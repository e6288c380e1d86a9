//! Whatever a runtime sends, the plugin answers as the spec says and does not panic.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod call;

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;

use call::Call;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use serde_json::{Value, json};
use tonic::Code;

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

fn environment() -> impl Strategy<Value = Vec<(OsString, OsString)>> {
    let verb = prop::sample::select(vec!["ADD", "DEL", "CHECK", "STATUS", "GC", "VERSION"]);
    let names = ["CNI_COMMAND", "CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS"];
    let value = prop_oneof![
        any::<String>().prop_map(OsString::from),
        prop::collection::vec(1_u8.., 0..20).prop_map(OsString::from_vec),
    ];
    let change = (any::<Index>(), prop::option::of(value));
    (verb, prop::collection::vec(change, 0..2), prop::bool::weighted(0.3)).prop_map(
        move |(verb, changes, changed)| {
            let values = [verb, "c1", "/n", "eth0", "IgnoreUnknown=1;K8S_POD_NAME=p;K8S_POD_NAMESPACE=n"];
            let mut all: Vec<(OsString, OsString)> =
                names.iter().zip(values).map(|(name, value)| (name.into(), value.into())).collect();
            for (place, value) in changes.into_iter().filter(|_| changed) {
                match value {
                    Some(value) => place.get_mut(&mut all).1 = value,
                    None => drop(all.remove(place.index(all.len()))),
                }
            }
            all
        },
    )
}

fn agent() -> impl Strategy<Value = Option<Code>> {
    prop::option::of((0..17_i32).prop_map(Code::from))
}

/// The calls that are kept: those of the golden files and the seeds of the fuzz target.
fn kept() -> Vec<Vec<u8>> {
    let mut calls = Vec::new();
    for (folder, least) in [("testdata", 20), ("../fuzz/corpus/cni_call", 8)] {
        let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        assert!(paths.len() >= least, "{folder} is not what it was");
        calls.extend(paths.into_iter().map(|path| fs::read(path).unwrap()));
    }
    calls
}

/// One change of a text.
#[derive(Debug, Clone)]
enum Edit {
    Set(Index, u8),
    Cut(Index, Index),
    Repeat(Index, Index),
    Insert(Index, &'static [u8]),
}

impl Edit {
    fn on(&self, text: &mut Vec<u8>) {
        let at = |place: &Index| place.index(text.len() + 1);
        match self {
            Self::Set(place, byte) => {
                let at = place.index(text.len().max(1));
                text.splice(at..text.len().min(at + 1), [*byte]);
            }
            Self::Cut(one, other) => drop(text.drain(at(one).min(at(other))..at(one).max(at(other)))),
            Self::Repeat(one, other) => {
                let (from, to) = (at(one).min(at(other)), at(one).max(at(other)));
                let again = text[from..to].to_vec();
                text.splice(to..to, again);
            }
            Self::Insert(place, what) => {
                let at = at(place);
                text.splice(at..at, what.iter().copied());
            }
        }
    }
}

fn edit() -> impl Strategy<Value = Edit> {
    let words: Vec<&'static [u8]> = vec![
        b"\n",
        b"\"",
        b"{",
        b"}",
        b"[",
        b"null",
        b"-1",
        b"4294967296",
        b"1e400",
        b"\\u0000",
        b"\xff",
        b"../",
        b";",
        b"=",
        b"0.4.0",
        b"CNI_COMMAND=CHECK\n",
        b"\"prevResult\":{},",
    ];
    let place = any::<Index>;
    prop_oneof![
        (place(), any::<u8>()).prop_map(|(place, byte)| Edit::Set(place, byte)),
        (place(), place()).prop_map(|(one, other)| Edit::Cut(one, other)),
        (place(), place()).prop_map(|(one, other)| Edit::Repeat(one, other)),
        (place(), prop::sample::select(words)).prop_map(|(place, what)| Edit::Insert(place, what)),
    ]
}

/// The same cases in every run: what CI finds is found again at a desk.
fn runner(cases: u32) -> TestRunner {
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha))
}

#[test]
fn whatever_is_sent_is_answered_as_the_spec_says() {
    runner(4096)
        .run(&(environment(), configuration(), agent()), |(environment, stdin, agent)| {
            Call { agent, environment, stdin }.hold();
            Ok(())
        })
        .unwrap();
}

#[test]
fn calls_that_are_kept_are_answered_as_the_spec_says() {
    kept().iter().for_each(|call| call::hold(call));
}

#[test]
fn calls_that_are_kept_are_answered_as_the_spec_says_when_they_are_damaged() {
    let damaged = (prop::sample::select(kept()), prop::collection::vec(edit(), 1..6));
    runner(8192)
        .run(&damaged, |(mut call, edits)| {
            edits.iter().for_each(|edit| edit.on(&mut call));
            call::hold(&call);
            Ok(())
        })
        .unwrap();
}

#[test]
fn a_document_that_is_too_deep_is_refused() {
    let stdin = format!(r#"{{"prevResult":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    let environment = vec![("CNI_COMMAND".into(), "ADD".into())];
    let call = Call { agent: None, environment, stdin: stdin.into_bytes() };
    call.hold();
    assert!(call.run("hawser-cni").stdout.contains(r#""code":6"#));
}
