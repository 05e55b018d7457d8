//! PostgreSQL's system functions. They are evaluated row by row over texts: nobody calls them for a
//! million rows.
//!
//! Three lists: [`shared`] knows nothing, [`of_session`] knows the connection, [`of_snapshot`]
//! knows the statement: its catalog, its settings, who asks.

use super::array_functions::ExpandArray;
use crate::catalog_tables::{oids, roles};
use crate::commons::Commons;
use crate::identifiers::quote_ident;
use crate::snapshot::Snapshot;
use crate::types;
use arrow::array::{Array, ArrayRef, AsArray, StringArray};
use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::{DFSchema, DataFusionError, Result};
use datafusion::execution::SessionState;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, ScalarFunctionArgs,
    ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::SocketAddr;
use std::sync::Arc;
use tidemark_common::{Error, SqlState};
use tidemark_operator::functions::cast_array;
use tidemark_plan::{Relation, RelationKind};
use tidemark_planner::SessionZone;
use tidemark_planner::functions::{declared, definition, parameters_text, returned_text};

/// One row's arguments, as text.
pub(super) type Arguments<'a> = &'a [Option<String>];
type Body = dyn Fn(Arguments) -> Result<Option<String>, Error> + Send + Sync;

/// A function over texts.
struct RowFunction {
    name: String,
    /// How many arguments it has at least: its body looks at no more without asking.
    least: usize,
    output: DataType,
    signature: Signature,
    body: Arc<Body>,
}

impl fmt::Debug for RowFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}
impl PartialEq for RowFunction {
    fn eq(&self, other: &RowFunction) -> bool {
        self.name == other.name && Arc::ptr_eq(&self.body, &other.body)
    }
}
impl Eq for RowFunction {}
impl Hash for RowFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl ScalarUDFImpl for RowFunction {
    fn name(&self) -> &str {
        &self.name
    }
    fn signature(&self) -> &Signature {
        &self.signature
    }
    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        if types.len() < self.least {
            return Err(no_function(&self.name, types));
        }
        Ok(self.output.clone())
    }
    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        // What does something does it once for each row.
        let scalar = self.signature.volatility != Volatility::Volatile
            && args
                .args
                .iter()
                .all(|a| matches!(a, ColumnarValue::Scalar(_)));
        let rows = if scalar { 1 } else { args.number_rows };
        let texts: Vec<ArrayRef> = args
            .args
            .into_iter()
            .map(|a| cast_array(&a.into_array(rows)?, &DataType::Utf8))
            .collect::<Result<_>>()?;
        let mut values: Vec<Option<String>> = Vec::with_capacity(rows);
        for row in 0..rows {
            let arguments: Vec<Option<String>> = texts
                .iter()
                .map(|t| {
                    t.is_valid(row)
                        .then(|| t.as_string::<i32>().value(row).to_string())
                })
                .collect();
            values
                .push((self.body)(&arguments).map_err(|e| DataFusionError::External(Box::new(e)))?);
        }
        let array: ArrayRef = Arc::new(StringArray::from(values));
        let array = match &self.output {
            DataType::Utf8 => array,
            DataType::Timestamp(..) => {
                let micros = arrow::compute::cast(&array, &DataType::Int64)?;
                arrow::compute::cast(&micros, &self.output)?
            }
            DataType::List(_) => arrow::compute::cast(&text_lists(&array), &self.output)?,
            other => arrow::compute::cast(&array, other)?,
        };
        if scalar {
            Ok(ColumnarValue::Scalar(
                datafusion::common::ScalarValue::try_from_array(&array, 0)?,
            ))
        } else {
            Ok(ColumnarValue::Array(array))
        }
    }
}

/// `42883` for arguments that a function does not take.
pub(super) fn no_function(name: &str, types: &[DataType]) -> DataFusionError {
    let display = |t: &DataType| match t {
        DataType::Null => "unknown".to_string(),
        t => types::display_name(&types::of_arrow(t)).to_string(),
    };
    let types: Vec<String> = types.iter().map(display).collect();
    let e = Error::user(
        SqlState::UNDEFINED_FUNCTION,
        format!("function {name}({}) does not exist", types.join(", ")),
    )
    .with_hint(
        "No function matches the given name and argument types. You might need to add explicit \
         type casts.",
    );
    DataFusionError::External(Box::new(e))
}

