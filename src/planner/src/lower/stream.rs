//! The trees under construction: a node with what is known of its output's partitioning, and the
//! builder that cuts fragments.
//!
//! Partitioning is a property like any other: `hash(columns)` means that each row is on the worker
//! that owns the vnode of these columns. An exchange to the same columns in the same order would
//! move nothing and is left out. A stream may satisfy several (both sides of an equi-join's keys).

use crate::lower::endless::{Sources, kept_for_ever};
use crate::lower::exprs::{count_columns, is_trivial, remap, size, substitute};
use crate::lower::neighbours::{Neighbours, share_rows};
use crate::lower::prune::prune_fragments;
use crate::lower::recursive::ITERATIONS_MAX;
use crate::lower::share::share;
use crate::lower::watermarks::{Tapped, follow, of_relation};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use datafusion_common::DFSchema;
use datafusion_expr::TableSource;
use std::sync::Arc;
use tidemark_common::{RelationId, Result};
pub(crate) use tidemark_plan::narrowest;
use tidemark_plan::{
    BinaryOp, Expr, Fragment, JobPlan, Literal, Node, Op, Output, Properties, Relation,
    RelationKind,
};

/// A changelog under construction.
#[derive(Clone, Debug)]
pub(crate) struct Stream {
    /// The tree of the fragment that it ends.
    pub node: Node,
    /// Column lists by whose hash it is partitioned, each true by itself; an empty list in it means
    /// that all rows are with the owner of vnode 0. None known: empty.
    pub partitions: Vec<Vec<usize>>,
}

impl Stream {
    pub(crate) fn leaf(op: Op, schema: SchemaRef, properties: Properties) -> Stream {
        Stream {
            node: Node {
                op,
                inputs: Vec::new(),
                schema,
                properties,
            },
            partitions: Vec::new(),
        }
    }

    pub(crate) fn width(&self) -> usize {
        self.node.schema.fields().len()
    }

    /// At most one row is ever present.
    pub(crate) fn is_single_row(&self) -> bool {
        self.node.properties.key.as_ref().is_some_and(Vec::is_empty)
    }

    /// The same rows under other names. Columns beyond those of `schema` (see [`narrowest`]) stay.
    pub(crate) fn with_schema(mut self, schema: SchemaRef) -> Stream {
        let given = schema.fields().len();
        self.node.schema = if given == self.width() {
            schema
        } else {
            let rest = &self.node.schema.fields()[given.min(self.width())..];
            Arc::new(Schema::new(
                schema
                    .fields()
                    .iter()
                    .chain(rest)
                    .map(|f| f.as_ref().clone())
                    .collect::<Vec<_>>(),
            ))
        };
        self
    }

    /// A node over this one that keeps its rows' columns in front.
    pub(crate) fn wrap(self, op: Op, schema: SchemaRef, properties: Properties) -> Stream {
        Stream {
            partitions: self.partitions,
            node: Node {
                op,
                inputs: vec![self.node],
                schema,
                properties,
            },
        }
    }

    /// Keeps the rows for which the predicate is true.
    pub(crate) fn filter(self, predicate: Expr) -> Stream {
        if predicate == Expr::Literal(Literal::Boolean(true)) {
            return self;
        }
        let (schema, properties) = (self.node.schema.clone(), self.node.properties.clone());
        if let Op::Filter { predicate: below } = self.node.op {
            let both = Expr::Binary {
                op: BinaryOp::And,
                left: Box::new(below),
                right: Box::new(predicate),
            };
            return Stream {
                node: Node {
                    op: Op::Filter { predicate: both },
                    ..self.node
                },
                partitions: self.partitions,
            };
        }
        self.wrap(Op::Filter { predicate }, schema, properties)
    }

