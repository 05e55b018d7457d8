//! What Describe tells about INSERT, UPDATE and DELETE: the types of their parameters and the
//! columns of RETURNING. Nothing is locked and nothing runs.

use super::alike::alike;
use super::change::{plan_delete, plan_update};
use super::insert::plan_insert;
use super::*;

/// A plan that has a write's parameters and RETURNING columns; parameter types that are known
/// without a plan; whether there are columns.
pub(crate) type WriteDescription = (Option<LogicalPlan>, Vec<(usize, Type)>, bool);

impl Asker {
    /// For Describe.
    pub(crate) async fn describe_write(
        &self,
        snapshot: Snapshot,
        sql: &ast::Statement,
    ) -> Result<WriteDescription> {
        let (object, verb) = match sql {
            ast::Statement::Insert(insert) => match &insert.table {
                ast::TableObject::TableName(object) => (object, "insert into"),
                _ => return Ok((None, Vec::new(), false)),
            },
            ast::Statement::Update(update) => (table_and_alias(&update.table)?.0, "update"),
            ast::Statement::Delete(delete) => {
                (table_and_alias(delete_target(delete)?)?.0, "delete from")
            }
            _ => return Ok((None, Vec::new(), false)),
        };
        let relation = self.target(object, verb)?;
        let sql = sql.clone();
        self.planned(move |state| describe(state, &snapshot, &sql, &relation))
            .await
    }
}

fn describe(
    state: &SessionState,
    snapshot: &Snapshot,
    sql: &ast::Statement,
    relation: &Relation,
) -> Result<WriteDescription> {
    let mut found = Vec::new();
    let (name, returning) = match sql {
        ast::Statement::Insert(insert) => {
            let columns = insert_columns(insert, relation)?;
            let direct = direct_parameters(insert, relation, &columns);
            if !all_direct(insert) {
                let functions = names_of_functions(&snapshot.catalog);
                for part in alike(insert, &functions) {
                    let insert = &part.insert;
                    let plan = plan_insert(state, snapshot, insert, relation, &columns)?;
                    let new = parameter_types(&plan)?;
                    found.retain(|(n, _)| !new.iter().any(|(d, _)| d == n));
                    found.extend(new);
                }
            }
            found.retain(|(n, _)| !direct.iter().any(|(d, _)| d == n));
            found.extend(direct);
            (relation.name.clone(), &insert.returning)
        }
        ast::Statement::Update(update) => {
            let alias = table_and_alias(&update.table)?.1;
            let name = alias.unwrap_or_else(|| relation.name.clone());
            found = parameter_types(&plan_update(state, snapshot, update, relation, &name)?.0)?;
            for assignment in &update.assignments {
                for (column, value) in pairs(assignment)? {
                    if let Some(n) = parameters::placeholder(&value) {
                        let column = &relation.columns[position_of(relation, &column)?];
                        found.retain(|(m, _)| *m != n);
                        found.push((n, column_type(column)));
                    }
                }
            }
            (name, &update.returning)
        }
        ast::Statement::Delete(delete) => {
            let alias = table_and_alias(delete_target(delete)?)?.1;
            let name = alias.unwrap_or_else(|| relation.name.clone());
            found = parameter_types(&plan_delete(state, snapshot, delete, relation, &name)?)?;
            (name, &delete.returning)
        }
        _ => return Ok((None, found, false)),
    };
    let Some(items) = returning else {
        return Ok((None, found, false));
    };
    let (items, rows) = (items.clone(), Vec::new());
    let (plan, _) = plan_returning(state, snapshot.clone(), relation, rows, items, name)?;
    Ok((Some(plan), found, true))
}

/// The parameters of a plan whose types it tells.
fn parameter_types(plan: &LogicalPlan) -> Result<Vec<(usize, Type)>> {
    let fields = plan.get_parameter_fields().map_err(from_datafusion)?;
    let known = fields.into_iter().filter_map(|(name, field)| {
        let number = name.strip_prefix('$')?.parse().ok()?;
        Some((number, types::pg_type(field?.as_ref())))
    });
    Ok(known.collect())
}
