//! Freed memory goes back to the kernel when the work is done.
//!
//! The allocator keeps some of what was freed for each thread, and the rest for a while that it measures only when
//! somebody asks for memory. After a large document, or many definitions, nobody may ask for a long time.

use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// How often it is looked whether there is something to give back.
const EVERY: Duration = Duration::from_secs(2);
/// Who is busier than this in between would want the memory again at once.
const LOAD: Duration = Duration::from_millis(200);
/// Work after which something may have been freed.
const WORK: Duration = Duration::from_millis(20);

unsafe extern "C" {
    /// Of mimalloc, which the crate of that name links: gives back what is free in the thread's own pages, and with `force`
    /// at once what is free in the process.
    safe fn mi_collect(force: bool);
}

/// Anonymous memory in bytes from which on huge pages pay.
const LARGE: u64 = 10 << 20;

/// Has the kernel hand out memory in pages of 4 KiB, until there is enough of it for larger ones; see [`tend`].
///
/// The allocator asks for pages of 2 MiB. An idle API server that uses 6 MiB lay scattered over nine of these, and of
/// the 40 MiB a process with everything in it may take, half were empty. One that serves a thousand watchers is a tenth
/// faster with them.
pub fn in_small_pages() {
    say_pages(true);
}

fn say_pages(small: bool) {
    if let Err(error) = nix::sys::prctl::set_thp_disable(small) {
        tracing::warn!(%error, small, "the kernel cannot be told the size of pages");
    }
}

/// What the process holds of its own in bytes, from the text of `/proc/self/status`.
fn anonymous(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib << 10)
}

fn is_large() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    anonymous(&status).is_some_and(|bytes| bytes > LARGE)
}

/// Gives memory back until the process stops, and asks for huge pages once it is large.
pub async fn tend(stop: CancellationToken) {
    let metrics = Handle::current().metrics();
    let (mut quiet, mut small) = (Quiet::default(), true);
    let mut turns = interval(EVERY);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = turns.tick() => {}
            () = stop.cancelled() => return,
        }
        if small && is_large() {
            say_pages(false);
            small = false;
        }
        let busy = (0..metrics.num_workers()).map(|worker| metrics.worker_total_busy_duration(worker)).sum();
        if quiet.is_due(busy) {
            mi_collect(true);
        }
    }
}

/// Knows when work has been done and none is being done.
#[derive(Debug, Default)]
struct Quiet {
    /// The threads' busy time when it was last looked at, and when memory was last given back.
    looked: Duration,
    gave: Duration,
}

impl Quiet {
    /// Whether memory is to be given back, now that the threads have been busy for so long in all.
    fn is_due(&mut self, busy: Duration) -> bool {
        let lately = busy.saturating_sub(self.looked);
        self.looked = busy;
        let due = lately < LOAD && busy.saturating_sub(self.gave) >= WORK;
        if due {
            self.gave = busy;
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_small_once_asked_for() {
        in_small_pages();
        assert!(nix::sys::prctl::get_thp_disable().unwrap());
        say_pages(false);
        assert!(!nix::sys::prctl::get_thp_disable().unwrap());
    }

    #[test]
    fn what_is_of_files_does_not_count() {
        let status = "Name:\tx\nVmRSS:\t   26000 kB\nRssAnon:\t    9000 kB\nRssFile:\t   17000 kB\n";
        assert_eq!(anonymous(status), Some(9000 << 10));
        assert_eq!(anonymous("RssAnon:\tx kB\n"), None);
        assert_eq!(anonymous(""), None);
    }

    #[test]
    fn memory_is_given_back_once_after_work_and_not_during_it() {
        let mut quiet = Quiet::default();
        let mut after = |busy| quiet.is_due(Duration::from_millis(busy));
        assert!(!after(1), "nothing was done yet");
        assert!(!after(1001), "it is busy");
        assert!(after(1002), "it was busy");
        assert!(!after(1003), "that was given back already");
        assert!(after(1023), "there was a little to do");
        assert!(!after(1030), "and next to nothing since");
        assert!(after(1050), "which becomes more with time");
    }
}
