"""What is taken for meant, and what must not be: statements that PostgreSQL answers, and answers that Tidemark might give."""

import pytest

from . import intended
from .compare import is_ordered
from .intended import Case
from .postgres import Postgres
from .session import Answer

_OIDS = {"float8": 701, "numeric": 1700, "text": 25, "int2": 21, "int4": 23, "bool": 16, "date": 1082}
_EDGE = ("id integer PRIMARY KEY, f double precision, g double precision, b boolean, i integer, t text, m timestamp, n numeric",
         "(1, 0.1, 1.7976931348623157e308, 't', -32768, 'a', 'infinity', 100.00), (2, 0.1, 9e15, 't', 5, 'b', '2024-02-29', 100), (3, 0.1, '-Infinity', 'f', 7, NULL, NULL, 1.5)")


@pytest.fixture(scope="module")
def postgres():
    server = Postgres()
    try:
        session = server.start().connect()
        for statement in (f"CREATE TABLE edge ({_EDGE[0]})", f"INSERT INTO edge VALUES {_EDGE[1]}", "CREATE VIEW v AS SELECT id, extract(year FROM m) AS x FROM edge"):
            assert session.ask(statement).ok
        yield session
        session.close()
    finally:
        server.stop()


def _rows(type, *cells):
    return Answer(("x",), (_OIDS[type],), tuple((None if cell is None else cell.encode(),) for cell in cells))


def _error(code, message=""):
    return Answer(code=code, message=message)


_VIEWS = {"v": "SELECT id, extract(year FROM m) AS x FROM edge"}
_NULL_FACTOR = "SELECT NULL::smallint * ('a'::text::smallint) AS x"
_CASE = "SELECT CASE WHEN t = 'a' THEN 1 WHEN b THEN i / 0 END AS x FROM edge WHERE id = 1"
_TWO_ERRORS = "SELECT 'a'::text::integer + 1 / get_byte('\\x00'::bytea, '0'::integer) AS x"
_CUBE = "SELECT '2024-01-31'::date AS x GROUP BY CUBE ('2024-01-31'::date) ORDER BY 1 NULLS FIRST"

