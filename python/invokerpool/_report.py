"""What a pool has done."""

from __future__ import annotations

import html
from typing import Any, NamedTuple

from ._settings import Settings

_KINDS = ("debug", "info", "warning", "error")


def size(count: float) -> str:
    """Returns a number of bytes as text."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError("the last unit has no limit")


def pages(pids: list[tuple[int, int]]) -> list[tuple[int, int, int]]:
    """The bytes of pages of processes that are shared and that are not, as far as the system reports them."""
    found = []
    for index, pid in pids:
        sums = {"Shared": 0, "Private": 0}
        try:
            with open(f"/proc/{pid}/smaps_rollup") as lines:
                for line in lines:
                    kind = line.partition("_")[0]
                    if kind in sums and "Hugetlb" not in line:
                        sums[kind] += int(line.split()[1]) << 10
        except OSError:
            continue
        found.append((index, sums["Shared"], sums["Private"]))
    return found


class JournalCounts(NamedTuple):
    """What became of the outputs of maps with a journal."""

    read: int
    """Outputs that came from a journal: their tasks did not run."""
    written: int
    """Outputs that were written."""
    bytes: int
    """Their bytes in the file."""
    torn: int
    """Bytes of the torn end of a process that was killed. They were cut."""
    failed: str | None
    """Why a journal could not be written, if a map has gone on without it."""


class Report(NamedTuple):
    """What a pool has done so far. `print` shows it, and so does a notebook."""

    tasks: dict[str, int]
    """Counts of tasks and processes."""
    seconds: float
    """Since the pool was built."""
    start_seconds: float
    """Until the workers were ready."""
    model_bytes: int
    """Bytes of the model in shared memory."""
    adopted_bytes: int
    """Bytes of the model's own arrays in this process that lie there."""
    memory: list[tuple[int, int, int | None]]
    """Of each worker that is alive: its index, its resident bytes, and its bytes with shared pages divided among those who share them."""
    pages: list[tuple[int, int, int]]
    """Of each worker: its index, the bytes of its pages that other processes have, too, and those of its own (Linux)."""
    logs: dict[str, Any]
    """What became of log records."""
    settings: Settings
    """The effective settings."""
    journal: JournalCounts | None = None
    """The outputs of journals; None if no map had one."""

    def rows(self) -> list[tuple[str, str]]:
        """The report as names and texts."""
        tasks = self.tasks
        done = f"{tasks['answered']} answered, {tasks['failed']} not, in {self.seconds:.1f} s"
        rows = [("tasks", done)]
        processes = f"{tasks['spawned']} started in {self.start_seconds * 1e3:.0f} ms, {tasks['deaths']} died"
        rows.append(("processes", f"{processes}, {tasks['recycled']} recycled; {tasks['retried']} tasks retried"))
        if self.model_bytes:
            own = f", {size(self.adopted_bytes)} of them the model's own arrays" if self.adopted_bytes else ""
            rows.append(("model", f"{size(self.model_bytes)} in shared memory{own}"))
        known = [proportional for _, _, proportional in self.memory if proportional is not None]
        if known:
            text = f"{size(sum(known))} of {len(known)} workers (PSS)"
            if self.pages:
                shared, private = (sum(pages[at] for pages in self.pages) // len(self.pages) for at in (1, 2))
                text += f"; each {size(private)} of its own and {size(shared)} shared"
            rows.append(("memory", text))
        if self.logs and sum(self.logs["emitted"]):
            total = ", ".join(f"{sum(self.logs[key])} {key}" for key in ("emitted", "delivered", "dropped"))
            lost = [f"{count} {kind}" for kind, count in zip(_KINDS, self.logs["dropped"]) if count]
            rows.append(("logs", total + (f" ({', '.join(lost)})" if lost else "")))
        if self.journal is not None:
            text = f"{self.journal.read} outputs read, {self.journal.written} written ({size(self.journal.bytes)})"
            if self.journal.torn:
                text += f", {self.journal.torn} bytes of a torn end cut"
            if self.journal.failed is not None:
                text += f"; stopped: {self.journal.failed}"
            rows.append(("journal", text))
        changed = [f"{s.name}={s.value} ({s.origin})" for s in self.settings if s.origin != "default"]
        if changed:
            rows.append(("settings", ", ".join(changed)))
        return rows

    def __str__(self) -> str:
        return "\n".join(f"{name:<10}{text}" for name, text in self.rows())

    def _repr_html_(self) -> str:
        cells = "".join(
            f"<tr><th style='text-align:left'>{html.escape(name)}</th><td style='text-align:left'>{html.escape(text)}</td></tr>"
            for name, text in self.rows()
        )
        return f"<table>{cells}</table>"
