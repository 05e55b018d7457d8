//! CREATE SOURCE and CREATE TABLE: columns, keys, generated columns, watermarks and what is between
//! a connector and its relation.
//!
//! * a plain source is its connector's rows, computed columns added, and is not kept: later jobs
//!   read the connector again;
//! * an upsert or Debezium source, and every table, is kept by its primary key;
//! * a table without connector gets its changes from DML, whose conflicts are resolved before they
//!   are logged.

use crate::bind::{Expander, Registry, Table};
use crate::defaults;
use crate::error::to_error;
use crate::fold::fold_plan;
use crate::lower::{
    Builder, Stream, has_record, materialized, materialized_by, schema_of, to_expr,
};
use crate::optimise::{analyze, refuse};
use crate::options::{flag, idle_timeout, on_error, references};
use crate::statement::{ColumnDefinition, CreateRelation, FormatClause, Statement};
use crate::types::{declared_digits, sql_type_to_arrow};
use crate::{Planned, Planner, generators, likeness};
use arrow_schema::{DataType, Field, Schema, TimeUnit};
use datafusion_expr::{ExprSchemable, LogicalPlan, LogicalPlanBuilder, cast};
use datafusion_sql::planner::{ParserOptions, PlannerContext, SqlToRel};
use datafusion_sql::sqlparser::ast;
use std::collections::BTreeSet;
use std::sync::Arc;
use tidemark_common::{Error, RelationId, Result, SqlState};
use tidemark_plan::{
    Catalog, Column, Conflict, ConnectorSpec, Encode, Expr, Format, Generated, Include, Op,
    Properties, Relation, RelationKind, VERSION_TYPE, Watermark,
};

/// The columns of a relation being created, and which of them are computed.
struct Columns {
    columns: Vec<Column>,
    /// Position and expression.
    generated: Vec<(usize, ast::Expr)>,
    includes: Vec<(usize, Include)>,
    /// Positions of the PRIMARY KEY.
    key: Vec<usize>,
}

impl Planner {
    pub(crate) fn source(
        &self,
        id: RelationId,
        create: &CreateRelation,
        statement: &Statement,
        owner: &str,
    ) -> Result<Planned> {
        if let Some(like) = create.likes.first() {
            let message = "LIKE is not supported for a source";
            return Err(Error::unsupported(message)
                .at(like.name.position.max(1))
                .with_hint("List the columns."));
        }
        let Some(connector) = connector_of(create, RelationKind::Source)? else {
            return Err(
                Error::user(SqlState::INVALID_PARAMETER, "a source needs a connector")
                    .at(create.name.position.max(1))
                    .with_hint("Write WITH (connector = 'kafka', ...), or CREATE TABLE."),
            );
        };
        if create.append_only || create.on_conflict.is_some() {
            return Err(Error::user(
                SqlState::SYNTAX_ERROR,
                "APPEND ONLY and ON CONFLICT belong to tables",
            )
            .at(create.name.position.max(1)));
        }
        self.from_connector(
            id,
            create,
            connector,
            RelationKind::Source,
            statement,
            owner,
        )
    }

    pub(crate) fn table(
        &self,
        id: RelationId,
        create: &CreateRelation,
        statement: &Statement,
        owner: &str,
    ) -> Result<Planned> {
        if !create.likes.is_empty() {
            return self.table_like(id, create, statement, owner);
        }
        if let Some(connector) = connector_of(create, RelationKind::Table)? {
            return self.from_connector(
                id,
                create,
                connector,
                RelationKind::Table,
                statement,
                owner,
            );
        }
        if create.format.is_some() || !create.includes.is_empty() {
            return Err(Error::user(
                SqlState::SYNTAX_ERROR,
                "FORMAT and INCLUDE need a connector",
            )
            .at(create.name.position.max(1)));
        }
        self.check_defaults(&create.columns)?;
        let Columns {
            columns,
            generated,
            key,
            ..
        } = columns_of(create, &self.zone, &self.registry)?;
        if columns.is_empty() {
            return Err(
                Error::unsupported("a table needs a column").at(create.name.position.max(1))
            );
        }
        let watermark = watermark_of(create, &columns)?;
        if watermark.is_some() {
            return Err(Error::unsupported(
                "a watermark needs a source, or a table over a connector",
            )
            .at(create.name.position.max(1)));
        }
        let mut relation = self.relation(
            id,
            &create.name,
            RelationKind::Table,
            columns,
            statement,
            owner,
        )?;
        self.generate(&mut relation, &generated, statement)?;
        relation.append_only = create.append_only;
        relation.conflict = conflict_of(create, &key)?;
        if relation.conflict == Conflict::Merge && !relation.generated.is_empty() {
            let message = "generated columns are not supported with ON CONFLICT DO UPDATE IF NOT \
                           NULL";
            return Err(Error::unsupported(message)
                .at(create.name.position.max(1))
                .with_hint("Compute the column in a view."));
        }
        let unique = if key.is_empty() {
            None
        } else {
            Some(key.clone())
        };
        let properties = Properties {
            append_only: create.append_only,
            key: unique.clone(),
        };
        let mut builder = Builder::new(id);
        let stream = Stream::leaf(Op::TableRead, relation.arrow_schema(), properties);
        // Append-only tables with a key refuse duplicates before the log, so they are kept by key
        // as well.
        let stream = materialized_by(&mut builder, stream, unique);
        let (job, notices) = builder.finish(stream)?;
        relation.key_declared = !key.is_empty();
        relation.key = key;
        relation.on_error = on_error(&create.options)?;
        relation.job = Some(job);
        Ok(Planned {
            relation,
            notices,
            reads: Default::default(),
        })
    }

