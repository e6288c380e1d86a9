//! What the programs cost: instructions the verifier goes through, held against a golden table; time per packet, shown.
//!
//! `BLESS=1` writes the table anew. Time is recorded there as the machine's answer of that day and never asserted.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;
use std::thread;

use abi::name::PROGRAMS;
use anyhow::{Context, Result, ensure};
use ebpf_test::packet::{ACK, Packet, SYN, packet};
use ebpf_test::runner::{allowed, isolate};
use ebpf_test::world::{Hook, World, families};

/// Compilers differ a little.
const TOLERANCE: f64 = 0.25;
/// No program may cost the verifier more: DESIGN's budget.
const BUDGET: u32 = 100_000;
const RUNS: usize = 2_000;

fn golden() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("cost.golden")
}

#[test]
fn no_program_costs_much_more_than_the_golden_table_says() {
    if !allowed() {
        return;
    }
    thread::spawn(|| {
        isolate()?;
        let mut world = World::new()?;
        let mut instructions = BTreeMap::new();
        for program in PROGRAMS {
            instructions.insert(*program, world.runner.verified_instructions(program)?);
        }
        let times = times(&mut world)?;
        print!("{}", shown(&instructions, &times));
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(golden(), shown(&instructions, &times))?;
        }
        check(&instructions)
    })
    .join()
    .unwrap()
    .unwrap();
}

fn check(instructions: &BTreeMap<&str, u32>) -> Result<()> {
    let table = std::fs::read_to_string(golden()).context("read cost.golden; BLESS=1 makes it")?;
    let comparable = table.contains(&kernel_line());
    for (program, cost) in instructions {
        ensure!(*cost <= BUDGET, "{program}: {cost} instructions are over the budget of {BUDGET}");
        if !comparable {
            continue;
        }
        let line = table.lines().find(|line| line.split_whitespace().next() == Some(*program));
        let known: u32 = line
            .and_then(|line| line.split_whitespace().nth(1))
            .with_context(|| format!("{program} is not in cost.golden; BLESS=1 adds it"))?
            .parse()?;
        ensure!(
            f64::from(*cost) <= f64::from(known) * (1.0 + TOLERANCE),
            "{program}: the verifier went through {cost} instructions, the table says {known}"
        );
    }
    Ok(())
}

/// Verifiers of different kernels go different ways: the table holds for one, the budget for all.
fn kernel_line() -> String {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let version: Vec<&str> = release.splitn(3, '.').take(2).collect();
    format!("# kernel {}\n", version.join("."))
}

fn shown(instructions: &BTreeMap<&str, u32>, times: &[(String, u128)]) -> String {
    let mut text = kernel_line() + "# program, instructions the verifier went through\n";
    for (program, cost) in instructions {
        writeln!(text, "{program:<16}{cost:>8}").expect("writing to a string succeeds");
    }
    text.push_str("# packet, nanoseconds (median, one machine, not asserted)\n");
    for (name, time) in times {
        writeln!(text, "{name:<48}{time:>6} ns").expect("writing to a string succeeds");
    }
    text
}

fn times(world: &mut World) -> Result<Vec<(String, u128)>> {
    let mut times = Vec::new();
    // What is left when a program does nothing but look at the protocol, count and return.
    let mut arp = vec![0; 64];
    arp[12..14].copy_from_slice(&[0x08, 0x06]);
    let door = world.repeat(Hook::FromPodA, &arp, 100_000)?.duration.as_nanos();
    times.push(("ARP: in and out of the door, warm".to_owned(), door));
    for names in families() {
        world.reset(names)?;
        let family = if names.vip.is_ipv4() { "IPv4" } else { "IPv6" };
        world.service(&[(names.vip, 80), (names.node, 30080)], 4, 6, &[(names.pod_b, 8080)])?;
        let measure = |times: &mut Vec<(String, u128)>,
                       world: &mut World,
                       name: &str,
                       hook: Hook,
                       packet: &Packet|
         -> Result<()> {
            let frame = packet.bytes();
            let mut all = Vec::with_capacity(RUNS);
            for _ in 0..RUNS {
                all.push(world.run(hook, &frame)?.duration.as_nanos());
            }
            all.sort_unstable();
            times.push((format!("{family} {name}"), all[RUNS / 2]));
            Ok(())
        };
        let plain = packet(names.pod_a, names.pod_b).tcp(40000, 80, ACK);
        measure(&mut times, world, "pod to pod", Hook::FromPodA, &plain)?;
        let warm = world.repeat(Hook::FromPodA, &plain.bytes(), 100_000)?.duration.as_nanos();
        times.push((format!("{family} pod to pod, warm"), warm));
        let idle = packet(names.client, names.node).tcp(40000, 22, ACK);
        let warm = world.repeat(Hook::UplinkIn, &idle.bytes(), 100_000)?.duration.as_nanos();
        times.push((format!("{family} outside to the host, warm"), warm));
        let far = packet(names.pod_a, names.far_pod).tcp(40000, 80, ACK);
        measure(&mut times, world, "pod to far pod", Hook::FromPodA, &far)?;
        let syn = packet(names.pod_a, names.vip).tcp(40000, 80, SYN);
        world.run(Hook::FromPodA, &syn.bytes())?;
        world.run(Hook::FromPodB, &packet(names.pod_b, names.pod_a).tcp(8080, 40000, SYN | ACK).bytes())?;
        let established = packet(names.pod_a, names.vip).tcp(40000, 80, ACK);
        measure(&mut times, world, "established to the VIP, on the wire", Hook::FromPodA, &established)?;
        let back = packet(names.pod_b, names.pod_a).tcp(8080, 40000, ACK);
        measure(&mut times, world, "its answer", Hook::FromPodB, &back)?;
        let syn = packet(names.client, names.node).tcp(40000, 30080, SYN);
        world.run(Hook::UplinkIn, &syn.bytes())?;
        measure(&mut times, world, "NodePort, known flow", Hook::UplinkIn, &syn)?;
        let out = packet(names.pod_a, names.client).tcp(40000, 443, SYN);
        world.run(Hook::UplinkOut, &out.bytes())?;
        measure(&mut times, world, "masquerade, known flow", Hook::UplinkOut, &out)?;
        let inward = packet(names.client, names.node).tcp(40000, 22, ACK);
        measure(&mut times, world, "outside to the host", Hook::UplinkIn, &inward)?;
    }
    Ok(times)
}
