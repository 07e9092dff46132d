#!/usr/bin/env python3
"""Fills the ratio columns of README's operator table from the JSON of a run of the benchmarks.

    readme.py README.md FILE.json...

The ratios are those of the row `deft` of each shape, or of the fastest of deft's rows if none has that name; float,
forward, one thread. A line of the table holds the operators whose headers it links to; an operator that has no line of
its own, such as `retention_decode`, belongs to the longest name that it begins with. Rows `prepared` belong to the
header `prepared_<operator>`, too.
"""
import os
import re
import sys
from statistics import median

from results import read

LINK = re.compile(r"\(include/deft/\w+/(\w+)\.hpp\)")
OPERATOR = re.compile(r"DEFT_OPERATOR\(\w+, (\w+), (\w+)\)")
LIBRARIES = {"eigen": "Eigen", "autovec": "auto-vectorised", "openblas": "OpenBLAS", "onednn": "oneDNN", "ggml": "ggml",
             "pocketfft": "pocketfft", "fftw": "FFTW", "xnnpack": "XNNPACK", "torch": "PyTorch"}


def names_of_files(path):
    """{operator: the header it is in}, from the list of operators."""
    with open(path, encoding="utf-8") as file:
        return {operator: header for header, operator in OPERATOR.findall(file.read())}


def header_of(operator, headers, files):
    if operator in headers:
        return operator
    if files.get(operator) in headers:
        return files[operator]
    return max((name for name in headers if operator.startswith(name + "_")), key=len, default=None)


def text(value):
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}" if value >= 2 else f"{value:.2f}"


def spread(values):
    """The least and the greatest; with the median if there are enough to have a middle."""
    if not values:
        return ""
    low, high = text(min(values)), text(max(values))
    if low == high:
        return low
    return f"{low} .. {high}" + (f", median {text(median(values))}" if len(values) > 4 else "")


def library(implementation):
    return next((name for key, name in LIBRARIES.items() if implementation.startswith(key)), implementation)


def ratios(results, headers, files):
    """{header: (times the naive loop, times the best rival, names of rivals)}."""
    found = {name: ([], [], {}) for name in headers}

    def add(row, header):
        over_naive, over_rival, rivals = found[header]
        naive, rival = results.naive(row), results.best_rival(row)
        if naive:
            over_naive.append(naive.seconds / row.seconds)
        if rival:
            over_rival.append(rival.seconds / row.seconds)
            rivals[library(rival.implementation)] = None

    for case in results.cases.values():
        own = [row for row in case.values() if row.role == "own" and not row.implementation.endswith("threads")]
        row = case.get("deft") or min(own, key=lambda row: row.seconds, default=None)
        if row is None or row.type != "f32" or row.operator.endswith("_backward"):
            continue
        header = header_of(row.operator, headers, files)
        if header is not None:
            add(row, header)
        if "prepared" in case and f"prepared_{row.operator}" in found:
            add(case["prepared"], f"prepared_{row.operator}")
    return found


def fill(readme, results, files):
    """The text of README with new ratios; what was not measured stays as it is."""
    headers = [name for line in readme.splitlines() if line.startswith("| [") for name in LINK.findall(line)]
    found = ratios(results, headers, files)
    lines = []
    for line in readme.splitlines():
        cells = line.split(" | ")
        if line.startswith("| [") and len(cells) >= 4:
            parts = [found[name] for name in LINK.findall(line)]
            naive, rival = ([value for part in parts for value in part[i]] for i in (0, 1))
            names = ", ".join(dict.fromkeys(name for part in parts for name in part[2]))
            first, old_naive, old_rival = re.match(r"(\| .*? \| .*? \| .*? \|)(.*)\|(.*)\|$", line).groups()
            new_naive = f" {spread(naive)} " if naive else old_naive
            new_rival = f" {spread(rival)} ({names}) " if rival else old_rival
            line = f"{first}{new_naive}|{new_rival}|"
        lines.append(line)
    return "\n".join(lines) + "\n"


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    path = sys.argv[1]
    root = os.path.dirname(os.path.abspath(path))
    with open(path, encoding="utf-8") as file:
        readme = file.read()
    filled = fill(readme, read(sys.argv[2:]), names_of_files(os.path.join(root, "tests", "operators.inc")))
    with open(path, "w", encoding="utf-8") as file:
        file.write(filled)


if __name__ == "__main__":
    main()
