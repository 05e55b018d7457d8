//! PostgreSQL's dialect of sqlparser's, with what it gets wrong put right.
//!
//! `IS [NOT] DISTINCT FROM` binds as `IS` does: `a IS DISTINCT FROM b AND c` is `(a IS DISTINCT
//! FROM b) AND c`. sqlparser reads its right side as a whole expression, up to the next comma or
//! parenthesis, so a condition behind it would be compared instead of tested.
//!
//! A sign binds closer than `^`: `-3 ^ 2` is 9.
//!
//! `SUBSTRING(text SIMILAR pattern ESCAPE escape)`, which sqlparser does not know, is the call
//! `substring(text, pattern, escape)`.
//!
//! `x BETWEEN SYMMETRIC a AND b` is `(x BETWEEN a AND b OR x BETWEEN b AND a)`.
//!
//! `moment AT TIME ZONE zone` is the call `timezone(zone, moment)`, as in PostgreSQL.
//!
//! The name of a named argument is an identifier, which is all that planning takes. PostgreSQL's
//! dialect reads every argument as an expression first, to see whether it is a name, and then once
//! more: calls within calls took twice the time for each level.
//!
//! Behind a dot `user`, `current_date` and their like are names of columns, and `x ISNULL` is `x IS
//! NULL`.
//!
//! `STRUCT<a int>` and `MAP<k, v>` are types, and `MAP {k: v}` is a value, as in RisingWave
//! (`composite`).
//!
//! What else PostgreSQL's grammar has words for is in `special`.
//!
//! The beginnings of expressions and SELECTs are the steps that the parsing of a statement is held
//! to ([`within`](crate::limits::within)).
//!
//! Every other method that `PostgreSqlDialect` overrides is delegated to it, and `dialect` names
//! its type: the parser asks for the type where it has no method.

use super::{is_word, special};
use crate::limits::{EXPRESSION_DEPTH_MAX, chain_length, step};
use datafusion_sql::sqlparser::ast::{
    BinaryOperator, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList,
    FunctionArguments, Ident, ObjectName, UnaryOperator,
};
use datafusion_sql::sqlparser::dialect::{Dialect, PostgreSqlDialect, Precedence};
use datafusion_sql::sqlparser::keywords::Keyword;
use datafusion_sql::sqlparser::parser::{Parser, ParserError};
use datafusion_sql::sqlparser::tokenizer::Token;
use std::any::TypeId;

/// The dialect that everything is parsed with.
#[derive(Debug, Clone, Copy)]
pub struct TidemarkDialect;

const POSTGRES: PostgreSqlDialect = PostgreSqlDialect {};

macro_rules! delegate {
    ($($name:ident($($argument:ident: $type:ty),*) -> $answer:ty;)*) => {
        $(fn $name(&self $(, $argument: $type)*) -> $answer {
            POSTGRES.$name($($argument),*)
        })*
    };
}

impl Dialect for TidemarkDialect {
    fn dialect(&self) -> TypeId {
        TypeId::of::<PostgreSqlDialect>()
    }

