//! Rows of `INSERT .. VALUES` that are written alike.
//!
//! PostgreSQL assigns each value to its column by itself. A list of VALUES that is planned as one
//! has one type in each column instead, and what is assigned has gone through it: a timestamp
//! beside a date loses its time, a text beside a number fails. So only rows whose cells are of the
//! same form, constants aside, are planned together. A row with a subquery is a SELECT of its own:
//! DataFusion's VALUES have none.

use super::*;
use ast::{ValueWithSpan, VisitMut, VisitorMut};
use std::collections::{BTreeSet, HashMap};
use std::ops::ControlFlow;

/// Rows of one form.
pub(super) struct Alike {
    /// The INSERT of these rows alone.
    pub insert: ast::Insert,
    /// Their places among all rows.
    pub places: Vec<usize>,
}

/// The form of each cell in a row; `None` where it is a NULL, which takes any.
type Form = Vec<Option<String>>;

/// The insert as one for each form of rows, and the rows' places in what it was.
pub(super) fn alike(insert: &ast::Insert, functions: &BTreeSet<String>) -> Vec<Alike> {
    let rows = values_of(insert).unwrap_or_default();
    let subqueries = |row: &ast::Parens<Vec<Expr>>| {
        let mut cells = row.content.iter();
        cells.any(|cell| has_subquery(cell, functions))
    };
    if rows.len() < 2 && !rows.iter().any(subqueries) {
        return vec![Alike {
            insert: insert.clone(),
            places: (0..rows.len()).collect(),
        }];
    }
    let mut forms: Vec<(Form, Vec<usize>)> = Vec::new();
    // The forms that were met as they are written, without what a NULL leaves open.
    let mut known: HashMap<Form, usize> = HashMap::new();
    for (place, row) in rows.iter().enumerate() {
        let mut form: Form = row.content.iter().map(form).collect();
        if subqueries(row) {
            form.push(Some(format!("row {place}")));
        }
        let at = known.get(&form).copied().or_else(|| {
            let at = forms.iter().position(|(other, _)| agree(other, &form))?;
            for (open, new) in forms[at].0.iter_mut().zip(&form) {
                *open = open.take().or_else(|| new.clone());
            }
            Some(at)
        });
        let at = at.unwrap_or_else(|| {
            forms.push((form.clone(), Vec::new()));
            forms.len() - 1
        });
        forms[at].1.push(place);
        known.entry(form).or_insert(at);
    }
    let empty = with_rows(insert, Vec::new(), functions);
    let one_form = |(_, places): (Form, Vec<usize>)| Alike {
        insert: with_rows(
            &empty,
            places.iter().map(|at| row(&rows[*at])).collect(),
            functions,
        ),
        places,
    };
    forms.into_iter().map(one_form).collect()
}

/// A row whose numbers, in what is computed, are numerics of any scale.
fn row(row: &ast::Parens<Vec<Expr>>) -> ast::Parens<Vec<Expr>> {
    let mut row = row.clone();
    for cell in row.content.iter_mut().filter(|c| constant(c).is_none()) {
        let _ = cell.visit(&mut Numerics);
    }
    row
}

fn agree(a: &Form, b: &Form) -> bool {
    let same = |(a, b): (&Option<String>, &Option<String>)| a.is_none() || b.is_none() || a == b;
    a.len() == b.len() && a.iter().zip(b).all(same)
}

/// Whether there is a subquery in a cell, or a call of a function that a statement made, which may
/// be one.
fn has_subquery(cell: &Expr, functions: &BTreeSet<String>) -> bool {
    struct Find<'a>(&'a BTreeSet<String>);
    impl ast::Visitor for Find<'_> {
        type Break = ();
        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            match expr {
                Expr::Function(call)
                    if last_name(&call.name).is_ok_and(|name| self.0.contains(&name)) =>
                {
                    ControlFlow::Break(())
                }
                _ => ControlFlow::Continue(()),
            }
        }
        fn pre_visit_query(&mut self, _: &ast::Query) -> ControlFlow<()> {
            ControlFlow::Break(())
        }
    }
    ast::Visit::visit(cell, &mut Find(functions)).is_break()
}

