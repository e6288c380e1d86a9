//! What is wrong with text that is not YAML, in the words of Go's library.

use serde_saphyr::Error;

/// The fault for which text could not be read, such as `yaml: line 2: did not find expected key`.
pub fn fault(error: &Error, text: &str) -> String {
    let (message, line) = match error.without_snippet() {
        Error::ExternalMessage { msg, location, .. } => (msg.clone(), location.line()),
        other => (other.to_string(), other.location().map_or(0, |location| location.line())),
    };
    match told(&message, line, text) {
        (0, said) => format!("yaml: {said}"),
        (line, said) => format!("yaml: line {line}: {said}"),
    }
}

/// Go's sentence for one of our reader's, and the line it names.
///
/// Go's scanner counts lines from one, and what reads the scanner's words from zero.
fn told(message: &str, line: u64, text: &str) -> (u64, String) {
    let expected = |what: &str| format!("did not find expected {what}");
    match message {
        // Go looks for it to the end.
        "unclosed bracket '{'" => (text.lines().count() as u64, expected("',' or '}'")),
        "unclosed bracket '['" => (text.lines().count() as u64, expected("',' or ']'")),
        "illegal placement of ':' indicator" => (line.saturating_sub(1), expected("',' or ']'")),
        "while scanning a plain scalar, found a tab" => {
            let tab = text
                .lines()
                .skip(usize::try_from(line).unwrap_or(usize::MAX))
                .position(|next| next.starts_with('\t'));
            let said = "found a tab character that violates indentation";
            (line + 1 + tab.unwrap_or_default() as u64, said.to_owned())
        }
        _ => match message.split_once(", ") {
            Some((place, said)) if place.starts_with("while parsing") => {
                (line.saturating_sub(1), said.to_owned())
            }
            Some((place, said)) if place.starts_with("while scanning") => (line, said.to_owned()),
            _ => (line, message.to_owned()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_told_as_go_tells_them() {
        for (text, want) in [
            ("kind: Gadget\nspec: {size: 1", "yaml: line 2: did not find expected ',' or '}'"),
            ("kind: Gadget\n  spec: x\n", "yaml: line 2: mapping values are not allowed in this context"),
            ("kind: Gadget\n\tspec: x\n", "yaml: line 2: found a tab character that violates indentation"),
            ("kind: [Gadget\nspec: x\n", "yaml: line 1: did not find expected ',' or ']'"),
        ] {
            let error = serde_saphyr::from_str::<serde_json::Value>(text).unwrap_err();
            assert_eq!(fault(&error, text), want, "{text}");
        }
    }
}
