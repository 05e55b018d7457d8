//! The first rows of partitions: LIMIT and OFFSET, DISTINCT ON, and filters of row numbers
//! (`WHERE row_number <= 10` over a subquery that has it).

use crate::lower::columns::Columns;
use crate::lower::stream::has_record;
use crate::lower::window::{ranking, window_function};
use crate::lower::{Builder, Stream, schema_of, to_expr};
use arrow_schema::{DataType, Field, FieldRef, Schema};
use datafusion_common::{DFSchema, ScalarValue};
use datafusion_expr::logical_plan::{Distinct, DistinctOn, Filter, Limit, Sort};
use datafusion_expr::utils::{conjunction, split_conjunction};
use datafusion_expr::{BinaryExpr, Expr as Df, LogicalPlan, Operator, expr::Sort as SortExpr};
use std::sync::Arc;
use tidemark_common::{Error, Result, SqlState};
use tidemark_plan::{Expr, Op, Properties, Ranking, SortKey};

/// The first rows of a partition.
struct First {
    ranking: Ranking,
    skip: u64,
    take: Option<u64>,
    numbered: bool,
}

/// Rows and the order that they come in; its columns are among those behind the query's own, if
/// they are not of these.
struct Ordered {
    stream: Stream,
    order: Vec<SortKey>,
}

/// Has a projection hand on the columns of an order, behind its own if they are not of these.
fn carry(order: &mut [SortKey], below: &Schema, exprs: &mut Vec<Expr>, fields: &mut Vec<FieldRef>) {
    for key in order {
        let column = Expr::Column(key.column);
        let place = exprs.iter().position(|e| *e == column);
        if place.is_none() {
            fields.push(below.fields()[key.column].clone());
            exprs.push(column);
        }
        key.column = place.unwrap_or(exprs.len() - 1);
    }
}

/// The columns of a partition; constants part nothing.
pub(super) fn partition_of(exprs: &[Df], columns: &mut Columns<'_>) -> Result<Vec<usize>> {
    let mut partition = Vec::new();
    for expr in exprs {
        if matches!(to_expr(expr, columns.input)?, Expr::Literal(_)) {
            continue;
        }
        let column = columns.add_key(expr)?;
        if !partition.contains(&column) {
            partition.push(column);
        }
    }
    Ok(partition)
}

/// What rows are ordered by; constants order nothing.
pub(super) fn sort_keys(exprs: &[SortExpr], columns: &mut Columns<'_>) -> Result<Vec<SortKey>> {
    let mut keys: Vec<SortKey> = Vec::new();
    for sort in exprs {
        if matches!(to_expr(&sort.expr, columns.input)?, Expr::Literal(_)) {
            continue;
        }
        let column = columns.add(&sort.expr)?;
        if has_record(columns.fields[column].data_type()) {
            return Err(Error::unsupported(
                "ORDER BY over rows is not supported in a streaming query",
            )
            .with_hint("Name the columns of the row instead."));
        }
        if keys.iter().all(|k| k.column != column) {
            keys.push(SortKey {
                column,
                descending: !sort.asc,
                nulls_first: sort.nulls_first,
            });
        }
    }
    Ok(keys)
}

impl Builder {
    /// `LIMIT` and `OFFSET`, by the ORDER BY below.
    pub(super) fn limit(&mut self, limit: &Limit) -> Result<Stream> {
        let schema = limit.input.schema();
        let kept: Vec<usize> = (0..schema.fields().len()).collect();
        let stream = self.limited(limit)?.stream;
        if kept.is_empty() {
            return Ok(stream);
        }
        Ok(stream.pick(&kept).with_schema(schema_of(schema)))
    }

