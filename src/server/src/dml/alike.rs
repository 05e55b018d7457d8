//! Rows of `INSERT .. VALUES` that are written alike.
//!
//! PostgreSQL assigns each value to its column by itself. A list of VALUES that is planned as one
//! has one type in each column instead, and what is assigned has gone through it: a timestamp
//! beside a date loses its time, a text beside a number fails. So only rows whose cells are of the
//! same form, constants aside, are planned together.

use super::*;
use ast::{ValueWithSpan, VisitMut, VisitorMut};
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
pub(super) fn alike(insert: &ast::Insert) -> Vec<Alike> {
    let rows = values_of(insert).unwrap_or_default();
    let mut forms: Vec<(Form, Vec<usize>)> = Vec::new();
    for (place, row) in rows.iter().enumerate() {
        let form: Form = row.content.iter().map(form).collect();
        match forms.iter_mut().find(|(known, _)| agree(known, &form)) {
            Some((known, places)) => {
                for (known, new) in known.iter_mut().zip(form) {
                    *known = known.take().or(new);
                }
                places.push(place);
            }
            None => forms.push((form, vec![place])),
        }
    }
    if forms.len() < 2 {
        return vec![Alike {
            insert: insert.clone(),
            places: (0..rows.len()).collect(),
        }];
    }
    let one_form = |(_, places): (Form, Vec<usize>)| Alike {
        insert: with_rows(insert, places.iter().map(|at| rows[*at].clone()).collect()),
        places,
    };
    forms.into_iter().map(one_form).collect()
}

fn agree(a: &Form, b: &Form) -> bool {
    let same = |(a, b): (&Option<String>, &Option<String>)| a.is_none() || b.is_none() || a == b;
    a.len() == b.len() && a.iter().zip(b).all(same)
}

fn with_rows(insert: &ast::Insert, rows: Vec<ast::Parens<Vec<Expr>>>) -> ast::Insert {
    let mut insert = insert.clone();
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

/// Leaves of constants what their types depend on.
struct Blank;

impl VisitorMut for Blank {
    type Break = ();
    fn pre_visit_value(&mut self, value: &mut ValueWithSpan) -> ControlFlow<()> {
        match &mut value.value {
            Value::SingleQuotedString(text) | Value::EscapedStringLiteral(text) => text.clear(),
            Value::Number(digits, _) => {
                *digits = digits
                    .chars()
                    .map(|c| if c.is_ascii_digit() { '0' } else { c })
                    .collect();
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
        .map_err(crate::protocol::error::from_arrow)?;
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
        .map_err(crate::protocol::error::from_arrow)
}
