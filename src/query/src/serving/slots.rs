//! Queries that differ in constants only, as one plan: where the constants stand, and how others
//! are put there.
//!
//! A constant may decide much of a plan: types, names, places of columns, what is folded. So only
//! one that the condition of a query over one relation compares with a column has a slot, in a
//! condition of comparisons, BETWEEN, AND, OR and NOT ([`slots_of`]); all others are part of what
//! the plan is kept by. And no rule of the planner gets to know its value: the plan is made with a
//! parameter in its place, of the type of the column ([`plan`]). The value stands in the filters of
//! the plan that runs, marked, and there another one takes its place ([`filled`]).
//!
//! What a value might have decided after all shows in the plan, and then none is kept: a value that
//! stands elsewhere, or changed, or not at all, conditions beside it that may fail, and rows that
//! are looked up by it.

use super::plans::{depends_on_clock, runs_again};
use super::point::{Form, constant};
use super::query::plan_query;
use super::{optimized, physical_of};
use crate::parameters::placeholder;
use crate::settings::Settings;
use crate::snapshot::Snapshot;
use crate::values::parse_column;
use arrow::datatypes::{DataType, Schema};
use datafusion::common::metadata::FieldMetadata;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Result as DataFusionResult, ScalarValue};
use datafusion::execution::SessionState;
use datafusion::logical_expr::expr::Placeholder;
use datafusion::logical_expr::{Expr as LogicalExpr, LogicalPlan};
use datafusion::physical_expr::expressions::{BinaryExpr, Literal, NotExpr};
use datafusion::physical_plan::filter::{FilterExec, FilterExecBuilder};
use datafusion::physical_plan::{ExecutionPlan, PhysicalExpr};
use datafusion::sql::sqlparser::ast::{
    self, BinaryOperator, Expr, SetExpr, Statement, UnaryOperator,
};
use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::sync::{Arc, Weak};
use tidemark_common::Result;
use tidemark_plan::{Catalog, Column};
use tidemark_planner::may_fail;
use tidemark_values::moment::Zone;

/// A parameter that may have any value of a type.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Slot {
    /// Its place among the parameters, from 0.
    pub place: usize,
    /// What it is compared with.
    column: Column,
}

impl Slot {
    /// The value that it has with these parameters in a time zone; `None` for what is not evidently
    /// one of its type.
    pub fn value(&self, parameters: &[Expr], zone: &Zone) -> Option<ScalarValue> {
        let given = parameters.get(self.place)?;
        match self.column.data_type {
            DataType::Date32 | DataType::Timestamp(..) => self.moment(given, zone),
            _ => constant(given, &self.column.data_type),
        }
    }

    /// A moment that is always the same one.
    fn moment(&self, given: &Expr, zone: &Zone) -> Option<ScalarValue> {
        let quoted = match given {
            Expr::Cast {
                expr, data_type, ..
            } if is_type(data_type, &self.column.data_type) => expr.as_ref(),
            other => other,
        };
        let Expr::Value(ast::ValueWithSpan {
            value: ast::Value::SingleQuotedString(text),
            ..
        }) = quoted
        else {
            return None;
        };
        let read = || parse_column(&[Some(text.as_str())], &self.column, zone).ok();
        let value = (!depends_on_clock(text)).then(read)??;
        ScalarValue::try_from_array(&value, 0).ok()
    }

    /// Its name as a parameter.
    fn id(&self) -> String {
        format!("${}", self.place + 1)
    }
}

/// Queries that a session remembers.
const QUERIES_MAX: usize = 100;

/// The slots of a session's queries by their texts, as they were found for a catalog and settings.
#[derive(Default)]
pub(crate) struct KnownSlots(HashMap<String, (Weak<Catalog>, Arc<Settings>, Arc<[Slot]>)>);

impl KnownSlots {
    /// Those of a query, if they were looked for with this catalog and these settings.
    pub fn get(
        &self,
        text: &str,
        catalog: &Arc<Catalog>,
        settings: &Settings,
    ) -> Option<Arc<[Slot]>> {
        let (of_catalog, of_settings, slots) = self.0.get(text)?;
        let known = of_catalog.ptr_eq(&Arc::downgrade(catalog)) && of_settings.equals(settings);
        known.then(|| slots.clone())
    }

