"""The types that are compared, the values at which they go wrong, and how literals of them are spelled.

A type is named as in PostgreSQL's pg_type (`int4`, `bpchar`); an array of it ends in `[]`. The edge values are texts that PostgreSQL reads as the type, in more than one
spelling.
"""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Type:
    names: tuple  # how SQL spells it; the first is the usual one
    edges: tuple
    column: str = ""  # the type of a column that holds it, where that has a length or precision
    bare: str = ""  # a literal without quotes may be a text that matches this


_FLOATS = ("0", "1", "-1", "0.5", "-1.5", "2.5", "0.1", "3", "100", "-0", "1e15", "1e16", "123456.789", "1e-5", "NaN", "Infinity", "-Infinity", "10", "2", "-7.25")
_INTEGERS = ("0", "1", "-1", "2", "3", "7", "10", "-12", "100", "32767", "-32768")
_DECIMAL = r"\d+\.\d+|\d+(\.\d+)?e-?\d+"

SCALARS = {
    "bool": Type(("boolean", "bool"), ("t", "f", "true", "no"), bare="true|false"),
    "int2": Type(("smallint", "int2"), _INTEGERS),
    "int4": Type(("integer", "int", "int4"), (*_INTEGERS, "46341", "2147483647", "-2147483648", "12345"), bare=r"\d+"),
    "int8": Type(("bigint", "int8"), (*_INTEGERS, "2147483648", "3037000500", "9223372036854775807", "-9223372036854775808"), bare=r"\d{10,}"),
    "float4": Type(("real", "float4"), (*_FLOATS, "3.4028235e38", "1.1754944e-38", "16777217")),
    "float8": Type(("double precision", "float8"), (*_FLOATS, "1.7976931348623157e308", "5e-324", "9007199254740993")),
    "numeric": Type(("numeric", "decimal"), ("0", "1", "-1", "0.5", "-0.5", "1.5", "2.5", "0.1", "1.10", "100", "3", "7", "0.001", "-2.675", "0.00", "123456789.123456789",
                                            "99999999999999999999.99", "-12345678901234567890.12345", "1e-20", "1000000", "NaN", "Infinity", "-Infinity", "2e3"), bare=_DECIMAL),
    "text": Type(("text",), ("", "a", "A", "ab", "abc", " a ", "äöü", "ß", "日本語", "😀x", "a%b_c", "\\", "O'Brien", "12", "-1.5", "true", "2024-02-29", "NULL", "a\tb\nc", "{1,2}",
                             "x,y,,z",
                             "Hello World", "foo_bar baz", "abcabc", '"q"', "select", "1 day", '{"a": 1}')),
    "varchar": Type(("varchar", "character varying"), ("", "a", "ab", "abc", "a ", "ÄB", "12", "b%", "Hello"), column="varchar(5)"),
    "bpchar": Type(("char(4)", "character(4)", "char(2)", "bpchar"), ("", "a", "ab", "abc ", " b", "äb", "12"), column="char(4)"),
    "bytea": Type(("bytea",), ("\\x", "\\x00", "\\x00ff10", "\\x616263", "\\xc3a4", "\\xffffffffffffffff", "abc", "a\\000b", "\\x61")),
    "date": Type(("date",), ("2024-02-29", "2023-12-31", "1970-01-01", "2000-01-01", "0001-01-01", "9999-12-31", "0044-03-15 BC", "infinity", "-infinity", "2024-03-31",
                             "1999-01-08", "20240701",
                             "January 8, 1999")),
    "time": Type(("time", "time without time zone"), ("00:00:00", "23:59:59.999999", "12:34:56", "24:00:00", "04:05 PM", "12:34:56.789", "00:00:00.000001")),
    "timestamp": Type(("timestamp", "timestamp without time zone"), ("2024-02-29 12:34:56.789", "1969-12-31 23:59:59.999999", "2000-01-01 00:00:00", "2024-03-31T02:30:00",
                                                                     "0044-03-15 10:00:00 BC",
                      "infinity", "-infinity", "9999-12-31 23:59:59", "2023-12-31 23:59:60", "2024-01-31", "1999-01-08 04:05:06.5")),
    "timestamptz": Type(("timestamptz", "timestamp with time zone"), ("2024-02-29 12:34:56+02", "1969-12-31 23:59:59.999999+00", "2000-01-01 00:00:00-03:30",
                                                                      "2024-03-31 02:30:00 Europe/Berlin",
                        "infinity", "2024-07-01 00:00:00Z", "0001-01-01 00:00:00+00", "1999-01-08 04:05:06 PST")),
    "interval": Type(("interval",), ("0", "1 day", "24:00:00", "1 mon", "30 days", "-1 day", "1 year 2 mons 3 days 04:05:06.789", "-1 mon +1 day", "-00:00:01", "P1Y2M3DT4H5M6S",
                                     "1.5 days", "1 week",
                                     "100 years", "00:00:00.000001", "1 day -01:00:00", "2 hours ago", "90 minutes")),
    "uuid": Type(("uuid",), ("00000000-0000-0000-0000-000000000000", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A12",
                             "{ffffffff-ffff-ffff-ffff-ffffffffffff}",
                             "a0eebc999c0b4ef8bb6d6bb9bd380a11")),
    "jsonb": Type(("jsonb",), ("null", "true", "1", "1.0", "-0.5", '"a"', '""', "[]", "{}", "[1,2,3]", "[1, [2, null], \"a\"]", '{"a":1}', '{"b":2,"a":{"c":[1,2,{"d":null}]}}',
                               '{"a":1,"a":2}',
                               '"\\u00e4"', '[{"a":1},{"a":2}]', "1e3", "12345678901234567890.123", '"a\\"b\\\\c"', '{"":0}', '{"aa":1,"b":[true,false]}')),
}

