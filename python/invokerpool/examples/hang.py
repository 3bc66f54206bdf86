"""A task that hangs is ended at its deadline, and its error shows where it was.

    python -m invokerpool.examples.hang
"""

from __future__ import annotations

import time

import invokerpool as ip


def solve(size: int) -> int:
    """Does not converge for one size."""
    while size == 13:
        time.sleep(0.01)
    return size * size


def main() -> None:
    """Runs twenty tasks, one of which hangs."""
    with ip.Pool(op=solve, workers=2, deadline=1.0) as pool:
        for size, output in enumerate(pool.map(range(20), errors="return")):
            match output:
                case ip.TimedOut(stack=stack):
                    print(f"size {size} took longer than {output.deadline} s:\n{stack or 'no stack'}")
                case int():
                    print(f"size {size}: {output}")


if __name__ == "__main__":
    main()
