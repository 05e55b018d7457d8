//! A relation that takes the place of another, and takes along what rests on that.
//!
//! **Law.** What reads the old relation reads the new one by the columns of the same names. Its
//! plan stays what it is, but for where its leaves are: so every answer that it gives is that of
//! its query as it was written, over the new rows. That is right as long as the new relation keeps
//! what the plan was made with: the types of the columns that it reads, that they are not NULL,
//! that rows only come, which columns are unique, and what is promised of times. Where one of the
//! types is lost, the succession is refused, and says who needs it ([`follow`]); where it is
//! something else, a plan has to be made of the query's text, by whoever can ([`Maker::plan`]).
//!
//! * A materialized view is made anew under another number, over the new relations.
//! * A sink goes on under its own number: it has told its receiver what it gave, and gives the
//!   difference. What only ever tells of rows that come cannot tell a difference that takes some
//!   back, and what depends on when rows came cannot be made again: both are refused.
//! * A plain view and an index have no rows of their own. They name columns, and go over.
//!
//! What else a query's text names stays what it meant ([`crate::Altered::known_as`]): `*` is the
//! columns of the old relation.

use crate::{
    Catalog, Column, Format, JobPlan, Names, Node, Op, Relation, RelationKind, SharedRows,
};
use arrow_schema::Field;
use std::collections::{BTreeMap, BTreeSet};
use tidemark_common::{Error, RelationId, Result, SqlState};

/// Relations that take the places of others: old to new.
pub type Pairs = BTreeMap<RelationId, RelationId>;

/// What comes in the place of a relation.
pub struct Successor {
    id: RelationId,
    /// The columns of the old one by name.
    names: Names,
    /// Where they are in the new one, by their position in the old one.
    places: BTreeMap<usize, usize>,
    /// It has them all, in the same places, and no others.
    is_alike: bool,
    /// The key by which joins can look up the new one's rows.
    lookup_key: Option<Vec<usize>>,
}

/// By what they succeed.
pub type Successors = BTreeMap<RelationId, Successor>;

/// All that rests on a relation which is replaced.
#[derive(Clone, Debug, Default)]
pub struct Followers {
    /// Materialized views as they are to be made, each behind all that it reads.
    pub made: Vec<Made>,
    /// Sinks, which go on.
    pub sinks: BTreeSet<RelationId>,
    /// All of them as they are, also plain views and indexes.
    pub all: BTreeSet<RelationId>,
}

/// A materialized view that is made in the place of another.
#[derive(Clone, Debug)]
pub struct Made {
    /// The one whose place it takes.
    pub old: RelationId,
    /// It.
    pub relation: Relation,
    /// Its plan is a new one.
    pub is_planned: bool,
}

/// Who makes what follows.
pub trait Maker {
    /// The number of what takes the place of a relation.
    fn number(&mut self, of: &Relation) -> Result<RelationId>;

    /// A plan of a relation's text, where that means what the relation's plan has, over the new
    /// relations in the places of old ones; as a relation, whose plan, key and columns count.
    /// `after`: the relation as it would be without a new plan.
    fn plan(
        &mut self,
        of: &Relation,
        after: &Relation,
        places: &[(RelationId, Relation)],
    ) -> Result<Option<Relation>>;
}

impl Successor {
    /// The new relation in the place of the old one.
    pub fn of(old: &Relation, new: &Relation) -> Successor {
        let place = |name: &str| {
            let mut columns = new.visible();
            columns.find(|(_, c)| c.name == name).map(|(at, _)| at)
        };
        let places = old.visible().map(|(at, c)| (at, place(&c.name)));
        let places: BTreeMap<usize, usize> =
            places.filter_map(|(at, to)| Some((at, to?))).collect();
        // The text of a plain view is put where it is named.
        let is_alike = old.kind == RelationKind::View || old.names() == new.names();
        Successor {
            id: new.id,
            names: old.names(),
            places,
            is_alike,
            lookup_key: new.lookup_key(),
        }
    }

    /// Where the columns of the new relation were in the old one.
    pub fn former_places(&self) -> BTreeMap<usize, usize> {
        self.places.iter().map(|(old, new)| (*new, *old)).collect()
    }
}

