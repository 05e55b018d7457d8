//! The offsets of windows' frames (`ROWS 1 + 1 PRECEDING`) as constants, in the forms that
//! DataFusion's planner reads: a number, or an interval. `1` is an integer, `1.0` a numeric,
//! `+1.0` a float. Rewriting what is rewritten changes nothing but that a float is a numeric then.

use crate::excluded;
use crate::interval::plain_spelling;
use datafusion_sql::sqlparser::ast::{
    self, BinaryOperator, Expr, UnaryOperator, Value, Visit, Visitor, WindowFrame,
    WindowFrameBound, WindowFrameUnits, WindowSpec, WindowType,
};
use std::ops::ControlFlow;
use tidemark_common::{Error, Result, SqlState};
use tidemark_values::moment::{Interval, IntervalFields, interval_key, read_interval};
use tidemark_values::numeric::Numeric;

/// Digits of a constant, with its point.
const DIGITS_MAX: usize = 38;

/// Functions that look at no frame: what it excludes is nothing to them.
const FRAMELESS: [&str; 8] = [
    "row_number",
    "rank",
    "dense_rank",
    "percent_rank",
    "cume_dist",
    "ntile",
    "lag",
    "lead",
];

/// More rows than there are.
const BEYOND_ROWS: i64 = 1 << 62;

/// What an offset is.
enum Offset {
    Integer(i64),
    Numeric(Numeric),
    Float(f64),
    Interval(Interval),
    Null,
}

/// Rewrites the frame of a call's window.
///
/// Errors: `0A000` for DISTINCT and ORDER BY among the arguments.
pub(super) fn call(expr: &mut Expr) -> Result<()> {
    let Expr::Function(ast::Function {
        name,
        over: Some(over),
        args,
        ..
    }) = expr
    else {
        return Ok(());
    };
    let name = name.to_string().to_lowercase();
    if let (true, WindowType::WindowSpec(spec)) = (FRAMELESS.contains(&name.as_str()), &mut *over) {
        excluded::taken(&mut spec.partition_by);
    }
    if let ast::FunctionArguments::List(list) = args {
        if list.duplicate_treatment == Some(ast::DuplicateTreatment::Distinct) {
            let message = "DISTINCT is not implemented for window functions";
            return Err(Error::unsupported(message));
        }
        let orders = |clause| matches!(clause, &ast::FunctionArgumentClause::OrderBy(_));
        if list.clauses.iter().any(orders) {
            let message = "aggregate ORDER BY is not implemented for window functions";
            return Err(Error::unsupported(message));
        }
    }
    match over {
        WindowType::WindowSpec(spec) => window(spec),
        WindowType::NamedWindow(_) => Ok(()),
    }
}

/// Rewrites the frames of the windows that a SELECT names.
pub(super) fn named(select: &mut ast::Select) -> Result<()> {
    for ast::NamedWindowDefinition(_, window_expr) in &mut select.named_window {
        if let ast::NamedWindowExpr::WindowSpec(spec) = window_expr {
            window(spec)?;
        }
    }
    Ok(())
}

fn window(spec: &mut WindowSpec) -> Result<()> {
    let has_order = !spec.order_by.is_empty();
    let Some(frame) = &mut spec.window_frame else {
        return Ok(());
    };
    check_ends(frame)?;
    if has(
        frame,
        |e| matches!(e, Expr::Value(v) if matches!(v.value, Value::Placeholder(_))),
    ) {
        // The statement is only described: what a frame shows has the same type without it.
        spec.window_frame = None;
        return Ok(());
    }
    let start = bound(&mut frame.start_bound, frame.units, "starting")?;
    let end = match &mut frame.end_bound {
        Some(end) => bound(end, frame.units, "ending")?,
        None => None,
    };
    let (Some(start), Some(end), Some(end_bound), true) = (start, end, &frame.end_bound, has_order)
    else {
        return Ok(());
    };
    // A RANGE frame of that kind still shows rows that are as far from all others as from
    // themselves, and is left to be refused.
    let empty = match (&frame.start_bound, end_bound) {
        _ if frame.units == WindowFrameUnits::Range => false,
        (WindowFrameBound::Preceding(_), WindowFrameBound::Preceding(_)) => start.is_below(&end),
        (WindowFrameBound::Following(_), WindowFrameBound::Following(_)) => end.is_below(&start),
        _ => false,
    };
    if empty {
        // DataFusion has no frame that begins behind its end; one behind all rows is as empty.
        let beyond = || {
            let rows = Expr::Value(Value::Number(BEYOND_ROWS.to_string(), false).into());
            WindowFrameBound::Following(Some(Box::new(rows)))
        };
        frame.units = WindowFrameUnits::Rows;
        (frame.start_bound, frame.end_bound) = (beyond(), Some(beyond()));
    }
    Ok(())
}

