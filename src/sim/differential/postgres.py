"""A PostgreSQL 15 of the judge's own: data folder, port and settings that nobody else has; gone when the judge ends.

Texts compare by code point (collation C), letters are Unicode's (`upper('ä')` is `Ä`), the time zone is UTC: as in Tidemark. PostgreSQL
refuses to run as root, so root lends it to the user `postgres`.
"""

import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path

from .session import Session
from harness import take_ports

FOLDERS = ("/usr/lib/postgresql/15/bin", "/usr/pgsql-15/bin", "/opt/homebrew/opt/postgresql@15/bin")


def programs():
    """The folder with initdb and pg_ctl of PostgreSQL 15."""
    for folder in FOLDERS:
        if Path(folder, "initdb").exists():
            return Path(folder)
    raise RuntimeError("PostgreSQL 15 is not installed (Debian's package is postgresql-15): docker/deps.sh test installs it")


# Nothing is synced: it lives for one run.
_SCRATCH = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "max_connections": 20, "shared_buffers": "32MB", "autovacuum": "off", "jit": "off"}


class Postgres:
    def __init__(self, settings=None):
        """`settings` in place of those of a server whose rows nobody needs."""
        self.settings = _SCRATCH if settings is None else settings
        self.folder = Path(tempfile.mkdtemp(prefix="tidemark-postgres-"))
        self.data = self.folder / "data"
        self.port = take_ports(1)

    def _run(self, program, *words):
        owner = {}
        if os.getuid() == 0:
            owner = {"user": "postgres", "group": pwd.getpwnam("postgres").pw_gid, "extra_groups": []}
        done = subprocess.run([programs() / program, "-D", self.data, *words], cwd=self.folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                              stderr=subprocess.PIPE, text=True, **owner)
        if done.returncode != 0:
            raise RuntimeError(f"{program}: {done.stderr[-2000:]}")

    def start(self):
        if os.getuid() == 0:
            shutil.chown(self.folder, "postgres")
        self._run("initdb", "--locale=C", "--lc-ctype=C.UTF-8", "--encoding=UTF8", "--auth=trust", "--username=root", "--no-sync")
        settings = {"port": self.port, "listen_addresses": "127.0.0.1", "unix_socket_directories": "", "timezone": "UTC", "lc_messages": "C", **self.settings}
        with open(self.data / "postgresql.conf", "a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in settings.items())
        self._run("pg_ctl", "start", "-w", "-l", str(self.folder / "log"))
        return self

    def connect(self, **options):
        return Session("127.0.0.1", self.port, "postgres", **options)

    def stop(self):
        try:
            self._run("pg_ctl", "stop", "-w", "-m", "immediate")
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)
