//! Errors of which DataFusion tells a text only, recognised by their wording. Each function knows
//! one family and answers nothing for the others; `errors.slt` and the corpus of bad statements
//! hold them to the version in use.

use crate::names::similar;
use arrow_schema::ArrowError;
use tidemark_common::{Error, SqlState};
use tidemark_plan::messages::{cannot_cast, plain, sql_types};

/// Functions that there are with OVER only.
const WINDOW_FUNCTIONS: [&str; 11] = [
    "row_number",
    "rank",
    "dense_rank",
    "percent_rank",
    "cume_dist",
    "ntile",
    "lag",
    "lead",
    "first_value",
    "last_value",
    "nth_value",
];

/// PostgreSQL's functions, one per line: a call of one that is missing is no mistake of the user's.
const POSTGRES_FUNCTIONS: &str = include_str!("postgres_functions.txt");

const WINDOW_ERROR: SqlState = SqlState("42P20");
const INVALID_REFERENCE: SqlState = SqlState("42P10");

/// The error behind a text, if it is one of those that are known.
pub(super) fn recognised(text: &str) -> Option<Error> {
    if text.contains("nconsistent metadata across values list") {
        return Some(Error::unsupported(
            "texts of different declared lengths in one column of VALUES are not supported",
        ));
    }
    let families = [
        names, functions, operators, unions, conditions, grouping, windows, subqueries, casts,
        columns, values,
    ];
    families.iter().find_map(|family| family(text))
}

/// The error behind one of Arrow's that is about types: then it is one of planning.
pub(super) fn recognised_arrow(error: &ArrowError) -> Option<Error> {
    match error {
        ArrowError::InvalidArgumentError(text) | ArrowError::ComputeError(text) => operators(text),
        _ => None,
    }
}

/// Whether a reason is about DataFusion's own types and says nothing to a user.
pub(super) fn says_nothing(why: &str) -> bool {
    const INSIDE: [&str; 4] = ["{ ", "(Ident", "::", "not implemented yet"];
    why.is_empty() || INSIDE.iter().any(|part| why.contains(part))
}

