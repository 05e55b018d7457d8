//! `EXCLUDE CURRENT ROW`, `GROUP` and `TIES` of windows' frames, which neither sqlparser nor
//! DataFusion knows. The parser writes each as a mark, a function that is never called, before what
//! the window is partitioned by; so it goes with the window wherever that goes, into windows that
//! are named too, until the call is lowered, or planned to be read.

use datafusion_common::{Result, internal_err};
use datafusion_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion_sql::sqlparser::ast;
use std::sync::Arc;
use tidemark_plan::Excluded;

/// What is excluded, by the names of the marks.
const MARKS: [(&str, Excluded); 3] = [
    ("exclude current row", Excluded::CurrentRow),
    ("exclude group", Excluded::Group),
    ("exclude ties", Excluded::Ties),
];

/// A mark as a function without arguments, which is never called.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Mark {
    name: &'static str,
    signature: Signature,
}

impl ScalarUDFImpl for Mark {
    fn name(&self) -> &str {
        self.name
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, _: &[arrow_schema::DataType]) -> Result<arrow_schema::DataType> {
        Ok(arrow_schema::DataType::Boolean)
    }
    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        internal_err!("EXCLUDE is part of a window's frame")
    }
}

/// The function that stands for a mark, by its name.
pub(crate) fn mark(name: &str) -> Option<Arc<ScalarUDF>> {
    let (name, _) = MARKS.into_iter().find(|(mark, _)| *mark == name)?;
    Some(Arc::new(ScalarUDF::from(Mark {
        name,
        signature: Signature::nullary(Volatility::Volatile),
    })))
}

fn by_name(name: &str) -> Option<Excluded> {
    let found = MARKS.into_iter().find(|(mark, _)| *mark == name);
    found.map(|(_, excluded)| excluded)
}

/// What a mark excludes; none of another expression.
pub(crate) fn marked(expr: &Expr) -> Option<Excluded> {
    match expr {
        Expr::ScalarFunction(call) => by_name(call.func.name()),
        _ => None,
    }
}

/// What a window is partitioned by, and what its frame excludes.
pub fn excluded(partition_by: &[Expr]) -> (Vec<Expr>, Excluded) {
    let excluded = partition_by.iter().find_map(marked).unwrap_or_default();
    let rest = partition_by.iter().filter(|e| marked(e).is_none());
    (rest.cloned().collect(), excluded)
}

/// Takes the mark out of what a window is partitioned by, before it is bound.
pub(crate) fn taken(partition_by: &mut Vec<ast::Expr>) -> Option<ast::Expr> {
    let is_mark = |expr: &ast::Expr| match expr {
        ast::Expr::Function(call) => match call.name.0.as_slice() {
            [ast::ObjectNamePart::Identifier(name)] => by_name(&name.value).is_some(),
            _ => false,
        },
        _ => false,
    };
    let at = partition_by.iter().position(is_mark)?;
    Some(partition_by.remove(at))
}
