//! Lookups by key without a plan: `SELECT columns FROM relation WHERE key = constant`, and IN.
//!
//! Planning costs a hundred times what such a statement does. So what is written in this form is
//! recognised in its tree, and everything else is left to the planner: a statement gets the same
//! rows, names and types by either way, or the same error, which the planner gives. Parameters are
//! read where they stand.

use super::Snapshot;
use super::normalised::{Normalised, normalised};
use super::table_provider::{kept_key, looked_up};
use crate::dml::fold;
use crate::protocol::parameters::placeholder;
use crate::session::settings::Settings;
use crate::session::{Rows, Session, Status, Tag};

use arrow::array::{ArrayRef, Int16Array, Int32Array, Int64Array, StringArray};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::sql::sqlparser::ast::{
    self, BinaryOperator, DataType as SqlType, Expr, GroupByExpr, Ident, ObjectName,
    ObjectNamePart, Query, Select, SelectFlavor, SelectItem, SetExpr, Statement, TableFactor,
    TableWithJoins, UnaryOperator, WildcardAdditionalOptions,
};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use tidemark_common::Result;
use tidemark_plan::{Catalog, Relation, RelationKind};
use tidemark_planner::statement::StatementKind;

/// What a statement of this form looks up.
struct Lookup {
    relation: Arc<Relation>,
    /// The columns of the result, by their places in the relation.
    columns: Vec<usize>,
    /// The same under the names that they have in the result.
    schema: SchemaRef,
    /// Of each column of the key its type and the values that are looked for.
    keys: Vec<(DataType, Vec<Value>)>,
}

/// A constant, or the place of a parameter.
enum Value {
    Constant(Expr),
    Parameter(usize),
}

/// A statement of this form, and what it looks up, found once for a catalog and a session's
/// settings.
pub struct Kept {
    statement: Statement,
    found: Mutex<Option<Found>>,
}

struct Found {
    catalog: Arc<Catalog>,
    settings: Arc<Settings>,
    lookup: Option<Arc<Lookup>>,
}

impl Kept {
    /// A statement to be kept; `None` for one that is not of this form.
    pub fn of(statement: &Statement) -> Option<Kept> {
        Form::of(statement).map(|_| Kept {
            statement: statement.clone(),
            found: Mutex::default(),
        })
    }

    fn lookup(&self, snapshot: &Snapshot) -> Option<Arc<Lookup>> {
        let mut kept = self.found.lock();
        if let Some(found) = kept.as_ref()
            && Arc::ptr_eq(&found.catalog, &snapshot.catalog)
            && Arc::ptr_eq(&found.settings, &snapshot.settings)
        {
            return found.lookup.clone();
        }
        let form = Form::of(&self.statement);
        let lookup = form.and_then(|form| form.lookup(snapshot)).map(Arc::new);
        *kept = Some(Found {
            catalog: snapshot.catalog.clone(),
            settings: snapshot.settings.clone(),
            lookup: lookup.clone(),
        });
        lookup
    }
}

/// Texts that are kept at most.
const TEXTS_MAX: usize = 100;

/// The lookups of a session by their texts without constants; none where a text is none.
#[derive(Default)]
pub struct Lookups(HashMap<String, Option<Arc<Kept>>>);

impl Lookups {
    fn get(&mut self, text: String) -> Option<Arc<Kept>> {
        if let Some(known) = self.0.get(&text) {
            return known.clone();
        }
        let parsed = tidemark_planner::parse(&text).unwrap_or_default();
        let known = match <[_; 1]>::try_from(parsed).map(|[one]| one.kind) {
            Ok(StatementKind::Sql(sql)) => Kept::of(&sql).map(Arc::new),
            _ => None,
        };
        if self.0.len() >= TEXTS_MAX {
            self.0.clear();
        }
        self.0.insert(text, known.clone());
        known
    }
}

