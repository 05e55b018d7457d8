//! Statements that are not DDL of streams and not queries: SHOW, SET, DROP, ALTER, EXPLAIN,
//! transactions, jobs.

use super::{Front, is_word};
use crate::statement::*;
use datafusion_sql::sqlparser::tokenizer::Token;
use tidemark_common::{Error, Result, SqlState};
use tidemark_plan::RelationKind;
use tidemark_values::moment::{IntervalFields, interval_text_of, read_interval};

/// The words that name a kind of relation.
const KINDS: [(&[&str], RelationKind); 7] = [
    (&["materialized", "view"], RelationKind::MaterializedView),
    (&["source"], RelationKind::Source),
    (&["table"], RelationKind::Table),
    (&["view"], RelationKind::View),
    (&["sink"], RelationKind::Sink),
    (&["index"], RelationKind::Index),
    (&["subscription"], RelationKind::Subscription),
];

/// The plural words of SHOW.
const SHOWS: [(&[&str], ShowKind); 20] = [
    (&["tables"], ShowKind::Tables),
    (&["sources"], ShowKind::Sources),
    (&["materialized", "views"], ShowKind::MaterializedViews),
    (&["views"], ShowKind::Views),
    (&["sinks"], ShowKind::Sinks),
    (&["indexes"], ShowKind::Indexes),
    (&["connections"], ShowKind::Connections),
    (&["secrets"], ShowKind::Secrets),
    (&["functions"], ShowKind::Functions),
    (&["schemas"], ShowKind::Schemas),
    (&["databases"], ShowKind::Databases),
    (&["subscriptions"], ShowKind::Subscriptions),
    (&["users"], ShowKind::Users),
    (&["jobs"], ShowKind::Jobs),
    (&["cluster"], ShowKind::Cluster),
    (&["placement"], ShowKind::Placement),
    (&["checkpoints"], ShowKind::Checkpoints),
    (&["memory"], ShowKind::Memory),
    (&["processlist"], ShowKind::Processlist),
    (&["parameters"], ShowKind::Parameters),
];

/// What PostgreSQL's ALTER does to relations and we do not, by the first word.
const ALTERATIONS: [&str; 19] = [
    "add", "alter", "attach", "cluster", "depends", "detach", "disable", "drop", "enable", "force",
    "inherit", "no", "not", "of", "rename", "replica", "reset", "set", "validate",
];

