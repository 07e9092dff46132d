#!/usr/bin/env python3
"""Turns the JSON of deft_bench_* into a report: where deft stands against naive loops, rivals and the hardware.

    report.py FILE.json... [--out DIRECTORY] [--compile-cost FILE.json]

Prints the tables, and writes them to report.md and, with plots, to the single page report.html. Times are medians of
repetitions: CPU time, or wall time of rows with several threads. Needs the standard library alone.
"""
import argparse
import json
import os
import sys
from collections import Counter, defaultdict
from statistics import median

import goals
import plots
from document import Cell, Figures, Fold, Heading, Paragraph, Table, html, markdown, text
from results import natural, read
from svg import si


class Line:
    """One own implementation of one case, and what it is compared with."""

    def __init__(self, row, results):
        def over(other):
            return other.seconds / row.seconds if other else None

        self.row, self.shape = row, f"{row.type} {row.shape}"
        self.naive, self.rival = results.naive(row), results.best_rival(row)
        forward = results.forward(row)
        self.over_naive, self.over_rival = over(self.naive), over(self.rival)
        self.over_forward = row.seconds / forward.seconds if forward else None
        self.of_limit, self.error = row.get("of_limit"), row.get("error")


def lines_of(results):
    """{operator: lines}, by family."""
    own = sorted((row for row in results.rows.values() if row.role == "own"),
                 key=lambda row: (row.family, natural(row.operator), natural(row.type + row.shape), row.implementation))
    operators = defaultdict(list)
    for row in own:
        operators[row.operator].append(Line(row, results))
    return operators


def time(row):
    return si(row.seconds, "s") if row else "-"


def ratio(value):
    return "-" if value is None else f"{value:.{0 if value >= 100 else 1 if value >= 10 else 2}f}x"


def decimal(value):
    return "-" if value is None else f"{value:.2f}"


def error(value):
    return "-" if value is None else f"{value:.1e}"


def head(results):
    facts = [f"{label}: {results.describe(key)}" for key, label in
             (("cpu", "processor"), ("isa", "instruction set"), ("compiler", "compiler"), ("flags", "flags"),
              ("build_type", "build"), ("threads", "threads")) if results.describe(key)]
    if results.libraries():
        facts.append("rivals: " + ", ".join(results.libraries()))
    blocks = [Heading(1, "deft: rivals and limits"), Paragraph("; ".join(facts) + ".")]
    if results.interrupted:
        blocks.append(Paragraph("The run was interrupted: only what it had measured is here."))
    return blocks


def summary(operators, verdicts):
    states = Counter(verdict.state for verdict in verdicts)
    ratios = [line.over_rival for lines in operators.values() for line in lines if line.over_rival]
    words = (f"Goals: {states[goals.MET]} met, {states[goals.NOT_MET]} not met, "
             f"{states[goals.NOT_MEASURED]} not measured. ")
    if ratios:
        words += (f"In {sum(r > 1 for r in ratios)} of {len(ratios)} comparisons deft is faster than the best rival; "
                  f"median {ratio(median(ratios))}.")
    return [Heading(2, "Summary"), Paragraph(words)]


def operator_table(operators):
    """Per operator, implementation and type: medians over the shapes, with the worst and the best."""
    def spread(lines, key, form):
        values = sorted(getattr(line, key) for line in lines if getattr(line, key) is not None)
        return f"{form(median(values))} ({form(values[0])} .. {form(values[-1])})" if values else "-"

    table = []
    for operator, lines in operators.items():
        for name, kind in dict.fromkeys((line.row.implementation, line.row.type) for line in lines):
            group = [line for line in lines if (line.row.implementation, line.row.type) == (name, kind)]
            worst = max((line.error for line in group if line.error is not None), default=None)
            table.append([operator, f"{name} {kind}", str(len(group)), spread(group, "over_naive", ratio),
                          spread(group, "over_rival", ratio), spread(group, "of_limit", decimal), error(worst)])
    return [Heading(2, "Operators"),
            Paragraph("Speed over the naive loop and over the best rival, and fraction of what the hardware allows: "
                      "median over shapes (worst .. best)."),
            Table(["operator", "ours", "shapes", "x naive", "x best rival", "of limit", "worst error"], table,
                  "llrrrrr")]


