//! Logical plan to stream plan: one node for one node, exchanges where rows of one key must meet,
//! state tables numbered on the way (inputs first, so the numbers follow the dataflow).
//!
//! What has no operator is refused here with `0A000`, naming the construct: an unknown node can
//! never be skipped, because every arm is explicit.

mod aggregate;
mod ahead;
mod changelog;
pub(crate) mod clocked;
mod collect;
mod columns;
mod dependent;
mod emit_on_close;
mod endless;
mod expr;
mod exprs;
mod join;
mod materialize;
mod neighbours;
mod panes;
mod prune;
mod reached;
pub(crate) mod recursive;
mod session;
mod share;
mod stream;
pub(crate) mod temporal;
mod timed;
mod top_n;
mod unnest;
mod watermarks;
mod window;

use crate::bind::{Table, WorkingTable};
use crate::changelog::Changelog;
use crate::timed::TimedJoin;
use arrow_schema::SchemaRef;
use datafusion_expr::logical_plan::{Distinct, Filter, TableScan};
use datafusion_expr::{LogicalPlan, Sort};
use std::sync::Arc;
use tidemark_common::{Error, Result};
use tidemark_plan::{Expr, Op, Properties, RelationKind};

pub(crate) use expr::stored_type;
pub use expr::to_expr;
pub(crate) use materialize::{materialized, materialized_by};
pub(crate) use stream::{Builder, Stream, has_record, narrowest, schema_of};

impl Builder {
    /// Lowers an optimised plan. The output's columns are those of the plan's schema, in order.
    pub(crate) fn lower(&mut self, plan: &LogicalPlan) -> Result<Stream> {
        let schema = || schema_of(plan.schema());
        match plan {
            LogicalPlan::TableScan(scan) => {
                if scan.source.downcast_ref::<WorkingTable>().is_some() {
                    return self.working(scan);
                }
                if let Some(table) = scan.source.downcast_ref::<Table>() {
                    self.tap(&table.relation);
                }
                tap(scan)
            }
            LogicalPlan::SubqueryAlias(alias) => {
                Ok(self.lower(&alias.input)?.with_schema(schema()))
            }
            LogicalPlan::Projection(projection) => {
                let input = self.lower(&projection.input)?;
                let exprs = projection
                    .expr
                    .iter()
                    .map(|e| to_expr(e, projection.input.schema()))
                    .collect::<Result<_>>()?;
                Ok(input.project(exprs, schema()))
            }
            LogicalPlan::Filter(filter) => {
                let mut filtered = |builder: &mut Builder, others: Option<_>| match others {
                    None => builder.lower(&filter.input),
                    Some(others) => builder.filter(&Filter::new(others, filter.input.clone())),
                };
                self.by_clock(&filter.predicate, filter.input.schema(), &mut filtered)
            }
            LogicalPlan::Aggregate(aggregate) => self.aggregate(aggregate),
            LogicalPlan::Distinct(Distinct::All(input)) => {
                let input = self.lower(input)?;
                Ok(self.distinct(input).with_schema(schema()))
            }
            LogicalPlan::Distinct(Distinct::On(on)) => self.distinct_on(on),
            LogicalPlan::Join(join) => self.join(join),
            LogicalPlan::Union(union) => {
                let inputs = union
                    .inputs
                    .iter()
                    .map(|i| self.lower(i))
                    .collect::<Result<Vec<_>>>()?;
                Ok(union_all(inputs, schema()))
            }
            LogicalPlan::Values(values) => {
                let empty = datafusion_common::DFSchema::empty();
                let rows = values
                    .values
                    .iter()
                    .map(|row| row.iter().map(|e| to_expr(e, &empty)).collect())
                    .collect::<Result<Vec<_>>>()?;
                Ok(constant(rows, schema()))
            }
            LogicalPlan::EmptyRelation(empty) => Ok(constant(
                if empty.produce_one_row {
                    vec![Vec::new()]
                } else {
                    Vec::new()
                },
                schema(),
            )),
            LogicalPlan::Sort(Sort {
                fetch: None, input, ..
            }) => {
                self.notice(
                    "ORDER BY without LIMIT is ignored: the rows of a relation have no order",
                );
                self.lower(input)
            }
            LogicalPlan::Sort(_) => Err(Error::internal("a limit was put into an ORDER BY")),
            LogicalPlan::Limit(limit) => self.limit(limit),
            LogicalPlan::Window(window) if Builder::is_session(window) => self.session(window),
            LogicalPlan::Window(window) => self.window(window),
            LogicalPlan::Unnest(unnest) => self.unnest(unnest),
            LogicalPlan::Extension(extension) => {
                match (TimedJoin::of(extension), Changelog::of(extension)) {
                    (Some(join), _) => self.timed(join),
                    (_, Some(changelog)) => self.changelog(changelog),
                    _ => Err(Error::internal("a node of a plan is not known")),
                }
            }
            LogicalPlan::RecursiveQuery(query) => self.recursive(query),
            LogicalPlan::Subquery(_) => Err(Error::unsupported(
                "this kind of subquery is not supported in a streaming query",
            )),
            other => Err(Error::unsupported(format!(
                "{} is not supported in a streaming query",
                other.display().to_string().trim_end_matches([':', ' '])
            ))),
        }
    }
}