/// `42P20` for a frame whose end is of a kind that comes before its start's.
fn check_ends(frame: &WindowFrame) -> Result<()> {
    use WindowFrameBound::{CurrentRow, Following, Preceding};
    let message = match (&frame.start_bound, &frame.end_bound) {
        (Following(None), _) => "frame start cannot be UNBOUNDED FOLLOWING",
        (_, Some(Preceding(None))) => "frame end cannot be UNBOUNDED PRECEDING",
        (CurrentRow, Some(Preceding(_))) => {
            "frame starting from current row cannot have preceding rows"
        }
        (Following(_), Some(Preceding(_))) => {
            "frame starting from following row cannot have preceding rows"
        }
        (Following(_), Some(CurrentRow)) => {
            "frame starting from following row cannot end with current row"
        }
        (Following(_), None) => "frame starting from following row cannot end with current row",
        _ => return Ok(()),
    };
    Err(Error::user(SqlState("42P20"), message))
}

/// Rewrites a bound; answers its offset, if it has one.
fn bound(
    bound: &mut WindowFrameBound,
    units: WindowFrameUnits,
    which: &str,
) -> Result<Option<Offset>> {
    let (WindowFrameBound::Preceding(Some(expr)) | WindowFrameBound::Following(Some(expr))) = bound
    else {
        return Ok(None);
    };
    let offset = match evaluate(expr)? {
        Some(offset) => offset,
        None if has(expr, |e| {
            matches!(e, Expr::Identifier(_) | Expr::CompoundIdentifier(_))
        }) =>
        {
            return Err(Error::user(
                SqlState("42P10"),
                format!("argument of {units} must not contain variables"),
            ));
        }
        None => {
            return Err(Error::unsupported(
                "the offset of a frame must be a constant",
            ));
        }
    };
    let offset = if units == WindowFrameUnits::Range {
        offset
    } else {
        offset.rows(units)?
    };
    if matches!(offset, Offset::Null) {
        return Err(Error::user(
            SqlState("22004"),
            format!("frame {which} offset must not be null"),
        ));
    }
    if offset.is_below(&offset.zero()) {
        return Err(Error::user(
            SqlState("22013"),
            if units == WindowFrameUnits::Range {
                "invalid preceding or following size in window function".into()
            } else {
                format!("frame {which} offset must not be negative")
            },
        ));
    }
    **expr = written(&offset)?;
    Ok(Some(offset))
}

impl Offset {
    /// A number of rows or groups.
    fn rows(self, units: WindowFrameUnits) -> Result<Offset> {
        Ok(match self {
            Offset::Numeric(n) => Offset::Integer(n.to_i64()?),
            Offset::Float(x) => Offset::Integer(Numeric::from(x.round_ties_even()).to_i64()?),
            Offset::Interval(_) => {
                return Err(Error::user(
                    SqlState::DATATYPE_MISMATCH,
                    format!("argument of {units} must be type bigint, not type interval"),
                ));
            }
            rows => rows,
        })
    }

    fn zero(&self) -> Offset {
        match self {
            Offset::Interval(_) => Offset::Interval(Interval::default()),
            _ => Offset::Integer(0),
        }
    }

    /// Whether it is less wherever it is added: months are not compared with days, but with none.
    fn is_below(&self, other: &Offset) -> bool {
        match (self, other) {
            (Offset::Interval(a), Offset::Interval(b)) => {
                let comparable = a.months == b.months || *b == Interval::default();
                comparable && interval_key(*a) < interval_key(*b)
            }
            (Offset::Float(a), Offset::Float(b)) => a < b,
            (Offset::Float(a), Offset::Integer(b)) => *a < *b as f64,
            (a, b) => match (a.numeric(), b.numeric()) {
                (Some(a), Some(b)) => a.sub(&b).is_ok_and(|d| d.to_string().starts_with('-')),
                _ => false,
            },
        }
    }

