"""`--perf`: a profile of the machine while the server is measured, by Linux perf with DWARF stacks, in the cache folder: QUERY.data, and QUERY.txt with four tables.

    machine    share of the samples by process; the other tables are about the server alone
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
    words = ["perf", "record", "-q", "--call-graph", "dwarf,16384", "-F", str(HERTZ), "-o", data, "-a"]
    process = subprocess.Popen(words, stdout=sys.stderr, stderr=sys.stderr)
    try:
        yield
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)
    text = summary(samples(data), server.process.pid)
    (folder / f"{name}.txt").write_text(text)
    sys.stderr.write(f"profile of {name}, also in {folder / name}.txt\n{text}")


def samples(data):
    """(process id, thread's name, functions from the innermost to the outermost) of each sample."""
    text = subprocess.run(["perf", "script", "--no-inline", "-F", "comm,pid,tid,ip,sym", "-i", data], capture_output=True, text=True, errors="replace").stdout
    for block in text.split("\n\n"):
        head, *frames = block.strip("\n").splitlines() or [""]
        if match := re.match(r"\s*(.*?)\s+(\d+)/\d+", head):
            yield int(match[2]), match[1], [clean(frame.split(None, 1)[1]) for frame in frames if len(frame.split(None, 1)) == 2]


def clean(function):
    """A function's name, without hash."""
    return re.sub(r"::h[0-9a-f]{16}$", "", function)


def owner(functions):
    return next((f for f in functions if "tidemark" in f), "")


def summary(stacks, pid):
    """The four tables."""
    machine, threads, own, inside = (collections.Counter() for _ in range(4))
    names = {0: "idle", pid: "the server"}
    for process, thread, functions in stacks:
        machine[names.get(process) or thread] += 1
        if process != pid or not functions:
            continue
        threads[re.sub(r"-\d+$", "", thread)] += 1
        closest = owner(functions)
        own[functions[0] if functions[0] == closest or not closest else f"{functions[0]}  <  {closest}"] += 1
        inside.update({f for f in functions if "tidemark" in f})

    def table(title, counter, total):
        rows = [(count, name) for name, count in counter.most_common(ROWS_MAX) if count * 100 >= total * 0.7]
        return f"{title}\n" + "".join(f"  {100 * count / total:5.1f} %  {name}\n" for count, name in rows)

    total = max(1, sum(threads.values()))
    text = table("machine", machine, max(1, sum(machine.values())))
    return f"{total} samples at {HERTZ} Hz\n{text}" + "".join(table(title, counter, total) for title, counter in [("threads", threads), ("self", own), ("with", inside)])
