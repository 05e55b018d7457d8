//! SQL/JSON paths as statements write them: a cast to `jsonpath` is a call that checks the text and
//! puts it in the type's form, and arguments that are named (`silent => true`) find their places.

use super::moments::function;
use datafusion_sql::sqlparser::ast::{
    DataType, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, Value,
};

const FUNCTIONS: [&str; 4] = [
    "jsonb_path_exists",
    "jsonb_path_match",
    "jsonb_path_query_array",
    "jsonb_path_query_first",
];

/// Rewrites a cast, or a call of a function that gives one value.
pub(super) fn rewrite(expr: &mut Expr) {
    match expr {
        Expr::Cast {
            expr: inner,
            data_type: DataType::Custom(name, _),
            array: false,
            ..
        } => {
            let is_path = |i: &Ident| i.value.eq_ignore_ascii_case("jsonpath");
            let last = name.0.last().and_then(|part| part.as_ident());
            if last.is_some_and(is_path) {
                let text = FunctionArg::Unnamed(FunctionArgExpr::Expr(inner.as_ref().clone()));
                *expr = Expr::Function(function("jsonpath", &[text]));
            }
        }
        Expr::Function(Function {
            name,
            args: FunctionArguments::List(list),
            ..
        }) => {
            let last = name.0.last().and_then(|part| part.as_ident());
            let is_known = |i: &Ident| FUNCTIONS.iter().any(|f| i.value.eq_ignore_ascii_case(f));
            if last.is_some_and(is_known) {
                positional(&mut list.args);
            }
        }
        _ => {}
    }
}

/// Puts named arguments in their places, if they have some there that nothing else has.
pub(super) fn positional(args: &mut Vec<FunctionArg>) {
    const NAMES: [&str; 4] = ["target", "path", "vars", "silent"];
    let mut places: [Option<FunctionArgExpr>; 4] = Default::default();
    let mut is_named = false;
    for (i, arg) in args.iter().enumerate() {
        let (place, value) = match arg {
            FunctionArg::Unnamed(value) if !is_named => (Some(i), value),
            FunctionArg::Named { name, arg, .. } => {
                is_named = true;
                let folded = crate::names::fold(name.clone());
                (NAMES.iter().position(|n| *n == folded), arg)
            }
            _ => return,
        };
        let place = place.and_then(|i| places.get_mut(i));
        match place {
            Some(place) if place.is_none() => *place = Some(value.clone()),
            _ => return,
        }
    }
    if !is_named || places[0].is_none() || places[1].is_none() {
        return;
    }
    if places[3].is_some() && places[2].is_none() {
        let none = Expr::Value(Value::SingleQuotedString("{}".into()).into());
        places[2] = Some(FunctionArgExpr::Expr(none));
    }
    let values = places.into_iter().flatten();
    *args = values.map(FunctionArg::Unnamed).collect();
}
