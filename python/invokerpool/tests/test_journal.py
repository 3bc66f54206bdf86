"""Journals: maps that go on where the process before ended."""

import functools
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import invokerpool as ip
from invokerpool import _journal, journal
from invokerpool.tests import programs

linux = pytest.mark.skipif(sys.platform != "linux", reason="kills and limits processes as on Linux")


def square(model, n):
    """The op: counts its runs in a file."""
    with open(model["runs"], "a") as runs:
        runs.write(".")
    return n * n, "x" * (n % 7)


@pytest.fixture
def job(tmp_path):
    """A model whose op counts its runs, and the path of a journal."""
    runs = tmp_path / "runs"
    runs.touch()
    return {"runs": str(runs)}, tmp_path / "journal"


def count(job):
    """The number of runs since the last call."""
    before = job[0].get("before", 0)
    now = os.path.getsize(job[0]["runs"])
    job[0]["before"] = now
    return now - before


def start(job, op=square, tasks=range(1000), *, how="map", **options):
    """Runs the job to its end. Returns its outputs and the report's counts."""
    model = {"runs": job[0]["runs"]}
    in_map = {name: options.pop(name) for name in ("journal", "errors") if name in options}
    with ip.Pool(model, op, workers=1, **options) as pool:
        outputs = list(getattr(pool, how)(tasks, **{"journal": job[1], **in_map}))
        return outputs, pool.report().journal


EXPECTED = [(n * n, "x" * (n % 7)) for n in range(1000)]


def test_outputs_of_the_file_come_in_order_and_only_the_others_run(job):
    with ip.Pool({"runs": job[0]["runs"]}, square, workers=2) as pool:
        outputs = pool.map(range(1000), journal=job[1])
        assert [next(outputs) for _ in range(300)] == EXPECTED[:300]
        outputs.close()
        first = pool.report().journal
    assert 300 <= first.written <= count(job) and first.read == 0
    outputs, counts = start(job)
    assert outputs == EXPECTED
    assert counts.read == first.written
    assert counts.written == count(job) == 1000 - counts.read
    outputs, counts = start(job)
    assert outputs == EXPECTED
    assert (counts.read, counts.written, count(job)) == (1000, 0, 0)
    outputs, counts = start(job, how="map_unordered")
    assert sorted(outputs) == EXPECTED and counts.read == 1000


def test_the_report_tells_what_came_from_the_journal(job):
    start(job)
    with ip.Pool({"runs": job[0]["runs"]}, square, workers=2) as pool:
        assert pool.report().journal is None
        list(pool.map(range(1000), journal=job[1]))
        assert "journal   1000 outputs read, 0 written" in str(pool.report())
        assert "outputs read" in pool.report()._repr_html_()


def test_any_output_comes_back(tmp_path):
    def op(n):
        return [None, np.arange(50_000.0), {"a": (1, 2.5)}, {1, 2}, b"", np.float32(3)][n]

    with ip.Pool(op=op, workers=1) as pool:
        first, second = (list(pool.map(range(6), journal=tmp_path / "journal")) for _ in range(2))
        assert pool.report().journal.read == 6
    assert repr(first) == repr(second)
    assert np.array_equal(first[1], second[1]) and second[1].flags.writeable
    assert type(second[5]) is np.float32


def test_exceptions_run_again_unless_they_are_kept(job):
    def risky(model, n):
        square(model, n)
        if n == 3:
            raise KeyError("three")
        if n == 5:
            os._exit(9)
        return n

    for options, again in [({}, 2), ({"faults": "keep"}, 2), ({"faults": "keep"}, 0), ({}, 2)]:
        file = ip.Journal(job[1], op="risky", **options)
        outputs, counts = start(job, risky, range(8), journal=file, errors="return")
        assert [output for output in outputs if isinstance(output, int)] == [0, 1, 2, 4, 6, 7]
        assert isinstance(outputs[3], KeyError) and "In a worker" in outputs[3].__notes__[0]
        if again:
            assert isinstance(outputs[5], ip.WorkerDied) and outputs[5].exitcode == 9
        else:
            assert type(outputs[5]) is ip.TaskFailed and "status 9" in str(outputs[5]), outputs[5]
        assert outputs[5].task == 5
        assert count(job) == (8 if counts.read == 0 else again), (options, counts)


def test_tasks_that_cannot_be_pickled_fail_each_time(job):
    tasks = [1, (n for n in ()), 2]
    for read in (0, 2):
        outputs, counts = start(job, tasks=tasks, errors="return")
        assert outputs[0] == EXPECTED[1] and outputs[2] == EXPECTED[2]
        assert isinstance(outputs[1], TypeError)
        assert counts.read == read


