//! `layout!`: structs whose size and offsets are asserted wherever they are compiled.

use crate::name::Map;

/// One field of a layout.
#[derive(Debug)]
pub struct Field {
    /// Name as in Rust and in BTF.
    pub name: &'static str,
    /// Offset in bytes.
    pub offset: usize,
    /// The Rust type.
    pub kind: &'static str,
}

/// Name, size and fields of a shared struct.
#[derive(Debug)]
pub struct Layout {
    /// Name as in Rust and in BTF.
    pub name: &'static str,
    /// Size in bytes; equal to the sum of its fields, so there is no padding.
    pub size: usize,
    /// The fields in order.
    pub fields: &'static [Field],
}

/// Declares `repr(C)` structs without padding: `struct Name(size) { offset => field: Type }`.
macro_rules! layout {
    ($(
        $(#[$meta:meta])*
        pub struct $name:ident($size:literal) { $( $(#[$fmeta:meta])* $offset:literal => $field:ident: $kind:ty ),+ $(,)? }
    )+) => {$(
        $(#[$meta])*
        #[repr(C)]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        #[derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)]
        pub struct $name { $( $(#[$fmeta])* pub $field: $kind ),+ }

        impl $name {
            /// How the struct lies in memory.
            pub const LAYOUT: $crate::Layout = $crate::Layout {
                name: stringify!($name),
                size: $size,
                fields: &[$( $crate::Field { name: stringify!($field), offset: $offset, kind: stringify!($kind) } ),+],
            };
        }

        const _: () = {
            assert!(core::mem::size_of::<$name>() == $size);
            $( assert!(core::mem::offset_of!($name, $field) == $offset); )+
        };

        #[cfg(feature = "user")]
        // SAFETY: `IntoBytes` above proves that there is no padding and that every bit pattern has a meaning.
        unsafe impl aya::Pod for $name {}
    )+};
}
pub(crate) use layout;

/// FNV-1a over everything two agents must agree on.
pub(crate) const fn hash(layouts: &[&Layout], maps: &[Map], revisions: &[(&str, u32)]) -> u32 {
    let mut hash = 0x811c_9dc5;
    let mut at = 0;
    while at < layouts.len() {
        hash = mix(hash, layouts[at].name.as_bytes());
        hash = mix(hash, &layouts[at].size.to_le_bytes());
        let mut field = 0;
        while field < layouts[at].fields.len() {
            let Field { name, offset, kind } = &layouts[at].fields[field];
            hash = mix(mix(mix(hash, name.as_bytes()), &offset.to_le_bytes()), kind.as_bytes());
            field += 1;
        }
        at += 1;
    }
    let mut at = 0;
    while at < maps.len() {
        hash = mix(mix(hash, maps[at].name.as_bytes()), &maps[at].entries.to_le_bytes());
        at += 1;
    }
    let mut at = 0;
    while at < revisions.len() {
        hash = mix(mix(hash, revisions[at].0.as_bytes()), &revisions[at].1.to_le_bytes());
        at += 1;
    }
    hash
}

const fn mix(mut hash: u32, bytes: &[u8]) -> u32 {
    let mut at = 0;
    while at < bytes.len() {
        hash = (hash ^ bytes[at] as u32).wrapping_mul(0x0100_0193);
        at += 1;
    }
    hash
}
