//! The messages of the protobuf form, from the generated table `data/protobuf.json`.
//!
//! The table says for every message `[number, field, type, flags]`; it is read when the first body or reply in this
//! form comes. A field without a name is a message whose fields stand in the object itself in JSON.

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::schema::schema;

static TABLE: &str = include_str!("../../data/protobuf.json");

const REPEATED: u64 = 1;
const KEEPS_ZERO: u64 = 2;

/// Index of a [`Message`].
pub type MessageId = usize;

/// Every message that a served kind reaches.
#[derive(Debug)]
pub struct Messages {
    all: Vec<Message>,
    by_name: HashMap<&'static str, MessageId>,
    by_kind: HashMap<(&'static str, &'static str, &'static str), MessageId>,
    /// The metadata of objects, which the server completes as it writes them.
    pub object_meta: MessageId,
    /// What unions hold.
    pub json_schema: MessageId,
}

#[derive(Debug, Default)]
pub struct Message {
    /// Sorted by number.
    pub fields: Vec<Field>,
    /// Where the fields of the object in JSON are, sorted by length and name.
    places: Vec<(&'static str, Place)>,
}

#[derive(Debug)]
pub struct Field {
    pub number: u32,
    pub name: &'static str,
    pub kind: Kind,
    pub repeated: bool,
    /// Zero says something else than absence.
    pub keeps_zero: bool,
}

/// How many messages without a name a field may lie in.
pub const NESTED: usize = 2;

/// Where a field of an object in JSON is on the wire.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// The numbers of the messages without a name that hold it, the outer one first; zeros behind the last.
    pub through: [u32; NESTED],
    owner: MessageId,
    field: usize,
}

/// What one value of a field is.
#[derive(Debug, PartialEq, Eq)]
pub enum Kind {
    Bool,
    Integer,
    Double,
    String,
    Bytes,
    Quantity,
    IntOrString,
    Time,
    /// JSON as it is.
    Raw,
    /// A message whose only field is a list of texts, which is the list itself in JSON.
    Strings,
    Union(Union),
    Map(Box<Self>),
    Message(MessageId),
}

/// A schema or something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Union {
    Bool,
    Schemas,
    Strings,
}

/// The table of this build.
pub fn messages() -> &'static Messages {
    static MESSAGES: LazyLock<Messages> = LazyLock::new(load);
    &MESSAGES
}

impl Messages {
    pub fn message(&self, id: MessageId) -> &Message {
        &self.all[id]
    }

    /// The message of a type with this name in the schema.
    pub fn named(&self, type_name: &str) -> Option<MessageId> {
        self.by_name.get(&*type_name.replacen("io.k8s.", "k8s.io.", 1).replace('-', "_")).copied()
    }

    /// The message of a kind.
    pub fn kind(&self, group: &str, version: &str, kind: &str) -> Option<MessageId> {
        self.by_kind.get(&(group, version, kind)).copied()
    }

    pub fn field(&self, place: Place) -> &Field {
        &self.all[place.owner].fields[place.field]
    }
}

impl Message {
    pub fn numbered(&self, number: u64) -> Option<&Field> {
        let found = self.fields.binary_search_by_key(&number, |field| field.number.into());
        found.ok().map(|at| &self.fields[at])
    }

    pub fn place(&self, name: &[u8]) -> Option<Place> {
        let found = self.places.binary_search_by(|(own, _)| order(own.as_bytes()).cmp(&order(name)));
        found.ok().map(|at| self.places[at].1)
    }
}

fn order(name: &[u8]) -> (usize, &[u8]) {
    (name.len(), name)
}

type Rows = Vec<(u32, &'static str, &'static str, u64)>;

fn load() -> Messages {
    let table: HashMap<&'static str, Rows> =
        serde_json::from_str(TABLE).expect("the generated table is JSON");
    let by_name: HashMap<&'static str, MessageId> =
        table.keys().enumerate().map(|(id, name)| (*name, id)).collect();
    let mut all: Vec<Message> = (0..by_name.len()).map(|_| Message::default()).collect();
    for (name, rows) in table {
        let mut fields: Vec<Field> = rows.into_iter().map(|row| field(&by_name, row)).collect();
        fields.sort_by_key(|field| field.number);
        all[by_name[name]].fields = fields;
    }
    let places: Vec<_> = (0..all.len()).map(|id| places(&all, id)).collect();
    for (message, places) in all.iter_mut().zip(places) {
        message.places = places;
    }
    let meta = |kind: &str| by_name[&*format!("k8s.io.apimachinery.pkg.apis.meta.v1.{kind}")];
    let object_meta = meta("ObjectMeta");
    let json_schema = by_name["k8s.io.apiextensions_apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps"];
    let mut messages =
        Messages { all, by_kind: HashMap::new(), object_meta, json_schema, by_name: HashMap::new() };
    for kind in ["APIGroup", "APIGroupList", "APIResourceList", "APIVersions", "Status"] {
        messages.by_kind.insert(("", "v1", kind), meta(kind));
    }
    messages.by_kind.insert(("", "", "APIVersions"), meta("APIVersions"));
    for (kind, version) in ["PartialObjectMetadata", "PartialObjectMetadataList"]
        .into_iter()
        .flat_map(|kind| [(kind, "v1"), (kind, "v1beta1")])
    {
        messages.by_kind.insert(("meta.k8s.io", version, kind), meta(kind));
    }
    let discovery = by_name["k8s.io.api.apidiscovery.v2.APIGroupDiscoveryList"];
    messages.by_kind.insert(("apidiscovery.k8s.io", "v2", "APIGroupDiscoveryList"), discovery);
    messages.by_name = by_name;
    for kind in &schema().types {
        if let Some((group, version, name)) = &kind.kind
            && let Some(id) = messages.named(&kind.name)
        {
            messages.by_kind.insert((group, version, name), id);
        }
    }
    messages
}

