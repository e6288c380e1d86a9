//! Any bytes, read as a request to the API server: never a panic, and no answer that is the server's own fault.

#![no_main]

use std::sync::LazyLock;

use apiserver::{Config, InProcess, Running, Storage, User, start};
use tokio::runtime::Runtime;

#[path = "../../control/apiserver/tests/wire/request.rs"]
mod request;

struct Server {
    runtime: Runtime,
    service: InProcess,
    _running: Running,
    _folder: tempfile::TempDir,
}

static SERVER: LazyLock<Server> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let folder = tempfile::tempdir().expect("a folder");
    let config = Config::loopback(folder.path(), Storage::Memory);
    let running = runtime.block_on(start(config)).expect("a server");
    let service = running.service(User::new("admin", &["system:masters"]));
    Server { runtime, service, _running: running, _folder: folder }
});

libfuzzer_sys::fuzz_target!(|text: &[u8]| {
    if let Some(request) = request::read(text) {
        SERVER.runtime.block_on(request::hold(&SERVER.service, request));
    }
});
