//! Calls and operators that PostgreSQL's grammar writes in words of its own, where sqlparser knows
//! them not, or takes what PostgreSQL does not.
//!
//! * `POSITION` and `EXTRACT` take nothing but `POSITION(a IN b)` and `EXTRACT(field FROM x)`;
//! * `NORMALIZE(text [, form])` is the call `normalize(text, 'form')`;
//! * `bpchar 'text'` is a constant, and so is `interval(2) 'text'`;
//! * `x COLLATE name` may follow any expression;
//! * `x LIKE ANY (array)` is `x ~~ ANY (array)`, and so on with ILIKE, NOT, ALL and SOME;
//! * `x IN (VALUES ..)` is one of a subquery;
//! * a list of `IN` may begin with a subquery: `x IN ((SELECT 1), 2)`.

use super::dialect::{TidemarkDialect, call};
use datafusion_sql::sqlparser::ast::{
    BinaryOperator, CastKind, DataType, Expr, Interval, ObjectName, SetExpr, TableFactor, Value,
};
use datafusion_sql::sqlparser::dialect::{Dialect, Precedence};
use datafusion_sql::sqlparser::keywords::Keyword;
use datafusion_sql::sqlparser::parser::{Parser, ParserError};
use datafusion_sql::sqlparser::tokenizer::Token;

type Parsed = Option<Result<Expr, ParserError>>;

/// Tokens that are looked at for the end of what stands in parentheses.
const TOKENS_MAX: usize = 1000;

fn keyword(parser: &Parser, n: usize) -> Keyword {
    match parser.peek_nth_token_ref(n).token {
        Token::Word(ref word) if word.quote_style.is_none() => word.keyword,
        _ => Keyword::NoKeyword,
    }
}

/// The beginning of an expression, if it is one of those here.
pub(super) fn prefix(parser: &mut Parser) -> Parsed {
    let Token::Word(word) = &parser.peek_token_ref().token else {
        return None;
    };
    if word.quote_style.is_some() {
        return None;
    }
    let is = |name: &str| word.value.eq_ignore_ascii_case(name);
    match &parser.peek_nth_token_ref(1).token {
        Token::LParen if word.keyword == Keyword::POSITION => without_in(parser).map(Err),
        Token::LParen if word.keyword == Keyword::EXTRACT => without_from(parser).map(Err),
        Token::LParen if word.keyword == Keyword::INTERVAL => precise_interval(parser),
        Token::LParen if is("normalize") => Some(normalize(parser)),
        Token::SingleQuotedString(_) if is("bpchar") => Some(typed_constant(parser)),
        _ => None,
    }
}

/// The error of a `POSITION(..)` without IN.
fn without_in(parser: &Parser) -> Option<ParserError> {
    let mut depth = 0;
    for n in 2..TOKENS_MAX {
        let next = parser.peek_nth_token_ref(n);
        match next.token {
            Token::LParen | Token::LBracket => depth += 1,
            Token::RParen | Token::Comma if depth == 0 => {
                return parser.expected_ref::<()>("IN", next).err();
            }
            Token::RParen | Token::RBracket => depth -= 1,
            Token::EOF => return None,
            _ if depth == 0 && keyword(parser, n) == Keyword::IN => return None,
            _ => {}
        }
    }
    None
}

/// The error of an `EXTRACT(..)` that is not of one word and FROM.
fn without_from(parser: &Parser) -> Option<ParserError> {
    if keyword(parser, 3) == Keyword::FROM {
        return None;
    }
    let field = parser.peek_nth_token_ref(2);
    let wrong = match field.token {
        Token::Word(_) | Token::SingleQuotedString(_) => parser.peek_nth_token_ref(3),
        _ => field,
    };
    parser.expected_ref::<()>("FROM", wrong).err()
}

/// `interval(2) 'text'`.
fn precise_interval(parser: &mut Parser) -> Parsed {
    let token = |n: usize| &parser.peek_nth_token_ref(n).token;
    let (Token::Number(digits, _), Token::RParen) = (token(2), token(3)) else {
        return None;
    };
    let digits = digits.parse().ok()?;
    let Token::SingleQuotedString(text) = token(4) else {
        return None;
    };
    let value = Value::SingleQuotedString(text.clone());
    (0..5).for_each(|_| parser.advance_token());
    Some(Ok(Expr::Interval(Interval {
        value: Box::new(Expr::Value(value.into())),
        leading_field: None,
        leading_precision: None,
        last_field: None,
        fractional_seconds_precision: Some(digits),
    })))
}

