//! A side of a join of which nothing is kept: a relation on the same worker keeps its rows by the
//! same key ([`tidemark_plan::SharedRows`]).
//!
//! Within an epoch the side is the relation as of the end of the epoch before, and what has come of
//! it since. A key's rows of then are *loaded* into the side when the key occurs first on either
//! side, without being sent or counted as changes; what comes is stored as on any side, and at the
//! barrier the side is emptied. So the join sees the side that it would have kept itself, as far as
//! it looks.
//!
//! Until epochs wait for its job, an epoch's end may have been merged into another one's: what the
//! side is then, it keeps.

use super::{Keys, Multiset, Rows, Side};
use crate::expr::Predicate;
use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use std::sync::Arc;
use tidemark_common::{Epoch, Error, Result};
use tidemark_plan::SharedRows;
use tidemark_state::chunked::{Bitmap, Chunked};
use tidemark_state::{Neighbours, ViewPartition};

/// Where the rows of a shared side are.
pub(in crate::join) struct Lookup {
    shared: SharedRows,
    neighbours: Arc<Neighbours>,
    /// How many of the columns are the side's.
    width: usize,
    found: Option<Found>,
}

/// What is read of the relation.
struct Found {
    schema: SchemaRef,
    filter: Option<Predicate>,
}

/// Keys whose rows have been loaded in this epoch.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    ids: Vec<u32>,
    bits: Bitmap,
}

impl Loaded {
    #[inline]
    pub fn contains(&self, id: u32) -> bool {
        !self.ids.is_empty() && self.bits.contains(id)
    }
}

impl Lookup {
    /// Of a side with so many columns.
    pub fn new(shared: SharedRows, width: usize, neighbours: Arc<Neighbours>) -> Lookup {
        Lookup {
            shared,
            neighbours,
            width,
            found: None,
        }
    }

    /// The rows of the side with these keys as of an epoch.
    pub fn rows(&mut self, as_of: Epoch, keys: &[ArrayRef]) -> Result<RecordBatch> {
        let view = self.neighbours.of(self.shared.relation)?;
        let columns = &self.shared.columns;
        if self.found.is_none() {
            self.found = Some(Found::new(&view, &self.shared)?);
        }
        let Some(Found { schema, filter }) = &self.found else {
            return Err(Error::internal("what is read of a relation is not known"));
        };
        // Who merges is not who looks up: other epochs may be needed apart.
        let rows = view.lookup(as_of, Epoch(0), keys, (columns, schema))?;
        let rows = match filter {
            None => rows,
            Some(filter) => {
                let (mask, _) = filter.evaluate(&rows)?;
                let internal = |e: arrow::error::ArrowError| Error::internal(e.to_string());
                filter_record_batch(&rows, &mask).map_err(internal)?
            }
        };
        let (own, count): (Vec<usize>, usize) = ((0..self.width).collect(), rows.num_rows());
        match own.len() == rows.num_columns() || count == 0 {
            true => Ok(rows),
            false => Ok(rows.project(&own).expect("the side's columns come first")),
        }
    }
}

impl Found {
    fn new(view: &ViewPartition, shared: &SharedRows) -> Result<Found> {
        let nullable = |c: &usize| view.schema().field(*c).as_ref().clone().with_nullable(true);
        let fields: Vec<Field> = shared.columns.iter().map(nullable).collect();
        let schema = Arc::new(Schema::new(fields));
        let filter = shared.filter.as_ref();
        Ok(Found {
            filter: filter.map(|f| Predicate::new(f, &schema)).transpose()?,
            schema,
        })
    }
}

impl Keys {
    /// Those of these keys whose rows have not been loaded; from now on they have.
    pub fn load(&mut self, ids: &[u32]) -> Vec<u32> {
        let loaded = &mut self.loaded;
        loaded.bits.grow(self.index.capacity());
        let mut added = Vec::new();
        for id in ids {
            if !loaded.bits.get(*id) {
                loaded.bits.set(*id, true);
                added.push(*id);
            }
        }
        loaded.ids.extend(&added);
        added
    }

    /// Nothing is loaded any more. Returns the keys that were.
    pub fn unload(&mut self) -> Vec<u32> {
        let ids = std::mem::take(&mut self.loaded.ids);
        ids.iter().for_each(|id| self.loaded.bits.set(*id, false));
        ids
    }
}

impl Side {
    /// Forgets all rows of a side that is sealed by nobody. Returns the keys that had some.
    pub fn clear(&mut self, keys: &mut Keys) -> Vec<u32> {
        let side = &mut keys.sides[self.port];
        let touched: Vec<u32> = match &mut self.rows {
            Rows::Appended { .. } => unreachable!("a shared side is not appended"),
            Rows::Multiset(m) if m.dirty.is_empty() => Vec::new(),
            Rows::Multiset(m) => {
                let touched = m.dirty.iter().map(|id| m.key_of.get(*id)).collect();
                let fields = self.spec.schema.fields()[..self.stored.len()].iter();
                let types: Vec<DataType> = fields.map(|f| f.data_type().clone()).collect();
                **m = Multiset::new(&types);
                self.next = Chunked::new();
                touched
            }
            Rows::Keyed { dirty, kept, .. } => {
                *kept = 0;
                dirty.iter().for_each(|key| side.flags.set(*key, 0));
                std::mem::take(dirty)
            }
        };
        for key in &touched {
            side.heads.set(*key, 0);
            if side.has_totals {
                side.totals.set(*key, 0);
            }
        }
        touched
    }
}