    /// Computes columns. Projections merge with what is below: with a projection, with the columns
    /// that a join hands out, with constant rows.
    pub(crate) fn project(self, exprs: Vec<Expr>, schema: SchemaRef) -> Stream {
        if exprs.is_empty() {
            let one = Schema::new(vec![Field::new("one", DataType::Boolean, false)]);
            return self.project(vec![Expr::Literal(Literal::Boolean(true))], Arc::new(one));
        }
        let identity = exprs.len() == self.width()
            && exprs.iter().enumerate().all(|(i, e)| *e == Expr::Column(i));
        if identity {
            return self.with_schema(schema);
        }
        let place = |column: usize| exprs.iter().position(|e| *e == Expr::Column(column));
        let places = |columns: &Vec<usize>| {
            columns
                .iter()
                .map(|c| place(*c))
                .collect::<Option<Vec<usize>>>()
        };
        let partitions: Vec<Vec<usize>> = self.partitions.iter().filter_map(places).collect();
        let below = &self.node.schema;
        let kept = |column: &usize| exprs.iter().position(|e| tells_apart(e, *column, below));
        let key = self.node.properties.key.as_ref();
        let properties = Properties {
            append_only: self.node.properties.append_only,
            key: key.and_then(|key| key.iter().map(kept).collect()),
        };
        let Node {
            op,
            inputs,
            schema: below,
            properties: below_properties,
        } = self.node;
        let node = match op {
            Op::Project { exprs: inner } if merges(&inner, &exprs) => {
                let exprs = exprs.into_iter().map(|e| substitute(e, &inner)).collect();
                return collapse(exprs, inputs, schema, properties, partitions);
            }
            Op::Values { rows } if rows.iter().all(|row| stays_small(row, &exprs)) => {
                let rows = rows
                    .into_iter()
                    .map(|row| exprs.iter().map(|e| substitute(e.clone(), &row)).collect())
                    .collect();
                Node {
                    op: Op::Values { rows },
                    inputs,
                    schema,
                    properties,
                }
            }
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
                let mut used: Vec<usize> = Vec::new();
                for e in &exprs {
                    e.visit_columns(&mut |c| used.push(c));
                }
                let columns_only = exprs.iter().all(|e| matches!(e, Expr::Column(_)));
                if !columns_only {
                    used.sort_unstable();
                    used.dedup();
                }
                if used.is_empty() {
                    used.push(0);
                }
                let picked = used.iter().map(|c| output[*c]).collect();
                let join = |output| Op::Join {
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
                };
                if columns_only {
                    Node {
                        op: join(picked),
                        inputs,
                        schema,
                        properties,
                    }
                } else {
                    let join_schema = Arc::new(Schema::new(
                        used.iter()
                            .map(|c| below.field(*c).clone())
                            .collect::<Vec<_>>(),
                    ));
                    let found = |columns: &Vec<usize>| {
                        columns
                            .iter()
                            .map(|c| used.iter().position(|u| u == c))
                            .collect::<Option<Vec<_>>>()
                    };
                    let join_properties = Properties {
                        append_only: properties.append_only,
                        key: below_properties.key.as_ref().and_then(found),
                    };
                    let exprs = exprs
                        .into_iter()
                        .map(|e| remap(e, &|c| used.binary_search(&c).unwrap_or(c)))
                        .collect();
                    let join = Node {
                        op: join(picked),
                        inputs,
                        schema: join_schema,
                        properties: join_properties,
                    };
                    Node {
                        op: Op::Project { exprs },
                        inputs: vec![join],
                        schema,
                        properties,
                    }
                }
            }
            op => Node {
                op: Op::Project { exprs },
                inputs: vec![Node {
                    op,
                    inputs,
                    schema: below,
                    properties: below_properties,
                }],
                schema,
                properties,
            },
        };
        Stream { node, partitions }
    }

    /// Keeps these columns, in this order.
    pub(crate) fn pick(self, columns: &[usize]) -> Stream {
        let schema = Arc::new(Schema::new(
            columns
                .iter()
                .map(|c| self.node.schema.field(*c).clone())
                .collect::<Vec<_>>(),
        ));
        self.project(columns.iter().map(|c| Expr::Column(*c)).collect(), schema)
    }
}

/// Whether an expression is a column, or the same number as another integer, or none at all.
fn tells_apart(expr: &Expr, column: usize, below: &Schema) -> bool {
    match expr {
        Expr::Column(c) => *c == column,
        Expr::Cast {
            expr,
            to,
            safe: false,
        } => {
            to.is_integer()
                && below.field(column).data_type().is_integer()
                && tells_apart(expr, column, below)
        }
        _ => false,
    }
}

/// A projection that has swallowed the one below may itself be an identity, or sit on a join.
fn collapse(
    exprs: Vec<Expr>,
    mut inputs: Vec<Node>,
    schema: SchemaRef,
    properties: Properties,
    partitions: Vec<Vec<usize>>,
) -> Stream {
    let input = inputs.remove(0);
    let mut stream = Stream {
        node: input,
        partitions: Vec::new(),
    }
    .project(exprs, schema);
    stream.partitions = partitions;
    stream.node.properties = properties;
    stream
}

/// Whether computing `upper` directly from the input of `lower` repeats no work: whatever is not a
/// mere column or constant is used at most once.
fn merges(lower: &[Expr], upper: &[Expr]) -> bool {
    let mut uses = vec![0; lower.len()];
    for e in upper {
        count_columns(e, &mut uses);
    }
    lower.iter().zip(uses).all(|(e, n)| n <= 1 || is_trivial(e))
}

/// Whether expressions with constants in place of their columns are small: each projection on top
/// may double them.
fn stays_small(row: &[Expr], exprs: &[Expr]) -> bool {
    const SIZE_MAX: usize = 2_000;
    let sizes: Vec<usize> = row.iter().map(size).collect();
    let mut total = exprs.iter().map(size).sum::<usize>();
    for e in exprs {
        e.visit_columns(&mut |c| total += sizes[c]);
    }
    total <= SIZE_MAX || merges(row, exprs)
}

