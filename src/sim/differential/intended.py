"""The differences that are meant. Each has its entry, with the reason, in the manual's list (docs/sql-reference.md, "Differences from PostgreSQL"); nothing stands here that does
not stand there. floats.py and evaluation.py have those that need more than a few lines.

A predicate gets the statement with both answers, and a way to ask PostgreSQL something more.
"""

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from .compare import pairs, plain_types, same_answer
from .evaluation import another_error, not_needed
from .floats import floating_point_sums
from .session import Answer
from .statement import LITERAL, TYPE, calls, flat, parameters, quoted, split

_EXTREME = re.compile(r"SELECT (?:min|max)\((.*)\)(?: FILTER .*)? AS x FROM (edge.*)$", re.DOTALL)
_NUMERICS_AND_INTERVALS = (1700, 1186)
_HOURS_MAX = 2_562_047
_ONE_OF_EQUALS = re.compile(r"(?<!IS )(?<!NOT )\bDISTINCT\b|\bGROUP BY\b|\bUNION\b(?! ALL)|\bINTERSECT\b|\bEXCEPT\b")
_TYPE_NAMES = {"character varying": "text", "character varying[]": "text[]"}


@dataclass(frozen=True)
class Case:
    """A statement with both answers; `ask` asks PostgreSQL, `views` has the queries of the views that there are."""

    statement: str
    postgres: Answer
    tidemark: Answer
    ask: Callable
    views: dict = field(default_factory=dict)
    ordered: bool = False

    @property
    def is_query(self):
        return re.match(r"\(*(SELECT|WITH)\b", self.statement) is not None

    @property
    def query(self):
        """The statement with the queries of the views in place of their names."""
        text = self.statement
        whole = re.fullmatch(r"SELECT \* FROM (\w+)", text)
        if whole and whole[1] in self.views:
            text = self.views[whole[1]]
        for name, query in reversed(self.views.items()):
            text = re.sub(rf"\b(FROM|JOIN) {name}\b(?! AS)", lambda match: f"{match[1]} ({query}) AS {name}", text)
            text = re.sub(rf"\b(FROM|JOIN) \(?{name}\b(?= AS)", lambda match: match[0].replace(name, f"({query})"), text)
        return text


def _equal_values(case):
    """Which of several equal values (1.0 and 1.00, 1 month and 30 days) is shown is open in SQL: it must be one that is there, and equal to PostgreSQL's."""
    found = pairs(case.postgres, case.tidemark) if case.postgres.ok and case.tidemark.ok else None
    if not found or not all(_are_equal(case, oid, a, b) for oid, a, b in found):
        return False
    extreme = _EXTREME.match(case.query)
    if extreme:
        return all(_is_there(case, f"SELECT ({extreme[1]})::text FROM {re.sub(' GROUP BY .*', '', extreme[2])}", b) for _, _, b in found)
    if not _ONE_OF_EQUALS.search(case.query) or not all(oid in _NUMERICS_AND_INTERVALS for oid, _, _ in found):
        return False
    if "GROUP BY" in case.query:
        return True
    every = re.sub(r"(?<!IS )(?<!NOT )\bDISTINCT |(?<=INTERSECT )ALL |(?<=EXCEPT )ALL ", "", case.query)
    every = re.sub(r"\b(UNION|INTERSECT|EXCEPT)\b(?! ALL)", "UNION ALL", every)
    answer = case.ask(every)
    return answer.ok and {b for _, _, b in found} <= {(cell or b"").decode(errors="replace") for row in answer.rows for cell in row}


def _are_equal(case, oid, one, other):
    if "\0" in one + other:  # in binary
        return False
    spelled = case.ask(f"SELECT {oid}::regtype::text").rows[0][0].decode()
    answer = case.ask(f"SELECT {quoted(one)}::{spelled} = {quoted(other)}::{spelled}")
    return answer.ok and answer.rows[0][0] == b"t"


def _is_there(case, texts, text):
    answer = case.ask(f"SELECT 1 FROM ({texts}) AS listed(cell) WHERE cell = {quoted(text)}")
    return answer.ok and bool(answer.rows)


