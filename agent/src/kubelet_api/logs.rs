//! Container logs: files in CRI's format, served as `kubectl logs` wants them.
//!
//! ```text
//! 2026-01-02T03:04:05.123456789Z stdout F a whole line
//! 2026-01-02T03:04:05.123456789Z stderr P the beginning of a line
//! ```

use std::convert::Infallible;
use std::io::{self, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1 as core;
use tokio::fs::File;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncSeekExt, BufReader};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::route::{Logs, Place};
use super::{Body, Context, Refusal};
use crate::pods::cri::Cri;
use crate::pods::names::PodKey;
use crate::pods::observed::{Container, Observer};

/// How soon a follower sees a new line.
const FOLLOW_PERIOD: Duration = Duration::from_millis(200);
/// Chunks read backwards while the last lines are looked for.
const BLOCK: u64 = 64 << 10;

/// What a line goes through.
#[derive(Debug, Clone, Default, PartialEq)]
struct Filter {
    timestamps: bool,
    since: Option<Timestamp>,
    /// Is the next piece the beginning of a line?
    within: bool,
}

impl Filter {
    /// The bytes to show of one line of the file, without its newline.
    fn show(&mut self, line: &[u8]) -> Vec<u8> {
        let Some((time, whole, content)) = parse(line) else { return [line, b"\n"].concat() };
        if let Some(since) = self.since
            && time.parse::<Timestamp>().is_ok_and(|time| time < since)
        {
            return Vec::new();
        }
        let mut out = Vec::with_capacity(line.len());
        if self.timestamps && !self.within {
            out.extend_from_slice(time.as_bytes());
            out.push(b' ');
        }
        out.extend_from_slice(content);
        if whole {
            out.push(b'\n');
        }
        self.within = !whole;
        out
    }
}

/// Time, whether the line ends here, and content.
fn parse(line: &[u8]) -> Option<(&str, bool, &[u8])> {
    let mut parts = line.splitn(4, |byte| *byte == b' ');
    let time = std::str::from_utf8(parts.next()?).ok()?;
    let stream = parts.next()?;
    let tags = parts.next()?;
    let content = parts.next().unwrap_or_default();
    matches!(stream, b"stdout" | b"stderr").then_some((time, !tags.starts_with(b"P"), content))
}

pub(super) async fn serve(context: &Context, asked: &Logs) -> Result<Response<Body>, Refusal> {
    let (container, key) = find(context, &asked.place, asked.previous).await?;
    let path = context.executor.node.folders.log(&key, &container.name, container.attempt);
    let file = File::open(&path).await.map_err(|error| {
        let message = format!("the log of container {} cannot be read: {error}", container.name);
        Refusal::new(StatusCode::NOT_FOUND, message)
    })?;
    let since = asked
        .since
        .or_else(|| asked.since_seconds.map(|seconds| Timestamp::now() - SignedDuration::from_secs(seconds)));
    let reader = Reader {
        file,
        path,
        filter: Filter { timestamps: asked.timestamps, since, within: false },
        left: asked.limit,
        follow: asked.follow.then(|| (context.executor.cri.clone(), container.id.clone())),
    };
    let (sender, receiver) = mpsc::channel(16);
    let tail = asked.tail;
    tokio::spawn(async move {
        if let Err(error) = reader.send(tail, &sender).await {
            tracing::warn!(%error, "a log could not be read to its end");
        }
    });
    let frames = StreamBody::new(ReceiverStream::new(receiver));
    let mut response = Response::new(frames.boxed());
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("text/plain"));
    Ok(response)
}

/// The container whose log is meant: its latest run, or the one before.
pub(super) async fn find(
    context: &Context,
    place: &Place,
    previous: bool,
) -> Result<(Container, PodKey), Refusal> {
    let pod = context.registry.pod(&place.namespace, &place.pod).ok_or_else(|| {
        let message = format!("pod {}/{} is not on this node", place.namespace, place.pod);
        Refusal::new(StatusCode::NOT_FOUND, message)
    })?;
    let key = PodKey::of(&pod);
    let observed = Observer::default().observe(&context.executor.cri, &key).await?;
    let mut runs = observed.containers.into_iter().filter(|container| container.name == place.container);
    let latest = runs.next();
    let found = if previous { runs.next() } else { latest };
    let found = found.ok_or_else(|| {
        let message = match waiting_for(&pod, &place.container) {
            _ if previous => {
                format!(
                    "previous terminated container {:?} in pod {:?} not found",
                    place.container, place.pod
                )
            }
            Some(reason) => {
                format!(
                    "container {:?} in pod {:?} is waiting to start: {reason}",
                    place.container, place.pod
                )
            }
            None => format!("container {:?} in pod {:?} not found", place.container, place.pod),
        };
        Refusal::new(StatusCode::BAD_REQUEST, message)
    })?;
    Ok((found, key))
}

fn waiting_for(pod: &core::Pod, container: &str) -> Option<String> {
    let status = pod.status.as_ref()?;
    let mains = status.container_statuses.iter().flatten();
    let mut all = mains.chain(status.init_container_statuses.iter().flatten());
    let state = all.find(|status| status.name == container)?.state.as_ref()?;
    state.waiting.as_ref()?.reason.clone()
}

