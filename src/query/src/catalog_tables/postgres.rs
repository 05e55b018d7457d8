//! `pg_catalog`: relations, columns, keys, indexes and comments as PostgreSQL's tables. Types,
//! functions and operators are exports of a PostgreSQL's own catalog ([`statics`]).
//!
//! Kinds in `pg_class`: table `r`, view `v`, materialized view `m`, index `i`. Sources and sinks
//! are not tables to PostgreSQL's tools: a source is shown as a foreign table `f` of a server that
//! has its connector's name, a sink is left out. Options are not shown there: they may hold
//! passwords.

use super::build::{Cell, Row, table};
use super::functions;
use super::oids;
use super::roles;
use super::sessions;
use super::statics;
use super::zones;
use crate::definition;
use crate::snapshot::Snapshot;
use crate::types;
use arrow::datatypes::DataType;
use datafusion::catalog::TableProvider;
use postgres_types::Type;
use std::collections::BTreeSet;
use std::sync::Arc;
use tidemark_common::Result;
use tidemark_plan::{Column, Object, ROOT, Relation, RelationKind};

const DATABASE: i32 = 1;

const PG_CLASS: &str = "oid oid, relname name, relnamespace oid, reltype oid = 0, reloftype oid = \
                        0, relowner oid = 10, relam oid = 0, relfilenode oid = 0, reltablespace \
                        oid = 0, relpages int4 = 0, reltuples float4 = -1, relallvisible int4 = 0, \
                        reltoastrelid oid = 0, relhasindex bool = false, relisshared bool = false, \
                        relpersistence char = p, relkind char, relnatts int2 = 0, relchecks int2 = \
                        0, relhasrules bool = false, relhastriggers bool = false, relhassubclass \
                        bool = false, relrowsecurity bool = false, relforcerowsecurity bool = \
                        false, relispopulated bool = true, relreplident char = d, relispartition \
                        bool = false, relrewrite oid = 0, relfrozenxid int4 = 0, relminmxid int4 = \
                        0, relacl text[], reloptions text[], relpartbound text, relhasoids bool = \
                        false";

const PG_ATTRIBUTE: &str = "attrelid oid, attname name, atttypid oid, attstattarget int4 = -1, \
                            attlen int2, attnum int2, attndims int4 = 0, attcacheoff int4 = -1, \
                            atttypmod int4 = -1, attbyval bool = false, attstorage char = p, \
                            attalign char = i, attnotnull bool = false, atthasdef bool = false, \
                            atthasmissing bool = false, attidentity char = '', attgenerated char = \
                            '', attisdropped bool = false, attislocal bool = true, attinhcount \
                            int4 = 0, attcollation oid = 0, attacl text[], attoptions text[], \
                            attfdwoptions text[], attmissingval text, attcompression char = ''";

const PG_INDEX: &str = "indexrelid oid, indrelid oid, indnatts int2, indnkeyatts int2, indisunique \
                        bool = false, indnullsnotdistinct bool = false, indisprimary bool = false, \
                        indisexclusion bool = false, indimmediate bool = true, indisclustered bool \
                        = false, indisvalid bool = true, indcheckxmin bool = false, indisready \
                        bool = true, indislive bool = true, indisreplident bool = false, indkey \
                        int2vector, indcollation oidvector, indclass oidvector, indoption \
                        int2vector, indexprs text, indpred text";

const PG_CONSTRAINT: &str = "oid oid, conname name, connamespace oid, contype char, condeferrable \
                             bool = false, condeferred bool = false, convalidated bool = true, \
                             conrelid oid, contypid oid = 0, conindid oid = 0, conparentid oid = \
                             0, confrelid oid = 0, confupdtype char = '', confdeltype char = '', \
                             confmatchtype char = '', conislocal bool = true, coninhcount int4 = \
                             0, connoinherit bool = true, conkey int2[], confkey int2[], conpfeqop \
                             oid[], conppeqop oid[], conffeqop oid[], conexclop oid[], conbin \
                             text, confdelsetcols int2[], conperiod bool = false";

