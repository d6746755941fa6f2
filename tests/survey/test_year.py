"""A year with both clock changes, a failed camera, a clock reset and a film: every photo is in one deployment and one event, or in the list of those that are not."""

from collections import defaultdict
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pandas as pd
from conftest import examples
from hypothesis import given, strategies as st

from species_wb.survey.clocks import Clock
from species_wb.survey.deployments import Deployment, Gap
from species_wb.survey.events import Rule, survey_events
from species_wb.survey.placed import place

BERLIN = ZoneInfo("Europe/Berlin")
local = lambda *when, fold=0: datetime(*when, tzinfo=BERLIN, fold=fold)  # noqa: E731
SPRING, AUTUMN, MIDNIGHT = local(2025, 3, 30, 3), local(2025, 10, 26, 2, fold=1), local(2025, 7, 1)
FAILED = Gap(local(2025, 6, 1), local(2025, 6, 20, 12))
RESET = local(2025, 8, 10, 13, 30)
BACK = datetime(2010, 1, 1)  # what the clock showed at the reset
DEPLOYMENTS = [
    Deployment("pond-1", "pond", start=local(2025, 1, 1), end=local(2025, 12, 31), zone="Europe/Berlin", gaps=(FAILED,)),
    Deployment("hill-1", "hill", start=local(2025, 1, 1), end=RESET, zone="+01:00"),
    Deployment("hill-2", "hill", start=RESET, end=local(2025, 12, 1), zone="+01:00", clock=Clock((RESET.astimezone(UTC).replace(tzinfo=None) + timedelta(hours=1) - BACK).total_seconds())),
]  # fmt: skip


def reading(site: str, at: datetime) -> str:
    "What the clock of a camera showed: changed to summer time at the pond, never changed on the hill, and reset there."
    if site == "pond":
        return at.astimezone(BERLIN).replace(tzinfo=None).isoformat()
    shown = at.astimezone(UTC).replace(tzinfo=None) + timedelta(hours=1)
    return (BACK + (at - RESET) if at >= RESET else shown).isoformat()


def photographed(visits: list[tuple]) -> pd.DataFrame:
    "The table of predictions of some visits: (site, when, label, photos, is a film), with the truth in `true`."
    rows = []
    for site, when, label, n, is_film in sorted(visits, key=lambda visit: (visit[0], visit[1].timestamp())):
        begun = len(rows)
        for k in range(n):
            at = when + timedelta(seconds=7 * k) if when.tzinfo is UTC else (when.astimezone(UTC) + timedelta(seconds=7 * k))
            path, second = (f"{site}/{begun:05d}.mp4", 7.0 * k) if is_film else (f"{site}/{len(rows):05d}.jpg", None)
            rows.append({"path": path, "seconds": second, "taken_at": reading(site, at), "label": label, "status": "ok", "true": at.timestamp(), "site": None})
    return pd.DataFrame(rows)


def fate(site: str, at: float) -> str | None:
    "Why a photo belongs to no event, as the truth says."
    if site == "pond" and FAILED.start.timestamp() <= at < FAILED.end.timestamp():
        return "in-a-gap"
    end = DEPLOYMENTS[0 if site == "pond" else 2].end.timestamp()
    return None if local(2025, 1, 1).timestamp() <= at <= end else "outside"


def true_events(rows: pd.DataFrame) -> set[tuple]:
    "The events that the true times give, a photo or film after another."
    things = defaultdict(list)
    for row in rows.to_dict("records"):
        things[row["path"].split("/")[0], row["label"], row["path"]].append(row["true"])
    events: dict[tuple, list] = defaultdict(list)
    for (site, label, _), times in sorted(things.items(), key=lambda thing: min(thing[1])):
        mine = events[site, label]
        if mine and min(times) - mine[-1][1] < 1800:
            mine[-1] = (mine[-1][0], max(mine[-1][1], *times), mine[-1][2] + 1)
        else:
            mine.append((min(times), max(times), 1))
    return {(*key, *event) for key, found in events.items() for event in found}


FIXED = [  # bursts across both changes of the clocks, midnight and the reset; a film across midnight; a photo in the gap
    ("pond", SPRING - timedelta(seconds=0), "fox", 5, False), ("pond", SPRING.astimezone(UTC) - timedelta(seconds=20), "owl", 6, False),
    ("pond", AUTUMN.astimezone(UTC) - timedelta(seconds=20), "fox", 6, False), ("pond", MIDNIGHT - timedelta(seconds=30), "owl", 9, True),
    ("hill", AUTUMN.astimezone(UTC) - timedelta(seconds=20), "fox", 6, False), ("hill", RESET.astimezone(UTC) - timedelta(seconds=21), "owl", 6, False),
    ("pond", local(2025, 6, 5), "fox", 1, False),
]  # fmt: skip
VISITS = st.lists(st.tuples(
    st.sampled_from(["pond", "hill"]), st.integers(-600, 525_600 + 600).map(lambda m: datetime(2025, 1, 1, tzinfo=UTC) + timedelta(minutes=m)),
    st.sampled_from(["fox", "owl"]), st.integers(1, 4), st.booleans()), max_size=12)  # fmt: skip


@given(VISITS)
@examples(20)
def test_every_photo_of_a_year_is_in_one_event_or_listed_with_its_reason(visits):
    twice = [v for v in visits if AUTUMN.timestamp() - 4200 < v[1].timestamp() < AUTUMN.timestamp() + 4200]  # FIXED alone says which hour it is
    photos = photographed([*FIXED, *(visit for visit in visits if visit not in twice)])
    placed, _ = place(photos, DEPLOYMENTS)
    events, rows = survey_events(placed, Rule(), DEPLOYMENTS)
    assert len(rows) == len(photos) and (rows["event_id"].notna() != rows["left_out"].notna()).all()
    truth = [fate(path.split("/")[0], at) for path, at in zip(photos["path"], photos["true"], strict=True)]
    assert rows["left_out"].astype(object).where(rows["left_out"].notna(), None).tolist() == truth
    inside = photos[[why is None for why in truth]]
    assert (placed["at"][inside.index] == inside["true"]).all() and placed["deployment"][inside.index].notna().all()
    found = {*zip(events["site"], events["label"], events["at"], events["until"], events["photos"], strict=True)}
    assert found == true_events(inside) and events["event_id"].is_unique and {*events["event_id"]} == {*rows["event_id"].dropna()}
    assert rows.groupby(photos["path"])["event_id"].nunique().max() == 1  # a film is in one event
