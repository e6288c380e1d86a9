//! Server-side apply and strategic merge patch against small models of what they should do.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

use crate::cluster::{Client, cluster};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

type Data = BTreeMap<String, String>;

#[derive(Debug, Clone)]
enum Step {
    Apply {
        manager: u8,
        /// Nothing is said of the data, or it is said to be this.
        data: Option<Data>,
        force: bool,
    },
    /// A merge patch: values that are set, and keys that are removed.
    Update { manager: u8, data: BTreeMap<String, Option<String>> },
}

/// Who owns which keys, and what is in them. A manager that applies is somebody else than one that updates.
///
/// The map itself is owned, as [`WHOLE`], by who applies it empty and by whose update it begins with: without a key it is not
/// there.
///
/// Who updates what nobody is known to own stays unknown; once somebody applies, what is there by then is [`NOBODY`]'s.
#[derive(Debug, Default)]
struct Model {
    data: Data,
    owned: BTreeMap<(u8, &'static str), BTreeSet<String>>,
}

const WHOLE: &str = ".";
const NOBODY: (u8, &str) = (u8::MAX, "Update");

impl Model {
    fn owners_besides(&self, me: (u8, &str), key: &str) -> bool {
        self.owned.iter().any(|(owner, keys)| (owner.0, owner.1) != me && keys.contains(key))
    }

    fn disown(&mut self, me: (u8, &str), key: &str) {
        for (owner, keys) in &mut self.owned {
            if (owner.0, owner.1) != me {
                keys.remove(key);
            }
        }
    }

    fn is_somebodys(&self) -> bool {
        self.owned.values().any(|keys| !keys.is_empty())
    }

    fn assume(&mut self) {
        if !self.is_somebodys() && !self.data.is_empty() {
            let everything = self.data.keys().cloned().chain([WHOLE.to_owned()]);
            self.owned.insert(NOBODY, everything.collect());
        }
    }

    /// The keys that others hold with another value, when that is refused.
    fn apply(&mut self, manager: u8, wanted: Option<&Data>, force: bool) -> Result<(), BTreeSet<String>> {
        let me = (manager, "Apply");
        let known = self.owned.clone();
        self.assume();
        let was_empty = self.data.is_empty();
        let begins = wanted.is_some() && was_empty;
        let changed: Vec<String> = wanted
            .into_iter()
            .flatten()
            .filter(|(key, value)| self.data.get(*key).is_some_and(|old| old != *value))
            .map(|(key, _)| key.clone())
            .chain(begins.then(|| WHOLE.to_owned()))
            .collect();
        let conflicts: BTreeSet<String> =
            changed.iter().filter(|key| self.owners_besides(me, key)).cloned().collect();
        if !conflicts.is_empty() && !force {
            self.owned = known;
            return Err(conflicts);
        }
        for key in changed {
            self.disown(me, &key);
        }
        let before = self.owned.remove(&me).unwrap_or_default();
        let wanted = wanted.cloned();
        let is_wanted = |key: &String| wanted.as_ref().is_some_and(|wanted| wanted.contains_key(key));
        for key in before.iter().filter(|key| !is_wanted(key)) {
            if !self.owners_besides(me, key) {
                self.data.remove(key);
            }
        }
        let mut mine: BTreeSet<String> = wanted.iter().flat_map(|wanted| wanted.keys().cloned()).collect();
        if wanted.as_ref().is_some_and(BTreeMap::is_empty) {
            mine.insert(WHOLE.to_owned());
        }
        self.data.extend(wanted.unwrap_or_default());
        self.owned.insert(me, mine);
        Ok(())
    }

    fn update(&mut self, manager: u8, data: &BTreeMap<String, Option<String>>) {
        let me = (manager, "Update");
        let was_empty = self.data.is_empty();
        let is_tracked = self.is_somebodys();
        for (key, value) in data {
            if self.data.get(key) == value.as_ref() {
                continue;
            }
            self.disown((manager, "nobody"), key);
            match value {
                Some(value) => {
                    self.data.insert(key.clone(), value.clone());
                    self.owned.entry(me).or_default().insert(key.clone());
                }
                None => drop(self.data.remove(key)),
            }
        }
        if was_empty != self.data.is_empty() {
            self.disown((manager, "nobody"), WHOLE);
        }
        if was_empty && !self.data.is_empty() {
            self.owned.entry(me).or_default().insert(WHOLE.to_owned());
        }
        if !is_tracked {
            self.owned.clear();
        }
    }