    /// Remembers those of a query; when there are too many queries, all others go.
    pub fn put(
        &mut self,
        text: &str,
        catalog: &Arc<Catalog>,
        settings: &Arc<Settings>,
        slots: Vec<Slot>,
    ) {
        if self.0.len() >= QUERIES_MAX {
            self.0.clear();
        }
        let known = (Arc::downgrade(catalog), settings.clone(), slots.into());
        self.0.insert(text.into(), known);
    }
}

/// Whether a type that is written is the one of a column of moments.
fn is_type(written: &ast::DataType, data_type: &DataType) -> bool {
    use ast::TimezoneInfo::{None as Neither, WithTimeZone, WithoutTimeZone};
    match (written, data_type) {
        (ast::DataType::Date, DataType::Date32) => true,
        (
            ast::DataType::Timestamp(None, Neither | WithoutTimeZone),
            DataType::Timestamp(_, zone),
        ) => zone.is_none(),
        (ast::DataType::Timestamp(None, WithTimeZone), DataType::Timestamp(_, zone)) => {
            zone.is_some()
        }
        _ => false,
    }
}

/// Whether a query compares any parameter with a column.
pub(crate) fn may_have_slots(sql: &Statement) -> bool {
    compared(sql).is_some_and(|(_, pairs)| !pairs.is_empty())
}

/// The parameters of a query over one relation, of these columns, that have slots.
pub(crate) fn slots_of(sql: &Statement, columns: &[Column]) -> Vec<Slot> {
    let Some((form, pairs)) = compared(sql) else {
        return Vec::new();
    };
    let mut beside = BTreeMap::<usize, Vec<Option<&Column>>>::new();
    for (expr, place) in pairs {
        let column = form.column(expr, columns).map(|at| &columns[at]);
        beside.entry(place).or_default().push(column);
    }
    let slot = |(place, beside): (usize, Vec<Option<&Column>>)| {
        let beside = beside.into_iter().collect::<Option<Vec<_>>>()?;
        let column = Column::clone(beside.first()?);
        let alike = |c: &&Column| is_plain(c) && c.data_type == column.data_type;
        // It may stand where it is more than a value.
        let everywhere = beside.len() == uses(sql, place);
        (everywhere && beside.iter().all(alike)).then_some(Slot { place, column })
    };
    beside.into_iter().filter_map(slot).collect()
}

/// Whether constants are compared with values of a column as they are written.
fn is_plain(column: &Column) -> bool {
    match column.data_type {
        DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::Date32
        | DataType::Timestamp(..) => column.sql_type.is_empty(),
        DataType::Utf8 => column.sql_type.is_empty() || column.sql_type.starts_with("varchar"),
        _ => false,
    }
}

/// How often a statement names the parameter at a place.
fn uses(sql: &Statement, place: usize) -> usize {
    struct Counter(usize, usize);
    impl ast::Visitor for Counter {
        type Break = ();
        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            self.1 += usize::from(placeholder(expr) == Some(self.0 + 1));
            ControlFlow::Continue(())
        }
    }
    let mut counter = Counter(place, 0);
    let _ = ast::Visit::visit(sql, &mut counter);
    counter.1
}

/// The table of a query over one, and what its condition compares: expressions, and places of
/// parameters.
fn compared(sql: &Statement) -> Option<(Form<'_>, Vec<(&Expr, usize)>)> {
    let Statement::Query(query) = sql else {
        return None;
    };
    let SetExpr::Select(select) = query.body.as_ref() else {
        return None;
    };
    let ([table], Some(condition), None) = (select.from.as_slice(), &select.selection, &query.with)
    else {
        return None;
    };
    let form = Form::over(table, condition)?;
    let mut pairs = Vec::new();
    pair(condition, &mut pairs);
    Some((form, pairs))
}