struct Reader {
    file: File,
    path: PathBuf,
    filter: Filter,
    left: Option<usize>,
    follow: Option<(Cri, String)>,
}

type Frames = mpsc::Sender<Result<Frame<Bytes>, Infallible>>;

impl Reader {
    /// Sends the log until its end, the limit, or until nobody listens.
    async fn send(mut self, tail: Option<usize>, frames: &Frames) -> io::Result<()> {
        if let Some(lines) = tail {
            let start = start_of_tail(&mut self.file, lines).await?;
            self.file.seek(SeekFrom::Start(start)).await?;
        }
        let mut reader = BufReader::new(self.file);
        let mut pending = Vec::new();
        let mut over = false;
        loop {
            let read = reader.read_until(b'\n', &mut pending).await?;
            if read > 0 && pending.ends_with(b"\n") {
                let shown = self.filter.show(&pending[..pending.len() - 1]);
                pending.clear();
                if !send(frames, shown, &mut self.left).await {
                    return Ok(());
                }
                continue;
            }
            let Some((cri, id)) = &self.follow else { return Ok(()) };
            if over {
                return Ok(());
            }
            if moved(&self.path, reader.get_ref()).await? {
                reader = BufReader::new(File::open(&self.path).await?);
                continue;
            }
            // One more read after the end: what was written in between.
            over = !is_running(cri, id).await;
            tokio::select! {
                () = tokio::time::sleep(FOLLOW_PERIOD) => {}
                () = frames.closed() => return Ok(()),
            }
        }
    }
}

async fn is_running(cri: &Cri, id: &str) -> bool {
    let running = k8s_cri::v1::ContainerState::ContainerRunning as i32;
    match cri.container(id).await {
        Ok(status) => status.is_some_and(|status| status.state == running),
        Err(_) => true,
    }
}

/// Has the log been rotated away under us?
async fn moved(path: &Path, file: &File) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    match tokio::fs::metadata(path).await {
        Ok(there) => Ok(there.ino() != file.metadata().await?.ino()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

async fn send(frames: &Frames, mut bytes: Vec<u8>, left: &mut Option<usize>) -> bool {
    if let Some(left) = left {
        bytes.truncate(*left);
        *left -= bytes.len();
    }
    let done = *left == Some(0);
    let empty = bytes.is_empty();
    let sent = empty || frames.send(Ok(Frame::data(Bytes::from(bytes)))).await.is_ok();
    sent && !done
}

/// Where the last `lines` lines begin.
async fn start_of_tail(file: &mut File, lines: usize) -> io::Result<u64> {
    let length = file.metadata().await?.len();
    let mut at = length;
    let mut newlines = 0;
    let mut block = Vec::new();
    while at > 0 {
        let size = BLOCK.min(at);
        at -= size;
        file.seek(SeekFrom::Start(at)).await?;
        block.clear();
        (&mut *file).take(size).read_to_end(&mut block).await?;
        for (offset, byte) in block.iter().enumerate().rev() {
            let position = at + offset as u64;
            // The newline that ends the last line begins none.
            if *byte == b'\n' && position + 1 < length {
                newlines += 1;
                if newlines == lines {
                    return Ok(position + 1);
                }
            }
        }
        if lines == 0 {
            return Ok(length);
        }
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "2026-01-02T03:04:05.1Z stdout F one\n2026-01-02T03:04:06.1Z stdout P tw\n\
                       2026-01-02T03:04:06.2Z stdout F o\n2026-01-02T03:04:07.1Z stderr F \n";

    fn show(filter: &Filter) -> String {
        let mut filter = filter.clone();
        let bytes: Vec<u8> = LOG.lines().flat_map(|line| filter.show(line.as_bytes())).collect();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn pieces_are_joined_and_times_come_once_a_line() {
        assert_eq!(show(&Filter::default()), "one\ntwo\n\n");
        let stamped = show(&Filter { timestamps: true, ..Filter::default() });
        assert_eq!(
            stamped,
            "2026-01-02T03:04:05.1Z one\n2026-01-02T03:04:06.1Z two\n2026-01-02T03:04:07.1Z \n"
        );
        let since = Some("2026-01-02T03:04:07Z".parse().unwrap());
        assert_eq!(show(&Filter { since, ..Filter::default() }), "\n");
    }

    proptest::proptest! {
        #[test]
        fn a_line_of_any_bytes_is_shown(bytes in proptest::collection::vec(0..=255_u8, 0..80)) {
            let shown = Filter::default().show(&bytes);
            assert!(shown.len() <= bytes.len() + 1);
        }
    }

    #[tokio::test]
    async fn the_tail_begins_at_a_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        tokio::fs::write(&path, "a\nbb\nccc\n").await.unwrap();
        for (lines, want) in [(0, 9), (1, 5), (2, 2), (3, 0), (9, 0)] {
            let mut file = File::open(&path).await.unwrap();
            assert_eq!(start_of_tail(&mut file, lines).await.unwrap(), want, "{lines}");
        }
    }
}
