//! The stored form of plans and relations.
//!
//! **Law.** What can be written can be read: the form nests only as deep as its types do (a few
//! levels), never as deep as a statement. A tree is a list of its nodes, children before parents;
//! each node says how many children it takes from those before it, so both ways are loops. Floats
//! are texts: JSON has no NaN, and its numbers lose digits on the way.
//!
//! **Versions.** Every relation is a piece of its own with a head that any build reads (what the
//! relation is, and which [`PLAN_VERSION`] wrote it) and a body that one version reads. A body that
//! cannot be read leaves a relation that says so ([`Unreadable`]), is written back as it was, and
//! spoils nothing else.

use crate::roles::{DefaultGrant, Grants, Role};
use crate::secrets::Secret;
use crate::{
    Altered, Catalog, Column, Conflict, Expr, Generated, JobPlan, Literal, Named, Node, OnError,
    Op, Properties,
};
use crate::{BinaryOp, ConnectorSpec, Relation, RelationKind, Stopped, Watermark};
use arrow_schema::{DataType, SchemaRef};
use serde::de::{DeserializeOwned, Error as _};
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tidemark_common::{Epoch, RelationId};

/// The form of plans that this build writes and reads.
pub const PLAN_VERSION: u32 = 2;

/// Why the body of a stored relation could not be read, and that body.
#[derive(Clone, Debug, PartialEq)]
pub struct Unreadable {
    /// What is wrong with it.
    pub reason: String,
    /// The version that it was written in.
    pub version: u32,
    /// The body as it is stored; it goes back as it came, for a build that reads it.
    pub body: Arc<str>,
}

/// A node of an expression, without its children.
#[derive(Serialize, Deserialize)]
enum ExprStep<'a> {
    Column(usize),
    Literal(Cow<'a, Literal>),
    Binary(BinaryOp),
    Not,
    Negative,
    IsNull,
    IsNotNull,
    IsTrue,
    IsFalse,
    Like {
        negated: bool,
        case_insensitive: bool,
    },
    /// `length` expressions behind the one that is looked for.
    InList {
        negated: bool,
        length: usize,
    },
    /// The operand if there is one, the branches, what is otherwise if there is such.
    Case {
        operand: bool,
        branches: usize,
        otherwise: bool,
    },
    Cast {
        to: Cow<'a, DataType>,
        safe: bool,
    },
    Call {
        function: Cow<'a, str>,
        args: usize,
    },
}

