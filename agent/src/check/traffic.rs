//! Both ends of the traffic that check makes: a server that says who it is and whom it sees, and a caller that says what it heard.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

/// How long one try may take.
const TRY: Duration = Duration::from_secs(1);
/// Between tries.
const PAUSE: Duration = Duration::from_millis(20);
/// Longest answer: a name of 253 bytes and an address.
const ANSWER: usize = 512;

/// A question over TCP and UDP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// Number of the question.
    pub id: usize,
    /// Whom to ask over TCP.
    pub address: SocketAddr,
    /// Port for UDP at the same address.
    pub udp_port: u16,
    /// Who has to answer.
    pub name: String,
    /// Whether the server has to see the caller under the caller's own address.
    pub unchanged: bool,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heard {
    /// Number of the question.
    pub id: usize,
    /// Microseconds of the exchange over TCP and of that over UDP, or what went wrong last.
    pub outcome: Result<[u64; 2], String>,
}

/// Answers on every address, over TCP and UDP, until the process ends.
pub fn serve(name: &str, port: u16) -> Result<()> {
    // Where IPv6 is switched off, IPv4 is all there is.
    let any: [SocketAddr; 2] = [(Ipv6Addr::UNSPECIFIED, port).into(), ([0, 0, 0, 0], port).into()];
    let listener = TcpListener::bind(&any[..]).with_context(|| format!("listen on TCP port {port}"))?;
    let socket = UdpSocket::bind(&any[..]).with_context(|| format!("listen on UDP port {port}"))?;
    std::thread::scope(|scope| {
        let datagrams = scope.spawn(|| echo(&socket, name));
        for stream in listener.incoming() {
            let mut stream = stream.context("accept a connection")?;
            let peer = stream.peer_addr();
            // Who hung up hears nothing.
            if let Ok(peer) = peer
                && let Err(error) = stream.write_all(answer(name, peer.ip()).as_bytes())
            {
                eprintln!("{peer} was not answered: {error}");
            }
        }
        datagrams.join().expect("answering does not panic")
    })
}

fn echo(socket: &UdpSocket, name: &str) -> Result<()> {
    let mut piece = [0; ANSWER];
    loop {
        let (_, peer) = socket.recv_from(&mut piece).context("receive a datagram")?;
        if let Err(error) = socket.send_to(answer(name, peer.ip()).as_bytes(), peer) {
            eprintln!("{peer} was not answered: {error}");
        }
    }
}

fn answer(name: &str, peer: IpAddr) -> String {
    format!("{name}\n{}\n", peer.to_canonical())
}

/// Asks what is written in `asks` and prints what was heard, as JSON.
pub fn print_answers(asks: &str, seconds: u64) -> Result<()> {
    let asks: Vec<Ask> = serde_json::from_str(asks).context("what to ask is no list of questions")?;
    let heard = call(&asks, Duration::from_secs(seconds));
    println!("{}", serde_json::to_string(&heard)?);
    Ok(())
}

/// Asks everything at once, each until it was answered or time is over.
pub fn call(asks: &[Ask], patience: Duration) -> Vec<Heard> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = asks.iter().map(|one| scope.spawn(move || ask(one, patience))).collect();
        threads.into_iter().map(|thread| thread.join().expect("asking does not panic")).collect()
    })
}

fn ask(ask: &Ask, patience: Duration) -> Heard {
    let deadline = Instant::now() + patience;
    let both = insist(deadline, || tcp(ask)).context("TCP").and_then(|tcp| {
        let udp = insist(deadline, || udp(ask)).context("UDP")?;
        Ok([tcp, udp])
    });
    Heard { id: ask.id, outcome: both.map_err(|error| format!("{error:#}")) }
}

/// Tries until it works; the microseconds of the try that did.
fn insist(deadline: Instant, one: impl Fn() -> Result<()>) -> Result<u64> {
    loop {
        let begun = Instant::now();
        match one() {
            Ok(()) => return Ok(u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX)),
            Err(error) if begun > deadline => return Err(error),
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}

fn tcp(ask: &Ask) -> Result<()> {
    let mut stream = TcpStream::connect_timeout(&ask.address, TRY).context("connect")?;
    stream.set_read_timeout(Some(TRY)).context("set a time limit")?;
    let own = stream.local_addr().context("ask for the own address")?;
    let mut text = String::new();
    stream.read_to_string(&mut text).context("wait for the answer")?;
    judge(ask, own.ip(), &text)
}

fn udp(ask: &Ask) -> Result<()> {
    let any = if ask.address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).context("bind a socket")?;
    // Connected: only an answer from whom was asked is heard, and refusals are.
    socket.connect((ask.address.ip(), ask.udp_port)).context("connect")?;
    socket.set_read_timeout(Some(TRY)).context("set a time limit")?;
    socket.send(b"?").context("send")?;
    let own = socket.local_addr().context("ask for the own address")?;
    let mut piece = [0; ANSWER];
    let length = socket.recv(&mut piece).context("wait for the answer")?;
    judge(ask, own.ip(), &String::from_utf8_lossy(&piece[..length]))
}

/// Whether the right one has answered, and has seen whom it should.
fn judge(ask: &Ask, own: IpAddr, text: &str) -> Result<()> {
    let mut lines = text.lines();
    let (Some(name), Some(seen)) = (lines.next(), lines.next()) else {
        bail!("the answer is {text:?}");
    };
    ensure!(name == ask.name, "{name} answered instead of {}", ask.name);
    let seen: IpAddr = seen.parse().with_context(|| format!("{seen:?} is no address"))?;
    ensure!(!ask.unchanged || seen == own, "{name} sees {seen} instead of {own}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(address: SocketAddr) -> Ask {
        Ask { id: 7, address, udp_port: address.port(), name: "one".to_owned(), unchanged: true }
    }

    #[test]
    fn the_answer_has_to_come_from_the_right_one_and_name_the_caller() {
        let own: IpAddr = "192.0.2.1".parse().unwrap();
        let one = question("192.0.2.9:1".parse().unwrap());
        judge(&one, own, "one\n192.0.2.1\n").unwrap();
        for wrong in ["", "one", "two\n192.0.2.1\n", "one\n192.0.2.2\n", "one\nnobody\n"] {
            assert!(judge(&one, own, wrong).is_err(), "{wrong:?}");
        }
        let other = Ask { unchanged: false, ..one };
        judge(&other, own, "one\n192.0.2.2\n").unwrap();
    }

    #[test]
    fn a_caller_hears_the_server_and_is_refused_where_there_is_none() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        std::thread::spawn(move || serve("one", free.port()));
        let v6 = SocketAddr::new("::1".parse().unwrap(), free.port());
        let heard = call(&[question(free), question(v6)], Duration::from_secs(30));
        assert!(heard.iter().all(|one| one.id == 7 && one.outcome.is_ok()), "{heard:?}");
        let heard = call(&[question(nobody)], Duration::from_millis(1));
        let error = heard[0].outcome.as_ref().unwrap_err();
        assert!(error.starts_with("TCP: connect"), "{error}");
    }
}