fn pair<'a>(condition: &'a Expr, pairs: &mut Vec<(&'a Expr, usize)>) {
    use BinaryOperator::{And, Eq, Gt, GtEq, Lt, LtEq, NotEq, Or};
    let place = |e: &Expr| placeholder(e)?.checked_sub(1);
    match condition {
        Expr::Nested(inner)
        | Expr::UnaryOp {
            op: UnaryOperator::Not,
            expr: inner,
        } => pair(inner, pairs),
        Expr::BinaryOp {
            left,
            op: And | Or,
            right,
        } => {
            pair(left, pairs);
            pair(right, pairs);
        }
        Expr::BinaryOp {
            left,
            op: Eq | NotEq | Lt | LtEq | Gt | GtEq,
            right,
        } => match (place(left), place(right)) {
            (None, Some(place)) => pairs.push((left, place)),
            (Some(place), None) => pairs.push((right, place)),
            _ => {}
        },
        Expr::Between {
            expr, low, high, ..
        } => {
            let bounds = [low, high].into_iter().filter_map(|bound| place(bound));
            pairs.extend(bounds.map(|place| (expr.as_ref(), place)));
        }
        _ => {}
    }
}

/// The parameters with those of the slots left open: what a plan with slots is kept by.
pub(crate) fn left_open(parameters: &[Expr], slots: &[Slot]) -> Vec<Expr> {
    let mut open = parameters.to_vec();
    for slot in slots {
        if let Some(parameter) = open.get_mut(slot.place) {
            *parameter = Expr::Value(ast::Value::Placeholder(slot.id()).into());
        }
    }
    open
}

/// Plans a query in which the parameters of the slots are open, to be run with any values, of which
/// these are some. `None` where the values decide on more than which rows pass a filter.
pub(crate) fn plan(
    state: &SessionState,
    snapshot: &Snapshot,
    sql: &Statement,
    slots: &[Slot],
    values: &[ScalarValue],
) -> Result<Option<(LogicalPlan, Arc<dyn ExecutionPlan>)>> {
    let plan = plan_query(state, snapshot, sql)?;
    let mut marking = Marking {
        slots,
        values,
        in_filters: 0,
        elsewhere: false,
    };
    let marked = marking.of(optimized(state, &plan)?)?;
    if marking.elsewhere {
        return Ok(None);
    }
    let physical = physical_of(state, &marked)?;
    let found = found_in_filters(&physical, values)?;
    let same = found == Some(marking.in_filters) && runs_again(&physical);
    Ok(same.then_some((plan, physical)))
}

/// Puts marked values in the place of open parameters.
struct Marking<'a> {
    slots: &'a [Slot],
    values: &'a [ScalarValue],
    /// Parameters in filters.
    in_filters: usize,
    /// Whether there are others, or of other types.
    elsewhere: bool,
}

impl Marking<'_> {
    fn of(&mut self, plan: LogicalPlan) -> Result<LogicalPlan> {
        let marked = plan.transform_up_with_subqueries(|node| match node {
            LogicalPlan::Filter(mut filter) => {
                let before = self.in_filters;
                // Where it guards what may fail, it is evaluated in another way.
                let fails = may_fail(&filter.predicate);
                filter.predicate = self.marked(filter.predicate, true)?;
                self.elsewhere |= fails && self.in_filters > before;
                Ok(Transformed::yes(LogicalPlan::Filter(filter)))
            }
            // What a scan may use to look rows up; the filters stand above it, too.
            LogicalPlan::TableScan(mut scan) => {
                let filters = scan.filters.into_iter().map(|f| self.marked(f, false));
                scan.filters = filters.collect::<DataFusionResult<_>>()?;
                Ok(Transformed::yes(LogicalPlan::TableScan(scan)))
            }
            other => {
                other.apply_expressions(|e| {
                    self.elsewhere |= e.exists(|e| Ok(matches!(e, LogicalExpr::Placeholder(_))))?;
                    Ok(TreeNodeRecursion::Continue)
                })?;
                Ok(Transformed::no(other))
            }
        });
        marked.map(|t| t.data).map_err(crate::error::from_planning)
    }

    fn marked(&mut self, expr: LogicalExpr, in_filter: bool) -> DataFusionResult<LogicalExpr> {
        let marked = expr.transform_up(|e| {
            let LogicalExpr::Placeholder(Placeholder { id, field }) = &e else {
                return Ok(Transformed::no(e));
            };
            let at = self.slots.iter().position(|slot| {
                let data_type = field.as_ref().map(|f| f.data_type());
                slot.id() == *id && data_type == Some(&slot.column.data_type)
            });
            let Some(at) = at else {
                self.elsewhere = true;
                return Ok(Transformed::no(e));
            };
            self.in_filters += usize::from(in_filter);
            let mark = BTreeMap::from([(MARK.to_string(), at.to_string())]);
            let value = self.values[at].clone();
            Ok(Transformed::yes(LogicalExpr::Literal(
                value,
                Some(FieldMetadata::new(mark)),
            )))
        });
        marked.map(|t| t.data)
    }
}

