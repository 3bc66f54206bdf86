"""Log records of workers, in the leader's `logging`."""

from __future__ import annotations

import logging
import threading
import time
import traceback
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from . import _core

_STANDARD = frozenset(vars(logging.LogRecord("", 0, "", 0, "", (), None))) | {"message", "asctime", "taskName"}


class Logs(NamedTuple):
    """How the log records of workers travel to the leader."""

    ring: int | str = "256KiB"
    """The size of the shared memory of each worker for records that wait. While it is full, records below WARNING are dropped and
    counted; the last quarter is for the others, which wait for room for up to ten seconds."""
    level: int | str | None = None
    """The level of the workers' root logger. None: that of the leader's."""


def levels() -> dict[str, int]:
    """The levels of this process's loggers, for workers."""
    found = {"": logging.getLogger().level}
    for name, logger in list(logging.Logger.manager.loggerDict.items()):
        if isinstance(logger, logging.Logger) and logger.level:
            found[name] = logger.level
    return found


class Handler(logging.Handler):
    """The handler of a worker's root logger."""

    def __init__(self, sink: _core.LogSink) -> None:
        super().__init__()
        self._sink = sink

    def handle(self, record: logging.LogRecord) -> bool:
        """Emits a record that the filters let pass. The sink has a lock, which is held for a copy only."""
        passed = self.filter(record)
        if isinstance(passed, logging.LogRecord):
            record = passed
        if passed:
            self.emit(record)
        return bool(passed)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = record.getMessage()
        except Exception:
            message = f"{record.msg!r} % {record.args!r}: the arguments do not fit the format"
        text = record.exc_text
        if record.exc_info and not text:
            text = "".join(traceback.format_exception(*record.exc_info)).rstrip()
        extra = {name: _plain(value) for name, value in vars(record).items() if name not in _STANDARD}
        fields = (
            record.name,
            record.levelno,
            message,
            record.created,
            record.pathname,
            record.lineno,
            record.funcName,
            record.thread,
            record.threadName,
            record.process,
            text,
            record.stack_info,
            extra,
        )
        try:
            self._sink.write(record.levelno, f"{record.levelname} {record.name}: {message}", fields)
        except Exception:
            self.handleError(record)


def _plain(value: Any) -> Any:
    """An attribute as the leader gets it: what is not plain is its text, since a record must not run the program's code there."""
    return value if isinstance(value, (str, int, float, bool, bytes, type(None))) else repr(value)


def install(sink: _core.LogSink, levels: dict[str, int]) -> None:
    """Sends this worker's records to the leader."""
    root = logging.getLogger()
    for handler in list(root.handlers):
        root.removeHandler(handler)
    root.addHandler(Handler(sink))
    for name, level in levels.items():
        logging.getLogger(name or None).setLevel(level)


_delivering = threading.local()


def deliver(records: list[tuple[int, tuple[Any, ...]]]) -> None:
    """Hands records of workers to the leader's loggers."""
    for worker, fields in records:
        (name, level, message, created, pathname, line, function, thread, thread_name, process, text, stack, extra) = fields
        record = logging.LogRecord(name, level, pathname, line, message, (), None, function, stack)
        record.created = created
        record.msecs = int((created - int(created)) * 1000) + 0.0
        record.relativeCreated = (created - _started) * 1000
        record.thread, record.threadName = thread, thread_name
        record.process, record.processName = process, f"worker-{worker}"
        record.exc_text = text
        record.__dict__.update(extra)
        record.__dict__["worker"] = worker
        logger = logging.getLogger(name)
        if logger.isEnabledFor(level):
            try:
                logger.handle(record)
            except Exception:
                # As `logging` does with errors of handlers.
                if logging.raiseExceptions:
                    traceback.print_exc()


_started: float = getattr(logging, "_startTime", time.time())
if _started > 1e12:
    # Nanoseconds, from Python 3.13 on.
    _started /= 1e9
