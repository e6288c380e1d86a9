//! Slots: how backends that weigh differently, or that every node must choose alike, share a table.

use abi::service::bits;

use crate::desired::Choice;

/// Sizes of Maglev tables: primes, each about twice the one before.
const SIZES: [u32; 10] = [251, 509, 1_021, 2_039, 4_093, 8_191, 16_381, 32_749, 65_521, 131_071];
/// Slots for each backend, where weights are drawn at random; finer differences are rounded.
const PER_BACKEND: u64 = 64;

/// The table for `choices`, as places among them; `None` where each is drawn as often as any other.
pub fn slots(choices: &[Choice], flags: u32) -> Option<Vec<u32>> {
    let first = choices.first()?;
    if flags & bits::HASH != 0 {
        Some(maglev(choices))
    } else if choices.iter().any(|choice| choice.weight != first.weight) {
        Some(repeated(choices))
    } else {
        None
    }
}

/// Each as often as it weighs.
fn repeated(choices: &[Choice]) -> Vec<u32> {
    let divisor = choices.iter().fold(0, |divisor, choice| common(divisor, u64::from(choice.weight)));
    let sum: u64 = choices.iter().map(|choice| u64::from(choice.weight) / divisor).sum();
    let room = PER_BACKEND * choices.len() as u64;
    let share = |weight: u64| if sum <= room { weight } else { ((weight * room + sum / 2) / sum).max(1) };
    let mut table = Vec::new();
    for (at, choice) in (0_u32..).zip(choices) {
        let times = share(u64::from(choice.weight) / divisor) as usize;
        table.extend(std::iter::repeat_n(at, times));
    }
    table
}

fn common(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { common(b, a % b) }
}

/// Everybody walks through the table in an order of its own and takes the free slot it meets; who weighs less rests turns.
/// A backend that goes leaves the slots of the others where they are, but for few.
fn maglev(choices: &[Choice]) -> Vec<u32> {
    let wanted = choices.len() as u64 * 100;
    let size = SIZES.into_iter().find(|size| u64::from(*size) >= wanted).unwrap_or(SIZES[SIZES.len() - 1]);
    let heaviest = choices.iter().map(|choice| u64::from(choice.weight)).max().unwrap_or(1);
    let mut walkers: Vec<Walker> = choices.iter().map(|choice| Walker::new(choice, size)).collect();
    let mut table = vec![u32::MAX; size as usize];
    let mut left = size;
    for turn in 1_u64.. {
        for (at, (walker, choice)) in (0_u32..).zip(walkers.iter_mut().zip(choices)) {
            if turn * u64::from(choice.weight) < walker.due {
                continue;
            }
            walker.due += heaviest;
            let mut place = walker.step(size);
            while table[place as usize] != u32::MAX {
                place = walker.step(size);
            }
            table[place as usize] = at;
            left -= 1;
            if left == 0 {
                return table;
            }
        }
    }
    table
}

struct Walker {
    next: u32,
    stride: u32,
    due: u64,
}

impl Walker {
    fn new(choice: &Choice, size: u32) -> Self {
        let hash = hash(choice);
        let (low, high) = ((hash & 0xffff_ffff) as u32, (hash >> 32) as u32);
        Self { next: low % size, stride: high % (size - 1) + 1, due: u64::from(choice.weight) }
    }

    fn step(&mut self, size: u32) -> u32 {
        let place = self.next;
        self.next = (self.next + self.stride) % size;
        place
    }
}

/// The same on every node and in every version of the agent (FNV-1a, then mixed).
fn hash(choice: &Choice) -> u64 {
    let (addr, port) = choice.backend;
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in addr.bytes.into_iter().chain(port.host().to_be_bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use abi::{Addr16, Be16};

    use super::*;

    fn choice(last: u8, weight: u16) -> Choice {
        Choice { backend: (Addr16::mapped([10, 0, 0, last]), Be16::new(80)), weight }
    }

    fn counts(table: &[u32]) -> Vec<usize> {
        let most = table.iter().max().copied().unwrap_or(0);
        (0..=most).map(|at| table.iter().filter(|cell| **cell == at).count()).collect()
    }

    #[test]
    fn equal_weights_need_no_slots_and_others_are_repeated() {
        assert_eq!(slots(&[], 0), None);
        assert_eq!(slots(&[choice(1, 3), choice(2, 3)], 0), None);
        assert_eq!(slots(&[choice(1, 6), choice(2, 2)], 0), Some(vec![0, 0, 0, 1]));
        let rough = slots(&[choice(1, 65_535), choice(2, 1), choice(3, 30_000)], 0).unwrap();
        assert_eq!(counts(&rough), [132, 1, 60]);
    }

    #[test]
    fn maglev_shares_evenly_by_weight_and_moves_little() {
        let five: Vec<Choice> = (1..=5).map(|last| choice(last, 1)).collect();
        let table = slots(&five, bits::HASH).unwrap();
        assert_eq!(table.len(), 509);
        assert!(counts(&table).iter().all(|count| (100..=104).contains(count)), "{:?}", counts(&table));
        let four = slots(&five[..4], bits::HASH).unwrap();
        let moved = table.iter().zip(&four).filter(|(old, new)| **old != 4 && old != new).count();
        assert!(moved < 509 / 5, "{moved} of 509 moved that had no need to");
        let weighted = slots(&[choice(1, 3), choice(2, 1)], bits::HASH).unwrap();
        let counts = counts(&weighted);
        assert!((185..=192).contains(&counts[0]), "{counts:?}");
    }
}
