//! SHOW, DESCRIBE and EXPLAIN.

use crate::memory;
use crate::session::Session;
use std::sync::Arc;
use tidemark_common::memory::about;
use tidemark_common::{Error, Result, SqlState};
use tidemark_plan::{Relation, RelationKind};
use tidemark_planner::functions;
use tidemark_planner::sqlparser::ast;
use tidemark_planner::statement::{Name, ShowKind, Statement, StatementKind};
use tidemark_query::definition::definition;
use tidemark_query::outcome::{Outcome, text_rows};
use tidemark_query::privileges::{UNSEEN, may_watch};
use tidemark_query::types::column_type_name;
use tidemark_values::moment::{Zone, timestamp_text, timestamptz_text};

fn some(text: impl Into<String>) -> Option<String> {
    Some(text.into())
}

/// `LIKE` with `%` and `_`.
fn like(text: &str, pattern: &str) -> bool {
    fn go(t: &[char], p: &[char]) -> bool {
        match p.split_first() {
            None => t.is_empty(),
            Some(('%', rest)) => (0..=t.len()).any(|i| go(&t[i..], rest)),
            Some(('_', rest)) => !t.is_empty() && go(&t[1..], rest),
            Some((c, rest)) => t.first() == Some(c) && go(&t[1..], rest),
        }
    }
    go(
        &text.chars().collect::<Vec<_>>(),
        &pattern.chars().collect::<Vec<_>>(),
    )
}

fn micros_text(micros: i64) -> String {
    timestamptz_text(micros, &Zone::UTC)
}

impl Session {
    /// SHOW.
    pub(crate) fn show(
        &self,
        what: &ShowKind,
        schema: Option<&str>,
        pattern: Option<&str>,
    ) -> Result<Outcome> {
        use ShowKind as S;
        match what {
            S::Tables => self.show_relations(RelationKind::Table, schema, pattern),
            S::MaterializedViews => {
                self.show_relations(RelationKind::MaterializedView, schema, pattern)
            }
            S::Views => self.show_relations(RelationKind::View, schema, pattern),
            S::Sources => self.show_connectors(RelationKind::Source, schema, pattern),
            S::Sinks => self.show_connectors(RelationKind::Sink, schema, pattern),
            S::Indexes => self.show_indexes(schema, pattern),
            S::Secrets => self.show_secrets(schema, pattern),
            S::Subscriptions => self.show_relations(RelationKind::Subscription, schema, pattern),
            S::Functions => self.show_functions(schema, pattern),
            S::Connections => text_rows(&["Name"], Vec::new(), "SHOW"),
            S::Schemas => {
                let mut names = vec![
                    "public".to_string(),
                    "pg_catalog".into(),
                    "information_schema".into(),
                    "tidemark".into(),
                ];
                names.extend(self.catalog().schemas.iter().cloned());
                names.sort();
                names.dedup();
                text_rows(
                    &["Name"],
                    names
                        .into_iter()
                        .filter(|n| pattern.is_none_or(|p| like(n, p)))
                        .map(|n| vec![Some(n)])
                        .collect(),
                    "SHOW",
                )
            }
            S::Databases => text_rows(&["Name"], vec![vec![some("dev")]], "SHOW"),
            S::Users => {
                let roles = self.catalog().all_roles().into_iter().filter(|r| r.login);
                let rows = roles.map(|r| vec![Some(r.name)]).collect();
                text_rows(&["Name"], rows, "SHOW")
            }
            S::Jobs => self.show_jobs(),
            S::Placement => self.show_placement(),
            S::Cluster => Err(Error::internal("SHOW CLUSTER asks the other nodes")),
            S::Checkpoints => self.show_checkpoints(),
            S::Memory => self.show_memory(),
            S::Processlist => self.show_processes(),
            S::Parameters => {
                let all = self.asker.settings.all();
                text_rows(
                    &["Name", "Value"],
                    all.iter()
                        .map(|(n, v, _)| vec![some(*n), some(*v)])
                        .collect(),
                    "SHOW",
                )
            }
            S::Columns(name) => self.describe_relation(name),
            S::Create(kind, name) => self.show_create(*kind, name),
            S::CreateFunction(name) => {
                let function = self.function(&self.catalog(), name)?;
                let full = format!("{}.{}", function.schema_name, function.name);
                let row = vec![Some(full), Some(functions::definition(&function)?)];
                text_rows(&["Name", "Create Sql"], vec![row], "SHOW")
            }
            S::Variable(name) if name.eq_ignore_ascii_case("all") => {
                let all = self.asker.settings.all();
                text_rows(
                    &["Name", "Setting", "Description"],
                    all.iter()
                        .map(|(n, v, d)| vec![some(*n), some(*v), some(*d)])
                        .collect(),
                    "SHOW",
                )
            }
            S::Variable(name) => {
                let value = self.asker.settings.show(name)?.to_string();
                let column = match name.to_lowercase().as_str() {
                    "time zone" | "timezone" => "TimeZone".into(),
                    "transaction isolation level" => "transaction_isolation".into(),
                    "datestyle" => "DateStyle".into(),
                    "intervalstyle" => "IntervalStyle".into(),
                    other => other.to_string(),
                };
                text_rows(&[&column], vec![vec![Some(value)]], "SHOW")
            }
        }
    }