const PG_DATABASE: &str = "oid oid, datname name, datdba oid = 10, encoding int4 = 6, \
                           datlocprovider char = c, datistemplate bool = false, datallowconn bool \
                           = true, datconnlimit int4 = -1, datlastsysoid oid = 13000, datfrozenxid \
                           int4 = 0, datminmxid int4 = 0, dattablespace oid = 1663, datcollate \
                           text = C, datctype text = C.UTF-8, daticulocale text, datlocale text, \
                           daticurules text, datcollversion text, datacl text[]";

const PG_ROLES: &str = "rolname name, rolsuper bool = true, rolinherit bool = true, rolcreaterole \
                        bool = true, rolcreatedb bool = true, rolcanlogin bool = true, \
                        rolreplication bool = false, rolconnlimit int4 = -1, rolpassword text = \
                        ********, rolvaliduntil timestamptz, rolbypassrls bool = true, rolconfig \
                        text[], oid oid = 10";

/// System views and tables that have no rows here and are not among the exports.
const EMPTY: &[(&str, &str)] = &[
    (
        "pg_prepared_xacts",
        "transaction int4, gid text, prepared timestamptz, owner name, database name",
    ),
    (
        "pg_cursors",
        "name text, statement text, is_holdable bool, is_binary bool, is_scrollable bool, \
         creation_time timestamptz",
    ),
    (
        "pg_available_extensions",
        "name name, default_version text, installed_version text, comment text",
    ),
    (
        "pg_available_extension_versions",
        "name name, version text, installed bool, superuser bool, trusted bool, relocatable bool, \
         schema name, requires text[], comment text",
    ),
    (
        "pg_sequences",
        "schemaname name, sequencename name, sequenceowner name, data_type text, start_value int8, \
         min_value int8, max_value int8, increment_by int8, cycle bool, cache_size int8, \
         last_value int8",
    ),
    (
        "pg_rules",
        "schemaname name, tablename name, rulename name, definition text",
    ),
    (
        "pg_policies",
        "schemaname name, tablename name, policyname name, permissive text, roles text[], cmd \
         text, qual text, with_check text",
    ),
    ("pg_group", "groname name, grosysid oid, grolist oid[]"),
    (
        "pg_seclabels",
        "objoid oid, classoid oid, objsubid int4, objtype text, objnamespace oid, objname text, \
         provider text, label text",
    ),
    (
        "pg_publication_tables",
        "pubname name, schemaname name, tablename name",
    ),
    (
        "pg_stat_replication",
        "pid int4, usesysid oid, usename name, application_name text, client_addr text, state \
         text, sync_state text",
    ),
    (
        "pg_stats",
        "schemaname name, tablename name, attname name, inherited bool, null_frac float4, \
         avg_width int4, n_distinct float4, correlation float4",
    ),
    (
        "pg_stat_user_indexes",
        "relid oid, indexrelid oid, schemaname name, relname name, indexrelname name, idx_scan \
         int8, idx_tup_read int8, idx_tup_fetch int8",
    ),
    (
        "pg_depend",
        "classid oid, objid oid, objsubid int4, refclassid oid, refobjid oid, refobjsubid int4, \
         deptype char",
    ),
    (
        "pg_rewrite",
        "oid oid, rulename name, ev_class oid, ev_type char, ev_enabled char, is_instead bool, \
         ev_qual text, ev_action text",
    ),
    (
        "pg_inherits",
        "inhrelid oid, inhparent oid, inhseqno int4, inhdetachpending bool",
    ),
    (
        "pg_trigger",
        "oid oid, tgrelid oid, tgparentid oid, tgname name, tgfoid oid, tgtype int2, tgenabled \
         char, tgisinternal bool, tgconstrrelid oid, tgconstrindid oid, tgconstraint oid, \
         tgdeferrable bool, tginitdeferred bool, tgnargs int2, tgattr int2[], tgargs text, tgqual \
         text, tgoldtable name, tgnewtable name",
    ),
    (
        "pg_policy",
        "oid oid, polname name, polrelid oid, polcmd char, polpermissive bool, polroles oid[], \
         polqual text, polwithcheck text",
    ),
    (
        "pg_publication",
        "oid oid, pubname name, pubowner oid, puballtables bool, pubinsert bool, pubupdate bool, \
         pubdelete bool, pubtruncate bool, pubviaroot bool",
    ),
    (
        "pg_publication_rel",
        "oid oid, prpubid oid, prrelid oid, prqual text, prattrs int2[]",
    ),
    (
        "pg_publication_namespace",
        "oid oid, pnpubid oid, pnnspid oid",
    ),
    (
        "pg_statistic_ext",
        "oid oid, stxrelid oid, stxname name, stxnamespace oid, stxowner oid, stxstattarget int4, \
         stxkeys int2[], stxkind text[], stxexprs text",
    ),
    (
        "pg_sequence",
        "seqrelid oid, seqtypid oid, seqstart int8, seqincrement int8, seqmax int8, seqmin int8, \
         seqcache int8, seqcycle bool",
    ),
    (
        "pg_partitioned_table",
        "partrelid oid, partstrat char, partnatts int2, partdefid oid, partattrs int2[], partclass \
         oid[], partcollation oid[], partexprs text",
    ),
    (
        "pg_shdescription",
        "objoid oid, classoid oid, description text",
    ),
    (
        "pg_db_role_setting",
        "setdatabase oid, setrole oid, setconfig text[]",
    ),
    (
        "pg_enum",
        "oid oid, enumtypid oid, enumsortorder float4, enumlabel name",
    ),
    (
        "pg_event_trigger",
        "oid oid, evtname name, evtevent name, evtowner oid, evtfoid oid, evtenabled char, evttags \
         text[]",
    ),
    (
        "pg_extension",
        "oid oid, extname name, extowner oid, extnamespace oid, extrelocatable bool, extversion \
         text, extconfig oid[], extcondition text[]",
    ),
    (
        "pg_init_privs",
        "objoid oid, classoid oid, objsubid int4, privtype char, initprivs text[]",
    ),
    ("pg_largeobject", "loid oid, pageno int4, data text"),
    (
        "pg_largeobject_metadata",
        "oid oid, lomowner oid, lomacl text[]",
    ),
    ("pg_replication_origin", "roident oid, roname text"),
    (
        "pg_seclabel",
        "objoid oid, classoid oid, objsubid int4, provider text, label text",
    ),
    (
        "pg_shdepend",
        "dbid oid, classid oid, objid oid, objsubid int4, refclassid oid, refobjid oid, deptype \
         char",
    ),
    (
        "pg_shseclabel",
        "objoid oid, classoid oid, provider text, label text",
    ),
    (
        "pg_statistic",
        "starelid oid, staattnum int2, stainherit bool, stanullfrac float4, stawidth int4, \
         stadistinct float4",
    ),
    (
        "pg_statistic_ext_data",
        "stxoid oid, stxdinherit bool, stxdndistinct text, stxddependencies text, stxdmcv text, \
         stxdexpr text",
    ),
    (
        "pg_subscription",
        "oid oid, subdbid oid, subskiplsn text, subname name, subowner oid, subenabled bool, \
         subbinary bool, substream bool, subtwophasestate char, subdisableonerr bool, \
         subpasswordrequired bool, subrunasowner bool, subfailover bool, subconninfo text, \
         subslotname name, subsynccommit text, subpublications text[], suborigin text",
    ),
    (
        "pg_subscription_rel",
        "srsubid oid, srrelid oid, srsubstate char, srsublsn text",
    ),
    (
        "pg_user_mapping",
        "oid oid, umuser oid, umserver oid, umoptions text[]",
    ),
];

