//! The server of the simulation as its clients see it, of one node or several: it may be down, it
//! may die while it is asked, and then nobody knows what came of the question. Where two nodes hold
//! themselves for the one that leads, a client may come to either.

use super::broker::SimBroker;
use super::dice::Dice;
use super::node::{Node, Opened, Outside, Told, ended};
use super::queries::{Bag, Contents, Row};
use arrow::array::{Array, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::Int64Type;
use std::sync::Arc;
use std::time::Duration;
use tidemark_common::{Epoch, Error, RelationId, Result, SplitId, SqlState, machine};
use tidemark_control::protocol::{Floors, Positions};
use tidemark_node::engine::{Creation, ReadAs, Share};
use tidemark_node::{Engine, NewKeys, Writer};
use tidemark_plan::Relation;
use tidemark_planner::{Functions, Planner};
use tidemark_state::manifest::Manifest;

/// Of a thousand questions so many come to a node that leads no more, if there is one.
const STRAY: u64 = 300;

/// See the module.
pub struct Server {
    /// Its nodes; the engine is open in one of them.
    pub nodes: Vec<Node>,
    /// What they share.
    pub outside: Outside,
    /// Their broker.
    pub broker: SimBroker,
    dice: Dice,
    functions: Functions,
}

/// What was read at one epoch.
pub struct Reading {
    /// The epoch.
    pub epoch: Epoch,
    /// Where the running sources stood.
    pub positions: Positions,
    /// What was decided of splits that brought nothing.
    pub floors: Arc<Floors>,
    /// The id of each relation that was there.
    pub ids: Vec<(String, RelationId)>,
    /// The rows of those that keep some.
    pub contents: Contents,
}

impl Server {
    /// None has been started.
    pub fn new(outside: Outside, nodes: Vec<Node>, dice: Dice) -> Arc<Server> {
        Arc::new(Server {
            nodes,
            broker: outside.broker.clone(),
            outside,
            dice,
            functions: Functions {
                scalar: tidemark_operator::functions::all(),
            },
        })
    }

    /// Whether it is a group of nodes.
    pub fn is_group(&self) -> bool {
        self.nodes.len() > 1
    }

    /// Whether it answers.
    pub fn is_open(&self) -> bool {
        self.nodes.iter().any(Node::is_open)
    }

    /// The node that answers, the newest if several do.
    pub fn leader(&self) -> Option<&Node> {
        let open = self.nodes.iter().filter(|node| node.is_open());
        open.max_by_key(|node| node.opened().map(|opened| opened.order))
    }

    /// Whom a client asks. Of one whose process has just ended it hears nothing.
    fn asked(&self) -> Option<Opened> {
        if !self.is_group() {
            return self.nodes[0].opened();
        }
        let open = self.nodes.iter().filter(|node| node.is_open());
        let mut open: Vec<Opened> = open.filter_map(Node::opened).collect();
        open.sort_by_key(|opened| opened.order);
        let newest = open.pop();
        match !open.is_empty() && self.dice.chance(STRAY) {
            true => Some(self.dice.pick(&open)),
            false => newest,
        }
    }

    /// Has something asked in the server's process.
    pub async fn ask<T, F>(&self, question: impl FnOnce(Engine) -> F) -> Told<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let Some(opened) = self.asked() else {
            return Told::Lost;
        };
        let process = opened.process.clone();
        match opened.ask(question).await {
            // What is said by a server that goes down tells nothing of what was asked. In a group
            // it may be decided when the next node leads, and not before.
            Told::Refused(error) if error.state() == SqlState::ADMIN_SHUTDOWN => {
                if self.is_group() && !ended(&process).await {
                    return Told::Refused(Error::internal("a node that said so does not end"));
                }
                Told::Lost
            }
            told => told,
        }
    }
}

impl Server {
    /// `CREATE ...`
    pub async fn create(self: &Arc<Self>, sql: &str) -> Told<()> {
        let (server, sql) = (self.clone(), sql.to_string());
        self.ask(|engine: Engine| async move {
            let statement = tidemark_planner::parse(&sql)?.remove(0);
            let relation = server.plan(&engine, &statement)?;
            engine.create(relation, |_| {}).await
        })
        .await
    }

    fn plan(&self, engine: &Engine, statement: &tidemark_planner::Statement) -> Result<Relation> {
        let schemas = ["public".to_string()];
        let planner = Planner::new(engine.catalog(), &self.functions, &schemas);
        let planned = planner.plan_create(engine.allocate_id(), statement, "root")?;
        Ok(planned.relation)
    }

    /// `CREATE ...` by a client that gives up after so long.
    pub async fn create_within(self: &Arc<Self>, sql: &str, patience: Duration) -> Told<()> {
        let (server, sql) = (self.clone(), sql.to_string());
        self.ask(move |engine: Engine| async move {
            let statement = tidemark_planner::parse(&sql)?.remove(0);
            let relation = server.plan(&engine, &statement)?;
            let created = machine::timeout(patience, engine.create(relation, |_| {})).await;
            created.unwrap_or_else(|| Err(Error::user(SqlState::QUERY_CANCELED, "given up")))
        })
        .await
    }

