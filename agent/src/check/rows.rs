//! The lines of check's report.

use std::fmt::Write;

use serde::Serialize;

/// What came of one thing that was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It works.
    Ok,
    /// It works, and there is something to know about it: what is done instead of the best, mostly.
    Note,
    /// It could not be looked at.
    NotRun,
    /// It does not work.
    Failed,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// What.
    pub what: String,
    /// What came of it.
    pub outcome: Outcome,
    /// What was found, or why not.
    pub detail: String,
    /// Microseconds of the exchange over TCP, for traffic that was answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp_micros: Option<u64>,
    /// The same over UDP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub udp_micros: Option<u64>,
}

impl Row {
    /// A row without times.
    pub fn new(what: impl Into<String>, outcome: Outcome, detail: impl Into<String>) -> Self {
        Self { what: what.into(), outcome, detail: detail.into(), tcp_micros: None, udp_micros: None }
    }

    /// A row of traffic.
    pub fn traffic(what: String, heard: Result<[u64; 2], String>) -> Self {
        match heard {
            Ok([tcp, udp]) => Self {
                tcp_micros: Some(tcp),
                udp_micros: Some(udp),
                ..Self::new(what, Outcome::Ok, format!("TCP {}, UDP {}", millis(tcp), millis(udp)))
            },
            Err(why) => Self::new(what, Outcome::Failed, why),
        }
    }

    /// Fine with what was found, or failed with the reason.
    pub fn judged(what: impl Into<String>, found: anyhow::Result<String>) -> Self {
        match found {
            Ok(detail) => Self::new(what, Outcome::Ok, detail),
            Err(why) => Self::new(what, Outcome::Failed, format!("{why:#}")),
        }
    }
}

fn millis(micros: u64) -> String {
    format!("{}.{:02} ms", micros / 1000, micros % 1000 / 10)
}

/// The rows for people, and how many there are of each outcome.
pub fn text(rows: &[Row]) -> String {
    let width = rows.iter().map(|row| row.what.chars().count()).max().unwrap_or_default();
    let mut text = String::new();
    for row in rows {
        let outcome = word(row.outcome);
        writeln!(text, "{outcome:<8} {:<width$}  {}", row.what, row.detail)
            .expect("writing to a string succeeds");
    }
    let count = |outcome| rows.iter().filter(|row| row.outcome == outcome).count();
    let all = [Outcome::Ok, Outcome::Note, Outcome::NotRun, Outcome::Failed];
    let counts: Vec<String> =
        all.iter().map(|outcome| format!("{} {}", count(*outcome), word(*outcome))).collect();
    writeln!(text, "\n{}", counts.join(", ")).expect("writing to a string succeeds");
    text
}

fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Ok => "ok",
        Outcome::Note => "note",
        Outcome::NotRun => "not run",
        Outcome::Failed => "FAILED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_says_what_came_of_it() {
        let rows = [
            Row::traffic("pod > pod".to_owned(), Ok([1_234, 90])),
            Row::traffic("host > pod".to_owned(), Err("TCP: connect: refused".to_owned())),
            Row::new("outside > pod", Outcome::NotRun, "there is no outside"),
        ];
        assert_eq!(
            text(&rows),
            "ok       pod > pod      TCP 1.23 ms, UDP 0.09 ms\n\
             FAILED   host > pod     TCP: connect: refused\n\
             not run  outside > pod  there is no outside\n\n\
             1 ok, 0 note, 1 not run, 1 FAILED\n"
        );
        let json = serde_json::to_value(&rows).unwrap();
        assert_eq!(json[0]["tcp_micros"], 1_234);
        assert_eq!(json[2]["outcome"], "not-run");
        assert_eq!(json[2].get("tcp_micros"), None);
    }
}
