//! What is wrong with text that is not JSON, in the words of Go's library.
//!
//! Text is read by serde; this is asked only when that has failed.

/// Deeper text is refused.
const MAX_DEPTH: usize = 10_000;
const END: &str = "unexpected end of JSON input";

/// The first fault; `None` of text that is JSON.
pub fn fault(text: &[u8]) -> Option<String> {
    Reader { rest: text, open: Vec::new() }.document().err()
}

struct Reader<'a> {
    rest: &'a [u8],
    /// What has begun and not ended.
    open: Vec<Open>,
}

#[derive(Clone, Copy)]
enum Open {
    Object,
    Array,
}

type Read<T = ()> = Result<T, String>;

impl Reader<'_> {
    fn document(&mut self) -> Read {
        loop {
            let whole = self.value()?;
            if whole && self.leave()? {
                return Ok(());
            }
        }
    }

    /// Reads a value, or the beginning of one that holds others. Returns whether it has ended.
    fn value(&mut self) -> Read<bool> {
        match self.word()? {
            b'{' => {
                self.enter(Open::Object)?;
                self.key_or(b'}')
            }
            b'[' => {
                self.enter(Open::Array)?;
                let is_empty = self.peek() == Some(b']');
                if is_empty {
                    self.next()?;
                    self.open.pop();
                }
                Ok(is_empty)
            }
            b'"' => self.string().map(|()| true),
            b't' => self.literal("true"),
            b'f' => self.literal("false"),
            b'n' => self.literal("null"),
            first @ (b'-' | b'0'..=b'9') => self.number(first).map(|()| true),
            other => Err(invalid(other, "looking for beginning of value")),
        }
    }

    fn enter(&mut self, open: Open) -> Read {
        self.open.push(open);
        if self.open.len() > MAX_DEPTH { Err("exceeded max depth".to_owned()) } else { Ok(()) }
    }

    /// Goes on behind a value, up to where the next one begins. Returns whether there is none.
    fn leave(&mut self) -> Read<bool> {
        loop {
            let Some(&open) = self.open.last() else {
                return match self.word() {
                    Err(_) => Ok(true),
                    Ok(other) => Err(invalid(other, "after top-level value")),
                };
            };
            match (open, self.word()?) {
                (Open::Object, b',') => return self.key_or(b'"'),
                (Open::Array, b',') => return Ok(false),
                (Open::Object, b'}') | (Open::Array, b']') => _ = self.open.pop(),
                (Open::Object, other) => return Err(invalid(other, "after object key:value pair")),
                (Open::Array, other) => return Err(invalid(other, "after array element")),
            }
        }
    }

    /// Reads a key with its colon, or what ends the object instead. Returns whether that ended it.
    fn key_or(&mut self, end: u8) -> Read<bool> {
        match self.word()? {
            b'"' => {}
            other if other == end => {
                self.open.pop();
                return Ok(true);
            }
            other => return Err(invalid(other, "looking for beginning of object key string")),
        }
        self.string()?;
        match self.word()? {
            b':' => Ok(false),
            other => Err(invalid(other, "after object key")),
        }
    }

    /// The rest of a string.
    fn string(&mut self) -> Read {
        loop {
            match self.next()? {
                b'"' => return Ok(()),
                b'\\' => self.escape()?,
                other if other < b' ' => return Err(invalid(other, "in string literal")),
                _ => {}
            }
        }
    }

    fn escape(&mut self) -> Read {
        match self.next()? {
            b'b' | b'f' | b'n' | b'r' | b't' | b'\\' | b'/' | b'"' => Ok(()),
            b'u' => (0..4).try_for_each(|_| match self.next()? {
                digit if digit.is_ascii_hexdigit() => Ok(()),
                other => Err(invalid(other, "in \\u hexadecimal character escape")),
            }),
            other => Err(invalid(other, "in string escape code")),
        }
    }

    /// The rest of a number.
    fn number(&mut self, first: u8) -> Read {
        let first = if first == b'-' { self.digit("in numeric literal")? } else { first };
        if first != b'0' {
            self.digits();
        }
        if self.rest.first() == Some(&b'.') {
            self.next()?;
            self.digit("after decimal point in numeric literal")?;
            self.digits();
        }
        if matches!(self.rest.first(), Some(b'e' | b'E')) {
            self.next()?;
            if matches!(self.rest.first(), Some(b'+' | b'-')) {
                self.next()?;
            }
            self.digit("in exponent of numeric literal")?;
            self.digits();
        }
        Ok(())
    }

    fn digit(&mut self, place: &str) -> Read<u8> {
        match self.next()? {
            digit if digit.is_ascii_digit() => Ok(digit),
            other => Err(invalid(other, place)),
        }
    }

    fn digits(&mut self) {
        let count = self.rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.rest = &self.rest[count..];
    }

    /// The rest of a word, of which the first letter was read.
    fn literal(&mut self, word: &str) -> Read<bool> {
        for wanted in word.bytes().skip(1) {
            let found = self.next()?;
            if found != wanted {
                let place = format!("in literal {word} (expecting {})", quoted(wanted));
                return Err(invalid(found, &place));
            }
        }
        Ok(true)
    }

    /// The next byte that is no space.
    fn word(&mut self) -> Read<u8> {
        self.peek();
        self.next()
    }

    /// The same without reading it.
    fn peek(&mut self) -> Option<u8> {
        let spaces = self.rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n')).count();
        self.rest = &self.rest[spaces..];
        self.rest.first().copied()
    }

    fn next(&mut self) -> Read<u8> {
        let (first, rest) = self.rest.split_first().ok_or(END)?;
        self.rest = rest;
        Ok(*first)
    }
}

