//! Operators over rows in order, as text.

use super::{aggregate_name, arguments, closing, expr, list, names};
use arrow_schema::{DataType, Field, Schema};
use tidemark_plan::{
    CollectCall, CollectFunction, Excluded, Frame, FrameBound, FrameUnits, Kept, Op, Ranking,
    SortKey, WindowCall, WindowFunction,
};

/// One of them over these columns.
pub(super) fn ordered(op: &Op, below: &Schema) -> String {
    match op {
        Op::TopN {
            partition,
            order,
            ranking,
            skip,
            take,
            numbered,
            table,
            closes,
        } => {
            let number =
                |name: &str, n: Option<u64>| n.map_or(String::new(), |n| format!(" {name}={n}"));
            format!(
                "TopN {}{}{} by={}{} table={table}{}",
                order_of(below, partition, order),
                number("skip", Some(*skip).filter(|n| *n > 0)),
                number("take", *take),
                ranking_name(*ranking),
                if *numbered { " numbered" } else { "" },
                closing(below, closes),
            )
        }
        Op::PartialTopN {
            partition,
            order,
            take,
        } => format!(
            "PartialTopN {} take={take}",
            order_of(below, partition, order)
        ),
        Op::Window {
            partition,
            order,
            calls,
            table,
            closes,
        } => format!(
            "Window {} calls=[{}] table={table}{}",
            order_of(below, partition, order),
            list(calls, |c| call(c, below)),
            closing(below, closes)
        ),
        Op::Session {
            partition,
            time,
            gap,
            table,
            closes,
        } => format!(
            "Session partition=[{}] time={} gap={gap} us table={table}{}",
            names(below, partition),
            below.field(*time).name(),
            closing(below, closes)
        ),
        Op::Collect {
            group,
            calls,
            table,
            closes,
        } => format!(
            "Collect group=[{}] calls=[{}] table={table}{}",
            names(below, group),
            list(calls, |c| collect_call(c, below)),
            closing(below, closes)
        ),
        Op::TemporalFilter {
            keys,
            moment,
            kept,
            inclusive,
            bound,
            table,
            ..
        } => {
            let clock = Schema::new(vec![Field::new("now()", DataType::Null, false)]);
            let compared = match (kept, inclusive) {
                (Kept::After, false) => ">",
                (Kept::After, true) => ">=",
                (Kept::Before, false) => "<",
                (Kept::Before, true) => "<=",
            };
            format!(
                "TemporalFilter {} {compared} {} by=[{}] table={table}",
                below.field(*moment).name(),
                expr(bound, &clock),
                names(below, keys)
            )
        }
        Op::EmitOnClose {
            keys,
            table,
            closes,
        } => format!(
            "EmitOnClose by=[{}] table={table}{}",
            names(below, keys),
            closing(below, closes)
        ),
        _ => String::new(),
    }
}

fn collect_call(call: &CollectCall, below: &Schema) -> String {
    let part = |bits: &u64| f64::from_bits(*bits).to_string();
    let parts = |parts: &[Option<u64>]| {
        let shown = |p: &Option<u64>| p.as_ref().map_or("null".to_string(), part);
        format!("[{}]", list(parts, shown))
    };
    let name = match &call.function {
        CollectFunction::Array => "array_agg".into(),
        CollectFunction::First => "first_value".into(),
        CollectFunction::Last => "last_value".into(),
        CollectFunction::Mode => "mode".into(),
        CollectFunction::PercentileDisc(bits) => format!("percentile_disc {}", part(bits)),
        CollectFunction::PercentileCont(bits) => format!("percentile_cont {}", part(bits)),
        CollectFunction::PercentilesDisc(all) => format!("percentile_disc {}", parts(all)),
        CollectFunction::PercentilesCont(all) => format!("percentile_cont {}", parts(all)),
        CollectFunction::Aggregate(function) => aggregate_name(*function).into(),
    };
    let named = |column: usize| below.field(column).name().as_str();
    let distinct = if call.distinct { "distinct " } else { "" };
    let order = match call.order.as_slice() {
        [] => String::new(),
        keys => format!(" order by {}", list(keys, |k| sort_key(below, k))),
    };
    let filter = call
        .filter
        .map_or(String::new(), |f| format!(" filter {}", named(f)));
    format!(
        "{name}({distinct}{}{order}){filter}",
        arguments(call.arg, call.second, below)
    )
}

/// A partition and its order, NULLs where PostgreSQL does not have them by itself.
fn order_of(below: &Schema, partition: &[usize], order: &[SortKey]) -> String {
    format!(
        "partition=[{}] order=[{}]",
        names(below, partition),
        list(order, |k| sort_key(below, k))
    )
}

pub(super) fn sort_key(below: &Schema, key: &SortKey) -> String {
    let name = below.field(key.column).name();
    let descending = if key.descending { " DESC" } else { "" };
    let nulls = match (key.nulls_first, key.descending) {
        (true, false) => " NULLS FIRST",
        (false, true) => " NULLS LAST",
        _ => "",
    };
    format!("{name}{descending}{nulls}")
}

fn ranking_name(ranking: Ranking) -> &'static str {
    match ranking {
        Ranking::RowNumber => "row_number",
        Ranking::Rank => "rank",
        Ranking::DenseRank => "dense_rank",
    }
}

fn call(call: &WindowCall, below: &Schema) -> String {
    let args = names(below, &call.args);
    let framed = |name: &str, args: &str| format!("{name}({args}) {}", frame(call.frame, below));
    let filter = || {
        call.filter.map_or(String::new(), |f| {
            format!(" filter {}", below.field(f).name())
        })
    };
    match &call.function {
        WindowFunction::Ranking(ranking) => format!("{}()", ranking_name(*ranking)),
        WindowFunction::PercentRank => "percent_rank()".into(),
        WindowFunction::CumeDist => "cume_dist()".into(),
        WindowFunction::Ntile(parts) => format!("ntile({parts})"),
        WindowFunction::Shifted(by) if *by < 0 => format!("lag({args}, {})", by.unsigned_abs()),
        WindowFunction::Shifted(by) => format!("lead({args}, {by})"),
        WindowFunction::FirstValue => framed("first_value", &args),
        WindowFunction::LastValue => framed("last_value", &args),
        WindowFunction::NthValue(n) => framed("nth_value", &format!("{args}, {n}")),
        WindowFunction::NtileBy => format!("ntile({args})"),
        WindowFunction::LagBy => format!("lag({args})"),
        WindowFunction::LeadBy => format!("lead({args})"),
        WindowFunction::NthValueBy => framed("nth_value", &args),
        WindowFunction::Array => framed("array_agg", &args) + &filter(),
        WindowFunction::Aggregate(function) => {
            let args = if call.args.is_empty() { "*" } else { &args };
            framed(aggregate_name(*function), args) + &filter()
        }
    }
}

fn frame(frame: Frame, below: &Schema) -> String {
    let units = match frame.units {
        FrameUnits::Rows => "rows",
        FrameUnits::Groups => "groups",
        FrameUnits::Range => "range",
    };
    let bound = |bound: FrameBound| match bound {
        FrameBound::Unbounded => String::new(),
        FrameBound::Offset(by) => by.to_string(),
        FrameBound::Value(column) => below.field(column).name().clone(),
    };
    let excluded = match frame.excluded {
        Excluded::Nothing => "",
        Excluded::CurrentRow => " exclude current row",
        Excluded::Group => " exclude group",
        Excluded::Ties => " exclude ties",
    };
    let (start, end) = (bound(frame.start), bound(frame.end));
    format!("{units} {start}..{end}{excluded}")
}
