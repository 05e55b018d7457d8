//! Scalar expressions over the columns of one row. `operator` compiles them to DataFusion's
//! physical expressions, the evaluator that ad-hoc queries use too. Types are explicit: the planner
//! has inserted every coercion as a [`Expr::Cast`].

use arrow_schema::DataType;
use serde::{Deserialize, Serialize};

/// A scalar expression. Stored as `codec` says.
#[derive(Clone, Debug, PartialEq)]
pub enum Expr {
    /// Column of the input row, by position.
    Column(usize),
    /// A constant.
    Literal(Literal),
    /// `left op right`; integer arithmetic is checked.
    Binary {
        op: BinaryOp,
        left: Box<Expr>,
        right: Box<Expr>,
    },
    /// `NOT e`.
    Not(Box<Expr>),
    /// `-e`, checked.
    Negative(Box<Expr>),
    /// `e IS NULL`.
    IsNull(Box<Expr>),
    /// `e IS NOT NULL`.
    IsNotNull(Box<Expr>),
    /// `e IS TRUE`.
    IsTrue(Box<Expr>),
    /// `e IS FALSE`.
    IsFalse(Box<Expr>),
    /// `e [NOT] [I]LIKE pattern`.
    Like {
        negated: bool,
        case_insensitive: bool,
        expr: Box<Expr>,
        pattern: Box<Expr>,
    },
    /// `e [NOT] IN (list)`.
    InList {
        negated: bool,
        expr: Box<Expr>,
        list: Vec<Expr>,
    },
    /// `CASE [operand] WHEN .. THEN .. ELSE .. END`.
    Case {
        operand: Option<Box<Expr>>,
        when_then: Vec<(Expr, Expr)>,
        otherwise: Option<Box<Expr>>,
    },
    /// `CAST(e AS to)`; with `safe`, what cannot be cast becomes NULL (TRY_CAST).
    Cast {
        expr: Box<Expr>,
        to: DataType,
        safe: bool,
    },
    /// A scalar function by its registered name (DataFusion's built-in ones and Tidemark's own,
    /// `tidemark_operator::functions`).
    Call { function: String, args: Vec<Expr> },
}

/// Binary operators.
#[allow(missing_docs)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BinaryOp {
    Eq,
    NotEq,
    Lt,
    LtEq,
    Gt,
    GtEq,
    Plus,
    Minus,
    Multiply,
    Divide,
    Modulo,
    And,
    Or,
    IsDistinctFrom,
    IsNotDistinctFrom,
    RegexMatch,
    RegexIMatch,
    RegexNotMatch,
    RegexNotIMatch,
    BitwiseAnd,
    BitwiseOr,
    BitwiseXor,
    ShiftLeft,
    ShiftRight,
    StringConcat,
}

/// A constant of a type. The value is in the form that Arrow stores.
#[allow(missing_docs)]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Literal {
    /// NULL of a type (`DataType::Null` when untyped).
    Null(DataType),
    Boolean(bool),
    Int8(i8),
    Int16(i16),
    Int32(i32),
    Int64(i64),
    UInt8(u8),
    UInt16(u16),
    UInt32(u32),
    UInt64(u64),
    #[serde(with = "crate::codec::float")]
    Float32(f32),
    #[serde(with = "crate::codec::float")]
    Float64(f64),
    /// Unscaled value (as decimal text, for JSON), precision, scale.
    Decimal128(String, u8, i8),
    Utf8(String),
    Binary(Vec<u8>),
    /// Days since 1970-01-01.
    Date32(i32),
    /// Microseconds since midnight.
    Time64Micros(i64),
    /// Microseconds since 1970-01-01, with time zone for `timestamptz`.
    TimestampMicros(i64, Option<String>),
    /// Months, days, nanoseconds.
    IntervalMonthDayNano(i32, i32, i64),
}

