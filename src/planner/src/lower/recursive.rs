//! `WITH RECURSIVE`: the first term and the step become the two inputs of one operator on one
//! worker, which gives the step the rows of one iteration after the other.
//!
//! The step is lowered like any query, with the iterations as a leaf. Then the tree is gone through
//! once more: every operator between that leaf and the root passes the number of the iteration on,
//! as its first column.
//!
//! Sound for operators that treat each row of their input by itself, which is what PostgreSQL asks
//! of the step but for DISTINCT, LIMIT and window functions: there these see one iteration at a
//! time. They are refused, and so is what PostgreSQL refuses: the step reads its iterations once,
//! in no place where the absence of a row makes others come. Subqueries and joins may read anything
//! else: that is the same for all iterations.

use crate::bind::WorkingTable;
use crate::lower::exprs::remap;
use crate::lower::temporal::reads_clock;
use crate::lower::{Builder, Stream, has_record, narrowest, schema_of};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use datafusion_common::JoinType;
use datafusion_common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion_expr::logical_plan::{Join, RecursiveQuery, TableScan};
use datafusion_expr::{LogicalPlan, TableSource};
use std::sync::Arc;
use tidemark_common::{Error, Result};
use tidemark_plan::{Expr, JoinKind, Node, Op, Properties, Unnested};

/// After how many iterations a query is cut that was not told.
pub(crate) const ITERATIONS_MAX: u32 = 1000;

impl Builder {
    pub(super) fn recursive(&mut self, query: &RecursiveQuery) -> Result<Stream> {
        let schema = schema_of(&query.schema);
        check_columns(&schema)?;
        if is_empty(&query.recursive_term) {
            self.is_recursive = true;
            let first = columns_of(self.lower(&query.static_term)?, &schema)?;
            return Ok(match query.is_distinct {
                true => self.distinct(first).with_schema(schema),
                false => first,
            });
        }
        let working = working_table(query)?;
        Path {
            query: &query.name,
            working: &working,
        }
        .check(&query.recursive_term)?;
        let first = self.lower(&query.static_term)?;
        let first = columns_of(first, &schema)?;
        let first = self.exchange(first, &[]);
        let outer = self.working.replace(working);
        let step = self.lower(&query.recursive_term);
        self.working = outer;
        let step = columns_of(step?, &schema)?;
        let append_only = first.node.properties.append_only && only_grows(&step.node);
        let iterations_grow = append_only && !query.is_distinct;
        let step = numbered(step.node, iterations_grow)?;
        self.is_recursive = true;
        let op = Op::Recursive {
            name: query.name.clone(),
            distinct: query.is_distinct,
            iterations_max: self.iterations_max,
            table: self.tables(1),
        };
        let all = (0..schema.fields().len()).collect();
        let node = Node {
            op,
            inputs: vec![first.node, step],
            schema,
            properties: Properties {
                append_only,
                key: query.is_distinct.then_some(all),
            },
        };
        Ok(Stream {
            node,
            partitions: vec![Vec::new()],
        })
    }

    /// The iterations, where the step reads them.
    pub(super) fn working(&self, scan: &TableScan) -> Result<Stream> {
        let own = |working: &&Arc<dyn TableSource>| Arc::ptr_eq(working, &scan.source);
        let Some(working) = self.working.as_ref().filter(own) else {
            return Err(refused(
                scan.table_name.table(),
                match self.working {
                    // The binder looks for it in FROM alone.
                    None => "reading it in a subquery",
                    Some(_) => "a recursive query that reads it",
                },
            ));
        };
        if !scan.filters.is_empty() || scan.fetch.is_some() {
            return Err(Error::internal("a filter or limit was pushed into a scan"));
        }
        let leaf = Stream {
            partitions: vec![Vec::new()],
            ..Stream::leaf(Op::Working, working.schema(), Properties::default())
        };
        let Some(columns) = &scan.projection else {
            return Ok(leaf.with_schema(schema_of(&scan.projected_schema)));
        };
        if columns.is_empty() {
            let column = narrowest(&leaf.node.schema);
            return Ok(leaf.pick(&[column]));
        }
        let picked = leaf.pick(columns);
        Ok(picked.with_schema(schema_of(&scan.projected_schema)))
    }
}

/// `0A000` for columns that iterations cannot have.
fn check_columns(schema: &Schema) -> Result<()> {
    if schema.fields().is_empty() {
        return Err(Error::unsupported(
            "a recursive query without columns is not supported",
        ));
    }
    let has_rows = |f: &Arc<Field>| has_record(f.data_type());
    if schema.fields().iter().any(has_rows) {
        return Err(
            Error::unsupported("a recursive query over whole rows is not maintained")
                .with_hint("Name the columns of the row instead."),
        );
    }
    Ok(())
}