/// Texts with elements between line feeds, as lists of text.
fn text_lists(array: &ArrayRef) -> ArrayRef {
    let mut builder = arrow::array::ListBuilder::new(arrow::array::StringBuilder::new());
    for text in array.as_string::<i32>() {
        for element in text
            .unwrap_or_default()
            .split('\n')
            .filter(|e| !e.is_empty())
        {
            builder.values().append_value(element);
        }
        builder.append(text.is_some());
    }
    Arc::new(builder.finish())
}

pub(super) fn function(
    name: &str,
    output: DataType,
    volatility: Volatility,
    least: usize,
    body: impl Fn(Arguments) -> Result<Option<String>, Error> + Send + Sync + 'static,
) -> Arc<ScalarUDF> {
    let signature = Signature::one_of(
        vec![
            datafusion::logical_expr::TypeSignature::VariadicAny,
            datafusion::logical_expr::TypeSignature::Nullary,
        ],
        volatility,
    );
    Arc::new(ScalarUDF::from(RowFunction {
        name: name.into(),
        least,
        output,
        signature,
        body: Arc::new(body),
    }))
}

pub(super) fn stable(
    name: &str,
    output: DataType,
    least: usize,
    body: impl Fn(Arguments) -> Result<Option<String>, Error> + Send + Sync + 'static,
) -> Arc<ScalarUDF> {
    function(name, output, Volatility::Stable, least, body)
}

pub(super) fn constant(name: &str, output: DataType, value: Option<&str>) -> Arc<ScalarUDF> {
    let value = value.map(str::to_string);
    stable(name, output, 0, move |_| Ok(value.clone()))
}

pub(super) fn list() -> DataType {
    DataType::List(Arc::new(arrow::datatypes::Field::new_list_field(
        DataType::Utf8,
        true,
    )))
}

/// Functions that answer the same to everybody.
pub fn shared() -> Vec<Arc<ScalarUDF>> {
    use DataType::{Boolean, Int32, Int64, Utf8};
    let version = format!(
        "PostgreSQL {} on Tidemark {}",
        crate::settings::SERVER_VERSION,
        env!("CARGO_PKG_VERSION")
    );
    let mut all = vec![
        constant("version", Utf8, Some(&version)),
        constant("current_database", Utf8, Some("dev")),
        constant("current_catalog", Utf8, Some("dev")),
        stable("pg_encoding_to_char", Utf8, 1, |a| {
            Ok(a[0].as_ref().map(|e| {
                if e == "6" {
                    "UTF8".into()
                } else {
                    String::new()
                }
            }))
        }),
        constant("pg_is_in_recovery", Boolean, Some("false")),
        constant("pg_my_temp_schema", Int32, Some("0")),
        constant("pg_is_other_temp_schema", Boolean, Some("false")),
        constant("pg_get_partkeydef", Utf8, None),
        constant("pg_get_function_sqlbody", Utf8, None),
        constant("pg_get_triggerdef", Utf8, None),
        constant("pg_get_ruledef", Utf8, None),
        constant("pg_get_serial_sequence", Utf8, None),
        constant("pg_get_statisticsobjdef_columns", Utf8, None),
        constant("pg_tablespace_location", Utf8, Some("")),
        constant("shobj_description", Utf8, None),
        constant("pg_relation_is_publishable", Boolean, Some("true")),
        constant("pg_stat_get_numscans", Int64, Some("0")),
        constant("pg_partition_ancestors", Int32, None),
        constant("pg_char_to_encoding", Int32, Some("6")),
        constant("pg_collation_for", Utf8, None),
        constant("pg_column_is_updatable", Boolean, Some("true")),
        constant("pg_relation_is_updatable", Int32, Some("28")),
        constant("getdatabaseencoding", Utf8, Some("UTF8")),
        constant("pg_stat_get_backend_idset", Int32, None),
        stable("to_regtype", Int32, 1, |a| {
            let oid = |n: &str| {
                n.parse::<i32>()
                    .ok()
                    .or_else(|| crate::types::by_name(n).map(|t| t.oid() as i32))
            };
            Ok(a[0].as_deref().and_then(oid).map(|o| o.to_string()))
        }),
        Arc::new(ScalarUDF::from(ExpandArray::new())),
        constant("pg_collation_is_visible", Boolean, Some("true")),
        stable("pg_get_expr", Utf8, 2, |a| Ok(a[0].clone())),
        stable("format_type", Utf8, 2, |a| {
            Ok(a[0]
                .as_deref()
                .and_then(|oid| format_type(oid, a.get(1)?.as_deref())))
        }),
    ];
    for name in [
        "type",
        "function",
        "operator",
        "opclass",
        "conversion",
        "ts_dict",
        "ts_config",
        "ts_parser",
        "ts_template",
        "opfamily",
        "statistics_obj",
    ] {
        all.push(constant(
            &format!("pg_{name}_is_visible"),
            Boolean,
            Some("true"),
        ));
    }
    all
}

