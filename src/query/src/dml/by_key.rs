//! Writes of single rows without a plan: `INSERT INTO t VALUES (constants)`, `UPDATE t SET column =
//! value, .. WHERE key = constant` and `DELETE FROM t WHERE key = constant`, with IN too.
//!
//! ```text
//! lock the table -> look the rows up by key -> new values -> the same write as a planned one
//! ```
//! A new value is a constant or a parameter, which is read as one of an INSERT is, or it is
//! computed of the row's columns: then the planner has planned it once, over a row with the
//! parameters as further columns, and the projections of that plan are evaluated over each row. So
//! there is one evaluator. A computed value has operators and no calls of functions, which might
//! tell the time or take long; its parameters are numbers, for which a column and a constant mean
//! the same, and it is planned anew when their types change.
//!
//! What fails before anything is written is planned, too: errors are the planner's. An UPDATE by
//! key took 2 ms of processor time when it was planned each time, and takes 0.15 ms now.

use super::change::plan_update;
use super::*;
use crate::parameters::Parameter;
use crate::serving::point::{Form, Keys, Value as Given};
use crate::settings::Settings;
use arrow::array::RecordBatchOptions;
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};
use parking_lot::Mutex;
use tidemark_plan::{Catalog, Column};
use tidemark_values::moment::Zone;

/// Rows of an INSERT that is kept at most.
const ROWS_MAX: usize = 100;

/// A statement of this form, and what it writes, found once for a catalog, a session's settings and
/// the types of what is computed with.
pub struct Kept {
    statement: ast::Statement,
    /// Of each parameter that values are computed with its place.
    computed_with: Vec<usize>,
    found: Mutex<Option<Found>>,
}

struct Found {
    catalog: Arc<Catalog>,
    settings: Arc<Settings>,
    types: Vec<DataType>,
    write: Option<Arc<ByKey>>,
}

/// What a statement writes.
struct ByKey {
    relation: Arc<Relation>,
    kind: Kind,
}

enum Kind {
    /// Into these columns.
    Insert(Vec<usize>),
    Delete(Keys),
    Update {
        keys: Keys,
        /// Columns, and the constants or parameters that they become.
        plain: Vec<(usize, Given)>,
        computed: Option<Computed>,
        /// What is known of the new keys.
        after: NewKeys,
    },
}

impl Kept {
    /// A statement to be kept; `None` for one that is not of this form.
    pub fn of(statement: &ast::Statement) -> Option<Kept> {
        let computed_with = match statement {
            ast::Statement::Insert(insert) => is_of_constants(insert).then(Vec::new)?,
            ast::Statement::Update(update) => changes_by_condition(update)?,
            ast::Statement::Delete(delete) => deletes_by_condition(delete).map(|()| Vec::new())?,
            _ => return None,
        };
        Some(Kept {
            statement: statement.clone(),
            computed_with,
            found: Mutex::default(),
        })
    }
}

/// Whether it inserts a few rows of constants and parameters, and nothing is to be told of them.
fn is_of_constants(insert: &ast::Insert) -> bool {
    let plain = match &insert.on {
        None => true,
        Some(ast::OnInsert::OnConflict(on)) => {
            matches!(on.action, ast::OnConflictAction::DoNothing)
        }
        Some(_) => false,
    };
    let rows = values_of(insert).unwrap_or_default();
    let mut cells = rows.iter().flat_map(|row| &row.content);
    plain
        && insert.returning.is_none()
        && (1..=ROWS_MAX).contains(&rows.len())
        && cells.all(|cell| is_plain(cell) || is_default(cell))
}

/// Of an UPDATE of one table by a condition the places of the parameters that values are computed
/// with.
fn changes_by_condition(update: &ast::Update) -> Option<Vec<usize>> {
    let plain = update.from.is_none()
        && update.returning.is_none()
        && update.order_by.is_empty()
        && update.limit.is_none();
    Form::over(&update.table, update.selection.as_ref().filter(|_| plain)?)?;
    let mut places = Vec::new();
    for assignment in &update.assignments {
        let (_, value) = single(assignment)?;
        if !is_plain(value) {
            computed_with(value, 0, &mut places)?;
        }
    }
    places.sort_unstable();
    places.dedup();
    Some(places)
}