    fn agree(&self, object: &Value) {
        let data: Data = serde_json::from_value(object["data"].clone()).unwrap_or_default();
        assert_eq!(data, self.data);
        let mut owned = BTreeMap::new();
        for entry in object["metadata"]["managedFields"].as_array().into_iter().flatten() {
            let Some(stored) = entry["fieldsV1"]["f:data"].as_object() else { continue };
            let whole = stored.is_empty().then_some(WHOLE);
            let keys = stored.keys().map(|key| key.strip_prefix("f:").unwrap_or(key)).chain(whole);
            let owner = (entry["manager"].as_str().unwrap(), entry["operation"].as_str().unwrap());
            owned.insert((owner.0.to_owned(), owner.1.to_owned()), keys.map(str::to_owned).collect());
        }
        let want: BTreeMap<(String, String), BTreeSet<String>> = self
            .owned
            .iter()
            .filter(|(_, keys)| !keys.is_empty())
            .map(|((manager, operation), keys)| {
                let owner = (*manager, *operation);
                let name =
                    if owner == NOBODY { "before-first-apply".to_owned() } else { format!("m{manager}") };
                ((name, (*operation).to_owned()), keys.clone())
            })
            .collect();
        assert_eq!(owned, want);
    }
}

fn step() -> impl Strategy<Value = Step> {
    let (key, value) = ("k[0-3]", "[xy]");
    let data = proptest::option::weighted(0.9, proptest::collection::btree_map(key, value, 0..3));
    let change = proptest::collection::btree_map(key, proptest::option::weighted(0.6, value), 0..3);
    prop_oneof![
        2 => (0..3_u8, data, any::<bool>()).prop_map(|(manager, data, force)| Step::Apply { manager, data, force }),
        1 => (0..3_u8, change).prop_map(|(manager, data)| Step::Update { manager, data }),
    ]
}

async fn take(client: &Client, name: &str, model: &mut Model, step: &Step) {
    match step {
        Step::Apply { manager, data, force } => {
            let uri = format!("{MAPS}/{name}?fieldManager=m{manager}&force={force}");
            let mut object = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name } });
            if let Some(data) = data {
                object["data"] = json!(data);
            }
            let answer = client.patch("apply", &uri, &object).await;
            match model.apply(*manager, data.as_ref(), *force) {
                Ok(()) => assert!(matches!(answer.code, 200 | 201), "{}", answer.json()),
                Err(keys) => {
                    let status = answer.refused(409, "Conflict");
                    let causes = status["details"]["causes"].as_array().unwrap();
                    let fields = causes.iter().map(|cause| cause["field"].as_str().unwrap().to_owned());
                    let fields: BTreeSet<String> = fields.collect();
                    let field = |key: &String| {
                        if key == WHOLE { ".data".to_owned() } else { format!(".data.{key}") }
                    };
                    assert_eq!(fields, keys.iter().map(field).collect());
                }
            }
        }
        Step::Update { manager, data } => {
            let uri = format!("{MAPS}/{name}?fieldManager=m{manager}");
            client.patch("merge", &uri, &json!({ "data": data })).await.expect(200);
            model.update(*manager, data);
        }
    }
    model.agree(&client.get(&format!("{MAPS}/{name}")).await.expect(200));
}

#[test]
fn appliers_and_updaters_own_what_the_model_says() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let cluster = runtime.block_on(cluster());
    let client = cluster.admin();
    let case = std::cell::Cell::new(0);
    let mut runner =
        TestRunner::new(ProptestConfig { cases: 100, failure_persistence: None, ..Default::default() });
    let outcome = runner.run(&proptest::collection::vec(step(), 1..12), |steps| {
        case.set(case.get() + 1);
        let name = format!("case-{}", case.get());
        let object = json!({ "metadata": { "name": name } });
        runtime.block_on(async {
            client.send("POST", MAPS, &object).await.expect(201);
            let mut model = Model::default();
            for step in &steps {
                take(&client, &name, &mut model, step).await;
            }
        });
        Ok(())
    });
    outcome.unwrap();
}

/// Containers by name: the image of each, in their order.
type Containers = Vec<(String, String)>;

fn containers() -> impl Strategy<Value = Containers> {
    proptest::collection::btree_map("c[0-4]", "[ij]", 1..5)
        .prop_flat_map(|containers| Just(containers.into_iter().collect::<Containers>()).prop_shuffle())
}

/// What `kubectl apply` sends to lead from one list to the other.
fn patch_between(old: &Containers, new: &Containers) -> Value {
    let changed = new
        .iter()
        .filter(|container| !old.contains(container))
        .map(|(name, image)| json!({ "name": name, "image": image }));
    let gone = old
        .iter()
        .filter(|(name, _)| new.iter().all(|(other, _)| other != name))
        .map(|(name, _)| json!({ "name": name, "$patch": "delete" }));
    let order: Vec<Value> = new.iter().map(|(name, _)| json!({ "name": name })).collect();
    let mut spec = json!({ "$setElementOrder/containers": order });
    let items: Vec<Value> = changed.chain(gone).collect();
    if !items.is_empty() {
        spec["containers"] = json!(items);
    }
    json!({ "spec": { "template": { "spec": spec } } })
}

fn deployment(name: &str, containers: &Containers) -> Value {
    let containers: Vec<Value> =
        containers.iter().map(|(name, image)| json!({ "name": name, "image": image })).collect();
    json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": name }, "spec": {
        "selector": { "matchLabels": { "a": "b" } },
        "template": { "metadata": { "labels": { "a": "b" } }, "spec": { "containers": containers } } } })
}

#[test]
fn a_strategic_patch_leads_where_it_was_made_to_lead() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let cluster = runtime.block_on(cluster());
    let client = cluster.admin();
    let case = std::cell::Cell::new(0);
    let mut runner =
        TestRunner::new(ProptestConfig { cases: 80, failure_persistence: None, ..Default::default() });
    let outcome = runner.run(&(containers(), containers()), |(old, new)| {
        case.set(case.get() + 1);
        let name = format!("case-{}", case.get());
        let after = runtime.block_on(async {
            client.send("POST", DEPLOYMENTS, &deployment(&name, &old)).await.expect(201);
            let patch = patch_between(&old, &new);
            client.patch("strategic-merge", &format!("{DEPLOYMENTS}/{name}"), &patch).await.expect(200)
        });
        let found: Containers = after["spec"]["template"]["spec"]["containers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| (one["name"].as_str().unwrap().to_owned(), one["image"].as_str().unwrap().to_owned()))
            .collect();
        prop_assert_eq!(found, new);
        Ok(())
    });
    outcome.unwrap();
}
