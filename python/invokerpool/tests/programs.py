"""Runs Python programs of tests, and looks for what they leave behind."""

import os
import signal
import subprocess
import sys
import textwrap
import time


def start(code, *args, env=None):
    code = textwrap.dedent(code)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **(env or {})}
    return subprocess.Popen(
        [sys.executable, "-c", code, *args],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=env,
        # A job in the background of a shell ignores Ctrl-C, and so would this program.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def run(code, *args, timeout=60):
    program = start(code, *args)
    try:
        out, err = program.communicate(timeout=timeout)
    finally:
        program.kill()
    return program.returncode, out, err


def is_gone(pid, timeout=5.0):
    """Whether the process ends within `timeout` seconds."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        try:
            with open(f"/proc/{pid}/stat") as stat:
                if stat.read().rpartition(")")[2].split()[0] == "Z":
                    return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.01)
    return False


def segments():
    """The names in /dev/shm that this project's crates make."""
    return {name for name in os.listdir("/dev/shm") if "shm-buffers" in name}


def check_clean(err):
    """Checks that a program has printed no sign of a panic or a crash."""
    for word in ("panicked", "Fatal Python error", "fatal runtime error", "Segmentation", "core dumped"):
        assert word not in err, err
