//! Lookups by key without a plan: `SELECT columns FROM relation WHERE key = constant`, IN, and
//! `= ANY (array)`.
//!
//! Planning costs a hundred times what such a statement does. So what is written in this form is
//! recognised in its tree, and everything else is left to the planner: a statement gets the same
//! rows, names and types by either way, or the same error, which the planner gives. Parameters are
//! read where they stand.

use super::table_provider::{kept_key, looked_up, looked_up_among, path};
use crate::identifiers::fold;
use crate::outcome::{Rows, Tag};
use crate::parameters::{Parameter, data_type, placeholder};
use crate::settings::Settings;
use crate::snapshot::Snapshot;
use arrow::array::{ArrayRef, Int16Array, Int32Array, Int64Array, StringArray};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::common::ScalarValue;
use datafusion::sql::sqlparser::ast::{
    self, ArrayElemTypeDef, BinaryOperator, DataType as SqlType, Expr, GroupByExpr, Ident,
    ObjectName, ObjectNamePart, Query, Select, SelectFlavor, SelectItem, SetExpr, Statement,
    TableFactor, TableWithJoins, UnaryOperator, WildcardAdditionalOptions,
};
use parking_lot::Mutex;
use std::borrow::Cow;
use std::sync::Arc;
use tidemark_node::Engine;
use tidemark_node::engine::Answer;
use tidemark_plan::{Catalog, Column, Relation, RelationKind};

/// What a statement of this form looks up.
pub(crate) struct Lookup {
    relation: Arc<Relation>,
    /// The columns of the result, by their places in the relation.
    columns: Vec<usize>,
    /// The same under the names that they have in the result.
    schema: SchemaRef,
    /// The columns that it goes by: all that the condition names.
    by: Vec<usize>,
    /// They are the whole key that rows are kept by.
    is_whole: bool,
    keys: Keys,
}

/// A constant, or a parameter.
pub(crate) enum Value {
    Constant(Expr),
    /// Its place, from 0.
    Parameter(usize),
    /// A parameter that is cast.
    Cast(usize, SqlType),
    /// Each element of an array.
    Elements(Box<Value>),
}

impl Value {
    /// A constant, or a parameter.
    pub fn of(expr: &Expr) -> Option<Value> {
        if let Some(number) = placeholder(expr) {
            return Some(Value::Parameter(number.checked_sub(1)?));
        }
        Some(match expr {
            Expr::Cast {
                expr: inner,
                data_type,
                format: None,
                array: false,
                ..
            } if let Some(number) = placeholder(inner) => {
                Value::Cast(number.checked_sub(1)?, data_type.clone())
            }
            _ => Value::Constant(expr.clone()),
        })
    }

    /// The expression that it is with these parameters.
    pub fn given<'a>(&'a self, parameters: &'a [Parameter]) -> Option<Cow<'a, Expr>> {
        match self {
            Value::Constant(constant) => Some(Cow::Borrowed(constant)),
            Value::Parameter(place) => parameters.get(*place).map(Parameter::written),
            Value::Cast(place, data_type) => {
                let given = parameters.get(*place)?.written().into_owned();
                Some(Cow::Owned(cast(given, data_type.clone())))
            }
            Value::Elements(array) => array.given(parameters),
        }
    }

    /// The integer that it is, as [`integer`] reads an expression.
    fn integer(&self, parameters: &[Parameter]) -> Option<i64> {
        let of_parameter = |place: &usize| match parameters.get(*place)? {
            Parameter::Integer(value, t) => fits(*value, &data_type(t)).then_some(*value),
            Parameter::Written(expr) => integer(expr),
        };
        match self {
            Value::Constant(constant) => integer(constant),
            Value::Parameter(place) => of_parameter(place),
            Value::Cast(place, to) => of_parameter(place).filter(|value| fits(*value, to)),
            Value::Elements(_) => None,
        }
    }

    /// What `= ANY` looks for; `None` for a subquery.
    fn any_of(array: &Expr) -> Option<Vec<Value>> {
        match array {
            Expr::Nested(inner) => Value::any_of(inner),
            Expr::Subquery(_) => None,
            Expr::Array(array) if array.elem.is_empty() => None,
            Expr::Array(array) => array.elem.iter().map(Value::of).collect(),
            Expr::Cast {
                expr,
                data_type: SqlType::Array(ArrayElemTypeDef::SquareBracket(element, None)),
                format: None,
                array: false,
                ..
            } if let Expr::Array(array) = expr.as_ref()
                && !array.elem.is_empty() =>
            {
                let of = |e: &Expr| Value::of(&cast(e.clone(), element.as_ref().clone()));
                array.elem.iter().map(of).collect()
            }
            array => Some(vec![Value::Elements(Box::new(Value::of(array)?))]),
        }
    }
}