CASES = [
    # what is not needed
    (_NULL_FACTOR, _rows("int2", None), "what is not needed"),
    (_NULL_FACTOR, _rows("int2", "0"), ""),
    ("SELECT varchar 'a '::numeric * NULL::numeric AS x", _rows("numeric", None), "what is not needed"),
    (_NULL_FACTOR, _rows("int4", None), ""),
    ("SELECT 'a'::text::smallint AS x", _rows("int2", None), ""),
    ("SELECT i / 0 AS x FROM edge", _rows("int4", None, None, None), ""),
    ("SELECT NULL::integer + 1 / 0 AS x", _rows("int4", None), "what is not needed"),
    ("SELECT CASE WHEN i > 0 THEN '{a}'::text[]::integer[] END IS NULL AS x FROM edge WHERE id = 1", _rows("bool", "t"), "what is not needed"),
    ("SELECT pg_typeof(CAST('a'::char(4) AS bigint))::text AS x", _rows("text", "bigint"), "what is not needed"),
    ("SELECT pg_typeof(CAST('a'::char(4) AS bigint))::text AS x", _rows("text", "integer"), ""),
    ("SELECT pg_typeof(pg_typeof(CAST('a'::char(4) AS bigint))::text)::text AS x", _rows("text", "text"), "what is not needed"),
    ("SELECT max(1 / '0'::integer) AS x FROM edge WHERE id > 99", _rows("int4", None), "what is not needed"),
    ("SELECT nothing AS x FROM edge", _rows("int4", None, None, None), ""),
    ('SELECT NULL::smallint * ($1::text::smallint) AS x /*{"values": ["61"], "types": [25]}*/', _rows("int2", None), "what is not needed"),
    ("INSERT INTO edge VALUES (9, 'a'::text::float8)", _rows("int4", None), ""),
    ("SELECT CAST('a'::text AS boolean) AND 'f'::boolean AS x", _rows("bool", "f"), "what is not needed"),
    ("SELECT CAST('a'::text AS boolean) AND 't'::boolean AS x", _rows("bool", "f"), ""),
    ("SELECT CAST('a'::text AS boolean) AND 't'::boolean AS x", _rows("bool", None), ""),
    ("SELECT ROW(acos('2'::float8), 1) = ROW(0::float8, 2) AS x", _rows("bool", "f"), "what is not needed"),
    ("SELECT ROW(acos('2'::float8), 1) = ROW(0::float8, 1) AS x", _rows("bool", "f"), ""),
    ("SELECT ROW(jsonb_array_length('1'::jsonb), '1'::integer) IS DISTINCT FROM ROW(NULL::integer, '2'::integer) AS x", _rows("bool", "t"), "what is not needed"),
    ("SELECT ROW(1, NULL::integer) IS DISTINCT FROM ROW(date_part('a'::text, make_date('1'::integer, 1, '12345'::integer)), 1) AS x", _rows("bool", "t"), "what is not needed"),
    ("SELECT 'a'::char(4) !~~ '\\'::text AS x", _rows("bool", "t"), ""),
    ("SELECT make_date(jsonb_array_length('1'), 1, NULL::integer) AS x", _rows("date", None), "what is not needed"),
    ("SELECT make_date(jsonb_array_length('1'), 1, 1) AS x", _rows("date", None), ""),
    ("SELECT coalesce(nullif(t, 'a')::integer, 1) AS x FROM edge", _rows("int4", "1", "1", "1"), ""),
    # one of several errors
    (_TWO_ERRORS, _error("22012"), "one of several errors"),
    (_TWO_ERRORS, _error("22003"), ""),
    (_TWO_ERRORS, _error("42883"), ""),
    ("SELECT 'Infinity'::numeric::smallint AS x", _error("22003"), ""),
    ("SELECT (@ i::smallint) >> 'a'::char(4)::integer AS x FROM edge WHERE id = 1", _error("22003"), "one of several errors"),
    ("SELECT make_timestamptz(1, 1, 1, 1, 1, 1e15, 'a'::text) AS x", _error("22023"), ""),
    # floating-point statistics
    ("SELECT stddev(f) AS x FROM edge", _rows("float8", "1.7e-09"), "floating-point sums"),
    ("SELECT stddev(f) AS x FROM edge", _rows("float8", "1e-03"), ""),
    ("SELECT var_pop(f) AS x FROM edge", _rows("float8", "3e-18"), "floating-point sums"),
    ("SELECT var_pop(f) AS x FROM edge", _rows("float8", "3e-10"), ""),
    ("SELECT var_pop('1e-5'::double precision) FILTER (WHERE i > 0) AS x FROM edge", _rows("float8", "1e-25"), "floating-point sums"),
    ("SELECT var_pop('1e-5'::double precision) FILTER (WHERE i > 0) AS x FROM edge", _rows("float8", "1e-20"), ""),
    ("SELECT var_pop('123456789.1'::numeric) AS x FROM edge", _rows("numeric", "0.000001"), ""),
    ("SELECT corr(f, i) AS x FROM edge", _rows("float8", "0.5"), "floating-point sums"),
    ("SELECT regr_slope(f, i) AS x FROM edge", _rows("float8", "0.5"), ""),
    ("SELECT corr(i, id) AS x FROM edge", _rows("float8", None), ""),
    ("SELECT stddev(g) AS x FROM edge", _rows("float8", "NaN"), "floating-point sums"),
    ("SELECT stddev(g) AS x FROM edge", _rows("float8", "1"), ""),
    ("SELECT stddev(g) AS x FROM edge GROUP BY b", _rows("float8", "NaN", None), ""),
    ("SELECT stddev(g) AS x FROM edge WHERE id < 3", _rows("float8", "NaN"), ""),
    ("SELECT stddev(DISTINCT -g) AS x FROM edge", _rows("float8", "NaN"), "floating-point sums"),
    ("SELECT avg(1.7976931348623157e308::double precision) AS x FROM edge", _rows("float8", "1.7976931348623157e+308"), "floating-point sums"),
    ("SELECT avg(1.7976931348623157e308::double precision) AS x FROM edge", _rows("float8", "1.6e+308"), ""),
    ("SELECT avg(coalesce(1 / nullif(i, 5) * 'NaN'::float8, 1e308)) AS x FROM edge", _rows("float8", "1"), ""),
    ("SELECT avg(CASE id WHEN 3 THEN 'NaN'::float8 ELSE 1.7e308 END) AS x FROM edge", _rows("float8", "NaN"), "floating-point sums"),
    ("SELECT sum(1.7976931348623157e308::double precision) AS x FROM edge", _rows("float8", "Infinity"), ""),
    # constants in grouping sets
    (_CUBE, _rows("date", None, "2024-01-31"), "constants in grouping sets"),
    (_CUBE, _rows("date", None, "2024-01-30"), ""),
    (_CUBE.replace("FIRST", "LAST"), _rows("date", None, "2024-01-31"), ""),
    ("SELECT i AS x FROM edge GROUP BY CUBE (i) ORDER BY 1 NULLS FIRST", _rows("int4", "7", "5", "-32768", None), ""),
    # ranges
    ("SELECT make_interval(secs => 1e16) AS x", _error("22008", "interval out of range"), "ranges"),
    ("SELECT '1 day'::interval * 106751992 AS x", _error("22008", "interval out of range"), ""),
    # infinite moments
    ("SELECT x FROM v", _rows("numeric", "2024", None), "infinite moments"),
    ("SELECT x FROM v", _rows("numeric", None), ""),
    ("SELECT x FROM v WHERE id = 1", _rows("numeric"), "infinite moments"),
    ("SELECT x FROM v WHERE id = 2", _rows("numeric"), ""),
    ("SELECT sum(extract(year FROM m)) AS x FROM edge", _rows("numeric", "2024"), "infinite moments"),
    ("SELECT sum(extract(year FROM m)) AS x FROM edge", _rows("numeric", None), ""),
    ("SELECT scale(extract(year FROM m)) AS x FROM edge WHERE id = 1", _rows("int4"), "infinite moments"),
    ("SELECT scale(extract(year FROM m)) AS x FROM edge", _rows("int4", "0", None), "infinite moments"),
    ("SELECT scale(extract(year FROM m)) AS x FROM edge", _rows("int4", "0"), ""),
    # varchar and text
    ("SELECT pg_typeof('a'::varchar)::text AS x", _rows("text", "text"), "text and varchar"),
    ("SELECT pg_typeof('a'::varchar)::text AS x", _rows("text", "integer"), ""),
    ("SELECT 'character varying'::text AS x", _rows("text", "text"), ""),
    # equal values
    ("SELECT DISTINCT n AS x FROM edge WHERE id < 3", _rows("numeric", "100"), "equal values"),
    ("SELECT DISTINCT n AS x FROM edge WHERE id < 3", _rows("numeric", "100.0"), ""),
    ("SELECT DISTINCT n AS x FROM edge WHERE id < 3", _rows("numeric", "101"), ""),
    ("SELECT n AS x FROM edge WHERE id = 3 UNION ALL SELECT 0", _rows("numeric", "1.50", "0"), ""),
    ("SELECT n AS x FROM edge WHERE n IS DISTINCT FROM 100", _rows("numeric", "1.50"), ""),
    ("SELECT max(n) AS x FROM edge", _rows("numeric", "100"), "equal values"),
    ("SELECT max(n) AS x FROM edge", _rows("numeric", "100.000"), ""),
    ("SELECT min('-0'::double precision) AS x FROM edge", _rows("float8", "0"), ""),
]


@pytest.mark.parametrize("statement, tidemark, name", CASES)
def test_reason(postgres, statement, tidemark, name):
    def ask(text):
        bare, options = intended.parameters(text)
        return postgres.ask(bare, [value and bytes.fromhex(value) for value in options["values"]], options["types"]) if options else postgres.ask(text)

    # the other of two equal values, where PostgreSQL shows this one
    answer = ask(statement)
    if name == "equal values" and answer == tidemark:
        tidemark = Answer(tidemark.names, tidemark.types, ((b"100.00",),))
    assert intended.reason(Case(statement, answer, tidemark, ask, _VIEWS, is_ordered(statement))) == name, answer.text()
    assert postgres.ask("SHOW plan_cache_mode").rows == ((b"auto",),)
