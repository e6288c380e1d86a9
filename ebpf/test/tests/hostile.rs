//! Hostile packets: whatever the bytes are, a program ends with one of its verdicts and counts it once.

use std::thread;

use abi::count::Path;
use abi::drops::DROPS;
use abi::name;
use abi::service::{bits, frontend};
use anyhow::{Result, ensure};
use ebpf_test::packet::{Body, INIT, Packet, SYN, packet};
use ebpf_test::runner::{PASS, REDIRECT, SHOT, STACK, TX, XDP_DROP, allowed, isolate};
use ebpf_test::world::{Hook, Names, World, families};

const HOOKS: [Hook; 7] =
    [Hook::FromPodA, Hook::FromPodB, Hook::ToPodA, Hook::UplinkIn, Hook::UplinkOut, Hook::Xdp, Hook::XdpFrag];
/// Shorter frames the kernel does not run programs on.
const ETHERNET: usize = 14;

fn in_a_world(test: fn(&mut World) -> Result<()>) {
    if !allowed() {
        return;
    }
    thread::spawn(move || {
        isolate()?;
        let mut world = World::new()?;
        for names in families() {
            world.reset(names)?;
            let frontends = [(names.vip, 80), (names.node, 80)];
            for protocol in [6, 17, 132] {
                world.service(
                    &frontends,
                    frontend::EXTERNAL,
                    protocol,
                    &[(names.pod_b, 8080), (names.far_pod, 8080)],
                )?;
            }
            world.service(&[(names.vip, 443)], frontend::EXTERNAL, 6, &[(names.far_pod, 8443)])?;
            world.change_service(|service| service.flags |= bits::DSR)?;
            establish(&mut world)?;
            test(&mut world)?;
        }
        anyhow::Ok(())
    })
    .join()
    .unwrap()
    .unwrap();
}

/// Makes the samples' packets to services belong to flows whose next hops are known.
fn establish(world: &mut World) -> Result<()> {
    let n = world.names;
    for (hook, asked) in
        [(Hook::FromPodA, packet(n.pod_a, n.vip)), (Hook::UplinkIn, packet(n.client, n.node))]
    {
        for asked in
            [asked.clone().tcp(40000, 80, SYN), asked.clone().udp(40000, 80), asked.sctp(40000, 80, INIT)]
        {
            let got = Packet::read(&world.run(hook, &asked.bytes())?.frame)?;
            for _ in 0..2 {
                world.run(Hook::UplinkIn, &got.answer().bytes())?;
                world.run(hook, &asked.bytes())?;
            }
        }
    }
    Ok(())
}

fn samples(n: Names) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    // Tunnels: for a service that answers directly, and around nothing that anybody knows.
    let number = if n.vip.is_ipv4() { 4 } else { 41 };
    for inside in [packet(n.client, n.vip).tcp(40000, 443, SYN), packet(n.client, n.pod_b).udp(1, 2)] {
        let body = Body::Other(number, inside.bytes()[14..].to_vec());
        all.push(Packet { body, ..packet(n.peer, n.pod_b) });
    }
    all.push(packet(n.client, n.vip).tcp(40000, 443, SYN));
    for (src, dst) in [
        (n.pod_a, n.pod_b),
        (n.pod_a, n.vip),
        (n.pod_a, n.client),
        (n.client, n.node),
        (n.client, n.pod_a),
        (n.node, n.client),
    ] {
        let base = packet(src, dst);
        all.push(base.clone().tcp(40000, 80, SYN));
        all.push(base.clone().udp(40000, 80));
        all.push(base.clone().sctp(40000, 80, INIT));
        all.push(base.clone().echo(true, 7));
        all.push(base.clone().echo(false, 7));
        all.push(base.clone().udp(40000, 80).fragment(0, true));
        all.push(base.udp(40000, 80).fragment(9, false));
    }
    all.iter().map(ebpf_test::packet::Packet::bytes).collect()
}

/// Runs a frame and holds the verdict against the counters of the one door out.
fn run(world: &mut World, hook: Hook, frame: &[u8]) -> Result<()> {
    // Programs also count steps; the door is either a drop or one of the first three paths.
    let door = |world: &mut World| -> Result<u64> {
        let mut sum = 0;
        for (reason, ..) in DROPS {
            sum += world.counted(name::DROPS, *reason)?;
        }
        for path in [Path::Stack, Path::Pod, Path::Remote, Path::Xdp] {
            sum += world.counted(name::PATHS, path as u32)?;
        }
        Ok(sum)
    };
    let before = door(world)?;
    let outcome = world.run(hook, frame)?;
    let (codes, counted) = match hook {
        Hook::Xdp | Hook::XdpFrag => ([PASS, TX, XDP_DROP], u64::from(outcome.code != PASS)),
        _ => ([STACK, SHOT, REDIRECT], 1),
    };
    ensure!(codes.contains(&outcome.code), "{hook:?} {frame:02x?}: code {}", outcome.code);
    ensure!(door(world)? == before + counted, "{hook:?} {frame:02x?}: not counted once");
    Ok(())
}

#[test]
fn every_truncation_ends_in_one_counted_verdict() {
    in_a_world(|world| {
        for frame in samples(world.names) {
            for length in ETHERNET..frame.len() {
                for hook in HOOKS {
                    // The kernel itself refuses frames shorter than their network header on some versions.
                    if world.run(hook, &frame[..length]).is_ok() {
                        run(world, hook, &frame[..length])?;
                    }
                }
            }
        }
        Ok(())
    });
}

#[test]
fn every_changed_byte_ends_in_one_counted_verdict() {
    in_a_world(|world| {
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        for frame in samples(world.names) {
            for at in 12..frame.len() {
                let mut frame = frame.clone();
                // xorshift: the same bytes every time.
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                frame[at] = random as u8;
                for hook in HOOKS {
                    if world.run(hook, &frame).is_ok() {
                        run(world, hook, &frame)?;
                    }
                }
            }
        }
        Ok(())
    });
}

#[test]
fn chains_of_extension_headers_end_in_a_verdict() {
    in_a_world(|world| {
        if world.names.vip.is_ipv4() {
            return Ok(());
        }
        for depth in 0..12 {
            let whole = packet(world.names.pod_a, world.names.pod_b).udp(1, 2).bytes();
            let mut frame = whole[..54].to_vec();
            frame[20] = if depth == 0 { 17 } else { 60 };
            for number in 0..depth {
                let next = if number + 1 == depth { 17 } else { 60 };
                frame.extend([next, 0, 1, 4, 0, 0, 0, 0]);
            }
            frame.extend(&whole[54..]);
            for hook in HOOKS {
                run(world, hook, &frame)?;
            }
        }
        Ok(())
    });
}
