"""Random queries, as trees that can be rendered and made smaller (shrink.py).

Every query has one answer: ORDER BY is by all output columns, what an aggregate or window depends on in order has a total one, floating-point values add up exactly, and nothing
divides by what may be zero. Relations have names that are unique in the whole query; output columns are c1, c2, ...
"""

from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any

from .schemas import COLUMNS

TYPES = ("int4", "int8", "text", "numeric", "date", "timestamp", "bool", "float8")
_LITERALS = {**{kind: choices for kind, _, choices in COLUMNS.values()}, "array": ("'{1,2}'", "'{}'")}
_CASTS = {"date": "::date", "timestamp": "::timestamp", "int8": "::bigint", "float8": "::double precision", "array": "::int[]"}

NULLS = {"text": "NULL::text", "numeric": "NULL::numeric", "int4": "NULL::int", "bool": "NULL::boolean"}


def droppable(**more):
    return field(metadata={"droppable": 1}, **more)


@dataclass(frozen=True)
class Term:
    """An expression: a template and its parts, terms or queries."""

    type: str
    template: str
    parts: tuple = ()

    def sql(self):
        return self.template.format(*(f"({part.sql()})" if isinstance(part, Term) and part.parts else part.sql() for part in self.parts)) if self.parts else self.template

    def reductions(self):
        yield from (part for part in self.parts if isinstance(part, Term) and part.type == self.type)
        if self.parts and self.type in _LITERALS:
            yield Term(self.type, "true" if self.type == "bool" else "'a'::text" if self.type == "text" else _literal(self.type, _LITERALS[self.type][1]))


@dataclass(frozen=True)
class Window:
    """A window function over a partition, an order and a frame. An order on which the value depends is `total`, and stays as it is."""

    type: str
    function: Term
    partition: tuple = droppable(default=())
    order: tuple = droppable(default=())
    total: tuple = ()
    descending: str = droppable(default="")
    frame: str = droppable(default="")

    def sql(self):
        words = [f"PARTITION BY {', '.join(term.sql() for term in self.partition)}"] if self.partition else []
        order = self.order or self.total
        words += [f"ORDER BY {', '.join(term.sql() + self.descending for term in order)}"] if order else []
        return f"{self.function.sql()} OVER ({' '.join(words + [self.frame] if self.frame else words)})"


@dataclass(frozen=True)
class Relation:
    """A table or view by name, a query in FROM, or a function."""

    name: str
    alias: str
    query: Any = None
    lateral: bool = False

    def sql(self):
        return f"{'LATERAL ' if self.lateral else ''}({self.query.sql()}) AS {self.alias}" if self.query else f"{self.name} AS {self.alias}"


@dataclass(frozen=True)
class Join:
    kind: str  # CROSS, or NATURAL in front: without condition
    left: Any
    right: Any
    on: Any = None
    using: tuple = field(default=(), metadata={"droppable": 1, "least": 1})

    def sql(self):
        right = f"({self.right.sql()})" if isinstance(self.right, Join) else self.right.sql()
        how = f" ON {self.on.sql()}" if self.on else f" USING ({', '.join(self.using)})" if self.using else ""
        return f"{self.left.sql()} {self.kind} JOIN {right}{how}"

    def reductions(self):
        yield from (self.left, self.right)
        if self.kind not in ("INNER", "CROSS") and not self.kind.startswith("NATURAL"):
            yield Join("INNER", self.left, self.right, self.on, self.using)


@dataclass(frozen=True)
class Item:
    term: Any
    alias: str

    def sql(self):
        return f"{self.term.sql()} AS {self.alias}"


@dataclass(frozen=True)
class Cte:
    name: str
    query: Any

    def sql(self):
        return f"{self.name} AS ({self.query.sql()})"


