"""Fixtures, and a watchdog: a test that hangs prints its stacks and ends."""

import faulthandler

import pytest


@pytest.fixture(autouse=True)
def watchdog():
    faulthandler.dump_traceback_later(600, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()
