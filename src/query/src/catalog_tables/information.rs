//! `information_schema`: the part that tools read. Names of objects are `name`s, as in PostgreSQL.

use super::build::{Row, table};
use super::postgres::{column_type, data_type_name};
use super::{functions, roles};
use crate::definition;
use crate::snapshot::Snapshot;
use crate::types;
use arrow::datatypes::DataType;
use datafusion::catalog::TableProvider;
use std::sync::Arc;
use tidemark_common::Result;
use tidemark_plan::{Column, Relation, RelationKind};

const COLUMNS: &str = "table_catalog name = dev, table_schema name, table_name name, column_name \
                       name, ordinal_position int4, column_default text, is_nullable text, \
                       data_type text, character_maximum_length int4, character_octet_length int4, \
                       numeric_precision int4, numeric_precision_radix int4, numeric_scale int4, \
                       datetime_precision int4, interval_type text, interval_precision int4, \
                       character_set_catalog name, character_set_schema name, character_set_name \
                       name, collation_catalog name, collation_schema name, collation_name name, \
                       domain_catalog name, domain_schema name, domain_name name, udt_catalog name \
                       = dev, udt_schema name = pg_catalog, udt_name name, scope_catalog name, \
                       scope_schema name, scope_name name, maximum_cardinality int4, \
                       dtd_identifier text, is_self_referencing text = NO, is_identity text = NO, \
                       identity_generation text, identity_start text, identity_increment text, \
                       identity_maximum text, identity_minimum text, identity_cycle text = NO, \
                       is_generated text = NEVER, generation_expression text, is_updatable text";

const EMPTY: &[(&str, &str)] = &[
    (
        "referential_constraints",
        "constraint_catalog name, constraint_schema name, constraint_name name, \
         unique_constraint_catalog name, unique_constraint_schema name, unique_constraint_name \
         name, match_option text, update_rule text, delete_rule text",
    ),
    (
        "sequences",
        "sequence_catalog name, sequence_schema name, sequence_name name, data_type text, \
         numeric_precision int4, start_value text, minimum_value text, maximum_value text, \
         increment text, cycle_option text",
    ),
    (
        "triggers",
        "trigger_catalog name, trigger_schema name, trigger_name name, event_manipulation text, \
         event_object_catalog name, event_object_schema name, event_object_table name, \
         action_statement text, action_timing text",
    ),
    (
        "check_constraints",
        "constraint_catalog name, constraint_schema name, constraint_name name, check_clause text",
    ),
    (
        "column_privileges",
        "grantor name, grantee name, table_catalog name, table_schema name, table_name name, \
         column_name name, privilege_type text, is_grantable text",
    ),
    (
        "domains",
        "domain_catalog name, domain_schema name, domain_name name, data_type text",
    ),
    (
        "user_defined_types",
        "user_defined_type_catalog name, user_defined_type_schema name, user_defined_type_name \
         name",
    ),
    (
        "view_table_usage",
        "view_catalog name, view_schema name, view_name name, table_catalog name, table_schema \
         name, table_name name",
    ),
    (
        "view_column_usage",
        "view_catalog name, view_schema name, view_name name, table_catalog name, table_schema \
         name, table_name name, column_name name",
    ),
    (
        "element_types",
        "object_catalog name, object_schema name, object_name name, object_type text, \
         collection_type_identifier text, data_type text",
    ),
    ("enabled_roles", "role_name name"),
    (
        "applicable_roles",
        "grantee name, role_name name, is_grantable text",
    ),
];

fn visible(s: &Snapshot) -> Vec<&Arc<Relation>> {
    s.catalog
        .relations
        .values()
        .filter(|r| {
            use RelationKind::{Function, Index, Sink};
            !matches!(r.kind, Index | Sink | Function)
        })
        .collect()
}

fn keyed(s: &Snapshot) -> Vec<&Arc<Relation>> {
    visible(s)
        .into_iter()
        .filter(|r| r.kind == RelationKind::Table && r.key_declared)
        .collect()
}

