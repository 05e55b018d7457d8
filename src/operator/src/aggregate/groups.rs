//! The groups of an aggregate and all that is kept for them: what the operator and its state tables
//! share.
//!
//! Within an epoch a group is *touched* when a row of it arrives; its output before the first touch
//! is remembered, and at the barrier compared with its output then. So an epoch costs one
//! retraction and one insertion per group that changed, whatever the number of rows, and none where
//! nothing changed. A group lives while it has rows. One that has lost them keeps its id until the
//! next seal has written its end.

use super::accumulator::{Accumulator, accumulator};
use super::distinct::DistinctTable;
use super::lane::{Input, Lane, Selected, Selection, mask};
use crate::Out;
use crate::project::batch_of;
use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, StructArray};
use arrow::buffer::NullBuffer;
use arrow::compute;
use arrow::compute::kernels::cmp::distinct;
use arrow::datatypes::{DataType, Field, Fields, SchemaRef};
use std::sync::Arc;
use tidemark_changelog::{ChangeBatch, hash_columns};
use tidemark_common::{Error, Result};
use tidemark_plan::{AggregateCall, AggregateFunction};
use tidemark_state::KeyIndex;
use tidemark_state::chunked::Chunked;

/// Groups compared and sent at a time: at most twice as many rows.
const CHUNK_GROUPS: usize = 2048;

const TOUCHED: u8 = 1;
pub(super) const UNSEALED: u8 = 2;
pub(super) const SEALED: u8 = 4;

/// One call.
pub(super) struct Call {
    pub lane: usize,
    argument: Argument,
    pub accumulator: Box<dyn Accumulator>,
}

/// What a state table of the aggregate holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TableKind {
    /// The groups with their counts and sums.
    Groups,
    /// A distinct table.
    Distinct(usize),
    /// The values of a call's retractable extreme.
    Multiset(usize),
}

/// Everything an aggregate keeps.
pub(super) struct Groups {
    group: Vec<usize>,
    pub group_fields: Vec<Field>,
    /// One group without columns that is there from the first barrier on.
    global: bool,
    /// Groups are output whatever their number of rows.
    always_alive: bool,
    output: SchemaRef,
    pub index: KeyIndex,
    /// The first lane counts all rows.
    pub lanes: Vec<Lane>,
    pub calls: Vec<Call>,
    pub distinct: Vec<DistinctTable>,
    pub kinds: Vec<TableKind>,
    pub flags: Chunked<u8>,
    pub unsealed: Vec<u32>,
    /// Groups whose end is sealed; their ids are given back before the next change.
    pub ended: Vec<u32>,
    /// Entries of state tables that a watermark has closed, and no seal has told of.
    pub closed: usize,
    /// The global group has been output.
    pub shown: bool,
    epoch: Touched,
    ids: Vec<u32>,
}

/// The groups touched in this epoch.
#[derive(Default)]
struct Touched {
    ids: Vec<u32>,
    /// Whether each was output before.
    existed: Vec<bool>,
    /// By call: what they were, in pieces.
    old: Vec<Vec<ArrayRef>>,
}

impl Groups {
    pub fn new(
        input: &SchemaRef,
        output: &SchemaRef,
        group: &[usize],
        calls: &[AggregateCall],
        global: bool,
        append_only: bool,
    ) -> Result<Groups> {
        let group_fields: Vec<Field> = group
            .iter()
            .map(|g| input.field(*g).clone().with_nullable(true))
            .collect();
        let types: Vec<DataType> = group_fields.iter().map(|f| f.data_type().clone()).collect();
        let mut groups = Groups {
            group: group.to_vec(),
            group_fields,
            global,
            always_alive: global,
            output: output.clone(),
            index: KeyIndex::new(&types),
            lanes: vec![Lane::new(Selection {
                filter: None,
                not_null: [None; 2],
                distinct: None,
            })],
            calls: Vec::new(),
            distinct: Vec::new(),
            kinds: vec![TableKind::Groups],
            flags: Chunked::new(),
            unsealed: Vec::new(),
            ended: Vec::new(),
            closed: 0,
            shown: false,
            epoch: Touched {
                old: vec![Vec::new(); calls.len()],
                ..Touched::default()
            },
            ids: Vec::new(),
        };
        for call in calls {
            groups.add_call(call, calls, input, append_only)?;
        }
        Ok(groups)
    }

    /// Groups of a partial aggregation: every group that was touched is output, even if its rows
    /// cancel.
    pub fn partial(
        input: &SchemaRef,
        output: &SchemaRef,
        group: &[usize],
        calls: &[AggregateCall],
        append_only: bool,
    ) -> Result<Groups> {
        let groups = Groups::new(input, output, group, calls, false, append_only)?;
        Ok(Groups {
            always_alive: true,
            ..groups
        })
    }

