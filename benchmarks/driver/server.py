"""One Tidemark process of a measurement's own: fresh data folder, free ports, default settings; and what it costs."""

import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import psycopg

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "src" / "sim" / "e2e"))
from harness import CACHE, Tidemark  # noqa: E402

__all__ = ["CACHE", "ROOT", "Server"]

TICKS = os.sysconf("SC_CLK_TCK")


class Server(Tidemark):
    """Use as a context manager: the process is killed and its folder removed at the end."""

    def __init__(self, workers, **settings):
        super().__init__(tempfile.mkdtemp(prefix="tidemark-bench-"))
        self.workers, self.settings = workers, settings

    def __enter__(self):
        return self.start(workers=self.workers, **self.settings)

    def __exit__(self, kind, error, trace):
        if kind is not None and issubclass(kind, Exception) and not issubclass(kind, psycopg.Error):
            sys.stderr.write(f"the end of the server's log:\n{self.log_tail()}\n")
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _status(self, field):
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith(field):
                return int(line.split()[1])
        return 0

    def peak_rss_mb(self):
        """The largest resident memory so far."""
        return self._status("VmHWM:") // 1024

    def rss_mb(self):
        """The resident memory now."""
        return self._status("VmRSS:") // 1024

    def cpu_seconds(self):
        """Processor time of all threads so far: what is left of a figure when others use the machine too."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def checkpoint_bytes(self):
        """What the newest checkpoints take on disk."""
        files = (self.data / "checkpoints").rglob("*")
        return sum(f.stat().st_size for f in files if f.is_file())

    def jobs(self):
        """SHOW JOBS by name without schema: {"bid": {"State": .., "Rows": .., ...}}. A job that stopped ends the measurement."""
        cursor = self.connection().execute("SHOW JOBS")
        names = [column.name for column in cursor.description]
        jobs = [dict(zip(names, row)) for row in cursor]
        for job in jobs:
            if job["State"] == "stopped":
                raise RuntimeError(f"{job['Name']} is {job['State']}: {job['Error']}")
        return {job["Name"].split(".")[-1]: job for job in jobs}

    def connection(self):
        """This object's own connection."""
        self.query("SHOW timezone") if self._connection is None else None
        return self._connection

    def wait(self, check, timeout=1800.0, every=0.005):
        """Calls `check` until it returns something true, while the process lives; `every` seconds."""
        end = time.monotonic() + timeout
        while not check():
            if not self.running:
                raise RuntimeError(f"the server ended with {self.process.returncode}")
            if time.monotonic() > end:
                raise TimeoutError(f"not done in {timeout} s; SHOW JOBS says {self.jobs()}")
            time.sleep(every)
