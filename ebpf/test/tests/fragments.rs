//! Packets whose ports are elsewhere: in another fragment, or behind extension headers.

use abi::count::Path;
use abi::drops::Drop;
use abi::flow::{Fragment, FragmentKey};
use abi::name;
use abi::service::frontend;
use anyhow::{Result, ensure};
use ebpf_test::case::{Case, hold};
use ebpf_test::packet::{Body, Packet, packet};
use ebpf_test::runner::{REDIRECT, SHOT};
use ebpf_test::world::{Hook, MASQUERADED, Want, World};

const UDP: u8 = 17;

const CASES: &[Case] = &[
    ("fragments reach a service's backend, and those of the answer come back", service),
    ("a fragment before its first is dropped where a service is asked", order),
    ("fragments of datagrams that nobody translates pass in any order", untranslated),
    ("fragments to a NodePort reach a backend elsewhere", node_port),
    ("fragments are masqueraded, and those of the answer find their pod", masquerade),
    ("fragments of pings are masqueraded", pings),
    ("an old first fragment lends nobody its ports", old),
    ("eight extension headers are followed to a service, a ninth is not", extension_headers),
];

#[test]
fn every_case_in_both_families() {
    hold(CASES);
}

/// The first fragment of a datagram and two more; what lies where ports would be is data.
fn fragments(packet: &Packet) -> [Packet; 3] {
    let more = |offset, more| Packet { ..packet.clone() }.udp(0x1111, 0x2222).fragment(offset, more);
    [packet.clone().fragment(0, true), more(2, true), more(4, false)]
}

/// Runs the fragments of one datagram and holds them against those of another.
fn expect(w: &mut World, hook: Hook, sent: &Packet, want: &Packet, path: Option<Path>) -> Result<Packet> {
    let mut first = None;
    for (sent, want) in fragments(sent).into_iter().zip(fragments(want)) {
        let wanted = match path {
            Some(path) => Want::Sent(path, want),
            None => Want::Stack(want),
        };
        let got = w.expect(hook, &sent, &wanted)?;
        first.get_or_insert(got);
    }
    Ok(first.expect("there are three").fragment(0, false))
}

fn service(w: &mut World) -> Result<()> {
    let n = w.names;
    w.service(&[(n.vip, 53)], 0, UDP, &[(n.pod_b, 5353)])?;
    let asked = packet(n.pod_a, n.vip).udp(40000, 53);
    let got = packet(n.pod_a, n.pod_b).udp(40000, 5353);
    expect(w, Hook::FromPodA, &asked, &got, Some(Path::Pod))?;
    expect(w, Hook::FromPodB, &got.answer(), &asked.answer(), Some(Path::Pod))?;
    expect(w, Hook::ToPodA, &got.answer(), &asked.answer(), None)?;
    // A sum over the first fragment is changed as if it were the whole.
    let first = asked.fragment(0, true);
    let outcome = w.run(Hook::FromPodA, &first.bytes())?;
    ensure!(outcome.frame[14..] == got.fragment(0, true).bytes()[14..], "{:02x?}", outcome.frame);
    Ok(())
}

fn order(w: &mut World) -> Result<()> {
    let n = w.names;
    w.service(&[(n.vip, 53)], 0, UDP, &[(n.pod_b, 5353)])?;
    let [first, second, last] = fragments(&packet(n.pod_a, n.vip).udp(40000, 53));
    w.expect(Hook::FromPodA, &last, &Want::Dropped(Drop::FragmentOrder))?;
    w.run(Hook::FromPodA, &first.bytes())?;
    for later in [second, last] {
        let outcome = w.run(Hook::FromPodA, &later.bytes())?;
        ensure!(outcome.code == REDIRECT, "{later:?}: {}", w.drops()?);
    }
    let [.., out] = fragments(&packet(n.pod_a, n.client).udp(40000, 53));
    w.expect(Hook::UplinkOut, &out, &Want::Dropped(Drop::FragmentOrder))?;
    Ok(())
}

fn untranslated(w: &mut World) -> Result<()> {
    let n = w.names;
    let mut all = fragments(&packet(n.pod_a, n.pod_b).udp(40000, 53));
    all.reverse();
    for packet in all {
        w.expect(Hook::FromPodA, &packet, &Want::Sent(Path::Pod, packet.clone()))?;
        w.expect(Hook::UplinkIn, &packet, &Want::Sent(Path::Pod, packet.clone()))?;
    }
    let [.., last] = fragments(&packet(n.client, n.node).udp(40000, 53));
    w.expect(Hook::UplinkIn, &last, &Want::Stack(last.clone()))?;
    Ok(())
}

fn node_port(w: &mut World) -> Result<()> {
    let n = w.names;
    w.service(&[(n.node, 30053)], frontend::EXTERNAL, UDP, &[(n.far_pod, 5353)])?;
    let asked = packet(n.client, n.node).udp(40000, 30053);
    let want = packet(n.node, n.far_pod).udp(MASQUERADED, 5353).hops(63);
    let got = expect(w, Hook::UplinkIn, &asked, &want, Some(Path::Remote))?;
    expect(w, Hook::UplinkIn, &got.answer(), &asked.answer().hops(63), Some(Path::Remote))?;
    Ok(())
}

