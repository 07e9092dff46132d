#!/usr/bin/env python3
"""Counts the instructions of a few benchmark rows by callgrind and compares them with those on record: a check without
noise for machines that do other things.

    instructions.py PROGRAMS_DIRECTORY [--renew]

The record, instructions.csv, holds for one compiler and its flags; with others nothing is compared. After a change that
is meant to cost or save instructions, --renew writes the new counts; its difference belongs into the same commit.
Needs valgrind. Exit status 1: a row has more than 2 % more instructions than on record, or is gone.
"""
import argparse
import csv
import os
import re
import subprocess
import sys

RECORD = os.path.join(os.path.dirname(os.path.abspath(__file__)), "instructions.csv")
TOLERANCE = 0.02
COLLECTED = re.compile(r"Collected : (\d+)")


def build_of(program, row):
    """Compiler and flags, as the program tells them."""
    told = subprocess.run([program, "--full", "--once", f"--benchmark_filter=^{row}$"], capture_output=True,
                          text=True).stderr
    facts = dict(re.findall(r"^(compiler|flags|isa) +(.*)$", told, re.MULTILINE))
    return f"{facts['compiler']}, {facts['flags']}, {facts['isa']}"


def count(program, row):
    """Instructions of one run; None if there is no such row."""
    done = subprocess.run(["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", "--collect-atstart=no",
                           "--toggle-collect=deft_counted_run", program, "--full", "--once",
                           f"--benchmark_filter=^{row}$"], capture_output=True, text=True)
    found = COLLECTED.search(done.stderr)
    return int(found[1]) if done.returncode == 0 and found and int(found[1]) > 0 else None


def compare(counts, record):
    """[(row, counted, on record, verdict)] and whether all is well."""
    lines, well = [], True
    for row, old in record.items():
        new = counts[row]
        change = None if new is None else new / old - 1
        bad = change is None or change > TOLERANCE
        verdict = "gone" if change is None else f"{change:+.1%}" + (" MORE" if bad else "")
        lines.append((row, new, old, verdict))
        well &= not bad
    return lines, well


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("programs", metavar="PROGRAMS_DIRECTORY", help="where deft_bench_<family> are")
    parser.add_argument("--renew", action="store_true", help="put what is counted on record")
    arguments = parser.parse_args()

    with open(RECORD, encoding="utf-8", newline="") as file:
        head = file.readline()
        lines = list(csv.DictReader(file))
    build = build_of(os.path.join(arguments.programs, "deft_bench_" + lines[0]["family"]), lines[0]["row"])
    if not arguments.renew and head != f"# {build}\n":
        print(f"Instructions are on record for another build, nothing to compare:\n  {head.lstrip('# ').strip()}"
              f"\nThis one: {build}")
        return 0
    counts = {}
    for line in lines:
        counts[line["row"]] = count(os.path.join(arguments.programs, "deft_bench_" + line["family"]), line["row"])
        print(f"{counts[line['row']] or 'gone':>12}  {line['row']}", flush=True)
    if arguments.renew:
        with open(RECORD, "w", encoding="utf-8", newline="") as file:
            file.write(f"# {build}\n")
            writer = csv.DictWriter(file, ["family", "row", "instructions"], lineterminator="\n")
            writer.writeheader()
            writer.writerows({**line, "instructions": counts[line["row"]]} for line in lines)
        return 0
    verdicts, well = compare(counts, {line["row"]: int(line["instructions"]) for line in lines})
    for row, new, old, verdict in verdicts:
        print(f"{verdict:>12}  {row}: {new} instructions, on record {old}")
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
