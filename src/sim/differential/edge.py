"""The table `edge`: two columns of each type, some two dozen rows of edge values, the same on both servers.

Only values that both servers store and show alike stand in it; those that they do not are findings of their own. So a difference in an expression over its columns is the
expression's.
"""

from . import values
from .compare import REFUSED, difference
from .expressions import dice
from .kinds import key_of
from .session import Answer

ROWS = 24
COLUMNS_EACH = 2

# Runs an expression row by row, since one row that fails must not hide the others: which rows fail, and with what.
_FAILING = """CREATE OR REPLACE FUNCTION failing(expression text) RETURNS TABLE (id int, state text) LANGUAGE plpgsql AS $$
DECLARE ignored text;
BEGIN
  FOR id IN SELECT e.id FROM edge e ORDER BY 1 LOOP
    BEGIN
      EXECUTE 'SELECT (' || expression || ')::text FROM edge WHERE id = $1' INTO ignored USING id;
    EXCEPTION WHEN OTHERS THEN
      state := SQLSTATE;
      RETURN NEXT;
    END;
  END LOOP;
END $$"""


class Edge:
    """`columns` by type, `types` by column, and `rows` by id: the text of each cell, None for NULL."""

    def __init__(self, world, seed):
        self.world, self.seed = world, seed
        self.prepare()

    def prepare(self):
        stored = {name: self._stored(name) for name in values.TYPES}
        self.columns = {name: [values.column_name(name, number) for number in range(1, COLUMNS_EACH + 1)] for name in values.TYPES if stored[name]}
        self.types = {text: name for name, texts in self.columns.items() for text in texts}
        random = dice(self.seed, "edge")
        picks = {text: self._spread(random, stored[name]) for text, name in self.types.items()}
        definitions = ", ".join(f"{text} {values.column_type(name)}" for text, name in self.types.items())
        self._must(f"CREATE TABLE edge (id integer PRIMARY KEY, {definitions})")
        for row in range(ROWS):
            self._must(f"INSERT INTO edge VALUES ({row + 1}, {', '.join(picks[text][row] for text in self.types)})")
        self.world.postgres.ask(_FAILING)
        self._drop_unequal_columns()
        answer = self.world.postgres.ask(f"SELECT id, {', '.join(self.types)} FROM edge ORDER BY id")
        self.rows = {int(row[0]): {text: None if cell is None else cell.decode() for text, cell in zip(self.types, row[1:])} for row in answer.rows}

    @staticmethod
    def _spread(random, stored):
        """Every value once before any comes twice, and some NULLs."""
        picked = []
        while len(picked) < ROWS:
            picked += random.sample(stored, len(stored))
        picked = picked[: ROWS - 2] + ["NULL", "NULL"]
        random.shuffle(picked)
        return picked

    def _stored(self, name):
        """The literals that both servers store and show alike in a column of this type."""
        alike, spelled = [], values.column_type(name)
        created = self.world.verdict(f"CREATE TABLE probe (id integer PRIMARY KEY, c {spelled})")
        if not created[2].ok:
            self.world.add(key_of("table", spelled, f"column {spelled}", created[0]), created[0], [f"CREATE TABLE t (c {spelled})"], *created[1:], "")
            self.world.postgres.ask("DROP TABLE IF EXISTS probe")
            return []
        for number, text in enumerate(values.TYPES[name].edges):
            insert = f"INSERT INTO probe VALUES ({number}, {values.quoted(text)})"
            if not self.world.postgres.ask(insert).ok:
                continue
            answer = self.world.ask_tidemark(insert)
            pair = self.world.both(f"SELECT c FROM probe WHERE id = {number}") if answer.ok else (Answer(), answer)
            found = difference(*pair)
            if not found:
                alike.append(values.quoted(text))
            elif found != REFUSED:
                script = [f"CREATE TABLE t (id integer PRIMARY KEY, c {spelled})", f"INSERT INTO t VALUES (1, {values.quoted(text)})", "SELECT c FROM t"]
                self.world.add(key_of("table", spelled, f"column {spelled}", found), found, script, *pair, "")
        flushed = self.world.flush()
        if not flushed.ok:
            script = [f"CREATE TABLE t (id integer PRIMARY KEY, c {spelled})", f"INSERT INTO t VALUES (1, {alike[-1] if alike else 'NULL'})", "FLUSH", "SELECT c FROM t"]
            found = difference(Answer(), flushed)
            self.world.add(key_of("table", spelled, f"checkpoint of a column {spelled}", found), found, script, Answer(), flushed, "")
        for session in (self.world.postgres, self.world.tidemark):
            session.ask("DROP TABLE probe")
        return alike if flushed.ok else []

    def _must(self, statement):
        for answer in self.world.both(statement):
            if not answer.ok:
                raise RuntimeError(f"the table of edge values: {answer.text()}: {statement}")

    def _drop_unequal_columns(self):
        for text in list(self.types):
            found, postgres, tidemark = self.world.verdict(f"SELECT id, {text} FROM edge")
            if found:
                self.columns[self.types.pop(text)].remove(text)

    def literal(self, row, text):
        """The cell of a row, in SQL."""
        cell = self.rows[row][text]
        return "NULL" if cell is None else values.quoted(cell)

    def script(self, columns, rows):
        """Statements that make a table with only these columns and rows."""
        columns = sorted(columns)
        definitions = "".join(f", {text} {values.column_type(self.types[text])}" for text in columns)
        filled = [f"({', '.join([str(row)] + [self.literal(row, text) for text in columns])})" for row in rows]
        return [f"CREATE TABLE edge (id integer PRIMARY KEY{definitions})", *([f"INSERT INTO edge VALUES {', '.join(filled)}"] if filled else [])]
