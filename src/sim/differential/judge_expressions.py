"""Random expressions, in every place where they are computed: constants, bound parameters, columns ad hoc, columns in a view, and aggregates; batch after batch.

What differs is made smaller in the simplest place where it still differs: as constants, else over a table, else in a view. judge_columns.py has what is computed over the table
of edge values.
"""

import json
from dataclasses import replace

from . import functions, values
from .compare import REFUSED
from .edge import Edge
from .expressions import Generator, constant, dice
from .judge_columns import ColumnJudge
from .judging import checks_max
from .kinds import key_of
from .shrink import shrink

SCHEMA = "differential_expressions"
_BATCH = (("constants", 30), ("parameters", 8), ("sets", 3), ("columns", 24), ("aggregates", 8))

class ExpressionJudge:
    def __init__(self, world, seed, edge=True):
        self.world, self.seed = world, seed
        scalar, self.set_forms, self.aggregate_forms = functions.load(world.postgres)
        self.generator = Generator(scalar)
        self.oids = {name: int(world.postgres.ask(f"SELECT '{values.TYPES[name].names[0]}'::regtype::oid").rows[0][0]) for name in values.TYPES}
        world.use(SCHEMA, fresh=True)
        self.edge = Edge(world, seed) if edge else None
        self.over_columns = ColumnJudge(self)

    # ---- a batch

    def batch(self, number):
        self.world.use(SCHEMA)
        for part, count in _BATCH:
            if self.world.stopped():
                return
            getattr(self if hasattr(self, part) else self.over_columns, part)(number, count)

    def skips(self, where, tree, *words):
        if self.world.saturated(where, {part.signature() for part in tree.walk() if part.arguments}) and dice(self.seed, "skip", *words).random() < 0.9:
            self.world.findings.cases["skipped, as its like is known"] += 1
            return True
        return False

    def count(self, name, found, statement, tidemark):
        """True where the case is a difference to look into."""
        self.world.findings.cases[name] += 1
        if found == REFUSED:
            self.world.findings.refuse(tidemark.message, statement)
        return bool(found) and found != REFUSED

    def repeat(self, number):
        return f"--only expressions --seed {self.seed} --batch {number}"

    # ---- constants

    def constants(self, number, count):
        for index in range(count):
            random = dice(self.seed, number, "constants", index)
            tree = self.generator.root(random, random.choice((1, 1, 2, 3)))
            alias = " AS x" if random.random() < 0.85 else ""
            if self.skips("adhoc", tree, number, index):
                continue
            found, postgres, tidemark = self.world.verdict(f"SELECT {tree.sql()}{alias}")
            if self.count("constants", found, f"SELECT {tree.sql()}", tidemark):
                self.found_constant(tree, found, number, alias)

    def found_constant(self, tree, found, number, alias=" AS x"):
        def differs(candidate):
            return self.world.verdict(f"SELECT {candidate.sql()}{alias}")[0] == found

        if found not in ("crash", "hang"):
            tree = next((part for part in tree.parts() if differs(part)), tree)
        if self.world.is_known("adhoc", tree, found):
            return
        tree = shrink(tree, differs, self.evaluate, checks_max(found))
        statement = f"SELECT {tree.sql()}{alias}"
        again, postgres, tidemark = self.world.verdict(statement)
        if again == found:
            self.world.add(key_of("adhoc", tree.name, tree.shape(), found), found, [statement], postgres, tidemark, self.repeat(number), tree.signature(), "adhoc")

    def evaluate(self, tree):
        """The constant that an expression of constants is, by PostgreSQL."""
        if tree.columns():
            return None
        answer = self.world.postgres.ask(f"SELECT ({tree.sql()})::text")
        if not answer.ok or len(answer.rows) != 1:
            return None
        cell = answer.rows[0][0]
        return constant(tree.type, None if cell is None else cell.decode())

    # ---- parameters

    def parameters(self, number, count):
        for index in range(count):
            random = dice(self.seed, number, "parameters", index)
            tree = self.generator.root(random, random.choice((1, 2)))
            leaves = [part for part in tree.walk() if part.name == "literal"]
            if not leaves or self.skips("adhoc", tree, number, index) or self.skips("parameter", tree, number, index):
                continue
            binary_values, binary, cast = random.random() < 0.4, random.random() < 0.4, random.random() < 0.5
            statement = self._bound(tree, binary_values, binary, cast)
            found, postgres, tidemark = self.world.verdict(statement)
            if self.count("parameters", found, statement, tidemark):
                self.found_parameter(tree, found, number, binary_values, binary, cast)

    def _bound(self, tree, binary_values, binary, cast):
        """The statement with parameters in place of the literals."""
        bound, oids, cells = {}, [], []

        def change(leaf):
            if leaf.name != "literal":
                return leaf
            if leaf not in bound:
                spelled = f"({leaf.text})::{values.TYPES[leaf.type].names[0]}"
                answer = self.world.postgres.ask(f"SELECT {spelled if binary_values else f'({spelled})::text'}", binary=binary_values)
                if not answer.ok:
                    return leaf
                bound[leaf] = len(bound) + 1
                cells.append(answer.rows[0][0])
                oids.append(0 if cast else self.oids[leaf.type])
            name = f"${bound[leaf]}"
            return replace(leaf, text=f"{name}::{values.TYPES[leaf.type].names[0]}" if cast else name)

        text = tree.mapped(change).sql()
        options = {"values": [cell.hex() for cell in cells], "types": oids, "binary_values": binary_values, "binary": binary}
        return f"SELECT {text} AS x /*{json.dumps(options)}*/"

    def found_parameter(self, tree, found, number, binary_values, binary, cast):
        plain = self.world.verdict(f"SELECT {tree.sql()} AS x")[0]
        if plain and plain != REFUSED:  # in binary another type looks like another value
            return self.found_constant(tree, plain, number)
        # the simplest way of binding that still shows it
        ways = [way for way in ((False, False, True), (False, False, False), (False, True, True), (True, False, False)) if way != (binary_values, binary, cast)]
        way = next((way for way in ways if self.world.verdict(self._bound(tree, *way))[0] == found), (binary_values, binary, cast))

        def differs(candidate):
            return self.world.verdict(self._bound(candidate, *way))[0] == found

        if found not in ("crash", "hang"):
            tree = next((part for part in tree.parts() if differs(part)), tree)
        if self.world.is_known("parameter", tree, found):
            return
        tree = shrink(tree, differs, self.evaluate, checks_max(found))
        statement = self._bound(tree, *way)
        again, postgres, tidemark = self.world.verdict(statement)
        where = f"parameter{' in binary' if way[0] else ''}{', result in binary' if way[1] else ''}"
        if again == found:
            self.world.add(key_of(where, tree.name, tree.shape(), found), found, [statement], postgres, tidemark, self.repeat(number), tree.signature(), "parameter")

    # ---- functions that give rows

    def sets(self, number, count):
        for index in range(count):
            random = dice(self.seed, number, "sets", index)
            tree = self.generator.apply(random, random.choice(self.set_forms), random.choice((1, 2)))
            select = random.choice(("SELECT * FROM {} AS f", "SELECT {} AS x", "SELECT * FROM {} WITH ORDINALITY AS f"))
            if self.skips("rows of", tree, number, index):
                continue
            found, postgres, tidemark = self.world.verdict(select.format(tree.sql()), True)
            if self.count("functions that give rows", found, select.format(tree.sql()), tidemark):
                self._found_set(tree, found, number, select)

    def _found_set(self, tree, found, number, select):
        def differs(candidate):
            return candidate.name == tree.name and self.world.verdict(select.format(candidate.sql()), True)[0] == found

        if self.world.is_known("rows of", tree, found):
            return
        tree = shrink(tree, differs, self.evaluate, checks_max(found))
        again, postgres, tidemark = self.world.verdict(select.format(tree.sql()), True)
        self.world.add(key_of("adhoc", tree.name, select.format(tree.shape()), found), found, [select.format(tree.sql())], postgres, tidemark, self.repeat(number),
                       tree.signature(), "rows of")
