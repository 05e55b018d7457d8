//! What the front parser makes of statements, and where it says that it cannot.

use super::*;
use crate::statement::*;
use tidemark_plan::{Include, RelationKind};

fn one(sql: &str) -> StatementKind {
    let mut all = parse(sql).unwrap_or_else(|e| panic!("{sql}: {e} at {:?}", e.position()));
    assert_eq!(all.len(), 1, "{sql}");
    all.remove(0).kind
}

fn error(sql: &str) -> (String, Option<usize>) {
    let e = parse(sql).map(|s| format!("{s:?}")).expect_err(sql);
    (e.to_string(), e.position())
}

#[test]
fn statements_are_cut_at_semicolons_and_keep_their_text() {
    let all =
        parse("select 1 ; -- nothing; here\n ; insert into t values ('a;b', $$c;d$$);\nselect 2")
            .unwrap();
    let texts: Vec<&str> = all.iter().map(|s| s.text.as_str()).collect();
    assert_eq!(
        texts,
        [
            "select 1",
            "insert into t values ('a;b', $$c;d$$)",
            "select 2"
        ]
    );
    assert!(parse("").unwrap().is_empty() && parse(" ;; -- x\n").unwrap().is_empty());
}

#[test]
fn positions_count_characters_of_the_whole_text() {
    assert_eq!(
        error("select 1;\nselec 2"),
        ("syntax error at or near \"selec\"".into(), Some(11))
    );
    assert_eq!(error("select 'äöü' frm t x y").1, Some(18));
    assert_eq!(
        error("create source"),
        ("syntax error at end of input".into(), Some(14))
    );
    assert_eq!(error("select (1").1, Some(10));
    assert_eq!(
        error("create table t (a int,)"),
        ("syntax error at or near \")\"".into(), Some(23))
    );
    assert_eq!(
        error("select 'abc"),
        ("unterminated string literal".into(), Some(8))
    );
    assert_eq!(
        error("drop table t nonsense"),
        ("syntax error at or near \"nonsense\"".into(), Some(14))
    );
}

#[test]
fn source_clauses_come_in_any_order() {
    let kind = one(
        "CREATE SOURCE IF NOT EXISTS S2.\"Ticks\" (Id bigint, primary key (id)) FORMAT UPSERT \
         ENCODE JSON (x.y = 'z') KEY ENCODE TEXT INCLUDE KEY AS k WITH (connector='kafka', \
         Properties.Bootstrap.Server = 'h:1', n = 5, neg = -1, flag = true)",
    );
    let StatementKind::CreateSource(source) = kind else {
        panic!("{kind:?}")
    };
    assert_eq!(source.name.to_string(), "s2.Ticks");
    assert!(source.if_not_exists);
    assert_eq!(source.primary_key, ["id"]);
    assert_eq!(source.includes, [(Include::Key, Some("k".into()))]);
    assert_eq!(source.options["properties.bootstrap.server"], "h:1");
    assert_eq!(
        (
            source.options["n"].as_str(),
            source.options["neg"].as_str(),
            source.options["flag"].as_str()
        ),
        ("5", "-1", "true")
    );
    let format = source.format.unwrap();
    assert_eq!(
        (format.options["x.y"].as_str(), format.key_encode.as_deref()),
        ("z", Some("text"))
    );
}

#[test]
fn sinks_end_their_query_before_with() {
    let kind = one(
        "create sink k as with c as (select 1 as a) select (select max(a) from c) from c with \
         (connector = 'kafka') format plain encode json",
    );
    let StatementKind::CreateSink(sink) = kind else {
        panic!("{kind:?}")
    };
    let SinkInput::Query(_, text, _) = &sink.input else {
        panic!("{:?}", sink.input)
    };
    assert_eq!(
        text,
        "with c as (select 1 as a) select (select max(a) from c) from c"
    );
    assert!(sink.format.is_some());
}

#[test]
fn views_keep_their_query() {
    let kind = one(
        "create or replace materialized view if not exists v (a, \"B\") with (on_error = 'fail') \
         as select 1, 2 -- two\n emit on window close",
    );
    let StatementKind::CreateMaterializedView(view) = kind else {
        panic!("{kind:?}")
    };
    assert!(view.or_replace && view.if_not_exists && view.emit_on_window_close);
    assert_eq!(view.columns, ["a", "B"]);
    assert_eq!(view.query_text, "select 1, 2");
}

