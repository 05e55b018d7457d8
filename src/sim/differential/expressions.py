"""Random expressions, as trees that can be rendered, and made smaller.

Every expression has the type that it is meant to have; PostgreSQL decides which it really has. A tree's `skeleton` is its shape with types in place of the leaves: what names a
kind of difference. Operators in operators stand in parentheses, but some do not (`bare`): who reads them otherwise has other precedences.
"""

import random
import re
from collections import defaultdict
from dataclasses import dataclass, replace

from . import values
from .functions import HINTS, Form


@dataclass(frozen=True)
class Expr:
    type: str
    text: str  # of a leaf; or the template for the arguments
    arguments: tuple = ()
    name: str = ""  # of the form; a leaf has `literal`, `null`, `column`
    operator: bool = False
    bare: bool = False

    def sql(self):
        if self.name in LEAVES:
            return self.text
        return self.text.format(*(self._operand(argument) for argument in self.arguments))

    def _operand(self, argument):
        text = argument.sql()
        return f"({text})" if self.operator and argument.operator and not argument.bare else text

    def skeleton(self):
        if self.name in LEAVES:
            return "NULL" if self.name == "null" else self.type
        return self.text.format(*(f"({argument.skeleton()})" if self.operator and argument.operator else argument.skeleton() for argument in self.arguments))

    def shape(self):
        """The skeleton for the key of a kind: an array is an array, whatever its elements."""
        return re.sub(r"\b[a-z]\w*(?: precision)?(?:\(\d+(?:,-?\d+)?\))?\[\]", "array", self.skeleton())

    def parts(self):
        """All expressions in it, the smallest first, itself last."""
        return sorted((part for part in self.walk() if part is not self), key=lambda part: part.size()) + [self]

    def walk(self):
        yield self
        for argument in self.arguments:
            yield from argument.walk()

    def size(self):
        return 1 + sum(argument.size() for argument in self.arguments)

    def columns(self):
        return {part.text for part in self.walk() if part.name == "column"}

    def signature(self):
        """The form and what it is applied to, whatever stands in the arguments; None for a leaf."""
        return None if self.name in LEAVES else (self.name, tuple(argument.type for argument in self.arguments))

    def mapped(self, change):
        """The tree with each leaf replaced by `change(leaf)`."""
        return change(self) if self.name in LEAVES else replace(self, arguments=tuple(argument.mapped(change) for argument in self.arguments))


LEAVES = ("literal", "null", "column")


def literal(name, text):
    return Expr(name, text, (), "literal")


def column(name, text):
    return Expr(name, text, (), "column")


def constant(name, value):
    """The usual literal of a value in text form; None is NULL."""
    return Expr(name, values.plain(name, value), (), "null" if value is None else "literal")


class Generator:
    """Makes expressions out of `forms`; leaves are literals and, where `columns` (type -> names) are given, columns."""

    def __init__(self, forms):
        self.by_name, self.by_result = defaultdict(list), defaultdict(lambda: defaultdict(list))
        for form in forms:
            self.by_name[form.name].append(form)
            self.by_result[form.result][form.name].append(form)
        self.names = sorted(self.by_name)

    def root(self, rng, depth, columns=None):
        """An expression with any form at its root, each name as often as any other."""
        return self.apply(rng, rng.choice(self.by_name[rng.choice(self.names)]), depth, columns)

    def apply(self, rng, form: Form, depth, columns=None):
        hints = dict(form.hints)
        arguments = tuple(self._argument(rng, name, depth - 1, columns, hints.get(position)) for position, name in enumerate(form.arguments))
        return Expr(form.result, form.template, arguments, form.name, form.operator, rng.random() < 0.12)

    def make(self, rng, name, depth, columns=None):
        """An expression of the type."""
        if depth <= 0 or rng.random() < 0.3 or not self.by_result[name]:
            return self.leaf(rng, name, columns)
        forms = self.by_result[name]
        return self.apply(rng, rng.choice(forms[rng.choice(sorted(forms))]), depth, columns)

    def _argument(self, rng, name, depth, columns, hint):
        if hint and rng.random() < 0.85:
            return _hinted(rng, name, hint)
        if name in values.IMPLICIT and rng.random() < 0.06:
            name = rng.choice(values.IMPLICIT[name])
        return self.make(rng, name, depth, columns)

    def leaf(self, rng, name, columns=None):
        dice = rng.random()
        if columns and columns.get(name) and dice < 0.65:
            return column(name, rng.choice(columns[name]))
        if dice > 0.93:
            return Expr(name, values.null(name) if rng.random() < 0.8 else "NULL", (), "null")
        return literal(name, values.literal(rng, name))


def _hinted(rng, name, hint):
    text = rng.choice(HINTS[hint])
    if name in ("int2", "int4", "int8", "numeric"):
        return literal(name, f"({text})" if text.startswith("-") else text)
    return literal(name, values.quoted(text) if name == "text" and rng.random() < 0.7 else values.plain(name, text))


def dice(*words):
    """A random generator that only these words decide."""
    return random.Random(":".join(str(word) for word in words))
