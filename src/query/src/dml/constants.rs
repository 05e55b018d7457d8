//! Values of INSERT that need no planning (constants and defaults, parsed into columns), and the
//! casts of those that do.

use super::generated::check_inserted;
use super::*;
use crate::parameters::Parameter;
use std::borrow::Cow;
use tidemark_values::moment::Zone;

pub(super) fn column_type(column: &tidemark_plan::Column) -> Type {
    types::by_name(&column.sql_type).unwrap_or_else(|| types::of_arrow(&column.data_type))
}

/// A constant as INSERT writes it.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Constant {
    Null,
    Text(String),
    Number(String),
    Bool(bool),
}

pub(super) fn constant(expr: &Expr) -> Option<Constant> {
    match expr {
        Expr::Value(v) => match &v.value {
            Value::Null => Some(Constant::Null),
            Value::Number(n, _) => Some(Constant::Number(n.clone())),
            Value::SingleQuotedString(s) | Value::EscapedStringLiteral(s) => {
                Some(Constant::Text(s.clone()))
            }
            Value::DollarQuotedString(s) => Some(Constant::Text(s.value.clone())),
            Value::Boolean(b) => Some(Constant::Bool(*b)),
            Value::HexStringLiteral(h) => Some(Constant::Text(format!("\\x{h}"))),
            _ => None,
        },
        Expr::UnaryOp {
            op: ast::UnaryOperator::Minus,
            expr,
        } => match constant(expr)? {
            // A zero has no sign: the minus is taken of a numeric.
            Constant::Number(n) if !n.contains(|c| matches!(c, '1'..='9')) => {
                Some(Constant::Number(n))
            }
            Constant::Number(n) if !n.starts_with('-') => Some(Constant::Number(format!("-{n}"))),
            _ => None,
        },
        Expr::UnaryOp {
            op: ast::UnaryOperator::Plus,
            expr,
        }
        | Expr::Nested(expr) => constant(expr),
        // A typed parameter: its text is read by the column's own type when both are of one family.
        Expr::Cast {
            expr, data_type, ..
        } => match constant(expr)? {
            Constant::Null => Some(Constant::Null),
            Constant::Number(n) if fits(&n, data_type) => Some(Constant::Number(n)),
            _ => None,
        },
        _ => None,
    }
}

/// Whether a number is one of an integer type.
fn fits(number: &str, to: &ast::DataType) -> bool {
    match to {
        ast::DataType::SmallInt(None) => number.parse::<i16>().is_ok(),
        ast::DataType::Int(None) => number.parse::<i32>().is_ok(),
        ast::DataType::BigInt(None) => number.parse::<i64>().is_ok(),
        _ => false,
    }
}

/// The text of an expression for a column: a constant, or a text that is cast to the column's own
/// type (a typed parameter). An interval that is one before it comes to the column is not read by
/// the column's fields.
pub(super) fn constant_for(expr: &Expr, data_type: &DataType) -> Option<Option<String>> {
    if let Expr::Cast {
        expr: inner,
        data_type: to,
        ..
    } = expr
        && let Some(Constant::Text(text)) = constant(inner)
        && tidemark_planner::declared_digits(to).is_empty()
        && !matches!(data_type, DataType::Interval(_))
        && tidemark_planner::sql_type_to_arrow(to).is_ok_and(|(t, _)| t == *data_type)
    {
        return constant_text(Constant::Text(cut_off(text, to)), data_type);
    }
    constant(expr).and_then(|c| constant_text(c, data_type))
}

/// A text as a cast to `varchar(n)` or `char(n)` leaves it; that to another type leaves it whole.
fn cut_off(mut text: String, to: &ast::DataType) -> String {
    use ast::CharacterLength::IntegerLength;
    use ast::DataType as Sql;
    let length = match to {
        Sql::Varchar(length) | Sql::CharacterVarying(length) | Sql::CharVarying(length) => length,
        Sql::Char(None) | Sql::Character(None) => &Some(IntegerLength {
            length: 1,
            unit: None,
        }),
        Sql::Char(length) | Sql::Character(length) => length,
        _ => &None,
    };
    if let Some(IntegerLength { length, .. }) = length
        && let Ok(length) = usize::try_from(*length)
        && let Some((end, _)) = text.char_indices().nth(length)
    {
        text.truncate(end);
    }
    text
}