    /// `CREATE OR REPLACE ...` of a relation that is there.
    pub async fn replace(self: &Arc<Self>, name: &str, sql: &str) -> Told<()> {
        let (server, name, sql) = (self.clone(), name.to_string(), sql.to_string());
        self.ask(|engine: Engine| async move {
            let statement = tidemark_planner::parse(&sql)?.remove(0);
            let relation = server.plan(&engine, &statement)?;
            let creation = Creation {
                replaces: Some(id_of(&engine, &name)?),
                ..Creation::default()
            };
            engine.create_as(relation, creation, |_| {}).await
        })
        .await
    }

    /// `DROP ...`
    pub async fn drop_relation(&self, name: &str) -> Told<()> {
        let name = name.to_string();
        self.ask(|engine: Engine| async move {
            let id = id_of(&engine, &name)?;
            engine.drop(&[id], false).await
        })
        .await
    }

    /// Waits until what came so far is in a checkpoint.
    pub async fn flush(&self) -> Told<()> {
        self.ask(|engine: Engine| async move { engine.flush().await })
            .await
    }

    /// One transaction on a table of BIGINT columns with its key first: of each key the new row, or
    /// none. Returns the epoch that it is part of.
    pub async fn write(&self, table: &str, rows: Vec<(i64, Option<Row>)>) -> Told<Epoch> {
        let table = table.to_string();
        self.ask(|engine: Engine| async move {
            let relation = relation_of(&engine, &table)?;
            let mut guard = engine
                .begin_write(&[relation.id], Writer::default())
                .await?;
            let keys = Int64Array::from_iter_values(rows.iter().map(|(key, _)| *key));
            let before = guard.lookup(relation.id, &[Arc::new(keys)])?;
            let after = rows.into_iter().filter_map(|(_, row)| row);
            let after = batch(&relation, &after.collect::<Vec<Row>>())?;
            guard.write(relation.id, &[before], &[after], NewKeys::Known)?;
            guard.commit().await
        })
        .await
    }

    /// Adds one to a row's value, under the table's lock.
    pub async fn increment(&self, table: &str, key: i64) -> Told<Epoch> {
        let table = table.to_string();
        self.ask(|engine: Engine| async move {
            let relation = relation_of(&engine, &table)?;
            let mut guard = engine
                .begin_write(&[relation.id], Writer::default())
                .await?;
            let keys = Int64Array::from_iter_values([key]);
            let before = guard.lookup(relation.id, &[Arc::new(keys)])?;
            let mut there = Bag::default();
            add_rows(&mut there, &before);
            let value = there.rows().next().and_then(|row| row[1]).unwrap_or(0);
            let after = batch(&relation, &[vec![Some(key), Some(value + 1)]])?;
            guard.write(relation.id, &[before], &[after], NewKeys::Known)?;
            guard.commit().await
        })
        .await
    }

    /// Where the values are that a relation could not read: split, offset and column.
    pub async fn errors(&self, relation: &str) -> Told<Vec<(SplitId, i64, String)>> {
        let relation = relation.to_string();
        self.ask(|engine: Engine| async move {
            let errors = engine.errors().into_iter();
            let its = errors.filter(|((_, name), _)| *name == relation);
            Ok(its
                .map(|(_, row)| (row.split, row.offset, row.column.clone()))
                .collect())
        })
        .await
    }

    /// What the server still holds that it should have given back when all is at rest, in words.
    pub async fn holds(&self) -> Told<Vec<String>> {
        self.ask(|engine: Engine| async move {
            let mut held = Vec::new();
            let memory = engine.memory();
            let amounts = [
                ("rows between actors", memory.on_the_way),
                ("changes for sinks", memory.undelivered),
                ("files to be stored", memory.storing),
            ];
            let amounts = amounts.into_iter().filter(|(_, bytes)| *bytes > 0);
            held.extend(amounts.map(|(what, bytes)| format!("{bytes} bytes of {what}")));
            for relation in engine.catalog().relations.values() {
                let Ok(partitions) = engine.partitions(relation.id) else {
                    continue;
                };
                let pending: usize = partitions.iter().map(|p| p.pending_rows()).sum();
                if pending > 0 {
                    held.push(format!("{pending} rows of {} not merged", relation.name));
                }
            }
            Ok(held)
        })
        .await
    }

    /// What the newest manifest in the store names and the store does not have.
    pub fn missing(&self) -> Result<Vec<String>> {
        let store = &self.outside.store;
        let names = store.names();
        let newest = names.iter().filter(|name| name.starts_with("manifests/"));
        let Some(path) = newest.max() else {
            return Ok(Vec::new());
        };
        let bytes = store.bytes(path).unwrap_or_default();
        let manifest = Manifest::decode(path, &bytes)?;
        let is_missing = |path: &&str| !names.iter().any(|name| name == path);
        let missing = manifest.paths().filter(is_missing);
        Ok(missing
            .map(|name| format!("{name}, which {path} names"))
            .collect())
    }

