//! Joins that go by time, as text.

use super::{list, text};
use tidemark_plan::{Nearest, Node, Op};

/// An `AsofJoin` or a `TemporalJoin`.
pub(super) fn join(n: &Node) -> String {
    let (left, right) = (&n.inputs[0].schema, &n.inputs[1].schema);
    let name = |c: usize| match c.checked_sub(left.fields().len()) {
        None => format!("left.{}", left.field(c).name()),
        Some(c) => format!("right.{}", right.field(c).name()),
    };
    let on = |lefts: &[usize], rights: &[usize]| {
        let pairs: Vec<(&usize, &usize)> = lefts.iter().zip(rights).collect();
        list(&pairs, |(l, r)| {
            let (l, r) = (left.field(**l).name(), right.field(**r).name());
            format!("left.{l} = right.{r}")
        })
    };
    let kind = |outer: bool| if outer { "Left" } else { "Inner" };
    match &n.op {
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
        } => {
            let symbol = match comparison {
                Nearest::AtOrBefore => ">=",
                Nearest::Before => ">",
                Nearest::AtOrAfter => "<=",
                Nearest::After => "<",
            };
            format!(
                "AsofJoin {} on=[{}] nearest=[left.{} {symbol} right.{}] output=[{}] \
                 tables={left_table},{right_table}",
                kind(*outer),
                on(left_keys, right_keys),
                left.field(*left_time).name(),
                right.field(*right_time).name(),
                list(output, |c| name(*c))
            )
        }
        Op::TemporalJoin {
            outer,
            left_keys,
            right_keys,
            residual,
            output,
            table,
        } => {
            let residual = residual.as_ref();
            let residual = residual.map(|r| format!(" residual={}", text(r, &name)));
            format!(
                "TemporalJoin {} on=[{}]{} output=[{}] table={table}",
                kind(*outer),
                on(left_keys, right_keys),
                residual.unwrap_or_default(),
                list(output, |c| name(*c))
            )
        }
        _ => String::new(),
    }
}