    fn parse_prefix(&self, parser: &mut Parser) -> Option<Result<Expr, ParserError>> {
        step();
        // The parser would follow these by a recursion that it does not count.
        let interval =
            |token: &Token| matches!(token, Token::Word(w) if w.keyword == Keyword::INTERVAL);
        let next = parser.peek_token_ref();
        let current = parser.get_current_token();
        // Before the first token, that is the current one.
        let behind = current.span != next.span;
        if behind && interval(&next.token) && interval(&current.token) {
            return Some(parser.expected_ref("the text of an interval", next));
        }
        if let Some(name) = field_name(parser) {
            return Some(Ok(Expr::Identifier(name)));
        }
        if is_similar_substring(parser) {
            return Some(similar_substring(parser));
        }
        if let Some(side) = trimmed_side(parser) {
            return Some(trim_from(parser, side));
        }
        if let Some(parsed) = special::prefix(parser) {
            return Some(parsed);
        }
        // A sign binds closer than any operator between two operands, other prefixes less close
        // than arithmetic: `@ 1 - 2` is `@ (1 - 2)`.
        let (op, precedence) = match parser.peek_token_ref().token {
            Token::Minus => (UnaryOperator::Minus, Precedence::Caret),
            Token::Plus => (UnaryOperator::Plus, Precedence::Caret),
            Token::Tilde => (UnaryOperator::BitwiseNot, Precedence::PgOther),
            Token::AtSign => (UnaryOperator::PGAbs, Precedence::PgOther),
            Token::PGSquareRoot => (UnaryOperator::PGSquareRoot, Precedence::PgOther),
            Token::PGCubeRoot => (UnaryOperator::PGCubeRoot, Precedence::PgOther),
            _ => return None,
        };
        parser.next_token();
        let operand = parser.parse_subexpr(self.prec_value(precedence));
        Some(operand.map(|expr| Expr::UnaryOp {
            op,
            expr: Box::new(expr),
        }))
    }

    fn supports_struct_literal(&self) -> bool {
        true
    }

    fn support_map_literal_syntax(&self) -> bool {
        true
    }

    fn supports_map_literal_with_angle_brackets(&self) -> bool {
        true
    }

    fn supports_empty_projections(&self) -> bool {
        step();
        POSTGRES.supports_empty_projections()
    }

    fn parse_infix(
        &self,
        parser: &mut Parser,
        expr: &Expr,
        _precedence: u8,
    ) -> Option<Result<Expr, ParserError>> {
        let too_long = || {
            // Each copies all before it.
            let too_long = chain_length(expr) >= EXPRESSION_DEPTH_MAX;
            too_long.then_some(Err(ParserError::RecursionLimitExceeded))
        };
        if parser.parse_keywords(&[Keyword::AT, Keyword::TIME, Keyword::ZONE]) {
            if let Some(error) = too_long() {
                return Some(error);
            }
            return Some(
                parser
                    .parse_subexpr(self.prec_value(Precedence::AtTz))
                    .map(|zone| call("timezone", [zone, expr.clone()])),
            );
        }
        if let Some((negated, symmetric)) = between(parser) {
            if let Some(error) = too_long() {
                return Some(error);
            }
            let range = parser.parse_between(expr.clone(), negated && !symmetric);
            return Some(range.map(|range| {
                if symmetric {
                    either_way(range, negated)
                } else {
                    range
                }
            }));
        }
        if let Some(parsed) = special::infix(parser, expr, too_long) {
            return Some(parsed);
        }
        if is_word(&parser.peek_token_ref().token, "isnull") {
            parser.next_token();
            return Some(Ok(Expr::IsNull(Box::new(expr.clone()))));
        }
        let not =
            parser.parse_keywords(&[Keyword::IS, Keyword::NOT, Keyword::DISTINCT, Keyword::FROM]);
        if !not && !parser.parse_keywords(&[Keyword::IS, Keyword::DISTINCT, Keyword::FROM]) {
            return None;
        }
        if let Some(error) = too_long() {
            return Some(error);
        }
        let left = Box::new(expr.clone());
        let right = parser
            .parse_subexpr(self.prec_value(Precedence::Is))
            .map(Box::new);
        Some(right.map(|right| {
            if not {
                Expr::IsNotDistinctFrom(left, right)
            } else {
                Expr::IsDistinctFrom(left, right)
            }
        }))
    }

    // A colon ends the bound of a slice, however low its operators bind; it is no operator itself.
    fn get_next_precedence(&self, parser: &Parser) -> Option<Result<u8, ParserError>> {
        match parser.peek_token_ref().token {
            Token::Colon => Some(Ok(0)),
            ref token if is_word(token, "isnull") => Some(Ok(self.prec_value(Precedence::Is))),
            _ => POSTGRES.get_next_precedence(parser),
        }
    }

