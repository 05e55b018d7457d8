//! CREATE, ALTER and DROP of roles and users: a user is a role that may log in.

use super::{Front, is_word};
use crate::statement::{RoleOption, StatementKind};
use datafusion_sql::sqlparser::tokenizer::Token;
use tidemark_common::{Error, Result, SqlState};

impl Front<'_> {
    /// Parses such a statement; `None` if it is something else (nothing is consumed then).
    pub(super) fn role(&mut self) -> Result<Option<StatementKind>> {
        let second = self.parser.peek_nth_token_ref(1).token.clone();
        let user = is_word(&second, "user");
        if !(user || is_word(&second, "role")) || self.of_mapping() {
            return Ok(None);
        }
        let verbs = ["create", "alter", "drop"];
        let Some(verb) = verbs.into_iter().find(|verb| self.word(verb)) else {
            return Ok(None);
        };
        self.parser.advance_token();
        if verb == "drop" {
            let if_exists = self.if_exists();
            let names = self.several(Self::identifier)?;
            return Ok(Some(StatementKind::DropRole { names, if_exists }));
        }
        let name = self.identifier()?;
        if self.words(&["rename", "to"]) || self.at_word("set") || self.at_word("reset") {
            let message = "ALTER ROLE takes LOGIN, PASSWORD and VALID UNTIL only";
            return Err(Error::unsupported(message));
        }
        self.word("with");
        let mut options = Vec::new();
        while let Some(option) = self.role_option()? {
            let again =
                |o: &&RoleOption| std::mem::discriminant(*o) == std::mem::discriminant(&option);
            if options.iter().find(again).is_some() {
                let message = "conflicting or redundant options";
                return Err(Error::user(SqlState::SYNTAX_ERROR, message));
            }
            options.push(option);
        }
        Ok(Some(match verb {
            "create" => StatementKind::CreateRole {
                name,
                user,
                options,
            },
            _ => StatementKind::AlterRole { name, options },
        }))
    }

    /// Whether this is about a USER MAPPING.
    fn of_mapping(&self) -> bool {
        is_word(&self.parser.peek_nth_token_ref(2).token, "mapping")
    }

    fn role_option(&mut self) -> Result<Option<RoleOption>> {
        // What is so anyway.
        while ["nocreatedb", "nocreaterole", "noreplication", "inherit"]
            .into_iter()
            .any(|word| self.word(word))
        {}
        Ok(Some(match () {
            () if self.word("superuser") => RoleOption::Superuser(true),
            () if self.word("nosuperuser") => RoleOption::Superuser(false),
            () if self.word("login") => RoleOption::Login(true),
            () if self.word("nologin") => RoleOption::Login(false),
            () if self.word("encrypted") => {
                self.expect_word("password")?;
                RoleOption::Password(Some(self.string()?))
            }
            () if self.word("password") => RoleOption::Password(match self.word("null") {
                true => None,
                false => Some(self.string()?),
            }),
            () if self.words(&["valid", "until"]) => RoleOption::ValidUntil(self.string()?),
            () if self.peek().token == Token::EOF => return Ok(None),
            () if matches!(self.peek().token, Token::Word(_)) => {
                let message = format!("role option {} is not supported", self.peek().token);
                return Err(Error::unsupported(message).at(self.position()));
            }
            () => return Ok(None),
        }))
    }
}
