//! What the programs cost: instructions the verifier goes through, held against a golden table; time per packet, shown.
//!
//! `BLESS=1` writes the table anew. Time is recorded there as the machine's answer of that day and never asserted.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;
use std::thread;

use abi::name::PROGRAMS;
use anyhow::{Context, Result, ensure};
use ebpf_test::figures::{self, Figure};
use ebpf_test::runner::{allowed, isolate};
use ebpf_test::world::World;

/// Compilers differ a little.
const TOLERANCE: f64 = 0.25;
/// No program may cost the verifier more: DESIGN's budget.
const BUDGET: u32 = 100_000;

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
        let world = World::new()?;
        let mut instructions = BTreeMap::new();
        for program in PROGRAMS {
            instructions.insert(*program, world.runner.verified_instructions(program)?);
        }
        if std::env::var_os("BLESS").is_some() {
            // Nobody asserts times, so they are only taken when they are written down. The names of the first world's
            // devices are taken in this namespace.
            isolate()?;
            std::fs::write(golden(), shown(&instructions, &figures::measure()?))?;
        }
        print!("{}", shown(&instructions, &[]));
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

fn shown(instructions: &BTreeMap<&str, u32>, times: &[Figure]) -> String {
    let mut text = kernel_line() + "# program, instructions the verifier went through\n";
    for (program, cost) in instructions {
        writeln!(text, "{program:<16}{cost:>8}").expect("writing to a string succeeds");
    }
    text.push_str(
        "# packet, nanoseconds in one flow and in many (median of 40,000 runs, one machine, not asserted)\n",
    );
    for Figure { name, one, many } in times {
        let many = many.map(|time| format!("{time:>6} ns")).unwrap_or_default();
        let line = format!("{name:<48}{one:>6} ns{many}");
        writeln!(text, "{}", line.trim_end()).expect("writing to a string succeeds");
    }
    text
}