impl Front<'_> {
    /// Parses a utility statement; `None` (and nothing consumed) if it is none.
    pub(super) fn utility(&mut self) -> Result<Option<StatementKind>> {
        let second = self.parser.peek_nth_token_ref(1).token.clone();
        let alone = second == Token::EOF;
        Ok(Some(match () {
            () if self.at_word("drop") => return self.drop_relation(),
            () if self.words(&["alter", "cluster", "remove", "node"]) => {
                StatementKind::RemoveNode(self.run(|p| p.parse_literal_uint())?)
            }
            () if self.words(&["alter", "cluster", "drain", "node"]) => StatementKind::DrainNode {
                node: self.run(|p| p.parse_literal_uint())?,
                is_drained: true,
            },
            () if self.words(&["alter", "cluster", "resume", "node"]) => StatementKind::DrainNode {
                node: self.run(|p| p.parse_literal_uint())?,
                is_drained: false,
            },
            () if self.at_word("alter") => return self.alter(),
            () if self.word("explain") => self.explain()?,
            () if self.word("show") => self.show()?,
            () if self.word("describe") || (self.at_word("desc") && self.word("desc")) => {
                StatementKind::Describe(self.name()?)
            }
            () if alone && self.word("flush") => StatementKind::Flush,
            () if alone && self.word("wait") => StatementKind::Wait,
            () if self.words(&["refresh", "materialized", "view"]) => {
                self.word("concurrently");
                let name = self.name()?;
                if self.word("with") {
                    self.expect_word("data")?;
                }
                StatementKind::Refresh(name)
            }
            () if self.word("truncate") => self.truncate()?,
            () if self.at_word("declare") => return self.declare_subscription(),
            () if self.word("fetch") => self.fetch(false)?,
            () if self.word("move") => self.fetch(true)?,
            () if self.word("cancel") => self.cancel()?,
            () if self.at_word("set") => self.set()?,
            () if self.word("reset") => StatementKind::Reset(if self.word("all") {
                None
            } else {
                Some(self.setting()?)
            }),
            () if self.at_word("begin")
                || self.at_word("start") && is_word(&second, "transaction") =>
            {
                self.begin()
            }
            () if self.word("commit") || self.word("end") => {
                self.end_of_transaction(StatementKind::Commit)
            }
            () if (self.at_word("rollback") || self.at_word("abort")) && !self.to_savepoint() => {
                self.parser.advance_token();
                self.end_of_transaction(StatementKind::Rollback)
            }
            () if self.at_word("comment") && is_word(&second, "on") => self.comment()?,
            () if self.word("subscribe") => StatementKind::Subscribe(self.subscribe()?),
            () if self.at_word("copy") => {
                self.parser.advance_token();
                self.copy()?
            }
            () => return Ok(None),
        }))
    }

    fn kind(&mut self) -> Option<RelationKind> {
        KINDS
            .iter()
            .find(|(words, _)| self.words(words))
            .map(|(_, kind)| *kind)
    }

    /// Whether a kind of relation stands at token `n`.
    fn at_kind(&self, n: usize) -> bool {
        KINDS.iter().any(|(words, _)| {
            words
                .iter()
                .enumerate()
                .all(|(i, w)| is_word(&self.parser.peek_nth_token_ref(n + i).token, w))
        })
    }

    fn drop_relation(&mut self) -> Result<Option<StatementKind>> {
        if self.words(&["drop", "schema"]) {
            let if_exists = self.if_exists();
            let names = self.several(Self::identifier)?;
            let cascade = self.cascade();
            return Ok(Some(StatementKind::DropSchema {
                names,
                if_exists,
                cascade,
            }));
        }
        if !self.at_kind(1) {
            return Ok(None);
        }
        self.parser.advance_token();
        let Some(kind) = self.kind() else {
            return Ok(None);
        };
        let if_exists = self.if_exists();
        let names = self.several(Self::name)?;
        let cascade = self.cascade();
        Ok(Some(StatementKind::Drop(Drop {
            kind,
            names,
            if_exists,
            cascade,
        })))
    }

    pub(super) fn cascade(&mut self) -> bool {
        let cascade = self.word("cascade");
        cascade || {
            self.word("restrict");
            false
        }
    }

    fn alter(&mut self) -> Result<Option<StatementKind>> {
        if !self.at_kind(1) {
            return Ok(None);
        }
        self.parser.advance_token();
        let Some(kind) = self.kind() else {
            return Ok(None);
        };
        let if_exists = self.if_exists();
        let name = self.name()?;
        let position = self.position();
        let action = if self.words(&["rename", "to"]) {
            AlterAction::RenameTo(self.identifier()?)
        } else if self.words(&["set", "schema"]) {
            AlterAction::SetSchema(self.identifier()?)
        } else if self.words(&["owner", "to"]) {
            AlterAction::OwnerTo(self.identifier()?)
        } else if self.words(&["set", "parallelism"]) {
            let _ = self.token(&Token::Eq) || self.word("to");
            AlterAction::SetParallelism(self.option_value()?)
        } else if self.words(&["swap", "with"]) {
            AlterAction::SwapWith(self.name()?)
        } else if self.word("resume") {
            AlterAction::Resume
        } else if self.at_column_action() {
            AlterAction::Columns(self.column_actions(&name)?)
        } else {
            let text = self.text_since(self.peek().span);
            let first: Vec<&str> = ALTERATIONS
                .into_iter()
                .filter(|w| self.at_word(w))
                .collect();
            return Err(match first.first() {
                Some(_) => {
                    let end = self
                        .tokens
                        .iter()
                        .rfind(|t| !super::is_blank(&t.token))
                        .map_or(self.peek().span.end, |t| t.span.end);
                    let action = self.source.slice(self.peek().span.start, end);
                    Error::unsupported(format!(
                        "ALTER {} ... {action} is not supported",
                        kind.name().to_uppercase()
                    ))
                    .at(position)
                }
                None => self.unexpected(if text.is_empty() {
                    "an action"
                } else {
                    "RENAME, ADD COLUMN, DROP COLUMN, SET SCHEMA, OWNER TO, SET PARALLELISM, SWAP \
                     WITH or RESUME"
                }),
            });
        };
        Ok(Some(StatementKind::Alter {
            kind,
            name,
            if_exists,
            action,
        }))
    }

    fn explain(&mut self) -> Result<StatementKind> {
        let (mut analyze, mut verbose, mut format) = (false, false, None);
        if self.token(&Token::LParen) {
            loop {
                let option = self.identifier()?;
                let value = if matches!(self.peek().token, Token::Comma | Token::RParen) {
                    "true".to_string()
                } else {
                    self.option_value()?.to_lowercase()
                };
                let on = ["true", "on", "1"].contains(&value.as_str());
                match option.as_str() {
                    "analyze" => analyze = on,
                    "verbose" => verbose = on,
                    "format" => format = Some(value),
                    "costs" | "buffers" | "timing" | "summary" | "settings" | "trace"
                    | "logical" | "physical" | "distsql" => {}
                    _ => {
                        return Err(Error::user(
                            SqlState::SYNTAX_ERROR,
                            format!("unrecognized EXPLAIN option \"{option}\""),
                        ));
                    }
                }
                if !self.token(&Token::Comma) {
                    break;
                }
            }
            self.expect(&Token::RParen)?;
        } else {
            analyze = self.word("analyze");
            verbose = self.word("verbose");
        }
        if analyze && self.at_kind(0) {
            let kind = self.kind().unwrap_or(RelationKind::MaterializedView);
            return Ok(StatementKind::ExplainJob {
                kind,
                name: self.name()?,
            });
        }
        let from = self.peek().clone();
        if from.token == Token::EOF {
            return Err(self.unexpected("a statement"));
        }
        let kind = self.statement()?;
        let text = self.text_since(from.span);
        let start = self.positions.of(from.span.start).map_or(0, |p| p - 1);
        Ok(StatementKind::Explain {
            analyze,
            verbose,
            format,
            statement: Box::new(Statement {
                text,
                start,
                positions: self.positions.clone(),
                kind,
            }),
        })
    }

    fn show(&mut self) -> Result<StatementKind> {
        if self.words(&["create", "function"]) {
            return Ok(StatementKind::Show {
                what: ShowKind::CreateFunction(self.function_name()?),
                schema: None,
                like: None,
            });
        }
        if self.word("create") {
            let Some(kind) = self.kind() else {
                return Err(
                    self.unexpected("TABLE, SOURCE, MATERIALIZED VIEW, VIEW, SINK or INDEX")
                );
            };
            let name = self.name()?;
            return Ok(StatementKind::Show {
                what: ShowKind::Create(kind, name),
                schema: None,
                like: None,
            });
        }
        if self.words(&["columns", "from"]) || self.words(&["columns", "in"]) {
            let name = self.name()?;
            return Ok(StatementKind::Show {
                what: ShowKind::Columns(name),
                schema: None,
                like: None,
            });
        }
        let listed = SHOWS.iter().find(|(words, _)| {
            let n = words.len();
            let ends = matches!(&self.parser.peek_nth_token_ref(n).token, Token::EOF)
                || ["from", "in", "like"]
                    .iter()
                    .any(|w| is_word(&self.parser.peek_nth_token_ref(n).token, w));
            ends && words
                .iter()
                .enumerate()
                .all(|(i, w)| is_word(&self.parser.peek_nth_token_ref(i).token, w))
        });
        let Some((words, what)) = listed else {
            return Ok(StatementKind::Show {
                what: ShowKind::Variable(self.setting()?),
                schema: None,
                like: None,
            });
        };
        words.iter().for_each(|_| self.parser.advance_token());
        let schema = if self.word("from") || self.word("in") {
            Some(self.identifier()?)
        } else {
            None
        };
        let like = if self.word("like") {
            Some(self.string()?)
        } else {
            None
        };
        Ok(StatementKind::Show {
            what: what.clone(),
            schema,
            like,
        })
    }

    /// The name of a setting: dotted words, or PostgreSQL's phrases.
    fn setting(&mut self) -> Result<String> {
        for (words, name) in [
            (&["time", "zone"][..], "timezone"),
            (
                &["transaction", "isolation", "level"][..],
                "transaction_isolation",
            ),
            (&["session", "authorization"][..], "session_authorization"),
        ] {
            if self.words(words) {
                return Ok(name.into());
            }
        }
        let mut name = self.identifier()?;
        while self.token(&Token::Period) {
            name = format!("{name}.{}", self.identifier()?);
        }
        Ok(name.to_lowercase())
    }

    /// `'+02:30' HOUR TO MINUTE` of SET TIME ZONE INTERVAL, as the setting's value.
    fn zone_interval(&mut self) -> Result<String> {
        let text = self.string()?;
        let position = self.position();
        let fields = if self.words(&["hour", "to", "minute"]) {
            IntervalFields::HourToMinute
        } else if self.word("hour") {
            IntervalFields::Hour
        } else {
            IntervalFields::All
        };
        let units = ["year", "month", "day", "minute", "second", "to"];
        if units.iter().any(|unit| self.at_word(unit)) {
            let message = "time zone interval must be HOUR or HOUR TO MINUTE";
            return Err(Error::user(SqlState::SYNTAX_ERROR, message).at(position));
        }
        let span = read_interval(&text, fields, 6)?;
        Ok(format!("INTERVAL '{}'", interval_text_of(span)))
    }

    fn set(&mut self) -> Result<StatementKind> {
        self.parser.advance_token();
        let session = self.words(&["session", "characteristics"]);
        if session || self.at_word("transaction") {
            return Ok(self.set_transaction(session));
        }
        let local = self.word("local");
        if !local && !is_word(&self.parser.peek_nth_token_ref(1).token, "authorization") {
            self.word("session");
        }
        if self.words(&["time", "zone"]) {
            let value = if self.word("default") || self.word("local") {
                None
            } else if self.word("interval") {
                Some(self.zone_interval()?)
            } else {
                Some(self.option_value()?)
            };
            return Ok(StatementKind::Set {
                name: "timezone".into(),
                value,
                local,
            });
        }
        let name = if self.words(&["session", "authorization"]) {
            "session_authorization".into()
        } else {
            self.setting()?
        };
        if !(self.token(&Token::Eq) || self.word("to"))
            && name != "session_authorization"
            && name != "role"
            && name != "names"
        {
            return Err(self.unexpected("TO or ="));
        }
        if self.word("default") {
            return Ok(StatementKind::Set {
                name,
                value: None,
                local,
            });
        }
        let is_role = name == "role" || name == "session_authorization";
        if is_role && matches!(self.peek().token, Token::Word(_)) {
            let value = Some(self.identifier()?);
            return Ok(StatementKind::Set { name, value, local });
        }
        let values = self.several(Self::option_value)?;
        Ok(StatementKind::Set {
            name,
            value: Some(values.join(", ")),
            local,
        })
    }

    /// `SET TRANSACTION`, `SET SESSION CHARACTERISTICS AS TRANSACTION`: the access mode is a
    /// setting; isolation levels are taken and mean nothing.
    fn set_transaction(&mut self, session: bool) -> StatementKind {
        let mut value = None;
        while self.peek().token != Token::EOF {
            if self.words(&["read", "only"]) {
                value = Some("on".to_string());
            } else if self.words(&["read", "write"]) {
                value = Some("off".to_string());
            } else {
                self.parser.advance_token();
            }
        }
        let name = match (&value, session) {
            (None, _) => "transaction",
            (Some(_), true) => "default_transaction_read_only",
            (Some(_), false) => "transaction_read_only",
        };
        StatementKind::Set {
            name: name.into(),
            value,
            local: false,
        }
    }

    fn begin(&mut self) -> StatementKind {
        let mut read_only = false;
        while self.peek().token != Token::EOF {
            read_only |= self.words(&["read", "only"]);
            if self.peek().token != Token::EOF {
                self.parser.advance_token();
            }
        }
        StatementKind::Begin { read_only }
    }

    fn end_of_transaction(&mut self, kind: StatementKind) -> StatementKind {
        let _ = self.word("transaction") || self.word("work");
        self.words(&["and", "no", "chain"]);
        kind
    }

    fn to_savepoint(&self) -> bool {
        (1..4).any(|n| is_word(&self.parser.peek_nth_token_ref(n).token, "to"))
    }

    fn cancel(&mut self) -> Result<StatementKind> {
        if !(self.word("jobs") || self.word("job")) {
            return Err(self.unexpected("JOBS"));
        }
        let mut ids = Vec::new();
        loop {
            let position = self.position();
            let id = self.run(|p| p.parse_literal_uint())?;
            ids.push(u32::try_from(id).map_err(|_| {
                Error::user(SqlState::INVALID_PARAMETER, format!("there is no job {id}"))
                    .at(position)
            })?);
            if !self.token(&Token::Comma) {
                return Ok(StatementKind::CancelJobs(ids));
            }
        }
    }

    fn comment(&mut self) -> Result<StatementKind> {
        self.words(&["comment", "on"]);
        let object = match self.kind() {
            Some(kind) => kind.name().to_string(),
            None => self.identifier()?,
        };
        let object_name = self.run(|p| p.parse_object_name(false))?;
        // The arguments of a function.
        if self.token(&Token::LParen) {
            while !self.token(&Token::RParen) && self.peek().token != Token::EOF {
                self.parser.advance_token();
            }
        }
        let name = object_name
            .0
            .iter()
            .filter_map(|p| p.as_ident().cloned().map(crate::names::fold))
            .collect();
        self.expect_word("is")?;
        let comment = if self.word("null") {
            None
        } else {
            Some(self.string()?)
        };
        Ok(StatementKind::CommentOn {
            object,
            name,
            comment,
        })
    }

    /// Parses what follows SUBSCRIBE.
    pub(super) fn subscribe(&mut self) -> Result<Subscribe> {
        self.word("to");
        let name = self.name()?;
        let mut snapshot = true;
        if self.word("with") {
            for (option, value) in self.options()? {
                snapshot = match (option.as_str(), value.to_ascii_lowercase().as_str()) {
                    ("snapshot", "true" | "on") => true,
                    ("snapshot", "false" | "off") => false,
                    ("snapshot", _) => {
                        let message = format!("\"{value}\" is no value of snapshot");
                        let error = Error::user(SqlState::INVALID_PARAMETER, message);
                        return Err(error.with_hint("It is true or false."));
                    }
                    _ => {
                        let message = format!("unrecognized option \"{option}\" of SUBSCRIBE");
                        let error = Error::user(SqlState::INVALID_PARAMETER, message);
                        return Err(error.with_hint("There is one: snapshot."));
                    }
                };
            }
        }
        Ok(Subscribe { name, snapshot })
    }
}
