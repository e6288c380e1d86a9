//! The server of the example image: says which pod answers, over HTTP on TCP 8080 and as an echo on UDP 8081. It is its own
//! client too (`ask`, and `probe` for many questions at a time), a load generator (`load`), and both ends of a transfer (`pour`,
//! `weigh`).
//!
//! One file without dependencies, linked statically, so that the image needs nothing else.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

/// How long a client waits.
const PATIENCE: Duration = Duration::from_secs(3);

fn main() -> std::io::Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [_] => answer(),
        [_, "load", mode @ ("connect" | "keepalive"), address] => load(*mode == "connect", address),
        [_, "hold", address] => hold(address),
        [_, "serve", ports @ ..] => serve_ports(ports),
        [_, "probe"] => probe(),
        [_, "weigh", port, milliseconds] => weigh(port, milliseconds),
        [_, "pour", address] => pour(address),
        [_, "ask", "tcp", address] => ask_tcp(address),
        [_, "ask", "udp", address] => ask_udp(address),
        _ => {
            eprintln!("usage: hawser-hello [ask tcp|udp ADDRESS:PORT | load connect|keepalive ADDRESS:PORT | hold ADDRESS:PORT | serve PORT.. | probe | weigh PORT MILLISECONDS | pour ADDRESS:PORT]");
            std::process::exit(2);
        }
    }
}

fn answer() -> std::io::Result<()> {
    let name = std::fs::read_to_string("/etc/hostname").unwrap_or_default();
    let name: &'static str = Box::leak(name.trim().to_owned().into_boxed_str());
    let udp = UdpSocket::bind("[::]:8081")?;
    std::thread::spawn(move || echo(&udp, name));
    for stream in TcpListener::bind("[::]:8080")?.incoming() {
        // A client that went away before it was served needs no answer.
        let Ok(stream) = stream else { continue };
        std::thread::spawn(move || serve(stream, name));
    }
    Ok(())
}

/// Answers requests on one connection until the client closes it or asks to.
fn serve(stream: TcpStream, name: &str) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let peer = stream.peer_addr()?;
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    let mut close = false;
    let mut line = String::new();
    while !close {
        let mut lines = 0;
        loop {
            line.clear();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            lines += 1;
            close |= line.trim().eq_ignore_ascii_case("connection: close");
            if line == "\r\n" || lines > 100 {
                break;
            }
        }
        let body = format!("{name}\nclient {}\n", peer.ip());
        let connection = if close { "close" } else { "keep-alive" };
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: {connection}\r\n\r\n", body.len());
        writer.write_all(format!("{head}{body}").as_bytes())?;
    }
    Ok(())
}

/// Answers every datagram with the name and what it held.
fn echo(socket: &UdpSocket, name: &str) {
    let mut buffer = [0; 2048];
    loop {
        // An ICMP error for an earlier answer is reported here; the next datagram is another client's.
        let Ok((length, client)) = socket.recv_from(&mut buffer) else { continue };
        let mut answer = format!("{name}\n").into_bytes();
        answer.extend_from_slice(&buffer[..length]);
        socket.send_to(&answer, client).ok();
    }
}

/// Prints what an HTTP server answers, without its head.
fn ask_tcp(address: &str) -> std::io::Result<()> {
    let address: SocketAddr = address.parse().map_err(std::io::Error::other)?;
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    print!("{}", answer.split_once("\r\n\r\n").map_or(answer.as_str(), |(_, body)| body));
    Ok(())
}