/// The table of that name.
pub fn system_table(snapshot: &Snapshot, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
    let built = match name {
        "pg_class" => table(PG_CLASS, classes(snapshot)),
        "pg_attribute" => table(PG_ATTRIBUTE, attributes(snapshot)),
        "pg_namespace" => table(
            "oid oid, nspname name, nspowner oid = 10, nspacl text[]",
            namespaces(snapshot),
        ),
        "pg_index" => table(PG_INDEX, indexes(snapshot)),
        "pg_constraint" => table(PG_CONSTRAINT, constraints(snapshot)),
        "pg_attrdef" => table(
            "oid oid, adrelid oid, adnum int2, adbin text",
            defaults(snapshot),
        ),
        "pg_description" => table(
            "objoid oid, classoid oid = 1259, objsubid int4 = 0, description text",
            comments(snapshot),
        ),
        "pg_database" => table(
            PG_DATABASE,
            vec![vec![("oid", DATABASE.into()), ("datname", "dev".into())]],
        ),
        "pg_roles" => table(PG_ROLES, roles::all(snapshot)),
        "pg_authid" => table(
            "oid oid = 10, rolname name, rolsuper bool = true, rolinherit bool = true, \
             rolcreaterole bool = true, rolcreatedb bool = true, rolcanlogin bool = true, \
             rolreplication bool = false, rolbypassrls bool = true, rolconnlimit int4 = -1, \
             rolpassword text, rolvaliduntil timestamptz",
            roles::all(snapshot),
        ),
        "pg_user" | "pg_shadow" => table(
            "usename name, usesysid oid = 10, usecreatedb bool = true, usesuper bool = true, \
             userepl bool = false, usebypassrls bool = true, passwd text = ********, valuntil \
             timestamptz, useconfig text[]",
            roles::users(snapshot),
        ),
        "pg_auth_members" => table(
            "oid oid, roleid oid, member oid, grantor oid = 10, admin_option bool = false, \
             inherit_option bool = true, set_option bool = true",
            roles::members(snapshot),
        ),
        "pg_default_acl" => table(
            "oid oid, defaclrole oid, defaclnamespace oid = 0, defaclobjtype char, defaclacl \
             text[]",
            roles::defaults(snapshot),
        ),
        "pg_tables" => table(
            "schemaname name, tablename name, tableowner name, tablespace name, hasindexes bool = \
             false, hasrules bool = false, hastriggers bool = false, rowsecurity bool = false",
            rows_of(snapshot, RelationKind::Table, |r| {
                vec![
                    ("schemaname", (&r.schema_name).into()),
                    ("tablename", (&r.name).into()),
                    ("tableowner", (&r.owner).into()),
                    ("hasindexes", r.key_declared.into()),
                ]
            }),
        ),
        "pg_views" => table(
            "schemaname name, viewname name, viewowner name, definition text",
            rows_of(snapshot, RelationKind::View, |r| {
                vec![
                    ("schemaname", (&r.schema_name).into()),
                    ("viewname", (&r.name).into()),
                    ("viewowner", (&r.owner).into()),
                    ("definition", definition::query_in(snapshot, r).into()),
                ]
            }),
        ),
        "pg_matviews" => table(
            "schemaname name, matviewname name, matviewowner name, tablespace name, hasindexes \
             bool = false, ispopulated bool = true, definition text",
            rows_of(snapshot, RelationKind::MaterializedView, |r| {
                vec![
                    ("schemaname", (&r.schema_name).into()),
                    ("matviewname", (&r.name).into()),
                    ("matviewowner", (&r.owner).into()),
                    ("definition", definition::query_in(snapshot, r).into()),
                ]
            }),
        ),
        "pg_foreign_table" => table(
            "ftrelid oid, ftserver oid, ftoptions text[]",
            foreign_tables(snapshot),
        ),
        "pg_foreign_server" => table(
            "oid oid, srvname name, srvowner oid = 10, srvfdw oid, srvtype text, srvversion text, \
             srvacl text[], srvoptions text[]",
            connectors(snapshot)
                .enumerate()
                .map(|(i, c)| {
                    vec![
                        ("oid", oids::of_connector(i).into()),
                        ("srvname", c.into()),
                        ("srvfdw", oids::CONNECTORS.into()),
                    ]
                })
                .collect(),
        ),
        "pg_foreign_data_wrapper" => table(
            "oid oid, fdwname name = connector, fdwowner oid = 10, fdwhandler oid = 0, \
             fdwvalidator oid = 0, fdwacl text[], fdwoptions text[]",
            vec![vec![("oid", oids::CONNECTORS.into())]],
        ),
        "pg_indexes" => table(
            "schemaname name, tablename name, indexname name, tablespace name, indexdef text",
            index_views(snapshot),
        ),
        "pg_settings" => table(
            "name text, setting text, unit text, category text = 'Tidemark', short_desc text, \
             extra_desc text, context text = user, vartype text = string, source text = default, \
             min_val text, max_val text, enumvals text[], boot_val text, reset_val text, \
             sourcefile text, sourceline int4, pending_restart bool = false",
            snapshot
                .settings
                .all()
                .into_iter()
                .map(|(n, v, d)| {
                    vec![
                        ("name", n.into()),
                        ("setting", v.into()),
                        ("short_desc", d.into()),
                        ("boot_val", v.into()),
                        ("reset_val", v.into()),
                    ]
                })
                .collect(),
        ),
        "pg_stat_activity" => sessions::activity(snapshot),
        "pg_prepared_statements" => sessions::prepared_statements(snapshot),
        "pg_locks" => sessions::locks(snapshot),
        "pg_stat_user_tables" | "pg_stat_all_tables" => table(
            "relid oid, schemaname name, relname name, seq_scan int8 = 0, seq_tup_read int8 = 0, \
             idx_scan int8 = 0, idx_tup_fetch int8 = 0, n_tup_ins int8 = 0, n_tup_upd int8 = 0, \
             n_tup_del int8 = 0, n_tup_hot_upd int8 = 0, n_live_tup int8 = 0, n_dead_tup int8 = 0, \
             last_vacuum timestamptz, last_autovacuum timestamptz, last_analyze timestamptz, \
             last_autoanalyze timestamptz",
            rows_of(snapshot, RelationKind::Table, |r| {
                vec![
                    ("relid", oids::of_relation(r.id).into()),
                    ("schemaname", (&r.schema_name).into()),
                    ("relname", (&r.name).into()),
                ]
            }),
        ),
        "pg_stat_database" => table(
            "datid oid = 1, datname name = dev, numbackends int4, xact_commit int8 = 0, \
             xact_rollback int8 = 0, blks_read int8 = 0, blks_hit int8 = 0",
            vec![vec![(
                "numbackends",
                snapshot.commons.clients.list().len().into(),
            )]],
        ),
        "pg_timezone_names" => table(zones::NAMES, zones::names()),
        "pg_timezone_abbrevs" => table(zones::ABBREVIATIONS, zones::abbreviations()),
        "pg_proc" => return statics::with_rows(name, functions::procedures(snapshot)),
        _ => match EMPTY.iter().find(|(n, _)| *n == name) {
            Some((_, description)) => table(description, Vec::new()),
            None => return statics::table(name),
        },
    };
    built.map(Some)
}