/// What of a plan names other relations, to be changed: leaves that read them, and joins that look
/// up their rows.
fn taps_and_joins(job: &mut JobPlan) -> Vec<&mut Op> {
    let mut open: Vec<&mut Node> = job.fragments.iter_mut().map(|f| &mut f.root).collect();
    let mut found = Vec::new();
    while let Some(node) = open.pop() {
        open.extend(&mut node.inputs);
        if matches!(node.op, Op::Tap { .. } | Op::Join { .. }) {
            found.push(&mut node.op);
        }
    }
    found
}

/// The side of a join looks rows up in what succeeds their relation, if that keeps them by the same
/// key; else the join keeps them itself.
fn look_up_instead(side: &mut Option<SharedRows>, keys: &[usize], successors: &Successors) {
    let Some(rows) = side else {
        return;
    };
    let Some(successor) = successors.get(&rows.relation) else {
        return;
    };
    let place = |column: &usize| successor.places.get(column).copied();
    let columns: Option<Vec<usize>> = rows.columns.iter().map(place).collect();
    *side = columns.and_then(|columns| {
        let key: Vec<usize> = keys.iter().map(|k| columns[*k]).collect();
        (successor.lookup_key.as_ref() == Some(&key)).then(|| SharedRows {
            relation: successor.id,
            columns,
            filter: rows.filter.clone(),
        })
    });
}

impl Relation {
    /// Reads what succeeds the relations that it read.
    pub fn read_instead(&mut self, successors: &Successors) {
        for (old, successor) in successors
            .iter()
            .filter(|(id, _)| self.depends_on.contains(id))
        {
            self.altered.seen.remove(old);
            let known = self.altered.known_as.remove(old);
            let has_text = self.kind != RelationKind::Index;
            if has_text && (known.is_some() || !successor.is_alike) {
                let names = known.as_ref().unwrap_or(&successor.names).iter();
                let places = &successor.places;
                let names = names.filter_map(|(name, at)| Some((name.clone(), *places.get(at)?)));
                let known_as = &mut self.altered.known_as;
                known_as.insert(successor.id, names.collect());
            }
        }
        let read = self.depends_on.iter_mut();
        for id in read.chain(self.named.iter_mut().map(|named| &mut named.relation)) {
            *id = successors.get(id).map_or(*id, |successor| successor.id);
        }
        for op in self.job.iter_mut().flat_map(taps_and_joins) {
            match op {
                Op::Tap { relation, columns } => {
                    let Some(successor) = successors.get(relation) else {
                        continue;
                    };
                    *relation = successor.id;
                    for column in columns {
                        *column = successor.places.get(column).copied().unwrap_or(*column);
                    }
                }
                Op::Join {
                    left_keys,
                    right_keys,
                    shared: [left, right],
                    ..
                } => {
                    look_up_instead(left, left_keys, successors);
                    look_up_instead(right, right_keys, successors);
                }
                _ => {}
            }
        }
    }

    /// Computes the same columns by another plan.
    fn take_plan(&mut self, planned: Relation) -> Result<(), Refusal> {
        let mut columns = self.columns.iter().zip(&planned.columns);
        let is_same = self.columns.len() == planned.columns.len()
            && columns.all(|(a, b)| is_of_type(a, b))
            && planned.depends_on.iter().collect::<BTreeSet<_>>()
                == self.depends_on.iter().collect::<BTreeSet<_>>();
        if !is_same {
            return Err(Refusal::Column(
                "Its columns would be of other types over the new one.".into(),
            ));
        }
        for (column, planned) in self.columns.iter_mut().zip(planned.columns) {
            column.nullable = planned.nullable;
        }
        self.job = planned.job;
        self.key = planned.key;
        self.append_only = planned.append_only;
        Ok(())
    }

    /// The same relation under another number, over what succeeds the relations that it reads.
    fn succeeded(&self, id: RelationId, successors: &Successors) -> Relation {
        let mut relation = self.clone();
        relation.read_instead(successors);
        relation.id = id;
        relation.created_at = None;
        // It takes over the one that there is when it comes.
        relation.comment = None;
        if let Some(job) = &mut relation.job {
            job.relation = id;
        }
        relation
    }
}

impl Catalog {
    /// These take the places of others at once: what reads the old ones reads them. None does if
    /// one of them is not there.
    pub fn read_successors(&mut self, pairs: &Pairs) -> bool {
        let successor = |(old, new): (&RelationId, &RelationId)| {
            let (old, new) = (self.relations.get(old)?, self.relations.get(new)?);
            Some((old.id, Successor::of(old, new)))
        };
        let Some(successors) = pairs.iter().map(successor).collect::<Option<Successors>>() else {
            return false;
        };
        for relation in self.relations.values_mut() {
            let taps = relation.job.iter().flat_map(JobPlan::taps);
            let mut read = taps
                .map(|(id, _)| id)
                .chain(relation.depends_on.iter().copied());
            if read.any(|id| successors.contains_key(&id)) {
                std::sync::Arc::make_mut(relation).read_instead(&successors);
            }
        }
        true
    }

