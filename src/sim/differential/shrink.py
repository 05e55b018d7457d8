"""A smaller tree that differs in the same way.

Trees are dataclasses in dataclasses (expressions.py, queries.py). What may stand in place of a node its class says by `reductions`; what may be left out of a tuple or be None,
by its field's metadata (`droppable`). Greedy: the first smaller tree that still differs is gone on with, until none does or the checks are used up.
"""

import dataclasses
from dataclasses import fields, replace

from . import values
from .expressions import LEAVES, Expr, constant

CHECKS_MAX = 80
# What a literal is replaced by, where that still differs: the plainest values of its type first.
_PLAIN = {"bool": "t", "text": "a", "varchar": "a", "bpchar": "a", "bytea": "\\x61", "date": "2024-02-29", "time": "12:34:56", "timestamp": "2024-02-29 12:34:56.789",
          "timestamptz": "2024-02-29 12:34:56+02", "interval": "1 day", "uuid": "00000000-0000-0000-0000-000000000000", "jsonb": "1"}


def candidates(node, evaluate):
    """Smaller trees in place of `node`, the most promising first."""
    if isinstance(node, Expr):
        yield from _of_expression(node, evaluate)
        return
    if hasattr(node, "reductions"):
        yield from node.reductions()
    for item in fields(node):
        value, droppable = getattr(node, item.name), item.metadata.get("droppable", 0)
        if isinstance(value, tuple):
            if len(value) > item.metadata.get("least", 0) and droppable:
                for index in range(len(value)):
                    yield replace(node, **{item.name: value[:index] + value[index + 1:]})
            for index, part in enumerate(value):
                if dataclasses.is_dataclass(part):
                    for smaller in candidates(part, evaluate):
                        yield replace(node, **{item.name: value[:index] + (smaller,) + value[index + 1:]})
        elif dataclasses.is_dataclass(value):
            if droppable:
                yield replace(node, **{item.name: None})
            for smaller in candidates(value, evaluate):
                yield replace(node, **{item.name: smaller})
        elif value and droppable:
            yield replace(node, **{item.name: type(value)()})


def _of_expression(node, evaluate):
    if node.name in LEAVES:
        yield from _of_leaf(node)
        return
    for argument in node.arguments:
        if argument.type == node.type:
            yield argument
    for index, argument in enumerate(node.arguments):
        around = node.arguments[:index], node.arguments[index + 1:]
        if argument.name not in LEAVES:
            value = evaluate(argument)
            if value is not None:
                yield replace(node, arguments=(*around[0], value, *around[1]))
        for smaller in candidates(argument, evaluate):
            yield replace(node, arguments=(*around[0], smaller, *around[1]))


def _of_leaf(node):
    if node.name != "literal":
        return
    plain = _PLAIN.get(node.type)
    if plain is None:
        texts = ("1", "2") if not node.type.endswith("]") else ("{}", values.TYPES[node.type].edges[1])
    else:
        texts = (plain,)
    for text in texts:
        simple = constant(node.type, text)
        if simple.text == node.text:
            return
        yield simple


def shrink(tree, differs, evaluate=lambda expression: None, checks_max=CHECKS_MAX):
    """The smallest tree found for which `differs` holds (it holds for `tree`)."""
    checks, seen = 0, {tree}
    progress = True
    while progress:
        progress = False
        for smaller in candidates(tree, evaluate):
            if smaller in seen:
                continue
            seen.add(smaller)
            checks += 1
            if checks > checks_max:
                return tree
            if differs(smaller):
                tree, progress = smaller, True
                break
    return tree


def fewer(items, differs, checks_max=CHECKS_MAX):
    """The list without what is not needed for `differs`: halves first, then single ones."""
    size, checks = max(1, len(items) // 2), 0
    while True:
        position = 0
        while position < len(items) and checks < checks_max:
            less = items[:position] + items[position + size:]
            checks += 1
            if differs(less):
                items = less
            else:
                position += size
        if size == 1 or checks >= checks_max:
            return items
        size //= 2