#[test]
fn utility_statements() {
    assert!(
        matches!(one("drop materialized view if exists a, s.b cascade"),
            StatementKind::Drop(Drop {
                kind: RelationKind::MaterializedView, if_exists: true, cascade: true, names
            })
            if names.len() == 2)
    );
    assert!(matches!(
        one("drop schema s"),
        StatementKind::DropSchema { .. }
    ));
    assert!(matches!(one("alter table t rename to u"),
            StatementKind::Alter { action: AlterAction::RenameTo(name), .. }
            if name == "u"));
    assert!(
        matches!(one("alter materialized view v set parallelism = 4"),
            StatementKind::Alter { action: AlterAction::SetParallelism(n), .. }
            if n == "4")
    );
    assert!(matches!(
        one("show materialized views from s like 'a%'"),
        StatementKind::Show {
            what: ShowKind::MaterializedViews,
            schema: Some(_),
            like: Some(_)
        }
    ));
    assert!(matches!(
        one("show jobs"),
        StatementKind::Show {
            what: ShowKind::Jobs,
            ..
        }
    ));
    assert!(matches!(
        one("show create source s"),
        StatementKind::Show {
            what: ShowKind::Create(RelationKind::Source, _),
            ..
        }
    ));
    assert!(matches!(one("show transaction isolation level"),
            StatementKind::Show { what: ShowKind::Variable(v), .. }
            if v == "transaction_isolation"));
    assert!(
        matches!(one("SHOW server_version"), StatementKind::Show { what: ShowKind::Variable(v), .. }
            if v == "server_version")
    );
    assert!(matches!(one("set extra_float_digits = 3"),
            StatementKind::Set { name, value: Some(v), local: false }
            if name == "extra_float_digits" && v == "3"));
    assert!(
        matches!(one("set search_path to public, s2"), StatementKind::Set { value: Some(v), .. }
            if v == "public, s2")
    );
    assert!(
        matches!(one("set local time zone 'UTC'"), StatementKind::Set { name, local: true, .. }
            if name == "timezone")
    );
    assert!(matches!(
        one("set session characteristics as transaction read only"),
        StatementKind::Set { .. }
    ));
    assert!(
        matches!(one("set transaction isolation level serializable, read only"),
            StatementKind::Set { name, value: Some(v), .. }
            if name == "transaction_read_only" && v == "on")
    );
    assert!(matches!(one("set session authorization default"),
            StatementKind::Set { name, value: None, .. }
            if name == "session_authorization"));
    assert!(
        matches!(one("refresh materialized view concurrently s.v"), StatementKind::Refresh(name)
            if name.name == "v")
    );
    assert!(
        matches!(one("create table if not exists t as (select 1 as x)"),
            StatementKind::CreateTableAs { if_not_exists: true, query, .. }
            if query.text == "(select 1 as x)")
    );
    assert!(matches!(one("create table t (a, \"B\") as select 1, 2"),
            StatementKind::CreateTableAs { columns, query, .. }
            if columns == ["a", "B"] && query.text == "select 1, 2"));
    assert!(matches!(one("reset all"), StatementKind::Reset(None)));
    assert!(matches!(
        one("begin isolation level repeatable read read only"),
        StatementKind::Begin { read_only: true }
    ));
    assert!(matches!(
        one("start transaction"),
        StatementKind::Begin { read_only: false }
    ));
    assert!(matches!(one("end"), StatementKind::Commit));
    assert!(matches!(one("rollback"), StatementKind::Rollback));
    assert!(matches!(
        one("rollback to savepoint x"),
        StatementKind::Other(_)
    ));
    assert!(matches!(
        one("alter cluster remove node 3"),
        StatementKind::RemoveNode(3)
    ));
    for (verb, drains) in [("drain", true), ("resume", false)] {
        assert!(matches!(
            one(&format!("alter cluster {verb} node 3")),
            StatementKind::DrainNode { node: 3, is_drained } if is_drained == drains
        ));
    }
    assert!(matches!(one("cancel jobs 1, 2"), StatementKind::CancelJobs(ids) if ids == [1, 2]));
    assert!(matches!(one("flush"), StatementKind::Flush));
    assert!(matches!(one("wait"), StatementKind::Wait));
    assert!(matches!(
        one("subscribe to mv with (snapshot = false)"),
        StatementKind::Subscribe(subscribe) if !subscribe.snapshot
    ));
    assert!(matches!(one("comment on column t.name is 'a column'"),
            StatementKind::CommentOn { object, name, comment: Some(_) }
            if object == "column" && name == ["t", "name"]));
    assert!(matches!(
        one("explain (verbose, format json) create materialized view v as select 1"),
        StatementKind::Explain {
            verbose: true,
            format: Some(_),
            ..
        }
    ));
    assert!(matches!(
        one("explain analyze materialized view v"),
        StatementKind::ExplainJob { .. }
    ));
    assert!(matches!(
        one("copy t (a, b) from stdin with (format csv)"),
        StatementKind::Copy(_)
    ));
    assert!(matches!(one("copy t to stdout"), StatementKind::Copy(_)));
    assert!(matches!(
        one("create index i on t (a)"),
        StatementKind::CreateIndex(_)
    ));
    assert!(matches!(
        one("declare c cursor for select 1"),
        StatementKind::Other(_)
    ));
    assert!(matches!(one("describe t"), StatementKind::Describe(_)));
    assert!(matches!(
        one("insert into t values (1) on conflict do nothing returning a"),
        StatementKind::Sql(_)
    ));
    assert!(matches!(
        one("with x as (select 1) select * from x"),
        StatementKind::Sql(_)
    ));
    assert!(matches!(one("values (1), (2)"), StatementKind::Sql(_)));
}

