"""What both judges stand on: the two servers, asking both, running a script on both, and the findings.

A *script* is a list of statements that needs nothing but an empty schema; the answers to its last statement are compared. It is written for Tidemark: for PostgreSQL a
materialized view becomes a plain view (always up to date, as Tidemark's are), and FLUSH is left out. A statement may end in a comment with JSON, `/*{"values": ["31"], "types":
[23], "binary": true}*/`: then it goes by the extended protocol, with these parameters (as hexadecimal bytes, or null).
"""

import re
import resource
import shutil
import tempfile
import threading
import time
from pathlib import Path

from harness import Tidemark

from . import intended
from .compare import REFUSED, data_errors, difference, is_ordered
from .intended import Case
from .kinds import Findings, Kind
from .postgres import Postgres
from .session import Answer, Session
from .statement import parameters

SCRATCH = "differential_scratch"
MEMORY_MAX = 6 << 30
WATCH_SECONDS = 0.02
_VIEW = re.compile(r"(CREATE|DROP) MATERIALIZED VIEW (\w+)(?: AS (.*))?", re.DOTALL)
# So many of a kind are made small; so many of a form and its arguments' types are found before most cases with it are left out.
ALIKE, SATURATED = 3, 12


def watch_memory(process):
    """Ends a process that takes more than MEMORY_MAX: a statement that asks for all memory must not take the machine. What is resident counts; threads reserve stacks of half a
    gigabyte each that they do not use, so that a limit of address space (RLIMIT_DATA) would be one of threads."""
    pages = MEMORY_MAX // resource.getpagesize()
    while process.poll() is None:
        try:
            with open(f"/proc/{process.pid}/statm") as file:
                resident = int(file.read().split()[1])
        except (FileNotFoundError, ProcessLookupError):
            return
        if resident > pages:
            process.kill()
            return
        time.sleep(WATCH_SECONDS)


class Target:
    """The Tidemark that is judged: one of our own, restarted when it dies, or one that runs already."""

    def __init__(self, address=None):
        self.address, self.server, self.folder = address, None, None
        self.settings = {"workers": 2}
        if address is None:
            self.folder = Path(tempfile.mkdtemp(prefix="differential-tidemark-"))
            self.server = Tidemark(self.folder)
            self._start()

    def _start(self):
        self.server.start(**self.settings)
        threading.Thread(target=watch_memory, args=(self.server.process,), daemon=True).start()

    def connect(self, setup=()):
        host, _, port = (self.address or f"127.0.0.1:{self.server.port}").rpartition(":")
        return Session(host, port, "dev", setup)

    def restart(self):
        """As `kill -9`, and start; False where it is not ours."""
        if self.server is None:
            return False
        self.server.kill()
        self._start()
        return True

    def stop(self):
        if self.server is not None:
            self.server.kill()
            shutil.rmtree(self.folder, ignore_errors=True)


