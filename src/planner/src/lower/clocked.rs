//! Conditions that ask for the clock under OR and NOT, with `=`, BETWEEN and IN, in CASE: wherever
//! a row is compared with it.
//!
//! A comparison `moment > bound(now())` is true of a row, and then false, or the other way round,
//! or never known. So a condition of some of them is told apart by what they are: for each
//! comparison the rows for which it holds and the condition does too, those for which it does not,
//! and those without a moment. Each of these pieces is a condition of the row alone and some
//! temporal filters all of which hold; no row is in two of them at one time, and their union is
//! what is asked for. Of the last comparison, rows that are in the answer whatever the clock says
//! are a piece without it, so that they are not kept to wait.

use crate::lower::reached::reached;
use crate::lower::temporal::{goes_on, is_now, misplaced, reads_clock};
use crate::lower::{Builder, Stream, to_expr, union_all};
use datafusion_common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion_common::{DFSchema, DataFusionError, Result as DataFusionResult, ScalarValue};
use datafusion_expr::utils::{
    conjunction, disjunction, split_conjunction, split_conjunction_owned,
};
use datafusion_expr::{Between, BinaryExpr, Expr as Df, Operator, lit, not};
use tidemark_common::{Error, Result};
use tidemark_plan::Op;

/// Pieces that a condition may have.
const PIECES_MAX: usize = 32;

/// Rows for which all of this holds.
#[derive(Clone, Debug, Default)]
struct Piece {
    /// Comparisons with the clock.
    clocked: Vec<Df>,
    /// Conditions of the row alone.
    others: Vec<Df>,
}

/// Whether a condition asks for the clock only where something is compared with it.
///
/// Errors: `0A000` for others.
pub(crate) fn check(condition: &Df) -> Result<()> {
    if reads_clock(condition) {
        pieces(condition)?;
    }
    Ok(())
}

/// A condition in pieces of which a row is in one at most.
fn pieces(condition: &Df) -> Result<Vec<Piece>> {
    let (mut piece, mut apart) = (Piece::default(), Vec::new());
    for part in split_conjunction(condition) {
        if !reads_clock(part) {
            piece.others.push(part.clone());
            continue;
        }
        let compared = compared(part.clone())?;
        for part in split_conjunction_owned(compared) {
            match comparison(&part) {
                _ if !reads_clock(&part) => piece.others.push(part),
                Some(comparison) => piece.clocked.push(comparison),
                None => apart.push(part),
            }
        }
    }
    let mut pieces = Vec::new();
    match conjunction(apart) {
        None => pieces.push(piece),
        Some(condition) => piece.told_apart(condition, &mut pieces)?,
    }
    Ok(pieces)
}

impl Piece {
    fn with(&self, clocked: Option<Df>, others: Option<Df>) -> Piece {
        let mut piece = self.clone();
        piece.clocked.extend(clocked);
        let says = |e: &Df| boolean(e) != Some(Some(true));
        piece.others.extend(others.filter(says));
        piece
    }

    /// Adds the pieces of this one for which a condition holds, too.
    fn told_apart(self, condition: Df, pieces: &mut Vec<Piece>) -> Result<()> {
        let Some(atom) = first_comparison(&condition) else {
            if !is_never(&condition) {
                pieces.push(self.with(None, Some(condition)));
            }
            return Ok(());
        };
        if pieces.len() >= PIECES_MAX {
            return Err(
                Error::unsupported("a condition compares with now() too often").with_hint(
                    "Split the query into several with UNION ALL, or compare with now() at the \
                     top level of WHERE.",
                ),
            );
        }
        let Some(moment) = moment_of(&atom) else {
            return Err(Error::internal("a comparison that is none"));
        };
        let with = |value: Option<bool>| assumed(&condition, &atom, value);
        let (on, off, unknown) = (with(Some(true))?, with(Some(false))?, with(None)?);
        // Of a moment that was compared already it is known that it is there.
        let is_known = self.clocked.iter().any(|c| moment_of(c) == Some(moment));
        let (is_there, is_not) = match is_known {
            true => (lit(true), lit(false)),
            false => (moment.clone().is_not_null(), moment.clone().is_null()),
        };
        if [&on, &off].iter().all(|c| first_comparison(c).is_none()) {
            let always = [
                and(is_there, and(is_true(&on), is_true(&off))),
                and(is_not, is_true(&unknown)),
            ];
            let always = always.into_iter().filter(|c| !is_never(c));
            pieces.extend(disjunction(always).map(|always| self.with(None, Some(always))));
            let (gone, come) = (and(is_true(&on), is_not_true(&off)), is_not_true(&on));
            let come = and(is_true(&off), come);
            for (clocked, others) in [(atom.clone(), gone), (opposite(&atom), come)] {
                if !is_never(&others) {
                    pieces.push(self.with(Some(clocked), Some(others)));
                }
            }
            return Ok(());
        }
        self.with(Some(atom.clone()), None).told_apart(on, pieces)?;
        let opposite = opposite(&atom);
        self.with(Some(opposite), None).told_apart(off, pieces)?;
        match is_known {
            true => Ok(()),
            false => self.with(None, Some(is_not)).told_apart(unknown, pieces),
        }
    }
}

