"""The plots of the report: what to draw. How to draw it is in svg.py."""
import re
from collections import defaultdict, namedtuple
from statistics import median

from results import natural
from svg import Axis, Plot, si, text_width

Panel = namedtuple("Panel", "label form include points")  # points: (line, value, kind of mark, its shape, hint)


def times(value):
    return f"{value:g}x"


def fraction(value):
    return f"{value:g}"


def strips(title, lines, panels, key=()):
    """Panels side by side with the same lines: a mark for each value."""
    panels = [panel for panel in panels if panel.points]
    if not panels:
        return ""
    step, top, gap = 18, 44, 26
    left = max(text_width(line) for line in lines) + 12
    width = (1080 - left) / len(panels) - gap
    bottom = top + step * len(lines)
    plot = Plot(1080, bottom + 40, title)
    plot.text(0, 12, title, kind="head")
    at = left
    for shape, kind, label in key:
        plot.mark(at + 6, 26, kind, label, shape)
        plot.text(at + 15, 30, label, kind=kind)
        at += text_width(label) + 40
    for i, line in enumerate(lines):
        plot.text(left - 10, top + step * (i + 0.5) + 4, line, "end")
        plot.line(left, top + step * (i + 0.5), 1080 - gap, top + step * (i + 0.5), "grid")
    for i, panel in enumerate(panels):
        start = left + i * (width + gap)
        axis = Axis([point[1] for point in panel.points], start, start + width, True, panel.label, panel.form,
                    panel.include)
        plot.x_axis(axis, top, bottom)
        plot.line(axis(1), top, axis(1), bottom, "one")
        for line, value, kind, shape, hint in panel.points:
            plot.mark(axis(value), top + step * (line + 0.5), kind, hint, shape)
    return plot.svg()


def overview(operators):
    """`operators`: {name: lines}, one line per shape and own implementation; a dot each, and their median."""
    names = [f"{operator} ({lines[0].row.family})" for operator, lines in operators.items()]
    panels = []
    for key, label in (("over_naive", "speed over the naive loop"), ("over_rival", "speed over the best rival"),
                       ("of_limit", "fraction of the limit")):
        points = []
        for i, lines in enumerate(operators.values()):
            values = [(getattr(line, key), line) for line in lines if getattr(line, key)]
            points += [(i, value, "own faint", "small", f"{line.row.name}: {value:.2f}") for value, line in values]
            if values:
                middle = median(value for value, _ in values)
                points.append((i, middle, "own", "bar", f"median {middle:.2f}"))
        is_limit = key == "of_limit"
        panels.append(Panel(label, fraction if is_limit else times, (0.1, 1) if is_limit else (0.7, 10), points))
    key = (("small", "own", "one shape"), ("bar", "own", "median"))
    return strips("Every operator: a dot per shape", names, panels, key)


def of_operator(operator, lines):
    """Speed over naive and fraction of the limit, of deft and of the best rival, a line per shape."""
    shapes = list(dict.fromkeys(line.shape for line in lines))
    speeds, limits = [], []
    for line in lines:
        i, name = shapes.index(line.shape), line.row.implementation
        kind, shape = ("own", "dot") if name == "deft" else ("other", "diamond")
        if line.over_naive:
            speeds.append((i, line.over_naive, kind, shape, f"{name}: {times(round(line.over_naive, 2))}"))
        if line.of_limit:
            limits.append((i, line.of_limit, kind, shape, f"{name}: {line.of_limit:.2f}"))
        if line.rival and line.naive:
            speeds.append((i, line.naive.seconds / line.rival.seconds, "rival", "bar", line.rival.implementation))
        if line.rival and line.rival.get("of_limit"):
            limits.append((i, line.rival.get("of_limit"), "rival", "bar", line.rival.implementation))
    others = sorted({line.row.implementation for line in lines} - {"deft"})
    key = [("dot", "own", "deft")] * (len(others) < len({line.row.implementation for line in lines}))
    key += [("diamond", "other", "deft, " + ", ".join(others))] * bool(others)
    key += [("bar", "rival", "best rival")] * any(line.rival for line in lines)
    return strips(operator, shapes, [Panel("speed over the naive loop", times, (0.7, 10), speeds),
                                     Panel("fraction of the limit", fraction, (0.1, 1), limits)], key)


