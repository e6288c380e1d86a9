//! The server of the example image: says which pod answers, over HTTP on TCP 8080 and as an echo on UDP 8081.
//!
//! One file without dependencies, linked statically, so that the image needs nothing else.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};

fn main() -> std::io::Result<()> {
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