fn field(by_name: &HashMap<&'static str, MessageId>, row: (u32, &'static str, &'static str, u64)) -> Field {
    let (number, name, kind, flags) = row;
    Field {
        number,
        name,
        kind: kind_of(by_name, kind),
        repeated: flags & REPEATED != 0,
        keeps_zero: flags & KEEPS_ZERO != 0,
    }
}

fn kind_of(by_name: &HashMap<&'static str, MessageId>, name: &'static str) -> Kind {
    if let Some(value) = name.strip_prefix("map<string,").and_then(|rest| rest.strip_suffix('>')) {
        return Kind::Map(Box::new(kind_of(by_name, value)));
    }
    match name.rsplit('.').next().unwrap_or(name) {
        "bool" => Kind::Bool,
        "int32" | "int64" => Kind::Integer,
        "double" => Kind::Double,
        "string" => Kind::String,
        "bytes" => Kind::Bytes,
        "Quantity" => Kind::Quantity,
        "IntOrString" => Kind::IntOrString,
        "Time" | "MicroTime" => Kind::Time,
        "RawExtension" | "FieldsV1" | "JSON" => Kind::Raw,
        "ExtraValue" | "Verbs" => Kind::Strings,
        "JSONSchemaPropsOrBool" => Kind::Union(Union::Bool),
        "JSONSchemaPropsOrArray" => Kind::Union(Union::Schemas),
        "JSONSchemaPropsOrStringArray" => Kind::Union(Union::Strings),
        _ => Kind::Message(*by_name.get(name).expect("every message a field names is in the table")),
    }
}

fn places(all: &[Message], id: MessageId) -> Vec<(&'static str, Place)> {
    let mut places = Vec::new();
    collect(all, id, [0; NESTED], 0, &mut places);
    places.sort_by(|(a, _), (b, _)| order(a.as_bytes()).cmp(&order(b.as_bytes())));
    places
}

/// Adds the places of the fields of a message that lies `depth` messages without a name deep.
fn collect(
    all: &[Message],
    id: MessageId,
    through: [u32; NESTED],
    depth: usize,
    places: &mut Vec<(&'static str, Place)>,
) {
    for (position, field) in all[id].fields.iter().enumerate() {
        match field.kind {
            Kind::Message(inner) if field.name.is_empty() => {
                let mut through = through;
                through[depth] = field.number;
                collect(all, inner, through, depth + 1, places);
            }
            _ => places.push((field.name, Place { through, owner: id, field: position })),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::Shape;

    #[test]
    fn every_field_is_found_by_its_name_and_only_once() {
        let messages = messages();
        for message in &messages.all {
            for pair in message.places.windows(2) {
                assert_ne!(pair[0].0, pair[1].0);
            }
            for (name, _) in &message.places {
                assert_eq!(messages.field(message.place(name.as_bytes()).unwrap()).name, *name);
            }
        }
    }

    #[test]
    fn every_row_has_a_message() {
        for row in crate::resources::builtin().rows() {
            let mut kinds = vec![(&*row.group, &*row.version, &*row.kind)];
            if !row.review && row.own() != "bindings" {
                kinds.push((&row.group, &row.version, &row.list_kind));
            }
            let exchanged = row.subresources.iter().filter(|sub| !sub.is_stream());
            kinds.extend(exchanged.filter_map(|sub| sub.kind()));
            for (group, version, kind) in kinds {
                assert!(messages().kind(group, version, kind).is_some(), "{kind}");
            }
        }
    }

    /// A table whose names are not those of JSON would lose fields without a word.
    #[test]
    fn every_field_of_the_schema_has_a_number_and_the_same_type() {
        for kind in &schema().types {
            let Some(id) = messages().named(&kind.name) else { continue };
            for (name, node) in &kind.fields {
                let Some(place) = messages().message(id).place(name.as_bytes()) else {
                    // Objects say what they are outside of their message.
                    assert!(matches!(&**name, "kind" | "apiVersion"), "{}.{name}", &*kind.name);
                    continue;
                };
                let field = messages().field(place);
                let agree = match &node.shape {
                    Shape::List(item) => {
                        (field.repeated && fits(&item.shape, &field.kind)) || field.kind == Kind::Strings
                    }
                    shape => !field.repeated && fits(shape, &field.kind),
                };
                assert!(agree, "{}.{name}: {:?} is {:?}", &*kind.name, node.shape, field.kind);
            }
        }
    }

    fn fits(shape: &Shape, kind: &Kind) -> bool {
        match (shape, kind) {
            (Shape::String, Kind::String)
            | (Shape::Int32 | Shape::Int64, Kind::Integer)
            | (Shape::Number, Kind::Double)
            | (Shape::Bool, Kind::Bool)
            | (Shape::Quantity, Kind::Quantity)
            | (Shape::IntOrString, Kind::IntOrString)
            | (Shape::Time | Shape::MicroTime, Kind::Time)
            | (Shape::Bytes, Kind::Bytes)
            | (Shape::Any, Kind::Raw | Kind::Union(_)) => true,
            (Shape::List(item), Kind::Strings) => fits(&item.shape, &Kind::String),
            (Shape::Map(value), Kind::Map(kind)) => fits(&value.shape, kind),
            (Shape::Object(id), Kind::Message(message)) => {
                messages().named(&schema().types[*id].name) == Some(*message)
            }
            _ => false,
        }
    }
}
