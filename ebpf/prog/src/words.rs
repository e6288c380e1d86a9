//! Copying by words: for most structs the compiler calls a loop over bytes, which costs a packet more than a look into a table, and
//! the verifier every turn of it.

/// Copies a value word by word.
#[inline(always)]
pub fn copy<T: Copy>(to: &mut T, from: &T) {
    const { assert!(size_of::<T>() % 4 == 0 && align_of::<T>() % 4 == 0) };
    // SAFETY: both are whole words, and aligned to them.
    unsafe { copy_raw((&raw mut *to).cast(), (&raw const *from).cast(), size_of::<T>() / 4) };
}

/// The same for a number of words of whatever lies there.
///
/// # Safety
/// As many words can be read at `from` and written at `to`.
#[inline(always)]
pub unsafe fn copy_raw(to: *mut u32, from: *const u32, words: usize) {
    for word in 0..words {
        // SAFETY: see above. Volatile, or it would be taken for the call that this avoids.
        unsafe { to.add(word).write_volatile(from.add(word).read_volatile()) };
    }
}

/// Fills a number of words with zeros.
///
/// # Safety
/// As many words can be written at `to`.
#[inline(always)]
pub unsafe fn clear_raw(to: *mut u32, words: usize) {
    for word in 0..words {
        // SAFETY: as above.
        unsafe { to.add(word).write_volatile(0) };
    }
}
