//! Load: a server that answers a byte with a byte, and clients that count.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::namespace::Namespace;

/// How a client asks for an answer after which it resets the connection.
const ONCE: u8 = b'1';
/// How a client asks for an answer after which it asks again.
const AGAIN: u8 = b'?';
/// How a client says that it only sends.
const SINK: u8 = b'.';

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// Connections with one request each, per second.
    Connects,
    /// Median time from connect to the answer, in microseconds.
    ConnectLatency,
    /// Requests on one connection, per second.
    KeepAlive,
    /// One stream, in Gbit/s.
    Bulk,
}

/// All of them, with the words they are printed under and whether more is better.
pub const MEASURES: [(Measure, &str, bool); 4] = [
    (Measure::Connects, "connections/s", true),
    (Measure::ConnectLatency, "connect to answer, us (p50)", false),
    (Measure::KeepAlive, "keep-alive requests/s", true),
    (Measure::Bulk, "bulk, Gbit/s", true),
];

/// Serves one port inside a namespace until the process ends.
pub fn serve(namespace: &Namespace, port: u16) {
    let listener = namespace.run(|| TcpListener::bind(("::", port)).expect("the port is free"));
    std::thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            answer(stream);
        }
    });
}

/// Answers the first byte in place, so that a short connection costs no thread.
fn answer(mut stream: TcpStream) {
    let mut first = [0];
    if stream.set_nodelay(true).is_err() || stream.read_exact(&mut first).is_err() {
        return;
    }
    if first[0] == ONCE {
        // Whether the client takes the answer or has gone, what follows is the end.
        drop(stream.write_all(b"!").and_then(|()| stream.read_exact(&mut first)));
        return;
    }
    std::thread::spawn(move || {
        if first[0] == AGAIN && stream.write_all(b"!").is_err() {
            return;
        }
        let mut buffer = vec![0; 1 << 18];
        while let Ok(length) = stream.read(&mut buffer) {
            if length == 0 || (first[0] == AGAIN && stream.write_all(b"!").is_err()) {
                return;
            }
        }
    });
}

/// Takes one figure from inside a namespace, for as long as `time`.
pub fn measure(what: Measure, from: &Namespace, to: SocketAddr, time: Duration) -> f64 {
    from.run(|| match what {
        Measure::Connects => connects(to, time).0,
        Measure::ConnectLatency => connects(to, time).1,
        Measure::KeepAlive => keep_alive(to, time),
        Measure::Bulk => bulk(to, time),
    })
}

/// Connects that failed. Connection tracking of the rulesets meets ports that are used again too soon for it.
pub static FAILED: AtomicU32 = AtomicU32::new(0);

/// Connections per second, and the median time of one in microseconds.
fn connects(to: SocketAddr, time: Duration) -> (f64, f64) {
    let (start, mut times) = (Instant::now(), Vec::new());
    while start.elapsed() < time {
        let began = Instant::now();
        match TcpStream::connect(to) {
            Ok(mut stream) => {
                // A reset leaves nothing in TIME_WAIT: ports used again within a minute stall connection tracking.
                let reset = libc::linger { l_onoff: 1, l_linger: 0 };
                nix::sys::socket::setsockopt(&stream, nix::sys::socket::sockopt::Linger, &reset)
                    .expect("a socket option");
                ask(&mut stream, ONCE);
            }
            Err(_) => {
                FAILED.fetch_add(1, Ordering::Relaxed);
                continue;
            }
        }
        times.push(began.elapsed().as_secs_f64() * 1e6);
    }
    let rate = times.len() as f64 / start.elapsed().as_secs_f64();
    times.sort_unstable_by(f64::total_cmp);
    (rate, times[times.len() / 2])
}

fn connected(to: SocketAddr) -> TcpStream {
    TcpStream::connect(to).unwrap_or_else(|error| panic!("{to}: {error}"))
}

fn keep_alive(to: SocketAddr, time: Duration) -> f64 {
    let mut stream = connected(to);
    stream.set_nodelay(true).expect("a socket option");
    let (start, mut asked) = (Instant::now(), 0_u32);
    while start.elapsed() < time {
        ask(&mut stream, AGAIN);
        asked += 1;
    }
    f64::from(asked) / start.elapsed().as_secs_f64()
}

fn bulk(to: SocketAddr, time: Duration) -> f64 {
    let mut stream = connected(to);
    let data = vec![SINK; 1 << 18];
    let (start, mut sent) = (Instant::now(), 0_usize);
    while start.elapsed() < time {
        sent += stream.write(&data).expect("the server reads");
    }
    sent as f64 * 8.0 / start.elapsed().as_secs_f64() / 1e9
}

fn ask(stream: &mut TcpStream, how: u8) {
    stream.write_all(&[how]).expect("the server reads");
    stream.read_exact(&mut [0]).expect("the server answers");
}

/// Nanoseconds of one connect(2) of a datagram socket: no packet, only the hook and the route.
pub fn connect_alone(from: &Namespace, to: SocketAddr) -> f64 {
    const TIMES: u32 = 200_000;
    from.run(|| {
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").expect("a socket");
        let start = Instant::now();
        for _ in 0..TIMES {
            socket.connect(to).expect("a route");
        }
        start.elapsed().as_secs_f64() * 1e9 / f64::from(TIMES)
    })
}
