//! Priority levels: how requests would share the API server.

use serde_json::Value;

use super::Change;
use super::flow_schema::{default_number, validate_mandatory};
use crate::tree::{at, int, set_default, text};
use crate::validate::Errors;

/// Bits of the hash of a flow that upstream deals its hand of queues with.
const HASH_BITS: f64 = 60.0;
const MAX_QUEUES: i64 = 10_000_000;

pub fn default_priority_level(level: &mut Value) {
    for (part, shares) in [("exempt", 0), ("limited", 30)] {
        if at(level, &["spec", part]).is_object() {
            set_default(level, &["spec", part, "nominalConcurrencyShares"], shares);
            set_default(level, &["spec", part, "lendablePercent"], 0);
        }
    }
    let queuing = ["spec", "limited", "limitResponse", "queuing"];
    if at(level, &queuing).is_object() {
        for (field, number) in [("handSize", 8), ("queues", 64), ("queueLengthLimit", 50)] {
            let [a, b, c, d] = queuing;
            default_number(level, &[a, b, c, d, field], number);
        }
    }
}

pub fn validate_priority_level(change: &Change<'_>, errors: &mut Errors) {
    let name = text(change.new, &["metadata", "name"]);
    let spec = at(change.new, &["spec"]);
    let kind = text(spec, &["type"]);
    if (name == "exempt") != (kind == "Exempt") {
        let detail = "type must be 'Exempt' if and only if name is 'exempt'";
        errors.invalid("spec.type", &Value::from(kind), detail);
    }
    match kind {
        "Exempt" if !at(spec, &["limited"]).is_null() => {
            errors.forbidden("spec.limited", "must be nil if the type is not Limited");
        }
        "Limited" if at(spec, &["limited"]).is_null() => {
            errors.required("spec.limited", "must not be empty when type is Limited");
        }
        "Limited" if !at(spec, &["exempt"]).is_null() => {
            errors.forbidden("spec.exempt", "must be nil if the type is Limited");
        }
        "Exempt" | "Limited" => {}
        other => errors.unsupported("spec.type", other, &["Exempt", "Limited"]),
    }
    for part in ["exempt", "limited"] {
        validate_shares(at(spec, &[part]), &format!("spec.{part}"), errors);
    }
    let limited = at(spec, &["limited"]);
    if limited.is_object() {
        let borrowed = int(limited, &["borrowingLimitPercent"]);
        if let Some(percent) = borrowed.filter(|percent| *percent < 0) {
            let place = "spec.limited.borrowingLimitPercent";
            errors.invalid(place, &Value::from(percent), "if specified, must be a non-negative integer");
        }
        validate_response(at(limited, &["limitResponse"]), "spec.limited.limitResponse", errors);
    }
    if name == "catch-all" {
        validate_mandatory("prioritylevelconfigurations", name, spec, errors);
    }
}

fn validate_shares(part: &Value, here: &str, errors: &mut Errors) {
    let shares = int(part, &["nominalConcurrencyShares"]).unwrap_or_default();
    if shares < 0 {
        let place = format!("{here}.nominalConcurrencyShares");
        errors.invalid(place, &Value::from(shares), "must be a non-negative integer");
    }
    let lent = int(part, &["lendablePercent"]).unwrap_or_default();
    if !(0..=100).contains(&lent) {
        let place = format!("{here}.lendablePercent");
        errors.invalid(place, &Value::from(lent), "must be between 0 and 100, inclusive");
    }
}

fn validate_response(response: &Value, here: &str, errors: &mut Errors) {
    let queuing = at(response, &["queuing"]);
    let place = format!("{here}.queuing");
    match text(response, &["type"]) {
        "Reject" if queuing.is_null() => {}
        "Reject" => {
            errors.forbidden(place, "must be nil if limited.limitResponse.type is not Limited");
        }
        "Queue" if queuing.is_null() => {
            errors.required(place, "must not be empty if limited.limitResponse.type is Limited");
        }
        "Queue" => validate_queuing(queuing, &place, errors),
        other => errors.unsupported(format!("{here}.type"), other, &["Queue", "Reject"]),
    }
}