fn schema_oid(snapshot: &Snapshot, name: &str) -> i32 {
    oids::of_schema(name, &snapshot.catalog.schemas)
}

fn rows_of(snapshot: &Snapshot, kind: RelationKind, row: impl Fn(&Relation) -> Row) -> Vec<Row> {
    snapshot
        .catalog
        .relations
        .values()
        .filter(|r| r.kind == kind)
        .map(|r| row(r))
        .collect()
}

/// The connectors that sources have, by name.
fn connectors(snapshot: &Snapshot) -> impl Iterator<Item = &str> {
    let sources = snapshot
        .catalog
        .relations
        .values()
        .filter(|r| r.kind == RelationKind::Source);
    let names: BTreeSet<&str> = sources
        .filter_map(|r| r.connector.as_ref())
        .map(|c| c.connector.as_str())
        .collect();
    names.into_iter()
}

/// One row for each source.
fn foreign_tables(snapshot: &Snapshot) -> Vec<Row> {
    let server = |r: &Relation| {
        connectors(snapshot)
            .position(|c| r.connector.as_ref().is_some_and(|spec| spec.connector == c))
            .map(oids::of_connector)
    };
    rows_of(snapshot, RelationKind::Source, |r| {
        vec![
            ("ftrelid", oids::of_relation(r.id).into()),
            ("ftserver", server(r).into()),
        ]
    })
}