/// Functions that know the connection.
pub fn of_session(pid: i32, commons: &Arc<Commons>) -> Vec<Arc<ScalarUDF>> {
    let own = constant("pg_backend_pid", DataType::Int32, Some(&pid.to_string()));
    let mut all = vec![own, blocking_pids(commons)];
    all.extend(addresses(pid, commons));
    all
}

/// Who talks to whom. Clients of a socket without address have none, as in PostgreSQL.
fn addresses(pid: i32, commons: &Arc<Commons>) -> Vec<Arc<ScalarUDF>> {
    let of_client = commons.clients.list().into_iter().find(|(p, _)| *p == pid);
    let client = of_client.and_then(|(_, c)| c.address.parse::<SocketAddr>().ok());
    let own = commons.address.parse::<SocketAddr>().ok();
    let ip = |a: Option<SocketAddr>| a.map(|a| a.ip().to_string());
    let port = |a: Option<SocketAddr>| a.map(|a| a.port().to_string());
    let started = commons.started.to_string();
    let moment = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    vec![
        constant("inet_client_addr", DataType::Utf8, ip(client).as_deref()),
        constant("inet_client_port", DataType::Int32, port(client).as_deref()),
        constant("inet_server_addr", DataType::Utf8, ip(own).as_deref()),
        constant("inet_server_port", DataType::Int32, port(own).as_deref()),
        stable("pg_postmaster_start_time", moment, 0, move |_| {
            Ok(Some(started.clone()))
        }),
    ]
}

/// `pg_blocking_pids(pid)`: the sessions whose locks it waits for.
fn blocking_pids(commons: &Arc<Commons>) -> Arc<ScalarUDF> {
    let commons = Arc::downgrade(commons);
    let item = arrow::datatypes::Field::new_list_field(DataType::Int32, true);
    let output = DataType::List(Arc::new(item));
    function(
        "pg_blocking_pids",
        output,
        Volatility::Volatile,
        1,
        move |a| {
            let pid = a.first().and_then(|pid| pid.as_deref()?.parse().ok());
            let blockers = pid.zip(commons.upgrade()).map(|(pid, commons)| {
                let mut all = commons.engine.blockers(pid);
                all.extend(commons.advisory.blockers(pid));
                all.sort_unstable();
                all.dedup();
                all
            });
            let texts = |all: Vec<i32>| all.iter().map(i32::to_string).collect::<Vec<_>>();
            Ok(blockers.map(|all| texts(all).join("\n")))
        },
    )
}

fn is_schema(snapshot: &Snapshot, name: &str) -> bool {
    const SYSTEM: [&str; 3] = ["public", "pg_catalog", "information_schema"];
    SYSTEM.contains(&name) || snapshot.catalog.schemas.iter().any(|s| s == name)
}

