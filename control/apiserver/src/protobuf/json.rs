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

    // The four below are a few instructions each, and what most of the time goes into.

    /// The first byte of what comes next.
    #[inline(always)]
    pub fn peek(&mut self) -> Result<u8> {
        while let Some(byte) = self.text.get(self.at) {
            if !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                return Ok(*byte);
            }
            self.at += 1;
        }
        self.broken()
    }

    #[inline(always)]
    fn expect(&mut self, byte: u8) -> Result<()> {
        if self.peek()? != byte {
            return self.broken();
        }
        self.at += 1;
        Ok(())
    }

    /// Goes behind `byte` when it comes next.
    #[inline(always)]
    fn passes(&mut self, byte: u8) -> Result<bool> {
        let there = self.peek()? == byte;
        self.at += usize::from(there);
        Ok(there)
    }

    /// The name of the next member of an object, whose value comes next; `first` is kept by the caller.
    pub fn member(&mut self, first: &mut bool) -> Result<Option<Cow<'a, [u8]>>> {
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

    #[inline(always)]
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

    /// The bytes of a text, which are UTF-8 as those of the whole are.
    pub fn string(&mut self) -> Result<Cow<'a, [u8]>> {
        let (raw, escaped) = self.quoted()?;
        if escaped {
            let text: String = serde_json::from_slice(raw).map_err(|_syntax| WireError::Json(self.at))?;
            return Ok(Cow::Owned(text.into_bytes()));
        }
        Ok(Cow::Borrowed(&raw[1..raw.len() - 1]))
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
            let Some(length) = self.text.get(at..).and_then(special) else { return self.broken() };
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
        let first = self.peek()?;
        let start = self.at;
        match first {
            b'"' => _ = self.quoted()?,
            b'{' | b'[' => self.nested()?,
            b't' | b'f' => _ = self.flag()?,
            b'n' => _ = self.null()?,
            _ if self.number()?.is_empty() => return self.broken(),
            _ => {}
        }
        Ok(&self.text[start..self.at])
    }

    /// Goes behind an object or a list.
    fn nested(&mut self) -> Result<()> {
        let mut depth = 0_usize;
        loop {
            match self.text.get(self.at) {
                Some(b'"') => {
                    self.quoted()?;
                    continue;
                }
                Some(b'{' | b'[') => depth += 1,
                Some(b'}' | b']') => depth -= 1,
                Some(_) => {}
                None => return self.broken(),
            }
            self.at += 1;
            if depth == 0 {
                return Ok(());
            }
        }
    }
}

/// Where the first quote or backslash is; eight bytes are looked at together.
fn special(text: &[u8]) -> Option<usize> {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    const HIGH: u64 = u64::from_le_bytes([0x80; 8]);
    // The lowest bit that is left stands in the first byte that is zero.
    let zeros = |word: u64| word.wrapping_sub(ONES) & !word & HIGH;
    let (words, rest) = text.as_chunks::<8>();
    for (at, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let found =
            zeros(word ^ u64::from_le_bytes([b'"'; 8])) | zeros(word ^ u64::from_le_bytes([b'\\'; 8]));
        if found != 0 {
            return Some(at * 8 + (found.trailing_zeros() / 8) as usize);
        }
    }
    let found = rest.iter().position(|byte| matches!(byte, b'"' | b'\\'));
    found.map(|at| words.len() * 8 + at)
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
        assert_eq!(*json.member(&mut members).unwrap().unwrap(), *b"a");
        let mut items = true;
        assert!(json.item(&mut items).unwrap());
        assert_eq!(json.number().unwrap(), "1");
        assert!(json.item(&mut items).unwrap());
        assert_eq!(json.number().unwrap(), "-2.5e3");
        assert!(json.item(&mut items).unwrap());
        assert_eq!(*json.string().unwrap(), *"x\"ä".as_bytes());
        assert!(!json.item(&mut items).unwrap());
        assert_eq!(*json.member(&mut members).unwrap().unwrap(), *b"b");
        assert_eq!(json.value().unwrap(), br#"{"c":[{}],"d":"}"}"#);
        assert_eq!(*json.member(&mut members).unwrap().unwrap(), *b"e");
        assert!(json.null().unwrap());
        assert_eq!(*json.member(&mut members).unwrap().unwrap(), *b"f");
        assert!(json.flag().unwrap());
        assert_eq!(json.member(&mut members).unwrap(), None);
    }

    #[test]
    fn the_end_of_a_text_is_found_wherever_it_is() {
        for length in 0..40 {
            for at in 0..length {
                for special_one in [b'"', b'\\'] {
                    // Bytes beside them in value, and those that come from letters of several bytes.
                    let mut text: Vec<u8> =
                        (0..length).map(|n| [b'!', b'#', 0xa2, 0xdc, b'['][n % 5]).collect();
                    assert_eq!(special(&text), None);
                    text[at] = special_one;
                    assert_eq!(special(&text), Some(at));
                    text[length - 1] = b'"';
                    assert_eq!(special(&text), Some(at));
                }
            }
        }
    }

    #[test]
    fn what_is_no_json_ends_in_an_error() {
        for text in ["", "{", "{\"a", "{\"a\"", "{\"a\":", "{\"a\":1", "tru", "{\"a\":\"\\", "]"] {
            let mut json = Cursor::new(text.as_bytes());
            assert!(json.value().is_err(), "{text}");
        }
    }
}
