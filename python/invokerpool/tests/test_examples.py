"""The examples."""

import csv

import pytest

from invokerpool.examples import crash, hang, recommend

LENSKIT = recommend.RATINGS.parent.parent / "lenskit-0.14.4-top10.csv"


def lists(path):
    found = {}
    with open(path, newline="") as file:
        for row in csv.DictReader(file):
            found.setdefault(int(row["user"]), []).append((int(row["item"]), float(row["score"])))
    return found


def test_recommendations_equal_those_of_lenskit(tmp_path, capsys):
    recs = tmp_path / "recs.csv"
    assert recommend.main(["--workers", "2", "--recs", str(recs)]) == 0
    ours, theirs = lists(recs), lists(LENSKIT)
    assert len(ours) == 671 and len(theirs) > 30
    for user, expected in theirs.items():
        assert [item for item, _ in ours[user]] == [item for item, _ in expected]
        assert [score for _, score in ours[user]] == pytest.approx([score for _, score in expected], abs=1e-9)
    assert "671 users, 0 failed" in capsys.readouterr().out


def test_recommendations_are_resumed(tmp_path, capsys):
    ratings = tmp_path / "ratings.csv"
    with open(recommend.RATINGS) as all, open(ratings, "w") as some:
        some.writelines(line for _, line in zip(range(3000), all))
    recs = []
    for start in range(2):
        path = tmp_path / f"recs.{start}"
        given = ["--workers", "1", "--ratings", str(ratings), "--recs", str(path), "--resume", str(tmp_path / "journal")]
        assert recommend.main(given) == 0
        recs.append(path.read_bytes())
    assert recs[0] == recs[1]
    assert "outputs read, 0 written" in capsys.readouterr().out


def test_a_crash_costs_its_tasks(capsys):
    crash.main()
    out = capsys.readouterr().out
    assert "task 17: killed by signal 11" in out and "98 of 100" in out


def test_a_hung_task_shows_where_it_was(capsys):
    hang.main()
    out = capsys.readouterr().out
    assert "in solve" in out and "size 19: 361" in out
