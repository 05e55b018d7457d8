//! A stream plan as text, dataflow from the bottom up:
//!
//! ```text
//! Fragment 1 -> relation
//!   Materialize key=[auction] table=2
//!     Aggregate group=[auction] calls=[count(*)] table=1
//!       Receive from=0
//! ```

mod ordered;
mod timed;

use crate::types::sql_type_name;
use arrow_schema::Schema;
use ordered::{ordered, sort_key};
use std::fmt::Write;
use tidemark_plan::{
    AggregateCall, AggregateFunction, BinaryOp, Catalog, ColumnWatermark, Expr, Literal, Node, Op,
    Output, Relation, SharedRows,
};

/// One line per fragment and operator.
pub(crate) fn explain(catalog: &Catalog, relation: &Relation) -> Vec<String> {
    let mut lines = Vec::new();
    let Some(job) = &relation.job else {
        return vec![format!(
            "{} \"{}\" is expanded where it is read",
            relation.kind.name(),
            relation.name
        )];
    };
    for fragment in &job.fragments {
        let schema = &fragment.root.schema;
        let to = list(fragment.output.each(), |output| match output {
            Output::Exchange { to, keys } if keys.is_empty() => {
                format!("fragment {to} (one worker)")
            }
            Output::Exchange { to, keys } => {
                format!("fragment {to} by hash({})", names(schema, keys))
            }
            Output::Broadcast { to } => format!("fragment {to}, all workers"),
            Output::Relation => "relation".into(),
            Output::Several(_) => "several".into(),
        });
        lines.push(format!("Fragment {} -> {to}", fragment.id));
        node(catalog, &fragment.root, 1, &mut lines);
    }
    lines
}

fn node(catalog: &Catalog, n: &Node, depth: usize, lines: &mut Vec<String>) {
    let below = n.inputs.first().map_or(&n.schema, |i| &i.schema);
    let mut text = match &n.op {
        Op::SourceRead { watermark, .. } => {
            let watermark = watermark.as_ref().map_or(String::new(), |w| {
                format!(" watermark=column {} - {} us", w.column, w.delay_micros)
            });
            format!("SourceRead [{}]{watermark}", all_names(&n.schema))
        }
        Op::TableRead => format!("TableRead [{}]", all_names(&n.schema)),
        Op::Tap { relation, columns } => match catalog.relations.get(relation) {
            Some(r) => format!(
                "Tap {} [{}]",
                r.name,
                columns
                    .iter()
                    .map(|c| r.columns.get(*c).map_or("?", |c| c.name.as_str()))
                    .collect::<Vec<_>>()
                    .join(", ")
            ),
            None => format!("Tap relation {relation} {columns:?}"),
        },
        Op::Receive { from } => format!("Receive from={from} [{}]", all_names(&n.schema)),
        Op::Values { rows } => format!(
            "Values {}",
            list(rows, |row| format!(
                "({})",
                list(row, |e| expr(e, &n.schema))
            ))
        ),
        Op::Filter { predicate } => format!("Filter {}", expr(predicate, below)),
        Op::Project { exprs } => format!(
            "Project [{}]",
            list(
                &exprs.iter().zip(n.schema.fields()).collect::<Vec<_>>(),
                |(e, f)| named(&expr(e, below), f.name())
            )
        ),
        Op::Union => "Union".into(),
        Op::Expand { rows } => format!(
            "Expand [{}] {}",
            all_names(&n.schema),
            list(rows, |row| format!("({})", list(row, |e| expr(e, below))))
        ),
        Op::Unnest {
            lists, keep_empty, ..
        } => format!(
            "Unnest [{}]{} output=[{}]",
            names(below, lists),
            if *keep_empty { " keep_empty" } else { "" },
            all_names(&n.schema)
        ),
        Op::Recursive {
            name,
            distinct,
            iterations_max,
            table,
        } => format!(
            "Recursive {name} {} iterations_max={iterations_max} table={table}",
            if *distinct { "union" } else { "union_all" }
        ),
        Op::Working => format!("Working [{}]", all_names(&n.schema)),
        Op::Join { .. } => join(catalog, n),
        Op::AsofJoin { .. } | Op::TemporalJoin { .. } => timed::join(n),
        Op::Changelog { key, table } => match key {
            Some(key) => format!("Changelog key=[{}] table={table}", names(below, key)),
            None => format!("Changelog table={table}"),
        },
        Op::Aggregate {
            group,
            calls,
            global,
            table,
            closes,
        } => {
            format!(
                "Aggregate{} group=[{}] calls=[{}] table={table}{}",
                if *global { " global" } else { "" },
                names(below, group),
                list(calls, |c| call(c, below)),
                closing(below, closes)
            )
        }
        Op::PartialAggregate { group, calls } => format!(
            "PartialAggregate group=[{}] calls=[{}]",
            names(below, group),
            list(calls, |c| call(c, below))
        ),
        Op::TopN { .. } | Op::PartialTopN { .. } | Op::Window { .. } => ordered(&n.op, below),
        Op::Session { .. } => ordered(&n.op, below),
        Op::Collect { .. } | Op::EmitOnClose { .. } => ordered(&n.op, below),
        Op::TemporalFilter { .. } => ordered(&n.op, below),
        Op::Upsert {
            key,
            conflict,
            version,
            table,
        } => format!(
            "Upsert key=[{}] conflict={conflict:?} version={} table={table}",
            names(below, key),
            below.field(*version).name()
        ),
        Op::Materialize {
            key,
            append_only,
            table,
        } => {
            let key = key
                .as_ref()
                .map_or(String::new(), |k| format!(" key=[{}]", names(below, k)));
            format!(
                "Materialize{key}{} table={table}",
                if *append_only { " append_only" } else { "" }
            )
        }
        Op::Sink { key, table } => format!("Sink key=[{}] table={table}", names(below, key)),
    };
    let _ = write!(text, "{}", properties(n));
    lines.push(format!("{}{text}", "  ".repeat(depth)));
    n.inputs
        .iter()
        .for_each(|i| node(catalog, i, depth + 1, lines));
}