    fn limited(&mut self, limit: &Limit) -> Result<Ordered> {
        let skip = rows(limit.skip.as_deref(), "OFFSET", "2201X")?.unwrap_or(0);
        let take = rows(limit.fetch.as_deref(), "LIMIT", "2201W")?;
        let first = First {
            ranking: Ranking::RowNumber,
            skip,
            take,
            numbered: false,
        };
        let Ordered { stream, order } = self.ordered(&limit.input)?;
        if skip == 0 && take.is_none() {
            return Ok(Ordered { stream, order });
        }
        let stream = self.first(stream, Vec::new(), order.clone(), first);
        Ok(Ordered { stream, order })
    }

    /// A query with the order that it, or what it stands on, has by ORDER BY.
    fn ordered(&mut self, plan: &LogicalPlan) -> Result<Ordered> {
        let output = || schema_of(plan.schema());
        match plan {
            LogicalPlan::Projection(projection) => {
                let Ordered { stream, mut order } = self.ordered(&projection.input)?;
                let schema = projection.input.schema();
                let exprs = projection.expr.iter().map(|e| to_expr(e, schema));
                let mut exprs = exprs.collect::<Result<Vec<_>>>()?;
                let mut fields = output().fields().to_vec();
                carry(&mut order, &stream.node.schema, &mut exprs, &mut fields);
                let stream = stream.project(exprs, Arc::new(Schema::new(fields)));
                Ok(Ordered { stream, order })
            }
            LogicalPlan::SubqueryAlias(alias) => {
                let Ordered { stream, order } = self.ordered(&alias.input)?;
                let stream = stream.with_schema(output());
                Ok(Ordered { stream, order })
            }
            LogicalPlan::Filter(filter) => {
                if let Some(stream) = self.numbered(filter)? {
                    let order = Vec::new();
                    return Ok(Ordered { stream, order });
                }
                let Ordered { stream, order } = self.ordered(&filter.input)?;
                let predicate = to_expr(&filter.predicate, filter.input.schema())?;
                let stream = stream.filter(predicate);
                Ok(Ordered { stream, order })
            }
            LogicalPlan::Sort(Sort {
                expr,
                input,
                fetch: None,
            }) => {
                let stream = self.lower(input)?;
                let mut columns = Columns::all(input.schema(), &stream);
                let order = sort_keys(expr, &mut columns)?;
                let stream = columns.project(stream);
                Ok(Ordered { stream, order })
            }
            LogicalPlan::Limit(limit) => self.limited(limit),
            LogicalPlan::Distinct(Distinct::On(on)) => self.first_of_each(on),
            other => Ok(Ordered {
                stream: self.lower(other)?,
                order: Vec::new(),
            }),
        }
    }

    /// `DISTINCT ON`.
    pub(super) fn distinct_on(&mut self, on: &DistinctOn) -> Result<Stream> {
        let kept: Vec<usize> = (0..on.schema.fields().len()).collect();
        let stream = self.first_of_each(on)?.stream;
        Ok(stream.pick(&kept).with_schema(schema_of(&on.schema)))
    }

    /// The first row of each partition, and what is selected of it; then what it is ordered by.
    fn first_of_each(&mut self, on: &DistinctOn) -> Result<Ordered> {
        let input = self.lower(&on.input)?;
        let mut columns = Columns::new(on.input.schema());
        let partition = partition_of(&on.on_expr, &mut columns)?;
        let mut order = sort_keys(on.sort_expr.as_deref().unwrap_or_default(), &mut columns)?;
        let picks = on.select_expr.iter().map(|e| columns.add(e));
        let picks = picks.map(|c| c.map(Expr::Column));
        let mut picks = picks.collect::<Result<Vec<_>>>()?;
        let first = First {
            ranking: Ranking::RowNumber,
            skip: 0,
            take: Some(1),
            numbered: false,
        };
        let stream = self.first(columns.project(input), partition, order.clone(), first);
        let mut fields = schema_of(&on.schema).fields().to_vec();
        carry(&mut order, &stream.node.schema, &mut picks, &mut fields);
        let stream = stream.project(picks, Arc::new(Schema::new(fields)));
        Ok(Ordered { stream, order })
    }