def goal_table(verdicts):
    names = {"rival": "best rival", "naive": "naive loop", "limit": "limit", "forward": "forward pass"}
    table = []
    for goal, state, worst, middle, best, shapes, worst_shape, at_limit in verdicts:
        kind, _, rival = goal.against.partition(":")
        against = rival.replace(r"\w+", "*").replace(".*", "*") or names.get(kind, "another row")
        table.append([goal.operator, goal.case, f"{goal.demand} of {against}", Cell(state, state.replace(" ", "-")),
                      decimal(worst), decimal(middle), decimal(best), str(shapes or "-"), worst_shape or "-",
                      decimal(at_limit), goal.note])
    return [Heading(2, "Goals"),
            Paragraph("A goal holds if its worst shape does: >= is a ratio of speeds, or the fraction of the limit; <= "
                      "a ratio of times. At the limit: the ratio of the worst shape if it ran as fast as the hardware "
                      "allows (all multiply-adds, or all of the memory's rate, and nothing else); a demand near it or "
                      "above is out of reach here. Not measured: this run has no such row. Frameworks in Python are no "
                      "rivals here."),
            Table(["operator", "case", "demand", "state", "worst", "median", "best", "shapes", "worst shape",
                   "at the limit", "technique or limit"], table, "lwllrrrrwrw")]


def family_table(operators, results):
    table = []
    for operator, lines in operators:
        for line in lines:
            rival = line.rival.implementation if line.rival else ""
            table.append([operator, line.shape, line.row.implementation, time(line.row), time(line.rival),
                          f"{rival} {results.version(rival)}".strip(), ratio(line.over_rival), time(line.naive),
                          ratio(line.over_naive), decimal(line.of_limit), error(line.error), ratio(line.over_forward)])
    return Table(["operator", "shape", "ours", "time", "rival's time", "best rival", "x rival", "naive", "x naive",
                  "of limit", "error", "of forward"], table, "lllrrlrrrrrr")


def families(operators, results):
    blocks = [Heading(2, "Families")]
    for family in dict.fromkeys(lines[0].row.family for lines in operators.values()):
        own = [(operator, lines) for operator, lines in operators.items() if lines[0].row.family == family]
        svgs = [plots.of_operator(operator, lines) for operator, lines in own]
        blocks += [Heading(3, family), Fold(f"All times of {family}", [family_table(own, results)]),
                   Fold(f"Plots of {family}", [Figures("", list(filter(None, svgs)), "To the right is faster.")])]
    return blocks


def compile_cost(path):
    if path is None:
        return []
    with open(path, encoding="utf-8") as file:
        measured = json.load(file)
    table = [[entry["header"], f"{entry['seconds']:.2f}", f"{entry['lines']}"] for entry in measured["headers"]]
    return [Heading(2, "Compile time of headers"), Paragraph(f"{measured['compiler']}, {measured['flags']}."),
            Table(["header", "seconds", "preprocessed lines"], table, "lrr")]


def build(results, compile_cost_path=None):
    """The blocks of the report."""
    operators = lines_of(results)
    verdicts = goals.judge_all(results)
    standing = [
        Figures("Where deft stands", list(filter(None, [plots.overview(operators)])),
                "To the right is better; the vertical lines are equal speed, and all that the measured peaks of this "
                "machine allow. Point at a dot for its row."),
        Figures("Roofline", list(filter(None, [plots.roofline(operators, results)])),
                "Operators that are bound by exp, or by operations alone, have no place here: see their fraction of "
                "the limit above. A dot above a roof of memory worked in a faster cache.")]
    scaling = [Figures(curve.title, plots.curves(curve, results), "Lower is faster.") for curve in plots.CURVES]
    errors = [Paragraph(f"ERROR {message}") for message in results.errors]
    return [*head(results), *errors, *summary(operators, verdicts), *standing, *goal_table(verdicts),
            *operator_table(operators), *scaling, *families(operators, results), *compile_cost(compile_cost_path)]


def write(results, directory, compile_cost_path=None):
    """Prints the report and writes its files; returns whether all rows agree with naive."""
    blocks = build(results, compile_cost_path)
    os.makedirs(directory, exist_ok=True)
    forms = {"report.md": markdown(blocks) + "\n", "report.html": html("deft: rivals and limits", blocks)}
    for name, content in forms.items():
        with open(os.path.join(directory, name), "w", encoding="utf-8") as file:
            file.write(content)
    print(text(blocks))
    print(f"\nThe same with plots: {os.path.abspath(os.path.join(directory, 'report.html'))}")
    return not results.errors


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", metavar="FILE.json")
    parser.add_argument("--out", default="benchmark_report", metavar="DIRECTORY", help="where the report goes")
    parser.add_argument("--compile-cost", metavar="FILE.json", help="what compile_cost.py measured")
    arguments = parser.parse_args()
    return 0 if write(read(arguments.files), arguments.out, arguments.compile_cost) else 1


if __name__ == "__main__":
    sys.exit(main())