    fn prec_value(&self, prec: Precedence) -> u8 {
        match prec {
            Precedence::Colon => 0,
            other => POSTGRES.prec_value(other),
        }
    }

    /// All words but those that PostgreSQL reserves, and what begins a clause of ours.
    fn is_table_alias(&self, keyword: &Keyword, parser: &mut Parser) -> bool {
        is_table_alias(*keyword, parser)
    }

    /// All words but those that PostgreSQL wants AS before.
    fn is_column_alias(&self, keyword: &Keyword, _parser: &mut Parser) -> bool {
        use Keyword::*;
        !matches!(
            keyword,
            ARRAY
                | AS
                | CHAR
                | CHARACTER
                | CREATE
                | DAY
                | EXCEPT
                | FETCH
                | FILTER
                | FOR
                | FROM
                | GRANT
                | GROUP
                | HAVING
                | HOUR
                | INTERSECT
                | INTO
                | LIMIT
                | MINUTE
                | MONTH
                | NOTNULL
                | OFFSET
                | ON
                | ORDER
                | OVER
                | OVERLAPS
                | PRECISION
                | RETURNING
                | SECOND
                | TO
                | UNION
                | VARYING
                | WHERE
                | WINDOW
                | WITH
                | WITHIN
                | WITHOUT
                | YEAR
        )
    }

    delegate! {
        identifier_quote_style(identifier: &str) -> Option<char>;
        is_delimited_identifier_start(ch: char) -> bool;
        is_identifier_start(ch: char) -> bool;
        is_identifier_part(ch: char) -> bool;
        supports_unicode_string_literal() -> bool;
        is_reserved_for_identifier(kw: Keyword) -> bool;
        is_custom_operator_part(ch: char) -> bool;
        supports_filter_during_aggregation() -> bool;
        supports_group_by_expr() -> bool;
        allow_extract_custom() -> bool;
        allow_extract_single_quotes() -> bool;
        supports_create_index_with_clause() -> bool;
        supports_explain_with_utility_options() -> bool;
        supports_listen_notify() -> bool;
        supports_factorial_operator() -> bool;
        supports_bitwise_shift_operators() -> bool;
        supports_comment_on() -> bool;
        supports_load_extension() -> bool;
        supports_named_fn_args_with_colon_operator() -> bool;
        supports_nested_comments() -> bool;
        supports_string_escape_constant() -> bool;
        supports_numeric_literal_underscores() -> bool;
        supports_array_typedef_with_brackets() -> bool;
        supports_geometric_types() -> bool;
        supports_set_names() -> bool;
        supports_alter_column_type_using() -> bool;
        supports_notnull_operator() -> bool;
        supports_interval_options() -> bool;
        supports_insert_table_alias() -> bool;
        supports_create_table_like_parenthesized() -> bool;
        supports_select_wildcard_with_alias() -> bool;
        supports_comma_separated_trim() -> bool;
        supports_xml_expressions() -> bool;
        supports_comment_optimizer_hint() -> bool;
    }
}

