//! Limits of bandwidth: what is sent is stamped, what comes takes tokens, and too much of either is dropped.

use abi::drops::Drop;
use abi::name;
use abi::pace::{IN, OUT, Pace, PaceKey, cost};
use anyhow::{Result, ensure};
use ebpf_test::case::{Case, hold};
use ebpf_test::packet::{SYN, packet};
use ebpf_test::runner::{Outcome, SHOT, STACK};
use ebpf_test::world::{SENDER, World};

/// Bytes per second.
const RATE: u64 = 1_000_000;
const SECOND: u64 = 1_000_000_000;
const DEVICE: u32 = 1;

const CASES: &[Case] = &[
    ("what a pod sends departs one after the other", stamped),
    ("who was silent sends at once", at_once),
    ("what would wait for too long is dropped, and costs nothing", beyond),
    ("what comes takes tokens and is not stamped", taken),
    ("what comes when the bucket is empty is dropped, and costs nothing", empty),
    ("pods without limits are nobody's business", unlimited),
];

#[test]
fn every_case_in_both_families() {
    hold(CASES);
}

/// Nanoseconds of the clock that programs read.
fn now() -> Result<u64> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer leads to a value that the call fills.
    let code = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    ensure!(code == 0, "{}", std::io::Error::last_os_error());
    Ok(u64::try_from(time.tv_sec)? * SECOND + u64::try_from(time.tv_nsec)?)
}

fn frame(w: &World) -> Vec<u8> {
    let n = w.names;
    // Frames of the tests come from and go to the same place.
    let mut frame = packet(n.pod_a, n.far_pod).tcp(40000, 80, SYN).bytes();
    frame[..6].copy_from_slice(&SENDER);
    frame
}

fn key(direction: u8) -> PaceKey {
    PaceKey { mac: SENDER, direction, zero: 0 }
}

fn limit(w: &mut World, direction: u8, pace: Pace) -> Result<()> {
    for direction in [OUT, IN] {
        let known = w.runner.hash::<PaceKey, Pace>(name::PACES)?.get(&key(direction), 0).is_ok();
        if known {
            w.runner.hash::<PaceKey, Pace>(name::PACES)?.remove(&key(direction))?;
        }
    }
    Ok(w.runner.hash(name::PACES)?.insert(key(direction), pace, 0)?)
}

fn next(w: &mut World, direction: u8) -> Result<u64> {
    Ok(w.runner.hash::<PaceKey, Pace>(name::PACES)?.get(&key(direction), 0)?.next)
}

fn run(w: &mut World, program: &str) -> Result<Outcome> {
    let frame = frame(w);
    w.runner.run(program, DEVICE, &frame)
}

fn stamped(w: &mut World) -> Result<()> {
    let each = cost(RATE, frame(w).len() as u64);
    let begin = now()? + SECOND;
    limit(w, OUT, Pace { next: begin, ..Pace::outward(RATE) })?;
    for number in 0..3 {
        let outcome = run(w, name::TC_PACE_OUT)?;
        ensure!(outcome.code == STACK && outcome.departure == begin + number * each, "{outcome:?}");
    }
    ensure!(next(w, OUT)? == begin + 3 * each);
    Ok(())
}

fn at_once(w: &mut World) -> Result<()> {
    limit(w, OUT, Pace { next: 1, ..Pace::outward(RATE) })?;
    let before = now()?;
    let departure = run(w, name::TC_PACE_OUT)?.departure;
    ensure!((before..=now()?).contains(&departure), "{departure} is not between {before} and now");
    let each = cost(RATE, frame(w).len() as u64);
    ensure!(next(w, OUT)? == departure + each);
    Ok(())
}

fn beyond(w: &mut World) -> Result<()> {
    full(w, OUT, name::TC_PACE_OUT, Pace { next: now()? + 10 * SECOND, ..Pace::outward(RATE) })
}

fn taken(w: &mut World) -> Result<()> {
    let each = cost(RATE, frame(w).len() as u64);
    let begin = now()? + SECOND / 10;
    limit(w, IN, Pace { next: begin, ..Pace::inward(RATE) })?;
    for number in 1..=3 {
        let outcome = run(w, name::TC_PACE_IN)?;
        ensure!(outcome.code == STACK && outcome.departure == 0, "{outcome:?}");
        ensure!(next(w, IN)? == begin + number * each);
    }
    Ok(())
}

fn empty(w: &mut World) -> Result<()> {
    full(w, IN, name::TC_PACE_IN, Pace { next: now()? + 10 * SECOND, ..Pace::inward(RATE) })
}

fn full(w: &mut World, direction: u8, program: &str, pace: Pace) -> Result<()> {
    limit(w, direction, pace)?;
    let before = w.counted(name::DROPS, Drop::Bandwidth as u32)?;
    let outcome = run(w, program)?;
    ensure!(outcome.code == SHOT, "{outcome:?}");
    ensure!(w.counted(name::DROPS, Drop::Bandwidth as u32)? == before + 1, "it is not counted");
    ensure!(next(w, direction)? == pace.next, "it costs something");
    Ok(())
}

fn unlimited(w: &mut World) -> Result<()> {
    limit(w, OUT, Pace { next: now()? + 10 * SECOND, ..Pace::outward(RATE) })?;
    ensure!(run(w, name::TC_PACE_IN)?.code == STACK);
    limit(w, IN, Pace { next: now()? + 10 * SECOND, ..Pace::inward(RATE) })?;
    let outcome = run(w, name::TC_PACE_OUT)?;
    ensure!(outcome.code == STACK && outcome.departure == 0, "{outcome:?}");
    Ok(())
}
