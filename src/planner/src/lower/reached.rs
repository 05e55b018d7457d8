//! Bounds that are as far from the clock as a row says: `at > now() - span`. The row's moment moves
//! to the other side, where the clock alone is left: to the first moment from which on the bound is
//! not before it (`moment_reached`), for days a date as many days later.
//!
//! Sound, because the clock only goes on, and a bound counts by how far it has come: where months
//! are taken away, the bound of the 29th of March is that of the 28th and may go back by hours,
//! which counts nowhere. Not for bounds in zones in which days differ in length.

use crate::lower::temporal::{goes_on, reads_clock};
use arrow_schema::DataType;
use datafusion_common::{Result, internal_err};
use datafusion_expr::{
    BinaryExpr, ColumnarValue, Expr as Df, Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature, Volatility, lit,
};

/// A function of the evaluator's, by its name; the result has the type of the first argument.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Named {
    name: &'static str,
    signature: Signature,
}

impl ScalarUDFImpl for Named {
    fn name(&self) -> &str {
        self.name
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(types[0].clone())
    }
    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        internal_err!("{} is lowered, not called", self.name)
    }
}

fn call(name: &'static str, args: Vec<Df>) -> Df {
    let function = ScalarUDF::from(Named {
        name,
        signature: Signature::variadic_any(Volatility::Immutable),
    });
    function.call(args)
}

/// How far from the clock a bound is.
enum Distance<'a> {
    /// An interval, added (1) or taken away (-1).
    Span(&'a Df, i64),
    /// Days, likewise.
    Days(&'a Df, i64),
}

/// What is compared with the clock in place of `moment` and `bound`: whether the bound is before
/// the moment, by `>`, and whether it is not behind it, also by `>`. None of other bounds.
pub(super) fn reached(moment: &Df, bound: &Df) -> Option<[Df; 2]> {
    let (clock, distance) = parts(bound)?;
    let after = |moment: Df| {
        Df::BinaryExpr(BinaryExpr {
            left: Box::new(moment),
            op: Operator::Gt,
            right: Box::new(clock.clone()),
        })
    };
    Some(match distance {
        Distance::Span(span, sign) => [0i64, 1].map(|later| {
            let args = vec![moment.clone(), span.clone(), lit(sign), lit(later)];
            after(call("moment_reached", args))
        }),
        Distance::Days(days, sign) => {
            let name = match sign {
                1 => "date_minus_days",
                _ => "date_plus_days",
            };
            let there = call(name, vec![moment.clone(), days.clone()]);
            let next = call("date_plus_days", vec![there.clone(), lit(1i32)]);
            [after(there), after(next)]
        }
    })
}

fn parts(bound: &Df) -> Option<(&Df, Distance<'_>)> {
    let is_row = |e: &Df| !reads_clock(e);
    match bound {
        Df::Alias(alias) => parts(&alias.expr),
        Df::BinaryExpr(b) if goes_on(&b.left) && is_row(&b.right) => match b.op {
            Operator::Minus => Some((&b.left, Distance::Span(&b.right, -1))),
            Operator::Plus => Some((&b.left, Distance::Span(&b.right, 1))),
            _ => None,
        },
        Df::ScalarFunction(f) => match (f.func.name(), f.args.as_slice()) {
            ("date_plus_days", [clock, days]) if goes_on(clock) && is_row(days) => {
                Some((clock, Distance::Days(days, 1)))
            }
            ("date_minus_days", [clock, days]) if goes_on(clock) && is_row(days) => {
                Some((clock, Distance::Days(days, -1)))
            }
            _ => None,
        },
        _ => None,
    }
}