    /// Rows with numbers up to a constant, if this is such a filter: nothing need be kept of an
    /// input that only grows but these.
    pub(super) fn numbered(&mut self, filter: &Filter) -> Result<Option<Stream>> {
        let (window, picked) = match filter.input.as_ref() {
            LogicalPlan::Window(window) => (window, None),
            LogicalPlan::Projection(projection) => match projection.input.as_ref() {
                LogicalPlan::Window(window) => (window, Some(projection)),
                _ => return Ok(None),
            },
            _ => return Ok(None),
        };
        let [expr] = window.window_expr.as_slice() else {
            return Ok(None);
        };
        let function = window_function(expr)?;
        let Some(ranking) = ranking(function) else {
            return Ok(None);
        };
        let number = window.schema.fields().len() - 1;
        let is_number = |e: &Df| is_column(e, &window.schema, number);
        let is_number = |e: &Df| match (strip(e), picked) {
            (Df::Column(column), Some(picked)) => {
                let place = picked.schema.maybe_index_of_column(column);
                place.is_some_and(|place| is_number(&picked.expr[place]))
            }
            (e, _) => is_number(e),
        };
        let conditions = split_conjunction(&filter.predicate);
        let bounds = conditions.iter().map(|e| bound(e, &is_number));
        let bounds: Vec<Option<Bound>> = bounds.collect();
        let Some(take) = bounds.iter().flatten().map(|b| b.last).min() else {
            return Ok(None);
        };
        let rest = conditions.iter().zip(&bounds).filter(|(_, bound)| {
            // What the bound says already.
            !bound.as_ref().is_some_and(|b| b.exact && b.last == take)
        });
        let rest = conjunction(rest.map(|(e, _)| (*e).clone()));
        let input = self.lower(&window.input)?;
        let output = schema_of(&window.schema);
        let width = window.input.schema().fields().len();
        let mut columns = Columns::all(window.input.schema(), &input);
        let partition = partition_of(&function.params.partition_by, &mut columns)?;
        let order = sort_keys(&function.params.order_by, &mut columns)?;
        let first = First {
            ranking,
            skip: 0,
            take: Some(take),
            numbered: true,
        };
        let stream = self.first(columns.project(input), partition, order, first);
        let as_declared = Expr::Cast {
            expr: Box::new(Expr::Column(stream.width() - 1)),
            to: output.field(number).data_type().clone(),
            safe: false,
        };
        let picks = (0..width).map(Expr::Column).chain([as_declared]);
        let mut stream = stream.project(picks.collect(), output);
        if let Some(picked) = picked {
            let exprs = picked.expr.iter().map(|e| to_expr(e, &window.schema));
            let exprs = exprs.collect::<Result<_>>()?;
            stream = stream.project(exprs, schema_of(&picked.schema));
        }
        if let Some(rest) = rest {
            stream = stream.filter(to_expr(&rest, filter.input.schema())?);
        }
        Ok(Some(stream))
    }

    /// The operator; a column for the numbers is the last.
    fn first(
        &mut self,
        input: Stream,
        partition: Vec<usize>,
        order: Vec<SortKey>,
        first: First,
    ) -> Stream {
        let schema = input.node.schema.clone();
        let grows = input.node.properties.append_only;
        let enough = first.take.map(|take| take.saturating_add(first.skip));
        let spread = !input.partitions.contains(&partition) && partition.is_empty();
        let input = match (enough, first.ranking) {
            // Each worker need not send more than would be enough of its own.
            (Some(take), Ranking::RowNumber) if grows && spread => {
                let op = Op::PartialTopN {
                    partition: partition.clone(),
                    order: order.clone(),
                    take,
                };
                let properties = input.node.properties.clone();
                input.wrap(op, schema.clone(), properties)
            }
            _ => input,
        };
        let input = self.exchange(input, &partition);
        let number = || Field::new("number", DataType::Int64, false);
        let fields = schema.fields().iter().map(|f| f.as_ref().clone());
        let fields = fields.chain(first.numbered.then(number));
        let is_one = first.take == Some(1) && first.ranking == Ranking::RowNumber;
        let numbers = first.numbered && first.ranking == Ranking::RowNumber;
        let key = match &input.node.properties.key {
            _ if is_one => Some(partition.clone()),
            Some(key) => Some(key.clone()),
            None if numbers => {
                let number = schema.fields().len();
                Some(partition.iter().copied().chain([number]).collect())
            }
            None => None,
        };
        let properties = Properties {
            append_only: false,
            key,
        };
        let op = Op::TopN {
            partition,
            order,
            ranking: first.ranking,
            skip: first.skip,
            take: first.take,
            numbered: first.numbered,
            table: self.tables(1),
            closes: None,
        };
        input.wrap(
            op,
            Arc::new(Schema::new(fields.collect::<Vec<_>>())),
            properties,
        )
    }
}