fn cast(expr: Expr, data_type: SqlType) -> Expr {
    Expr::Cast {
        kind: ast::CastKind::DoubleColon,
        expr: Box::new(expr),
        data_type,
        array: false,
        format: None,
    }
}

/// Of each column of a relation's key its type and the values that are looked for.
pub(crate) struct Keys(Vec<(DataType, Vec<Value>)>);

impl Keys {
    /// One array for each column of the key; `None` where the planner has something to say.
    pub fn arrays(&self, parameters: &[Parameter]) -> Option<Vec<ArrayRef>> {
        let keys = self.0.iter().map(|(data_type, values)| {
            if let [Value::Elements(array)] = values.as_slice() {
                return elements(array.given(parameters)?.as_ref(), data_type);
            }
            constants(values, parameters, data_type)
        });
        let keys = keys.collect::<Option<Vec<ArrayRef>>>()?;
        let count = keys.first()?.len();
        keys.iter().all(|k| k.len() == count).then_some(keys)
    }
}

/// A statement of this form, and what it looks up, found once for a catalog and a session's
/// settings.
pub struct Kept {
    statement: Statement,
    found: Mutex<Option<Found>>,
}

/// What a statement of this form looks up, by a catalog and settings; none if it is to be planned.
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

    /// What it looks up, if anything, where that was found for the catalog of now and these
    /// settings.
    pub(crate) fn known(
        &self,
        engine: &Engine,
        settings: &Arc<Settings>,
    ) -> Option<Option<Arc<Lookup>>> {
        let found = self.found.lock();
        let found = found.as_ref().filter(|found| {
            engine.is_newest(Arc::as_ptr(&found.catalog)) && found.settings.equals(settings)
        });
        found.map(|found| found.lookup.clone())
    }

    /// The statement, with parameters where its constants were.
    pub(crate) fn statement(&self) -> &Statement {
        &self.statement
    }

    /// Finds it, and keeps it.
    pub(crate) fn find(&self, snapshot: &Snapshot) -> Option<Arc<Lookup>> {
        let form = Form::of(&self.statement);
        let lookup = form.and_then(|form| form.lookup(snapshot)).map(Arc::new);
        *self.found.lock() = Some(Found {
            catalog: snapshot.catalog.clone(),
            settings: snapshot.settings.clone(),
            lookup: lookup.clone(),
        });
        lookup
    }
}

impl Lookup {
    /// The relation that is read.
    pub(crate) fn relation(&self) -> &Relation {
        &self.relation
    }

    /// One array for each column that it goes by; `None` where the planner has something to say.
    pub(crate) fn keys(&self, parameters: &[Parameter]) -> Option<Vec<ArrayRef>> {
        self.keys.arrays(parameters)
    }

    /// The rows with these keys; `None` where there is no answer, and the planner says why.
    pub(crate) async fn rows(&self, answer: &Answer, keys: &[ArrayRef]) -> Option<Rows> {
        if self.relation.created_at > Some(answer.at.epoch) {
            return None;
        }
        let columns = (self.columns.as_slice(), &self.schema);
        let found = match self.is_whole {
            true => looked_up(answer, keys, columns).await,
            false => looked_up_among(answer, (&self.by, keys), columns).await,
        };
        Some(Rows::found(found.ok()?, Tag::Counted("SELECT")))
    }
}

