"""Tests of what the report computes: python3 -m unittest discover -s benchmarks/report -p '*_test.py'"""
import os
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import bench_compare
import goals
import instructions
import plots
import readme
import report
from document import html, markdown, text
from goals import Goal
from results import Results, natural
from svg import Axis, si


def entry(name, times, **counters):
    return [{"run_name": name, "repetitions": len(times), "cpu_time": time, "real_time": time / 2, "time_unit": "us",
             **counters} for time in times]


def results_of(*entries, **context):
    return Results([{"context": {"family": "test", **context}, "benchmarks": sum(entries, [])}])


SERIES = results_of(
    entry("op/naive/f32/n1", [100]), entry("op/deft/f32/n1", [10, 12, 11], of_limit=0.8, items_per_second=1e6),
    entry("op/eigen/f32/n1", [33]), entry("op/autovec/f32/n1", [22]),
    entry("op/deft/f32/n2", [20], of_limit=0.5, items_per_second=4e6), entry("op/eigen/f32/n2", [20]),
    entry("op/prepared/f32/n2", [5]), entry("op_backward/deft/f32/n1", [22]), entry("op/deft_2threads/f32/n2", [20]),
    libraries="Eigen 3.4.0, oneDNN 2.6.3, XNNPACK")


def judged(rows, against, demand):
    return goals.judge(Goal("op", "", rows, against, demand, ""), SERIES)


class ResultsTest(unittest.TestCase):
    def test_repetitions_give_medians(self):
        row = SERIES.rows["op/deft/f32/n1"]
        self.assertAlmostEqual(row.seconds, 11e-6)
        self.assertEqual(len(row.samples), 3)
        self.assertFalse(SERIES.interrupted)

    def test_aggregates_of_older_files(self):
        old = entry("op/deft/f32/n1", [7, 8])
        old[0]["aggregate_name"], old[1]["aggregate_name"] = "median", "mean"
        row = results_of(old).rows["op/deft/f32/n1"]
        self.assertAlmostEqual(row.seconds, 7e-6)
        self.assertEqual(row.samples, [])

    def test_errors_and_interrupts(self):
        wrong = [{"run_name": "op/deft/f32/n1", "error_occurred": True, "error_message": "differs"}]
        late = [{"run_name": "op/deft/f32/n2", "error_occurred": True, "error_message": "interrupted"}]
        broken = results_of(wrong, late)
        self.assertEqual(broken.errors, ["op/deft/f32/n1: differs"])
        self.assertTrue(broken.interrupted)
        self.assertTrue(results_of(entry("op/deft/f32/n1", [1, 2, 3])[:2]).interrupted)

    def test_two_repetitions_of_what_takes_seconds_are_enough(self):
        seconds = entry("op/naive/f32/n1", [2e6, 3e6, 2e6])
        self.assertFalse(results_of(seconds[:2]).interrupted)
        self.assertTrue(results_of(seconds[:1]).interrupted)

    def test_roles(self):
        roles = {name: row.role for name, row in SERIES.rows.items()}
        self.assertEqual(roles["op/naive/f32/n1"], "naive")
        self.assertEqual(roles["op/prepared/f32/n2"], "own")
        self.assertEqual(roles["op/deft_2threads/f32/n2"], "own")
        self.assertEqual(roles["op/eigen/f32/n1"], "rival")

    def test_versions(self):
        self.assertEqual(SERIES.version("eigen_passes"), "3.4.0")
        self.assertEqual(SERIES.version("onednn_own"), "2.6.3")
        self.assertEqual(SERIES.version("xnnpack_packed"), "")
        self.assertEqual(SERIES.version("autovec"), "")

    def test_natural(self):
        self.assertEqual(sorted(["n10", "n2"], key=natural), ["n2", "n10"])


class GoalsTest(unittest.TestCase):
    def test_demand(self):
        self.assertEqual(goals.parse_demand(">= 1.3"), (True, 1.3, False))
        self.assertEqual(goals.parse_demand("<= 1.15 per item"), (False, 1.15, True))
        with self.assertRaises(ValueError):
            goals.parse_demand("about 2")

    def test_rival_is_judged_by_the_worst_shape(self):
        verdict = judged(r"op/deft/f32/.*", "rival", ">= 1.5")
        self.assertEqual(verdict.state, goals.NOT_MET)
        self.assertAlmostEqual(verdict.worst, 1)
        self.assertAlmostEqual(verdict.median, 1.5)
        self.assertAlmostEqual(verdict.best, 2)
        self.assertEqual((verdict.shapes, verdict.worst_shape), (2, "n2"))
        self.assertAlmostEqual(verdict.at_limit, 1 / 0.5)

    def test_named_rival(self):
        self.assertAlmostEqual(judged(r"op/deft/f32/n1", "rival:eig.*", ">= 3").worst, 3)

    def test_cost_of_gradient(self):
        self.assertEqual(judged(r"op_backward/deft/f32/.*", "forward", "<= 2").state, goals.MET)
        self.assertEqual(judged(r"op_backward/deft/f32/.*", "forward", "<= 1.9").state, goals.NOT_MET)

    def test_naive_and_limit(self):
        self.assertEqual(judged(r"op/deft/f32/.*", "naive", ">= 9").shapes, 1)
        verdict = judged(r"op/deft/f32/.*", "limit", ">= 0.4")
        self.assertAlmostEqual(verdict.worst, 0.5)
        self.assertIsNone(verdict.at_limit)

    def test_other_row(self):
        self.assertAlmostEqual(judged(r"op/deft/f32/n2", "op/deft/f32/n1", "<= 2").worst, 20 / 11)
        self.assertAlmostEqual(judged(r"op/deft/f32/n2", "op/deft/f32/n1", "<= 1 per item").worst, 0.25)
        threads = judged(r"op/deft_2threads/(.*)", r"op/deft/\1", ">= 1.7")  # by the clock on the wall
        self.assertAlmostEqual(threads.worst, 2)

    def test_not_measured(self):
        self.assertEqual(judged(r"other/.*", "rival", ">= 1").state, goals.NOT_MEASURED)
        self.assertEqual(judged(r"op/deft/f32/.*", "rival:fftw", ">= 1").state, goals.NOT_MEASURED)

    def test_table(self):
        table = goals.load()
        self.assertGreaterEqual(len(table), 40)
        self.assertTrue(all(v.state == goals.NOT_MEASURED for v in goals.judge_all(results_of(), table)))


