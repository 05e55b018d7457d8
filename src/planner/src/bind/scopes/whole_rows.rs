//! Whole rows of tables as values: `t`, where no column is called that, and `t.*` among the
//! arguments of a function, is a row of the columns of `t`,
//!
//! ```text
//! named_record(t.a, t.b, NULL::STRUCT<a, b>)
//! ```
//!
//! and in `ROW(t.*, x)` the columns themselves. Where an outer join may have no row of `t`, its row
//! is NULL there, and not a row of NULLs: that is told by a column of its primary key, which is
//! never NULL in a row.

use super::{Output, Scope, Scopes, quoted};
use crate::bind::moments::function;
use crate::names::fold;
use arrow_schema::{DataType, Field};
use datafusion_sql::sqlparser::ast::helpers::attached_token::AttachedToken;
use datafusion_sql::sqlparser::ast::{
    self, CaseWhen, CastKind, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments,
    Ident, StructBracketKind, StructField, Value,
};
use tidemark_common::{Error, Result};

fn null() -> Expr {
    Expr::Value(Value::Null.into())
}

impl Scopes<'_> {
    /// What the name of a table means as a value; nothing where no table has it.
    ///
    /// Errors: `0A000` for a table that an outer join may have no row of, and that has no key.
    pub(super) fn whole_row(&self, name: &str) -> Result<Option<Expr>> {
        let Some((scope, columns)) = self.table_of(name) else {
            return Ok(None);
        };
        let (Some(columns), false) = (columns, columns.is_none_or(Vec::is_empty)) else {
            return Ok(None);
        };
        let table = self.other_name(name).unwrap_or_else(|| quoted(name));
        let row = row_of(&table, columns);
        if !scope.absent.contains(name) {
            return Ok(Some(row));
        }
        let Some(key) = columns.iter().find(|column| column.key) else {
            let message = format!(
                "the whole row of \"{name}\", which an outer join may leave out, is not supported"
            );
            return Err(Error::unsupported(message)
                .with_hint("Name its columns, or give the table a primary key."));
        };
        let is_absent = Expr::IsNull(Box::new(column_of(&table, key)));
        Ok(Some(Expr::Case {
            case_token: AttachedToken::empty(),
            end_token: AttachedToken::empty(),
            operand: None,
            conditions: vec![CaseWhen {
                condition: is_absent,
                result: null(),
            }],
            else_result: Some(Box::new(row)),
        }))
    }

    /// The innermost table of a name, with its columns.
    fn table_of(&self, name: &str) -> Option<(&Scope, Option<&Vec<Output>>)> {
        self.scopes.iter().rev().find_map(|scope| {
            let mut tables = scope.tables.iter();
            let (_, columns) = tables.find(|(table, _)| table == name)?;
            Some((scope, columns.as_ref()))
        })
    }

    /// The type of the whole row of a table, where those of its columns are known.
    pub(super) fn row_type(&self, name: &str) -> Option<DataType> {
        let (scope, columns) = self.table_of(name)?;
        let fields = columns?.iter().map(|column| {
            let data_type = column.data_type.clone()?;
            Some(Field::new(&column.name, data_type, true))
        });
        let fields = fields.collect::<Option<Vec<_>>>()?;
        (!scope.values.contains(name)).then(|| DataType::Struct(fields.into()))
    }

    /// Puts rows in place of `t.*` among the arguments of a call, the columns in `ROW(t.*)`.
    ///
    /// Errors: `0A000` where the columns of the table are not known.
    pub(super) fn row_arguments(&self, function: &mut Function) -> Result<()> {
        let is_row = function.name.to_string().eq_ignore_ascii_case("row");
        let FunctionArguments::List(list) = &mut function.args else {
            return Ok(());
        };
        let mut args = Vec::with_capacity(list.args.len());
        for arg in list.args.drain(..) {
            let FunctionArg::Unnamed(FunctionArgExpr::QualifiedWildcard(name)) = &arg else {
                args.push(arg);
                continue;
            };
            let unnamed = |e| FunctionArg::Unnamed(FunctionArgExpr::Expr(e));
            match self.columns_named(name) {
                Some(columns) if is_row => args.extend(columns.into_iter().map(unnamed)),
                _ => args.push(unnamed(self.row_named(name)?)),
            }
        }
        list.args = args;
        Ok(())
    }

    /// The same among the parts of `(t.*, x)`.
    pub(super) fn row_parts(&self, parts: &mut Vec<Expr>) -> Result<()> {
        for part in std::mem::take(parts) {
            match &part {
                Expr::QualifiedWildcard(name, _) => {
                    parts.extend(self.columns_named(name).ok_or_else(unknown)?);
                }
                _ => parts.push(part),
            }
        }
        Ok(())
    }

    /// The row that `t.*` is as a value.
    ///
    /// Errors: `0A000` where the columns of the table are not known.
    pub(super) fn row_named(&self, name: &ast::ObjectName) -> Result<Expr> {
        self.whole_row(&table_named(name))?.ok_or_else(unknown)
    }

    fn columns_named(&self, name: &ast::ObjectName) -> Option<Vec<Expr>> {
        let table = table_named(name);
        let columns = self.table_of(&table)?.1?;
        let name = self.other_name(&table).unwrap_or_else(|| quoted(&table));
        Some(columns.iter().map(|c| column_of(&name, c)).collect())
    }
}

fn table_named(name: &ast::ObjectName) -> String {
    let table = name.0.last().and_then(|part| part.as_ident());
    table.cloned().map(fold).unwrap_or_default()
}

fn unknown() -> Error {
    Error::unsupported("whole rows of this table as values are not supported")
        .with_hint("Name a column, in place of count(t.*) one that is never NULL.")
}

fn column_of(table: &Ident, column: &Output) -> Expr {
    Expr::CompoundIdentifier(vec![table.clone(), quoted(&column.unique)])
}

/// The row of a table's columns.
fn row_of(table: &Ident, columns: &[Output]) -> Expr {
    let field = |column: &Output| StructField {
        field_name: Some(quoted(&column.name)),
        field_type: ast::DataType::Boolean,
        options: None,
    };
    let names = Expr::Cast {
        kind: CastKind::Cast,
        expr: Box::new(null()),
        data_type: ast::DataType::Struct(
            columns.iter().map(field).collect(),
            StructBracketKind::AngleBrackets,
        ),
        array: false,
        format: None,
    };
    let values = columns.iter().map(|column| column_of(table, column));
    let args = values.chain([names]);
    let args = args.map(|e| FunctionArg::Unnamed(FunctionArgExpr::Expr(e)));
    Expr::Function(function("named_record", &args.collect::<Vec<_>>()))
}
