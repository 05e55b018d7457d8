//! `FETCH` and `MOVE`: sqlparser wants FROM or IN before the cursor's name, and has no MOVE. And
//! cursors of subscriptions.

use super::{Front, is_word};
use crate::options::only_options;
use crate::statement::{FetchRows, Since, StatementKind};
use datafusion_sql::sqlparser::tokenizer::Token;
use tidemark_common::{Error, Result, SqlState};
use tidemark_values::moment::{IntervalFields, read_interval};

impl Front<'_> {
    /// What follows the statement's first word.
    pub(super) fn fetch(&mut self, moves: bool) -> Result<StatementKind> {
        // Any word that stands alone, or behind FROM, is a name.
        let alone = matches!(self.peek().token, Token::Word(_))
            && self.parser.peek_nth_token_ref(1).token == Token::EOF;
        let rows = match alone || self.at_word("from") || self.at_word("in") {
            true => FetchRows::Next(1),
            false => self.direction()?,
        };
        let _ = self.word("from") || self.word("in");
        let cursor = self.identifier()?;
        let timeout = match !moves && self.word("with") {
            true => Some(self.timeout()?),
            false => None,
        };
        Ok(StatementKind::Fetch {
            cursor,
            rows,
            moves,
            timeout,
        })
    }

    /// `(timeout = '1s')`, in microseconds.
    fn timeout(&mut self) -> Result<i64> {
        let position = self.position();
        let options = self.options()?;
        only_options(&options, &["timeout"])?;
        let wrong = || {
            let message = "FETCH .. WITH takes a timeout, such as timeout = '1s'";
            Error::user(SqlState::INVALID_PARAMETER, message).at(position)
        };
        let text = options.get("timeout").ok_or_else(wrong)?;
        let span = read_interval(text, IntervalFields::All, 6)?;
        match span.months == 0 && span.days == 0 && span.micros >= 0 {
            true => Ok(span.micros),
            false => Err(wrong()),
        }
    }

    /// `DECLARE name SUBSCRIPTION CURSOR FOR subscription [SINCE moment | FULL]`, if it is that.
    pub(super) fn declare_subscription(&mut self) -> Result<Option<StatementKind>> {
        let is = |n: usize, word: &str| is_word(&self.parser.peek_nth_token_ref(n).token, word);
        if !is(0, "declare") || !is(2, "subscription") || !is(3, "cursor") {
            return Ok(None);
        }
        self.word("declare");
        let cursor = self.identifier()?;
        self.words(&["subscription", "cursor"]);
        self.expect_word("for")?;
        let subscription = self.name()?;
        let since = match () {
            () if self.word("full") => Since::Full,
            () if self.word("since") => self.since()?,
            () => Since::Now,
        };
        Ok(Some(StatementKind::DeclareSubscription {
            cursor,
            subscription,
            since,
        }))
    }

    fn since(&mut self) -> Result<Since> {
        if let Token::Number(digits, _) = &self.peek().token
            && let Ok(millis) = digits.parse()
        {
            self.parser.advance_token();
            return Ok(Since::Millis(millis));
        }
        let since = match () {
            () if self.word("now") || self.word("proctime") => Since::Now,
            () if self.word("begin") => Since::Begin,
            () => {
                return Err(self.unexpected("now(), begin() or milliseconds since 1970"));
            }
        };
        self.expect(&Token::LParen)?;
        self.expect(&Token::RParen)?;
        Ok(since)
    }

    fn direction(&mut self) -> Result<FetchRows> {
        let elsewhere = ["prior", "first", "last"];
        Ok(match () {
            () if self.word("next") => FetchRows::Next(1),
            () if self.word("forward") => self.count()?.unwrap_or(FetchRows::Next(1)),
            () if elsewhere.iter().any(|word| self.word(word)) => FetchRows::Elsewhere,
            () if self.word("backward") => {
                self.count()?;
                FetchRows::Elsewhere
            }
            () if self.word("absolute") || self.word("relative") => {
                if self.at_word("all") || self.count()?.is_none() {
                    return Err(self.unexpected("a number"));
                }
                FetchRows::Elsewhere
            }
            // Else it is the cursor's name.
            () => self.count()?.unwrap_or(FetchRows::Next(1)),
        })
    }

    /// A number, or ALL.
    fn count(&mut self) -> Result<Option<FetchRows>> {
        if self.word("all") {
            return Ok(Some(FetchRows::All));
        }
        let negative = self.token(&Token::Minus);
        if !negative {
            self.token(&Token::Plus);
        }
        let Token::Number(digits, _) = &self.peek().token else {
            return match negative {
                true => Err(self.unexpected("a number")),
                false => Ok(None),
            };
        };
        let Ok(number) = digits.parse::<i32>() else {
            return Err(self.unexpected("a number of rows"));
        };
        self.parser.advance_token();
        Ok(Some(match usize::try_from(number) {
            Ok(number) if !negative || number == 0 => FetchRows::Next(number),
            _ => FetchRows::Elsewhere,
        }))
    }

    /// The token of a `PREPARE .. AS` behind which comes no query and no write: only those are
    /// prepared.
    pub(super) fn check_prepared(&self) -> Result<()> {
        const PREPARED: [&str; 7] = [
            "select", "insert", "update", "delete", "values", "with", "table",
        ];
        let token = |n: usize| &self.parser.peek_nth_token_ref(n).token;
        if !self.at_word("prepare") {
            return Ok(());
        }
        let mut at = 2;
        if *token(at) == Token::LParen {
            while !matches!(token(at), Token::EOF) && !is_word(token(at), "as") {
                at += 1;
            }
        }
        let begins = token(at + 1);
        let known = *begins == Token::LParen || PREPARED.iter().any(|word| is_word(begins, word));
        if !is_word(token(at), "as") || known {
            return Ok(());
        }
        Err(self.unexpected_at(at + 1, "a query or a write"))
    }
}
