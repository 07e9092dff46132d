"""What deft_bench_* measured, read from its JSON.

Rows are named `<operator>/<implementation>/<type>/<shape>`; those with the same operator, type and shape are a case.
"""
import json
import re
from collections import defaultdict
from statistics import median

NAIVE = "naive"
OWN = re.compile(r"(deft|prepared|direct|fft|prepared_fft|streaming|spans|exact|randomized|merged)(_\d+threads)?")
COUNTERS = ("error", "of_limit", "items_per_second", "flops_per_second", "bytes_per_second")
SECONDS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0}


class Row:
    """One implementation of one case: seconds of each repetition, and medians of everything."""

    def __init__(self, name, family):
        self.name, self.family = name, family
        self.operator, self.implementation, self.type, self.shape = name.split("/", 3)
        self.samples, self.counters, self.seconds, self.repetitions = [], defaultdict(list), None, 0

    def add(self, result):
        # CPU time: what another program takes of the processor is not slowness. Of several threads it would be the sum.
        clock = "real_time" if self.implementation.endswith("threads") else "cpu_time"
        seconds = result[clock] * SECONDS[result["time_unit"]]
        if result.get("aggregate_name") == "median":
            self.seconds = seconds
            self.medians = {key: result[key] for key in COUNTERS if key in result}
        elif "aggregate_name" not in result and seconds > 0:
            self.repetitions = result.get("repetitions", 1)
            self.samples.append(seconds)
            for key in COUNTERS:
                if key in result:
                    self.counters[key].append(result[key])

    def finish(self):
        """Repetitions come before the medians of older files, which hold nothing else. False: nothing was measured."""
        if self.samples:
            self.seconds = median(self.samples)
            self.medians = {key: median(values) for key, values in self.counters.items()}
        return self.seconds is not None

    def get(self, counter):
        return self.medians.get(counter)

    @property
    def case(self):
        return self.operator, self.type, self.shape

    @property
    def role(self):
        if self.operator == "limit":
            return "limit"
        if self.implementation == NAIVE:
            return "naive"
        if self.implementation.endswith("_conv"):
            return "part"  # the convolution without what deft's row does besides: a bound, no rival
        own = OWN.fullmatch(self.implementation) or (self.operator, self.implementation) == ("dct", "dense")
        return "own" if own else "rival"


class Results:
    def __init__(self, documents):
        self.contexts = [document["context"] for document in documents]
        self.interrupted = False
        rows, errors = {}, set()
        for document in documents:
            for result in document["benchmarks"]:
                name = result["run_name"]
                message = result.get("error_message", result.get("skip_message"))
                if message == "interrupted":
                    self.interrupted = True
                elif message is not None:
                    errors.add(f"{name}: {message}")
                else:
                    family = document["context"].get("family", "other")
                    rows.setdefault(name, Row(name, family)).add(result)
        self.rows = {name: row for name, row in rows.items() if row.finish()}
        # Two repetitions are enough of rows that take seconds.
        self.interrupted |= any(0 < len(row.samples) < (2 if row.seconds > 0.3 else row.repetitions)
                                for row in self.rows.values())
        self.errors = sorted(errors)
        self.cases = defaultdict(dict)
        for row in self.rows.values():
            self.cases[row.case][row.implementation] = row

    def describe(self, key):
        """A fact of the head; several if the files differ."""
        return " | ".join(dict.fromkeys(context[key] for context in self.contexts if context.get(key)))

    def libraries(self):
        """The rivals that any of the programs was linked with: ["OpenBLAS 0.3.21", "XNNPACK"]."""
        return list(dict.fromkeys(library for context in self.contexts
                                  for library in context.get("libraries", "").split(", ") if library))

    def version(self, implementation):
        """Of the library behind a rival, if it has one."""
        for name, *version in map(str.split, self.libraries()):
            if implementation.startswith(name.lower()):
                return " ".join(version)
        return ""

    def best_rival(self, row, names=".*"):
        rivals = [other for other in self.cases[row.case].values()
                  if other.role == "rival" and re.fullmatch(names, other.implementation)]
        return min(rivals, key=lambda other: other.seconds, default=None)

    def naive(self, row):
        return self.cases[row.case].get(NAIVE)

    def forward(self, row):
        """The row whose gradient this one is."""
        if not row.operator.endswith("_backward"):
            return None
        case = row.operator[:-len("_backward")], row.type, row.shape
        return self.cases.get(case, {}).get(row.implementation)


def natural(text):
    """Sorts n2 before n10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", text)]


def read(paths):
    documents = []
    for path in paths:
        with open(path, encoding="utf-8") as file:
            documents.append(json.load(file))
    return Results(documents)
