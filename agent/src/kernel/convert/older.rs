//! Where the agent before this one has the parts of its flows, for programs that read its tables; pure.

use abi::name;
use abi::older::{ABSENT, KEY_BYTES, Older, TuplePlaces};

use super::describe::{Description, Kind, ROWS, Struct};
use super::rows;

/// The offsets of another agent's flows. `None` when they are of a kind that programs do not read: then flows are copied only.
pub fn places(from: &Description, to: &Description) -> Option<Older> {
    let (key, flow) = kinds(from)?;
    let (_, _, own_key, own_flow) =
        ROWS.iter().find(|(map, kind, ..)| *map == name::FLOWS && *kind == Kind::Hash)?;
    let is_own = key == *own_key && flow == *own_flow && kinds(from) == embryos(from);
    let (key, flow) = (from.structs.get(key)?, from.structs.get(flow)?);
    let understood = is_own && key.size <= KEY_BYTES && rows::is_same(from, to, "Addr16");
    understood.then_some(())?;
    let tuple = |inside: &Struct, field: &str| tuple(from, offset(inside, field, "Tuple", 4)?);
    let word = |field: &str| match flow.fields.iter().any(|known| known.name == field) {
        true => offset(flow, field, "u32", 4),
        false => Some(ABSENT),
    };
    Some(Older {
        present: 1,
        key: tuple(key, "tuple")?,
        proto: offset(key, "proto", "u8", 1)?,
        to: tuple(flow, "to")?,
        backend: word("backend")?,
        generation: word("generation")?,
        last_seen: word("last_seen")?,
        flags: word("flags")?,
        service: word("service")?,
        epoch: word("epoch")?,
    })
}

fn kinds(from: &Description) -> Option<(&str, &str)> {
    from.maps.get(name::FLOWS).map(|rows| (rows.key.as_str(), rows.value.as_str()))
}

fn embryos(from: &Description) -> Option<(&str, &str)> {
    from.maps.get(name::EMBRYOS).map(|rows| (rows.key.as_str(), rows.value.as_str()))
}

/// Offset of a field of a type, if it lies where programs can read it.
fn offset(inside: &Struct, field: &str, kind: &str, align: usize) -> Option<u32> {
    let field = inside.fields.iter().find(|known| known.name == field && known.kind == kind)?;
    if field.offset % align == 0 { u32::try_from(field.offset).ok() } else { None }
}

fn tuple(from: &Description, start: u32) -> Option<TuplePlaces> {
    let inside = from.structs.get("Tuple")?;
    let place = |field, kind, align| offset(inside, field, kind, align).map(|offset| start + offset);
    Some(TuplePlaces {
        src: place("src", "Addr16", 4)?,
        dst: place("dst", "Addr16", 4)?,
        sport: place("sport", "Be16", 2)?,
        dport: place("dport", "Be16", 2)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_offsets_are_those_of_the_other_layout() {
        let own = Description::own(1);
        let here = places(&own, &own).unwrap();
        assert_eq!((here.key.src, here.key.dport, here.proto), (0, 34, 36));
        assert_eq!((here.to.dst, here.backend, here.epoch), (16, 36, 56));

        let mut from = own.clone();
        let flow = from.structs.get_mut("Flow").unwrap();
        flow.fields.retain(|field| field.name != "epoch");
        flow.fields.iter_mut().for_each(|field| field.offset += 8);
        flow.size += 4;
        let there = places(&from, &own).unwrap();
        assert_eq!((there.to.src, there.to.sport, there.flags, there.epoch), (8, 40, 56, ABSENT));
    }

    #[test]
    fn flows_of_another_kind_are_not_read() {
        let own = Description::own(1);
        let change = |edit: fn(&mut Description)| {
            let mut from = own.clone();
            edit(&mut from);
            places(&from, &own)
        };
        fn field<'a>(
            from: &'a mut Description,
            name: &str,
            field: &str,
        ) -> &'a mut super::super::describe::Field {
            let fields = &mut from.structs.get_mut(name).unwrap().fields;
            fields.iter_mut().find(|known| known.name == field).unwrap()
        }
        assert!(change(|_| ()).is_some());
        assert_eq!(change(|from| field(from, "Flow", "flags").kind = "u64".to_owned()), None, "wider");
        assert_eq!(change(|from| field(from, "Flow", "flags").offset += 1), None, "crooked");
        assert_eq!(change(|from| field(from, "Tuple", "src").kind = "u32".to_owned()), None, "no address");
        assert_eq!(change(|from| from.structs.get_mut("FlowKey").unwrap().size = 68), None, "long key");
        assert_eq!(change(|from| from.maps.get_mut(name::FLOWS).unwrap().value = "Stream".to_owned()), None);
        assert_eq!(
            change(|from| from.maps.get_mut(name::EMBRYOS).unwrap().value = "Stream".to_owned()),
            None
        );
    }
}