/// The parts of a statement that names rows of one relation by their keys.
pub(crate) struct Form<'a> {
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
        let [table] = from.as_slice() else {
            return None;
        };
        let form = Form::over(table, condition)?;
        empty.then_some(Form {
            items: projection,
            ..form
        })
    }

    /// One table, and a condition on its rows.
    pub fn over(table: &'a TableWithJoins, condition: &'a Expr) -> Option<Form<'a>> {
        let TableWithJoins { relation, joins } = table;
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
        plain.then_some(Form {
            items: &[],
            name,
            qualifier,
            condition,
        })
    }

    /// The name of the table.
    pub fn name(&self) -> &'a ObjectName {
        self.name
    }

    /// What its columns may be qualified by.
    pub fn qualifier(&self) -> String {
        fold(self.qualifier)
    }

    fn lookup(&self, snapshot: &Snapshot) -> Option<Lookup> {
        let relation = self.relation(snapshot)?;
        snapshot.check_read(relation).ok()?;
        // The planner tells how old the answer of a job is that does not run.
        if snapshot.catalog.stopped.contains_key(&relation.id) {
            return None;
        }
        let (by, keys) = self.looked_for(relation, |fixed| {
            path(&snapshot.catalog, relation, |column| fixed(column))
        })?;
        let (columns, names) = self.columns(relation)?;
        let fields = columns.iter().zip(names);
        let fields = fields.map(|(column, name)| relation.columns[*column].sql_field(name));
        Some(Lookup {
            schema: Arc::new(Schema::new(fields.collect::<Vec<_>>())),
            relation: relation.clone(),
            columns,
            is_whole: kept_key(relation).as_ref() == Some(&by),
            by,
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
    pub fn column(&self, expr: &Expr, columns: &[Column]) -> Option<usize> {
        let ident = match expr {
            Expr::Identifier(ident) => ident,
            Expr::CompoundIdentifier(parts) => match parts.as_slice() {
                [table, column] if fold(table) == fold(self.qualifier) => column,
                _ => return None,
            },
            _ => return None,
        };
        let name = fold(ident);
        let found = columns.iter().position(|c| c.name == name);
        found.filter(|_| !tidemark_plan::is_name_of_dropped(&name))
    }

    /// The columns of the result, and their names.
    fn columns(&self, relation: &Relation) -> Option<(Vec<usize>, Vec<String>)> {
        let mut columns = Vec::with_capacity(self.items.len());
        let mut names = Vec::with_capacity(self.items.len());
        for item in self.items {
            match item {
                SelectItem::UnnamedExpr(expr) => {
                    let column = self.column(expr, &relation.columns)?;
                    columns.push(column);
                    names.push(relation.columns[column].name.clone());
                }
                SelectItem::ExprWithAlias { expr, alias } => {
                    columns.push(self.column(expr, &relation.columns)?);
                    names.push(fold(alias));
                }
                SelectItem::Wildcard(options)
                    if *options == WildcardAdditionalOptions::default() =>
                {
                    for (at, column) in relation.visible() {
                        columns.push(at);
                        names.push(column.name.clone());
                    }
                }
                _ => return None,
            }
        }
        (!columns.is_empty()).then_some((columns, names))
    }

    /// What the condition looks for in each column of the key.
    pub fn keys(&self, relation: &Relation) -> Option<Keys> {
        let found = self.looked_for(relation, |_| kept_key(relation));
        found.map(|(_, keys)| keys)
    }

    /// The columns that `path` goes by, given which are fixed, and what the condition looks for in
    /// each of them. The condition names no others.
    fn looked_for(
        &self,
        relation: &Relation,
        path: impl FnOnce(&dyn Fn(usize) -> bool) -> Option<Vec<usize>>,
    ) -> Option<(Vec<usize>, Keys)> {
        let mut fixed = Vec::new();
        self.fix(self.condition, relation, &mut fixed)?;
        let key = path(&|column| fixed.iter().any(|(c, _)| *c == column))?;
        // Several keys of several columns are every combination of them.
        let is_one = |values: &[Value]| !matches!(values, [Value::Elements(_)] | [] | [_, _, ..]);
        if fixed.len() != key.len() || fixed.len() > 1 && !fixed.iter().all(|(_, v)| is_one(v)) {
            return None;
        }
        let of = |column: &usize| {
            let place = fixed.iter().position(|(c, _)| c == column)?;
            let values = std::mem::take(&mut fixed[place].1);
            Some((relation.columns[*column].data_type.clone(), values))
        };
        let keys = key.iter().map(of).collect::<Option<_>>().map(Keys)?;
        Some((key, keys))
    }

    /// Puts in what `column = constant`, `column IN (constants)` and `column = ANY (array)` under
    /// AND fix.
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
            Expr::BinaryOp { left, op, right } if *op == BinaryOperator::Eq => (
                self.column(left, &relation.columns)?,
                vec![Value::of(right)?],
            ),
            Expr::InList {
                expr,
                list,
                negated: false,
            } => {
                let values = list.iter().map(Value::of);
                (
                    self.column(expr, &relation.columns)?,
                    values.collect::<Option<_>>()?,
                )
            }
            Expr::AnyOp {
                left,
                compare_op: BinaryOperator::Eq,
                right,
                ..
            } => (self.column(left, &relation.columns)?, Value::any_of(right)?),
            _ => return None,
        };
        if fixed.iter().any(|(c, _)| *c == column) {
            return None;
        }
        fixed.push((column, values));
        Some(())
    }
}

