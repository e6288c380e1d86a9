//! Election by Lease: who holds it renews it, who has not seen it renewed for its duration takes it.
//!
//! Time is counted from when a change was seen here: clocks of different nodes are never compared.

use std::time::{Duration, Instant};

/// How long a Lease holds that nobody renews.
pub const DURATION: Duration = Duration::from_secs(2);
/// How often it is renewed.
pub const RENEWAL: Duration = Duration::from_millis(500);

/// What is known of a Lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Who has it; none if it was given back.
    pub holder: Option<String>,
    /// When it was last seen to change.
    pub at: Instant,
}

/// What to do about it now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Nothing.
    Wait,
    /// Write our name into it, also where it does not exist.
    Take,
    /// Write the time into it: it is ours.
    Renew,
    /// Take our name out of it: we are no candidate any more.
    GiveBack,
}

/// What `own` does. `wants` says whether it may hold the Lease; `written`, when it last wrote into it.
pub fn decide(own: &str, wants: bool, seen: Option<&Seen>, written: Option<Instant>, now: Instant) -> Act {
    let due = written.is_none_or(|at| now.saturating_duration_since(at) >= RENEWAL);
    let Some(seen) = seen else {
        return if wants && due { Act::Take } else { Act::Wait };
    };
    match seen.holder.as_deref() {
        Some(holder) if holder == own && !wants => Act::GiveBack,
        Some(holder) if holder == own && due => Act::Renew,
        Some(holder) if holder == own => Act::Wait,
        Some(_) if now.saturating_duration_since(seen.at) < DURATION => Act::Wait,
        Some(_) | None if wants && due => Act::Take,
        Some(_) | None => Act::Wait,
    }
}

/// Whether `own` holds the Lease. While the API server is away nobody can take it, and whoever has it keeps it.
pub fn holds(own: &str, seen: Option<&Seen>) -> bool {
    seen.is_some_and(|seen| seen.holder.as_deref() == Some(own))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_taken_renewed_and_given_back() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let seen = |holder: Option<&str>| Seen { holder: holder.map(str::to_owned), at: start };
        let (ours, theirs, nobodys) = (seen(Some("a")), seen(Some("b")), seen(None));
        for (wants, lease, written, now, act) in [
            (true, None, None, 0, Act::Take),
            (true, None, Some(0), 400, Act::Wait),
            (true, None, Some(0), 500, Act::Take),
            (false, None, None, 0, Act::Wait),
            (true, Some(&ours), Some(0), 499, Act::Wait),
            (true, Some(&ours), Some(0), 500, Act::Renew),
            (true, Some(&ours), None, 0, Act::Renew),
            (false, Some(&ours), Some(0), 10, Act::GiveBack),
            (true, Some(&theirs), None, 1_999, Act::Wait),
            (true, Some(&theirs), None, 2_000, Act::Take),
            (true, Some(&theirs), Some(1_800), 2_000, Act::Wait),
            (false, Some(&theirs), None, 5_000, Act::Wait),
            (true, Some(&nobodys), None, 0, Act::Take),
            (false, Some(&nobodys), None, 0, Act::Wait),
        ] {
            let found = decide("a", wants, lease, written.map(at), at(now));
            assert_eq!(found, act, "{wants} {lease:?} {written:?} {now}");
        }
        assert!(holds("a", Some(&ours)) && !holds("a", Some(&theirs)) && !holds("a", None));
    }
}
