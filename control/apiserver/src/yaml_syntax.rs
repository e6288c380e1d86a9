//! What is wrong with text that is not YAML, in the words of Go's library.

use serde_saphyr::Error;

/// The fault for which text could not be read, such as `yaml: line 2: did not find expected key`.
pub fn fault(error: &Error, text: &str) -> String {
    let (message, line, column) = match error.without_snippet() {
        Error::ExternalMessage { msg, location, .. } => (msg.clone(), location.line(), location.column()),
        other => {
            let at = other.location().map_or((0, 0), |location| (location.line(), location.column()));
            (other.to_string(), at.0, at.1)
        }
    };
    let anchor = || anchor_at(text, line, column);
    match &*message {
        said if said.contains("budget breached") => "yaml: document contains excessive aliasing".to_owned(),
        said if said.starts_with("alias references unknown anchor") => {
            format!("yaml: unknown anchor '{}' referenced", anchor())
        }
        said if said.starts_with("recursive references") => {
            format!("yaml: anchor '{}' value contains itself", anchor())
        }
        said if said.starts_with("unexpected character: `")
            && said.contains(char::is_control) | said.contains(r"\u{") =>
        {
            "yaml: control characters are not allowed".to_owned()
        }
        _ => match told(&message, line, text) {
            (0, said) => format!("yaml: {said}"),
            (line, said) => format!("yaml: line {line}: {said}"),
        },
    }
}

/// The name behind the `*` at a place of the text, which is counted from one.
fn anchor_at(text: &str, line: u64, column: u64) -> String {
    let before = |place: u64| usize::try_from(place.saturating_sub(1)).unwrap_or(usize::MAX);
    let rest = text.lines().nth(before(line)).unwrap_or_default().chars().skip(before(column));
    rest.skip_while(|one| *one == '*')
        .take_while(|one| one.is_alphanumeric() || "-_".contains(*one))
        .collect()
}

/// Go's sentence for one of our reader's, and the line it names, if any.
///
/// Go counts lines from zero and names none where that is the number; only where its scanner finds the fault it adds one.
fn told(message: &str, line: u64, text: &str) -> (u64, String) {
    let scanned = |said: &str| (if line > 1 { line } else { 0 }, said.to_owned());
    let parsed = |said: &str| (line.saturating_sub(1), said.to_owned());
    let expected = |what: &str| format!("did not find expected {what}");
    let end = text.lines().count() as u64;
    match message {
        // Go looks for it to the end.
        "unclosed bracket '{'" => (end, expected("',' or '}'")),
        "unclosed bracket '['" => (end, expected("',' or ']'")),
        "unclosed quote" | "invalid indentation in multiline quoted scalar" => {
            let end = end + u64::from(text.ends_with('\n'));
            (if end > 1 { end } else { 0 }, "found unexpected end of stream".to_owned())
        }
        "illegal placement of ':' indicator" => parsed(&expected("',' or ']'")),
        "mismatched bracket '{' closed by ']'" => parsed(&expected("',' or '}'")),
        "mismatched bracket '[' closed by '}'" => parsed(&expected("',' or ']'")),
        "misplaced bracket" => parsed(&expected("node content")),
        said if said.starts_with("unexpected EOF while parsing") => parsed(&expected("node content")),
        said if said.starts_with("invalid trailing content after") => parsed(&expected("key")),
        "simple key expected ':'" => (line + 1, "could not find expected ':'".to_owned()),
        "unsupported YAML major version" => scanned("found incompatible YAML document"),
        said if said.starts_with("unexpected character: `") || said.starts_with("tabs disallowed") => {
            scanned("found character that cannot start any token")
        }
        "while scanning a plain scalar, found a tab" => {
            let tab = text
                .lines()
                .skip(usize::try_from(line).unwrap_or(usize::MAX))
                .position(|next| next.starts_with('\t'));
            let said = "found a tab character that violates indentation";
            (line + 1 + tab.unwrap_or_default() as u64, said.to_owned())
        }
        _ => match message.split_once(", ") {
            // With Go that is the scanner's.
            Some(("while parsing a quoted scalar", said)) => {
                scanned(&said.replace("hexadecimal", "hexdecimal"))
            }
            Some((place, said)) if place.starts_with("while parsing") => parsed(said),
            Some((place, said)) if place.starts_with("while scanning") => scanned(said),
            _ => scanned(message),
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
            ("a: b: c", "yaml: mapping values are not allowed in this context"),
            ("kind: Gadget\n\tspec: x\n", "yaml: line 2: found a tab character that violates indentation"),
            ("x:\n\ty: 1\n", "yaml: line 2: found character that cannot start any token"),
            ("kind: [Gadget\nspec: x\n", "yaml: line 1: did not find expected ',' or ']'"),
            ("x: 1\nspec: {a: [1, {b: 2]}", "yaml: line 1: did not find expected ',' or '}'"),
            ("spec: {a: [1, 2}}", "yaml: did not find expected ',' or ']'"),
            ("a: 'x", "yaml: found unexpected end of stream"),
            ("x: 1\na: \"x\n", "yaml: line 3: found unexpected end of stream"),
            ("a: 'x\nb: 1\n", "yaml: line 3: found unexpected end of stream"),
            ("x: 1\na: \"\\q\"", "yaml: line 2: found unknown escape character"),
            ("a: \"\\u00zz\"", "yaml: did not find expected hexdecimal number"),
            ("a: ]", "yaml: did not find expected node content"),
            ("x: 1\na: [1,,2]", "yaml: line 1: did not find expected node content"),
            ("x: 1\na: 'x' y", "yaml: line 1: did not find expected key"),
            ("a:\n  b: 1\n c: 2", "yaml: line 2: did not find expected key"),
            ("- a\nb: 1", "yaml: line 1: did not find expected '-' indicator"),
            ("key1: v\nkey2\nkey3: v", "yaml: line 3: could not find expected ':'"),
            ("x: 1\na: @x", "yaml: line 2: found character that cannot start any token"),
            ("a: %x", "yaml: found character that cannot start any token"),
            ("a: x\0", "yaml: control characters are not allowed"),
            ("a: -", "yaml: block sequence entries are not allowed in this context"),
            ("x: 1\na: *some-1", "yaml: unknown anchor 'some-1' referenced"),
            ("x: 1\na: &a [*a]", "yaml: anchor 'a' value contains itself"),
            ("%YAML 2.0\n---\na: 1", "yaml: found incompatible YAML document"),
            ("a: |0\n x", "yaml: found an indentation indicator equal to 0"),
        ] {
            let error = serde_saphyr::from_str::<serde_json::Value>(text).unwrap_err();
            assert_eq!(fault(&error, text), want, "{text}");
        }
        let bomb = format!("a: &a [{}]\nb: [{}]\n", "x,".repeat(1000), "*a,".repeat(1000));
        let error = serde_saphyr::from_str::<serde_json::Value>(&bomb).unwrap_err();
        assert_eq!(fault(&error, &bomb), "yaml: document contains excessive aliasing");
    }
}
