//! The repository's own rules, as far as a program can judge them: each finding names file, rule and remedy.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process::{output, root};

/// Longest file, in lines, unless it is a table.
const MAX_LINES: usize = 800;
/// Everything that may stand at the root of the repository.
const ROOT: &[&str] = &[
    ".cargo",
    ".ci",
    ".clippy.toml",
    ".gitignore",
    ".rustfmt.toml",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "agent",
    "cni",
    "control",
    "deploy",
    "e2e",
    "ebpf",
    "fuzz",
    "xtask",
];
/// Words that name no subject.
const EMPTY_NAMES: &[&str] = &["common", "helper", "helpers", "manager", "misc", "util", "utils"];

/// A line that breaks a rule, found by what it holds.
struct LineRule {
    rule: &'static str,
    remedy: &'static str,
    breaks: fn(path: &str, line: &str) -> bool,
}

const LINE_RULES: &[LineRule] = &[
    LineRule {
        rule: "no unwrap outside tests",
        remedy: "return the error, or `expect` with the reason why it cannot fail",
        breaks: |_, line| line.contains(".unwrap()"),
    },
    LineRule {
        rule: "no error turned into a string",
        remedy: "keep it as the source of a typed error",
        breaks: |_, line| {
            line.contains("map_err(|e| e.to_string())") || line.contains("map_err(|error| error.to_string())")
        },
    },
    LineRule {
        rule: "no TODO in place of behaviour",
        remedy: "write `TODO(name): condition`, or return an error that says what is missing",
        breaks: |_, line| line.contains("TODO") && !line.contains("TODO("),
    },
    LineRule {
        rule: "only agent::kernel names aya and netlink",
        remedy: "go through the Kernel trait",
        breaks: |path, line| {
            path.starts_with("agent/src/")
                && !path.starts_with("agent/src/kernel/")
                && (line.contains("aya::") || line.contains("rtnetlink::") || line.contains("netlink_packet"))
        },
    },
    LineRule {
        rule: "pure modules do not know tokio",
        remedy: "leave waiting to the loop that calls them",
        breaks: |path, line| {
            let pure =
                ["agent/src/desired/", "control/scheduler/src/plugins/", "control/apiserver/src/patch/"];
            pure.iter().any(|folder| path.starts_with(folder)) && line.contains("tokio::")
        },
    },
    LineRule {
        rule: "maps are declared in one place",
        remedy: "move the map to ebpf/prog/src/maps.rs",
        breaks: |path, line| {
            path.starts_with("ebpf/prog/src/")
                && path != "ebpf/prog/src/maps.rs"
                && line.contains("#[btf_map]")
        },
    },
];

/// Checks every tracked file; fails with the list of findings.
pub fn check() -> Result<()> {
    let root = root();
    let tracked = output(Command::new("git").args(["ls-files"]).current_dir(&root))?;
    let mut findings = Vec::new();
    let mut count = 0;
    for path in tracked.lines().filter(|path| root.join(path).exists()) {
        findings.extend(misplaced(path));
        if path.ends_with(".rs") && !path.starts_with("xtask/src/tidy.rs") {
            count += 1;
            let text = std::fs::read_to_string(root.join(path)).with_context(|| format!("read {path}"))?;
            findings.extend(source(path, &text));
        }
    }
    findings.extend(readme_paths(&root)?);
    if !findings.is_empty() {
        bail!("{} findings:\n  {}", findings.len(), findings.join("\n  "));
    }
    println!("tidy: {count} source files keep the rules");
    Ok(())
}

fn misplaced(path: &str) -> Option<String> {
    let first = path.split('/').next().unwrap_or(path);
    if !ROOT.contains(&first) {
        return Some(format!("{path}: nothing else may stand at the root; find it a room"));
    }
    let stem = Path::new(path).file_stem()?.to_str()?;
    EMPTY_NAMES
        .contains(&stem)
        .then(|| format!("{path}: `{stem}` names no subject; name it after what it holds"))
}

fn source(path: &str, text: &str) -> Vec<String> {
    let mut findings = Vec::new();
    if !text.starts_with("//!") {
        findings.push(format!("{path}: the first line says in one `//!` sentence what the file is for"));
    }
    let lines = text.lines().count();
    let is_table = path.contains("/generated/") || text.lines().take(5).any(|line| line.contains("a table"));
    if lines > MAX_LINES && !is_table {
        findings.push(format!("{path}: {lines} lines; split it by subject (at most {MAX_LINES})"));
    }
    let is_test = path.contains("/tests/") || path.ends_with("tests.rs") || path.starts_with("ebpf/test/");
    if is_test {
        return findings;
    }
    let production = text.split("#[cfg(test)]").next().unwrap_or(text);
    for (number, line) in production.lines().enumerate() {
        let code = line.split("//").next().unwrap_or(line);
        for rule in LINE_RULES {
            let judged = if rule.rule.contains("TODO") { line } else { code };
            if (rule.breaks)(path, judged) {
                findings.push(format!("{path}:{}: {}; {}", number + 1, rule.rule, rule.remedy));
            }
        }
    }
    findings
}

/// Paths in backquotes that the README promises.
fn readme_paths(root: &Path) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(root.join("README.md")).context("read README.md")?;
    let rooms = ["agent/", "cni/", "control/", "deploy/", "e2e/", "ebpf/", "fuzz/", "xtask/"];
    let quoted = text.split('`').skip(1).step_by(2);
    let promised = quoted
        .filter(|word| rooms.iter().any(|room| word.starts_with(room)) && !word.contains([' ', '*', '<']));
    let missing = promised.filter(|word| !root.join(PathBuf::from(word)).exists());
    Ok(missing.map(|word| format!("README.md: `{word}` does not exist")).collect())
}
