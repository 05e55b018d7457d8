//! COPY: rows from and to a client.

use super::*;
use crate::protocol::copy::Fields;

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
        serving::check_columns(columns.len())?;
        Ok(Outcome::CopyIn(CopyIn {
            relation,
            columns,
            options,
            zone: self.settings.zone(),
        }))
    }

    /// Writes what the client sent. Returns the number of rows.
    pub(crate) async fn copy_from(&mut self, target: &CopyIn, rows: CopyRows) -> Result<usize> {
        if rows.batches.is_empty() {
            return Ok(0);
        }
        let relation = &target.relation;
        let guard = self.lock(&[relation.id]).await?;
        let write = Write {
            table: relation.id,
            deletes: Vec::new(),
            inserts: vec![
                concat_batches(&relation.arrow_schema(), &rows.batches)
                    .map_err(crate::protocol::error::from_arrow)?,
            ],
            unique: false,
        };
        drop(rows.batches);
        self.write(guard, write).await?;
        Ok(rows.count)
    }
}

/// The rows of a `COPY .. FROM STDIN` so far.
#[derive(Default)]
pub(crate) struct CopyRows {
    /// In all columns of the table.
    batches: Vec<RecordBatch>,
    count: usize,
    bytes: usize,
}

impl CopyRows {
    /// More lines came. `54000` when they are more than one transaction may write.
    pub(crate) fn add(&mut self, target: &CopyIn, lines: Vec<Fields>) -> Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        let batch = copied_batch(target, &lines, self.count)?;
        self.count += lines.len();
        self.bytes += rows_bytes(&batch);
        check_write_bytes(self.bytes)?;
        self.batches.push(batch);
        Ok(())
    }
}

/// Lines as rows of the table; `before` lines came before them.
fn copied_batch(target: &CopyIn, lines: &[Fields], before: usize) -> Result<RecordBatch> {
    let (relation, columns) = (&target.relation, &target.columns);
    for (i, line) in lines.iter().enumerate() {
        if line.len() != columns.len() {
            let what = match columns.get(line.len()) {
                Some(column) => format!(
                    "missing data for column \"{}\"",
                    relation.columns[*column].name
                ),
                None => "extra data after last expected column".into(),
            };
            return Err(Error::user(SqlState("22P04"), what).with_detail(format!(
                "COPY {}, line {}.",
                relation.name,
                before + i + 1
            )));
        }
    }
    let mut arrays = Vec::new();
    for (i, column) in relation.columns.iter().enumerate() {
        let array = match columns.iter().position(|c| *c == i) {
            Some(at) => {
                let texts: Vec<Option<&str>> = lines.iter().map(|l| l[at].as_deref()).collect();
                values::parse_column(&texts, column, &target.zone)?
            }
            None => {
                let default = constant_default(column)?.ok_or_else(|| {
                    Error::unsupported(format!(
                        "COPY needs a value for column \"{}\", whose default is computed",
                        column.name
                    ))
                })?;
                repeat(default, column, lines.len())?
            }
        };
        arrays.push(array);
    }
    nullable_batch(relation, arrays)
}

pub(super) fn copy_options(
    options: &[ast::CopyOption],
    legacy: &[ast::CopyLegacyOption],
) -> Result<CopyOptions> {
    use ast::{CopyLegacyOption as L, CopyOption as O};
    let mut out = CopyOptions::default();
    let (mut delimiter, mut null, mut escape) = (None, None, None);
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
            O::Quote(c) => out.quote = one_byte("quote", *c)?,
            O::Escape(c) => escape = Some(*c),
            O::Encoding(_) | O::Freeze(_) => {}
            other => return Err(no_option(other)),
        }
    }
    for option in legacy {
        match option {
            L::Csv(inner) => {
                use ast::CopyLegacyCsvOption as C;
                out.csv = true;
                for option in inner {
                    match option {
                        C::Header => out.header = true,
                        C::Quote(c) => out.quote = one_byte("quote", *c)?,
                        C::Escape(c) => escape = Some(*c),
                        C::ForceQuote(_) | C::ForceNotNull(_) => return Err(no_option(option)),
                    }
                }
            }
            L::Delimiter(c) => delimiter = Some(*c),
            L::Null(text) => null = Some(text.clone()),
            L::Header => out.header = true,
            other => return Err(no_option(other)),
        }
    }
    if let Some(escape) = escape
        && escape as u32 != u32::from(out.quote)
    {
        let message = "COPY with an escape that is not the quote is not supported";
        return Err(Error::unsupported(message));
    }
    let delimiter = delimiter.unwrap_or(if out.csv { ',' } else { '\t' });
    out.delimiter = one_byte("delimiter", delimiter)?;
    out.null = null.unwrap_or(if out.csv { String::new() } else { "\\N".into() });
    Ok(out)
}

fn one_byte(what: &str, c: char) -> Result<u8> {
    if c.is_ascii() {
        return Ok(c as u8);
    }
    let message = format!("COPY {what} must be a single one-byte character");
    Err(Error::user(SqlState::INVALID_PARAMETER, message))
}

fn no_option(option: &impl std::fmt::Display) -> Error {
    Error::unsupported(format!("COPY option {option} is not supported"))
}
