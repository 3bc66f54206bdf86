"""Progress of a map: through tqdm where that is installed, else by the package itself."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from . import _core

Report = Callable[[int, int, bool, list[float]], None]


def reporter(progress: str | bool | None, tasks: Any, render: str) -> Report | None:
    """Returns what is called with the numbers of outputs and of errors, whether they are the last, and the parts of running tasks that are
    done."""
    if progress is None or progress is False or render == "none":
        return None
    label = "tasks" if progress is True else progress
    total = operator.length_hint(tasks, -1)
    known = None if total < 0 else total
    # Without a length, the hint is 0 for many iterators.
    if known == 0 and not hasattr(tasks, "__len__"):
        known = None
    if render == "auto":
        try:
            from tqdm.auto import tqdm
        except ImportError:
            pass
        else:
            return _tqdm(tqdm(desc=label, total=known))
    return _core.Bar(label, known, render).update


def _tqdm(bar: Any) -> Report:
    def report(done: int, failed: int, last: bool, parts: list[float]) -> None:
        if failed:
            bar.set_postfix(failed=failed, refresh=False)
        part = round(sum(parts), 2)
        # Whole numbers are shown as such. A task that has ended counts a little later than its part is gone.
        shown = done + failed + part if part else done + failed
        if last or shown > bar.n:
            bar.update(shown - bar.n)
        if last:
            bar.refresh()
            bar.close()

    return report