fn normalize(parser: &mut Parser) -> Result<Expr, ParserError> {
    parser.next_token();
    parser.expect_token(&Token::LParen)?;
    let text = parser.parse_expr()?;
    let mut form = "NFC".to_string();
    if parser.consume_token(&Token::Comma) {
        let next = parser.peek_token_ref();
        let known = ["NFC", "NFD", "NFKC", "NFKD"];
        match &next.token {
            Token::Word(word)
                if word.quote_style.is_none()
                    && known.iter().any(|k| word.value.eq_ignore_ascii_case(k)) =>
            {
                form = word.value.to_uppercase();
            }
            _ => return parser.expected_ref("a normal form", next),
        }
        parser.next_token();
    }
    parser.expect_token(&Token::RParen)?;
    let form = Expr::Value(Value::SingleQuotedString(form).into());
    Ok(call("normalize", [text, form]))
}

/// `type 'text'`.
fn typed_constant(parser: &mut Parser) -> Result<Expr, ParserError> {
    let name = parser.parse_identifier()?;
    let value = parser.parse_value()?;
    Ok(Expr::Cast {
        kind: CastKind::Cast,
        expr: Box::new(Expr::Value(value)),
        data_type: DataType::Custom(ObjectName::from(vec![name]), Vec::new()),
        array: false,
        format: None,
    })
}

/// What follows an expression, if it is one of those here; `too_long` refuses it.
pub(super) fn infix(parser: &mut Parser, expr: &Expr, too_long: impl Fn() -> Parsed) -> Parsed {
    if parser.parse_keyword(Keyword::COLLATE) {
        if let Some(error) = too_long() {
            return Some(error);
        }
        return Some(
            parser
                .parse_object_name(false)
                .map(|collation| Expr::Collate {
                    expr: Box::new(expr.clone()),
                    collation,
                }),
        );
    }
    if let Some((op, all)) = quantified_like(parser) {
        if let Some(error) = too_long() {
            return Some(error);
        }
        return Some(like_any(parser, expr, op, all));
    }
    if let Some(negated) = in_values(parser) {
        return Some(too_long().unwrap_or_else(|| values_of(parser, expr, negated)));
    }
    let negated = in_list(parser)?;
    if let Some(error) = too_long() {
        return Some(error);
    }
    Some(list_of(parser, expr, negated))
}

/// Whether `[NOT] IN (VALUES ..` is next, and negated; takes all before VALUES.
fn in_values(parser: &mut Parser) -> Option<bool> {
    let negated = keyword(parser, 0) == Keyword::NOT;
    let at = usize::from(negated);
    let is_it = keyword(parser, at) == Keyword::IN
        && parser.peek_nth_token_ref(at + 1).token == Token::LParen
        && keyword(parser, at + 2) == Keyword::VALUES;
    if !is_it {
        return None;
    }
    (0..at + 2).for_each(|_| parser.advance_token());
    Some(negated)
}

fn values_of(parser: &mut Parser, expr: &Expr, negated: bool) -> Result<Expr, ParserError> {
    let values = parser.parse_query()?;
    parser.expect_token(&Token::RParen)?;
    let all = "SELECT * FROM (VALUES (1)) AS \"*VALUES*\"";
    let mut subquery = Parser::new(&TidemarkDialect)
        .try_with_sql(all)?
        .parse_query()?;
    if let SetExpr::Select(select) = subquery.body.as_mut()
        && let Some(TableFactor::Derived { subquery, .. }) =
            select.from.first_mut().map(|from| &mut from.relation)
    {
        *subquery = values;
    }
    Ok(Expr::InSubquery {
        expr: Box::new(expr.clone()),
        subquery,
        negated,
    })
}