/// Functions that know the statement's catalog and settings.
pub fn of_snapshot(snapshot: &Snapshot, name: &str) -> Option<Arc<ScalarUDF>> {
    use DataType::{Boolean, Int32, Utf8};
    let s = snapshot.clone();
    Some(match name {
        "current_schema" => {
            let mut there = s.search_path.iter().filter(|schema| is_schema(&s, schema));
            constant(name, Utf8, there.next().map(String::as_str))
        }
        "pg_get_userbyid" => stable(name, Utf8, 1, move |a| {
            let role = |oid: &str| roles::name(&s.catalog, oid);
            let unknown = |oid: &str| format!("unknown (OID={oid})");
            let name = a[0]
                .as_deref()
                .map(|oid| role(oid).unwrap_or_else(|| unknown(oid)));
            Ok(name)
        }),
        "current_schemas" => stable(name, list(), 1, move |a| {
            let mut schemas = if a[0].as_deref() == Some("true") {
                vec!["pg_catalog".to_string()]
            } else {
                Vec::new()
            };
            let there = s.search_path.iter().filter(|schema| is_schema(&s, schema));
            schemas.extend(there.cloned());
            Ok(Some(schemas.join("\n")))
        }),
        "pg_table_is_visible" => stable(name, Boolean, 1, move |a| {
            let relation = a[0]
                .as_deref()
                .and_then(|oid| relation_of(&s, oid).cloned());
            Ok(a[0].as_ref().map(|_| {
                relation
                    .is_none_or(|r| s.search_path.contains(&r.schema_name))
                    .to_string()
            }))
        }),
        "to_regclass" => stable(name, Int32, 1, move |a| {
            let oid = |n: &str| n.parse::<i32>().ok().or_else(|| oid_of_name(&s, n));
            Ok(a[0].as_deref().and_then(oid).map(|o| o.to_string()))
        }),
        "to_regnamespace" => stable(name, Int32, 1, move |a| {
            let oid = |n: &str| {
                n.parse::<i32>()
                    .unwrap_or_else(|_| oids::of_schema(n, &s.catalog.schemas))
            };
            Ok(a[0].as_deref().map(|n| oid(n).to_string()))
        }),
        "regclass_name" => stable(name, Utf8, 1, move |a| {
            Ok(a[0].as_deref().map(|oid| match relation_of(&s, oid) {
                Some(r) if s.search_path.contains(&r.schema_name) => quote_ident(&r.name),
                Some(r) => format!("{}.{}", quote_ident(&r.schema_name), quote_ident(&r.name)),
                None => key_index_name(&s, oid).unwrap_or_else(|| oid.to_string()),
            }))
        }),
        "regnamespace_name" => stable(name, Utf8, 1, move |a| {
            let own = ["pg_catalog", "public", "information_schema", "tidemark"]
                .iter()
                .map(|n| n.to_string());
            let name_of = |oid: &str| {
                own.chain(s.catalog.schemas.iter().cloned())
                    .find(|n| oids::of_schema(n, &s.catalog.schemas).to_string() == oid)
            };
            Ok(a[0].as_deref().and_then(name_of))
        }),
        "pg_get_viewdef" => stable(name, Utf8, 1, move |a| {
            let relation = a[0].as_deref().and_then(|v| {
                relation_of(&s, v)
                    .cloned()
                    .or_else(|| named(&s, v).cloned())
            });
            Ok(relation
                .filter(|r| matches!(r.kind, RelationKind::View | RelationKind::MaterializedView))
                .map(|r| crate::definition::query_in(&s, &r))
                .map(|query| format!(" {};", query.trim().trim_end_matches(';'))))
        }),
        "to_regproc" => stable(name, Int32, 1, move |a| {
            let oid = |name: &str| {
                let known = name.parse::<i32>().ok();
                let made = || oid_of_function(&s, name);
                known
                    .or_else(made)
                    .or_else(|| crate::catalog_tables::statics::function_oid(name))
            };
            Ok(a[0].as_deref().and_then(oid).map(|oid| oid.to_string()))
        }),
        "pg_get_functiondef"
        | "pg_get_function_result"
        | "pg_get_function_arguments"
        | "pg_get_function_identity_arguments" => {
            let which = name.to_string();
            stable(name, Utf8, 1, move |a| {
                let function = a[0].as_deref().and_then(|oid| relation_of(&s, oid));
                let function = function.filter(|r| r.kind == RelationKind::Function);
                Ok(function.and_then(|f| text_of_function(&which, f)))
            })
        }
        "pg_get_indexdef" => stable(name, Utf8, 1, move |a| {
            Ok(a[0].as_deref().and_then(|oid| {
                index_definition(
                    &s,
                    oid,
                    a.get(1)
                        .and_then(|c| c.as_deref()?.parse().ok())
                        .unwrap_or(0),
                )
            }))
        }),
        "pg_get_constraintdef" => stable(name, Utf8, 1, move |a| {
            let relation = a[0]
                .as_deref()
                .and_then(|oid| oids::relation_of_constraint(oid.parse().ok()?))
                .and_then(|id| s.catalog.relations.get(&id).cloned());
            Ok(relation.map(|r| format!("PRIMARY KEY ({})", key_names(&r))))
        }),
        "obj_description" => stable(name, Utf8, 1, move |a| {
            let of_kind = |r: &&Relation| {
                let catalog = match r.kind {
                    RelationKind::Function => "pg_proc",
                    _ => "pg_class",
                };
                a.get(1).is_none_or(|c| c.as_deref() == Some(catalog))
            };
            let relation = a[0].as_deref().and_then(|oid| relation_of(&s, oid));
            let relation = relation.map(AsRef::as_ref).filter(of_kind);
            Ok(relation.and_then(|r| r.comment.clone()))
        }),
        "col_description" => constant(name, Utf8, None),
        _ => {
            return super::session_functions::of_statement(snapshot, name)
                .or_else(|| super::privileges::of_statement(snapshot, name))
                .or_else(|| super::sizes::of_statement(snapshot, name));
        }
    })
}

