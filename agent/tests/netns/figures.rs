//! Figures, printed for people: `cargo test -p agent --test netns -- --ignored --nocapture figures`.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use crate::namespace::Namespace;
use crate::world::{BACKEND_PORT, Clients, PORT, VIPS, World, allowed};

const SECONDS: Duration = Duration::from_secs(1);

/// Reads everything, and answers each byte `?` with one byte.
fn sink(namespace: &Namespace, port: u16) {
    let listener = namespace.run(|| TcpListener::bind(("::", port)).unwrap());
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            std::thread::spawn(move || {
                let mut buffer = vec![0; 1 << 18];
                while let Ok(length) = stream.read(&mut buffer) {
                    if length == 0 || (buffer[0] == b'?' && stream.write_all(b"!").is_err()) {
                        return;
                    }
                }
            });
        }
    });
}

fn figures(from: &Namespace, to: SocketAddr) -> String {
    from.run(|| {
        let mut stream = TcpStream::connect(to).unwrap();
        stream.set_nodelay(true).unwrap();
        let data = vec![0; 1 << 18];
        let (start, mut sent) = (Instant::now(), 0_u64);
        while start.elapsed() < SECONDS {
            sent += stream.write(&data).unwrap() as u64;
        }
        let gigabits = sent as f64 * 8.0 / start.elapsed().as_secs_f64() / 1e9;

        let mut stream = TcpStream::connect(to).unwrap();
        stream.set_nodelay(true).unwrap();
        let (start, mut asked, mut byte) = (Instant::now(), 0_u64, [0]);
        while start.elapsed() < SECONDS {
            stream.write_all(b"?").unwrap();
            stream.read_exact(&mut byte).unwrap();
            asked += 1;
        }
        let answers = asked as f64 / start.elapsed().as_secs_f64();

        let (start, mut connects) = (Instant::now(), 0_u64);
        while start.elapsed() < SECONDS {
            drop(TcpStream::connect(to).unwrap());
            connects += 1;
        }
        let connects = connects as f64 / start.elapsed().as_secs_f64();
        format!("{gigabits:>6.2} Gbit/s {answers:>8.0} answers/s {connects:>8.0} connects/s")
    })
}

#[test]
#[ignore = "prints figures and asserts nothing"]
fn figures_of_every_path() {
    if !allowed() {
        return;
    }
    for clients in [Clients::Sockets, Clients::Wire] {
        let mut world = World::new(clients);
        for (node, pod) in [(0, 0), (0, 1), (1, 0)] {
            sink(&world.nodes[node].pods[pod].namespace, BACKEND_PORT);
        }
        for (name, backend) in [("local", (0, 0)), ("far", (1, 0))] {
            world.serve(&[backend]);
            for (family, vip) in VIPS.iter().enumerate() {
                let direct =
                    SocketAddr::new(world.nodes[backend.0].pods[backend.1].addresses[family], BACKEND_PORT);
                let vip = SocketAddr::new(vip.parse().unwrap(), PORT);
                let from = &world.nodes[0].pods[1].namespace;
                println!("{clients:?} {name} pod direct {}", figures(from, direct));
                println!("{clients:?} {name} pod by VIP {}", figures(from, vip));
            }
        }
    }
    // The same two namespaces with nothing but a veth pair between them.
    let (one, other) = (Namespace::new(), Namespace::new());
    one.ip(&format!("link add veth0 type veth peer name veth0 netns {}", other.path().display()));
    for (namespace, address) in [(&one, "198.51.100.1/24"), (&other, "198.51.100.2/24")] {
        namespace.ip(&format!("addr add {address} dev veth0"));
        namespace.ip("link set veth0 up");
    }
    sink(&other, BACKEND_PORT);
    println!(
        "bare veth            {}",
        figures(&one, SocketAddr::new("198.51.100.2".parse().unwrap(), BACKEND_PORT))
    );
}
