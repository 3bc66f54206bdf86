"""Recommends ten films to every user: one model shared by all workers, one small task for each user.

Trains item-item kNN on 100,000 movie ratings, as the Rust example `batch_eval` does and LensKit 0.14.4, whose results both reproduce to the
last bit: sums are taken in the order of users, and neighbours are kept by the same heap.

    python -m invokerpool.examples.recommend [--workers N] [--recs FILE] [--crash-user ID]
"""

from __future__ import annotations

import argparse
import hashlib
import csv
import math
import os
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import invokerpool as ip

MIN_SIMILARITY = 1e-6
STORED = 100
SCORING = 20
RATINGS = Path(__file__).parent / "data" / "ml-latest-small-2016" / "ratings.csv"

Array = np.ndarray[Any, Any]


@dataclass
class ItemKnn:
    """The model. Items are addressed by their position in `items`."""

    items: Array
    means: Array
    neighbours: Array
    """For each item, the positions of its neighbours, most similar first; the number of items where there are fewer."""
    similarities: Array


@dataclass
class Ratings:
    """Ratings by user: positions of items, ascending, and values."""

    users: list[int]
    items: Array
    rows: list[tuple[Array, Array]]


def read(path: Path) -> Ratings:
    """Reads a file with the columns userId, movieId and rating."""
    by_user: dict[int, dict[int, float]] = {}
    with open(path, newline="") as file:
        for row in csv.DictReader(file):
            by_user.setdefault(int(row["userId"]), {})[int(row["movieId"])] = float(row["rating"])
    items = np.array(sorted({item for row in by_user.values() for item in row}))
    position = {int(item): n for n, item in enumerate(items)}
    users = sorted(by_user)
    rows = []
    for user in users:
        ordered = sorted(by_user[user].items())
        rows.append((np.array([position[item] for item, _ in ordered]), np.array([value for _, value in ordered])))
    return Ratings(users, items, rows)


def _sum(values: Iterable[float]) -> float:
    # In this order. `sum` compensates rounding errors in newer versions of Python.
    total = 0.0
    for value in values:
        total += value
    return total


def train(ratings: Ratings) -> ItemKnn:
    """Trains the model."""
    count = len(ratings.items)
    columns: list[list[tuple[int, float]]] = [[] for _ in range(count)]
    for user, (items, values) in enumerate(ratings.rows):
        for item, value in zip(items.tolist(), values.tolist()):
            columns[item].append((user, value))
    means = np.empty(count)
    # The centred unit vectors, by user and by item.
    rows: list[list[tuple[int, float]]] = [[] for _ in ratings.rows]
    places: list[list[tuple[int, int]]] = [[] for _ in range(count)]
    for item, column in enumerate(columns):
        first = column[0][1]
        equal = all(value == first for _, value in column)
        mean = first if equal else _sum(value for _, value in column) / len(column)
        means[item] = mean
        norm = math.sqrt(_sum((value - mean) * (value - mean) for _, value in column))
        if norm == 0:
            continue
        scale = 1 / norm
        for user, value in column:
            places[item].append((user, len(rows[user])))
            rows[user].append((item, (value - mean) * scale))
    arrays = [(np.array([i for i, _ in row], dtype=np.int64), np.array([v for _, v in row])) for row in rows]
    # For each item, the similarities to all later ones: dot products, summed in the order of users.
    dots = np.zeros(count)
    left, right, similar = [], [], []
    for item, at in enumerate(places):
        for user, place in at:
            others, values = arrays[user]
            dots[others[place + 1 :]] += values[place] * values[place + 1 :]
        found = np.flatnonzero(dots >= MIN_SIMILARITY)
        left.append(np.full(len(found), item))
        right.append(found)
        similar.append(dots[found])
        for user, place in at:
            dots[arrays[user][0][place + 1 :]] = 0
    # Each pair serves both of its items, which see their candidates in ascending order.
    one, two, values = np.concatenate(left), np.concatenate(right), np.concatenate(similar)
    rows_of, others_of = np.concatenate([two, one]), np.concatenate([one, two])
    order = np.lexsort((others_of, rows_of))
    starts = np.searchsorted(rows_of[order], np.arange(count + 1))
    others_of, all_values = others_of[order], np.concatenate([values, values])[order]
    neighbours = np.full((count, STORED), count, dtype=np.int64)
    similarities = np.zeros((count, STORED))
    for item in range(count):
        part = slice(starts[item], starts[item + 1])
        kept = _nearest(others_of[part].tolist(), all_values[part].tolist())
        neighbours[item, : len(kept)] = [other for other, _ in kept]
        similarities[item, : len(kept)] = [value for _, value in kept]
    return ItemKnn(ratings.items, means, neighbours, similarities)


