//! Queries to streams: expand, bind, coerce, optimise, lower; then what materialized views, views
//! and sinks put on top.

use crate::bind::{Expander, Provider, Scopes, output_names, without_keys};
use crate::error::{external, to_error};
use crate::lineage::sql_type;
use crate::lower::{Builder, Stream, materialized, schema_of, to_stored_types};
use crate::optimise::{analyze, optimise, refuse};
use crate::options::{flag, max_iterations, on_error, only_options, references};
use crate::statement::{CreateSink, CreateView, Positions, SinkInput, Statement};
use crate::{Planned, Planner, Read, changelog, timed, without_marks};
use arrow_schema::{DataType, Field, Schema};
use datafusion_common::Result as DataFusionResult;
use datafusion_common::tree_node::TreeNodeRecursion;
use datafusion_expr::LogicalPlan;
use datafusion_sql::planner::{ParserOptions, SqlToRel};
use datafusion_sql::sqlparser::ast::{self, Query};
use std::collections::BTreeSet;
use std::sync::Arc;
use tidemark_common::{Error, RelationId, Result, SqlState};
use tidemark_plan::messages::is_anonymous;
use tidemark_plan::{
    Column, Conflict, ConnectorSpec, Encode, Format, OnError, Op, Properties, Relation,
    RelationKind,
};

/// A bound query.
pub(crate) struct Bound {
    /// With every coercion inserted.
    pub plan: LogicalPlan,
    /// PostgreSQL's names of its columns.
    pub names: Vec<String>,
    /// SQL type texts of its columns.
    pub sql_types: Vec<String>,
    /// What it and the views below it name.
    pub reads: BTreeSet<Read>,
    /// Every relation that it names.
    pub relations: BTreeSet<RelationId>,
}

/// A query that is to be maintained, as it is written.
#[derive(Clone, Copy)]
struct Written<'a> {
    query: &'a Query,
    /// Names of its columns, or none.
    columns: &'a [String],
    /// `EMIT ON WINDOW CLOSE`.
    emits_on_close: bool,
    /// `max_iterations` among the options.
    iterations_max: Option<u32>,
    positions: &'a Positions,
}

/// A query's stream with what the catalog wants to know of it.
struct Streamed {
    stream: Stream,
    columns: Vec<Column>,
    relations: BTreeSet<RelationId>,
    /// What the query and the views below it name.
    reads: BTreeSet<Read>,
}