    /// Everything that can be read, at one epoch, which is `at_least` that.
    pub async fn read(&self, at_least: Epoch) -> Told<Reading> {
        self.read_slowly(at_least, Duration::ZERO).await
    }

    /// The same, with a pause in front of each relation.
    pub async fn read_slowly(&self, at_least: Epoch, pause: Duration) -> Told<Reading> {
        self.ask(move |engine: Engine| async move {
            let catalog = engine.catalog();
            let relations: Vec<Arc<Relation>> = catalog
                .relations
                .values()
                .filter(|r| !catalog.stopped.contains_key(&r.id))
                .cloned()
                .collect();
            let read: Vec<RelationId> = relations
                .iter()
                .filter(|r| r.job.is_some())
                .map(|r| r.id)
                .collect();
            let pin = engine.pin_when(&read, at_least).await?;
            let mut contents = Contents::new();
            for relation in relations.iter().filter(|r| r.is_materialized()) {
                if !pause.is_zero() {
                    machine::sleep(pause).await;
                }
                let answer = engine.answer(relation.id, pin.epoch())?;
                let columns: Vec<usize> = (0..relation.columns.len()).collect();
                let mut bag = Bag::default();
                for share in &answer.shares {
                    let ReadAs { epoch, mergeable } = answer.at;
                    match share {
                        Share::Here(view) => {
                            let rows = view.read_at(epoch, mergeable, &columns, 500)?;
                            rows.iter().for_each(|rows| add_rows(&mut bag, rows));
                        }
                        Share::There(far) => {
                            let mut pieces = far.scan(answer.at, &columns, None).await?;
                            while let Some(rows) = pieces.next().await? {
                                add_rows(&mut bag, &rows);
                            }
                        }
                    }
                }
                contents.insert(relation.name.clone(), bag);
            }
            // Another node may lead, and have acknowledged what is not seen here.
            if !engine.membership().is_sure() {
                return Err(Error::unavailable(
                    SqlState::CONNECTION_FAILURE,
                    "it is not sure that this node leads",
                ));
            }
            Ok(Reading {
                epoch: pin.epoch(),
                positions: pin.positions().clone(),
                floors: pin.floors(),
                ids: relations.iter().map(|r| (r.name.clone(), r.id)).collect(),
                contents,
            })
        })
        .await
    }

    /// The newest epoch at which all can be read.
    pub async fn published(&self) -> Told<Epoch> {
        self.ask(|engine: Engine| async move { Ok(engine.published()) })
            .await
    }

    /// Every job, its state and how far it is.
    pub async fn jobs(&self) -> Told<Vec<String>> {
        self.ask(|engine: Engine| async move {
            let job = |job: tidemark_node::JobStatus| {
                let (state, progress) = (job.state, job.progress);
                format!("{} {state} {progress:.0} % epoch {}", job.name, job.epoch)
            };
            Ok(engine.jobs().into_iter().map(job).collect())
        })
        .await
    }

    /// The jobs that do not run, and why.
    pub async fn stopped(&self) -> Told<Vec<String>> {
        self.ask(|engine: Engine| async move {
            let jobs = engine.jobs().into_iter();
            let stopped = jobs.filter(|job| matches!(job.state, "stopped" | "held back"));
            Ok(stopped
                .map(|job| {
                    let error = job.error.unwrap_or_default();
                    format!("{} is {}: {error}", job.name, job.state)
                })
                .collect())
        })
        .await
    }
}

fn relation_of(engine: &Engine, name: &str) -> Result<Arc<Relation>> {
    let found = engine.catalog().find("public", name).cloned();
    found.ok_or_else(|| {
        Error::user(
            SqlState::UNDEFINED_TABLE,
            format!("relation \"{name}\" does not exist"),
        )
    })
}

fn id_of(engine: &Engine, name: &str) -> Result<RelationId> {
    relation_of(engine, name).map(|relation| relation.id)
}

fn batch(relation: &Relation, rows: &[Row]) -> Result<RecordBatch> {
    let column = |at: usize| -> Arc<dyn Array> {
        Arc::new(Int64Array::from_iter(rows.iter().map(|row| row[at])))
    };
    let columns = (0..relation.columns.len()).map(column).collect();
    RecordBatch::try_new(relation.arrow_schema(), columns)
        .map_err(|e| Error::internal(e.to_string()))
}

fn add_rows(bag: &mut Bag, rows: &RecordBatch) {
    for at in 0..rows.num_rows() {
        let values = rows.columns().iter().map(|column| {
            let column = column.as_primitive::<Int64Type>();
            column.is_valid(at).then(|| column.value(at))
        });
        bag.add(values.collect(), 1);
    }
}
