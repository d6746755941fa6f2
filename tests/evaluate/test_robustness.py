"""Photos are made as much worse as is said, always in the same way, and the report says what was measured."""

import io
import json
import shutil
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression
from test_job import network_of_edges

from species_wb.engine import model_file, predict
from species_wb.evaluate import evaluation, plots, robustness, robustness_text, scoring, subgroups
from species_wb.metrics import scores
from species_wb.photos import corruptions, pixels, scan
from species_wb.core import UserError, read_json, write_json

EVERY = [(name, strength) for name in corruptions.CORRUPTIONS for strength in corruptions.STRENGTHS]


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    return 10 * np.log10(255**2 / np.square(one.astype(float) - other).mean())


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    "Smooth shapes with some grain."
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(30, 226, (9, 12, 3), np.uint8))
    coarse = coarse.resize((width, height), Image.Resampling.BICUBIC)
    return np.clip(np.asarray(coarse) + rng.normal(0, 4, (height, width, 3)), 0, 255).astype(np.uint8)


# ── the corruptions ──


@pytest.mark.parametrize("short", [200, 256, 341, 512])
@pytest.mark.parametrize(("strength", "deviation"), [(1, 0.08), (2, 0.12)])
def test_noise_has_the_mean_and_the_deviation_it_says(short, strength, deviation):
    grey = np.full((short, short * 3 // 2, 3), 128, np.uint8)
    added = corruptions.corrupt(grey, "noise", strength, "photo").astype(float) - 128
    n = min(short, 256) ** 2 * 4.5  # grains; a mean of n strays by deviation / √n
    assert abs(added.mean()) < 4 * 255 * deviation / n**0.5
    assert added.std() / 255 == pytest.approx(deviation, rel=0.02)
    assert np.abs(np.corrcoef(added.reshape(-1, 3).T) - np.eye(3)).max() < 0.03


def test_noise_is_of_a_photo_and_a_strength():
    grey = np.full((256, 256, 3), 128, np.uint8)
    noise = lambda key, k: (corruptions.corrupt(grey, "noise", k, key).astype(float) - 128).ravel()  # noqa: E731
    drawn = {(key, k): noise(key, k) for key in ("a", "b") for k in (1, 2)}
    for one in drawn:
        for other in drawn:
            assert abs(np.corrcoef(drawn[one], drawn[other])[0, 1]) < 0.02 or one == other


@pytest.mark.parametrize("short", [256, 400])
@pytest.mark.parametrize("strength", corruptions.STRENGTHS)
def test_blur_is_the_gaussian_of_scipy(short, strength):
    from scipy.ndimage import gaussian_filter

    photo = np.random.default_rng(0).integers(0, 256, (short, short * 3 // 2, 3), np.uint8)  # all detail
    deviation = (1, 2, 3, 4, 6)[strength - 1] * short / 256
    exact = gaussian_filter(photo.astype(float), (deviation, deviation, 0), mode="nearest")
    near = {k: psnr(corruptions.corrupt(photo, "blur", k), exact) for k in corruptions.STRENGTHS}
    assert near.pop(strength) > max(38, *near.values())


@pytest.mark.parametrize("strength", corruptions.STRENGTHS)
def test_a_stop_less_is_half_the_light(strength):
    def light(coded):  # IEC 61966-2-1
        coded = coded / 255
        return np.where(coded > 0.04045, ((coded + 0.055) / 1.055) ** 2.4, coded / 12.92)

    greys = np.repeat(np.arange(256, dtype=np.uint8)[:, None, None], 3, 2)
    dark = corruptions.corrupt(greys, "dark", strength).astype(float)
    wanted = light(greys.astype(float)) / 2**strength
    assert (light(dark - 0.5) <= wanted + 1e-9).all()  # as near as bytes can be
    assert (wanted <= light(dark + 0.5) + 1e-9).all()


@pytest.mark.parametrize("strength", corruptions.STRENGTHS)
def test_jpeg_is_the_jpeg_of_pillow_at_that_quality(strength):
    photo, file = picture(256, 384), io.BytesIO()
    Image.fromarray(photo).save(file, "JPEG", quality=(25, 18, 15, 10, 7)[strength - 1])
    near = {k: psnr(corruptions.corrupt(photo, "jpeg", k), np.asarray(Image.open(file))) for k in corruptions.STRENGTHS}
    assert near.pop(strength) > max(38, *near.values())  # another arithmetic, the same tables


@pytest.mark.parametrize("strength", corruptions.STRENGTHS)
def test_far_away_leaves_no_detail_finer_than_it_says(strength):
    kept = (128, 96, 64, 48, 32)[strength - 1]
    grain = np.random.default_rng(1).integers(0, 100, (256, 256, 3), np.uint8)
    worse = corruptions.corrupt(picture(256, 256) // 2 + grain, "small", strength)
    power = np.abs(np.fft.fft2(worse[..., 0])) ** 2
    frequency = np.hypot(*np.meshgrid(*[np.fft.fftfreq(256, 1 / 256)] * 2))
    power[0, 0] = 0
    assert power[frequency > kept].sum() < 0.02 * power.sum()


@pytest.mark.parametrize("name", corruptions.CORRUPTIONS)
def test_each_strength_leaves_less_of_a_real_photo_and_as_much_at_any_size(photos, name):
    left = {256: [], 512: []}
    for path in sorted((photos / "train").glob("*/*.jpg"))[::160]:
        original = Image.fromarray(pixels.decode(path.read_bytes(), None))
        for short, row in left.items():
            size = [round(side * short / min(original.size)) for side in original.size]
            photo = np.asarray(original.resize(size, Image.Resampling.BICUBIC))
            variants = [photo, *(corruptions.corrupt(photo, name, k, "x") for k in corruptions.STRENGTHS)]
            seen = [np.asarray(Image.fromarray(p).resize((224, 224), Image.Resampling.BICUBIC)) for p in variants]
            row.append([psnr(one, seen[0]) for one in seen[1:]])
    assert np.diff(np.mean(left[256], axis=0)).max() < 0 and np.diff(np.mean(left[512], axis=0)).max() < 0
    assert np.abs(np.mean(left[256], axis=0) - np.mean(left[512], axis=0)).max() < 3, "dB"


@pytest.mark.parametrize("shape", [(1, 1), (1, 700), (3, 5), (40, 30_000), (256, 341), (1025, 1100), (3000, 2000)])
def test_any_photo_can_be_spoiled_and_stays_as_it_was(shape):
    photo = picture(*shape)
    before = photo.copy()
    photo.flags.writeable = False  # as photos from the cache are
    for name, strength in EVERY:
        worse = corruptions.corrupt(photo, name, strength, "k")
        assert worse.dtype == np.uint8 and worse.ndim == 3 and worse.shape[2] == 3
        if max(shape) < 1024:
            assert worse.shape == photo.shape
        else:
            ratio = pytest.approx(shape[0] / shape[1], rel=0.02)
            assert worse.shape[0] / worse.shape[1] == ratio or min(worse.shape[:2]) < 50
        assert min(worse.shape[:2]) >= min(512, min(shape)) or max(shape) > 16_384
    assert np.array_equal(photo, before)
    assert all(np.array_equal(corruptions.corrupt(photo, name, 0), before) for name in corruptions.CORRUPTIONS)


def test_the_same_in_any_order_any_thread_and_any_process():
    photo = picture(256, 300)
    worse = lambda e: corruptions.corrupt(photo, *e, "key").tobytes()  # noqa: E731
    alone = {e: worse(e) for e in EVERY}
    with ThreadPoolExecutor(8) as pool:
        together = dict(zip(EVERY[::-1], pool.map(worse, EVERY[::-1]), strict=True))
    assert alone == together
    code = (
        "import sys, hashlib, numpy; from species_wb.photos.corruptions import corrupt; numpy.random.seed(5); "
        "worse = corrupt(numpy.full((90, 80, 3), 99, numpy.uint8), 'noise', 3, 'key'); "
        "print(hashlib.sha256(worse.tobytes()).hexdigest())"
    )
    options = {"capture_output": True, "text": True, "check": True}
    command = [sys.executable, "-c", code]
    said = {subprocess.run(command, env={"PYTHONHASHSEED": seed}, **options).stdout for seed in "12"}
    assert len(said) == 1


NO_CORRUPTION = [("fog", 1, "no corruption"), ("blur", 6, "0 to 5"), ("blur", -1, "0 to 5"), ("blur", 1.5, "0 to 5")]


@pytest.mark.parametrize(("name", "strength", "said"), NO_CORRUPTION)
def test_what_is_no_corruption_is_refused(name, strength, said):
    with pytest.raises(ValueError, match=said):
        corruptions.corrupt(picture(32, 32), name, strength)


# ── measuring ──


def fitted(path: Path, manifest: pa.Table) -> model_file.ModelFile:
    "Make a model file that looks at edges and colours, so every corruption changes its scores. It saw the test photos."
    labels = sorted(set(manifest["label"].to_pylist()) - {None})
    filters = np.random.default_rng(0).normal(size=(24, 3, 5, 5)) / 500
    filters[:16] -= filters[:16].mean((1, 2, 3), keepdims=True)  # they see edges
    filters[16:] = np.abs(filters[16:])  # and these colours
    nothing = np.zeros((len(filters), len(labels))), np.zeros(len(labels))
    blank = model_file.open_model(network_of_edges(path, labels, filters, *nothing))
    held_back = manifest.filter(pc.is_in(manifest["split"], pa.array(["valid", "test"])))
    known = predict.predict_manifest(blank, held_back).to_pylist()
    seen = np.array([row["embedding"] for row in known])
    mean, deviation, truth = seen.mean(0), seen.std(0), [labels.index(row["truth"]) for row in known]
    head = LogisticRegression(C=3, max_iter=2000).fit((seen - mean) / deviation, truth)
    weight, bias = head.coef_.T / deviation[:, None], head.intercept_ - head.coef_ @ (mean / deviation)
    return model_file.open_model(network_of_edges(path, labels, filters, weight, bias))


@pytest.fixture(scope="module")
def judged(survey, tmp_path_factory) -> tuple[evaluation.Evaluation, scoring.Scored]:
    "A small network on the small survey, and its scored test photos."
    folder, manifest = tmp_path_factory.mktemp("judged"), scan.scan(survey)
    about = evaluation.Evaluation(folder, fitted(folder / "model.onnx", manifest), manifest, {}, {}, [], [], own=False)
    return about, scoring.score(about, predict.predict_manifest(about.model, evaluation.to_predict(manifest)))


@pytest.fixture(scope="module")
def measured(judged):
    about, scored = judged
    return robustness.score_on_worse_photos(about.model, scored.rows, scored.root, "full", resamples=1000)


def test_the_clean_accuracy_is_that_of_the_report(judged, measured):
    assert measured["clean_accuracy"] == judged[1].scores["accuracy"]
    assert measured["n"] == measured["of"] == len(judged[1].rows)
    assert measured["groups"] == judged[1].scores["groups"]
    assert json.loads(json.dumps(measured)) == measured


@pytest.mark.parametrize(("name", "strength"), [("noise", 2), ("dark", 5), ("small", 3)])
def test_the_numbers_are_those_of_the_rows(judged, measured, name, strength):
    "One photo through all variants gives what one variant of all photos gives."
    about, scored = judged
    test = about.manifest.filter(pc.equal(about.manifest["split"], "test"))
    rows = predict.predict_manifest(about.model, test, change=robustness.changed(name, strength)).to_pylist()
    found, right = measured["corruptions"][name][strength - 1], np.mean([row["label"] == row["truth"] for row in rows])
    assert found["strength"] == strength and found["accuracy"]["value"] == pytest.approx(right)
    assert found["mean_score"] == pytest.approx(np.mean([row["score"] for row in rows]), abs=1e-5)
    variants = [(n, s) for n, strengths in measured["corruptions"].items() for s in strengths]
    others = [s["mean_score"] for n, s in variants if (n, s["strength"]) != (name, strength)]
    assert np.abs(np.array(others) - found["mean_score"]).min() > 1e-4  # another variant would have been noticed


def test_the_means_are_plain_means_and_have_intervals(measured):
    assert set(measured) >= {"how", "n", "clean_accuracy", "mean_accuracy", "corruptions"}
    value = {name: [s["accuracy"]["value"] for s in strengths] for name, strengths in measured["corruptions"].items()}
    assert list(value) == list(corruptions.CORRUPTIONS) and all(len(v) == 5 for v in value.values())
    assert measured["mean_accuracy"]["value"] == pytest.approx(np.mean(list(value.values())))
    variants = [s["accuracy"] for strengths in measured["corruptions"].values() for s in strengths]
    for score in (measured["clean_accuracy"], measured["mean_accuracy"], *measured["means"].values(), *variants):
        assert 0 <= score["low"] <= score["value"] <= score["high"] <= 1 and score["low"] < score["high"]
    for name in value:
        assert measured["means"][name]["value"] == pytest.approx(np.mean(value[name]))


def test_equal_whatever_the_order_of_the_photos(judged, measured, monkeypatch):
    about, scored = judged
    monkeypatch.setattr(robustness, "best_batch", lambda b: 7)  # and however many are asked at once
    again = robustness.score_on_worse_photos(about.model, scored.rows[::-1], scored.root, "full", resamples=50)
    for name, strengths in measured["corruptions"].items():
        others = again["corruptions"][name]
        assert [s["accuracy"]["value"] for s in strengths] == [s["accuracy"]["value"] for s in others]
        assert [s["mean_score"] for s in strengths] == pytest.approx([s["mean_score"] for s in others], abs=1e-6)
    assert again["photos"] == measured["photos"]


def test_a_photo_is_decoded_once_and_few_are_held(judged, monkeypatch):
    about, scored = judged
    decode, ask, decoded, answered, ahead = pixels.decode, robustness.infer, [], [], []

    def counting(*words):
        decoded.append(1)
        ahead.append(len(decoded) - sum(answered) / len(robustness.VARIANTS))
        return decode(*words)

    monkeypatch.setattr(robustness.pixels, "decode", counting)
    monkeypatch.setattr(robustness, "infer", lambda b, several: (answered.append(len(several[0])), ask(b, several))[1])
    monkeypatch.setattr(robustness, "best_batch", lambda b: 32)
    robustness.score_on_worse_photos(about.model, scored.rows, scored.root, "full", resamples=10)
    assert len(decoded) == len(scored.rows) and sum(answered) == 26 * len(scored.rows) and set(answered[:-1]) == {32}
    assert max(ahead) <= 2 * about.model.threads + 4


def test_photos_that_went_away_are_left_out_and_counted(judged, tmp_path, monkeypatch):
    about, scored = judged
    monkeypatch.setattr(robustness, "best_batch", lambda b: 32)  # finding it takes a second
    rows = [{**scored.rows[0], "path": "gone.jpg"}, scored.rows[1], {**scored.rows[2], "path": "gone too.jpg"}]
    found = robustness.score_on_worse_photos(about.model, rows, scored.root, "full", resamples=10)
    assert (found["n"], found["of"]) == (1, 3) and "1 of the 3 test photos" in robustness_text.sentences(found)[0]
    with pytest.raises(UserError, match="None of the 2 test photos opens any more"):
        robustness.score_on_worse_photos(about.model, rows[::2], str(tmp_path), "full")


@pytest.mark.parametrize("sizes", [[500], [150, 150], [400, 3], [1] * 300, [90, 45, 15, 60, 10]])
def test_quick_is_200_photos_with_each_class_its_share(sizes):
    rows = [{"path": f"{c}-{i}", "sha256": f"{c}{i}", "truth": str(c)} for c, n in enumerate(sizes) for i in range(n)]
    some = robustness.drawn(rows, "quick", seed=3)
    total, taken = sum(sizes), min(200, sum(sizes))
    assert len(some) == len(set(some)) == taken and some == robustness.drawn(rows, "quick", seed=3)
    for c, n in enumerate(sizes):
        assert abs(sum(rows[i]["truth"] == str(c) for i in some) - n * taken / total) <= 1
    counts = np.zeros(len(rows))
    for seed in range(60):
        counts[robustness.drawn(rows, "quick", seed)] += 1
    assert counts.max() <= 60 and counts.min() > 0  # every photo has its chance


def test_intervals_are_those_of_a_plain_bootstrap():
    rng = np.random.default_rng(0)
    right = rng.random((200, 25)) < rng.random((200, 1))
    (mean,) = scores.shares(right.mean(1, keepdims=True), resamples=4000)
    from scipy.stats import bootstrap

    options = {"method": "percentile", "n_resamples": 4000, "rng": np.random.default_rng(1)}
    theirs = bootstrap((right.mean(1),), np.mean, **options).confidence_interval
    assert (mean["low"], mean["high"]) == pytest.approx((theirs.low, theirs.high), abs=0.005)
    (single,) = scores.shares(right.reshape(-1, 1))  # as if 25 variants were 25 photos
    assert mean["high"] - mean["low"] > 2 * (single["high"] - single["low"])


# ── by place and source ──


def scored_with(columns: dict[str, list], truth: list[int], right: list[bool]) -> scoring.Scored:
    truth, right = np.array(truth), np.array(right)
    rows = [{"path": f"{k}.jpg", "sha256": f"{k}", "group": None, "truth": "ab"[t]} for k, t in enumerate(truth)]
    rows = [row | {name: values[k] for name, values in columns.items()} for k, row in enumerate(rows)]
    chances = np.eye(2)[np.where(right, truth, 1 - truth)]
    return scoring.Scored(rows, ["a", "b"], truth, chances, chances, None, "/", Counter())


def test_which_columns_are_asked_and_which_are_not():
    n = 400
    truth = [k % 2 for k in range(n)]
    columns = {
        "site": [f"s{k % 35}" for k in range(n)], "source": [None] * n,
        "collector": ["A"] * 30 + ["B"] * 30 + ["C"] * 4 + [None] * (n - 64),
        "flash": [k % 7 == 0 for k in range(n)], "class": ["ab"[t] for t in truth],
        "same as site": [f"S{k % 35}" for k in range(n)], "licence": [f"{k % 31}" for k in range(n)],
        "lens": [float(k % 3) for k in range(n)], "one": ["x"] * n, "rare": ["y"] * 9 + ["z"] * (n - 9),
        "path": ["/"] * n, "x0_given": ["0"] * n,
    }  # fmt: skip
    found = subgroups.parts(scored_with(columns, truth, [True] * n))
    assert list(found) == ["site", "collector", "flash"]
    collectors = [(row["value"], row["n"]) for row in found["collector"]]
    assert collectors == [("A", 30), ("B", 30), ("1 smaller value", 4), ("not known", n - 64)]
    assert len(found["site"]) == 35 and sum(row["n"] for row in found["site"]) == n


def test_a_place_called_not_known_is_a_place():
    truth = [k % 2 for k in range(90)]
    sites = ["A"] * 30 + ["not known"] * 30 + [None] * 30
    right = [k < 30 or k % 3 > 0 for k in range(60)] + [False] * 30  # all photos without a place are wrong
    found = subgroups.parts(scored_with({"site": sites}, truth, right))["site"]
    rows = [(row["value"], row["known"], row["n"]) for row in found]
    assert rows == [("A", True, 30), ("not known", True, 30), ("not known", False, 30)]
    found = [row | {"expected": 0.9} if row["value"] == "not known" else row for row in found]
    assert subgroups.part_sentence("site", found).startswith("The site not known is harder than its classes explain: 0.67 (")


def test_what_a_part_is_expected_to_reach_follows_from_its_classes():
    "Class b is always wrong; source X holds mostly b, and is as good as any other, class by class."
    truth = [0] * 10 + [1] * 30 + [0] * 30 + [1] * 10
    found = subgroups.parts(scored_with({"source": ["X"] * 40 + ["Y"] * 40}, truth, [t == 0 for t in truth]))["source"]
    assert [(row["accuracy"]["value"], row["expected"]) for row in found] == [(0.25, 0.25), (0.75, 0.75)]
    assert subgroups.part_sentence("source", found) == "No source is shown to be harder than its classes explain."


def test_a_part_counts_its_groups_and_not_its_photos():
    truth, right = [k % 2 for k in range(100)], [k // 10 % 2 == 0 for k in range(100)]
    plain = scored_with({"site": ["A"] * 50 + ["B"] * 50}, truth, right)
    alone = subgroups.parts(plain)["site"][0]["accuracy"]
    for k, row in enumerate(plain.rows):
        row["group"] = f"burst {k // 10}"
    together = subgroups.parts(plain)["site"][0]["accuracy"]
    assert together["value"] == alone["value"]
    assert together["high"] - together["low"] > 2 * (alone["high"] - alone["low"])


def test_a_persons_table_becomes_a_question(judged, workspace, survey, tmp_path):
    "A CSV like SOURCES.csv, from the file to the part: its column `class` says what the label says, and is not asked; `taxon` is the person's, not the answer's."
    about, survey = judged[0], shutil.copytree(survey, tmp_path / survey.name)
    paths = [row["path"] for row in scan.scan(survey).to_pylist() if row["split"] == "test"]
    repository = lambda k: f"github:{'one' if k % 2 else 'two, and more'}"  # noqa: E731
    lines = [f"{path},{path.split('/')[0]},{repository(k)},{k}" for k, path in enumerate(paths)]
    quoted = [f'{a},{b},"{",".join(rest[:-1])}",{rest[-1]},{"owl" if k % 3 else "hawk"}' for k, (a, b, *rest) in enumerate(line.split(",") for line in lines)]
    written = ["file,class,source_repo,original,taxon", *(f"{survey.name}/{line}" for line in quoted)]
    (survey.parent / "SOURCES.csv").write_text("\n".join(written), encoding="utf-8")
    manifest = scan.scan(survey, survey.parent / "SOURCES.csv")
    assert {"class", "source_repo", "original"} <= set(manifest.schema.names)
    rows = predict.predict_manifest(about.model, evaluation.to_predict(manifest))
    found = subgroups.parts(scoring.score(about, rows, resamples=10))
    assert "class" not in found and "original" not in found
    assert {row["value"] for row in found["source_repo"]} == {"github:one", "github:two, and more"}
    assert [row["value"] for row in found["taxon"]] == ["owl", "hawk"] and "taxon_given" not in found  # as the person called it
    assert rows["taxon"].null_count == len(rows)  # the model's own column: it knows no finer names


# ── the report ──


def test_a_figure_for_every_corruption(measured):
    figure = plots.robustness(measured, robustness.MEANINGS)
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles[:5] == [f"{name}: {about.meaning}" for name, about in corruptions.CORRUPTIONS.items()]
    assert f"n = {measured['n']} photos" in figure.get_suptitle()
    for axes, (_, strengths) in zip(figure.axes, measured["corruptions"].items(), strict=False):
        clean, right, score = (line.get_ydata() for line in axes.get_lines())
        assert list(right)[1:] == [s["accuracy"]["value"] for s in strengths]
        assert list(score)[1:] == [s["mean_score"] for s in strengths]
        assert set(clean) == {right[0]} == {measured["clean_accuracy"]["value"]}


@pytest.mark.slow
def test_the_report_shows_it_where_asked_and_keeps_it_after(trained, judged, workspace, tmp_path):
    run, command = tmp_path / "run", str(Path(sys.executable).parent / "species-wb")
    shutil.copytree(trained, run)
    report = lambda: (run / "report.html").read_text(encoding="utf-8")  # noqa: E731
    assert "If the photos get worse" not in report() and "robustness" not in read_json(run / "metrics.json")
    parts = read_json(run / "metrics.json")["parts"]
    assert (f">{subgroups.heading(parts) if parts else 'By source'}</h2>" in report()) == bool(parts)
    shutil.copyfile(judged[0].model.path, run / "model.onnx")  # of the same labels, and quick
    subprocess.run([command, "evaluate", str(run), "--robustness", "quick"], check=True, capture_output=True)
    found = read_json(run / "metrics.json")["robustness"]
    assert found["clean_accuracy"] == read_json(run / "metrics.json")["test"]["accuracy"]
    assert found["model"] == judged[0].model.sha256 and found["how"] == "quick"
    assert "If the photos get worse" in report() and robustness_text.sentences(found)[0][:40] in report()
    assert report().count("out of focus") >= 4 and report().count("<script") == 1
    subprocess.run([command, "evaluate", str(run)], check=True, capture_output=True)
    assert read_json(run / "metrics.json")["robustness"] == found and "If the photos get worse" not in report()
    about = evaluation.begin(run)
    write_json(run / "metrics.json", {"robustness": {**found, "model": "0" * 64}})
    robustness.record(about, None, {})
    assert "robustness" not in read_json(run / "metrics.json")  # it was measured of another model


@pytest.mark.parametrize("words", [["train", "simple_cnn"], ["evaluate", "run"]])
def test_an_unknown_word_is_refused_before_anything_is_done(words, workspace):
    command = [str(Path(sys.executable).parent / "species-wb"), *words, "--robustness", "quik"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr == "robustness is 'quik': did you mean quick?\n"
    assert list(workspace.iterdir()) == []


def test_the_strip_shows_what_the_network_sees(judged):
    about, scored = judged
    shown = list(robustness.strip(about.model, scored.rows[0], scored.root))
    assert len(shown) == 16 and all(Image.open(io.BytesIO(item["photo"])).size == (224, 224) for item in shown)
    k = int(scored.probabilities[0].argmax())
    assert scored.labels[k] in shown[0]["lines"][1] and f"{scored.probabilities[0, k]:.2f}" in shown[0]["lines"][1]
    assert model_file.open_model(about.model.path).sha256 == about.model.sha256