/// Says in a literal's metadata which slot it fills.
const MARK: &str = "tidemark.slot";

/// The slot that a literal fills.
fn mark_of(expr: &Arc<dyn PhysicalExpr>) -> DataFusionResult<Option<(&Literal, usize)>> {
    let Some(literal) = expr.downcast_ref::<Literal>() else {
        return Ok(None);
    };
    let field = literal.return_field(&Schema::empty())?;
    let slot = field.metadata().get(MARK).and_then(|at| at.parse().ok());
    Ok(slot.map(|at| (literal, at)))
}

/// How many marked literals are compared in the filters of a plan; `None` where one stands
/// elsewhere in a filter or has another value.
fn found_in_filters(
    plan: &Arc<dyn ExecutionPlan>,
    values: &[ScalarValue],
) -> Result<Option<usize>> {
    let (mut found, mut same) = (0, true);
    let searched = plan.apply(|node| {
        if let Some(filter) = node.downcast_ref::<FilterExec>() {
            search(filter.predicate(), true, &mut |literal, at, in_place| {
                found += 1;
                same &= in_place && values.get(at) == Some(literal.value());
            })?;
        }
        Ok(TreeNodeRecursion::Continue)
    });
    searched.map_err(crate::error::from_planning)?;
    Ok(same.then_some(found))
}

/// Tells of each marked literal whether comparisons, AND, OR and NOT are all that is around it.
fn search(
    expr: &Arc<dyn PhysicalExpr>,
    in_place: bool,
    tell: &mut impl FnMut(&Literal, usize, bool),
) -> DataFusionResult<()> {
    if let Some((literal, at)) = mark_of(expr)? {
        tell(literal, at, in_place);
    }
    let in_place = in_place && (expr.is::<BinaryExpr>() || expr.is::<NotExpr>());
    let mut children = expr.children().into_iter();
    children.try_for_each(|child| search(child, in_place, tell))
}

