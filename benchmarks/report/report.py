#!/usr/bin/env python3
"""Turns the JSON of deft_bench_* into a table and plots.

    report.py FILE.json... [--out DIRECTORY]

Rows of the same operator, type and shape are compared: naive, the best rival, and deft's own implementations. Times are
medians of repetitions (CPU time of one thread). Needs the standard library; the plots need matplotlib besides.
"""
import argparse
import json
import os
import re
import sys
from collections import defaultdict
from statistics import median

OURS = ("deft", "prepared")
NAIVE = "naive"


def read(paths):
    """Returns the context, {(operator, type, shape): {implementation: result}}, and the error messages."""
    context, cases, errors = {}, defaultdict(dict), []
    for path in paths:
        with open(path, encoding="utf-8") as file:
            document = json.load(file)
        context = document["context"]
        for result in document["benchmarks"]:
            name = result["run_name"]
            if result.get("error_occurred"):
                errors.append(f"{name}: {result.get('error_message', 'failed')}")
                continue
            if result.get("aggregate_name", "median") != "median":
                continue
            operator, implementation, kind, shape = name.split("/", 3)
            scale = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0}[result["time_unit"]]
            cases[operator, kind, shape][implementation] = {
                "seconds": result["cpu_time"] * scale,
                "of_limit": result.get("of_limit"),
                "error": result.get("error"),
            }
    return context, cases, sorted(set(errors))