    fn relations_of(
        &self,
        kind: RelationKind,
        schema: Option<&str>,
        pattern: Option<&str>,
    ) -> Vec<Arc<Relation>> {
        let path = self.asker.settings.search_path();
        let catalog = self.catalog();
        let visible = |r: &Relation| {
            schema.map_or_else(|| path.contains(&r.schema_name), |s| r.schema_name == s)
        };
        let mut found: Vec<Arc<Relation>> = catalog
            .relations
            .values()
            .filter(|r| r.kind == kind && visible(r) && pattern.is_none_or(|p| like(&r.name, p)))
            .cloned()
            .collect();
        found.sort_by(|a, b| a.name.cmp(&b.name));
        found
    }

    fn show_relations(
        &self,
        kind: RelationKind,
        schema: Option<&str>,
        pattern: Option<&str>,
    ) -> Result<Outcome> {
        text_rows(
            &["Name"],
            self.relations_of(kind, schema, pattern)
                .iter()
                .map(|r| vec![some(&r.name)])
                .collect(),
            "SHOW",
        )
    }

    fn show_functions(&self, schema: Option<&str>, pattern: Option<&str>) -> Result<Outcome> {
        let row = |r: &Arc<Relation>| {
            let made = functions::declared(r)?;
            Ok(vec![
                some(&r.name),
                some(functions::parameters_text(r, true)),
                some(functions::returned_text(&made)?),
                some("sql"),
            ])
        };
        let all = self.relations_of(RelationKind::Function, schema, pattern);
        let rows = all.iter().map(row).collect::<Result<_>>()?;
        text_rows(
            &["Name", "Arguments", "Return Type", "Language"],
            rows,
            "SHOW",
        )
    }

    fn show_connectors(
        &self,
        kind: RelationKind,
        schema: Option<&str>,
        pattern: Option<&str>,
    ) -> Result<Outcome> {
        let row = |r: &Arc<Relation>| {
            vec![
                some(&r.name),
                r.connector.as_ref().map(|c| c.connector.clone()),
            ]
        };
        text_rows(
            &["Name", "Connector"],
            self.relations_of(kind, schema, pattern)
                .iter()
                .map(row)
                .collect(),
            "SHOW",
        )
    }

    /// Names, never values.
    fn show_secrets(&self, schema: Option<&str>, pattern: Option<&str>) -> Result<Outcome> {
        let catalog = self.catalog();
        let path = self.asker.settings.search_path();
        let visible =
            |name: &String| schema.map_or_else(|| path.contains(name), |schema| name == schema);
        let secrets = catalog.secrets.iter().filter(|s| {
            visible(&s.name.schema_name) && pattern.is_none_or(|p| like(&s.name.name, p))
        });
        let mut names: Vec<_> = secrets.map(|s| vec![some(&s.name.name)]).collect();
        names.sort();
        text_rows(&["Name"], names, "SHOW")
    }

    fn show_indexes(&self, schema: Option<&str>, pattern: Option<&str>) -> Result<Outcome> {
        let catalog = self.catalog();
        let row = |r: &Arc<Relation>| {
            let on = r
                .depends_on
                .first()
                .and_then(|id| catalog.relations.get(id))
                .map(|r| r.name.clone());
            vec![
                some(&r.name),
                on,
                some(
                    r.columns
                        .iter()
                        .map(|c| c.name.as_str())
                        .collect::<Vec<_>>()
                        .join(", "),
                ),
            ]
        };
        text_rows(
            &["Name", "On", "Key"],
            self.relations_of(RelationKind::Index, schema, pattern)
                .iter()
                .map(row)
                .collect(),
            "SHOW",
        )
    }