class CompareTest(unittest.TestCase):
    def test_p_value(self):
        self.assertAlmostEqual(bench_compare.p_value([1, 2, 3, 4, 5], [6, 7, 8, 9, 10]), 2 / 252)
        self.assertEqual(bench_compare.p_value([1, 1, 1], [1, 1, 1]), 1)
        self.assertLess(bench_compare.p_value(range(20), range(20, 40)), 1e-6)
        self.assertGreater(bench_compare.p_value(range(0, 40, 2), range(1, 41, 2)), 0.5)

    def test_ranks(self):
        self.assertEqual(bench_compare.ranks([3, 1, 3]), [2.5, 1, 2.5])

    def test_verdict(self):
        old = [100, 101, 102, 103, 104]
        self.assertEqual(bench_compare.verdict(old, [t * 1.2 for t in old], 0.05, 0.01), bench_compare.SLOWER)
        self.assertEqual(bench_compare.verdict(old, [t * 0.8 for t in old], 0.05, 0.01), bench_compare.FASTER)
        self.assertEqual(bench_compare.verdict(old, [t * 1.049 for t in old], 0.05, 0.01), bench_compare.UNCHANGED)
        noisy = [90, 95, 115, 120, 125]  # a greater median, which may be chance
        self.assertEqual(bench_compare.verdict(old, noisy, 0.05, 0.01), bench_compare.UNCHANGED)

    def test_only_own_rows_count(self):
        times = [10, 11, 12, 13, 14]
        old = results_of(entry("op/deft/f32/n1", times), entry("op/eigen/f32/n1", times))
        new = results_of(entry("op/deft/f32/n1", times), entry("op/eigen/f32/n1", [t * 2 for t in times]))
        lines, counts = bench_compare.compare(old, new, 0.05, 0.01)
        self.assertEqual((lines, dict(counts)), ([], {bench_compare.UNCHANGED: 1}))
        self.assertAlmostEqual(bench_compare.drift(old, new), 1)


class ReportTest(unittest.TestCase):
    def test_forms(self):
        blocks = report.build(SERIES)
        page = html("deft", blocks)
        self.assertIn("<svg", page)
        self.assertNotIn("<script", page)
        self.assertNotIn("src=", page)
        self.assertIn("| op | f32 n1 |", markdown(blocks))
        self.assertIn("eigen 3.4.0", text(blocks))

    def test_empty_run(self):
        self.assertIn("not measured", text(report.build(results_of())))

    def test_curves_need_two_abscissas(self):
        rows = [entry(f"sparse_matmul/{name}/f32/8x8x8_s{zeros}", [zeros]) for name in ("deft", "eigen_dense")
                for zeros in (90, 98)]
        sparse = next(curve for curve in plots.CURVES if "sparse" in curve.title)
        self.assertEqual(len(plots.curves(sparse, results_of(*rows))), 1)
        self.assertEqual(len(plots.curves(sparse, results_of(rows[0]))), 0)

    def test_axis_and_units(self):
        axis = Axis([1, 100], 0, 100, True)
        self.assertAlmostEqual(axis(10), 50)
        self.assertIn(10, axis.ticks())
        self.assertEqual([si(1.5e-6, "s"), si(1000), si(0, "s")], ["1.5 µs", "1k", "0 s"])


class Instructions(unittest.TestCase):
    def test_more_and_gone_are_bad_less_is_not(self):
        record = {"same": 100, "less": 100, "more": 100, "gone": 100}
        lines, well = instructions.compare({"same": 101, "less": 50, "more": 103, "gone": None}, record)
        self.assertFalse(well)
        self.assertEqual([line[3] for line in lines], ["+1.0%", "-50.0%", "+3.0% MORE", "gone"])
        self.assertTrue(instructions.compare({"same": 101}, {"same": 100})[1])


class Readme(unittest.TestCase):
    TABLE = "| [`op`](include/deft/a/op.hpp) | what it does | paper | old | old |\n| [`other`](include/deft/a/other.hpp) | x | y | 1 | 2 |\n"

    def test_ratios_go_to_the_line_of_the_operator(self):
        filled = readme.fill(self.TABLE, SERIES, {}).splitlines()
        self.assertTrue(filled[0].startswith("| [`op`](include/deft/a/op.hpp) | what it does | paper | 9.1 | "), filled[0])
        self.assertEqual(filled[1], self.TABLE.splitlines()[1])

    def test_operators_without_a_line_belong_to_the_longest_name(self):
        self.assertEqual(readme.header_of("retention_decode", ["retention", "ret"], {}), "retention")
        self.assertEqual(readme.header_of("adam_step", ["blocks"], {"adam_step": "blocks"}), "blocks")
        self.assertIsNone(readme.header_of("gemm", ["retention"], {}))


if __name__ == "__main__":
    unittest.main()