def _text_and_varchar(case):
    """A varchar is a text in Tidemark as soon as it is computed, and in PostgreSQL where a function asks for text; pg_typeof says the same."""
    if not same_answer(case.postgres, case.tidemark):
        found = pairs(case.postgres, case.tidemark) if case.postgres.ok and case.tidemark.ok and "pg_typeof(" in case.query else None
        return bool(found) and all(_TYPE_NAMES.get(a) == b for _, a, b in found)
    return case.postgres.types != case.tidemark.types and plain_types(case.postgres) == plain_types(case.tidemark)


def _infinite_moments(case):
    """age of an infinite moment, and whole fields of it, are errors in Tidemark; in a view its row is missing."""
    if not case.postgres.ok:
        return False
    if not case.tidemark.ok:
        return "of infinity" in case.tidemark.message or "timestamp out of range" in case.tidemark.message and re.search(r"\bage\(", case.query) is not None
    text, _ = parameters(case.query)
    infinite = [f"({text[start:end]})::text IN ('Infinity', '-Infinity')" for start, end, _ in calls(text, "extract")]
    infinite += [f"({text[start:end]})::text ~ '292\\d{{3}} years'" for start, end, _ in calls(text, "age")]
    if not infinite:
        return False
    missing = Counter(case.postgres.rows) - Counter(case.tidemark.rows)
    if missing and not Counter(case.tidemark.rows) - Counter(case.postgres.rows) and all(map(_is_infinite, missing)):
        return True
    without = f"FROM (SELECT * FROM edge WHERE ({' OR '.join(infinite)}) IS NOT TRUE) AS edge"
    return bool(missing) and "FROM edge" in text and same_answer(case.ask(re.sub(r"\bFROM edge\b", lambda _: without, text)), case.tidemark)


def _is_infinite(row):
    """Whether a row has an infinity, or the years that PostgreSQL 15 counts to one: some 292,250."""
    return any(re.search(rb"Infinity|292\d{3} years", cell or b"") for cell in row)


def _ranges(case):
    """The hours of an interval end earlier than PostgreSQL's, which have run over there where they are very large: an error, and in a view a row that is missing."""
    if not case.postgres.ok:
        return False
    if not case.tidemark.ok:
        return (case.tidemark.code, case.tidemark.message) == ("22008", "interval out of range") and any(map(_is_long, case.postgres.rows))
    missing = Counter(case.postgres.rows) - Counter(case.tidemark.rows)
    return bool(missing) and not Counter(case.tidemark.rows) - Counter(case.postgres.rows) and all(map(_is_long, missing))


def _is_long(row):
    """Whether a row has an interval of more hours than there are here."""
    return any(int(hours) > _HOURS_MAX for cell in row for hours in re.findall(rb"(\d+):\d\d:\d\d", cell or b""))


def _constant_groups(case):
    """PostgreSQL 15 takes a constant that grouping sets make NULL for sorted already; it sorts right where the groups stand in a query of their own."""
    text = case.query
    order = text.rfind(" ORDER BY ")
    if not (case.postgres.ok and case.tidemark.ok) or order < 0 or ")" in text[order:]:
        return False
    if not any(map(_is_constant, _grouping_keys(text[:order]))):
        return False
    answer = case.ask(f"SELECT * FROM ({text[:order]} OFFSET 0) AS groups{text[order:]}")
    return same_answer(answer, case.tidemark) and answer.rows == case.tidemark.rows


def _grouping_keys(text):
    """What stands in the statement's CUBE, ROLLUP and GROUPING SETS."""
    shown = flat(text)
    for name in ("CUBE", "ROLLUP", "GROUPING SETS"):
        for start, end, inside in calls(text, f"{name} ?"):
            if f"GROUP BY {name}" in shown and shown[start:end].startswith(name):
                yield from (key for group in split(inside) for key in split(group.strip("()")))


def _is_constant(text):
    """Whether no column is named."""
    bare = re.sub(rf"{LITERAL}|::{TYPE}|\b(?:true|false|NULL)\b", "", text)
    return bool(text) and not re.search("[A-Za-z]", bare)


INTENDED = (("floating-point sums", floating_point_sums), ("equal values", _equal_values), ("text and varchar", _text_and_varchar), ("infinite moments", _infinite_moments), ("ranges", _ranges),
            ("constants in grouping sets", _constant_groups), ("what is not needed", not_needed), ("one of several errors", another_error))


def reason(case):
    """The name of the manual's entry; '' for a difference that is not meant."""
    return next((name for name, holds in INTENDED if holds(case)), "")
