"""Models that are in memory once: arrays that an image adopts, and arrays that are built in shared memory."""

import json
import os
import platform
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

import invokerpool as ip
from invokerpool.tests import programs

adopts = pytest.mark.skipif(
    sys.platform != "linux" or platform.libc_ver()[0] != "glibc", reason="adopts memory of glibc's malloc"
)
MIB = 1 << 20


def address(array):
    return array.__array_interface__["data"][0]


def make():
    base = np.arange(1_000_000.0)
    return {
        "plain": np.arange(700_000, dtype="i4"),
        "fortran": np.asfortranarray(np.arange(1_000_000, dtype="f8").reshape(1000, 1000)),
        "view": base[1000:900_000],
        "base": base,
        "readonly": np.ones(500_000),
        "small": np.arange(2000),
        "strided": np.arange(800_000.0)[::2],
    }


def check_equal(model, expected):
    for name, array in model.items():
        assert np.array_equal(array, expected[name]), name
        # A strided array is packed when it is pickled.
        assert array.flags.f_contiguous or name not in ("fortran", "turned"), name


@adopts
def test_adopted_arrays_keep_contents_and_addresses_and_stay_writable():
    model, expected = make(), make()
    model["readonly"].flags.writeable = False
    before = {name: address(array) for name, array in model.items()}
    image = ip.share(model, adopt=True)
    # Each loses up to two pages; `base` and its view share their memory.
    assert sum(model[name].nbytes - 8192 for name in ("plain", "fortran", "base", "readonly")) <= image.adopted
    assert image.adopted <= sum(array.nbytes for array in model.values())
    assert before == {name: address(array) for name, array in model.items()}
    check_equal(model, expected)
    for name, array in model.items():
        if name != "readonly":
            array[...] = 77

    def op(model, name):
        total = float(model[name].sum())
        if model[name].flags.writeable:
            model[name][...] = -1
        return total

    with ip.Pool(image, op, workers=2) as pool:
        for name, total in zip(model, pool.map(model)):
            assert total == expected[name].sum(), name
        text = str(pool.report())
        assert "of them the model's own arrays" in text and "of its own and" in text, text
        assert len(pool.report().pages) == 2
    check_equal(image.unpickle(), expected)
    del image
    assert all((array == 77).all() for name, array in model.items() if name != "readonly")
    # Once more: the image has the bytes that were written since.
    again = ip.share(model, adopt=True)
    assert again.adopted > 0
    check_equal(again.unpickle(), model)


@adopts
def test_memory_of_another_origin_is_copied(tmp_path):
    path = tmp_path / "array"
    np.arange(1_000_000.0).tofile(path)
    model = [
        np.memmap(path, mode="r+"),
        np.frombuffer(bytearray(4 * MIB), dtype="u1"),
        np.frombuffer(bytes(4 * MIB), dtype="u1"),
        ip.empty(MIB),
    ]
    image = ip.share(model, adopt=True)
    assert image.adopted == 0
    model[0][:8] = 255
    model[1][0] = 1
    shared = image.unpickle()
    assert shared[0][7] == 0 and shared[1][0] == 0


@adopts
def test_a_replaced_malloc_adopts_nothing(tmp_path):
    source, library = tmp_path / "malloc.c", tmp_path / "malloc.so"
    source.write_text(
        "#include <stddef.h>\nvoid *__libc_malloc(size_t); void *malloc(size_t size) { return __libc_malloc(size); }\n"
    )
    try:
        subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("there is no C compiler")
    code = "import numpy, invokerpool as ip; print(ip.share(numpy.ones(10**6), adopt=True).adopted)"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    for preload, adopted in (("", True), (str(library), False)):
        env["LD_PRELOAD"] = preload
        out = subprocess.run([sys.executable, "-c", code], env=env, check=True, capture_output=True, text=True).stdout
        assert (int(out) > 0) == adopted, preload


@adopts
def test_default_is_a_copy():
    model = np.ones(MIB)
    image = ip.share(model)
    assert image.adopted == 0 and "memfd" not in region_of(model)


def region_of(array):
    with open("/proc/self/maps") as maps:
        for line in maps:
            start, end = (int(part, 16) for part in line.split()[0].split("-"))
            if start <= address(array) + array.nbytes // 2 < end:
                return line
    raise AssertionError("it is mapped nowhere")


