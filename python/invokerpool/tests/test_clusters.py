"""The recipes for several nodes, where their packages are installed. The nodes are processes of this machine."""

import importlib.util
import os
import pickle
import shutil
import subprocess
import sys

import numpy as np
import pytest

import invokerpool as ip
from invokerpool.examples import on_dask, on_ipyparallel, on_ray


def needs(*packages):
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    return pytest.mark.skipif(bool(missing), reason=f"{', '.join(missing)} not installed")


@pytest.fixture
def items(tmp_path):
    path = str(tmp_path / "items.safetensors")
    items = np.random.default_rng(1).random((5000, 32))
    ip.share(items).save(path)
    return path, [on_dask.best(items, user) for user in range(1000)]


@needs("distributed")
def test_dask(items):
    path, expected = items
    assert on_dask.main(path) == expected


@needs("ipyparallel")
def test_ipyparallel(items):
    path, expected = items
    assert on_ipyparallel.main(path) == expected


@needs("ray")
def test_ray(items, monkeypatch):
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    path, expected = items
    assert on_ray.main(path, log_to_driver=False, object_store_memory=100 << 20) == expected


@needs("mpi4py")
def test_mpi(items):
    path, expected = items
    mpiexec = shutil.which("mpiexec", path=os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"])
    if mpiexec is None:
        pytest.skip("there is no mpiexec")
    program = [mpiexec, "-n", "2", sys.executable, "-m", "invokerpool.examples.on_mpi", path]
    done = subprocess.run(program, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert [int(word) for word in done.stdout.split()] == expected


def test_a_lazy_pool_starts_once_in_each_process(items):
    path, expected = items
    pool = ip.Pool.lazy(ip.load(path), on_dask.best, workers=1)
    assert "_core" not in pool.__dict__

    def inner(task):
        users = [task]
        return list(pool.map(users)), pool.pids

    with ip.Pool(op=inner, workers=1) as outer:
        found = list(outer.map([5, 6]))
    assert [output for output, _ in found] == [[expected[5]], [expected[6]]]
    assert found[0][1] == found[1][1]
    assert "_core" not in pool.__dict__


def test_a_lazy_pool_that_was_closed_starts_anew():
    for _ in range(2):
        with ip.Pool.lazy(op=abs, workers=1) as pool:
            assert list(pool.map([-3])) == [3]


def test_an_image_is_refused_if_its_file_has_changed(items):
    path, _ = items
    data = pickle.dumps(ip.load(path))
    ip.share(np.zeros(5000)).save(path)
    with pytest.raises(ValueError, match="checksum .* where it was pickled"):
        pickle.loads(data)


def test_what_cannot_be_sent_says_what_can():
    with ip.Pool(op=abs, workers=1) as pool, pytest.raises(pickle.PicklingError, match="Pool.lazy"):
        pickle.dumps(pool)
    with pytest.raises(TypeError, match="share"):
        ip.Pool.lazy(np.zeros(5000), abs)
    with pytest.raises(pickle.PicklingError, match="save it"):
        pickle.dumps(ip.share(np.zeros(5000)))
