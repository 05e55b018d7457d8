//! COPY: rows from and to a client.

use super::*;
use crate::copy::Fields;
use tidemark_planner::statement::{Copied, Copy};

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
                Copied::Relation { name, columns } => query_with(|s| {
                    s.projection = if columns.is_empty() {
                        vec![SelectItem::Wildcard(Default::default())]
                    } else {
                        columns
                            .iter()
                            .map(|c| SelectItem::UnnamedExpr(Expr::Identifier(c.clone())))
                            .collect()
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
        let columns: Vec<usize> = match columns.as_slice() {
            [] => (0..relation.columns.len()).collect(),
            named => named
                .iter()
                .map(|c| position_of(&relation, &fold(c)))
                .collect::<Result<_>>()?,
        };
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

    /// Writes what the client sent. Returns the number of rows.
    pub async fn copy_from(&mut self, target: &CopyIn, rows: CopyRows) -> Result<usize> {
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
                    .map_err(crate::error::from_arrow)?,
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
pub struct CopyRows {
    /// In all columns of the table.
    batches: Vec<RecordBatch>,
    count: usize,
    bytes: usize,
}

impl CopyRows {
    /// More lines came. `54000` when they are more than one transaction may write.
    pub fn add(&mut self, target: &CopyIn, lines: Vec<Fields>) -> Result<()> {
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