/// Whether it is a DELETE from one table by a condition.
fn deletes_by_condition(delete: &ast::Delete) -> Option<()> {
    let plain = delete.using.is_none()
        && delete.returning.is_none()
        && delete.order_by.is_empty()
        && delete.limit.is_none();
    let table = delete_target(delete).ok().filter(|_| plain)?;
    Form::over(table, delete.selection.as_ref()?).map(drop)
}

impl Asker {
    /// Runs a write of this form; `None` for one that is to be planned.
    pub(crate) async fn write_by_key(
        &mut self,
        kept: &Kept,
        parameters: &[Parameter],
    ) -> Result<Option<Outcome>> {
        let verb = match kept.statement {
            ast::Statement::Insert(_) => "INSERT",
            ast::Statement::Update(_) => "UPDATE",
            _ => "DELETE",
        };
        self.check_may_write(verb)?;
        let Some(write) = self.found(kept, parameters).await? else {
            return Ok(None);
        };
        let relation = &write.relation;
        if let (Kind::Insert(columns), ast::Statement::Insert(insert)) =
            (&write.kind, &kept.statement)
        {
            let zone = self.zone();
            let Ok(Some(rows)) = constant_rows(insert, relation, columns, parameters, &zone) else {
                return Ok(None);
            };
            let guard = self.lock(&[relation.id]).await?;
            if !self.is_as_before(relation) {
                return Ok(None);
            }
            return self
                .insert_rows(guard, relation, insert, rows)
                .await
                .map(Some);
        }
        let (Kind::Update { keys, .. } | Kind::Delete(keys)) = &write.kind else {
            return Ok(None);
        };
        // A block does not see the rows of a table that was created after it began.
        let block = self.transaction.block();
        let begun = block.and_then(|block| Some(block.pin.as_ref()?.epoch()));
        let is_later = begun.is_some_and(|epoch| relation.created_at > Some(epoch));
        let Some(keys) = keys.arrays(parameters).filter(|_| !is_later) else {
            return Ok(None);
        };
        let guard = self.lock(&[relation.id]).await?;
        if !self.is_as_before(relation) {
            return Ok(None);
        }
        let old = guard.lock().lookup(relation.id, &keys)?;
        let zone = self.zone();
        let Some(changes) = write.changes(old, parameters, &zone) else {
            return Ok(None);
        };
        let finished = self.finish(guard, relation, changes, verb, None);
        finished.await.map(Some)
    }

    /// What a statement writes, by the catalog and the settings of now.
    async fn found(&mut self, kept: &Kept, parameters: &[Parameter]) -> Result<Option<Arc<ByKey>>> {
        let types = kept.computed_with.iter();
        let types = types.map(|place| number_type(&parameters.get(*place)?.written()));
        let Some(types) = types.collect::<Option<Vec<DataType>>>() else {
            return Ok(None);
        };
        let catalog = self.catalog();
        if let Some(found) = kept.found.lock().as_ref()
            && Arc::ptr_eq(&found.catalog, &catalog)
            && Arc::ptr_eq(&found.settings, &self.settings)
            && found.types == types
        {
            return Ok(found.write.clone());
        }
        let settings = self.settings.clone();
        // What is seldom done is not part of the future of each write.
        let write = Box::pin(self.by_key(kept, &types)).await.map(Arc::new);
        *kept.found.lock() = Some(Found {
            catalog,
            settings,
            types,
            write: write.clone(),
        });
        Ok(write)
    }

