"""Surveys with cameras: how fast events, effort and rates are, beside others; and how often the intervals hold the truth.

    python benchmarks/survey.py [N]                 a million observations (or N) at 200 sites, each way in a fresh process
    python benchmarks/survey.py --coverage [N]      N simulated surveys (by default 1,000) in each of several settings

The speed: the photos of `simulate.camera_survey` with their true times, so that no way has to place them first. Ours: `survey_events` (30 minutes), `effort` by month, `rates` by site and month, `pooled_rates` with a
matrix. "Plain pandas": sort, group, difference, running sum, for the events; a row a day for the effort; a pivot for the rates. camtraptools 0.8.1 (from PyPI, in a Python of its own: --camtraptools PYTHON) gets the tables
of Camtrap DP that it reads: `assign_events`, `build_event_observations`, `effort_matrix`, `relative_abundance`. It makes events of all species together and no intervals, so it has less to do. Reading the input is not
counted; the memory is the peak of the whole process, with its imports.

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
from pathlib import Path
from typing import Any

import numpy as np

SITES, DAYS, TAXA = 200, 365, ("badger", "deer", "fox", "marten", "wolf")
EACH = 200  # checked photos of each class


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
        all_held = [one_survey(replace(p, seed=seed), each, resamples) for seed in range(surveys)]
        if head is None:
            head = [*all_held[0]]
            print(f"Of 100 intervals, how many hold the truth (± standard error); {surveys:,} surveys in each row, 4 classes, {resamples} resamples\n")
            print("| setting | " + " | ".join([*head, "refused"]) + " |\n|" + " --- |" * (len(head) + 2))
        held = {one: np.array([survey[one] for survey in all_held]) for one in head}
        refused = int(np.isnan(held["corrected, over sites"]).all(1).sum())
        print(f"| {name} | " + " | ".join(said(held[one]) for one in head) + f" | {refused} |", flush=True)


def share_coverage(surveys: int) -> None:
    "One class: `survey.rates.corrected`, beside the raw share; and Poisson's interval for one mean."
    from scipy.stats import chi2

    from species_wb.core import UserError
    from species_wb.metrics.intervals import wilson
    from species_wb.survey.rates import corrected, poisson_interval

    print(f"\nOne class, {surveys:,} surveys in each row (sensitivity 0.90, specificity 0.92)\n\n| events | true share | known exactly | measured on 100 + 100 | raw share | refused |\n| --- | --- | --- | --- | --- | --- |")
    for n, truth in ((100, 0.3), (400, 0.3), (400, 0.1), (2_000, 0.05), (400, 0.7)):
        rng, se, sp = np.random.default_rng(n), 0.90, 0.92
        rows, refused = [], 0
        for positives in rng.binomial(n, truth * se + (1 - truth) * (1 - sp), surveys):
            measured = rng.binomial(100, [se, sp]) / 100
            try:
                exact, one = corrected(int(positives), n, se, sp), corrected(int(positives), n, *measured, checked=(100, 100))
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("count", nargs="?", type=int, help="observations, or surveys")
    parser.add_argument("--coverage", action="store_true", help="how often the intervals hold the truth")
    parser.add_argument("--resamples", type=int, default=1000)
    given = parser.parse_args()
    if given.coverage:
        coverage(given.count or 1000, given.resamples)
        share_coverage(given.count or 1000)


if __name__ == "__main__":
    main()
