"""Sums and statistics of floating-point numbers: those that depend on the order of rows in their last digits, or in PostgreSQL in more than that.
"""

import math
import re
from dataclasses import dataclass, replace

from .compare import multiset, pairs
from .statement import closing, flat, masked, split

_STATISTICS = r"stddev\w*|var\w*|corr|covar\w*|regr_\w+"
_ORDER_DEPENDENT = re.compile(rf"\b(sum|avg|{_STATISTICS})\(")
_CALL = re.compile(rf"SELECT (sum|avg|{_STATISTICS})\((DISTINCT )?")
_REST = re.compile(r"(?: FILTER (\(WHERE .*\)))? AS x FROM (edge\b.*)$", re.DOTALL)
_FLOATS = (700, 701)
# Noise of what is as large as a product of two values, and of its square root.
_NOISE, _NOISE_OF_ROOT = 1e-13, 1e-6


def floating_point_sums(case):
    """Sums, averages and statistics of floating-point numbers come of exact sums in Tidemark, and depend on the order of rows in PostgreSQL."""
    if not case.tidemark.ok or not _ORDER_DEPENDENT.search(case.query):
        return False
    if case.postgres.ok:
        return _close(case) or _noise(case)
    return case.postgres.code == "22003" and "overflow" in case.postgres.message and _overflow(case)


def _close(case):
    found = pairs(case.postgres, case.tidemark)
    return bool(found) and all(oid in _FLOATS and _is_close(a, b, oid) for oid, a, b in found)


def _is_close(one, other, oid=701):
    try:
        one, other = float(one), float(other)
        return one == other or math.isnan(one) and math.isnan(other) or math.isclose(one, other, rel_tol=1e-6 if oid == 700 else 1e-9)
    except ValueError:
        return False


@dataclass(frozen=True)
class Call:
    """`SELECT name(arguments) FILTER (WHERE ..) AS x FROM edge ..`"""

    name: str
    distinct: str
    arguments: tuple
    condition: str
    rows: str

    def sql(self, cast="", order=""):
        listed = ", ".join(f"({argument}){cast}" if cast else argument for argument in self.arguments)
        return f"{self.name}({self.distinct}{listed}{order}){f' FILTER {self.condition}' if self.condition else ''}"

    def over(self, aggregate):
        """Another aggregate of the rows that this one has."""
        present = " AND ".join(f"({argument}) IS NOT NULL" for argument in self.arguments)
        return f"{aggregate} FILTER (WHERE {present}{f' AND ({self.condition[7:-1]})' if self.condition else ''})"


def call_of(text):
    match = _CALL.match(text)
    if not match:
        return None
    end = closing(masked(text), text.index("("))
    rest = _REST.match(text, end + 1)
    # a single call: nothing but its own parentheses before FROM
    if not rest or "," in flat(text)[end: rest.start(2)]:
        return None
    return Call(match[1], match[2] or "", tuple(split(text[match.end():end])), rest[1] or "", rest[2])


def _noise(case):
    """Whether each row of PostgreSQL's has one of Tidemark's that differs by no more than rounding of values as large as those in its group may make."""
    call = call_of(case.query)
    if call is None or case.postgres.types != case.tidemark.types or len(case.postgres.types) != 1 or case.postgres.types[0] not in _FLOATS:
        return False
    sizes = ", ".join(call.over(f"max(abs(({argument})::double precision))") for argument in (call.arguments[0], call.arguments[-1]))
    constant = ", ".join(f"{call.over(f'max({argument})')} = {call.over(f'min({argument})')}" for argument in (call.arguments[0], call.arguments[-1]))
    answer = case.ask(f"SELECT {call.sql()} AS x, {sizes}, {constant} FROM {call.rows}")
    if not answer.ok or multiset(row[:1] for row in answer.rows) != multiset(case.postgres.rows):
        return False
    left = [row[0] for row in case.tidemark.rows]
    for row in sorted(answer.rows, key=lambda row: row[0] not in left):  # those that are the same first
        match = next((cell for cell in left if cell == row[0]), None) if row[0] in left else next((cell for cell in left if _near(call.name, row, cell)), left)
        if match is left:
            return False
        left.remove(match)
    return not left


def _near(name, row, cell):
    """Whether a cell is PostgreSQL's up to noise; of a row with it, the largest values of both arguments, and whether they have one value only."""
    expected, sizes, (constant_y, constant_x) = row[0], [float(size or "nan") for size in row[1:3]], [flag == b"t" for flag in row[3:]]
    y, x = sizes
    if constant_x and name in ("corr", "regr_r2", "regr_slope", "regr_intercept") or constant_y and name in ("corr", "regr_r2"):
        return all(map(math.isfinite, sizes))  # not defined: what comes out is a quotient of noise, or NULL
    if expected is None or cell is None:
        return False
    one, other = float(expected), float(cell)
    if name.startswith("stddev"):
        noise = _NOISE_OF_ROOT * y
    elif name in ("corr", "regr_r2"):
        noise = 1e-9
    elif name in ("regr_avgx", "regr_avgy"):
        noise = _NOISE * (x if name == "regr_avgx" else y)
    elif name.startswith("var"):
        noise = _NOISE * y * y
    elif name.startswith("covar") or name == "regr_sxy":
        noise = _NOISE * x * y
    elif name in ("regr_sxx", "regr_syy"):
        noise = _NOISE * (x * x if name == "regr_sxx" else y * y)
    else:
        noise = 0.0
    return _is_close(one, other) or all(map(math.isfinite, (one, other, noise))) and abs(one - other) <= noise


def _overflow(case):
    """PostgreSQL's sums overflow on their way: in an average whose value is in range, or before it comes to a value that is not finite."""
    call = call_of(case.query)
    if call is None or call.name == "sum":
        return False
    if call.name == "avg":
        # a numeric of 15 digits may be larger than the largest double
        return _agrees(case.ask(f"SELECT ({call.sql('::numeric')} / 1024)::double precision AS x FROM {call.rows}"), _divided(case.tidemark, 1024))
    infinite = " + ".join(f"(({argument})::double precision IN ('NaN', 'Infinity', '-Infinity'))::integer" for argument in call.arguments)
    there = case.ask(f"SELECT {call.over(f'max({infinite})')} > 0 AS x FROM {re.sub(' GROUP BY .*', '', call.rows)}")
    if not there.ok or there.rows[0][0] != b"t":
        return False
    order = f"{call.arguments[0]} DESC" if call.distinct else f"{infinite} DESC"
    return _agrees(case.ask(f"SELECT {call.sql(order=f' ORDER BY {order}')} AS x FROM {call.rows}"), case.tidemark)


def _divided(answer, divisor):
    return replace(answer, rows=tuple((cell and repr(float(cell) / divisor).encode(),) for (cell,) in answer.rows))


def _agrees(answer, tidemark):
    """The same up to the last digits."""
    if not answer.ok or len(answer.types) != 1 or answer.types[0] not in _FLOATS:
        return False
    found = pairs(answer, tidemark)
    return found is not None and all(_is_close(a, b) for _, a, b in found)
