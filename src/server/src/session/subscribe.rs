//! SUBSCRIBE: a relation's rows, and then their changes as they happen, until the client has enough.
//!
//! Each row has its columns, what happened to it (`op`), and the epoch; those of an epoch come
//! together, and what goes before what comes.

use super::Session;
use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use futures::stream::try_unfold;
use std::sync::Arc;
use tidemark_changelog::ChangeBatch;
use tidemark_common::{Epoch, Error, Result, SqlState};
use tidemark_node::Following;
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
            RelationKind::Sink | RelationKind::Index => {
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
        let decided = engine.decided();
        let following = engine.follow(relation.id, decided, subscribe.snapshot);
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
    let changes = following.next().await?;
    shown(&changes, following.epoch(), columns, schema)
}

/// Changes as rows: those that go first, each as often as it goes or comes.
fn shown(
    changes: &ChangeBatch,
    epoch: Epoch,
    columns: &[usize],
    schema: &SchemaRef,
) -> Result<RecordBatch> {
    let (mut rows, mut ops) = (Vec::new(), Vec::new());
    for (op, sign) in [("Delete", -1), ("Insert", 1)] {
        for row in 0..changes.num_rows() {
            let times = (changes.weight(row) * sign).max(0) as usize;
            rows.extend(std::iter::repeat_n(row as u32, times));
            ops.extend(std::iter::repeat_n(op, times));
        }
    }
    let epochs = Int64Array::from(vec![epoch.0 as i64; rows.len()]);
    let own: [ArrayRef; 2] = [Arc::new(StringArray::from(ops)), Arc::new(epochs)];
    let kept = changes.rows().project(columns).map_err(from_arrow)?;
    let kept = take_record_batch(&kept, &UInt32Array::from(rows)).map_err(from_arrow)?;
    let columns = kept.columns().iter().cloned().chain(own);
    RecordBatch::try_new(schema.clone(), columns.collect()).map_err(from_arrow)
}
