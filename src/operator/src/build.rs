//! From a plan node to its operator: the one place that knows all of them.

use crate::aggregate::{Aggregate, PartialAggregate};
use crate::changelog::Changelog;
use crate::closing::Closing;
use crate::expand::Expand;
use crate::expr::Predicate;
use crate::filter::Filter;
use crate::join::{Join, JoinConfig, Residual, TemporalConfig, TemporalJoin};
use crate::materialize::Materialize;
use crate::ordered::{
    AsofConfig, AsofJoin, Collect, EmitOnClose, PartialTopN, Session, TemporalFilter, TopN,
    TopNConfig, Window,
};
use crate::project::Project;
use crate::recursive::{Recursive, RecursiveConfig, Step};
use crate::sink::Sink;
pub use crate::sink::SinkOutput;
use crate::union::Union;
use crate::unnest::Unnest;
use crate::upsert::Upsert;
use crate::{Operator, values::nullable};
use std::sync::Arc;
use tidemark_common::{Error, Result};
use tidemark_plan::{ColumnWatermark, Node, OnError, Op};
use tidemark_state::{Neighbours, ViewPartition};

/// What an operator must know of the place where it runs.
pub struct BuildContext {
    /// The relation's name, for messages.
    pub relation: String,
    /// The first vnode of the worker's range.
    pub vnode_of_worker: u16,
    /// Whether the worker owns vnode 0, where global aggregates live.
    pub owns_vnode_zero: bool,
    /// What happens to failing rows.
    pub on_error: OnError,
    /// Of a sink's last fragment: who takes its changes.
    pub sink_output: Option<SinkOutput>,
    /// What the worker keeps of other relations.
    pub neighbours: Arc<Neighbours>,
}

/// An operator, and what readers see of it.
pub struct Built {
    /// The operator.
    pub operator: Box<dyn Operator>,
    /// The rows of a `Materialize`.
    pub view: Option<Arc<ViewPartition>>,
}

/// The operator of `node`, which is no leaf. Its ports are the nodes that it reads
/// ([`Node::read`]).
pub fn build_operator(node: &Node, context: &mut BuildContext) -> Result<Built> {
    build(node, false, context)
}