    fn numeric(&self) -> Option<Numeric> {
        match self {
            Offset::Integer(n) => Some(Numeric::from(*n)),
            Offset::Numeric(n) => Some(n.clone()),
            _ => None,
        }
    }
}

/// An offset as it is handed on.
fn written(offset: &Offset) -> Result<Expr> {
    let number = |text: String| Expr::Value(Value::Number(text, false).into());
    let fraction = |text: String| {
        let text = if text.contains('.') {
            text
        } else {
            text + ".0"
        };
        let plain = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        if plain && text.len() <= DIGITS_MAX {
            return Ok(number(text));
        }
        Err(Error::unsupported(format!(
            "a frame offset of {text} is not supported"
        )))
    };
    Ok(match offset {
        Offset::Integer(n) => number(n.to_string()),
        Offset::Numeric(n) => fraction(n.to_string())?,
        Offset::Float(x) => match fraction(x.to_string())? {
            Expr::Value(v) => number(format!("+{}", v.value)),
            other => other,
        },
        Offset::Interval(span) => Expr::Interval(ast::Interval {
            value: Box::new(Expr::Value(
                Value::SingleQuotedString(format!(
                    "{} months {} days {} microseconds",
                    span.months, span.days, span.micros
                ))
                .into(),
            )),
            leading_field: None,
            leading_precision: None,
            last_field: None,
            fractional_seconds_precision: None,
        }),
        Offset::Null => Expr::Value(Value::Null.into()),
    })
}

/// The value of a constant; none of anything else.
fn evaluate(expr: &Expr) -> Result<Option<Offset>> {
    Ok(match expr {
        Expr::Nested(inner) => evaluate(inner)?,
        Expr::Value(value) => match &value.value {
            Value::Number(text, _) => Some(number(text)?),
            Value::SingleQuotedString(text) | Value::EscapedStringLiteral(text) => {
                Some(quoted(text)?)
            }
            Value::Null => Some(Offset::Null),
            _ => None,
        },
        Expr::Interval(interval) => {
            // What is quoted has come as an interval, too.
            let plain = interval.leading_field.is_none() && interval.last_field.is_none();
            match interval.value.as_ref() {
                Expr::Value(v) if plain => match &v.value {
                    Value::SingleQuotedString(text) => return quoted(text).map(Some),
                    _ => None,
                },
                _ => plain_spelling(interval)?
                    .map(|text| span(&text))
                    .transpose()?,
            }
        }
        Expr::TypedString(typed) => {
            let inner = Expr::Value(typed.value.clone());
            as_type(&inner, &typed.data_type)?
        }
        Expr::Cast {
            expr, data_type, ..
        } => as_type(expr, data_type)?,
        Expr::UnaryOp { op, expr } => match (op, evaluate(expr)?) {
            (UnaryOperator::Plus, value) => value,
            (UnaryOperator::Minus, Some(value)) => negated(value)?,
            _ => None,
        },
        Expr::BinaryOp { left, op, right } => match (evaluate(left)?, evaluate(right)?) {
            (Some(left), Some(right)) => arithmetic(left, op, right)?,
            _ => None,
        },
        _ => None,
    })
}

fn number(text: &str) -> Result<Offset> {
    if let Ok(n) = text.parse() {
        return Ok(Offset::Integer(n));
    }
    Ok(Offset::Numeric(Numeric::parse(text)?))
}

/// A quoted constant: a number if it is one.
fn quoted(text: &str) -> Result<Offset> {
    match Numeric::parse(text.trim()) {
        Ok(_) if text.trim().parse::<f64>().is_ok_and(f64::is_finite) => number(text.trim()),
        _ => span(text),
    }
}

fn span(text: &str) -> Result<Offset> {
    Ok(Offset::Interval(read_interval(
        text,
        IntervalFields::All,
        6,
    )?))
}

