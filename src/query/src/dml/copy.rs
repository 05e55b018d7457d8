//! COPY: rows from and to a client.

use super::streamed::{Piece, write_piece};
use super::*;
use crate::copy::Lines;
use arrow::array::StringArray;
use tidemark_plan::Column;
use tidemark_planner::statement::{Copied, Copy};
use tokio::task::JoinHandle;

impl Asker {
    /// COPY.
    pub async fn copy(&mut self, copy: &Copy, statement: &Statement) -> Result<Outcome> {
        let mut options = CopyOptions::of(copy)?;
        if !copy.client {
            return Err(
                Error::unsupported("COPY with files on the server is not supported")
                    .with_hint("Use COPY .. FROM STDIN or TO STDOUT (psql: \\copy)."),
            );
        }
        if copy.to {
            let query = match &copy.what {
                Copied::Query(query) => ast::Statement::Query(query.clone()),
                Copied::Changes(_) => return Err(Error::internal("changes are no query")),
                Copied::Relation { name, columns } => query_with(|s| {
                    let columns = match columns.is_empty() {
                        true => self.without_generated(name),
                        false => columns.clone(),
                    };
                    s.projection = if columns.is_empty() {
                        vec![SelectItem::Wildcard(Default::default())]
                    } else {
                        let columns = columns.into_iter().map(Expr::Identifier);
                        columns.map(SelectItem::UnnamedExpr).collect()
                    };
                    s.from = vec![table_factor(name.clone())];
                }),
            };
            let rows = self
                .select(&query)
                .await
                .map_err(|e| serving::position::locate(e, statement))?;
            let names: Vec<&str> = rows.schema.fields().iter().map(|f| &**f.name()).collect();
            options.settle(&names)?;
            return Ok(Outcome::CopyOut(CopyOut { rows, options }));
        }
        let Copied::Relation { name, columns } = &copy.what else {
            return Err(Error::user(
                SqlState::SYNTAX_ERROR,
                "COPY FROM needs a table",
            ));
        };
        let relation = self.target(name, "copy to")?;
        let columns = super::generated::copied(&relation, columns)?;
        serving::check_columns(columns.len())?;
        let names: Vec<&str> = columns
            .iter()
            .map(|c| &*relation.columns[*c].name)
            .collect();
        options.settle(&names)?;
        Ok(Outcome::CopyIn(CopyIn {
            relation,
            columns,
            options,
            zone: self.settings.zone(),
        }))
    }

    /// The columns that `COPY relation TO` copies where some are generated; none: all.
    fn without_generated(&self, name: &ObjectName) -> Vec<Ident> {
        let relation = name_of(name).and_then(|name| self.resolve(&self.catalog(), &name));
        let Some(relation) = relation.ok().filter(|r| !r.generated.is_empty()) else {
            return Vec::new();
        };
        let plain = relation
            .visible()
            .filter(|(at, _)| relation.generated(*at).is_none());
        plain
            .map(|(_, c)| Ident::with_quote('"', &c.name))
            .collect()
    }

    /// More lines came. Beyond [`HELD_BYTES_MAX`] they are written as they come. A block, a table
    /// with a unique index, and a client that may not replace rows keep them: so many are `54000`
    /// that one transaction may not write.
    pub async fn copy_lines(
        &mut self,
        target: &CopyIn,
        rows: &mut CopyRows,
        lines: Lines,
    ) -> Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        let batch = copied_batch(target, &lines, rows.count)?;
        rows.count += lines.len();
        drop(lines);
        if rows.guard.is_none() {
            rows.bytes += rows_bytes(&batch);
            rows.batches.push(batch);
            let replaces = self.may_replace(&target.relation);
            if !(replaces && self.may_stream_into(&target.relation, None)) {
                return check_write_bytes(rows.bytes);
            }
            if rows.bytes <= HELD_BYTES_MAX {
                return Ok(());
            }
            rows.guard = Some(self.lock(&[target.relation.id]).await?);
        } else {
            rows.batches.push(batch);
        }
        rows.write(target).await
    }

    /// The client has sent all. Returns the number of rows.
    pub async fn copy_end(&mut self, target: &CopyIn, mut rows: CopyRows) -> Result<usize> {
        rows.written().await?;
        let count = rows.count;
        if let Some(guard) = rows.guard.take() {
            self.commit_guard(guard).await?;
            return Ok(count);
        }
        if rows.batches.is_empty() {
            return Ok(0);
        }
        let relation = &target.relation;
        let guard = self.lock(&[relation.id]).await?;
        let batch = concat_batches(&relation.arrow_schema(), &rows.batches)
            .map_err(crate::error::from_arrow)?;
        drop(rows);
        self.check_replaced(&guard, relation, &batch)?;
        let write = Write {
            table: relation.id,
            deletes: Vec::new(),
            inserts: vec![batch],
            keys: NewKeys::Any,
        };
        self.write(guard, write).await?;
        Ok(count)
    }
}