_ARRAYS = {
    "int4": ("{}", "{1}", "{1,2,3}", "{NULL}", "{1,NULL,1}", "{{1,2},{3,4}}", "{3,2,1}", "[0:1]={5,6}"),
    "int8": ("{}", "{1,2}", "{9223372036854775807,NULL}"),
    "text": ("{}", "{a}", "{a,b,NULL}", '{"","a b","c,d"}', '{"NULL","\\"",a}', "{{a,b},{c,d}}", "{b,a,b}"),
    "numeric": ("{}", "{1.0,1.00}", "{0.5,NULL}"),
    "float8": ("{}", "{1.5,NaN}", "{0.1,NULL,-0}"),
    "bool": ("{}", "{t,f}", "{NULL,t}"),
    "date": ("{}", "{2024-02-29,NULL}", "{1970-01-01}"),
    "timestamp": ("{}", '{"2024-02-29 12:34:56"}'),
    "interval": ("{}", '{"1 mon","30 days"}'),
    "jsonb": ("{}", '{"{\\"a\\": 1}",null}'),
    "uuid": ("{}", "{00000000-0000-0000-0000-000000000000,NULL}"),
    "bytea": ("{}", '{"\\\\x61",NULL}'),
}

TYPES = {**SCALARS, **{f"{name}[]": Type(tuple(f"{spelled}[]" for spelled in SCALARS[name].names), edges) for name, edges in _ARRAYS.items()}}
ELEMENTS = tuple(_ARRAYS)

# Where a value of the type on the left is wanted, one of these may stand, and PostgreSQL converts it.
IMPLICIT = {
    "int4": ("int2",), "int8": ("int4", "int2"), "numeric": ("int4", "int8", "int2"), "float4": ("int4", "numeric"), "float8": ("numeric", "int4", "float4", "int8"),
    "text": ("varchar", "bpchar"), "varchar": ("text",), "bpchar": ("varchar",), "timestamp": ("date",), "timestamptz": ("timestamp", "date"), "interval": ("time",),
}


def quoted(text):
    return "'" + text.replace("'", "''") + "'"


def literal(rng, name):
    """One edge value of the type, in one of its spellings."""
    kind = TYPES[name]
    text, spelled = rng.choice(kind.edges), rng.choice(kind.names) if rng.random() < 0.2 else kind.names[0]
    if kind.bare and rng.random() < 0.7 and re.fullmatch(kind.bare, text):
        return text
    dice = rng.random()
    if dice < 0.75 or name.endswith("]"):
        return f"{quoted(text)}::{spelled}"
    if dice < 0.85:
        return f"CAST({quoted(text)} AS {spelled})"
    if dice < 0.93 and "(" not in spelled:
        return f"{spelled} {quoted(text)}"
    return quoted(text)


def null(name):
    return f"NULL::{TYPES[name].names[0]}"


def plain(name, text):
    """The usual spelling of a value; None is NULL."""
    return null(name) if text is None else f"{quoted(text)}::{TYPES[name].names[0]}"


def column_type(name):
    return TYPES[name].column or TYPES[name].names[0]


def column_name(name, number):
    """Of the table of edge values: `int4_1`, `int4s_2`."""
    return f"{name.replace('[]', 's')}_{number}"