/// Whether a word behind a table without AS is its alias; `parser` stands behind the word.
fn is_table_alias(word: Keyword, parser: &Parser) -> bool {
    use Keyword::*;
    let next = &parser.peek_token_ref().token;
    let before_join = || {
        let kinds = ["join", "left", "inner"];
        kinds.iter().any(|kind| is_word(next, kind))
    };
    match word {
        ALL | ANALYZE | AND | ANY | ARRAY | AS | ASC | ASYMMETRIC | AUTHORIZATION | BINARY
        | BOTH | CASE | CAST | CHECK | COLLATE | COLLATION | COLUMN | CONCURRENTLY | CONSTRAINT
        | CREATE | CROSS | DEFAULT | DEFERRABLE | DESC | DISTINCT | DO | ELSE | END | EXCEPT
        | FALSE | FETCH | FOR | FOREIGN | FREEZE | FROM | FULL | GRANT | GROUP | HAVING | ILIKE
        | IN | INITIALLY | INNER | INTERSECT | INTO | IS | JOIN | LATERAL | LEADING | LEFT
        | LIKE | LIMIT | NATURAL | NOT | NOTNULL | NULL | OFFSET | ON | ONLY | OR | ORDER
        | OUTER | OVERLAPS | PLACING | PRIMARY | REFERENCES | RETURNING | RIGHT | SELECT
        | SIMILAR | SOME | SYMMETRIC | TABLE | TABLESAMPLE | THEN | TO | TRAILING | TRUE
        | UNION | UNIQUE | USER | USING | VERBOSE | WHEN | WHERE | WINDOW | WITH => false,
        ANTI | ASOF | GLOBAL | SEMI => !before_join(),
        MATCH_CONDITION | VALUES => *next != Token::LParen,
        // UPDATE t SET ..
        SET => !matches!(next, Token::Word(_) | Token::LParen),
        _ => true,
    }
}

/// The function of `TRIM([side] FROM text)`, if that is next.
fn trimmed_side(parser: &Parser) -> Option<&'static str> {
    let keyword = |n: usize| match parser.peek_nth_token_ref(n).token {
        Token::Word(ref word) => word.keyword,
        _ => Keyword::NoKeyword,
    };
    if keyword(0) != Keyword::TRIM || parser.peek_nth_token_ref(1).token != Token::LParen {
        return None;
    }
    match (keyword(2), keyword(3)) {
        (Keyword::FROM, _) | (Keyword::BOTH, Keyword::FROM) => Some("btrim"),
        (Keyword::LEADING, Keyword::FROM) => Some("ltrim"),
        (Keyword::TRAILING, Keyword::FROM) => Some("rtrim"),
        _ => None,
    }
}

/// `TRIM([side] FROM text)`, without what is trimmed: blanks.
fn trim_from(parser: &mut Parser, function: &str) -> Result<Expr, ParserError> {
    while !parser.parse_keyword(Keyword::FROM) {
        parser.next_token();
    }
    let text = parser.parse_expr()?;
    parser.expect_token(&Token::RParen)?;
    Ok(call(function, [text]))
}

/// Tokens that are looked at for `SIMILAR`.
const SIMILAR_TOKENS_MAX: usize = 1000;

/// Whether `SUBSTRING(text SIMILAR ..)` is next.
fn is_similar_substring(parser: &Parser) -> bool {
    let keyword = |n: usize| match parser.peek_nth_token_ref(n).token {
        Token::Word(ref word) => word.keyword,
        _ => Keyword::NoKeyword,
    };
    if keyword(0) != Keyword::SUBSTRING || parser.peek_nth_token_ref(1).token != Token::LParen {
        return false;
    }
    let mut depth = 0;
    for n in 2..SIMILAR_TOKENS_MAX {
        match parser.peek_nth_token_ref(n).token {
            Token::LParen => depth += 1,
            Token::RParen if depth == 0 => return false,
            Token::RParen => depth -= 1,
            Token::Comma | Token::EOF if depth == 0 => return false,
            Token::EOF => return false,
            // `a SIMILAR TO b` is a condition.
            _ if depth == 0 && keyword(n) == Keyword::SIMILAR => {
                return keyword(n + 1) != Keyword::TO;
            }
            _ => {}
        }
    }
    false
}

/// `SUBSTRING(text SIMILAR pattern ESCAPE escape)` is a call of three texts.
fn similar_substring(parser: &mut Parser) -> Result<Expr, ParserError> {
    parser.next_token();
    parser.expect_token(&Token::LParen)?;
    let operand = TidemarkDialect.prec_value(Precedence::Like);
    let text = parser.parse_subexpr(operand)?;
    parser.expect_keyword_is(Keyword::SIMILAR)?;
    let pattern = parser.parse_subexpr(operand)?;
    parser.expect_keyword_is(Keyword::ESCAPE)?;
    let escape = parser.parse_expr()?;
    parser.expect_token(&Token::RParen)?;
    Ok(call("substring", [text, pattern, escape]))
}