impl Session {
    /// Rows of a text that is one lookup; `None` for all others, which are to be parsed.
    pub async fn look_up(&mut self, text: &str) -> Result<Option<Rows>> {
        let Some(Normalised {
            text: key,
            constants,
        }) = normalised(text)
        else {
            return Ok(None);
        };
        let Some(known) = self.lookups.get(key) else {
            return Ok(None);
        };
        self.look_up_kept(&known, text, &constants).await
    }

    /// Rows of a statement of this form; `None` for one that is to be planned.
    pub async fn look_up_kept(
        &mut self,
        kept: &Kept,
        text: &str,
        parameters: &[Expr],
    ) -> Result<Option<Rows>> {
        if self.status() == Status::Failed {
            return Ok(None);
        }
        self.arrive(text);
        let snapshot = self.snapshot().await?;
        let lookup = kept.lookup(&snapshot);
        Ok(lookup.and_then(|lookup| lookup.rows(&snapshot, parameters)))
    }
}

impl Lookup {
    /// The rows; `None` where the planner has something to say.
    fn rows(&self, snapshot: &Snapshot, parameters: &[Expr]) -> Option<Rows> {
        let written = match &snapshot.written {
            Some((_, tables)) => tables.contains(&self.relation.id),
            None => false,
        };
        let there = self.relation.created_at <= Some(snapshot.pin.epoch());
        if written || !there {
            return None;
        }
        let keys = self.keys.iter().map(|(data_type, values)| {
            let values = values.iter().map(|value| match value {
                Value::Constant(constant) => Some(constant),
                Value::Parameter(place) => parameters.get(*place),
            });
            constants(&values.collect::<Option<Vec<_>>>()?, data_type)
        });
        let keys = keys.collect::<Option<Vec<ArrayRef>>>()?;
        let count = keys.first()?.len();
        if keys.iter().any(|k| k.len() != count) {
            return None;
        }
        let found = looked_up(snapshot, &self.relation, &keys, &self.columns, &self.schema);
        let rows = futures::stream::iter([Ok(found.ok()?)]);
        Some(Rows {
            stream: Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), rows)),
            schema: self.schema.clone(),
            tag: Tag::Counted("SELECT"),
        })
    }
}

/// The parts of a statement of this form.
struct Form<'a> {
    items: &'a [SelectItem],
    name: &'a ObjectName,
    /// What columns may be qualified by.
    qualifier: &'a Ident,
    condition: &'a Expr,
}

