//! Functions that give rows: `jsonb_array_elements(x)` is `unnest(jsonb_elements(x))`, in
//! SELECT as in FROM.

use datafusion_sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, ObjectName, TableAlias,
    TableAliasColumnDef, TableFactor,
};

/// Name, the function that gives the list, and the column that it has in FROM; without one, the
/// column is called as the table is.
const ROWS: [(&str, &str, Option<&str>); 5] = [
    ("jsonb_array_elements", "jsonb_elements", Some("value")),
    (
        "jsonb_array_elements_text",
        "jsonb_element_texts",
        Some("value"),
    ),
    ("jsonb_object_keys", "jsonb_keys", None),
    ("regexp_matches", "regexp_match_rows", None),
    ("regexp_split_to_table", "regexp_split_rows", None),
];

fn rows_of(name: &ObjectName) -> Option<(&'static str, Option<&'static str>)> {
    let name = name.0.last()?.as_ident()?;
    let found = ROWS
        .iter()
        .find(|(n, _, _)| name.value.eq_ignore_ascii_case(n))?;
    Some((found.1, found.2))
}

/// Rewrites a call in an expression.
pub(super) fn rewrite(expr: &mut Expr) {
    let Expr::Function(function) = expr else {
        return;
    };
    let Some((list, _)) = rows_of(&function.name) else {
        return;
    };
    function.name = ObjectName::from(vec![Ident::new(list)]);
    let inner = FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Function(function.clone())));
    function.name = ObjectName::from(vec![Ident::new("unnest")]);
    if let FunctionArguments::List(arguments) = &mut function.args {
        arguments.args = vec![inner];
    }
}

/// What a call in FROM becomes.
pub(super) fn factor(
    name: &ObjectName,
    args: &[FunctionArg],
    alias: Option<&TableAlias>,
    with_ordinality: bool,
    call: impl FnOnce(&str, &[FunctionArg]) -> Function,
) -> Option<TableFactor> {
    let (list, column) = rows_of(name)?;
    let mut alias = alias.cloned().unwrap_or_else(|| TableAlias {
        explicit: true,
        name: name
            .0
            .last()
            .and_then(|p| p.as_ident())
            .cloned()
            .unwrap_or_else(|| Ident::new(list)),
        columns: Vec::new(),
        at: None,
    });
    if alias.columns.is_empty() {
        alias.columns.push(TableAliasColumnDef {
            name: column.map_or_else(|| alias.name.clone(), Ident::new),
            data_type: None,
        });
    }
    Some(TableFactor::UNNEST {
        alias: Some(alias),
        array_exprs: vec![Expr::Function(call(list, args))],
        with_offset: false,
        with_offset_alias: None,
        with_ordinality,
    })
}
