//! Container images made on the spot: an archive of static binaries that `ctr images import` takes. No registry is needed.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::json;
use sha2::{Digest, Sha256};

/// The image of the example: busybox, and a small server that says which pod answered.
pub const HELLO: &str = "hawser.dev/hello:local";
/// The image with the agent, as `deploy/hawser.yaml` names it.
pub const HAWSER: &str = "hawser.dev/hawser:latest";
/// The program an installed node runs.
const AGENT: &str = "hawser-agent";

/// A file of an image.
#[derive(Debug, Clone)]
pub enum Entry {
    /// A folder.
    Folder,
    /// A file that can be run.
    Program(Vec<u8>),
    /// A file that can be read.
    Text(String),
    /// A symbolic link.
    Link(String),
}

/// An image with one layer.
#[derive(Debug, Clone, Default)]
pub struct Image {
    /// Its name, with tag.
    pub name: String,
    /// Paths without a leading slash.
    pub entries: BTreeMap<String, Entry>,
    /// What runs.
    pub entrypoint: Vec<String>,
    /// Its arguments unless a container has others.
    pub command: Vec<String>,
    /// Whether its layer is compressed: for images that travel.
    pub compressed: bool,
}

/// busybox with all its applets; runs a shell.
pub fn busybox_image(name: &str) -> Result<Vec<u8>> {
    Ok(busybox(name)?.archive())
}

/// What holds a pod's namespaces: sleeps until it is told to end.
pub fn pause_image(name: &str) -> Result<Vec<u8>> {
    let mut image = busybox(name)?;
    image.entrypoint = ["/bin/busybox", "sh", "-c", "trap 'exit 0' TERM INT; sleep infinity & wait"]
        .map(str::to_owned)
        .to_vec();
    Ok(image.archive())
}

/// One program of ours beside busybox, with the libraries it needs; runs the program.
pub fn program_image(name: &str, program: &Path) -> Result<Vec<u8>> {
    let bytes = std::fs::read(program).with_context(|| format!("read {}", program.display()))?;
    let file = program.file_name().context("the program has no name")?.to_string_lossy().into_owned();
    let mut image = busybox(name)?;
    if wants_loader(&bytes) {
        image.entries.extend(libraries(program)?);
    }
    image.entries.insert(format!("bin/{file}"), Entry::Program(bytes));
    image.entrypoint = vec![format!("/bin/{file}")];
    image.command = Vec::new();
    Ok(image.archive())
}

/// What `deploy/hawser.yaml` runs: the agent and the CNI plugin, and nothing else.
pub fn release_image(name: &str, agent: &Path, plugin: &Path) -> Result<Vec<u8>> {
    let mut image = Image {
        name: name.to_owned(),
        entrypoint: vec![format!("/bin/{AGENT}")],
        compressed: true,
        ..Image::default()
    };
    for folder in ["bin", "etc", "proc", "run", "sys", "tmp", "var"] {
        image.entries.insert(folder.to_owned(), Entry::Folder);
    }
    // Runtimes name network namespaces by either.
    image.entries.insert("var/run".to_owned(), Entry::Link("../run".to_owned()));
    for (file, program) in [(AGENT, agent), ("hawser-cni", plugin)] {
        let bytes = std::fs::read(program).with_context(|| format!("read {}", program.display()))?;
        if wants_loader(&bytes) {
            bail!("{} needs shared libraries, which the image has not", program.display());
        }
        image.entries.insert(format!("bin/{file}"), Entry::Program(bytes));
    }
    Ok(image.archive())
}

/// The image of busybox, to be added to.
pub fn busybox(name: &str) -> Result<Image> {
    let path = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
    let Some(path) = path else { bail!("busybox is missing: apt-get install busybox-static") };
    let bytes = std::fs::read(path).with_context(|| format!("read {path}"))?;
    if wants_loader(&bytes) {
        bail!("{path} needs shared libraries, which an image has not: apt-get install busybox-static");
    }
    let applets = Command::new(path).arg("--list").output().with_context(|| format!("run {path} --list"))?;
    let mut entries = BTreeMap::new();
    for folder in ["bin", "etc", "tmp", "root", "proc", "sys", "dev", "var", "run"] {
        entries.insert(folder.to_owned(), Entry::Folder);
    }
    for applet in String::from_utf8_lossy(&applets.stdout).lines().filter(|name| *name != "busybox") {
        entries.insert(format!("bin/{applet}"), Entry::Link("busybox".to_owned()));
    }
    entries.insert("bin/busybox".to_owned(), Entry::Program(bytes));
    let passwd = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n";
    entries.insert("etc/passwd".to_owned(), Entry::Text(passwd.to_owned()));
    entries.insert("etc/group".to_owned(), Entry::Text("root:x:0:\nnogroup:x:65534:\n".to_owned()));
    Ok(Image { name: name.to_owned(), entries, command: vec!["/bin/sh".to_owned()], ..Image::default() })
}

