#!/usr/bin/env python3
"""Runs the benchmarks of all families and writes the report.

    rivals.py [--quick | --full] PROGRAMS_DIRECTORY [--out DIRECTORY] [--compile-cost FILE.json]

--quick measures one shape of each operator. The default takes about three minutes. --full measures all shapes, which
most of the goals need. Ctrl-C ends the family that runs; the report then shows what was measured.
"""
import argparse
import glob
import os
import re
import subprocess
import sys
from time import monotonic

import report
from results import read

PROGRESS = re.compile(r"timing (\d+)/(\d+)")


class Progress:
    """One line over all families: rows take about equally long, so that their number tells the time left."""

    def __init__(self, total):
        self.total, self.start, self.before = total, monotonic(), 0

    def show(self, family, fraction, rows):
        done = self.before + fraction * rows
        elapsed = monotonic() - self.start
        left = f", {(self.total - done) * elapsed / done / 60:.1f} min left" if fraction > 0 else ""
        start, end = ("\r\033[K", "") if sys.stderr.isatty() else ("", "\n")
        print(f"{start}{family}: {done / self.total:.0%} of all{left}", end=end, file=sys.stderr, flush=True)


def run(program, family, mode, result, rows, progress):
    """Returns whether it was left to run to its end, and leaves no result of an earlier run."""
    interrupted = False
    if os.path.exists(result):
        os.remove(result)
    process = subprocess.Popen([program, *mode, f"--benchmark_out={result}"], stderr=subprocess.PIPE, text=True)
    while True:
        try:
            for line in process.stderr:
                match = PROGRESS.match(line)
                if match:
                    progress.show(family, int(match[1]) / int(match[2]), rows)
                elif line.startswith(("ERROR", "WARNING", "comparing")):
                    print(f"{family}: {line.rstrip()}", file=sys.stderr, flush=True)
            if process.wait() not in (0, 1):  # it did not end by itself: what it wrote is not whole
                print(f"ERROR {program} ended with status {process.returncode}", file=sys.stderr)
                if os.path.exists(result):
                    os.remove(result)
            progress.before += rows
            return not interrupted
        except KeyboardInterrupt:  # the program has it too, and writes its file before it ends
            interrupted = True


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("programs", metavar="PROGRAMS_DIRECTORY", help="where deft_bench_<family> are")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--quick", dest="mode", action="store_const", const=["--quick"], default=[])
    mode.add_argument("--full", dest="mode", action="store_const", const=["--full"])
    parser.add_argument("--out", default="benchmark_report", metavar="DIRECTORY", help="of results and report")
    parser.add_argument("--compile-cost", metavar="FILE.json", help="what compile_cost.py measured")
    arguments = parser.parse_args()

    if arguments.compile_cost and not os.path.exists(arguments.compile_cost):
        parser.error(f"no file {arguments.compile_cost}")  # now, not after the measurements
    programs = [path for path in sorted(glob.glob(os.path.join(arguments.programs, "deft_bench_*")))
                if os.access(path, os.X_OK) and os.path.isfile(path)]
    if not programs:
        parser.error(f"no deft_bench_* in {arguments.programs}")
    os.makedirs(arguments.out, exist_ok=True)
    rows = {}
    for program in programs:
        listed = subprocess.run([program, *arguments.mode, "--benchmark_list_tests", f"--benchmark_out={os.devnull}"],
                                check=True, text=True, capture_output=True).stdout
        rows[program] = len(listed.splitlines())
    progress = Progress(sum(rows.values()))
    results, complete = [], True
    for program in programs:
        family = os.path.basename(program)[len("deft_bench_"):]
        result = os.path.join(arguments.out, f"{family}.json")
        complete = run(program, family, arguments.mode, result, rows[program], progress)
        if os.path.exists(result):
            results.append(result)
        if not complete:
            break
    if not results:
        return 1
    agree = report.write(read(results), arguments.out, arguments.compile_cost)
    return 0 if agree and complete and len(results) == len(programs) else 1


if __name__ == "__main__":
    sys.exit(main())
