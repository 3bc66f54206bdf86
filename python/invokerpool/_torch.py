"""Tensors of PyTorch in models: the memory of those on the CPU is shared as that of NumPy's arrays is.

PyTorch pickles a storage by value, as a file in the pickle. Here a storage is a buffer, and tensors that share one still do.
"""

from __future__ import annotations

import pickle
import sys
import warnings
from typing import Any


class _Memory:
    """The memory of a storage. There is one object for each storage in a pickle, so that it is stored once."""

    def __init__(self, untyped: Any) -> None:
        self.untyped = untyped

    def __reduce__(self) -> Any:
        import torch

        array = torch.empty(0, dtype=torch.uint8).set_(self.untyped).numpy()
        return _untyped, (pickle.PickleBuffer(array),)


class Reducer:
    """Pickles the storages of one model."""

    def __init__(self) -> None:
        self._known: dict[int, _Memory] = {}

    def reduce(self, value: Any) -> Any:
        """Returns how a storage on the CPU is pickled; None for everything else."""
        torch = sys.modules.get("torch")
        if torch is None or type(value) is not torch.storage.TypedStorage or value.device.type != "cpu":
            return None
        untyped = value.untyped()
        memory = self._known.setdefault(untyped._cdata, _Memory(untyped))
        return _typed, (memory, value.dtype)


def _untyped(buffer: Any) -> Any:
    import numpy as np
    import torch

    if memoryview(buffer).nbytes == 0:
        array = np.empty(0, "u1")
    else:
        array = np.frombuffer(buffer, "u1")
    with warnings.catch_warnings():
        # A pool with `writable=False` has such memory: writing to it ends the worker.
        warnings.filterwarnings("ignore", message=".*not writ.*able")
        tensor = torch.from_numpy(array)
    return tensor.untyped_storage() if hasattr(tensor, "untyped_storage") else tensor.storage().untyped()


def _typed(untyped: Any, dtype: Any) -> Any:
    import inspect

    import torch

    kind = torch.storage.TypedStorage
    internal = {"_internal": True} if "_internal" in inspect.signature(kind.__init__).parameters else {}
    return kind(wrap_storage=untyped, dtype=dtype, **internal)
