//! The SQL examples of the manual: fenced blocks marked `sql`, in the order in which a reader meets
//! them.

/// A block of statements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Example {
    /// Line of the file at which the block begins, from 1.
    pub line: usize,
    /// The words after `sql`: `kafka` for a block that needs a broker, `error` for one whose last
    /// statement must be refused.
    pub marks: Vec<String>,
    /// The statements.
    pub text: String,
}

impl Example {
    /// Whether the block carries a mark.
    pub fn is(&self, mark: &str) -> bool {
        self.marks.iter().any(|m| m == mark)
    }

    /// The statements, one by one; a semicolon at the end of a line ends one.
    pub fn statements(&self) -> Vec<String> {
        let mut all = vec![String::new()];
        for line in self.text.lines() {
            if let Some(statement) = all.last_mut() {
                statement.push_str(line);
                statement.push('\n');
            }
            let code = line.split("--").next().unwrap_or("").trim_end();
            if code.ends_with(';') {
                all.push(String::new());
            }
        }
        all.retain(|s| {
            s.lines()
                .any(|l| !l.trim().is_empty() && !l.trim_start().starts_with("--"))
        });
        all
    }
}

/// The blocks of a Markdown text.
pub fn examples(markdown: &str) -> Vec<Example> {
    let mut found = Vec::new();
    let mut open: Option<(Example, bool)> = None;
    for (i, line) in markdown.lines().enumerate() {
        match (&mut open, line.trim_start().strip_prefix("```")) {
            (None, Some(info)) => {
                let mut words = info.split_whitespace().map(str::to_string);
                let is_sql = words.next().as_deref() == Some("sql");
                open = Some((
                    Example {
                        line: i + 1,
                        marks: words.collect(),
                        text: String::new(),
                    },
                    is_sql,
                ));
            }
            (Some(_), Some(_)) => found.extend(
                open.take()
                    .filter(|(_, is_sql)| *is_sql)
                    .map(|(example, _)| example),
            ),
            (Some((example, _)), None) => {
                example.text.push_str(line);
                example.text.push('\n');
            }
            (None, None) => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_and_statements_are_found() {
        let text =
            "a\n```sql kafka\nSELECT 1; -- one\n\nSELECT\n  2;\n```\n```text\nSELECT 3;\n```\n";
        let found = examples(text);
        assert_eq!(found.len(), 1);
        assert!(found[0].is("kafka"));
        assert_eq!(
            (found[0].line, found[0].statements()),
            (
                2,
                vec![
                    "SELECT 1; -- one\n".to_string(),
                    "\nSELECT\n  2;\n".to_string()
                ]
            )
        );
    }
}