/// What DataFusion says it does not do.
pub(super) fn not_implemented(text: &str) -> Error {
    if let Some(known) = recognised(text) {
        return known;
    }
    let has = |part: &str| text.contains(part);
    let what = match () {
        () if has("Recursive CTE") => "WITH RECURSIVE is not supported",
        () if has("array literal") => "ARRAY[...] is not supported",
        () if has("Unsupported ast node") || has("Unsupported SQL") || has("Unsupported AST") => {
            "this kind of expression is not supported"
        }
        () if has("subquery") || has("Subquery") || has("OuterReferenceColumn") => {
            "this kind of subquery is not supported"
        }
        () => {
            let why = plain(text);
            return Error::unsupported(if says_nothing(&why) {
                "this kind of expression is not supported".to_string()
            } else {
                why
            });
        }
    };
    Error::unsupported(what)
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(before)?;
    rest.split_once(after).map(|(found, _)| found)
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// Relations, functions and parameters that there are not.
fn names(text: &str) -> Option<Error> {
    if let Some(name) = between(text, "able function '", "' not found") {
        return Some(Error::user(
            SqlState::UNDEFINED_FUNCTION,
            format!("function {name} does not exist"),
        ));
    }
    if let Some(name) = between(text, "table '", "' not found") {
        let name = name.rsplit('.').next().unwrap_or(name);
        return Some(Error::user(
            SqlState::UNDEFINED_TABLE,
            format!("relation \"{name}\" does not exist"),
        ));
    }
    if let Some((_, rest)) = text.split_once("Invalid function '") {
        let (name, rest) = rest.split_once('\'').unwrap_or((rest, ""));
        if WINDOW_FUNCTIONS.contains(&name) {
            let message = format!("window function {name} requires an OVER clause");
            let error = Error::user(SqlState::WRONG_OBJECT_TYPE, message);
            return Some(error);
        }
        if POSTGRES_FUNCTIONS.lines().any(|function| function == name) {
            let message = format!("function {name} is not supported");
            return Some(Error::unsupported(message));
        }
        let error = Error::user(
            SqlState::UNDEFINED_FUNCTION,
            format!("function {name} does not exist"),
        );
        let close = rest
            .split_once("Did you mean '")
            .and_then(|(_, close)| close.split('\'').next())
            .filter(|close| similar(name, [*close]).is_some());
        return Some(match close {
            Some(close) => error.with_hint(format!("Perhaps you meant \"{close}\".")),
            None => error.with_hint("No function matches the given name."),
        });
    }
    if let Some(n) = between(text, "laceholder '", "' was not provided") {
        return Some(Error::user(
            SqlState("42P02"),
            format!("there is no parameter {n}"),
        ));
    }
    if text.contains("laceholder type") {
        return Some(Error::user(
            SqlState("42P18"),
            "could not determine data type of parameter",
        ));
    }
    if text.contains("is not Struct, Map, or Null") {
        return Some(
            Error::user(
                SqlState::WRONG_OBJECT_TYPE,
                "a column that is not a struct has no fields",
            )
            .with_hint("Is the name before the dot the alias of a table in FROM?"),
        );
    }
    if text.contains("dot access not supported for non-string expr") {
        return Some(Error::unsupported("fields of a row are not supported"));
    }
    let compound = between(text, "ompound identifier '", "'")
        .or_else(|| between(text, "ompound identifier: ", " "))
        .or_else(|| between_ends(first_line(text), "Invalid qualifier "))?;
    let table = compound.split('.').next().unwrap_or(compound);
    Some(Error::user(
        SqlState::UNDEFINED_TABLE,
        format!("missing FROM-clause entry for table \"{table}\""),
    ))
}

fn no_function(call: String) -> Error {
    // `ARRAY[..]`.
    if let Some(types) = call.strip_prefix("make_array(") {
        if types.contains("[]") {
            return Error::unsupported("arrays of several dimensions are not supported");
        }
        let types = types.trim_end_matches(')').replace(", ", " and ");
        let message = format!("ARRAY types {types} cannot be matched");
        return Error::user(SqlState::DATATYPE_MISMATCH, message);
    }
    Error::user(
        SqlState::UNDEFINED_FUNCTION,
        format!("function {call} does not exist"),
    )
    .with_hint(
        "No function matches the given name and argument types. You might need to add explicit \
         type casts.",
    )
}

/// Functions that do not take these arguments.
fn functions(text: &str) -> Option<Error> {
    if let Some(call) = between(text, "argument types '", "'") {
        return Some(no_function(sql_types(call)));
    }
    let line = first_line(text);
    if let Some((_, rest)) = line.split_once("function ")
        && let Some(call) = rest.strip_suffix(" does not exist")
        && call.ends_with(')')
    {
        return Some(no_function(sql_types(call)));
    }
    let quoted_name = |text: &str| {
        let name = between(text, "unction '", "'").or_else(|| between(text, "call to '", "'"))?;
        let plain = name.chars().all(|c| c.is_alphanumeric() || c == '_');
        plain.then(|| name.to_string())
    };
    if let (Some(name), Some(types)) = (
        quoted_name(text),
        between(text, "coercion from ", " to the signature"),
    ) {
        let types = types.trim_start_matches('[').trim_end_matches(']');
        return Some(no_function(format!("{name}({})", sql_types(types))));
    }
    if line.contains("COUNT DISTINCT with multiple arguments") {
        return Some(no_function("count with several arguments".into()));
    }
    let about_arguments = [
        "failed to match any signature",
        "user-defined coercion failed",
        "could not coerce",
        "Failed to coerce arguments",
        "argument",
        "expects Numeric",
        "expects String",
        "are not coercible",
        "is not comparable",
        "requires ",
        "zero arguments",
    ];
    let named = quoted_name(text).or_else(|| {
        let rest = between(text, "The function ", " ")?;
        Some(rest.trim_matches('\'').to_string())
    });
    if let Some(name) = named
        && about_arguments.iter().any(|part| line.contains(part))
    {
        return Some(
            Error::user(
                SqlState::UNDEFINED_FUNCTION,
                format!("function {name} does not exist for arguments of these types"),
            )
            .with_hint(
                "No function matches the given name and argument types. You might need to add \
                 explicit type casts.",
            ),
        );
    }
    if line.contains("unnest() requires") || line.contains("unnest() can only") {
        return Some(
            Error::user(
                SqlState::UNDEFINED_FUNCTION,
                "function unnest does not exist for arguments of these types",
            )
            .with_hint("It takes one array."),
        );
    }
    if let Some((name, types)) = between_ends(line, "Sum not supported for ")
        .map(|t| ("sum", t))
        .or_else(|| between_ends(line, "SUM not supported for ").map(|t| ("sum", t)))
        .or_else(|| between_ends(line, "Avg does not support inputs of type ").map(|t| ("avg", t)))
    {
        let types = sql_types(types.trim_end_matches('.'));
        return Some(no_function(format!("{name}({types})")));
    }
    None
}

/// What comes after `before`, up to the end.
fn between_ends<'a>(text: &'a str, before: &str) -> Option<&'a str> {
    text.split_once(before).map(|(_, rest)| rest)
}

