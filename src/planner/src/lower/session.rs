//! Session windows (see [`crate::sessions`]): one operator for beginning and end.

use crate::lower::columns::Columns;
use crate::lower::top_n::{constant, partition_of};
use crate::lower::window::window_function;
use crate::lower::{Builder, Stream, schema_of};
use crate::sessions::{END, START};
use arrow_schema::{Field, Schema};
use datafusion_expr::Expr as Df;
use datafusion_expr::logical_plan::Window;
use std::sync::Arc;
use tidemark_common::{Error, Result};
use tidemark_plan::{Expr, Op, Properties};

/// Which of the two a call is: 0 for the beginning.
fn bound(expr: &Df) -> Option<usize> {
    let function = window_function(expr).ok()?;
    [START, END]
        .iter()
        .position(|name| *name == function.fun.name())
}

impl Builder {
    /// Whether calls over a window are those of sessions.
    pub(super) fn is_session(window: &Window) -> bool {
        window.window_expr.iter().all(|e| bound(e).is_some())
    }

    pub(super) fn session(&mut self, window: &Window) -> Result<Stream> {
        let input = self.lower(&window.input)?;
        let output = schema_of(&window.schema);
        let logical = window.input.schema().fields().len();
        let mut columns = Columns::all(window.input.schema(), &input);
        let Some(first) = window.window_expr.first() else {
            return Err(Error::internal("a window without functions"));
        };
        let params = &window_function(first)?.params;
        let partition = partition_of(&params.partition_by, &mut columns)?;
        let [time, gap] = params.args.as_slice() else {
            return Err(Error::internal("a session is of a time and a gap"));
        };
        let is_alike = |expr: &Df| {
            let of = window_function(expr).map(|function| &function.params);
            of.is_ok_and(|of| {
                let by_time = matches!(of.order_by.as_slice(), [by] if by.asc && by.expr == *time);
                by_time && of.args == params.args && of.partition_by == params.partition_by
            })
        };
        if !window.window_expr.iter().all(is_alike) {
            return Err(Error::unsupported(
                "the functions of sessions are called by SESSION only",
            ));
        }
        let time = columns.add(time)?;
        let gap = constant(gap).ok_or_else(|| Error::internal("the gap of a session varies"))?;
        let input = columns.project(input);
        let input = self.exchange(input, &partition);
        let width = input.width();
        let moment = input.node.schema.field(time).data_type().clone();
        let own = ["window_start", "window_end"].map(|n| Field::new(n, moment.clone(), true));
        let fields = input.node.schema.fields().iter();
        let fields = fields.map(|f| f.as_ref().clone()).chain(own);
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let properties = Properties {
            append_only: false,
            key: input.node.properties.key.clone(),
        };
        let op = Op::Session {
            partition,
            time,
            gap,
            table: self.tables(1),
            closes: None,
        };
        let stream = input.wrap(op, schema, properties);
        let results = window.window_expr.iter().map(bound);
        let results = results.map(|which| width + which.unwrap_or(0));
        let picks = (0..logical).chain(results).map(Expr::Column).collect();
        Ok(stream.project(picks, output))
    }
}
