//! XDP on an uplink: NodePort traffic towards another node is forwarded before the stack, there and back.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

use agent::kernel::Kernel;
use agent::kernel::cleanup::cleanup;
use agent::kernel::xdp::Mode;

use crate::namespace::Namespace;
use crate::world::{BACKEND_PORT, Clients, NODE_PORT, World, allowed};

const ETHTOOL_STXCSUM: u32 = 0x17;
/// Enough for segments of many sizes.
const BYTES: usize = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(30);

/// Changes a setting of a device, as `ethtool -K` does.
fn ethtool(namespace: &Namespace, device: &str, command: u32, value: u32) {
    namespace.run(|| {
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        let mut setting = [command, value];
        // SAFETY: all-zero bytes are a valid request.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(device.bytes()) {
            *to = from.cast_signed();
        }
        request.ifr_ifru.ifru_data = setting.as_mut_ptr().cast();
        // SAFETY: the request leads to a setting that outlives the call.
        let code = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL as _, &raw mut request) };
        assert_eq!(code, 0, "{device}: {}", std::io::Error::last_os_error());
    });
}

/// Sends back what it is sent.
fn echo(namespace: &Namespace) {
    let server = namespace.run(|| TcpListener::bind(("::", BACKEND_PORT)).unwrap());
    std::thread::spawn(move || {
        for stream in server.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let mut writer = stream.try_clone().unwrap();
                drop(std::io::copy(&mut stream, &mut writer));
            });
        }
    });
}

fn exchange(from: &Namespace, to: SocketAddr) {
    from.run(|| {
        let patience = Some(PATIENCE);
        let mut stream = TcpStream::connect_timeout(&to, PATIENCE).unwrap();
        stream.set_read_timeout(patience).unwrap();
        stream.set_write_timeout(patience).unwrap();
        let sent: Vec<u8> = (0..BYTES).map(|at| (at % 251) as u8).collect();
        let mut writer = stream.try_clone().unwrap();
        let expected = sent.clone();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                writer.write_all(&sent).unwrap();
                writer.shutdown(std::net::Shutdown::Write).unwrap();
            });
            let mut got = Vec::new();
            stream.read_to_end(&mut got).unwrap();
            assert!(got == expected, "{} of {BYTES} bytes came back", got.len());
        });
    });
}

fn forwarded(world: &mut World) -> u64 {
    let reconciler = world.nodes[1].reconciler.as_mut().unwrap();
    reconciler.kernel.counters().unwrap().paths["Xdp"].packets
}

#[test]
fn node_ports_of_another_node_are_forwarded_before_the_stack() {
    if !allowed() {
        return;
    }
    let mut world = World::new(Clients::Wire);
    // A veth leaves checksums to be filled in, unless it is told not to.
    for (number, node) in world.nodes.iter().enumerate() {
        ethtool(&node.namespace, "uplink", ETHTOOL_STXCSUM, 0);
        ethtool(&world.outside, &format!("port{}", number + 1), ETHTOOL_STXCSUM, 0);
    }
    world.nodes[1].xdp = Mode::Native;
    world.nodes[1].reconciler = None;
    world.nodes[1].start();
    // A veth wakes its other end for frames that XDP sends back only if that has an XDP program as well; any will do.
    let program = agent::kernel::objects::folder(&world.nodes[1].bpffs, 1)
        .join(format!("prog_{}", agent::kernel::features::Features::probe().xdp_program()));
    world.outside.ip(&format!("link set dev port2 xdp pinned {}", program.display()));
    echo(&world.nodes[0].pods[0].namespace);
    world.serve(&[(0, 0)]);
    let status = world.nodes[1].reconciler.as_ref().unwrap().kernel.features();
    let xdp = status.iter().find(|feature| feature.name == "xdp").unwrap();
    assert!(xdp.present && xdp.note.ends_with("; uplink: native"), "{}", xdp.note);
    for family in 0..2 {
        let before = forwarded(&mut world);
        let to: IpAddr = world.nodes[1].addresses[family];
        exchange(&world.outside, SocketAddr::new(to, NODE_PORT));
        let packets = forwarded(&mut world) - before;
        assert!(packets > 100, "{packets} packets of {BYTES} bytes each way were forwarded to {to}");
    }
    // Switched off, the same traffic goes through TC.
    world.nodes[1].xdp = Mode::Off;
    world.nodes[1].reconciler = None;
    world.nodes[1].start();
    let before = forwarded(&mut world);
    let to = world.nodes[1].addresses[0];
    exchange(&world.outside, SocketAddr::new(to, NODE_PORT));
    assert_eq!(forwarded(&mut world), before);
    assert!(!world.nodes[1].namespace.ip("-d link show uplink").contains("prog/xdp"));
}

#[test]
fn cleanup_takes_the_programs_off_devices_that_are_not_ours() {
    if !allowed() {
        return;
    }
    let mut world = World::new(Clients::Wire);
    let node = &mut world.nodes[0];
    node.xdp = Mode::Native;
    node.reconciler = None;
    node.start();
    assert!(node.namespace.ip("-d link show uplink").contains("prog/xdp"));
    node.reconciler = None;
    let (bpffs, removed) = (node.bpffs.clone(), node.namespace.run(|| cleanup(&node.bpffs).unwrap()));
    assert!(removed.iter().any(|line| line.contains("link_uplink_xdp")), "{removed:?}");
    let shown = node.namespace.ip("-d link show uplink");
    assert!(!shown.contains("xdp"), "{shown}");
    let attached = node.namespace.run(|| {
        let output = std::process::Command::new("bpftool").args(["net", "show", "dev", "uplink"]).output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    });
    assert!(!attached.contains("uplink("), "{attached}");
    assert!(!bpffs.exists() || bpffs.read_dir().unwrap().next().is_none());
}