/// A condition in which all that is compared with the clock is `moment > bound` or `moment >=
/// bound`.
///
/// Errors: `0A000` where the clock is read otherwise.
fn compared(condition: Df) -> Result<Df> {
    let external = |e: Error| DataFusionError::External(Box::new(e));
    let rewrite = |e: Df| -> DataFusionResult<Transformed<Df>> {
        if !reads_clock(&e) {
            return Ok(Transformed::no(e));
        }
        Ok(Transformed::yes(match e {
            Df::BinaryExpr(b) if is_comparing(b.op) => {
                binary(*b.left, b.op, *b.right).map_err(external)?
            }
            Df::Between(b) => between(b).map_err(external)?,
            Df::InList(list) => {
                let equal = |value| binary(list.expr.as_ref().clone(), Operator::Eq, value);
                let any = list.list.into_iter().map(equal).collect::<Result<Vec<_>>>();
                let any = disjunction(any.map_err(external)?).unwrap_or_else(|| lit(false));
                negated(any, list.negated)
            }
            other => return Ok(Transformed::no(other)),
        }))
    };
    let compared = condition.transform_up(rewrite);
    let compared = compared.map_err(crate::error::from_planning)?.data;
    let mut rest = Ok(());
    let _ = compared.apply(|e| {
        if is_comparison(e) {
            return Ok(TreeNodeRecursion::Jump);
        }
        if is_now(e) {
            rest = Err(misplaced());
        }
        Ok(TreeNodeRecursion::Continue)
    });
    rest.map(|()| compared)
}

fn is_comparing(op: Operator) -> bool {
    use Operator::{Eq, Gt, GtEq, Lt, LtEq, NotEq};
    matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq)
}

fn between(between: Between) -> Result<Df> {
    let Between {
        expr,
        negated: is_negated,
        low,
        high,
    } = between;
    let low = binary(expr.as_ref().clone(), Operator::GtEq, *low)?;
    let high = binary(*expr, Operator::LtEq, *high)?;
    Ok(negated(low.and(high), is_negated))
}

fn negated(condition: Df, negated: bool) -> Df {
    if negated { not(condition) } else { condition }
}

/// A comparison of two values of which one or none is the clock's.
fn binary(left: Df, op: Operator, right: Df) -> Result<Df> {
    let compared = |left: Df, op, right: Df| {
        Df::BinaryExpr(BinaryExpr {
            left: Box::new(left),
            op,
            right: Box::new(right),
        })
    };
    let (moment, op, bound) = match (reads_clock(&left), reads_clock(&right)) {
        (false, true) => (left, op, right),
        (true, false) => (right, op.swap().ok_or_else(misplaced)?, left),
        (false, false) => return Ok(compared(left, op, right)),
        (true, true) => return Err(misplaced()),
    };
    let [after, since] = match goes_on(&bound) {
        true => {
            [Operator::Gt, Operator::GtEq].map(|op| compared(moment.clone(), op, bound.clone()))
        }
        false => reached(&moment, &bound).ok_or_else(misplaced)?,
    };
    Ok(match op {
        Operator::Gt => after,
        Operator::GtEq => since,
        Operator::Lt => not(since),
        Operator::LtEq => not(after),
        Operator::Eq => since.and(not(after)),
        Operator::NotEq => not(since.and(not(after))),
        _ => return Err(misplaced()),
    })
}