/// A constant as a value of a type; `None` for what the planner is to read.
pub(crate) fn constant(value: &Expr, data_type: &DataType) -> Option<ScalarValue> {
    let values = constants(&[Value::of(value)?], &[], data_type)?;
    let is_one = values.len() == 1;
    is_one.then(|| ScalarValue::try_from_array(&values, 0).ok())?
}

/// Constants as a column of one type, each of them once; `None` for what the planner is to read.
fn constants(values: &[Value], parameters: &[Parameter], data_type: &DataType) -> Option<ArrayRef> {
    if *data_type == DataType::Utf8 {
        let given = values.iter().map(|value| value.given(parameters));
        let given = given.collect::<Option<Vec<_>>>()?;
        return Some(texts(given.iter().map(|v| text(v)).collect::<Option<_>>()?));
    }
    let numbers = values.iter().map(|value| value.integer(parameters));
    integers(numbers.collect::<Option<_>>()?, data_type)
}

/// Texts as a column, each of them once.
fn texts(mut texts: Vec<&str>) -> ArrayRef {
    texts.sort_unstable();
    texts.dedup();
    Arc::new(StringArray::from(texts))
}

/// Integers as a column of one type, each of them once.
fn integers(mut numbers: Vec<i64>, data_type: &DataType) -> Option<ArrayRef> {
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

/// The elements of an array in its text form, `CAST('{1,2}' AS INT[])`, as a column of one type,
/// each of them once; those that are NULL equal nothing. `None` for what the planner is to read.
fn elements(array: &Expr, data_type: &DataType) -> Option<ArrayRef> {
    let mut types = Vec::new();
    let text = array_text(array, &mut types)?;
    let mut read = Vec::new();
    let put = |element: Option<&str>| read.extend(element.map(str::to_string));
    tidemark_values::array::read(text, put).ok()?;
    if *data_type == DataType::Utf8 {
        let plain = types.iter().all(|t| is_text(t));
        return plain.then(|| texts(read.iter().map(String::as_str).collect()));
    }
    // Without a type of its own, an array has that of the column.
    let own = [match data_type {
        DataType::Int16 => SqlType::SmallInt(None),
        DataType::Int32 => SqlType::Int(None),
        DataType::Int64 => SqlType::BigInt(None),
        _ => return None,
    }];
    let own: Vec<&SqlType> = own.iter().collect();
    let types = if types.is_empty() { own } else { types };
    if !types.iter().all(|t| fits(0, t)) {
        return None;
    }
    let number = |element: &String| {
        let number = element.parse().ok()?;
        types.iter().all(|t| fits(number, t)).then_some(number)
    };
    integers(read.iter().map(number).collect::<Option<_>>()?, data_type)
}

/// The text of an array, and the types of elements that it is cast to.
fn array_text<'a>(array: &'a Expr, types: &mut Vec<&'a SqlType>) -> Option<&'a str> {
    match array {
        Expr::Nested(inner) => array_text(inner, types),
        Expr::Value(value) => match &value.value {
            ast::Value::SingleQuotedString(text) => Some(text),
            _ => None,
        },
        Expr::Cast {
            expr,
            data_type: SqlType::Array(ArrayElemTypeDef::SquareBracket(element, None)),
            format: None,
            array: false,
            ..
        } => {
            types.push(element);
            array_text(expr, types)
        }
        _ => None,
    }
}

/// Whether an integer is one of a type.
fn fits(value: i64, data_type: &SqlType) -> bool {
    match data_type {
        SqlType::SmallInt(None) | SqlType::Int2(None) => i16::try_from(value).is_ok(),
        SqlType::Int(None) | SqlType::Integer(None) | SqlType::Int4(None) => {
            i32::try_from(value).is_ok()
        }
        SqlType::BigInt(None) | SqlType::Int8(None) => true,
        _ => false,
    }
}

/// Whether a text of this type is any text as it is.
fn is_text(data_type: &SqlType) -> bool {
    matches!(data_type, SqlType::Text | SqlType::Varchar(None))
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
            fits(value, data_type).then_some(value)
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
        Expr::Cast {
            expr,
            data_type,
            format: None,
            array: false,
            ..
        } if is_text(data_type) => text(expr),
        _ => None,
    }
}
