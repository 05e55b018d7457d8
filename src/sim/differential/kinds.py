"""Differences that are alike are one kind: the key says where it was seen, which form differs, its shape with its arguments' types, and how. The report has each kind once, with
its smallest example.

`open.txt` beside this file lists the kinds that are known and not mended yet, each with an example, as `key<TAB>statements`; statements of an example are cut apart by `;; `.
While one of a *family* (the same form, different in the same way) is open, others of the family are not new: what is left of a tree that has two faults depends on which of them
are mended.
"""

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from . import compare

OPEN = Path(__file__).with_name("open.txt")
SEPARATOR = ";; "
_INSIDE = "; "
# In a key: the script does not show the difference by itself; there is more to it than its tables and rows.
NOT_ALONE = "not on its own"


def key_of(where, name, shape, difference):
    return escaped(_INSIDE.join((where, name.replace(";", ","), shape.replace(";", ","), difference)))


def family(key):
    """(form, how it differs); of a query the whole key."""
    where, name, shape, difference = key.split(_INSIDE)
    return (name, difference.split(" ")[0]) if name else (where, shape, difference)


_HEAD = """# Differences from PostgreSQL 15 that are known and not mended yet: kind, tab, an example.
# Only ever fewer: the test fails for a line whose example does not differ any more.
"""


@dataclass
class Kind:
    key: str
    difference: str
    statements: list
    postgres: str
    tidemark: str
    repeat: str
    count: int = 1
    first_seconds: float = 0.0

    @property
    def length(self):
        return sum(map(len, self.statements))


@dataclass
class Findings:
    kinds: dict = field(default_factory=dict)
    cases: Counter = field(default_factory=Counter)
    refused: Counter = field(default_factory=Counter)
    examples: dict = field(default_factory=dict)
    intended: Counter = field(default_factory=Counter)

    def add(self, kind: Kind):
        known = self.kinds.get(kind.key)
        if known is None:
            self.kinds[kind.key] = kind
            return
        known.count += 1
        if kind.length < known.length:
            known.statements, known.postgres, known.tidemark, known.repeat = kind.statements, kind.postgres, kind.tidemark, kind.repeat

    def refuse(self, message, statement):
        reason = normalised(message)
        self.refused[reason] += 1
        if len(statement) < len(self.examples.get(reason, statement + " ")):
            self.examples[reason] = statement

    def new(self):
        """The kinds that open.txt does not know."""
        known, families = read_open(), open_families()
        return [kind for kind in self.sorted() if kind.key not in known and family(kind.key) not in families]

    def sorted(self):
        return sorted(self.kinds.values(), key=lambda kind: (compare.severity(kind.difference), -kind.count, kind.key))

    def report(self, seconds, command):
        """The whole report as text."""
        total = sum(self.cases.values())
        lines = [f"{total} cases in {seconds:.0f} s ({60 * total / max(seconds, 1):.0f} a minute): " + ", ".join(f"{name} {count}" for name, count in sorted(self.cases.items())),
                 f"{len(self.kinds)} kinds of differences, {sum(self.refused.values())} cases refused, {sum(self.intended.values())} different by intent", f"made by: {command}",
                 ""]
        by_severity = Counter(kind.difference.split(" ")[0] for kind in self.kinds.values())
        lines += [f"  {name}: {by_severity[name]} kinds" for name in compare.SEVERITY if by_severity[name]] + [""]
        families = Counter(family(kind.key)[0] for kind in self.kinds.values() if family(kind.key)[0] not in ("query", "view"))
        lines += ["Forms with most kinds: " + ", ".join(f"{name} {count}" for name, count in families.most_common(60)), ""]
        for number, kind in enumerate(self.sorted(), 1):
            lines += [f"{number}. [{kind.difference}] x{kind.count}  {kind.key}", *(f"     {statement}" for statement in kind.statements), f"     PostgreSQL: {kind.postgres}",
                      f"     Tidemark:   {kind.tidemark}", f"     repeat: {kind.repeat}"]
        lines += ["", "Refused (0A000), most often first:"]
        lines += [f"  {count:6}  {reason}    e.g. {self.examples[reason]}" for reason, count in self.refused.most_common()]
        if self.intended:
            lines += ["", "Different by intent:"] + [f"  {count:6}  {name}" for name, count in self.intended.most_common()]
        return "\n".join(lines) + "\n"


def normalised(message):
    """A refusal without what is only of this statement: quoted names, numbers."""
    message = re.sub(r"\"[^\"]*\"|'[^']*'|`[^`]*`", "~", message)
    message = re.sub(r"\d+", "#", message)
    return re.sub(r"([({]).{30,}", r"\1..", message)[:160].replace("\t", " ").replace("\n", " ")


def read_open():
    """key -> statements of the example."""
    found = {}
    for line in OPEN.read_text().split("\n") if OPEN.exists() else ():
        if line and not line.startswith("#"):
            key, example = line.split("\t")
            found[key] = [unescaped(statement) for statement in example.split(SEPARATOR)]
    return found


def open_families():
    return {family(key) for key in read_open()}


def write_open(found):
    """Writes the list: key -> statements."""
    lines = {key: "" if NOT_ALONE in key else SEPARATOR.join(map(escaped, statements)) for key, statements in found.items()}
    OPEN.write_text(_HEAD + "".join(f"{key}\t{lines[key]}\n" for key in sorted(lines)))


def escaped(text):
    text = text.replace("\\", "\\\\")
    return "".join(sign if sign.isprintable() else f"\\u{ord(sign):04x}" for sign in text)


def unescaped(text):
    return re.sub(r"\\(u[0-9a-f]{4}|\\)", lambda match: "\\" if match[1] == "\\" else chr(int(match[1][1:], 16)), text)