/// The stream with just these columns.
fn columns_of(stream: Stream, schema: &SchemaRef) -> Result<Stream> {
    let columns: Vec<usize> = (0..schema.fields().len()).collect();
    if stream.width() < columns.len() {
        return Err(Error::internal("a term of a recursive query lacks columns"));
    }
    let stream = stream.pick(&columns);
    for (is, wanted) in stream.node.schema.fields().iter().zip(schema.fields()) {
        if is.data_type() != wanted.data_type() {
            return Err(Error::internal(format!(
                "terms of a recursive query have columns of types {} and {}",
                is.data_type(),
                wanted.data_type()
            )));
        }
    }
    Ok(stream.with_schema(schema.clone()))
}

/// Whether the optimiser has found that a step has no rows.
fn is_empty(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::EmptyRelation(empty) => !empty.produce_one_row,
        LogicalPlan::Projection(p) => is_empty(&p.input),
        LogicalPlan::SubqueryAlias(alias) => is_empty(&alias.input),
        _ => false,
    }
}

/// The table that stands for the iterations of a query in its step.
fn working_table(query: &RecursiveQuery) -> Result<Arc<dyn TableSource>> {
    let mut found = None;
    let walked = query.recursive_term.apply(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && let Some(table) = scan.source.downcast_ref::<WorkingTable>()
            && table.query == query.name
        {
            found = Some(scan.source.clone());
        }
        Ok(match node {
            // A query of the same name is another one.
            LogicalPlan::RecursiveQuery(_) => TreeNodeRecursion::Jump,
            _ => TreeNodeRecursion::Continue,
        })
    });
    walked.map_err(|e| Error::internal(e.to_string()))?;
    found.ok_or_else(|| refused(&query.name, "a recursive query that reads it"))
}

fn refused(query: &str, what: &str) -> Error {
    Error::unsupported(format!(
        "{what} is not supported in the recursive term of \"{query}\""
    ))
    .with_hint(
        "The recursive term may filter the rows of the query, compute of each, and join it with \
         other relations. Put what looks at several rows at once into the query around it.",
    )
}

/// The way from the root of a step to its iterations.
struct Path<'a> {
    query: &'a str,
    working: &'a Arc<dyn TableSource>,
}

impl Path<'_> {
    fn reads(&self, plan: &LogicalPlan) -> Result<bool> {
        let found = plan.exists(|node| {
            Ok(matches!(node, LogicalPlan::TableScan(scan)
                if Arc::ptr_eq(&scan.source, self.working)))
        });
        found.map_err(|e| Error::internal(e.to_string()))
    }

    fn refused(&self, what: &str) -> Result<()> {
        Err(refused(self.query, what))
    }

    /// `0A000` for what does not treat each row by itself.
    fn check(&self, plan: &LogicalPlan) -> Result<()> {
        match plan {
            LogicalPlan::TableScan(_) => Ok(()),
            LogicalPlan::Projection(p) => self.check(&p.input),
            LogicalPlan::SubqueryAlias(alias) => self.check(&alias.input),
            LogicalPlan::Unnest(unnest) => self.check(&unnest.input),
            LogicalPlan::Sort(sort) if sort.fetch.is_none() => self.check(&sort.input),
            LogicalPlan::Filter(filter) if !reads_clock(&filter.predicate) => {
                self.check(&filter.input)
            }
            LogicalPlan::Filter(_) => self.refused("a condition on NOW()"),
            LogicalPlan::Join(join) => self.check_join(join),
            LogicalPlan::Aggregate(_) => self.refused("GROUP BY, DISTINCT or an aggregate"),
            LogicalPlan::Distinct(_) => self.refused("DISTINCT"),
            LogicalPlan::Window(_) => self.refused("a window function"),
            LogicalPlan::Limit(_) | LogicalPlan::Sort(_) => self.refused("LIMIT"),
            LogicalPlan::Union(_) => self.refused("UNION"),
            LogicalPlan::RecursiveQuery(_) => self.refused("a recursive query that reads it"),
            LogicalPlan::Extension(_) => self.refused("a join by time"),
            _ => self.refused("this kind of query"),
        }
    }

    fn check_join(&self, join: &Join) -> Result<()> {
        if join.filter.as_ref().is_some_and(reads_clock) {
            return self.refused("a condition on NOW()");
        }
        let (left, right) = (self.reads(&join.left)?, self.reads(&join.right)?);
        if left && right {
            return self.refused("reading it more than once");
        }
        let allowed = match join.join_type {
            JoinType::Inner => true,
            JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti => left,
            JoinType::LeftMark if join.filter.is_some() => {
                return self.refused("EXISTS inside of OR with more than equalities");
            }
            JoinType::LeftMark => left,
            JoinType::Right | JoinType::RightSemi | JoinType::RightAnti => right,
            JoinType::RightMark | JoinType::Full => false,
        };
        if !allowed {
            return self.refused(match join.join_type {
                JoinType::Left | JoinType::Right | JoinType::Full => {
                    "reading it on the outer side of a join"
                }
                _ => "reading it in a subquery",
            });
        }
        self.check(if left { &join.left } else { &join.right })
    }
}