fn as_type(expr: &Expr, data_type: &ast::DataType) -> Result<Option<Offset>> {
    use ast::DataType as T;
    if let T::Interval {
        fields: None,
        precision: None,
    } = data_type
    {
        return match expr {
            Expr::Value(v) => match &v.value {
                Value::SingleQuotedString(text) | Value::EscapedStringLiteral(text) => {
                    span(text).map(Some)
                }
                _ => Ok(None),
            },
            other => Ok(evaluate(other)?.filter(|o| matches!(o, Offset::Interval(_)))),
        };
    }
    let Some(value) = evaluate(expr)? else {
        return Ok(None);
    };
    Ok(match data_type {
        _ if matches!(value, Offset::Null) => Some(value),
        T::SmallInt(_)
        | T::Int2(_)
        | T::Int(_)
        | T::Integer(_)
        | T::Int4(_)
        | T::BigInt(_)
        | T::Int8(_) => match value {
            Offset::Integer(_) => Some(value),
            Offset::Numeric(n) => Some(Offset::Integer(n.to_i64()?)),
            Offset::Float(x) if x.abs() < 9e18 => Some(Offset::Integer(x.round_ties_even() as i64)),
            _ => None,
        },
        T::Numeric(ast::ExactNumberInfo::None)
        | T::Decimal(ast::ExactNumberInfo::None)
        | T::Dec(ast::ExactNumberInfo::None) => match value {
            Offset::Integer(n) => Some(Offset::Numeric(Numeric::from(n))),
            Offset::Numeric(_) => Some(value),
            _ => None,
        },
        T::Real | T::Float4 => {
            let double = as_type(expr, &T::DoublePrecision)?;
            double.map(|value| match value {
                Offset::Float(x) => Offset::Float(f64::from(x as f32)),
                other => other,
            })
        }
        T::Double(_) | T::DoublePrecision | T::Float8 | T::Float(_) => match value {
            Offset::Integer(n) => Some(Offset::Float(n as f64)),
            Offset::Numeric(n) => Some(Offset::Float(n.to_f64()?)),
            Offset::Float(_) => Some(value),
            _ => None,
        },
        _ => None,
    })
}

fn negated(value: Offset) -> Result<Option<Offset>> {
    Ok(match value {
        Offset::Integer(n) => n.checked_neg().map(Offset::Integer),
        Offset::Numeric(n) => Some(Offset::Numeric(n.negated())),
        Offset::Float(x) => Some(Offset::Float(-x)),
        Offset::Interval(span) => Some(Offset::Interval(span.negated()?)),
        Offset::Null => Some(Offset::Null),
    })
}

fn arithmetic(left: Offset, op: &BinaryOperator, right: Offset) -> Result<Option<Offset>> {
    Ok(match (left, right) {
        (Offset::Integer(a), Offset::Integer(b)) => match op {
            BinaryOperator::Plus => a.checked_add(b),
            BinaryOperator::Minus => a.checked_sub(b),
            BinaryOperator::Multiply => a.checked_mul(b),
            BinaryOperator::Divide => a.checked_div(b),
            _ => None,
        }
        .map(Offset::Integer),
        (Offset::Interval(a), Offset::Interval(b)) => match op {
            BinaryOperator::Plus => Some(Offset::Interval(a.plus(b)?)),
            BinaryOperator::Minus => Some(Offset::Interval(a.minus(b)?)),
            _ => None,
        },
        (Offset::Interval(a), Offset::Integer(b)) | (Offset::Integer(b), Offset::Interval(a))
            if *op == BinaryOperator::Multiply =>
        {
            Some(Offset::Interval(a.times(b as f64)?))
        }
        (a, b) => match (a.numeric(), op, b.numeric()) {
            (Some(a), BinaryOperator::Plus, Some(b)) => Some(a.add(&b)?),
            (Some(a), BinaryOperator::Minus, Some(b)) => Some(a.sub(&b)?),
            (Some(a), BinaryOperator::Multiply, Some(b)) => Some(a.mul(&b)?),
            _ => None,
        }
        .map(Offset::Numeric),
    })
}

/// Whether there is such an expression.
fn has(tree: &impl Visit, is: fn(&Expr) -> bool) -> bool {
    struct Finder(fn(&Expr) -> bool);
    impl Visitor for Finder {
        type Break = ();
        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            if (self.0)(expr) {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        }
    }
    Visit::visit(tree, &mut Finder(is)).is_break()
}