impl<'a> ExprStep<'a> {
    fn of(expr: &'a Expr) -> ExprStep<'a> {
        match expr {
            Expr::Column(i) => ExprStep::Column(*i),
            Expr::Literal(l) => ExprStep::Literal(Cow::Borrowed(l)),
            Expr::Binary { op, .. } => ExprStep::Binary(*op),
            Expr::Not(_) => ExprStep::Not,
            Expr::Negative(_) => ExprStep::Negative,
            Expr::IsNull(_) => ExprStep::IsNull,
            Expr::IsNotNull(_) => ExprStep::IsNotNull,
            Expr::IsTrue(_) => ExprStep::IsTrue,
            Expr::IsFalse(_) => ExprStep::IsFalse,
            Expr::Like {
                negated,
                case_insensitive,
                ..
            } => ExprStep::Like {
                negated: *negated,
                case_insensitive: *case_insensitive,
            },
            Expr::InList { negated, list, .. } => ExprStep::InList {
                negated: *negated,
                length: list.len(),
            },
            Expr::Case {
                operand,
                when_then,
                otherwise,
            } => ExprStep::Case {
                operand: operand.is_some(),
                branches: when_then.len(),
                otherwise: otherwise.is_some(),
            },
            Expr::Cast { to, safe, .. } => ExprStep::Cast {
                to: Cow::Borrowed(to),
                safe: *safe,
            },
            Expr::Call { function, args } => ExprStep::Call {
                function: Cow::Borrowed(function),
                args: args.len(),
            },
        }
    }

    /// How many expressions before it are its children.
    fn children(&self) -> usize {
        match self {
            ExprStep::Column(_) | ExprStep::Literal(_) => 0,
            ExprStep::Binary(_) | ExprStep::Like { .. } => 2,
            ExprStep::Not
            | ExprStep::Negative
            | ExprStep::IsNull
            | ExprStep::IsNotNull
            | ExprStep::IsTrue
            | ExprStep::IsFalse
            | ExprStep::Cast { .. } => 1,
            ExprStep::InList { length, .. } => length.saturating_add(1),
            ExprStep::Case {
                operand,
                branches,
                otherwise,
            } => branches
                .saturating_mul(2)
                .saturating_add(usize::from(*operand) + usize::from(*otherwise)),
            ExprStep::Call { args, .. } => *args,
        }
    }

    /// The expression over its children, in order; `None` when there are not enough.
    fn build(self, mut children: impl Iterator<Item = Expr>) -> Option<Expr> {
        let mut next = || children.next();
        Some(match self {
            ExprStep::Column(i) => Expr::Column(i),
            ExprStep::Literal(l) => Expr::Literal(l.into_owned()),
            ExprStep::Binary(op) => Expr::Binary {
                op,
                left: Box::new(next()?),
                right: Box::new(next()?),
            },
            ExprStep::Not => Expr::Not(Box::new(next()?)),
            ExprStep::Negative => Expr::Negative(Box::new(next()?)),
            ExprStep::IsNull => Expr::IsNull(Box::new(next()?)),
            ExprStep::IsNotNull => Expr::IsNotNull(Box::new(next()?)),
            ExprStep::IsTrue => Expr::IsTrue(Box::new(next()?)),
            ExprStep::IsFalse => Expr::IsFalse(Box::new(next()?)),
            ExprStep::Like {
                negated,
                case_insensitive,
            } => Expr::Like {
                negated,
                case_insensitive,
                expr: Box::new(next()?),
                pattern: Box::new(next()?),
            },
            ExprStep::InList { negated, .. } => Expr::InList {
                negated,
                expr: Box::new(next()?),
                list: children.collect(),
            },
            ExprStep::Case {
                operand,
                branches,
                otherwise,
            } => {
                let operand = if operand {
                    Some(Box::new(next()?))
                } else {
                    None
                };
                let mut when_then = Vec::new();
                for _ in 0..branches {
                    when_then.push((next()?, next()?));
                }
                Expr::Case {
                    operand,
                    when_then,
                    otherwise: if otherwise {
                        Some(Box::new(next()?))
                    } else {
                        None
                    },
                }
            }
            ExprStep::Cast { to, safe } => Expr::Cast {
                expr: Box::new(next()?),
                to: to.into_owned(),
                safe,
            },
            ExprStep::Call { function, .. } => Expr::Call {
                function: function.into_owned(),
                args: children.collect(),
            },
        })
    }
}

/// The nodes of a tree, children before parents and in order.
fn postorder<'a, T>(root: &'a T, children: impl Fn(&'a T, &mut Vec<&'a T>)) -> Vec<&'a T> {
    let (mut open, mut found) = (vec![root], Vec::new());
    while let Some(node) = open.pop() {
        found.push(node);
        children(node, &mut open);
    }
    found.reverse();
    found
}

/// The tree that steps in [`postorder`] describe.
fn rebuild<S, T>(
    steps: Vec<S>,
    children: impl Fn(&S) -> usize,
    build: impl Fn(S, std::vec::Drain<'_, T>) -> Option<T>,
) -> Result<T, &'static str> {
    let mut built: Vec<T> = Vec::new();
    for step in steps {
        let first = built
            .len()
            .checked_sub(children(&step))
            .ok_or("a tree lacks branches")?;
        let node = build(step, built.drain(first..)).ok_or("a tree lacks branches")?;
        built.push(node);
    }
    let root = built.pop().ok_or("a tree is empty")?;
    if built.is_empty() {
        Ok(root)
    } else {
        Err("a tree has branches left over")
    }
}

impl Serialize for Expr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let nodes = postorder(self, |e, open| {
            e.visit_children(&mut |child| open.push(child))
        });
        serializer.collect_seq(nodes.into_iter().map(ExprStep::of))
    }
}

impl<'de> Deserialize<'de> for Expr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Expr, D::Error> {
        let steps = Vec::<ExprStep<'static>>::deserialize(deserializer)?;
        rebuild(steps, ExprStep::children, |step, children| {
            step.build(children)
        })
        .map_err(D::Error::custom)
    }
}

/// A node of a fragment, without its inputs.
#[derive(Serialize, Deserialize)]
struct NodeStep<'a> {
    op: Cow<'a, Op>,
    inputs: usize,
    schema: SchemaRef,
    properties: Cow<'a, Properties>,
}

impl Serialize for Node {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let nodes = postorder(self, |node, open| open.extend(&node.inputs));
        serializer.collect_seq(nodes.into_iter().map(|node| NodeStep {
            op: Cow::Borrowed(&node.op),
            inputs: node.inputs.len(),
            schema: node.schema.clone(),
            properties: Cow::Borrowed(&node.properties),
        }))
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Node, D::Error> {
        let steps = Vec::<NodeStep<'static>>::deserialize(deserializer)?;
        let build = |step: NodeStep<'static>, inputs: std::vec::Drain<'_, Node>| {
            Some(Node {
                op: step.op.into_owned(),
                inputs: inputs.collect(),
                schema: step.schema,
                properties: step.properties.into_owned(),
            })
        };
        rebuild(steps, |step| step.inputs, build).map_err(D::Error::custom)
    }
}

