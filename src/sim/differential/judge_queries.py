"""Random queries: ad hoc, and as materialized views through rounds of DML and restarts.

A batch makes tables of its own, asks queries ad hoc, creates views, and then, round after round, writes, and compares every table, every view and some more queries. Between some
rounds the server is killed and started again. Where a view is wrong it is first created anew over the rows as they are: is it wrong then too, the query is at fault; else the way
there is, and the script has the writes.
"""

import re

from . import schemas
from .compare import REFUSED, difference, is_ordered
from .expressions import dice
from .judging import checks_max
from .kinds import NOT_ALONE, key_of, normalised
from .queries import QueryGenerator, typed
from .session import Answer
from .shrink import fewer, shrink

SCHEMA = "differential_queries"
ADHOC, VIEWS, VIEW_TRIES, ROUNDS, STATEMENTS = 30, 6, 20, 3, 4
QUERY_CHECKS, SCRIPT_CHECKS = 150, 40
_VIEW = "CREATE MATERIALIZED VIEW {} AS {}"


class QueryJudge:
    def __init__(self, world, seed):
        self.world, self.seed = world, seed
        self.seen = {}

    def repeat(self, number):
        return f"--only queries --seed {self.seed} --batch {number}"

    # ---- a batch

    def begin(self, number):
        """Tables with rows, on both sides."""
        random = dice(self.seed, "queries", number)
        self.number, self.broken, self.in_block = number, False, False
        self.world.use(SCHEMA, fresh=True)
        self.tables = schemas.tables(random)
        self.history = []
        for statement in [table.create() for table in self.tables] + [statement for table in self.tables for statement in schemas.fill(random, table)]:
            self._write(statement)
        self.created, self.views, self.slight = len(self.history), {}, {}  # slight: what is known to be wrong with a view, but is not in its rows
        self.relations = [(table.name, table.types) for table in self.tables]

    def batch(self, number):
        self.begin(number)
        random = dice(self.seed, "writes", number)
        self.adhoc(dice(self.seed, "adhoc", number, 0), ADHOC)
        self._create_views(random)
        writer = schemas.Writer(self.tables)
        for turn in range(1, ROUNDS + 1):
            for statement in writer.round(random, STATEMENTS):
                self._write(statement)
            if self.broken or self.world.stopped():
                return
            self._compare_all(turn)
            if turn == 2 and random.random() < 0.35 and self.world.target.restart():
                self.world.tidemark.connect()
                self.world.findings.cases["restarts"] += 1
                self._compare_all(turn, "after a restart")
            self.adhoc(dice(self.seed, "adhoc", number, turn), ADHOC // 5)

    def _write(self, statement):
        """A statement on both sides; the batch ends where they do not do the same. What Tidemark does not do PostgreSQL does not either, outside of a block."""
        if self.broken:
            return
        self.in_block = statement == "BEGIN" or self.in_block and statement not in ("COMMIT", "ROLLBACK")
        tidemark = self.world.ask_tidemark(statement)
        undone = not tidemark.ok and not self.in_block
        if undone:
            self.world.postgres.ask("BEGIN")
        postgres = self.world.postgres.ask(statement)
        if undone:
            self.world.postgres.ask("ROLLBACK")
        found = self.world.judged(statement, postgres, tidemark)
        if not found and postgres.tag != tidemark.tag and postgres.ok:
            found = "value"
        self.world.findings.cases["writes"] += 1
        if found == REFUSED:
            self.world.findings.refuse(tidemark.message, statement)
        elif found:
            self._found_write(statement, found, postgres, tidemark)
        self.broken = not undone and (bool(found) or not tidemark.ok)
        if not undone:
            self.history.append(statement)

    def _found_write(self, statement, found, postgres, tidemark):
        errors = found.startswith(("failed", "internal", "error"))
        key = key_of("write", "", normalised(tidemark.message) if errors else shaped(statement), found)
        script = [*self.history, statement]
        if key not in self.world.findings.kinds and self.world.run(script)[0] == found:
            script = fewer(self.history, lambda less: self.world.run([*less, statement])[0] == found, SCRIPT_CHECKS) + [statement]
        self.world.add(key, found, script, postgres, tidemark, self.repeat(self.number))

    def _state(self):
        """Statements that make the tables as they are now in PostgreSQL."""
        made = [table.create() for table in self.tables]
        for table in self.tables:
            names = [name for name, _ in table.types]
            listed = ", ".join(f"quote_nullable({name}::text)" for name in names)
            rows = self.world.postgres.ask(f"SELECT {listed} FROM {table.name} ORDER BY 1").rows
            made += [f"INSERT INTO {table.name} VALUES ({', '.join(cell.decode() for cell in row)})" for row in rows]
        return made

    # ---- ad hoc

    def adhoc(self, random, count):
        for _ in range(count):
            if self.world.stopped():
                return
            generator = QueryGenerator(random, self.relations)
            query = generator.query(2, (), True)
            if random.random() < 0.3:
                query = generator.ordered(query)
            found, postgres, tidemark = self.world.verdict_of_rows(query.sql(), is_ordered(query.sql()))
            self.world.findings.cases["queries ad hoc"] += 1
            if found == REFUSED:
                self.world.findings.refuse(tidemark.message, query.sql())
            elif found and not self._is_known("query", found, tidemark):
                self._found_adhoc(query, found)

    def _is_known(self, where, found, tidemark):
        """Errors are told apart by their message: another one with the same is counted, not looked into."""
        if not found.startswith(("failed", "internal", "error")):
            return False
        key = key_of(where, "", normalised(tidemark.message), found)
        if key in self.world.findings.kinds and self.world.findings.kinds[key].count >= 3:
            self.world.findings.kinds[key].count += 1
            return True
        return False

    def _key(self, where, query, found, tidemark):
        shape = normalised(tidemark.message) if found.startswith(("failed", "internal", "error")) else shaped(typed(query).sql())
        return key_of(where, "", shape, found)

    def _found_adhoc(self, query, found):
        def differs(candidate):
            return self.world.verdict_of_rows(candidate.sql(), is_ordered(candidate.sql()))[0] == found

        query = shrink(query, differs, checks_max=min(QUERY_CHECKS, 2 * checks_max(found)))
        again, postgres, tidemark = self.world.verdict(query.sql(), is_ordered(query.sql()))
        if again != found:
            return
        self._add_script("query", query, found, [*self._views_in(query.sql()), query.sql()], postgres, tidemark)

    def _views_in(self, text):
        """CREATE statements of the views that a text names, and of those that they name."""
        needed = []
        for name, query in reversed(self.views.items()):
            if re.search(rf"\b{name}\b", " ".join([text, *needed])):
                needed.insert(0, _VIEW.format(name, query.sql()))
        return needed

    def _add_script(self, where, query, found, statements, postgres, tidemark):
        """Adds a finding with the rows that it needs, if it shows up again on tables of its own."""
        key, state = self._key(where, query, found, tidemark), self._state()
        text = " ".join(statements)
        state = [statement for statement in state if re.search(rf"\b{statement.split()[2]}\b", text)]
        if key not in self.world.findings.kinds and self.world.run(state + statements)[0] == found:
            state = fewer(state, lambda less: self.world.run(less + statements)[0] == found, SCRIPT_CHECKS)
        again, postgres, tidemark = self.world.run(state + statements)
        if again != found:
            key = self._key(f"{where}, {NOT_ALONE}", query, found, tidemark)
        self.world.add(key, found, state + statements, postgres, tidemark, self.repeat(self.number))

    # ---- views

    def _create_views(self, random):
        for attempt in range(1, VIEW_TRIES + 1):
            if self.world.stopped() or len(self.views) == VIEWS:
                break
            generator = QueryGenerator(random, self.relations, windows=random.random() < 0.15)
            query = generator.query(2, (), True)
            if random.random() < 0.05:
                query = generator.ordered(query)
            name = f"v{attempt}"
            if not self.world.postgres.ask(f"CREATE VIEW {name} AS {query.sql()}").ok:
                continue
            created = self.world.ask_tidemark(_VIEW.format(name, query.sql()))
            self.world.findings.cases["views"] += 1
            if created.ok:
                self.views[name] = query
                if random.random() < 0.3:
                    self.relations.append((name, tuple((item.alias, item.term.type) for item in query.items)))
                continue
            self.world.postgres.ask(f"DROP VIEW {name}")
            found = difference(Answer(), created)
            if found == REFUSED:
                self.world.findings.refuse(created.message, f"view: {query.sql()}")
            elif not self._is_known("view", found, created):
                self._found_static(query, found)
        self._compare_all(0)

    def _compare_all(self, turn, when=""):
        flushed = self.world.flush()
        if not flushed.ok:
            found, views = difference(Answer(), flushed), [_VIEW.format(name, query.sql()) for name, query in self.views.items()]
            key = key_of("write", "", f"FLUSH: {normalised(flushed.message)}", found)
            self.world.add(key, found, [*self.history, *views, "FLUSH", "SELECT 1"], Answer(), flushed, self.repeat(self.number))
            self.broken = True
            return
        for table in self.tables:
            found, postgres, tidemark = self.world.verdict(f"SELECT * FROM {table.name}")
            if found and found != REFUSED:
                self.world.add(key_of("table", "", f"{table.name} {when}", found), found, [*self.history, f"SELECT * FROM {table.name}"], postgres, tidemark,
                               self.repeat(self.number))
                self.broken = True
                return
        for name in list(self.views):
            if name not in self.views:
                continue  # it read one that was wrong
            found, postgres, tidemark = self.world.verdict(f"SELECT * FROM {name}")
            self.world.findings.cases["views compared"] += 1
            if found and found not in (REFUSED, self.slight.get(name)) and postgres.ok:
                query = self.views[name]
                if found in ("digits", "type", "name"):
                    self.slight[name] = found
                else:
                    self._drop(name)
                self._found_in_view(query, found, postgres, tidemark, when)

    def _drop(self, name):
        """A view whose rows were wrong is not compared again, nor is what reads it."""
        for other, query in reversed(list(self.views.items())):
            if other == name or re.search(rf"\b{name}\b", query.sql()):
                self.views.pop(other, None)
                self.relations = [relation for relation in self.relations if relation[0] != other]

    def _static(self, query):
        """The verdict on a view created over the tables as they are."""
        created = self.world.ask_tidemark(_VIEW.format("x1", query.sql()))
        postgres = self.world.postgres.ask(query.sql())
        if not created.ok:
            return difference(postgres, created), postgres, created
        tidemark = self.world.ask_tidemark("SELECT * FROM x1")
        self.world.ask_tidemark("DROP MATERIALIZED VIEW x1")
        return self.world.judged(query.sql(), postgres, tidemark), postgres, tidemark

    def _found_static(self, query, found):
        def differs(candidate):
            return self._static(candidate)[0] == found

        if not differs(query):
            return False
        query = shrink(query, differs, checks_max=min(QUERY_CHECKS // 2, checks_max(found)))
        _, postgres, tidemark = self._static(query)
        statements = [*self._views_in(query.sql()), _VIEW.format("x1", query.sql()), "SELECT * FROM x1"]
        self._add_script("view", query, found, statements, postgres, tidemark)
        return True

    def _found_in_view(self, query, found, postgres, tidemark, when):
        """Wrong when created anew: the query is at fault. Otherwise the writes belong to the script."""
        if self._found_static(query, found):
            return
        tables, writes = self.history[: self.created], self.history[self.created:]

        def script(initial, later, candidate):
            return [*initial, *self._views_in(candidate.sql()), _VIEW.format("x1", candidate.sql()), *later, "FLUSH", "SELECT * FROM x1"]

        where = "view after writes" if not when else f"view {when}"
        if self.world.run(script(tables, writes, query))[0] == found:
            writes = fewer(writes, lambda less: self.world.run(script(tables, less, query))[0] == found, SCRIPT_CHECKS)
            query = shrink(query, lambda candidate: self.world.run(script(tables, writes, candidate))[0] == found, checks_max=SCRIPT_CHECKS)
            tables = fewer(tables, lambda less: self.world.run(script(less, writes, query))[0] == found, SCRIPT_CHECKS)
            _, postgres, tidemark = self.world.run(script(tables, writes, query))
        elif not when:
            where = f"view after writes, {NOT_ALONE}"
        statements = script(tables, writes, query)
        self.world.add(key_of(where, "", shaped(typed(query).sql()), found), found, statements, postgres, tidemark, self.repeat(self.number))


def shaped(text):
    """A statement without its names of relations and columns, and its values."""
    text = re.sub(r"'(?:[^']|'')*'", "~", text)
    text = re.sub(r"\br\d+\.(\w+)", r"\1", text)
    text = re.sub(r"\b(r|t|c|v|w)\d+\b", r"\1", text)
    text = re.sub(r"\b\d+(\.\d+)?\b", "#", text)
    text = re.sub(r" USING \([^)]*\)", " USING (..)", text)
    return re.sub(r"(ORDER BY [^,()]+)(?:, [^,()]+)+", r"\1, ..", text)[:300]
