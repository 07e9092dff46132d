"""Plots as SVG, written by hand: axes, marks, lines and direct labels. Colours are CSS classes of the page around."""
import math
from html import escape

FONT = 11  # pixels; a character is about 0.63 of it wide


def text_width(text, size=FONT):
    return 0.63 * size * len(text)


def si(value, unit=""):
    """1.5 µs, 64k: with the prefix that leaves one to three digits before the point."""
    if value == 0:
        return f"0 {unit}".strip()
    prefixes = {-9: "n", -6: "µ", -3: "m", 0: "", 3: "k", 6: "M", 9: "G", 12: "T"}
    power = min(12, max(-9, 3 * math.floor(math.log10(abs(value) * 1.0000001) / 3)))
    return f"{value / 10.0 ** power:.3g}{' ' * bool(unit)}{prefixes[power]}{unit}"


class Axis:
    """Maps values to pixels from `start` to `end`."""

    def __init__(self, values, start, end, log, label="", form=lambda value: f"{value:g}", include=(), at=()):
        self.low, self.high = min([*values, *include]), max([*values, *include])
        self.start, self.end, self.log, self.label, self.form, self.at = start, end, log, label, form, at
        if log:
            room = max((self.high / self.low) ** 0.04, 1.05)
            self.low, self.high = self.low / room, self.high * room
        else:
            room = (self.high - self.low) * 0.04 or 1
            self.low, self.high = self.low - room, self.high + room

    def __call__(self, value):
        low, high = self.low, self.high
        if self.log:
            value, low, high = math.log(value), math.log(low), math.log(high)
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def ticks(self):
        """Where the data are, if the plot says so; else round numbers."""
        if self.at:
            return self.at
        if self.log:
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            for factors in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9)):
                ticks = [f * 10.0 ** d for d in decades for f in factors if self.low <= f * 10.0 ** d <= self.high]
                if len(ticks) >= 3:
                    break
            step = math.ceil(len(ticks) / 7)
            return ticks[::step]
        rough = (self.high - self.low) / 5
        step = min((f * 10.0 ** math.floor(math.log10(rough)) for f in (1, 2, 5, 10)), key=lambda s: abs(s - rough))
        return [i * step for i in range(math.ceil(self.low / step), int(self.high / step) + 1)]


class Plot:
    def __init__(self, width, height, title):
        self.width, self.height, self.title, self.parts = width, height, title, []

    def add(self, tag, content="", **attributes):
        words = "".join(f' {name.rstrip("_").replace("_", "-")}="{value:.1f}"' if isinstance(value, float) else
                        f' {name.rstrip("_").replace("_", "-")}="{escape(str(value))}"'
                        for name, value in attributes.items())
        self.parts.append(f"<{tag}{words}>{content}</{tag}>" if content else f"<{tag}{words}/>")

    def text(self, x, y, text, anchor="start", kind="", **more):
        self.add("text", escape(text), x=float(x), y=float(y), text_anchor=anchor, class_=kind, **more)

    def line(self, x1, y1, x2, y2, kind):
        self.add("line", x1=float(x1), y1=float(y1), x2=float(x2), y2=float(y2), class_=kind)

    def path(self, points, kind):
        self.add("polyline", points=" ".join(f"{x:.1f},{y:.1f}" for x, y in points), class_=f"path {kind}")

    def mark(self, x, y, kind, hint, shape="dot"):
        title = f"<title>{escape(hint)}</title>"
        if shape == "bar":
            self.add("rect", title, x=x - 1.5, y=y - 7.0, width=3, height=14, class_=kind)
        elif shape == "diamond":
            self.add("rect", title, x=x - 4.0, y=y - 4.0, width=8, height=8, class_=kind,
                     transform=f"rotate(45 {x:.1f} {y:.1f})")
        else:
            self.add("circle", title, cx=float(x), cy=float(y), r=3 if shape == "small" else 4.5, class_=kind)

    def x_axis(self, axis, top, bottom):
        for tick in axis.ticks():
            x = axis(tick)
            self.line(x, top, x, bottom, "grid")
            self.text(x, bottom + 15, axis.form(tick), "middle", "tick")
        self.text((axis.start + axis.end) / 2, bottom + 32, axis.label, "middle")

    def y_axis(self, axis, left, right):
        for tick in axis.ticks():
            y = axis(tick)
            self.line(left, y, right, y, "grid")
            self.text(left - 6, y + 4, axis.form(tick), "end", "tick")
        middle = (axis.start + axis.end) / 2
        self.text(14, middle, axis.label, "middle", transform=f"rotate(-90 14 {middle:.1f})")

    def labels(self, entries, gap=13):
        """Direct labels (x, y, text, kind): each as near to its place as those before it leave room."""
        taken = []
        for x, wanted, text, kind in sorted(entries, key=lambda entry: entry[1]):
            end = x + text_width(text) * 1.12
            offsets = sorted(range(-30, 31), key=abs)
            y = next(y for y in (wanted + gap / 2 * offset for offset in offsets)
                     if all(abs(y - other_y) >= gap or x > other_end or other_x > end
                            for other_x, other_end, other_y in taken))
            taken.append((x, end, y))
            self.text(x, y + 4, text, "start", f"label {kind}")

    def svg(self):
        return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height:.0f}" role="img" '
                f'width="{self.width}" height="{self.height:.0f}"><title>{escape(self.title)}</title>'
                + "".join(self.parts) + "</svg>")