/// A plan to be run once, with these values in its slots.
pub(crate) fn filled(
    plan: &Arc<dyn ExecutionPlan>,
    values: &[ScalarValue],
) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
    let fresh = plan.clone().transform_up(|node| {
        let Some(filter) = node.downcast_ref::<FilterExec>() else {
            return Ok(Transformed::yes(node.reset_state()?));
        };
        let predicate = filter.predicate().clone().transform_up(|e| {
            let value = mark_of(&e)?.and_then(|(_, at)| values.get(at));
            Ok(match value {
                Some(value) => Transformed::yes(Arc::new(Literal::new(value.clone())) as _),
                None => Transformed::no(e),
            })
        })?;
        let filter = FilterExecBuilder::from(filter).with_predicate(predicate.data);
        Ok(Transformed::yes(Arc::new(filter.build()?) as _))
    });
    fresh.map(|t| t.data)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemark_planner::StatementKind;

    fn tree(text: &str) -> Statement {
        match tidemark_planner::parse(text).unwrap().remove(0).kind {
            StatementKind::Sql(sql) => *sql,
            _ => unreachable!("a query"),
        }
    }

    fn columns() -> Vec<Column> {
        let column = |name: &str, data_type, sql_type: &str| Column {
            name: name.into(),
            data_type,
            nullable: true,
            default: None,
            sql_type: sql_type.into(),
        };
        vec![
            column("a", DataType::Int32, ""),
            column("b", DataType::Int64, ""),
            column("s", DataType::Utf8, ""),
            column("v", DataType::Utf8, "varchar(3)"),
            column("c", DataType::LargeUtf8, "char(3)"),
            column("d", DataType::Date32, ""),
            column("f", DataType::Float64, ""),
        ]
    }

    #[test]
    fn what_is_compared_with_a_column_has_a_slot() {
        let cases: [(&str, &[usize]); 18] = [
            ("SELECT count(*) FROM t WHERE a = $1", &[1]),
            (
                "SELECT count(*) FROM t WHERE t.a = $1 AND (s <> $2 OR $3 < b)",
                &[1, 2, 3],
            ),
            (
                "SELECT count(*) FROM t AS x WHERE x.a BETWEEN $1 AND $2",
                &[1, 2],
            ),
            ("SELECT count(*) FROM t AS x WHERE t.a = $1", &[]),
            (
                "SELECT $1 FROM t WHERE NOT v = $2 GROUP BY a LIMIT $3",
                &[2],
            ),
            // They say more than which rows pass, or are not compared as they are written.
            ("SELECT $1 FROM t WHERE a = $1", &[]),
            ("SELECT count(*) FROM t WHERE a = $1 AND b = $1", &[]),
            ("SELECT count(*) FROM t WHERE a = $1 AND a < $1", &[1]),
            ("SELECT count(*) FROM t WHERE a + $1 = $2", &[]),
            ("SELECT count(*) FROM t WHERE a IN ($1, $2)", &[]),
            ("SELECT count(*) FROM t WHERE s LIKE $1", &[]),
            ("SELECT count(*) FROM t WHERE a = $1::int", &[]),
            (
                "SELECT count(*) FROM t WHERE c = $1 OR d = $2 OR f = $3",
                &[2],
            ),
            ("SELECT count(*) FROM t WHERE $1 = $2 AND a IS NULL", &[]),
            ("SELECT a, count(*) FROM t GROUP BY a HAVING a = $1", &[]),
            ("SELECT count(*) FROM t, t AS x WHERE t.a = $1", &[]),
            ("SELECT a FROM t WHERE a = $1 UNION SELECT 1", &[]),
            (
                "WITH t AS (SELECT 1 AS a) SELECT a FROM t WHERE a = $1",
                &[],
            ),
        ];
        for (text, wanted) in cases {
            let slots = slots_of(&tree(text), &columns());
            let places: Vec<usize> = slots.iter().map(|s| s.place + 1).collect();
            assert_eq!(places, wanted, "{text}");
        }
    }

    #[test]
    fn a_slot_takes_what_is_evidently_of_its_type() {
        let values = |condition: &str, parameters: &str| {
            let slots = slots_of(
                &tree(&format!("SELECT 1 FROM t WHERE {condition}")),
                &columns(),
            );
            let Statement::Query(query) = tree(&format!("VALUES ({parameters})")) else {
                unreachable!("a query");
            };
            let SetExpr::Values(values) = *query.body else {
                unreachable!("values");
            };
            let value = |slot: &Slot| slot.value(&values.rows[0], &Zone::UTC);
            slots.iter().map(value).collect::<Option<Vec<_>>>()
        };
        let int = |v| ScalarValue::Int32(Some(v));
        assert_eq!(
            values("a = $1 AND a > $2", "3, -4"),
            Some(vec![int(3), int(-4)])
        );
        assert_eq!(values("a = $1", "CAST(7 AS BIGINT)"), Some(vec![int(7)]));
        assert_eq!(
            values("b = $1", "3000000000"),
            Some(vec![ScalarValue::from(3_000_000_000_i64)])
        );
        assert_eq!(
            values("v = $1", "'longer'"),
            Some(vec![ScalarValue::from("longer")])
        );
        for other in [
            "3000000000",
            "1.5",
            "NULL",
            "'3'",
            "true",
            "1 + 2",
            "CAST('1' AS INT)",
        ] {
            assert_eq!(values("a = $1", other), None, "{other}");
        }
        for other in ["3", "NULL", "CAST('x' AS CHAR(3))", "DATE '2024-01-01'"] {
            assert_eq!(values("s = $1", other), None, "{other}");
        }
        let day = ScalarValue::Date32(Some(19_723));
        assert_eq!(values("d = $1", "'2024-01-01'"), Some(vec![day.clone()]));
        assert_eq!(
            values("d = $1", "CAST('2024-01-01' AS DATE)"),
            Some(vec![day])
        );
        for other in [
            "'today'",
            "' Now '",
            "'2024-02-30'",
            "CAST('2024-01-01' AS TEXT)",
            "NULL",
        ] {
            assert_eq!(values("d = $1", other), None, "{other}");
        }
    }
}
