"""Models in shared memory."""

from __future__ import annotations

import math
import operator
import os
import pickle
import sys
from typing import TYPE_CHECKING, Any, NamedTuple, SupportsIndex

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

    def __init__(self, core: _core.CoreImage, beside: Iterable[_Beside] = (), *, path: str | None = None) -> None:
        self._core = core
        self._beside = list(beside)
        self._path = path
        self._checksum: int | None = None

    @property
    def nbytes(self) -> int:
        """The bytes of the image."""
        return self._core.byte_len() + sum(it.segment.byte_len() for it in self._beside)

    @property
    def adopted(self) -> int:
        """The bytes of the model's own arrays that lie in the image, instead of being copied there: see `share`."""
        return self._core.adopted

    def tensors(self) -> list[tuple[str, str, tuple[int, ...]]]:
        """The name, type and shape of each array in the image."""
        return [(name, dtype, tuple(shape)) for name, dtype, shape, _ in self._all(False) if name != PICKLE]

    def _all(self, writable: bool) -> list[tuple[str, str, list[int], Any]]:
        """All tensors, in the order of the buffers in the pickle, which is the last."""
        parts: list[tuple[str, str, list[int], Any]] = list(self._core.tensors(writable))
        for beside in self._beside:
            views = beside.segment.parts([(it.start, it.nbytes) for it in beside.arrays], writable)
            parts += [(f"array.{it.number}", it.dtype, it.shape, view) for it, view in zip(beside.arrays, views)]
        if self._beside:
            parts.sort(key=lambda part: math.inf if part[0] == PICKLE else int(part[0].rpartition(".")[2]))
        return parts

    def _fingerprint(self) -> str:
        """A hash of the contents, equal in all processes that share an equal model."""
        import hashlib

        parts = self._all(False)
        data = bytes(parts[-1][3])
        known = _pickle.same_in_each_process(data)
        if known == data:
            found = f"{self._core.checksum():016x}"
            if not self._beside:
                return found
        else:
            found = "by value"
        digest = hashlib.blake2b(digest_size=8)
        for part in parts[:-1]:
            digest.update(part[3])
        digest.update(known)
        return f"{found}, {digest.hexdigest()}"

    def save(self, path: str | os.PathLike[str], *, compression: str | int | None = None, mode: int | None = None) -> None:
        """Writes the image to a file, which it replaces as a whole. `load` reads it, and so does any reader of safetensors.

        `compression` is "zstd", or a level of zstd.
        """
        if compression == "zstd":
            compression = 3
        if isinstance(compression, str):
            raise ValueError(f'compression={compression!r} is unknown; use "zstd", a level of zstd, or None')
        core = self._core
        if self._beside:
            # One file has one segment.
            core = _core.write_image([(*part, False) for part in self._all(False)])
            self._checksum = core.checksum()
        core.save(os.fspath(path), compression, mode)
        self._path = os.path.abspath(path)

    def unpickle(self, *, writable: bool = True, loads: Callable[[bytes, Any], Any] = _pickle.loads) -> Any:
        """Returns the model. Its large arrays lie in shared memory.

        With `writable`, this process may write them, and no other one sees it: a page is copied when it is written.
        """
        buffers = []
        data: Any = b""
        for name, _, _, part in self._all(writable):
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
            self._checksum = self._core.checksum()
        return _load_same, (self._path, self._checksum)

    def __repr__(self) -> str:
        return f"<invokerpool.Image of {self.nbytes} bytes>"


class _Array(NamedTuple):
    """An array in a segment beside an image."""

    number: int
    dtype: str
    shape: list[int]
    start: int
    nbytes: int


class _Beside(NamedTuple):
    """A segment beside an image: the memory of an array that `empty` has made."""

    segment: _core.CoreSegment
    arrays: list[_Array]


def _tensor(buffer: pickle.PickleBuffer) -> tuple[str, list[int], memoryview]:
    """The type, the shape and the bytes of an array."""
    raw = buffer.raw()
    view = memoryview(buffer)
    dtype = _dtype(view)
    # Arrays in Fortran order are stored as they lie in memory.
    if dtype is None or not view.c_contiguous or view.itemsize != _itemsize(dtype):
        return "U8", [raw.nbytes], raw
    return dtype, list(view.shape or ()), raw


def _owner(buffer: pickle.PickleBuffer) -> Any:
    """What owns the memory of a buffer: an array, or what an array is a view of."""
    numpy = sys.modules.get("numpy")
    owner = memoryview(buffer).obj
    while numpy is not None and isinstance(owner, numpy.ndarray) and owner.base is not None:
        owner = owner.base
    return owner


