"The comparison is fair: the same photos for all, paired intervals that agree with scipy, verdicts that hold together; one bad folder never stops it."

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from species_wb import cli, contracts, core
from species_wb.engine import backends, model_file
from species_wb.evaluate import compare, compare_runs, compare_tables, compare_text, compare_times
from species_wb.metrics import calibration, paired, scores
from species_wb.core import UserError
from species_wb.predictions import predictions_table
from species_wb.runs import set_state

BIN = Path(sys.executable).parent
ROOT = Path(__file__).resolve().parents[2]
LABELS = ["Aves", "Fungi", "Insecta", "Plantae"]


def written(path: Path, labels: list[str], arch: str, seed: int, trained=(), temperature: float = 1.0) -> model_file.ModelFile:
    "A network that answers by the mean colour."
    weight = numpy_helper.from_array(np.random.default_rng(seed).normal(size=(3, len(labels))).astype(np.float32) / 50, "weight")
    nodes = [helper.make_node("Cast", ["pixels"], ["x"], to=TensorProto.FLOAT), helper.make_node("ReduceMean", ["x", "axes"], ["embedding"], keepdims=0), helper.make_node("MatMul", ["embedding", "weight"], ["logits"])]
    shapes = [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["n", 16, 16, 3]), helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", len(labels)]), helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", 3])]
    graph = helper.make_graph(nodes, "tiny", shapes[:1], shapes[1:], [weight, numpy_helper.from_array(np.array([1, 2]), "axes")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    info = contracts.ModelInfo(labels, list(range(len(labels))), contracts.ModelSpec(arch, 16, (0.5,) * 3, (0.5,) * 3), temperature, provenance={"training_photos": sorted(trained)})
    helper.set_model_props(model, {contracts.METADATA_KEY: contracts.info_to_json(info)})
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return model_file.open_model(path)


def photo_rows(n: int = 300, seed: int = 0, first: int = 0) -> list[dict]:
    truth = np.random.default_rng(seed).integers(0, 4, n)
    return [{"path": f"{LABELS[t]}/{k}.jpg", "truth": LABELS[t], "sha256": f"{k + first:016d}" * 4, "group": None, "source": None} for k, t in enumerate(truth)]


def a_run(home: Path, name: str, rows: list[dict], gain: float, arch: str = "resnet50", labels=LABELS, ms: float | None = 10.0, trained=(), **more) -> Path:
    "A finished run, as contract 5 has it, whose network sees the truth through noise; part of the noise is the photo's own."
    run = home / "reports" / "train" / name
    file = written(run / "model.onnx", list(labels), arch, sum(name.encode()), trained)
    number = {label: k for k, label in enumerate(labels)}
    shared, own = np.random.default_rng(1), np.random.default_rng(sum(name.encode()))
    logits = shared.normal(size=(len(rows), len(labels))) + 0.5 * own.normal(size=(len(rows), len(labels)))
    for k, row in enumerate(rows):
        if row["truth"] in number:
            logits[k, number[row["truth"]]] += gain
    told = [{**row, "split": "test", "status": "ok", "logits": z.astype(np.float32), "embedding": np.ones(1, np.float32), "model": file.sha256[:16]} for row, z in zip(rows, logits, strict=True)]
    contracts.write_table(predictions_table(told, more.pop("root", home / "my photos"), list(labels)), run / "predictions.parquet")
    latency = {"p50": ms, "p95": 1.3 * ms, "photos_per_second": 1100 / ms, "cpu": backends.cpu_name(), "threads": core.cpu_count(), "n": 60, "batch": 4} if ms else None
    core.write_json(run / "metrics.json", {**({"latency": latency} if latency else {}), **more.pop("metrics", {})})
    core.write_json(run / "training.json", {"method": "probe", "total": 80.0, "weights": {"used": "imagenet", "where": "ImageNet, from torchvision"}, **more.pop("training", {})})
    core.write_json(run / "params.json", {"arch": arch, "seed": 0, **more})
    set_state(run, "finished")
    return run


def compared(*words: str) -> compare.Comparison:
    found = compare.compare(compare_runs.gather_runs(*words), resamples=2000)
    compare_times.measure_times(found)
    return found


def test_the_page_says_with_which_command_it_is_made_again(workspace):
    "With the paths from the workspace on, so that a colleague's clone can run it and no folder of this machine is told."
    rows = photo_rows(20)
    runs = [a_run(workspace, name, rows, 2.0) for name in ("one", "two")]
    gathered = compare_runs.gather_runs(",".join(map(str, runs)))
    facts = compare_tables.provenance(compare.compare(gathered, resamples=20), gathered)
    assert facts["made again with"] == "species-wb compare reports/train/one reports/train/two"
    assert str(workspace) not in str(facts)


# the statistics


def three_models(n: int = 80):
    rng = np.random.default_rng(5)
    truth, hard = rng.integers(0, 4, n), rng.normal(size=(n, 4))
    return [calibration.softmax(hard + 0.4 * rng.normal(size=(n, 4)) + gain * np.eye(4)[truth]) for gain in (2.2, 1.7, 0.6)], truth


def test_differences_agree_with_scipy():
    "scipy's own paired percentile bootstrap, with statistics that are scikit-learn's: ends agree within a tenth of the interval's width."
    from scipy.stats import bootstrap
    from sklearn.metrics import accuracy_score, f1_score, log_loss

    models, truth = three_models()
    answers, n, classes = [m.argmax(1) for m in models], len(truth), range(4)

    def f1(k, m):  # of R×n photos, R
        is_class, called = (np.stack([of[k] == c for c in classes], -1) for of in (truth, answers[m]))
        support = is_class.sum(1)
        return (2 * (is_class & called).sum(1) / np.maximum(support + called.sum(1), 1) * support).sum(1) / n

    measures = {
        "accuracy": (lambda k, m: (answers[m] == truth)[k].mean(1), lambda k, m: accuracy_score(truth[k], answers[m][k])),
        "weighted_f1": (f1, lambda k, m: f1_score(truth[k], answers[m][k], average="weighted", zero_division=0)),
        "log_loss": (lambda k, m: -np.log(models[m][np.arange(n), truth])[k].mean(1), lambda k, m: log_loss(truth[k], models[m][k], labels=classes)),
    }
    for name, (many, one) in measures.items():  # many resamples at once are what scikit-learn says of each
        drawn = np.random.default_rng(3).integers(0, n, (40, n))
        for m in range(3):
            assert many(drawn, m) == pytest.approx([one(k, m) for k in drawn]), name
    for pair in paired.paired(models, truth, resamples=20_000, seed=1)["pairs"]:
        for name, (many, one) in measures.items():

            def difference(k, axis, many=many, pair=pair):
                return many(k.astype(int), pair["a"]) - many(k.astype(int), pair["b"])

            theirs = bootstrap((np.arange(n),), difference, vectorized=True, method="percentile", n_resamples=1500, rng=np.random.default_rng(2)).confidence_interval
            ours, width, whole = pair[name], theirs.high - theirs.low, np.arange(n)
            assert ours["value"] == pytest.approx(one(whole, pair["a"]) - one(whole, pair["b"]), abs=1e-6), name
            assert ours["low"] == pytest.approx(theirs.low, abs=0.1 * width) and ours["high"] == pytest.approx(theirs.high, abs=0.1 * width), (name, ours, theirs)


def test_two_samples_agree_with_scipys_paired_bootstrap():
    "Right or wrong of two models, as scipy's paired=True takes them."
    from scipy.stats import bootstrap

    models, truth = three_models()
    right = [(m.argmax(1) == truth).astype(float) for m in models]
    theirs = bootstrap((right[0], right[2]), lambda a, b, axis: a.mean(axis) - b.mean(axis), paired=True, method="percentile", n_resamples=20_000, rng=np.random.default_rng(0)).confidence_interval
    ours = paired.paired([models[0], models[2]], truth, resamples=20_000)["pairs"][0]["accuracy"]
    assert ours["low"] == pytest.approx(theirs.low, abs=0.013) and ours["high"] == pytest.approx(theirs.high, abs=0.013)  # one photo of 80
    assert ours["joint_low"] == ours["low"] and ours["joint_high"] == ours["high"]  # a single comparison is not widened


def test_groups_are_drawn_whole():
    models, truth = three_models(60)
    many = [np.repeat(m, 5, axis=0) for m in models]
    groups = np.repeat(np.arange(60), 5)

    def width(found: dict) -> float:
        return found["pairs"][0]["accuracy"]["high"] - found["pairs"][0]["accuracy"]["low"]

    once, burst, loose = (paired.paired(*given, resamples=3000) for given in ((models, truth), (many, np.repeat(truth, 5), groups), (many, np.repeat(truth, 5))))
    assert width(burst) == pytest.approx(width(once), rel=0.1) and width(loose) < 0.6 * width(burst)
    assert burst["groups"] == 60 and burst["n"] == 300 and once["groups"] is None


def test_the_same_resamples_as_the_scores_on_the_page():
    models, truth = three_models()
    groups = np.arange(80) // 2
    alone = [scores.scores(m, truth, LABELS, groups, resamples=300, seed=4)["accuracy"] for m in models[:2]]
    known = paired.tally(models, truth, groups)
    drawn = np.concatenate([paired._scored(known, w)[0]["accuracy"] for w in paired._draws(40, 300, 4)])
    for k in range(2):
        assert np.allclose(np.quantile(drawn[1:, k], [0.025, 0.975]), [alone[k]["low"], alone[k]["high"]])


def test_established_goes_with_mcnemar():
    "Exact McNemar on the photos that only one of the two names right: never established where it is far from 0.05, always where it is far below."
    from scipy.stats import binomtest

    rng = np.random.default_rng(0)
    seen = set()
    for only_a, only_b in [(5, 0), (6, 0), (10, 2), (12, 9), (30, 10), (25, 20), (0, 0), (4, 1)]:
        truth = rng.integers(0, 3, 200)
        answers = [truth.copy(), truth.copy()]
        order = rng.permutation(200)
        for k, model in ((order[:only_a], 1), (order[only_a : only_a + only_b], 0)):
            answers[model][k] = (answers[model][k] + 1) % 3
        found = paired.paired([np.eye(3)[a] * 0.9 + 1 / 30 for a in answers], truth, resamples=4000)["pairs"][0]["accuracy"]
        p = binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
        assert found["value"] == pytest.approx((only_a - only_b) / 200) and found["units"] == only_a + only_b
        assert found["established"] == (p < 0.05) if not 0.02 < p < 0.1 else True, (only_a, only_b, p, found)
        if only_a == 5:
            assert found["low"] > 0 and not found["established"]  # resamples alone would have been fooled
        seen.add(found["established"])
    assert seen == {True, False}


def test_ten_equal_models_are_seldom_told_apart():
    "With plain intervals most trials would find a difference; with those that hold together few do. Sixty trials; the bound is left by chance once in thousands."
    fooled, plainly = 0, 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        truth = rng.integers(0, 4, 150)
        hard = rng.normal(size=(150, 4)) + 2 * np.eye(4)[truth]
        models = sorted((calibration.softmax(hard + 0.5 * rng.normal(size=(150, 4))) for _ in range(10)), key=lambda m: -(m.argmax(1) == truth).mean())
        found = [p["accuracy"] for p in paired.paired(models, truth, resamples=500, seed=seed)["pairs"]]
        fooled += any(f["established"] for f in found)
        plainly += any(f["low"] > 0 or f["high"] < 0 for f in found)
    assert fooled <= 10 and plainly > 25, (fooled, plainly)


def test_the_same_seed_gives_the_same_numbers():
    models, truth = three_models()
    assert paired.paired(models, truth, resamples=200, seed=3) == paired.paired(iter(models), truth, resamples=200, seed=3) != paired.paired(models, truth, resamples=200, seed=4)


# what is compared with what


def test_only_the_photos_that_all_have_and_none_was_trained_on(workspace):
    rows = photo_rows(200)
    a_run(workspace, "a", rows[:190], 3)
    a_run(workspace, "b", rows[5:], 2, arch="lite0", trained=[row["sha256"][:16] for row in rows[20:23]])
    other = [{**row, "truth": LABELS[(LABELS.index(row["truth"]) + 1) % 4]} if k == 50 else row for k, row in enumerate(rows)]
    a_run(workspace, "c", other, 2.5, arch="lite1")
    found = compared()
    assert found.n == 190 - 5 - 3 - 1 and len(found.models) == 3
    said = " ".join(found.left_out)
    assert "3 test photos are left out for all models, because at least one of them was trained on an identical file." in said
    assert "1 test photo is left out, because different runs give different labels." in said and "15 test photos are left out, because not all models have an answer." in said
    scored = {m.run.name: m.scores for m in found.models}
    assert {s["n"] for s in scored.values()} == {found.n}


def test_runs_on_other_photos_are_never_mixed_in(workspace):
    for k, arch in enumerate(("a", "b", "c")):
        a_run(workspace, arch, photo_rows(), 2 + k, arch=arch)
    a_run(workspace, "x", photo_rows(50, first=9000), 9, arch="x"), a_run(workspace, "y", photo_rows(50, first=9000), 8, arch="y")
    a_run(workspace, "seen", photo_rows(), 9, arch="seen", trained=[row["sha256"][:16] for row in photo_rows()[:290]])
    found = compared()
    aside = dict(found.aside)
    assert [m.name for m in found.models] == ["c", "b", "a"] and set(aside) == {"x", "y", "seen"}
    assert "tested on 50 other photos" in aside["x"] and "species-wb compare reports/train/x reports/train/y" in aside["x"] and "trained on 290 of the 300 photos" in aside["seen"]
    assert [m.name for m in compared(f"{workspace}/reports/train/x,{workspace}/reports/train/y").models] == ["x", "y"]


def test_simulated_and_real_runs_are_kept_apart_and_said(workspace):
    a_run(workspace, "demo", [{**row, "source": "simulated"} for row in photo_rows(300, first=7000)], 5)
    a_run(workspace, "real", photo_rows(100), 1, arch="lite0")
    found = compared()
    assert [m.run.name for m in found.models] == ["real"] and not found.simulated and "(simulated)" in dict(found.aside)["demo"]
    assert compared(str(workspace / "reports" / "train" / "demo")).simulated and "simulated" in " ".join(compare_text.headline(compared(str(workspace / "reports" / "train" / "demo")))[1])


def test_labels_are_matched_by_name(workspace):
    rows = photo_rows()
    a_run(workspace, "a", rows, 3)
    a_run(workspace, "b", rows, 3, arch="lite0", labels=LABELS[::-1])
    a_run(workspace, "c", rows, 3, arch="lite1", labels=[*LABELS[:3], "Protozoa"])
    found = compared()
    assert found.labels == [*LABELS, "Protozoa"] and {found.labels[t] for t in found.truth} == set(LABELS[:3])
    assert any("Only some models know Plantae, Protozoa, and only those can answer so." in s for s in found.left_out)
    for model in found.models:
        rows_of = {row["sha256"]: row for row in model.answers.to_pylist()}
        right = [np.argmax(rows_of[sha]["logits"]) == model.info.labels.index(rows_of[sha]["truth"]) for sha in compare_runs.common(found.models)]
        assert model.scores["accuracy"]["value"] == pytest.approx(np.mean(right))


@pytest.mark.parametrize("damage", ["status", "stateless", "training", "model", "predictions", "swapped", "gone", "labels", "metrics", "running", "failed", "empty"])
def test_one_bad_folder_never_stops_the_page(workspace, damage):
    a_run(workspace, "good", photo_rows(60), 3)
    bad = a_run(workspace, "bad", photo_rows(60), 2, arch="lite0")
    if damage == "status":
        (bad / "status.json").write_text("[1, 2")
    elif damage == "stateless":
        (bad / "status.json").write_text("{}")
    elif damage == "training":
        (bad / "training.json").write_text('"nothing"')
    elif damage == "model":
        (bad / "model.onnx").write_bytes((bad / "model.onnx").read_bytes()[:100])
    elif damage == "predictions":
        (bad / "predictions.parquet").write_bytes(b"PAR1 and no more")
    elif damage == "swapped":
        written(bad / "model.onnx", LABELS, "lite0", 12345)
    elif damage == "gone":
        (bad / "model.onnx").unlink()
    elif damage == "labels":
        table = contracts.read_table(bad / "predictions.parquet")
        contracts.write_table(table.replace_schema_metadata({b"root": b"/", b"labels": b'["a"]'}), bad / "predictions.parquet")
    elif damage == "metrics":
        (bad / "metrics.json").write_text("{")
    elif damage == "running":
        core.write_json(bad / "status.json", {"state": "running", "pid": 0, "host": "elsewhere"})
    elif damage == "failed":
        set_state(bad, "failed", f"{bad}/x is full")
    elif damage == "empty":
        shutil.rmtree(bad), bad.mkdir(), (bad / "params.json").write_text("{}")
    found = compared()
    (aside,) = found.aside
    assert [m.run.name for m in found.models] == ["good"] and aside[0] == "bad" and len(aside[1]) > 10 and str(workspace) not in aside[1]
    said = {"running": "species-wb train --run", "failed": "failed: x is full", "swapped": "another model file", "model": "cannot be opened", "empty": "not a run", "labels": "other labels"}
    assert said.get(damage, "") in aside[1]


def test_no_finished_run_is_one_sentence(workspace):
    with pytest.raises(UserError, match="There is no finished run to compare. Train some first"):
        compare_runs.gather_runs()
    set_state(workspace / "reports" / "train" / "x", "failed", "the disk was full")
    with pytest.raises(UserError, match="no finished run to compare. x: failed: the disk was full. Train"):
        compare_runs.gather_runs()


# what is said


def with_times(found: compare.Comparison, ms: dict[str, float], monkeypatch) -> compare.Comparison:
    "The comparison, timed by a clock that every model meets in the same state."
    times = np.array([[ms[m.run.name]] * 12 for m in found.models])
    with monkeypatch.context() as patch:
        patch.setattr(compare_times.turns, "in_turns", lambda models: times)
        compare_times.measure_times(found)
    return found


def test_the_file_to_take(workspace, monkeypatch):
    rows = photo_rows(400)
    a_run(workspace, "large", rows, 3.0, arch="large"), a_run(workspace, "nearly", rows, 2.9, arch="nearly"), a_run(workspace, "worse", rows, 0.5, arch="worse")
    found = with_times(compared(), {"large": 60.0, "nearly": 8.0, "worse": 2.0}, monkeypatch)
    best, thrifty = found.best, compare_times.thriftiest(found)
    sentence, details = compare_text.headline(found)
    assert {best.name, thrifty.name} == {"large", "nearly"} or best is thrifty
    assert f"Take {best.name}" in sentence and f"{best.name} is the file reports/train/{best.run.name}/model.onnx." in details and "Established to be worse" in " ".join(details) and "worse" in " ".join(details)
    assert f"{best.name} beats worse by" in compare_text.verdict(found, best, found.models[2])
    assert re.search(r"not established at n = 400|beats", compare_text.verdict(found, best, found.models[1]))


def test_faster_and_better_is_said_plainly(workspace, monkeypatch):
    a_run(workspace, "a", photo_rows(), 6, arch="a"), a_run(workspace, "b", photo_rows(), 0.3, arch="b")
    sentence = compare_text.headline(with_times(compared(), {"a": 5.0, "b": 50.0}, monkeypatch))[0]
    assert sentence.startswith("Take a: it scores highest") and "it is the fastest" in sentence


def test_of_models_that_score_alike_none_is_said_to_score_highest(workspace, monkeypatch):
    a_run(workspace, "a", photo_rows(), 6, arch="a"), a_run(workspace, "b", photo_rows(), 6, arch="b")
    sentence = compare_text.headline(with_times(compared(), {"a": 5.0, "b": 5.0}, monkeypatch))[0]
    assert "it scores as high as" in sentence and "scores highest" not in sentence


def test_robustness_and_seeds_are_shown_where_they_are_known(workspace):
    known = {"robustness": {"mean_accuracy": {"value": 0.7, "low": 0.6, "high": 0.8}, "n": 200}, "seeds": {"n": 3, "weighted_f1": {"mean": 0.9, "sd": 0.01}}}
    a_run(workspace, "a", photo_rows(60), 3, arch="a", metrics=known), a_run(workspace, "b", photo_rows(60), 2, arch="b", metrics={"robustness": None, "seeds": 3})
    rows, columns = compare_tables.leaderboard(compared())
    told = dict(zip(columns, next(row for row in rows if row[0] == "a"), strict=True))
    assert told["on corrupted photos"] == "0.70 (0.60 to 0.80)" and "n = 200" in compare_tables.leaderboard_caption(compared()) and told["over seeds"] == "0.900 ± 0.010, 3 seeds"
    core.write_json(workspace / "reports" / "train" / "a" / "metrics.json", {})
    assert "over seeds" not in compare_tables.leaderboard(compared())[1] and "corrupted" not in compare_tables.leaderboard_caption(compared())


# as a person does it


def typed(*words, cwd, home) -> subprocess.CompletedProcess:
    return subprocess.run([str(BIN / "species-wb"), *map(str, words)], cwd=cwd, capture_output=True, text=True, env={**os.environ, "SPECIES_WB_HOME": str(home)})


def the_page(home: Path) -> Path:
    (run,) = (home / "reports" / "compare").iterdir()
    assert re.fullmatch(r"\d{8}-\d{6}", run.name) and json.loads((run / "status.json").read_text())["state"] == "finished"
    return run


@pytest.mark.slow
def test_the_command_writes_one_page_that_asks_for_nothing(workspace, tmp_path, browser):
    rows = photo_rows()
    for k, arch in enumerate(("resnet50", "efficientnet_lite0", "a_network_with_a_very_long_name_indeed", "<b>simple</b>")):
        a_run(workspace, f"{arch[:8].strip('<b>')}-{k}", rows, 1 + k / 2, arch=arch, ms=3.0 * 4**k)
    set_state(workspace / "reports" / "train" / "killed", "failed", "the disk was full")
    done = typed("compare", cwd=tmp_path, home=workspace)
    assert done.returncode == 0, done.stderr[-2000:]
    run = the_page(workspace)
    text = (run / "report.html").read_text(encoding="utf-8")
    assert {p.name for p in run.iterdir()} >= {"report.html", "leaderboard.csv", "comparison.json", "compare.ipynb", "params.json", "figures"}
    assert str(workspace) not in text and str(tmp_path) not in text and text.count("<script") == 1 and "<b>simple" not in text and "the disk was full" in text
    assert re.findall(r"""(?:src|href)=["'](?!data:|\#)""", text) == [] and "Take " in done.stdout and str(run / "report.html") in done.stdout
    with (run / "leaderboard.csv").open(encoding="utf-8-sig", newline="") as file:
        scores = [float(row["weighted_f1"]) for row in csv.DictReader(file)]
    assert len(scores) == 4 and scores == sorted(scores, reverse=True)
    assert len(json.loads((run / "comparison.json").read_text())["pairs"]) == 6
    for width in (360, 1280):
        context = browser.new_context(viewport={"width": width, "height": 800})
        tab = context.new_page()
        tab.goto((run / "report.html").as_uri())
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        context.close()


@pytest.mark.slow
def test_one_run_makes_a_page_that_says_so(workspace, tmp_path):
    a_run(workspace, "alone", photo_rows(80), 2)
    done = typed("compare", "workspace/reports/train/alone", cwd=tmp_path, home=workspace)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "nothing to compare it with" in (the_page(workspace) / "report.html").read_text(encoding="utf-8")


def test_mistakes_are_one_sentence(workspace, tmp_path, monkeypatch):
    done = typed("compare", cwd=tmp_path, home=workspace)
    said = "There is no finished run to compare"
    assert done.returncode == 1 and said in done.stderr.strip().splitlines()[-1] and "Traceback" not in done.stderr
    monkeypatch.chdir(tmp_path)
    for words in (["compare", "nowhere"], ["compare", "--photos", "nowhere"]):
        with pytest.raises(UserError, match="nowhere is not there"):
            cli.app(words, standalone_mode=False)


@pytest.mark.slow
def test_model_files_on_labelled_photos(survey, workspace, tmp_path):
    "Bare files and a run, all run on the photos given; what one was trained on is left out for all."
    from species_wb.photos.scan import scan

    manifest = scan(survey)
    labels = sorted(set(manifest["label"].to_pylist()) - {None})
    seen = [sha[:16] for sha, label in zip(manifest["sha256"].to_pylist(), manifest["label"].to_pylist(), strict=True) if label][:7]
    written(tmp_path / "one.onnx", labels, "one", 1), written(tmp_path / "two, too.onnx", labels, "two", 2, trained=seen)
    done = typed("compare", "one.onnx", "two, too.onnx", "--photos", survey, cwd=tmp_path, home=workspace)
    assert done.returncode == 0, done.stderr[-2000:]
    run = the_page(workspace)
    text, numbers = (run / "report.html").read_text(encoding="utf-8"), json.loads((run / "comparison.json").read_text())
    assert "7 test photos are left out for all" in " ".join(numbers["left_out"]) and {m["arch"] for m in numbers["models"]} == {"one", "two"}
    assert "simulated" in text and text.count("data:image/jpeg") > 3  # the photos on which they disagree


@pytest.mark.slow
def test_papermill_from_another_folder(workspace, tmp_path):
    a_run(workspace, "a", photo_rows(80), 2, arch="a"), a_run(workspace, "b", photo_rows(80), 1, arch="b")
    os.symlink(workspace / "reports" / "train", tmp_path / "mine")
    words = [BIN / "papermill", ROOT / "nbs" / "compare.ipynb", "x.ipynb", "-p", "runs", "mine/b, mine/a", "-p", "run", "here"]
    done = subprocess.run(list(map(str, words)), cwd=tmp_path, capture_output=True, text=True, stdin=subprocess.DEVNULL, env={**os.environ, "SPECIES_WB_HOME": str(workspace)})
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "here" / "report.html").exists() and json.loads((tmp_path / "here" / "params.json").read_text())["runs"] == "mine/b, mine/a"


def test_a_trained_run_is_compared_with_itself_and_another(trained, workspace):
    "A run as training leaves it, not one made by hand."
    base = workspace / "reports" / "train"
    shutil.copytree(trained, base / "first"), shutil.copytree(trained, base / "second")
    found = compared()
    pair = found.pair(*found.models)
    assert found.simulated and [m.name for m in found.models] == ["efficientnet_lite0 first", "efficientnet_lite0 second"]
    assert pair["value"] == pair["low"] == pair["high"] == 0 and not pair["established"]
    assert found.best.scores["accuracy"]["value"] == pytest.approx(core.read_json(trained / "metrics.json")["test"]["accuracy"]["value"])
    assert "are right on the same photos" in compare_text.verdict(found, *found.models)
