"""Models as images: shared, saved, loaded."""

import os
import pickle

import numpy as np
import pytest

import invokerpool as ip


class Model:
    def __init__(self):
        self.weights = np.arange(60_000, dtype="f4").reshape(300, 200)
        self.fortran = np.asfortranarray(self.weights)
        self.names = ["a", "b"]
        self.small = np.arange(3)
        self.records = np.zeros(5_000, dtype=[("a", "i4"), ("b", "f8")])


def check(model):
    expected = Model()
    for name in ("weights", "fortran", "small", "records"):
        array = getattr(model, name)
        assert array.dtype == getattr(expected, name).dtype
        assert array.flags.f_contiguous == getattr(expected, name).flags.f_contiguous
        np.testing.assert_array_equal(array, getattr(expected, name))
    assert model.names == expected.names
    return float(model.weights.sum())


def test_an_image_serves_several_pools():
    image = ip.share(Model())
    assert {dtype for _, dtype, _ in image.tensors()} == {"F32", "U8"}
    assert ("array.0", "F32", (300, 200)) in image.tensors()
    assert 60_000 * 8 < image.nbytes < 60_000 * 8 + 200_000
    op = lambda model, task: check(model) + task  # noqa: E731
    for workers in (1, 2):
        with ip.Pool(image, op, workers=workers) as pool:
            total = float(Model().weights.sum())
            assert list(pool.map([1, 2])) == [total + 1, total + 2]
    check(image.unpickle())
    with pytest.raises(ValueError):
        image.unpickle(writable=False).weights[0, 0] = 1


@pytest.mark.parametrize("compression", [None, "zstd", 1])
def test_an_image_is_saved_and_loaded(tmp_path, compression):
    path = tmp_path / "model.safetensors"
    ip.share(Model()).save(path, compression=compression, mode=0o600)
    assert os.stat(path).st_mode & 0o777 == 0o600
    image = ip.load(path)
    check(image.unpickle())
    with ip.Pool(image, lambda model, task: check(model), workers=1) as pool:
        assert len(list(pool.map([1]))) == 1
    # An image of a file is pickled as its path.
    check(pickle.loads(pickle.dumps(image)).unpickle())


def test_wrong_images_are_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    with pytest.raises(OSError, match="model.safetensors"):
        ip.load(path)
    path.write_bytes(b"no image")
    with pytest.raises(OSError):
        ip.load(path)
    ip.share(Model()).save(path)
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)
    with pytest.raises(OSError, match="checksum|changed"):
        ip.load(path)
    with pytest.raises(ValueError, match="compression"):
        ip.share(1).save(path, compression="brotli")
    with pytest.raises(pickle.PicklingError, match="save it"):
        pickle.dumps(ip.share(1))


def test_a_model_in_memory_twice_is_shared_once():
    array = np.arange(100_000)
    image = ip.share({"one": array, "two": array})
    assert image.nbytes < 100_000 * 8 + 10_000