    /// All that depends on a relation, directly or not, each behind what it reads.
    fn resting_on(&self, id: RelationId) -> Vec<&Relation> {
        let mut affected = BTreeSet::from([id]);
        loop {
            let reads = |r: &Relation| r.depends_on.iter().any(|d| affected.contains(d));
            let more = self
                .relations
                .values()
                .map(AsRef::as_ref)
                .filter(|r| reads(r));
            let more: Vec<RelationId> = more.map(|r| r.id).collect();
            let before = affected.len();
            affected.extend(more);
            if affected.len() == before {
                break;
            }
        }
        affected.remove(&id);
        let mut ordered: Vec<&Relation> = Vec::new();
        while !affected.is_empty() {
            let reads_later = |r: &Relation| r.depends_on.iter().any(|d| affected.contains(d));
            let next = affected.iter().filter_map(|id| self.relations.get(id));
            let next: Vec<&Relation> = next
                .map(AsRef::as_ref)
                .filter(|r| !reads_later(r))
                .collect();
            if next.is_empty() {
                break;
            }
            affected.retain(|id| next.iter().all(|r| r.id != *id));
            ordered.extend(next);
        }
        ordered
    }

    /// Whether a job depends on the relation, directly or not.
    pub fn rests_a_job_on(&self, id: RelationId) -> bool {
        let mut resting = self.resting_on(id).into_iter();
        resting.any(|r| !matches!(r.kind, RelationKind::View | RelationKind::Index))
    }
}

/// What follows when `new` takes the place of `old`.
///
/// Errors: `42P17` for what would read itself, `2BP01` for a column that is gone or another,
/// `0A000` for what cannot be made again, or relies on what the new one does not keep; each names
/// who.
pub fn follow(
    catalog: &Catalog,
    old: &Relation,
    new: &Relation,
    maker: &mut dyn Maker,
) -> Result<Followers> {
    if catalog.rests_on(&new.depends_on, old.id) {
        let message = format!("{} \"{}\" would read itself", old.kind.name(), old.name);
        let hint = "Rename the one that there is, and read it by its new name.";
        return Err(Error::user(SqlState("42P17"), message).with_hint(hint));
    }
    let mut successors = Successors::from([(old.id, Successor::of(old, new))]);
    let mut followers = Followers::default();
    let mut places = vec![(old.id, new.clone())];
    for reader in catalog.resting_on(old.id) {
        let refuse = |refusal: Refusal| refusal.of(old, reader);
        let mut fits = places.iter().map(|(old, new)| {
            let old = catalog.relations.get(old);
            old.map_or(Ok(()), |old| check_fits(reader, old, new))
        });
        let fits = fits.find(Result::is_err).unwrap_or(Ok(()));
        match reader.kind {
            RelationKind::View | RelationKind::Index => fits.map_err(refuse)?,
            RelationKind::MaterializedView => {
                check_made_anew(reader).map_err(refuse)?;
                let mut relation = reader.succeeded(maker.number(reader)?, &successors);
                let is_planned = matches!(&fits, Err(Refusal::Not(_)));
                let planned = match is_planned {
                    true => maker.plan(reader, &relation, &places)?,
                    false => None,
                };
                match planned {
                    Some(planned) => relation.take_plan(planned).map_err(refuse)?,
                    None => fits.map_err(refuse)?,
                }
                successors.insert(reader.id, Successor::of(reader, &relation));
                places.push((reader.id, relation.clone()));
                followers.made.push(Made {
                    old: reader.id,
                    relation,
                    is_planned,
                });
            }
            RelationKind::Sink => {
                fits.map_err(refuse)?;
                check_tells_difference(catalog, reader).map_err(refuse)?;
                followers.sinks.insert(reader.id);
            }
            _ => {
                return Err(refuse(Refusal::Not(
                    "It has the changes of the old rows.".into(),
                )));
            }
        }
        followers.all.insert(reader.id);
    }
    Ok(followers)
}

/// Why something cannot follow.
enum Refusal {
    /// A column is not what it was.
    Column(String),
    /// It cannot be made again, or not on the new one.
    Not(String),
}