/// The text that a constant has for a column; `None` where only the evaluator knows.
pub(super) fn constant_text(value: Constant, data_type: &DataType) -> Option<Option<String>> {
    match value {
        Constant::Null => Some(None),
        Constant::Text(text) => Some(Some(text)),
        Constant::Number(n) if data_type.is_integer() => {
            (!n.contains(['.', 'e', 'E'])).then_some(Some(n))
        }
        Constant::Number(n) if is_number(data_type) => Some(Some(n)),
        // It becomes the text that its value has.
        Constant::Number(n) if *data_type == DataType::Utf8 => {
            let plain = n.parse().is_ok_and(|value: i64| value.to_string() == n);
            plain.then_some(Some(n))
        }
        Constant::Bool(b) if matches!(data_type, DataType::Boolean | DataType::Utf8) => {
            Some(Some(b.to_string()))
        }
        _ => None,
    }
}

/// A column's default as a constant: `None` where it is computed.
pub(super) fn constant_default(column: &tidemark_plan::Column) -> Result<Option<Option<String>>> {
    match &column.default {
        None => Ok(Some(None)),
        Some(text) => Ok(constant_for(&parse_expression(text)?, &column.data_type)),
    }
}

/// Whether a column's default is the same whenever it is computed, or there is none.
pub fn has_constant_default(column: &tidemark_plan::Column) -> Result<bool> {
    Ok(constant_default(column)?.is_some())
}

/// Whether the constants that columns have as defaults are values of their types. One that is too
/// long or too large is found when it is written, as in PostgreSQL.
///
/// Errors: those of reading such a value.
pub fn check_defaults(columns: &[tidemark_plan::Column]) -> Result<()> {
    for column in columns.iter().filter(|column| column.default.is_some()) {
        if let Some(constant) = constant_default(column)? {
            let later = ["22001", "22003"].map(SqlState);
            repeat(constant, column, 1).map(drop).or_else(|e| {
                match later.contains(&e.state()) {
                    true => Ok(()),
                    false => Err(e),
                }
            })?;
        }
    }
    Ok(())
}

pub(super) fn parse_expression(text: &str) -> Result<Expr> {
    let parsed = tidemark_planner::parse::parse_expression(text);
    parsed.map_err(|e| Error::internal(format!("a default cannot be read: {e}")))
}

/// A default in all rows, whose moments say where they are; `54000` where that is more than may
/// be written.
pub(super) fn repeat(
    value: Option<String>,
    column: &tidemark_plan::Column,
    rows: usize,
) -> Result<ArrayRef> {
    match value {
        None => Ok(new_null_array(&column.data_type, rows)),
        Some(text) => {
            check_write_bytes(text.len().saturating_mul(rows))?;
            values::parse_column(&vec![Some(text.as_str()); rows], column, &Zone::UTC)
        }
    }
}

/// The rows of `INSERT .. VALUES` when every value is a constant, or one of these parameters;
/// `None` when something has to be computed.
pub(super) fn constant_rows(
    insert: &ast::Insert,
    relation: &Relation,
    columns: &[usize],
    parameters: &[Parameter],
    zone: &Zone,
) -> Result<Option<RecordBatch>> {
    let Some(rows) = values_of(insert) else {
        return Ok(None);
    };
    let width = rows.first().map_or(0, |r| r.content.len());
    if width > columns.len() {
        return Err(Error::user(
            SqlState::SYNTAX_ERROR,
            "INSERT has more expressions than target columns",
        ));
    }
    if width < columns.len() && !insert.columns.is_empty() {
        return Err(Error::user(
            SqlState::SYNTAX_ERROR,
            "INSERT has more target columns than expressions",
        ));
    }
    if rows.iter().any(|r| r.content.len() != width) {
        return Err(Error::user(
            SqlState::SYNTAX_ERROR,
            "VALUES lists must all be the same length",
        ));
    }
    for row in rows {
        for (value, column) in row.content.iter().zip(columns) {
            check_inserted(relation, *column, Some(value))?;
        }
    }
    let mut arrays = Vec::with_capacity(relation.columns.len());
    for (i, column) in relation.columns.iter().enumerate() {
        let Some(at) = columns
            .iter()
            .position(|c| *c == i)
            .filter(|at| *at < width)
        else {
            match constant_default(column)? {
                Some(default) => arrays.push(repeat(default, column, rows.len())?),
                None => return Ok(None),
            }
            continue;
        };
        let mut texts = Vec::with_capacity(rows.len());
        for row in rows {
            let text = if is_default(&row.content[at]) {
                constant_default(column)?
            } else {
                constant_for(&given(&row.content[at], parameters), &column.data_type)
            };
            match text {
                Some(text) => texts.push(text),
                None => return Ok(None),
            }
        }
        arrays.push(values::parse_column(
            &texts.iter().map(Option::as_deref).collect::<Vec<_>>(),
            column,
            zone,
        )?);
    }
    nullable_batch(relation, arrays).map(Some)
}

/// A value, or that of the parameter which it is.
fn given<'a>(cell: &'a Expr, parameters: &'a [Parameter]) -> Cow<'a, Expr> {
    let place = parameters::placeholder(cell).map(|number| number.wrapping_sub(1));
    let parameter = place.and_then(|place| parameters.get(place));
    parameter.map_or(Cow::Borrowed(cell), Parameter::written)
}

