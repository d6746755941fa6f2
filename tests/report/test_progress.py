"A progress bar says how far the work is: full when it ended, also where it ended early; where it was when an error ended it."

import pytest
import tqdm.auto
from tqdm.notebook import tqdm as widget

from species_wb import progress


@pytest.fixture
def bars(monkeypatch):
    "Bars as a live notebook draws them."
    monkeypatch.delenv("SPECIES_WB_PROGRESS", raising=False)
    monkeypatch.setattr(tqdm.auto, "tqdm", widget)
    monkeypatch.setattr("tqdm.notebook.display", lambda shown: None)


def looks(bar) -> tuple[str, float]:
    "The colour of a bar's widget, and how much of it is filled."
    drawn = bar.container.children[1]
    return drawn.bar_style, drawn.value / drawn.max


@pytest.mark.usefixtures("bars")
def test_a_bar_that_ends_early_ends_full():
    bar = progress.progress(None, "training", 100)
    bar.update(89)
    bar.close()
    assert looks(bar) == ("success", 1.0)


@pytest.mark.usefixtures("bars")
def test_a_bar_that_an_error_ends_stays_where_it_was():
    with pytest.raises(OSError), progress.progress(None, "training", 100) as bar:
        bar.update(89)
        raise OSError
    assert looks(bar) == ("danger", 0.89)


@pytest.mark.usefixtures("bars")
def test_a_bar_that_goes_through_everything_ends_full():
    bar = progress.progress(range(7), "counting")
    assert list(bar) == list(range(7)) and looks(bar) == ("success", 1.0)


def test_lines_say_how_many_there_were_in_the_end(monkeypatch, capsys):
    monkeypatch.setenv("SPECIES_WB_PROGRESS", "lines")
    with progress.progress(None, "training", 100) as bar:
        bar.update(89)
    assert capsys.readouterr().err.splitlines()[-1].startswith("training: 89 of 89 photos")


def test_a_terminal_has_its_line_back(monkeypatch, capsys):
    monkeypatch.delenv("SPECIES_WB_PROGRESS", raising=False)
    monkeypatch.setattr(tqdm.auto, "tqdm", tqdm.std.tqdm)
    with progress.progress(None, "training", 100) as bar:
        bar.update(100)
    assert capsys.readouterr().err.endswith(" \r")
