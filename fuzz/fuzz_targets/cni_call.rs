//! Any bytes, read as a call of the CNI plugin: never a panic, and every answer as the specification says.

#![no_main]

#[path = "../../cni/tests/malformed/call.rs"]
mod call;

libfuzzer_sys::fuzz_target!(|text: &[u8]| call::hold(text));