impl<'a> Form<'a> {
    fn of(statement: &'a Statement) -> Option<Form<'a>> {
        let Statement::Query(query) = statement else {
            return None;
        };
        let Query {
            with: None,
            body,
            order_by: None,
            limit_clause: None,
            fetch: None,
            locks,
            for_clause: None,
            settings: None,
            format_clause: None,
            pipe_operators,
        } = query.as_ref()
        else {
            return None;
        };
        let SetExpr::Select(select) = body.as_ref() else {
            return None;
        };
        let Select {
            select_token: _,
            optimizer_hints: _,
            distinct: None,
            select_modifiers: None,
            top: None,
            top_before_distinct: false,
            projection,
            exclude: None,
            into: None,
            from,
            lateral_views,
            prewhere: None,
            selection: Some(condition),
            connect_by,
            group_by: GroupByExpr::Expressions(groups, modifiers),
            cluster_by,
            distribute_by,
            sort_by,
            having: None,
            named_window,
            qualify: None,
            window_before_qualify: false,
            value_table_mode: None,
            flavor: SelectFlavor::Standard,
        } = select.as_ref()
        else {
            return None;
        };
        let empty = locks.is_empty()
            && pipe_operators.is_empty()
            && lateral_views.is_empty()
            && connect_by.is_empty()
            && groups.is_empty()
            && modifiers.is_empty()
            && cluster_by.is_empty()
            && distribute_by.is_empty()
            && sort_by.is_empty()
            && named_window.is_empty();
        let [TableWithJoins { relation, joins }] = from.as_slice() else {
            return None;
        };
        let TableFactor::Table {
            name,
            alias,
            args: None,
            with_hints,
            version: None,
            with_ordinality: false,
            partitions,
            json_path: None,
            sample: None,
            index_hints,
        } = relation
        else {
            return None;
        };
        let plain = joins.is_empty()
            && with_hints.is_empty()
            && partitions.is_empty()
            && index_hints.is_empty();
        let qualifier = match alias {
            Some(alias) if alias.columns.is_empty() => &alias.name,
            Some(_) => return None,
            None => match name.0.last()? {
                ObjectNamePart::Identifier(ident) => ident,
                ObjectNamePart::Function(_) => return None,
            },
        };
        (empty && plain).then_some(Form {
            items: projection,
            name,
            qualifier,
            condition,
        })
    }

    fn lookup(&self, snapshot: &Snapshot) -> Option<Lookup> {
        let relation = self.relation(snapshot)?;
        snapshot.check_read(relation).ok()?;
        let keys = self.keys(relation)?;
        let (columns, names) = self.columns(relation)?;
        let fields = columns.iter().zip(names);
        let fields = fields.map(|(column, name)| relation.columns[*column].sql_field(name));
        Some(Lookup {
            schema: Arc::new(Schema::new(fields.collect::<Vec<_>>())),
            relation: relation.clone(),
            columns,
            keys,
        })
    }

    /// The relation, if its rows are kept.
    fn relation<'s>(&self, snapshot: &'s Snapshot) -> Option<&'s Arc<Relation>> {
        let part = |part: &ObjectNamePart| match part {
            ObjectNamePart::Identifier(ident) => Some(fold(ident)),
            ObjectNamePart::Function(_) => None,
        };
        let names = self.name.0.iter().map(part).collect::<Option<Vec<_>>>()?;
        let relation = match names.as_slice() {
            [name] => snapshot.find(None, name)?,
            [schema, name] => snapshot.find(Some(schema), name)?,
            _ => return None,
        };
        let is_table = matches!(
            relation.kind,
            RelationKind::Table | RelationKind::Source | RelationKind::MaterializedView
        );
        (is_table && relation.is_materialized()).then_some(relation)
    }

    /// The column that a name stands for.
    fn column(&self, expr: &Expr, relation: &Relation) -> Option<usize> {
        let ident = match expr {
            Expr::Identifier(ident) => ident,
            Expr::CompoundIdentifier(parts) => match parts.as_slice() {
                [table, column] if fold(table) == fold(self.qualifier) => column,
                _ => return None,
            },
            _ => return None,
        };
        let name = fold(ident);
        relation.columns.iter().position(|c| c.name == name)
    }

    /// The columns of the result, and their names.
    fn columns(&self, relation: &Relation) -> Option<(Vec<usize>, Vec<String>)> {
        let mut columns = Vec::with_capacity(self.items.len());
        let mut names = Vec::with_capacity(self.items.len());
        for item in self.items {
            match item {
                SelectItem::UnnamedExpr(expr) => {
                    let column = self.column(expr, relation)?;
                    columns.push(column);
                    names.push(relation.columns[column].name.clone());
                }
                SelectItem::ExprWithAlias { expr, alias } => {
                    columns.push(self.column(expr, relation)?);
                    names.push(fold(alias));
                }
                SelectItem::Wildcard(options)
                    if *options == WildcardAdditionalOptions::default() =>
                {
                    columns.extend(0..relation.columns.len());
                    names.extend(relation.columns.iter().map(|c| c.name.clone()));
                }
                _ => return None,
            }
        }
        (!columns.is_empty()).then_some((columns, names))
    }

    /// What the condition looks for in each column of the key.
    fn keys(&self, relation: &Relation) -> Option<Vec<(DataType, Vec<Value>)>> {
        let key = kept_key(relation)?;
        let mut fixed = Vec::new();
        self.fix(self.condition, relation, &mut fixed)?;
        // Several keys of several columns are every combination of them.
        if fixed.len() != key.len() || fixed.len() > 1 && fixed.iter().any(|(_, v)| v.len() != 1) {
            return None;
        }
        let of = |column: &usize| {
            let place = fixed.iter().position(|(c, _)| c == column)?;
            let values = std::mem::take(&mut fixed[place].1);
            Some((relation.columns[*column].data_type.clone(), values))
        };
        key.iter().map(of).collect()
    }

    /// Puts in what `column = constant` and `column IN (constants)` under AND fix.
    fn fix(
        &self,
        condition: &'a Expr,
        relation: &Relation,
        fixed: &mut Vec<(usize, Vec<Value>)>,
    ) -> Option<()> {
        let (column, values) = match condition {
            Expr::Nested(inner) => return self.fix(inner, relation, fixed),
            Expr::BinaryOp { left, op, right } if *op == BinaryOperator::And => {
                self.fix(left, relation, fixed)?;
                return self.fix(right, relation, fixed);
            }
            Expr::BinaryOp { left, op, right } if *op == BinaryOperator::Eq => {
                (self.column(left, relation)?, vec![value(right)?])
            }
            Expr::InList {
                expr,
                list,
                negated: false,
            } => {
                let values = list.iter().map(value);
                (self.column(expr, relation)?, values.collect::<Option<_>>()?)
            }
            _ => return None,
        };
        if fixed.iter().any(|(c, _)| *c == column) {
            return None;
        }
        fixed.push((column, values));
        Some(())
    }
}

