//! Tables of claims of devices and of what there is to claim.

use serde_json::{Value, json};

use super::{AGE, NAME, Printer, age, column, name};
use crate::tree::{at, list, text};

pub static AGED: Printer =
    Printer { columns: &[NAME, AGE], cells: |object, now| vec![name(object), age(object, now)] };

pub static CLAIM: Printer = Printer {
    columns: &[
        NAME,
        column("State").says("A summary of the current state (allocated, pending, reserved, etc.)."),
        AGE,
    ],
    cells: |object, now| vec![name(object), json!(state(object)), age(object, now)],
};

fn state(claim: &Value) -> String {
    let deleted = !at(claim, &["metadata", "deletionTimestamp"]).is_null();
    let allocated = !at(claim, &["status", "allocation"]).is_null();
    let reserved = allocated && !list(claim, &["status", "reservedFor"]).is_empty();
    let states = [
        ("deleted", deleted),
        ("pending", !allocated && !deleted),
        ("allocated", allocated),
        ("reserved", reserved),
    ];
    let held: Vec<&str> = states.into_iter().filter_map(|(state, held)| held.then_some(state)).collect();
    held.join(",")
}

pub static SLICE: Printer = Printer {
    columns: &[
        NAME,
        column("Node").of("resource.v1.ResourceSliceSpec", "nodeName"),
        column("Driver").of("resource.v1.ResourceSliceSpec", "driver"),
        column("Pool").of("resource.v1.ResourcePool", "name"),
        AGE,
    ],
    cells: |object, now| {
        vec![
            name(object),
            json!(text(object, &["spec", "nodeName"])),
            json!(text(object, &["spec", "driver"])),
            json!(text(object, &["spec", "pool", "name"])),
            age(object, now),
        ]
    },
};