/// The table of that name.
pub fn system_table(s: &Snapshot, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
    let built = match name {
        "schemata" => {
            let mut names = vec![
                "pg_catalog".to_string(),
                "public".into(),
                "information_schema".into(),
                "tidemark".into(),
            ];
            names.extend(s.catalog.schemas.iter().cloned());
            let rows = names
                .into_iter()
                .map(|n| vec![("schema_name", n.into())])
                .collect();
            table(
                "catalog_name name = dev, schema_name name, schema_owner name = root, \
                 default_character_set_catalog name, default_character_set_schema name, \
                 default_character_set_name name, sql_path text",
                rows,
            )
        }
        "tables" => table(
            "table_catalog name = dev, table_schema name, table_name name, table_type text, \
             self_referencing_column_name name, reference_generation text, \
             user_defined_type_catalog name, user_defined_type_schema name, user_defined_type_name \
             name, is_insertable_into text, is_typed text = NO, commit_action text",
            visible(s).into_iter().map(|r| table_row(r)).collect(),
        ),
        "views" => table(
            "table_catalog name = dev, table_schema name, table_name name, view_definition text, \
             check_option text = NONE, is_updatable text = NO, is_insertable_into text = NO, \
             is_trigger_updatable text = NO, is_trigger_deletable text = NO, \
             is_trigger_insertable_into text = NO",
            visible(s)
                .into_iter()
                .filter(|r| r.kind == RelationKind::View)
                .map(|r| {
                    vec![
                        ("table_schema", (&r.schema_name).into()),
                        ("table_name", (&r.name).into()),
                        ("view_definition", definition::query_in(s, r).into()),
                    ]
                })
                .collect(),
        ),
        "columns" => table(
            COLUMNS,
            visible(s)
                .into_iter()
                .flat_map(|r| {
                    r.visible()
                        .map(|(i, c)| column_row(r, i, c))
                        .collect::<Vec<_>>()
                })
                .collect(),
        ),
        "table_constraints" => table(
            "constraint_catalog name = dev, constraint_schema name, constraint_name name, \
             table_catalog name = dev, table_schema name, table_name name, constraint_type text = \
             'PRIMARY KEY', is_deferrable text = NO, initially_deferred text = NO, enforced text = \
             YES",
            keyed(s)
                .into_iter()
                .map(|r| {
                    vec![
                        ("constraint_schema", (&r.schema_name).into()),
                        ("constraint_name", format!("{}_pkey", r.name).into()),
                        ("table_schema", (&r.schema_name).into()),
                        ("table_name", (&r.name).into()),
                    ]
                })
                .collect(),
        ),
        "key_column_usage" | "constraint_column_usage" => {
            let usage = name == "key_column_usage";
            let row = |r: &Relation, i: usize, k: usize| {
                let mut row: Row = vec![
                    ("constraint_schema", (&r.schema_name).into()),
                    ("constraint_name", format!("{}_pkey", r.name).into()),
                    ("table_schema", (&r.schema_name).into()),
                    ("table_name", (&r.name).into()),
                    ("column_name", (&r.columns[k].name).into()),
                ];
                if usage {
                    row.push(("ordinal_position", (i + 1).into()));
                }
                row
            };
            let rows = keyed(s)
                .into_iter()
                .flat_map(|r| {
                    r.key
                        .iter()
                        .enumerate()
                        .map(|(i, k)| row(r, i, *k))
                        .collect::<Vec<_>>()
                })
                .collect();
            if usage {
                table(
                    "constraint_catalog name = dev, constraint_schema name, constraint_name name, \
                     table_catalog name = dev, table_schema name, table_name name, column_name \
                     name, ordinal_position int4, position_in_unique_constraint int4",
                    rows,
                )
            } else {
                table(
                    "table_catalog name = dev, table_schema name, table_name name, column_name \
                     name, constraint_catalog name = dev, constraint_schema name, constraint_name \
                     name",
                    rows,
                )
            }
        }
        "role_table_grants" | "table_privileges" => table(
            "grantor name = root, grantee name = root, table_catalog name = dev, table_schema \
                 name, table_name name, privilege_type text, is_grantable text = YES, \
                 with_hierarchy text = NO",
            roles::of_relations(s, visible(s).into_iter()),
        ),
        "routines" => table(
            "specific_catalog name = dev, specific_schema name, specific_name name, \
             routine_catalog name = dev, routine_schema name, routine_name name, routine_type text \
             = FUNCTION, data_type text, type_udt_catalog name = dev, type_udt_schema name = \
             pg_catalog, type_udt_name name, routine_body text = SQL, routine_definition text, \
             external_name text, external_language text = SQL, parameter_style text = GENERAL, \
             is_deterministic text, sql_data_access text = MODIFIES, is_null_call text, \
             security_type text = INVOKER",
            functions::routines(s),
        ),
        "parameters" => table(
            "specific_catalog name = dev, specific_schema name, specific_name name, \
             ordinal_position int4, parameter_mode text = IN, is_result text = NO, as_locator text \
             = NO, parameter_name name, data_type text, udt_catalog name = dev, udt_schema name = \
             pg_catalog, udt_name name, parameter_default text",
            functions::parameters(s),
        ),
        "character_sets" => table(
            "character_set_catalog name, character_set_schema name, character_set_name name = \
             UTF8, character_repertoire name = UCS, form_of_use name = UTF8, \
             default_collate_catalog name = dev",
            vec![vec![]],
        ),
        "information_schema_catalog_name" => table("catalog_name name = dev", vec![vec![]]),
        _ => match EMPTY.iter().find(|(n, _)| *n == name) {
            Some((_, description)) => table(description, Vec::new()),
            None => return Ok(None),
        },
    };
    built.map(Some)
}

