"""Differences in what is computed: an expression that is not needed and fails, and which of several errors is the one that is reported. Both are shown by PostgreSQL itself, asked
in another way.
"""

import re

from .compare import same_answer
from .statement import calls, hidden, parameters, parts, quoted, source, with_parameters

_PARTS_MAX = 60
_VALUES = 3
_TEXTS_OF_VALUES = ("0", "1", "a", "2024-02-29", "2000-01-01", "12:34:56", "01:00", "1 day", "2 hours", "{}", "{NULL}", "{0}", "00000000-0000-0000-0000-000000000000",
                    "ffffffff-ffff-ffff-ffff-ffffffffffff")
# Errors of a column that is not there, or of several of them.
_NO_COLUMN = ("42703", "42P01", "42702")


def _at_run_time(code):
    """An error of a value, not of what the statement says."""
    return code[:2] in ("22", "54") or code == "0A000"


def not_needed(case):
    """PostgreSQL computes constants when it plans: with the constants hidden from its planner it comes to Tidemark's answer. Or it does with any value in place of what fails."""
    if not case.is_query or not case.tidemark.ok or not _at_run_time(case.postgres.code):
        return False
    # without a condition PostgreSQL plans to take it from an index, and asks first whether there is a value
    text = re.sub(r"^(SELECT (?:min|max)\((?!.* FILTER ).*\))(?= AS x FROM )", r"\1 FILTER (WHERE true)", _with_types_named(case))
    return any(same_answer(_unplanned(case.ask, text, numbers), case.tidemark) for numbers in (False, True)) or _does_not_matter(case, text)


def _unplanned(ask, statement, numbers=False):
    """PostgreSQL's answer where its planner does not know the constants."""
    begun = ask("SET plan_cache_mode = force_generic_plan")
    if not begun.ok:  # in a block that has failed
        return begun
    try:
        if parameters(statement)[1] is not None:
            return ask(statement)
        text, literals = hidden(statement, numbers)
        prepared = ask(f"PREPARE unplanned AS {text}")
        if not prepared.ok:
            return prepared
        try:
            return ask(f"EXECUTE unplanned({', '.join(literals)})" if literals else "EXECUTE unplanned")
        finally:
            ask("DEALLOCATE unplanned")
    finally:
        ask("SET plan_cache_mode = auto")


def _does_not_matter(case, statement):
    """Whether the answer is Tidemark's with NULL and with two values in place of each part that fails: of the smallest that do, else of what is around them."""
    text, options = parameters(statement)
    rows = source(text)
    left = [part for part in parts(text)[:_PARTS_MAX] if _at_run_time(_code(case.ask, part, rows, options))]
    while left:
        failing = {}
        for part in left:
            if not any(smaller in part for smaller in failing):
                failing[part] = _some_values(case.ask, _type(case.ask, part, rows, options))
        if all(failing.values()) and all(same_answer(case.ask(with_parameters(_replaced(text, failing, index), options)), case.tidemark) for index in range(_VALUES)):
            return True
        left = [part for part in left if part not in failing]
    return False


def _type(ask, part, rows, options):
    """The oid of a part's type, without its being computed; 0 where it has none."""
    answer = ask(with_parameters(f"SELECT CASE WHEN false THEN {part} END AS x{rows} LIMIT 1", options))
    return answer.types[0] if answer.ok and len(answer.types) == 1 else 0


def _some_values(ask, oid):
    """NULL and two more values of a type, in SQL; () where none come to mind."""
    if not oid:
        return ()
    spelled = ask(f"SELECT {oid}::regtype::text").rows[0][0].decode()
    found = [f"(NULL::{spelled})"] + [value for value in (f"({quoted(text)}::{spelled})" for text in _TEXTS_OF_VALUES) if ask(f"SELECT {value}").ok]
    return found[:_VALUES] if len(found) >= _VALUES else ()


def _replaced(text, failing, index):
    for part, values in failing.items():
        text = re.sub(rf"(?<![\w.']){re.escape(part)}(?![\w.'])", lambda _: values[index], text)
    return text


def _code(ask, part, rows, options):
    """What a part of a statement fails with by itself, else over the rows of the statement."""
    code = ask(with_parameters(f"SELECT {part} AS x", options)).code
    return ask(with_parameters(f"SELECT {part} AS x{rows}", options)).code if code in _NO_COLUMN and rows else code


def _with_types_named(case):
    """The statement with the names of the types in place of `pg_typeof(..)`, whose argument's value does not matter."""
    text, options = parameters(case.query)
    while found := list(calls(text, "pg_typeof")):
        start, end, inside = found[-1]
        oid = _type(case.ask, inside, source(text), options)
        if not oid:
            break
        text = f"{text[:start]}{oid}::regtype{text[end:]}"
    return with_parameters(text, options)


def another_error(case):
    """Both fail, and a part of the statement, by itself, fails in PostgreSQL as the whole does in Tidemark."""
    if not case.is_query or case.postgres.ok or case.tidemark.ok or not _at_run_time(case.postgres.code) or not _at_run_time(case.tidemark.code):
        return False
    text, options = parameters(case.query)
    rows = source(text)
    return any(_code(case.ask, part, rows, options) == case.tidemark.code for part in parts(text)[:_PARTS_MAX])