/// The loader of a program and its shared libraries, where it looks for them.
fn libraries(program: &Path) -> Result<BTreeMap<String, Entry>> {
    let output = Command::new("ldd").arg(program).output().context("start ldd")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let paths = text.split_whitespace().filter(|word| word.starts_with('/'));
    let read = |path: &str| {
        let bytes = std::fs::read(path).with_context(|| format!("read {path}"))?;
        Ok((path.trim_start_matches('/').to_owned(), Entry::Program(bytes)))
    };
    paths.map(read).collect()
}

/// Does an ELF file of 64 bits name a dynamic loader (a program header of type PT_INTERP)?
fn wants_loader(elf: &[u8]) -> bool {
    const PT_INTERP: u32 = 3;
    let number = |at: usize, size: usize| {
        let bytes = elf.get(at..at.checked_add(size)?)?;
        Some(bytes.iter().rev().fold(0_usize, |sum, byte| sum << 8 | usize::from(*byte)))
    };
    let (Some(start), Some(size), Some(count)) = (number(0x20, 8), number(0x36, 2), number(0x38, 2)) else {
        return false;
    };
    (0..count).any(|nth| number(start.saturating_add(nth * size), 4) == Some(PT_INTERP as usize))
}

impl Image {
    /// An OCI image layout (image-spec 1.1) in a tar archive, with the list that `docker load` reads beside it: containerd,
    /// kind and Docker take the same file. Nothing in it depends on the time it is made.
    pub fn archive(&self) -> Vec<u8> {
        let mut layer = Tar::default();
        for (path, entry) in &self.entries {
            layer.entry(path, entry);
        }
        let layer = layer.finish();
        let (contents, layer, kind) = if self.compressed {
            (digest(&layer), Blob::new(compress(&layer)), "application/vnd.oci.image.layer.v1.tar+gzip")
        } else {
            let layer = Blob::new(layer);
            (layer.digest.clone(), layer, "application/vnd.oci.image.layer.v1.tar")
        };
        let platform = json!({ "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }, "os": "linux" });
        let config = Blob::of(&json!({
            "architecture": platform["architecture"],
            "os": platform["os"],
            "config": {
                "Env": ["PATH=/bin"],
                "Entrypoint": (!self.entrypoint.is_empty()).then_some(&self.entrypoint),
                "Cmd": (!self.command.is_empty()).then_some(&self.command),
            },
            "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{contents}")] },
        }));
        let manifest = Blob::of(&json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config.described("application/vnd.oci.image.config.v1+json"),
            "layers": [layer.described(kind)],
        }));
        let mut entry = manifest.described("application/vnd.oci.image.manifest.v1+json");
        entry["platform"] = platform;
        let tag = self.name.rsplit(':').next().unwrap_or_default();
        entry["annotations"] =
            json!({ "io.containerd.image.name": self.name, "org.opencontainers.image.ref.name": tag });
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [entry],
        });
        let docker = json!([{ "Config": config.path(), "RepoTags": [self.name], "Layers": [layer.path()] }]);
        let mut archive = Tar::default();
        for blob in [config, layer, manifest] {
            archive.file(&blob.path(), 0o644, &blob.bytes);
        }
        archive.file("index.json", 0o644, index.to_string().as_bytes());
        archive.file("manifest.json", 0o644, docker.to_string().as_bytes());
        archive.file("oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#);
        archive.finish()
    }
}

/// Bytes under their digest.
struct Blob {
    bytes: Vec<u8>,
    digest: String,
}

impl Blob {
    fn new(bytes: Vec<u8>) -> Self {
        Self { digest: digest(&bytes), bytes }
    }

    fn of(object: &serde_json::Value) -> Self {
        Self::new(object.to_string().into_bytes())
    }

    /// Where a layout keeps them.
    fn path(&self) -> String {
        format!("blobs/sha256/{}", self.digest)
    }

    /// How they are referred to.
    fn described(&self, kind: &str) -> serde_json::Value {
        json!({ "mediaType": kind, "digest": format!("sha256:{}", self.digest), "size": self.bytes.len() })
    }
}

/// As gzip, without a time.
fn compress(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).expect("memory takes all that is written");
    encoder.finish().expect("memory takes all that is written")
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// POSIX ustar, as much of it as an image needs.
#[derive(Default)]
struct Tar(Vec<u8>);

const BLOCK: usize = 512;

