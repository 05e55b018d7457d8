//! GRANT and REVOKE: of privileges on relations, schemas and the database, and of roles.

use super::{Front, is_word};
use crate::statement::{Granted, StatementKind};
use datafusion_sql::sqlparser::tokenizer::Token;
use tidemark_common::{Error, Result, SqlState};
use tidemark_plan::{NewObject, Privilege};

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
        if self.words(&["alter", "default", "privileges"]) {
            return self.default_privileges().map(Some);
        }
        let revokes = match () {
            () if self.word("grant") => false,
            () if self.word("revoke") => true,
            () => return Ok(None),
        };
        if revokes && self.words(&["admin", "option", "for"]) {
            return Err(no_option());
        }
        let mut option = revokes && self.words(&["grant", "option", "for"]);
        let (words, all_words) = self.privilege_words()?;
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
        let privileges = privileges(&words, all_words, all)?;
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

    /// The words of a list of privileges or roles with their positions, and whether it is ALL.
    fn privilege_words(&mut self) -> Result<(Vec<(String, usize)>, bool)> {
        let all = is_word(&self.peek().token, "all");
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
                let all = all && words.len() == 1;
                return Ok((words, all));
            }
        }
    }

    /// `ALTER DEFAULT PRIVILEGES [FOR ROLE r] [IN SCHEMA s] GRANT .. ON .. TO ..`.
    fn default_privileges(&mut self) -> Result<StatementKind> {
        let (mut roles, mut schemas) = (Vec::new(), Vec::new());
        loop {
            if self.words(&["for", "role"]) || self.words(&["for", "user"]) {
                roles = self.several(Self::identifier)?;
            } else if self.words(&["in", "schema"]) {
                schemas = self.several(Self::identifier)?;
            } else {
                break;
            }
        }
        let revokes = match () {
            () if self.word("grant") => false,
            () if self.word("revoke") => true,
            () => return Err(self.unexpected("GRANT or REVOKE")),
        };
        let mut option = revokes && self.words(&["grant", "option", "for"]);
        let (words, all_words) = self.privilege_words()?;
        self.expect_word("on")?;
        let position = self.position();
        let (of, all) = match () {
            () if self.word("tables") => (NewObject::Relations, Privilege::OF_RELATIONS),
            () if self.word("schemas") => (NewObject::Schemas, Privilege::OF_SCHEMAS),
            () => {
                let message = "default privileges are supported on TABLES and SCHEMAS";
                return Err(Error::unsupported(message).at(position));
            }
        };
        if of == NewObject::Schemas && !schemas.is_empty() {
            let message = "cannot use IN SCHEMA clause when using GRANT/REVOKE ON SCHEMAS";
            return Err(Error::user(SqlState("0LP01"), message));
        }
        let privileges = privileges(&words, all_words, all)?;
        let grantees = self.grantees(revokes)?;
        option |= !revokes && self.words(&["with", "grant", "option"]);
        if revokes {
            self.cascade();
        }
        Ok(StatementKind::DefaultPrivileges {
            roles,
            schemas,
            of,
            revokes,
            privileges,
            grantees,
            option,
        })
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

/// The privileges of these names.
fn privileges(
    words: &[(String, usize)],
    are_all: bool,
    all: &[Privilege],
) -> Result<Vec<Privilege>> {
    if are_all {
        return Ok(all.to_vec());
    }
    let one = |(word, at): &(String, usize)| privilege(word, all).map_err(|e| e.at(*at));
    words.iter().map(one).collect()
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