/// The letter of `pg_class.relkind`.
fn kind_letter(kind: RelationKind) -> Option<&'static str> {
    Some(match kind {
        RelationKind::Table => "r",
        RelationKind::View => "v",
        RelationKind::MaterializedView | RelationKind::Subscription => "m",
        RelationKind::Index => "i",
        RelationKind::Source => "f",
        RelationKind::Sink | RelationKind::Function => return None,
    })
}

/// Whether the relation has a primary key that clients are shown.
fn has_key(r: &Relation) -> bool {
    r.kind == RelationKind::Table && r.key_declared && !r.key.is_empty()
}

/// The type of a column.
pub fn column_type(column: &Column) -> Type {
    types::by_name(&column.sql_type).unwrap_or_else(|| types::of_arrow(&column.data_type))
}

fn column_modifier(column: &Column) -> i32 {
    match &column.data_type {
        DataType::Decimal128(p, s) => types::modifier(&format!("numeric({p},{s})")),
        _ => types::modifier(&column.sql_type),
    }
}

fn classes(s: &Snapshot) -> Vec<Row> {
    let mut rows = Vec::new();
    for r in s.catalog.relations.values() {
        let Some(letter) = kind_letter(r.kind) else {
            continue;
        };
        let indexed = has_key(r)
            || s.catalog
                .dependents(r.id)
                .iter()
                .any(|d| d.kind == RelationKind::Index);
        let stored = matches!(r.kind, RelationKind::Table | RelationKind::MaterializedView);
        rows.push(vec![
            ("oid", oids::of_relation(r.id).into()),
            ("relname", (&r.name).into()),
            ("relnamespace", schema_oid(s, &r.schema_name).into()),
            (
                "reltype",
                if r.kind == RelationKind::Index {
                    0
                } else {
                    oids::of_row_type(r.id)
                }
                .into(),
            ),
            (
                "relam",
                if r.definition.contains(" USING hash (") && r.kind == RelationKind::Index {
                    405
                } else if r.kind == RelationKind::Index {
                    403
                } else if stored {
                    2
                } else {
                    0
                }
                .into(),
            ),
            ("relkind", letter.into()),
            ("relowner", roles::oid(&s.catalog, &r.owner).into()),
            ("relacl", roles::list_of_relation(s, r)),
            ("relnatts", r.columns.len().into()),
            ("relhasindex", indexed.into()),
            ("relhasrules", (r.kind == RelationKind::View).into()),
        ]);
        if has_key(r) {
            rows.push(vec![
                ("oid", oids::of_key_index(r.id).into()),
                ("relname", format!("{}_pkey", r.name).into()),
                ("relnamespace", schema_oid(s, &r.schema_name).into()),
                ("relam", 403.into()),
                ("relkind", "i".into()),
                ("relnatts", r.key.len().into()),
            ]);
        }
    }
    rows
}

