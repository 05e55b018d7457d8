//! Inner and outer, with and without residual and keys, against what is there at each barrier.

use super::*;
use crate::two_sided::{Epoch, History, Row, Sum, schema, text};
use tidemark_plan::{BinaryOp, Expr};

#[derive(Clone, Copy, Debug)]
struct Case {
    outer: bool,
    keyed: bool,
    residual: bool,
    /// Of the right side only the key is read.
    few: bool,
}

impl Case {
    fn of(n: u64) -> Case {
        Case {
            outer: n % 2 == 0,
            keyed: n / 2 % 3 != 0,
            residual: n / 6 % 2 == 0,
            few: n / 12 % 3 == 0,
        }
    }

    fn columns(&self) -> &'static [usize] {
        if self.few {
            &[2, 3, 1]
        } else {
            &[0, 1, 2, 3, 4, 5]
        }
    }

    fn operator(&self) -> TemporalJoin {
        let keys = if self.keyed { vec![0] } else { Vec::new() };
        // left.t >= right.t
        let residual = Expr::Binary {
            op: BinaryOp::GtEq,
            left: Box::new(Expr::Column(1)),
            right: Box::new(Expr::Column(4)),
        };
        let residual = self
            .residual
            .then(|| Residual::new(&residual, &schema(3), &schema(3)));
        TemporalJoin::new(TemporalConfig {
            outer: self.outer,
            left: schema(3),
            right: schema(3),
            left_keys: keys.clone(),
            right_keys: keys,
            residual: residual.map(|r| r.expect("it compiles")),
            columns: self.columns().to_vec(),
            output: schema(self.columns().len()),
            right_append_only: false,
            table: 5,
        })
    }

    fn pairs(&self, left: &Row, right: &Row) -> bool {
        let key = !self.keyed || left[0].is_some() && left[0] == right[0];
        key && (!self.residual || left[1].zip(right[1]).is_some_and(|(l, r)| l >= r))
    }

    fn expected(&self, epoch: &Epoch) -> Sum {
        let mut sum = epoch.before.clone();
        for (left, copies) in epoch.changed {
            let mut add = |right: Row, weight: i64| {
                let all = [left[0], left[1], left[2], right[0], right[1], right[2]];
                let row = text(self.columns().iter().map(|c| all[*c]));
                *sum.entry(row).or_default() += copies * weight;
            };
            let found = epoch
                .rights
                .iter()
                .filter(|(right, _)| self.pairs(left, right));
            let mut alone = true;
            for (right, weight) in found {
                alone = false;
                add(*right, *weight);
            }
            if alone && self.outer {
                add([None; 3], 1);
            }
        }
        sum
    }
}

#[test]
fn each_row_has_what_is_there_when_it_comes() {
    for seed in 0..2_400 {
        let case = Case::of(seed);
        let history = History {
            seed,
            append_only: true,
            keyed: case.keyed,
            operator: &|| Box::new(case.operator()),
            expected: &|epoch| case.expected(epoch),
        };
        history.check();
    }
}
