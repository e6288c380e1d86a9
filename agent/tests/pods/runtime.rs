//! A private containerd for the tests, and what a worker needs around it.

use std::path::Path;
use std::sync::Arc;

use agent::pods::cri::Cri;
use agent::pods::dns::Dns;
use agent::pods::events;
use agent::pods::execute::Executor;
use agent::pods::names::Folders;
use agent::pods::objects::Objects;
use agent::pods::sandbox::NodeFacts;
use agent::pods::volumes::Volumes;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::containerd::Containerd;
use crate::image;
use crate::notes::Notes;

/// The image of the tests.
pub const IMAGE: &str = "localhost/hawser/busybox:1";
const PAUSE: &str = "localhost/hawser/pause:1";

/// A container that runs a script.
pub fn container(name: &str, script: &str) -> Value {
    json!({ "name": name, "image": IMAGE, "command": ["/bin/sh", "-c", script] })
}

/// A private containerd that ends with the test.
pub struct Runtime {
    containerd: Containerd,
    child: std::process::Child,
    cgroup: String,
    pub folder: tempfile::TempDir,
}

impl Runtime {
    /// `None` where it cannot run; `name` tells cgroups of tests apart.
    pub fn start(name: &str) -> Option<Self> {
        let root = nix::unistd::geteuid().is_root();
        let here = |program: &str| {
            std::process::Command::new(program).arg("--version").output().is_ok_and(|o| o.status.success())
        };
        if !(root && here("containerd") && here("runc")) {
            assert!(std::env::var_os("CI").is_none(), "needs root, containerd and runc");
            eprintln!("skipped: needs root, containerd and runc");
            return None;
        }
        let folder = tempfile::Builder::new().prefix("hawser-pods-").tempdir().unwrap();
        let containerd = Containerd::below(folder.path(), PAUSE);
        let child = containerd.start(&folder.path().join("containerd.log")).unwrap();
        let runtime = Self { containerd, child, cgroup: format!("hawser-pods-test-{name}"), folder };
        runtime.containerd.import(&image::busybox_image(IMAGE).unwrap()).unwrap();
        runtime.containerd.import(&image::pause_image(PAUSE).unwrap()).unwrap();
        Some(runtime)
    }

    pub fn endpoint(&self) -> String {
        format!("unix://{}", self.containerd.socket.display())
    }

    pub fn executor(&self, notes: &Notes) -> Executor {
        let folders = Folders::new(&self.folder.path().join("agent"));
        let client = notes.client();
        let objects = Objects::new(client.clone());
        let node = NodeFacts {
            name: "node".into(),
            cgroup_parent: self.cgroup.clone(),
            memory: 1 << 30,
            dns: Dns::of_node(Vec::new(), "cluster.local".into(), Path::new("/etc/resolv.conf")).unwrap(),
            folders: folders.clone(),
        };
        Executor {
            cri: Cri::connect(&self.endpoint()).unwrap(),
            runtime: "containerd".into(),
            volumes: Volumes::new(objects.clone(), folders),
            recorder: events::start(client, "node".into(), CancellationToken::new()),
            objects,
            node: Arc::new(node),
            addresses: Arc::new(vec!["127.0.0.1".parse().unwrap()]),
        }
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let endpoint = self.endpoint();
        std::thread::spawn(move || {
            runtime.block_on(async {
                let cri = Cri::connect(&endpoint).unwrap();
                for sandbox in cri.sandboxes(Default::default()).await.unwrap() {
                    cri.stop_sandbox(&sandbox.id).await.unwrap();
                    cri.remove_sandbox(&sandbox.id).await.unwrap();
                }
            });
        })
        .join()
        .unwrap();
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap()),
            nix::sys::signal::Signal::SIGTERM,
        )
        .unwrap();
        self.child.wait().unwrap();
        agent::pods::cgroups::remove(&self.cgroup).unwrap();
    }
}
