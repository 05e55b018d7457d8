//! Casts of text constants that DataFusion reads otherwise than PostgreSQL: `'{1,2}'::int[]` is an
//! array, `'\x00ff'::bytea` is two bytes.

use crate::protocol::parameters::{null, parse_array};
use crate::values;
use datafusion::sql::sqlparser::ast::{self, DataType, Expr, Value};
use tidemark_common::{Error, Result, SqlState};

fn text(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Value(v) => match &v.value {
            Value::SingleQuotedString(s) | Value::EscapedStringLiteral(s) => Some(s),
            Value::DollarQuotedString(s) => Some(&s.value),
            _ => None,
        },
        Expr::Nested(inner) => text(inner),
        _ => None,
    }
}

fn string(text: String) -> Expr {
    Expr::Value(Value::SingleQuotedString(text).into())
}

fn cast(expr: Expr, data_type: &DataType) -> Expr {
    Expr::Cast {
        kind: ast::CastKind::Cast,
        expr: Box::new(expr),
        data_type: data_type.clone(),
        array: false,
        format: None,
    }
}

/// Rewrites a cast of a text constant; other expressions stay as they are.
pub fn rewrite(expr: &mut Expr) -> Result<()> {
    let (constant, data_type) = match &*expr {
        Expr::Cast {
            expr: inner,
            data_type,
            kind: ast::CastKind::Cast | ast::CastKind::DoubleColon,
            ..
        } => (text(inner), data_type),
        Expr::TypedString(typed) => match &typed.value.value {
            Value::SingleQuotedString(s) => (Some(s.as_str()), &typed.data_type),
            _ => return Ok(()),
        },
        _ => return Ok(()),
    };
    let Some(constant) = constant else {
        return Ok(());
    };
    *expr = match data_type {
        DataType::Array(ast::ArrayElemTypeDef::SquareBracket(element, _)) => {
            let malformed = || {
                Error::user(
                    SqlState::INVALID_TEXT,
                    format!("malformed array literal: \"{constant}\""),
                )
            };
            let mut elem = Vec::new();
            for value in parse_array(constant).ok_or_else(malformed)? {
                let mut one = cast(value.map_or_else(|| null(None), string), element);
                rewrite(&mut one)?;
                elem.push(one);
            }
            cast(Expr::Array(ast::Array { elem, named: true }), data_type)
        }
        DataType::Bytea => Expr::Value(
            Value::HexStringLiteral(
                values::parse_bytes(constant)?
                    .iter()
                    .map(|b| format!("{b:02x}"))
                    .collect(),
            )
            .into(),
        ),
        _ => return Ok(()),
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
    use datafusion::sql::sqlparser::parser::Parser;

    fn rewritten(sql: &str) -> Result<String> {
        let mut expr = Parser::new(&PostgreSqlDialect {})
            .try_with_sql(sql)
            .unwrap()
            .parse_expr()
            .unwrap();
        rewrite(&mut expr)?;
        Ok(expr.to_string())
    }

    #[test]
    fn constants_are_read_as_in_postgresql() {
        assert_eq!(
            rewritten("'{1,NULL}'::int[]").unwrap(),
            "CAST(ARRAY[CAST('1' AS INT), CAST(NULL AS INT)] AS INT[])"
        );
        assert_eq!(rewritten(r"'\x00ff'::bytea").unwrap(), "X'00ff'");
        assert_eq!(rewritten("'x'::text").unwrap(), "'x'::TEXT");
        assert_eq!(
            rewritten("'{1'::int[]").unwrap_err().state(),
            SqlState::INVALID_TEXT
        );
    }
}
