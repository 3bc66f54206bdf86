"""One pool on each engine of ipyparallel, with one model on a file system that all nodes see.

    python -m invokerpool.examples.on_ipyparallel
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
    """Runs a part of the tasks, on an engine: its pool starts with the first part."""
    return list(pool.map(users))


def main(path: str, count: int = 1000, size: int = 250) -> list[int]:
    """Returns the outputs of all tasks."""
    import ipyparallel

    pool = ip.Pool.lazy(ip.load(path), best, workers=2)
    parts = [range(start, min(start + size, count)) for start in range(0, count, size)]
    # Engines of this machine. For a cluster, one on each node: Cluster(engines="slurm", n=8).
    with ipyparallel.Cluster(n=2, log_level=40) as client:
        view = client.load_balanced_view()
        return [output for outputs in view.map_sync(part, [pool] * len(parts), parts) for output in outputs]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        ip.share(np.random.default_rng(1).random((5000, 32))).save(f"{folder}/items.safetensors")
        print(len(main(f"{folder}/items.safetensors")), "outputs")
