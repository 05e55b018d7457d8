#!/usr/bin/env python3
"""Sets two result files side by side: `compare.py A.jsonl B.jsonl`. Columns: events a second and peak memory of each, and B over A.

Lines are matched by query, sink, source, events and workers, without those of them that a file does not have. Of several lines for the same, the fastest counts.
"""

import json
import sys

MATCH = ("query", "sink", "source", "events", "workers")


def read(path):
    """The best line of each measurement."""
    best = {}
    for line in open(path):
        if line.strip() and "events_per_second" in (row := json.loads(line)):
            key = tuple(row.get(name) for name in MATCH)
            if key not in best or row["events_per_second"] > best[key]["events_per_second"]:
                best[key] = row
    return best


def find(rows, key):
    """The row whose key agrees wherever both say something."""
    return next((row for other, row in rows.items() if all(a is None or b is None or a == b for a, b in zip(key, other))), None)


def number_of(query):
    return (int(query[1:]) if query[1:].isdigit() else 999, query)


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    try:
        a, b = read(sys.argv[1]), read(sys.argv[2])
    except OSError as error:
        sys.exit(f"compare.py: {error.filename}: {error.strerror}")
    print(f"A = {sys.argv[1]}\nB = {sys.argv[2]}\n")
    print(f"{'query':<12}{'source':<11}{'sink':<14}{'A events/s':>12}{'B events/s':>12}{'B/A':>7}{'A MB':>8}{'B MB':>8}{'B/A':>7}")
    for key, row in sorted(a.items(), key=lambda item: (number_of(item[0][0]), str(item[0]))):
        other = find(b, key)
        if other is None:
            continue
        speed, memory = other["events_per_second"] / row["events_per_second"], other["peak_rss_mb"] / max(1, row["peak_rss_mb"])
        print(f"{row['query']:<12}{row.get('source') or '':<11}{row.get('sink') or '':<14}{row['events_per_second']:>12,}{other['events_per_second']:>12,}{speed:>7.2f}"
              f"{row['peak_rss_mb']:>8,}{other['peak_rss_mb']:>8,}{memory:>7.2f}")


if __name__ == "__main__":
    try:
        main()
    except BrokenPipeError:  # the reader has seen enough
        sys.stderr.close()
