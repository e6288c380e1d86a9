//! Where segments and services go: free cells of the arrays, kept from round to round.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use thiserror::Error;

use super::actual::{Place, Span};
use super::numbers::Numbers;

/// How long a freed place rests before it is written again: far longer than any program runs.
const REST: Duration = Duration::from_secs(1);

/// A map that is too small for what the cluster wants.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum Full {
    /// No gap is long enough.
    #[error("no room for a segment of {length} backends; the map of backends holds {max}, see --map-scale")]
    Backends {
        /// How many were wanted.
        length: u32,
        /// How many the map holds.
        max: u32,
    },
    /// No gap is long enough.
    #[error("no room for a table of {length} slots; the map of slots holds {max}, see --map-scale")]
    Slots {
        /// How many were wanted.
        length: u32,
        /// How many the map holds.
        max: u32,
    },
    /// All indices are taken.
    #[error("no room for another service port; the map of services holds {0}, see --map-scale")]
    Services(u32),
    /// All numbers are taken.
    #[error("no room for another backend address; the map of backend states holds {0}, see --map-scale")]
    Numbers(u32),
}

/// Free cells of one array.
#[derive(Debug)]
struct Gaps {
    max: u32,
    by_base: BTreeMap<u32, u32>,
    by_length: BTreeSet<(u32, u32)>,
}

impl Gaps {
    fn new(max: u32) -> Self {
        Self { max, by_base: BTreeMap::from([(0, max)]), by_length: BTreeSet::from([(max, 0)]) }
    }

    /// The shortest gap that is long enough, and the first of those.
    fn take(&mut self, length: u32) -> Option<u32> {
        let (gap, base) = self.by_length.range((length, 0)..).next().copied()?;
        self.remove(base, gap);
        if gap > length {
            self.insert(base + length, gap - length);
        }
        Some(base)
    }

    /// Takes a certain span; `false` if any of it is taken.
    fn claim(&mut self, base: u32, length: u32) -> bool {
        let Some((start, gap)) = self.by_base.range(..=base).next_back().map(|(start, gap)| (*start, *gap))
        else {
            return false;
        };
        let (Some(end), stop) = (base.checked_add(length), start + gap) else { return false };
        if end > stop {
            return false;
        }
        self.remove(start, gap);
        self.insert(start, base - start);
        self.insert(end, stop - end);
        true
    }

    fn give(&mut self, mut base: u32, mut length: u32) {
        if let Some((start, gap)) = self.by_base.range(..base).next_back().map(|(start, gap)| (*start, *gap))
            && start + gap == base
        {
            self.remove(start, gap);
            (base, length) = (start, length + gap);
        }
        if let Some(gap) = self.by_base.get(&(base + length)).copied() {
            self.remove(base + length, gap);
            length += gap;
        }
        self.insert(base, length);
    }

    fn insert(&mut self, base: u32, length: u32) {
        if length > 0 {
            self.by_base.insert(base, length);
            self.by_length.insert((length, base));
        }
    }

    fn remove(&mut self, base: u32, length: u32) {
        self.by_base.remove(&base);
        self.by_length.remove(&(length, base));
    }
}

/// Something that was freed and rests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Freed {
    Span(Span),
    Service(u32),
}

/// Free places of every kind.
#[derive(Debug)]
pub struct Places {
    /// Numbers of backends.
    pub numbers: Numbers,
    backends: Gaps,
    slots: Gaps,
    services: Gaps,
    resting: VecDeque<(Instant, Freed)>,
}

impl Places {
    /// Everything is free, at the scale of the maps.
    pub fn new(scale: u32) -> Self {
        let of = |name: &str| {
            let map = abi::name::MAPS.iter().find(|map| map.name == name);
            map.map_or(0, |map| u32::try_from(map.capacity(scale)).unwrap_or(u32::MAX))
        };
        Self {
            numbers: Numbers::new(of(abi::name::BACKEND_STATES)),
            backends: Gaps::new(of(abi::name::BACKENDS)),
            slots: Gaps::new(of(abi::name::SLOTS)),
            services: Gaps::new(of(abi::name::SERVICES)),
            resting: VecDeque::new(),
        }
    }

    /// Takes what is in use already; `false` if somebody else has any of it.
    pub fn claim(&mut self, span: Span) -> bool {
        self.gaps(span.place).claim(span.base, span.length)
    }

    /// Takes the index of a service that is in use already.
    pub fn claim_service(&mut self, index: u32) -> bool {
        self.services.claim(index, 1)
    }

    /// Room for a segment.
    pub fn span(&mut self, place: Place, length: usize) -> Result<Span, Full> {
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        let gaps = self.gaps(place);
        let max = gaps.max;
        let base = gaps.take(length).ok_or(match place {
            Place::Backends => Full::Backends { length, max },
            Place::Slots => Full::Slots { length, max },
        })?;
        Ok(Span { place, base, length })
    }

    /// An index that no service has.
    pub fn service(&mut self) -> Result<u32, Full> {
        self.services.take(1).ok_or(Full::Services(self.services.max))
    }

    /// Gives back what no program has seen.
    pub fn give(&mut self, span: Span) {
        self.gaps(span.place).give(span.base, span.length);
    }

    /// Lets a span rest that a program may still be reading.
    pub fn rest(&mut self, span: Span, now: Instant) {
        self.resting.push_back((now + REST, Freed::Span(span)));
    }

    /// Lets an index rest.
    pub fn rest_service(&mut self, index: u32, now: Instant) {
        self.resting.push_back((now + REST, Freed::Service(index)));
    }

    /// Frees what has rested long enough.
    pub fn wake(&mut self, now: Instant) {
        while let Some((until, freed)) = self.resting.front().copied() {
            if until > now {
                return;
            }
            self.resting.pop_front();
            match freed {
                Freed::Span(span) => self.give(span),
                Freed::Service(index) => self.services.give(index, 1),
            }
        }
    }

    fn gaps(&mut self, place: Place) -> &mut Gaps {
        match place {
            Place::Backends => &mut self.backends,
            Place::Slots => &mut self.slots,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_fill_gaps_and_leave_resting_ones_alone() {
        let mut places = Places::new(1);
        let take = |places: &mut Places, length| places.span(Place::Backends, length).unwrap();
        let (first, second, third) = (take(&mut places, 4), take(&mut places, 2), take(&mut places, 4));
        assert_eq!([first.base, second.base, third.base], [0, 4, 6]);
        let now = Instant::now();
        places.rest(second, now);
        places.rest(first, now);
        places.wake(now);
        assert_eq!(take(&mut places, 2).base, 10);
        places.wake(now + REST);
        // Neighbours have become one gap.
        assert_eq!(take(&mut places, 6).base, 0);
        assert!(!places.claim(third));
    }

    #[test]
    fn a_full_map_is_said_to_be_full() {
        let mut places = Places::new(1);
        let max = abi::name::BACKENDS_SIZE as u32;
        assert_eq!(
            places.span(Place::Backends, max as usize + 1),
            Err(Full::Backends { length: max + 1, max })
        );
        assert!(Places::new(2).span(Place::Backends, max as usize + 1).is_ok());
    }
}
