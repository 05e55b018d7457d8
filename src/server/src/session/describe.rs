//! What Describe tells about a statement.

use super::Session;
use arrow::datatypes::SchemaRef;
use pgwire::api::Type;
use tidemark_common::Result;
use tidemark_planner::statement::{Statement, StatementKind};
use tidemark_query::outcome::Outcome;
use tidemark_query::parameters;
use tidemark_query::serving::position;
use tidemark_query::statement::{Description, sql_of};

impl Session {
    /// What Describe tells: the types of parameters and the columns of the result, without running
    /// anything.
    pub async fn describe(
        &mut self,
        statement: &Statement,
        types: &[Option<Type>],
    ) -> Result<Description> {
        let columns = |schema: SchemaRef| Some(schema);
        match &statement.kind {
            StatementKind::Sql(sql) => self
                .asker
                .describe_sql(sql, types)
                .await
                .map_err(|e| position::locate(e, statement)),
            StatementKind::Explain { .. } => {
                let parameters = sql_of(statement)
                    .map_or(Vec::new(), |s| vec![Type::TEXT; parameters::count(s)]);
                Ok(Description {
                    parameters,
                    columns: columns(tidemark_query::outcome::text_schema(&["QUERY PLAN"])),
                })
            }
            StatementKind::Show { what, schema, like } => {
                match self.show(what, schema.as_deref(), like.as_deref())? {
                    Outcome::Rows(rows) => Ok(Description {
                        parameters: Vec::new(),
                        columns: columns(rows.schema),
                    }),
                    _ => Ok(Description {
                        parameters: Vec::new(),
                        columns: None,
                    }),
                }
            }
            StatementKind::Describe(name) => match self.describe_relation(name)? {
                Outcome::Rows(rows) => Ok(Description {
                    parameters: Vec::new(),
                    columns: columns(rows.schema),
                }),
                _ => Ok(Description {
                    parameters: Vec::new(),
                    columns: None,
                }),
            },
            StatementKind::ExplainJob { .. } => Ok(Description {
                parameters: Vec::new(),
                columns: columns(tidemark_query::outcome::text_schema(&["QUERY PLAN"])),
            }),
            StatementKind::Subscribe(subscribe) => Ok(Description {
                parameters: Vec::new(),
                columns: columns(self.schema_of_changes(subscribe)?),
            }),
            StatementKind::Fetch {
                cursor,
                moves: false,
                ..
            } => Ok(Description {
                parameters: Vec::new(),
                columns: self.cursor_schema(cursor),
            }),
            _ => Ok(Description {
                parameters: Vec::new(),
                columns: None,
            }),
        }
    }
}