/// The same; `gathered`: its input, which may be keyed, is on one worker all the same.
fn build(node: &Node, gathered: bool, context: &mut BuildContext) -> Result<Built> {
    let input = |i: usize| {
        node.inputs
            .get(i)
            .map(|n| nullable(&n.schema))
            .ok_or_else(|| Error::internal(format!("an operator lacks its input {i}")))
    };
    let append_only = |i: usize| node.inputs.get(i).is_some_and(|n| n.properties.append_only);
    let closing = |closes: &Option<ColumnWatermark>, i: usize| {
        let closes = closes.as_ref();
        closes.map(|c| Closing::new(c, &input(i)?)).transpose()
    };
    let schema = nullable(&node.schema);
    let operator: Box<dyn Operator> = match &node.op {
        Op::Filter { predicate } => Box::new(Filter::new(Predicate::new(predicate, &input(0)?)?)),
        Op::Project { exprs } => Box::new(Project::new(
            None,
            exprs,
            &input(0)?,
            &schema,
            context.on_error,
        )?),
        Op::Union => Box::new(Union::new(schema)),
        Op::Expand { rows } => Box::new(Expand::new(rows, &input(0)?, &schema)?),
        Op::Unnest {
            lists,
            output,
            keep_empty,
        } => Box::new(Unnest::new(lists, output, *keep_empty, &schema)),
        Op::Join {
            kind,
            left_keys,
            right_keys,
            null_equals_null,
            residual,
            output,
            left_table,
            right_table,
            left_closes,
            right_closes,
            shared,
        } => {
            let (left, right) = (input(0)?, input(1)?);
            let residual = residual
                .as_ref()
                .map(|r| Residual::new(r, &left, &right))
                .transpose()?;
            Box::new(Join::new(JoinConfig {
                kind: *kind,
                left_schema: left,
                right_schema: right,
                left_keys: left_keys.clone(),
                right_keys: right_keys.clone(),
                null_equals_null: *null_equals_null,
                residual,
                output: output.clone(),
                output_schema: schema,
                left_append_only: append_only(0),
                right_append_only: append_only(1),
                left_table: *left_table,
                right_table: *right_table,
                closes: [closing(left_closes, 0)?, closing(right_closes, 1)?],
                shared: shared.clone(),
                neighbours: context.neighbours.clone(),
                gathered,
            }))
        }
        Op::Aggregate {
            group,
            calls,
            global,
            table,
            closes,
        } => {
            let global = *global && context.owns_vnode_zero;
            let aggregate = Aggregate::new(
                &input(0)?,
                &schema,
                group,
                calls,
                global,
                append_only(0),
                *table,
            )?;
            Box::new(aggregate.closing(closing(closes, 0)?, group))
        }
        Op::PartialAggregate { group, calls } => Box::new(PartialAggregate::new(
            &input(0)?,
            &schema,
            group,
            calls,
            append_only(0),
        )?),
        Op::TopN {
            partition,
            order,
            ranking,
            skip,
            take,
            numbered,
            table,
            closes,
        } => Box::new(TopN::new(TopNConfig {
            input: input(0)?,
            output: schema,
            partition,
            order,
            ranking: *ranking,
            skip: *skip,
            take: *take,
            numbered: *numbered,
            append_only: append_only(0),
            table: *table,
            closes: closing(closes, 0)?,
        })),
        Op::PartialTopN {
            partition,
            order,
            take,
        } => Box::new(PartialTopN::new(&input(0)?, partition, order, *take)),
        Op::Window {
            partition,
            order,
            calls,
            table,
            closes,
        } => {
            let window = Window::new(&input(0)?, &schema, partition, order, calls, *table);
            Box::new(window.closes(closing(closes, 0)?))
        }
        Op::Collect {
            group,
            calls,
            table,
            closes,
        } => {
            let collect = Collect::new(&input(0)?, &schema, group, calls, *table);
            Box::new(collect.closes(closing(closes, 0)?))
        }
        Op::EmitOnClose {
            keys,
            table,
            closes,
        } => {
            let closing = closing(closes, 0)?
                .ok_or_else(|| Error::internal("nothing closes what waits for that"))?;
            Box::new(EmitOnClose::new(&schema, keys, closing, *table))
        }
        Op::TemporalFilter {
            keys,
            moment,
            kept,
            inclusive,
            clock,
            bound,
            table,
        } => Box::new(TemporalFilter::new(
            &schema,
            keys,
            *moment,
            (*kept, *inclusive),
            (clock, bound),
            *table,
        )?),
        Op::Upsert {
            key,
            conflict,
            version,
            table,
        } => {
            assert_eq!(
                *version,
                schema.fields().len(),
                "the version is behind all columns"
            );
            Box::new(Upsert::new(schema, key.clone(), *conflict, *table))
        }
        Op::Materialize {
            key,
            append_only,
            table,
        } => {
            let operator = Materialize::new(
                context.relation.clone(),
                schema,
                key.clone(),
                *append_only,
                *table,
                context.vnode_of_worker,
            );
            let view = operator.view();
            return Ok(Built {
                operator: Box::new(operator),
                view: Some(view),
            });
        }
        Op::Sink { key, .. } => {
            let output = context
                .sink_output
                .take()
                .ok_or_else(|| Error::internal("a sink has nobody who takes its changes"))?;
            Box::new(Sink::new(schema, key.clone(), append_only(0), output))
        }
        Op::AsofJoin {
            outer,
            left_keys,
            right_keys,
            left_time,
            right_time,
            comparison,
            output,
            left_table,
            right_table,
        } => Box::new(AsofJoin::new(AsofConfig {
            left: input(0)?,
            right: input(1)?,
            outer: *outer,
            left_keys,
            right_keys,
            left_time: *left_time,
            right_time: *right_time,
            comparison: *comparison,
            columns: output,
            output: schema,
            left_table: *left_table,
            right_table: *right_table,
        })),
        Op::TemporalJoin {
            outer,
            left_keys,
            right_keys,
            residual,
            output,
            table,
        } => {
            let (left, right) = (input(0)?, input(1)?);
            let residual = residual
                .as_ref()
                .map(|r| Residual::new(r, &left, &right))
                .transpose()?;
            Box::new(TemporalJoin::new(TemporalConfig {
                outer: *outer,
                left,
                right,
                left_keys: left_keys.clone(),
                right_keys: right_keys.clone(),
                residual,
                columns: output.clone(),
                output: schema,
                right_append_only: append_only(1),
                table: *table,
            }))
        }
        Op::Session {
            partition,
            time,
            gap,
            table,
            closes,
        } => {
            let (by, closing) = ((*time, *gap), closing(closes, 0)?);
            let input = input(0)?;
            Box::new(Session::new(
                &input, &schema, partition, by, closing, *table,
            ))
        }
        Op::Changelog { key, table } => Box::new(Changelog::new(schema, key.clone(), *table)),
        Op::Recursive {
            name,
            distinct,
            iterations_max,
            table,
        } => {
            let Some(step) = node.inputs.get(1) else {
                return Err(Error::internal("a recursive query has no step"));
            };
            let step = Step::new(step, &mut |node| Ok(build(node, true, context)?.operator))?;
            Box::new(Recursive::new(RecursiveConfig {
                name: name.clone(),
                distinct: *distinct,
                append_only: node.properties.append_only,
                iterations_max: *iterations_max,
                output: schema,
                step,
                table: *table,
            }))
        }
        Op::Working
        | Op::SourceRead { .. }
        | Op::TableRead
        | Op::Tap { .. }
        | Op::Receive { .. }
        | Op::Values { .. } => return Err(Error::internal("a leaf has no operator")),
    };
    Ok(Built {
        operator,
        view: None,
    })
}

/// Like [`build_operator`], but a filter right below a projection becomes part of it, so that the
/// columns that the projection drops are never filtered. Returns the nodes whose output the
/// operator reads.
pub fn build_fused<'a>(node: &'a Node, context: &mut BuildContext) -> Result<(Built, &'a [Node])> {
    if let (Op::Project { exprs }, [filter]) = (&node.op, node.inputs.as_slice())
        && let (Op::Filter { predicate }, [below]) = (&filter.op, filter.inputs.as_slice())
    {
        let operator = Project::new(
            Some(predicate),
            exprs,
            &nullable(&below.schema),
            &nullable(&node.schema),
            context.on_error,
        )?;
        return Ok((
            Built {
                operator: Box::new(operator),
                view: None,
            },
            &filter.inputs,
        ));
    }
    Ok((build_operator(node, context)?, &node.inputs))
}