/// The oid of a function that a statement made, by its name, with or without a schema and types.
fn oid_of_function(snapshot: &Snapshot, name: &str) -> Option<i32> {
    let name = name.split('(').next().unwrap_or(name).trim().to_lowercase();
    let (schema, name) = match name.rsplit_once('.') {
        Some((schema, name)) => (Some(schema.to_string()), name),
        None => (None, name.as_str()),
    };
    let schemas = schema
        .as_ref()
        .map_or(&snapshot.search_path[..], std::slice::from_ref);
    let mut found = schemas
        .iter()
        .flat_map(|s| snapshot.catalog.functions(s, name));
    found.next().map(|function| oids::of_relation(function.id))
}

/// What a function of the catalog says of a function that a statement made; none of one that this
/// build cannot read.
fn text_of_function(which: &str, function: &Relation) -> Option<String> {
    match which {
        "pg_get_functiondef" => definition(function).ok(),
        "pg_get_function_result" => returned_text(&declared(function).ok()?).ok(),
        which => Some(parameters_text(
            function,
            which == "pg_get_function_arguments",
        )),
    }
}

/// The oid of a relation by its name, qualified or not; also of the system catalogs.
pub fn oid_of_name(snapshot: &Snapshot, name: &str) -> Option<i32> {
    let clean = if name.contains('"') {
        name.replace('"', "")
    } else {
        name.to_lowercase()
    };
    let (schema, name) = match clean.rsplit_once('.') {
        Some((schema, name)) => (Some(schema.rsplit('.').next().unwrap_or(schema)), name),
        None => (None, clean.as_str()),
    };
    if let Some(relation) = snapshot.find(schema, name) {
        return Some(oids::of_relation(relation.id));
    }
    oids::of_system_table(name)
}

fn key_index_name(snapshot: &Snapshot, oid: &str) -> Option<String> {
    let relation = snapshot
        .catalog
        .relations
        .get(&oids::relation_of_key_index(oid.parse().ok()?)?)?;
    Some(quote_ident(&format!("{}_pkey", relation.name)))
}

/// The relation of a name as text, with or without its schema.
fn named<'a>(snapshot: &'a Snapshot, name: &str) -> Option<&'a Arc<Relation>> {
    relation_of(snapshot, &oid_of_name(snapshot, name)?.to_string())
}

pub(super) fn relation_of<'a>(snapshot: &'a Snapshot, oid: &str) -> Option<&'a Arc<Relation>> {
    snapshot
        .catalog
        .relations
        .get(&oids::relation(oid.parse().ok()?)?)
}