impl Builder {
    /// A filter that asks for no clock.
    fn filter(&mut self, filter: &Filter) -> Result<Stream> {
        if let Some(stream) = self.numbered(filter)? {
            return Ok(stream);
        }
        let input = self.lower(&filter.input)?;
        Ok(input.filter(to_expr(&filter.predicate, filter.input.schema())?))
    }
}

/// The columns of another relation's changelog.
fn tap(scan: &TableScan) -> Result<Stream> {
    let Some(table) = scan.source.downcast_ref::<Table>() else {
        return Err(Error::internal(format!(
            "{} is not a relation",
            scan.table_name
        )));
    };
    if !scan.filters.is_empty() || scan.fetch.is_some() {
        return Err(Error::internal("a filter or limit was pushed into a scan"));
    }
    let relation = &table.relation;
    let columns = table.positions(scan.projection.as_deref());
    if columns.is_empty() {
        let all = relation.visible_schema();
        let column = narrowest(&all);
        return Ok(tap_columns(
            relation,
            table.positions(Some(&[column])),
            Arc::new(arrow_schema::Schema::new(vec![all.field(column).clone()])),
        ));
    }
    Ok(tap_columns(
        relation,
        columns,
        schema_of(&scan.projected_schema),
    ))
}

/// Taps `columns` of a relation. An append-only relation has no key that is known to be enforced.
pub(crate) fn tap_columns(
    relation: &tidemark_plan::Relation,
    columns: Vec<usize>,
    schema: SchemaRef,
) -> Stream {
    debug_assert!(relation.kind != RelationKind::View);
    let place = |c: &usize| columns.iter().position(|x| x == c);
    let key = if relation.key.is_empty() || relation.append_only {
        None
    } else {
        relation.key.iter().map(place).collect()
    };
    let properties = Properties {
        append_only: relation.append_only,
        key,
    };
    Stream::leaf(
        Op::Tap {
            relation: relation.id,
            columns,
        },
        schema,
        properties,
    )
}

/// Constant rows. Rows without columns get one, as a projection to nothing does.
fn constant(rows: Vec<Vec<Expr>>, schema: SchemaRef) -> Stream {
    let key = if rows.len() <= 1 {
        Some(Vec::new())
    } else {
        None
    };
    let without_columns = schema.fields().is_empty();
    let stream = Stream::leaf(
        Op::Values { rows },
        schema.clone(),
        Properties {
            append_only: true,
            key,
        },
    );
    if without_columns {
        stream.project(Vec::new(), schema)
    } else {
        stream
    }
}

/// All rows of all inputs. A property holds of the union if it holds of every input; keys do not.
fn union_all(mut inputs: Vec<Stream>, schema: SchemaRef) -> Stream {
    if inputs.len() == 1 {
        return inputs.remove(0).with_schema(schema);
    }
    if schema.fields().is_empty() {
        inputs = inputs
            .into_iter()
            .map(|i| i.project(Vec::new(), schema.clone()))
            .collect();
    }
    let schema = if schema.fields().is_empty() {
        inputs[0].node.schema.clone()
    } else {
        schema
    };
    let append_only = inputs.iter().all(|i| i.node.properties.append_only);
    let partitions = inputs[0]
        .partitions
        .iter()
        .filter(|p| inputs.iter().all(|i| i.partitions.contains(p)))
        .cloned()
        .collect();
    let mut nodes = Vec::new();
    for input in inputs {
        match input.node.op {
            Op::Union => nodes.extend(input.node.inputs),
            _ => nodes.push(input.node),
        }
    }
    Stream {
        node: tidemark_plan::Node {
            op: Op::Union,
            inputs: nodes,
            schema,
            properties: Properties {
                append_only,
                key: None,
            },
        },
        partitions,
    }
}

/// Brings the output into types that relations keep.
pub(crate) fn to_stored_types(stream: Stream) -> Stream {
    let fields = stream.node.schema.fields().clone();
    if fields
        .iter()
        .all(|f| stored_type(f.data_type()) == *f.data_type())
    {
        return stream;
    }
    let column = |(i, f): (usize, &arrow_schema::FieldRef)| {
        let to = stored_type(f.data_type());
        if to == *f.data_type() {
            Expr::Column(i)
        } else {
            Expr::Cast {
                expr: Box::new(Expr::Column(i)),
                to,
                safe: false,
            }
        }
    };
    let exprs = fields.iter().enumerate().map(column).collect();
    let schema = fields
        .iter()
        .map(|f| {
            f.as_ref()
                .clone()
                .with_data_type(stored_type(f.data_type()))
        })
        .collect::<Vec<_>>();
    stream.project(exprs, Arc::new(arrow_schema::Schema::new(schema)))
}
