//! Prometheus's text format 0.0.4, which every reader of Kubernetes metrics reads.

use std::fmt::Write;

/// The media type.
pub const MEDIA: &str = "text/plain; version=0.0.4; charset=utf-8";

/// OpenMetrics text in the older format: there a counter's help and type stand under its full name, and nothing marks the end.
pub fn classic(openmetrics: &str) -> String {
    let lines: Vec<&str> = openmetrics.lines().filter(|line| *line != "# EOF").collect();
    let mut out = String::with_capacity(openmetrics.len());
    let mut total = "";
    for (at, line) in lines.iter().enumerate() {
        // Help comes right before the type.
        if line.starts_with("# HELP ") {
            let counts = lines.get(at + 1).is_some_and(|next| next.ends_with(" counter"));
            total = if counts { "_total" } else { "" };
        }
        let line = match line.splitn(4, ' ').collect::<Vec<_>>()[..] {
            ["#", word @ ("HELP" | "TYPE"), name, rest] => format!("# {word} {name}{total} {rest}"),
            _ => (*line).to_owned(),
        };
        out.push_str(&line);
        out.push('\n');
    }
    out
}

/// One metric that is looked up when it is asked for: labels (empty, or with their braces) and value of each sample.
pub fn metric(
    out: &mut String,
    (name, kind, help): (&str, &str, &str),
    samples: impl IntoIterator<Item = (String, f64)>,
) {
    writeln!(out, "# HELP {name} {help}.\n# TYPE {name} {kind}").expect("writing to a string does not fail");
    for (labels, value) in samples {
        writeln!(out, "{name}{labels} {value}").expect("writing to a string does not fail");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_have_their_full_name_and_nothing_follows_the_last_sample() {
        let text = "# HELP a Things.\n# TYPE a counter\na_total{x=\"1\"} 2\n# HELP b Others.\n# TYPE b gauge\nb 1\n# EOF\n";
        let wanted = "# HELP a_total Things.\n# TYPE a_total counter\na_total{x=\"1\"} 2\n# HELP b Others.\n# TYPE b gauge\nb 1\n";
        assert_eq!(classic(text), wanted);
    }

    #[test]
    fn samples_stand_below_their_name() {
        let mut out = String::new();
        metric(&mut out, ("a", "gauge", "Things"), [(String::new(), 1.0), ("{x=\"y\"}".to_owned(), 0.5)]);
        assert_eq!(out, "# HELP a Things.\n# TYPE a gauge\na 1\na{x=\"y\"} 0.5\n");
    }
}