    fn show_jobs(&self) -> Result<Outcome> {
        let names = [
            "Id",
            "Name",
            "Kind",
            "State",
            "Progress",
            "Rows",
            "Rows/s",
            "Epoch",
            "Behind",
            "Memory",
            "Late Rows",
            "Watermark",
            "Held Back By",
            "Shares Rows Of",
            "Undelivered",
            "Error",
        ];
        let row = |j: &tidemark_node::JobStatus| {
            let watermark = j.watermark.clone().unwrap_or_default();
            vec![
                some(j.relation.to_string()),
                some(&j.name),
                some(j.kind),
                some(j.state),
                some(format!("{:.1}%", j.progress)),
                some(j.rows.to_string()),
                some(format!("{:.0}", j.rows_per_second)),
                some(j.epoch.to_string()),
                some(j.epochs_behind.to_string()),
                some(j.memory_bytes.to_string()),
                some(j.late_rows.to_string()),
                watermark.micros.map(timestamp_text),
                watermark.held_back_by,
                j.shares_rows_of.clone(),
                some(j.undelivered_epochs.to_string()),
                j.error.clone(),
            ]
        };
        text_rows(
            &names,
            self.server
                .engine
                .jobs()
                .iter()
                .filter(|j| !matches!(j.kind, "view" | "index"))
                .map(row)
                .collect(),
            "SHOW",
        )
    }

    /// Who holds how much memory.
    fn show_memory(&self) -> Result<Outcome> {
        let held = memory::held(&self.server);
        let parts = held.parts.iter().map(|part| (part.name, part.bytes));
        let whole = [("process", held.process), ("limit", held.limit)];
        let rows = parts.chain(whole).map(|(what, bytes)| {
            let state = (what == "process" && held.is_short)
                .then(|| "memory runs short: sources are not read and writes wait".to_string());
            vec![
                some(what.to_string()),
                some(bytes.to_string()),
                some(about(bytes)),
                state,
            ]
        });
        text_rows(&["Of", "Bytes", "About", "State"], rows.collect(), "SHOW")
    }

    /// The last committed checkpoints, oldest first; and, while the store fails, a row that says
    /// how and since when.
    fn show_checkpoints(&self) -> Result<Outcome> {
        let row = |c: &tidemark_node::CheckpointInfo| {
            vec![
                some(c.epoch.to_string()),
                some(micros_text(c.committed_at)),
                some(c.duration_ms.to_string()),
                some(c.bytes.to_string()),
                some(c.files.to_string()),
                None,
                None,
            ]
        };
        let engine = &self.server.engine;
        let mut rows: Vec<_> = engine.checkpoints().iter().map(row).collect();
        rows.extend(engine.store_trouble().map(|trouble| {
            let mut row = vec![None; 5];
            row.push(some(micros_text(trouble.since_micros)));
            row.push(some(trouble.error.to_string()));
            row
        }));
        text_rows(
            &[
                "Epoch",
                "Committed At",
                "Duration Ms",
                "Bytes",
                "Files",
                "Failing Since",
                "Error",
            ],
            rows,
            "SHOW",
        )
    }

    fn show_processes(&self) -> Result<Outcome> {
        let catalog = self.catalog();
        let row = |(pid, c): (i32, tidemark_query::clients::Client)| {
            let doing = c.activity.look();
            let running = match may_watch(&catalog, self.user(), &c.user) {
                true => doing.running().map(str::to_string),
                false => some(UNSEEN),
            };
            vec![
                some(pid.to_string()),
                some(c.user),
                some(c.address),
                some("dev"),
                some(micros_text(c.since)),
                running,
            ]
        };
        text_rows(
            &["Id", "User", "Host", "Database", "Since", "Info"],
            self.server
                .commons
                .clients
                .list()
                .into_iter()
                .map(row)
                .collect(),
            "SHOW",
        )
    }

    fn show_create(&self, kind: RelationKind, name: &Name) -> Result<Outcome> {
        let relation = self.resolve(&self.catalog(), name)?;
        // Options may have passwords.
        if relation.connector.is_some() {
            self.require_ownership(&relation)?;
        }
        if relation.kind != kind
            && !(kind == RelationKind::View && relation.kind == RelationKind::MaterializedView)
        {
            return Err(is_another(&relation, kind));
        }
        let full = format!("{}.{}", relation.schema_name, relation.name);
        let path = self.asker.settings.search_path();
        let planner = self.server.commons.sql.planner(self.catalog(), &path);
        text_rows(
            &["Name", "Create Sql"],
            vec![vec![Some(full), Some(definition(&planner, &relation))]],
            "SHOW",
        )
    }