def test_another_input_is_an_error_with_the_first_task_and_both_hashes(job):
    start(job)
    with pytest.raises(ip.TasksDiffer) as caught:
        start(job, tasks=[*range(500), 0, *range(501, 1000)])
    error = caught.value
    assert error.first <= 500 <= error.last < error.first + 128
    assert error.stored != error.found and isinstance(error.stored, int)
    assert f"{error.stored:016x}" in str(error) and "same input" in str(error)
    assert isinstance(pickle.loads(pickle.dumps(error)), ip.TasksDiffer)
    with pytest.raises(ip.TasksDiffer, match="ends after 10 tasks"):
        # Also where errors of tasks are outputs.
        start(job, tasks=range(10), errors="return")
    assert start(job, tasks=range(1200))[1].read == 1000


def test_another_job_is_refused_with_what_differs(job):
    def changed(model, n):
        return n

    changed.__qualname__, changed.__module__ = square.__qualname__, square.__module__
    start(job, tasks=range(10))
    for what, options in [
        ("the op", {"op": changed}),
        ("the op", {"journal": ip.Journal(job[1], op="square")}),
        ("the op", {"op": lambda model, state, n: n, "state": lambda model: 1}),
        ("the model", {"journal": ip.Journal(job[1], model="1")}),
        ("the seed", {"seed": 3}),
    ]:
        with pytest.raises(ip.JournalDiffers, match="another path") as caught:
            start(job, tasks=range(10), **options)
        assert caught.value.what == what, options
        assert caught.value.stored != caught.value.current
    other = {**job[0], "more": 1}
    with ip.Pool(other, square, workers=1) as pool, pytest.raises(ip.JournalDiffers, match="the model"):
        pool.map(range(10), journal=job[1])
    (job[1].parent / "other").write_bytes(b"something else, but long enough")
    with pytest.raises(ip.JournalError, match="is not a journal"):
        start(job, journal=job[1].parent / "other")
    assert start(job, tasks=range(10))[1].read == 10


def test_names_identify_an_op_and_a_model(job):
    named = ip.Journal(job[1], op="square 1", model="v1")
    start(job, journal=named)
    with ip.Pool({**job[0], "more": 1}, lambda model, n: n / 0, workers=1) as pool:
        assert list(pool.map(range(1000), journal=named)) == EXPECTED


def test_functions_are_described_by_name_and_code():
    def make(k, text="a"):
        return lambda n, more={"x", "y"}: [k * n in (1, 2), n in {"p", "q", "r"}, (lambda: text)()]

    one = _journal.describe(make(1))
    assert one == _journal.describe(make(1)) and "<lambda>, code " in one
    assert len({one, _journal.describe(make(2)), _journal.describe(make(1, "b"))}) == 3
    assert _journal.describe(abs) == "builtins.abs"
    assert _journal.describe(functools.partial(abs, 1)) == "partial of builtins.abs"
    code = "import functools, invokerpool._journal as j\nf = lambda n, s={1}: n in {'a', 'b', 'c'}\nprint(j.describe(f))"
    texts = {programs.run(code)[1] for _ in range(3)}
    assert len(texts) == 1 and texts.pop().startswith("__main__.<lambda>, code ")


def test_a_journal_has_one_leader(job):
    held = """
    import sys, time
    import invokerpool as ip
    with ip.Pool(op=abs, workers=1) as pool:
        outputs = pool.map(range(100), journal=sys.argv[1])
        next(outputs)
        print("open", flush=True)
        time.sleep(600)
    """
    program = programs.start(held, str(job[1]))
    assert program.stdout.readline() == "open\n"
    with ip.Pool(op=abs, workers=1) as pool:
        with pytest.raises(ip.JournalInUse, match=f"process {program.pid}") as caught:
            pool.map(range(100), journal=job[1])
        assert caught.value.pid == program.pid
        program.kill()
        program.communicate()
        outputs = pool.map(range(100), journal=job[1])
        next(outputs)
        with pytest.raises(ip.JournalInUse) as caught:
            pool.map(range(100), journal=job[1])
        assert caught.value.pid == os.getpid()
        # An iteration that is given up ends the use.
        del outputs
        assert list(pool.map(range(100), journal=job[1])) == list(range(100))


