"""The speed goals of goals.csv, and whether a run meets them.

A line of the table: `rows`, a regular expression over names of rows; what they are compared `against`:

    rival           the best of the case that is neither naive nor deft's own; `rival:<regular expression>` names it
    naive           the naive loop of the case
    limit           what the hardware allows
    forward         the row of the same shape of the operator whose gradient it is
    <row>           any other row, with \\1 for the first group of `rows`

and the `demand`: `>= 1.3` is a ratio of speeds, `<= 2.2` of times; `per item` divides times by the items of the row.
A goal holds if it holds for every shape that was measured.
"""
import csv
import os
import re
from collections import namedtuple
from statistics import median

Goal = namedtuple("Goal", "operator case rows against demand note")
Verdict = namedtuple("Verdict", "goal state worst median best shapes worst_shape at_limit")
Demand = namedtuple("Demand", "at_least bound per_item")

MET, NOT_MET, NOT_MEASURED = "met", "not met", "not measured"


def load(path=os.path.join(os.path.dirname(__file__), "goals.csv")):
    with open(path, encoding="utf-8", newline="") as file:
        return [Goal(**line) for line in csv.DictReader(file)]


def parse_demand(text):
    match = re.fullmatch(r"(>=|<=) ([\d.]+)( per item)?", text)
    if not match:
        raise ValueError(f"not a demand: {text}")
    return Demand(match[1] == ">=", float(match[2]), match[3] is not None)


def opponent(goal, row, results):
    kind, _, names = goal.against.partition(":")
    if kind == "rival":
        return results.best_rival(row, names or ".*")
    if kind == "naive":
        return results.naive(row)
    if kind == "forward":
        return results.forward(row)
    return results.rows.get(re.fullmatch(goal.rows, row.name).expand(goal.against))


def value(goal, demand, row, results):
    """What the demand is about, None if something is missing for it."""
    if goal.against == "limit":
        return row.get("of_limit")
    other = opponent(goal, row, results)
    if other is None:
        return None
    times = [1 / r.get("items_per_second") if demand.per_item else r.seconds for r in (row, other)]
    return times[1] / times[0] if demand.at_least else times[0] / times[1]


def value_at_limit(goal, demand, row, measured):
    """What a row as fast as the hardware allows would give; None where that is not about speed, or unknown."""
    of_limit = row.get("of_limit")
    if not demand.at_least or goal.against == "limit" or not of_limit:
        return None
    return measured / of_limit


def judge(goal, results):
    demand = parse_demand(goal.demand)
    values = []
    for name, row in results.rows.items():
        if re.fullmatch(goal.rows, name):
            measured = value(goal, demand, row, results)
            if measured is not None:
                values.append((measured, row))
    if not values:
        return Verdict(goal, NOT_MEASURED, None, None, None, 0, "", None)
    values.sort(key=lambda pair: pair[0], reverse=not demand.at_least)
    worst, row = values[0]
    worst_shape = row.shape if row.type == "f32" else f"{row.type} {row.shape}"
    holds = worst >= demand.bound if demand.at_least else worst <= demand.bound
    middle = median(v for v, _ in values)
    return Verdict(goal, MET if holds else NOT_MET, worst, middle, values[-1][0], len(values), worst_shape,
                   value_at_limit(goal, demand, row, worst))


def judge_all(results, goals=None):
    return [judge(goal, results) for goal in (load() if goals is None else goals)]