/// The name behind a dot, where it is a word that is a call without parentheses elsewhere; takes
/// it.
fn field_name(parser: &mut Parser) -> Option<Ident> {
    const CALLS: [&str; 10] = [
        "user",
        "current_user",
        "current_role",
        "session_user",
        "current_catalog",
        "current_date",
        "current_time",
        "current_timestamp",
        "localtime",
        "localtimestamp",
    ];
    let next = parser.peek_token_ref();
    let behind_dot = parser.get_current_token().token == Token::Period;
    if !behind_dot || !CALLS.iter().any(|name| is_word(&next.token, name)) {
        return None;
    }
    let Token::Word(word) = &next.token else {
        return None;
    };
    let name = word.clone().into_ident(next.span);
    if parser.peek_nth_token_ref(1).token == Token::LParen {
        return None;
    }
    parser.next_token();
    Some(name)
}

/// `[NOT] BETWEEN SYMMETRIC` and `ASYMMETRIC`: whether it is negated, and whether symmetric.
fn between(parser: &mut Parser) -> Option<(bool, bool)> {
    for negated in [false, true] {
        for symmetric in [false, true] {
            let last = if symmetric {
                Keyword::SYMMETRIC
            } else {
                Keyword::ASYMMETRIC
            };
            let words = [Keyword::NOT, Keyword::BETWEEN, last];
            if parser.parse_keywords(&words[usize::from(!negated)..]) {
                return Some((negated, symmetric));
            }
        }
    }
    None
}

/// A range whose bounds may be exchanged.
fn either_way(range: Expr, negated: bool) -> Expr {
    let Expr::Between {
        expr, low, high, ..
    } = &range
    else {
        return range;
    };
    let exchanged = Expr::Between {
        expr: expr.clone(),
        negated: false,
        low: high.clone(),
        high: low.clone(),
    };
    let either = Expr::Nested(Box::new(Expr::BinaryOp {
        left: Box::new(range),
        op: BinaryOperator::Or,
        right: Box::new(exchanged),
    }));
    if negated {
        Expr::Nested(Box::new(Expr::UnaryOp {
            op: UnaryOperator::Not,
            expr: Box::new(either),
        }))
    } else {
        either
    }
}

