//! Cases: each a sentence and a function over a world, run in both families.

use std::thread;

use anyhow::Result;

use crate::kernel::Missing;
use crate::runner::{allowed, isolate};
use crate::world::{World, families};

/// What a case shows, and how.
pub type Case = (&'static str, fn(&mut World) -> Result<()>);

/// Runs every case in both families and fails with all that failed.
///
/// # Panics
/// When a case fails or the world cannot be made.
pub fn hold(cases: &'static [Case]) {
    hold_in(World::new, cases);
}

/// The same in a world of the caller's making.
///
/// # Panics
/// As [`hold`].
pub fn hold_in(make: impl FnOnce() -> Result<World> + Send + 'static, cases: &'static [Case]) {
    if !allowed() {
        return;
    }
    let failures = thread::spawn(move || -> Result<Vec<String>> {
        isolate()?;
        let mut world = make()?;
        let mut failures = Vec::new();
        for names in families() {
            for (name, case) in cases {
                world.reset(names)?;
                if let Err(error) = case(&mut world) {
                    if error.is::<Missing>() {
                        println!("skipped from here on: {name}: {error}");
                        continue;
                    }
                    failures.push(format!("{name} ({}): {error:#}", names.vip));
                }
            }
        }
        Ok(failures)
    });
    let failures = failures.join().expect("no case panics").expect("a world can be made");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
