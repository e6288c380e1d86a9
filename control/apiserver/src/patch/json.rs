//! JSON Patch (RFC 6902) and JSON Merge Patch (RFC 7386), with upstream's bounds.

use serde_json::Value;

use crate::json_syntax;
use crate::status::{Refusal, Result};

/// Most operations one JSON patch may hold.
const MAX_OPERATIONS: usize = 10_000;

/// Most bytes that the copying operations of one JSON patch may add: a few of them could double an object again and again.
const MAX_COPIED: usize = 3 << 20;

/// Reads a JSON patch.
pub fn parse(body: &[u8]) -> Result<json_patch::Patch> {
    let patch: json_patch::Patch = serde_json::from_slice(body).map_err(|error| {
        let why = json_syntax::fault(body).unwrap_or_else(|| error.to_string());
        Refusal::bad_request(format!("error decoding patch: {why}"))
    })?;
    if patch.0.len() > MAX_OPERATIONS {
        let message = format!(
            "The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {}",
            patch.0.len()
        );
        return Err(Refusal::new(413, "RequestEntityTooLarge", message));
    }
    Ok(patch)
}

/// Applies a JSON patch; an operation that cannot be carried out refuses the whole.
pub fn apply(patch: &json_patch::Patch, old: &Value) -> Result<Value> {
    let (mut new, mut copied) = (old.clone(), 0);
    for (index, operation) in patch.0.iter().enumerate() {
        if let json_patch::PatchOperation::Copy(copy) = operation {
            copied += copy.from.resolve(&new).map_or(0, size);
            if copied > MAX_COPIED {
                let message = format!("the patch copies {copied} bytes or more, {MAX_COPIED} are allowed");
                return Err(Refusal::new(413, "RequestEntityTooLarge", message));
            }
        }
        json_patch::patch(&mut new, std::slice::from_ref(operation)).map_err(|mut error| {
            error.operation = index;
            Refusal::new(
                422,
                "Invalid",
                format!("the server rejected our request due to an error in our request: {error}"),
            )
        })?;
    }
    Ok(new)
}

/// Bytes of a value as text.
fn size(value: &Value) -> usize {
    struct Count(usize);
    impl std::io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    serde_json::to_writer(&mut count, value).expect("a tree always encodes");
    count.0
}

/// Applies a merge patch.
pub fn merge(old: &Value, patch: &Value) -> Value {
    let mut new = old.clone();
    merge_into(&mut new, patch);
    new
}

fn merge_into(target: &mut Value, patch: &Value) {
    let Value::Object(changes) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    let fields = target.as_object_mut().expect("it was just made an object");
    for (name, change) in changes {
        if change.is_null() {
            fields.shift_remove(name);
        } else {
            merge_into(fields.entry(name.clone()).or_insert(Value::Null), change);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn merging_follows_the_rfc() {
        // Appendix A of RFC 7386.
        let cases = [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
            (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
            (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
        ];
        for (old, patch, want) in cases {
            assert_eq!(merge(&old, &patch), want, "{old} {patch}");
        }
    }
}
