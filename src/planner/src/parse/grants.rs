//! GRANT and REVOKE: of privileges on relations, schemas and the database, and of roles.

use super::{Front, is_word};
use crate::statement::{Granted, StatementKind};
use datafusion_sql::sqlparser::tokenizer::Token;
use tidemark_common::{Error, Result, SqlState};
use tidemark_plan::Privilege;

/// The words for one relation, which PostgreSQL leaves out or calls a table.
const RELATIONS: [&[&str]; 6] = [
    &["table"],
    &["materialized", "view"],
    &["view"],
    &["source"],
    &["sink"],
    &["index"],
];

impl Front<'_> {
    /// Parses such a statement; `None` if it is something else (nothing is consumed then).
    pub(super) fn grant(&mut self) -> Result<Option<StatementKind>> {
        let revokes = match () {
            () if self.word("grant") => false,
            () if self.word("revoke") => true,
            () => return Ok(None),
        };
        if revokes && self.words(&["admin", "option", "for"]) {
            return Err(no_option());
        }
        let mut option = revokes && self.words(&["grant", "option", "for"]);
        let first = self.peek().clone();
        let mut words = Vec::new();
        loop {
            let position = self.position();
            words.push((self.identifier()?, position));
            if self.peek().token == Token::LParen {
                let message = "privileges of single columns are not supported";
                return Err(Error::unsupported(message).at(self.position()));
            }
            self.word("privileges");
            if !self.token(&Token::Comma) {
                break;
            }
        }
        if !self.word("on") {
            let roles = words.into_iter().map(|(role, _)| role).collect();
            let members = self.grantees(revokes)?.into_iter().flatten().collect();
            if revokes {
                self.cascade();
            }
            return Ok(Some(StatementKind::GrantRoles {
                revokes,
                roles,
                members,
            }));
        }
        let (on, all) = self.granted()?;
        let privileges = match words.as_slice() {
            [(word, _)] if word == "all" && is_word(&first.token, "all") => all.to_vec(),
            words => words
                .iter()
                .map(|(word, position)| privilege(word, all).map_err(|e| e.at(*position)))
                .collect::<Result<_>>()?,
        };
        let grantees = self.grantees(revokes)?;
        option |= !revokes && self.words(&["with", "grant", "option"]);
        let cascade = revokes && self.cascade();
        Ok(Some(StatementKind::Grant {
            revokes,
            privileges,
            on,
            grantees,
            option,
            cascade,
        }))
    }

    /// What privileges are of, and all that there are of it.
    fn granted(&mut self) -> Result<(Granted, &'static [Privilege])> {
        if self.words(&["all", "tables", "in", "schema"]) {
            let schemas = Granted::AllIn(self.several(Self::identifier)?);
            return Ok((schemas, Privilege::OF_RELATIONS));
        }
        if self.word("schema") {
            let schemas = Granted::Schemas(self.several(Self::identifier)?);
            return Ok((schemas, Privilege::OF_SCHEMAS));
        }
        if self.word("database") {
            let databases = Granted::Databases(self.several(Self::identifier)?);
            return Ok((databases, Privilege::OF_DATABASES));
        }
        let others = [
            "all",
            "sequence",
            "function",
            "type",
            "language",
            "domain",
            "tablespace",
        ];
        if let Some(other) = others.into_iter().find(|word| self.at_word(word)) {
            let message = format!("privileges on {other} are not supported");
            return Err(Error::unsupported(message).at(self.position()));
        }
        RELATIONS.iter().find(|words| self.words(words));
        let names = Granted::Relations(self.several(Self::name)?);
        Ok((names, Privilege::OF_RELATIONS))
    }

    /// One or more, with commas between them.
    fn several<T>(&mut self, one: impl Fn(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        let mut all = vec![one(self)?];
        while self.token(&Token::Comma) {
            all.push(one(self)?);
        }
        Ok(all)
    }

    /// `TO` or `FROM` roles; none is everybody.
    fn grantees(&mut self, revokes: bool) -> Result<Vec<Option<String>>> {
        self.expect_word(if revokes { "from" } else { "to" })?;
        let grantees = self.several(|front| {
            front.word("group");
            let public = front.at_word("public");
            let name = front.identifier()?;
            Ok((!public).then_some(name))
        })?;
        if self.words(&["with", "admin", "option"]) {
            return Err(no_option());
        }
        Ok(grantees)
    }
}

fn no_option() -> Error {
    Error::unsupported("ADMIN OPTION is not supported")
        .with_hint("Superusers make others members of roles.")
}

/// The privilege of this name, of those that there are.
fn privilege(word: &str, all: &[Privilege]) -> Result<Privilege> {
    if let Some(found) = all.iter().find(|p| p.name().eq_ignore_ascii_case(word)) {
        return Ok(*found);
    }
    let upper = word.to_uppercase();
    let known = [
        "SELECT",
        "INSERT",
        "UPDATE",
        "DELETE",
        "TRUNCATE",
        "REFERENCES",
        "TRIGGER",
        "USAGE",
        "CREATE",
        "CONNECT",
        "TEMPORARY",
        "TEMP",
        "EXECUTE",
    ];
    if !known.contains(&upper.as_str()) {
        let message = format!("unrecognized privilege type \"{word}\"");
        return Err(Error::user(SqlState::SYNTAX_ERROR, message));
    }
    if ["TRUNCATE", "REFERENCES", "TRIGGER", "TEMPORARY", "TEMP"].contains(&upper.as_str()) {
        return Err(Error::unsupported(format!(
            "privilege {upper} is not supported"
        )));
    }
    let message = format!("invalid privilege type {upper} for what it is granted on");
    Err(Error::user(SqlState("0LP01"), message))
}