/// `operator does not exist: integer = text`.
fn no_operator(operation: &str) -> Error {
    let mut said = sql_types(operation);
    for (theirs, sql) in [
        (" IS NOT DISTINCT FROM ", " = "),
        (" IS DISTINCT FROM ", " = "),
        (" NOT ILIKE ", " !~~* "),
        (" ILIKE ", " ~~* "),
        (" NOT LIKE ", " !~~ "),
        (" LIKE ", " ~~ "),
        (" != ", " <> "),
        (" BIT_XOR ", " # "),
    ] {
        said = said.replace(theirs, sql);
    }
    Error::user(
        SqlState::UNDEFINED_FUNCTION,
        format!("operator does not exist: {said}"),
    )
    .with_hint(
        "No operator matches the given name and argument types. You might need to add explicit \
         type casts.",
    )
}

/// Operators that do not take these operands.
fn operators(text: &str) -> Option<Error> {
    let line = first_line(text);
    if let Some(operation) = between(line, "logical boolean operation ", "\n")
        .or_else(|| between_ends(line, "logical boolean operation "))
    {
        let parts = sql_types(operation);
        let op = if parts.contains(" OR ") { "OR" } else { "AND" };
        let (left, right) = parts.split_once(&format!(" {op} ")).unwrap_or((&parts, ""));
        let wrong = if left == "boolean" { right } else { left };
        return Some(Error::user(
            SqlState::DATATYPE_MISMATCH,
            format!("argument of {op} must be type boolean, not type {wrong}"),
        ));
    }
    if let Some(operation) = between(line, "arithmetic expression ", " to valid types") {
        return Some(no_operator(operation));
    }
    if let Some(operation) = between(line, "Cannot get result type for ", ": ")
        .or_else(|| between_ends(line, "There isn't result type for "))
    {
        let operation = operation
            .trim_start_matches("arithmetic ")
            .trim_start_matches("decimal ")
            .trim_start_matches("temporal ")
            .trim_start_matches("operation ");
        return Some(no_operator(operation));
    }
    if line.contains("Cannot infer common") {
        let kinds = [
            "comparison operation ",
            "regex operation ",
            "concat operation ",
            "bitwise operation ",
            "AtAt operation ",
            "operation ",
        ];
        let operation = kinds.iter().find_map(|kind| between_ends(line, kind));
        return operation.map(no_operator);
    }
    if let Some((left, list)) = between_ends(line, "compatible types to compare ")
        .and_then(|rest| rest.split_once(" with ["))
    {
        let list = list.trim_end_matches(']');
        // The first that differs.
        let types = split_types(list);
        let right = types.iter().find(|t| **t != left).unwrap_or(&left);
        return Some(no_operator(&format!("{left} = {right}")));
    }
    if let Some((left, right)) = between_ends(line, "expr type ")
        .and_then(|rest| rest.split_once(" can't cast to "))
        .and_then(|(l, rest)| Some((l, rest.rsplit_once(" in ")?.0)))
    {
        return Some(no_operator(&format!("{left} = {right}")));
    }
    if let Some(rest) = between_ends(line, "There isn't a common type to coerce ")
        && let Some((types, op)) = rest.rsplit_once(" in ")
        && let Some((left, right)) = types.split_once(" and ")
    {
        let op = op.trim_end_matches(" expression");
        return Some(no_operator(&format!("{left} {op} {right}")));
    }
    if let Some((left, right)) = between_ends(line, "nvalid comparison operation: ")
        .and_then(|rest| rest.split_once(' '))
        .and_then(|(left, rest)| Some((left, rest.split_once(' ')?)))
    {
        let op = if right.0 == "==" { "=" } else { right.0 };
        return Some(no_operator(&format!("{left} {op} {}", right.1)));
    }
    if line.contains("Negation only supports") {
        return Some(
            Error::user(
                SqlState::UNDEFINED_FUNCTION,
                "operator does not exist: - of a value that is no number and no interval",
            )
            .with_hint("You might need to add explicit type casts."),
        );
    }
    None
}