    fn add_call(
        &mut self,
        call: &AggregateCall,
        calls: &[AggregateCall],
        input: &SchemaRef,
        append_only: bool,
    ) -> Result<()> {
        let argument = Argument::new(call);
        let argument_type = argument.data_type(input);
        let mut selection = Selection {
            filter: call.filter,
            not_null: match goes_by_rows(call) {
                true => [None; 2],
                false => [call.arg, call.second],
            },
            distinct: None,
        };
        if let (true, Some(argument)) = (call.is_distinct(), call.arg) {
            let table = match self.distinct.iter().position(|t| t.argument == argument) {
                Some(table) => table,
                None => {
                    let mut variants: Vec<Option<usize>> = Vec::new();
                    for other in calls
                        .iter()
                        .filter(|c| c.is_distinct() && c.arg == Some(argument))
                    {
                        if !variants.contains(&other.filter) {
                            variants.push(other.filter);
                        }
                    }
                    self.kinds.push(TableKind::Distinct(self.distinct.len()));
                    self.distinct.push(DistinctTable::new(
                        argument,
                        input.field(argument).data_type().clone(),
                        variants,
                        append_only,
                    )?);
                    self.distinct.len() - 1
                }
            };
            let variant = self.distinct[table]
                .variants
                .iter()
                .position(|f| *f == call.filter)
                .ok_or_else(|| Error::internal("a distinct call without variant"))?;
            selection = Selection {
                filter: None,
                not_null: [None; 2],
                distinct: Some((table, variant)),
            };
        }
        let lane = self
            .lanes
            .iter()
            .position(|l| l.selection == selection)
            .unwrap_or_else(|| {
                self.lanes.push(Lane::new(selection));
                self.lanes.len() - 1
            });
        let mut accumulator = accumulator(call, argument_type.as_ref(), append_only)?;
        if accumulator.multiset().is_some() {
            self.kinds.push(TableKind::Multiset(self.calls.len()));
        }
        self.calls.push(Call {
            lane,
            argument,
            accumulator,
        });
        Ok(())
    }

    /// Takes a batch of changes in.
    pub fn update(&mut self, batch: &ChangeBatch) -> Result<()> {
        self.sweep();
        let mut ids = std::mem::take(&mut self.ids);
        self.intern(batch.rows(), &mut ids);
        self.touch(&ids)?;
        for table in &mut self.distinct {
            table.update(batch, &ids);
        }
        let masks: Vec<_> = self
            .lanes
            .iter()
            .map(|l| mask(batch.rows(), l.selection.filter, l.selection.not_null))
            .collect();
        for (lane, mask) in masks.iter().enumerate().skip(1) {
            if mask.is_some() && self.lanes[lane].is_all_rows() {
                let counts = self.lanes[0].counts.clone();
                self.lanes[lane].diverge(counts);
            }
        }
        let weights = batch.weights().map(|w| w.as_ref());
        for (l, lane) in self.lanes.iter_mut().enumerate() {
            let rows = match (&lane.selection.distinct, &masks[l]) {
                (Some((table, variant)), _) => {
                    let passed = &self.distinct[*table].passed[*variant];
                    Selected::Picked {
                        rows: &passed.rows,
                        weights: &passed.weights,
                    }
                }
                (None, Some(mask)) => Selected::Mask(mask),
                (None, None) => Selected::All,
            };
            let input = Input {
                ids: &ids,
                weights,
                rows,
            };
            lane.count(&input);
            for call in self.calls.iter_mut().filter(|c| c.lane == l) {
                if let Some(argument) = call.argument.of(batch)? {
                    call.accumulator.update(&input, &argument)?;
                }
            }
        }
        self.ids = ids;
        Ok(())
    }

    fn intern(&mut self, rows: &RecordBatch, ids: &mut Vec<u32>) {
        let keys: Vec<ArrayRef> = self.group.iter().map(|g| rows.column(*g).clone()).collect();
        self.intern_keys(&keys, rows.num_rows(), ids);
    }

    /// Finds or adds groups by their columns, and makes room for them everywhere.
    pub fn intern_keys(&mut self, keys: &[ArrayRef], rows: usize, ids: &mut Vec<u32>) {
        self.index.intern(keys, &hash_columns(keys, rows), ids);
        let capacity = self.index.capacity();
        if capacity > self.flags.len() {
            self.flags.grow(capacity);
            self.lanes
                .iter_mut()
                .filter(|l| !l.is_all_rows())
                .for_each(|l| l.counts.grow(capacity));
            self.calls
                .iter_mut()
                .for_each(|c| c.accumulator.grow(capacity));
        }
    }

