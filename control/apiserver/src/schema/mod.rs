//! The structure of every kind: fields, list and merge keys, defaults; loaded once from the generated table.

mod check;
pub mod decode;
mod default;
mod load;
mod quantity;
pub mod rules;
mod time;

use std::collections::HashMap;
use std::sync::LazyLock;

use serde_json::Value;

use crate::name::Name;
pub use check::check;
pub use default::apply_defaults;
pub use load::schema;
pub use quantity::{Quantity, quantity_millis};
use rules::Rules;

/// Index of a [`Type`] in [`Schema::types`].
pub type TypeId = usize;

/// Every type that a served kind reaches.
#[derive(Debug)]
pub struct Schema {
    pub types: Vec<Type>,
    by_kind: HashMap<(Name, Name, Name), TypeId>,
    by_name: HashMap<Name, TypeId>,
}

/// One structured type.
#[derive(Debug)]
pub struct Type {
    /// Name in the published documents, such as `io.k8s.api.core.v1.Pod`.
    pub name: Name,
    /// Group, version, kind, when the type is a kind of one group version.
    pub kind: Option<(Name, Name, Name)>,
    /// Sorted by name.
    pub fields: Vec<(Name, Node)>,
    pub required: Vec<Name>,
    /// Owned as a whole by one applier.
    pub atomic: bool,
    /// Fields the type does not know are kept.
    pub open: bool,
}

/// What may stand in one place of an object.
#[derive(Debug)]
pub struct Node {
    pub shape: Shape,
    pub default: Option<Box<Value>>,
    /// An object that is no pointer in Go: it is there, empty, where nobody has written it.
    pub present: bool,
    /// An optional scalar whose zero is the same as nothing, and is left out: Go's `omitempty` of what is no pointer.
    pub omits_zero: bool,
    pub list: ListType,
    /// For [`ListType::Map`]: the fields that identify an item.
    pub keys: Vec<Name>,
    /// Strategic merge patch merges the list or map instead of replacing it.
    pub merges: bool,
    /// Strategic merge patch honours `$retainKeys` here.
    pub retains: bool,
    /// The field that identifies an item for strategic merge; `None` for lists of scalars.
    pub merge_key: Option<Name>,
    /// A map or object owned as a whole.
    pub atomic: bool,
    /// Of a CustomResourceDefinition: whatever comes is kept as it is, and then checked. Values of built-in kinds are
    /// brought into their canonical form, or refused, when they are decoded.
    pub custom: bool,
    /// A null is a value of its own.
    pub nullable: bool,
    pub rules: Option<Box<Rules>>,
}

/// The wire form of a [`Node`].
#[derive(Debug)]
pub enum Shape {
    String,
    Int32,
    Int64,
    Number,
    Bool,
    Quantity,
    IntOrString,
    Time,
    MicroTime,
    Bytes,
    /// Any JSON value, kept as it came.
    Any,
    List(Box<Node>),
    Map(Box<Node>),
    Object(TypeId),
    /// An object of a type that nobody else refers to.
    Struct(Box<Type>),
}

/// How items of a list are identified by server-side apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListType {
    Atomic,
    Set,
    Map,
}

impl Schema {
    /// The type of a kind.
    pub fn kind(&self, group: &str, version: &str, kind: &str) -> Option<TypeId> {
        self.by_kind.get(&(group.into(), version.into(), kind.into())).copied()
    }

    /// The type with this published name.
    pub fn named(&self, name: &str) -> Option<TypeId> {
        self.by_name.get(name).copied()
    }

    /// A node that holds an object of the type.
    pub fn root(&'static self, id: TypeId) -> Node {
        Node { atomic: self.types[id].atomic, ..Node::of(Shape::Object(id)) }
    }
}

impl Type {
    /// The node of a field.
    pub fn field(&self, name: &str) -> Option<&Node> {
        self.fields.binary_search_by(|(field, _)| (**field).cmp(name)).ok().map(|at| &self.fields[at].1)
    }

    /// Whether the field must be there.
    pub fn requires(&self, name: &str) -> bool {
        self.required.iter().any(|one| *one == *name)
    }
}

impl Node {
    /// A place of this shape without anything special.
    pub fn of(shape: Shape) -> Self {
        Self {
            shape,
            default: None,
            present: false,
            omits_zero: false,
            list: ListType::Atomic,
            keys: Vec::new(),
            merges: false,
            retains: false,
            merge_key: None,
            atomic: false,
            custom: false,
            nullable: false,
            rules: None,
        }
    }

    /// The structured type held here, if any.
    pub fn object(&self) -> Option<&Type> {
        match self.shape {
            Shape::Object(id) => Some(&schema().types[id]),
            Shape::Struct(ref own) => Some(own),
            _ => None,
        }
    }

    /// The node below a field or map key.
    pub fn child(&self, name: &str) -> Option<&Node> {
        match &self.shape {
            Shape::Object(id) => schema().types[*id].field(name),
            Shape::Struct(own) => own.field(name).or(own.open.then_some(&*ANY)),
            Shape::Map(value) => Some(value),
            Shape::Any => Some(&ANY),
            _ => None,
        }
    }

    /// The node of a list's items.
    pub fn item(&self) -> Option<&Node> {
        match &self.shape {
            Shape::List(item) => Some(item),
            Shape::Any => Some(&ANY),
            _ => None,
        }
    }
}

/// A place without structure.
pub static ANY: LazyLock<Node> = LazyLock::new(|| Node::of(Shape::Any));
