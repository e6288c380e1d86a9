//! Reading and writing places in an object tree by path.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// The value at `path`; `Null` when there is none.
pub fn at<'a>(value: &'a Value, path: &[&str]) -> &'a Value {
    path.iter().try_fold(value, |value, name| value.get(name)).unwrap_or(&Value::Null)
}

/// The text at `path`; empty when there is none.
pub fn text<'a>(value: &'a Value, path: &[&str]) -> &'a str {
    at(value, path).as_str().unwrap_or_default()
}

/// The items of the list at `path`; empty when there is none.
pub fn list<'a>(value: &'a Value, path: &[&str]) -> &'a [Value] {
    at(value, path).as_array().map_or(&[], Vec::as_slice)
}

/// The integer at `path`.
pub fn int(value: &Value, path: &[&str]) -> Option<i64> {
    at(value, path).as_i64()
}

/// The boolean at `path`; false when there is none.
pub fn flag(value: &Value, path: &[&str]) -> bool {
    at(value, path).as_bool().unwrap_or_default()
}

/// The fields of the object at `path`, in order; empty when there is none.
pub fn fields<'a>(value: &'a Value, path: &[&str]) -> impl Iterator<Item = (&'a str, &'a Value)> + use<'a> {
    at(value, path).as_object().into_iter().flatten().map(|(name, value)| (name.as_str(), value))
}

/// `name=value` pairs of strings at `path`.
pub fn strings<'a>(value: &'a Value, path: &[&str]) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
    fields(value, path).filter_map(|(name, value)| Some((name, value.as_str()?)))
}

/// The object at `path`, made on the way when it is missing or no object.
pub fn object_mut<'a>(value: &'a mut Value, path: &[&str]) -> &'a mut Map<String, Value> {
    let mut place = value;
    for name in path {
        place = into_object(place).entry(*name).or_insert_with(|| Value::Object(Map::new()));
    }
    into_object(place)
}

fn into_object(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    value.as_object_mut().expect("it was just made an object")
}

/// Writes `new` at `path`.
pub fn set(value: &mut Value, path: &[&str], new: impl Into<Value>) {
    let Some((last, parents)) = path.split_last() else {
        *value = new.into();
        return;
    };
    object_mut(value, parents).insert((*last).to_owned(), new.into());
}

/// Writes `new` at `path` unless something other than null or empty text is there.
pub fn set_default(value: &mut Value, path: &[&str], new: impl Into<Value>) {
    let present = at(value, path);
    if present.is_null() || present == "" {
        set(value, path, new);
    }
}

/// Whether a value is what Go has where nobody has said anything: nothing, or the zero of a scalar.
pub fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(_) | Value::Object(_) => false,
    }
}

/// Removes what is at `path` and returns it.
pub fn remove(value: &mut Value, path: &[&str]) -> Option<Value> {
    let (last, parents) = path.split_last()?;
    let mut place = value;
    for name in parents {
        place = place.get_mut(name)?;
    }
    place.as_object_mut()?.shift_remove(*last)
}

/// Makes `target` hold at `path` what `source` holds there, also when that is nothing.
pub fn copy(target: &mut Value, source: &Value, path: &[&str]) {
    match at(source, path) {
        Value::Null => _ = remove(target, path),
        value => set(target, path, value.clone()),
    }
}

/// Moves to `target` what `source` holds at `path`, also when that is nothing.
pub fn transfer(target: &mut Value, source: &mut Value, path: &[&str]) {
    match remove(source, path) {
        None | Some(Value::Null) => _ = remove(target, path),
        Some(value) => set(target, path, value),
    }
}

/// The items of the list at `path`, to change.
pub fn list_mut<'a>(value: &'a mut Value, path: &[&str]) -> &'a mut [Value] {
    let mut place = value;
    for name in path {
        match place.get_mut(name) {
            Some(next) => place = next,
            None => return &mut [],
        }
    }
    place.as_array_mut().map_or(&mut [], Vec::as_mut_slice)
}

/// A tree as Go shows maps to people.
pub fn go_text(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let sorted: BTreeMap<&String, &Value> = fields.iter().collect();
            let one = |(name, value): (&&String, &&Value)| format!("{name}:{}", go_text(value));
            format!("map[{}]", sorted.iter().map(one).collect::<Vec<_>>().join(" "))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(go_text).collect::<Vec<_>>().join(" ")),
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Number(number) => {
            let text = number.to_string();
            text.strip_suffix(".0").unwrap_or(&text).to_owned()
        }
        other => other.to_string(),
    }
}

/// The same tree with the fields in the order in which Go writes those of maps.
pub fn in_order(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let sorted: BTreeMap<&String, &Value> = fields.iter().collect();
            sorted.into_iter().map(|(name, value)| (name.clone(), in_order(value))).collect()
        }
        Value::Array(items) => items.iter().map(in_order).collect(),
        other => other.clone(),
    }
}