/// Types in a list: commas within a type's parentheses part nothing.
fn split_types(list: &str) -> Vec<&str> {
    let mut depth = 0;
    list.split(|c| {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        c == ',' && depth == 0
    })
    .map(str::trim)
    .collect()
}

fn unmatched(what: &str, left: &str, right: &str) -> Error {
    Error::user(
        SqlState::DATATYPE_MISMATCH,
        format!(
            "{what} types {} and {} cannot be matched",
            sql_types(left),
            sql_types(right)
        ),
    )
}

/// What has to have one type, or one number of columns.
fn unions(text: &str) -> Option<Error> {
    let line = first_line(text);
    let syntax = |message: &str| Some(Error::user(SqlState::SYNTAX_ERROR, message));
    if line.contains("INTERSECT/EXCEPT") && line.contains("same number of columns") {
        return syntax("each INTERSECT or EXCEPT query must have the same number of columns");
    }
    if line.contains("UNION") && line.contains("number of columns")
        || line.contains("have different number of columns")
        || line.contains("must have the same number of columns")
    {
        return syntax("each UNION query must have the same number of columns");
    }
    if let Some((left, right)) = between_ends(line, "Previous inputs were of type ")
        .and_then(|rest| rest.split_once(", but got incompatible type "))
    {
        let right = right.split(" on column").next().unwrap_or(right);
        return Some(unmatched("UNION", left, right));
    }
    if let Some((left, right)) =
        between_ends(line, "ncompatible inputs for Union").and_then(|rest| rest.split_once(" and "))
    {
        return Some(unmatched(
            "UNION",
            left.trim_start_matches([':', ' ']),
            right,
        ));
    }
    if let Some((left, right)) = between_ends(line, "values list at row ")
        .and_then(|rest| between_ends(rest, "Was "))
        .and_then(|rest| rest.split_once(" but found "))
    {
        return Some(unmatched("VALUES", left, right));
    }
    if line.contains("annot project plan column") && line.contains("to expected output field") {
        let message = "the terms of a recursive query have columns of different types";
        let error = Error::user(SqlState::DATATYPE_MISMATCH, message);
        return Some(error.with_hint("Cast the columns of the first term."));
    }
    if line.contains("Inconsistent data length across values list") {
        return syntax("VALUES lists must all be the same length");
    }
    if line.contains("CASE WHEN expression") || line.contains("CASE expression") {
        if let (Some(first), Some(second)) = (
            between(line, "case (", ") and when"),
            between(line, "when (", ") to common"),
        ) {
            let types = split_types(second);
            let right = types.iter().find(|t| **t != first).unwrap_or(&first);
            return Some(no_operator(&format!("{first} = {right}")));
        }
        if let Some(then) = between(line, "then (", ") and else") {
            let mut types = split_types(then);
            let other = between(line, "else (", ") to common").filter(|t| *t != "None");
            types.extend(other);
            let left = types.first().copied().unwrap_or_default();
            let right = types.iter().find(|t| **t != left).unwrap_or(&left);
            return Some(unmatched("CASE", left, right));
        }
        return Some(Error::user(
            SqlState::DATATYPE_MISMATCH,
            "the types of CASE cannot be matched",
        ));
    }
    None
}

/// What has to be a boolean, or a number.
fn conditions(text: &str) -> Option<Error> {
    let line = first_line(text);
    let not_boolean = |what: &str, found: &str| {
        Some(Error::user(
            SqlState::DATATYPE_MISMATCH,
            format!(
                "argument of {what} must be type boolean, not type {}",
                sql_types(found.trim())
            ),
        ))
    };
    if line.contains("Cannot create filter with non-boolean predicate") {
        return not_boolean("WHERE", line.rsplit(" returning ").next()?);
    }
    if let Some(found) = between_ends(line, "requires a boolean expression, ") {
        return not_boolean("NOT", found.trim_start_matches("got "));
    }
    if let Some((what, found)) = line.split_once(" must be boolean type, but got ") {
        let what = if what.contains("oin") {
            "JOIN/ON"
        } else {
            "WHERE"
        };
        return not_boolean(what, found.trim_matches('\''));
    }
    if let Some((what, found)) = between_ends(line, "Expected ")
        .and_then(|rest| rest.split_once(" to be an integer or null, but got "))
    {
        return Some(Error::user(
            SqlState::DATATYPE_MISMATCH,
            format!(
                "argument of {} must be type bigint, not type {}",
                what.to_uppercase(),
                sql_types(found)
            ),
        ));
    }
    if line.contains("LIMIT must be >= 0") {
        return Some(Error::user(SqlState("2201W"), "LIMIT must not be negative"));
    }
    if line.contains("OFFSET must be >=0") {
        return Some(Error::user(
            SqlState("2201X"),
            "OFFSET must not be negative",
        ));
    }
    None
}

