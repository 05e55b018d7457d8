//! CREATE INDEX. An index is an entry of the catalog; what it finds rows by is made of the
//! relation's rows when it is created, and again after a restart. It changes no answer, but what is
//! unique in a table is held by every write. What an index here does not do is refused: all of it
//! in one error.

use super::{done, exists};
use crate::session::Session;
use tidemark_common::{Error, Result, SqlState};
use tidemark_node::engine::Share;
use tidemark_plan::{Altered, Column, Conflict, OnError, Relation, RelationKind};
use tidemark_planner::sqlparser::ast::{self, Expr};
use tidemark_planner::statement::Statement;
use tidemark_query::error::Notice;
use tidemark_query::identifiers::quote_ident;
use tidemark_query::outcome::Outcome;
use tidemark_query::serving::table_provider::kept_key;

/// `0A000` for what an index here does not do.
fn check(index: &ast::CreateIndex) -> Result<()> {
    let mut refused: Vec<String> = Vec::new();
    if index.nulls_distinct == Some(false) {
        refused.push("NULLS NOT DISTINCT".into());
    }
    let method = index
        .using
        .iter()
        .chain(index.index_options.iter().filter_map(|o| match o {
            ast::IndexOption::Using(method) => Some(method),
            _ => None,
        }));
    for method in method {
        if !matches!(method, ast::IndexType::BTree | ast::IndexType::Hash) {
            refused.push(format!(
                "index method {}",
                method.to_string().to_lowercase()
            ));
        }
    }
    for column in &index.columns {
        if let Some(class) = &column.operator_class {
            refused.push(format!("operator class {class}"));
        }
        if !matches!(column.column.expr, Expr::Identifier(_)) {
            refused.push(format!("an index on the expression {}", column.column.expr));
        }
    }
    if index.predicate.is_some() {
        refused.push("a partial index (WHERE)".into());
    }
    if !index.with.is_empty() {
        refused.push("WITH in CREATE INDEX".into());
    }
    let Some((first, others)) = refused.split_first() else {
        return Ok(());
    };
    let mut error = Error::unsupported(format!("{first} is not supported"));
    if !others.is_empty() {
        error = error.with_detail(format!("Not supported are also: {}.", others.join(", ")));
    }
    Err(error.with_hint("CREATE [UNIQUE] INDEX name ON table (column, ...) is supported."))
}

/// Whether it is `USING hash`, which PostgreSQL has for one column, not unique.
fn is_hash(index: &ast::CreateIndex) -> Result<bool> {
    let options = index.index_options.iter().filter_map(|o| match o {
        ast::IndexOption::Using(method) => Some(method),
        _ => None,
    });
    let mut methods = index.using.iter().chain(options);
    if !methods.any(|m| matches!(m, ast::IndexType::Hash)) {
        return Ok(false);
    }
    let lacks = match (index.unique, index.columns.len(), index.include.is_empty()) {
        (true, ..) => "unique indexes",
        (false, 2.., _) => "multicolumn indexes",
        (false, _, false) => "included columns",
        (false, _, true) => return Ok(true),
    };
    let message = format!("access method \"hash\" does not support {lacks}");
    Err(Error::unsupported(message))
}

/// Whether rows are only ever written by statements here, so that a unique index can be held.
fn is_enforced(on: &Relation) -> bool {
    on.kind == RelationKind::Table && on.connector.is_none()
}

/// `0A000` if no two rows can be known to differ in these columns.
fn check_provable(on: &Relation, columns: &[usize]) -> Result<()> {
    let key = kept_key(on).filter(|key| !key.is_empty());
    if is_enforced(on) || key.is_some_and(|key| key.iter().all(|k| columns.contains(k))) {
        return Ok(());
    }
    Err(Error::unsupported(format!(
        "a unique index on {} \"{}\" is not supported",
        on.kind.name(),
        on.name
    ))
    .with_detail("Its rows are not known to be unique in these columns.")
    .with_hint("CREATE INDEX without UNIQUE finds the same rows."))
}

/// ` DESC NULLS LAST`.
fn order(column: &ast::IndexColumn) -> String {
    let options = &column.column.options;
    let mut text = String::new();
    if options.asc == Some(false) {
        text.push_str(" DESC");
    }
    match options.nulls_first {
        // PostgreSQL leaves out what is the default.
        Some(true) if options.asc != Some(false) => text.push_str(" NULLS FIRST"),
        Some(false) if options.asc == Some(false) => text.push_str(" NULLS LAST"),
        _ => {}
    }
    text
}

/// What an index says of how often its relation was altered when it was made.
fn seen(on: &Relation) -> Altered {
    let times = (on.altered.times > 0).then_some((on.id, on.altered.times));
    Altered {
        seen: times.into_iter().collect(),
        ..Altered::default()
    }
}

fn find<'a>(on: &'a Relation, ident: &ast::Ident) -> Result<&'a Column> {
    let name = if ident.quote_style.is_some() {
        ident.value.clone()
    } else {
        ident.value.to_lowercase()
    };
    let found = on.visible().map(|(_, c)| c).find(|c| c.name == name);
    found.ok_or_else(|| {
        Error::user(
            SqlState::UNDEFINED_COLUMN,
            format!("column \"{name}\" does not exist"),
        )
    })
}

