//! Rows and ranges compared, in terms of their parts:
//!
//! ```text
//! (a, b) = (c, d)             a = c AND b = d
//! (a, b) <> (c, d)            a <> c OR b <> d
//! (a, b) < (c, d)             a < c OR a = c AND b < d
//! (a, b) IS NULL              a IS NULL AND b IS NULL
//! (a, b) IN ((1, 2), (3, 4))  (a, b) = (1, 2) OR (a, b) = (3, 4)
//! (a, b) IN (SELECT ...)      EXISTS (SELECT 1 FROM (SELECT ...) r(x, y) WHERE (x, y) = (a, b))
//! x IN (1, (SELECT y ...))    x = 1 OR x = (SELECT y ...)
//! (a, b) OVERLAPS (c, d)      overlaps(a, b, c, d)
//! ```
//!
//! The logic of three values comes out of that of AND and OR: from the left, the first parts that
//! are unequal or NULL decide. `IN (SELECT ...)` is EXISTS where NULL counts as false, that is in
//! WHERE under nothing but AND; elsewhere, rows whose comparison is NULL are looked for as well.

use crate::parse::parse_query;
use datafusion_sql::sqlparser::ast::{
    self, BinaryOperator, Expr, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, Query,
    Select, SetExpr, TableAlias, TableAliasColumnDef, TableFactor, TableWithJoins, UnaryOperator,
};
use tidemark_common::{Error, Result, SqlState};

/// The rows of a subquery that a row is looked for in.
const ROWS: &str = "__rows";

/// The parts of a row that is written out.
fn parts(expr: &Expr) -> Option<Vec<&Expr>> {
    match expr {
        Expr::Tuple(parts) => Some(parts.iter().collect()),
        Expr::Function(function) if function.name.to_string().eq_ignore_ascii_case("row") => {
            let FunctionArguments::List(list) = &function.args else {
                return None;
            };
            let parts = list.args.iter().map(|arg| match arg {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(part)) => Some(part),
                _ => None,
            });
            parts.collect()
        }
        Expr::Nested(inner) => parts(inner),
        _ => None,
    }
}