    /// A table with columns of other relations.
    fn table_like(
        &self,
        id: RelationId,
        create: &CreateRelation,
        statement: &Statement,
        owner: &str,
    ) -> Result<Planned> {
        if create.options.contains_key("connector") {
            let message = "LIKE is not supported for a table over a connector";
            return Err(Error::unsupported(message)
                .at(create.name.position.max(1))
                .with_hint("List the columns."));
        }
        let (create, reads, notices) = self.likened(create)?;
        let mut planned = self.table(id, &create, statement, owner)?;
        planned.relation.definition = likeness::definition(&create);
        planned.reads.extend(reads);
        planned.notices.extend(notices);
        Ok(planned)
    }

    fn from_connector(
        &self,
        id: RelationId,
        create: &CreateRelation,
        mut connector: ConnectorSpec,
        kind: RelationKind,
        statement: &Statement,
        owner: &str,
    ) -> Result<Planned> {
        let position = create.name.position.max(1);
        let mut create = create.clone();
        if create.columns.is_empty() {
            generators::check_kind(&connector).map_err(|e| e.at(position))?;
            create.columns = generators::columns(&connector).ok_or_else(|| {
                Error::user(
                    SqlState("42P16"),
                    format!("{} \"{}\" has no columns", kind.name(), create.name.name),
                )
                .at(position)
                .with_hint("List the columns that the records have.")
            })?;
        }
        let Columns {
            columns,
            generated,
            includes,
            key,
        } = columns_of(&create, &self.zone, &self.registry)?;
        connector.includes = includes;
        if let Some(column) = create.columns.iter().find(|c| c.default.is_some()) {
            return Err(Error::unsupported(format!(
                "a default of column \"{}\", which records fill, is not supported",
                column.name
            ))
            .at(column.position)
            .with_hint("Use coalesce in a view."));
        }
        let keyed = connector.format != Format::Plain;
        if keyed && key.is_empty() {
            let format = if connector.format == Format::Upsert {
                "UPSERT"
            } else {
                "DEBEZIUM"
            };
            return Err(Error::user(
                SqlState("42P16"),
                format!("FORMAT {format} needs a PRIMARY KEY"),
            )
            .at(position)
            .with_hint(
                "Declare PRIMARY KEY (columns) of the record key, or INCLUDE KEY and \
                            use that column.",
            ));
        }
        if create.append_only && keyed {
            return Err(Error::user(
                SqlState("42P16"),
                "an APPEND ONLY table cannot have updates from its connector",
            )
            .at(position));
        }
        if create.append_only && kind == RelationKind::Table && !key.is_empty() {
            return Err(Error::unsupported(
                "a PRIMARY KEY of an APPEND ONLY table over a connector is not supported",
            )
            .at(position)
            .with_hint(
                "Leave out APPEND ONLY, and write ON CONFLICT IGNORE if the first row of a key is \
                 to stay; or leave out the key.",
            ));
        }
        let watermark = watermark_of(&create, &columns)?;
        connector.key = key.clone();
        let mut relation = self.relation(id, &create.name, kind, columns, statement, owner)?;
        relation.conflict = conflict_of(&create, &key)?;
        if keyed && relation.conflict == Conflict::Ignore {
            return Err(Error::unsupported(
                "records that also delete cannot be read with ON \
                                           CONFLICT IGNORE",
            )
            .at(position)
            .with_detail(
                "Which write of a key was the first since its deletion would depend \
                              on the order in which partitions are read.",
            )
            .with_hint("Read the topic with FORMAT PLAIN, or leave ON CONFLICT out."));
        }
        if relation.conflict == Conflict::Merge && (keyed || !generated.is_empty()) {
            let (what, why) = match keyed {
                true => (
                    "records that also delete cannot be read with",
                    "What a deletion leaves of a row that comes in parts is not kept.",
                ),
                false => (
                    "generated columns are not supported with",
                    "They would be computed of parts of rows.",
                ),
            };
            let message = format!("{what} ON CONFLICT DO UPDATE IF NOT NULL");
            return Err(Error::unsupported(message).at(position).with_detail(why));
        }
        // A key makes a table of what would be appended only: rows with the same key replace each
        // other.
        let upserts =
            keyed || kind == RelationKind::Table && !key.is_empty() && !create.append_only;
        relation.append_only = !upserts;
        let mut builder = Builder::new(id);
        self.generate(&mut relation, &generated, statement)?;
        let stream = read(&relation, watermark.clone(), upserts);
        let stream = if upserts {
            let stream = builder.exchange(stream, &key);
            let (schema, version, table) = (
                relation.arrow_schema(),
                relation.columns.len(),
                builder.tables(1),
            );
            let op = Op::Upsert {
                key: key.clone(),
                conflict: relation.conflict,
                version,
                table,
            };
            let stream = stream.wrap(
                op,
                schema,
                Properties {
                    append_only: false,
                    key: Some(key.clone()),
                },
            );
            materialized(&mut builder, stream, Some(key.clone()))
        } else if kind == RelationKind::Table {
            materialized(&mut builder, stream, None)
        } else {
            stream
        };
        let (job, notices) = builder.finish(stream)?;
        relation.key_declared = upserts;
        relation.key = if upserts { key } else { Vec::new() };
        relation.watermark = watermark;
        relation.on_error = on_error(&create.options)?;
        relation.connector = Some(connector);
        relation.job = Some(job);
        Ok(Planned {
            relation,
            notices,
            reads: Default::default(),
        })
    }