/// What is known of a leaf's or root's rows.
fn properties(n: &Node) -> String {
    let mut text = String::new();
    if matches!(n.op, Op::Tap { .. } | Op::Receive { .. }) {
        if n.properties.append_only {
            text.push_str(" append_only");
        }
        if let Some(key) = &n.properties.key {
            let _ = write!(text, " unique=[{}]", names(&n.schema, key));
        }
    }
    text
}

fn join(catalog: &Catalog, n: &Node) -> String {
    let Op::Join {
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
    } = &n.op
    else {
        return String::new();
    };
    let (left, right) = (&n.inputs[0].schema, &n.inputs[1].schema);
    let name = |c: usize| {
        if c < left.fields().len() {
            format!("left.{}", left.field(c).name())
        } else {
            format!("right.{}", right.field(c - left.fields().len()).name())
        }
    };
    let on = left_keys
        .iter()
        .zip(right_keys)
        .map(|(l, r)| {
            format!(
                "left.{} = right.{}",
                left.field(*l).name(),
                right.field(*r).name()
            )
        })
        .collect::<Vec<_>>()
        .join(", ");
    let null = if *null_equals_null {
        " null_equals_null"
    } else {
        ""
    };
    let residual = residual
        .as_ref()
        .map_or(String::new(), |r| format!(" residual={}", text(r, &name)));
    format!(
        "Join {kind:?} on=[{on}]{null}{residual} output=[{}] tables={left_table},{right_table}\
         {}{}{}{}",
        list(output, |c| name(*c)),
        side_closing("left", left, left_closes),
        side_closing("right", right, right_closes),
        side_shared(catalog, "left", &shared[0]),
        side_shared(catalog, "right", &shared[1])
    )
}

/// The relation that has the rows of a side of a join, which keeps none.
fn side_shared(catalog: &Catalog, side: &str, shared: &Option<SharedRows>) -> String {
    let relation = shared.as_ref().map(|rows| rows.relation);
    let name = |id| match catalog.relations.get(&id) {
        Some(relation) => relation.name.clone(),
        None => id.to_string(),
    };
    relation.map_or(String::new(), |id| format!(" {side}=rows of {}", name(id)))
}

/// The column by whose watermark an operator forgets.
fn closing(below: &Schema, closes: &Option<ColumnWatermark>) -> String {
    let column = closes.as_ref().map(|c| below.field(c.column).name());
    column.map_or(String::new(), |name| format!(" closes={name}"))
}

fn side_closing(side: &str, below: &Schema, closes: &Option<ColumnWatermark>) -> String {
    let column = closes.as_ref().map(|c| below.field(c.column).name());
    column.map_or(String::new(), |name| format!(" closes={side}.{name}"))
}

