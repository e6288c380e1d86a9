//! Writes objects in the protobuf form, straight from the JSON in which they are stored.
//!
//! Fields come in the order of the JSON, and those that are absent stay absent: readers take any order, and do not
//! tell an absent field from Go's zero.

use base64::Engine;
use serde_json::Value;

use super::json::Cursor;
use super::table::{Field, Kind, MessageId, NESTED, Union, messages};
use super::wire::{BYTES, EIGHT, NUMBER, bytes, close, integer, open, tag, varint};
use super::{MAGIC, WireError};
use crate::tree::text;

type Result<T> = std::result::Result<T, WireError>;

/// A kind with the message its objects are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Typed {
    api_version: String,
    kind: String,
    pub(super) message: MessageId,
}

impl Typed {
    /// A kind that has this form: those of custom resources do not.
    pub fn of(api_version: &str, kind: &str) -> Option<Self> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let message = messages().kind(group, version, kind)?;
        Some(Self { api_version: api_version.to_owned(), kind: kind.to_owned(), message })
    }

    /// Appends an object of this kind with everything a reader needs to know it.
    ///
    /// `json` is the object as it is stored; with a `revision` it gets that as its resourceVersion.
    pub fn object(&self, out: &mut Vec<u8>, json: &[u8], revision: Option<u64>) -> Result<()> {
        self.begin(out);
        let start = open(out, 2);
        self.bare(out, json, revision)?;
        close(out, start);
        out.extend_from_slice(END);
        Ok(())
    }

    /// Appends an object as an item of a list, which says of what kind its items are.
    pub fn item(&self, out: &mut Vec<u8>, json: &[u8], revision: Option<u64>) -> Result<()> {
        let start = open(out, 2);
        self.bare(out, json, revision)?;
        close(out, start);
        Ok(())
    }

    fn begin(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(MAGIC);
        let start = open(out, 1);
        bytes(out, 1, self.api_version.as_bytes());
        bytes(out, 2, self.kind.as_bytes());
        close(out, start);
    }

    fn bare(&self, out: &mut Vec<u8>, json: &[u8], revision: Option<u64>) -> Result<()> {
        Encoder { json: Cursor::new(json), revision }.message(out, self.message, 0)
    }
}

/// The empty contentEncoding and contentType of an object that is neither compressed nor in another form.
const END: &[u8] = &[3 << 3 | 2, 0, 4 << 3 | 2, 0];

/// An object whose kind is told by its apiVersion and kind; `None` when that has no protobuf form.
pub fn tree(object: &Value) -> Option<Result<Vec<u8>>> {
    let typed = Typed::of(text(object, &["apiVersion"]), text(object, &["kind"]))?;
    let json = serde_json::to_vec(object).expect("a tree always encodes");
    let mut out = Vec::with_capacity(json.len());
    Some(typed.object(&mut out, &json, None).map(|()| out))
}

/// What stands before the items of a list, when they take `length` bytes.
pub fn list_head(list: &Typed, metadata: &Value, length: usize) -> Result<Vec<u8>> {
    let json =
        serde_json::to_vec(&serde_json::json!({ "metadata": metadata })).expect("a tree always encodes");
    let mut meta = Vec::new();
    list.bare(&mut meta, &json, None)?;
    let mut out = Vec::new();
    list.begin(&mut out);
    tag(&mut out, 2, BYTES);
    varint(&mut out, (meta.len() + length) as u64);
    out.extend_from_slice(&meta);
    Ok(out)
}

/// What stands behind the items of a list.
pub fn list_tail() -> &'static [u8] {
    END
}

/// An event of a watch: its length, and a WatchEvent with the object that `object` appends.
pub fn frame(kind: &str, object: impl FnOnce(&mut Vec<u8>) -> Result<()>) -> Result<Vec<u8>> {
    let mut out = vec![0; 4];
    bytes(&mut out, 1, kind.as_bytes());
    let outer = open(&mut out, 2);
    let inner = open(&mut out, 1);
    object(&mut out)?;
    close(&mut out, inner);
    close(&mut out, outer);
    let length = u32::try_from(out.len() - 4).expect("an object is smaller than 4 GiB");
    out[..4].copy_from_slice(&length.to_be_bytes());
    Ok(out)
}

/// More than what is stored can have: it was read as JSON, which may be 128 levels deep.
const DEEPEST: usize = 300;

/// Walks an object and writes it.
struct Encoder<'a> {
    json: Cursor<'a>,
    revision: Option<u64>,
}