impl Expr {
    /// Whether the expression has a value for every row: columns, constants, comparisons and logic.
    pub fn is_infallible(&self) -> bool {
        match self {
            Expr::Column(_) | Expr::Literal(_) => true,
            Expr::Binary { op, left, right } => {
                // Arithmetic overflows and divides by zero. Comparisons and logic
                // have a value for all values of their operands' types, so that
                // what is made of them fails only where an operand does: casts,
                // functions and arithmetic below them are found out there.
                op.has_a_value() && left.is_infallible() && right.is_infallible()
            }
            Expr::Not(e)
            | Expr::IsNull(e)
            | Expr::IsNotNull(e)
            | Expr::IsTrue(e)
            | Expr::IsFalse(e) => e.is_infallible(),
            _ => false,
        }
    }

    /// Calls `f` with the position of every column that the expression reads.
    pub fn visit_columns(&self, f: &mut dyn FnMut(usize)) {
        let mut open = vec![self];
        while let Some(expr) = open.pop() {
            if let Expr::Column(i) = expr {
                f(*i);
            }
            let first = open.len();
            expr.visit_children(&mut |child| open.push(child));
            open[first..].reverse();
        }
    }

    /// The expression with every column replaced.
    pub fn replace_columns(self, column: &dyn Fn(usize) -> Expr) -> Expr {
        let one = |e: Box<Expr>| Box::new(e.replace_columns(column));
        let many = |es: Vec<Expr>| es.into_iter().map(|e| e.replace_columns(column)).collect();
        match self {
            Expr::Column(i) => column(i),
            Expr::Literal(l) => Expr::Literal(l),
            Expr::Binary { op, left, right } => Expr::Binary {
                op,
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
                negated,
                case_insensitive,
                expr: one(expr),
                pattern: one(pattern),
            },
            Expr::InList {
                negated,
                expr,
                list,
            } => Expr::InList {
                negated,
                expr: one(expr),
                list: many(list),
            },
            Expr::Case {
                operand,
                when_then,
                otherwise,
            } => Expr::Case {
                operand: operand.map(one),
                when_then: when_then
                    .into_iter()
                    .map(|(w, t)| (w.replace_columns(column), t.replace_columns(column)))
                    .collect(),
                otherwise: otherwise.map(one),
            },
            Expr::Cast { expr, to, safe } => Expr::Cast {
                expr: one(expr),
                to,
                safe,
            },
            Expr::Call { function, args } => Expr::Call {
                function,
                args: many(args),
            },
        }
    }

    /// Calls `f` with the expressions right below, in order.
    pub fn visit_children<'a>(&'a self, f: &mut dyn FnMut(&'a Expr)) {
        match self {
            Expr::Column(_) | Expr::Literal(_) => {}
            Expr::Binary { left, right, .. } => {
                f(left);
                f(right);
            }
            Expr::Not(e)
            | Expr::Negative(e)
            | Expr::IsNull(e)
            | Expr::IsNotNull(e)
            | Expr::IsTrue(e)
            | Expr::IsFalse(e) => f(e),
            Expr::Like { expr, pattern, .. } => {
                f(expr);
                f(pattern);
            }
            Expr::InList { expr, list, .. } => {
                f(expr);
                list.iter().for_each(f);
            }
            Expr::Case {
                operand,
                when_then,
                otherwise,
            } => {
                if let Some(e) = operand {
                    f(e);
                }
                for (when, then) in when_then {
                    f(when);
                    f(then);
                }
                if let Some(e) = otherwise {
                    f(e);
                }
            }
            Expr::Cast { expr, .. } => f(expr),
            Expr::Call { args, .. } => args.iter().for_each(f),
        }
    }
}

impl BinaryOp {
    /// Whether it has a value for all values of its operands' types: comparisons and logic do.
    fn has_a_value(self) -> bool {
        use BinaryOp::*;
        let compares = matches!(self, Eq | NotEq | Lt | LtEq | Gt | GtEq);
        compares || matches!(self, And | Or | IsDistinctFrom | IsNotDistinctFrom)
    }
}