fn aggregate_name(function: AggregateFunction) -> &'static str {
    match function {
        AggregateFunction::Count => "count",
        AggregateFunction::Sum => "sum",
        AggregateFunction::Avg => "avg",
        AggregateFunction::Min => "min",
        AggregateFunction::Max => "max",
        AggregateFunction::BoolAnd => "bool_and",
        AggregateFunction::BoolOr => "bool_or",
        AggregateFunction::VarPop => "var_pop",
        AggregateFunction::VarSamp => "var_samp",
        AggregateFunction::StddevPop => "stddev_pop",
        AggregateFunction::StddevSamp => "stddev_samp",
        AggregateFunction::BitAnd => "bit_and",
        AggregateFunction::BitOr => "bit_or",
        AggregateFunction::BitXor => "bit_xor",
        AggregateFunction::Corr => "corr",
        AggregateFunction::CovarPop => "covar_pop",
        AggregateFunction::CovarSamp => "covar_samp",
        AggregateFunction::RegrCount => "regr_count",
        AggregateFunction::RegrSxx => "regr_sxx",
        AggregateFunction::RegrSyy => "regr_syy",
        AggregateFunction::RegrSxy => "regr_sxy",
        AggregateFunction::RegrAvgX => "regr_avgx",
        AggregateFunction::RegrAvgY => "regr_avgy",
        AggregateFunction::RegrR2 => "regr_r2",
        AggregateFunction::RegrSlope => "regr_slope",
        AggregateFunction::RegrIntercept => "regr_intercept",
        AggregateFunction::First => "first_value",
        AggregateFunction::Last => "last_value",
    }
}

/// The names of an aggregate's arguments.
fn arguments(first: Option<usize>, second: Option<usize>, below: &Schema) -> String {
    let named = |column: usize| below.field(column).name().as_str();
    let second = second.map_or(String::new(), |c| format!(", {}", named(c)));
    format!("{}{second}", first.map_or("*", named))
}

fn call(c: &AggregateCall, below: &Schema) -> String {
    let function = aggregate_name(c.function);
    let arg = arguments(c.arg, c.second, below);
    let filter = c.filter.map_or(String::new(), |f| {
        format!(" filter {}", below.field(f).name())
    });
    let order = match c.order.as_slice() {
        [] => String::new(),
        keys => format!(" order by {}", list(keys, |k| sort_key(below, k))),
    };
    format!(
        "{function}({}{arg}{order}){filter} -> {}",
        if c.distinct { "distinct " } else { "" },
        c.output
    )
}

fn list<T>(items: &[T], f: impl Fn(&T) -> String) -> String {
    items.iter().map(f).collect::<Vec<_>>().join(", ")
}

fn names(schema: &Schema, columns: &[usize]) -> String {
    list(columns, |c| schema.field(*c).name().clone())
}

fn all_names(schema: &Schema) -> String {
    schema
        .fields()
        .iter()
        .map(|f| f.name().as_str())
        .collect::<Vec<_>>()
        .join(", ")
}

fn named(text: &str, name: &str) -> String {
    if text == name {
        text.into()
    } else {
        format!("{text} AS {name}")
    }
}

fn expr(e: &Expr, schema: &Schema) -> String {
    text(e, &|c| {
        schema
            .fields()
            .get(c)
            .map_or_else(|| format!("#{c}"), |f| f.name().clone())
    })
}