    /// Errors: `0A000` for functions of users in defaults.
    pub(crate) fn check_defaults(&self, columns: &[ColumnDefinition]) -> Result<()> {
        for column in columns {
            if let Some(text) = &column.default {
                defaults::check_calls(text, &self.provider()).map_err(|e| e.at(column.position))?;
            }
        }
        Ok(())
    }

    /// Says of a relation how its columns are computed that are.
    ///
    /// Errors: those of their expressions; `42P17` for one of computed columns.
    fn generate(
        &self,
        relation: &mut Relation,
        generated: &[(usize, ast::Expr)],
        statement: &Statement,
    ) -> Result<()> {
        if generated.is_empty() {
            return Ok(());
        }
        defaults::check_generated(generated, &relation.columns, &self.registry)?;
        let read = read_columns(relation, |c| generated.iter().any(|(at, _)| at == c));
        let base = Relation {
            columns: read.iter().map(|c| relation.columns[*c].clone()).collect(),
            key: Vec::new(),
            job: None,
            ..relation.clone()
        };
        let schema = relation.arrow_schema();
        let (values, used) = self.computed(base, generated, &schema, statement)?;
        let each = generated.iter().zip(values);
        let each = each.map(|((column, written), value)| Generated {
            column: *column,
            text: written.to_string(),
            value: value.replace_columns(&|c| Expr::Column(read[c])),
        });
        relation.generated = each.collect();
        relation.depends_on.extend(used);
        Ok(())
    }