def test_a_torn_end_is_cut_and_damage_is_refused_and_salvaged(job, capsys):
    for end in (30, 40, 50):
        start(job, tasks=range(end))
    whole = job[1].read_bytes()
    job[1].write_bytes(whole[:-3])
    outputs, counts = start(job, tasks=range(50))
    assert outputs == EXPECTED[:50]
    assert counts.torn > 0 and counts.read == 40
    damaged = bytearray(whole)
    damaged[whole.index(b"\xf5JB\n", whole.index(b"\xf5JB\n") + 1) + 40] ^= 1
    job[1].write_bytes(damaged)
    with pytest.raises(ip.JournalDamaged, match=r"python -m invokerpool\.journal salvage") as caught:
        start(job, tasks=range(50))
    assert 0 < caught.value.offset < len(whole)
    copy = str(job[1].parent / "copy")
    assert journal.main(["salvage", str(job[1]), copy, "--op", "square 2"]) == 0
    assert journal.main(["list", copy]) == 0
    printed = capsys.readouterr().out
    assert "20 tasks from" in printed and 'the op\tnamed \\"square 2\\"' in printed, printed
    outputs, counts = start(job, tasks=range(50), journal=ip.Journal(copy, op="square 2"))
    assert outputs == EXPECTED[:50] and counts.read == 20
    assert journal.main(["salvage", str(job[1]), copy]) == 1
    assert "it exists" in capsys.readouterr().err


FULL = """
import logging, resource, sys
import invokerpool as ip
logging.basicConfig(level="WARNING", format="%(message)s")
path, how = sys.argv[1:]
with ip.Pool(op=lambda n: bytes([n % 251]) * 1000, workers=2) as pool:
    journal = ip.Journal(path, op="bytes", on_write_error=how, sync_interval=0.004)
    outputs = []
    # A batch that does not fit is lost as a whole: the first one does.
    list(pool.map(range(100), journal=journal))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 18, resource.RLIM_INFINITY))
    try:
        for output in pool.map(range(20_000), journal=journal):
            outputs.append(output)
    except ip.JournalWriteFailed as error:
        print("errno", error.errno)
    assert outputs == [bytes([n % 251]) * 1000 for n in range(len(outputs))]
    print(len(outputs), pool.report().journal.failed)
"""


@linux
@pytest.mark.parametrize("how", ["raise", "continue"])
def test_a_full_disk_ends_the_run_or_the_journal_and_keeps_what_was_written(tmp_path, how):
    path = str(tmp_path / "journal")
    status, out, err = programs.run(FULL, path, how)
    assert status == 0, err
    if how == "raise":
        assert "errno 27\n" in out, out
    else:
        assert out.startswith("20000 cannot write the journal"), out
        assert "the run has gone on without it" in err
    # The records before it stay readable.
    with ip.Pool(op=lambda n: b"", workers=1) as pool:
        outputs = pool.map(range(20_000), journal=ip.Journal(path, op="bytes"))
        assert [next(outputs) for _ in range(100)] == [bytes([n]) * 1000 for n in range(100)]
    assert "damaged\t0 bytes" in ip.Journal(path).info()


OF_MAIN = """
import abc, dataclasses, enum, sys
import numpy as np
import invokerpool as ip

class Kind(enum.Enum):
    PLAIN, SCALED = 1, 2

class Base(abc.ABC):
    @abc.abstractmethod
    def at(self, n): ...

@dataclasses.dataclass
class Model(Base):
    values: np.ndarray
    kind: Kind

    def at(self, n):
        return float(self.values[n] * FACTOR)

@dataclasses.dataclass
class Task:
    n: int
    kind: Kind = Kind.SCALED

FACTOR = 3
model = Model(np.arange(5000.0), Kind.SCALED)

def op(model, task):
    assert isinstance(model, Base) and model.kind is task.kind
    return model.at(task.n)

with ip.Pool(model, op, workers=2, seed=int(sys.argv[2]) or None) as pool:
    print(sum(pool.map(map(Task, range(100)), journal=sys.argv[1])), pool.report().journal)
"""


@pytest.mark.parametrize("seed", ["0", "3"])
def test_a_run_with_classes_of_main_goes_on_in_another_process(tmp_path, seed):
    path = str(tmp_path / "journal")
    for counts in ["read=0, written=100", "read=100, written=0"]:
        status, out, err = programs.run(OF_MAIN, path, seed)
        assert status == 0 and out.startswith("14850.0 ") and counts in out, (out, err)
    # Another method is another model, and so is what it uses; another task is another task.
    changes = {"self.values[n] *": "self.values[n] +", "FACTOR = 3": "FACTOR = 4", "range(100)": "range(1, 101)"}
    for (old, new), error in zip(changes.items(), ["JournalDiffers", "JournalDiffers", "TasksDiffer"]):
        status, _, err = programs.run(OF_MAIN.replace(old, new), path, seed)
        assert status == 1 and f"{error}: " in err, err


SLOW_DISK = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <string.h>
#include <unistd.h>
#include <stdio.h>

// Writes to files named "journal" take a second.
ssize_t write(int fd, const void *bytes, size_t size)
{
    static ssize_t (*real)(int, const void *, size_t);
    char link[64], path[4096];
    if (!real)
        real = dlsym(RTLD_NEXT, "write");
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t len = readlink(link, path, sizeof path);
    if (size >= 4096 && len > 8 && memcmp(path + len - 8, "/journal", 8) == 0)
        sleep(1);
    return real(fd, bytes, size);
}
"""

SLOW = """
import os, signal, sys, threading, time
import invokerpool as ip

