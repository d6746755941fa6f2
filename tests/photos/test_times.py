"""Times: from what cameras, phones and programs write, always with where it was written; never guessed, never converted."""

import io
import os
from datetime import datetime

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from species_wb.contracts import MANIFEST, read_manifest, write_table
from species_wb.photos import groups
from species_wb.photos.findings import findings
from species_wb.photos.findings_text import sentences
from species_wb.photos.headers import header
from species_wb.photos.scan import scan
from species_wb.photos.units import Unit, items

pytestmark = pytest.mark.usefixtures("workspace")
ORIGINAL, DIGITIZED, CHANGED = 0x9003, 0x9004, 0x0132
TAGS = {"original": ORIGINAL, "digitized": DIGITIZED, "original_part": 0x9291, "original_zone": 0x9011,
        "digitized_part": 0x9292, "digitized_zone": 0x9012, "changed_part": 0x9290, "changed_zone": 0x9010}


def photo(seed: int = 0, format: str = "JPEG", changed: str | None = None, **shot) -> bytes:
    "A photo with these fields of EXIF."
    exif = Image.Exif()
    exif.get_ifd(0x8769).update({TAGS[name]: text for name, text in shot.items()})
    if changed:
        exif[CHANGED] = changed
    file, pixels = io.BytesIO(), np.random.default_rng(seed).integers(0, 255, (64, 96, 3), np.uint8)
    Image.fromarray(pixels).save(file, format, exif=exif.tobytes())
    return file.getvalue()


def said(data: bytes) -> tuple[str | None, str | None]:
    head = header(data)
    return head.taken_at, getattr(head, "taken_from", None)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_photo_without_datetimeoriginal_has_the_next_best_time_and_says_which(format):
    both = photo(format=format, original="2026:05:04 13:07:55", changed="2031:01:01 00:00:01")
    assert said(both) == ("2026-05-04T13:07:55", "DateTimeOriginal")
    assert said(photo(format=format, digitized="2026:05:04 13:07:55")) == ("2026-05-04T13:07:55", "DateTimeDigitized")
    assert said(photo(format=format, changed="2026:05:04 13:07:55")) == ("2026-05-04T13:07:55", "DateTime")
    zeros = photo(format=format, original="0000:00:00 00:00:00", changed="2026:05:04 13:07:55")
    assert said(zeros) == ("2026-05-04T13:07:55", "DateTime") and said(photo(format=format)) == (None, None)


@pytest.mark.parametrize("text, wanted", [
    ("2026:05:04 01:00:10 PM", "13:00:10"), ("2026:05:04 01:00:10 AM", "01:00:10"),
    ("2026:05:04 12:30:00 AM", "00:30:00"), ("2026:05:04 12:30:00 PM", "12:30:00"), ("2026:05:04 1:00:10pm", "13:00:10"),
    ("2026:05:04 01:00:10\u202fp.m.", "13:00:10"), ("2026/05/04 13:00:10", "13:00:10"), ("2026-05-04T13:00:10", "13:00:10"),
    ("2026.05.04 13.00.10", "13:00:10"), ("2026: 5: 4 13:00:10", "13:00:10"), ("2026:05:04 13:00:10\0\0", "13:00:10"),
    ("20260504 130010", "13:00:10"), ("2026:05:04 13:00:10.25", "13:00:10.250"), ("2026:05:04 13:00", "13:00:00"),
    ("Mon May 04 13:00:10 2026", "13:00:10"), ("2026:05:04 13:00:10+02:00", "13:00:10+02:00"),
    ("2026:05:04 13:00:10Z", "13:00:10+00:00")])
def test_clocks_of_twelve_hours_odd_signs_and_fractions_are_read(text, wanted):
    data = photo(original=text.replace("\u202f", "###")).replace(b"###", "\u202f".encode())  # the narrow space of Apple's systems
    assert said(data)[0] == f"2026-05-04T{wanted}"


@pytest.mark.parametrize("text", ["04/05/2026 13:00", "2026:13:04 13:00:10", "2026:05:04 25:00:10", "yesterday", "2026:05:04"])
def test_what_is_no_time_or_could_be_two_is_none(text):
    assert said(photo(original=text)) == (None, None)


def test_a_burst_of_ten_photos_in_a_second_has_an_order_and_is_one_group(tmp_path):
    (folder := tmp_path / "photos" / "Aves").mkdir(parents=True)
    for k in (7, 2, 9, 0, 5, 1, 8, 3, 6, 4):
        burst = photo(k, original="2026:05:04 13:07:55", original_part=f"{k}0", original_zone="+02:00")
        (folder / f"{9 - k}.jpg").write_bytes(burst)
    table = scan(folder.parent).to_pylist()
    times = {row["path"]: row["taken_at"] for row in table}
    assert sorted(times, key=times.get) == [f"Aves/{9 - k}.jpg" for k in range(10)] and len({row["group"] for row in table}) == 1
    assert min(times.values()) == "2026-05-04T13:07:55+02:00"  # a whole second is written as ever
    assert all(datetime.fromisoformat(time).utcoffset().seconds == 7200 for time in times.values())


