//! Pieces of SQL syntax trees that INSERT, UPDATE and DELETE are taken apart into, and that their
//! queries are put together from.

use super::*;

pub(super) fn old_columns(relation: &Relation, name: &str) -> Vec<SelectItem> {
    let column = |c: &tidemark_plan::Column| {
        SelectItem::UnnamedExpr(Expr::CompoundIdentifier(vec![
            Ident::with_quote('"', name),
            Ident::with_quote('"', &c.name),
        ]))
    };
    relation.columns.iter().map(column).collect()
}

pub(super) fn table_factor(name: ObjectName) -> ast::TableWithJoins {
    let relation = ast::TableFactor::Table {
        name,
        alias: None,
        args: None,
        with_hints: Vec::new(),
        version: None,
        with_ordinality: false,
        partitions: Vec::new(),
        json_path: None,
        sample: None,
        index_hints: Vec::new(),
    };
    ast::TableWithJoins {
        relation,
        joins: Vec::new(),
    }
}

pub(super) fn table_named(name: &str) -> ast::TableWithJoins {
    table_factor(ObjectName::from(vec![Ident::with_quote('"', name)]))
}

pub(super) fn table_and_alias(
    table: &ast::TableWithJoins,
) -> Result<(&ObjectName, Option<String>)> {
    match &table.relation {
        ast::TableFactor::Table { name, alias, .. } if table.joins.is_empty() => {
            Ok((name, alias.as_ref().map(|a| fold(&a.name))))
        }
        _ => Err(Error::user(
            SqlState::SYNTAX_ERROR,
            "a table name is expected",
        )),
    }
}

pub(super) fn delete_target(delete: &ast::Delete) -> Result<&ast::TableWithJoins> {
    let (ast::FromTable::WithFromKeyword(tables) | ast::FromTable::WithoutKeyword(tables)) =
        &delete.from;
    match tables.as_slice() {
        [table] => Ok(table),
        _ => Err(Error::user(
            SqlState::SYNTAX_ERROR,
            "DELETE takes one table",
        )),
    }
}

/// The columns of an assignment with their values.
pub(super) fn pairs(assignment: &ast::Assignment) -> Result<Vec<(String, Expr)>> {
    match (&assignment.target, &assignment.value) {
        (ast::AssignmentTarget::ColumnName(name), value) => {
            Ok(vec![(last_name(name)?, value.clone())])
        }
        (ast::AssignmentTarget::Tuple(names), Expr::Tuple(values))
            if names.len() == values.len() =>
        {
            names
                .iter()
                .zip(values)
                .map(|(n, v)| Ok((last_name(n)?, v.clone())))
                .collect()
        }
        _ => Err(
            Error::unsupported("this form of assignment is not supported")
                .with_hint("Assign column by column."),
        ),
    }
}

pub(super) fn binary(left: Expr, op: ast::BinaryOperator, right: Expr) -> Expr {
    Expr::BinaryOp {
        left: Box::new(left),
        op,
        right: Box::new(Expr::Nested(Box::new(right))),
    }
}

/// Unqualified columns of `DO UPDATE` mean the table's.
pub(super) fn qualify(mut expr: Expr, relation: &Relation, name: &str) -> Expr {
    struct Qualify<'a>(&'a Relation, &'a str);
    impl ast::VisitorMut for Qualify<'_> {
        type Break = ();
        fn post_visit_expr(&mut self, expr: &mut Expr) -> std::ops::ControlFlow<()> {
            if let Expr::Identifier(ident) = expr
                && self.0.columns.iter().any(|c| c.name == fold(ident))
            {
                *expr =
                    Expr::CompoundIdentifier(vec![Ident::with_quote('"', self.1), ident.clone()]);
            }
            std::ops::ControlFlow::Continue(())
        }
    }
    let _ = ast::VisitMut::visit(&mut expr, &mut Qualify(relation, name));
    expr
}

pub(super) fn empty_update() -> ast::Update {
    match Parser::parse_sql(&PostgreSqlDialect {}, "UPDATE t SET a = 1")
        .ok()
        .and_then(|mut s| s.pop())
    {
        Some(ast::Statement::Update(update)) => update,
        _ => unreachable!("UPDATE is an update"),
    }
}
