//! The cases by the oracle and by the rows, and what else they leave behind.

use std::collections::BTreeSet;

use crate::cases::{CASES, Case};
use crate::world::{World, address};

#[test]
fn every_case_of_upstream_holds_by_the_oracle_and_by_the_rows() {
    let titles: BTreeSet<&str> = CASES.iter().map(|case| case.title).collect();
    assert_eq!((CASES.len(), titles.len()), (48, 48));
    for case in CASES {
        played(case);
    }
}

fn played(case: &Case) -> World {
    println!("{}", case.title);
    let mut world = World::new();
    (case.play)(&mut world);
    world
}

fn named(part: &str) -> &'static Case {
    CASES.iter().find(|case| case.title.contains(part)).unwrap()
}

#[test]
fn nothing_is_left_of_policies_that_were_deleted() {
    let world = played(named("stop enforcing policies after they are deleted"));
    assert!(world.policies.state.rules.is_empty() && world.policies.state.identities.is_empty());
}

#[test]
fn blocks_mean_strangers_as_well() {
    let mut world = World::new();
    let block = serde_json::json!({ "ipBlock": { "cidr": "10.0.0.0/8", "except": ["10.9.9.0/24"] } });
    let spec =
        serde_json::json!({ "podSelector": {}, "policyTypes": ["Egress"], "egress": [{ "to": [block] }] });
    world.apply("x", "some", spec);
    assert!(world.reaches_outside("x/a", "10.9.8.9", 80));
    assert!(!world.reaches_outside("x/a", "10.9.9.9", 80) && !world.reaches_outside("x/a", "192.0.2.1", 80));
}

#[test]
fn pods_are_where_the_cases_think() {
    assert_eq!(address("y/b").to_string(), "10.244.2.2");
}
