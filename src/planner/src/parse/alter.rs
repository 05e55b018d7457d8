//! ALTER TABLE .. ADD, DROP and RENAME COLUMN.

use super::{Front, is_word};
use crate::statement::{ColumnAction, Name};
use datafusion_sql::sqlparser::tokenizer::Token;
use tidemark_common::{Error, Result};

/// What stands behind ADD and DROP that is no column.
const CONSTRAINTS: [&str; 6] = [
    "constraint",
    "primary",
    "unique",
    "check",
    "foreign",
    "exclude",
];

impl Front<'_> {
    /// Whether what follows is about columns.
    pub(super) fn at_column_action(&self) -> bool {
        let next = |word: &&str| is_word(&self.parser.peek_nth_token_ref(1).token, word);
        let is_alone =
            ["add", "drop"].iter().any(|w| self.at_word(w)) && !CONSTRAINTS.iter().any(next);
        is_alone || self.at_word("rename") && !next(&"constraint")
    }

    /// Actions on columns of this table, one behind the other.
    ///
    /// Errors: `0A000` for other actions among them.
    pub(super) fn column_actions(&mut self, table: &Name) -> Result<Vec<ColumnAction>> {
        let mut actions = Vec::new();
        loop {
            let position = self.position();
            if !self.at_column_action() {
                let message = "only ADD COLUMN and DROP COLUMN can follow each other";
                return Err(Error::unsupported(message).at(position));
            }
            let action = self.column_action(table)?;
            let alone = matches!(action, ColumnAction::Rename { .. });
            if alone && !actions.is_empty() {
                let message = "RENAME COLUMN stands alone in its statement";
                return Err(Error::unsupported(message).at(position));
            }
            actions.push(action);
            if alone || !self.token(&Token::Comma) {
                return Ok(actions);
            }
        }
    }

    fn column_action(&mut self, table: &Name) -> Result<ColumnAction> {
        if self.word("rename") {
            self.word("column");
            let name = self.identifier()?;
            self.expect_word("to")?;
            let to = self.identifier()?;
            return Ok(ColumnAction::Rename { name, to });
        }
        if self.word("drop") {
            self.word("column");
            let if_exists = self.if_exists();
            let name = self.identifier()?;
            let cascade = self.cascade();
            return Ok(ColumnAction::Drop {
                name,
                if_exists,
                cascade,
            });
        }
        self.expect_word("add")?;
        self.word("column");
        let if_not_exists = self.if_not_exists();
        let column = Box::new(self.added_column(table)?);
        Ok(ColumnAction::Add {
            column,
            if_not_exists,
        })
    }
}
