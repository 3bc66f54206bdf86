"""Shows that LensKit's batch recommendation through a pool equals the one in its own process.

Needs lenskit 0.14.4 with its pins (see the README of the example's data), implicit, and this package. `cargo xtask python test --full`
installs them and runs this program:

    lenskit_batch.py RATINGS [--users STEP]
"""

import argparse
import copyreg
import time

import numpy as np
import pandas as pd
from implicit.nearest_neighbours import CosineRecommender
from lenskit import batch, util
from lenskit.algorithms import Recommender
from lenskit.algorithms.als import BiasedMF
from lenskit.algorithms.implicit import ALS, BPR, BaseRec
from lenskit.algorithms.item_knn import ItemItem

import invokerpool as ip


def restore(kind, attributes):
    model = object.__new__(kind)
    model.__dict__.update(attributes)
    return model


# `ItemItem.__getstate__` leaves the transposed matrix out, and each process that unpickles the model would build its own: 100 MiB here.
copyreg.pickle(ItemItem, lambda model: (restore, (type(model), model.__dict__)))


class PoolInvoker:
    """LensKit's `ModelOpInvoker` on a pool."""

    def __init__(self, model, function, n_jobs=None, **_):
        self.pool = ip.Pool(model, function, workers=n_jobs)

    def map(self, tasks):
        return self.pool.map(tasks)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.pool.__exit__(*error)


def measure(model, task):
    """The private memory of a worker."""
    with open("/proc/self/smaps_rollup") as file:
        return sum(int(line.split()[1]) for line in file if line.startswith("Private_")) << 10


def imported(task):
    """The private memory of a worker that has imported what the models need."""
    import lenskit.algorithms.als
    import lenskit.algorithms.implicit
    import lenskit.algorithms.item_knn  # noqa: F401

    return measure(None, task)


def private_bytes(model):
    """The private bytes of a worker with a model beyond those of one without, and the bytes that are shared."""
    with ip.Pool(op=imported, workers=1) as pool:
        (without,) = pool.map([0])
    with ip.Pool(model, measure, workers=1) as pool:
        (with_model,) = pool.map([0])
        return max(with_model - without, 0), pool.report().model_bytes


def compare(name, algorithm, ratings, users):
    algorithm = Recommender.adapt(algorithm)
    algorithm.fit(ratings)
    begin = time.perf_counter()
    expected = batch.recommend(algorithm, users, 10, n_jobs=1)
    alone = time.perf_counter() - begin
    private = private_bytes(algorithm)
    own, util.parallel.invoker = util.parallel.invoker, PoolInvoker
    try:
        begin = time.perf_counter()
        found = batch.recommend(algorithm, users, 10, n_jobs=2)
        pooled = time.perf_counter() - begin
    finally:
        util.parallel.invoker = own
    pd.testing.assert_frame_equal(found, expected, check_exact=True)
    own_bytes, shared = (count / (1 << 20) for count in private)
    times = f"alone {alone:.1f} s, pool {pooled:.1f} s"
    memory = f"{shared:.1f} MiB shared, {own_bytes:.1f} MiB private to each worker"
    print(f"{name:15} {len(found)} rows are equal; {times}; {memory}", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("ratings")
    parser.add_argument("--users", type=int, default=1, metavar="STEP", help="every STEP-th user")
    given = parser.parse_args()
    ratings = pd.read_csv(given.ratings).rename(columns={"userId": "user", "movieId": "item"})
    ratings = ratings[["user", "item", "rating"]]
    users = np.unique(ratings.user)[:: given.users]
    compare("ItemItem", ItemItem(20), ratings, users)
    compare("BiasedMF (ALS)", BiasedMF(20, iterations=3, rng_spec=42), ratings, users)
    compare("implicit ALS", ALS(20, iterations=2, use_gpu=False), ratings, users)
    compare("implicit BPR", BPR(20, iterations=2, use_gpu=False), ratings, users)
    # Its Cython code refuses read-only arrays, as that of ALS does.
    compare("implicit cosine", BaseRec(CosineRecommender(20)), ratings, users)


if __name__ == "__main__":
    main()
