"""The differences that are meant. Each has its entry, with the reason, in the manual's list (docs/sql-reference.md, "Differences from PostgreSQL"); nothing stands here that does
not stand there.

A predicate gets the statement, both answers, and a way to ask PostgreSQL something more.
"""

import math
import re
from collections import Counter

from .compare import multiset

_ORDER_DEPENDENT = re.compile(r"\b(sum|avg|stddev\w*|var\w*|corr|covar\w*|regr_\w+)\(")
_EXTREME = re.compile(r"SELECT (?:min|max)\((.*)\)(?: FILTER .*)? AS x FROM (edge.*)$", re.DOTALL)
_FLOATS = (700, 701)


def _pairs(postgres, tidemark):
    """The cells that are not the same, with their types; None where the rows do not correspond."""
    left, right = multiset(postgres.rows), multiset(tidemark.rows)
    if len(left) != len(right) or postgres.types != tidemark.types:
        return None
    found = []
    for one, other in zip(left, right):
        for oid, a, b in zip(postgres.types, one, other):
            if a != b:
                if a is None or b is None:
                    return None
                found.append((oid, a.decode(errors="replace"), b.decode(errors="replace")))
    return found


def _floating_point_sums(statement, postgres, tidemark, ask):
    """Sums and averages of floating-point numbers are exact in Tidemark, and depend on the order of rows in PostgreSQL."""
    if not _ORDER_DEPENDENT.search(statement) or not (postgres.ok and tidemark.ok):
        return False
    pairs = _pairs(postgres, tidemark)
    try:
        return bool(pairs) and all(oid in _FLOATS and math.isclose(float(a), float(b), rel_tol=1e-6 if oid == 700 else 1e-9) for oid, a, b in pairs)
    except ValueError:
        return False


def _equal_values(statement, postgres, tidemark, ask):
    """Which of several equal values (1.0 and 1.00, 1 month and 30 days) min and max show is open in SQL: it must be one that is there, and equal to PostgreSQL's."""
    match = _EXTREME.match(statement)
    pairs = _pairs(postgres, tidemark) if match and postgres.ok and tidemark.ok else None
    if not pairs:
        return False
    inner, rest = match[1], match[2]
    for oid, a, b in pairs:
        quoted = ["'" + text.replace("'", "''") + "'" for text in (a, b)]
        spelled = ask(f"SELECT {oid}::regtype::text").rows[0][0].decode()
        same = ask(f"SELECT {quoted[0]}::{spelled} = {quoted[1]}::{spelled}")
        there = ask(f"SELECT bool_or(found) FROM (SELECT array_position(array_agg(({inner})::text), {quoted[1]}) IS NOT NULL AS found FROM {rest}) AS groups")
        if not same.ok or same.rows[0][0] != b"t" or not there.ok or there.rows[0][0] != b"t":
            return False
    return True


_TEXTS = {1043: 25, 1015: 1009}


def _text_and_varchar(statement, postgres, tidemark, ask):
    """A varchar is a text in Tidemark as soon as it is computed, and in PostgreSQL where a function asks for text."""
    if not (postgres.ok and tidemark.ok) or postgres.types == tidemark.types:
        return False
    plain = [[_TEXTS.get(oid, oid) for oid in types] for types in (postgres.types, tidemark.types)]
    return plain[0] == plain[1] and multiset(postgres.rows) == multiset(tidemark.rows) and postgres.names == tidemark.names


def _infinite_moments(statement, postgres, tidemark, ask):
    """age of an infinite moment, and whole fields of it, are errors in Tidemark; in a view its row is missing."""
    if not postgres.ok:
        return False
    if tidemark.ok:
        missing = Counter(postgres.rows) - Counter(tidemark.rows)
        told = any(f"{name}(" in statement for name in ("extract", "age"))
        return told and not Counter(tidemark.rows) - Counter(postgres.rows) and bool(missing) and all(map(_is_infinite, missing))
    return "of infinity" in tidemark.message or "timestamp out of range" in tidemark.message and re.search(r"\bage\(", statement) is not None


def _is_infinite(row):
    """Whether a row has an infinity, or the years that PostgreSQL 15 counts to one: some 292,250."""
    return any(re.search(rb"Infinity|292\d{3} years", cell or b"") for cell in row)


INTENDED = (("floating-point sums", _floating_point_sums), ("equal values", _equal_values), ("text and varchar", _text_and_varchar),
            ("infinite moments", _infinite_moments))


def reason(statement, postgres, tidemark, ask):
    """The name of the manual's entry; '' for a difference that is not meant."""
    return next((name for name, holds in INTENDED if holds(statement, postgres, tidemark, ask)), "")