fn ungrouped(column: &str) -> Error {
    Error::user(
        SqlState::GROUPING_ERROR,
        format!(
            "column \"{column}\" must appear in the GROUP BY clause or be used in an aggregate \
             function"
        ),
    )
}

/// GROUP BY, aggregates, ORDER BY and DISTINCT.
fn grouping(text: &str) -> Option<Error> {
    let grouping = |message: &str| Some(Error::user(SqlState::GROUPING_ERROR, message));
    if text.contains("HAVING clause references") {
        return grouping(
            "columns in HAVING must appear in the GROUP BY clause or be used in an aggregate \
             function",
        );
    }
    if text.contains("Column in SELECT must be in GROUP BY")
        || text.contains("must appear in the GROUP BY")
        || text.contains("references non-aggregate values")
        || text.contains("could not be resolved from available columns")
    {
        let column = between(text, "column \"", "\" must appear")
            .or_else(|| between(text, "non-aggregate values: Expression ", " could not"))
            .or_else(|| {
                let (_, rest) = text.split_once("must be in GROUP BY")?;
                rest.split('"').nth(1)
            });
        return match column {
            Some(column) => Some(ungrouped(column)),
            None => grouping(
                "columns must appear in the GROUP BY clause or be used in an aggregate function",
            ),
        };
    }
    if text.contains("Aggregate functions are not allowed in the WHERE clause") {
        return grouping("aggregate functions are not allowed in WHERE");
    }
    if text.contains("to grouping function is not in grouping columns") {
        return grouping(
            "arguments to GROUPING must be grouping expressions of the associated query level",
        );
    }
    if text.contains("calls cannot be nested") {
        return grouping("aggregate function calls cannot be nested");
    }
    let reference = |message: String| Some(Error::user(INVALID_REFERENCE, message));
    if text.contains("ORDER BY expressions") && text.contains("must appear in select list") {
        return reference(
            "for SELECT DISTINCT, ORDER BY expressions must appear in select list".into(),
        );
    }
    if text.contains("DISTINCT ON expressions must match") {
        return reference(
            "SELECT DISTINCT ON expressions must match initial ORDER BY expressions".into(),
        );
    }
    if let Some(n) = between(text, "rder by column out of bounds, specified: ", ",") {
        return reference(format!("ORDER BY position {n} is not in select list"));
    }
    if let Some(n) = between(text, "find column with position ", " in SELECT") {
        return reference(format!("GROUP BY position {n} is not in select list"));
    }
    None
}

/// Window functions.
fn windows(text: &str) -> Option<Error> {
    let window = |message: &str| Some(Error::user(WINDOW_ERROR, message));
    if let Some(name) = between(text, "he window ", " is not defined") {
        return Some(Error::user(
            SqlState::UNDEFINED_OBJECT,
            format!("window \"{}\" does not exist", name.trim_matches('"')),
        ));
    }
    if text.contains("start bound (") && text.contains(") cannot be larger") {
        return Some(Error::unsupported(
            "a frame that begins behind its end is not supported",
        ));
    }
    match () {
        () if text.contains("only support Literal types for field") => Some(Error::unsupported(
            "an argument of a window function that must be constant here varies: the offset of lag \
             and lead, the place of nth_value",
        )),
        () if text.contains("FILTER clause can only be used with aggregate window functions") => {
            Some(Error::unsupported(
                "FILTER is not implemented for non-aggregate window functions",
            ))
        }
        () if text.contains("RANGE requires exactly one ORDER BY column") => {
            window("RANGE with offset PRECEDING/FOLLOWING requires exactly one ORDER BY column")
        }
        () if text.contains("GROUPS requires an ORDER BY clause") => {
            window("GROUPS mode requires an ORDER BY clause")
        }
        () if text.contains("start bound cannot be UNBOUNDED FOLLOWING") => {
            window("frame start cannot be UNBOUNDED FOLLOWING")
        }
        () if text.contains("end bound cannot be UNBOUNDED PRECEDING") => {
            window("frame end cannot be UNBOUNDED PRECEDING")
        }
        () if text.contains("must be non negative integers") => Some(Error::user(
            SqlState("22013"),
            "frame starting offset must not be negative",
        )),
        () => None,
    }
}