/// How many rows a clause says; none, if it is not there or NULL.
///
/// Errors: `0A000` for what is not constant, `state` for a negative number.
fn rows(expr: Option<&Df>, clause: &str, state: &'static str) -> Result<Option<u64>> {
    let Some(expr) = expr else {
        return Ok(None);
    };
    if matches!(strip(expr), Df::Literal(value, _) if value.is_null()) {
        return Ok(None);
    }
    let number = constant(expr).ok_or_else(|| {
        Error::unsupported(format!(
            "{clause} that is no constant is not supported in a streaming query"
        ))
    })?;
    u64::try_from(number).map(Some).map_err(|_| {
        let message = format!("{clause} must not be negative");
        Error::user(SqlState(state), message)
    })
}

/// An integer, computed of such.
pub(super) fn constant(expr: &Df) -> Option<i64> {
    match strip(expr) {
        Df::Negative(inner) => constant(inner)?.checked_neg(),
        Df::BinaryExpr(BinaryExpr { left, op, right }) => {
            let (left, right) = (constant(left)?, constant(right)?);
            match op {
                Operator::Plus => left.checked_add(right),
                Operator::Minus => left.checked_sub(right),
                Operator::Multiply => left.checked_mul(right),
                _ => None,
            }
        }
        other => integer(other),
    }
}

/// A condition that bounds the numbers.
struct Bound {
    /// The last number that may pass.
    last: u64,
    /// All up to it pass.
    exact: bool,
}

/// Whether an expression is a column, or the same as another integer.
fn is_column(expr: &Df, schema: &DFSchema, column: usize) -> bool {
    match strip(expr) {
        Df::Column(name) => schema.maybe_index_of_column(name) == Some(column),
        _ => false,
    }
}

/// What a condition says of the numbers.
fn bound(condition: &Df, is_number: &dyn Fn(&Df) -> bool) -> Option<Bound> {
    let Df::BinaryExpr(BinaryExpr { left, op, right }) = condition else {
        return None;
    };
    let (op, constant) = match (is_number(left), is_number(right)) {
        (true, false) => (*op, integer(right)?),
        (false, true) => (op.swap()?, integer(left)?),
        _ => return None,
    };
    let (last, exact) = match op {
        Operator::LtEq => (constant, true),
        Operator::Lt => (constant.checked_sub(1)?, true),
        Operator::Eq => (constant, constant == 1),
        _ => return None,
    };
    let last = u64::try_from(last).unwrap_or(0);
    Some(Bound { last, exact })
}

/// Without casts between integers.
fn strip(expr: &Df) -> &Df {
    match expr {
        Df::Alias(alias) => strip(&alias.expr),
        Df::Cast(cast) if cast.field.data_type().is_integer() => strip(&cast.expr),
        other => other,
    }
}

fn integer(expr: &Df) -> Option<i64> {
    match strip(expr) {
        Df::Literal(value, _) if value.data_type().is_integer() => {
            match value.cast_to(&DataType::Int64) {
                Ok(ScalarValue::Int64(value)) => value,
                _ => None,
            }
        }
        _ => None,
    }
}
