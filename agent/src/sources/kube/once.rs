//! Values that many objects share are in memory once.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;

/// Below so many it is not worth looking for those that nobody has any more.
const FEW: usize = 1024;

/// The values that are known; those that nobody has any more are forgotten when there are twice as many as last time.
#[derive(Debug)]
pub struct Once<T: ?Sized> {
    known: HashSet<Arc<T>>,
    look_at: usize,
}

impl<T: ?Sized> Default for Once<T> {
    fn default() -> Self {
        Self { known: HashSet::new(), look_at: FEW }
    }
}

impl<T: ?Sized + Eq + Hash> Once<T> {
    /// The one that is equal to `value`.
    pub fn of<V>(&mut self, value: V) -> Arc<T>
    where
        V: AsRef<T> + Into<Arc<T>>,
    {
        if let Some(known) = self.known.get(value.as_ref()) {
            return Arc::clone(known);
        }
        if self.known.len() >= self.look_at {
            self.known.retain(|one| Arc::strong_count(one) > 1);
            self.look_at = FEW.max(self.known.len() * 2);
        }
        let value: Arc<T> = value.into();
        self.known.insert(Arc::clone(&value));
        value
    }

    /// Forgets all of them; whoever has one keeps it.
    pub fn clear(&mut self) {
        self.known.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_are_one_and_those_nobody_has_are_forgotten() {
        let mut once = Once::<str>::default();
        let kept = once.of("app");
        assert!(Arc::ptr_eq(&kept, &once.of(String::from("app"))));
        for number in 0..3 * FEW {
            once.of(number.to_string());
        }
        assert!(once.known.len() <= FEW + 1, "{}", once.known.len());
        assert!(Arc::ptr_eq(&kept, &once.of("app")));
    }
}
