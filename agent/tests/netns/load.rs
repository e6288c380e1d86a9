//! Connections that begin, connections that last, and datagrams: what a node carries while something happens to it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio_util::sync::CancellationToken;

use crate::namespace::Namespace;

/// Connections and streams that last.
const LONG: usize = 50;
/// Between two questions of one of those.
const PAUSE: Duration = Duration::from_millis(50);
/// New connections of one load before it slows down. On a busy machine a test takes longer than the minute for which a closed
/// connection keeps its port, and the kernel searches long for the last ones that are free.
const MANY: u64 = 8_000;
/// Between two of those that come after.
const SLOW: Duration = Duration::from_millis(20);
/// Of connections, of answers on those that last, and of datagrams.
const ENOUGH: u64 = 500;
/// How long an answer may take: on a busy machine all of this waits for its turn. What is lost shows in other ways, a datagram
/// because it is not sent again, the first packet of a connection because it is.
const PATIENCE: Duration = Duration::from_secs(30);

/// What became of it all.
#[derive(Debug, Default, Clone)]
pub struct Outcome {
    /// What went wrong.
    pub errors: Vec<String>,
    /// Connections that began, were answered and ended.
    pub connections: u64,
    /// How often the first packet of one, or the answer to it, was sent again.
    pub begun_again: u64,
    /// Packets that the machine had no time for.
    pub unhandled: u64,
    /// Answers on connections that lasted.
    pub answers: u64,
    /// Answers to datagrams.
    pub datagrams: u64,
}

impl Outcome {
    /// Whether there was so much that it says something.
    pub fn suffices(&self) -> bool {
        [self.connections, self.answers, self.datagrams].iter().all(|count| *count > ENOUGH)
    }
}

/// Load from one namespace to one address.
pub struct Load {
    thread: JoinHandle<()>,
    stop: CancellationToken,
    outcome: Arc<Mutex<Outcome>>,
}

impl Load {
    /// Begins, with this many new connections per second.
    pub fn start(from: &Namespace, to: SocketAddr, rate: u64) -> Self {
        let (stop, outcome) = (CancellationToken::new(), Arc::<Mutex<Outcome>>::default());
        let (token, seen) = (stop.clone(), Arc::clone(&outcome));
        let thread = inside(from, move || async move {
            let (begun_again, unhandled) = (syns_again(), unhandled());
            let mut tasks = tokio::task::JoinSet::new();
            for _ in 0..LONG {
                tasks.spawn(note(
                    "a connection",
                    lasting(to, Arc::clone(&seen), token.clone()),
                    Arc::clone(&seen),
                ));
                tasks.spawn(note(
                    "a stream",
                    datagrams(to, Arc::clone(&seen), token.clone()),
                    Arc::clone(&seen),
                ));
            }
            let mut clock = tokio::time::interval(Duration::from_micros(1_000_000 / rate));
            let mut begun = 0;
            while !token.is_cancelled() {
                clock.tick().await;
                begun += 1;
                if begun > MANY {
                    tokio::time::sleep(SLOW).await;
                }
                tasks.spawn(note("a new connection", brief(to, Arc::clone(&seen)), Arc::clone(&seen)));
            }
            while tasks.join_next().await.is_some() {}
            let mut outcome = seen.lock();
            outcome.begun_again = syns_again() - begun_again;
            outcome.unhandled = self::unhandled() - unhandled;
        });
        Self { thread, stop, outcome }
    }

    /// Waits until there was enough of everything: what happens may be over sooner than a busy machine gets to it.
    pub fn suffice(&self) {
        let until = Instant::now() + PATIENCE;
        while !self.outcome.lock().suffices() && Instant::now() < until {
            std::thread::sleep(PAUSE);
        }
    }

    /// Ends, and says how it was.
    pub fn stop(self) -> Outcome {
        self.stop.cancel();
        self.thread.join().unwrap();
        self.outcome.lock().clone()
    }
}

/// Answers everything with itself.
pub fn serve(namespace: &Namespace, port: u16) {
    // The thread ends with the test.
    drop(inside(namespace, move || async move {
        let udp = UdpSocket::bind(("::", port)).await.unwrap();
        tokio::spawn(async move {
            let mut bytes = [0; 64];
            while let Ok((length, peer)) = udp.recv_from(&mut bytes).await {
                udp.send_to(&bytes[..length], peer).await.unwrap();
            }
        });
        let listener = TcpListener::bind(("::", port)).await.unwrap();
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                // A client that hangs up ends it.
                _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    }));
}

/// Runs a task on a thread of its own in a namespace.
fn inside<F, T>(namespace: &Namespace, task: F) -> JoinHandle<()>
where
    F: FnOnce() -> T + Send + 'static,
    T: Future<Output = ()>,
{
    let path = namespace.path();
    std::thread::spawn(move || {
        let file = std::fs::File::open(path).unwrap();
        nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(task());
    })
}

/// How often this namespace has sent a SYN, or the answer to one, again.
fn syns_again() -> u64 {
    counted("TCPSynRetrans")
}

/// How many connections a namespace did not take because too many of them wait for its servers.
pub fn declined(namespace: &Namespace) -> u64 {
    namespace.run(|| counted("ListenDrops"))
}

/// What the kernel has counted in this thread's namespace.
fn counted(what: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/net/netstat").unwrap();
    let [names, values] = [0, 1].map(|line| text.lines().nth(line).unwrap().split_whitespace());
    let counter = names.zip(values).find(|(name, _)| *name == what);
    counter.expect("the kernel counts them").1.parse().unwrap()
}

/// How many packets were dropped because too many waited for a processor of this machine.
fn unhandled() -> u64 {
    let text = std::fs::read_to_string("/proc/net/softnet_stat").unwrap();
    let dropped = |line: &str| u64::from_str_radix(line.split_whitespace().nth(1).unwrap(), 16).unwrap();
    text.lines().map(dropped).sum()
}

async fn note(
    what: &'static str,
    task: impl Future<Output = std::io::Result<()>>,
    outcome: Arc<Mutex<Outcome>>,
) {
    if let Err(error) = task.await {
        outcome.lock().errors.push(format!("{what}: {error}"));
    }
}

async fn question(stream: &mut TcpStream) -> std::io::Result<()> {
    let mut answer = [0; 4];
    stream.write_all(b"who?").await?;
    tokio::time::timeout(PATIENCE, stream.read_exact(&mut answer)).await??;
    Ok(())
}

async fn brief(to: SocketAddr, outcome: Arc<Mutex<Outcome>>) -> std::io::Result<()> {
    let mut stream = tokio::time::timeout(PATIENCE, TcpStream::connect(to)).await??;
    question(&mut stream).await?;
    outcome.lock().connections += 1;
    Ok(())
}

async fn lasting(
    to: SocketAddr,
    outcome: Arc<Mutex<Outcome>>,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(to).await?;
    while !stop.is_cancelled() {
        question(&mut stream).await?;
        outcome.lock().answers += 1;
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

async fn datagrams(
    to: SocketAddr,
    outcome: Arc<Mutex<Outcome>>,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(to).await?;
    let mut answer = [0; 64];
    while !stop.is_cancelled() {
        socket.send(b"who?").await?;
        tokio::time::timeout(PATIENCE, socket.recv(&mut answer)).await??;
        outcome.lock().datagrams += 1;
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}
