"""Tests of compare.py, run by `cargo test -p xtask`."""

import ast
import unittest

import compare


def rows(*rounds):
    return list(compare.rows("peer", rounds))


class Rows(unittest.TestCase):
    def test_ratio_is_ours_over_theirs_of_each_round(self):
        rounds = [({"batched": ours, "share": 0.1}, {"null": {"batched": 1e6}}) for ours in (8e6, 12e6, 9e6)]
        (row,) = rows(*rounds)
        self.assertEqual((row["ratio"], row["spread"]), (9, [8, 12]))
        self.assertEqual((row["measured"], row["floor"]), ("9000.00 k/s", "1000.00 k/s"))

    def test_defeat_is_marked_whichever_way_is_better(self):
        theirs = {"null": {"start": 0.5, "batched": 1e3}, "share": {"share": 0.1, "pss": 1e8, "sharing": "fork"}}
        found = rows(({"start": 0.1, "batched": 1e2, "share": 0.2, "pss": 1e7}, theirs))
        self.assertEqual(["(loses)" in row["measured"] for row in found], [False, True, True, False])
        self.assertEqual(found[2]["peer"], "peer (fork)")

    def test_failure_is_shown_in_its_rows_without_a_ratio(self):
        theirs = {"null": {"start": 0.5, "failed": "not done after 60 s"}, "killed": {"failed": "x"}}
        ours = {"start": 0.1, "batched": 1e6, "killed": "999 outputs", "killed_seconds": 0.001}
        found = rows((ours, theirs))
        self.assertFalse(any("ratio" in row for row in found))
        self.assertEqual([row["floor"] for row in found], ["fails: not done after 60 s"] * 2 + ["fails: x"])
        self.assertEqual(found[2]["measured"], "999 outputs (1 ms)")

    def test_languages_are_compared_apart_from_the_pools(self):
        theirs = {"top": {"top": 1500.0, "bare": 1000.0, "checksum": "7"}}
        rounds = [({"top": 3600.0, "bare": 2000.0, "checksum": "8"}, theirs)]
        rate, efficiency, checksum = rows(*rounds)
        self.assertEqual((rate["ratio"], checksum["met"]), (2.4, False))
        self.assertAlmostEqual(efficiency["ratio"], 0.9 / 0.75)
        self.assertEqual(list(compare.pairs(rounds, "top", "bare")), [(2000, 1000)])

    def test_lost_records_and_remains_are_shown(self):
        self.assertEqual(compare.arrived({"delivered": 150, "emitted": 200}), "150 of 200, 25.0 % lost")
        found = {"killed": "500 outputs", "killed_seconds": 2, "left_processes": 2, "left_bytes": 0}
        self.assertEqual(compare.killed(found), "500 outputs (2000 ms)")
        self.assertEqual(compare.killed(found | {"closed": True}), "500 outputs (2000 ms), leaves 2 process(es)")
        sides = {"delivered": 9, "emitted": 9, "arrived": 3, "logged": 1}
        self.assertEqual([row["row"] for row in rows((sides, {"logs": sides}))][-1], "log flood, records that arrive at all")


    def test_the_own_package_is_compared_with_the_others(self):
        own = {"null": {"batched": 6e6}, "killed": {"killed": "999 outputs", "killed_seconds": 1}}
        rounds = {"joblib": [({}, {"null": {"batched": 3e6}, "killed": {"failed": "x"}})], "invokerpool": [({}, own)]}
        rate, death = compare.against_own(rounds)
        self.assertEqual((rate["ratio"], rate["peer"], rate["table"]), (2, "joblib", compare.OWN_TABLE))
        self.assertEqual((death["measured"], death["floor"]), ("999 outputs (1000 ms)", "fails: x"))

    def test_memory_beyond_the_model_is_compared_with_the_interpreters(self):
        own = {"share": {"pss": 1200 << 20, "model": 1000 << 20}, "interpreters": {"interpreters": 160 << 20}}
        (row,) = compare.against_own({"invokerpool": [({}, own)]})
        self.assertEqual((row["ratio"], row["met"]), (1.25, False))


class Peers(unittest.TestCase):
    def test_every_package_has_a_pinned_version(self):
        pins = (compare.HERE / "pins.txt").read_text()
        for package in ["numpy", *sum(compare.PEERS.values(), [])]:
            self.assertIn(f"\n{package}==", pins)

    def test_peers_and_compare_have_the_same_peers(self):
        # Not imported: it needs NumPy.
        for node in ast.parse((compare.HERE / "peers.py").read_text()).body:
            if isinstance(node, ast.Assign) and node.targets[0].id == "PEERS":
                self.assertEqual([key.value for key in node.value.keys], list(compare.PEERS))

    def test_rows_have_different_names(self):
        names = [name for _, _, name, _ in compare.NUMBERS]
        self.assertEqual(len(set(names)), len(names))


if __name__ == "__main__":
    unittest.main()
