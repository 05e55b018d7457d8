"""`--perf`: a profile of the server while it is measured, by Linux perf with DWARF stacks, in the cache folder: QUERY.data, and QUERY.txt with three tables.

    threads    share of the samples by thread
    self       share of the samples by innermost function and the closest function of Tidemark around it
    with       share of the samples that have a function of Tidemark anywhere in their stack: itself with all it calls
"""

import collections
import contextlib
import re
import signal
import subprocess
import sys

from .server import CACHE

HERTZ = 397
ROWS_MAX = 40


@contextlib.contextmanager
def recording(server, wanted, name):
    """Records what runs inside of the `with`, if wanted."""
    if not wanted:
        yield
        return
    folder = CACHE / "perf"
    folder.mkdir(parents=True, exist_ok=True)
    data = folder / f"{name}.data"
    words = ["perf", "record", "-q", "--call-graph", "dwarf,16384", "-F", str(HERTZ), "-o", data, "-p", str(server.process.pid)]
    process = subprocess.Popen(words, stdout=sys.stderr, stderr=sys.stderr)
    try:
        yield
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)
    text = summary(samples(data))
    (folder / f"{name}.txt").write_text(text)
    sys.stderr.write(f"profile of {name}, also in {folder / name}.txt\n{text}")


def samples(data):
    """(thread, functions from the innermost to the outermost) of each sample."""
    text = subprocess.run(["perf", "script", "--no-inline", "-i", data], capture_output=True, text=True).stdout
    for block in text.split("\n\n"):
        head, *frames = block.splitlines() or [""]
        functions = [match[1] for frame in frames if (match := re.match(r"\s+[0-9a-f]+ (.*)\+0x[0-9a-f]+ \(", frame))]
        if functions:
            yield re.sub(r"-\d+$", "", head.strip().split("  ")[0].rsplit(" ", 1)[0]), [clean(f) for f in functions]


def clean(function):
    """A function's name, without hash."""
    return re.sub(r"::h[0-9a-f]{16}$", "", function)


def owner(functions):
    return next((f for f in functions if "tidemark" in f), "")


def summary(stacks):
    """The three tables."""
    threads, own, inside = collections.Counter(), collections.Counter(), collections.Counter()
    total = 0
    for thread, functions in stacks:
        total += 1
        threads[thread] += 1
        closest = owner(functions)
        own[functions[0] if functions[0] == closest or not closest else f"{functions[0]}  <  {closest}"] += 1
        inside.update({f for f in functions if "tidemark" in f})

    def table(title, counter):
        rows = [(count, name) for name, count in counter.most_common(ROWS_MAX) if count * 100 >= total * 0.7]
        return f"{title}\n" + "".join(f"  {100 * count / total:5.1f} %  {name}\n" for count, name in rows)

    return f"{total} samples at {HERTZ} Hz\n" + table("threads", threads) + table("self", own) + table("with", inside)
