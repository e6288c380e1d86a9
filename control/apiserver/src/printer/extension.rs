//! Tables of what extends the server: webhooks, policies of admission and other API servers.

use serde_json::{Value, json};

use super::{AGE, NAME, Printer, age, column, name, number};
use crate::tree::{list, text};

pub static WEBHOOKS: Printer = Printer {
    columns: &[
        NAME,
        number("Webhooks").says("Webhooks indicates the number of webhooks registered in this configuration"),
        AGE,
    ],
    cells: |object, now| vec![name(object), json!(list(object, &["webhooks"]).len()), age(object, now)],
};

pub static VALIDATING_POLICY: Printer = Printer {
    columns: &[
        NAME,
        number("Validations")
            .says("Validations indicates the number of validation rules defined in this configuration"),
        column("ParamKind")
            .says("ParamKind specifies the kind of resources used to parameterize this policy"),
        AGE,
    ],
    cells: |policy, now| {
        let validations = list(policy, &["spec", "validations"]).len();
        vec![name(policy), json!(validations), param_kind(policy), age(policy, now)]
    },
};

pub static MUTATING_POLICY: Printer = Printer {
    columns: &[
        NAME,
        number("Mutations")
            .says("Mutation indicates the number of mutations rules defined in this configuration"),
        column("ParamKind")
            .says("ParamKind specifies the kind of resources used to parameterize this policy"),
        AGE,
    ],
    cells: |policy, now| {
        let mutations = list(policy, &["spec", "mutations"]).len();
        vec![name(policy), json!(mutations), param_kind(policy), age(policy, now)]
    },
};

fn param_kind(policy: &Value) -> Value {
    let part = |field: &str| text(policy, &["spec", "paramKind", field]);
    match (part("apiVersion"), part("kind")) {
        ("", "") => json!("<unset>"),
        (version, kind) => json!(format!("{version}/{kind}")),
    }
}

pub static BINDING: Printer = Printer {
    columns: &[
        NAME,
        column("PolicyName")
            .says("PolicyName indicates the policy definition which the policy binding binded to"),
        column("ParamRef").says("ParamRef indicates the param resource which sets the configration param"),
        AGE,
    ],
    cells: |binding, now| {
        let params = |field: &str| text(binding, &["spec", "paramRef", field]);
        let shown = match (params("namespace"), params("name")) {
            (_, "") => "<unset>".to_owned(),
            ("", one) => one.to_owned(),
            (namespace, one) => format!("{namespace}/{one}"),
        };
        let policy = text(binding, &["spec", "policyName"]);
        vec![name(binding), json!(policy), json!(shown), age(binding, now)]
    },
};

pub static API_SERVICE: Printer = Printer {
    columns: &[
        NAME,
        column("Service").says("The reference to the service that hosts this API endpoint."),
        column("Available").says("Whether this service is available."),
        AGE,
    ],
    cells: |object, now| {
        let server = |field: &str| text(object, &["spec", "service", field]);
        let shown = match server("name") {
            "" => "Local".to_owned(),
            one => format!("{}/{one}", server("namespace")),
        };
        let conditions = list(object, &["status", "conditions"]);
        let found = conditions.iter().find(|condition| text(condition, &["type"]) == "Available");
        let available = found.map_or("Unknown".to_owned(), |condition| {
            match (text(condition, &["status"]), text(condition, &["reason"])) {
                ("True", _) => "True".to_owned(),
                (status, reason) => format!("{status} ({reason})"),
            }
        });
        vec![name(object), json!(shown), json!(available), age(object, now)]
    },
};