def roofline(operators, results):
    """Operators that name both their operations and their bytes."""
    limits = [row for row in results.rows.values() if row.operator == "limit" and row.type == "f32"]
    peak = max((row.get("flops_per_second") or 0 for row in limits), default=0)
    memory = [row for row in limits if row.get("bytes_per_second")]
    points = defaultdict(list)
    for operator, lines in operators.items():
        for line in lines:
            flops, moved = line.row.get("flops_per_second"), line.row.get("bytes_per_second")
            if flops and moved and line.row.type == "f32":
                points[operator].append((flops / moved, flops, line))
    if not (points and peak and memory):
        return ""

    def size(row):
        return float(row.shape[:-3]) * {"KiB": 1, "MiB": 1024}[row.shape[-3:]]

    cache, far = max(memory, key=lambda row: row.get("bytes_per_second")), max(memory, key=size)
    plot = Plot(1080, 520, "Roofline")
    everything = [point for group in points.values() for point in group]
    x = Axis([p[0] for p in everything], 90, 880, True, "operations per byte that must be moved (FLOP / byte)",
             include=(0.1, 100))
    y = Axis([p[1] for p in everything], 470, 20, True, "performance", lambda v: si(v, "FLOP/s"), include=(peak,))
    plot.x_axis(x, 20, 470)
    plot.y_axis(y, 90, 880)
    plot.path([(x(x.low), y(peak)), (x(x.high), y(peak))], "naive")
    plot.text(886, y(peak) + 4, f"multiply-adds {si(peak, 'FLOP/s')}", kind="naive")
    for row in (cache, far):
        rate = row.get("bytes_per_second")
        low, ridge = max(x.low, y.low / rate), min(x.high, peak / rate)
        plot.path([(x(low), y(low * rate)), (x(ridge), y(ridge * rate))], "naive")
        plot.text(x(low) + 36, y(low * rate) - 8, f"{row.implementation} {row.shape}: {si(rate, 'B/s')}", kind="naive")
    families = sorted({lines[0].row.family for lines in operators.values()})
    at = 90
    for i, family in enumerate(families):
        plot.text(at, 12, family, kind=f"label f{i % 6}")
        at += text_width(family) * 1.12 + 20
    labels = []
    for operator, group in points.items():
        kind = f"f{families.index(group[0][2].row.family) % 6}"
        for intensity, flops, line in group:
            plot.mark(x(intensity), y(flops), f"{kind} faint", f"{line.row.name}: {si(flops, 'FLOP/s')}", "small")
        intensity, flops, _ = sorted(group, key=lambda p: p[1])[len(group) // 2]
        plot.mark(x(intensity), y(flops), kind, f"{operator}: median")
        labels.append((x(intensity) + 8, y(flops), operator, kind))
    plot.labels(labels)
    return plot.svg()


# Rows as curves: the groups `x` and `line` of a name are the abscissa and the curve, all others tell the plot.
Curve = namedtuple("Curve", "title names x_label log_x per_item")
CURVES = [
    Curve("Number of terms", r"series_activation/(?P<line>\w+)/f32/(?P<base>relu|gelu_erf|silu)_n(?P<x>\d+)"
                             r"_outer_scalar_1x262144", "terms", False, False),
    Curve("Crossover: linear against softmax attention",
          r"(?P<line>(?:linear|softmax)_attention)/deft/f32/(?P<size>H16_D64)_(?:E64|Q(?P<q>\d+))"
          r"_L(?P<x>(?(q)(?P=q)|\d+))", "tokens", True, False),
    Curve("Time per token against length", r"(?P<op>linear_attention|retention)/(?P<line>\w+)/f32/"
                                           r"(?P<size>H\d+_D\d+_E\d+)_[LT](?P<x>\d+)", "tokens", True, True),
    Curve("Cosine transforms: time per element", r"(?P<op>dct)/(?P<line>\w+)/f32/\d{2,4}x(?P<x>\d+)_(?P<kind>kind\d)",
          "length of a transform", True, True),
    Curve("Linear layers", r"(?P<op>gemm)/(?P<line>\w+)/f32/T1_(?P<layout>\w+_\w+)_(?P<x>\d+)x(?P<d>\d+)", "rows", True,
          False),
    Curve("Crossover: sparse against dense",
          r"(?P<op>sparse_matmul)/(?P<line>\w+)/f32/(?P<size>\d+x\d+x\d+)_s(?P<x>\d+)", "zeros (%)", False, False),
    Curve("Bits of a weight", r"(?P<op>quantized_matmul)/(?P<line>\w+)/f32/W(?P<x>\d+)(?P<rest>A\d+_T1_\w+)", "bits",
          False, False),
    Curve("Tokens per product with quantised weights",
          r"(?P<op>quantized_matmul)/(?P<line>\w+)/f32/(?P<kind>W\d+A\d+)_T(?P<x>\d+)_(?P<rest>\w+)", "tokens", True,
          True),
    Curve("Threads", r"(?P<op>\w+)/(?P<line>deft)(?:_(?P<x>\d+)threads)?/f32/(?P<shape>.*)", "threads", False, False),
]
KINDS = {"own": ("own", "other", "f4", "f5"), "naive": ("naive",), "rival": ("rival", "rival2", "f4", "f5")}


def curve_panel(name, lines, curve):
    """`lines`: {name: [(x, seconds, row)]}"""
    right = 372 - max(text_width(line) for line in lines) * 1.1
    plot = Plot(380, 270, f"{curve.title}: {name}")
    plot.text(0, 12, name, kind="head")
    points = [point for line in lines.values() for point in line]
    places = sorted({p[0] for p in points})
    x = Axis(places, 72, right - 12, curve.log_x, curve.x_label, at=places if len(places) < 7 else ())
    y = Axis([p[1] for p in points], 225, 26, True, "time per item" if curve.per_item else "time", lambda v: si(v, "s"))
    plot.x_axis(x, 26, 225)
    plot.y_axis(y, 72, right - 12)
    labels, used = [], defaultdict(int)
    for line, line_points in lines.items():
        role = line_points[0][2].role
        kind = KINDS[role][min(used[role], len(KINDS[role]) - 1)]
        used[role] += 1
        line_points.sort(key=lambda p: p[0])
        plot.path([(x(p[0]), y(p[1])) for p in line_points], kind)
        for p in line_points:
            plot.mark(x(p[0]), y(p[1]), kind, f"{p[2].name}: {si(p[1], 's')}", "small")
        labels.append((x(line_points[-1][0]) + 7, y(line_points[-1][1]), line, kind))
    plot.labels(labels)
    return plot.svg()


def curves(curve, results):
    """Plots of one kind, those with two or more abscissas."""
    panels = defaultdict(lambda: defaultdict(list))
    for row in sorted(results.rows.values(), key=lambda row: (row.implementation != "deft", natural(row.name))):
        match = re.fullmatch(curve.names, row.name)
        if match:
            name = " ".join(v for k, v in match.groupdict().items() if k not in ("x", "line", "q") and v)
            seconds = 1 / row.get("items_per_second") if curve.per_item else row.seconds
            panels[name][match["line"]].append((float(match["x"] or 1), seconds, row))
    return [curve_panel(name, panels[name], curve) for name in sorted(panels, key=natural)
            if len({p[0] for line in panels[name].values() for p in line}) > 1]
