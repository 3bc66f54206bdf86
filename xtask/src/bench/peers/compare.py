"""Measures pools of Python and this workspace's in turns, and reports a row for each number.

compare.py DIRECTORY [POOL FLOOD] [--quick] [--bytes N]: POOL and FLOOD are this workspace's programs, without which only pools of
Python are compared; the environments are in DIRECTORY. Rows are JSON objects, appended to the file that BENCH_ROWS names. Packages have the versions of pins.txt. What
cannot be installed is skipped with the reason; a measure that fails, or does not end, says so in its row. Every measure of
a peer is a process of its own under guard.py, which limits its time and leaves nothing of it behind.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
TABLE = "Pools of Python, 2 workers"
OWN_TABLE = "invokerpool against other pools of Python, 2 workers"
OWN = "invokerpool"

# The peers' names in peers.py, with the packages that they need besides NumPy.
PEERS = {
    "ProcessPoolExecutor, fork": [],
    "ProcessPoolExecutor, spawn": [],
    "multiprocessing.Pool": [],
    "joblib": ["joblib"],
    "mpire": ["mpire"],
    "ray": ["ray"],
    "dask.distributed": ["distributed"],
    "ipyparallel": ["ipyparallel"],
    "torch.multiprocessing": ["torch"],
    "parinvoke": ["parinvoke"],
    # This project's own package for Python, from the wheel of --wheel.
    "invokerpool": [],
}

# How a value is shown, and whether a ratio of ours to theirs is a defeat.
SECONDS = (lambda value: f"{value * 1e3:.1f} ms", lambda ratio: ratio > 1)
RATE = (lambda value: f"{value / 1e3:.2f} k/s", lambda ratio: ratio < 1)
BYTES = (lambda value: f"{value / (1 << 20):.0f} MiB", lambda ratio: ratio > 1)
SHARE = (lambda value: f"{value:.2f}", lambda ratio: ratio < 1)

FLOW = (lambda value: f"{value / 1e6:.0f} MB/s", lambda ratio: ratio < 1)
# The sizes of measures.py.
PAYLOADS = {
    256: "256 B",
    4 << 10: "4 KiB",
    32 << 10: "32 KiB",
    128 << 10: "128 KiB",
    1 << 20: "1 MiB",
    8 << 20: "8 MiB",
    64 << 20: "64 MiB",
}

# Measure, key of the number or a function of the measure's numbers, row, unit.
NUMBERS = [
    ("null", "start", "start, until two tasks are done", SECONDS),
    ("null", "batched", "null op, best batches", RATE),
    ("null", "single", "null op, one a batch (ours: each awaited before the next)", RATE),
    ("share", "share", "start with a model, until both workers have read it", SECONDS),
    ("share", "pss", "model: sum of PSS", BYTES),
    ("share", "peak", "model: sum of peak RSS, shared pages once for each", BYTES),
    ("top", "top", "top 10 of 20,000 items x 64 factors, users", RATE),
    (
        "top",
        lambda found: found["top"] / (2 * found["bare"]),
        "top 10: rate / (2 x one process without a pool, same language)",
        SHARE,
    ),
    ("logs", "logged", "log flood, until the workers are done", SECONDS),
    ("logs", "arrived", "log flood, until the leader has formatted what arrives", SECONDS),
    (
        "logs",
        lambda found: found["delivered"] / found["arrived"],
        "log flood, records that arrive in that time",
        RATE,
    ),
]
NUMBERS += [
    ("payloads", f"{kind} {size}", f"{kind} of {name}, best batches", FLOW)
    for kind in ("outputs", "echoes")
    for size, name in PAYLOADS.items()
]
# Which this workspace's programs in Rust do not measure.
NUMBERS += [
    ("arrays", "arrays 10", "arrays of 10 elements, best batches", RATE),
    ("arrays", "arrays 100000", "arrays of 100,000 elements, best batches", RATE),
    ("interpreters", "interpreters", "interpreters: sum of PSS with a model of one page", BYTES),
]
# How much of a difference is the language's.
BARE = ("top", "bare", "top 10, one process without a pool", RATE)


def value(key, found):
    """The number of a measure; None if it is missing."""
    try:
        return found.get(key) if isinstance(key, str) else key(found)
    except KeyError:
        return None


def pairs(rounds, measure, key):
    """Both sides' numbers in each round in which the peer did not fail."""
    for ours, theirs in rounds:
        found = theirs.get(measure, {"failed": "not measured"})
        both = value(key, ours), value(key, found)
        if "failed" not in found and None not in both:
            yield both