/// Whether an expression is a comparison as [`binary`] makes them.
fn is_comparison(expr: &Df) -> bool {
    matches!(
        expr,
        Df::BinaryExpr(b) if matches!(b.op, Operator::Gt | Operator::GtEq)
            && !reads_clock(&b.left)
            && goes_on(&b.right)
    )
}

/// A comparison, or the opposite of one, as a comparison.
fn comparison(expr: &Df) -> Option<Df> {
    match expr {
        Df::Not(inner) if is_comparison(inner) => Some(opposite(inner)),
        other => is_comparison(other).then(|| other.clone()),
    }
}

/// What holds of a row with a moment when this does not.
fn opposite(comparison: &Df) -> Df {
    match comparison {
        Df::BinaryExpr(b) => Df::BinaryExpr(BinaryExpr {
            left: b.left.clone(),
            op: b.op.negate().unwrap_or(b.op),
            right: b.right.clone(),
        }),
        other => not(other.clone()),
    }
}

fn moment_of(comparison: &Df) -> Option<&Df> {
    match comparison {
        Df::BinaryExpr(b) => Some(&b.left),
        _ => None,
    }
}

/// What one comparison, of which this is known, says of another one; nothing, if the answer is
/// none.
fn told(known: &BinaryExpr, value: Option<bool>, other: &Df) -> Option<Option<bool>> {
    let Df::BinaryExpr(other) = other else {
        return None;
    };
    if known.left != other.left {
        return None;
    }
    let Some(holds) = value else {
        // Without a moment nothing is known of it.
        return Some(None);
    };
    let follows = match (known.op, other.op) {
        (known, other) if known == other => true,
        (Operator::Gt, Operator::GtEq) => holds,
        (Operator::GtEq, Operator::Gt) => !holds,
        _ => false,
    };
    (known.right == other.right && follows).then_some(value)
}

fn first_comparison(condition: &Df) -> Option<Df> {
    let mut found = None;
    // It cannot fail: nothing in it does.
    let _ = condition.apply(|e| {
        if is_comparison(e) {
            found = Some(e.clone());
            return Ok(TreeNodeRecursion::Stop);
        }
        Ok(TreeNodeRecursion::Continue)
    });
    found
}

fn boolean(expr: &Df) -> Option<Option<bool>> {
    match expr {
        Df::Literal(ScalarValue::Boolean(value), _) => Some(*value),
        Df::Literal(ScalarValue::Null, _) => Some(None),
        _ => None,
    }
}

/// Whether a condition holds for no row.
fn is_never(condition: &Df) -> bool {
    matches!(boolean(condition), Some(None | Some(false)))
}

/// A condition with a comparison of which this is known.
fn assumed(condition: &Df, comparison: &Df, value: Option<bool>) -> Result<Df> {
    let Df::BinaryExpr(comparison) = comparison else {
        return Err(Error::internal("a comparison that is none"));
    };
    let replaced = condition.clone().transform_down(|e| {
        let told = match is_comparison(&e) {
            true => told(comparison, value, &e),
            false => None,
        };
        Ok(match told {
            Some(told) => {
                let told = Df::Literal(ScalarValue::Boolean(told), None);
                Transformed::new(told, true, TreeNodeRecursion::Jump)
            }
            None => Transformed::no(e),
        })
    });
    let simple = replaced.and_then(|e| e.data.transform_up(|e| Ok(Transformed::yes(simple(e)))));
    Ok(simple.map_err(crate::error::from_planning)?.data)
}

/// An expression without what is known of it.
fn simple(expr: Df) -> Df {
    match expr {
        Df::BinaryExpr(b) if b.op == Operator::And => and(*b.left, *b.right),
        Df::BinaryExpr(b) if b.op == Operator::Or => match (boolean(&b.left), boolean(&b.right)) {
            (Some(Some(true)), _) | (_, Some(Some(true))) => lit(true),
            (Some(Some(false)), _) => *b.right,
            (_, Some(Some(false))) => *b.left,
            (Some(None), Some(None)) => *b.left,
            _ => Df::BinaryExpr(b),
        },
        Df::Not(inner) => match boolean(&inner) {
            Some(value) => Df::Literal(ScalarValue::Boolean(value.map(|v| !v)), None),
            None => Df::Not(inner),
        },
        Df::IsTrue(inner) => is_true(&inner),
        Df::IsNotTrue(inner) => is_not_true(&inner),
        other => other,
    }
}