impl Refusal {
    fn of(self, old: &Relation, reader: &Relation) -> Error {
        let message = format!(
            "cannot replace {} \"{}\" because other objects depend on it",
            old.kind.name(),
            old.name
        );
        let (state, why) = match self {
            Refusal::Column(why) => (SqlState::DEPENDENT_OBJECTS, why),
            Refusal::Not(why) => (SqlState::FEATURE_NOT_SUPPORTED, why),
        };
        Error::user(state, message)
            .with_detail(format!(
                "{} {} depends on it. {why}",
                reader.kind.name(),
                reader.name
            ))
            .with_hint("Create it under another name, or drop what depends on it first.")
    }
}

fn check_made_anew(reader: &Relation) -> Result<(), Refusal> {
    match &reader.job {
        None => Err(Refusal::Not("What is stored of it cannot be read.".into())),
        Some(job) if job.depends_on_arrival() => Err(Refusal::Not(
            "A temporal join and a changelog are made when their rows come, and cannot be made \
             again."
                .into(),
        )),
        Some(_) => Ok(()),
    }
}

/// A sink can tell its receiver the difference between its query over the old rows and the new.
fn check_tells_difference(catalog: &Catalog, sink: &Relation) -> Result<(), Refusal> {
    check_made_anew(sink)?;
    let Some(job) = &sink.job else { return Ok(()) };
    let adds_only = |c: &crate::ConnectorSpec| c.format == Format::Plain;
    if sink.append_only && sink.connector.as_ref().is_some_and(adds_only) {
        return Err(Refusal::Not(
            "It sends rows that come, and cannot take back those that the new one does not have."
                .into(),
        ));
    }
    let mut nodes = job.fragments.iter().flat_map(crate::Fragment::nodes);
    let grows = nodes.any(|n| matches!(n.op, Op::Tap { .. }) && n.properties.append_only);
    if grows && !job.is_linear() {
        return Err(Refusal::Not(
            "Its plan is one for rows that only come, and cannot take back those that the new one \
             does not have."
                .into(),
        ));
    }
    let is_kept = |id: &RelationId| {
        let relation = catalog.relations.get(id);
        relation.is_some_and(|r| r.is_materialized())
    };
    match job.taps().iter().all(|(id, _)| is_kept(id)) || job.is_linear() {
        true => Ok(()),
        false => Err(Refusal::Not(
            "What it has told cannot be told from what came since: its query groups or joins a \
             source whose rows are not kept."
                .into(),
        )),
    }
}

/// Whether `reader`, which reads `old`, can read `new` instead.
fn check_fits(reader: &Relation, old: &Relation, new: &Relation) -> Result<(), Refusal> {
    if reader.kind != RelationKind::Index && reader.depends_on.contains(&old.id) {
        let named = named_by(reader, old);
        let places = named.iter().filter_map(|c| Some(find(new, &c.name)?.0));
        if !places.is_sorted() {
            return Err(Refusal::Column(
                "It names the columns of the old one, which the new one has in another order."
                    .into(),
            ));
        }
    }
    match reader.kind {
        // It names what reads it, and reads what it did.
        RelationKind::View | RelationKind::Index if !reader.depends_on.contains(&old.id) => Ok(()),
        RelationKind::View => {
            let missing = named_by(reader, old).into_iter().find(|c| !has(new, c));
            missing.map_or(Ok(()), |c| Err(column_lost(new, c)))
        }
        RelationKind::Index => check_index(reader, new),
        _ => check_job(reader, old, new),
    }
}

/// The columns of `old` that the text of `reader` can name.
fn named_by<'a>(reader: &Relation, old: &'a Relation) -> Vec<&'a Column> {
    let known = reader.altered.known_as.get(&old.id);
    let is_known = |at: usize| known.is_none_or(|known| known.iter().any(|(_, k)| *k == at));
    let named = old.visible().filter(|(at, _)| is_known(*at));
    named.map(|(_, column)| column).collect()
}

fn find<'a>(relation: &'a Relation, name: &str) -> Option<(usize, &'a Column)> {
    let mut columns = relation.visible();
    columns.find(|(_, c)| c.name == name)
}

fn has(new: &Relation, column: &Column) -> bool {
    let found = find(new, &column.name);
    found.is_some_and(|(_, c)| is_of_type(c, column))
}