/// Subqueries as values.
fn subqueries(text: &str) -> Option<Error> {
    // Of a correlated subquery that decorrelation has put where no join can take its place.
    if text.contains("orrelated scalar subquery can only be used in") {
        return Some(Error::unsupported(
            "a subquery that refers to the query around it is not supported in this place",
        ));
    }
    if text.contains("only return one column")
        || text.contains("must return only one column")
        || text.contains("must return exactly one column")
        || text.contains("Too many columns!")
    {
        return Some(Error::user(
            SqlState::SYNTAX_ERROR,
            "subquery must return only one column",
        ));
    }
    if text.contains("must be aggregated to return at most one row") {
        return Some(
            Error::unsupported(
                "a subquery that refers to the query around it must be an aggregate to be a value",
            )
            .with_hint("Use max or min, or write it as a join."),
        );
    }
    if text.contains("ore than one row") || text.contains("calar subquery") && text.contains("row")
    {
        return Some(Error::user(
            SqlState("21000"),
            "more than one row returned by a subquery used as an expression",
        ));
    }
    if text.contains("does not support logical expression")
        || text.contains("Unsupported subquery")
        || text.contains("OuterReferenceColumn")
        || text.contains("Accessing outer reference columns")
        || text.contains("outer reference")
        || text.contains("correlated subquery") && !text.contains("at most one row")
    {
        return Some(Error::unsupported("this kind of subquery is not supported"));
    }
    None
}

/// Casts that there are not, and texts that are no such value.
fn casts(text: &str) -> Option<Error> {
    let line = first_line(text);
    let cast = [
        "Unsupported CAST from ",
        "Cannot automatically convert ",
        "Casting from ",
    ]
    .iter()
    .find_map(|before| between_ends(line, before));
    if let Some((from, to)) = cast.and_then(|rest| rest.split_once(" to ")) {
        let to = to.trim_end_matches(" not supported");
        return Some(cannot_cast(from, to));
    }
    if line.contains("Cannot cast string") || line.contains("Cannot cast value") {
        let start = line.find("Cannot cast").unwrap_or(0);
        let arrow = ArrowError::CastError(line[start..].to_string());
        return Some(tidemark_plan::messages::arrow_error(&arrow));
    }
    if line.contains("ivision by zero") || line.contains("ivide by zero") {
        return Some(Error::user(SqlState::DIVISION_BY_ZERO, "division by zero"));
    }
    if line.contains("verflow") || line.contains("out of range") {
        let arrow = ArrowError::ArithmeticOverflow(line.to_string());
        return Some(tidemark_plan::messages::arrow_error(&arrow));
    }
    if line.contains("regex") || line.contains("egular expression") {
        // A parser of regular expressions draws a picture first.
        let lines = text.lines().rev();
        let why = lines
            .filter_map(|l| l.trim().strip_prefix("error: "))
            .next()
            .map_or_else(|| plain(line), plain);
        return Some(Error::user(
            SqlState("2201B"),
            format!("invalid regular expression: {why}"),
        ));
    }
    None
}

/// Columns of one name.
fn columns(text: &str) -> Option<Error> {
    if let Some((columns, names)) = between(text, "ource table contains ", " names given as")
        .and_then(|rest| rest.split_once(" columns but only "))
    {
        return Some(Error::user(
            INVALID_REFERENCE,
            format!("table has {columns} columns available but {names} columns specified"),
        ));
    }
    let (_, rest) = text.split_once("unique expression names but the expression \"")?;
    let expression = rest.split("\" at position").next().unwrap_or(rest);
    let name = expression.rsplit(" AS ").next().unwrap_or(expression);
    let name = plain(name.rsplit('.').next().unwrap_or(name));
    Some(
        Error::user(
            SqlState::DUPLICATE_COLUMN,
            format!("column \"{name}\" specified more than once"),
        )
        .with_hint("Give it another name with AS."),
    )
}

/// INSERT, and values that a function does not take.
fn values(text: &str) -> Option<Error> {
    if let Some(name) = between(text, "no built-in encoding named '", "'") {
        return Some(Error::user(
            SqlState::INVALID_PARAMETER,
            format!("unrecognized encoding: \"{name}\""),
        ));
    }
    if text.contains("Column count doesn't match insert query") {
        return Some(Error::user(
            SqlState::SYNTAX_ERROR,
            "INSERT has another number of expressions than of target columns",
        ));
    }
    None
}