path, how = sys.argv[1:]
gaps, stopped = [], threading.Event()

def tick():
    last = time.monotonic()
    while not stopped.wait(0.005):
        now = time.monotonic()
        gaps.append(now - last)
        last = now

sizes = {"small": 10_000, "large": 12 << 20}
count = {"small": 3_000, "large": 3}
kind = "small" if how == "interrupt" else how
ticker = threading.Thread(target=tick)
ticker.start()
with ip.Pool(op=lambda n: bytes(n), workers=2) as pool:
    begin = time.monotonic()
    outputs = pool.map([sizes[kind]] * count[kind], journal=ip.Journal(path, op="bytes"))
    if how == "interrupt":
        sent = []
        timer = threading.Timer(1.5, lambda: (sent.append(time.monotonic()), os.kill(os.getpid(), signal.SIGINT)))
        timer.start()
        try:
            for _ in outputs:
                pass
        except KeyboardInterrupt:
            print("interrupted")
    else:
        assert sum(map(len, outputs)) == sizes[kind] * count[kind]
    print("seconds", time.monotonic() - begin)
stopped.set()
ticker.join()
print("longest gap", max(gaps))
"""


@linux
@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler, to slow writes down")
@pytest.mark.parametrize("how", ["small", "large", "interrupt"])
def test_other_threads_run_while_the_disk_is_slow(tmp_path, how):
    (tmp_path / "slow.c").write_text(SLOW_DISK)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", tmp_path / "slow.so", tmp_path / "slow.c", "-ldl"], check=True)
    program = programs.start(SLOW, str(tmp_path / "journal"), how, env={"LD_PRELOAD": str(tmp_path / "slow.so")})
    out, err = program.communicate(timeout=120)
    assert program.returncode == 0, err
    found = dict(line.rsplit(" ", 1) for line in out.splitlines() if " " in line)
    assert float(found["seconds"]) > 1.4, out
    assert float(found["longest gap"]) < 0.5, out
    assert ("interrupted" in out) == (how == "interrupt"), out


KILLED = """
import sys, time
import numpy as np
import invokerpool as ip

def op(model, n):
    time.sleep(0.001)
    if n % 500 == 7:
        raise ValueError(n)
    return n, model[n % 100] * np.arange(n % 40)

path, target = sys.argv[1:]
model = np.random.default_rng(5).random(5000)
with ip.Pool(model, op, workers=2, seed=11) as pool:
    print("ready", flush=True)
    outputs = list(pool.map(range(2000), journal=path or None, errors="return"))
    with open(target, "w") as file:
        for output in outputs:
            print(output if isinstance(output, Exception) else (output[0], output[1].tobytes()), file=file)
    print(pool.report().journal, flush=True)
"""


@linux
def test_a_leader_that_is_killed_at_random_moments_leaves_equal_outputs(tmp_path):
    seed = time.time_ns()
    print("seed", seed)
    moments = random.Random(seed)
    status, _, err = programs.run(KILLED, "", str(tmp_path / "undisturbed"))
    assert status == 0, err
    path, target = tmp_path / "journal", tmp_path / "outputs"
    kills = 0
    while not target.exists():
        program = programs.start(KILLED, str(path), str(target))
        # Once during the start, and then while it runs: after a random number of bytes, and a random time.
        # All five fit into the 400 kB of the run.
        more = moments.randrange(40_000) if kills else 0
        size = path.stat().st_size + more if path.exists() else more
        while kills < 5 and program.poll() is None and (path.stat().st_size if path.exists() else 0) < size:
            time.sleep(0.001)
        try:
            program.wait(moments.uniform(0, 0.1) if kills < 5 else 300)
        except subprocess.TimeoutExpired:
            program.send_signal(signal.SIGKILL)
            kills += 1
        out, err = program.communicate(timeout=120)
        assert program.returncode in (0, -signal.SIGKILL), err
    assert target.read_bytes() == (tmp_path / "undisturbed").read_bytes()
    assert kills == 5 and "JournalCounts(read=" in out and "read=0" not in out, (kills, out)


def test_journals_need_processes_and_known_options(job):
    with ip.Pool(op=abs, executor="inline") as pool, pytest.raises(ValueError, match="processes"):
        pool.map([1], journal=job[1])
    with ip.Pool(op=abs, workers=1) as pool:
        for wrong in ({"faults": "drop"}, {"on_write_error": "stop"}, {"sync_bytes": "much"}, {"sync_interval": -1.0}):
            with pytest.raises(ValueError):
                pool.map([1], journal=ip.Journal(job[1], **wrong))
        with pytest.raises(ip.JournalError, match="open the journal"):
            pool.map([1], journal=job[1] / "missing")
    assert not job[1].exists()
