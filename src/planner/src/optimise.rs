//! The logical optimiser: DataFusion's rules, by an allow-list.
//!
//! A rule may be used if it maps a query to one with the same answer over *every* input, looking at
//! nothing but the query: then V(e) = Q(I(e)) holds for the rewritten query at every epoch, and
//! maintaining either is the same. Excluded are rules that look at statistics, at the clock or at
//! the order of rows, and those that trade for a batch engine's costs.
//!
//! | rule | why it is sound and wanted |
//! | --- | --- |
//! | rewrite_set_comparison | `= ANY (subquery)` is `IN`, by definition |
//! | `fold` (ours, before and after the others) | boolean algebra, exact casts of constants |
//! | decorrelate_predicate_subquery | EXISTS and IN are semi joins, negated anti joins |
//! | scalar_subquery_to_join | a correlated aggregate is a left join with it |
//! | decorrelate_lateral_join | the same for LATERAL |
//! | extract_equijoin_predicate | tells `a.x = b.y` apart in a join's condition ([`EquiJoins`]) |
//! | eliminate_cross_join | a filter over a product is a join ([`CrossJoins`]) |
//! | eliminate_duplicated_expr | grouping twice by one expression is grouping once |
//! | eliminate_filter | WHERE true, WHERE false |
//! | propagate_empty_relation | an empty relation has no rows in any epoch |
//! | eliminate_outer_join | a filter that rejects NULLs removes the NULL-extended rows anyway |
//! | push_down_filter | it commutes with projections, kept sides, groups ([`PushedFilters`]) |
//! | `written_order` (ours, around it) | what guards another condition stays before it |
//! | optimize_projections | columns that nobody reads are not carried ([`GroupKeys`]) |
//!
//! `fold` stands in place of simplify_expressions, which evaluates constants with another
//! arithmetic than ours. `NOT IN` is marked null-aware and lowered as such. A correlated aggregate
//! is grouped by the correlated columns. eliminate_cross_join leaves alone plans in which some join
//! takes NULLs as equal.
//!
//! Not used, and why: eliminate_join (uses uniqueness that may not hold within an epoch), limit
//! rules (limits have a state of their own), single_distinct_to_group_by (the aggregate operator
//! keeps distinct values itself), eliminate_group_by_constant, common_subexpr_eliminate and the
//! leaf rules (costs of a batch engine), filter_null_join_keys (the join operator drops such rows
//! itself).

mod written_order;

pub use written_order::may_fail;

use crate::bind::{Registry, table_key};
use crate::coerce::{Context, Decorrelated, SessionZone, Stop, analyzer_rules, embedded_in};
use crate::error::external;
use crate::fold::fold_plan;
use crate::lower::{clocked, temporal};
use arrow_schema::DataType;
use datafusion_common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion_common::{
    DFSchema, Dependency, FunctionalDependence, FunctionalDependencies, JoinType, NullEquality,
    Result, ScalarValue, internal_err,
};
use datafusion_expr::expr::{Exists, InSubquery};
use datafusion_expr::expr_rewriter::NamePreserver;
use datafusion_expr::logical_plan::{Aggregate, Distinct, SkipType, Subquery, Union};
use datafusion_expr::utils::{
    conjunction, merge_schema, split_conjunction, split_conjunction_owned,
};
use datafusion_expr::{BinaryExpr, Expr, LogicalPlan, Operator, Volatility, lit, not};
use datafusion_optimizer::analyzer::Analyzer;
use datafusion_optimizer::optimizer::ApplyOrder;
use datafusion_optimizer::{Optimizer, OptimizerConfig, OptimizerContext, OptimizerRule};
use std::sync::Arc;
use tidemark_common::Error;