fn masquerade(w: &mut World) -> Result<()> {
    let n = w.names;
    let out = packet(n.pod_a, n.client).udp(40000, 53);
    let want = packet(n.node, n.client).udp(MASQUERADED, 53);
    let got = expect(w, Hook::UplinkOut, &out, &want, None)?;
    expect(w, Hook::UplinkIn, &got.answer(), &out.answer(), Some(Path::Pod))?;
    Ok(())
}

fn pings(w: &mut World) -> Result<()> {
    let n = w.names;
    let out = packet(n.pod_a, n.client).echo(true, 7);
    let first = Packet { ..out.clone() }.fragment(0, true);
    let want = packet(n.node, n.client).echo(true, MASQUERADED).fragment(0, true);
    w.expect(Hook::UplinkOut, &first, &Want::Stack(want))?;
    let number = if n.client.is_ipv4() { 1 } else { 58 };
    let later =
        |packet: Packet| Packet { body: Body::Other(number, vec![0xc8; 16]), ..packet }.fragment(2, false);
    w.expect(Hook::UplinkOut, &later(out), &Want::Stack(later(packet(n.node, n.client))))?;
    Ok(())
}

fn old(w: &mut World) -> Result<()> {
    let n = w.names;
    w.service(&[(n.vip, 53)], 0, UDP, &[(n.pod_b, 5353)])?;
    let [first, second, _] = fragments(&packet(n.pod_a, n.vip).udp(40000, 53));
    w.run(Hook::FromPodA, &first.bytes())?;
    let rows: Vec<(FragmentKey, Fragment)> =
        w.runner.hash(name::FRAGMENTS)?.iter().filter_map(Result::ok).collect();
    ensure!(rows.len() == 1, "{rows:?}");
    for (key, row) in rows {
        let row = Fragment { seen: row.seen.wrapping_sub(61), ..row };
        w.runner.hash(name::FRAGMENTS)?.insert(key, row, 0)?;
    }
    w.expect(Hook::FromPodA, &second, &Want::Dropped(Drop::FragmentOrder))?;
    Ok(())
}

/// Puts extension headers between an IPv6 header and what follows it.
fn with_headers(packet: &Packet, kinds: &[u8]) -> Vec<u8> {
    let bytes = packet.bytes();
    let mut frame = bytes[..54].to_vec();
    let last = frame[20];
    for (at, kind) in kinds.iter().enumerate() {
        if at == 0 {
            frame[20] = *kind;
        }
        let next = kinds.get(at + 1).copied().unwrap_or(last);
        match kind {
            // The authentication header counts words of four bytes, and not the first two.
            51 => frame.extend([next, 4, 0, 0].into_iter().chain([0x77; 20])),
            // One more word of eight bytes than the header needs.
            43 => frame.extend([next, 1, 0, 0].into_iter().chain([0; 12])),
            _ => frame.extend([next, 0, 1, 4, 0, 0, 0, 0]),
        }
    }
    frame.extend(&bytes[54..]);
    let length = (frame.len() - 54) as u16;
    frame[18..20].copy_from_slice(&length.to_be_bytes());
    frame
}

fn extension_headers(w: &mut World) -> Result<()> {
    let n = w.names;
    if n.vip.is_ipv4() {
        return Ok(());
    }
    w.service(&[(n.vip, 53)], 0, UDP, &[(n.pod_b, 5353)])?;
    let asked = packet(n.pod_a, n.vip).udp(40000, 53);
    let got = packet(n.pod_a, n.pod_b).udp(40000, 5353);
    for kinds in [&[51][..], &[0, 60], &[0, 43, 60, 51, 135, 139], &[0, 60, 43, 51, 135, 139, 140, 60]] {
        let outcome = w.run(Hook::FromPodA, &with_headers(&asked, kinds))?;
        let want = with_headers(&got, kinds);
        ensure!(outcome.code == REDIRECT, "{kinds:?}: code {}: {}", outcome.code, w.drops()?);
        ensure!(outcome.frame[14..] == want[14..], "{kinds:?}: {:02x?}\n{want:02x?}", outcome.frame);
    }
    let nine = [60; 9];
    let dropped = w.counted(name::DROPS, Drop::ExtensionHeaders as u32)?;
    let outcome = w.run(Hook::FromPodA, &with_headers(&asked, &nine))?;
    ensure!(outcome.code == SHOT, "a ninth: code {}", outcome.code);
    ensure!(w.counted(name::DROPS, Drop::ExtensionHeaders as u32)? == dropped + 1, "{}", w.drops()?);
    // Nobody needs to understand what is for a pod.
    let plain = with_headers(&packet(n.pod_a, n.pod_b).udp(1, 2), &nine);
    let outcome = w.run(Hook::FromPodA, &plain)?;
    ensure!(outcome.code == REDIRECT && outcome.frame[14..] == plain[14..], "code {}", outcome.code);
    Ok(())
}
