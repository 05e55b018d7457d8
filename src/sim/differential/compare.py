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
