//! The value that rows have in a column which is added to their table: that of its default,
//! computed once.

use super::*;
use crate::asker::Asker;

/// What rows have in a column that are older than it.
pub struct Missing {
    /// The value, as `tidemark_state::added` writes it.
    pub text: String,
    /// Whether it is NULL.
    pub is_null: bool,
}

impl Asker {
    /// What the rows of a table have in a column that is added to it; NULL without a default.
    ///
    /// Errors: `0A000` for a default that is another one for each row, those of computing it.
    pub async fn missing_value(&mut self, column: &tidemark_plan::Column) -> Result<Missing> {
        let value = self.default_value(column).await?;
        Ok(Missing {
            text: tidemark_state::added::encode(&value)?,
            is_null: value.is_null(0),
        })
    }

    async fn default_value(&mut self, column: &tidemark_plan::Column) -> Result<ArrayRef> {
        if let Some(constant) = constant_default(column)? {
            return values::conform(repeat(constant, column, 1)?, column);
        }
        let text = column.default.clone().unwrap_or_default();
        let snapshot = self.snapshot(&parse_expression(&text)?).await?;
        self.state.mark_start_execution();
        let wanted = column.clone();
        let planned = self.planned(move |state| {
            let one = LogicalPlanBuilder::empty(true).build();
            let one = one.map_err(from_datafusion)?;
            let value = default_expression(state, &snapshot, &wanted)?;
            if value.is_volatile() {
                return Err(Error::unsupported(format!(
                    "the default of column \"{}\" is another one for each row, and the rows that \
                     are there have one value",
                    wanted.name
                ))
                .with_hint(
                    "Add the column without a default, and give the rows their values by UPDATE.",
                ));
            }
            let value = assign(value, &one, &wanted)?.alias("value");
            let plan = LogicalPlanBuilder::from(one).project([value]);
            runnable(
                state,
                plan.and_then(|b| b.build()).map_err(from_datafusion)?,
            )
        });
        let plan = planned.await?;
        let rows = self.collect(plan).await?;
        let mut values = rows.iter().filter(|rows| rows.num_rows() == 1);
        let value = values.next().map(|rows| rows.column(0).clone());
        let value = value.ok_or_else(|| Error::internal("a default has one value"))?;
        let value = match value.data_type() {
            DataType::Utf8View => {
                arrow::compute::cast(&value, &column.data_type).map_err(crate::error::from_arrow)?
            }
            _ => value,
        };
        values::conform(value, column)
    }
}
