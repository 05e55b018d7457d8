//! SUBSCRIBE: a relation's rows, and then their changes as they happen, until the client ends it.
//!
//! Each row has its columns, what happened to it (`op`), and the epoch; those of an epoch come
//! together, and what goes before what comes.

use super::Session;
use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use futures::stream::try_unfold;
use std::sync::Arc;
use tidemark_common::{Error, Result, SqlState};
use tidemark_node::{Following, Happened};
use tidemark_plan::{Privilege, Relation, RelationKind};
use tidemark_planner::statement::{Copy, Subscribe};
use tidemark_query::copy::CopyOptions;
use tidemark_query::error::from_arrow;
use tidemark_query::outcome::{CopyOut, Outcome, Rows, Tag};

impl Session {
    /// What SUBSCRIBE follows.
    fn followed(&self, subscribe: &Subscribe) -> Result<Arc<Relation>> {
        let relation = self.resolve(&self.catalog(), &subscribe.name)?;
        let (name, kind) = (&relation.name, relation.kind.name());
        match relation.kind {
            RelationKind::Table | RelationKind::MaterializedView | RelationKind::Subscription => {}
            RelationKind::Source | RelationKind::View => {
                let message = format!("\"{name}\" is a {kind}, which keeps no rows to follow");
                let error = Error::unsupported(message);
                return Err(error.with_hint("Subscribe to a materialized view of it."));
            }
            RelationKind::Sink | RelationKind::Index | RelationKind::Function => {
                let message = format!("\"{name}\" is a {kind}, and has no rows");
                return Err(Error::user(SqlState::WRONG_OBJECT_TYPE, message));
            }
        }
        self.asker.require(Privilege::Select, &relation)?;
        Ok(relation)
    }

    /// The columns of SUBSCRIBE.
    pub(super) fn schema_of_changes(&self, subscribe: &Subscribe) -> Result<SchemaRef> {
        Ok(schema_of(&*self.followed(subscribe)?))
    }

    /// SUBSCRIBE.
    pub(super) async fn subscribe(&mut self, subscribe: &Subscribe) -> Result<Rows> {
        let relation = self.followed(subscribe)?;
        let engine = &self.server.engine;
        let following = engine.follow(relation.id, subscribe.snapshot);
        let (schema, columns) = (schema_of(&relation), relation.visible_positions());
        let state = (following.await?, columns, schema.clone());
        let changes = try_unfold(state, |(mut following, columns, schema)| async move {
            let rows = next_rows(&mut following, &columns, &schema).await?;
            Ok(Some((rows, (following, columns, schema))))
        });
        Ok(Rows::live(schema, changes, Tag::Counted("SUBSCRIBE")))
    }

    /// `COPY (SUBSCRIBE TO ..) TO STDOUT`.
    pub(super) async fn copy_changes(
        &mut self,
        copy: &Copy,
        subscribe: &Subscribe,
    ) -> Result<Outcome> {
        let mut options = CopyOptions::of(copy)?;
        if !copy.client || !copy.to {
            return Err(Error::user(
                SqlState::SYNTAX_ERROR,
                "COPY of changes goes TO STDOUT",
            ));
        }
        let rows = self.subscribe(subscribe).await?;
        let names: Vec<&str> = rows.schema.fields().iter().map(|f| &**f.name()).collect();
        options.settle(&names)?;
        Ok(Outcome::CopyOut(CopyOut { rows, options }))
    }
}

fn schema_of(relation: &Relation) -> SchemaRef {
    let columns = relation.visible_schema();
    let own = [
        Field::new("op", DataType::Utf8, false),
        Field::new("epoch", DataType::Int64, false),
    ];
    let fields = columns.fields().iter().map(|f| f.as_ref().clone());
    Arc::new(Schema::new(fields.chain(own).collect::<Vec<_>>()))
}

async fn next_rows(
    following: &mut Following,
    columns: &[usize],
    schema: &SchemaRef,
) -> Result<RecordBatch> {
    let Happened { gone, come } = following.next().await?;
    let (deleted, inserted) = (gone.num_rows(), come.num_rows());
    let both = concat_batches(&gone.schema(), [&gone, &come]).map_err(from_arrow)?;
    let both = both.project(columns).map_err(from_arrow)?;
    let ops = std::iter::repeat_n("Delete", deleted);
    let ops = ops.chain(std::iter::repeat_n("Insert", inserted));
    let epoch = following.epoch().0 as i64;
    let own: [ArrayRef; 2] = [
        Arc::new(StringArray::from_iter_values(ops)),
        Arc::new(Int64Array::from(vec![epoch; deleted + inserted])),
    ];
    let columns = both.columns().iter().cloned().chain(own);
    RecordBatch::try_new(schema.clone(), columns.collect()).map_err(from_arrow)
}