def median(values):
    return sorted(values)[len(values) // 2]


def row(name, measured, peer, floor, **fields):
    return {"table": TABLE, "row": name, "measured": measured, "peer": peer, "floor": floor, **fields}


def compared(name, unit, peer, both):
    """A row of both sides' numbers of all rounds; the ratio is ours over theirs, of a round."""
    show, loses = unit
    ratios = [ours / theirs for ours, theirs in both]
    ratio = median(ratios)
    measured = show(median([ours for ours, _ in both])) + (" (loses)" if loses(ratio) else "")
    floor = show(median([theirs for _, theirs in both]))
    return row(name, measured, peer, floor, ratio=ratio, spread=[min(ratios), max(ratios)])


def numbers(peer, rounds):
    """A row for each number; the reason in place of one that the peer did not reach."""
    for measure, key, name, unit in NUMBERS:
        found = [theirs[measure] for _, theirs in rounds if measure in theirs]
        failures = [it["failed"] for it in found if "failed" in it]
        ours = [it for it in (value(key, ours) for ours, _ in rounds) if it is not None]
        if both := list(pairs(rounds, measure, key)):
            sharing = [it["sharing"] for it in found if measure == "share" and "sharing" in it]
            yield compared(name, unit, f"{peer} ({sharing[0]})" if sharing else peer, both)
        elif failures and ours:
            yield row(name, unit[0](median(ours)), peer, f"fails: {failures[0]}")


def arrived(found):
    lost = max(found["emitted"] - found["delivered"], 0)
    lost = f"{100 * lost / found['emitted']:.1f} % lost" if lost else "none lost"
    return f"{found['delivered']} of {found['emitted']}, {lost}"


def killed(found):
    if "killed" in found and "killed_seconds" in found:
        text = f"{found['killed']} ({found['killed_seconds'] * 1e3:.0f} ms)"
    else:
        text = f"fails: {found['failed']}" if "failed" in found else "?"
    # Anything may be left of a pool that was not closed.
    if found.get("closed"):
        if found.get("left_processes"):
            text += f", leaves {found['left_processes']} process(es)"
        if found.get("left_bytes"):
            text += f", leaves {found['left_bytes']} bytes in /dev/shm"
    return text


def rows(peer, rounds):
    """All rows of a peer."""
    yield from numbers(peer, rounds)
    firsts = {}
    for ours, theirs in rounds:
        for measure, found in theirs.items():
            firsts.setdefault(measure, (ours, found))
    sides = firsts.get("top", ({}, {}))
    if all("checksum" in side for side in sides):
        ours, theirs = (side["checksum"] for side in sides)
        yield row("top 10: checksum of the scores", ours, peer, theirs, target="the same", met=ours == theirs)
    sides = firsts.get("logs", ({}, {}))
    if all("delivered" in side for side in sides):
        yield row("log flood, records that arrive at all", arrived(sides[0]), peer, arrived(sides[1]))
    ours, theirs = firsts.get("killed", ({}, {}))
    if ours:
        yield row("1,000 tasks, one kills its worker", killed(ours), peer, killed(theirs))


def against_own(rounds):
    """Rows of this project's package against each other pool of Python, which had the same measures in the same run."""
    own = [theirs for _, theirs in rounds.get(OWN, [])]
    for peer, measured in rounds.items():
        for measure, key, name, unit in NUMBERS if peer != OWN else []:
            sides = [(mine.get(measure, {}), theirs) for mine, (_, theirs) in zip(own, measured)]
            if both := list(pairs(sides, measure, key)):
                yield compared(name, unit, peer, both) | {"table": OWN_TABLE}
        if peer != OWN and own and "killed" in own[0]:
            mine, theirs = killed(own[0]["killed"]), killed(measured[0][1].get("killed", {}))
            yield row("1,000 tasks, one kills its worker", mine, peer, theirs) | {"table": OWN_TABLE}
    for found in own[:1]:
        alone = found.get("interpreters", {}).get("interpreters")
        if alone and "pss" in found.get("share", {}):
            beyond = found["share"]["pss"] - found["share"]["model"]
            ratio = beyond / alone
            yield row(
                "PSS beyond the model, over the interpreters",
                BYTES[0](beyond),
                "the same without a model",
                BYTES[0](alone),
                ratio=ratio,
                spread=[ratio, ratio],
                target="1.05x or less",
                met=ratio <= 1.05,
            ) | {"table": OWN_TABLE}


def report(rows):
    """Prints the rows, and appends them to the file of rows."""
    for row in rows:
        ratio = f"{row['ratio']:.2f}x" if "ratio" in row else ""
        print(f"  {row['row']:64} {row['measured']:>20}  vs {row['floor']:>20} {ratio:>9}", flush=True)
        if path := os.environ.get("BENCH_ROWS"):
            with open(path, "a") as file:
                print(json.dumps(row), file=file)


def succeeds(*command):
    null = subprocess.DEVNULL
    try:
        return subprocess.run(command, stdin=null, stdout=null, stderr=null).returncode == 0
    except OSError:
        return False


def interpreter(directory, peer):
    """The interpreter of an environment with a peer's packages, or None and why there is none."""
    # Some of the others import PyTorch wherever it is, and are slower for it.
    is_torch = peer == "torch.multiprocessing"
    venv = directory / ("venv-torch" if is_torch else "venv")
    python = venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not succeeds(python, "--version") and not succeeds(sys.executable, "-m", "venv", venv):
        return None, "no python3 that can make virtual environments"
    constraint = ["--constraint", HERE / "pins.txt"]
    # All wheels of PyTorch for this platform are for GPUs, with libraries that it cannot be imported without. Any build that
    # was installed by hand will do.
    if is_torch and (sys.platform, platform.machine()) == ("linux", "x86_64"):
        if succeeds(python, "-c", "import numpy, torch"):
            return python, None
        install = " ".join(map(str, [python, "-m", "pip", "install", *constraint, "torch", "numpy"]))
        return None, f"on this platform it takes 2.5 GB, for GPUs; measured after `{install}`"
    pip = "-m pip install --quiet --disable-pip-version-check --retries=1 --timeout=15 --only-binary=:all:".split()
    if succeeds(python, *pip, *constraint, "numpy", *PEERS[peer]):
        return python, None
    return None, f"pip cannot install {', '.join(PEERS[peer])}"


def last_object(output):
    """The last line of a guard's output."""
    try:
        return json.loads(output.splitlines()[-1])
    except (IndexError, ValueError):
        return {"failed": "its guard failed"}


def theirs(python, peer, measure, number, seconds):
    arguments = [python, HERE / "guard.py", str(seconds), peer, measure, str(number)]
    return last_object(subprocess.run(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout)


def ours(*command):
    output = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, text=True, check=True).stdout
    return json.loads(next(line for line in output.splitlines() if line.startswith("{")))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    for name in ("pool", "flood"):
        parser.add_argument(name, type=Path, nargs="?")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--bytes", type=int)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--wheel", type=Path)
    parser.add_argument("--peers", nargs="*", default=list(PEERS))
    args = parser.parse_args()
    rounds, size, users, records = (1, 256 << 20, 2_000, 10_000) if args.quick else (3, 1 << 30, 10_000, 100_000)
    size, rounds = args.bytes or size, args.rounds or rounds
    every, by_peer = [], {}
    PEERS["invokerpool"] = [args.wheel] if args.wheel else ["invokerpool"]
    for peer in args.peers:
        python, why = interpreter(args.directory, peer)
        if python is None:
            print(f"{peer} skipped: {why}", flush=True)
            continue
        print(peer, flush=True)
        measured = []
        for number in range(rounds):
            measures = [("null", 0, 60), ("share", size, 60), ("top", users, 60)]
            # These take long, and differ by more than noise.
            extra = [("arrays", 0, 60), ("interpreters", 0, 60), ("payloads", 0, 240), ("logs", records, 120)]
            extra += [("killed", 0, 60)]
            measures += extra if number == 0 else []
            peers_side = {measure: theirs(python, peer, measure, *rest) for measure, *rest in measures}
            our_side = ours(args.pool, "--part", "side", size, users) if args.pool else {}
            our_side |= ours(args.flood, records) if args.flood and number == 0 else {}
            measured.append((our_side, peers_side))
        report(rows(peer, measured))
        every += measured
        by_peer[peer] = measured
    report(against_own(by_peer))
    measure, key, name, unit = BARE
    if both := list(pairs(every, measure, key)):
        report([compared(name, unit, "NumPy", both)])


if __name__ == "__main__":
    main()
