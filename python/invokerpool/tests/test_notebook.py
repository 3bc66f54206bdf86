"""Notebooks: what cells define reaches the workers and comes back, and the bar is shown."""

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

DEFINITIONS = """
import invokerpool as ip

class Point:
    def __init__(self, x):
        self.x = x
    def __eq__(self, other):
        return type(other) is Point and self.x == other.x

offset = 10

def op(points, n):
    return Point(points[n].x + offset)
"""

USE = """
with ip.Pool([Point(n) for n in range(5)], op, workers=2) as pool:
    outputs = list(pool.map(range(5)))
    report = pool.report()
print(outputs == [Point(10 + n) for n in range(5)], all(type(output) is Point for output in outputs))
"""

ERROR = """
class Refused(Exception):
    pass

def refuse(n):
    raise Refused(n)

with ip.Pool(op=refuse, workers=1) as pool:
    (error,) = pool.map([7], errors="return")
    print(type(error) is Refused, error.args)
    print(list(ip.Executor(1).map(lambda n: Point(n).x, [4])))
"""

BAR = """
with ip.Pool(op=lambda n: n + offset, workers=2) as pool:
    print(sum(pool.map(range(1000), progress="cells")))
"""


def run(monkeypatch, *cells):
    """Runs cells in a kernel, and returns the outputs of each."""
    # ipykernel does not read what is written to the descriptor of standard error if it finds this.
    monkeypatch.delenv("PYTEST_CURRENT_TEST", raising=False)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    return [cell.outputs for cell in notebook.cells]


def text(outputs, name):
    return "".join(output.text for output in outputs if output.output_type == "stream" and output.name == name)


def test_definitions_of_cells_reach_workers_and_come_back(monkeypatch):
    _, use, error, html = run(monkeypatch, DEFINITIONS, USE, ERROR, "report")
    assert text(use, "stdout") == "True True\n"
    assert text(error, "stdout") == "True (7,)\n[4]\n"
    assert "5 answered" in html[0].data["text/html"]


def test_the_bar_is_a_widget(monkeypatch):
    pytest.importorskip("ipywidgets")
    pytest.importorskip("tqdm")
    _, outputs = run(monkeypatch, DEFINITIONS, BAR)
    (widget,) = (output.data for output in outputs if output.output_type == "display_data")
    assert "application/vnd.jupyter.widget-view+json" in widget
    assert widget["text/plain"].startswith("cells:")
    assert text(outputs, "stdout") == f"{sum(range(1000)) + 10_000}\n"


def test_the_bar_without_widgets_is_text(monkeypatch):
    pytest.importorskip("tqdm")
    _, _, outputs = run(monkeypatch, 'import sys; sys.modules["ipywidgets"] = None', DEFINITIONS, BAR)
    shown = text(outputs, "stderr")
    assert "cells:" in shown and "1000/1000" in shown


def test_the_bar_without_tqdm_is_text(monkeypatch):
    _, _, outputs = run(monkeypatch, 'import sys; sys.modules["tqdm"] = None', DEFINITIONS, BAR)
    assert "cells: 1000/1000" in text(outputs, "stderr")
