//! What happens to packets whose flow cannot be remembered.

use abi::count::Path;
use abi::drops::Drop;
use abi::name;
use abi::node::Node;
use anyhow::{Result, ensure};
use ebpf_test::case::{Case, hold_in};
use ebpf_test::packet::{ACK, SYN, packet};
use ebpf_test::world::{Hook, Want, World, node};

const TCP: u8 = 6;
const UDP: u8 = 17;
/// One flow that is translated, or two that are not.
const ROOM: u32 = 2;

const CASES: &[Case] = &[
    ("a packet for a service is dropped, and served when there is room again", service),
    ("a packet that leaves under the node's address is dropped", masquerade),
    ("a packet that stays as it is passes", plain),
];

#[test]
fn every_case_in_both_families() {
    // None may begin among the flows.
    hold_in(|| World::full(&Node { begun: 0, ..node() }, ROOM), CASES);
}

fn service(w: &mut World) -> Result<()> {
    let n = w.names;
    w.service(&[(n.vip, 80)], 0, TCP, &[(n.pod_b, 8080)])?;
    let asked = |port, flags| packet(n.pod_a, n.vip).tcp(port, 80, flags);
    let got = |port, flags| Want::Sent(Path::Pod, packet(n.pod_a, n.pod_b).tcp(port, 8080, flags));
    w.expect(Hook::FromPodA, &asked(40000, SYN), &got(40000, SYN))?;
    w.expect(Hook::FromPodA, &asked(40001, SYN), &Want::Dropped(Drop::FlowTable))?;
    ensure!(w.flows(name::EMBRYOS)?.len() == 2, "nothing is left of the second");
    // The first is answered and makes room.
    w.run(Hook::FromPodB, &packet(n.pod_b, n.pod_a).tcp(8080, 40000, SYN | ACK).bytes())?;
    w.expect(Hook::FromPodA, &asked(40001, SYN), &got(40001, SYN))?;
    w.expect(Hook::FromPodA, &asked(40000, ACK), &got(40000, ACK))?;
    Ok(())
}

fn masquerade(w: &mut World) -> Result<()> {
    let n = w.names;
    w.service(&[(n.vip, 53)], 0, UDP, &[(n.pod_b, 5353)])?;
    w.run(Hook::FromPodA, &packet(n.pod_a, n.vip).udp(40000, 53).bytes())?;
    ensure!(w.flows(name::EMBRYOS)?.len() == 2, "the table is full");
    w.expect(Hook::UplinkOut, &packet(n.pod_a, n.client).udp(1, 2), &Want::Dropped(Drop::NoPort))?;
    Ok(())
}

fn plain(w: &mut World) -> Result<()> {
    let n = w.names;
    for port in 1..5 {
        let packet = packet(n.pod_a, n.pod_b).udp(port, 2);
        w.expect(Hook::FromPodA, &packet, &Want::Sent(Path::Pod, packet.clone()))?;
    }
    ensure!(w.flows(name::EMBRYOS)?.len() == 2, "two flows are remembered");
    Ok(())
}
