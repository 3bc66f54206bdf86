"""A C extension that crashes for some inputs costs those inputs only.

    python -m invokerpool.examples.crash
"""

from __future__ import annotations

import ctypes

import invokerpool as ip


def fragile(address: int) -> bytes:
    """Reads memory as a faulty C extension would: at an address that may be none."""
    return ctypes.string_at(address or ctypes.addressof(ctypes.create_string_buffer(b"fine")))


def main() -> None:
    """Runs a hundred tasks, two of which crash their worker."""
    tasks = [1 if n in (17, 71) else 0 for n in range(100)]
    with ip.Pool(op=fragile, workers=2, stderr="null") as pool:
        outputs = list(pool.map(tasks, errors="return"))
        for task, output in enumerate(outputs):
            if isinstance(output, ip.WorkerDied):
                print(f"task {task}: {output.cause}")
        print(f"{sum(output == b'fine' for output in outputs)} of {len(outputs)} tasks are done")
        print(pool.report())


if __name__ == "__main__":
    main()
