//! The columns that an operator reads, where they are expressions: a projection below it.

use crate::lower::to_expr;
use arrow_schema::{DataType, Field, Schema};
use datafusion_common::DFSchema;
use datafusion_expr::{Expr as Df, ExprSchemable};
use std::sync::Arc;
use tidemark_common::{Error, Result};
use tidemark_plan::{BinaryOp, Expr, Literal};

use super::Stream;

/// The columns of a projection, each expression once.
pub(super) struct Columns<'a> {
    /// What they are computed of.
    pub input: &'a DFSchema,
    pub exprs: Vec<Expr>,
    pub fields: Vec<Field>,
}

impl<'a> Columns<'a> {
    /// Without columns.
    pub fn new(input: &'a DFSchema) -> Columns<'a> {
        Columns {
            input,
            exprs: Vec::new(),
            fields: Vec::new(),
        }
    }

    /// All columns of a stream, those first; `input` is what it was lowered from.
    pub fn all(input: &'a DFSchema, stream: &Stream) -> Columns<'a> {
        let fields = stream.node.schema.fields();
        Columns {
            input,
            exprs: (0..fields.len()).map(Expr::Column).collect(),
            fields: fields.iter().map(|f| f.as_ref().clone()).collect(),
        }
    }

    /// Where an expression is among them.
    pub fn add(&mut self, expr: &Df) -> Result<usize> {
        let (lowered, field) = self.lowered(expr)?;
        Ok(self.add_lowered(lowered, field))
    }

    /// The same of an expression that rows are brought together by.
    pub fn add_key(&mut self, expr: &Df) -> Result<usize> {
        let (lowered, field) = self.lowered(expr)?;
        let lowered = one_zero(lowered, field.data_type());
        Ok(self.add_lowered(lowered, field))
    }

    fn lowered(&self, expr: &Df) -> Result<(Expr, Field)> {
        let lowered = to_expr(expr, self.input)?;
        let (_, field) = expr
            .to_field(self.input)
            .map_err(|e| Error::internal(e.to_string()))?;
        let name = if let Df::Column(column) = expr {
            column.name.clone()
        } else {
            expr.schema_name().to_string()
        };
        let field = Field::new(name, field.data_type().clone(), field.is_nullable());
        Ok((lowered, field))
    }

    /// The same of one that is lowered already; the field that it has if it is new.
    pub fn add_lowered(&mut self, expr: Expr, field: Field) -> usize {
        if let Some(at) = self.exprs.iter().position(|e| *e == expr) {
            return at;
        }
        self.fields.push(field);
        self.exprs.push(expr);
        self.exprs.len() - 1
    }

    /// The projection.
    pub fn project(self, stream: Stream) -> Stream {
        stream.project(self.exprs, Arc::new(Schema::new(self.fields)))
    }
}

/// A key of floats, in which 0 and -0 are one: what keeps keys keeps one of them for both, and the
/// rows go on to have their own.
pub(super) fn one_zero(key: Expr, data_type: &DataType) -> Expr {
    let zero = match data_type {
        DataType::Float32 => Literal::Float32(0.0),
        DataType::Float64 => Literal::Float64(0.0),
        _ => return key,
    };
    if matches!(key, Expr::Literal(_)) {
        return key;
    }
    Expr::Binary {
        op: BinaryOp::Plus,
        left: Box::new(key),
        right: Box::new(Expr::Literal(zero)),
    }
}