    /// DESCRIBE, SHOW COLUMNS FROM.
    pub(crate) fn describe_relation(&self, name: &Name) -> Result<Outcome> {
        let catalog = self.catalog();
        let relation = self.resolve(&catalog, name)?;
        let mut rows: Vec<Vec<Option<String>>> = relation
            .visible()
            .map(|(_, c)| {
                vec![
                    some(&c.name),
                    some(column_type_name(c)),
                    some("false"),
                    None,
                ]
            })
            .collect();
        let names = |positions: &[usize]| {
            positions
                .iter()
                .map(|k| relation.columns[*k].name.as_str())
                .collect::<Vec<_>>()
                .join(", ")
        };
        if !relation.key.is_empty() {
            rows.push(vec![
                some("primary key"),
                some(names(&relation.key)),
                None,
                None,
            ]);
        }
        if let Some(watermark) = &relation.watermark {
            rows.push(vec![
                some("watermark"),
                some(names(&[watermark.column])),
                None,
                None,
            ]);
        }
        rows.push(vec![
            some("table description"),
            some(&relation.name),
            None,
            relation.comment.clone(),
        ]);
        text_rows(
            &["Name", "Type", "Is Hidden", "Description"],
            rows,
            "DESCRIBE",
        )
    }

    /// EXPLAIN of a query or of a CREATE.
    pub(crate) async fn explain(
        &mut self,
        analyze: bool,
        verbose: bool,
        format: Option<&str>,
        inner: &Statement,
        parameters: &[ast::Expr],
    ) -> Result<Outcome> {
        if let Some(format) = format
            && !format.eq_ignore_ascii_case("text")
        {
            return Err(Error::unsupported(format!(
                "EXPLAIN in format {format} is not supported"
            )));
        }
        let lines = match &inner.kind {
            StatementKind::Sql(sql) => match sql.as_ref() {
                query @ ast::Statement::Query(_) => {
                    let mut query = query.clone();
                    tidemark_query::parameters::bind(&mut query, parameters)?;
                    self.asker
                        .explain_query(&query, analyze, verbose)
                        .await
                        .map_err(|e| tidemark_query::serving::position::locate(e, inner))?
                }
                other => {
                    let mut write = other.clone();
                    tidemark_query::parameters::bind(&mut write, parameters)?;
                    let explained = self.asker.explain_write(&write, analyze, verbose).await;
                    explained
                        .map_err(|e| tidemark_query::serving::position::locate(e, inner))?
                        .unwrap_or_else(|| vec![other.to_string()])
                }
            },
            StatementKind::CreateSource(_)
            | StatementKind::CreateTable(_)
            | StatementKind::CreateMaterializedView(_)
            | StatementKind::CreateView(_)
            | StatementKind::CreateSink(_)
            | StatementKind::CreateSubscription(_) => {
                let planner = self
                    .server
                    .commons
                    .sql
                    .planner(self.catalog(), &self.asker.settings.search_path())
                    .in_zone(self.asker.settings.get("timezone").unwrap_or("UTC"));
                let (id, owner) = (self.server.engine.allocate_id(), self.user().to_string());
                let create = inner.clone();
                let planned = move || {
                    let planned = planner.plan_create(id, &create, &owner)?;
                    Ok((planned.notices, planner.explain(&planned.relation)))
                };
                let (notices, lines) = self.server.serving.planning.run(planned).await?;
                for notice in notices {
                    self.notice(tidemark_query::error::Notice::new(notice));
                }
                lines
            }
            _ => {
                return Err(Error::unsupported(
                    "EXPLAIN takes a query or a CREATE statement",
                ));
            }
        };
        text_rows(
            &["QUERY PLAN"],
            lines.into_iter().map(|l| vec![Some(l)]).collect(),
            "EXPLAIN",
        )
    }

    /// EXPLAIN ANALYZE of a job: its plan with what it has done so far.
    pub(crate) fn explain_job(&self, kind: RelationKind, name: &Name) -> Result<Outcome> {
        let catalog = self.catalog();
        let relation = self.resolve(&catalog, name)?;
        if relation.kind != kind {
            return Err(is_another(&relation, kind));
        }
        let mut lines = self
            .server
            .commons
            .sql
            .planner(catalog, &self.asker.settings.search_path())
            .explain(&relation);
        if let Some(job) = self
            .server
            .engine
            .jobs()
            .into_iter()
            .find(|j| j.relation == relation.id)
        {
            lines.push(format!(
                "State: {}  Rows: {}  Rows/s: {:.0}  Epoch: {}  Memory: {} bytes  Late rows: {}",
                job.state,
                job.rows,
                job.rows_per_second,
                job.epoch,
                job.memory_bytes,
                job.late_rows
            ));
            lines.extend(job.error.map(|e| format!("Error: {e}")));
        }
        text_rows(
            &["QUERY PLAN"],
            lines.into_iter().map(|l| vec![Some(l)]).collect(),
            "EXPLAIN",
        )
    }
}

/// `42809`: the relation is none of that kind.
fn is_another(relation: &Relation, kind: RelationKind) -> Error {
    let (name, its) = (&relation.name, relation.kind.name());
    let message = format!("\"{name}\" is a {its}, not a {}", kind.name());
    Error::user(SqlState::WRONG_OBJECT_TYPE, message)
}
