"""What a release leaves on disk, for later ones to be held to: `releases/NAME.tar.gz` is the data folder of a server that was killed, with its checkpoints.

    python releases.py NAME      makes that of the server as it is now (build it first), before it is released

The files of a release are never made again: a change that cannot read them any more says so at the start, and how to go on.
"""

import io
import sys
import tarfile
import tempfile
from pathlib import Path

FOLDER = Path(__file__).resolve().parent / "releases"

# In a checkpoint.
BEFORE = """
CREATE SCHEMA sales;
CREATE ROLE clerk LOGIN PASSWORD 'a long enough password';
CREATE TABLE sales.orders (id BIGINT PRIMARY KEY, customer VARCHAR NOT NULL DEFAULT 'nobody', price NUMERIC(12, 2), at TIMESTAMPTZ, tags VARCHAR[], more JSONB, paid BOOLEAN);
CREATE TABLE customers (name VARCHAR PRIMARY KEY, born DATE, weight DOUBLE PRECISION, photo BYTEA, wake TIME, rest INTERVAL, key UUID);
CREATE TABLE visits (name VARCHAR, minutes INT) APPEND ONLY;
CREATE INDEX by_customer ON sales.orders (customer);
GRANT SELECT ON sales.orders TO clerk;
COMMENT ON TABLE customers IS 'who buys';
CREATE VIEW paid AS SELECT id, customer, price FROM sales.orders WHERE paid;
CREATE MATERIALIZED VIEW totals AS SELECT customer, count(*) AS orders, sum(price) AS total, min(at) AS first, max(price) AS most, count(DISTINCT paid) AS kinds FROM sales.orders GROUP BY customer;
CREATE MATERIALIZED VIEW named AS SELECT o.id, o.price, c.born, c.rest FROM sales.orders AS o LEFT JOIN customers AS c ON o.customer = c.name;
CREATE MATERIALIZED VIEW minutes AS SELECT name, sum(minutes) AS minutes FROM visits GROUP BY name;
CREATE MATERIALIZED VIEW pairs AS SELECT customer, paid FROM sales.orders;
CREATE SOURCE numbers (n BIGINT, half BIGINT) WITH (connector = 'datagen', datagen.rows.total = '1000', datagen.seed = '7', fields.n.kind = 'sequence', fields.n.start = '1', fields.n.end = '1000',
  fields.half.kind = 'random', fields.half.min = '0', fields.half.max = '9');
CREATE MATERIALIZED VIEW halves AS SELECT half, count(*) AS n, sum(n) AS total FROM numbers GROUP BY half;
CREATE SINK nowhere AS SELECT customer, total FROM totals WITH (connector = 'blackhole');
INSERT INTO customers VALUES ('ann', '1980-02-29', 61.5, '\\x00ff', '07:30', '8 hours', '0e984725-c51c-4bf4-9960-e1c80e27aba0'), ('bob', NULL, 'NaN', NULL, NULL, NULL, NULL);
INSERT INTO sales.orders VALUES (1, 'ann', 10.50, '2026-01-02 03:04:05.678901+01', '{a,NULL,"b c"}', '{"size": [1, 2.50], "gift": null}', TRUE), (2, 'bob', 7, NULL, NULL, NULL, FALSE),
  (3, 'ann', NULL, '1999-12-31 23:59:59Z', '{}', '"text"', NULL), (4, 'eve', 99999999.99, '2026-06-01Z', NULL, NULL, TRUE);
INSERT INTO sales.orders (id) VALUES (5);
INSERT INTO visits VALUES ('ann', 5), ('ann', 5), ('bob', 1);
UPDATE sales.orders SET price = price + 1 WHERE customer = 'ann';
"""

# Only in the log.
BEHIND = """
DELETE FROM sales.orders WHERE id = 4;
INSERT INTO sales.orders VALUES (6, 'bob', 0.01, '2026-07-08Z', '{z}', 'true', TRUE);
UPDATE customers SET weight = 60, rest = '1 month 2 days 3 hours' WHERE name = 'ann';
INSERT INTO visits VALUES ('cyd', 44);
ALTER MATERIALIZED VIEW pairs RENAME TO pairings;
CREATE MATERIALIZED VIEW late AS SELECT paid, count(*) AS n FROM sales.orders GROUP BY paid;
DROP VIEW paid;
"""

# What a server that starts on that answers.
ANSWERS = {
    "SELECT * FROM sales.orders ORDER BY id": [
        "1|ann|11.50|2026-01-02 02:04:05.678901+00|{a,NULL,\"b c\"}|{\"gift\": null, \"size\": [1, 2.50]}|t",
        "2|bob|7.00||||f", "3|ann||1999-12-31 23:59:59+00|{}|\"text\"|", "5|nobody|||||", "6|bob|0.01|2026-07-08 00:00:00+00|{z}|true|t"],
    "SELECT * FROM customers ORDER BY name": ["ann|1980-02-29|60|\\x00ff|07:30:00|1 mon 2 days 03:00:00|0e984725-c51c-4bf4-9960-e1c80e27aba0", "bob||NaN||||"],
    "SELECT name, minutes, count(*) FROM visits GROUP BY 1, 2 ORDER BY 1": ["ann|5|2", "bob|1|1", "cyd|44|1"],
    "SELECT * FROM totals ORDER BY customer": ["ann|2|11.50|1999-12-31 23:59:59+00|11.50|1", "bob|2|7.01|2026-07-08 00:00:00+00|7.00|2", "nobody|1||||0"],
    "SELECT * FROM named ORDER BY id": ["1|11.50|1980-02-29|1 mon 2 days 03:00:00", "2|7.00||", "3||1980-02-29|1 mon 2 days 03:00:00", "5|||", "6|0.01||"],
    "SELECT * FROM minutes ORDER BY name": ["ann|10", "bob|1", "cyd|44"],
    "SELECT * FROM pairings ORDER BY 1, 2": ["ann|t", "ann|", "bob|f", "bob|t", "nobody|"],
    "SELECT sum(n), sum(total), count(*) FROM halves": ["1000|500500|10"],
    "SELECT * FROM late ORDER BY paid": ["f|1", "t|2", "|2"],
    "SELECT more->'size'->1 FROM sales.orders WHERE customer = 'ann' AND id = 1": ["2.50"],
    "SELECT obj_description('customers'::regclass)": ["who buys"],
    "SELECT has_table_privilege('clerk', 'sales.orders', 'SELECT')": ["t"],
    "SELECT name, state FROM tidemark.jobs WHERE state <> 'running'": [],
}


def make(name):
    from harness import Tidemark, eventually

    path = FOLDER / f"{name}.tar.gz"
    if path.exists():
        raise SystemExit(f"{path} is there, and is never made again")
    with tempfile.TemporaryDirectory() as folder:
        server = Tidemark(folder)
        # No checkpoint but the one that is asked for.
        server.start(checkpoint_ms=3_600_000)
        server.run(BEFORE)
        eventually(lambda: server.value("SELECT sum(n) FROM halves") == 1000)
        server.query("FLUSH")
        server.run(BEHIND)
        server.kill()
        FOLDER.mkdir(exist_ok=True)
        with tarfile.open(path, "w:gz") as tar:
            tar.add(server.data, "data")
    print(f"{path}: {path.stat().st_size} bytes")


def unpack(name, folder):
    """Puts the data folder of a release below `folder`, as `data`."""
    with tarfile.open(fileobj=io.BytesIO((FOLDER / f"{name}.tar.gz").read_bytes())) as tar:
        tar.extractall(folder, filter="data")


if __name__ == "__main__":
    make(*sys.argv[1:])