fn text(e: &Expr, name: &dyn Fn(usize) -> String) -> String {
    let one = |e: &Expr| text(e, name);
    match e {
        Expr::Column(i) => name(*i),
        Expr::Literal(l) => literal(l),
        Expr::Binary { op, left, right } => {
            format!("({} {} {})", one(left), symbol(*op), one(right))
        }
        Expr::Not(e) => format!("NOT {}", one(e)),
        Expr::Negative(e) => format!("-{}", one(e)),
        Expr::IsNull(e) => format!("{} IS NULL", one(e)),
        Expr::IsNotNull(e) => format!("{} IS NOT NULL", one(e)),
        Expr::IsTrue(e) => format!("{} IS TRUE", one(e)),
        Expr::IsFalse(e) => format!("{} IS FALSE", one(e)),
        Expr::Like {
            negated,
            case_insensitive,
            expr,
            pattern,
        } => {
            format!(
                "{}{} {} {}",
                one(expr),
                if *negated { " NOT" } else { "" },
                if *case_insensitive { "ILIKE" } else { "LIKE" },
                one(pattern)
            )
        }
        Expr::InList {
            negated,
            expr,
            list: items,
        } => format!(
            "{}{} IN ({})",
            one(expr),
            if *negated { " NOT" } else { "" },
            list(items, one)
        ),
        Expr::Case {
            operand,
            when_then,
            otherwise,
        } => {
            let operand = operand
                .as_ref()
                .map_or(String::new(), |o| format!(" {}", one(o)));
            let arms = list(when_then, |(w, t)| {
                format!("WHEN {} THEN {}", one(w), one(t))
            })
            .replace(", WHEN", " WHEN");
            format!(
                "CASE{operand} {arms}{} END",
                otherwise
                    .as_ref()
                    .map_or(String::new(), |o| format!(" ELSE {}", one(o)))
            )
        }
        Expr::Cast { expr, to, safe } => format!(
            "{}({} AS {to})",
            if *safe { "TRY_CAST" } else { "CAST" },
            one(expr)
        ),
        Expr::Call { function, args } => match (function.as_str(), args.as_slice()) {
            ("cast_as", [value, Expr::Literal(Literal::Null(to))]) => {
                format!("CAST({} AS {})", one(value), sql_type_name(to))
            }
            ("cast_as", [value, Expr::Literal(Literal::Null(to)), zone]) => {
                let (value, zone) = (one(value), one(zone));
                format!("CAST({value} AS {} IN {zone})", sql_type_name(to))
            }
            _ => format!("{function}({})", list(args, one)),
        },
    }
}

fn literal(l: &Literal) -> String {
    match l {
        Literal::Null(_) => "NULL".into(),
        Literal::Boolean(v) => v.to_string(),
        Literal::Int8(v) => v.to_string(),
        Literal::Int16(v) => v.to_string(),
        Literal::Int32(v) => v.to_string(),
        Literal::Int64(v) => v.to_string(),
        Literal::UInt8(v) => v.to_string(),
        Literal::UInt16(v) => v.to_string(),
        Literal::UInt32(v) => v.to_string(),
        Literal::UInt64(v) => v.to_string(),
        Literal::Float32(v) => format!("{v:?}"),
        Literal::Float64(v) => format!("{v:?}"),
        Literal::Decimal128(v, precision, scale) => {
            format!("{v}e-{scale}::decimal({precision},{scale})")
        }
        Literal::Utf8(v) => format!("'{v}'"),
        Literal::Binary(v) => format!("{} bytes", v.len()),
        Literal::Date32(v) => format!("date {v}"),
        Literal::Time64Micros(v) => format!("time {v} us"),
        Literal::TimestampMicros(v, _) => format!("timestamp {v} us"),
        Literal::IntervalMonthDayNano(months, days, nanos) => {
            format!("interval {months} mon {days} d {nanos} ns")
        }
    }
}

fn symbol(op: BinaryOp) -> &'static str {
    match op {
        BinaryOp::Eq => "=",
        BinaryOp::NotEq => "<>",
        BinaryOp::Lt => "<",
        BinaryOp::LtEq => "<=",
        BinaryOp::Gt => ">",
        BinaryOp::GtEq => ">=",
        BinaryOp::Plus => "+",
        BinaryOp::Minus => "-",
        BinaryOp::Multiply => "*",
        BinaryOp::Divide => "/",
        BinaryOp::Modulo => "%",
        BinaryOp::And => "AND",
        BinaryOp::Or => "OR",
        BinaryOp::IsDistinctFrom => "IS DISTINCT FROM",
        BinaryOp::IsNotDistinctFrom => "IS NOT DISTINCT FROM",
        BinaryOp::RegexMatch => "~",
        BinaryOp::RegexIMatch => "~*",
        BinaryOp::RegexNotMatch => "!~",
        BinaryOp::RegexNotIMatch => "!~*",
        BinaryOp::BitwiseAnd => "&",
        BinaryOp::BitwiseOr => "|",
        BinaryOp::BitwiseXor => "#",
        BinaryOp::ShiftLeft => "<<",
        BinaryOp::ShiftRight => ">>",
        BinaryOp::StringConcat => "||",
    }
}