impl Tar {
    fn entry(&mut self, path: &str, entry: &Entry) {
        match entry {
            // A sticky folder everybody may write to would need a mode of its own; /tmp is the only one.
            Entry::Folder => self.header(path, if path == "tmp" { 0o1777 } else { 0o755 }, 0, (b'5', "")),
            Entry::Program(bytes) => self.file(path, 0o755, bytes),
            Entry::Text(text) => self.file(path, 0o644, text.as_bytes()),
            Entry::Link(target) => self.header(path, 0o777, 0, (b'2', target)),
        }
    }

    fn file(&mut self, path: &str, mode: u32, bytes: &[u8]) {
        self.header(path, mode, bytes.len(), (b'0', ""));
        self.0.extend_from_slice(bytes);
        self.0.resize(self.0.len().next_multiple_of(BLOCK), 0);
    }

    fn header(&mut self, path: &str, mode: u32, size: usize, (kind, target): (u8, &str)) {
        assert!(path.len() <= 100 && target.len() <= 100, "ustar names have 100 bytes: {path}");
        let mut block = [0_u8; BLOCK];
        let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, path.as_bytes());
        put(100, format!("{mode:07o}").as_bytes());
        put(108, b"0000000");
        put(116, b"0000000");
        put(124, format!("{size:011o}").as_bytes());
        put(136, b"00000000000");
        put(148, b"        ");
        put(156, &[kind]);
        put(157, target.as_bytes());
        put(257, b"ustar\x0000");
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        self.0.extend_from_slice(&block);
    }

    fn finish(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 2 * BLOCK, 0);
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_that_need_a_loader_are_told_apart() {
        assert!(wants_loader(&std::fs::read("/proc/self/exe").unwrap()));
        assert!(!wants_loader(b"\x7fELF"));
        assert!(!wants_loader(&[0xff; 128]));
        if let Ok(image) = busybox("a:1") {
            let Entry::Program(bytes) = &image.entries["bin/busybox"] else { panic!("no program") };
            assert!(!wants_loader(bytes));
        }
    }

    #[test]
    fn every_blob_is_what_its_name_says_and_a_layer_may_be_compressed() {
        for compressed in [false, true] {
            let entries = BTreeMap::from([("bin/x".to_owned(), Entry::Program(vec![b'#'; 1 << 16]))]);
            let image = Image { name: "a/b:1".into(), entries, compressed, ..Image::default() };
            let folder =
                std::env::temp_dir().join(format!("hawser-blobs-{compressed}-{}", std::process::id()));
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join("image.tar"), image.archive()).unwrap();
            let tar = |arguments: &[&str]| {
                let output = Command::new("tar").args(arguments).current_dir(&folder).output().unwrap();
                assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
                String::from_utf8(output.stdout).unwrap()
            };
            tar(&["-xf", "image.tar"]);
            for blob in std::fs::read_dir(folder.join("blobs/sha256")).unwrap().map(Result::unwrap) {
                assert_eq!(digest(&std::fs::read(blob.path()).unwrap()), blob.file_name().to_string_lossy());
            }
            let read = |path: &str| -> serde_json::Value {
                serde_json::from_slice(&std::fs::read(folder.join(path)).unwrap()).unwrap()
            };
            let layer = read("manifest.json")[0]["Layers"][0].as_str().unwrap().to_owned();
            assert_eq!(tar(&[if compressed { "-tzf" } else { "-tf" }, &layer]), "bin/x\n");
            let manifest = read("index.json")["manifests"][0]["digest"].as_str().unwrap().replace(':', "/");
            let layer = &read(&format!("blobs/{manifest}"))["layers"][0];
            assert_eq!(layer["mediaType"].as_str().unwrap().ends_with("+gzip"), compressed);
            std::fs::remove_dir_all(folder).unwrap();
        }
    }

    #[test]
    fn the_archive_is_one_that_tar_reads() {
        let image = Image {
            name: "a/b:1".into(),
            entries: BTreeMap::from([
                ("bin".to_owned(), Entry::Folder),
                ("bin/x".to_owned(), Entry::Program(b"#!".to_vec())),
                ("bin/y".to_owned(), Entry::Link("x".to_owned())),
            ]),
            ..Image::default()
        };
        let dir = std::env::temp_dir().join(format!("hawser-image-{}", std::process::id()));
        std::fs::write(&dir, image.archive()).unwrap();
        let listed = Command::new("tar").arg("-tf").arg(&dir).output().unwrap();
        std::fs::remove_file(&dir).unwrap();
        let names = String::from_utf8(listed.stdout).unwrap();
        for name in ["index.json", "manifest.json", "oci-layout"] {
            assert!(names.lines().any(|line| line == name), "{name}: {names}");
        }
        assert_eq!(image.archive(), image.archive());
    }
}
