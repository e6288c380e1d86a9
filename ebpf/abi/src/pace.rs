//! Pods with limited bandwidth.

use crate::layout::layout;

layout! {
    /// A pod and a direction.
    pub struct PaceKey(8) {
        /// Hardware address inside the pod.
        0 => mac: [u8; 6],
        /// [`OUT`] or [`IN`].
        6 => direction: u8,
        /// Zero.
        7 => zero: u8,
    }

    /// How fast a pod may send or receive, and how much of that is spent.
    pub struct Pace(24) {
        /// Bytes per second.
        0 => rate: u64,
        /// Nanoseconds by which packets may be ahead: those that wait to be sent, and the depth of the bucket of those that came.
        8 => slack: u64,
        /// When everything is sent that was let pass: nanoseconds of the monotonic clock.
        16 => next: u64,
    }
}

/// What the pod sends.
pub const OUT: u8 = 0;
/// What comes to the pod.
pub const IN: u8 = 1;

const SECOND: u64 = 1_000_000_000;
/// What is sent waits this long at most; the sender's socket is held up meanwhile.
const HORIZON: u64 = 2 * SECOND;
/// What comes may be ahead by as much as arrives in this time. A sender that has lost a whole window is silent for 200 ms
/// (TCP_RTO_MIN); a bucket that is full before loses what would have come meanwhile, and TCP gets a quarter of its rate.
const BUCKET: u64 = SECOND / 4;
/// But for no fewer bytes than these: several packets of 64 KiB, which is how large they are between pods of a node.
const BUCKET_BYTES: u64 = 256 << 10;

impl Pace {
    /// A pod that sends at this rate, in bytes per second.
    pub fn outward(rate: u64) -> Self {
        Self { rate, slack: HORIZON, next: 0 }
    }

    /// A pod that receives at this rate.
    pub fn inward(rate: u64) -> Self {
        Self { rate, slack: BUCKET.max(cost(rate, BUCKET_BYTES)), next: 0 }
    }
}

/// Nanoseconds that so many bytes take.
#[inline(always)]
pub fn cost(rate: u64, bytes: u64) -> u64 {
    // The programs are verified against a division by zero too.
    (bytes * SECOND).checked_div(rate).unwrap_or(0)
}

/// When a packet may go on that comes `now`, after others that are sent by `next`: never, if that is too far ahead.
#[inline(always)]
pub fn departure(now: u64, next: u64, slack: u64) -> Option<u64> {
    let at = if next > now { next } else { now };
    if at - now <= slack { Some(at) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes of packets of `size` that are let pass in ten seconds by somebody who tries every `pause` nanoseconds.
    fn passed(pace: Pace, size: u64, pause: u64) -> u64 {
        let (mut next, mut passed) = (0, 0);
        for now in (SECOND..11 * SECOND).step_by(usize::try_from(pause).unwrap()) {
            if let Some(at) = departure(now, next, pace.slack) {
                next = at + cost(pace.rate, size);
                passed += size;
            }
        }
        passed
    }

    #[test]
    fn what_is_let_pass_is_the_rate_and_the_slack() {
        for rate in [125_000, 12_500_000, 1_250_000_000] {
            for pace in [Pace::outward(rate), Pace::inward(rate)] {
                let most = 10 * rate + pace.slack * (rate / 1000) / 1_000_000;
                let all = passed(pace, 1500, 1500 * SECOND / rate / 2);
                assert!(all <= most + 3000 && all >= most - most / 100 - 3000, "{rate}: {all} of {most}");
            }
        }
    }

    #[test]
    fn who_stays_below_the_rate_is_never_held_up() {
        let pace = Pace::outward(1_000_000);
        let mut next = 0;
        for now in (SECOND..2 * SECOND).step_by(2_000_000) {
            assert_eq!(departure(now, next, pace.slack), Some(now));
            next = now + cost(pace.rate, 1500);
        }
    }
}
