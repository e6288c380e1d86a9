//! Canonical forms of times.

/// RFC 3339 in UTC with whole seconds, or with microseconds when `micro`.
pub(super) fn canonical_time(text: &str, micro: bool) -> Option<String> {
    let time: jiff::Timestamp = text.parse().ok()?;
    let form = if micro { "%Y-%m-%dT%H:%M:%S.%6fZ" } else { "%Y-%m-%dT%H:%M:%SZ" };
    Some(time.strftime(form).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_in_utc() {
        assert_eq!(
            canonical_time("2024-01-02T03:04:05+01:00", false).as_deref(),
            Some("2024-01-02T02:04:05Z")
        );
        assert_eq!(
            canonical_time("2024-01-02T03:04:05Z", true).as_deref(),
            Some("2024-01-02T03:04:05.000000Z")
        );
        assert_eq!(canonical_time("yesterday", false), None);
    }
}