pub(super) fn is_default(expr: &Expr) -> bool {
    matches!(expr, Expr::Identifier(i)
        if i.quote_style.is_none() && i.value.eq_ignore_ascii_case("default"))
}

pub(super) fn or_default(value: Expr, column: &tidemark_plan::Column) -> Result<Expr> {
    if !is_default(&value) {
        return Ok(value);
    }
    column
        .default
        .as_deref()
        .map_or_else(|| Ok(Expr::Value(Value::Null.into())), parse_expression)
}

/// A value for a column. Of an `interval hour`, a quoted constant says hours.
pub(super) fn value_for(value: Expr, column: &tidemark_plan::Column) -> Result<Expr> {
    let value = or_default(value, column)?;
    let restricted =
        matches!(column.data_type, DataType::Interval(_)) && types::modifier(&column.sql_type) >= 0;
    if !restricted || !matches!(constant(&value), Some(Constant::Text(_))) {
        return Ok(value);
    }
    let data_type = Parser::new(&tidemark_planner::parse::DIALECT)
        .try_with_sql(&column.sql_type)
        .and_then(|mut p| p.parse_data_type())
        .map_err(|e| Error::internal(format!("the type of a column cannot be read: {e}")))?;
    Ok(Expr::Cast {
        kind: ast::CastKind::DoubleColon,
        expr: Box::new(value),
        data_type,
        array: false,
        format: None,
    })
}

/// An assignment cast to a column's type, even where the types agree: the plan is not analysed yet,
/// and literals, quotients and sums may still get other types, as a date that an interval moves
/// does.
pub(super) fn assign(
    expr: LogicalExpr,
    plan: &LogicalPlan,
    column: &tidemark_plan::Column,
) -> Result<LogicalExpr> {
    let from = expr.get_type(plan.schema()).map_err(from_datafusion)?;
    if from == column.data_type {
        return Ok(if is_number(&from) || from.is_temporal() {
            LogicalExpr::Cast(Cast::new(Box::new(expr), from))
        } else {
            expr
        });
    }
    let field = expr.to_field(plan.schema()).map_err(from_datafusion)?.1;
    let (given, wanted) = (types::pg_type(&field), column_type(column));
    let takes_any = from == DataType::Null || is_untyped(&expr, plan) && is_text(&from);
    if !takes_any && !types::is_assignable(&given, &wanted) {
        return Err(Error::user(
            SqlState::DATATYPE_MISMATCH,
            format!(
                "column \"{}\" is of type {} but expression is of type {}",
                column.name,
                types::format_type(&wanted, -1),
                types::format_type(&given, -1)
            ),
        )
        .with_hint("You will need to rewrite or cast the expression."));
    }
    // The rules of types make of it what the types that the plan ends with ask for.
    let to = column.data_type.clone();
    Ok(LogicalExpr::Cast(Cast::new(Box::new(expr), to)))
}

/// Whether the values are quoted constants, parameters or NULL, which take the type of the column
/// that they go to.
fn is_untyped(expr: &LogicalExpr, plan: &LogicalPlan) -> bool {
    match (expr, plan) {
        (LogicalExpr::Alias(alias), plan) => is_untyped(&alias.expr, plan),
        (LogicalExpr::Literal(..) | LogicalExpr::Placeholder(_), _) => true,
        (LogicalExpr::Column(column), plan) => {
            let place = plan.schema().maybe_index_of_column(column);
            place.is_some_and(|place| has_untyped(plan, place))
        }
        _ => false,
    }
}

fn has_untyped(plan: &LogicalPlan, place: usize) -> bool {
    match plan {
        LogicalPlan::Values(values) => values
            .values
            .iter()
            .all(|row| row.get(place).is_some_and(|e| is_untyped(e, plan))),
        LogicalPlan::Projection(projection) => {
            let expr = projection.expr.get(place);
            expr.is_some_and(|e| is_untyped(e, &projection.input))
        }
        LogicalPlan::SubqueryAlias(_)
        | LogicalPlan::Sort(_)
        | LogicalPlan::Limit(_)
        | LogicalPlan::Filter(_)
        | LogicalPlan::Distinct(_) => plan
            .inputs()
            .iter()
            .all(|input| input.schema().fields().len() > place && has_untyped(input, place)),
        _ => false,
    }
}

fn is_text(data_type: &DataType) -> bool {
    use DataType as T;
    matches!(data_type, T::Utf8 | T::LargeUtf8 | T::Utf8View)
}

fn is_number(data_type: &DataType) -> bool {
    data_type.is_numeric() || tidemark_planner::is_numeric_bytes(data_type)
}