#[expect(clippy::cast_precision_loss, reason = "both were found to be below ten million")]
fn entropy(queues: i64, hand: i64) -> f64 {
    ((queues as f64).log2() * hand as f64).ceil()
}

fn validate_queuing(queuing: &Value, here: &str, errors: &mut Errors) {
    let number = |field: &str| int(queuing, &[field]).unwrap_or_default();
    let (queues, hand) = (number("queues"), number("handSize"));
    for field in ["queueLengthLimit", "queues", "handSize"] {
        if number(field) <= 0 {
            errors.invalid(format!("{here}.{field}"), &Value::from(number(field)), "must be positive");
        }
    }
    if queues > MAX_QUEUES {
        let detail = format!("must not be greater than {MAX_QUEUES}");
        errors.invalid(format!("{here}.queues"), &Value::from(queues), &detail);
    } else if hand > queues && hand > 0 {
        let detail = format!("should not be greater than queues ({queues})");
        errors.invalid(format!("{here}.handSize"), &Value::from(hand), &detail);
    } else if queues > 0 && entropy(queues, hand) > HASH_BITS {
        let needed = "required entropy bits of deckSize";
        let detail = format!("{needed} {queues} and handSize {hand} should not be greater than {HASH_BITS}");
        errors.invalid(format!("{here}.handSize"), &Value::from(hand), &detail);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::strategy::flow_schema::tests::refused;

    fn level() -> Value {
        let mut level = json!({"metadata": {"name": "a"}, "spec": {"type": "Limited", "limited": {"limitResponse": {"type": "Queue", "queuing": {}}}}});
        default_priority_level(&mut level);
        level
    }

    #[test]
    fn levels_have_upstreams_defaults() {
        let queuing = json!({"handSize": 8, "queues": 64, "queueLengthLimit": 50});
        let limited = json!({"nominalConcurrencyShares": 30, "lendablePercent": 0, "limitResponse": {"type": "Queue", "queuing": queuing}});
        assert_eq!(level()["spec"]["limited"], limited);
        let mut none = json!({"spec": {"limited": {"nominalConcurrencyShares": 0}}});
        default_priority_level(&mut none);
        assert_eq!(none["spec"]["limited"]["nominalConcurrencyShares"], 0, "nothing was asked for");
    }

    #[test]
    fn levels_are_validated() {
        let queuing = |field| ["spec", "limited", "limitResponse", "queuing", field];
        let check =
            |path: &[&str], value: Value| refused(&level(), &[(path, value)], validate_priority_level);
        assert_eq!(check(&["spec", "type"], json!("Limited")), Vec::<String>::new());
        let here = "spec.limited.limitResponse.queuing";
        for (path, value, want) in [
            (&["spec", "type"][..], json!("Other"), "spec.type".to_owned()),
            (&["spec", "limited"], Value::Null, "spec.limited".to_owned()),
            (&["spec", "exempt"], json!({}), "spec.exempt".to_owned()),
            (&["spec", "limited", "lendablePercent"], json!(101), "spec.limited.lendablePercent".to_owned()),
            (
                &["spec", "limited", "nominalConcurrencyShares"],
                json!(-1),
                "spec.limited.nominalConcurrencyShares".to_owned(),
            ),
            (
                &["spec", "limited", "borrowingLimitPercent"],
                json!(-1),
                "spec.limited.borrowingLimitPercent".to_owned(),
            ),
            (&["spec", "limited", "limitResponse", "type"], json!("Reject"), here.to_owned()),
            (&["spec", "limited", "limitResponse", "queuing"], Value::Null, here.to_owned()),
            (&queuing("queueLengthLimit"), json!(-1), format!("{here}.queueLengthLimit")),
            (&queuing("queues"), json!(10_000_001), format!("{here}.queues")),
            (&queuing("handSize"), json!(65), format!("{here}.handSize")),
            (&queuing("handSize"), json!(11), format!("{here}.handSize")),
        ] {
            assert_eq!(check(path, value), [want]);
        }
        assert_eq!(check(&queuing("handSize"), json!(10)), Vec::<String>::new(), "60 bits are enough");
        let exempt = refused(&level(), &[(&["metadata", "name"], json!("exempt"))], validate_priority_level);
        assert_eq!(exempt, ["spec.type"]);
    }
}
