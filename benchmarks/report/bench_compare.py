#!/usr/bin/env python3
"""What became slower or faster between two runs of deft_bench_*.

    bench_compare.py OLD.json NEW.json [--least 5] [--level 0.01]

A row has changed if a Mann-Whitney test on its repetitions says so (five of each run are needed to reach the level)
and its median differs by more than `least` percent. Exit status 1 if a row of deft is slower. Rivals, naive loops and
limits did not change between the runs: how far they moved is how far the machine did, and to be read along with the
verdict.
"""
import argparse
import sys
from bisect import bisect_left, bisect_right
from collections import Counter
from itertools import combinations
from math import comb, erfc, sqrt
from statistics import median

from document import Table, text
from report import ratio, time
from results import natural, read

SLOWER, FASTER, UNCHANGED = "slower", "faster", "unchanged"


def ranks(values):
    """From 1; equal values share their mean rank."""
    ordered = sorted(values)
    return [(bisect_left(ordered, value) + bisect_right(ordered, value) + 1) / 2 for value in values]


def p_value(a, b):
    """Of the two-sided Mann-Whitney test that a and b come from one distribution; exact while divisions are few."""
    if not a or not b:
        return 1.0
    rank = ranks([*a, *b])
    expected = len(a) * (len(rank) + 1) / 2
    distance = abs(sum(rank[:len(a)]) - expected)
    divisions = comb(len(rank), len(a))
    if divisions > 20000:
        deviation = sqrt(expected * len(b) / 6)
        return erfc(max(0.0, distance - 0.5) / deviation / sqrt(2))
    return sum(abs(sum(chosen) - expected) >= distance for chosen in combinations(rank, len(a))) / divisions


def verdict(old, new, least, level):
    """Of two lists of seconds; `least` is a fraction."""
    change = median(new) / median(old) - 1
    if abs(change) <= least or p_value(old, new) > level:
        return UNCHANGED
    return SLOWER if change > 0 else FASTER


def compare(old, new, least, level):
    """Lines of the table, and counts of verdicts: of rows of deft that both runs have."""
    lines, counts = [], Counter()
    for name in sorted(old.rows.keys() & new.rows.keys(), key=natural):
        before, after = old.rows[name], new.rows[name]
        if after.role != "own" or not (before.samples and after.samples):
            continue
        state = verdict(before.samples, after.samples, least, level)
        counts[state] += 1
        if state != UNCHANGED:
            lines.append([state, name, time(before), time(after), ratio(before.seconds / after.seconds)])
    return sorted(lines, key=lambda line: line[0], reverse=True), counts


def drift(old, new):
    """Median change of time of the rows that are not deft's, as a fraction."""
    changes = [new.rows[name].seconds / old.rows[name].seconds - 1 for name in old.rows.keys() & new.rows.keys()
               if new.rows[name].role != "own"]
    return median(changes) if changes else 0.0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", metavar="OLD.json")
    parser.add_argument("new", metavar="NEW.json")
    parser.add_argument("--least", type=float, default=5, metavar="PERCENT", help="smaller changes do not count")
    parser.add_argument("--level", type=float, default=0.01, help="of significance")
    arguments = parser.parse_args()
    old, new = read([arguments.old]), read([arguments.new])
    lines, counts = compare(old, new, arguments.least / 100, arguments.level)
    if not counts:
        print("no row of deft has repetitions in both files")
        return 2
    if lines:
        print(text([Table(["", "row", "old", "new", "speed"], lines, "llrrr")]))
    print(", ".join(f"{counts[state]} {state}" for state in (SLOWER, FASTER, UNCHANGED)) +
          f"; rows that are not deft's take {drift(old, new):+.1%} of time (median)")
    return 1 if counts[SLOWER] else 0


if __name__ == "__main__":
    sys.exit(main())