fn attribute(
    relation: i32,
    number: usize,
    column: &Column,
    (not_null, is_generated): (bool, bool),
) -> Row {
    let t = column_type(column);
    let width = types::width(&t);
    vec![
        ("attrelid", relation.into()),
        ("attname", (&column.name).into()),
        ("atttypid", (t.oid() as i32).into()),
        ("attlen", i64::from(width).into()),
        ("attnum", number.into()),
        (
            "attndims",
            usize::from(matches!(column.data_type, DataType::List(_))).into(),
        ),
        ("atttypmod", column_modifier(column).into()),
        ("attbyval", (width > 0 && width <= 8).into()),
        ("attstorage", if width > 0 { "p" } else { "x" }.into()),
        ("attnotnull", not_null.into()),
        (
            "atthasdef",
            (column.default.is_some() || is_generated).into(),
        ),
        ("attgenerated", if is_generated { "s" } else { "" }.into()),
        (
            "attcollation",
            if matches!(t, Type::VARCHAR | Type::TEXT | Type::BPCHAR | Type::NAME) {
                100
            } else {
                0
            }
            .into(),
        ),
    ]
}

fn attributes(s: &Snapshot) -> Vec<Row> {
    let mut rows = Vec::new();
    for r in s
        .catalog
        .relations
        .values()
        .filter(|r| kind_letter(r.kind).is_some())
    {
        let oid = oids::of_relation(r.id);
        let table = r.kind == RelationKind::Table;
        rows.extend(r.visible().map(|(i, c)| {
            let flags = (table && !c.nullable, r.generated(i).is_some());
            attribute(oid, i + 1, c, flags)
        }));
        if has_key(r) {
            rows.extend(r.key.iter().enumerate().map(|(i, k)| {
                attribute(
                    oids::of_key_index(r.id),
                    i + 1,
                    &Column {
                        default: None,
                        ..r.columns[*k].clone()
                    },
                    (false, false),
                )
            }));
        }
    }
    rows
}