FUZZ = """
import ctypes, gc, os, random, sys, threading
import numpy as np
import invokerpool as ip

seed, steps = int(sys.argv[1]), int(sys.argv[2])
rng = random.Random(seed)
libc = ctypes.CDLL(None)
arrays, shadows, images = [], [], []

def make():
    # Below and above glibc's threshold for memory of its own, which grows.
    size = rng.choice([1 << 18, 1 << 20, 3 << 20, 9 << 20]) + rng.randrange(5000)
    made = rng.randrange(4)
    if made == 0:
        return np.random.default_rng(rng.randrange(1 << 30)).integers(0, 255, size, dtype="u1")
    if made == 1:
        return np.zeros(size, "u1")
    if made == 2:
        return np.full((size // 64, 8), rng.random())
    return np.arange(size // 8, dtype="f8")

def add():
    arrays.append(make())
    shadows.append(arrays[-1].tobytes())

def in_thread(function):
    # Memory of another arena.
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()

def check(some):
    for at in some:
        assert arrays[at].tobytes() == shadows[at], (seed, at)

def fork():
    pid = os.fork()
    if pid == 0:
        try:
            for at in range(len(arrays)):
                assert arrays[at].tobytes() == shadows[at]
                arrays[at].reshape(-1)[:] = 1
            os._exit(0)
        except BaseException:
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0, seed

adopted = 0
for step in range(steps):
    what = rng.randrange(12)
    if what < 3 or not arrays:
        add() if rng.random() < 0.6 else in_thread(add)
    elif what < 6:
        some = rng.sample(range(len(arrays)), min(len(arrays), 3))
        image = ip.share([arrays[at] for at in some], adopt=True)
        adopted += image.adopted
        images.append((image, [shadows[at] for at in some]))
        check(some)
    elif what == 6:
        at = rng.randrange(len(arrays))
        flat = arrays[at].reshape(-1)
        flat[rng.randrange(flat.size):] = rng.randrange(100)
        shadows[at] = arrays[at].tobytes()
    elif what == 7:
        # The memory is reallocated: grown, or shrunk.
        at = rng.randrange(len(arrays))
        array = arrays[at]
        size = max(1, int(array.size * rng.choice([0.1, 0.5, 1.0, 1.3, 2.0])))
        old = array.reshape(-1)[: min(size, array.size)].tobytes()
        array.resize(size, refcheck=False)
        assert array.tobytes()[: len(old)] == old, seed
        assert not any(array.tobytes()[len(old):]), (seed, "what is new is zero")
        shadows[at] = array.tobytes()
    elif what == 8:
        at = rng.randrange(len(arrays))
        arrays.pop(at), shadows.pop(at)
        if rng.random() < 0.5:
            libc.malloc_trim(0)
    elif what == 9 and images:
        image, expected = images.pop(rng.randrange(len(images)))
        assert [part.tobytes() for part in image.unpickle()] == expected, seed
    elif what == 10:
        # Memory that was freed before is reused.
        zeros = [np.zeros(rng.choice([1 << 17, 1 << 20, 5 << 20]), "u1") for _ in range(3)]
        assert not any(part.any() for part in zeros), seed
    else:
        fork() if rng.random() < 0.4 else check(range(len(arrays)))
    while sum(len(shadow) for shadow in shadows) > 60 << 20:
        arrays.pop(0), shadows.pop(0)
    while len(images) > 4:
        images.pop(0)
check(range(len(arrays)))
print(adopted)
"""


@adopts
def test_random_uses_of_adopted_memory_change_no_array():
    seed = time.time_ns() % (1 << 32)
    print("seed", seed)
    status, out, err = programs.run(FUZZ, str(seed), "150", timeout=300)
    assert status == 0, (seed, err)
    assert int(out) > 10 * MIB


MEASURED = """
import json, sys
import numpy as np
import invokerpool as ip
size, how = int(sys.argv[1]), sys.argv[2]
model = ip.empty(size // 8) if how == "empty" else np.empty(size // 8)
model[:] = 3
print("filled", flush=True)
sys.stdin.readline()
image = ip.share(model, adopt=how == "adopt")
print("shared", flush=True)
sys.stdin.readline()
with ip.Pool(image, lambda model, n: float(model.sum()), workers=2) as pool:
    assert set(pool.map(range(8))) == {3.0 * (size // 8)} and model.sum() == 3.0 * (size // 8)
    print(json.dumps(pool.pids), flush=True)
    sys.stdin.readline()
"""