fn invalid(byte: u8, place: &str) -> String {
    format!("invalid character {} {place}", quoted(byte))
}

/// A byte as Go shows it: as the character of that number.
fn quoted(byte: u8) -> String {
    match byte {
        b'\'' => r"'\''".to_owned(),
        b'"' => r#"'"'"#.to_owned(),
        b'\\' => r"'\\'".to_owned(),
        0x07 => r"'\a'".to_owned(),
        0x08 => r"'\b'".to_owned(),
        0x0c => r"'\f'".to_owned(),
        b'\n' => r"'\n'".to_owned(),
        b'\r' => r"'\r'".to_owned(),
        b'\t' => r"'\t'".to_owned(),
        0x0b => r"'\v'".to_owned(),
        0..0x20 | 0x7f => format!("'\\x{byte:02x}'"),
        0x80..=0xa0 | 0xad => format!("'\\u{byte:04x}'"),
        _ => format!("'{}'", char::from(byte)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Text, and what Go says of it.
    const FAULTS: &[(&str, &str)] = &[
        ("", END),
        ("{", END),
        (r#"{"a": [1, {"b""#, END),
        ("-", END),
        ("tru", END),
        (r#""\u12"#, END),
        ("x", "invalid character 'x' looking for beginning of value"),
        ("[1,]", "invalid character ']' looking for beginning of value"),
        (r#"{"a":}"#, "invalid character '}' looking for beginning of value"),
        ("{a: 1}", "invalid character 'a' looking for beginning of object key string"),
        (r#"{"a":1,}"#, "invalid character '}' looking for beginning of object key string"),
        (r#"{"a" 1}"#, "invalid character '1' after object key"),
        (r#"{"a":1 "b":2}"#, r#"invalid character '"' after object key:value pair"#),
        ("[1 2]", "invalid character '2' after array element"),
        (r#"{"a":1}}"#, "invalid character '}' after top-level value"),
        ("01", "invalid character '1' after top-level value"),
        ("\"a\nb\"", r"invalid character '\n' in string literal"),
        (r#""\'""#, r"invalid character '\'' in string escape code"),
        (r#""\u12x4""#, r"invalid character 'x' in \u hexadecimal character escape"),
        ("-a", "invalid character 'a' in numeric literal"),
        ("1.x", "invalid character 'x' after decimal point in numeric literal"),
        ("1e+x", "invalid character 'x' in exponent of numeric literal"),
        ("[trye]", "invalid character 'y' in literal true (expecting 'u')"),
        ("nil", "invalid character 'i' in literal null (expecting 'u')"),
        ("\u{0}", r"invalid character '\x00' looking for beginning of value"),
        ("é", "invalid character 'Ã' looking for beginning of value"),
    ];

    #[test]
    fn faults_are_told_as_go_tells_them() {
        for (text, want) in FAULTS {
            assert_eq!(fault(text.as_bytes()).as_deref(), Some(*want), "{text}");
        }
        let deep = "[".repeat(MAX_DEPTH + 1);
        assert_eq!(fault(deep.as_bytes()).as_deref(), Some("exceeded max depth"));
    }

    proptest! {
        #[test]
        fn a_fault_is_found_where_serde_finds_one(text in r#"[\[\]{}:,"\\a1.e+\- tn]{0,12}|(\[|\{"a":|1|,|\]|\}|null|"\\n"){1,12}"#) {
            let refused = serde_json::from_str::<serde::de::IgnoredAny>(&text).is_err();
            prop_assert_eq!(fault(text.as_bytes()).is_some(), refused, "{}", text);
        }
    }
}
