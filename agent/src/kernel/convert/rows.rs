//! From the bytes of one layout to those of another, by the names of fields; pure.

use super::describe::{Description, Struct};

/// Bytes of `kind` in the old layout, as the new one has them: new fields are zero, those that vanished are dropped.
/// `None` when the kind is unknown to either, or the bytes are not of its size.
pub fn convert(old: &Description, new: &Description, kind: &str, bytes: &[u8]) -> Option<Vec<u8>> {
    if bytes.len() != size(old, kind)? {
        return None;
    }
    if is_same(old, new, kind) {
        return Some(bytes.to_vec());
    }
    let (Some(from), Some(to)) = (old.structs.get(kind), new.structs.get(kind)) else {
        return elements(old, new, kind, bytes);
    };
    let mut converted = vec![0; to.size];
    for field in &to.fields {
        let Some(known) = from.fields.iter().find(|known| known.name == field.name) else { continue };
        let part = bytes.get(known.offset..known.offset + size(old, &known.kind)?)?;
        let part = if known.kind == field.kind {
            convert(old, new, &field.kind, part)?
        } else {
            widened(part, size(new, &field.kind)?)
        };
        converted.get_mut(field.offset..field.offset + part.len())?.copy_from_slice(&part);
    }
    Some(converted)
}

/// Whether a kind lies in memory as it did, with everything inside.
pub fn is_same(old: &Description, new: &Description, kind: &str) -> bool {
    if let Some((element, _)) = array(kind) {
        return is_same(old, new, element);
    }
    let inside = |layout: &Struct| layout.fields.iter().all(|field| is_same(old, new, &field.kind));
    match (old.structs.get(kind), new.structs.get(kind)) {
        (Some(from), Some(to)) => from == to && inside(to),
        (None, None) => true,
        _ => false,
    }
}

/// Bytes of a kind.
pub fn size(description: &Description, kind: &str) -> Option<usize> {
    if let Some((element, length)) = array(kind) {
        return Some(size(description, element)? * length);
    }
    match kind {
        "u8" => Some(1),
        "u16" => Some(2),
        "u32" => Some(4),
        "u64" => Some(8),
        _ => description.structs.get(kind).map(|layout| layout.size),
    }
}

fn array(kind: &str) -> Option<(&str, usize)> {
    let (element, length) = kind.strip_prefix('[')?.strip_suffix(']')?.split_once("; ")?;
    Some((element, length.parse().ok()?))
}

fn elements(old: &Description, new: &Description, kind: &str, bytes: &[u8]) -> Option<Vec<u8>> {
    let (element, _) = array(kind)?;
    let parts = bytes.chunks(size(old, element)?).map(|part| convert(old, new, element, part));
    Some(parts.collect::<Option<Vec<_>>>()?.concat())
}

/// A number of another width. The machine is little-endian, as the programs are built to be.
fn widened(part: &[u8], length: usize) -> Vec<u8> {
    let mut wide = part.to_vec();
    wide.resize(length, 0);
    wide
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(text: &str) -> Description {
        Description::read(text).unwrap()
    }

    #[test]
    fn fields_move_by_name_new_ones_are_zero_and_old_ones_go() {
        let old = layout(
            "struct In 4\nfield 0 a u16\nfield 2 b u16\nstruct Out 12\nfield 0 x u32\nfield 4 y In\nfield 8 z u32",
        );
        let new = layout(
            "struct In 6\nfield 0 b u16\nfield 2 c u16\nfield 4 a u16\nstruct Out 22\nfield 0 y In\nfield 6 w u64\nfield 14 x u64",
        );
        let bytes = [1, 0, 0, 0, 2, 0, 3, 0, 4, 0, 0, 0];
        let want = [3, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(convert(&old, &new, "Out", &bytes).unwrap(), want);
        assert_eq!(convert(&old, &new, "Out", &bytes[1..]), None);
        assert_eq!(convert(&old, &new, "Nothing", &bytes), None);
    }

    #[test]
    fn arrays_of_structs_are_converted_one_by_one() {
        let old = layout("struct In 2\nfield 0 a u8\nfield 1 b u8\nstruct Out 4\nfield 0 all [In; 2]");
        let new = layout("struct In 1\nfield 0 b u8\nstruct Out 2\nfield 0 all [In; 2]");
        assert_eq!(convert(&old, &new, "Out", &[1, 2, 3, 4]).unwrap(), [2, 4]);
    }

    #[test]
    fn the_same_layout_is_the_same_bytes() {
        let own = Description::own(1);
        for kind in own.structs.keys() {
            let bytes: Vec<u8> = (0..size(&own, kind).unwrap()).map(|at| (at % 251) as u8).collect();
            assert_eq!(convert(&own, &own, kind, &bytes).unwrap(), bytes, "{kind}");
        }
    }
}