#[test]
fn clients_statements_parse() {
    for sql in [
        "SELECT a.attname FROM pg_catalog.pg_attribute a WHERE a.attrelid = '16386' AND a.attnum > \
         0 AND NOT a.attisdropped ORDER BY a.attnum",
        "SELECT n.nspname FROM pg_catalog.pg_class c WHERE c.relname OPERATOR(pg_catalog.~) \
         '^(t)$' COLLATE pg_catalog.default",
        "SELECT 'd' = any(stxkind) FROM pg_statistic_ext",
        "DISCARD ALL",
        "DEALLOCATE ALL",
        "SAVEPOINT x",
        "RELEASE SAVEPOINT x",
        "FETCH FORWARD 10 FROM c",
        "CLOSE c",
        "PREPARE p AS SELECT $1",
        "EXECUTE p(1)",
        "SELECT pg_advisory_unlock_all()",
        "UNLISTEN *",
        "CLOSE ALL",
    ] {
        one(sql);
    }
}

#[test]
fn statements_of_one_line_are_cut_apart_in_one_pass() {
    // Minutes, if each looks for its place from the beginning.
    let count = 100_000;
    let all = parse(&"select 'ä';".repeat(count)).unwrap();
    assert_eq!(all.len(), count);
    assert!(all.iter().all(|s| s.text == "select 'ä'"));
}

#[test]
fn tables_of_one_from_have_names_of_their_own() {
    for (sql, taken) in [
        ("SELECT 1 FROM t, t", false),
        ("SELECT 1 FROM t a JOIN u a ON true", false),
        ("SELECT 1 FROM t, LATERAL (SELECT 1) t", false),
        ("SELECT 1 FROM t, other.t", true),
        ("SELECT 1 FROM t a, t", true),
        ("SELECT 1 FROM t a, (SELECT 1 FROM t a) b", true),
        (
            "SELECT 1 FROM TUMBLE(t, x, INTERVAL '1 day'), TUMBLE(u, x, INTERVAL '1 day')",
            true,
        ),
    ] {
        assert_eq!(parse(sql).is_ok(), taken, "{sql}");
        // What the catalog holds is read as it was taken.
        assert!(parse_stored(sql).is_ok(), "{sql}");
    }
}

#[test]
fn numbers_end_before_letters() {
    for sql in [
        "SELECT 1_000",
        "SELECT 0x1F",
        "SELECT 1a",
        "SELECT 1.5e",
        "SELECT $1a",
    ] {
        let error = parse(sql).unwrap_err();
        assert_eq!(error.state(), SqlState::SYNTAX_ERROR, "{sql}");
        assert_eq!(error.position(), Some(8), "{sql}");
    }
    for sql in [
        "SELECT 1 a",
        "SELECT 1\"a\"",
        "SELECT 1e5",
        "SELECT .5",
        "SELECT a1, $1",
    ] {
        assert!(parse(sql).is_ok(), "{sql}");
    }
}

#[test]
fn passwords_and_secrets_are_masked_in_what_is_shown() {
    let shown = |sql: &str| parse(sql).unwrap().remove(0).text;
    for (sql, masked) in [
        (
            "alter user bob password 'x' login",
            "alter user bob password '********' login",
        ),
        ("prepare p as select 1", "prepare p as select 1"),
        (
            "create secret s with (backend = 'meta') as 'x'",
            "create secret s with (backend = 'meta') as '********'",
        ),
        (
            "create view v as select 'x' as password",
            "create view v as select 'x' as password",
        ),
    ] {
        assert_eq!(shown(sql), masked);
    }
    for hidden in [
        "prepare pp as alter user bob password 'x'",
        "create user bob password 'x'",
    ] {
        if let Ok(all) = parse(hidden) {
            assert!(!all[0].text.contains("'x'"), "{}", all[0].text);
        }
    }
}

