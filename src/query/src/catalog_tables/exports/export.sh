#!/usr/bin/env bash
# Makes the files of this folder anew from a PostgreSQL of the major version that the server names (15), as any superuser of it:
#   PGHOST=.. PGUSER=postgres src/query/src/catalog_tables/exports/export.sh
# A file is one table of pg_catalog as it is in a fresh database: the first line describes the columns in the words of build.rs,
# the others are rows as COPY writes them (tabs, \N, backslash escapes). Columns that only other versions have come last, with
# their default and without a value in the rows.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
query() { psql -XqAt -d "${PGDATABASE:-template1}" -c "$1"; }

# The columns of table $1 as "name kind" of build.rs, or as the expressions that write them ($2 = kind | expression).
# Functions are shown by name, but those of pg_type by oid: drivers join them. Access lists, options and bytes are left out.
columns() {
  query "SELECT string_agg(CASE '$2' WHEN 'kind' THEN attname || ' ' || kind ELSE CASE
             WHEN typname = 'regproc' AND kind = 'oid' THEN attname || '::oid'
             WHEN typname IN ('_aclitem', 'anyarray', 'bytea', '_text') THEN 'NULL'
             WHEN kind = 'text' THEN attname || '::text' ELSE attname END END, ', ' ORDER BY attnum)
         FROM (SELECT a.attname, a.attnum, t.typname, CASE
                 WHEN t.typname = 'regproc' AND c.relname = 'pg_type' THEN 'oid'
                 WHEN t.typname IN ('oid', 'int2', 'int4', 'int8', 'bool', 'name', 'char', 'float4', 'timestamptz', 'int2vector', 'oidvector') THEN t.typname
                 WHEN t.typname = '_aclitem' OR a.attname ~ '(options|config|tags)\$' THEN 'text[]'
                 ELSE 'text' END AS kind
               FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid JOIN pg_class c ON c.oid = a.attrelid
               WHERE a.attrelid = 'pg_catalog.$1'::regclass AND a.attnum > 0 AND NOT a.attisdropped) x"
}

# Columns that clients ask for whatever the version, and how they are filled in the rows of this one.
more_kinds() { case $1 in pg_proc) echo ", proisagg bool, proiswindow bool" ;; pg_collation) echo ", collicurules text, colllocale text" ;; esac; }
more_expressions() { case $1 in pg_proc) echo ", prokind = 'a', prokind = 'w'" ;; esac; }

for table in pg_aggregate pg_am pg_amop pg_amproc pg_cast pg_collation pg_conversion pg_language pg_opclass pg_operator pg_opfamily \
    pg_proc pg_range pg_tablespace pg_ts_config pg_ts_dict pg_ts_parser pg_ts_template pg_type; do
  where="true"
  [ "$table" = pg_collation ] && where="collprovider <> 'i'"   # what ICU brings depends on the machine
  { echo "$(columns $table kind)$(more_kinds $table)"
    query "COPY (SELECT $(columns $table expression)$(more_expressions $table) FROM pg_catalog.$table WHERE $where ORDER BY 1) TO STDOUT"
  } > "$table.tsv"
done
{ echo "word text, catcode char, barelabel bool, catdesc text, baredesc text"
  query "COPY (SELECT * FROM pg_get_keywords() ORDER BY 1) TO STDOUT"
} > pg_get_keywords.tsv