/// Floats as texts.
pub(crate) mod float {
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serializer};
    use std::fmt::Display;
    use std::str::FromStr;

    pub fn serialize<T: Display, S: Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(value)
    }

    pub fn deserialize<'de, T: FromStr, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(from)?;
        text.parse()
            .map_err(|_| D::Error::custom(format_args!("\"{text}\" is not a number")))
    }
}

/// A relation as log and manifests keep it.
#[derive(Serialize, Deserialize)]
struct Stored {
    id: RelationId,
    schema_name: String,
    name: String,
    kind: RelationKind,
    depends_on: Vec<RelationId>,
    /// Zero for none.
    created_at: Epoch,
    /// [`PLAN_VERSION`] of the body.
    version: u32,
    /// JSON in a text, so that damage in it stays in it.
    body: String,
}

/// What the head does not have.
#[derive(Serialize, Deserialize)]
struct Body<'a> {
    columns: Cow<'a, [Column]>,
    key: Cow<'a, [usize]>,
    key_declared: bool,
    append_only: bool,
    watermark: Cow<'a, Option<Watermark>>,
    connector: Cow<'a, Option<ConnectorSpec>>,
    #[serde(default, deserialize_with = "logged_after")]
    logs_rows: Option<Epoch>,
    #[serde(default, skip_serializing_if = "<[_]>::is_empty")]
    generated: Cow<'a, [Generated]>,
    conflict: Conflict,
    on_error: OnError,
    snapshot: bool,
    definition: Cow<'a, str>,
    query: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "are_none")]
    named: Cow<'a, [Named]>,
    owner: Cow<'a, str>,
    comment: Cow<'a, Option<String>>,
    job: Cow<'a, Option<JobPlan>>,
    #[serde(default, skip_serializing_if = "is_nothing")]
    altered: Cow<'a, Altered>,
}

fn are_none(named: &[Named]) -> bool {
    named.is_empty()
}

fn is_nothing(altered: &Altered) -> bool {
    altered.is_nothing()
}

/// Bodies of earlier builds say yes, from the beginning on, or no.
fn logged_after<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Epoch>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Logged {
        Always(bool),
        After(Option<Epoch>),
    }
    Ok(match Logged::deserialize(from)? {
        Logged::Always(logged) => logged.then_some(Epoch(0)),
        Logged::After(epoch) => epoch,
    })
}

impl Stored {
    fn of(relation: &Relation) -> Result<Stored, serde_json::Error> {
        let (version, body) = match &relation.unreadable {
            Some(unreadable) => (unreadable.version, unreadable.body.to_string()),
            None => {
                let body = Body {
                    columns: Cow::Borrowed(&relation.columns),
                    key: Cow::Borrowed(&relation.key),
                    key_declared: relation.key_declared,
                    append_only: relation.append_only,
                    watermark: Cow::Borrowed(&relation.watermark),
                    connector: Cow::Borrowed(&relation.connector),
                    logs_rows: relation.logs_rows,
                    generated: Cow::Borrowed(&relation.generated),
                    conflict: relation.conflict,
                    on_error: relation.on_error,
                    snapshot: relation.snapshot,
                    definition: Cow::Borrowed(&relation.definition),
                    query: Cow::Borrowed(&relation.query),
                    named: Cow::Borrowed(&relation.named),
                    owner: Cow::Borrowed(&relation.owner),
                    comment: Cow::Borrowed(&relation.comment),
                    job: Cow::Borrowed(&relation.job),
                    altered: Cow::Borrowed(&relation.altered),
                };
                (PLAN_VERSION, serde_json::to_string(&body)?)
            }
        };
        Ok(Stored {
            id: relation.id,
            schema_name: relation.schema_name.clone(),
            name: relation.name.clone(),
            kind: relation.kind,
            depends_on: relation.depends_on.clone(),
            created_at: relation.created_at.unwrap_or_default(),
            version,
            body,
        })
    }

    fn into_relation(self) -> Relation {
        match self.read() {
            Ok(body) => self.with(body),
            Err(reason) => self.set_aside(reason),
        }
    }