#[test]
fn a_string_is_quoted() {
    for (sql, position) in [
        ("create user x with password abc", 29),
        ("create secret s with (backend = 'meta') as abc", 44),
        ("alter role x valid until tomorrow", 26),
    ] {
        assert_eq!(error(sql).1, Some(position), "{sql}");
    }
}

#[test]
fn cursors_are_fetched_from_as_in_postgresql() {
    use crate::statement::FetchRows as Rows;
    for (sql, wanted) in [
        ("FETCH c", Rows::Next(1)),
        ("FETCH FROM c", Rows::Next(1)),
        ("FETCH 2 c", Rows::Next(2)),
        ("FETCH 0 IN c", Rows::Next(0)),
        ("FETCH NEXT C", Rows::Next(1)),
        ("FETCH ALL IN c", Rows::All),
        ("FETCH FORWARD c", Rows::Next(1)),
        ("FETCH FORWARD 10 FROM c", Rows::Next(10)),
        ("FETCH FORWARD ALL c", Rows::All),
        ("FETCH -1 c", Rows::Elsewhere),
        ("FETCH PRIOR FROM c", Rows::Elsewhere),
        ("FETCH BACKWARD ALL c", Rows::Elsewhere),
        ("FETCH ABSOLUTE 3 c", Rows::Elsewhere),
    ] {
        for (moves, sql) in [(false, sql.into()), (true, sql.replace("FETCH", "MOVE"))] {
            let StatementKind::Fetch {
                cursor,
                rows,
                moves: read,
                ..
            } = one(&sql)
            else {
                panic!("{sql}");
            };
            assert_eq!((cursor.as_str(), rows, read), ("c", wanted, moves), "{sql}");
        }
    }
    let StatementKind::Fetch { cursor, .. } = one("FETCH next") else {
        panic!("a name that is a direction elsewhere");
    };
    assert_eq!(cursor, "next");
    for (sql, position) in [
        ("FETCH", 6),
        ("FETCH 2", 8),
        ("FETCH ABSOLUTE c", 16),
        ("FETCH c d", 9),
    ] {
        assert_eq!(error(sql).1, Some(position), "{sql}");
    }
}

#[test]
fn whole_tables_are_queries() {
    for (sql, plain) in [
        ("TABLE t", "SELECT * FROM t"),
        (
            "table s.\"T\" order by 1",
            "select * from s.\"T\" order by 1",
        ),
        (
            "(TABLE t) UNION ALL TABLE u LIMIT 1",
            "(SELECT * FROM t) UNION ALL SELECT * FROM u LIMIT 1",
        ),
        (
            "WITH t AS (TABLE u) TABLE t",
            "WITH t AS (SELECT * FROM u) SELECT * FROM t",
        ),
        ("INSERT INTO t TABLE u", "INSERT INTO t SELECT * FROM u"),
        (
            "INSERT INTO t (a) TABLE u",
            "INSERT INTO t (a) SELECT * FROM u",
        ),
    ] {
        let (StatementKind::Sql(table), StatementKind::Sql(query)) = (one(sql), one(plain)) else {
            panic!("{sql}");
        };
        assert_eq!(table.to_string(), query.to_string(), "{sql}");
    }
    assert!(parse("SELECT 1 AS table FROM t").is_ok());
    assert!(parse("TABLE").is_err());
}

#[test]
fn queries_and_writes_alone_are_prepared() {
    for (sql, position) in [
        ("PREPARE p AS ALTER USER bob PASSWORD 'x'", 14),
        ("PREPARE p (int) AS CREATE TABLE t (id int)", 20),
        ("PREPARE p AS FETCH c", 14),
        ("PREPARE p AS EXPLAIN SELECT 1", 14),
    ] {
        assert_eq!(error(sql).1, Some(position), "{sql}");
    }
    for sql in [
        "PREPARE p AS (SELECT 1)",
        "PREPARE p (int, numeric(5, 2)) AS VALUES ($1)",
        "PREPARE p AS TABLE t",
        "PREPARE p AS WITH a AS (SELECT 1) DELETE FROM t",
    ] {
        assert!(parse(sql).is_ok(), "{sql}");
    }
}
