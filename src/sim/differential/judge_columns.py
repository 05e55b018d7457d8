"""Expressions and aggregates over the columns of the table of edge values: ad hoc, and in materialized views.

What is the same ad hoc goes into views: expressions that fail for no row many to a view, since creating one takes a while; an expression that fails for some rows into a view of
its own, which must have exactly the other rows, and an error in `tidemark.errors` for each that it has not.
"""

from . import values
from .compare import difference
from .expressions import Expr, constant, dice
from .judging import checks_max
from .kinds import NOT_ALONE, key_of
from .session import Answer
from .shrink import fewer, shrink

_ORDERED = ("array_agg", "string_agg", "jsonb_agg", "jsonb_object_agg")
_FAILING_VIEWS = 3
_VIEW = "CREATE MATERIALIZED VIEW v AS "


class ColumnJudge:
    def __init__(self, judge):
        self.judge, self.world, self.seed, self.edge = judge, judge.world, judge.seed, judge.edge

    # ---- expressions

    def columns(self, number, count):
        clean, failing = [], []
        for tree in self._trees(number, count):
            expected, fails = self._expected(tree)
            if expected is None:
                continue
            # The age of an infinite moment is an error by intent: in a view its row is missing.
            told_apart = "age(" not in tree.sql()
            if self._adhoc(tree, fails, number) and len(fails) < len(self.edge.rows) and told_apart:
                (failing if fails else clean).append((tree, expected, fails))
        self._views(clean, number)
        for case in failing[:_FAILING_VIEWS]:
            self._view_with_errors(case, number)

    def _trees(self, number, count):
        for index in range(count):
            random = dice(self.seed, number, "columns", index)
            tree = self.judge.generator.root(random, random.choice((1, 1, 2, 3)), self.edge.columns)
            if not any(self.judge.skips(where, tree, number, where, index) for where in ("adhoc", "column")):
                yield tree

    def _expected(self, tree):
        """PostgreSQL's answer over the rows that do not fail, and the SQLSTATE of each row that does; (None, {}) where there is nothing to compare."""
        answer = self.world.postgres.ask(f"SELECT id, {tree.sql()} AS x FROM edge")
        if answer.ok or answer.code[:2] == "42":
            return answer, {}
        if answer.code in ("57014", "53200"):
            return None, {}
        listed = self.world.postgres.ask(f"SELECT * FROM failing({values.quoted(tree.sql())})")
        fails = {int(row[0]): row[1].decode() for row in listed.rows}
        if not fails:
            return None, {}
        return self.world.postgres.ask(self._statement(tree, fails)), fails

    def _statement(self, tree, fails):
        kept = [str(row) for row in self.edge.rows if row not in fails]
        where = f" WHERE id IN ({', '.join(kept)})" if fails and kept else ""
        return f"SELECT id, {tree.sql()} AS x FROM edge{where}"

    def _adhoc(self, tree, fails, number):
        """True where ad hoc all is the same; one row that fails must fail there too."""
        statements = [self._statement(tree, fails)] if len(fails) < len(self.edge.rows) else []
        statements += [f"SELECT id, {tree.sql()} AS x FROM edge WHERE id = {row}" for row in sorted(fails)[:1]]
        for statement in statements:
            found, postgres, tidemark = self.world.verdict(statement)
            if self.judge.count("columns ad hoc", found, statement, tidemark):
                self._found(tree, found, number, postgres, tidemark)
            if found or not postgres.ok and not fails:
                return False
        return True

    def _differing(self, postgres, tidemark):
        """The rows in which two answers differ."""
        if not (postgres.ok and tidemark.ok):
            return []
        there = {row[0]: row for row in tidemark.rows}
        return [int(row[0]) for row in postgres.rows if there.get(row[0]) != row]

    def _found(self, tree, found, number, postgres, tidemark):
        rows = self._differing(postgres, tidemark) or sorted(self.edge.rows)
        for row in rows:
            if self.world.verdict(f"SELECT {self._constants(tree, row).sql()} AS x")[0] == found:
                return self.judge.found_constant(self._constants(tree, row), found, number)
            if found in ("crash", "hang"):
                break

        def where_differs(candidate):
            return next((row for row in rows if self.world.verdict(f"SELECT {candidate.sql()} AS x FROM edge WHERE id = {row}")[0] == found), None)

        tree = next((part for part in tree.parts() if where_differs(part)), tree)
        if self.world.is_known("column", tree, found):
            return
        tree = shrink(tree, where_differs, self.judge.evaluate, checks_max(found))
        row = where_differs(tree)
        self._add(tree, found, number, "column", row, [f"SELECT {tree.sql()} AS x FROM edge"])

    def _constants(self, tree, row):
        cells = self.edge.rows[row]
        return tree.mapped(lambda leaf: constant(leaf.type, cells[leaf.text]) if leaf.name == "column" else leaf)

    def _add(self, tree, found, number, where, row, statements, beside=()):
        """Adds a finding with a script that shows it: with one row (and those that must be beside it), else with all."""
        for rows in ([row, *beside] if row else [], sorted(self.edge.rows)):
            script = [*self.edge.script(tree.columns(), rows), *statements]
            again, postgres, tidemark = self.world.run(script)
            if again == found:
                break
        else:
            where = f"{where}, {NOT_ALONE}"
        self.world.add(key_of(where, tree.name, tree.shape(), found), found, script, postgres, tidemark, self.judge.repeat(number), tree.signature(), where)

    # ---- expressions in views

    def _views(self, cases, number):
        """One view for all; where it cannot be created or is wrong, views of halves, down to the one expression that is at fault."""
        cases = [case for case in cases if not self.judge.skips("view", case[0], number, "view", case[0].sql())]
        pending = [cases] if cases else []
        while pending and not self.world.stopped():
            group = pending.pop()
            found, postgres, tidemark = self._view(group)
            if not found:
                self.world.findings.cases["columns in views"] += len(group)
            elif len(group) > 1:
                pending += [group[: len(group) // 2], group[len(group) // 2:]]
            elif self.judge.count("columns in views", found, f"view: {group[0][0].sql()}", tidemark):
                self._found_in_view(group[0][0], found, number)

    def _view(self, group):
        """The verdict on one view with all these expressions."""
        columns = "".join(f", {tree.sql()} AS x{index}" for index, (tree, _, _) in enumerate(group))
        created = self.world.ask_tidemark(f"{_VIEW}SELECT id{columns} FROM edge")
        if not created.ok:
            return difference(Answer(), created), Answer(), created
        try:
            tidemark = self.world.ask_tidemark("SELECT * FROM v")
            postgres = self.world.postgres.ask(f"SELECT id{columns} FROM edge")
            return self.world.judged(f"SELECT id{columns} FROM edge", postgres, tidemark), postgres, tidemark
        finally:
            self.world.ask_tidemark("DROP MATERIALIZED VIEW v")

    def _row_view(self, tree, row):
        """The verdict on a view over one row; a row that fails must be left out."""
        query = f"SELECT id, {tree.sql()} AS x FROM edge WHERE id = {row}"
        created = self.world.ask_tidemark(_VIEW + query)
        postgres = self.world.postgres.ask(query)
        if not created.ok:
            return difference(postgres, created)
        tidemark = self.world.ask_tidemark("SELECT * FROM v")
        self.world.ask_tidemark("DROP MATERIALIZED VIEW v")
        if not postgres.ok and tidemark.ok and not tidemark.rows:
            return ""
        return self.world.judged(query, postgres, tidemark)

    def _found_in_view(self, tree, found, number):
        row = next((row for row in sorted(self.edge.rows) if self._row_view(tree, row) == found), None)
        if row:
            def differs(candidate):
                return self._row_view(candidate, row) == found

            tree = next((part for part in tree.parts() if differs(part)), tree)
            if self.world.is_known("view", tree, found):
                return
            tree = shrink(tree, differs, self.judge.evaluate, checks_max(found) // 2)
        self._add(tree, found, number, "view", row, [f"{_VIEW}SELECT id, {tree.sql()} AS x FROM edge", "SELECT x FROM v"])

    def _view_with_errors(self, case, number):
        tree, expected, fails = case
        if self.judge.skips("view", tree, number, "view", tree.sql()):
            return
        errors = "SELECT sqlstate FROM tidemark.errors WHERE schema = current_schema() AND relation = 'v' ORDER BY 1"
        created = self.world.ask_tidemark(f"{_VIEW}SELECT id, {tree.sql()} AS x FROM edge")
        if not created.ok:
            if self.judge.count("columns in views that fail", difference(Answer(), created), f"view: {tree.sql()}", created):
                self._found_in_view(tree, difference(Answer(), created), number)
            return
        tidemark = self.world.ask_tidemark("SELECT * FROM v")
        reported = self.world.ask_tidemark(errors)
        self.world.ask_tidemark("DROP MATERIALIZED VIEW v")
        differs, found = difference(expected, tidemark), self.world.judged(self._statement(tree, fails), expected, tidemark)
        if self.judge.count("columns in views that fail", found, tree.sql(), tidemark):
            if found == "value":
                self._found_beside_errors(tree, number, fails, self._differing(expected, tidemark), {int(row[0]) for row in tidemark.rows})
            else:
                self._found_in_view(tree, found, number)
            return
        codes = sorted(code[:2] for code in fails.values())
        if reported.ok and not differs and sorted(row[0].decode()[:2] for row in reported.rows) != codes:
            script = [*self.edge.script(tree.columns(), sorted(fails)), f"{_VIEW}SELECT id, {tree.sql()} AS x FROM edge",
                      "SELECT sqlstate FROM tidemark.errors WHERE relation = 'v'"]
            self.world.add(key_of("errors of a view", tree.name, tree.shape(), "error"), "error", script, Answer(rows=tuple((code.encode(),) for code in codes)), reported,
                           self.judge.repeat(number),
                           tree.signature(), "view")

    def _found_beside_errors(self, tree, number, fails, differing, present):
        """A row that does not fail is missing or wrong beside one that does; or one that fails is there."""
        kept = [row for row in sorted(fails) if row in present]
        if not differing and not kept:
            return
        row, found = (differing[0], "value") if differing else (kept[0], f"accepted {fails[kept[0]]}")
        statements = [f"{_VIEW}SELECT id, {tree.sql()} AS x FROM edge", f"SELECT x FROM v WHERE id = {row}"]
        self._add(tree, found, number, "view with rows that fail", row, statements, beside=sorted(set(fails) - {row})[:1])

    # ---- aggregates

    def aggregates(self, number, count):
        good = []
        for index in range(count):
            random = dice(self.seed, number, "aggregates", index)
            tree = self._aggregate(random)
            group = random.choice(("", "", " GROUP BY bool_1", " WHERE id > 99", f" WHERE id <= {random.randrange(1, 9)}"))
            if "bool_1" in group and "bool_1" not in self.edge.types:
                group = ""
            if self.judge.skips("aggregate", tree, number, index):
                continue
            statement = f"SELECT {tree.sql()} AS x FROM edge{group}"
            found, postgres, tidemark = self.world.verdict_of_rows(statement)
            if self.judge.count("aggregates ad hoc", found, statement, tidemark):
                self._found_aggregate(tree, found, number, group, "aggregate")
            elif not found and postgres.ok:
                good.append((tree, group))
        for tree, group in good:
            found, tidemark = self._aggregate_view(tree, group)
            if self.judge.count("aggregates in views", found, f"view: SELECT {tree.sql()} FROM edge{group}", tidemark):
                self._found_aggregate(tree, found, number, group, "aggregate in a view")

    def _aggregate(self, random):
        form = random.choice(self.judge.aggregate_forms)
        depth = 0 if random.random() < 0.7 else 1
        arguments = tuple(self.judge.generator.make(random, name, depth, self.edge.columns) for name in form.arguments)
        if form.name in _ORDERED:
            template = form.template[:-1] + " ORDER BY id)"
        else:
            template = form.template.replace("(", "(DISTINCT ", 1) if random.random() < 0.2 and len(arguments) == 1 else form.template
        if random.random() < 0.2:
            template, arguments = template + " FILTER (WHERE {})", (*arguments, self.judge.generator.make(random, "bool", 1, self.edge.columns))
        return Expr(form.result, template, arguments, form.name)

    def _aggregate_view(self, tree, group):
        query = f"SELECT {tree.sql()} AS x FROM edge{group}"
        created = self.world.ask_tidemark(_VIEW + query)
        postgres = self.world.postgres.ask(query)
        if not created.ok:
            return difference(postgres, created), created
        tidemark = self.world.ask_tidemark("SELECT * FROM v")
        self.world.ask_tidemark("DROP MATERIALIZED VIEW v")
        return self.world.judged(query, postgres, tidemark), tidemark

    def _found_aggregate(self, tree, found, number, group, where):
        def differs(candidate):
            if candidate.name != tree.name:
                return False
            if where == "aggregate":
                return self.world.verdict_of_rows(f"SELECT {candidate.sql()} AS x FROM edge{group}")[0] == found
            return self._aggregate_view(candidate, group)[0] == found

        if self.world.is_known("aggregate", tree, found):
            return
        if group and where == "aggregate" and self.world.verdict_of_rows(f"SELECT {tree.sql()} AS x FROM edge")[0] == found:
            group = ""
        tree = shrink(tree, differs, self.judge.evaluate, checks_max(found) // 2)

        def script(rows):
            query = f"SELECT {tree.sql()} AS x FROM edge{group}"
            columns = tree.columns() | ({"bool_1"} if "bool_1" in group else set())
            return [*self.edge.script(columns, rows), *([_VIEW + query, "SELECT * FROM v"] if where != "aggregate" else [query])]

        rows = sorted(self.edge.rows)
        key = key_of(where, tree.name, tree.shape() + (" of groups" if "GROUP" in group else ""), found)
        if key not in self.world.findings.kinds and self.world.run(script(rows))[0] == found:
            rows = fewer(rows, lambda less: self.world.run(script(less))[0] == found, checks_max(found) // 2)
        again, postgres, tidemark = self.world.run(script(rows))
        if again != found:
            key = key_of(f"{where}, {NOT_ALONE}", tree.name, tree.shape(), found)
        self.world.add(key, found, script(rows), postgres, tidemark, self.judge.repeat(number), tree.signature(), "aggregate")