    /// Binds the expressions of generated columns over the columns that are read, cast to the
    /// declared types. Answers what functions they call, too.
    fn computed(
        &self,
        base: Relation,
        generated: &[(usize, ast::Expr)],
        schema: &Schema,
        statement: &Statement,
    ) -> Result<(Vec<Expr>, BTreeSet<RelationId>)> {
        let fail = |e| to_error(e, &statement.positions);
        let provider = self.provider();
        let name = base.name.clone();
        let scan =
            LogicalPlanBuilder::scan(name.as_str(), Arc::new(Table::new(Arc::new(base))), None)
                .map_err(fail)?;
        let options = ParserOptions::from(&self.registry.options().sql_parser);
        let planner = SqlToRel::new_with_options(&provider, options);
        let (mut exprs, mut used) = (Vec::new(), BTreeSet::new());
        for (at, expr) in generated {
            let mut expr = expr.clone();
            let mut expander = Expander::new(&provider, &statement.positions);
            expander.expression(&mut expr)?;
            check_reads(&expander.relations, &self.catalog)?;
            used.append(&mut expander.relations);
            let bound = planner
                .sql_to_expr(expr, scan.schema(), &mut PlannerContext::new())
                .map_err(fail)?;
            let field = schema.field(*at);
            let from = bound.get_type(scan.schema()).map_err(fail)?;
            let bound = if from == *field.data_type() {
                bound
            } else {
                cast(bound, field.data_type().clone())
            };
            exprs.push(bound.alias(format!("generated {}", field.name())));
        }
        let plan = scan.project(exprs).and_then(|b| b.build()).map_err(fail)?;
        let plan = analyze(plan, &self.registry, &self.zone, false)
            .and_then(|plan| refuse(&plan).map(|()| plan))
            .and_then(|plan| fold_plan(plan, &self.registry))
            .map_err(fail)?;
        match &plan {
            LogicalPlan::Projection(p) => {
                debug_assert_eq!(
                    schema_of(p.input.schema()).fields().len() + generated.len(),
                    schema.fields().len()
                );
                let values = p.expr.iter().map(|e| to_expr(e, p.input.schema()));
                Ok((values.collect::<Result<_>>()?, used))
            }
            other => Err(Error::internal(format!(
                "generated columns became {}",
                other.display()
            ))),
        }
    }
}

/// The positions of the columns of a relation that are read, and not computed.
fn read_columns(relation: &Relation, is_computed: impl Fn(&usize) -> bool) -> Vec<usize> {
    let all = 0..relation.columns.len();
    all.filter(|c| !is_computed(c)).collect()
}

/// The connector's rows with computed columns in their places, and behind them, if they are
/// `versioned`, their versions.
fn read(relation: &Relation, watermark: Option<Watermark>, versioned: bool) -> Stream {
    let schema = relation.arrow_schema();
    let read = read_columns(relation, |c| relation.generated(*c).is_some());
    let version = versioned.then(|| Field::new("_version", VERSION_TYPE, false));
    let with_version = |columns: Vec<Field>| {
        let all = columns.into_iter().chain(version.clone());
        Arc::new(Schema::new(all.collect::<Vec<_>>()))
    };
    let read_schema = with_version(read.iter().map(|c| schema.field(*c).clone()).collect());
    let leaf = Op::SourceRead {
        columns: read.clone(),
        watermark,
        versioned,
    };
    let properties = Properties {
        append_only: true,
        key: None,
    };
    let stream = Stream::leaf(leaf, read_schema, properties);
    if relation.generated.is_empty() {
        return stream;
    }
    let place = |c: usize| Expr::Column(read.iter().position(|r| *r == c).unwrap_or(c));
    let exprs = (0..relation.columns.len()).map(|c| match relation.generated(c) {
        Some(generated) => generated.value.clone().replace_columns(&place),
        None => place(c),
    });
    let exprs = exprs.chain(versioned.then_some(Expr::Column(read.len())));
    stream.project(
        exprs.collect(),
        with_version(schema.fields().iter().map(|f| f.as_ref().clone()).collect()),
    )
}

/// A column as it is declared, without regard to a key.
pub(crate) fn column_of(
    definition: &ColumnDefinition,
    zone: &str,
    registry: &Registry,
) -> Result<Column> {
    let ColumnDefinition {
        name,
        data_type,
        not_null,
        default,
        position,
        ..
    } = definition;
    let (arrow, mut sql_type) = sql_type_to_arrow(data_type).map_err(|e| e.at(*position))?;
    if sql_type.is_empty() {
        sql_type = declared_digits(data_type);
    }
    if let Some(text) = default {
        defaults::check(text, registry).map_err(|e| e.at(*position))?;
    }
    let default = match default {
        Some(text) if matches!(arrow, DataType::Timestamp(_, Some(_))) => {
            Some(defaults::moment(text, zone)?)
        }
        other => other.clone(),
    };
    Ok(Column {
        name: name.clone(),
        nullable: !not_null,
        default,
        data_type: arrow,
        sql_type,
    })
}