    async fn by_key(&mut self, kept: &Kept, types: &[DataType]) -> Option<ByKey> {
        let (table, condition, verb) = match &kept.statement {
            ast::Statement::Insert(insert) => {
                let ast::TableObject::TableName(object) = &insert.table else {
                    return None;
                };
                let relation = self.target(object, "insert into").ok()?;
                self.require_of_insert(insert, &relation).ok()?;
                let columns = insert_columns(insert, &relation).ok()?;
                let kind = Kind::Insert(columns);
                return Some(ByKey { relation, kind });
            }
            ast::Statement::Update(update) => (&update.table, &update.selection, "update"),
            ast::Statement::Delete(delete) => (
                delete_target(delete).ok()?,
                &delete.selection,
                "delete from",
            ),
            _ => return None,
        };
        let form = Form::over(table, condition.as_ref()?)?;
        let relation = self.target(form.name(), verb).ok()?;
        // The rows are read, too.
        self.require(Privilege::Select, &relation).ok()?;
        let keys = form.keys(&relation)?;
        let ast::Statement::Update(update) = &kept.statement else {
            let kind = Kind::Delete(keys);
            return Some(ByKey { relation, kind });
        };
        let (mut plain, mut computed) = (Vec::new(), Vec::new());
        let mut assigned = HashSet::new();
        for assignment in &update.assignments {
            let (name, value) = single(assignment)?;
            let column = position_of(&relation, &name).ok()?;
            super::generated::check_updated(&relation, column, value).ok()?;
            // The planner tells that a column is assigned twice.
            assigned.insert(column).then_some(())?;
            match is_plain(value) {
                true => plain.push((column, Given::of(value)?)),
                false => computed.push(assignment.clone()),
            }
        }
        let computed = match computed.is_empty() {
            true => None,
            false => {
                let snapshot = self.snapshot(&computed).await.ok()?;
                let given = kept.computed_with.iter().zip(types);
                let given = given.map(|(place, data_type)| (*place, number(*place, data_type)));
                let (name, given) = (form.qualifier(), given.collect());
                let planned = self.computed(snapshot, &relation, name, computed, given);
                Some(planned.await?)
            }
        };
        let kind = Kind::Update {
            keys,
            plain,
            computed,
            after: keys_after(&relation, &assigned.into_iter().collect::<Vec<_>>()),
        };
        Some(ByKey { relation, kind })
    }

    /// Plans what columns become that are computed of a row, which is known as `name`, and of
    /// numbers that are given.
    async fn computed(
        &self,
        snapshot: Snapshot,
        relation: &Arc<Relation>,
        name: String,
        assignments: Vec<ast::Assignment>,
        given: Vec<(usize, Column)>,
    ) -> Option<Computed> {
        let mut snapshot = snapshot;
        let row = relation.columns.iter().chain(given.iter().map(|(_, c)| c));
        let row: Vec<Field> = row.map(|c| c.sql_field(&c.name)).collect();
        let table = MemTable::try_new(Arc::new(Schema::new(row)), vec![Vec::new()]).ok()?;
        snapshot.overrides.push(Override {
            name: name.clone(),
            relation: Arc::new(relation.revealed()),
            table: Arc::new(table),
        });
        let mut update = ast::Statement::Update(ast::Update {
            table: table_named(&name),
            assignments,
            ..empty_update()
        });
        let last = given.iter().map(|(place, _)| place + 1).max().unwrap_or(0);
        let column = |place| Expr::Identifier(Ident::with_quote('"', given_name(place)));
        parameters::bind(&mut update, &(0..last).map(column).collect::<Vec<_>>()).ok()?;
        let ast::Statement::Update(update) = update else {
            return None;
        };
        let table = relation.clone();
        let planned = self.planned(move |state| {
            let (plan, columns) = plan_update(state, &snapshot, &update, &table, &name)?;
            Ok((runnable(state, plan)?.1, columns))
        });
        let (plan, columns) = planned.await.ok()?;
        Computed::of(plan, relation, columns, given)
    }
}