def _nearest(others: list[int], values: list[float]) -> list[tuple[int, float]]:
    """The most similar of the candidates: those that LensKit's bounded heap keeps, in its order."""
    heap: list[tuple[int, float]] = []
    for other, value in zip(others, values):
        if len(heap) < STORED:
            heap.append((other, value))
            at = len(heap) - 1
            while at > 0 and heap[(at - 1) // 2][1] > heap[at][1]:
                above = (at - 1) // 2
                heap[at], heap[above] = heap[above], heap[at]
                at = above
        elif value > heap[0][1]:
            heap[0] = (other, value)
            _sift_down(heap, len(heap))
    for last in range(len(heap) - 1, 0, -1):
        heap[0], heap[last] = heap[last], heap[0]
        _sift_down(heap, last)
    return heap


def _sift_down(heap: list[tuple[int, float]], size: int) -> None:
    at = 0
    while True:
        least = at
        for child in (2 * at + 1, 2 * at + 2):
            if child < size and heap[child][1] < heap[least][1]:
                least = child
        if least == at:
            return
        heap[at], heap[least] = heap[least], heap[at]
        at = least


def recommend(model: ItemKnn, task: tuple[Array, Array, bool]) -> tuple[Array, Array]:
    """The op: the ten best items that a user has not rated, and their scores."""
    items, values, crash = task
    if crash:
        os.abort()
    count = len(model.items)
    deviations = np.full(count + 1, np.nan)
    deviations[items] = values - model.means[items]
    candidates = np.flatnonzero(np.isnan(deviations[:count]))
    found = deviations[model.neighbours[candidates]]
    rated = ~np.isnan(found)
    any_rated = rated.any(axis=1)
    candidates, found, rated = candidates[any_rated], found[any_rated], rated[any_rated]
    used = rated & (np.cumsum(rated, axis=1) <= SCORING)
    weights = np.where(used, model.similarities[candidates], 0.0)
    deviation = np.where(used, found, 0.0)
    # Cumulative sums are taken in order; `sum` is not.
    weighted = np.cumsum(weights * deviation, axis=1)[:, -1]
    total = np.cumsum(weights, axis=1)[:, -1]
    single = used.sum(axis=1) == 1
    # The weight of a single neighbour cancels.
    offset = np.where(single, deviation.sum(axis=1), weighted / total)
    scores = model.means[candidates] + offset
    best = np.lexsort((candidates, -scores))[:10]
    return candidates[best], scores[best]


def main(arguments: list[str] | None = None) -> int:
    """Runs the job."""
    parser = argparse.ArgumentParser(description="Recommends ten films to every user.")
    parser.add_argument("--ratings", type=Path, default=RATINGS, help="another file of ratings")
    parser.add_argument("--workers", type=int, help="number of workers (default: one for each core)")
    parser.add_argument("--recs", type=Path, help="write the recommendations to this file")
    parser.add_argument("--crash-user", type=int, help="abort the worker in this user's task")
    parser.add_argument("--resume", type=Path, metavar="FILE", help="keep the outputs in this journal, and go on where it ends")
    given = parser.parse_args(arguments)
    ratings = read(given.ratings)
    start = time.perf_counter()
    model = train(ratings)
    print(f"trained in {time.perf_counter() - start:.1f} s")
    tasks = [(*row, user == given.crash_user) for user, row in zip(ratings.users, ratings.rows)]
    lines, failed = ["user,rank,item,score"], 0
    with ip.Pool(model, recommend, workers=given.workers) as pool:
        journal = None
        if given.resume:
            # The class of the model is one of `__main__`, so its pickle differs in each process.
            trained_on = hashlib.blake2b(given.ratings.read_bytes(), digest_size=8).hexdigest()
            journal = ip.Journal(given.resume, model=f"trained on ratings {trained_on}")
        outputs = pool.map(tasks, errors="return", progress="recommend", journal=journal)
        for user, output in zip(ratings.users, outputs):
            if isinstance(output, Exception):
                failed += 1
                print(f"user {user}: {output}", file=sys.stderr)
                continue
            for rank, (item, score) in enumerate(zip(*output), 1):
                lines.append(f"{user},{rank},{model.items[item]},{float(score)!r}")
        print(pool.report())
    if given.recs:
        given.recs.write_text("\n".join(lines) + "\n")
    print(f"{len(lines) - 1} recommendations for {len(tasks) - failed} users, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
