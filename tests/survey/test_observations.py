"""Observations: one visit is one event, whatever order, clock or camera its photos come from."""

import math
import random

import pyarrow as pa
import pytest

from species_wb.core import UserError
from species_wb.append_only import AppendOnlyTable, read_rows
from species_wb.predictions import OBSERVATIONS
from species_wb.survey.observations import Events, append_observations, events, photo_text, read_observations


def shot(clock: str, label="Aves", **more):
    row = {"path": f"{clock}-{label}.jpg", "taken_at": f"2026-05-04T{clock}", "label": label, "score": 0.5}
    return row | {"site": "pond", "status": "ok", "model": "abc"} | more


def spans(found):
    return sorted((o["label"], (o["start"] or "")[11:19], (o["end"] or "")[11:19]) for o in found)


def test_a_pause_longer_than_the_gap_begins_a_new_event():
    rows = [shot("12:00:00"), shot("12:01:00"), shot("12:02:01")]
    assert spans(events(rows, 60)) == [("Aves", "12:00:00", "12:01:00"), ("Aves", "12:02:01", "12:02:01")]
    assert spans(events(rows, 61)) == [("Aves", "12:00:00", "12:02:01")] and len(events(rows, 0)) == 3
    with pytest.raises(UserError, match="gap"):
        events(rows, -1)


def test_site_and_label_keep_events_apart():
    rows = [shot("12:00:00"), shot("12:00:01", site="hill"), shot("12:00:02", "Mammalia"), shot("12:00:03")]
    rows.append(shot("12:00:04", site=None))
    assert sorted((o["site"] or "", o["label"], o["start"][-2:], o["end"][-2:]) for o in events(rows)) == [
        ("", "Aves", "04", "04"), ("hill", "Aves", "01", "01"),
        ("pond", "Aves", "00", "03"), ("pond", "Mammalia", "02", "02"),
    ]


def test_a_row_has_all_columns_of_the_contract():
    rows = [shot("12:00:00", lat=1.5, lon=None), shot("12:00:10", score=0.9, lat=47.1, lon=9.5)]
    rows.append(shot("12:00:20", score=0.7, lat=47.2, lon=9.6))
    (found,) = events(rows, source="pond", method="machine")
    assert list(found) == OBSERVATIONS.names and len(found["event_id"]) == 16
    assert {k: v for k, v in found.items() if k != "event_id"} == {
        "site": "pond", "lat": 47.1, "lon": 9.5, "start": "2026-05-04T12:00:00", "end": "2026-05-04T12:00:20",
        "label": "Aves", "count": 1, "score": 0.9, "method": "machine", "photo": "12:00:10-Aves.jpg",
        "source": "pond", "model": "abc",
    }
    assert pa.Table.from_pylist([found], OBSERVATIONS).num_rows == 1


def test_what_failed_or_was_not_known_makes_no_event():
    failed = shot("12:00:00", status="cut-short", label=None)
    assert events([failed, shot("12:00:00", abstained=True), shot("12:00:00", label=None)]) == []


def test_the_order_of_rows_does_not_matter_when_all_are_there():
    rng = random.Random(3)
    rows = [
        shot(f"12:{m:02d}:{s:02d}", rng.choice(["Aves", "Fungi"]), site=rng.choice(["a", "b", None]), score=rng.random())
        for m in range(60) for s in range(0, 60, 13)
    ]
    expected = events(rows, 30)
    assert len(expected) > 20
    for _ in range(5):
        rng.shuffle(rows)
        assert events(rows, 30) == expected


def test_grouping_as_they_come_gives_the_same_events_as_all_at_once():
    rng = random.Random(4)
    times = [f"12:{m:02d}:{s:02d}" for m in range(60) for s in range(0, 60, 17)]
    rows = [shot(clock, rng.choice(["Aves", "Fungi"]), score=rng.random()) for clock in times]
    grouping = Events(20)
    found = [o for row in rows for o in grouping.add(row)]
    assert len(found) > 10  # closed while they came
    assert sorted(map(str, found + grouping.close())) == sorted(map(str, events(rows, 20)))
    rng.shuffle(rows)
    late = Events(20, late=math.inf)
    assert [o for row in rows for o in late.add(row)] == []
    assert sorted(o["event_id"] for o in late.close()) == sorted(o["event_id"] for o in events(rows, 20))
    assert late.close() == []