@dataclass(frozen=True)
class Select:
    items: tuple = field(metadata={"droppable": 1, "least": 1})
    source: Any = droppable(default=None)
    where: Any = droppable(default=None)
    group: tuple = droppable(default=())
    grouping: str = droppable(default="")
    having: Any = droppable(default=None)
    distinct: str = droppable(default="")
    order: str = droppable(default="")
    limit: str = droppable(default="")
    ctes: tuple = droppable(default=())

    def sql(self):
        words = [f"WITH {', '.join(cte.sql() for cte in self.ctes)}"] if self.ctes else []
        words.append(f"SELECT {self.distinct + ' ' if self.distinct else ''}{', '.join(item.sql() for item in self.items)}")
        if self.source:
            words.append(f"FROM {self.source.sql()}")
        if self.where:
            words.append(f"WHERE {self.where.sql()}")
        if self.group:
            inside = ", ".join(term.sql() for term in self.group)
            words.append(f"GROUP BY {self.grouping} ({inside})" if self.grouping else f"GROUP BY {inside}")
        if self.having:
            words.append(f"HAVING {self.having.sql()}")
        return " ".join(words + ordering(self.order, self.limit, len(self.items)))

    def reductions(self):
        if isinstance(self.source, Relation) and self.source.query:
            yield self.source.query


@dataclass(frozen=True)
class SetOperation:
    word: str
    left: Any
    right: Any
    order: str = droppable(default="")
    limit: str = droppable(default="")

    @property
    def items(self):
        return self.left.items

    def sql(self):
        sides = [f"({side.sql()})" if isinstance(side, SetOperation) or side.order or side.limit or side.ctes else side.sql() for side in (self.left, self.right)]
        return " ".join([f"{sides[0]} {self.word} {sides[1]}"] + ordering(self.order, self.limit, len(self.items)))

    def reductions(self):
        yield from (self.left, self.right)


def ordering(order, limit, count):
    """By all columns, so that the order is one."""
    words = [f"ORDER BY {', '.join(f'{position}{order}' for position in range(1, count + 1))}"] if order else []
    return words + ([limit] if limit and order else [])


def typed(node):
    """The tree with the name of its type in place of each column and literal."""
    if isinstance(node, Term) and not node.parts:
        return node if "(" in node.template else Term(node.type, node.type)
    if not is_dataclass(node):
        return node
    changed = {}
    for item in fields(node):
        value = getattr(node, item.name)
        changed[item.name] = tuple(typed(part) for part in value) if isinstance(value, tuple) else typed(value)
    return replace(node, **changed)


def _literal(kind, text):
    return f"{text}{_CASTS.get(kind, '')}" if not text.startswith("-") else f"({text}){_CASTS.get(kind, '')}"