/// A constant, or a parameter.
fn value(expr: &Expr) -> Option<Value> {
    Some(match placeholder(expr) {
        Some(number) => Value::Parameter(number.checked_sub(1)?),
        None => Value::Constant(expr.clone()),
    })
}

/// Constants as a column of one type, each of them once; `None` for what the planner is to read.
fn constants(values: &[&Expr], data_type: &DataType) -> Option<ArrayRef> {
    if *data_type == DataType::Utf8 {
        let mut texts = values.iter().map(|v| text(v)).collect::<Option<Vec<_>>>()?;
        texts.sort_unstable();
        texts.dedup();
        return Some(Arc::new(StringArray::from(texts)));
    }
    let numbers = values.iter().map(|v| integer(v));
    let mut numbers = numbers.collect::<Option<Vec<i64>>>()?;
    numbers.sort_unstable();
    numbers.dedup();
    // A number beyond the type is no key.
    Some(match data_type {
        DataType::Int16 => {
            let fit = numbers.into_iter().filter_map(|v| i16::try_from(v).ok());
            Arc::new(Int16Array::from_iter_values(fit))
        }
        DataType::Int32 => {
            let fit = numbers.into_iter().filter_map(|v| i32::try_from(v).ok());
            Arc::new(Int32Array::from_iter_values(fit))
        }
        DataType::Int64 => Arc::new(Int64Array::from(numbers)),
        _ => return None,
    })
}

/// An integer as it is written, or as a parameter is.
fn integer(expr: &Expr) -> Option<i64> {
    match expr {
        Expr::Value(value) => match &value.value {
            ast::Value::Number(digits, false) => digits.parse().ok(),
            _ => None,
        },
        Expr::UnaryOp {
            op: UnaryOperator::Minus,
            expr,
        } => integer(expr)?.checked_neg(),
        Expr::Nested(inner) => integer(inner),
        Expr::Cast {
            expr,
            data_type,
            format: None,
            array: false,
            ..
        } => {
            let value = integer(expr)?;
            let fits = match data_type {
                SqlType::SmallInt(None) => i16::try_from(value).is_ok(),
                SqlType::Int(None) => i32::try_from(value).is_ok(),
                SqlType::BigInt(None) => true,
                _ => false,
            };
            fits.then_some(value)
        }
        _ => None,
    }
}

/// A text as it is written.
fn text(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Value(value) => match &value.value {
            ast::Value::SingleQuotedString(text) => Some(text),
            _ => None,
        },
        Expr::Nested(inner) => text(inner),
        _ => None,
    }
}