def natural(case):
    """Sorts n2 before n10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", "/".join(case))]


def compare(cases, is_rival):
    """One line per case and own implementation, grouped by operator."""
    operators = defaultdict(list)
    for case in sorted(cases, key=natural):
        operator, kind, shape = case
        rows = cases[case]
        rivals = {name: row for name, row in rows.items() if name not in OURS and name != NAIVE and is_rival(name)}
        rival = min(rivals, key=lambda name: rivals[name]["seconds"], default=None)
        forward = cases.get((operator.removesuffix("_backward"), kind, shape), {})
        for name in OURS:
            if operator == "limit" or name not in rows:
                continue
            seconds = rows[name]["seconds"]
            naive = rows.get(NAIVE, {}).get("seconds")
            best = rivals[rival]["seconds"] if rival else None
            is_backward = operator.endswith("_backward") and name in forward
            operators[operator].append({
                "kind": kind,
                "shape": f"{kind} {shape}",
                "implementation": name,
                "seconds": seconds,
                "naive": naive,
                "rival": best,
                "rival_name": rival or "",
                "over_naive": naive / seconds if naive else None,
                "over_rival": best / seconds if best else None,
                "rival_over_naive": naive / best if naive and best else None,
                "over_forward": seconds / forward[name]["seconds"] if is_backward else None,
                "of_limit": rows[name]["of_limit"],
                "rival_of_limit": rivals[rival]["of_limit"] if rival else None,
                "error": rows[name]["error"],
            })
    return operators


def time_text(seconds):
    if seconds is None:
        return "-"
    for unit, scale in (("s", 1), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def number(value, form):
    return "-" if value is None else format(value, form)


def ratio(value):
    return "-" if value is None else f"{value:.{0 if value >= 100 else 1 if value >= 10 else 2}f}x"


def print_table(header, lines):
    widths = [max(len(line[i]) for line in [header, *lines]) for i in range(len(header))]
    for line in [header, ["-" * width for width in widths], *lines]:
        cells = [cell.ljust(width) if i == 0 else cell.rjust(width) for i, (cell, width) in enumerate(zip(line, widths))]
        print("  ".join(cells).rstrip())


def print_operator(operator, lines):
    print(f"\n{operator}")
    with_forward = any(line["over_forward"] for line in lines)
    header = ["shape", "ours", "naive", "best rival", "", "time", "x naive", "x rival", "of limit", "error"]
    table = []
    for line in lines:
        cells = [line["shape"], line["implementation"], time_text(line["naive"]), time_text(line["rival"]),
                 line["rival_name"], time_text(line["seconds"]), ratio(line["over_naive"]), ratio(line["over_rival"]),
                 number(line["of_limit"], ".2f"), number(line["error"], ".1e")]
        if with_forward:
            cells.append(ratio(line["over_forward"]))
        table.append(cells)
    print_table(header + ["of forward"] * with_forward, table)


def print_summary(operators):
    """Per operator, implementation and type: medians over the shapes, with the worst and the best."""
    def spread(lines, key, text):
        values = sorted(line[key] for line in lines if line[key] is not None)
        return f"{text(median(values))} ({text(values[0])} .. {text(values[-1])})" if values else "-"

    table = []
    for operator, lines in operators.items():
        for name, kind in dict.fromkeys((line["implementation"], line["kind"]) for line in lines):
            own = [line for line in lines if (line["implementation"], line["kind"]) == (name, kind)]
            errors = [line["error"] for line in own if line["error"] is not None]
            table.append([f"{operator} {name} {kind}", str(len(own)), spread(own, "over_naive", ratio),
                          spread(own, "over_rival", ratio), spread(own, "of_limit", "{:.2f}".format),
                          f"{max(errors):.1e}" if errors else "-"])
    print("\nMedian over shapes (worst .. best)")
    print_table(["operator", "shapes", "x naive", "x best rival", "of limit", "worst error"], table)


STYLES = {  # colours that differ for colour-blind readers too
    "deft": {"color": "#0072B2", "marker": "o", "label": "deft"},
    "prepared": {"color": "#009E73", "marker": "D", "label": "deft, prepared"},
    "rival": {"color": "#D55E00", "marker": "|", "label": "best rival"},
}


def plot_operator(pyplot, operator, lines, context, directory):
    """Left: speed-up over naive. Right: fraction of the limit. One line of marks per shape."""
    shapes = list(dict.fromkeys(line["shape"] for line in lines))
    figure, (speed, limit) = pyplot.subplots(1, 2, sharey=True, figsize=(11, 1.7 + 0.24 * len(shapes)),
                                             gridspec_kw={"width_ratios": [3, 2]}, layout="constrained")

    def marks(axes, style, points):
        points = [(value, shapes.index(shape)) for shape, value in points if value is not None]
        if points:
            size = {"rival": 110}.get(style, 34)
            axes.scatter(*zip(*points), s=size, zorder=3, linewidths=2 if style == "rival" else 0.5, **STYLES[style])

    for style in OURS:
        own = [line for line in lines if line["implementation"] == style]
        marks(speed, style, [(line["shape"], line["over_naive"]) for line in own])
        marks(limit, style, [(line["shape"], line["of_limit"]) for line in own])
    marks(speed, "rival", [(line["shape"], line["rival_over_naive"]) for line in lines])
    marks(limit, "rival", [(line["shape"], line["rival_of_limit"]) for line in lines])

    speed.set_yticks(range(len(shapes)), shapes, fontsize=8)
    speed.set_ylim(len(shapes) - 0.5, -0.5)
    speed.set_xscale("log")
    left, right = speed.get_xlim()
    speed.set_xlim(min(left, 0.7), max(right, 15))  # at least a decade, so that the axis has labels
    speed.xaxis.set_major_formatter(lambda value, _: f"{value:g}x")
    speed.axvline(1, color="0.4", linewidth=1)
    speed.set_xlabel("speed-up over naive")
    limit.axvline(1, color="0.4", linewidth=1)
    limit.set_xlim(left=0, right=max(1.1, limit.get_xlim()[1]))
    limit.set_xlabel("fraction of the limit (1 = roofline)")
    for axes in (speed, limit):
        axes.grid(True, color="0.9", zorder=0)
        axes.spines[["top", "right"]].set_visible(False)
    handles, labels = speed.get_legend_handles_labels()
    by_label = dict(zip(labels, handles))
    if by_label:
        figure.legend(by_label.values(), by_label.keys(), loc="upper right", ncol=3, frameon=False, fontsize=9)
    figure.suptitle(f"{operator}\n{context.get('cpu', '')}, {context.get('isa', '')}, {context.get('compiler', '')}, "
                    f"{context.get('threads', '1')} thread", x=0.01, ha="left", fontsize=10)
    for extension in ("svg", "png"):
        figure.savefig(os.path.join(directory, f"{operator}.{extension}"), dpi=130)
    pyplot.close(figure)


def plot(operators, context, directory):
    try:
        import matplotlib
        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError:
        print("\nNo plots: matplotlib is missing (apt install python3-matplotlib, or pip install matplotlib).")
        return
    os.makedirs(directory, exist_ok=True)
    for operator, lines in operators.items():
        plot_operator(pyplot, operator, lines, context, directory)
    print(f"\nPlots (SVG and PNG, one per operator): {os.path.abspath(directory)}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", metavar="FILE.json")
    parser.add_argument("--out", default="benchmark_report", metavar="DIRECTORY", help="where the plots go")
    parser.add_argument("--rivals", default=".*", metavar="PATTERN", help="compare only with rivals of such names")
    arguments = parser.parse_args()

    context, cases, errors = read(arguments.files)
    operators = compare(cases, re.compile(arguments.rivals).fullmatch)
    print(", ".join(f"{key} {context[key]}" for key in ("cpu", "isa", "compiler", "build_type", "threads")
                    if key in context))
    for operator, lines in operators.items():
        print_operator(operator, lines)
    print_summary(operators)
    for error in errors:
        print(f"ERROR {error}")
    plot(operators, context, arguments.out)
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