/// Prints what answers a datagram.
fn ask_udp(address: &str) -> std::io::Result<()> {
    let address: SocketAddr = address.parse().map_err(std::io::Error::other)?;
    let socket = UdpSocket::bind(if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
    socket.set_read_timeout(Some(PATIENCE))?;
    // Connected, so that only the address that was asked is heard.
    socket.connect(address)?;
    socket.send(b"hello\n")?;
    let mut buffer = [0; 2048];
    let length = socket.recv(&mut buffer)?;
    std::io::stdout().write_all(&buffer[..length])
}

/// Asks for one second, on a connection for each request or on one for all; prints requests per second and the median in
/// microseconds.
fn load(connect: bool, address: &str) -> std::io::Result<()> {
    let began = Instant::now();
    let mut times = Vec::new();
    let mut kept = None;
    while began.elapsed() < Duration::from_secs(1) {
        let call = Instant::now();
        let mut stream = match kept.take() {
            Some(stream) => stream,
            None => TcpStream::connect(address)?,
        };
        request(&mut stream, if connect { "close" } else { "keep-alive" })?;
        if !connect {
            kept = Some(stream);
        }
        times.push(call.elapsed());
    }
    times.sort_unstable();
    let rate = times.len() as f64 / began.elapsed().as_secs_f64();
    println!("{rate:.1} {:.1}", times[times.len() / 2].as_secs_f64() * 1e6);
    Ok(())
}

/// Asks ten times a second on one connection, for ever, and prints how often it was answered; ends when it is not.
fn hold(address: &str) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    for answers in 1_u64.. {
        request(&mut stream, "keep-alive")?;
        println!("{answers}");
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// One request and its answer.
fn request(stream: &mut TcpStream, connection: &str) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    stream.write_all(format!("GET / HTTP/1.1\r\nConnection: {connection}\r\n\r\n").as_bytes())?;
    let mut buffer = [0; 1024];
    let mut length = 0;
    // An answer has no empty line in its body, and its body ends with the client's address and a line end.
    while !(buffer[..length].ends_with(b"\n") && contains(&buffer[..length], b"\nclient ")) {
        let read = stream.read(&mut buffer[length..])?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        length += read;
    }
    Ok(())
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

/// Takes connections and answers datagrams on these ports, for ever.
fn serve_ports(ports: &[&str]) -> std::io::Result<()> {
    for port in ports {
        let (tcp, udp) = (TcpListener::bind(format!("[::]:{port}"))?, UdpSocket::bind(format!("[::]:{port}"))?);
        std::thread::spawn(move || echo(&udp, ""));
        std::thread::spawn(move || tcp.incoming().for_each(drop));
    }
    loop {
        std::thread::park();
    }
}

/// Takes connections, and says of each how many bytes came within so many milliseconds of the first.
fn weigh(port: &str, milliseconds: &str) -> std::io::Result<()> {
    let limit = Duration::from_millis(milliseconds.parse().map_err(std::io::Error::other)?);
    for stream in TcpListener::bind(format!("[::]:{port}"))?.incoming() {
        let mut stream = stream?;
        std::thread::spawn(move || -> std::io::Result<()> {
            let mut buffer = [0; 65_536];
            let mut bytes = stream.read(&mut buffer)?;
            let first = Instant::now();
            while first.elapsed() < limit {
                bytes += stream.read(&mut buffer)?;
            }
            writeln!(stream, "{bytes}")?;
            // What is still on its way is taken too: to refuse it would take the answer back.
            while stream.read(&mut buffer)? > 0 {}
            Ok(())
        });
    }
    Ok(())
}

/// Sends as much as it can until there is an answer, and prints that.
fn pour(address: &str) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    let mut answer = String::new();
    let reader = stream.try_clone()?;
    std::thread::spawn(move || while stream.write_all(&[0; 65_536]).is_ok() {});
    BufReader::new(reader).read_line(&mut answer)?;
    print!("{answer}");
    Ok(())
}

/// Reads questions, `tcp|udp ADDRESS:PORT MILLISECONDS` each, and prints them again with `yes` or `no`, as soon as it is known
/// whether there was an answer within that time.
fn probe() -> std::io::Result<()> {
    for line in std::io::stdin().lines() {
        let line = line?;
        std::thread::spawn(move || {
            let answer = if answers(&line).is_ok() { "yes" } else { "no" };
            println!("{line} {answer}");
        });
    }
    Ok(())
}

fn answers(question: &str) -> std::io::Result<()> {
    let words: Vec<&str> = question.split(' ').collect();
    let [protocol, address, limit] = words[..] else { return Err(std::io::ErrorKind::InvalidInput.into()) };
    let address: SocketAddr = address.parse().map_err(std::io::Error::other)?;
    let limit = Duration::from_millis(limit.parse().map_err(std::io::Error::other)?);
    if protocol == "tcp" {
        return TcpStream::connect_timeout(&address, limit).map(drop);
    }
    let socket = UdpSocket::bind(if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
    socket.set_read_timeout(Some(limit))?;
    socket.connect(address)?;
    socket.send(b"?")?;
    socket.recv(&mut [0; 64]).map(drop)
}