fn and(left: Df, right: Df) -> Df {
    match (boolean(&left), boolean(&right)) {
        (Some(Some(false)), _) | (_, Some(Some(false))) => lit(false),
        (Some(Some(true)), _) => right,
        (_, Some(Some(true))) => left,
        (Some(None), Some(None)) => left,
        _ => left.and(right),
    }
}

fn is_true(condition: &Df) -> Df {
    match boolean(condition) {
        Some(value) => lit(value == Some(true)),
        None => condition.clone().is_true(),
    }
}

fn is_not_true(condition: &Df) -> Df {
    match boolean(condition) {
        Some(value) => lit(value != Some(true)),
        None => condition.clone().is_not_true(),
    }
}

impl Builder {
    /// The rows of `input` for which a condition holds that asks for the clock. The input is made
    /// for each piece: what several fragments compute alike is computed once.
    pub(super) fn by_clock(
        &mut self,
        condition: &Df,
        schema: &DFSchema,
        input: &mut dyn FnMut(&mut Builder, Option<Df>) -> Result<Stream>,
    ) -> Result<Stream> {
        let mut pieces = pieces(condition)?;
        if let [piece] = pieces.as_mut_slice() {
            let others = conjunction(std::mem::take(&mut piece.others));
            let stream = input(self, others)?;
            return self.temporal_filters(stream, &piece.clocked, schema);
        }
        if pieces.is_empty() {
            return input(self, Some(lit(false)));
        }
        let mut streams = Vec::with_capacity(pieces.len());
        for piece in pieces {
            let stream = input(self, None)?;
            let stream = self.told_of_once(stream);
            let stream = match conjunction(piece.others) {
                Some(others) => stream.filter(to_expr(&others, schema)?),
                None => stream,
            };
            streams.push(self.temporal_filters(stream, &piece.clocked, schema)?);
        }
        let schema = streams[0].node.schema.clone();
        Ok(union_all(streams, schema))
    }

    /// Ends the fragment of a stream that is more than some columns of what it reads, so that those
    /// who read the same have it from one.
    fn told_of_once(&mut self, mut stream: Stream) -> Stream {
        let mut node = &stream.node;
        while let (Op::Project { .. } | Op::Filter { .. }, [below]) =
            (&node.op, node.inputs.as_slice())
        {
            node = below;
        }
        if matches!(node.op, Op::Tap { .. } | Op::Receive { .. }) {
            return stream;
        }
        let keys = stream.partitions.drain(..).next().unwrap_or_default();
        self.exchange(stream, &keys)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_schema::{DataType, TimeUnit};
    use datafusion_expr::{ColumnarValue, Volatility, col, create_udf};
    use std::sync::Arc;

    #[test]
    fn a_row_is_in_one_piece_at_most_and_in_one_if_the_condition_holds() {
        let clock = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let never = Arc::new(|_: &[ColumnarValue]| unreachable!("it is not called"));
        let now = create_udf("now", Vec::new(), clock, Volatility::Stable, never);
        let now = || now.call(Vec::new());
        let late = || col("at").gt(now());
        let condition = late().or(col("b"));
        let texts = |condition: &Df| -> Vec<String> {
            let text = |exprs: &[Df]| {
                let texts = exprs.iter().map(ToString::to_string);
                texts.collect::<Vec<_>>().join(" & ")
            };
            let pieces = pieces(condition).unwrap();
            let piece = |p: &Piece| format!("{} | {}", text(&p.clocked), text(&p.others));
            pieces.iter().map(piece).collect()
        };
        assert_eq!(
            texts(&condition),
            [
                " | at IS NOT NULL AND b IS TRUE OR at IS NULL AND Boolean(NULL) OR b IS TRUE",
                "at > now() | b IS NOT TRUE",
            ]
        );
        assert_eq!(texts(&not(late())), ["at <= now() | "]);
        assert_eq!(
            texts(&col("at").eq(now())),
            ["at >= now() & at <= now() | "]
        );
        assert!(pieces(&now().is_null()).is_err());
        // At one, after it and at the other, before it and at the other.
        let days = |n: i32| now() - lit(n);
        let either = col("at").eq(days(1)).or(col("at").eq(days(2)));
        assert_eq!(pieces(&either).unwrap().len(), 3);
    }
}