impl Session {
    pub(super) async fn create_index(
        &mut self,
        index: &ast::CreateIndex,
        statement: &Statement,
    ) -> Result<Outcome> {
        let catalog = self.catalog();
        let on = self.resolve(
            &catalog,
            &tidemark_query::identifiers::name_of(&index.table_name)?,
        )?;
        self.require_ownership(&on)?;
        if !matches!(
            on.kind,
            RelationKind::Table | RelationKind::MaterializedView
        ) {
            return Err(Error::user(
                SqlState::WRONG_OBJECT_TYPE,
                format!(
                    "cannot create an index on {} \"{}\"",
                    on.kind.name(),
                    on.name
                ),
            ));
        }
        check(index)?;
        let method = if is_hash(index)? { "hash" } else { "btree" };
        let (mut columns, mut list) = (Vec::new(), Vec::new());
        for column in &index.columns {
            if let Expr::Identifier(ident) = &column.column.expr {
                let found = find(&on, ident)?;
                list.push(quote_ident(&found.name) + &order(column));
                columns.push(found.clone());
            }
        }
        let included = index.include.iter().map(|i| find(&on, i));
        let included = included
            .map(|c| c.map(|c| quote_ident(&c.name)))
            .collect::<Result<Vec<String>>>()?;
        let name = match &index.name {
            Some(name) => tidemark_query::identifiers::name_of(name)?.name,
            None => {
                let names: Vec<&str> = columns.iter().map(|c| c.name.as_str()).collect();
                format!("{}_{}_idx", on.name, names.join("_"))
            }
        };
        if catalog.find(&on.schema_name, &name).is_some() {
            if index.if_not_exists {
                self.notice(Notice::with_state(
                    SqlState::DUPLICATE_TABLE,
                    format!("relation \"{name}\" already exists, skipping"),
                ));
                return done("CREATE INDEX");
            }
            return Err(exists(RelationKind::Index, &name));
        }
        let place = |c: &Column| on.columns.iter().position(|o| o.name == c.name);
        let places: Vec<usize> = columns.iter().filter_map(place).collect();
        if index.unique {
            check_provable(&on, &places)?;
        }
        let mut definition = format!(
            "CREATE {}INDEX {} ON {}.{} USING {method} ({})",
            if index.unique { "UNIQUE " } else { "" },
            quote_ident(&name),
            on.schema_name,
            quote_ident(&on.name),
            list.join(", ")
        );
        if !included.is_empty() {
            definition.push_str(&format!(" INCLUDE ({})", included.join(", ")));
        }
        let relation = Relation {
            id: self.server.engine.allocate_id(),
            schema_name: on.schema_name.clone(),
            name,
            kind: RelationKind::Index,
            key: (0..columns.len()).collect(),
            columns,
            key_declared: index.unique,
            append_only: false,
            watermark: None,
            connector: None,
            conflict: Conflict::Overwrite,
            on_error: OnError::Log,
            snapshot: true,
            definition,
            query: statement.text.clone(),
            named: Vec::new(),
            depends_on: vec![on.id],
            owner: self.user().into(),
            comment: None,
            job: None,
            logs_rows: None,
            generated: Vec::new(),
            created_at: None,
            altered: seen(&on),
            unreadable: None,
        };
        self.create_checked(relation, &on, places).await?;
        done("CREATE INDEX")
    }

    /// Creates an index, with nobody writing the table between the look at what it holds and the
    /// first check by the index, and has it built.
    async fn create_checked(
        &mut self,
        index: Relation,
        on: &Relation,
        places: Vec<usize>,
    ) -> Result<()> {
        let engine = self.server.engine.clone();
        let mut held = None;
        if index.key_declared && is_enforced(on) {
            let (guard, id) = (self.asker.lock(&[on.id]).await?, on.id);
            let (checked, name, columns) = (guard.clone(), index.name.clone(), places.clone());
            blocking(move || checked.lock().check_unique(id, &name, &columns)).await?;
            held = Some(guard);
        }
        engine.create(index, |_| {}).await?;
        drop(held);
        let Ok(answer) = engine.answer(on.id, engine.pin().epoch()) else {
            // The job does not run: the first lookup makes it.
            return Ok(());
        };
        // Other nodes make it at the first lookup.
        let here = |share: &Share| share.here().cloned();
        let partitions: Vec<_> = answer.shares.iter().filter_map(here).collect();
        let build = move || partitions.iter().for_each(|p| p.index(&places));
        blocking(move || {
            build();
            Ok(())
        })
        .await
    }
}

/// Runs what takes as long as a scan.
async fn blocking(run: impl FnOnce() -> Result<()> + Send + 'static) -> Result<()> {
    let ran = tokio::task::spawn_blocking(run).await;
    ran.map_err(|e| Error::internal(e.to_string()))?
}
