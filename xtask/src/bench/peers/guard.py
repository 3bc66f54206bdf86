"""Runs one measure of one pool with a time limit, and leaves nothing of it behind.

guard.py SECONDS ARGUMENT... runs peers.py with the arguments, and prints its numbers as one JSON object, with `failed` if
it did not succeed. Servers that pools start in sessions of their own are found because this process
adopts the orphans among its descendants (Linux); they, temporary files and shared memory are gone when it ends.
"""

import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LINUX = sys.platform == "linux"
# Prefixes of segments and semaphores of the pools, which have no other mark of their creator.
NAMES = ("psm_", "sem.mp-", "sem.loky-", "torch_", "joblib_memmapping_folder_", "plasma", "wnsm_")
SHM = Path("/dev/shm")
# Seconds in which servers must exit by themselves.
GRACE = 3


def adopt():
    """Makes orphans of this process its children, and ends it when its parent exits."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
    libc.prctl(1, signal.SIGTERM, 0, 0, 0)  # PR_SET_PDEATHSIG


def descendants():
    """The pids of living descendants, by the parents that /proc shows."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            except OSError:
                continue
            if state not in "ZX":
                parents[int(entry.name)] = int(parent)
    found, fresh = set(), {os.getpid()}
    while fresh:
        fresh = {pid for pid, parent in parents.items() if parent in fresh}
        found |= fresh
    return found


def reap():
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def end_all(grace):
    """Waits for descendants to exit, kills those that do not, and returns how many those were."""
    until, killed = time.monotonic() + grace, set()
    while alive := descendants():
        if time.monotonic() > until:
            killed |= alive
            for pid in alive:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
        time.sleep(0.02)
        reap()
    return len(killed)


def segments():
    """Paths in shared memory whose names look like those of the pools."""
    if not SHM.is_dir():
        return set()
    return {entry for entry in SHM.iterdir() if entry.name.startswith(NAMES)}


def in_use():
    """All paths that a process maps or holds open."""
    paths = set()
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            maps = (process / "maps").read_text(errors="replace").splitlines()
            paths |= {line.split(maxsplit=5)[5] for line in maps if SHM.name in line and line.count(" ") > 5}
            paths |= {os.readlink(link) for link in (process / "fd").iterdir()}
        except OSError:
            continue
    return paths


def remove_segments(before):
    """Removes unused remains of the pools in shared memory, and returns their size in bytes."""
    left = segments() - before
    used = in_use() if left else set()
    size = 0
    for entry in left:
        files = [entry, *entry.rglob("*")] if entry.is_dir() else [entry]
        if any(str(file) in used for file in files):
            continue
        size += sum(file.stat().st_size for file in files if file.is_file())
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    return size


def merged(text):
    """Merges all objects. The last line may have been cut off."""
    numbers = {}
    for line in text.splitlines():
        try:
            numbers |= json.loads(line)
        except (ValueError, TypeError):
            continue
    return numbers


def complaint(text):
    """The last line with an error, or else the last line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "Error" in line.partition(":")[0]]
    return (errors or lines or ["it printed nothing"])[-1][:120]


def environment(home):
    """Variables that keep pools from writing into a home directory, and from reporting their use."""
    places = {name: home for name in ("HOME", "TMPDIR", "TMP", "TEMP", "IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "DASK_CONFIG")}
    one = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
    quiet = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0", "PYTHONWARNINGS": "ignore"}
    # Also for workers that are other programs.
    return os.environ | places | one | quiet | {"PYTHONPATH": str(Path(__file__).parent)}


def run(limit, arguments, home):
    printed, complained = Path(home, "printed"), Path(home, "complained")
    script = Path(__file__).with_name("peers.py")
    with printed.open("wb") as output, complained.open("wb") as errors:
        child = subprocess.Popen(
            [sys.executable, str(script), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            env=environment(home),
            cwd=home,
            start_new_session=True,
        )
        try:
            status = child.wait(limit)
            failed = None if status == 0 else complaint(complained.read_text(errors="replace"))
        except subprocess.TimeoutExpired:
            failed = f"not done after {limit:.0f} s"
            child.kill()
            child.wait()
    numbers = merged(printed.read_text(errors="replace"))
    return numbers | ({"failed": failed} if failed else {})


def main():
    limit, arguments = float(sys.argv[1]), sys.argv[2:]
    # An exception, so that everything is cleaned up.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    if LINUX:
        adopt()
    before = segments()
    home = tempfile.mkdtemp(prefix="peer")
    numbers = {}
    try:
        numbers = run(limit, arguments, home)
        if LINUX:
            numbers["left_processes"] = end_all(GRACE)
    finally:
        if LINUX:
            end_all(0)
            numbers["left_bytes"] = remove_segments(before)
        shutil.rmtree(home, ignore_errors=True)
    print(json.dumps(numbers), flush=True)


if __name__ == "__main__":
    main()