impl ByKey {
    /// What becomes of the rows; `None` where the planner has something to say.
    fn changes(&self, old: RecordBatch, parameters: &[Parameter], zone: &Zone) -> Option<Changes> {
        if old.num_rows() == 0 {
            return Some(Changes::default());
        }
        let Kind::Update {
            plain,
            computed,
            after,
            ..
        } = &self.kind
        else {
            return Some(Changes {
                affected: vec![old.clone()],
                deletes: vec![old],
                ..Changes::default()
            });
        };
        let mut new = old.columns().to_vec();
        for (column, value) in plain {
            let value = value.given(parameters)?;
            new[*column] = given(
                &value,
                &self.relation.columns[*column],
                old.num_rows(),
                zone,
            )?;
        }
        if let Some(computed) = computed {
            let values = computed.values(&old, parameters, zone)?;
            for (column, value) in computed.columns.iter().zip(values) {
                new[*column] = value;
            }
        }
        let new = computed_batch(&self.relation, new).ok()?;
        Some(Changes {
            affected: vec![new.clone()],
            deletes: vec![old],
            inserts: vec![new],
            keys: *after,
        })
    }
}

/// Values that are computed of a row and of numbers that are given.
struct Computed {
    /// The columns that they are for.
    columns: Vec<usize>,
    /// The parameters that they are computed with, by their places, as columns.
    given: Vec<(usize, Column)>,
    /// What the plan reads of the row with the parameters behind it.
    read: Vec<usize>,
    read_schema: SchemaRef,
    /// The plan's projections, innermost first. The last one gives the row, then the values.
    projections: Vec<(Vec<ProjectionExpr>, SchemaRef)>,
}

impl Computed {
    /// What a plan computes that has nothing but projections; `None` for another one.
    fn of(
        plan: Arc<dyn ExecutionPlan>,
        relation: &Relation,
        columns: Vec<usize>,
        given: Vec<(usize, Column)>,
    ) -> Option<Computed> {
        let (mut node, mut projections) = (&plan, Vec::new());
        let read_schema = loop {
            if let Some(projection) = node.downcast_ref::<ProjectionExec>() {
                projections.push((projection.expr().to_vec(), projection.schema()));
                node = projection.input();
            } else {
                match node.children().as_slice() {
                    [] => break node.schema(),
                    [input] if node.name() == "CooperativeExec" => node = input,
                    _ => return None,
                }
            }
        };
        projections.reverse();
        let row = relation.columns.iter().chain(given.iter().map(|(_, c)| c));
        let row: Vec<&str> = row.map(|c| c.name.as_str()).collect();
        let place = |field: &Arc<Field>| row.iter().position(|name| name == field.name());
        let read = read_schema
            .fields()
            .iter()
            .map(place)
            .collect::<Option<_>>()?;
        Some(Computed {
            columns,
            given,
            read,
            read_schema,
            projections,
        })
    }

    /// The values for each of these rows; `None` where the planner has something to say.
    fn values(
        &self,
        old: &RecordBatch,
        parameters: &[Parameter],
        zone: &Zone,
    ) -> Option<Vec<ArrayRef>> {
        let rows = old.num_rows();
        let mut row = old.columns().to_vec();
        for (place, column) in &self.given {
            let value = parameters.get(*place)?.written();
            row.push(given(&value, column, rows, zone)?);
        }
        let batch = |schema: &SchemaRef, columns| {
            let options = RecordBatchOptions::new().with_row_count(Some(rows));
            RecordBatch::try_new_with_options(schema.clone(), columns, &options).ok()
        };
        let read = self.read.iter().map(|column| row[*column].clone());
        let mut computed = batch(&self.read_schema, read.collect())?;
        for (expressions, schema) in &self.projections {
            let columns = expressions.iter().map(|e| {
                let value = e.expr.evaluate(&computed);
                value.and_then(|value| value.into_array(rows)).ok()
            });
            computed = batch(schema, columns.collect::<Option<_>>()?)?;
        }
        computed
            .columns()
            .get(old.num_columns()..)
            .map(<[_]>::to_vec)
    }
}

