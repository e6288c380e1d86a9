//! A cursor over the JSON of a stored object, which hands out its parts without making a tree.

use std::borrow::Cow;

use super::WireError;

type Result<T> = std::result::Result<T, WireError>;

/// A place in a JSON text.
#[derive(Debug)]
pub struct Cursor<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub fn new(text: &'a [u8]) -> Self {
        Self { text, at: 0 }
    }

    fn broken<T>(&self) -> Result<T> {
        Err(WireError::Json(self.at))
    }

    /// The first byte of what comes next.
    pub fn peek(&mut self) -> Result<u8> {
        while let Some(byte) = self.text.get(self.at) {
            if !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                return Ok(*byte);
            }
            self.at += 1;
        }
        self.broken()
    }

    fn expect(&mut self, byte: u8) -> Result<()> {
        if self.peek()? != byte {
            return self.broken();
        }
        self.at += 1;
        Ok(())
    }

    /// Goes behind `byte` when it comes next.
    fn passes(&mut self, byte: u8) -> Result<bool> {
        let there = self.peek()? == byte;
        self.at += usize::from(there);
        Ok(there)
    }

    /// The name of the next member of an object, whose value comes next; `first` is kept by the caller.
    pub fn member(&mut self, first: &mut bool) -> Result<Option<Cow<'a, str>>> {
        if !self.follows(first, b'{', b'}')? {
            return Ok(None);
        }
        let name = self.string()?;
        self.expect(b':')?;
        Ok(Some(name))
    }

    /// Whether another item of a list comes next; `first` is kept by the caller.
    pub fn item(&mut self, first: &mut bool) -> Result<bool> {
        self.follows(first, b'[', b']')
    }

    fn follows(&mut self, first: &mut bool, open: u8, close: u8) -> Result<bool> {
        if *first {
            *first = false;
            self.expect(open)?;
            return Ok(!self.passes(close)?);
        }
        if self.passes(close)? {
            return Ok(false);
        }
        self.expect(b',').map(|()| true)
    }

    /// A text.
    pub fn string(&mut self) -> Result<Cow<'a, str>> {
        let (raw, escaped) = self.quoted()?;
        if escaped {
            let text: String = serde_json::from_slice(raw).map_err(|_syntax| WireError::Json(self.at))?;
            return Ok(Cow::Owned(text));
        }
        let text = std::str::from_utf8(&raw[1..raw.len() - 1]);
        text.map(Cow::Borrowed).map_err(|_invalid| WireError::Json(self.at))
    }

    /// A text with its quotes, and whether anything in it is escaped.
    fn quoted(&mut self) -> Result<(&'a [u8], bool)> {
        if self.peek()? != b'"' {
            return self.broken();
        }
        let start = self.at;
        let mut escaped = false;
        let mut at = start + 1;
        loop {
            let Some(length) = self.text.get(at..).and_then(|rest| rest.iter().position(special)) else {
                return self.broken();
            };
            at += length + 1;
            if self.text[at - 1] == b'"' {
                self.at = at;
                return Ok((&self.text[start..at], escaped));
            }
            escaped = true;
            at += 1;
        }
    }

    /// A number as it is written.
    pub fn number(&mut self) -> Result<&'a str> {
        self.peek()?;
        let rest = &self.text[self.at..];
        let length = rest.iter().position(|byte| !is_numeric(*byte)).unwrap_or(rest.len());
        self.at += length;
        std::str::from_utf8(&rest[..length]).map_err(|_invalid| WireError::Json(self.at))
    }

    /// `true` or `false`.
    pub fn flag(&mut self) -> Result<bool> {
        let flag = self.peek()? == b't';
        self.word(if flag { b"true" } else { b"false" })?;
        Ok(flag)
    }

    /// Goes behind a `null` when it comes next.
    pub fn null(&mut self) -> Result<bool> {
        let there = self.peek()? == b'n';
        if there {
            self.word(b"null")?;
        }
        Ok(there)
    }

    fn word(&mut self, word: &[u8]) -> Result<()> {
        if !self.text[self.at..].starts_with(word) {
            return self.broken();
        }
        self.at += word.len();
        Ok(())
    }

    /// Goes behind the next value, and returns it as it is written, without looking at its grammar.
    pub fn value(&mut self) -> Result<&'a [u8]> {
        self.peek()?;
        let start = self.at;
        let mut depth = 0_usize;
        loop {
            match self.peek()? {
                b'"' => _ = self.quoted()?,
                b'{' | b'[' => {
                    depth += 1;
                    self.at += 1;
                    continue;
                }
                b'}' | b']' => {
                    depth = depth.checked_sub(1).ok_or(WireError::Json(self.at))?;
                    self.at += 1;
                }
                b',' | b':' => {
                    self.at += 1;
                    continue;
                }
                b't' | b'f' => _ = self.flag()?,
                b'n' => _ = self.null()?,
                _ if self.number()?.is_empty() => return self.broken(),
                _ => {}
            }
            if depth == 0 {
                return Ok(&self.text[start..self.at]);
            }
        }
    }
}

fn special(byte: &u8) -> bool {
    matches!(byte, b'"' | b'\\')
}

fn is_numeric(byte: u8) -> bool {
    byte.is_ascii_digit() || matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_an_object_come_in_their_order() {
        let text = br#" { "a" : [ 1 , -2.5e3 ,"x\"\u00e4" ] , "b":{"c":[{}],"d":"}"}, "e":null,"f":true } "#;
        let mut json = Cursor::new(text);
        let mut members = true;
        assert_eq!(json.member(&mut members).unwrap().unwrap(), "a");
        let mut items = true;
        assert!(json.item(&mut items).unwrap());
        assert_eq!(json.number().unwrap(), "1");
        assert!(json.item(&mut items).unwrap());
        assert_eq!(json.number().unwrap(), "-2.5e3");
        assert!(json.item(&mut items).unwrap());
        assert_eq!(json.string().unwrap(), "x\"ä");
        assert!(!json.item(&mut items).unwrap());
        assert_eq!(json.member(&mut members).unwrap().unwrap(), "b");
        assert_eq!(json.value().unwrap(), br#"{"c":[{}],"d":"}"}"#);
        assert_eq!(json.member(&mut members).unwrap().unwrap(), "e");
        assert!(json.null().unwrap());
        assert_eq!(json.member(&mut members).unwrap().unwrap(), "f");
        assert!(json.flag().unwrap());
        assert_eq!(json.member(&mut members).unwrap(), None);
    }

    #[test]
    fn what_is_no_json_ends_in_an_error() {
        for text in ["", "{", "{\"a", "{\"a\"", "{\"a\":", "{\"a\":1", "{\"a\":tru", "{\"a\":\"\\", "]"] {
            let mut json = Cursor::new(text.as_bytes());
            assert!(json.value().is_err(), "{text}");
        }
    }
}