def held(pid):
    """The private memory of a process, and the memory in shared memory that it has.

    The process goes on between the two readings. What has moved from private to shared memory meanwhile is not counted, so that this is at
    most what it has.
    """
    segments = {}
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            if "memfd:shm-buffers" in os.readlink(f"/proc/{pid}/fd/{name}"):
                stat = os.stat(f"/proc/{pid}/fd/{name}")
                segments[stat.st_ino] = stat.st_blocks * 512
        except OSError:
            pass
    with open(f"/proc/{pid}/status") as status:
        found = next(int(line.split()[1]) << 10 for line in status if line.startswith("RssAnon"))
    return found + sum(segments.values())


def pss(pid):
    with open(f"/proc/{pid}/smaps_rollup") as lines:
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:"))


def measure(size, how):
    """The memory before sharing, the peak while it shares, and the sum of PSS with two workers."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", MEASURED, str(size), how]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=env) as program:
        try:
            assert program.stdout.readline() == "filled\n"
            before = peak = held(program.pid)
            ended = threading.Event()

            def sample():
                nonlocal peak
                while not ended.is_set():
                    peak = max(peak, held(program.pid))

            sampler = threading.Thread(target=sample)
            sampler.start()
            try:
                program.stdin.write("\n")
                program.stdin.flush()
                assert program.stdout.readline() == "shared\n"
            finally:
                ended.set()
                sampler.join()
            program.stdin.write("\n")
            program.stdin.flush()
            pids = json.loads(program.stdout.readline())
            total = sum(map(pss, [program.pid, *pids]))
        finally:
            program.kill()
    return before, peak, total


@adopts
@pytest.mark.parametrize("how", ["adopt", "empty"])
def test_the_model_is_in_memory_once(how):
    size = 128 * MIB
    *_, interpreters = measure(4096, how)
    before, peak, total = measure(size, how)
    print(f"before {before / MIB:.1f}, peak {peak / MIB:.1f}, PSS {total / MIB:.1f}, interpreters {interpreters / MIB:.1f} MiB")
    assert size < before < peak * 1.01
    assert peak <= before + size // 10
    assert total <= size + 1.05 * interpreters


def test_arrays_of_shared_memory_are_shared_once_and_in_place(tmp_path):
    items = ip.empty((500, 300), "f4")
    assert items.flags.writeable and items.flags.c_contiguous and not items.any()
    items[:] = np.arange(150_000).reshape(500, 300)
    expected = items.copy()
    model = {"items": items, "turned": items.T, "part": items[100:], "other": np.arange(5000.0), "name": "model"}
    where = address(items)
    image = ip.share(model)
    if sys.platform == "linux":
        assert image._core.byte_len() < items.nbytes, "it is not in the image"
    assert image.nbytes > items.nbytes
    assert [name for name, *_ in image.tensors()] == [f"array.{n}" for n in range(4)]
    items += 1
    assert address(items) == where

    def op(model, writes):
        totals = [float(model[name].sum()) for name in ("items", "turned", "part", "other")]
        if writes:
            model["items"][:] = 0
        return totals

    totals = [float(part.sum()) for part in (expected, expected.T, expected[100:], np.arange(5000.0))]
    for writable in (True, False):
        with ip.Pool(image, op, workers=2, writable=writable) as pool:
            assert list(pool.map([False] * 10)) == [totals] * 10
            list(pool.map_unordered([True] * 4, errors="return"))
    assert np.array_equal(items, expected + 1)
    path = tmp_path / "model.safetensors"
    image.save(path, compression="zstd")
    loaded = ip.load(path).unpickle()
    assert np.array_equal(loaded["items"], expected) and loaded["turned"].flags.f_contiguous
    # The second time, its present contents are copied.
    assert np.array_equal(ip.share(model).unpickle()["items"], expected + 1)
    with ip.Pool(image, op, executor="inline") as pool:
        assert list(pool.map([False])) == [totals]


def test_arrays_of_shared_memory_have_any_shape_of_numbers():
    for shape in (0, 5, (), (3, 0), (2, 3, 4), [4, 5]):
        array = ip.empty(shape, "i2")
        assert array.shape == np.empty(shape).shape and not array.any()
        assert np.array_equal(ip.share([array]).unpickle()[0], array)
    assert ip.empty(3).dtype == np.float64
    with pytest.raises(ValueError, match="objects"):
        ip.empty(3, object)
    with pytest.raises(MemoryError):
        ip.empty(1 << 50, "u1")
