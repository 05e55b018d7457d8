//! Expressions that are evaluated for some of the rows of a batch, over the columns that they read:
//! of a wide row, no others are copied.

use datafusion_common::Result;
use datafusion_common::tree_node::{Transformed, TreeNode};
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::expressions::Column;
use datafusion_physical_expr::utils::collect_columns;
use std::sync::Arc;

/// Expressions over a choice of columns.
#[derive(Clone, Debug)]
pub(super) struct Selected {
    /// Over `read`.
    pub exprs: Vec<Arc<dyn PhysicalExpr>>,
    /// The columns that these read, ascending.
    pub read: Vec<usize>,
}

impl Selected {
    /// Of expressions over whole rows.
    pub fn new<'a>(exprs: impl Iterator<Item = &'a Arc<dyn PhysicalExpr>>) -> Result<Selected> {
        let exprs: Vec<_> = exprs.cloned().collect();
        let columns = exprs.iter().flat_map(collect_columns);
        let mut read: Vec<usize> = columns.map(|c| c.index()).collect();
        read.sort_unstable();
        read.dedup();
        let moved = |expr: Arc<dyn PhysicalExpr>| {
            let moved = expr.transform_up(|e| {
                let at = |c: &Column| read.binary_search(&c.index()).ok();
                Ok(match e.downcast_ref::<Column>() {
                    Some(c) => match at(c) {
                        Some(i) => Transformed::yes(Arc::new(Column::new(c.name(), i))),
                        None => Transformed::no(e),
                    },
                    None => Transformed::no(e),
                })
            });
            moved.map(|t| t.data)
        };
        let exprs = exprs.into_iter().map(moved).collect::<Result<_>>()?;
        Ok(Selected { exprs, read })
    }
}