pub(super) fn call<const N: usize>(function: &str, args: [Expr; N]) -> Expr {
    let args = args
        .map(|arg| FunctionArg::Unnamed(FunctionArgExpr::Expr(arg)))
        .into();
    Expr::Function(Function {
        name: ObjectName::from(vec![Ident::new(function)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList {
            duplicate_treatment: None,
            args,
            clauses: Vec::new(),
        }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expression(sql: &str) -> String {
        let parsed = Parser::new(&TidemarkDialect)
            .try_with_sql(sql)
            .and_then(|mut p| p.parse_expr());
        match parsed.unwrap_or_else(|e| panic!("{sql}: {e}")) {
            Expr::BinaryOp { left, op, right } => format!("({left}) {op} ({right})"),
            Expr::IsDistinctFrom(left, right) => format!("({left}) IS DISTINCT FROM ({right})"),
            Expr::IsNotDistinctFrom(left, right) => {
                format!("({left}) IS NOT DISTINCT FROM ({right})")
            }
            Expr::UnaryOp { op, expr } => format!("{op} ({expr})"),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn distinct_from_binds_as_is_does() {
        let cases = [
            (
                "a is distinct from b and c",
                "(a IS DISTINCT FROM b) AND (c)",
            ),
            (
                "a is not distinct from b or c = d",
                "(a IS NOT DISTINCT FROM b) OR (c = d)",
            ),
            (
                "c and a is not distinct from b",
                "(c) AND (a IS NOT DISTINCT FROM b)",
            ),
            (
                "a + 1 is distinct from b + 2",
                "(a + 1) IS DISTINCT FROM (b + 2)",
            ),
            (
                "a = 1 is not distinct from b = 2",
                "(a = 1) IS NOT DISTINCT FROM (b = 2)",
            ),
            ("not a is distinct from b", "NOT (a IS DISTINCT FROM b)"),
        ];
        for (sql, expected) in cases {
            assert_eq!(expression(sql), expected, "{sql}");
        }
    }

    #[test]
    fn ranges_may_be_symmetric() {
        let text = |sql: &str| {
            let parsed = Parser::new(&TidemarkDialect)
                .try_with_sql(sql)
                .and_then(|mut p| p.parse_expr());
            parsed.unwrap_or_else(|e| panic!("{sql}: {e}")).to_string()
        };
        let both = "(x BETWEEN 1 AND 2 OR x BETWEEN 2 AND 1)";
        assert_eq!(
            text("x between symmetric 1 and 2 and y"),
            format!("{both} AND y")
        );
        assert_eq!(
            text("x not between symmetric 1 and 2"),
            format!("(NOT {both})")
        );
        assert_eq!(text("x between asymmetric 1 and 2"), "x BETWEEN 1 AND 2");
    }

    #[test]
    fn time_zones_are_calls() {
        assert_eq!(
            Parser::new(&TidemarkDialect)
                .try_with_sql("a + b AT TIME ZONE 'UTC' < c")
                .and_then(|mut p| p.parse_expr())
                .unwrap()
                .to_string(),
            "a + timezone('UTC', b) < c"
        );
    }

    #[test]
    fn calls_within_calls_are_read_once() {
        let depth = 40;
        let sql = format!("{}f(a => 1){}", "f(".repeat(depth), ")".repeat(depth));
        assert_eq!(
            Parser::new(&TidemarkDialect)
                .try_with_sql(&sql)
                .and_then(|mut p| p.parse_expr())
                .unwrap()
                .to_string(),
            sql
        );
    }

    #[test]
    fn signs_bind_closer_than_powers() {
        for (sql, powers) in [("-3 ^ 2", true), ("-x ^ y", true), ("-(x ^ y)", false)] {
            let parsed = Parser::new(&TidemarkDialect)
                .try_with_sql(sql)
                .and_then(|mut parser| parser.parse_expr())
                .unwrap();
            let is_power = matches!(parsed, Expr::BinaryOp { .. });
            assert_eq!(is_power, powers, "{sql}: {parsed:?}");
        }
    }

    #[test]
    fn everything_else_is_postgresqls() {
        let texts = [
            "select a::int, b[1], e'\\n', u&'x', x'ff', interval '1 day', 1_000, a ->> 'b', a ~* \
             'b', |/ 4, a # b, a notnull from t",
            "select count(*) filter (where a), trim(both 'x' from b), extract('epoch' from c), \
             json_object(a) /* a /* nested */ comment */ from äö$1",
            "insert into t as x values (default) on conflict (a) do update set b = excluded.b \
             returning *",
            "select distinct on (a) a from t where a is null and b is not true and c between 1 and \
             2 order by a limit 1",
            "explain (verbose, format json) select",
            "create index i on t using btree (a) include (b) with (fillfactor = 70)",
            "alter table t alter column a type int using a::int",
            "comment on table t is 'x'",
            "listen c",
        ];
        for sql in texts {
            let (ours, postgres) = (
                Parser::parse_sql(&TidemarkDialect, sql),
                Parser::parse_sql(&POSTGRES, sql),
            );
            assert_eq!(format!("{ours:?}"), format!("{postgres:?}"));
            assert!(ours.is_ok(), "{sql}: {ours:?}");
        }
    }
}