/// Conditions of WHERE, under nothing but AND: whether a row is among those of a subquery.
pub(super) fn conditions(condition: &mut Expr) -> Result<()> {
    match condition {
        Expr::Nested(inner) => conditions(inner),
        Expr::BinaryOp {
            left,
            op: BinaryOperator::And,
            right,
        } => {
            conditions(left)?;
            conditions(right)
        }
        Expr::InSubquery {
            expr,
            subquery,
            negated,
        } => {
            let Some(row) = parts(expr) else {
                return Ok(());
            };
            let mut matches = equals_rows(&row, subquery)?;
            if *negated {
                matches = Expr::IsNotFalse(Box::new(nested(matches)));
            }
            *condition = among(subquery, row.len(), matches, *negated)?;
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Rewrites an expression; what it consists of is rewritten.
pub(super) fn rewrite(expr: &mut Expr) -> Result<()> {
    let rewritten = match expr {
        Expr::BinaryOp { left, op, right } => match (parts(left), parts(right)) {
            (Some(l), Some(r)) if *op == BinaryOperator::Overlaps => Some(overlaps(&l, &r)?),
            (Some(l), Some(r)) => compare(&l, op, &r)?,
            (Some(l), None) if l.len() > 1 && is_subquery(right) => return Err(of_subquery()),
            (None, Some(r)) if r.len() > 1 && is_subquery(left) => return Err(of_subquery()),
            _ => None,
        },
        Expr::IsDistinctFrom(left, right) => pairwise(left, right, BinaryOperator::Or, |l, r| {
            Expr::IsDistinctFrom(Box::new(l), Box::new(r))
        })?,
        Expr::IsNotDistinctFrom(left, right) => {
            pairwise(left, right, BinaryOperator::And, |l, r| {
                Expr::IsNotDistinctFrom(Box::new(l), Box::new(r))
            })?
        }
        Expr::IsNull(row) => parts(row).map(|parts| {
            every(
                parts
                    .into_iter()
                    .map(|p| Expr::IsNull(Box::new(nested(p.clone())))),
            )
        }),
        Expr::IsNotNull(row) => parts(row).map(|parts| {
            every(
                parts
                    .into_iter()
                    .map(|p| Expr::IsNotNull(Box::new(nested(p.clone())))),
            )
        }),
        Expr::Between {
            expr,
            negated,
            low,
            high,
        } => match (parts(expr), parts(low), parts(high)) {
            (Some(row), Some(low), Some(high)) => {
                let from = compare(&row, &BinaryOperator::GtEq, &low)?;
                let to = compare(&row, &BinaryOperator::LtEq, &high)?;
                let within = every(from.into_iter().chain(to));
                Some(if *negated { not(within) } else { within })
            }
            _ => None,
        },
        Expr::InList {
            expr,
            list,
            negated,
        } => in_list(expr, list, *negated)?,
        Expr::InSubquery {
            expr,
            subquery,
            negated,
        } => match parts(expr) {
            Some(row) => {
                let within = among_exactly(&row, subquery)?;
                Some(if *negated { not(within) } else { within })
            }
            None => None,
        },
        _ => None,
    };
    if let Some(rewritten) = rewritten {
        *expr = nested(rewritten);
    }
    Ok(())
}

fn is_subquery(expr: &Expr) -> bool {
    match expr {
        Expr::Nested(inner) => is_subquery(inner),
        other => matches!(other, Expr::Subquery(_)),
    }
}

fn of_subquery() -> Error {
    Error::unsupported("a row compared with the row of a subquery is not supported")
        .with_hint("Use IN (SELECT ..), or compare each value with a subquery of its own.")
}

/// A comparison of rows; `None` if the operator is none.
fn compare(left: &[&Expr], op: &BinaryOperator, right: &[&Expr]) -> Result<Option<Expr>> {
    use BinaryOperator as Op;
    let strict = match op {
        Op::Eq | Op::NotEq => op.clone(),
        Op::Lt | Op::LtEq => Op::Lt,
        Op::Gt | Op::GtEq => Op::Gt,
        _ => return Ok(None),
    };
    same_width(left.len(), right.len())?;
    let pair = |i: usize, op: &Op| binary(nested(left[i].clone()), op, nested(right[i].clone()));
    let pairs = 0..left.len();
    Ok(match op {
        Op::Eq => Some(every(pairs.map(|i| pair(i, op)))),
        Op::NotEq => Some(chain(pairs.map(|i| pair(i, op)).collect(), &Op::Or)),
        _ => pairs.rev().fold(None, |rest, i| {
            Some(match rest {
                None => pair(i, op),
                Some(rest) => binary(
                    pair(i, &strict),
                    &Op::Or,
                    nested(binary(pair(i, &Op::Eq), &Op::And, nested(rest))),
                ),
            })
        }),
    })
}

/// `(a, b) OVERLAPS (c, d)` is a call.
fn overlaps(left: &[&Expr], right: &[&Expr]) -> Result<Expr> {
    for (side, parts) in [("left", left), ("right", right)] {
        if parts.len() != 2 {
            return Err(Error::user(
                SqlState::SYNTAX_ERROR,
                format!("wrong number of parameters on {side} side of OVERLAPS expression"),
            ));
        }
    }
    let ends = left.iter().chain(right).map(|e| (*e).clone());
    let arguments: Vec<FunctionArg> = ends
        .map(|e| FunctionArg::Unnamed(FunctionArgExpr::Expr(e)))
        .collect();
    Ok(Expr::Function(super::moments::function(
        "overlaps", &arguments,
    )))
}

fn same_width(left: usize, right: usize) -> Result<()> {
    if left == right {
        return Ok(());
    }
    Err(Error::user(
        SqlState::SYNTAX_ERROR,
        "unequal number of entries in row expressions",
    ))
}

fn pairwise(
    left: &Expr,
    right: &Expr,
    with: BinaryOperator,
    of: impl Fn(Expr, Expr) -> Expr,
) -> Result<Option<Expr>> {
    let (Some(left), Some(right)) = (parts(left), parts(right)) else {
        return Ok(None);
    };
    same_width(left.len(), right.len())?;
    let pairs = left.into_iter().zip(right);
    let pairs = pairs.map(|(l, r)| {
        let mut pair = of(nested(l.clone()), nested(r.clone()));
        super::expand::distinct(&mut pair);
        nested(pair)
    });
    Ok(Some(chain(pairs.collect(), &with)))
}

/// A list with rows or subqueries in it.
fn in_list(expr: &Expr, list: &[Expr], negated: bool) -> Result<Option<Expr>> {
    let is_query = |e: &Expr| matches!(e, Expr::Subquery(_));
    let row = parts(expr);
    if row.is_none() && !list.iter().any(is_query) {
        return Ok(None);
    }
    let equal = |item: &Expr| match (&row, parts(item)) {
        (Some(row), Some(item)) => compare(row, &BinaryOperator::Eq, &item),
        _ => Ok(Some(binary(
            nested(expr.clone()),
            &BinaryOperator::Eq,
            nested(item.clone()),
        ))),
    };
    let equals = list
        .iter()
        .filter_map(|item| equal(item).transpose())
        .map(|e| e.map(nested))
        .collect::<Result<Vec<_>>>()?;
    let any = chain(equals, &BinaryOperator::Or);
    Ok(Some(if negated { not(any) } else { any }))
}

/// `(x, y) = (a, b)` of the rows of a subquery and a row.
fn equals_rows(row: &[&Expr], subquery: &Query) -> Result<Expr> {
    if let Some(items) = super::names::select_list(&subquery.body)
        && !items.iter().any(|i| {
            matches!(
                i,
                ast::SelectItem::Wildcard(_) | ast::SelectItem::QualifiedWildcard(..)
            )
        })
        && items.len() != row.len()
    {
        let few = if items.len() < row.len() {
            "few"
        } else {
            "many"
        };
        return Err(Error::user(
            SqlState::SYNTAX_ERROR,
            format!("subquery has too {few} columns"),
        ));
    }
    let pairs = row.iter().enumerate().map(|(i, part)| {
        let column = Expr::CompoundIdentifier(vec![Ident::new(ROWS), column(i)]);
        binary(column, &BinaryOperator::Eq, nested((*part).clone()))
    });
    Ok(every(pairs))
}

fn column(i: usize) -> Ident {
    Ident::new(format!("__{}", i + 1))
}

/// EXISTS over the rows of a subquery for which a condition holds.
fn among(subquery: &Query, width: usize, condition: Expr, negated: bool) -> Result<Expr> {
    let mut exists = parse_query("SELECT 1")?;
    if let SetExpr::Select(select) = exists.body.as_mut() {
        let select: &mut Select = select;
        select.selection = Some(condition);
        select.from = vec![TableWithJoins {
            relation: TableFactor::Derived {
                lateral: false,
                subquery: Box::new(subquery.clone()),
                alias: Some(TableAlias {
                    explicit: true,
                    name: Ident::new(ROWS),
                    columns: (0..width)
                        .map(|i| TableAliasColumnDef {
                            name: column(i),
                            data_type: None,
                        })
                        .collect(),
                    at: None,
                }),
                sample: None,
            },
            joins: Vec::new(),
        }];
    }
    Ok(Expr::Exists {
        subquery: exists,
        negated,
    })
}

/// Whether a row is among those of a subquery, with NULL where that is not known.
fn among_exactly(row: &[&Expr], subquery: &Query) -> Result<Expr> {
    let equal = equals_rows(row, subquery)?;
    let unknown = Expr::IsNull(Box::new(nested(equal.clone())));
    let when = |condition: Expr, result: ast::Value| {
        Ok::<_, Error>(ast::CaseWhen {
            condition: among(subquery, row.len(), condition, false)?,
            result: Expr::Value(result.into()),
        })
    };
    Ok(Expr::Case {
        case_token: ast::helpers::attached_token::AttachedToken::empty(),
        end_token: ast::helpers::attached_token::AttachedToken::empty(),
        operand: None,
        conditions: vec![
            when(equal, ast::Value::Boolean(true))?,
            when(unknown, ast::Value::Null)?,
        ],
        else_result: Some(Box::new(Expr::Value(ast::Value::Boolean(false).into()))),
    })
}

fn nested(expr: Expr) -> Expr {
    match expr {
        Expr::Nested(_)
        | Expr::Value(_)
        | Expr::Identifier(_)
        | Expr::CompoundIdentifier(_)
        | Expr::Subquery(_) => expr,
        other => Expr::Nested(Box::new(other)),
    }
}

fn not(expr: Expr) -> Expr {
    Expr::UnaryOp {
        op: UnaryOperator::Not,
        expr: Box::new(nested(expr)),
    }
}

fn binary(left: Expr, op: &BinaryOperator, right: Expr) -> Expr {
    Expr::BinaryOp {
        left: Box::new(left),
        op: op.clone(),
        right: Box::new(right),
    }
}

/// All of them hold.
fn every(conditions: impl Iterator<Item = Expr>) -> Expr {
    chain(conditions.collect(), &BinaryOperator::And)
}

/// A balanced chain; of nothing, what changes nothing.
fn chain(mut exprs: Vec<Expr>, op: &BinaryOperator) -> Expr {
    match exprs.len() {
        0 => Expr::Value(ast::Value::Boolean(*op == BinaryOperator::And).into()),
        1 => exprs.remove(0),
        n => {
            let right = exprs.split_off(n / 2);
            binary(nested(chain(exprs, op)), op, nested(chain(right, op)))
        }
    }
}
