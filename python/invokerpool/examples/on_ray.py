"""One pool in each actor of Ray, with one model on a file system that all nodes see.

    python -m invokerpool.examples.on_ray
"""

from __future__ import annotations

import tempfile
from typing import Any

import numpy as np

import invokerpool as ip


def best(items: Any, user: int) -> int:
    """Returns the item whose factors fit a user's best."""
    return int(np.argmax(items @ items[user]))


class Node:
    """The actor of a node."""

    def run(self, pool: ip.Pool, users: range) -> list[int]:
        """Runs a part of the tasks: the pool of this actor starts with the first part."""
        return list(pool.map(users))


def main(path: str, count: int = 1000, size: int = 250, **options: Any) -> list[int]:
    """Returns the outputs of all tasks."""
    import ray
    from ray.util import ActorPool

    pool = ip.Pool.lazy(ip.load(path), best, workers=2)
    parts = [range(start, min(start + size, count)) for start in range(0, count, size)]
    # For a cluster: `address="auto"`, and one actor for each node, with all its cores.
    ray.init(num_cpus=2, include_dashboard=False, **options)
    actors = ActorPool([ray.remote(num_cpus=1)(Node).remote() for _ in range(2)])
    outputs = [output for outputs in actors.map(lambda actor, part: actor.run.remote(pool, part), parts) for output in outputs]
    ray.shutdown()
    return outputs


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        ip.share(np.random.default_rng(1).random((5000, 32))).save(f"{folder}/items.safetensors")
        print(len(main(f"{folder}/items.safetensors")), "outputs")
