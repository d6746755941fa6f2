"""The operation figure: each camera has a lane, no photo disappears, and a wrong clock does not hide the rest."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd

from species_wb.survey.deployments import Deployment, Gap
from species_wb.survey.operation import operation, operation_figure

START = datetime(2025, 6, 1, 12)
ONE = Deployment("a", "A", start=START, end=START + timedelta(days=10))


def photos(*rows: tuple) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["deployment", "site", "at", "left_out"])


def at(when: datetime) -> float:
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()


def drawn(figure) -> tuple[int, int]:
    "How many marks of photos, and how many crosses."
    axes = figure.axes[0]
    marks = [c for c in axes.collections if hasattr(c, "get_segments") and len(c.get_segments())]
    return sum(len(c.get_segments()) for c in marks), sum(len(line.get_xdata()) for line in axes.lines if line.get_marker() == "x")


def test_every_photo_is_drawn_or_counted():
    own = [("a", "A", at(START) + 86400 * k, None) for k in range(10)]
    lost = [(None, "A", 0.0, "outside"), (None, "A", at(datetime(2099, 1, 1)), "outside"), ("a", "A", at(START) + 9e5, "in-a-gap")]
    nowhere = [(None, None, at(START), "no-deployment"), (None, "A", np.nan, "no-time")]
    figure = operation_figure([ONE], photos(*own, *lost, *nowhere))
    assert drawn(figure) == (10, 3) and "n = 15 photos" in figure.get_suptitle()
    assert figure.get_supxlabel().replace("\n", " ").split("; ")[1:] == ["2 outside these dates, drawn at the edge", "2 without a site or a time, not drawn"]
    low, high = figure.axes[0].get_xlim()
    assert high - low < 12  # days: neither 1970 nor 2099 makes it wide


def test_lanes_have_names_and_camera_days():
    two = [replace(ONE, site="NA", camera="7"), replace(ONE, deployment="b", site="NA", camera="8", gaps=(Gap(START, ONE.end),))]
    axes = operation_figure([*two, replace(ONE, deployment="c", site="=$x$", end=None)], photos((None, "=$x$", at(START), "no-deployment"))).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["NA · 7", "NA · 8", "=$x$"]
    assert [text.get_text() for text in axes.texts] == ["10.0 days, 0 photos", "0.0 days, 0 photos", "no deployment, 1 photo"]


def test_bars_and_photos_show_the_clock_of_the_camera():
    zone = ZoneInfo("Australia/Sydney")
    there = replace(ONE, start=START.replace(tzinfo=zone), end=ONE.end.replace(tzinfo=zone))
    figure = operation_figure([there], photos(("a", "A", at(there.start) + 43200, None)))
    bar = figure.axes[0].collections[-2].get_paths()[0].get_extents()
    assert bar.x0 == at(START) / 86400 and bar.width == 10
    mark = figure.axes[0].collections[-1].get_segments()[0][0, 0]
    assert abs(mark - at(START) / 86400 - 0.5) < 0.02


def test_many_sites_make_a_high_figure_with_readable_lanes():
    many = [replace(ONE, deployment=f"d{k}", site=f"site {k}", start=START + timedelta(days=k % 7)) for k in range(70)]
    figure = operation_figure(many)
    assert 18 < figure.get_figheight() < 22 and len(figure.axes[0].get_yticks()) == 70
    assert operation(many).shape == (70, 11)
