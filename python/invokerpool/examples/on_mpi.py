"""One pool in each rank of MPI (mpi4py), with one model on a file system that all nodes see. One rank on each node:

    mpiexec -n 2 python -m invokerpool.examples.on_mpi ITEMS.safetensors
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

import invokerpool as ip


def best(items: Any, user: int) -> int:
    """Returns the item whose factors fit a user's best."""
    return int(np.argmax(items @ items[user]))


def main(path: str, count: int = 1000) -> list[int] | None:
    """Returns the outputs of all tasks in rank 0."""
    from mpi4py import MPI

    world = MPI.COMM_WORLD
    # Workers are programs of their own, which do not call MPI.
    with ip.Pool(ip.load(path), best, workers=2) as pool:
        own = list(pool.map(range(world.rank, count, world.size)))
    every = world.gather(own)
    if every is None:
        return None
    return [every[user % world.size][user // world.size] for user in range(count)]


if __name__ == "__main__":
    outputs = main(sys.argv[1])
    if outputs is not None:
        print(*outputs)
