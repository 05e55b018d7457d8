//! Generated columns: a row that is written has in them what is computed of its other columns,
//! whatever stood there before. A statement may write DEFAULT for them, and nothing else.

use super::constants::is_default;
use super::*;
use arrow::array::RecordBatchOptions;
use std::cell::RefCell;
use std::collections::HashMap;
use tidemark_operator::expr::CompiledExpr;
use tidemark_plan::Generated;

/// `generated_always`.
const GENERATED_ALWAYS: SqlState = SqlState("428C9");

/// Expressions that are kept compiled by a thread.
const KEPT_MAX: usize = 64;

thread_local! {
    static COMPILED: RefCell<HashMap<String, CompiledExpr>> = RefCell::default();
}

/// Rows with their generated columns computed.
///
/// Errors: those of the expressions, for the first row that has one.
pub(super) fn compute(relation: &Relation, arrays: &mut [ArrayRef]) -> Result<()> {
    let rows = arrays.first().map_or(0, |a| a.len());
    if relation.generated.is_empty() {
        return Ok(());
    }
    let field = |(c, a): (&tidemark_plan::Column, &ArrayRef)| {
        Field::new(&c.name, a.data_type().clone(), true)
    };
    let fields = relation.columns.iter().zip(arrays.iter()).map(field);
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    let batch = RecordBatch::try_new_with_options(schema, arrays.to_vec(), &options)
        .map_err(crate::error::from_arrow)?;
    for generated in &relation.generated {
        let column = &relation.columns[generated.column];
        let values = compiled(relation, generated, &batch)?.evaluate(&batch)?;
        if let Some(failure) = values.failures.into_iter().next() {
            return Err(Error::user(SqlState(failure.state), failure.message));
        }
        arrays[generated.column] = values::conform(values.array, column)?;
    }
    Ok(())
}

/// The expression, compiled for rows of these types.
fn compiled(
    relation: &Relation,
    generated: &Generated,
    batch: &RecordBatch,
) -> Result<CompiledExpr> {
    let types = batch.schema();
    let types: Vec<String> = types
        .fields()
        .iter()
        .map(|f| f.data_type().to_string())
        .collect();
    let key = format!("{} {:?} {types:?}", relation.id, generated);
    if let Some(known) = COMPILED.with_borrow(|all| all.get(&key).cloned()) {
        return Ok(known);
    }
    let data_type = &relation.columns[generated.column].data_type;
    let new = CompiledExpr::new(&generated.value, &batch.schema(), data_type)?;
    COMPILED.with_borrow_mut(|all| {
        if all.len() >= KEPT_MAX {
            all.clear();
        }
        all.insert(key, new.clone());
    });
    Ok(new)
}

fn detail(name: &str) -> String {
    format!("Column \"{name}\" is a generated column.")
}

/// `428C9` for something else than DEFAULT that an INSERT has for a generated column.
pub(super) fn check_inserted(
    relation: &Relation,
    column: usize,
    value: Option<&Expr>,
) -> Result<()> {
    if relation.generated(column).is_none() || value.is_some_and(is_default) {
        return Ok(());
    }
    let name = &relation.columns[column].name;
    let message = format!("cannot insert a non-DEFAULT value into column \"{name}\"");
    Err(Error::user(GENERATED_ALWAYS, message).with_detail(detail(name)))
}

/// `428C9` for something else than DEFAULT that an UPDATE has for a generated column.
pub(super) fn check_updated(relation: &Relation, column: usize, value: &Expr) -> Result<()> {
    if relation.generated(column).is_none() || is_default(value) {
        return Ok(());
    }
    let name = &relation.columns[column].name;
    let message = format!("column \"{name}\" can only be updated to DEFAULT");
    Err(Error::user(GENERATED_ALWAYS, message).with_detail(detail(name)))
}

/// The columns of a COPY: those that are named, or all that are not generated.
///
/// Errors: `42703`, and `42P10` for a generated column.
pub(super) fn copied(relation: &Relation, named: &[Ident]) -> Result<Vec<usize>> {
    if named.is_empty() {
        let all = relation.visible_positions().into_iter();
        return Ok(all.filter(|c| relation.generated(*c).is_none()).collect());
    }
    let one = |ident: &Ident| {
        let at = position_of(relation, &fold(ident))?;
        if relation.generated(at).is_some() {
            let message = format!("column \"{}\" is a generated column", fold(ident));
            return Err(Error::user(SqlState("42P10"), message)
                .with_detail("Generated columns cannot be used in COPY."));
        }
        Ok(at)
    };
    named.iter().map(one).collect()
}
