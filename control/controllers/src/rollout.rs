//! How many replicas the sets of a Deployment get: arithmetic only, after upstream's rolling update.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// What counts of a ReplicaSet in a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Set {
    /// Replicas it asks for.
    pub(crate) replicas: i32,
    /// Replicas of it that are available.
    pub(crate) available: i32,
}

/// The Deployment's side of the sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) replicas: i32,
    /// Pods above `replicas` that may exist.
    pub(crate) max_surge: i32,
    /// Pods below `replicas` that may be missing.
    pub(crate) max_unavailable: i32,
}

impl Limits {
    /// Percentages are of `replicas`: surge is rounded up, unavailability down. Both zero would never move, so one pod
    /// may be missing then.
    pub(crate) fn new(replicas: i32, surge: Option<&IntOrString>, unavailable: Option<&IntOrString>) -> Self {
        let max_surge = resolve(surge, replicas, true);
        let max_unavailable = resolve(unavailable, replicas, false).min(replicas.max(1));
        let stuck = max_surge == 0 && max_unavailable == 0;
        Self { replicas, max_surge, max_unavailable: if stuck { 1 } else { max_unavailable } }
    }

    pub(crate) fn min_available(&self) -> i32 {
        self.replicas - self.max_unavailable
    }
}

fn resolve(value: Option<&IntOrString>, total: i32, up: bool) -> i32 {
    let quarter = IntOrString::String("25%".to_owned());
    scaled(value.unwrap_or(&quarter), total, up)
}

/// A number, or that percentage of `total`, rounded up or down.
pub(crate) fn scaled(value: &IntOrString, total: i32, up: bool) -> i32 {
    match value {
        IntOrString::Int(number) => *number,
        IntOrString::String(text) => {
            let percent: i64 = text.strip_suffix('%').and_then(|digits| digits.parse().ok()).unwrap_or(0);
            let product = i64::from(total) * percent;
            let rounded = if up { (product + 99) / 100 } else { product / 100 };
            i32::try_from(rounded).unwrap_or(i32::MAX)
        }
    }
}

/// Replicas the new set gets next: as many as the surge leaves room for.
pub(crate) fn new_replicas(limits: Limits, new: Set, old: &[Set]) -> i32 {
    if new.replicas >= limits.replicas {
        return limits.replicas;
    }
    let total = new.replicas + old.iter().map(|set| set.replicas).sum::<i32>();
    let room = limits.replicas + limits.max_surge - total;
    new.replicas + room.clamp(0, limits.replicas - new.replicas)
}

/// Replicas the old sets get next, oldest first: broken pods go before working ones, and never so many that fewer than
/// the minimum would be available.
pub(crate) fn old_replicas(limits: Limits, new: Set, old: &[Set]) -> Vec<i32> {
    let mut replicas: Vec<i32> = old.iter().map(|set| set.replicas).collect();
    let total = new.replicas + replicas.iter().sum::<i32>();
    let new_unavailable = new.replicas - new.available;
    let mut budget = total - limits.min_available() - new_unavailable;
    for (set, replicas) in old.iter().zip(&mut replicas) {
        let broken = (set.replicas - set.available).clamp(0, budget.max(0));
        *replicas -= broken;
        budget -= broken;
    }
    let available = new.available + old.iter().map(|set| set.available).sum::<i32>();
    let mut spare = (available - limits.min_available()).min(budget);
    for replicas in &mut replicas {
        let down = (*replicas).clamp(0, spare.max(0));
        *replicas -= down;
        spare -= down;
    }
    replicas
}

