//! Candidates for a lease (`LeaseCandidate`, coordination.k8s.io/v1beta1).

use super::Change;
use super::device_slice::semantic_version;
use crate::tree::{at, text};
use crate::validate::{self, Errors};

/// The strategy that compares the versions candidates emulate.
const OLDEST: &str = "OldestEmulationVersion";

pub fn validate_candidate(change: &Change<'_>, errors: &mut Errors) {
    let spec = at(change.new, &["spec"]);
    let lease = at(spec, &["leaseName"]);
    if text(lease, &[]).is_empty() {
        errors.required("spec.leaseName", "must not be empty");
    }
    if let Some(old) = change.old {
        errors.immutable("spec.leaseName", at(old, &["spec", "leaseName"]), lease);
    }
    let (binary, emulated) = (text(spec, &["binaryVersion"]), text(spec, &["emulationVersion"]));
    match binary {
        "" => errors.required("spec.binaryVersion", "must not be empty"),
        version => errors.check("spec.binaryVersion", version, semantic_version),
    }
    if !emulated.is_empty() {
        errors.check("spec.emulationVersion", emulated, semantic_version);
    }
    match text(spec, &["strategy"]) {
        "" => errors.required("spec.strategy", ""),
        OLDEST if emulated.is_empty() => {
            errors.required(
                "spec.emulationVersion",
                "must be specified when `strategy` is 'OldestEmulationVersion'",
            );
        }
        strategy => errors.check("spec.strategy", strategy, validate::label_key),
    }
    if parts(binary).zip(parts(emulated)).is_some_and(|(binary, emulated)| binary < emulated) {
        let detail = "must be greater than or equal to `emulationVersion`";
        errors.invalid("spec.binaryVersion", at(spec, &["binaryVersion"]), detail);
    }
}

/// Major, minor and patch of a version.
fn parts(version: &str) -> Option<[u64; 3]> {
    let end = version.find(['-', '+']).unwrap_or(version.len());
    let numbers: Option<Vec<u64>> = version[..end].split('.').map(|part| part.parse().ok()).collect();
    numbers?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::strategy::device_claim::tests::fields;

    #[test]
    fn a_candidate_says_what_it_runs_and_how_one_is_chosen() {
        let candidate = || json!({"spec": {"leaseName": "l", "binaryVersion": "1.36.0", "emulationVersion": "1.35.0", "strategy": OLDEST}});
        let check = |old: Option<&Value>, mut new: Value| {
            fields(|errors| validate_candidate(&Change { old, new: &mut new }, errors))
        };
        assert_eq!(check(None, candidate()), Vec::<String>::new());
        for (field, value, place) in [
            ("leaseName", "", "spec.leaseName"),
            ("binaryVersion", "", "spec.binaryVersion"),
            ("binaryVersion", "1.36", "spec.binaryVersion"),
            ("binaryVersion", "1.34.9", "spec.binaryVersion"),
            ("emulationVersion", "", "spec.emulationVersion"),
            ("emulationVersion", "x", "spec.emulationVersion"),
            ("strategy", "", "spec.strategy"),
            ("strategy", "a b", "spec.strategy"),
        ] {
            let mut candidate = candidate();
            candidate["spec"][field] = json!(value);
            assert_eq!(check(None, candidate), [place], "{field}: {value}");
        }
        let mut other = candidate();
        other["spec"]["leaseName"] = json!("m");
        assert_eq!(check(Some(&candidate()), other), ["spec.leaseName"]);
    }
}
