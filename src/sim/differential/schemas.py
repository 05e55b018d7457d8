"""Random small tables, their rows, and random DML on them.

Few values of each type, so that joins meet, groups have several rows, and NULLs and duplicates are everywhere. Columns of one name have one type in every table, for USING and
NATURAL. Most tables have the primary key `k`; the last has none and may hold equal rows.
"""

from dataclasses import dataclass


# name: (type, SQL type, values)
COLUMNS = {
    "a": ("int4", "int", ("0", "1", "2", "3", "-1", "7")),
    "b": ("int4", "int", ("0", "1", "2", "5")),
    "s": ("text", "varchar", ("''", "'a'", "'b'", "'ab'", "'B'", "'ä'")),
    "w": ("text", "text", ("'a'", "'b'", "'x y'")),
    "n": ("numeric", "numeric(10, 2)", ("0", "1", "1.50", "-2.25", "100")),
    "x": ("int8", "bigint", ("0", "1", "2", "1000000000000")),
    "d": ("date", "date", ("'2024-01-31'", "'2024-02-29'", "'1999-12-31'")),
    "m": ("timestamp", "timestamp", ("'2024-01-31 00:00:00'", "'2024-02-29 12:30:00.5'")),
    "f": ("bool", "boolean", ("true", "false")),
    "g": ("float8", "double precision", ("0", "0.5", "-1.25", "4")),
}
KEYS_MAX = 14


@dataclass(frozen=True)
class Table:
    name: str
    columns: tuple  # names, without the key
    keyed: bool = True

    @property
    def types(self):
        """(name, type) of each column, the key first."""
        return ((("k", "int4"),) if self.keyed else ()) + tuple((name, COLUMNS[name][0]) for name in self.columns)

    def create(self):
        defined = (["k int PRIMARY KEY"] if self.keyed else []) + [f"{name} {COLUMNS[name][1]}" for name in self.columns]
        return f"CREATE TABLE {self.name} ({', '.join(defined)})"

    def values(self, random, key):
        cells = ["NULL" if random.random() < 0.15 else random.choice(COLUMNS[name][2]) for name in self.columns]
        return f"({', '.join(([str(key)] if self.keyed else []) + cells)})"


def tables(random):
    """Two or three tables with keys, and one without."""
    made = []
    for number in range(random.choice((3, 4))):
        picked = random.sample(sorted(COLUMNS), random.randrange(3, 6))
        made.append(Table(f"t{number + 1}", tuple(name for name in COLUMNS if name in picked), True))
    made[-1] = Table(made[-1].name, made[-1].columns, False)
    return made


def fill(random, table):
    """One INSERT for each row."""
    keys = random.sample(range(KEYS_MAX), random.choice((0, 3, 6, 9)))
    return [f"INSERT INTO {table.name} VALUES {table.values(random, key)}" for key in keys]


class Writer:
    """Random DML; it knows which keys were given out, so that an INSERT without ON CONFLICT has new ones (Tidemark replaces the row of a key that exists)."""

    def __init__(self, made):
        self.tables, self.next_key = made, 1000

    def round(self, random, count):
        """Statements, some of them in a transaction."""
        statements = [self.statement(random) for _ in range(count)]
        if random.random() < 0.3:
            statements = ["BEGIN", *statements, random.choice(("COMMIT", "COMMIT", "ROLLBACK"))]
        return statements

    def fresh(self):
        self.next_key += 1
        return self.next_key

    def statement(self, random):
        table = random.choice(self.tables)
        makers = [self._insert, self._insert, self._update, self._update, self._delete, self._insert_select]
        if table.keyed:
            makers += [self._upsert, self._upsert, self._update_from, self._delete_using, self._change_key]
        return random.choice(makers)(random, table)

    def _insert(self, random, table):
        rows = ", ".join(table.values(random, self.fresh()) for _ in range(random.choice((1, 2, 4))))
        return f"INSERT INTO {table.name} VALUES {rows}"

    def _insert_select(self, random, table):
        names = ", ".join(table.columns)
        if not table.keyed:
            return f"INSERT INTO {table.name} SELECT {names} FROM {table.name} WHERE {self._condition(random, table)}"
        shift, self.next_key = self.next_key + 1, self.next_key + 1 + KEYS_MAX
        return f"INSERT INTO {table.name} (k, {names}) SELECT k + {shift}, {names} FROM {table.name} WHERE k < {KEYS_MAX} AND {self._condition(random, table)}"

    def _upsert(self, random, table):
        rows = ", ".join(table.values(random, key) for key in random.sample(range(KEYS_MAX), random.choice((1, 2))))
        name = random.choice(table.columns)
        action = random.choice(("DO NOTHING", f"DO UPDATE SET {name} = excluded.{name}", f"DO UPDATE SET {name} = coalesce(excluded.{name}, {table.name}.{name})"))
        return f"INSERT INTO {table.name} VALUES {rows} ON CONFLICT (k) {action}"

    def _condition(self, random, table):
        name = random.choice(table.columns)
        choices = [f"{name} = {random.choice(COLUMNS[name][2])}", f"{name} IS NULL", f"{name} <> {random.choice(COLUMNS[name][2])}", "true"]
        if table.keyed:
            choices += [f"k % 3 = {random.randrange(3)}", f"k = {random.randrange(KEYS_MAX)}", f"k IN ({random.randrange(KEYS_MAX)}, {random.randrange(KEYS_MAX)})"]
        return random.choice(choices)

    def _assignment(self, random, table):
        name = random.choice(table.columns)
        kind = COLUMNS[name][0]
        choices = [random.choice(COLUMNS[name][2]), "NULL", f"coalesce({name}, {random.choice(COLUMNS[name][2])})"]
        choices += {"int4": [f"{name} + 1", f"-{name}", f"{name} % 3"], "numeric": [f"{name} + 1.5", f"{name} / 2"], "text": [f"upper({name})", f"left({name} || 'b', 3)"],
                    "date": [f"{name} + 1"],
                    "bool": [f"NOT {name}"], "int8": [f"{name} + 1"], "float8": [f"{name} / 2"], "timestamp": [f"{name} + interval '1 day'"]}[kind]
        return f"{name} = {random.choice(choices)}"

    def _update(self, random, table):
        returning = " RETURNING *" if random.random() < 0.2 else ""
        return f"UPDATE {table.name} SET {self._assignment(random, table)} WHERE {self._condition(random, table)}{returning}"

    def _update_from(self, random, table):
        other = random.choice([one for one in self.tables if one.keyed])
        name = random.choice(table.columns)
        source = f"r.{name}" if name in other.columns else random.choice(COLUMNS[name][2])
        return f"UPDATE {table.name} SET {name} = {source} FROM {other.name} AS r WHERE {table.name}.k = r.k"

    def _change_key(self, random, table):
        return f"UPDATE {table.name} SET k = k + {self.fresh() * 100} WHERE k = {random.randrange(KEYS_MAX)}"

    def _delete(self, random, table):
        returning = " RETURNING *" if random.random() < 0.2 else ""
        return f"DELETE FROM {table.name} WHERE {self._condition(random, table)}{returning}"

    def _delete_using(self, random, table):
        other = random.choice([one for one in self.tables if one.keyed])
        name = random.choice(other.columns)
        return f"DELETE FROM {table.name} USING {other.name} AS r WHERE {table.name}.k = r.k AND r.{name} = {random.choice(COLUMNS[name][2])}"


