//! What the kernel says of this process (`proc(5)`), under the names every Prometheus client uses.

use std::fs::{read_dir, read_to_string};

use super::text::metric;

/// Clock ticks a second in `/proc`: `USER_HZ`, 100 on every architecture this runs on.
const TICKS: f64 = 100.0;

/// Processor time, memory and descriptors; what the kernel does not tell is left out.
pub fn write(out: &mut String, started: f64) {
    let stat = read_to_string("/proc/self/stat").unwrap_or_default();
    let mut one = |name, kind, help, value: Option<f64>| {
        if let Some(value) = value {
            metric(out, (name, kind, help), [(String::new(), value)]);
        }
    };
    let processor = ticks(&stat).map(|ticks| ticks / TICKS);
    one("process_cpu_seconds_total", "counter", "User and system processor time in seconds", processor);
    let status = read_to_string("/proc/self/status").unwrap_or_default();
    one("process_resident_memory_bytes", "gauge", "Resident memory in bytes", kib(&status, "VmRSS:"));
    one("process_virtual_memory_bytes", "gauge", "Virtual memory in bytes", kib(&status, "VmSize:"));
    let open = read_dir("/proc/self/fd").map(|entries| entries.count() as f64);
    one("process_open_fds", "gauge", "Open file descriptors", open.ok());
    let limits = read_to_string("/proc/self/limits").unwrap_or_default();
    one("process_max_fds", "gauge", "Most file descriptors there may be", most_files(&limits));
    one(
        "process_start_time_seconds",
        "gauge",
        "Start of the process, seconds since the epoch",
        Some(started),
    );
}

/// User and system time. The second field is a name in parentheses that may contain anything, spaces too.
fn ticks(stat: &str) -> Option<f64> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse::<f64>().ok();
    Some(number(11)? + number(12)?)
}

fn kib(status: &str, name: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<f64>().ok()? * 1024.0)
}

fn most_files(limits: &str) -> Option<f64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_may_be_called_anything() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 4 0 100 1000 200 0";
        assert_eq!(ticks(stat), Some(300.0));
        assert_eq!(ticks("7 (a"), None);
        assert_eq!(kib("VmSize:\t  20 kB\nVmRSS:\t  12 kB\n", "VmRSS:"), Some(12288.0));
        assert_eq!(most_files("Max open files            1024       4096      files\n"), Some(1024.0));
        assert_eq!(most_files("Max open files            unlimited  unlimited files\n"), None);
    }
}
