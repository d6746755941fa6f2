"""Surveys with cameras: how fast events, effort and rates are, beside others; and how often the intervals hold the truth.

    python benchmarks/survey.py [N]                 a million observations (or N) at 200 sites, each way in a fresh process
    python benchmarks/survey.py --coverage [N]      N simulated surveys (by default 1,000) in each of several settings

The speed: the photos of `simulate.camera_survey` with their true times, so that no way has to place them first. Ours: `survey_events` (30 minutes), `effort` by month, `rates` by site and month, `pooled_rates` with a
matrix. "Plain pandas": sort, group, difference, running sum, for the events; a row a day for the effort; a pivot for the rates. camtraptools 0.8.1 (from PyPI, in a Python of its own: --camtraptools PYTHON) gets the tables
of Camtrap DP that it reads: `assign_events`, `build_event_observations`, `effort_matrix`, `relative_abundance`. It makes events of all species together and no intervals, so it has less to do. Reading the input is not
counted; the memory is the peak of the whole process, with its imports. The ratio is that of the processor's seconds, which other work on the machine disturbs less.

The coverage: `simulate.survey_counts` draws surveys with known rates, with failures taken off the effort, and `checked_photos` draws what a person knows of the mistakes. An interval for the sites at hand should hold
the mean rate of these sites; an interval for the population of sites should hold the mean of all sites. Each share is of N surveys × 4 classes; the classes of a survey share its sites and its matrix, so the standard
error is that of the surveys' means.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

SITES, DAYS, TAXA = 200, 365, ("badger", "deer", "fox", "marten", "wolf")
EACH = 200  # checked photos of each class
FIRST = 10_000  # the first seed of the surveys: those below were looked at when the rule of the interval was chosen


# Coverage


def settings() -> dict[str, tuple[Any, int]]:
    "The settings by name: parameters, and checked photos of each class."
    from species_wb.simulate.cameras import Cameras

    base = Cameras(sites=20, days=60, failures=0.2, pairs=0)
    return {
        "20 sites, 60 days": (base, EACH),
        "10 sites": (replace(base, sites=10), EACH),
        "40 sites": (replace(base, sites=40), EACH),
        "100 sites": (replace(base, sites=100), EACH),
        "sites much alike (spread 0.3)": (replace(base, spread=0.3), EACH),
        "sites very unequal (spread 1.2), 40 sites": (replace(base, spread=1.2, sites=40), EACH),
        "a rare taxon (0.4 on 100 days), 40 sites": (replace(base, sites=40, per_day=(0.004, 0.2, 0.08)), EACH),
        "70 % right": (replace(base, right=0.7), EACH),
        "50 photos of each class checked": (base, 50),
        "each photo makes its own mistake": (replace(base, together=False), EACH),
    }


def one_survey(p: Any, each: int, resamples: int) -> dict[str, np.ndarray]:  # the interval's name → class: whether it holds the truth
    "Draw a survey, and ask each interval."
    from species_wb.core import UserError
    from species_wb.metrics.confusions import Confusions
    from species_wb.simulate.camera_visits import checked_photos, site_rates, survey_counts
    from species_wb.simulate.cameras import EMPTY
    from species_wb.survey.rates import PER, poisson_interval
    from species_wb.survey.rates_bootstrap import corrected_over_sites, over_sites

    counts, names = survey_counts(p), (*p.taxa, EMPTY)
    days, total = counts["days"], counts["days"].sum()
    everywhere, here = PER * np.array([*p.per_day, p.empty]), PER * days @ site_rates(p) / total
    known = Confusions(names, names, checked_photos(p, each), np.zeros(len(names), int))
    found = {
        "Poisson, no mistakes, these sites": (*(PER * end / total for end in poisson_interval(counts["true"].sum(0))), here),
        "over sites, no mistakes": (*over_sites(counts["true"], days, resamples), everywhere),
        "naive: Poisson, labels as they are": (*(PER * end / total for end in poisson_interval(counts["labelled"].sum(0))), everywhere),
        "naive: over sites, labels as they are": (*over_sites(counts["labelled"], days, resamples), everywhere),
    }
    try:
        found["corrected, over sites"] = (*corrected_over_sites(counts["labelled"], days, known, resamples)[1:], everywhere)
    except UserError:
        found["corrected, over sites"] = (np.full(len(names), np.nan),) * 3
    return {name: np.where(np.isnan(low), np.nan, (low <= truth) & (truth <= high)) for name, (low, high, truth) in found.items()}


def said(held: np.ndarray) -> str:  # surveys × classes
    "Write a share with its standard error, in per cent."
    each = np.nanmean(held, axis=1)
    each = each[~np.isnan(each)]
    return f"{100 * each.mean():.1f} ± {100 * each.std() / len(each) ** 0.5:.1f}"


def coverage(surveys: int, resamples: int) -> None:
    head = None
    for name, (p, each) in settings().items():
        all_held = [one_survey(replace(p, seed=FIRST + seed), each, resamples) for seed in range(surveys)]
        if head is None:
            head = [*all_held[0]]
            print(f"Of 100 intervals, how many hold the truth (± standard error); {surveys:,} surveys in each row, 4 classes, {resamples} resamples\n")
            print("| setting | " + " | ".join([*head, "corrected, the rarest class", "refused"]) + " |\n|" + " --- |" * (len(head) + 3))
        held = {one: np.array([survey[one] for survey in all_held]) for one in head}
        rarest = held["corrected, over sites"][:, [int(np.argmin([*p.per_day, p.empty]))]]
        refused = int(np.isnan(held["corrected, over sites"]).all(1).sum())
        print(f"| {name} | " + " | ".join(said(held[one]) for one in head) + f" | {said(rarest)} | {refused} |", flush=True)


def share_coverage(surveys: int) -> None:
    "One class: `survey.rates.corrected`, beside the raw share; and Poisson's interval for one mean."
    from scipy.stats import chi2

    from species_wb.core import UserError
    from species_wb.metrics.intervals import wilson
    from species_wb.survey.rates import corrected, poisson_interval

    print(f"\nOne class, {surveys:,} surveys in each row (sensitivity 0.90, specificity 0.92)\n\n| events | true share | known exactly | measured on 100 + 100 | raw share | refused |\n| --- | --- | --- | --- | --- | --- |")
    for n, truth in ((100, 0.3), (400, 0.3), (400, 0.1), (2_000, 0.05), (400, 0.7)):
        rng, se, sp = np.random.default_rng(n), 0.90, 0.92
        rows, refused, known = [], 0, lru_cache(corrected)
        for positives in rng.binomial(n, truth * se + (1 - truth) * (1 - sp), surveys):
            measured = rng.binomial(100, [se, sp]) / 100
            try:
                exact, one = known(int(positives), n, se, sp), corrected(int(positives), n, *measured, checked=(100, 100))
            except UserError:
                refused += 1
                continue
            raw = wilson(positives, n)
            rows.append([low <= truth <= high for low, high in (exact[1:], one[1:], raw)])
        print(f"| {n:,} | {truth:g} | " + " | ".join(f"{100 * share:.1f}" for share in np.mean(rows, 0)) + f" | {refused} |", flush=True)
    print("\nPoisson's interval for one mean, 100,000 counts in each row\n\n| mean | mid-P (ours) | Garwood (exact) | Wald |\n| --- | --- | --- | --- |")
    for mean in (0.5, 1, 2, 3, 5, 10, 20, 50, 200):
        x = np.random.default_rng(1).poisson(mean, 100_000)
        exact = np.where(x > 0, chi2.ppf(0.025, 2 * np.maximum(x, 1)) / 2, 0), chi2.ppf(0.975, 2 * x + 2) / 2
        ways = poisson_interval(x), exact, (x - 1.96 * x**0.5, x + 1.96 * x**0.5)
        print(f"| {mean:g} | " + " | ".join(f"{100 * ((low <= mean) & (mean <= high)).mean():.1f}" for low, high in ways) + " |")


# Speed


def peak() -> float:  # MB
    "The most memory that this process held."
    status = Path("/proc/self/status")
    return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) / 1e3 if status.exists() else float("nan")


class Clock:
    "Seconds since it was last read; `cpu` are those of this process alone since the beginning."

    def __init__(self):
        self.start, self.began = time.perf_counter(), time.process_time()

    def __call__(self) -> float:
        then, self.start = self.start, time.perf_counter()
        return self.start - then

    def cpu(self) -> float:
        return time.process_time() - self.began


def make(count: int, folder: Path) -> None:
    "Draw the survey, and write what each way reads: a placed table, deployments and gaps; and Camtrap DP's tables."
    import pandas as pd

    from species_wb.simulate.camera_survey import camera_survey
    from species_wb.simulate.camera_visits import checked_photos
    from species_wb.simulate.cameras import EMPTY, Cameras, as_iso, offsets

    each = 1.08 * count / (SITES * DAYS * 2.1 * 0.97 * (len(TAXA) + 1))
    p = Cameras(sites=SITES, days=DAYS, taxa=TAXA, per_day=each, empty=each, pairs=0, flash=0, wrong_clock=0, drift=0, reset=0)
    tables = camera_survey(p)
    photos, truth, stays = (pd.DataFrame(tables[name]) for name in ("photos", "truth", "deployments"))
    some = np.sort(np.random.default_rng(0).permutation(len(photos))[:count])
    site = dict(zip(stays["deployment"], stays["site"], strict=True))
    at, deployment = truth["at"].to_numpy()[some], truth["deployment"].iloc[some]
    local = as_iso(at + offsets(p.zone, at))
    placed = photos.iloc[some].assign(deployment=deployment, site=deployment.map(site), at=at, local=local, day=[text[:10] for text in local], left_out=None, status="ok")
    placed.to_parquet(folder / "placed.parquet", index=False)
    stays.to_parquet(folder / "stays.parquet", index=False)
    pd.DataFrame(tables["gaps"]).to_parquet(folder / "gaps.parquet", index=False)
    np.save(folder / "checked.npy", checked_photos(p, EACH))
    (folder / "classes.json").write_text(json.dumps([*p.taxa, EMPTY]))
    media = pd.DataFrame({"mediaID": np.arange(len(some)).astype(str), "deploymentID": placed["deployment"], "timestamp": placed["local"]})
    media.to_csv(folder / "media.csv", index=False)
    of_media = {"observationID": media["mediaID"], "deploymentID": media["deploymentID"], "mediaID": media["mediaID"], "eventStart": media["timestamp"], "eventEnd": media["timestamp"]}
    animal = np.where(placed["label"] == EMPTY, "blank", "animal")
    of_media |= {"observationLevel": "media", "observationType": animal, "scientificName": placed["label"], "count": 1, "classificationMethod": "machine", "classificationProbability": placed["score"]}
    pd.DataFrame(of_media).to_csv(folder / "observations.csv", index=False)
    dp = {"deploymentID": stays["deployment"], "locationID": stays["site"], "deploymentStart": stays["start"], "deploymentEnd": stays["end"]}
    pd.DataFrame(dp).to_csv(folder / "deployments.csv", index=False)


def ours(folder: Path) -> dict[str, float]:
    from datetime import datetime
    from zoneinfo import ZoneInfo

    import pandas as pd

    from species_wb.metrics.confusions import Confusions
    from species_wb.survey.deployments import Deployment, Gap
    from species_wb.survey.effort import effort
    from species_wb.survey.events import survey_events
    from species_wb.survey.rates import rates
    from species_wb.survey.rates_bootstrap import corrected_rates, pooled_rates

    placed, stays, gaps = (pd.read_parquet(folder / f"{name}.parquet") for name in ("placed", "stays", "gaps"))
    names, zones = tuple(json.loads((folder / "classes.json").read_text())), dict(zip(stays["deployment"], stays["zone"], strict=True))
    known = Confusions(names, names, np.load(folder / "checked.npy"), np.zeros(len(names), int))

    def when(deployment: str, text: str) -> datetime:
        zone = zones[deployment]
        return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)) if "/" in zone else datetime.fromisoformat(text + zone)

    failed = {d: tuple(Gap(when(d, a), when(d, b)) for a, b in zip(part["start"], part["end"], strict=True)) for d, part in gaps.groupby("deployment")}
    deployments = [
        Deployment(row.deployment, row.site, row.lat, row.lon, *(when(row.deployment, end) for end in (row.start, row.end)), row.zone, row.camera, gaps=failed.get(row.deployment, ()))
        for row in stays.itertuples()
    ]
    imports, clock = peak(), Clock()
    events = survey_events(placed, deployments=deployments).events
    found = {"events": clock()}
    days = effort(deployments, "month")
    found["effort"] = clock()
    by_site, pooled = rates(events, days, ["site", "period"], "month"), pooled_rates(events, days, known=known)
    found |= {"rates": clock(), "cpu": clock.cpu()}
    corrected_rates(events, days, known)
    return found | {"each site corrected": clock(), "n": len(events), "rows": len(by_site) + len(pooled), "before": imports}


def plain(folder: Path) -> dict[str, float]:
    "As people write it: no missing hours, no intervals."
    import pandas as pd

    placed, stays, gaps = (pd.read_parquet(folder / f"{name}.parquet") for name in ("placed", "stays", "gaps"))
    imports, clock = peak(), Clock()
    rows = placed.assign(time=pd.to_datetime(placed["at"], unit="s")).sort_values(["site", "label", "time"])
    begins = rows.groupby(["site", "label"])["time"].diff().gt(pd.Timedelta("30min")) | (rows["site"] != rows["site"].shift()) | (rows["label"] != rows["label"].shift())
    rows["event"] = begins.cumsum()
    events = rows.groupby("event").agg(site=("site", "first"), label=("label", "first"), start=("time", "min"), end=("time", "max"), photos=("path", "size"), score=("score", "max"))
    found = {"events": clock()}
    days = pd.concat([pd.DataFrame({"site": row.site, "deployment": row.deployment, "day": pd.date_range(row.start[:10], row.end[:10])}) for row in stays.itertuples()])
    for gap in gaps.itertuples():
        days = days[~((days["deployment"] == gap.deployment) & days["day"].between(gap.start, gap.end))]
    effort = days.groupby(["site", days["day"].dt.strftime("%Y-%m-01")]).size()
    found["effort"] = clock()
    counts = events.groupby(["site", "label", events["start"].dt.strftime("%Y-%m-01")]).size().unstack(1, fill_value=0)
    counts.div(effort, axis=0) * 100
    return found | {"rates": clock(), "cpu": clock.cpu(), "n": len(events), "before": imports}


def camtraptools(folder: Path) -> dict[str, float]:
    import pandas as pd
    from camtraptools.ecology import animal_events, effort_matrix, relative_abundance
    from camtraptools.events import assign_events, build_event_observations

    media, observations, deployments = (pd.read_csv(folder / f"{name}.csv", dtype=str) for name in ("media", "observations", "deployments"))
    for missing in ("classifiedBy", "classificationTimestamp"):
        observations[missing] = "m"
    imports, clock = peak(), Clock()
    observations["eventID"] = observations["mediaID"].map(dict(zip(media["mediaID"], assign_events(media), strict=True)))
    events = build_event_observations(observations)
    found = {"events": clock()}
    effort = effort_matrix(deployments, 30)
    found["effort"] = clock()
    animals = animal_events(events, deployments)
    relative_abundance(animals, effort, sorted(animals["scientificName"].dropna().unique()))
    return found | {"rates": clock(), "cpu": clock.cpu(), "n": len(events), "before": imports}


STAGES = {"species_wb": ours, "plain pandas": plain, "camtraptools 0.8.1": camtraptools}


def measure(stage: str, folder: Path, python: str) -> dict[str, float] | str:  # a sentence, where it could not be done
    "Run a stage in a fresh process."
    try:
        done = subprocess.run([python, __file__, "--stage", stage, str(folder)], capture_output=True, text=True)
    except OSError as error:
        return f"not measured: {error}"
    return json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else f"not measured: {(done.stderr.strip().splitlines() or ['no word'])[-1]}"


def speed(count: int, python: str, times: int) -> None:
    with tempfile.TemporaryDirectory() as aside:
        folder, clock = Path(aside), Clock()
        make(count, folder)
        print(f"{count:,} observations at {SITES} sites, drawn in {clock():.0f} s; the fastest of {times} turns\n")
        print("| way | events, s | effort, s | rates, s | together, s | of the processor, s | times ours | each site corrected, s | peak, MB | before, MB | events |\n|" + " --- |" * 11)
        turns = [{stage: measure(stage, folder, python if stage.startswith("camtraptools") else sys.executable) for stage in STAGES} for _ in range(times)]
    first = None
    for stage in STAGES:
        found = [turn[stage] for turn in turns if isinstance(turn[stage], dict)]
        if not found:
            print(f"| {stage} | {turns[0][stage]} |")
            continue
        best = min(found, key=lambda one: one["events"] + one["effort"] + one["rates"])
        together = best["events"] + best["effort"] + best["rates"]
        first = first or best["cpu"]
        more = f"{best['each site corrected']:.1f}" if "each site corrected" in best else ""
        print(f"| {stage} | {best['events']:.2f} | {best['effort']:.2f} | {best['rates']:.2f} | {together:.2f} | {best['cpu']:.2f} | {best['cpu'] / first:.2f} | {more} | {best['peak']:.0f} | {best['before']:.0f} | {best['n']:,} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("count", nargs="?", help="observations, or surveys")
    parser.add_argument("--coverage", action="store_true", help="how often the intervals hold the truth")
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--camtraptools", metavar="PYTHON", default=sys.executable, help="a Python that has camtraptools 0.8.1")
    parser.add_argument("--times", type=int, default=3, help="turns of each way")
    parser.add_argument("--stage", nargs=2, help=argparse.SUPPRESS)  # a fresh process: a way, and its folder
    given = parser.parse_args()
    if given.stage:
        found = STAGES[given.stage[0]](Path(given.stage[1]))
        print(json.dumps({**found, "peak": peak()}))
    elif given.coverage:
        coverage(int(given.count or 1000), given.resamples)
        share_coverage(int(given.count or 1000))
    else:
        speed(int((given.count or "1,000,000").replace(",", "")), given.camtraptools, given.times)


if __name__ == "__main__":
    main()