fn namespaces(s: &Snapshot) -> Vec<Row> {
    let own = ["pg_catalog", "public", "information_schema", "tidemark"]
        .iter()
        .map(|n| n.to_string());
    own.chain(s.catalog.schemas.iter().cloned())
        .map(|n| {
            let owner = s.catalog.owner_of(&Object::Schema(n.clone()));
            vec![
                ("oid", schema_oid(s, &n).into()),
                (
                    "nspowner",
                    roles::oid(&s.catalog, owner.unwrap_or(ROOT)).into(),
                ),
                ("nspacl", roles::list_of_schema(s, &n)),
                ("nspname", n.into()),
            ]
        })
        .collect()
}

/// The position of an index's column within its relation, from 1.
fn positions_in(relation: &Relation, index: &Relation) -> Vec<i64> {
    index
        .columns
        .iter()
        .map(|c| {
            relation
                .columns
                .iter()
                .position(|r| r.name == c.name)
                .map_or(0, |p| p as i64 + 1)
        })
        .collect()
}

fn indexes(s: &Snapshot) -> Vec<Row> {
    let mut rows = Vec::new();
    for r in s.catalog.relations.values() {
        if has_key(r) {
            let key: Vec<i64> = r.key.iter().map(|k| *k as i64 + 1).collect();
            rows.push(index_row(
                oids::of_key_index(r.id),
                oids::of_relation(r.id),
                key,
                (true, true),
            ));
        }
        if r.kind == RelationKind::Index
            && let Some(on) = r
                .depends_on
                .first()
                .and_then(|id| s.catalog.relations.get(id))
        {
            rows.push(index_row(
                oids::of_relation(r.id),
                oids::of_relation(on.id),
                positions_in(on, r),
                (r.key_declared, false),
            ));
        }
    }
    rows
}