    /// Remembers the output of groups that are touched for the first time in this epoch.
    fn touch(&mut self, ids: &[u32]) -> Result<()> {
        let start = self.epoch.ids.len();
        for id in ids {
            let flags = self.flags.get_mut(*id);
            if *flags & TOUCHED == 0 {
                if *flags & UNSEALED == 0 {
                    self.unsealed.push(*id);
                }
                *flags |= TOUCHED | UNSEALED;
                self.epoch.ids.push(*id);
                self.epoch
                    .existed
                    .push(self.lanes[0].counts.get(*id) > 0 || self.global && self.shown);
            }
        }
        let fresh = &self.epoch.ids[start..];
        if !fresh.is_empty() {
            let old = self.outputs(fresh)?;
            self.epoch
                .old
                .iter_mut()
                .zip(old)
                .for_each(|(parts, part)| parts.push(part));
        }
        Ok(())
    }

    /// The lane's counts.
    pub fn counts(&self, lane: usize) -> &Chunked<i64> {
        if self.lanes[lane].is_all_rows() {
            &self.lanes[0].counts
        } else {
            &self.lanes[lane].counts
        }
    }

    fn outputs(&self, ids: &[u32]) -> Result<Vec<ArrayRef>> {
        self.calls
            .iter()
            .map(|c| c.accumulator.output(ids, self.counts(c.lane)))
            .collect()
    }

    /// Whether a group is among the output.
    pub fn is_alive(&self, id: u32) -> bool {
        self.always_alive || self.lanes[0].counts.get(id) > 0
    }

    /// Rows of all state tables, without those that a watermark has closed.
    pub fn entries(&mut self) -> usize {
        let distinct = self.distinct.iter().map(DistinctTable::len).sum::<usize>();
        let multisets = self.calls.iter_mut();
        let multisets = multisets.filter_map(|c| Some(c.accumulator.multiset()?.len()));
        (self.index.len() + distinct + multisets.sum::<usize>()).saturating_sub(self.closed)
    }

    /// Sends what the epoch changed.
    pub fn emit(&mut self, out: &mut dyn Out) -> Result<()> {
        self.sweep();
        if self.global && !self.shown {
            let mut ids = Vec::new();
            self.intern_keys(&[], 1, &mut ids);
            self.touch(&ids)?;
            self.shown = true;
        }
        let calls = self.calls.len();
        let Touched { ids, existed, old } = std::mem::replace(
            &mut self.epoch,
            Touched {
                old: vec![Vec::new(); calls],
                ..Touched::default()
            },
        );
        let old = old
            .iter()
            .map(|parts| concat(parts))
            .collect::<Result<Vec<_>>>()?;
        for start in (0..ids.len()).step_by(CHUNK_GROUPS) {
            let end = (start + CHUNK_GROUPS).min(ids.len());
            let old: Vec<ArrayRef> = old
                .iter()
                .flatten()
                .map(|c| c.slice(start, end - start))
                .collect();
            if let Some(changes) = self.changes(&ids[start..end], &existed[start..end], &old)? {
                out.send(changes)?;
            }
        }
        for id in ids {
            *self.flags.get_mut(id) &= !TOUCHED;
        }
        Ok(())
    }

    /// What became of these groups, given what they were.
    fn changes(
        &self,
        ids: &[u32],
        existed: &[bool],
        old: &[ArrayRef],
    ) -> Result<Option<ChangeBatch>> {
        let new = self.outputs(ids)?;
        if !existed.contains(&true) && ids.iter().all(|id| self.is_alive(*id)) {
            let columns: Vec<ArrayRef> = self.index.gather(ids).into_iter().chain(new).collect();
            return Ok(Some(ChangeBatch::insert(batch_of(
                &self.output,
                columns,
                ids.len(),
            )?)));
        }
        let changed = differing(old, &new, ids.len())?;
        let (mut rows, mut groups, mut weights) = (Vec::new(), Vec::new(), Vec::new());
        for (i, id) in ids.iter().enumerate() {
            let alive = self.is_alive(*id);
            if existed[i] && alive && !changed[i] {
                continue;
            }
            for (which, weight) in [(0, -1), (1, 1)]
                .into_iter()
                .filter(|(which, _)| if *which == 0 { existed[i] } else { alive })
            {
                rows.push((which, i));
                groups.push(*id);
                weights.push(weight);
            }
        }
        if rows.is_empty() {
            return Ok(None);
        }
        let mut columns = self.index.gather(&groups);
        for (old, new) in old.iter().zip(&new) {
            columns.push(
                compute::interleave(&[old.as_ref(), new.as_ref()], &rows)
                    .map_err(|e| Error::internal(e.to_string()))?,
            );
        }
        Ok(Some(ChangeBatch::new(
            batch_of(&self.output, columns, rows.len())?,
            weights,
        )))
    }