/// Refuses values that no state and no checkpoint holds.
fn storable(plan: &LogicalPlan) -> DataFusionResult<()> {
    let is_interval = |t: &DataType| matches!(t, DataType::Interval(_));
    let spans = |t: &DataType| matches!(t, DataType::List(e) if is_interval(e.data_type()));
    plan.apply_with_subqueries(|node| {
        if node.schema().fields().iter().any(|f| spans(f.data_type())) {
            let message = "arrays of intervals are not supported in a materialized view";
            return Err(external(Error::unsupported(message)));
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(())
}

impl Planner {
    pub(crate) fn provider(&self) -> Provider<'_> {
        Provider {
            catalog: &self.catalog,
            registry: &self.registry,
            search_path: &self.search_path,
        }
    }

    /// Expands and binds a query, which is to be maintained or only read.
    pub(crate) fn bind(
        &self,
        query: &Query,
        positions: &Positions,
        maintained: bool,
        decorrelated: bool,
    ) -> Result<Bound> {
        let provider = self.provider();
        let mut query = query.clone();
        crate::limits::settle(&mut query)?;
        let mut expander = Expander::new(&provider, positions).maintained(maintained);
        expander.query(&mut query)?;
        let has_temporal_joins = maintained && timed::has_temporal_joins(&query);
        let mut scopes = Scopes::new(&provider, positions).without_keys(has_temporal_joins);
        if maintained {
            scopes = scopes.maintained();
        }
        let outputs = scopes.rewrite(&mut query)?;
        crate::limits::check(&query, &|relation| provider.columns_of(relation))?;
        let (relations, reads) = (expander.relations, expander.reads);
        let options = ParserOptions::from(&self.registry.options().sql_parser);
        let planner = SqlToRel::new_with_options(&provider, options);
        let body = outputs.is_none().then(|| query.body.clone());
        let statement = ast::Statement::Query(Box::new(query));
        let bound = || planner.sql_statement_to_plan(statement);
        let bound = match has_temporal_joins {
            true => without_keys(bound),
            false => bound(),
        };
        let plan = bound
            .and_then(|plan| match maintained {
                true => timed::maintained(plan).and_then(changelog::maintained),
                false => without_marks(plan),
            })
            .map_err(|e| to_error(e, positions))?;
        let fields = plan.schema().fields();
        let columns: Vec<String> = fields.iter().map(|f| f.name().clone()).collect();
        let names = match (outputs, body) {
            (Some(outputs), _) if outputs.len() == columns.len() => {
                outputs.into_iter().map(|o| o.name).collect()
            }
            (_, Some(body)) => output_names(&body, &columns),
            _ => columns,
        };
        let plan = analyze(plan, &self.registry, &self.zone, decorrelated)
            .map_err(|e| to_error(e, positions))?;
        if maintained {
            storable(&plan).map_err(|e| to_error(e, positions))?;
        }
        let sql_types = (0..plan.schema().fields().len())
            .map(|c| sql_type(&plan, c))
            .collect();
        Ok(Bound {
            plan,
            names,
            sql_types,
            relations,
            reads,
        })
    }

    /// The stream of a query, its columns named and in stored types. All that is refused in it is
    /// told at once.
    fn stream(&self, id: RelationId, written: Written<'_>) -> Result<(Builder, Streamed)> {
        let planned = |query: &Query, decorrelated: bool| -> Result<(Builder, Streamed)> {
            let mut builder = Builder::new(id);
            if let Some(iterations_max) = written.iterations_max {
                builder.iterations_max = iterations_max;
            }
            let written = Written { query, ..written };
            let streamed = self.lowered(&mut builder, written, decorrelated)?;
            if written.iterations_max.is_some() && !builder.is_recursive {
                let message = "option \"max_iterations\" needs a recursive query";
                return Err(Error::user(SqlState::INVALID_PARAMETER, message)
                    .with_hint("It bounds WITH RECURSIVE."));
            }
            Ok((builder, streamed))
        };
        // What has no better plan has one in which all subqueries are joins.
        let plan = |query: &Query| {
            planned(query, false).or_else(|first| {
                tidemark_common::check_interrupt()?;
                planned(query, true).map_err(|_| first)
            })
        };
        let Written {
            query, positions, ..
        } = written;
        plan(query).map_err(|e| match e.state() {
            SqlState::FEATURE_NOT_SUPPORTED => {
                crate::refusals::all(e, query, positions, |query| plan(query).map(|_| ()))
            }
            _ => e,
        })
    }

    fn lowered(
        &self,
        builder: &mut Builder,
        written: Written<'_>,
        decorrelated: bool,
    ) -> Result<Streamed> {
        let Written {
            query,
            columns,
            emits_on_close,
            positions,
            ..
        } = written;
        let Bound {
            plan,
            names,
            sql_types,
            relations,
            reads,
        } = self.bind(query, positions, true, decorrelated)?;
        let names = renamed(names, columns)?;
        let types = schema_of(plan.schema());
        let plan = refuse(&plan)
            .and_then(|()| optimise(plan, &self.registry))
            .map_err(|e| to_error(e, positions))?;
        let mut stream = builder.lower(&plan)?;
        if emits_on_close {
            stream = builder.emit_on_close(stream)?;
        }
        let stream = to_stored_types(stream);
        let fields = stream
            .node
            .schema
            .fields()
            .iter()
            .zip(&names)
            .map(|(f, name)| f.as_ref().clone().with_name(name))
            .collect::<Vec<_>>();
        if fields.len() != types.fields().len() {
            return Err(Error::internal("the optimised query has other columns"));
        }
        let stream = stream.with_schema(Arc::new(Schema::new(fields)));
        let columns = columns_of(&stream.node.schema, &sql_types);
        Ok(Streamed {
            stream,
            columns,
            relations,
            reads,
        })
    }

    pub(crate) fn materialized_view(
        &self,
        id: RelationId,
        view: &CreateView,
        statement: &Statement,
        owner: &str,
    ) -> Result<Planned> {
        let written = Written {
            query: &view.query,
            columns: &view.columns,
            emits_on_close: view.emit_on_window_close,
            iterations_max: max_iterations(&view.options)?,
            positions: &statement.positions,
        };
        let (mut builder, streamed) = self.stream(id, written)?;
        let Streamed {
            stream,
            columns,
            relations,
            reads,
        } = streamed;
        refuse_records(&columns)?;
        let Properties { append_only, key } = stream.node.properties.clone();
        let stream = materialized(&mut builder, stream, key.clone());
        let (job, notices) = builder.finish(stream)?;
        let mut relation = self.relation(
            id,
            &view.name,
            RelationKind::MaterializedView,
            columns,
            statement,
            owner,
        )?;
        relation.key = if append_only {
            Vec::new()
        } else {
            key.unwrap_or_default()
        };
        relation.append_only = append_only;
        relation.query = view.query_text.clone();
        relation.depends_on = relations.into_iter().collect();
        only_options(&view.options, &["on_error", "max_iterations"])?;
        relation.on_error = on_error(&view.options)?;
        relation.job = Some(job);
        Ok(Planned {
            relation,
            notices,
            reads,
        })
    }

    pub(crate) fn view(
        &self,
        id: RelationId,
        view: &CreateView,
        statement: &Statement,
        owner: &str,
    ) -> Result<Planned> {
        only_options(&view.options, &[])?;
        if view.emit_on_window_close {
            return Err(Error::unsupported(
                "EMIT ON WINDOW CLOSE is not supported for a plain view",
            )
            .with_hint("Write it in the materialized view or sink that reads the view."));
        }
        let Bound {
            plan,
            names,
            sql_types,
            relations,
            reads,
        } = self.bind(&view.query, &statement.positions, false, false)?;
        let names = renamed(names, &view.columns)?;
        let schema = schema_of(plan.schema());
        let fields = schema
            .fields()
            .iter()
            .zip(&names)
            .map(|(f, n)| {
                f.as_ref()
                    .clone()
                    .with_name(n)
                    .with_data_type(crate::lower::stored_type(f.data_type()))
            })
            .collect::<Vec<_>>();
        let columns = columns_of(&Schema::new(fields), &sql_types);
        refuse_records(&columns)?;
        let mut relation = self.relation(
            id,
            &view.name,
            RelationKind::View,
            columns,
            statement,
            owner,
        )?;
        relation.query = view.query_text.clone();
        relation.depends_on = relations.into_iter().collect();
        Ok(Planned {
            relation,
            notices: Vec::new(),
            reads,
        })
    }

    pub(crate) fn sink(
        &self,
        id: RelationId,
        sink: &CreateSink,
        statement: &Statement,
        owner: &str,
    ) -> Result<Planned> {
        let (query, text, emits_on_close) = match &sink.input {
            SinkInput::Query(query, text, emits) => (query.clone(), text.clone(), *emits),
            SinkInput::Relation(name) => {
                let quoted = |s: &str| ast::Ident::with_quote('"', s).to_string();
                let relation = self
                    .provider()
                    .find(name.schema.as_deref(), &name.name)
                    .map_err(|e| e.at(name.position))?;
                let text = format!(
                    "SELECT * FROM {}.{}",
                    quoted(&relation.schema_name),
                    quoted(&relation.name)
                );
                (crate::parse::parse_query(&text)?, text, false)
            }
        };
        let written = Written {
            query: &query,
            columns: &[],
            emits_on_close,
            iterations_max: max_iterations(&sink.options)?,
            positions: &statement.positions,
        };
        let (mut builder, streamed) = self.stream(id, written)?;
        let Streamed {
            mut stream,
            columns,
            relations,
            reads,
        } = streamed;
        let target = self.target(sink, &columns, &stream.node.properties)?;
        let (mut connector, sink) = match &target {
            Some(target) => (target.connector.clone(), &target.sink),
            None => (sink_connector(sink)?, sink),
        };
        let (key, insertions_only) = sink_key(sink, &connector, &columns, &stream.node.properties)?;
        if insertions_only {
            builder.notice(
                "force_append_only drops the retractions: updated and deleted rows stay \
                            in what the sink has sent",
            );
        }
        connector.key = key.clone();
        if !stream.node.properties.append_only {
            let all: Vec<usize> = (0..columns.len()).collect();
            stream = builder.exchange(stream, if key.is_empty() { &all } else { &key });
        }
        let (schema, properties) = (stream.node.schema.clone(), stream.node.properties.clone());
        let table = builder.tables(1);
        let stream = stream.wrap(
            Op::Sink {
                key: key.clone(),
                table,
            },
            schema,
            properties.clone(),
        );
        let (job, notices) = builder.finish(stream)?;
        let mut relation = self.relation(
            id,
            &sink.name,
            RelationKind::Sink,
            columns,
            statement,
            owner,
        )?;
        relation.key = key;
        relation.append_only = properties.append_only;
        relation.snapshot = flag(&sink.options, "snapshot", true)?;
        relation.on_error = on_error(&sink.options)?;
        relation.query = text;
        relation.depends_on = relations.into_iter().collect();
        if let Some(target) = &target {
            target.check_cycle(&self.catalog, &relation)?;
            relation.depends_on.push(target.table);
        }
        relation.connector = Some(connector);
        relation.job = Some(job);
        Ok(Planned {
            relation,
            notices,
            reads,
        })
    }

    /// A catalog entry with the fields that all kinds share.
    pub(crate) fn relation(
        &self,
        id: RelationId,
        name: &crate::statement::Name,
        kind: RelationKind,
        columns: Vec<Column>,
        statement: &Statement,
        owner: &str,
    ) -> Result<Relation> {
        for (i, column) in columns.iter().enumerate() {
            if columns[..i].iter().any(|c| c.name == column.name) {
                return Err(Error::user(
                    SqlState::DUPLICATE_COLUMN,
                    format!("column \"{}\" specified more than once", column.name),
                )
                .with_hint("Give it another name with AS."));
            }
        }
        let first = || self.search_path.first().cloned();
        let schema_name = name.schema.clone().or_else(first).ok_or_else(|| {
            let message = "no schema has been selected to create in";
            Error::user(SqlState::INVALID_SCHEMA_NAME, message)
        })?;
        if schema_name != "public" && !self.catalog.schemas.contains(&schema_name) {
            return Err(Error::user(
                SqlState::INVALID_SCHEMA_NAME,
                format!("schema \"{schema_name}\" does not exist"),
            )
            .at(name.position.max(1)));
        }
        Ok(Relation {
            id,
            schema_name,
            name: name.name.clone(),
            kind,
            columns,
            key: Vec::new(),
            key_declared: false,
            append_only: false,
            watermark: None,
            connector: None,
            conflict: Conflict::Overwrite,
            on_error: OnError::Log,
            snapshot: true,
            definition: statement.text.clone(),
            query: String::new(),
            depends_on: Vec::new(),
            owner: owner.into(),
            comment: None,
            job: None,
            logs_rows: None,
            created_at: None,
            altered: Default::default(),
            unreadable: None,
        })
    }
}

fn columns_of(schema: &Schema, sql_types: &[String]) -> Vec<Column> {
    let column = |(f, sql_type): (&Arc<Field>, &String)| Column {
        name: f.name().clone(),
        data_type: f.data_type().clone(),
        nullable: f.is_nullable(),
        default: None,
        sql_type: sql_type.clone(),
    };
    schema.fields().iter().zip(sql_types).map(column).collect()
}

/// `42P16` for a column of a view that is a row without a type.
fn refuse_records(columns: &[Column]) -> Result<()> {
    let Some(column) = columns.iter().find(|c| holds_untyped(&c.data_type)) else {
        return Ok(());
    };
    Err(Error::user(
        SqlState("42P16"),
        format!("column \"{}\" has pseudo-type record", column.name),
    )
    .with_hint(
        "Cast the row to a struct whose fields have names: ROW(..)::STRUCT<a INT, b VARCHAR>.",
    ))
}

/// Whether a value is, or holds, a row whose fields nobody has named.
fn holds_untyped(data_type: &DataType) -> bool {
    match data_type {
        DataType::Struct(fields) => {
            // Nobody has said what a NULL within a row is one of.
            let untyped = |t: &DataType| *t == DataType::Null || holds_untyped(t);
            is_anonymous(fields) || fields.iter().any(|f| untyped(f.data_type()))
        }
        DataType::List(element) | DataType::Map(element, _) => holds_untyped(element.data_type()),
        _ => false,
    }
}

/// The names after `v (a, b)`: given names first, then the query's.
fn renamed(mut names: Vec<String>, given: &[String]) -> Result<Vec<String>> {
    if given.len() > names.len() {
        return Err(Error::user(
            SqlState::SYNTAX_ERROR,
            format!(
                "{} column names are given, but the query has {} columns",
                given.len(),
                names.len()
            ),
        ));
    }
    names
        .iter_mut()
        .zip(given)
        .for_each(|(name, given)| name.clone_from(given));
    Ok(names)
}

fn sink_connector(sink: &CreateSink) -> Result<ConnectorSpec> {
    let connector = sink
        .options
        .get("connector")
        .map(|c| c.to_lowercase())
        .ok_or_else(|| {
            Error::user(SqlState::INVALID_PARAMETER, "a sink needs a connector")
                .at(sink.name.position.max(1))
                .with_hint("Write WITH (connector = 'kafka', topic = '...', ...).")
        })?;
    if !["kafka", "blackhole"].contains(&connector.as_str()) {
        return Err(
            Error::unsupported(format!("a sink cannot use connector '{connector}'"))
                .at(sink.name.position.max(1))
                .with_hint("kafka and blackhole are supported."),
        );
    }
    let named = sink
        .options
        .get("type")
        .map(|t| (t, type_format(t, sink)))
        .map(|(t, f)| f.map(|f| (t, f)))
        .transpose()?;
    let mut options = sink.options.clone();
    // It is of the query, not of the connector.
    options.remove("max_iterations");
    let (format, encode, mut encode_options) = match (&sink.format, named) {
        (Some(f), Some((t, format))) if f.format != format => {
            return Err(Error::user(
                SqlState::INVALID_PARAMETER,
                format!("option \"type\" is '{t}', but FORMAT says something else"),
            )
            .at(sink.name.position.max(1)));
        }
        (Some(f), _) => (f.format, f.encode, f.options.clone()),
        (None, None) if connector == "blackhole" => {
            (Format::Plain, Encode::Native, Default::default())
        }
        (None, Some((_, format))) => (format, Encode::Json, Default::default()),
        (None, None) => (Format::Plain, Encode::Json, Default::default()),
    };
    // RisingWave's place for it.
    if let Some(force) = encode_options.remove("force_append_only") {
        options.insert("force_append_only".into(), force);
    }
    if let Some(key_encode) = sink.format.as_ref().and_then(|f| f.key_encode.clone()) {
        encode_options.insert("key.encode".into(), key_encode);
    }
    Ok(ConnectorSpec {
        connector,
        options,
        hidden: references(&sink.secrets, sink.name.position.max(1))?,
        format,
        encode,
        encode_options,
        includes: Vec::new(),
        key: Vec::new(),
    })
}

/// What the option `type` says about the format.
fn type_format(name: &str, sink: &CreateSink) -> Result<Format> {
    match name.to_ascii_lowercase().as_str() {
        "append-only" => Ok(Format::Plain),
        "upsert" => Ok(Format::Upsert),
        "debezium" => Ok(Format::Debezium),
        _ => Err(Error::user(
            SqlState::INVALID_PARAMETER,
            format!("option \"type\" cannot be '{name}'"),
        )
        .at(sink.name.position.max(1))
        .with_hint("Use one of: append-only, upsert, debezium.")),
    }
}

/// The key by which a sink sends, and whether retractions are dropped. Refuses keys that are not
/// proven unique and plain sinks over retractions.
fn sink_key(
    sink: &CreateSink,
    connector: &ConnectorSpec,
    columns: &[Column],
    properties: &Properties,
) -> Result<(Vec<usize>, bool)> {
    let force = flag(&connector.options, "force_append_only", false)?;
    let position = sink.name.position.max(1);
    let declared = sink.options.get("primary_key").map(|text| {
        let find = |name: &str| {
            let name = name.trim().trim_matches('"');
            let at = columns
                .iter()
                .position(|c| c.name == name || c.name == name.to_lowercase());
            at.ok_or_else(|| {
                Error::user(
                    SqlState::UNDEFINED_COLUMN,
                    format!("column \"{name}\" of option \"primary_key\" does not exist"),
                )
                .at(position)
            })
        };
        text.split(',').map(find).collect::<Result<Vec<_>>>()
    });
    let declared = declared.transpose()?.unwrap_or_default();
    if let Some(twice) = declared
        .iter()
        .enumerate()
        .find(|(i, c)| declared[..*i].contains(c))
    {
        return Err(Error::user(
            SqlState::DUPLICATE_COLUMN,
            format!(
                "column \"{}\" appears twice in option \"primary_key\"",
                columns[*twice.1].name
            ),
        )
        .at(position));
    }
    if connector.format == Format::Plain {
        let free = connector.connector == "blackhole" && sink.format.is_none();
        if !properties.append_only && !force && !free {
            return Err(Error::unsupported(
                "a plain sink cannot send rows that are updated or \
                                           deleted",
            )
            .at(position)
            .with_hint(
                "Use FORMAT UPSERT with primary_key, FORMAT DEBEZIUM, or \
                            force_append_only = 'true' to drop the retractions.",
            ));
        }
        return Ok((declared, force && !properties.append_only));
    }
    let proven = properties.key.clone().filter(|k| !k.is_empty());
    let key = if declared.is_empty() {
        proven.clone().unwrap_or_default()
    } else {
        declared
    };
    if key.is_empty() {
        return Err(
            Error::user(SqlState("42P17"), "an upsert sink needs a primary key")
                .at(position)
                .with_hint("Set primary_key = 'column, ...' in WITH to columns that are unique."),
        );
    }
    let unique = properties
        .key
        .as_ref()
        .is_some_and(|k| k.iter().all(|c| key.contains(c)));
    if !unique {
        let names: Vec<&str> = key.iter().map(|c| columns[*c].name.as_str()).collect();
        let hint = match &proven {
            Some(k) => format!(
                "This is known to be unique: {}.",
                k.iter()
                    .map(|c| columns[*c].name.as_str())
                    .collect::<Vec<_>>()
                    .join(", ")
            ),
            None => "Group by the key, or read a table with a primary key.".into(),
        };
        return Err(Error::user(
            SqlState("42P17"),
            format!(
                "primary_key ({}) of the sink is not proven unique",
                names.join(", ")
            ),
        )
        .at(position)
        .with_hint(hint));
    }
    Ok((key, false))
}