def _is_malloced(owner: Any) -> bool:
    """Whether this is an array whose memory NumPy has from `malloc`."""
    numpy = sys.modules.get("numpy")
    if numpy is None or not isinstance(owner, numpy.ndarray) or not owner.flags.owndata:
        return False
    core = getattr(numpy, "_core", None) or numpy.core
    return bool(core.multiarray.get_handler_name(owner) == "default_allocator")


def _itemsize(dtype: str) -> int:
    return 1 if dtype == "BOOL" else int(dtype[1:]) // 8


def share(model: Any, *, adopt: bool = False) -> Image:
    """Copies a model into shared memory, for several pools, or to save it.

    With `adopt`, large arrays are not copied (Linux, glibc): their memory becomes a copy-on-write view of the image, so that the model is in
    memory once. They keep their contents, their addresses, and stay writable; what is written later stays in this process. The peak of
    memory is the model and a few MiB. No other thread may write the model's arrays during the call, also no library that has released the
    interpreter's lock, and no device may have their memory pinned. Arrays whose memory is of another origin are copied, such as those of
    `numpy.memmap`, of Arrow, or of a replaced `malloc`. `Image.adopted` has the bytes for which it was possible.

    Arrays of `empty` are shared where they are, without `adopt`.
    """
    buffers: list[pickle.PickleBuffer] = []

    def is_small(buffer: pickle.PickleBuffer) -> bool:
        if buffer.raw().nbytes < MIN_SHARED:
            return True
        buffers.append(buffer)
        return False

    data = _pickle.dumps_out_of_band(model, is_small)
    parts: list[tuple[str, str, list[int], Any, bool]] = []
    beside: dict[int, _Beside | None] = {}
    for number, buffer in enumerate(buffers):
        dtype, shape, raw = _tensor(buffer)
        owner = _owner(buffer)
        if isinstance(owner, _core.SharedMemory) and (start := owner.position(raw)) is not None:
            if id(owner) not in beside:
                segment = owner.freeze()
                beside[id(owner)] = None if segment is None else _Beside(segment, [])
            if (found := beside[id(owner)]) is not None:
                found.arrays.append(_Array(number, dtype, shape, start, raw.nbytes))
                continue
        parts.append((f"array.{number}", dtype, shape, raw, adopt and _is_malloced(owner)))
    parts.append((PICKLE, "U8", [len(data)], data, False))
    return Image(_core.write_image(parts), [it for it in beside.values() if it is not None])


def empty(shape: SupportsIndex | Iterable[SupportsIndex], dtype: Any = float) -> Any:
    """Returns an array of NumPy in shared memory, of zeros. `share` and `Pool` take it where it is, without a copy.

    They do so once. What is written to it later stays in this process, and then it is shared as any array: it is copied.

    >>> import invokerpool as ip
    >>> items = ip.empty((1000, 64), "float32")
    >>> items[7] = 0.5
    >>> with ip.Pool(items, lambda items, n: float(items[n].sum()), workers=1) as pool:
    ...     list(pool.map([7, 8]))
    [32.0, 0.0]
    """
    import numpy as np

    dtype = np.dtype(dtype)
    if dtype.hasobject:
        raise ValueError(f"elements of type {dtype} are objects, which cannot lie in shared memory; use a type of numbers")
    shape = (shape,) if isinstance(shape, SupportsIndex) else tuple(shape)
    size = math.prod(map(operator.index, shape)) * dtype.itemsize
    memory: Any = _core.SharedMemory(max(1, size))
    return np.ndarray(shape, dtype, buffer=memory)


def load(path: str | os.PathLike[str], *, max_bytes: int | None = None) -> Image:
    """Loads an image that `Image.save` has written into shared memory. A compressed one is decoded into its place.

    The file's pickle runs code when it is unpickled: load only files that you trust.
    """
    return Image(_core.load_image(os.fspath(path), max_bytes), path=os.path.abspath(path))


def _load_same(path: str, fingerprint: int) -> Image:
    """Loads an image that was pickled in another process, and checks that the file has the same contents."""
    image = load(path)
    image._checksum = found = image._core.checksum()
    if found != fingerprint:
        raise ValueError(
            f"the image {path} has the checksum {found:016x} here, and {fingerprint:016x} where it was pickled; wait until the file is the"
            " same on all nodes, or send the new image"
        )
    return image
