//! The parts messages are written with.

/// What follows a tag: a number, eight bytes, or bytes with their length.
pub const NUMBER: u32 = 0;
pub const EIGHT: u32 = 1;
pub const BYTES: u32 = 2;

#[inline]
pub fn tag(out: &mut Vec<u8>, number: u32, wire: u32) {
    varint(out, (number << 3 | wire).into());
}

#[inline]
pub fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[inline]
pub fn bytes(out: &mut Vec<u8>, number: u32, content: &[u8]) {
    tag(out, number, BYTES);
    varint(out, content.len() as u64);
    out.extend_from_slice(content);
}

#[inline]
pub fn integer(out: &mut Vec<u8>, number: u32, value: i64) {
    tag(out, number, NUMBER);
    varint(out, value.cast_unsigned());
}

/// Begins a message whose length is not known yet; returns where its content starts.
#[inline]
pub fn open(out: &mut Vec<u8>, number: u32) -> usize {
    tag(out, number, BYTES);
    out.push(0);
    out.len()
}

/// Ends the message whose content starts at `start`: one byte was left for its length, and more are made where it
/// takes more.
pub fn close(out: &mut Vec<u8>, start: usize) {
    let end = out.len();
    let length = end - start;
    if length < 0x80 {
        out[start - 1] = length as u8;
        return;
    }
    let extra = (length.ilog2() / 7) as usize;
    out.resize(end + extra, 0);
    out.copy_within(start..end, start + extra);
    let mut rest = length;
    for place in &mut out[start - 1..start + extra] {
        *place = (rest & 0x7f) as u8 | 0x80;
        rest >>= 7;
    }
    out[start + extra - 1] &= 0x7f;
}