fn is_of_type(a: &Column, b: &Column) -> bool {
    a.data_type == b.data_type && a.sql_type == b.sql_type
}

fn column_lost(new: &Relation, column: &Column) -> Refusal {
    let name = &column.name;
    Refusal::Column(match find(new, name) {
        None => format!("It names column \"{name}\", which the new one does not have."),
        Some(_) => format!("It names column \"{name}\", which is of another type in the new one."),
    })
}

fn check_index(index: &Relation, new: &Relation) -> Result<(), Refusal> {
    let named = |c: &&Column| !has(new, c);
    if let Some(column) = index.columns.iter().find(named) {
        return Err(column_lost(new, column));
    }
    let in_index = |at: &usize| {
        let name = &new.columns[*at].name;
        index.columns.iter().any(|c| c.name == *name)
    };
    match index.key_declared && (new.key.is_empty() || !new.key.iter().all(in_index)) {
        true => Err(Refusal::Not(
            "The rows of the new one are not known to be unique in its columns.".into(),
        )),
        false => Ok(()),
    }
}

/// What the plan of a job was made with of `old`, `new` has.
fn check_job(reader: &Relation, old: &Relation, new: &Relation) -> Result<(), Refusal> {
    let nodes = reader.job.iter().flat_map(|j| &j.fragments);
    for node in nodes.flat_map(crate::Fragment::nodes) {
        if let Op::Tap { relation, columns } = &node.op
            && *relation == old.id
        {
            check_tap(node, columns, old, new)?;
        }
    }
    check_never_null(reader, old, new)
}

/// A plan may go by columns that are never NULL without reading them: what counts them counts rows.
fn check_never_null(reader: &Relation, old: &Relation, new: &Relation) -> Result<(), Refusal> {
    let mut taps = reader.job.iter().flat_map(JobPlan::taps);
    let is_lost = |column: &&Column| {
        let found = find(new, &column.name).map(|(_, c)| c);
        !column.nullable && found.is_none_or(|c| c.nullable || !is_of_type(c, column))
    };
    let mut columns = old.visible().map(|(_, column)| column);
    match columns.find(is_lost) {
        Some(column) if taps.any(|(id, _)| id == old.id) => Err(Refusal::Not(format!(
            "Its plan may go by column \"{}\", which is never NULL in the old one.",
            column.name
        ))),
        _ => Ok(()),
    }
}

fn check_tap(
    node: &Node,
    columns: &[usize],
    old: &Relation,
    new: &Relation,
) -> Result<(), Refusal> {
    let mut places = Vec::with_capacity(columns.len());
    for (at, field) in columns.iter().zip(node.schema.fields()) {
        let column = &old.columns[*at];
        let Some((place, found)) = find(new, &column.name).filter(|_| has(new, column)) else {
            return Err(column_lost(new, column));
        };
        check_not_null(field, found)?;
        places.push(place);
    }
    let known = &node.properties;
    if known.append_only && !new.append_only {
        return Err(Refusal::Not(
            "It relies on rows that only come, and the new one takes rows back.".into(),
        ));
    }
    if let Some(key) = &known.key {
        let in_key = |at: &usize| key.iter().any(|k| places[*k] == *at);
        if new.append_only || new.key.is_empty() || !new.key.iter().all(in_key) {
            let names: Vec<&str> = key
                .iter()
                .map(|k| old.columns[columns[*k]].name.as_str())
                .collect();
            return Err(Refusal::Not(format!(
                "It relies on rows that are unique by ({}), which those of the new one are not \
                 known to be.",
                names.join(", ")
            )));
        }
    }
    let promises = |r: &Relation, at: usize| {
        let watermarks = r.job.iter().flat_map(|j| &j.watermarks);
        let of_column = watermarks.filter(|w| w.column == at);
        of_column.map(|w| w.terms.clone()).next()
    };
    for (at, place) in columns.iter().zip(&places) {
        let promised = promises(old, *at);
        if promised.is_some() && promises(new, *place) != promised {
            return Err(Refusal::Not(format!(
                "It relies on the watermark of column \"{}\", which the new one does not have.",
                old.columns[*at].name
            )));
        }
    }
    Ok(())
}

fn check_not_null(field: &Field, found: &Column) -> Result<(), Refusal> {
    match found.nullable && !field.is_nullable() {
        true => Err(Refusal::Not(format!(
            "It relies on column \"{}\", which is never NULL in the old one and may be in the new \
             one.",
            found.name
        ))),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests;