/// Whether the rows of an iteration only grow while all that the step reads only grows.
fn only_grows(node: &Node) -> bool {
    let other = |n: &&Node| !n.reads_working();
    let others_grow = || {
        let mut others = node.inputs.iter().filter(other);
        others.all(|n| n.properties.append_only)
    };
    match &node.op {
        Op::Working => true,
        Op::Join { kind, .. } if !matches!(kind, JoinKind::Inner | JoinKind::LeftSemi) => false,
        _ => {
            others_grow()
                && node
                    .inputs
                    .iter()
                    .filter(|n| n.reads_working())
                    .all(only_grows)
        }
    }
}

/// The tree of a step with the number of the iteration in front of each row. Nothing that was known
/// of keys holds for rows of many iterations.
fn numbered(mut node: Node, grows: bool) -> Result<Node> {
    let at = node.inputs.iter().position(Node::reads_working);
    let shift = |e: Expr| remap(e, &|c| c + 1);
    let in_front = |columns: &[usize]| -> Vec<usize> {
        let moved = columns.iter().map(|c| c + 1);
        std::iter::once(0).chain(moved).collect()
    };
    node.op = match (node.op, at) {
        (Op::Working, None) => Op::Working,
        (Op::Filter { predicate }, Some(_)) => Op::Filter {
            predicate: shift(predicate),
        },
        (Op::Project { exprs }, Some(_)) => {
            let exprs = exprs.into_iter().map(shift);
            Op::Project {
                exprs: std::iter::once(Expr::Column(0)).chain(exprs).collect(),
            }
        }
        (Op::Expand { rows }, Some(_)) => {
            let row = |row: Vec<Expr>| row.into_iter().map(shift).collect();
            Op::Expand {
                rows: rows.into_iter().map(row).collect(),
            }
        }
        (
            Op::Unnest {
                lists,
                output,
                keep_empty,
            },
            Some(_),
        ) => {
            let moved = output.into_iter().map(|o| o.at(o.column() + 1));
            Op::Unnest {
                lists: lists.into_iter().map(|c| c + 1).collect(),
                output: std::iter::once(Unnested::Column(0)).chain(moved).collect(),
                keep_empty,
            }
        }
        (
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
            },
            Some(side),
        ) => {
            // Where the number is in left ++ right.
            let number = match side {
                0 => 0,
                _ => node.inputs[0].schema.fields().len(),
            };
            let moved = |c: usize| if c < number { c } else { c + 1 };
            let keys = |keys: Vec<usize>, of: usize| match of == side {
                true => in_front(&keys)[1..].to_vec(),
                false => keys,
            };
            let output = output.into_iter().map(moved);
            Op::Join {
                kind,
                left_keys: keys(left_keys, 0),
                right_keys: keys(right_keys, 1),
                null_equals_null,
                residual: residual.map(|r| remap(r, &moved)),
                output: std::iter::once(number).chain(output).collect(),
                left_table,
                right_table,
                left_closes,
                right_closes,
                shared,
            }
        }
        _ => return Err(Error::unsupported("this kind of recursive query")),
    };
    if let Some(at) = at {
        let below = node.inputs.remove(at);
        node.inputs.insert(at, numbered(below, grows)?);
    }
    node.schema = with_number(&node.schema);
    node.properties = Properties {
        append_only: grows,
        key: None,
    };
    Ok(node)
}

fn with_number(schema: &Schema) -> SchemaRef {
    let number = Arc::new(Field::new("iteration", DataType::Int64, false));
    let fields = schema.fields().iter().cloned();
    Arc::new(Schema::new(
        std::iter::once(number).chain(fields).collect::<Vec<_>>(),
    ))
}
