"""The judge by hand: python -m differential [--seconds n] [--seed s] [--only expressions|queries] [--server host:port] [--report file]

Prints each new kind of difference when it is found, and the whole report at the end; exits with 1 where there is a kind that open.txt does not list. The list itself:

    --prune                                         takes out what does not differ any more
    --seed test --batches 16 --seconds 0 --open      adds what the test run finds; only for a list that begins
"""

import argparse
import random
import signal
import sys
import time
from pathlib import Path

from . import kinds
from .judge_expressions import ExpressionJudge
from .judge_queries import QueryJudge
from .judging import World


def parse():
    parser = argparse.ArgumentParser(prog="differential", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600, help="how long; 0 until interrupted")
    parser.add_argument("--seed", default=None, help="a word or number; a random one if not given")
    parser.add_argument("--only", choices=("expressions", "queries"))
    parser.add_argument("--batch", type=int, help="only this batch: what a line `repeat:` of the report says")
    parser.add_argument("--batches", type=int, help="so many, and no more")
    parser.add_argument("--server", help="host:port of a Tidemark that runs already; restarts are left out then")
    parser.add_argument("--report", type=Path, help="where the report goes, besides to the screen")
    parser.add_argument("--script", type=Path, help="compare the answers to this script (statements end in `;` at the end of a line), and nothing else")
    parser.add_argument("--open", action="store_true", help="add the kinds that are found to open.txt")
    parser.add_argument("--prune", action="store_true", help="take out of open.txt what does not differ any more, and nothing else")
    return parser.parse_args()


def judges(world, arguments, seed):
    """One after the other for ever, each a batch."""
    made = []
    if arguments.only != "queries":
        made.append(ExpressionJudge(world, seed))
    if arguments.only != "expressions":
        made.append(QueryJudge(world, seed))
    batch = 0
    while True:
        for judge in made:
            yield judge, batch
        batch += 1


def run(world, arguments, seed, seconds):
    begun = time.monotonic()
    world.stopped = lambda: bool(seconds) and time.monotonic() - begun > seconds
    try:
        for judge, batch in judges(world, arguments, seed):
            if world.stopped() or batch > 0 and arguments.batch is not None or arguments.batches and batch >= arguments.batches:
                break
            judge.batch(batch if arguments.batch is None else arguments.batch)
            if arguments.report and batch % 5 == 0:
                arguments.report.write_text(world.findings.report(time.monotonic() - begun, f"{world.command} --seed {seed}"))
    except KeyboardInterrupt:
        pass
    return time.monotonic() - begun


def _interrupt():
    raise KeyboardInterrupt


def script(world, path):
    statements = [statement.strip().rstrip(";") for statement in path.read_text().split(";\n") if statement.strip()]
    found, postgres, tidemark = world.run(statements)
    print(f"{found or 'the same'}\nPostgreSQL: {postgres.text(100)}\nTidemark:   {tidemark.text(100)}")
    return 1 if found else 0


def prune(world):
    listed = kinds.read_open()
    left = {key: statements for key, statements in listed.items() if kinds.NOT_ALONE in key or world.run(statements)[0]}
    kinds.write_open(left)
    print(f"{len(listed) - len(left)} of {len(listed)} are mended")
    return 0


def main():
    arguments = parse()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: _interrupt())
    seed = arguments.seed or str(random.randrange(10**6))
    print(f"seed {seed}", flush=True)
    world = World(arguments.server, "python -m differential", lambda line: print(line, flush=True))
    try:
        if arguments.prune:
            return prune(world)
        if arguments.script:
            return script(world, arguments.script)
        seconds = run(world, arguments, seed, arguments.seconds)
        report = world.findings.report(seconds, f"python -m differential --seed {seed}")
        if arguments.report:
            arguments.report.write_text(report)
        print(report)
        if arguments.open:
            kinds.write_open({**{kind.key: kind.statements for kind in world.findings.sorted()}, **kinds.read_open()})
        return 1 if world.findings.new() else 0
    finally:
        world.stop()


if __name__ == "__main__":
    sys.exit(main())
