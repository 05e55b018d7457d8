//! Parameters of statements. A statement's `$n` are replaced by literals before it is planned, so
//! that every kind of statement takes parameters and none is planned with a type that its value
//! does not have.

use crate::types;
use datafusion::sql::sqlparser::ast::{self, Expr, Value, VisitMut, VisitorMut};
use postgres_types::Type;
use std::borrow::Cow;
use std::ops::ControlFlow;
use tidemark_common::{Error, Result, SqlState};

/// The value of a parameter.
#[derive(Clone, Debug, PartialEq)]
pub enum Parameter {
    /// An integer of a type, as keys mostly are.
    Integer(i64, Type),
    /// As a statement would have it in its text.
    Written(Box<Expr>),
}

impl Parameter {
    /// The literal that takes the parameter's place.
    pub fn written(&self) -> Cow<'_, Expr> {
        let (value, t) = match self {
            Parameter::Integer(value, t) => (*value, t),
            Parameter::Written(expr) => return Cow::Borrowed(expr.as_ref()),
        };
        let digits = value.unsigned_abs().to_string();
        let mut literal = Expr::Value(Value::Number(digits, false).into());
        if value < 0 {
            literal = Expr::UnaryOp {
                op: ast::UnaryOperator::Minus,
                expr: Box::new(literal),
            };
        }
        Cow::Owned(cast(literal, t))
    }
}

impl From<Expr> for Parameter {
    fn from(expr: Expr) -> Parameter {
        Parameter::Written(Box::new(expr))
    }
}

/// The literals that take the parameters' places.
pub fn written(parameters: &[Parameter]) -> Vec<Expr> {
    let literals = parameters.iter().map(Parameter::written);
    literals.map(Cow::into_owned).collect()
}

/// Whether values of a type are written as texts that what they go to reads.
pub fn is_read_by_target(t: &Type) -> bool {
    matches!(
        *t,
        Type::UNKNOWN | Type::TEXT | Type::VARCHAR | Type::RECORD | Type::RECORD_ARRAY
    )
}

/// A NULL of a type.
pub fn null(t: Option<&Type>) -> Expr {
    let null = Expr::Value(Value::Null.into());
    match t {
        Some(t) if !is_read_by_target(t) => cast(null, t),
        _ => null,
    }
}

/// An expression as one of a type.
pub fn cast(expr: Expr, t: &Type) -> Expr {
    Expr::Cast {
        kind: ast::CastKind::Cast,
        expr: Box::new(expr),
        data_type: data_type(t),
        array: false,
        format: None,
    }
}

/// Whether a value is written as a quoted literal or NULL, which is of the type that is wanted.
pub fn is_untyped(expr: &Expr) -> bool {
    match expr {
        Expr::Nested(inner) => is_untyped(inner),
        Expr::Value(v) => matches!(
            v.value,
            Value::Null
                | Value::SingleQuotedString(_)
                | Value::EscapedStringLiteral(_)
                | Value::UnicodeStringLiteral(_)
                | Value::DollarQuotedString(_)
        ),
        _ => false,
    }
}

/// The type of a value that shows it without planning: a small literal or a cast of one.
pub fn evident_type(expr: &Expr) -> Option<Type> {
    match expr {
        Expr::Nested(inner) => evident_type(inner),
        Expr::Value(v) => match &v.value {
            Value::Boolean(_) => Some(Type::BOOL),
            Value::Number(digits, _) => digits.parse::<i32>().ok().map(|_| Type::INT4),
            _ => None,
        },
        Expr::UnaryOp {
            op: ast::UnaryOperator::Minus,
            expr,
        } => evident_type(expr).filter(|t| *t == Type::INT4),
        Expr::Cast {
            kind: ast::CastKind::Cast | ast::CastKind::DoubleColon,
            expr,
            data_type,
            array: false,
            format: None,
        } if is_untyped(expr) => {
            // A modifier may be one that the type does not take.
            let name = data_type.to_string();
            types::by_name(&name).filter(|_| !name.contains('('))
        }
        _ => None,
    }
}

/// `SELECT` of these expressions.
pub fn select(exprs: Vec<Expr>) -> Result<ast::Statement> {
    let parsed = tidemark_planner::parse("SELECT NULL")?
        .pop()
        .map(|s| s.kind);
    let Some(tidemark_planner::StatementKind::Sql(mut statement)) = parsed else {
        return Err(Error::internal("a SELECT is no query"));
    };
    if let ast::Statement::Query(query) = statement.as_mut()
        && let ast::SetExpr::Select(select) = query.body.as_mut()
    {
        select.projection = exprs
            .into_iter()
            .map(ast::SelectItem::UnnamedExpr)
            .collect();
    }
    Ok(*statement)
}

/// The SQL type of a wire type.
pub fn data_type(t: &Type) -> ast::DataType {
    use ast::{DataType, ExactNumberInfo, TimezoneInfo};
    match *t {
        Type::BOOL => DataType::Boolean,
        Type::INT2 => DataType::SmallInt(None),
        Type::INT4 => DataType::Int(None),
        Type::INT8 | Type::OID => DataType::BigInt(None),
        Type::FLOAT4 => DataType::Real,
        Type::FLOAT8 => DataType::DoublePrecision,
        Type::NUMERIC => DataType::Numeric(ExactNumberInfo::None),
        Type::TEXT => DataType::Text,
        // Of any length: `char` alone has one character.
        Type::BPCHAR => DataType::Custom(
            ast::ObjectName::from(vec![ast::Ident::new("bpchar")]),
            vec![],
        ),
        Type::BYTEA => DataType::Bytea,
        Type::DATE => DataType::Date,
        Type::TIME => DataType::Time(None, TimezoneInfo::None),
        Type::TIMESTAMP => DataType::Timestamp(None, TimezoneInfo::None),
        Type::TIMESTAMPTZ => DataType::Timestamp(None, TimezoneInfo::WithTimeZone),
        Type::INTERVAL => DataType::Interval {
            fields: None,
            precision: None,
        },
        Type::UUID => DataType::Uuid,
        Type::JSON | Type::JSONB => DataType::JSONB,
        ref t if let Some(element) = types::element_of(t) => DataType::Array(
            ast::ArrayElemTypeDef::SquareBracket(Box::new(data_type(&element)), None),
        ),
        _ => DataType::Varchar(None),
    }
}