def test_an_event_closes_when_its_site_has_gone_past_it():
    grouping = Events(60)
    assert grouping.add(shot("12:00:00")) == [] and grouping.add(shot("12:01:01", site="hill")) == []
    assert grouping.add(shot("12:01:00", "Fungi")) == []
    assert spans(grouping.add(shot("12:01:01", "Fungi"))) == [("Aves", "12:00:00", "12:00:00")]


def test_a_late_row_joins_the_two_events_that_it_lies_between():
    grouping = Events(60, late=600)
    for row in (shot("12:00:00"), shot("12:01:40", score=0.9), shot("12:00:50")):
        assert grouping.add(row) == []
    (found,) = grouping.close()
    assert (found["start"][11:], found["end"][11:], found["score"]) == ("12:00:00", "12:01:40", 0.9)


def test_an_event_closes_when_it_has_been_quiet(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr("species_wb.survey.observations.time.monotonic", lambda: clock[0])
    grouping = Events(60, late=math.inf)
    grouping.add(shot("12:00:00"))
    clock[0] = 130
    grouping.add(shot("12:00:10", "Fungi"))
    clock[0] = 165
    assert spans(grouping.quiet(60)) == [("Aves", "12:00:00", "12:00:00")] and len(grouping.close()) == 1


def test_offsets_are_compared_and_clocks_without_one_kept_apart():
    same = [shot("12:00:00+02:00"), shot("10:00:30+00:00"), shot("10:01:00Z")]
    (found,) = events(same)
    # as the photos have it
    assert (found["start"], found["end"]) == ("2026-05-04T12:00:00+02:00", "2026-05-04T10:01:00Z")
    assert len(events([shot("12:00:00"), shot("12:00:30+02:00"), shot("12:00:50")])) == 2  # nobody knows which clock


def test_fractions_of_a_second_are_compared_as_times_and_whole_seconds_as_ever():
    burst = [shot(f"12:00:00.{k}00") for k in range(1, 10)] + [shot("12:00:00"), shot("12:01:00.900")]
    (found,) = events(burst, 60)
    assert (found["start"][11:], found["end"][11:]) == ("12:00:00", "12:01:00.900")
    assert len(events(burst, 59.9)) == 2 and len(events([shot("12:00:00"), shot("12:01:00")], 60)) == 1
    zones = [shot("12:00:00.250+02:00"), shot("10:00:00+00:00"), shot("10:00:00.500Z")]
    (found,) = events(zones)
    assert (found["start"][11:], found["end"][11:]) == ("10:00:00+00:00", "10:00:00.500Z")
    assert found["event_id"] == events([shot("10:00:00+00:00")])[0]["event_id"]
    two = [o["start"][11:] for o in events([shot("12:00:00.900", site="a"), shot("12:00:00", site="b")])]
    assert two == ["12:00:00", "12:00:00.900"]


def test_rows_without_a_time():
    texts = (None, None, "yesterday", "")
    lone = [{"path": f"{k}.jpg", "label": "Aves", "score": 0.5, "taken_at": t} for k, t in enumerate(texts)]
    found = events(lone)
    assert len(found) == len({o["event_id"] for o in found}) == 4 and {o["start"] for o in found} == {None}
    grouping = Events()
    (given,) = grouping.add(lone[0], at="2026-05-04T12:00:00+02:00") + grouping.close()
    assert given["start"] == "2026-05-04T12:00:00+02:00"
    places = [(p, s) for p in ("a.mp4", "b.mp4") for s in (0.0, 30.0, 91.0)]
    frames = [{"path": p, "seconds": s, "label": "Aves", "score": s / 100} for p, s in places]
    assert sorted(o["photo"] for o in events(frames)) == ["a.mp4#t=30", "a.mp4#t=91", "b.mp4#t=30", "b.mp4#t=91"]
    many = [{"path": f"{k}.jpg", "label": "Aves", "score": 0.5} for k in range(20_000)]
    assert len(events(many)) == 20_000  # and it does not take the square of their number


def test_the_id_is_that_of_the_content():
    one = events([shot("12:00:00"), shot("12:00:30")])[0]["event_id"]
    assert one == events([shot("12:00:00", score=0.9)])[0]["event_id"]
    others = (shot("12:00:01"), shot("12:00:00", "Fungi"), shot("12:00:00", site="hill"))
    assert len({one, *(events([row])[0]["event_id"] for row in others)}) == 4


def test_count_is_the_most_boxes_in_one_photo():
    box = {"x0": 0.1, "y0": 0.1, "x1": 0.2, "y1": 0.2}
    rows = [shot(f"12:00:{second}", **box) for second in ("00", "10", "10")]
    rows += [shot("12:00:10", "Fungi", path="12:00:10-Aves.jpg", **box), shot("12:00:20", **box)]
    assert sorted((o["label"], o["count"]) for o in events(rows)) == [("Aves", 2), ("Fungi", 1)]
    stream = [shot("12:00:00", path="a"), shot("12:00:01", path="a")]  # the same path
    assert events(stream)[0]["count"] == 1


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_observations_come_back_as_they_were_written(tmp_path, ending):
    first = shot("12:00:00", lat=47.1234567, lon=-109.1234567, path='a "b", c\n.jpg')
    found = events([first, shot("13:00:00", "Fungi", site=None)])
    path = tmp_path / "folder" / f"o.{ending}"
    for one in found:
        append_observations([one], path)
    assert read_observations(path).to_pylist() == found and read_observations(path).schema.equals(OBSERVATIONS)


def test_a_torn_line_is_mended_and_no_whole_one_lost(tmp_path):
    for ending in ("csv", "jsonl"):
        path = tmp_path / f"t.{ending}"
        rows = [{"a": 'x "1"\r\ny', "b": "é"}, {"a": "2", "b": "3,4"}]
        with AppendOnlyTable(path, ["a", "b"]) as table:
            table.append(rows)
        whole = path.read_bytes()
        firsts = []
        for length in range(len(whole) + 1):
            path.write_bytes(whole[:length])
            torn = list(read_rows(path))
            with AppendOnlyTable(path, ["a", "b"]) as table:
                table.append([{"a": "new", "b": "1"}])
            found = list(read_rows(path))
            assert found[-1] == {"a": "new", "b": "1"} and found[:-1] == torn == rows[: len(found) - 1]
            firsts.append(len(found) - 1)
        assert firsts == sorted(firsts) and firsts[-1] == 2 and firsts[0] == 0
        path.write_bytes(whole + bytes(300))  # what some file systems leave after a power cut
        with AppendOnlyTable(path, ["a", "b"]):
            assert list(read_rows(path)) == rows


def test_tables_of_others_are_not_appended_to(tmp_path):
    for name, text in (("a.csv", "x,y\n1,2\n"), ("a.jsonl", '{"x": 1}\n')):
        (tmp_path / name).write_text(text)
        with pytest.raises(UserError, match="another table"):
            AppendOnlyTable(tmp_path / name, ["a"])
        assert (tmp_path / name).read_text() == text
    for name in ("a.xlsx", "a.jsonl"):
        with pytest.raises(UserError, match="csv or .parquet"):
            append_observations([], tmp_path / name)
    (tmp_path / "p.parquet").write_bytes(b"no")
    with pytest.raises(UserError, match="Parquet"):
        read_observations(tmp_path / "p.parquet")
    with pytest.raises(UserError, match="not there"):
        read_observations(tmp_path / "gone.csv")


def test_a_photo_is_named_with_its_archive_and_second():
    rows = {"path": "a.jpg"}, {"path": "a.zip", "member": "b.jpg"}, {"path": "a.mp4", "seconds": 1.25}
    assert [photo_text(row) for row in rows] == ["a.jpg", "a.zip/b.jpg", "a.mp4#t=1.25"]
