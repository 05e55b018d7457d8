"""What counts as the same answer.

Same is: the same cells, each byte for byte, in the same order where the query has one and otherwise as a multiset; the same type oid and the same name of every column; or an
error with the same SQLSTATE. `difference` names what is not the same:

    crash, hang     the connection was lost, or nothing came
    stopped         a job stands still (55000)
    value           other cells or other rows
    digits          the same numbers, some with other digits at their end or of another scale
    internal        Tidemark says that it has a defect (XX000)
    accepted <code> Tidemark answers where PostgreSQL fails
    failed <code>   Tidemark fails where PostgreSQL answers (a refusal, 0A000, is none: `refused`)
    type            the same cells, of another type
    error           both fail, with codes of different classes
    name            only a column's name is different
    code            both fail, with different codes of one class

Of a statement over many rows two *data errors* (class 22) are the same: which of its rows, or of its groups, fails first is nobody's order.
"""

import math
import re
from collections import Counter

from .session import Answer

SEVERITY = ("crash", "hang", "stopped", "value", "digits", "internal", "accepted", "failed", "type", "error", "name", "code")
REFUSED = "refused"
# PostgreSQL has given up for reasons of its own (time, memory, its own defects): nothing is to be learnt from it.
_NO_VERDICT = ("57014", "53200", "XX000", "LOST", "HANG", "54001")


def severity(kind):
    """The place of a difference in the report."""
    word = kind.split(" ")[0]
    return SEVERITY.index(word) if word in SEVERITY else len(SEVERITY)


def multiset(rows):
    return sorted(rows, key=lambda row: [(cell is None, cell or b"") for cell in row])


def pairs(one: Answer, other: Answer):
    """The cells that are not the same, with their types; None where the rows do not correspond."""
    left, right = (list((Counter(mine.rows) - Counter(theirs.rows)).elements()) for mine, theirs in ((one, other), (other, one)))
    if len(left) != len(right) or one.types != other.types:
        return None
    found = []
    for row, counterpart in zip(sorted(left, key=_by_value), sorted(right, key=_by_value)):
        for oid, a, b in zip(one.types, row, counterpart):
            if a != b:
                if a is None or b is None:
                    return None
                found.append((oid, a.decode(errors="replace"), b.decode(errors="replace")))
    return found


def _by_value(row):
    """A key to sort by, in which 1.50 is 1.5."""
    return [(cell is None, cell.rstrip(b"0").rstrip(b".") if cell and re.fullmatch(rb"-?\d+\.\d+", cell) else cell or b"") for cell in row]


_TEXTS = {1043: 25, 1015: 1009}


def plain_types(answer: Answer):
    """The types of the columns, varchar as text."""
    return [_TEXTS.get(oid, oid) for oid in answer.types]


def same_answer(one: Answer, other: Answer):
    """The same rows in any order, under the same names, of the same types but for varchar and text."""
    return one.ok and other.ok and one.names == other.names and plain_types(one) == plain_types(other) and multiset(one.rows) == multiset(other.rows)


def difference(postgres: Answer, tidemark: Answer, ordered=False):
    """'' where the answers are the same, REFUSED, or what is not the same."""
    if tidemark.code in ("LOST", "HANG"):
        return "crash" if tidemark.code == "LOST" else "hang"
    if tidemark.code == "55000":
        return "stopped"
    if tidemark.code == "XX000":
        return "internal"
    if postgres.code in _NO_VERDICT:
        return ""
    if postgres.ok and tidemark.ok:
        return _of_rows(postgres, tidemark, ordered)
    if tidemark.code == "0A000":
        return REFUSED
    if tidemark.ok:
        return f"accepted {postgres.code}"
    if postgres.ok:
        return f"failed {tidemark.code}"
    if postgres.code == tidemark.code:
        return ""
    return "code" if postgres.code[:2] == tidemark.code[:2] else "error"


def data_errors(postgres: Answer, tidemark: Answer):
    """Both fail at a value of some row."""
    return postgres.code[:2] == tidemark.code[:2] == "22"


def _of_rows(postgres, tidemark, ordered):
    left, right = (postgres.rows, tidemark.rows) if ordered else (multiset(postgres.rows), multiset(tidemark.rows))
    if len(left) != len(right) or len(postgres.names) != len(tidemark.names):
        return "value"
    if left != right:
        # numbers may sort otherwise with other digits: the rows are those that the other side has in their place
        return "digits" if all(_same_number(a, b) for one, other in zip(left, right) for a, b in zip(one, other)) else "value"
    if postgres.types != tidemark.types:
        return "type"
    return "name" if postgres.names != tidemark.names else ""


def is_ordered(statement):
    """Whether the rows of a query come in an order: its last ORDER BY is in no parentheses."""
    return re.search(r" ORDER BY [^()]*$", statement) is not None


def _same_number(one, other):
    """The same bytes, or texts of numbers that are the same but for their last digits."""
    if one == other:
        return True
    try:
        return one is not None and other is not None and math.isclose(float(one), float(other), rel_tol=1e-6, abs_tol=1e-12)
    except ValueError:
        return False