/// The operator of `[NOT] LIKE ANY` and its like, and whether ALL is meant; takes the words.
fn quantified_like(parser: &mut Parser) -> Option<(BinaryOperator, bool)> {
    let not = usize::from(keyword(parser, 0) == Keyword::NOT);
    let op = match (keyword(parser, not), not) {
        (Keyword::LIKE, 0) => BinaryOperator::PGLikeMatch,
        (Keyword::LIKE, _) => BinaryOperator::PGNotLikeMatch,
        (Keyword::ILIKE, 0) => BinaryOperator::PGILikeMatch,
        (Keyword::ILIKE, _) => BinaryOperator::PGNotILikeMatch,
        _ => return None,
    };
    let all = match keyword(parser, not + 1) {
        Keyword::ALL => true,
        Keyword::ANY | Keyword::SOME => false,
        _ => return None,
    };
    if parser.peek_nth_token_ref(not + 2).token != Token::LParen {
        return None;
    }
    (0..not + 2).for_each(|_| parser.advance_token());
    Some((op, all))
}

fn like_any(
    parser: &mut Parser,
    expr: &Expr,
    compare_op: BinaryOperator,
    all: bool,
) -> Result<Expr, ParserError> {
    let right = parser.parse_subexpr(TidemarkDialect.prec_value(Precedence::Like))?;
    let (left, right) = (Box::new(expr.clone()), Box::new(right));
    Ok(if all {
        Expr::AllOp {
            left,
            compare_op,
            right,
        }
    } else {
        Expr::AnyOp {
            left,
            compare_op,
            right,
            is_some: false,
        }
    })
}

/// Whether `[NOT] IN ((..), ..)` is next, with more behind the inner parentheses than a query has,
/// and whether it is negated.
fn in_list(parser: &Parser) -> Option<bool> {
    let not = usize::from(keyword(parser, 0) == Keyword::NOT);
    let open = |n: usize| parser.peek_nth_token_ref(n).token == Token::LParen;
    if keyword(parser, not) != Keyword::IN || !open(not + 1) || !open(not + 2) {
        return None;
    }
    let mut depth = 0;
    for n in not + 2..TOKENS_MAX {
        match parser.peek_nth_token_ref(n).token {
            Token::LParen => depth += 1,
            Token::RParen => depth -= 1,
            Token::EOF => return None,
            _ => {}
        }
        if depth == 0 {
            let list = parser.peek_nth_token_ref(n + 1).token == Token::Comma;
            return list.then_some(not == 1);
        }
    }
    None
}

fn list_of(parser: &mut Parser, expr: &Expr, negated: bool) -> Result<Expr, ParserError> {
    if negated {
        parser.next_token();
    }
    parser.expect_keyword_is(Keyword::IN)?;
    parser.expect_token(&Token::LParen)?;
    let list = parser.parse_comma_separated(Parser::parse_expr)?;
    parser.expect_token(&Token::RParen)?;
    Ok(Expr::InList {
        expr: Box::new(expr.clone()),
        list,
        negated,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(sql: &str) -> Result<String, ParserError> {
        let parser = Parser::new(&TidemarkDialect).try_with_sql(sql);
        parser
            .and_then(|mut p| p.parse_expr())
            .map(|e| e.to_string())
    }

    #[test]
    fn words_of_the_grammar() {
        for (sql, read) in [
            ("normalize(a || b, nfd)", "normalize(a || b, 'NFD')"),
            ("normalize(a)", "normalize(a, 'NFC')"),
            ("bpchar 'a '", "CAST('a ' AS bpchar)"),
            ("a::text collate \"C\" < b", "a::TEXT COLLATE \"C\" < b"),
            ("a like any (b) and c", "a ~~ ANY((b)) AND c"),
            ("a not ilike all (b)", "a !~~* ALL((b))"),
            ("a not in ((select 1), 2)", "a NOT IN ((SELECT 1), 2)"),
            ("a in ((select 1))", "a IN ((SELECT 1))"),
            ("position(a in b)", "POSITION(a IN b)"),
            ("extract(year from a)", "EXTRACT(YEAR FROM a)"),
        ] {
            assert_eq!(text(sql).as_deref(), Ok(read), "{sql}");
        }
        for sql in [
            "position(a, b)",
            "extract('year', a)",
            "normalize(a, 'NFC')",
        ] {
            assert!(text(sql).is_err(), "{sql}");
        }
    }
}