/// PostgreSQL's words for true and false.
pub fn parse_bool(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "t" | "true" | "y" | "yes" | "on" | "1" => Some(true),
        "f" | "false" | "n" | "no" | "off" | "0" => Some(false),
        _ => None,
    }
}

/// Replaces `$1`, `$2`, ... by these expressions.
pub fn bind(statement: &mut ast::Statement, values: &[Expr]) -> Result<()> {
    struct Binder<'a>(&'a [Expr], Option<Error>);
    impl VisitorMut for Binder<'_> {
        type Break = ();
        // A value with its type around it would give its column a name.
        fn pre_visit_select(&mut self, select: &mut ast::Select) -> ControlFlow<()> {
            for item in &mut select.projection {
                if let ast::SelectItem::UnnamedExpr(expr) = item
                    && placeholder(expr).is_some()
                {
                    *item = ast::SelectItem::ExprWithAlias {
                        expr: expr.clone(),
                        alias: ast::Ident::with_quote('"', tidemark_planner::UNNAMED),
                    };
                }
            }
            ControlFlow::Continue(())
        }
        // On the way out: a value that itself has a parameter is not looked at again.
        fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
            if let Some(n) = placeholder(expr) {
                match self.0.get(n.wrapping_sub(1)) {
                    Some(value) => *expr = value.clone(),
                    None => {
                        self.1 = Some(undefined(n));
                        return ControlFlow::Break(());
                    }
                }
            }
            ControlFlow::Continue(())
        }
    }
    let mut binder = Binder(values, None);
    let _ = statement.visit(&mut binder);
    binder.1.map_or(Ok(()), Err)
}

/// `42P02`.
pub fn undefined(number: usize) -> Error {
    Error::user(
        SqlState("42P02"),
        format!("there is no parameter ${number}"),
    )
}

/// The number of a placeholder expression.
pub fn placeholder(expr: &Expr) -> Option<usize> {
    match expr {
        Expr::Value(v) => match &v.value {
            Value::Placeholder(name) => name.strip_prefix('$')?.parse().ok(),
            _ => None,
        },
        _ => None,
    }
}

/// The numbers of the parameters in offsets of window frames, which must be known for a frame to be
/// one, and whether they are numbers of rows or groups.
pub fn in_frames(statement: &ast::Statement) -> Vec<(usize, bool)> {
    #[derive(Default)]
    struct Finder(Vec<(usize, bool)>);
    impl Finder {
        fn window(&mut self, spec: &ast::WindowSpec) {
            struct Inside<'a>(&'a mut Vec<(usize, bool)>, bool);
            impl ast::Visitor for Inside<'_> {
                type Break = ();
                fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
                    self.0.extend(placeholder(expr).map(|n| (n, self.1)));
                    ControlFlow::Continue(())
                }
            }
            let Some(frame) = &spec.window_frame else {
                return;
            };
            let counts = frame.units != ast::WindowFrameUnits::Range;
            let _ = ast::Visit::visit(frame, &mut Inside(&mut self.0, counts));
        }
    }
    impl ast::Visitor for Finder {
        type Break = ();
        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            if let Expr::Function(ast::Function {
                over: Some(ast::WindowType::WindowSpec(spec)),
                ..
            }) = expr
            {
                self.window(spec);
            }
            ControlFlow::Continue(())
        }
        fn pre_visit_select(&mut self, select: &ast::Select) -> ControlFlow<()> {
            for ast::NamedWindowDefinition(_, window) in &select.named_window {
                if let ast::NamedWindowExpr::WindowSpec(spec) = window {
                    self.window(spec);
                }
            }
            ControlFlow::Continue(())
        }
    }
    let mut finder = Finder::default();
    let _ = ast::Visit::visit(statement, &mut finder);
    finder.0
}

/// The highest parameter number of a statement or of expressions.
pub fn count(tree: &impl ast::Visit) -> usize {
    struct Counter(usize);
    impl ast::Visitor for Counter {
        type Break = ();
        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            self.0 = self.0.max(placeholder(expr).unwrap_or(0));
            ControlFlow::Continue(())
        }
    }
    let mut counter = Counter(0);
    let _ = ast::Visit::visit(tree, &mut counter);
    counter.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_has_a_parameter_is_taken_as_it_is() {
        let parsed = |sql: &str| tidemark_planner::parse(sql).unwrap().remove(0).kind;
        let tidemark_planner::StatementKind::Sql(mut statement) = parsed("SELECT $1 + 1") else {
            unreachable!("a query");
        };
        let value = Expr::Nested(Box::new(Expr::Value(
            Value::Placeholder("$1".into()).into(),
        )));
        bind(&mut statement, &[value]).unwrap();
        assert_eq!(statement.to_string(), "SELECT ($1) + 1");
    }
}