fn index_row(index: i32, relation: i32, key: Vec<i64>, (unique, primary): (bool, bool)) -> Row {
    let zeros = vec![0; key.len()];
    vec![
        ("indexrelid", index.into()),
        ("indrelid", relation.into()),
        ("indnatts", key.len().into()),
        ("indnkeyatts", key.len().into()),
        ("indisunique", unique.into()),
        ("indisprimary", primary.into()),
        ("indcollation", Cell::Ints(zeros.clone())),
        ("indclass", Cell::Ints(zeros.clone())),
        ("indoption", Cell::Ints(zeros)),
        ("indkey", Cell::Ints(key)),
    ]
}

fn index_views(s: &Snapshot) -> Vec<Row> {
    let mut rows = Vec::new();
    for r in s.catalog.relations.values() {
        if has_key(r) {
            let key: Vec<String> = r
                .key
                .iter()
                .map(|k| crate::identifiers::quote_ident(&r.columns[*k].name))
                .collect();
            let definition = format!(
                "CREATE UNIQUE INDEX {0}_pkey ON {1}.{0} USING btree ({2})",
                r.name,
                r.schema_name,
                key.join(", ")
            );
            rows.push(vec![
                ("schemaname", (&r.schema_name).into()),
                ("tablename", (&r.name).into()),
                ("indexname", format!("{}_pkey", r.name).into()),
                ("indexdef", definition.into()),
            ]);
        }
        if r.kind == RelationKind::Index
            && let Some(on) = r
                .depends_on
                .first()
                .and_then(|id| s.catalog.relations.get(id))
        {
            rows.push(vec![
                ("schemaname", (&r.schema_name).into()),
                ("tablename", (&on.name).into()),
                ("indexname", (&r.name).into()),
                ("indexdef", definition::index(&s.catalog, r).into()),
            ]);
        }
    }
    rows
}

fn constraints(s: &Snapshot) -> Vec<Row> {
    let row = |r: &Arc<Relation>| {
        vec![
            ("oid", oids::of_constraint(r.id).into()),
            ("conname", format!("{}_pkey", r.name).into()),
            ("connamespace", schema_oid(s, &r.schema_name).into()),
            ("contype", "p".into()),
            ("conrelid", oids::of_relation(r.id).into()),
            ("conindid", oids::of_key_index(r.id).into()),
            (
                "conkey",
                Cell::Ints(r.key.iter().map(|k| *k as i64 + 1).collect()),
            ),
        ]
    };
    s.catalog
        .relations
        .values()
        .filter(|r| has_key(r))
        .map(row)
        .collect()
}

fn defaults(s: &Snapshot) -> Vec<Row> {
    let mut rows = Vec::new();
    for r in s
        .catalog
        .relations
        .values()
        .filter(|r| kind_letter(r.kind).is_some())
    {
        for (i, c) in r.visible() {
            let text = r.generated(i).map(|g| &g.text);
            if let Some(default) = text.or(c.default.as_ref()) {
                rows.push(vec![
                    ("oid", (oids::of_relation(r.id) + 4).into()),
                    ("adrelid", oids::of_relation(r.id).into()),
                    ("adnum", (i + 1).into()),
                    ("adbin", default.into()),
                ]);
            }
        }
    }
    rows
}

fn comments(s: &Snapshot) -> Vec<Row> {
    let row = |r: &Arc<Relation>| {
        Some(vec![
            ("objoid", oids::of_relation(r.id).into()),
            ("description", r.comment.as_ref()?.into()),
        ])
    };
    s.catalog.relations.values().filter_map(row).collect()
}

/// The type of a column for information_schema: `ARRAY` for arrays.
pub fn data_type_name(column: &Column) -> String {
    match &column.data_type {
        DataType::List(_) => "ARRAY".into(),
        DataType::Struct(_) => "USER-DEFINED".into(),
        _ => types::display_name(&column_type(column)).to_string(),
    }
}
