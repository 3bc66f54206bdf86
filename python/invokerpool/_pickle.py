"""Pickles what the extension's own encoding does not know: with pickle where that suffices, else with cloudpickle.

pickle stores functions and classes by name. Names in `__main__`, a script or a notebook, mean nothing in a worker, so values that
refer to that module are pickled by cloudpickle, which stores those by value.
"""

from __future__ import annotations

import io
import pickle
import sys
import traceback
from collections.abc import Callable
from typing import Any

from ._errors import RemoteError

PROTOCOL = 5
_MAIN = b"__main__"


def dumps(value: Any) -> bytes:
    """Returns the pickle of a value."""
    if not _by_value():
        try:
            data = pickle.dumps(value, protocol=PROTOCOL)
        except Exception:
            pass
        else:
            # The name may also be in a string: that costs time only.
            if _MAIN not in data:
                return data
    import cloudpickle

    data = cloudpickle.dumps(value, protocol=PROTOCOL)
    assert isinstance(data, bytes)
    return data


def _by_value() -> bool:
    """Whether the program has asked cloudpickle to pickle a module by value."""
    cloudpickle = sys.modules.get("cloudpickle")
    return cloudpickle is not None and bool(cloudpickle.list_registry_pickle_by_value())


def same_in_each_process(data: bytes) -> bytes:
    """Returns a pickle without what differs between processes that pickle the same: cloudpickle gives each class that it pickles by value
    a random number. For comparisons: what this returns is no pickle of the same objects."""
    cloudpickle = sys.modules.get("cloudpickle.cloudpickle")
    if cloudpickle is None or b"_make_skeleton_" not in data:
        return data
    for number in list(getattr(cloudpickle, "_DYNAMIC_CLASS_TRACKER_BY_CLASS", {}).values()):
        data = data.replace(number.encode(), bytes(len(number)))
    return data


def dumps_out_of_band(value: Any, buffer_callback: Callable[[pickle.PickleBuffer], Any]) -> bytes:
    """Returns the pickle of a value without the memory of its arrays, which is handed to `buffer_callback`."""
    import cloudpickle

    from . import _torch

    reducer = _torch.Reducer()

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
        def reducer_override(self, value: Any) -> Any:
            return reducer.reduce(value) or super().reducer_override(value)

    file = io.BytesIO()
    pickler = Pickler if "torch" in sys.modules else cloudpickle.Pickler
    pickler(file, protocol=PROTOCOL, buffer_callback=buffer_callback).dump(value)
    return file.getvalue()


def loads(data: bytes, buffers: Any = None) -> Any:
    """Returns the value of a pickle."""
    return pickle.loads(data, buffers=buffers)


def dump_raised(error: BaseException) -> bytes:
    """Returns an exception with its traceback as bytes."""
    text = "".join(traceback.format_exception(error)).rstrip()
    kind = type(error).__qualname__
    error = error.with_traceback(None)
    try:
        pickled = dumps(error)
        # Many exceptions can be pickled and not unpickled: their `__init__` takes other arguments than `args`.
        loads(pickled)
    except Exception as failure:
        reason = f"{type(failure).__name__}: {failure}"
        return dumps((None, text, (kind, _text(error), reason)))
    return dumps((pickled, text, (kind, _text(error), "")))


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:
        return "its text cannot be made"


def load_raised(data: bytes) -> BaseException:
    """Returns an exception with the worker's traceback as a note."""
    pickled, text, (kind, message, reason) = loads(data)
    error: BaseException
    if pickled is None:
        error = RemoteError(f"{kind}: {message} (the exception itself cannot be pickled: {reason})")
    else:
        try:
            error = loads(pickled)
        except Exception as failure:
            error = RemoteError(f"{kind}: {message} (it cannot be unpickled: {failure!r})")
    if not isinstance(error, BaseException):
        error = RemoteError(f"{kind}: {message}")
    error.add_note(f"In a worker:\n{text}")
    return error
