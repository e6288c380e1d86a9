//! A flood of SYNs from random sources takes no established flow away.

use std::net::IpAddr;
use std::thread;

use abi::name;
use abi::service::frontend;
use anyhow::{Result, ensure};
use ebpf_test::packet::{ACK, Body, Packet, SYN, packet};
use ebpf_test::runner::{REDIRECT, allowed, isolate};
use ebpf_test::world::{Hook, World, families};

const TCP: u8 = 6;
/// Connections that were answered before the flood.
const ESTABLISHED: u16 = 10_000;
/// Three times as many as the table of unanswered flows holds.
const FLOOD: u32 = 3 * name::EMBRYOS_SIZE as u32;

#[test]
fn ten_thousand_established_flows_survive_a_flood_of_syns() {
    if !allowed() {
        return;
    }
    thread::spawn(|| {
        isolate()?;
        let mut world = World::new()?;
        for names in families() {
            world.reset(names)?;
            survive(&mut world)?;
        }
        anyhow::Ok(())
    })
    .join()
    .unwrap()
    .unwrap();
}

fn survive(w: &mut World) -> Result<()> {
    let n = w.names;
    w.service(&[(n.node, 30080)], frontend::EXTERNAL, TCP, &[(n.pod_b, 8080)])?;
    let from_client = |port, flags| packet(n.client, n.node).tcp(port, 30080, flags);
    for port in 1..=ESTABLISHED {
        w.run(Hook::UplinkIn, &from_client(port, SYN).bytes())?;
        w.run(Hook::FromPodB, &packet(n.pod_b, n.client).tcp(8080, port, SYN | ACK).bytes())?;
    }
    let entries = w.flows(name::FLOWS)?.len();
    ensure!(entries == 2 * usize::from(ESTABLISHED), "{entries} entries are established");
    for number in 0..FLOOD {
        let syn = packet(stranger(n.client, number), n.node).tcp(number as u16, 30080, SYN);
        let code = w.run(Hook::UplinkIn, &syn.bytes())?.code;
        ensure!(code == REDIRECT, "the flood is served as long as there is room, not {code}");
    }
    for port in 1..=ESTABLISHED {
        let outcome = w.run(Hook::UplinkIn, &from_client(port, ACK).bytes())?;
        let got = Packet::read(&outcome.frame)?;
        let Body::Tcp(_, to, ..) = got.body else { unreachable!() };
        ensure!(
            outcome.code == REDIRECT && got.dst == n.pod_b && to == 8080,
            "port {port} was lost: {got:?}"
        );
    }
    Ok(())
}

/// One of four thousand million addresses.
fn stranger(like: IpAddr, number: u32) -> IpAddr {
    let number = number.wrapping_mul(0x9e37_79b1);
    match like {
        IpAddr::V4(_) => IpAddr::from((0x0b00_0000 | (number >> 8)).to_be_bytes()),
        IpAddr::V6(v6) => {
            let mut bytes = v6.octets();
            bytes[8..12].copy_from_slice(&number.to_be_bytes());
            IpAddr::from(bytes)
        }
    }
}
