//! As much of SPDY/3.1 as it takes to run a process through a container runtime's streaming server: a pure codec.
//!
//! The header blocks we send are zlib streams of stored blocks, which need no dictionary; those we receive are skipped.

use bytes::{Buf, BufMut, Bytes, BytesMut};

const VERSION: u16 = 0x8003;
const SYN_STREAM: u16 = 1;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const FIN: u8 = 1;
const HEADER: usize = 8;
/// Frames we send carry no more; what we receive is limited by its 24 bit length.
const MAX_DATA: usize = 32 << 10;

/// What the other side said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Frame {
    /// Bytes of a stream.
    Data {
        stream: u32,
        bytes: Bytes,
        /// The other side says no more on this stream.
        end: bool,
    },
    /// The stream is dead.
    Reset { stream: u32 },
    /// To be answered with the same number.
    Ping { id: u32 },
    /// No more streams.
    GoAway,
    /// Nothing we need: replies, settings, windows.
    Other,
}

/// Takes the first whole frame out of `buffer`.
pub(super) fn decode(buffer: &mut BytesMut) -> Option<Frame> {
    if buffer.len() < HEADER {
        return None;
    }
    let first = u32::from_be_bytes([buffer[0], buffer[1], buffer[2], buffer[3]]);
    let flags = buffer[4];
    let length = usize::from(buffer[5]) << 16 | usize::from(buffer[6]) << 8 | usize::from(buffer[7]);
    if buffer.len() < HEADER + length {
        return None;
    }
    buffer.advance(HEADER);
    let mut body = buffer.split_to(length).freeze();
    if first & 0x8000_0000 == 0 {
        return Some(Frame::Data { stream: first, bytes: body, end: flags & FIN != 0 });
    }
    let number = |body: &mut Bytes| (body.len() >= 4).then(|| body.get_u32() & 0x7fff_ffff);
    let kind = u16::try_from(first & 0xffff).unwrap_or(0);
    Some(match kind {
        RST_STREAM => number(&mut body).map_or(Frame::Other, |stream| Frame::Reset { stream }),
        PING if body.len() >= 4 => Frame::Ping { id: body.get_u32() },
        GOAWAY => Frame::GoAway,
        _ => Frame::Other,
    })
}

/// The frames we send. The zlib stream of the headers goes on from frame to frame.
#[derive(Debug, Default)]
pub(super) struct Encoder {
    begun: bool,
}

impl Encoder {
    /// Opens `stream` with one header.
    pub(super) fn open(&mut self, stream: u32, name: &str, value: &str, out: &mut BytesMut) {
        let mut block = BytesMut::new();
        block.put_u32(1);
        for text in [name, value] {
            block.put_u32(u32::try_from(text.len()).expect("a short header"));
            block.put_slice(text.as_bytes());
        }
        let length = u16::try_from(block.len()).expect("a short header block");
        let mut body = BytesMut::new();
        body.put_u32(stream);
        body.put_u32(0);
        // Priority and slot.
        body.put_u16(0);
        if !self.begun {
            // zlib: deflate with the smallest window, no dictionary.
            body.put_slice(&[0x78, 0x01]);
            self.begun = true;
        }
        body.put_u8(0);
        body.put_u16_le(length);
        body.put_u16_le(!length);
        body.put_slice(&block);
        // An empty stored block is a flush: Go's inflater gives nothing out before it.
        body.put_slice(&[0, 0, 0, 0xff, 0xff]);
        control(SYN_STREAM, &body, out);
    }

    /// Sends bytes on a stream.
    pub(super) fn data(stream: u32, bytes: &[u8], out: &mut BytesMut) {
        for chunk in bytes.chunks(MAX_DATA) {
            data_frame(stream, 0, chunk, out);
        }
    }

    /// Ends our side of a stream; the other may go on.
    pub(super) fn end(stream: u32, out: &mut BytesMut) {
        data_frame(stream, FIN, &[], out);
    }

    /// Answers a ping.
    pub(super) fn pong(id: u32, out: &mut BytesMut) {
        control(PING, &id.to_be_bytes(), out);
    }
}

fn data_frame(stream: u32, flags: u8, bytes: &[u8], out: &mut BytesMut) {
    out.put_u32(stream);
    out.put_u8(flags);
    length(bytes.len(), out);
    out.put_slice(bytes);
}

fn control(kind: u16, body: &[u8], out: &mut BytesMut) {
    out.put_u16(VERSION);
    out.put_u16(kind);
    out.put_u8(0);
    length(body.len(), out);
    out.put_slice(body);
}

fn length(length: usize, out: &mut BytesMut) {
    let length = u32::try_from(length).expect("frames are split below 2^24");
    out.put_slice(&length.to_be_bytes()[1..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_opened_with_stored_headers() {
        let mut encoder = Encoder::default();
        let mut out = BytesMut::new();
        encoder.open(1, "streamtype", "error", &mut out);
        let first = out.split();
        assert_eq!(&first[..8], [0x80, 3, 0, 1, 0, 0, 0, 49]);
        assert_eq!(&first[8..18], [0, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(&first[18..25], [0x78, 1, 0, 27, 0, 228, 255]);
        assert_eq!(&first[25..52], b"\0\0\0\x01\0\0\0\x0astreamtype\0\0\0\x05error");
        assert_eq!(&first[52..], [0, 0, 0, 255, 255]);
        encoder.open(3, "streamtype", "stdin", &mut out);
        assert_eq!(&out[18..23], [0, 27, 0, 228, 255], "the second block goes on in the same zlib stream");
    }

    #[test]
    fn frames_are_read_whole_or_not_at_all() {
        let mut out = BytesMut::new();
        Encoder::data(5, b"hello", &mut out);
        Encoder::end(5, &mut out);
        Encoder::pong(7, &mut out);
        let bytes = out.split();
        for cut in 0..bytes.len() {
            let mut some = BytesMut::from(&bytes[..cut]);
            let mut count = 0;
            while decode(&mut some).is_some() {
                count += 1;
            }
            assert_eq!(count, usize::from(cut >= 13) + usize::from(cut >= 21), "{cut}");
        }
        let mut all = bytes;
        let hello = Frame::Data { stream: 5, bytes: Bytes::from_static(b"hello"), end: false };
        assert_eq!(decode(&mut all), Some(hello));
        assert_eq!(decode(&mut all), Some(Frame::Data { stream: 5, bytes: Bytes::new(), end: true }));
        assert_eq!(decode(&mut all), Some(Frame::Ping { id: 7 }));
        assert_eq!(decode(&mut all), None);
    }

    proptest::proptest! {
        #[test]
        fn whatever_arrives_is_taken_or_waited_for(bytes in proptest::collection::vec(0..=255_u8, 0..200)) {
            let mut buffer = BytesMut::from(&bytes[..]);
            let mut left = buffer.len();
            while decode(&mut buffer).is_some() {
                assert!(buffer.len() < left, "a frame was found in nothing");
                left = buffer.len();
            }
        }
    }

    #[test]
    fn hostile_frames_do_no_harm() {
        for bytes in [&[0x80, 3, 0, 3, 0, 0, 0, 0][..], &[0x80, 3, 0, 6, 0, 0, 0, 2, 1, 1], &[0xff; 8]] {
            let mut buffer = BytesMut::from(bytes);
            assert!(matches!(decode(&mut buffer), None | Some(Frame::Other)), "{bytes:?}");
        }
    }
}