fn with_rows(
    insert: &ast::Insert,
    mut rows: Vec<ast::Parens<Vec<Expr>>>,
    functions: &BTreeSet<String>,
) -> ast::Insert {
    let mut insert = insert.clone();
    if let Some(source) = &mut insert.source
        && let [row] = rows.as_mut_slice()
        && row.content.iter().any(|cell| has_subquery(cell, functions))
    {
        let items = row.content.drain(..).map(SelectItem::UnnamedExpr).collect();
        if let ast::Statement::Query(query) = query_with(|select| select.projection = items) {
            source.body = query.body;
        }
        return insert;
    }
    if let Some(source) = &mut insert.source
        && let SetExpr::Values(values) = source.body.as_mut()
    {
        values.rows = rows;
    }
    insert
}

fn form(cell: &Expr) -> Option<String> {
    let kind = match constant(cell) {
        Some(Constant::Null) => return None,
        Some(Constant::Text(_)) => "text",
        Some(Constant::Number(n)) if n.contains(['.', 'e', 'E']) => "numeric",
        Some(Constant::Number(_)) => "integer",
        Some(Constant::Bool(_)) => "boolean",
        None => {
            let mut blank = cell.clone();
            let _ = blank.visit(&mut Blank);
            return Some(format!("computed {blank}"));
        }
    };
    Some(kind.into())
}

/// Makes numerics of numbers that are no integers, whose scales would be types of their own.
struct Numerics;

impl VisitorMut for Numerics {
    type Break = ();
    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        let is_numeric = matches!(expr, Expr::Value(v)
            if matches!(&v.value, Value::Number(digits, _) if digits.parse::<i64>().is_err()));
        if is_numeric {
            let number = std::mem::replace(expr, Expr::Value(Value::Null.into()));
            *expr = Expr::Cast {
                kind: ast::CastKind::Cast,
                expr: Box::new(number),
                data_type: ast::DataType::Numeric(ast::ExactNumberInfo::None),
                array: false,
                format: None,
            };
        }
        ControlFlow::Continue(())
    }
}

/// Leaves of constants what their types depend on.
struct Blank;

impl VisitorMut for Blank {
    type Break = ();
    fn pre_visit_value(&mut self, value: &mut ValueWithSpan) -> ControlFlow<()> {
        match &mut value.value {
            Value::SingleQuotedString(text) | Value::EscapedStringLiteral(text) => text.clear(),
            Value::Number(digits, _) => {
                let kind = match digits.parse::<i64>() {
                    Ok(n) if i32::try_from(n).is_ok() => "0",
                    Ok(_) => "9999999999",
                    Err(_) => "0.0",
                };
                *digits = kind.into();
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

/// Rows that stand one form after the other, in the order in which they were written.
pub(super) fn in_order(
    batches: Vec<RecordBatch>,
    parts: &[Vec<usize>],
) -> Result<Vec<RecordBatch>> {
    let Some(first) = batches.first().filter(|_| parts.len() > 1) else {
        return Ok(batches);
    };
    let places: Vec<usize> = parts.concat();
    // Each form knows for itself whether it has NULLs.
    let fields = first
        .schema()
        .fields()
        .iter()
        .map(|f| f.as_ref().clone().with_nullable(true))
        .collect::<Vec<_>>();
    let schema = Arc::new(Schema::new(fields));
    let columns = batches
        .iter()
        .map(|batch| RecordBatch::try_new(schema.clone(), batch.columns().to_vec()));
    let together = columns
        .collect::<Result<Vec<_>, _>>()
        .and_then(|batches| concat_batches(&schema, &batches))
        .map_err(crate::error::from_arrow)?;
    if together.num_rows() != places.len() {
        return Err(Error::internal("VALUES give another number of rows"));
    }
    let mut from = vec![0; places.len()];
    for (row, place) in places.into_iter().enumerate() {
        from[place] = row as u32;
    }
    let from = arrow::array::UInt32Array::from(from);
    arrow::compute::take_record_batch(&together, &from)
        .map(|batch| vec![batch])
        .map_err(crate::error::from_arrow)
}
