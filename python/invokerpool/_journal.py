"""The journal of a map: its options, and the description of the job that it belongs to."""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import platform
import types
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from . import _core


@dataclass(frozen=True)
class Journal:
    """A file with the outputs of a map: the path, and options. `Pool.map(tasks, journal=path)` is that with the defaults."""

    path: str | os.PathLike[str]
    """The file. It is created if it does not exist."""
    op: str | None = None
    """A name for the op, such as "score 2": change it whenever outputs change. Without one, the op is identified by its module, its
    name and its code, not by what it calls; so another version of Python needs another journal."""
    model: str | None = None
    """A name for the model. Without one, it is identified by a hash of its contents."""
    faults: Literal["run again", "keep"] = "run again"
    """Whether tasks that have failed run again: by an exception of the op, a death of the worker, a deadline. Those that are kept raise
    the exception of the op again, or `TaskFailed` with the message of before."""
    on_write_error: Literal["raise", "continue"] = "raise"
    """Whether the run ends with `JournalWriteFailed` if the file cannot be written, or goes on without it, with a warning."""
    sync_interval: float = 1.0
    """The age in seconds at which an output is on the disk. A power failure costs these outputs at most, the death of this process those
    of a quarter of that."""
    sync_bytes: int | str = "64MiB"
    """Bytes after which the file is synced before its time."""

    def info(self) -> str:
        """Describes the job and the contents, also while they are written."""
        return _core.journal_info(self.path)

    def salvage(self, target: str | os.PathLike[str], *, op: str | None = None, model: str | None = None) -> Salvaged:
        """Copies what is intact into a new file. `op` and `model` name those of the copy, for another build that computes the same."""
        return Salvaged(*_core.journal_salvage(self.path, target, op, model))


class Salvaged(NamedTuple):
    """What `Journal.salvage` has done."""

    tasks: int
    """Tasks whose records were copied. Those that replace an earlier one count, too."""
    lost: int
    """Bytes that were damaged or torn, and left out."""


def options(journal: Journal | str | os.PathLike[str], code: tuple[Any, Any], model: str, seed: int | None) -> dict[str, Any]:
    """Returns the options of a journal for a job."""
    from ._pool import _bytes

    if not isinstance(journal, Journal):
        journal = Journal(journal)
    if journal.faults not in ("run again", "keep"):
        raise ValueError(f'faults={journal.faults!r} is unknown; use "run again" or "keep"')
    if journal.on_write_error not in ("raise", "continue"):
        raise ValueError(f'on_write_error={journal.on_write_error!r} is unknown; use "raise" or "continue"')
    op, state = code
    described = describe(op) if state is None else f"{describe(op)}, with the state of {describe(state)}"
    return {
        "path": os.fspath(journal.path),
        "op": described,
        "op_name": journal.op,
        "model": model,
        "model_name": journal.model,
        "seed": seed,
        "keeps_faults": journal.faults == "keep",
        "goes_on": journal.on_write_error == "continue",
        "sync_interval": float(journal.sync_interval),
        "sync_bytes": _bytes(journal.sync_bytes, "sync_bytes"),
    }


def describe(function: Any) -> str:
    """Describes a function by its module and name, and a hash of its code where it has one.

    The pickle of a function would be no description: cloudpickle's differ between processes for equal functions.
    """
    if isinstance(function, functools.partial):
        return f"partial of {describe(function.func)}"
    function = getattr(function, "__func__", function)
    named = function if hasattr(function, "__qualname__") else type(function)
    name = f"{named.__module__}.{named.__qualname__}"
    if not isinstance(function, types.FunctionType):
        return name
    digest = hashlib.blake2b(digest_size=8)
    _feed(digest, function, set())
    version = ".".join(platform.python_version_tuple()[:2])
    return f"{name}, code {digest.hexdigest()} of {platform.python_implementation()} {version}"


def _feed(digest: Any, value: Any, seen: set[int]) -> None:
    """Adds what is the same in each process: code, and numbers and texts in closures, defaults and constants."""
    if id(value) in seen:
        return
    if isinstance(value, types.FunctionType):
        seen.add(id(value))
        cells = []
        for cell in value.__closure__ or ():
            try:
                cells.append(cell.cell_contents)
            except ValueError:
                # A function that is defined later.
                cells.append(None)
        _feed(digest, value.__code__, seen)
        _feed(digest, (tuple(cells), value.__defaults__, tuple((value.__kwdefaults__ or {}).items())), seen)
    elif isinstance(value, types.CodeType):
        names = (value.co_names, value.co_varnames, value.co_freevars, value.co_cellvars, value.co_exceptiontable)
        digest.update(repr((value.co_argcount, value.co_kwonlyargcount, value.co_flags, names)).encode())
        digest.update(value.co_code)
        _feed(digest, value.co_consts, seen)
    elif isinstance(value, tuple):
        digest.update(b"(%d" % len(value))
        for item in value:
            _feed(digest, item, seen)
    elif isinstance(value, frozenset):
        digest.update(repr(sorted(map(repr, value))).encode("utf-8", "surrogatepass"))
    elif value is None or value is ... or type(value) in (bool, int, float, complex, str, bytes):
        digest.update(repr(value).encode("utf-8", "surrogatepass"))
    else:
        digest.update(type(value).__qualname__.encode())


def log_failure(message: str) -> None:
    """Warns that a map has gone on without its journal. Called by the extension module."""
    logging.getLogger("invokerpool").warning("%s; the run has gone on without it", message)
