"""Where progress is shown: lines in a file by the clock, one display in a notebook."""

import io
import sys
from types import SimpleNamespace

import pytest

from d2v.core.train import Progress

METRICS = {"loss": 0.5}


@pytest.fixture
def clock(monkeypatch):
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr("d2v.core.train.progress.time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


def written(clock, *, updates, seconds, log_every=None, start=0):
    """The lines of a file after some updates that take so many seconds each."""
    stream = io.StringIO()
    progress = Progress(start + updates, stream=stream)
    progress.start(start)
    for step in range(start + 1, start + updates + 1):
        clock.now += seconds
        progress.advance(step)
        if log_every and step % log_every == 0:
            progress.log(step, METRICS)
    progress.close()
    return stream.getvalue().splitlines()


def steps(lines):
    return [int(line.split()[1].partition("/")[0]) for line in lines]


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (1, [60, 120, 180, 200]),  # a line a minute, and the last one
        (0.01, [200]),  # nothing but the last one
        (30, list(range(2, 201, 2))),
        (100, list(range(1, 201))),
    ],
)
@pytest.mark.parametrize("log_every", [1, 50, 200])
def test_a_file_gets_a_line_a_minute(clock, seconds, expected, log_every):
    lines = written(clock, updates=200, seconds=seconds, log_every=log_every)
    assert steps(lines) == expected
    assert "loss 0.5" in lines[-1], "the last line has the last metrics"
    assert not any("\r" in line for line in lines)


def test_a_resumed_run_counts_on(clock):
    lines = written(clock, updates=100, seconds=1, start=300, log_every=10)
    assert steps(lines) == [360, 400]
    assert lines[0].startswith("step 360/400  1.0/s  0:00:40 left")


def test_a_short_pass_is_silent_in_a_file(clock):
    assert written(clock, updates=5, seconds=1) == []
    assert steps(written(clock, updates=5, seconds=50)) == [2, 4, 5]


@pytest.fixture
def displays(monkeypatch):
    """A shell like a notebook's, and all that it was asked to show: one list a display."""
    shown = []

    def display(data, *, raw, display_id):
        assert raw
        assert display_id
        shown.append([data])
        return SimpleNamespace(update=lambda data, raw: shown[-1].append(data))

    shell = SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=display))
    return shown


def test_a_notebook_gets_one_display(clock, displays, capsys):
    progress = Progress(100)
    progress.start(0)
    for step in range(1, 101):
        clock.now += 0.1
        progress.advance(step)
    progress.log(100, METRICS)
    progress.close()
    (drawn,) = displays
    assert 10 < len(drawn) < 40
    assert drawn[-1]["text/plain"].startswith("################  step 100/100")
    assert 'value="1.0000"' in drawn[-1]["text/html"]
    assert "loss 0.5" in drawn[-1]["text/html"]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("shell", [None, SimpleNamespace()])
def test_without_a_kernel_there_is_no_notebook(shell, monkeypatch, clock, capsys):
    """IPython may be imported by a script, and its own terminal has no kernel."""
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    progress = Progress(2)
    progress.start(0)
    progress.log(1, METRICS)
    progress.close()
    assert capsys.readouterr().err == "step 0/2  loss 0.5\n"


def test_in_a_real_notebook():
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    source = "from d2v.core.train import Progress\nbar = Progress(2)\nbar.start(0)\nbar.advance(2)\nbar.close()"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    (output,) = notebook.cells[0].outputs
    assert output.output_type == "display_data"
    assert "step 2/2" in output.data["text/html"]
