"""Models in shared memory."""

from __future__ import annotations

import os
import pickle
from typing import TYPE_CHECKING, Any

from . import _core, _pickle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

# Arrays of fewer bytes stay in the pickle: each process has a copy of them.
MIN_SHARED = 4 << 10
# The name of the tensor with the pickle.
PICKLE = "pickle"

# Formats of the module `struct`, with the types of safetensors.
_KINDS = {"?": "BOOL", "e": "F16", "f": "F32", "d": "F64"}
_SIZES = {1: "8", 2: "16", 4: "32", 8: "64"}


def _dtype(view: memoryview) -> str | None:
    """The type of a buffer's elements in a safetensors file; None if it has none."""
    kind = view.format.lstrip("@=<") if view.itemsize > 1 else view.format
    if kind in _KINDS:
        return _KINDS[kind]
    if len(kind) == 1 and kind in "bhilq":
        return "I" + _SIZES[view.itemsize]
    if len(kind) == 1 and kind in "BHILQ":
        return "U" + _SIZES[view.itemsize]
    return None


class Image:
    """A model in shared memory: one copy for any number of workers and pools.

    The bytes are a safetensors file: a tensor for each large array, and the pickle of everything else.
    """

    def __init__(self, core: _core.CoreImage, *, path: str | None = None) -> None:
        self._core = core
        self._path = path
        self._checksum: int | None = None

    @property
    def nbytes(self) -> int:
        """The bytes of the image."""
        return self._core.byte_len()

    def tensors(self) -> list[tuple[str, str, tuple[int, ...]]]:
        """The name, type and shape of each array in the image."""
        parts = self._core.tensors(False)
        return [(name, dtype, tuple(shape)) for name, dtype, shape, _ in parts if name != PICKLE]

    def save(self, path: str | os.PathLike[str], *, compression: str | int | None = None, mode: int | None = None) -> None:
        """Writes the image to a file, which it replaces as a whole. `load` reads it, and so does any reader of safetensors.

        `compression` is "zstd", or a level of zstd.
        """
        if compression == "zstd":
            compression = 3
        if isinstance(compression, str):
            raise ValueError(f'compression={compression!r} is unknown; use "zstd", a level of zstd, or None')
        self._core.save(os.fspath(path), compression, mode)
        self._path = os.path.abspath(path)

    def unpickle(self, *, writable: bool = True, loads: Callable[[bytes, Any], Any] = _pickle.loads) -> Any:
        """Returns the model. Its large arrays lie in shared memory.

        With `writable`, this process may write them, and no other one sees it: a page is copied when it is written.
        """
        buffers = []
        data: Any = b""
        for name, _, _, part in self._core.tensors(writable):
            if name == PICKLE:
                data = part
            else:
                buffers.append(part)
        return loads(bytes(data), buffers)

    def __reduce__(self) -> Any:
        if self._path is None:
            raise pickle.PicklingError(
                "an image in memory cannot be pickled; save it with `image.save(path)` where all nodes see the file"
            )
        if self._checksum is None:
            self._checksum = self._core.fingerprint()
        return _load_same, (self._path, self._checksum)

    def __repr__(self) -> str:
        return f"<invokerpool.Image of {self.nbytes} bytes>"


def _parts(data: bytes, buffers: Iterable[pickle.PickleBuffer]) -> list[tuple[str, str, list[int], Any]]:
    parts: list[tuple[str, str, list[int], Any]] = []
    for number, buffer in enumerate(buffers):
        raw = buffer.raw()
        view = memoryview(buffer)
        dtype = _dtype(view)
        # Arrays in Fortran order are stored as they lie in memory.
        if dtype is None or not view.c_contiguous or view.itemsize != _itemsize(dtype):
            parts.append((f"array.{number}", "U8", [raw.nbytes], raw))
        else:
            parts.append((f"array.{number}", dtype, list(view.shape or ()), raw))
    parts.append((PICKLE, "U8", [len(data)], data))
    return parts


def _itemsize(dtype: str) -> int:
    return 1 if dtype == "BOOL" else int(dtype[1:]) // 8


def share(model: Any) -> Image:
    """Copies a model into shared memory, for several pools, or to save it."""
    buffers: list[pickle.PickleBuffer] = []

    def is_small(buffer: pickle.PickleBuffer) -> bool:
        if buffer.raw().nbytes < MIN_SHARED:
            return True
        buffers.append(buffer)
        return False

    data = _pickle.dumps_out_of_band(model, is_small)
    return Image(_core.write_image(_parts(data, buffers)))


def load(path: str | os.PathLike[str], *, max_bytes: int | None = None) -> Image:
    """Loads an image that `Image.save` has written into shared memory. A compressed one is decoded into its place.

    The file's pickle runs code when it is unpickled: load only files that you trust.
    """
    return Image(_core.load_image(os.fspath(path), max_bytes), path=os.path.abspath(path))


def _load_same(path: str, fingerprint: int) -> Image:
    """Loads an image that was pickled in another process, and checks that the file has the same contents."""
    image = load(path)
    image._checksum = found = image._core.fingerprint()
    if found != fingerprint:
        raise ValueError(
            f"the image {path} has the checksum {found:016x} here, and {fingerprint:016x} where it was pickled; wait until the file is the"
            " same on all nodes, or send the new image"
        )
    return image