/// A constant as a column of so many rows; `None` where only the evaluator knows it.
fn given(value: &Expr, column: &Column, rows: usize, zone: &Zone) -> Option<ArrayRef> {
    let text = constant_for(value, &column.data_type)?;
    if column.data_type.is_temporal() && text.as_deref().is_some_and(tells_the_time) {
        return None;
    }
    values::parse_column(&vec![text.as_deref(); rows], column, zone).ok()
}

/// The name of a parameter among the columns of a row.
fn given_name(place: usize) -> String {
    format!("${}", place + 1)
}

/// A parameter as a column of a row.
fn number(place: usize, data_type: &DataType) -> Column {
    Column {
        name: given_name(place),
        data_type: data_type.clone(),
        nullable: true,
        default: None,
        sql_type: String::new(),
    }
}

/// The column of an assignment, and the value that it gets; `None` for several at once.
fn single(assignment: &ast::Assignment) -> Option<(String, &Expr)> {
    match &assignment.target {
        ast::AssignmentTarget::ColumnName(name) => Some((last_name(name).ok()?, &assignment.value)),
        ast::AssignmentTarget::Tuple(_) => None,
    }
}

/// Whether a value is read as one of an INSERT is.
fn is_plain(value: &Expr) -> bool {
    parameters::placeholder(value).is_some() || constant(value).is_some()
}

/// Whether a text may be another moment each time.
fn tells_the_time(text: &str) -> bool {
    let text = text.to_lowercase();
    let words = ["now", "today", "tomorrow", "yesterday"];
    words.iter().any(|word| text.contains(word))
}

/// Expressions within expressions at most.
const DEPTH_MAX: usize = 50;

/// Notes the places of the parameters in what is computed; `None` where there is something else
/// than operators over columns, numbers and texts.
fn computed_with(value: &Expr, depth: usize, places: &mut Vec<usize>) -> Option<()> {
    let mut all = |parts: &[&Expr]| {
        let mut parts = parts.iter();
        parts.try_for_each(|part| computed_with(part, depth + 1, places))
    };
    match value {
        _ if depth > DEPTH_MAX || is_default(value) => None,
        Expr::Identifier(_) | Expr::CompoundIdentifier(_) => Some(()),
        Expr::Value(_) => match (parameters::placeholder(value), constant(value)) {
            (Some(number), _) => {
                places.push(number.checked_sub(1)?);
                Some(())
            }
            (None, Some(Constant::Text(text))) => (!tells_the_time(&text)).then_some(()),
            (None, known) => known.map(drop),
        },
        Expr::Nested(e) | Expr::IsNull(e) | Expr::IsNotNull(e) => all(&[e]),
        Expr::UnaryOp { expr, .. } => all(&[expr]),
        Expr::Cast {
            expr, format: None, ..
        } => all(&[expr]),
        Expr::BinaryOp { left, right, .. } => all(&[left, right]),
        Expr::Case {
            operand,
            conditions,
            else_result,
            ..
        } => {
            let ends = operand.iter().chain(else_result).map(AsRef::as_ref);
            let branches = conditions.iter().flat_map(|c| [&c.condition, &c.result]);
            all(&ends.chain(branches).collect::<Vec<_>>())
        }
        _ => None,
    }
}

/// The type of a number that is given.
fn number_type(value: &Expr) -> Option<DataType> {
    if let Expr::Cast {
        expr, data_type, ..
    } = value
    {
        constant(expr)?;
        let (cast, _) = tidemark_planner::sql_type_to_arrow(data_type).ok()?;
        let number =
            cast.is_integer() || cast.is_floating() || tidemark_planner::is_numeric_bytes(&cast);
        return number.then_some(cast);
    }
    match constant(value)? {
        Constant::Number(n) if n.parse::<i32>().is_ok() => Some(DataType::Int32),
        Constant::Number(n) if n.parse::<i64>().is_ok() => Some(DataType::Int64),
        _ => None,
    }
}
