//! The condition of a join beyond its equalities, evaluated over gathered pairs. It reads the
//! columns that it mentions and no others.

use crate::expr::{Predicate, RowFailure};
use arrow::array::{BooleanArray, RecordBatch};
use arrow::datatypes::{Schema, SchemaRef};
use std::sync::Arc;
use tidemark_common::Result;
use tidemark_plan::{BinaryOp, Expr};

/// A condition over `left columns ++ right columns`.
pub struct Residual {
    /// The columns that it reads, as positions in left ++ right, ascending.
    pub(super) columns: Vec<usize>,
    /// Those columns.
    pub(super) schema: SchemaRef,
    /// No pair can fail.
    pub(super) infallible: bool,
    predicate: Predicate,
}

impl Residual {
    /// Binds `condition`, whose columns are positions in left ++ right.
    pub fn new(condition: &Expr, left: &SchemaRef, right: &SchemaRef) -> Result<Residual> {
        let mut columns = Vec::new();
        condition.visit_columns(&mut |c| columns.push(c));
        columns.sort_unstable();
        columns.dedup();
        let fields: Vec<_> = left.fields().iter().chain(right.fields()).collect();
        let schema: SchemaRef = Arc::new(Schema::new(
            columns
                .iter()
                .map(|c| fields[*c].as_ref().clone().with_nullable(true))
                .collect::<Vec<_>>(),
        ));
        let local = map_columns(condition, &|c| {
            columns.binary_search(&c).expect("it was visited")
        });
        let predicate = Predicate::new(&local, &schema)?;
        Ok(Residual {
            columns,
            schema,
            infallible: infallible(condition),
            predicate,
        })
    }

    /// Which pairs pass; a pair for which the condition fails does not, and is named beside.
    pub(super) fn evaluate(&self, pairs: &RecordBatch) -> Result<(BooleanArray, Vec<RowFailure>)> {
        self.predicate.evaluate(pairs)
    }
}

/// Whether the expression has a value for every row: columns, constants, comparisons and logic.
fn infallible(expr: &Expr) -> bool {
    use BinaryOp::*;
    match expr {
        Expr::Column(_) | Expr::Literal(_) => true,
        Expr::Binary {
            op: Eq | NotEq | Lt | LtEq | Gt | GtEq | And | Or | IsDistinctFrom | IsNotDistinctFrom,
            left,
            right,
        } => infallible(left) && infallible(right),
        Expr::Not(e)
        | Expr::IsNull(e)
        | Expr::IsNotNull(e)
        | Expr::IsTrue(e)
        | Expr::IsFalse(e) => infallible(e),
        _ => false,
    }
}

/// The expression with its columns renumbered.
fn map_columns(expr: &Expr, to: &dyn Fn(usize) -> usize) -> Expr {
    let one = |e: &Expr| Box::new(map_columns(e, to));
    let all = |list: &[Expr]| list.iter().map(|e| map_columns(e, to)).collect();
    match expr {
        Expr::Column(c) => Expr::Column(to(*c)),
        Expr::Literal(l) => Expr::Literal(l.clone()),
        Expr::Binary { op, left, right } => Expr::Binary {
            op: *op,
            left: one(left),
            right: one(right),
        },
        Expr::Not(e) => Expr::Not(one(e)),
        Expr::Negative(e) => Expr::Negative(one(e)),
        Expr::IsNull(e) => Expr::IsNull(one(e)),
        Expr::IsNotNull(e) => Expr::IsNotNull(one(e)),
        Expr::IsTrue(e) => Expr::IsTrue(one(e)),
        Expr::IsFalse(e) => Expr::IsFalse(one(e)),
        Expr::Like {
            negated,
            case_insensitive,
            expr,
            pattern,
        } => Expr::Like {
            negated: *negated,
            case_insensitive: *case_insensitive,
            expr: one(expr),
            pattern: one(pattern),
        },
        Expr::InList {
            negated,
            expr,
            list,
        } => Expr::InList {
            negated: *negated,
            expr: one(expr),
            list: all(list),
        },
        Expr::Case {
            operand,
            when_then,
            otherwise,
        } => Expr::Case {
            operand: operand.as_deref().map(one),
            when_then: when_then
                .iter()
                .map(|(when, then)| (map_columns(when, to), map_columns(then, to)))
                .collect(),
            otherwise: otherwise.as_deref().map(one),
        },
        Expr::Cast {
            expr,
            to: data_type,
            safe,
        } => Expr::Cast {
            expr: one(expr),
            to: data_type.clone(),
            safe: *safe,
        },
        Expr::Call { function, args } => Expr::Call {
            function: function.clone(),
            args: all(args),
        },
    }
}
