//! COPY: rows from and to a client.

use super::*;

impl Session {
    /// COPY.
    pub(crate) async fn copy(
        &mut self,
        copy: &ast::Statement,
        statement: &Statement,
    ) -> Result<Outcome> {
        let ast::Statement::Copy {
            source,
            to,
            target,
            options,
            legacy_options,
            ..
        } = copy
        else {
            return Err(Error::internal("not a COPY statement"));
        };
        let options = copy_options(options, legacy_options)?;
        let stdio = matches!(target, ast::CopyTarget::Stdin | ast::CopyTarget::Stdout);
        if !stdio {
            return Err(
                Error::unsupported("COPY with files on the server is not supported")
                    .with_hint("Use COPY .. FROM STDIN or TO STDOUT (psql: \\copy)."),
            );
        }
        if *to {
            let query = match source {
                ast::CopySource::Query(query) => ast::Statement::Query(query.clone()),
                ast::CopySource::Table {
                    table_name,
                    columns,
                } => query_with(|s| {
                    s.projection = if columns.is_empty() {
                        vec![SelectItem::Wildcard(Default::default())]
                    } else {
                        columns
                            .iter()
                            .map(|c| SelectItem::UnnamedExpr(Expr::Identifier(c.clone())))
                            .collect()
                    };
                    s.from = vec![table_factor(table_name.clone())];
                }),
            };
            let rows = self
                .select(&query)
                .await
                .map_err(|e| serving::position::locate(e, statement))?;
            return Ok(Outcome::CopyOut(CopyOut { rows, options }));
        }
        let ast::CopySource::Table {
            table_name,
            columns,
        } = source
        else {
            return Err(Error::user(
                SqlState::SYNTAX_ERROR,
                "COPY FROM needs a table",
            ));
        };
        let relation = self.target(table_name, "copy to")?;
        let columns: Vec<usize> = match columns.as_slice() {
            [] => (0..relation.columns.len()).collect(),
            named => named
                .iter()
                .map(|c| position_of(&relation, &fold(c)))
                .collect::<Result<_>>()?,
        };
        Ok(Outcome::CopyIn(CopyIn {
            columns: columns.len(),
            options,
            target: (relation.id, columns),
        }))
    }

    /// Writes what the client sent. Returns the number of rows.
    pub async fn copy_from(&mut self, target: &CopyIn, data: &[u8]) -> Result<usize> {
        let rows = crate::protocol::copy::split(data, &target.options)?;
        let relation = self
            .catalog()
            .relations
            .get(&target.target.0)
            .cloned()
            .ok_or_else(|| Error::user(SqlState::UNDEFINED_TABLE, "the table was dropped"))?;
        let columns = &target.target.1;
        for (i, row) in rows.iter().enumerate() {
            if row.len() != columns.len() {
                let what = if row.len() < columns.len() {
                    format!(
                        "missing data for column \"{}\"",
                        relation.columns[columns[row.len()]].name
                    )
                } else {
                    "extra data after last expected column".into()
                };
                return Err(Error::user(SqlState("22P04"), what).with_detail(format!(
                    "COPY {}, line {}.",
                    relation.name,
                    i + 1
                )));
            }
        }
        if rows.is_empty() {
            return Ok(0);
        }
        let mut arrays = Vec::new();
        for (i, column) in relation.columns.iter().enumerate() {
            let texts: Vec<Option<&str>> = match columns.iter().position(|c| *c == i) {
                Some(at) => rows.iter().map(|r| r[at].as_deref()).collect(),
                None => {
                    let default = constant_default(column)?.ok_or_else(|| {
                        Error::unsupported(format!(
                            "COPY needs a value for column \"{}\", whose default is computed",
                            column.name
                        ))
                    })?;
                    arrays.push(repeat(default, column, rows.len())?);
                    continue;
                }
            };
            arrays.push(values::parse_column(&texts, column)?);
        }
        let guard = self.lock(&[relation.id]).await?;
        let write = Write {
            table: relation.id,
            deletes: Vec::new(),
            inserts: vec![nullable_batch(&relation, arrays)?],
            unique: false,
        };
        self.write(guard, write).await?;
        Ok(rows.len())
    }
}

pub(super) fn copy_options(
    options: &[ast::CopyOption],
    legacy: &[ast::CopyLegacyOption],
) -> Result<CopyOptions> {
    use ast::{CopyLegacyOption as L, CopyOption as O};
    let mut out = CopyOptions::default();
    let (mut delimiter, mut null) = (None, None);
    for option in options {
        match option {
            O::Format(f) if f.value.eq_ignore_ascii_case("csv") => out.csv = true,
            O::Format(f) if f.value.eq_ignore_ascii_case("text") => {}
            O::Format(f) => {
                return Err(Error::unsupported(format!(
                    "COPY format \"{}\" is not supported",
                    f.value
                ))
                .with_hint("Use text or csv."));
            }
            O::Delimiter(c) => delimiter = Some(*c),
            O::Null(text) => null = Some(text.clone()),
            O::Header(on) => out.header = *on,
            O::Quote(c) => out.quote = *c as u8,
            O::Encoding(_) | O::Freeze(_) => {}
            other => {
                return Err(Error::unsupported(format!(
                    "COPY option {other} is not supported"
                )));
            }
        }
    }
    for option in legacy {
        match option {
            L::Csv(inner) => {
                out.csv = true;
                out.header |= inner
                    .iter()
                    .any(|o| matches!(o, ast::CopyLegacyCsvOption::Header));
            }
            L::Delimiter(c) => delimiter = Some(*c),
            L::Null(text) => null = Some(text.clone()),
            L::Header => out.header = true,
            other => {
                return Err(Error::unsupported(format!(
                    "COPY option {other} is not supported"
                )));
            }
        }
    }
    let delimiter = delimiter.unwrap_or(if out.csv { ',' } else { '\t' });
    if !delimiter.is_ascii() {
        return Err(Error::user(
            SqlState::INVALID_PARAMETER,
            "COPY delimiter must be a single one-byte character",
        ));
    }
    out.delimiter = delimiter as u8;
    out.null = null.unwrap_or(if out.csv { String::new() } else { "\\N".into() });
    Ok(out)
}