/// So much of a COPY is kept until its end, in bytes, without holding up other writers.
const HELD_BYTES_MAX: usize = 16 << 20;

/// The rows of a `COPY .. FROM STDIN` so far.
#[derive(Default)]
pub struct CopyRows {
    /// Those that are not written, in all columns of the table.
    batches: Vec<RecordBatch>,
    count: usize,
    /// Of what came before anything was written.
    bytes: usize,
    /// Of one that is too large to be kept.
    guard: Option<SharedGuard>,
    /// Writes what came before, while the next lines are read.
    writing: Option<JoinHandle<Result<()>>>,
}

impl CopyRows {
    /// Begins to write what is here, when what came before is written.
    async fn write(&mut self, target: &CopyIn) -> Result<()> {
        self.written().await?;
        let Some(guard) = self.guard.clone() else {
            return Ok(());
        };
        let (relation, batches) = (target.relation.clone(), std::mem::take(&mut self.batches));
        self.writing = Some(tokio::spawn(async move {
            for batch in batches {
                write_piece(&guard, &relation, Piece::Appended(batch)).await?;
            }
            Ok(())
        }));
        Ok(())
    }

    /// Waits until all that came before is written.
    async fn written(&mut self) -> Result<()> {
        let Some(writing) = &mut self.writing else {
            return Ok(());
        };
        let written = writing.await;
        self.writing = None;
        written.map_err(|e| Error::internal(e.to_string()))?
    }
}

/// Lines as rows of the table; `before` lines came before them.
fn copied_batch(target: &CopyIn, lines: &Lines, before: usize) -> Result<RecordBatch> {
    let (relation, columns) = (&target.relation, &target.columns);
    if let Some((line, width)) = lines.other_than(columns.len()) {
        let what = match columns.get(width) {
            Some(column) => format!(
                "missing data for column \"{}\"",
                relation.columns[*column].name
            ),
            None => "extra data after last expected column".into(),
        };
        return Err(Error::user(SqlState("22P04"), what).with_detail(format!(
            "COPY {}, line {}.",
            relation.name,
            before + line + 1
        )));
    }
    let mut arrays = Vec::new();
    for (i, column) in relation.columns.iter().enumerate() {
        let array = match columns.iter().position(|c| *c == i) {
            Some(at) => {
                let texts = lines.column(at);
                values::parse_texts(&texts, column, &target.zone)
                    .map_err(|e| at_line(e, target, column, &texts, before))?
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

/// The error of a column's texts with the line that it is of; `before` lines came before them.
fn at_line(
    error: Error,
    target: &CopyIn,
    column: &Column,
    texts: &StringArray,
    before: usize,
) -> Error {
    let fails =
        |at: &usize| values::parse_texts(&texts.slice(*at, 1), column, &target.zone).is_err();
    let Some(at) = (0..texts.len()).find(fails) else {
        return error;
    };
    let shown = match texts.is_null(at) {
        true => "null input".to_string(),
        false => {
            let shown: String = texts.value(at).chars().take(SHOWN_MAX).collect();
            let cut = shown.len() < texts.value(at).len();
            format!("\"{shown}\"{}", if cut { "..." } else { "" })
        }
    };
    let (table, line) = (&target.relation.name, before + at + 1);
    error.with_detail(format!(
        "COPY {table}, line {line}, column {}: {shown}",
        column.name
    ))
}

/// Characters of a text that is wrong that its error shows.
const SHOWN_MAX: usize = 100;