class World:
    """Both servers with a session each, and what was found."""

    def __init__(self, address=None, command="", log=lambda line: None):
        self.postgres_server, self.target = Postgres(), None
        try:
            self.postgres_server.start()
            self.target = Target(address)
        except BaseException:
            self.stop()
            raise
        self.findings, self.command, self.log, self.begun = Findings(), command, log, time.monotonic()
        self.known, self.schema, self.families = {}, "public", set()
        self.views = {}  # by schema, the queries of the views that are there, by name
        self.stopped = lambda: False
        self.postgres, self.tidemark = self.postgres_server.connect(), self.target.connect()

    def stop(self):
        for server in (self.target, self.postgres_server):
            if server is not None:
                server.stop()

    def use(self, schema, fresh=False):
        """Both sessions work in this schema from now on, in no transaction block; a fresh one is empty."""
        setup = [f"DROP SCHEMA IF EXISTS {schema} CASCADE", f"CREATE SCHEMA {schema}"] if fresh else []
        if fresh:
            self.views[schema] = {}
        for session in (self.postgres, self.tidemark):
            session.ask("ROLLBACK")
            for statement in setup:
                answer = session.ask(statement)
                if not answer.ok:
                    raise RuntimeError(f"{statement}: {answer.text()}")
            self.schema = schema
            session.setup = [f"SET search_path TO {schema}"]
            session.ask(session.setup[0])

    def ask(self, session, statement):
        text, options = parameters(statement)
        if options is None:
            return session.ask(statement)
        values = [None if value is None else bytes.fromhex(value) for value in options.get("values", [])]
        return session.ask(text, values, options.get("types"), options.get("binary_values", False), options.get("binary", False))

    def ask_tidemark(self, statement):
        """The answer of Tidemark, which lives again afterwards where that killed it."""
        answer = self.ask(self.tidemark, statement)
        if answer.code in ("LOST", "HANG"):
            self.revive(answer)
        view = _VIEW.match(statement) if answer.ok else None
        if view and view[1] == "CREATE":
            self.views.setdefault(self.schema, {})[view[2]] = view[3]
        elif view:
            self.views.get(self.schema, {}).pop(view[2], None)
        return answer

    def revive(self, answer):
        self.log(f"Tidemark {answer.code}: {answer.message}")
        server = self.target.server
        # A process that aborts lives for a moment after its connections.
        aborted = time.monotonic() + 5
        while server is not None and answer.code == "LOST" and server.running and time.monotonic() < aborted:
            time.sleep(0.1)
        if server is not None and (answer.code == "HANG" or not server.running):
            self.target.restart()
        end = time.monotonic() + 60
        while not self.tidemark.connect():
            if time.monotonic() > end:
                raise RuntimeError("Tidemark does not come back")
            time.sleep(0.5)

    def both(self, statement):
        return self.ask(self.postgres, for_postgres(statement)), self.ask_tidemark(statement)

    def flush(self):
        """FLUSH, and whether all jobs run then: an Answer that is ok, or says which does not."""
        answer = self.ask_tidemark("FLUSH")
        jobs = self.ask_tidemark("SHOW JOBS")
        if not answer.ok or not jobs.ok:
            return answer if jobs.ok else jobs
        state, error = jobs.names.index("State"), jobs.names.index("Error")
        halted = [row[error] for row in jobs.rows if row[state] == b"stopped"]
        return Answer(code="55000", message=f"a job stopped: {halted[0].decode()}") if halted else answer

    def verdict(self, statement, ordered=False):
        """(difference, PostgreSQL's answer, Tidemark's)"""
        postgres, tidemark = self.both(statement)
        return self.judged(statement, postgres, tidemark, ordered), postgres, tidemark

    def verdict_of_rows(self, statement, ordered=False):
        """As `verdict`, of a statement over many rows."""
        found, postgres, tidemark = self.verdict(statement, ordered)
        return "" if data_errors(postgres, tidemark) else found, postgres, tidemark

    def judged(self, statement, postgres, tidemark, ordered=False):
        found = difference(postgres, tidemark, ordered)
        if found and found != REFUSED:
            case = Case(statement, postgres, tidemark, lambda more: self.ask(self.postgres, more), self.views.get(self.schema, {}), ordered)
            reason = intended.reason(case)
            if reason:
                self.findings.intended[reason] += 1
                return ""
        return found

    def run(self, statements):
        """The verdict on a script; on the statement before its last with another outcome, if there is one. Leaves the sessions in the schema where they were."""
        before = self.schema
        self.use(SCRATCH, fresh=True)
        try:
            for statement in statements[:-1]:
                if statement == "FLUSH":
                    flushed = self.flush()
                    if not flushed.ok:
                        return difference(Answer(), flushed), Answer(), flushed
                    continue
                postgres, tidemark = self.both(statement)
                if postgres.ok != tidemark.ok or tidemark.code in ("LOST", "HANG"):
                    return difference(postgres, tidemark), postgres, tidemark
            postgres, tidemark = self.both(statements[-1])
            over_view = any(statement.startswith("CREATE MATERIALIZED VIEW") for statement in statements[:-1])
            if over_view and tidemark.ok and not postgres.ok and not tidemark.rows:
                return "", postgres, tidemark  # the row that fails is left out of the view
            return self.judged(statements[-1], postgres, tidemark, is_ordered(statements[-1])), postgres, tidemark
        finally:
            self.use(before)

    def saturated(self, where, signatures):
        """Seen so often there that another case tells little."""
        return any(self.known.get((where, signature), 0) >= SATURATED for signature in signatures)

    def is_known(self, where, tree, found):
        """Counts one more of a kind that was made small often enough; true also where `families`, which the test run sets, has it."""
        key = self.known.get((where, tree.signature(), found))
        if key and self.findings.kinds[key].count >= ALIKE:
            self.findings.kinds[key].count += 1
            return True
        return (tree.name, found.split(" ")[0]) in self.families

    def add(self, key, found, statements, postgres, tidemark, repeat, signature=None, where=""):
        if signature is not None:
            self.known[where, signature] = self.known.get((where, signature), 0) + 1
            self.known[where, signature, found] = key
        is_new = key not in self.findings.kinds
        self.findings.add(Kind(key, found, list(statements), postgres.text(), tidemark.text(), f"{self.command} {repeat}", 1, time.monotonic() - self.begun))
        if is_new:
            self.log(f"[{found}] {key}\n    {';; '.join(statements)[:600]}\n    PostgreSQL: {postgres.text()[:300]}\n    Tidemark:   {tidemark.text()[:300]}")


def for_postgres(statement):
    if statement.startswith("CREATE MATERIALIZED VIEW"):
        return statement.replace("CREATE MATERIALIZED VIEW", "CREATE VIEW", 1)
    if statement.startswith("DROP MATERIALIZED VIEW"):
        return statement.replace("DROP MATERIALIZED VIEW", "DROP VIEW", 1)
    return statement


def checks_max(found):
    """How often a difference may be tried again while it is made smaller: what takes the server down or hangs is tried seldom."""
    return {"crash": 16, "hang": 5}.get(found, 80)


