"""`--perf`: a profile of the server while it is measured, by Linux perf, as files in the cache folder: QUERY.data, and QUERY.txt with the top functions."""

import contextlib
import re
import signal
import subprocess
import sys

from .server import CACHE


@contextlib.contextmanager
def recording(server, wanted, name):
    """Records what runs inside of the `with`, if wanted."""
    if not wanted:
        yield
        return
    folder = CACHE / "perf"
    folder.mkdir(parents=True, exist_ok=True)
    data = folder / f"{name}.data"
    words = ["perf", "record", "-q", "-g", "-F", "997", "-o", data, "-p", str(server.process.pid)]
    process = subprocess.Popen(words, stdout=sys.stderr, stderr=sys.stderr)
    try:
        yield
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)
    words = ["perf", "report", "-i", data, "--no-children", "-g", "none", "--percent-limit", "0.7", "--stdio", "--sort", "sym"]
    text = subprocess.run(words, capture_output=True, text=True).stdout
    lines = [re.sub(r"\s+", " ", line).strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    (folder / f"{name}.txt").write_text("\n".join(lines) + "\n")
    sys.stderr.write(f"profile of {name} ({folder / name}.txt):\n  " + "\n  ".join(lines[:25]) + "\n")