def test_each_field_has_its_own_fraction_and_offset():
    own = {"changed": "2026:05:04 13:07:55", "changed_part": "5", "changed_zone": "+02:00"}
    others = {"original_part": "9", "original_zone": "-03:00", "digitized_zone": "+09:00"}
    assert said(photo(**own, **others)) == ("2026-05-04T13:07:55.500+02:00", "DateTime")
    assert said(photo(original="2026:05:04 13:07:55", changed_part="5", changed_zone="+02:00"))[0] == "2026-05-04T13:07:55"


def test_the_times_of_editors_are_read_where_exif_has_none():
    picture, file = Image.new("RGB", (64, 64)), io.BytesIO()
    text = PngImagePlugin.PngInfo()
    text.add_text("Creation Time", "Mon, 04 May 2026 13:07:55 +0200")
    picture.save(file, "PNG", pnginfo=text)
    assert said(file.getvalue()) == ("2026-05-04T13:07:55+02:00", "PNG")
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><exif:DateTimeOriginal>2026-05-04T13:07:55</exif:DateTimeOriginal></x:xmpmeta>'
    for format in ("JPEG", "WEBP"):
        file = io.BytesIO()
        picture.save(file, format, xmp=xmp)
        assert said(file.getvalue()) == ("2026-05-04T13:07:55", "XMP"), format


def test_findings_count_other_times_and_point_out_clocks_that_were_never_set(tmp_path):
    (folder := tmp_path / "photos" / "Aves").mkdir(parents=True)
    shots = [{"original": "2026:05:04 13:07:55"}, {"changed": "2026:05:05 13:07:55"}, {"changed": "2026:05:06 13:07:55"},
             {"digitized": "2026:05:07 13:07:55"}, {"original": "2000:01:01 00:03:12"}, {"original": "1970:01:01 00:00:00"}]
    for k, shot in enumerate(shots):
        (folder / f"{k}.jpg").write_bytes(photo(k, **shot))
    (folder.parent / "mine.csv").write_text("path,taken_at\nAves/0.jpg,2026/5/4 2:07:55 PM\n")
    found = findings(scan(folder.parent))
    assert found["other_times"] == {"DateTime": 2, "DateTimeDigitized": 1} and found["with_time"] == 6
    assert set(found["unset_clock"]) == {"Aves/4.jpg", "Aves/5.jpg"}  # and their times are kept
    text = " ".join(sentences(found))
    assert "The time of 3 photos is not EXIF's DateTimeOriginal; it is from DateTime (2), DateTimeDigitized (1)." in text
    assert "The clock was probably not set when 2 photos were taken: Aves/4.jpg (2000-01-01T00:03:12)" in text
    given = scan(folder.parent, folder.parent / "mine.csv").to_pylist()[0]
    assert (given["taken_at"], given["taken_from"]) == ("2026-05-04T14:07:55", "given")


def test_the_time_of_a_file_is_taken_only_where_it_is_asked_for(tmp_path):
    (folder := tmp_path / "photos" / "Aves").mkdir(parents=True)
    for name, shot in (("told", {"original": "2026:05:04 13:07:55"}), ("mute", {})):
        (folder / f"{name}.jpg").write_bytes(photo(len(name) + len(shot), **shot))
        os.utime(folder / f"{name}.jpg", (1_700_000_000, 1_700_000_000))
    told = [(row["taken_at"], row["taken_from"]) for row in scan(folder.parent).to_pylist()]
    assert told == [(None, None), ("2026-05-04T13:07:55", "DateTimeOriginal")]
    mute, told = scan(folder.parent, file_times=True).to_pylist()
    assert datetime.fromisoformat(mute["taken_at"]).timestamp() == 1_700_000_000 and mute["taken_from"] == "file"
    assert told["taken_from"] == "DateTimeOriginal"
    assert scan(folder.parent).to_pylist()[0]["taken_at"] is None  # nothing of it is remembered