fn rules() -> Vec<Arc<dyn OptimizerRule + Send + Sync>> {
    use datafusion_optimizer as o;
    let mut rules: Vec<Arc<dyn OptimizerRule + Send + Sync>> = vec![
        Arc::new(o::rewrite_set_comparison::RewriteSetComparison::new()),
        Arc::new(o::decorrelate_predicate_subquery::DecorrelatePredicateSubquery::new()),
        Arc::new(o::scalar_subquery_to_join::ScalarSubqueryToJoin::new()),
        Arc::new(o::decorrelate_lateral_join::DecorrelateLateralJoin::new()),
        Arc::new(EquiJoins::default()),
        Arc::new(o::eliminate_duplicated_expr::EliminateDuplicatedExpr::new()),
        Arc::new(o::eliminate_filter::EliminateFilter::new()),
        Arc::new(CrossJoins::default()),
        Arc::new(o::propagate_empty_relation::PropagateEmptyRelation::new()),
        Arc::new(o::eliminate_outer_join::EliminateOuterJoin::new()),
    ];
    rules.extend(written_order::around(Arc::new(PushedFilters::default())));
    rules.push(Arc::new(o::optimize_projections::OptimizeProjections::new()));
    rules
}

/// DataFusion's rule for products under a filter, which puts the conditions of a whole tree of
/// joins together anew. It gives all of them the NULL equality of the topmost join, so it is left
/// out where one join has `=` and another `IS NOT DISTINCT FROM`. Where there is no product it has
/// nothing to do, but would put each part of a chain of joins together again: of hundreds, for
/// seconds.
#[derive(Debug, Default)]
struct CrossJoins(datafusion_optimizer::eliminate_cross_join::EliminateCrossJoin);