fn columns_of(create: &CreateRelation, zone: &str, registry: &Registry) -> Result<Columns> {
    let mut all = Columns {
        columns: Vec::new(),
        generated: Vec::new(),
        includes: Vec::new(),
        key: Vec::new(),
    };
    for definition in &create.columns {
        let ColumnDefinition {
            name,
            generated,
            position,
            ..
        } = definition;
        let mut column = column_of(definition, zone, registry)?;
        if all.columns.iter().any(|c: &Column| c.name == *name) {
            return Err(Error::user(
                SqlState::DUPLICATE_COLUMN,
                format!("column \"{name}\" specified more than once"),
            )
            .at(*position));
        }
        column.nullable &= !create.primary_key.contains(name);
        if generated.is_some() && definition.default.is_some() {
            let message = format!(
                "both default and generation expression specified for column \"{name}\" of table \
                 \"{}\"",
                create.name.name
            );
            return Err(Error::user(SqlState::SYNTAX_ERROR, message).at(*position));
        }
        if let Some(e) = generated {
            all.generated.push((all.columns.len(), e.clone()));
        }
        all.columns.push(column);
    }
    for (what, alias) in &create.includes {
        let (name, data_type) = match what {
            Include::Key => ("_key", DataType::Utf8),
            Include::Partition => ("_partition", DataType::Int32),
            Include::Offset => ("_offset", DataType::Int64),
            Include::Timestamp => (
                "_timestamp",
                DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            ),
        };
        let name = alias.clone().unwrap_or_else(|| name.to_string());
        if all.columns.iter().any(|c| c.name == name) {
            return Err(Error::user(
                SqlState::DUPLICATE_COLUMN,
                format!("column \"{name}\" specified more than once"),
            )
            .with_hint("Name the included column with AS."));
        }
        let nullable = matches!(what, Include::Key | Include::Timestamp)
            && !create.primary_key.contains(&name);
        all.includes.push((all.columns.len(), *what));
        all.columns.push(Column {
            name,
            data_type,
            nullable,
            default: None,
            sql_type: String::new(),
        });
    }
    for name in &create.primary_key {
        let at = all.columns.iter().position(|c| c.name == *name);
        let at = at.ok_or_else(|| {
            Error::user(
                SqlState::UNDEFINED_COLUMN,
                format!("column \"{name}\" named in key does not exist"),
            )
            .at(create.name.position.max(1))
        })?;
        if all.key.contains(&at) {
            return Err(Error::user(
                SqlState::DUPLICATE_COLUMN,
                format!("column \"{name}\" appears twice in primary key constraint"),
            )
            .at(create.name.position.max(1)));
        }
        if all.generated.iter().any(|(g, _)| *g == at) {
            return Err(Error::unsupported(format!(
                "generated column \"{name}\" cannot be part of the primary key"
            )));
        }
        if has_record(&all.columns[at].data_type) {
            let message = "a primary key of rows is not supported";
            return Err(Error::unsupported(message)
                .with_hint("Make the fields columns.")
                .at(create.name.position.max(1)));
        }
        all.key.push(at);
    }
    Ok(all)
}

fn watermark_of(create: &CreateRelation, columns: &[Column]) -> Result<Option<Watermark>> {
    let connector = create.options.get("connector").map(String::as_str);
    let idle_micros = idle_timeout(&create.options, connector)?;
    let Some(clause) = &create.watermark else {
        return match idle_micros {
            None => Ok(None),
            Some(_) => Err(Error::user(
                SqlState::INVALID_PARAMETER,
                "option \"idle_timeout\" needs a watermark",
            )
            .with_hint("Add WATERMARK FOR column AS column - INTERVAL '...'.")),
        };
    };
    let find = columns.iter().position(|c| c.name == clause.column);
    let column = find.ok_or_else(|| {
        Error::user(
            SqlState::UNDEFINED_COLUMN,
            format!("column \"{}\" does not exist", clause.column),
        )
        .at(clause.position)
    })?;
    if !matches!(columns[column].data_type, DataType::Timestamp(_, _)) {
        return Err(Error::user(
            SqlState::DATATYPE_MISMATCH,
            format!(
                "the watermark column \"{}\" must be a timestamp",
                clause.column
            ),
        )
        .at(clause.position));
    }
    Ok(Some(Watermark {
        column,
        delay_micros: clause.delay_micros,
        idle_micros,
    }))
}

