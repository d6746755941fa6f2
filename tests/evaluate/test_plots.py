"""Every figure says what it shows, can be read at any number of classes, and leaves matplotlib as it was."""

import html
import io
import json
import re
import subprocess
import sys
from datetime import date, timedelta
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from species_wb.evaluate import confusion_plot, plots, run_plots
from species_wb.metrics import calibration, intervals, reliability, scores
from species_wb.report import style

ROOT = Path(__file__).resolve().parent.parent.parent
LONG = "Felis silvestris silvestris (European wildcat, Scottish population)"
ODD = ["$x_1$ & <b>bold</b>", "100 %_^{}\\", LONG, "Ñandú\x00\udcff", " ", "$", "a|b"]
GENUS = "Panthera Odocoileus Tamiasciurus Cyanistes Apodemus Micromys Sciurus Fringilla".split()
SPECIES = "leo hemionus hudsonicus caeruleus flavicollis".split()
FORTY = [f"{genus} {species}" for genus in GENUS for species in SPECIES][:39]
FORTY += ["Odocoileus hemionus columbianus (Columbian black-tailed deer)"]
TEN = "Amphibia Animalia Arachnida Aves Fungi Insecta Mammalia Mollusca Plantae Reptilia".split()


def simulated(labels: list[str], n: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(len(labels))
    truth = rng.integers(0, len(labels), n)
    return rng.normal(size=(n, len(labels))) * 1.5 + 4 * np.eye(len(labels))[truth], truth


def by_class(labels: list[str], n: int) -> dict[str, Figure]:
    "The figures that have a label or a cell for every class."
    logits, truth = simulated(labels, n)
    found = scores.scores(calibration.softmax(logits), truth, labels, resamples=50)
    return {
        "confusion": confusion_plot.confusion(found["confusion"], labels),
        "shares": confusion_plot.confusion(found["confusion"], labels, shares=True),
        "per_class": plots.per_class(found["classes"]),
        "class_counts": run_plots.class_counts(
            {label: {"train": 7 + c, "valid": c % 3, "test": 4} for c, label in enumerate(labels)}
        ),
    }


def overall(labels: list[str], n: int) -> dict[str, Figure]:
    "The figures that do not grow with the classes."
    logits, truth = simulated(labels, n)
    p, sure = calibration.softmax(logits), logits * 2
    before, after = (calibration.softmax(sure, t) for t in (1, calibration.fit_temperature(sure, truth)))
    history = [
        {"epoch": e, "train_loss": 2 * 0.7**e, "valid_loss": 2.1 * 0.7**e, "valid_accuracy": 0.9 - 0.5**e}
        for e in range(1, min(n, 30) + 1)
    ]
    strengths = [
        {"strength": 10.0**k, "log_loss": 0.5 + 0.05 * k**2, "accuracy": 0.9 - 0.01 * abs(k)}
        for k in range(-3, min(n, 7) - 3)
    ]
    curve = reliability.risk_coverage(p, truth)
    times = np.random.default_rng(0).lognormal(2, 0.3, n)
    start = date(2026, 3, 2)
    taken = [(start + timedelta(3 * d)).isoformat() + "T07:30:00+02:00" for d in range(n)]
    return {
        "reliability": plots.reliability({"at home": reliability.reliability(before, truth), "elsewhere": reliability.reliability(after, truth)}),
        "elsewhere": plots.elsewhere([places(n), places(n)[:1]]),
        "risk_coverage": plots.risk_coverage(curve, reliability.threshold_for(curve, 0.95)),
        "learning_curves": run_plots.learning_curves(history),
        "strength_curve": run_plots.strength_curve(strengths, n=n),
        "latency": run_plots.latency(times.tolist(), *np.percentile(times, [50, 95])),
        "calendar": run_plots.calendar([*taken, None]),
    }


def places(n: int) -> list[dict]:
    "Three places with long names, one of which has all photos right."
    names = ("github:somebody/a-long-name-of-a-collection-of-photos", "S02-meadow", "smaller sites")
    return [{"name": name, "n": n, "score": 0.9, "right": {"value": k / 2, "low": k / 3, "high": 1.0}} for k, name in enumerate(names)]


def drawn(figure: Figure) -> dict[matplotlib.text.Text, np.ndarray]:
    "Return every text with its box in pixels; ticks beyond the ends of an axis have labels that are not drawn."
    renderer = matplotlib.backends.backend_agg.FigureCanvasAgg(figure).get_renderer()
    figure.draw_without_rendering()  # laid out as when it is drawn
    unseen = set()
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        low, high = sorted(axis.get_view_interval())
        slack = 1e-9 * (high - low)
        beyond = [tick for tick in axis.get_major_ticks() if not low - slack <= tick.get_loc() <= high + slack]
        unseen |= {label for tick in beyond for label in (tick.label1, tick.label2)}
    texts = [text for text in figure.findobj(matplotlib.text.Text) if text.get_visible() and text.get_text().strip()]
    return {text: text.get_window_extent(renderer).extents for text in texts if text not in unseen}


def faults(figure: Figure, found: dict[matplotlib.text.Text, np.ndarray] | None = None) -> list[tuple[str, ...]]:
    "Texts that lie on each other by more than a pixel, or that the figure's edge cuts."
    found = drawn(figure) if found is None else found
    words, corners = [text.get_text() for text in found], np.array(list(found.values())) + [0.5, 0.5, -0.5, -0.5]
    meet = (corners[:, None, :2] < corners[None, :, 2:]).all(axis=2)
    on_each_other = [(words[i], words[j]) for i, j in np.argwhere(meet & meet.T) if i < j]
    inside = (corners[:, :2] >= -1).all(axis=1) & (corners[:, 2:] <= figure.bbox.extents[2:] + 1).all(axis=1)
    return on_each_other + [("cut", words[i]) for i in np.flatnonzero(~inside)]


@pytest.fixture(scope="module")
def of_ten() -> tuple[dict[str, Figure], dict[str, bytes]]:
    "All figures of ten classes, and their bytes."
    figures = by_class(TEN, 293) | overall(TEN, 293)
    return figures, {name: figure._repr_png_() for name, figure in figures.items()}


@pytest.fixture(scope="module")
def of_odd() -> dict[str, Figure]:
    return by_class(ODD, 60)


CASES = {
    "ten": (TEN, 293), "two": (["cat", "dog"], 40), "tiny": (TEN[:5], 4), "single": (["one", "two"], 1),
    "odd": (ODD, 60), "forty": (FORTY, 900),
}  # fmt: skip


SLOWEST = pytest.param(*CASES["forty"], id="forty", marks=pytest.mark.slow)
MOST = [pytest.param(*case, id=name) for name, case in CASES.items() if name != "forty"]


@pytest.mark.parametrize(("labels", "n"), [*MOST, SLOWEST])
def test_nothing_is_cut_or_lies_on_something_else_and_axes_and_n_are_named(labels, n, request):
    if labels in (TEN, ODD):
        figures = request.getfixturevalue("of_ten")[0] if labels is TEN else request.getfixturevalue("of_odd")
    else:
        figures = by_class(labels, n) | (overall(labels, n) if labels is not FORTY else {})
    for name, figure in figures.items():
        assert isinstance(figure, Figure), name
        texts = drawn(figure)
        assert not faults(figure, texts), name
        said = figure.get_suptitle()
        assert "n = " in said or name == "learning_curves" and f"{n} epoch" in said, name
        for axes in figure.axes:
            assert axes.get_xlabel() or axes is figure.axes[0] and name == "reliability", name
            assert axes.get_ylabel() or name == "per_class" and axes is not figure.axes[0], name
        in_cells = figure.axes[0].texts if name in ("confusion", "shares") else ()
        smallest = min(text.get_size() for text in texts if text not in in_cells)
        assert smallest >= 9, name
        assert figure.get_figwidth() == pytest.approx(7) or labels is FORTY and figure.get_figwidth() < 11, name


def test_labels_are_shown_letter_by_letter(of_odd):
    for name, figure in of_odd.items():
        with io.StringIO() as file, matplotlib.rc_context({"svg.fonttype": "none"}):
            figure.savefig(file, format="svg")
            shown = re.sub(r"<!--.*?-->", "", file.getvalue(), flags=re.S)  # comments repeat each label as it was given
            written = html.unescape(shown)
        for label in ("$x_1$ & <b>bold</b>", "100 %_^{}\\", "Ñandú��", "a|b"):
            assert label in written, (name, label)


def test_the_same_data_give_the_same_bytes_and_few_of_them(of_ten):
    again = by_class(TEN, 293) | overall(TEN, 293)
    for name, figure in of_ten[0].items():
        png = of_ten[1][name]
        assert png == again[name]._repr_png_() and len(png) < 120_000, name
        assert Image.open(io.BytesIO(png)).width == 770 and figure.get_dpi() == style.DPI == 110, name


def test_a_persons_own_settings_neither_change_a_figure_nor_are_changed():
    logits, truth = simulated(TEN, 60)
    counts = scores.scores(calibration.softmax(logits), truth, TEN, resamples=5)["confusion"]
    plain = confusion_plot.confusion(counts, TEN)._repr_png_()
    own = {"font.size": 20, "axes.facecolor": "black", "text.parse_math": True, "xtick.labelsize": 4}
    with matplotlib.rc_context(own):
        mine = dict(matplotlib.rcParams)
        assert confusion_plot.confusion(counts, TEN)._repr_png_() == plain
        assert dict(matplotlib.rcParams) == mine


LEAVES_NOTHING = """
import sys, matplotlib
held = lambda: {name: dict.__getitem__(matplotlib.rcParams, name) for name in matplotlib.rcParams}
before = held()  # taken from the dict itself, because asking for the backend would choose one
from species_wb.evaluate import compare_plots, confusion_plot, plots, run_plots
score = {"value": 0.6, "low": 0.2, "high": 0.7}
ahead = {"value": 0.1, "joint_low": 0, "joint_high": 0.2, "established": True}
figures = [
    run_plots.latency([1.0, 2.0], 1.5, 2), run_plots.calendar(["2026-03-02"]),
    run_plots.class_counts({"lynx": {"train": 3}}),
    confusion_plot.confusion([[8, 2], [0, 9]], ["lynx", "wolf"]),
    plots.per_class([{"label": "lynx", "n": 9, "f1": score, "precision": score, "recall": score}]),
    compare_plots.all_pairs(["a", "b"], [{"a": 0, "b": 1, **ahead}], 9),
]
assert all(figure._repr_png_() for figure in figures)
assert 'seaborn' in sys.modules and 'torch' not in sys.modules
assert sys.modules['matplotlib.pyplot'].get_fignums() == []
after = held()
assert after['backend'] is before['backend']
assert after == before, [name for name in after if after[name] != before[name]]
"""


def test_no_figure_stays_open_and_no_backend_is_chosen():
    subprocess.run([sys.executable, "-c", LEAVES_NOTHING], check=True)


def test_only_what_draws_figures_imports_seaborn():
    "Importing it takes a second: no command that draws nothing pays for it."
    files = (ROOT / "species_wb").rglob("[a-z]*.py")
    every = {".".join(path.relative_to(ROOT).with_suffix("").parts) for path in files}
    figures = ("plots", "confusion_plot", "run_plots", "compare_plots")
    figures += ("training_plots", "evaluation_page", "evaluation_galleries", "trust_page", "compare_page")  # they lay these figures out
    draws = {"species_wb.report.style", "species_wb.survey.operation", *(f"species_wb.evaluate.{name}" for name in figures)}
    assert draws <= every
    code = (
        "import importlib, json, sys\n"
        "for module in json.loads(sys.argv[1]): importlib.import_module(module)\n"
        "assert not {'seaborn', 'matplotlib.pyplot'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, json.dumps(sorted(every - draws))], check=True)


def test_numbers_in_cells_stand_out():
    def luminance(colour) -> float:  # WCAG 2.1
        rgb = np.array(matplotlib.colors.to_rgb(colour))
        return float(np.where(rgb <= 0.03928, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722])

    for pair in [[k, 100 - k] for k in range(1, 50, 2)]:
        figure = confusion_plot.confusion([pair, pair], ["a", "b"])
        mesh = figure.axes[0].collections[0]
        backgrounds = mesh.cmap(mesh.norm(mesh.get_array())).reshape(-1, 4)
        for text, background in zip(figure.axes[0].texts, backgrounds, strict=True):
            light, dark = sorted((luminance(text.get_color()), luminance(background[:3])), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= 4.5, pair


def test_the_matrix_holds_the_counts_or_their_shares_of_the_row():
    counts = [[8, 2, 0], [0, 999, 1], [0, 0, 0]]
    cells = [t.get_text() for t in confusion_plot.confusion(counts, ["a", "b", "c"]).axes[0].texts]
    assert cells == ["8", "2", "999", "1"]
    cells = [t.get_text() for t in confusion_plot.confusion(counts, ["a", "b", "c"], shares=True).axes[0].texts]
    assert cells == ["80", "20", ">99", "<1"]


def test_of_many_classes_the_most_confused_are_shown_and_the_title_says_so():
    counts = np.diag(np.full(90, 5))
    counts[70, 3] = counts[88, 70] = 4  # 3, 70 and 88 are confused
    figure = confusion_plot.confusion(counts, [f"species {c}" for c in range(90)])
    rows = [t.get_text() for t in figure.axes[0].get_yticklabels()]
    assert len(rows) == 30 and {"species 3 (5)", "species 70 (9)", "species 88 (9)"} <= set(rows)
    said = figure.get_suptitle().replace("\n", " ")
    assert "30 of 90 classes" in said and "8 of all 8 mistakes" in said
    assert not faults(figure)


def test_of_many_classes_the_weakest_with_enough_photos_and_the_smallest_are_shown():
    names = ("f1", "precision", "recall")
    classes = [
        {"label": f"s{c}", "n": c, **{name: {"value": c / 100, "low": 0, "high": 1} for name in names}}
        for c in range(100)
    ]
    figure = plots.per_class(classes)
    rows = [t.get_text() for t in figure.axes[0].get_yticklabels()]
    assert rows == [f"s{c} ({c})" for c in range(10, 50)] and "40 of 100 classes" in figure.get_suptitle()
    figure = run_plots.class_counts({f"s{c}": {"train": c} for c in range(1, 101)})
    rows = [t.get_text() for t in figure.axes[0].get_yticklabels()]
    assert rows == [f"s{c}" for c in [*range(100, 80, -1), *range(20, 0, -1)]]
    assert "20 largest and 20 smallest of 100" in figure.get_suptitle() and "5,050 photos" in figure.get_suptitle()


def test_bars_stand_one_behind_the_other_in_the_rows_of_their_classes():
    counts = {"lynx": {"train": 7, "test": 2}, LONG: {"train": 5, "valid": 3}, "wolf": {"held out": 1}}
    for some in (counts, {"lynx": counts["lynx"]}):
        (axes,) = run_plots.class_counts(some).axes
        (bottom, top), shares = axes.get_ylim(), {}
        for bar in axes.patches:
            row = np.abs(axes.get_yticks() - (bar.get_y() + bar.get_height() / 2)).argmin()
            assert top <= bar.get_y() and bar.get_y() + bar.get_height() <= bottom
            shares.setdefault(list(some)[row], []).append((bar.get_x(), bar.get_width()))
        ends = {label: np.cumsum([0, *(n for _, n in bars)]).tolist() for label, bars in shares.items()}
        assert {label: [x for x, _ in bars] for label, bars in shares.items()} == {k: e[:-1] for k, e in ends.items()}
        assert {label: e[-1] for label, e in ends.items()} == {label: sum(row.values()) for label, row in some.items()}


def test_intervals_are_drawn_where_they_are():
    interval = {"value": 0.6, "low": 0.25, "high": 0.75}
    figure = plots.per_class([{"label": "a", "n": 9, "f1": interval, "precision": interval, "recall": interval}])
    for axes in figure.axes:
        value, ends = axes.lines
        assert ends.get_xdata().tolist() == [0.25, 0.75] and value.get_xdata().tolist() == [0.6]
    outside = {"value": 0.2, "low": 0.25, "high": 0.75}  # a bootstrap may say so
    figure = plots.per_class([{"label": "a", "n": 9, "f1": outside, "precision": outside, "recall": outside}])
    value, ends = figure.axes[0].lines
    assert ends.get_xdata().tolist() == [0.25, 0.75] and value.get_xdata().tolist() == [0.2]
    curve = reliability.risk_coverage([[0.9, 0.1]] * 8, [0] * 6 + [1] * 2)
    band = plots.risk_coverage(curve).axes[0].collections[0].get_paths()[0].vertices[:, 1]
    assert (band.min(), band.max()) == pytest.approx(intervals.wilson(6, 8))


def test_a_hundred_thousand_photos_make_no_heavy_figure():
    logits, truth = simulated(TEN, 100_000)
    curve = reliability.risk_coverage(calibration.softmax(logits), truth)
    assert len(plots.risk_coverage(curve).axes[0].lines[0].get_xdata()) <= 400


def test_lines_that_end_together_keep_their_labels_apart():
    alike = {"train_accuracy": 0.9, "valid_accuracy": 0.9}
    history = [{"epoch": e, "train_loss": 0.50001 / e, "valid_loss": 0.5 / e, **alike} for e in (1, 2, 3)]
    figure = run_plots.learning_curves(history)
    assert not faults(figure)
    with pytest.raises(ValueError, match="train_loss"):
        run_plots.learning_curves([{"epoch": 1}])


def test_the_calendar_counts_every_dated_photo_once():
    unknown = ["", None, "0000:00:00", "yesterday"]
    for times, unit in (
        (["2026-03-02", "2026-03-08T23:59:59", "2026-03-09T00:00:00Z", *unknown], "week"),
        (["2019-12-31", "2026-03-08", "2026-03-09"], "month"),
        (["1970-01-01T00:00:00", "2026-03-08", "2026-12-31"], "year"),
    ):
        figure = run_plots.calendar(times)
        bars = [bar for bar in figure.axes[0].patches if bar.get_height()]  # a bin without photos is a bar of no height
        assert sorted(bar.get_height() for bar in bars) == [1, 2]
        assert figure.axes[0].get_ylabel() == f"photos per {unit}"
        assert all(not bar.get_linewidth() for bar in figure.axes[0].patches)  # it would be seen as a line
    assert "n = 0 of 2 photos" in run_plots.calendar([None, "?"]).get_suptitle()


def test_slow_outliers_are_counted_not_drawn():
    figure = run_plots.latency([1.0] * 99 + [500.0], 1.0, 1.0)
    assert "1 slower than 2 ms not shown" in figure.get_suptitle()
    assert sum(bar.get_height() for bar in figure.axes[0].patches) == 99