impl OptimizerRule for CrossJoins {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(
        &self,
        plan: LogicalPlan,
        config: &dyn OptimizerConfig,
    ) -> Result<Transformed<LogicalPlan>> {
        let (mut product, mut nulls_equal) = (false, false);
        plan.apply_with_subqueries(|node| {
            if let LogicalPlan::Join(join) = node {
                product |= join.on.is_empty() && join.join_type == JoinType::Inner;
                nulls_equal |= join.null_equality == NullEquality::NullEqualsNull;
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
        if product && !nulls_equal {
            self.0.rewrite(plan, config)
        } else {
            Ok(Transformed::no(plan))
        }
    }
}

/// DataFusion's rule that finds the equalities in a join's condition. To a join in which NULL
/// equals NULL it would add `=`, for which that is not so: there they stay conditions.
#[derive(Debug, Default)]
struct EquiJoins(datafusion_optimizer::extract_equijoin_predicate::ExtractEquijoinPredicate);

impl OptimizerRule for EquiJoins {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.0.apply_order()
    }

    fn rewrite(
        &self,
        plan: LogicalPlan,
        config: &dyn OptimizerConfig,
    ) -> Result<Transformed<LogicalPlan>> {
        match &plan {
            LogicalPlan::Join(join) if join.null_equality == NullEquality::NullEqualsNull => {
                Ok(Transformed::no(plan))
            }
            _ => self.0.rewrite(plan, config),
        }
    }
}

/// Expressions of a filter, from which on it is not pushed to where it becomes larger.
const PUSHED_MAX: usize = 2_000;

/// DataFusion's rule that pushes filters down. Below a projection, a filter has expressions in
/// place of columns, a copy for each time that a column is named: through projections of
/// `a + a AS a` in each other it doubles each time. From some size on it stays where it is.
///
/// A filter stays above an aggregate that has a row for no input at all: below, it could not take
/// that row away. And it stays above DISTINCT ON, below which it would choose among other rows.
///
/// The rule puts comparisons of one column together, and takes `5 = a AND a = 5` for a
/// contradiction and `5 < a` for `a <= 5`'s like: so each is turned to have its column first.
#[derive(Debug, Default)]
struct PushedFilters(datafusion_optimizer::push_down_filter::PushDownFilter);

impl OptimizerRule for PushedFilters {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.0.apply_order()
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(
        &self,
        plan: LogicalPlan,
        config: &dyn OptimizerConfig,
    ) -> Result<Transformed<LogicalPlan>> {
        if is_above_a_choice(&plan) || grows_too_large(&plan)? {
            Ok(Transformed::no(plan))
        } else {
            self.0.rewrite(
                written_order::without_inference(with_columns_first(plan)),
                config,
            )
        }
    }
}

/// The filters on top of a plan, with comparisons of a constant and a column turned.
fn with_columns_first(plan: LogicalPlan) -> LogicalPlan {
    let LogicalPlan::Filter(mut filter) = plan else {
        return plan;
    };
    if split_conjunction(&filter.predicate)
        .iter()
        .any(|e| compares_constant(e))
    {
        let parts = split_conjunction_owned(filter.predicate).into_iter();
        filter.predicate = conjunction(parts.map(column_first)).unwrap_or_else(|| lit(true));
    }
    if matches!(filter.input.as_ref(), LogicalPlan::Filter(_)) {
        filter.input = Arc::new(with_columns_first(Arc::unwrap_or_clone(filter.input)));
    }
    LogicalPlan::Filter(filter)
}

fn is_comparison(op: Operator) -> bool {
    use Operator::{Eq, Gt, GtEq, Lt, LtEq};
    matches!(op, Eq | Lt | LtEq | Gt | GtEq)
}

fn compares_constant(expr: &Expr) -> bool {
    let constant = |e: &Expr| matches!(e, Expr::Literal(..));
    matches!(expr, Expr::BinaryExpr(b) if is_comparison(b.op)
        && (constant(&b.left) || constant(&b.right)))
}

/// `5 < a` as `a > 5`. Of a constant, its value counts: not where it comes from, and not the sign
/// of a zero.
fn column_first(expr: Expr) -> Expr {
    let Expr::BinaryExpr(b) = expr else {
        return expr;
    };
    let turned = match (b.left.as_ref(), b.right.as_ref(), b.op.swap()) {
        (Expr::Literal(..), Expr::Column(_), Some(op)) => BinaryExpr::new(b.right, op, b.left),
        _ => b,
    };
    let constant = match turned.right.as_ref() {
        _ if !is_comparison(turned.op) => return Expr::BinaryExpr(turned),
        Expr::Literal(ScalarValue::Float64(Some(0.0)), _) => lit(0.0_f64),
        Expr::Literal(ScalarValue::Float32(Some(0.0)), _) => lit(0.0_f32),
        Expr::Literal(value, _) => lit(value.clone()),
        _ => return Expr::BinaryExpr(turned),
    };
    Expr::BinaryExpr(BinaryExpr::new(turned.left, turned.op, Box::new(constant)))
}

/// Rules that leave out what is determined by something else, and believe what is said of keys.
const USING_KEYS: [&str; 3] = [
    "eliminate_duplicated_expr",
    "eliminate_join",
    "optimize_projections",
];

/// DataFusion takes a key of one side of a join for a key of the groups above it, and leaves out of
/// GROUP BY and ORDER BY what it believes to be determined. This rule comes before each of those
/// that use it, and says what is true: all groups together are a key.
#[derive(Debug)]
struct GroupKeys;

impl OptimizerRule for GroupKeys {
    fn name(&self) -> &str {
        "group_keys"
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(
        &self,
        plan: LogicalPlan,
        _: &dyn OptimizerConfig,
    ) -> Result<Transformed<LogicalPlan>> {
        let mut claimed = false;
        plan.apply_with_subqueries(|node| {
            claimed |= matches!(node, LogicalPlan::Aggregate(a) if claims_keys(a));
            Ok(if claimed {
                TreeNodeRecursion::Stop
            } else {
                TreeNodeRecursion::Continue
            })
        })?;
        if claimed {
            plan.transform_up_with_subqueries(with_whole_keys)
        } else {
            Ok(Transformed::no(plan))
        }
    }
}

/// Whether more is said of the groups than that all of them together are a key.
fn claims_keys(aggregate: &Aggregate) -> bool {
    let groups = groups_of(aggregate);
    let mut known = aggregate.schema.functional_dependencies().iter();
    known.any(|d| d.source_indices.len() < groups)
}

/// Columns of groups; those of grouping sets are no key.
fn groups_of(aggregate: &Aggregate) -> usize {
    aggregate.schema.fields().len() - aggregate.aggr_expr.len()
}

/// The node, with all groups of an aggregate together as its only key.
fn with_whole_keys(node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let LogicalPlan::Aggregate(mut aggregate) = node else {
        // What a projection passes on it has from below.
        return node.recompute_schema().map(Transformed::yes);
    };
    if !claims_keys(&aggregate) {
        return Ok(Transformed::no(LogicalPlan::Aggregate(aggregate)));
    }
    let schema = aggregate.schema.as_ref().clone();
    let sets = |e: &Expr| matches!(e, Expr::GroupingSet(_));
    let known = if aggregate.group_expr.iter().any(sets) {
        FunctionalDependencies::empty()
    } else {
        let groups: Vec<usize> = (0..groups_of(&aggregate)).collect();
        let all = (0..schema.fields().len()).collect();
        let nullable = groups.iter().any(|i| schema.field(*i).is_nullable());
        let key = FunctionalDependence::new(groups, all, nullable).with_mode(Dependency::Single);
        FunctionalDependencies::new(vec![key])
    };
    // Its constructors would find the same keys again.
    aggregate.schema = Arc::new(schema.with_functional_dependencies(known)?);
    Ok(Transformed::yes(LogicalPlan::Aggregate(aggregate)))
}

/// Whether filters stand on DISTINCT ON, on an aggregate of one group, or on one that has such a
/// group beside others.
fn is_above_a_choice(plan: &LogicalPlan) -> bool {
    let mut below = plan;
    while let LogicalPlan::Filter(filter) = below {
        below = &filter.input;
    }
    let sets = |e: &Expr| matches!(e, Expr::GroupingSet(_));
    let chooses = match below {
        LogicalPlan::Aggregate(aggregate) => {
            aggregate.group_expr.is_empty() || aggregate.group_expr.iter().any(sets)
        }
        LogicalPlan::Distinct(Distinct::On(_)) => true,
        _ => false,
    };
    matches!(plan, LogicalPlan::Filter(_)) && chooses
}

/// Whether the filters on top of a plan would become too large below what they stand on.
fn grows_too_large(plan: &LogicalPlan) -> Result<bool> {
    let (mut predicates, mut below) = (Vec::new(), plan);
    while let LogicalPlan::Filter(filter) = below {
        predicates.push(&filter.predicate);
        below = &filter.input;
    }
    let (schema, exprs) = match below {
        LogicalPlan::Projection(projection) => (&projection.schema, &projection.expr),
        LogicalPlan::Aggregate(aggregate) => (&aggregate.schema, &aggregate.group_expr),
        _ => return Ok(false),
    };
    if predicates.is_empty() {
        return Ok(false);
    }
    let sizes = exprs.iter().map(size).collect::<Result<Vec<_>>>()?;
    let (mut before, mut after) = (0, 0);
    for predicate in predicates {
        predicate.apply(|e| {
            let substituted = match e {
                Expr::Column(column) => schema
                    .maybe_index_of_column(column)
                    .and_then(|i| sizes.get(i).copied()),
                _ => None,
            };
            before += 1;
            after += substituted.unwrap_or(1);
            Ok(TreeNodeRecursion::Continue)
        })?;
    }
    Ok(after > PUSHED_MAX && after > before)
}

/// The number of expressions in an expression, its alias not counted.
fn size(expr: &Expr) -> Result<usize> {
    let mut size = 0;
    expr.apply(|e| {
        size += usize::from(!matches!(e, Expr::Alias(_)));
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(size)
}

/// Unions in unions of the same types as one. DataFusion has a rule for that, which looks at all
/// inputs again for each UNION ALL between them: of a thousand, for half a second.
#[derive(Debug)]
struct FlatUnions;

impl OptimizerRule for FlatUnions {
    fn name(&self) -> &str {
        "flat_unions"
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::BottomUp)
    }

    fn rewrite(
        &self,
        plan: LogicalPlan,
        _: &dyn OptimizerConfig,
    ) -> Result<Transformed<LogicalPlan>> {
        let LogicalPlan::Union(Union { inputs, schema }) = plan else {
            return Ok(Transformed::no(plan));
        };
        let types = |schema: &DFSchema| -> Vec<DataType> {
            let fields = schema.fields().iter();
            fields.map(|f| f.data_type().clone()).collect()
        };
        let wanted = types(&schema);
        let (mut flat, mut found) = (Vec::new(), false);
        for input in inputs {
            match input.as_ref() {
                LogicalPlan::Union(inner) if types(&inner.schema) == wanted => {
                    found = true;
                    let LogicalPlan::Union(inner) = Arc::unwrap_or_clone(input) else {
                        return internal_err!("a union is none");
                    };
                    match flat.is_empty() {
                        true => flat = inner.inputs,
                        false => flat.extend(inner.inputs),
                    }
                }
                _ => flat.push(input),
            }
        }
        let union = LogicalPlan::Union(Union {
            inputs: flat,
            schema,
        });
        Ok(Transformed::new_transformed(union, found))
    }
}

/// `x IN (a, b)` of columns as `x = a OR x = b`: DataFusion's simplification of two lists side by
/// side takes expressions that are written differently for different values, which constants are by
/// then. What is volatile is evaluated once a row, and stays.
#[derive(Debug)]
struct PlainLists;

impl OptimizerRule for PlainLists {
    fn name(&self) -> &str {
        "plain_lists"
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::BottomUp)
    }

    fn rewrite(
        &self,
        plan: LogicalPlan,
        _: &dyn OptimizerConfig,
    ) -> Result<Transformed<LogicalPlan>> {
        let names = NamePreserver::new(&plan);
        plan.map_expressions(|expr| {
            let name = names.save(&expr);
            Ok(expr
                .transform_up(|e| Ok(compared_to_each(e)))?
                .update_data(|e| name.restore(e)))
        })
    }
}

fn compared_to_each(expr: Expr) -> Transformed<Expr> {
    let reads_row = |e: &Expr| e.any_column_refs() || e.contains_outer();
    let Expr::InList(list) = expr else {
        return Transformed::no(expr);
    };
    if list.expr.is_volatile() || !list.list.iter().any(reads_row) {
        return Transformed::no(Expr::InList(list));
    }
    let mut parts: Vec<Expr> = list
        .list
        .into_iter()
        .map(|item| list.expr.as_ref().clone().eq(item))
        .collect();
    // In pairs, so that a long list is no deep chain.
    while parts.len() > 1 {
        let mut rest = parts.into_iter();
        let mut paired = Vec::new();
        while let Some(left) = rest.next() {
            paired.push(match rest.next() {
                Some(right) => left.or(right),
                None => left,
            });
        }
        parts = paired;
    }
    let found = parts.remove(0);
    Transformed::yes(if list.negated { not(found) } else { found })
}

/// DataFusion's own optimiser rules for ad-hoc queries, without what would answer wrongly or grow
/// beyond measure.
pub fn ad_hoc_rules() -> Vec<Arc<dyn OptimizerRule + Send + Sync>> {
    let (joins, filters) = (CrossJoins::default(), PushedFilters::default());
    let equalities = EquiJoins::default();
    let sound = |rule: Arc<dyn OptimizerRule + Send + Sync>| {
        if rule.name() == joins.name() {
            vec![Arc::new(CrossJoins::default()) as _]
        } else if rule.name() == equalities.name() {
            vec![Arc::new(EquiJoins::default()) as _]
        } else if rule.name() == filters.name() {
            written_order::around(Arc::new(PushedFilters::default())).into()
        } else {
            vec![rule]
        }
    };
    let first: [Arc<dyn OptimizerRule + Send + Sync>; 2] =
        [Arc::new(PlainLists), Arc::new(FlatUnions)];
    let rest = Optimizer::new().rules.into_iter().flat_map(sound);
    stopping(first.into_iter().chain(rest).collect())
}

/// The rules with a look, before each, at whether anybody waits for the plan, and with what is true
/// of keys before those that use them.
fn stopping(
    rules: Vec<Arc<dyn OptimizerRule + Send + Sync>>,
) -> Vec<Arc<dyn OptimizerRule + Send + Sync>> {
    let mut all = Vec::with_capacity(2 * rules.len() + USING_KEYS.len());
    for rule in rules {
        all.push(Arc::new(Stop) as Arc<dyn OptimizerRule + Send + Sync>);
        if USING_KEYS.contains(&rule.name()) {
            all.push(Arc::new(GroupKeys));
        }
        all.push(rule);
    }
    all
}

/// Inserts every type coercion, and the time zone that the plan is made in. Errors: types that do
/// not fit.
/// `decorrelated`: all that is correlated is joined by what it refers to.
pub(crate) fn analyze(
    plan: LogicalPlan,
    registry: &Registry,
    zone: &str,
    decorrelated: bool,
) -> Result<LogicalPlan> {
    let mut options = registry.options().clone();
    options.extensions.insert(SessionZone(zone.to_string()));
    if decorrelated {
        options.extensions.insert(Decorrelated);
    }
    Analyzer::with_rules(analyzer_rules(registry.calls(), table_key, false)).execute_and_check(
        plan,
        &options,
        |_, _| {},
    )
}

/// Without limits that leave everything, which only keep the order of a subquery: filters need not
/// stop at them.
fn without_empty_limits(plan: LogicalPlan) -> Result<LogicalPlan> {
    let done = plan.transform_up_with_subqueries(|node| {
        let LogicalPlan::Limit(limit) = &node else {
            return Ok(Transformed::no(node));
        };
        let leaves_all =
            limit.fetch.is_none() && matches!(limit.get_skip_type(), Ok(SkipType::Literal(0)));
        Ok(match leaves_all {
            true => Transformed::yes(limit.input.as_ref().clone()),
            false => Transformed::no(node),
        })
    })?;
    Ok(done.data)
}

/// Applies the allowed rules to an analyzed plan.
pub(crate) fn optimise(plan: LogicalPlan, registry: &Registry) -> Result<LogicalPlan> {
    let config = OptimizerContext::new_with_config_options(Arc::new(registry.options().clone()))
        .without_query_execution_start_time()
        .with_skip_failing_rules(false);
    let plan = without_empty_limits(fold_plan(plan, registry)?)?;
    let plan = Optimizer::with_rules(stopping(rules())).optimize(plan, &config, |_, _| {})?;
    fold_plan(plan, registry)
}

/// Refuses, before any rewriting hides it, what a maintained query may not contain: volatile
/// functions, subqueries that refer to a query further out than the one around them,
/// and `IN (subquery)` where its NULL cannot be told from false.
pub(crate) fn refuse(plan: &LogicalPlan) -> Result<()> {
    plan.apply_with_subqueries(|node| {
        let filters = match node {
            LogicalPlan::Filter(_) => true,
            LogicalPlan::Join(join) => join.join_type == JoinType::Inner,
            _ => false,
        };
        node.apply_expressions(|e| {
            if filters {
                clocked::check(e).map_err(external)?;
            }
            e.apply(|e| {
                if let Expr::ScalarFunction(call) = e
                    && call.func.signature().volatility != Volatility::Immutable
                    && !(filters && temporal::reads_clock(e))
                    && crate::excluded::marked(e).is_none()
                {
                    return Err(external(volatile(call.func.name())));
                }
                if let Expr::ScalarSubquery(subquery)
                | Expr::Exists(Exists { subquery, .. })
                | Expr::InSubquery(InSubquery { subquery, .. }) = e
                {
                    correlated(subquery, node)?;
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })?;
        if let LogicalPlan::Filter(filter) = node {
            embedded_in(&filter.predicate, Context::Conjunction)?;
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(())
}

/// Subqueries become joins with the query right around them: what they refer to must be there.
fn correlated(subquery: &Subquery, around: &LogicalPlan) -> Result<()> {
    let schema = merge_schema(&around.inputs());
    for outer in &subquery.outer_ref_columns {
        if let Expr::OuterReferenceColumn(_, column) = outer
            && !schema.has_column(column)
        {
            return Err(external(
                Error::unsupported(format!(
                    "a subquery that refers to {column}, which is further \
                                            out than the query around it"
                ))
                .with_hint(
                    "Join the relations, or let the query in between pass the column \
                                on.",
                ),
            ));
        }
    }
    Ok(())
}

fn volatile(name: &str) -> Error {
    if [
        "now",
        "current_timestamp",
        "current_date",
        "current_time",
        "today",
    ]
    .contains(&name)
    {
        return temporal::misplaced();
    }
    let hint = "The same input must always give the same row; compute the value where the data is \
                written.";
    Error::unsupported(format!(
        "function {name}() is volatile and cannot be used in a streaming query"
    ))
    .with_hint(hint)
}