    fn read(&self) -> Result<Body<'static>, String> {
        if self.version != PLAN_VERSION {
            return Err(format!(
                "it was written in version {} of plans, this build reads version {PLAN_VERSION}",
                self.version
            ));
        }
        serde_json::from_str(&self.body).map_err(|e| e.to_string())
    }

    fn with(self, body: Body<'static>) -> Relation {
        Relation {
            id: self.id,
            schema_name: self.schema_name,
            name: self.name,
            kind: self.kind,
            columns: body.columns.into_owned(),
            key: body.key.into_owned(),
            key_declared: body.key_declared,
            append_only: body.append_only,
            watermark: body.watermark.into_owned(),
            connector: body.connector.into_owned(),
            logs_rows: body.logs_rows,
            generated: body.generated.into_owned(),
            conflict: body.conflict,
            on_error: body.on_error,
            snapshot: body.snapshot,
            definition: body.definition.into_owned(),
            query: body.query.into_owned(),
            named: body.named.into_owned(),
            depends_on: self.depends_on,
            owner: body.owner.into_owned(),
            comment: body.comment.into_owned(),
            job: body.job.into_owned(),
            altered: body.altered.into_owned(),
            created_at: Some(self.created_at).filter(|e| *e > Epoch(0)),
            unreadable: None,
        }
    }

    /// A relation of which only the head is known, and single fields that can be read all the same.
    fn set_aside(self, reason: String) -> Relation {
        fn field<T: DeserializeOwned + Default>(body: &serde_json::Value, name: &str) -> T {
            let value = body.get(name).cloned().unwrap_or_default();
            serde_json::from_value(value).unwrap_or_default()
        }
        let body: serde_json::Value = serde_json::from_str(&self.body).unwrap_or_default();
        let unreadable = Unreadable {
            reason,
            version: self.version,
            body: self.body.into(),
        };
        Relation {
            id: self.id,
            schema_name: self.schema_name,
            name: self.name,
            kind: self.kind,
            columns: field(&body, "columns"),
            key: Vec::new(),
            key_declared: false,
            append_only: false,
            watermark: None,
            connector: None,
            logs_rows: None,
            generated: Vec::new(),
            conflict: Conflict::Overwrite,
            on_error: OnError::Log,
            snapshot: true,
            definition: field(&body, "definition"),
            query: field(&body, "query"),
            named: field(&body, "named"),
            depends_on: self.depends_on,
            owner: field(&body, "owner"),
            comment: None,
            job: None,
            altered: field(&body, "altered"),
            created_at: Some(self.created_at).filter(|e| *e > Epoch(0)),
            unreadable: Some(unreadable),
        }
    }
}

impl Serialize for Relation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let stored = Stored::of(self)
            .map_err(|e| S::Error::custom(format_args!("relation \"{}\": {e}", self.name)))?;
        stored.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Relation {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Relation, D::Error> {
        Ok(Stored::deserialize(deserializer)?.into_relation())
    }
}

#[derive(Deserialize)]
struct StoredCatalog {
    relations: Vec<Arc<Relation>>,
    schemas: Vec<String>,
    #[serde(default)]
    schema_owners: BTreeMap<String, String>,
    #[serde(default)]
    roles: BTreeMap<String, Role>,
    #[serde(default)]
    last_role_id: u32,
    #[serde(default)]
    grants: Grants,
    #[serde(default)]
    default_grants: BTreeSet<DefaultGrant>,
    #[serde(default)]
    secrets: Vec<Secret>,
    stopped: BTreeMap<RelationId, Stopped>,
    #[serde(default)]
    replacing: BTreeMap<RelationId, RelationId>,
    #[serde(default)]
    beside: BTreeMap<RelationId, RelationId>,
    next_id: u32,
}

impl Serialize for Catalog {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let mut form = serializer.serialize_struct("Catalog", 12)?;
        let relations: Vec<_> = self.relations.values().collect();
        form.serialize_field("relations", &relations)?;
        form.serialize_field("schemas", &self.schemas)?;
        form.serialize_field("schema_owners", &self.schema_owners)?;
        form.serialize_field("roles", &self.roles)?;
        form.serialize_field("last_role_id", &self.last_role_id)?;
        form.serialize_field("grants", &self.grants)?;
        form.serialize_field("default_grants", &self.default_grants)?;
        form.serialize_field("secrets", &self.secrets)?;
        form.serialize_field("stopped", &self.stopped)?;
        form.serialize_field("replacing", &self.replacing)?;
        form.serialize_field("beside", &self.beside)?;
        form.serialize_field("next_id", &self.next_id)?;
        form.end()
    }
}

impl<'de> Deserialize<'de> for Catalog {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Catalog, D::Error> {
        let form = StoredCatalog::deserialize(deserializer)?;
        let mut catalog = Catalog {
            relations: form.relations.into_iter().map(|r| (r.id, r)).collect(),
            schemas: form.schemas,
            schema_owners: form.schema_owners,
            roles: BTreeMap::new(),
            last_role_id: form.last_role_id,
            grants: form.grants,
            default_grants: form.default_grants,
            secrets: form.secrets,
            stopped: form.stopped,
            replacing: form.replacing,
            beside: form.beside,
            next_id: form.next_id,
        };
        // Roles that were stored without a number get one.
        for (name, role) in form.roles {
            match role.id {
                0 => catalog.put_role(role),
                _ => drop(catalog.roles.insert(name, role)),
            }
        }
        Ok(catalog)
    }
}

#[cfg(test)]
mod tests;
