"""One pool on each worker of a Dask cluster, with one model on a file system that all nodes see.

    python -m invokerpool.examples.on_dask
"""

from __future__ import annotations

import tempfile
from typing import Any

import numpy as np

import invokerpool as ip


def best(items: Any, user: int) -> int:
    """Returns the item whose factors fit a user's best."""
    return int(np.argmax(items @ items[user]))


def part(pool: ip.Pool, users: range) -> list[int]:
    """Runs a part of the tasks, on a worker of the cluster: its pool starts with the first part."""
    return list(pool.map(users))


def main(path: str, count: int = 1000, size: int = 250) -> list[int]:
    """Returns the outputs of all tasks."""
    from distributed import Client, LocalCluster

    pool = ip.Pool.lazy(ip.load(path), best, workers=2)
    parts = [range(start, min(start + size, count)) for start in range(0, count, size)]
    # One thread for each worker of Dask: the pool uses the node's cores. For a real cluster: Client("scheduler:8786").
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client:
        return [output for outputs in client.gather(client.map(part, [pool] * len(parts), parts)) for output in outputs]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        ip.share(np.random.default_rng(1).random((5000, 32))).save(f"{folder}/items.safetensors")
        print(len(main(f"{folder}/items.safetensors")), "outputs")