/// Cuts trees into fragments and numbers state tables.
pub(crate) struct Builder {
    pub(super) relation: RelationId,
    pub(super) fragments: Vec<Fragment>,
    tables: u32,
    /// Watermarks of the relations that it reads.
    pub(super) tapped: Tapped,
    /// The sources among them.
    sources: Sources,
    /// Those among them whose rows joins can look up.
    pub(super) neighbours: Neighbours,
    /// Where the step of a recursive query is lowered: its iterations.
    pub(super) working: Option<Arc<dyn TableSource>>,
    /// The number of the last iteration of a recursive query.
    pub(crate) iterations_max: u32,
    /// A query was recursive.
    pub(crate) is_recursive: bool,
    /// Rows are sent when nothing changes them any more.
    pub(crate) emits_on_close: bool,
    /// What the person should know.
    pub(crate) notices: Vec<String>,
}

impl Builder {
    pub(crate) fn new(relation: RelationId) -> Builder {
        Builder {
            relation,
            fragments: Vec::new(),
            tables: 0,
            tapped: Tapped::new(),
            sources: Sources::new(),
            neighbours: Neighbours::new(),
            working: None,
            iterations_max: ITERATIONS_MAX,
            is_recursive: false,
            emits_on_close: false,
            notices: Vec::new(),
        }
    }

    /// Reserves state tables; answers the first.
    pub(crate) fn tables(&mut self, count: u32) -> u32 {
        self.tables += count;
        self.tables - count
    }

    /// A relation is read: its watermarks matter.
    pub(super) fn tap(&mut self, relation: &Relation) {
        self.tapped.insert(relation.id, of_relation(relation));
        if let Some(key) = relation.lookup_key() {
            self.neighbours.insert(relation.id, key);
        }
        if relation.kind == RelationKind::Source {
            self.sources.insert(relation.id, relation.name.clone());
        }
    }

    pub(crate) fn notice(&mut self, text: impl Into<String>) {
        let text = text.into();
        if !self.notices.contains(&text) {
            self.notices.push(text);
        }
    }

    /// Sends every row to the worker that owns the vnode of `keys` (vnode 0 without keys), unless
    /// it is there already.
    pub(crate) fn exchange(&mut self, stream: Stream, keys: &[usize]) -> Stream {
        if stream.partitions.iter().any(|p| p == keys) {
            return stream;
        }
        let (schema, properties) = (stream.node.schema.clone(), stream.node.properties.clone());
        // The receiver is not numbered yet: it is found when its fragment is cut.
        let from = self.cut(
            stream.node,
            Output::Exchange {
                to: u32::MAX,
                keys: keys.to_vec(),
            },
        );
        Stream {
            node: Node {
                op: Op::Receive { from },
                inputs: Vec::new(),
                schema,
                properties,
            },
            partitions: vec![keys.to_vec()],
        }
    }

    fn cut(&mut self, root: Node, output: Output) -> u32 {
        let id = self.fragments.len() as u32;
        let fragment = Fragment { id, root, output };
        let sources: Vec<u32> = fragment
            .nodes()
            .iter()
            .filter_map(|n| {
                if let Op::Receive { from } = n.op {
                    Some(from)
                } else {
                    None
                }
            })
            .collect();
        for from in sources {
            if let Output::Exchange { to, .. } | Output::Broadcast { to } =
                &mut self.fragments[from as usize].output
            {
                *to = id;
            }
        }
        self.fragments.push(fragment);
        id
    }

    /// Ends the job with this tree.
    pub(crate) fn finish(mut self, stream: Stream) -> Result<(JobPlan, Vec<String>)> {
        self.cut(stream.node, Output::Relation);
        prune_fragments(&mut self.fragments);
        let watermarks = follow(self.relation, &mut self.fragments, &self.tapped);
        for source in kept_for_ever(&self.fragments, &self.sources) {
            self.notice(format!(
                "all rows of source \"{source}\" are kept, for nothing tells when one is over: see \
                 WATERMARK FOR and temporal joins in the manual"
            ));
        }
        let mut fragments = share(std::mem::take(&mut self.fragments));
        share_rows(&mut fragments, &self.neighbours);
        let job = JobPlan {
            relation: self.relation,
            fragments,
            tables: self.tables,
            watermarks,
        };
        Ok((job, self.notices))
    }
}

/// Whether a type is that of rows, or of lists of them.
pub(crate) fn has_record(data_type: &DataType) -> bool {
    match data_type {
        DataType::Struct(_) | DataType::Map(..) => true,
        DataType::List(element) => has_record(element.data_type()),
        _ => false,
    }
}

/// The Arrow schema of a logical plan's output, without metadata.
pub(crate) fn schema_of(schema: &DFSchema) -> SchemaRef {
    Arc::new(Schema::new(
        schema
            .fields()
            .iter()
            .map(|f| Field::new(f.name(), f.data_type().clone(), f.is_nullable()))
            .collect::<Vec<_>>(),
    ))
}