impl Encoder<'_> {
    /// Writes the object that comes next.
    fn message(&mut self, out: &mut Vec<u8>, id: MessageId, depth: usize) -> Result<()> {
        if depth > DEEPEST {
            return Err(WireError::Depth);
        }
        let messages = messages();
        let message = messages.message(id);
        // Messages without a name of their own are scattered over the object, and written when all of it was seen.
        let mut inner: Vec<([u32; NESTED], Vec<u8>)> = Vec::new();
        let mut first = true;
        while let Some(name) = self.json.member(&mut first)? {
            let Some(place) = message.place(&name) else {
                self.json.value()?;
                continue;
            };
            let field = messages.field(place);
            if place.through == [0; NESTED] {
                self.field(out, field, depth)?;
                continue;
            }
            let at = inner.iter().position(|(through, _)| *through == place.through).unwrap_or_else(|| {
                inner.push((place.through, Vec::new()));
                inner.len() - 1
            });
            self.field(&mut inner[at].1, field, depth)?;
        }
        nest(out, inner);
        Ok(())
    }

    fn field(&mut self, out: &mut Vec<u8>, field: &Field, depth: usize) -> Result<()> {
        if self.json.null()? {
            return Ok(());
        }
        let mut first = true;
        if let Kind::Map(kind) = &field.kind {
            while let Some(key) = self.json.member(&mut first)? {
                let start = open(out, field.number);
                bytes(out, 1, &key);
                self.single(out, field.name, 2, kind, depth)?;
                close(out, start);
            }
            return Ok(());
        }
        if !field.repeated {
            return self.single(out, field.name, field.number, &field.kind, depth);
        }
        while self.json.item(&mut first)? {
            self.single(out, field.name, field.number, &field.kind, depth)?;
        }
        Ok(())
    }

    /// Writes one value under a number.
    fn single(
        &mut self,
        out: &mut Vec<u8>,
        name: &'static str,
        number: u32,
        kind: &Kind,
        depth: usize,
    ) -> Result<()> {
        let other = WireError::Value(name);
        let next = self.json.peek()?;
        match (kind, next) {
            (_, b'n') => self.json.null().map(drop)?,
            (Kind::String, b'"') => bytes(out, number, &self.json.string()?),
            (Kind::Bool, b't' | b'f') => {
                tag(out, number, NUMBER);
                out.push(self.json.flag()?.into());
            }
            (Kind::Integer, _) => integer(out, number, whole(self.json.number()?).ok_or(other)?),
            (Kind::Double, _) => {
                tag(out, number, EIGHT);
                let value: f64 = self.json.number()?.parse().map_err(|_not_a_number| other)?;
                out.extend_from_slice(&value.to_le_bytes());
            }
            (Kind::Raw, _) => {
                let start = open(out, number);
                bytes(out, 1, self.json.value()?);
                close(out, start);
            }
            (Kind::Message(id), b'{') => {
                let start = open(out, number);
                self.message(out, *id, depth + 1)?;
                if depth == 0 && *id == messages().object_meta {
                    self.revision(out);
                }
                close(out, start);
            }
            (Kind::Bytes, b'"') => {
                let text = self.json.string()?;
                let content = base64::engine::general_purpose::STANDARD.decode(&*text);
                bytes(out, number, &content.map_err(|_alphabet| other)?);
            }
            _ => {
                let start = open(out, number);
                self.special(out, name, kind, depth)?;
                close(out, start);
            }
        }
        Ok(())
    }

    /// Writes the content of a value that is something else than a message in JSON.
    fn special(&mut self, out: &mut Vec<u8>, name: &'static str, kind: &Kind, depth: usize) -> Result<()> {
        let other = WireError::Value(name);
        let next = self.json.peek()?;
        match (kind, next) {
            (Kind::Quantity, b'"') => bytes(out, 1, &self.json.string()?),
            (Kind::Quantity, _) => bytes(out, 1, self.json.number()?.as_bytes()),
            (Kind::IntOrString, b'"') => {
                integer(out, 1, 1);
                bytes(out, 3, &self.json.string()?);
            }
            (Kind::IntOrString, _) => {
                integer(out, 1, 0);
                integer(out, 2, whole(self.json.number()?).ok_or(other)?);
            }
            (Kind::Time, b'"') => {
                let text = self.json.string()?;
                let text = std::str::from_utf8(&text).map_err(|_invalid| WireError::Text)?;
                let time: jiff::Timestamp = text.parse().map_err(|_no_time| other)?;
                integer(out, 1, time.as_second());
                integer(out, 2, time.subsec_nanosecond().into());
            }
            (Kind::Strings, b'[') => {
                let mut first = true;
                while self.json.item(&mut first)? {
                    bytes(out, 1, &self.json.string()?);
                }
            }
            (Kind::Union(union), _) => self.alternative(out, name, *union, depth)?,
            _ => return Err(other),
        }
        Ok(())
    }

    /// Writes the content of a value that is a schema or something else.
    fn alternative(
        &mut self,
        out: &mut Vec<u8>,
        name: &'static str,
        union: Union,
        depth: usize,
    ) -> Result<()> {
        let schema = Kind::Message(messages().json_schema);
        match (union, self.json.peek()?) {
            (Union::Bool, b'{') => {
                integer(out, 1, 1);
                self.single(out, name, 2, &schema, depth + 1)
            }
            (_, b'{') => self.single(out, name, 1, &schema, depth + 1),
            (Union::Bool, b't' | b'f') => self.single(out, name, 1, &Kind::Bool, depth),
            (Union::Schemas | Union::Strings, b'[') => {
                let kind = if union == Union::Schemas { schema } else { Kind::String };
                let mut first = true;
                while self.json.item(&mut first)? {
                    self.single(out, name, 2, &kind, depth + 1)?;
                }
                Ok(())
            }
            _ => Err(WireError::Value(name)),
        }
    }

    /// The number of a resourceVersion in metadata.
    fn revision(&self, out: &mut Vec<u8>) {
        if let Some(revision) = self.revision {
            bytes(out, 6, revision.to_string().as_bytes());
        }
    }
}

/// Writes messages without a name, each with those that lie in it.
fn nest(out: &mut Vec<u8>, mut inner: Vec<([u32; NESTED], Vec<u8>)>) {
    inner.sort_by_key(|(through, _)| *through);
    for same in inner.chunk_by(|(a, _), (b, _)| a[0] == b[0]) {
        let start = open(out, same[0].0[0]);
        for ([_, deeper], content) in same {
            match deeper {
                0 => out.extend_from_slice(content),
                number => bytes(out, *number, content),
            }
        }
        close(out, start);
    }
}

/// A whole number, also when it is written with an exponent or a fraction of zero.
fn whole(text: &str) -> Option<i64> {
    text.parse().ok().or_else(|| {
        let number: f64 = text.parse().ok()?;
        let whole = number as i64;
        (whole as f64 == number).then_some(whole)
    })
}