    /// Gives back the ids of groups whose end is sealed.
    fn sweep(&mut self) {
        for id in std::mem::take(&mut self.ended) {
            for lane in self.lanes.iter_mut().filter(|l| !l.is_all_rows()) {
                lane.counts.set(id, 0);
            }
            self.calls.iter_mut().for_each(|c| c.accumulator.reset(id));
            self.flags.set(id, 0);
            self.index.remove(id);
        }
    }

    /// Bytes of the groups' own table: without distinct tables and multisets.
    pub fn memory_bytes(&mut self) -> usize {
        let lanes: usize = self.lanes.iter().map(|l| l.counts.memory_bytes()).sum();
        let calls: usize = self
            .calls
            .iter_mut()
            .map(|c| {
                if c.accumulator.multiset().is_some() {
                    0
                } else {
                    c.accumulator.memory_bytes()
                }
            })
            .sum();
        self.index.memory_bytes()
            + lanes
            + calls
            + self.flags.memory_bytes()
            + (self.unsealed.capacity() + self.epoch.ids.capacity()) * 4
    }
}

/// What a call's accumulator takes of a batch.
enum Argument {
    /// Nothing: it goes by the count of rows.
    None,
    Column(usize),
    /// Two columns as one, see [`pairs`].
    Pairs(usize, usize),
    /// Columns as one, which is there where a row is.
    Rows(Vec<usize>),
}

impl Argument {
    fn new(call: &AggregateCall) -> Argument {
        match (call.arg, call.second) {
            (None, _) => Argument::None,
            (Some(value), _) if goes_by_rows(call) => {
                let order = call.order.iter().map(|key| key.column);
                Argument::Rows(order.chain([value]).collect())
            }
            (Some(column), None) => Argument::Column(column),
            (Some(first), Some(second)) => Argument::Pairs(first, second),
        }
    }

    fn data_type(&self, input: &SchemaRef) -> Option<DataType> {
        let type_of = |column: &usize| input.field(*column).data_type().clone();
        Some(match self {
            Argument::None => return None,
            Argument::Column(column) => type_of(column),
            Argument::Pairs(first, second) => {
                DataType::Struct(fields(&[type_of(first), type_of(second)]))
            }
            Argument::Rows(columns) => {
                let types: Vec<DataType> = columns.iter().map(type_of).collect();
                DataType::Struct(fields(&types))
            }
        })
    }

    fn of(&self, batch: &ChangeBatch) -> Result<Option<ArrayRef>> {
        Ok(Some(match self {
            Argument::None => return Ok(None),
            Argument::Column(column) => batch.column(*column).clone(),
            Argument::Pairs(first, second) => pairs(batch.column(*first), batch.column(*second))?,
            Argument::Rows(columns) => {
                let columns = columns.iter().map(|c| batch.column(*c).clone());
                structs(columns.collect(), None)?
            }
        }))
    }
}

/// Whether a call takes rows whose argument is NULL, too.
fn goes_by_rows(call: &AggregateCall) -> bool {
    matches!(
        call.function,
        AggregateFunction::First | AggregateFunction::Last
    )
}

fn fields(types: &[DataType]) -> Fields {
    let field = |(i, t): (usize, &DataType)| Field::new(format!("c{i}"), t.clone(), true);
    types.iter().enumerate().map(field).collect()
}

fn structs(columns: Vec<ArrayRef>, nulls: Option<NullBuffer>) -> Result<ArrayRef> {
    let types: Vec<DataType> = columns.iter().map(|c| c.data_type().clone()).collect();
    let structs = StructArray::try_new(fields(&types), columns, nulls);
    Ok(Arc::new(
        structs.map_err(|e| Error::internal(e.to_string()))?,
    ))
}

/// Two arguments as one: a struct, which is NULL where one of them is.
pub(crate) fn pairs(first: &ArrayRef, second: &ArrayRef) -> Result<ArrayRef> {
    let (a, b) = (first.logical_nulls(), second.logical_nulls());
    let nulls = NullBuffer::union(a.as_ref(), b.as_ref());
    structs(vec![first.clone(), second.clone()], nulls)
}

fn concat(parts: &[ArrayRef]) -> Result<Option<ArrayRef>> {
    if parts.len() < 2 {
        return Ok(parts.first().cloned());
    }
    let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
    compute::concat(&parts)
        .map(Some)
        .map_err(|e| Error::internal(e.to_string()))
}

/// Rows in which any column differs.
fn differing(old: &[ArrayRef], new: &[ArrayRef], rows: usize) -> Result<Vec<bool>> {
    let mut differs = vec![false; rows];
    for (old, new) in old.iter().zip(new) {
        let column: BooleanArray =
            distinct(&old.as_ref(), &new.as_ref()).map_err(|e| Error::internal(e.to_string()))?;
        column
            .values()
            .set_indices()
            .for_each(|i| differs[i] = true);
    }
    Ok(differs)
}