class QueryGenerator:
    """`relations` are (name, ((column, type), ...)) that FROM may name; `views` restricts to what makes sense in a view."""

    def __init__(self, random, relations, windows=True):
        self.random, self.relations, self.windows, self.number = random, list(relations), windows, 0

    def chance(self, most):
        return self.random.random() < most

    def alias(self):
        self.number += 1
        return f"r{self.number}"

    # ---- queries

    def query(self, depth=2, outer=(), top=False):
        dice = self.random.random()
        if depth > 0 and dice < 0.18:
            made = self._set_operation(depth, outer)
        elif dice < 0.5:
            made = self._grouped(depth, outer)
        else:
            made = self._plain(depth, outer)
        if top and self.chance(0.12):
            return self._with(made)
        return made

    def ordered(self, made):
        order = self.random.choice((" ASC", " DESC", " NULLS FIRST", " DESC NULLS LAST"))
        limit = self.random.choice(("", "LIMIT 3", "LIMIT 2 OFFSET 1", "OFFSET 2", "FETCH FIRST 2 ROWS ONLY", "LIMIT 0"))
        return type(made)(**{**vars(made), "order": order, "limit": limit})

    def _with(self, made):
        if not isinstance(made, Select):
            return made
        inner = self._plain(0, ()) if self.chance(0.5) else self._grouped(0, ())
        name, alias = "w1", self.alias()
        scope = [(f"{alias}.{item.alias}", item.term.type) for item in inner.items]
        source = Relation(name, alias)
        items = tuple(Item(self.term(scope, self.random.choice(TYPES), 1), f"c{index + 1}") for index in range(2))
        if made.source and self.chance(0.5):
            source = Join("CROSS", source, Relation("", self.alias(), made)) if self.chance(0.3) else source
        where = self.predicate(scope, 1) if self.chance(0.5) else None
        return Select(items, source, where, ctes=(Cte(name, inner),))

    def _set_operation(self, depth, outer):
        types = [self.random.choice(TYPES) for _ in range(self.random.choice((1, 2, 3)))]
        first = ["int4" if kind == "numeric" and self.chance(0.4) else kind for kind in types]
        left, right = self._of_types(first, depth - 1, outer), self._of_types(types, depth - 1, outer)
        left = replace(left, items=tuple(replace(item, term=replace(item.term, type=kind)) for item, kind in zip(left.items, types)))
        return SetOperation(self.random.choice(("UNION", "UNION ALL", "INTERSECT", "EXCEPT", "INTERSECT ALL", "EXCEPT ALL")), left, right)

    def _of_types(self, types, depth, outer, where_outer=True):
        """A query with columns of these types."""
        source, scope = self.source(depth)
        items = tuple(Item(self.term(scope, kind, 1), f"c{index + 1}") for index, kind in enumerate(types))
        where = self.predicate(scope, depth + 1, outer) if self.chance(0.6) else None
        return Select(items, source, where, distinct="DISTINCT" if self.chance(0.15) else "")

    def _plain(self, depth, outer):
        source, scope = self.source(depth)
        terms = [self.term(scope, self.random.choice(TYPES), 1) for _ in range(self.random.choice((1, 2, 3)))]
        if self.windows and self.chance(0.2):
            terms.append(self._window(scope))
        if depth > 0 and self.chance(0.12):
            terms.append(self._scalar_subquery(scope, depth - 1))
        where = self.predicate(scope, depth + 1, outer) if self.chance(0.65) else None
        return Select(tuple(Item(term, f"c{index + 1}") for index, term in enumerate(terms)), source, where, distinct="DISTINCT" if self.chance(0.2) else "")

    def _grouped(self, depth, outer):
        source, scope = self.source(depth)
        keys = tuple(self._key(scope) for _ in range(self.random.choice((0, 1, 1, 2))))
        terms = [key for key in keys if self.chance(0.85)] + [self.aggregate(scope) for _ in range(self.random.choice((1, 1, 2)))]
        where = self.predicate(scope, depth, outer) if self.chance(0.4) else None
        having = None
        if self.chance(0.25):
            kind = self.random.choice(("int8", "int4", "numeric"))
            compared = (self.aggregate(scope, kind), Term(kind, _literal(kind, self.random.choice(_LITERALS[kind]))))
            having = Term("bool", f"{{}} {self.random.choice(('>', '<=', '<>', '='))} {{}}", compared)
        grouping = self.random.choice(("ROLLUP", "CUBE")) if keys and self.chance(0.1) else ""
        return Select(tuple(Item(term, f"c{index + 1}") for index, term in enumerate(terms)), source, where, keys, grouping, having)

    # ---- FROM

    def source(self, depth):
        """A relation or joins of them, and the columns that it gives: (reference, type)."""
        dice = self.random.random()
        if dice < 0.35 or depth < 0:
            return self.relation(depth)
        left, left_scope = self.relation(depth)
        for _ in range(1 if dice < 0.85 else 2):
            left, left_scope = self._join(left, left_scope, depth)
        return left, left_scope

    def relation(self, depth):
        alias = self.alias()
        if depth > 0 and self.chance(0.2):
            made = self.query(depth - 1)
            if self.chance(0.2):
                made = self.ordered(made)
            return Relation("", alias, made), [(f"{alias}.{item.alias}", item.term.type) for item in made.items]
        if self.chance(0.04):
            return Relation("generate_series(1, 3)", f"{alias}(i)"), [(f"{alias}.i", "int4")]
        name, columns = self.random.choice(self.relations)
        return Relation(name, alias), [(f"{alias}.{column}", kind) for column, kind in columns]

    def _join(self, left, left_scope, depth):
        if self.chance(0.15):
            right, right_scope = self._nested(depth)
        else:
            right, right_scope = self.relation(depth)
        scope = left_scope + right_scope
        kind = self.random.choice(("INNER", "INNER", "LEFT", "LEFT", "RIGHT", "FULL", "CROSS"))
        if kind == "CROSS":
            return Join(kind, left, right), scope
        shared = self._shared(left_scope, right_scope)
        if shared and self.chance(0.35):
            merged = [(name, kinds) for name, kinds in shared if self.chance(0.7)] or shared[:1]
            natural = self.chance(0.3) and self._plain_names(left_scope, right_scope)
            names = tuple(name for name, _ in (shared if natural else merged))
            bare = [(name, kinds) for name, kinds in (shared if natural else merged)]
            if natural:
                return Join(f"NATURAL {kind}", left, right), bare + bare + scope
            return Join(kind, left, right, using=names), bare + bare + scope
        return Join(kind, left, right, self._condition(left_scope, right_scope, kind)), scope

    def _nested(self, depth):
        left, left_scope = self.relation(0)
        right, right_scope = self.relation(0)
        kind = self.random.choice(("INNER", "LEFT", "FULL"))
        return Join(kind, left, right, self._condition(left_scope, right_scope, kind)), left_scope + right_scope

    @staticmethod
    def _column_of(scope):
        """Unqualified names that occur once, with their types."""
        names = [(reference.rpartition(".")[2], kind) for reference, kind in scope]
        return {name: kind for name, kind in names if sum(other == name for other, _ in names) == 1}

    def _shared(self, left, right):
        ours, theirs = self._column_of(left), self._column_of(right)
        return [(name, kind) for name, kind in ours.items() if theirs.get(name) == kind]

    def _plain_names(self, left, right):
        return len(self._column_of(left)) == len(left) and len(self._column_of(right)) == len(right)

    def _condition(self, left, right, kind):
        pairs = [(one, other) for one in left for other in right if one[1] == other[1]]
        if not pairs:
            return Term("bool", "true" if kind == "FULL" else "{}", () if kind == "FULL" else (self.predicate(left + right, 0),))
        one, other = self.random.choice(pairs)
        equal = Term("bool", "{} = {}", (Term(one[1], one[0]), Term(other[1], other[0])))
        if self.chance(0.08) and kind != "FULL":
            return Term("bool", "{} < {}", equal.parts)
        if self.chance(0.35):
            return Term("bool", "{} AND {}", (equal, self.predicate(left + right, 0)))
        return equal

    # ---- terms

    def column(self, scope, kind):
        fitting = [reference for reference, other in scope if other == kind]
        return Term(kind, self.random.choice(fitting)) if fitting else None

    def leaf(self, scope, kind):
        made = self.column(scope, kind) if self.chance(0.85) else None
        if made:
            return made
        return Term(kind, NULLS.get(kind, "NULL" + _CASTS.get(kind, ""))) if self.chance(0.05) else Term(kind, _literal(kind, self.random.choice(_LITERALS[kind])))

    def term(self, scope, kind, depth=1):
        if depth <= 0 or self.chance(0.6):
            return self.leaf(scope, kind)
        if kind == "bool":
            return self.predicate(scope, 0)
        forms = [("COALESCE({}, {})", (kind, kind)), ("CASE WHEN {} THEN {} ELSE {} END", ("bool", kind, kind)), ("NULLIF({}, {})", (kind, kind)),
                 ("GREATEST({}, {})", (kind, kind))]
        forms += {
            "int4": [("{} + {}", ("int4", "int4")), ("{} - {}", ("int4", "int4")), ("{} * 2", ("int4",)), ("{} % 3", ("int4",)), ("length({})", ("text",)),
                     ("{} - {}", ("date", "date"))],
            "int8": [("{}::bigint", ("int4",)), ("{} + {}", ("int8", "int4"))],
            "text": [("{} || {}", ("text", "text")), ("upper({})", ("text",)), ("{}::text", ("int4",)), ("left({}, 1)", ("text",)), ("{}::text", ("date",))],
            "numeric": [("CASE WHEN {} THEN {} ELSE {} END", ("bool", "int4", "numeric")), ("{} * CASE WHEN {} THEN 1 ELSE {} END", ("numeric", "bool", "numeric")),
                        ("{} - COALESCE({}, 0)", ("numeric", "numeric")), ("{} + {}", ("numeric", "numeric")), ("{} * {}", ("numeric", "int4")), ("round({}, 1)", ("numeric",)), ("{}::numeric", ("int4",))],
            "date": [("{} + {}", ("date", "int4")), ("{}::date", ("timestamp",))],
            "timestamp": [("{} + interval '1 month'", ("timestamp",)), ("{}::timestamp", ("date",)), ("date_trunc('month', {})", ("timestamp",))],
            "float8": [("CASE WHEN {} THEN 1 ELSE {} END", ("bool", "float8")), ("{} + {}", ("float8", "float8")), ("{}::double precision", ("int4",))],
        }.get(kind, [])
        template, kinds = self.random.choice(forms)
        return Term(kind, template, tuple(self.term(scope, one, depth - 1) for one in kinds))

    def _key(self, scope):
        reference, kind = self.random.choice(scope)
        if self.chance(0.15):
            return self.term(scope, self.random.choice(("int4", "text", "date")), 1)
        return Term(kind, reference)

    def predicate(self, scope, depth, outer=()):
        """A condition on `scope`; with subqueries where there is depth, and with columns of `outer`, where it is correlated."""
        dice = self.random.random()
        if depth > 0 and dice < 0.25:
            return self._subquery_predicate(scope, depth - 1)
        if depth > 0 and dice < 0.4:
            word = self.random.choice(("AND", "OR"))
            return Term("bool", f"{{}} {word} {{}}", (self.predicate(scope, depth - 1, outer), self.predicate(scope, depth - 1, outer)))
        if dice < 0.46:
            return Term("bool", "NOT {}", (self.predicate(scope, max(0, depth - 1), outer),))
        if outer and self.chance(0.5):
            pairs = [(one, other) for one in scope for other in outer if one[1] == other[1]]
            if pairs:
                one, other = self.random.choice(pairs)
                return Term("bool", f"{{}} {self.random.choice(('=', '=', '=', '<', '<>'))} {{}}", (Term(one[1], one[0]), Term(other[1], other[0])))
        return self._simple_predicate(scope)

    def _simple_predicate(self, scope):
        kind = self.random.choice([other for _, other in scope])
        if kind == "int4" and self.chance(0.1):
            # What guards a division stands before it.
            guarded = self.column(scope, kind)
            form = self.random.choice(("{} <> 0 AND 12 / {} > 1", "({} = 0 OR 12 / {} > 1)", "CASE WHEN {} = 0 THEN false ELSE 12 / {} > 1 END"))
            return Term("bool", form, (guarded, guarded))
        one = self.term(scope, kind, 1)
        forms = [(f"{{}} {self.random.choice(('=', '<>', '<', '>=', '>'))} {{}}", 2), ("{} IS NULL", 1), ("{} IS NOT NULL", 1), ("{} IN ({}, {})", 3), ("{} NOT IN ({}, {})", 3),
                 ("{} BETWEEN {} AND {}", 3), ("{} IS DISTINCT FROM {}", 2), ("{} = ANY (ARRAY[{}, {}])", 3)]
        forms += {"text": [("{} LIKE 'a%'", 1), ("{} LIKE {}", 2)], "bool": [("{}", 1), ("{} IS TRUE", 1), ("{} IS NOT FALSE", 1)]}.get(kind, [])
        template, count = self.random.choice(forms)
        return Term("bool", template, (one, *(self.leaf(scope, kind) for _ in range(count - 1))))

    def _subquery_predicate(self, scope, depth):
        outer = scope if self.chance(0.5) else ()
        kind = self.random.choice(sorted({other for _, other in scope}))
        inner = self._of_types([kind], depth, outer)
        one = self.leaf(scope, kind)
        form = self.random.choice(("EXISTS ({})", "NOT EXISTS ({})", "{} IN ({})", "{} IN ({})", "{} NOT IN ({})", "{} = ANY ({})", "{} < ALL ({})", "{} <> ALL ({})",
                                   "{} >= ANY ({})", "{} = ({})"))
        if form == "{} = ({})":
            source, inner_scope = self.source(0)
            maximum = Term(kind, "max({})", (self.leaf(inner_scope, kind),)) if kind != "bool" else Term(kind, "bool_or({})", (self.leaf(inner_scope, kind),))
            inner = Select((Item(maximum, "c1"),), source, self.predicate(inner_scope, 0, outer))
        return Term("bool", form, (inner,) if "EXISTS" in form else (one, inner))

    def _scalar_subquery(self, scope, depth):
        if self.chance(0.3):
            # It may find no row.
            made = self._of_types([self.random.choice(TYPES)], 0, ())
            return Term("bool", "(SELECT o.c1 FROM ({}) AS o ORDER BY 1 LIMIT 1) IS NULL", (made,))
        source, inner_scope = self.source(depth)
        made = self.aggregate(inner_scope)
        return Term(made.type, "({})", (Select((Item(made, "c1"),), source, self.predicate(inner_scope, 0, scope if self.chance(0.6) else ())),))

    def aggregate(self, scope, kind=None):
        """An aggregate whose value does not depend on the order of rows."""
        forms = [("int8", "count(*)", ()), ("int8", "count({})", (None,)), ("int8", "count(DISTINCT {})", (None,)), ("int8", "sum({})", ("int4",)),
                 ("numeric", "sum({})", ("int8",)),
                 ("numeric", "sum({})", ("numeric",)), ("numeric", "avg({})", ("int4",)), ("numeric", "avg({})", ("numeric",)), ("int4", "min({})", ("int4",)),
                 ("text", "max({})", ("text",)),
                 ("date", "max({})", ("date",)), ("timestamp", "min({})", ("timestamp",)), ("numeric", "max({})", ("numeric",)), ("bool", "bool_and({})", ("bool",)),
                 ("bool", "bool_or({})", ("bool",)),
                 ("float8", "sum({})", ("float8",)), ("int8", "sum(DISTINCT {})", ("int4",)), ("numeric", "stddev({})", ("int4",)), ("numeric", "avg(DISTINCT {})", ("int4",)),
                 ("text", "string_agg({0}, ',' ORDER BY {0})", ("text",)), ("array", "array_agg({0} ORDER BY {0} DESC)", ("int4",)),
                 ("text", "string_agg(DISTINCT {0}, ',' ORDER BY {0})", ("text",)),
                 ("int4", "bit_or({})", ("int4",)), ("float8", "avg({})", ("float8",)), ("int4", "mode() WITHIN GROUP (ORDER BY {})", ("int4",)),
                 ("float8", "percentile_cont(0.5) WITHIN GROUP (ORDER BY {})", ("float8",))]
        forms = [form for form in forms if kind in (None, form[0])]
        result, template, kinds = self.random.choice(forms)
        if "mode()" in template and self.chance(0.8):
            result, template, kinds = forms[0]  # of several most frequent values any may be the mode: kept rare
        parts = tuple(self.term(scope, one or self.random.choice(TYPES), 1) for one in kinds)
        if self.chance(0.15):
            condition = self.predicate(scope, 0)
            place = len(parts)
            return Term(result, f"{template} FILTER (WHERE {{{place}}})" if "{0}" in template else f"{template} FILTER (WHERE {{}})", (*parts, condition))
        return Term(result, template, parts)

    def _window(self, scope):
        """A window function; where its value depends on the order of peers, the order is by all columns."""
        partition = self._columns(scope, 1) if self.chance(0.6) else ()
        total, some = self._columns(scope, len(scope)), self._columns(scope, 1)
        frame = self.random.choice(("", "ROWS BETWEEN 1 PRECEDING AND CURRENT ROW", "ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING",
                                    "ROWS BETWEEN 1 FOLLOWING AND 2 FOLLOWING",
                                    "GROUPS BETWEEN 1 PRECEDING AND CURRENT ROW", "ROWS BETWEEN 1 PRECEDING AND 1 FOLLOWING EXCLUDE CURRENT ROW"))
        number = (self.column(scope, "int4") or Term("int4", "1::int"),)
        result, function, kinds, order, frame = self.random.choice((
            ("int8", "row_number()", (), total, ""), ("int8", "rank()", (), some, ""), ("int8", "dense_rank()", (), some, ""), ("int4", "lag({})", ("int4",), total, ""),
            ("text", "lead({}, 1, 'none')", ("text",), total, ""), ("int8", "sum({})", ("int4",), total, frame), ("int8", "count(*)", (), some, ""),
            ("numeric", "avg({})", ("int4",), some, ""),
            ("int4", "first_value({})", ("int4",), total, frame), ("text", "last_value({})", ("text",), total, frame), ("int4", "nth_value({}, 2)", ("int4",), total, frame),
            ("int4", "ntile(2)", (), total, ""), ("float8", "percent_rank()", (), some, ""), ("float8", "cume_dist()", (), some, ""), ("numeric", "max({})", ("numeric",), (), ""),
            ("int8", "sum({})", ("int4",), number, "RANGE BETWEEN 1 PRECEDING AND 1 FOLLOWING")))
        descending = self.random.choice(("", " DESC", " NULLS FIRST"))
        call = Term(result, function, tuple(self.leaf(scope, kind) for kind in kinds))
        kept = {"total": total} if order is total else {"order": order}
        return Window(result, call, partition, descending=descending, frame=frame, **kept)

    def _columns(self, scope, count):
        return tuple(Term(kind, reference) for reference, kind in self.random.sample(scope, count))
