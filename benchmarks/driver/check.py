"""`--check`: the same query over the same rows in DuckDB, whose answer must be the same bag of rows.

The query becomes a materialized view, and so do the sources; their rows are exported as CSV. Where the query read topics that this driver filled, the rows
that DuckDB gets are those of the generator: then a record that is decoded wrongly shows too. DuckDB runs benchmarks/nexmark/duckdb/QUERY.sql where its
SQL differs, else the query itself. Inexact numbers are compared with 6 digits after the point.
"""

import tempfile
from pathlib import Path

import duckdb

from .nexmark import COLUMNS, QUERIES, create_sources, reads, text_of, wait_read
from .server import Server

DUCKDB = QUERIES.parent / "duckdb"


def export(server, text, path):
    """Writes the rows of a query as CSV with a header."""
    with open(path, "wb") as file, server.connection().cursor() as cursor, cursor.copy(f"COPY ({text}) TO STDOUT (FORMAT csv, HEADER)") as copy:
        for block in copy:
            file.write(block)


def check(name, text, args, broker=None, prefix=None):
    """Returns the line of one comparison: `rows`, and how many of them only one engine has."""
    with tempfile.TemporaryDirectory(prefix="tidemark-check-") as folder:
        with Server(args.workers) as server:
            create_sources(server, args.events, broker=broker if args.source == "kafka" else None, prefix=prefix)
            server.query(f"CREATE MATERIALIZED VIEW answer AS {text}")
            wait_read(server, reads(name), args.events)
            export(server, "SELECT * FROM answer", f"{folder}/answer.csv")
            if args.source == "generator" or args.prefix:
                export_inputs(server, name, folder)
        if args.source == "kafka" and not args.prefix:
            with Server(args.workers) as server:
                create_sources(server, args.events)
                export_inputs(server, name, folder, args.events)
        line = {"query": name, "events": args.events, "workers": args.workers, "source": args.source, **compare(name, Path(folder))}
    line["ok"] = line["only_tidemark"] == 0 == line["only_duckdb"]
    return line


def export_inputs(server, name, folder, unread_events=0):
    """The rows of the sources that a query reads; `unread_events` if nothing has read them yet."""
    for kind in sorted(reads(name)):
        server.query(f"CREATE MATERIALIZED VIEW all_{kind} AS SELECT * FROM {kind}")
        if unread_events:
            wait_read(server, {kind}, unread_events)
        export(server, f"SELECT {', '.join(column for column, _ in COLUMNS[kind])} FROM all_{kind}", f"{folder}/{kind}.csv")


def compare(name, folder):
    """The two answers as bags."""
    own = DUCKDB / f"{name}.sql"
    text = own.read_text().strip().rstrip(";") if own.exists() else text_of(name)
    database = duckdb.connect()
    database.execute("SET TimeZone = 'UTC'")
    for kind, columns in COLUMNS.items():
        if (folder / f"{kind}.csv").exists():
            types = ", ".join(f"'{column}': '{sql}'" for column, sql in columns)
            database.execute(f"CREATE TABLE {kind} AS SELECT * FROM read_csv('{folder}/{kind}.csv', header = true, columns = {{{types}}})")
    database.execute(f"CREATE TABLE theirs AS {text}")
    columns = [(row[0], row[1]) for row in database.execute("DESCRIBE theirs").fetchall()]
    types = ", ".join(f"'{column}': '{sql}'" for column, sql in columns)
    database.execute(f"CREATE TABLE ours AS SELECT * FROM read_csv('{folder}/answer.csv', header = true, columns = {{{types}}}, allow_quoted_nulls = false)")
    exact = ", ".join(f'round("{column}", 6) AS "{column}"' if sql in ("DOUBLE", "FLOAT") else f'"{column}"' for column, sql in columns)
    count = lambda query: database.execute(f"SELECT count(*) FROM ({query})").fetchone()[0]  # noqa: E731
    missing = lambda a, b: f"SELECT {exact} FROM {a} EXCEPT ALL SELECT {exact} FROM {b}"  # noqa: E731
    result = {"rows": count("FROM theirs"), "only_tidemark": count(missing("ours", "theirs")), "only_duckdb": count(missing("theirs", "ours"))}
    if result["only_tidemark"] or result["only_duckdb"]:
        result["examples"] = [f"{side}: {row}" for side, a, b in (("tidemark", "ours", "theirs"), ("duckdb", "theirs", "ours"))
                              for row in database.execute(f"{missing(a, b)} LIMIT 3").fetchall()]
    return result