fn key_names(relation: &Relation) -> String {
    relation
        .key
        .iter()
        .map(|k| quote_ident(&relation.columns[*k].name))
        .collect::<Vec<_>>()
        .join(", ")
}

/// The text of an index, or of its column `column` (1, 2, ...).
fn index_definition(snapshot: &Snapshot, oid: &str, column: usize) -> Option<String> {
    let oid: i32 = oid.parse().ok()?;
    if let Some(id) = oids::relation_of_key_index(oid) {
        let relation = snapshot.catalog.relations.get(&id)?;
        if column > 0 {
            return relation
                .key
                .get(column - 1)
                .map(|k| quote_ident(&relation.columns[*k].name));
        }
        return Some(format!(
            "CREATE UNIQUE INDEX {}_pkey ON {}.{} USING btree ({})",
            relation.name,
            relation.schema_name,
            quote_ident(&relation.name),
            key_names(relation)
        ));
    }
    let index = snapshot.catalog.relations.get(&oids::relation(oid)?)?;
    if column > 0 {
        return index.columns.get(column - 1).map(|c| quote_ident(&c.name));
    }
    Some(crate::definition::index(&snapshot.catalog, index))
}

fn format_type(oid: &str, modifier: Option<&str>) -> Option<String> {
    let oid: u32 = oid.parse().ok()?;
    if oid == 0 {
        return Some("-".into());
    }
    let t = postgres_types::Type::from_oid(oid);
    let modifier = modifier.and_then(|m| m.parse().ok()).unwrap_or(-1);
    Some(t.map_or_else(
        || "???".into(),
        |t| {
            let known = types::format_type(&t, modifier);
            if known == "text" && t != postgres_types::Type::TEXT {
                t.name().to_string()
            } else {
                known
            }
        },
    ))
}

/// An argument with the session's time zone, which the rules of types write into it.
fn analysed(state: &SessionState, argument: Expr) -> Result<Expr> {
    let plan = LogicalPlanBuilder::empty(true)
        .project([argument.clone()])?
        .build()?;
    let rules = state.analyzer();
    let plan = rules.execute_and_check(plan, state.config_options(), |_, _| {})?;
    Ok(match plan {
        LogicalPlan::Projection(projection) => {
            let mut exprs = projection.expr.into_iter();
            exprs.next().map_or(argument, Expr::unalias)
        }
        _ => argument,
    })
}

/// Refuses a series of moments a day or a month apart: DataFusion counts days in UTC.
pub fn check_series(state: &SessionState, name: &str, args: &[Expr]) -> Result<()> {
    use datafusion::common::ScalarValue as S;
    let moments = args.iter().any(|arg| {
        arg.get_type(&DFSchema::empty())
            .is_ok_and(|t| matches!(t, DataType::Timestamp(_, Some(_))))
    });
    let days = args.iter().any(|arg| {
        matches!(arg, Expr::Literal(S::IntervalMonthDayNano(Some(span)), _)
            if span.months != 0 || span.days != 0)
    });
    if !moments || !days || SessionZone::of(state.config_options()).is_none() {
        return Ok(());
    }
    let message = format!(
        "{name} of timestamp with time zone in steps of days or months is not supported outside UTC"
    );
    let error = Error::unsupported(message)
        .with_hint("Make a series of timestamps, and take them AT TIME ZONE.");
    Err(DataFusionError::External(Box::new(error)))
}

/// A table function's argument as a constant where it is one.
pub fn fold_argument(state: &SessionState, mut argument: Expr) -> Result<Expr> {
    if SessionZone::of(state.config_options()).is_some() {
        argument = analysed(state, argument)?;
    }
    let context = SimplifyContext::builder()
        .with_config_options(Arc::clone(state.config_options()))
        .build();
    let simplifier = ExprSimplifier::new(context);
    let argument = simplifier.coerce(argument, &DFSchema::empty())?;
    Ok(match simplifier.simplify(argument)? {
        Expr::Literal(datafusion::common::ScalarValue::Int32(n), m) => {
            Expr::Literal(datafusion::common::ScalarValue::Int64(n.map(i64::from)), m)
        }
        other => other,
    })
}