fn conflict_of(create: &CreateRelation, key: &[usize]) -> Result<Conflict> {
    match create.on_conflict {
        Some(_) if key.is_empty() => Err(Error::user(
            SqlState("42P10"),
            "ON CONFLICT needs a primary key",
        )
        .at(create.name.position.max(1))),
        Some(Conflict::Overwrite | Conflict::Merge) if create.append_only => Err(Error::user(
            SqlState("42P16"),
            "rows of an APPEND ONLY table are not overwritten",
        )
        .at(create.name.position.max(1))
        .with_hint("The first row of a key stays: leave ON CONFLICT out, or write IGNORE.")),
        Some(conflict) => Ok(conflict),
        None if create.append_only && !key.is_empty() => Ok(Conflict::Ignore),
        None => Ok(Conflict::Overwrite),
    }
}

/// The connector in WITH, if there is one.
fn connector_of(create: &CreateRelation, kind: RelationKind) -> Result<Option<ConnectorSpec>> {
    let position = create.name.position.max(1);
    let Some(connector) = create.options.get("connector").map(|c| c.to_lowercase()) else {
        let known = ["on_error", "appendonly", "retention_seconds"];
        let mut keys = create.options.keys().chain(create.secrets.keys());
        if let Some(option) = keys.find(|k| !known.contains(&k.as_str())) {
            return Err(Error::user(
                SqlState::INVALID_PARAMETER,
                format!("unknown option \"{option}\""),
            )
            .at(position)
            .with_hint("An option \"connector\" is missing."));
        }
        return Ok(None);
    };
    if !["kafka", "nexmark", "datagen"].contains(&connector.as_str()) {
        return Err(Error::unsupported(format!(
            "a {} cannot use connector '{connector}'",
            kind.name()
        ))
        .at(position)
        .with_hint("kafka, nexmark and datagen are supported."));
    }
    flag(&create.options, "snapshot", true)?;
    let generator = connector != "kafka";
    let (format, encode, encode_options) = match &create.format {
        Some(clause) if generator && clause.format != Format::Plain => {
            return Err(Error::user(
                SqlState::INVALID_PARAMETER,
                format!("connector '{connector}' makes rows of FORMAT PLAIN only"),
            )
            .at(position)
            .with_hint("Leave FORMAT and ENCODE out."));
        }
        Some(_) if generator => (Format::Plain, Encode::Native, Default::default()),
        Some(FormatClause {
            format,
            encode,
            options,
            ..
        }) => (*format, *encode, options.clone()),
        None if generator => (Format::Plain, Encode::Native, Default::default()),
        None => {
            return Err(
                Error::user(SqlState::SYNTAX_ERROR, "FORMAT and ENCODE are missing")
                    .at(position)
                    .with_hint("Write FORMAT PLAIN ENCODE JSON at the end."),
            );
        }
    };
    let mut encode_options = encode_options;
    if let Some(key_encode) = create.format.as_ref().and_then(|f| f.key_encode.clone()) {
        encode_options.insert("key.encode".into(), key_encode);
    }
    // The columns of the key come from the record key.
    let of_value = |c: &&ColumnDefinition| {
        c.generated.is_none() && (format == Format::Plain || !create.primary_key.contains(&c.name))
    };
    if encode == Encode::Bytes && create.columns.iter().filter(of_value).count() > 1 {
        return Err(
            Error::user(SqlState("42P16"), "ENCODE BYTES fills one BYTEA column").at(position),
        );
    }
    Ok(Some(ConnectorSpec {
        connector,
        options: create.options.clone(),
        hidden: references(&create.secrets, position)?,
        format,
        encode,
        encode_options,
        includes: Vec::new(),
        key: Vec::new(),
    }))
}

/// Errors: `0A000` for what a generated column's expression reads through its functions.
fn check_reads(used: &BTreeSet<RelationId>, catalog: &Catalog) -> Result<()> {
    let mut read = used.iter().filter_map(|id| catalog.relations.get(id));
    match read.find(|r| r.kind != RelationKind::Function) {
        None => Ok(()),
        Some(read) => {
            let message = "cannot use subquery in column generation expression";
            let detail = format!("A function that it calls reads \"{}\".", read.name);
            Err(Error::unsupported(message).with_detail(detail))
        }
    }
}