def test_a_manifest_of_the_version_before_is_read(tmp_path):
    (folder := tmp_path / "photos" / "Aves").mkdir(parents=True)
    (folder / "a.jpg").write_bytes(photo(original="2026:05:04 13:07:55"))
    now = scan(folder.parent)
    write_table(now.drop_columns(["taken_from"]), tmp_path / "earlier.parquet")
    earlier = read_manifest(tmp_path / "earlier.parquet")
    assert earlier.schema.names[: len(MANIFEST)] == MANIFEST.names and earlier["taken_from"].to_pylist() == [None]
    assert earlier["taken_at"].to_pylist() == ["2026-05-04T13:07:55"] and findings(earlier)["other_times"] == {}


def test_times_in_whole_seconds_group_as_ever():
    rows = [{"path": f"{k}.jpg", "status": "ok", "site": "pond", "taken_at": t} for k, t in enumerate(
        ["2026-05-04T13:07:55", "2026-05-04T13:08:55", "2026-05-04T13:09:55.500", "2026-05-04T13:10:55.250"])]
    groups.tie(rows)
    assert [row["group"] for row in rows] == ["0.jpg", "0.jpg", "2.jpg", "2.jpg"]


# --- films ---------------------------------------------------------------------------------------------------------------------

av = pytest.importorskip("av")


def written(path, metadata, codec="libx264", **options):
    "A film of two seconds that says of itself what is given."
    with av.open(str(path), "w", options=options) as out:
        out.metadata.update(metadata)
        stream = out.add_stream(codec, rate=4)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for k in range(8):
            frame = av.VideoFrame.from_ndarray(np.full((64, 96, 3), 20 * k, np.uint8), "rgb24")
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return path


def with_idit(path, text: bytes):
    "Put a chunk IDIT, as cameras write it, behind the headers of an AVI."
    data = path.read_bytes()
    length = int.from_bytes(data[16:20], "little")
    chunk = b"IDIT" + len(text).to_bytes(4, "little") + text + b"\0" * (len(text) % 2)
    total = (int.from_bytes(data[4:8], "little") + len(chunk)).to_bytes(4, "little")
    head = data[:4] + total + data[8:16] + (length + len(chunk)).to_bytes(4, "little")
    path.write_bytes(head + data[20 : 20 + length] + chunk + data[20 + length :])
    return path


def frame_times(path, every=1.0):
    rows = [row for row, _ in items(Unit(path.name), str(path.parent), every)]
    assert all(row.get("status") in (None, "ok") for row in rows), rows
    return [(row.get("taken_at"), row.get("taken_from")) for row in rows]


CREATED = {"creation_time": "2026-05-04T23:59:59.000000Z"}


@pytest.mark.parametrize("name", ["trail.mp4", "trail.mov", "trail.3gp"])
def test_the_frames_of_a_film_have_its_creation_time_plus_the_second_and_no_guessed_zone(tmp_path, name):
    path = written(tmp_path / name, CREATED)
    assert frame_times(path) == [("2026-05-04T23:59:59", "film"), ("2026-05-05T00:00:00", "film")]
    assert frame_times(path, 0.5)[1] == ("2026-05-04T23:59:59.500", "film")


def test_a_zone_is_written_where_the_film_holds_one(tmp_path):
    apple = CREATED | {"com.apple.quicktime.creationdate": "2026-05-05T01:59:59+0200"}
    assert frame_times(written(tmp_path / "phone.mov", apple, movflags="use_metadata_tags"))[0][0] == "2026-05-05T01:59:59+02:00"
    android = CREATED | {"com.android.version": "14"}
    assert frame_times(written(tmp_path / "phone.mp4", android, movflags="use_metadata_tags"))[0][0] == "2026-05-04T23:59:59+00:00"
    assert frame_times(written(tmp_path / "film.mkv", CREATED))[1][0] == "2026-05-05T00:00:00+00:00"  # DateUTC


@pytest.mark.parametrize("text, wanted", [
    (b"Mon May 04 13:07:55 2026\n\0", "2026-05-04T13:07:55"), (b"MON MAY 04 13:07:55 2026", "2026-05-04T13:07:55"),
    (b"2001/ 1/27  1:42PM\0", "2001-01-27T13:42:00"), (b"2026/05/04/ 13:07", "2026-05-04T13:07:00")])
def test_an_avi_says_when_it_was_begun(tmp_path, text, wanted):
    assert frame_times(with_idit(written(tmp_path / "trail.avi", {}, "mjpeg"), text))[0] == (wanted, "film")


def test_an_avi_with_icrd_and_films_that_say_nothing(tmp_path):
    assert frame_times(written(tmp_path / "a.avi", {"date": "2026-05-04 13:07:55"}, "mjpeg"))[1][0] == "2026-05-04T13:07:56"
    assert set(frame_times(written(tmp_path / "b.mp4", {}))) == set(frame_times(written(tmp_path / "c.avi", {}, "mjpeg"))) == {(None, None)}
