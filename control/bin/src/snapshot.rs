//! `hawser-control snapshot`: everything the cluster knows, in one file.

use std::fs::File;
use std::io::{BufReader, Seek, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use apiserver::{SNAPSHOT_PATH, Storage};
use futures::AsyncReadExt;
use kube::Client;
use store::Embedded;
use store::snapshot::{Reader, Summary, verify};

use crate::cli::{SnapshotCommand, StoreOptions};
use crate::run;

pub fn run(command: SnapshotCommand) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match command {
        SnapshotCommand::Save { kubeconfig, file } => {
            run::install_tls_provider();
            let summary = runtime.block_on(save(&kubeconfig, &file))?;
            say("saved", &file, summary);
        }
        SnapshotCommand::Verify { file } => say("verified", &file, check(&file)?),
        SnapshotCommand::Restore { file, data_dir, store, bump_revision } => {
            run::install_tls_provider();
            let summary = check(&file)?;
            let revision = runtime.block_on(restore(&file, &data_dir, &store, bump_revision))?;
            say("restored", &file, summary);
            println!("revisions go on after {revision}");
        }
    }
    Ok(())
}

fn say(what: &str, file: &Path, summary: Summary) {
    let Summary { revision, entries, bytes } = summary;
    println!("{what} {}: {entries} objects, {bytes} bytes, revision {revision}", file.display());
}

/// Reads a whole snapshot.
fn check(file: &Path) -> Result<Summary> {
    let opened = File::open(file).with_context(|| format!("open {}", file.display()))?;
    verify(BufReader::new(opened)).with_context(|| format!("{} is not usable", file.display()))
}

/// Fetches a snapshot from a running server; the file takes its name when it is whole and on disk.
async fn save(kubeconfig: &Path, file: &Path) -> Result<Summary> {
    use std::os::unix::fs::OpenOptionsExt;
    let client: Client = run::remote(kubeconfig).await?;
    let request = http::Request::get(SNAPSHOT_PATH).body(Vec::new()).context("make the request")?;
    let mut stream =
        Box::pin(client.request_stream(request).await.context("ask the API server for a snapshot")?);
    let partial = file.with_extension("partial");
    let mut out = std::fs::OpenOptions::new()
        .create(true)
        .truncate(true)
        .read(true)
        .write(true)
        .mode(0o600)
        .open(&partial)
        .with_context(|| format!("create {}", partial.display()))?;
    let mut piece = vec![0; 64 << 10];
    loop {
        let read = stream.read(&mut piece).await.context("read the snapshot from the API server")?;
        if read == 0 {
            break;
        }
        out.write_all(&piece[..read]).with_context(|| format!("write {}", partial.display()))?;
    }
    out.sync_all().with_context(|| format!("write {}", partial.display()))?;
    out.rewind().with_context(|| format!("read {}", partial.display()))?;
    let summary = verify(BufReader::new(out)).context("what the API server sent is not usable")?;
    std::fs::rename(&partial, file).with_context(|| format!("rename {}", partial.display()))?;
    Ok(summary)
}

/// Fills the store from a snapshot that has been verified.
async fn restore(file: &Path, data: &Path, store: &StoreOptions, beyond: u64) -> Result<u64> {
    let opened = File::open(file).with_context(|| format!("open {}", file.display()))?;
    let mut reader = Reader::new(BufReader::new(opened))?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
    match store.storage() {
        Storage::Etcd(access) => {
            let restored = store::restore_etcd(&access.options()?, &mut reader, beyond, now).await;
            restored.context("etcd was not filled")
        }
        Storage::Embedded => {
            use std::os::unix::fs::DirBuilderExt;
            let folder = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(data);
            folder.with_context(|| format!("create {}", data.display()))?;
            let path = apiserver::store_file(data);
            Embedded::restore(&path, &mut reader, beyond, now).context("the store was not made")
        }
        Storage::Memory => bail!("memory cannot be restored into"),
    }
}