/// Replicas of all running sets after the Deployment was resized in the middle of a rollout: each keeps its share of
/// `allowed` (replicas plus surge), and what rounding leaves over goes to the first set that has any.
pub(crate) fn proportional(allowed: i32, sets: &[i32]) -> Vec<i32> {
    let total: i64 = sets.iter().map(|set| i64::from(*set)).sum();
    if total == 0 {
        return sets.to_vec();
    }
    let mut scaled: Vec<i32> = sets
        .iter()
        .map(|set| {
            let share = (i64::from(*set) * i64::from(allowed) * 2 + total) / (total * 2);
            i32::try_from(share).unwrap_or(i32::MAX)
        })
        .collect();
    let left = allowed - scaled.iter().sum::<i32>();
    let largest = (0..sets.len()).rev().max_by_key(|index| sets[*index]);
    if let Some(index) = largest {
        scaled[index] = (scaled[index] + left).max(0);
    }
    scaled
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn set(replicas: i32, available: i32) -> Set {
        Set { replicas, available }
    }

    #[test]
    fn limits_resolve_as_upstream_rounds() {
        let percent = |text: &str| IntOrString::String(text.to_owned());
        for (replicas, surge, unavailable, want) in [
            (10, None, None, (3, 2)),
            (1, None, None, (1, 0)),
            (4, Some(percent("0%")), Some(percent("10%")), (0, 1)),
            (5, Some(IntOrString::Int(2)), Some(IntOrString::Int(0)), (2, 0)),
        ] {
            let limits = Limits::new(replicas, surge.as_ref(), unavailable.as_ref());
            assert_eq!(
                (limits.max_surge, limits.max_unavailable),
                want,
                "{replicas} {surge:?} {unavailable:?}"
            );
        }
    }

    #[test]
    fn a_rollout_moves_step_by_step() {
        let limits = Limits { replicas: 10, max_surge: 2, max_unavailable: 2 };
        assert_eq!(new_replicas(limits, set(0, 0), &[set(10, 10)]), 2);
        assert_eq!(old_replicas(limits, set(2, 0), &[set(10, 10)]), [8]);
        assert_eq!(new_replicas(limits, set(2, 0), &[set(8, 8)]), 4);
        assert_eq!(old_replicas(limits, set(4, 4), &[set(8, 8)]), [4]);
        assert_eq!(
            new_replicas(limits, set(12, 12), &[]),
            10,
            "a scaled-down deployment shrinks its new set"
        );
    }

    #[test]
    fn broken_old_pods_go_first() {
        let limits = Limits { replicas: 4, max_surge: 1, max_unavailable: 0 };
        assert_eq!(old_replicas(limits, set(1, 0), &[set(2, 2), set(2, 0)]), [2, 2]);
        let limits = Limits { replicas: 4, max_surge: 1, max_unavailable: 2 };
        assert_eq!(old_replicas(limits, set(1, 0), &[set(2, 2), set(2, 0)]), [2, 0]);
    }

    #[test]
    fn resizing_keeps_the_shares() {
        assert_eq!(proportional(18, &[8, 5]), [11, 7]);
        assert_eq!(proportional(0, &[3, 1]), [0, 0]);
    }

    proptest! {
        /// Carrying out the two steps over and over, with every pod becoming available, ends with all pods new, and on
        /// the way there are never too many pods nor too few available ones.
        #[test]
        fn a_rollout_ends_and_keeps_its_limits(replicas in 1..30i32, surge in 0..5i32, unavailable in 0..5i32, sets in proptest::collection::vec(1..10i32, 1..3)) {
            let limits = Limits::new(replicas, Some(&IntOrString::Int(surge)), Some(&IntOrString::Int(unavailable)));
            let mut old: Vec<Set> = sets.iter().map(|n| set(*n, *n)).collect();
            let mut new = set(0, 0);
            for _ in 0..200 {
                let total = |new: Set, old: &[Set]| new.replicas + old.iter().map(|s| s.replicas).sum::<i32>();
                let before = total(new, &old);
                new.replicas = new_replicas(limits, new, &old);
                prop_assert!(total(new, &old) <= before.max(replicas + limits.max_surge));
                let available_before = new.available + old.iter().map(|s| s.available).sum::<i32>();
                let next_replicas = old_replicas(limits, new, &old);
                for (s, next) in old.iter_mut().zip(next_replicas) {
                    *s = set(next, s.available.min(next));
                }
                let available = new.available + old.iter().map(|s| s.available).sum::<i32>();
                prop_assert!(available >= limits.min_available().min(available_before));
                new.available = new.replicas;
            }
            prop_assert_eq!(new.replicas, replicas);
            prop_assert!(old.iter().all(|s| s.replicas == 0), "{:?}", old);
        }
    }
}