fn table_row(r: &Relation) -> Row {
    let kind = match r.kind {
        RelationKind::View => "VIEW",
        RelationKind::MaterializedView => "MATERIALIZED VIEW",
        RelationKind::Source => "SOURCE",
        _ => "BASE TABLE",
    };
    let writable = r.kind == RelationKind::Table && r.connector.is_none();
    vec![
        ("table_schema", (&r.schema_name).into()),
        ("table_name", (&r.name).into()),
        ("table_type", kind.into()),
        (
            "is_insertable_into",
            if writable { "YES" } else { "NO" }.into(),
        ),
    ]
}

fn column_row(r: &Relation, position: usize, c: &Column) -> Row {
    let t = column_type(c);
    let modifier = types::modifier(&c.sql_type);
    let mut row: Row = vec![
        ("table_schema", (&r.schema_name).into()),
        ("table_name", (&r.name).into()),
        ("column_name", (&c.name).into()),
        ("ordinal_position", (position + 1).into()),
        ("column_default", c.default.as_ref().into()),
        ("is_nullable", if c.nullable { "YES" } else { "NO" }.into()),
        ("data_type", data_type_name(c).into()),
        ("udt_name", t.name().into()),
        ("dtd_identifier", (position + 1).to_string().into()),
        (
            "is_updatable",
            if r.kind == RelationKind::Table {
                "YES"
            } else {
                "NO"
            }
            .into(),
        ),
    ];
    if let Some(generated) = r.generated(position) {
        row.push(("is_generated", "ALWAYS".into()));
        row.push(("generation_expression", (&generated.text).into()));
    }
    let precision = |p: i32, radix: i32, scale: i32| {
        vec![
            ("numeric_precision", p.into()),
            ("numeric_precision_radix", radix.into()),
            ("numeric_scale", scale.into()),
        ]
    };
    match &c.data_type {
        DataType::Int16 => row.extend(precision(16, 2, 0)),
        DataType::Int32 => row.extend(precision(32, 2, 0)),
        DataType::Int64 => row.extend(precision(64, 2, 0)),
        DataType::Float32 => row.extend(precision(24, 2, 0).into_iter().take(2)),
        DataType::Float64 => row.extend(precision(53, 2, 0).into_iter().take(2)),
        DataType::Decimal128(p, s) => row.extend(precision((*p).into(), 10, (*s).into())),
        DataType::LargeBinary => row.push(("numeric_precision_radix", 10.into())),
        DataType::Timestamp(..) | DataType::Time64(_) => {
            let digits = if modifier < 0 { 6 } else { modifier };
            row.push(("datetime_precision", digits.into()))
        }
        DataType::Interval(_) => {
            let name = types::format_type(&t, modifier).to_uppercase();
            row.push((
                "datetime_precision",
                types::interval_parts(modifier).1.into(),
            ));
            let fields = name.strip_prefix("INTERVAL ").map(String::from);
            row.push(("interval_type", fields.into()));
        }
        DataType::Date32 => row.push(("datetime_precision", 0.into())),
        DataType::Utf8 | DataType::LargeUtf8 if modifier >= 4 => {
            row.push(("character_maximum_length", (modifier - 4).into()))
        }
        _ => {}
    }
    row
}
