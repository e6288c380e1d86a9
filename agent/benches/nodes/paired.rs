//! Two sides measured in turn, many times and briefly: each pair has had the same machine, whatever else that was busy with.

use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;

/// What one turn of one side gave.
#[derive(Debug, Clone, Copy)]
pub struct Turn {
    /// The figure.
    pub figure: f64,
    /// CPU time of this process meanwhile: client, server, and what the kernel did for their packets on their time.
    pub cpu: Duration,
}

/// Takes a figure, and the CPU time it took.
pub fn turn(measure: impl FnOnce() -> f64) -> Turn {
    let before = used();
    let figure = measure();
    Turn { figure, cpu: used() - before }
}

fn used() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("a process knows its own");
    let spent = usage.user_time() + usage.system_time();
    Duration::from_micros(spent.num_microseconds().unsigned_abs())
}

/// The middle of some figures.
pub fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_unstable_by(f64::total_cmp);
    f64::midpoint(figures[(figures.len() - 1) / 2], figures[figures.len() / 2])
}
