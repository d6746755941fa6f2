"""What photos promises: one row for every file, groups on one side of a split, and a sentence for whatever is wrong."""

import csv
import io
import os
import shutil
import threading
import zipfile
import zlib
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import examples
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import species_wb.photos.inspection
from species_wb.fields import CODES, path_text, text_path
from species_wb.photos import groups
from species_wb.contracts import MANIFEST, data_hash, manifest_root, manifest_table, read_manifest, write_table
from species_wb.core import UserError
from species_wb.photos.pixels import decode
from species_wb.photos.findings import findings, require_trainable
from species_wb.photos.findings_text import sentences
from species_wb.photos.groups import near_pairs
from species_wb.photos.scan import scan
from species_wb.photos.splits import deal
from species_wb.workspace import cache_folder

pytestmark = pytest.mark.usefixtures("workspace")


def picture(seed: int, side: int = 96) -> Image.Image:
    "A picture unlike every other seed's."
    coarse = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), np.uint8)
    return Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, format: str = "JPEG", **options) -> bytes:
    file = io.BytesIO()
    image.copy().save(file, format, **options)
    return file.getvalue()


def taken(when: str) -> Image.Exif:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9003] = when
    return exif


def tree(root: Path, counts: dict[str, int], first: int = 0) -> Path:
    "Folders of photos, all different."
    seeds = iter(range(first, 10**6))
    for folder, count in counts.items():
        (root / folder).mkdir(parents=True)
        for i in range(count):
            (root / folder / f"{i:03}.jpg").write_bytes(encoded(picture(next(seeds))))
    return root


def rows(manifest) -> dict[str, dict]:
    return {row["path"]: row for row in manifest.to_pylist()}


def splits(manifest) -> dict[str, Counter]:
    found = defaultdict(Counter)
    for row in manifest.to_pylist():
        found[row["label"]][row["split"]] += 1
    return found


# --- every file gets exactly one row -------------------------------------------------------------------------------------------


def odd_files(root: Path) -> dict[str, str]:
    "Make every kind of odd and broken file; path → status."
    photo = picture(1)
    jpeg, png = encoded(photo), encoded(photo, "PNG")
    damaged = bytearray(jpeg)
    damaged[len(jpeg) // 2 : len(jpeg) // 2 + 4] = b"\xff\x01\xff\x01"
    bomb = bytearray(encoded(Image.new("L", (1, 1)), "PNG"))
    bomb[16:24] = (50_000).to_bytes(4, "big") * 2
    bomb[29:33] = zlib.crc32(bomb[12:29]).to_bytes(4, "big")
    frames = lambda: {"save_all": True, "append_images": [picture(2), picture(3)]}  # noqa: E731  saving leaves traces on an image
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a.jpg", jpeg)
    palette = photo.convert("P")
    turned = Image.Exif()
    turned[0x0112] = 6
    kinds: dict[str | bytes, tuple[bytes, str]] = {
        "plain.jpg": (jpeg, "ok"),
        "progressive.jpg": (encoded(photo, progressive=True), "ok"),
        "grey.jpg": (encoded(photo.convert("L")), "ok"),
        "cmyk.jpg": (encoded(Image.new("CMYK", (64, 64), (200, 30, 90, 40)), quality=100), "ok"),
        "upper.JPG": (jpeg, "ok"),
        "no extension": (jpeg, "ok"),
        "really a png.jpg": (png, "ok"),
        "rgba.png": (encoded(photo.convert("RGBA"), "PNG"), "ok"),
        "la.png": (encoded(photo.convert("LA"), "PNG"), "ok"),
        "one bit.png": (encoded(photo.convert("1"), "PNG"), "ok"),
        "16 bit.png": (encoded(Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000), "PNG"), "ok"),
        "16 bit.tif": (encoded(Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000), "TIFF"), "ok"),
        "palette.png": (encoded(palette, "PNG"), "ok"),
        "palette transparent.png": (encoded(palette, "PNG", transparency=3), "ok"),
        "animated.gif": (encoded(photo, "GIF", **frames()), "ok"),
        "animated.webp": (encoded(photo, "WEBP", **frames()), "ok"),
        "animated.png": (encoded(photo, "PNG", **frames()), "ok"),
        "stereo.mpo": (encoded(photo, "MPO", **frames()), "ok"),
        "pages.tif": (encoded(photo, "TIFF", **frames()), "ok"),
        "lzw.tiff": (encoded(photo, "TIFF", compression="tiff_lzw"), "ok"),
        "photo.bmp": (encoded(photo, "BMP"), "ok"),
        "photo.avif": (encoded(photo, "AVIF"), "ok"),
        "turned.jpg": (encoded(Image.new("RGB", (60, 40), "red"), exif=turned), "ok"),
        "exif garbage.jpg": (encoded(photo, exif=b"Exif\0\0II*\0\xff\xff\xff\x7f" + bytes(range(200))), "ok"),
        "profile.jpg": (encoded(photo, icc_profile=bytes(3000)), "ok"),
        "tail.jpg": (jpeg + b"trailing bytes" * 500, "ok"),
        "1x1.png": (encoded(Image.new("RGB", (1, 1)), "PNG"), "ok"),
        "strip.jpg": (encoded(picture(5).resize((1, 3000))), "ok"),
        "with space.jpg": (jpeg, "ok"),
        "'single' and \"double\".jpg": (jpeg, "ok"),
        "new\nline.jpg": (jpeg, "ok"),
        "🦊 Füchse 狐.jpg": (jpeg, "ok"),
        "-rf.jpg": (jpeg, "ok"),
        ".hidden.jpg": (jpeg, "ok"),
        b"latin-1 B\xe4r.jpg": (jpeg, "ok"),
        "a,b;c|d.jpg": (jpeg, "ok"),
        "truncated.jpg": (jpeg[: len(jpeg) // 2], "cut-short"),
        "truncated progressive.jpg": (encoded(photo, progressive=True)[:700], "cut-short"),
        "torn.jpg": (jpeg[:-2], "ok"),
        "torn progressive.jpg": (encoded(photo, progressive=True)[:-20], "ok"),
        "torn.webp": (encoded(photo, "WEBP")[:-100], "ok"),
        "truncated.png": (png[: len(png) // 2], "cut-short"),
        "truncated.webp": (encoded(photo, "WEBP")[:90], "cut-short"),
        "header only.jpg": (jpeg[:100], "cut-short"),
        "damaged.jpg": (bytes(damaged), "unreadable"),
        "damaged.png": (png[: len(png) // 2] + bytes(40) + png[len(png) // 2 + 40 :], "unreadable"),
        "raw.cr2": (b"II*\0\x10\0\0\0CR\2\0" + bytes(300), "unreadable"),
        "empty.jpg": (b"", "empty"),
        "text.jpg": (b"this is not a photo", "not-a-photo"),
        "page.jpg": (b"<!DOCTYPE html><html><body>404 Not Found</body></html>", "not-a-photo"),
        "archive.jpg": (archive.getvalue(), "not-a-photo"),
        "film.mp4": (b"\0\0\0\x20ftypisom" + bytes(5000), "not-a-photo"),
        "zeros.jpg": (bytes(5000), "not-a-photo"),
        "settings.db": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(100), "not-a-photo"),
        "fork.jpg": (b"\0\5\x16\7" + bytes(100), "not-a-photo"),
        "drawing.svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not-a-photo"),
        "script.eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not-a-photo"),
        "bomb.png": (bytes(bomb), "too-large"),
    }
    folder = root / "Aves"
    folder.mkdir(parents=True)
    wanted = {}
    for name, (data, status) in kinds.items():
        path = os.path.join(os.fsencode(folder), os.fsencode(name))
        with open(path, "wb") as file:
            file.write(data)
        wanted[f"Aves/{path_text(name)}"] = status
    with open(folder / "sparse.jpg", "wb") as file:
        file.truncate(2**40)
    os.mkfifo(folder / "pipe.jpg")
    (folder / "dangling.jpg").symlink_to("nowhere.jpg")
    (folder / "circle.jpg").symlink_to("circle.jpg")
    (folder / "up").symlink_to(root)
    (folder / "linked.jpg").symlink_to("plain.jpg")
    (folder / "folder.jpg").mkdir()
    (folder / "folder.jpg" / "inside.jpg").write_bytes(jpeg)
    (folder / "locked.jpg").write_bytes(jpeg)
    (folder / "locked.jpg").chmod(0)
    locked = "ok" if os.access(folder / "locked.jpg", os.R_OK) else "unreadable"  # nothing is locked for root
    more = {"sparse.jpg": "too-large", "pipe.jpg": "not-a-file", "dangling.jpg": "link-loop", "circle.jpg": "link-loop", "up": "link-loop", "linked.jpg": "ok", "folder.jpg/inside.jpg": "ok",
            "locked.jpg": locked}
    return wanted | {f"Aves/{name}": status for name, status in more.items()}


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_every_file_gets_exactly_one_row_with_the_right_status(tmp_path):
    wanted = odd_files(tmp_path / "photos")
    assert len(wanted) >= 60
    tree(tmp_path / "photos", {"Fungi": 2}, first=50)
    wanted |= {"Fungi/000.jpg": "ok", "Fungi/001.jpg": "ok"}
    outcome = []
    thread = threading.Thread(target=lambda: outcome.append(scan(tmp_path / "photos")), daemon=True)
    thread.start()
    thread.join(120)
    assert not thread.is_alive(), "the scan hangs"
    manifest = outcome[0]
    assert {path: row["status"] for path, row in rows(manifest).items()} == wanted and len(manifest) == len(wanted)
    for row in manifest.to_pylist():
        if row["status"] == "ok":
            assert row["width"] and row["sha256"] and len(row["phash"]) == 16 and row["label"] in ("Aves", "Fungi") and row["group"]
        else:
            assert row["reason"].endswith(".") and row["reason"].isprintable() and row["split"] is row["group"] is None
        assert os.path.lexists(os.path.join(os.fsencode(tmp_path / "photos"), os.fsencode(text_path(row["path"]))))
    cmyk = decode((tmp_path / "photos" / "Aves" / "cmyk.jpg").read_bytes(), 256)[30, 30].astype(int)
    assert np.abs(cmyk - Image.new("CMYK", (1, 1), (200, 30, 90, 40)).convert("RGB").getpixel((0, 0))).max() <= 3
    assert rows(manifest)["Aves/turned.jpg"]["width"] == 40 and rows(manifest)["Aves/strip.jpg"]["height"] == 3000
    assert rows(scan(tmp_path / "photos")) == rows(manifest)  # from the cache
    assert sentences(findings(manifest))


def test_a_locked_folder_is_reported(tmp_path):
    root = tree(tmp_path / "photos", {"Aves": 3, "Fungi": 3})
    (root / "Fungi" / "locked").mkdir(mode=0)
    if os.access(root / "Fungi" / "locked", os.R_OK):
        pytest.skip("root may open every folder")
    assert rows(scan(root))["Fungi/locked"]["status"] == "unreadable"


def test_links_to_folders_are_followed_once(tmp_path):
    root, elsewhere = tree(tmp_path / "photos", {"Aves": 3}), tree(tmp_path / "elsewhere", {"more": 2}, first=20)
    (root / "AAA").symlink_to(root / "Aves")
    (root / "Fungi").symlink_to(elsewhere / "more")
    (elsewhere / "more" / "back").symlink_to(root)
    found = rows(scan(root))
    assert {p: r["status"] for p, r in found.items() if r["status"] != "ok"} == {"AAA": "link-loop", "Fungi/back": "link-loop"}
    assert sum(r["status"] == "ok" for r in found.values()) == 5 and found["Fungi/000.jpg"]["label"] == "Fungi"


# --- layouts -------------------------------------------------------------------------------------------------------------------


def test_a_tree_of_class_folders(tmp_path):
    root = tree(tmp_path / "photos", {"Aves/2024/May": 20, "Fungi": 20})
    (root / "stray.jpg").write_bytes(encoded(picture(900)))
    (root / ".ipynb_checkpoints").mkdir()
    (root / ".ipynb_checkpoints" / "copy.jpg").write_bytes(encoded(picture(901)))
    (root / ".cache").mkdir()
    (root / ".cache" / "copy.jpg").write_bytes(encoded(picture(902)))
    (root / "Plantae" / "2025").mkdir(parents=True)
    manifest = scan(root)
    found = rows(manifest)
    assert splits(manifest)["Aves"] == splits(manifest)["Fungi"] == {"train": 14, "valid": 3, "test": 3}
    assert ".ipynb_checkpoints/copy.jpg" not in found
    for stray in ("stray.jpg", ".cache/copy.jpg"):
        assert found[stray]["label"] is found[stray]["split"] is None and "not used for training" in found[stray]["reason"]
    assert findings(manifest)["empty_folders"] == ["Plantae"] and require_trainable(manifest) == ["Aves", "Fungi"]
    assert any("Plantae" in sentence for sentence in sentences(findings(manifest)))


def test_kaggles_unlabelled_test_folder_is_predicted_never_scored(tmp_path):
    root = tree(tmp_path / "photos", {"Train/Aves": 20, "Train/Fungi": 20, "TEST": 7})
    manifest = scan(root)
    assert splits(manifest) == {"Aves": {"train": 14, "valid": 3, "test": 3}, "Fungi": {"train": 14, "valid": 3, "test": 3}, None: {None: 7}}
    assert all(row["reason"] is None for path, row in rows(manifest).items() if path.startswith("TEST/"))


def test_inaturalists_val_is_the_test_unless_a_labelled_test_stands_beside_it(tmp_path):
    assert splits(scan(tree(tmp_path / "a", {"train/Aves": 20, "train/Fungi": 20, "val/Aves": 5, "val/Fungi": 5})))["Aves"] == {"train": 17, "valid": 3, "test": 5}
    assert splits(scan(tree(tmp_path / "b", {"train/Aves": 20, "train/Fungi": 20, "val/Aves": 5, "val/Fungi": 5, "test": 4})))["Aves"] == {"train": 17, "valid": 3, "test": 5}
    for name in ("val", "valid", "Validation"):
        found = splits(scan(tree(tmp_path / f"c{name}", {"train/Aves": 20, "train/Fungi": 20, f"{name}/Aves": 5, f"{name}/Fungi": 5, "test/Aves": 4, "test/Fungi": 4})))
        assert found["Aves"] == {"train": 20, "valid": 5, "test": 4}


def test_files_outside_of_the_split_folders_are_named(tmp_path):
    root = tree(tmp_path / "photos", {"train/Aves": 8, "train/Fungi": 8, "spare/Aves": 2})
    assert all(row["split"] is None and "outside" in row["reason"] for path, row in rows(scan(root)).items() if path.startswith("spare/"))


def write_csv(path: Path, header: list[str], lines: list[list], delimiter: str = ",", encoding: str = "utf-8") -> Path:
    with path.open("w", newline="", encoding=encoding) as file:
        csv.writer(file, delimiter=delimiter).writerows([header, *lines])
    return path


@pytest.mark.parametrize("delimiter, encoding", [(",", "utf-8"), (";", "cp1252"), ("\t", "utf-8-sig")])
def test_a_csv_names_photos_and_classes(tmp_path, delimiter, encoding):
    tree(tmp_path / "img", {"a": 20, "b": 20})
    lines = [[f"img/{f}/{i:03}.jpg", label, "Nürnberg", "51.5", "3"] for f, label in (("a", "Vögel"), ("b", "Pilze")) for i in range(20)]
    lines += [["img/none.jpg", "Pilze", "", "", ""], ["./img/a/000.jpg", "Vögel", "", "", ""], ["img/b/001.jpg", "Vögel", "", "", ""], ["", "Pilze", "", "", ""]]
    manifest = scan(write_csv(tmp_path / "photos.csv", ["FileName", "Species", "site", "Lat", "weight"], lines, delimiter, encoding))
    found = rows(manifest)
    assert len(found) == 41 and found["img/none.jpg"]["status"] == "missing" and manifest_root(manifest) == str(tmp_path)
    assert found["img/a/000.jpg"] | {"label": "Vögel", "site": "Nürnberg", "lat": 51.5, "weight": "3", "status": "ok"} == found["img/a/000.jpg"]
    assert found["img/b/001.jpg"]["label"] is None and "more than one label" in found["img/b/001.jpg"]["reason"]
    assert splits(manifest)["Vögel"] == {"train": 14, "valid": 3, "test": 3}


def test_a_csv_may_give_the_splits_and_name_files_anywhere(tmp_path):
    tree(tmp_path / "img", {"a": 12, "b": 12})
    (tmp_path / "tables").mkdir()
    lines = [[str(tmp_path / "img/a" / f"{i:03}.jpg") if i % 2 else f"..\\img\\a\\{i:03}.jpg", "A", ["train", "val", "test", ""][i % 4]] for i in range(12)]
    lines += [[f"../img/b/{i:03}.jpg", "B", ["train", "val", "test", ""][i % 4]] for i in range(12)]
    manifest = scan(write_csv(tmp_path / "tables" / "p.csv", ["path", "label", "split"], lines))
    assert splits(manifest) == {label: {"train": 3, "valid": 3, "test": 3, None: 3} for label in "AB"}
    assert set(manifest["status"].to_pylist()) == {"ok"}


def test_a_manifest_is_used_as_it_is_and_moves_with_its_photos(tmp_path):
    root = tree(tmp_path / "photos", {"Aves": 8, "Fungi": 8})
    manifest = scan(root)
    write_table(manifest, root / "my.parquet")
    assert scan(root / "my.parquet").equals(manifest)
    root.rename(tmp_path / "moved")
    assert manifest_root(scan(tmp_path / "moved" / "my.parquet")) == str(tmp_path / "moved")
    shutil.move(tmp_path / "moved" / "my.parquet", tmp_path / "my.parquet")
    with pytest.raises(UserError, match="not where they were"):
        scan(tmp_path / "my.parquet")


# --- what people bring along ---------------------------------------------------------------------------------------------------


def test_metadata_is_joined_by_path_and_goes_before_exif(tmp_path):
    root = tree(tmp_path / "photos", {"Aves": 6, "Fungi": 6})
    (root / "Aves" / "000.jpg").write_bytes(encoded(picture(0), exif=taken("2001:01:01 10:00:00")))
    (root / "Aves" / "001.jpg").write_bytes(encoded(picture(1), exif=taken("2001:01:01 11:00:00")))
    lines = [["Aves/000.jpg", "A", "2026:05:04 13:07:55", "51,5", "200", "f", "9", "x"], ["photos/Fungi/001.jpg", "B", "never", "1", "2", "", "", ""], ["gone.jpg", "C", "", "", "", "", "", ""]]
    metadata = write_csv(tmp_path / "sites.csv", ["File", "Site", "taken_at", "lat", "lon", "sex", "width", "given"], lines, ";")
    manifest = scan(root, metadata)
    found = rows(manifest)
    assert found["Aves/000.jpg"] | {"site": "A", "taken_at": "2026-05-04T13:07:55", "lat": 51.5, "lon": None, "sex": "f", "width": 96, "width_given": "9", "given_given": "x"} == found["Aves/000.jpg"]
    assert found["Aves/001.jpg"]["taken_at"] == "2001-01-01T11:00:00" and found["Fungi/001.jpg"]["site"] == "B" and found["Fungi/001.jpg"]["taken_at"] is None
    assert "sites.csv matched 2 of 12 files." in sentences(findings(manifest))


def test_real_sources_are_joined(photos):
    manifest = scan(photos, photos / "SOURCES.csv")
    assert "SOURCES.csv describes every photo." in findings(manifest)["notes"] and manifest["licence"].null_count == 1


def test_a_table_of_sources_beside_the_photos_says_where_each_is_from(tmp_path):
    root = tree(tmp_path / "photos", {"Aves": 6, "Fungi": 6})
    lines = [["Aves/000.jpg", "Fungi", "github:one/birds", "CC BY 4.0", "A. Smith", "S1"], ["Aves/001.jpg", "Aves", "", "", "", "S2"]]
    write_csv(root / "SOURCES.csv", ["file", "class", "source_repo_or_package", "License", "Photographer", "site"], lines)
    manifest = scan(root)
    found = rows(manifest)
    assert [found["Aves/000.jpg"][name] for name in ("source", "licence", "author")] == ["github:one/birds", "CC BY 4.0", "A. Smith"]
    assert found["Aves/001.jpg"]["source"] is found["Fungi/000.jpg"]["source"] is None
    assert found["Aves/000.jpg"]["site"] is None and "class" not in manifest.schema.names  # only where the photos come from
    assert "SOURCES.csv matched 2 of 12 files." in sentences(findings(manifest))
    (root / "SOURCES.csv").write_text("nothing\nof this\n")
    assert any(note.startswith("SOURCES.csv in this folder was not used.") for note in findings(scan(root))["notes"])
    (root / "SOURCES.csv").unlink()
    alike = lambda row: (row["label"], row["split"], row["group"])  # noqa: E731
    assert all(alike(row) == alike(found[path]) for path, row in rows(scan(root)).items())


def test_columns_of_a_persons_table_say_where_photos_are_from(tmp_path):
    root = tree(tmp_path / "photos", {"Aves": 6, "Fungi": 6})
    table = write_csv(tmp_path / "mine.csv", ["file", "repo", "license", "rightsHolder"], [["Aves/000.jpg", "zenodo:1", "CC0", "B. Jones"]])
    row = rows(scan(root, table))["Aves/000.jpg"]
    assert (row["source"], row["licence"], row["author"]) == ("zenodo:1", "CC0", "B. Jones") and row["repo"] == "zenodo:1"


def test_a_manifest_that_lies_with_the_photos_brings_its_columns(tmp_path):
    root = tree(tmp_path / "photos", {"Aves": 9, "Fungi": 9})
    truth = [{"path": f"{c}/{i:03}.jpg", "label": "wrong", "split": "test", "status": "ok", "site": f"S{i % 3}", "source": "simulated", "group": f"G{i % 3}", "taken_at": "2026-05-04T13:07:55", "x0": 0.25}
             for c in ("Aves", "Fungi") for i in range(9)]
    write_table(manifest_table(truth, root), root / "manifest.parquet")
    manifest = scan(root)
    found = rows(manifest)
    assert found["manifest.parquet"]["status"] == "not-a-photo"
    assert found["Aves/001.jpg"] | {"label": "Aves", "site": "S1", "source": "simulated", "group": "G1", "x0": 0.25} == found["Aves/001.jpg"]
    assert findings(manifest)["simulated"] and findings(manifest)["sites"] == 3
    (root / "manifest.parquet").write_bytes(b"PAR1 broken")
    assert any("was not used" in note for note in findings(scan(root))["notes"])


# --- duplicates, groups, splits ------------------------------------------------------------------------------------------------


@examples(40)
@given(st.integers(0, 2**32), st.integers(2, 300))
def test_near_pairs_are_those_of_a_plain_comparison(seed, count):
    rng = np.random.default_rng(seed)
    base = [int(sum(1 << int(b) for b in rng.permutation(64)[:32])) for _ in range(max(1, count // 8))]
    hashes = []
    for _ in range(count):
        value = base[rng.integers(len(base))]
        for bit in rng.integers(0, 64, rng.integers(0, 9)):
            value ^= 1 << int(bit)
        hashes.append(value)
    found = groups._components(count, near_pairs([f"{h:016x}" for h in hashes]))
    plain = groups._components(count, [(i, j) for i in range(count) for j in range(i) if (hashes[i] ^ hashes[j]).bit_count() <= groups.NEAR])
    assert found == plain


def test_near_duplicates_are_found_and_flat_pictures_are_not_each_others(tmp_path):
    root = tree(tmp_path / "photos", {"Aves": 5, "Fungi": 5})
    original = picture(0, 400)
    (root / "Aves" / "x.jpg").write_bytes(encoded(original))
    (root / "Fungi" / "small.jpg").write_bytes(encoded(original.resize((200, 200)), quality=40))
    (root / "Fungi" / "same.jpg").write_bytes(encoded(original))
    for i, colour in enumerate(("black", "white", "grey")):
        (root / "Fungi" / f"flat{i}.png").write_bytes(encoded(Image.new("RGB", (100, 100), colour), "PNG"))
    manifest = scan(root)
    found, told = rows(manifest), findings(manifest)
    assert found["Aves/x.jpg"]["group"] == found["Fungi/small.jpg"]["group"] == found["Fungi/same.jpg"]["group"] == "Aves/000.jpg"
    assert told["exact_duplicates"] == [["Aves/x.jpg", "Fungi/same.jpg"]] and told["conflicts"][0]["Aves/x.jpg"] == "Aves"
    assert told["near_duplicates"] == [["Aves/000.jpg", "Aves/x.jpg", "Fungi/same.jpg", "Fungi/small.jpg"]]
    assert len({found[f"Fungi/flat{i}.png"]["group"] for i in range(3)}) == 3
    assert any("one label must be wrong" in sentence for sentence in sentences(told))


def test_a_burst_is_one_group_within_a_site(tmp_path):
    root = tree(tmp_path / "photos", {"Aves": 0, "Fungi": 6})
    seconds = {"a": 0, "b": 50, "c": 105, "d": 300, "e": 310}
    for i, (name, s) in enumerate(seconds.items()):
        (root / "Aves" / f"{name}.jpg").write_bytes(encoded(picture(100 + i), exif=taken(f"2026:05:04 13:{s // 60:02}:{s % 60:02}")))
    found = rows(scan(root))
    group = {name: found[f"Aves/{name}.jpg"]["group"] for name in seconds}
    assert group == {"a": "Aves/a.jpg", "b": "Aves/a.jpg", "c": "Aves/a.jpg", "d": "Aves/d.jpg", "e": "Aves/d.jpg"}
    lines = [["Aves/a.jpg", "S1", ""], ["Aves/b.jpg", "S2", ""], ["Fungi/000.jpg", "", "2026-05-04"], ["Fungi/001.jpg", "", "2026-05-04"], ["Fungi/002.jpg", "", "2026-05-04 00:00:00"]]
    found = rows(scan(root, write_csv(tmp_path / "m.csv", ["path", "site", "taken_at"], lines)))
    assert len({found[f"Aves/{name}.jpg"]["group"] for name in "abc"}) == 3  # three places: S1, S2, the folder
    assert len({found[f"Fungi/00{i}.jpg"]["group"] for i in range(3)}) == 3  # a date says nothing of a burst


def test_given_groups_are_kept_whole(tmp_path):
    root = tree(tmp_path / "photos", {"Aves": 30, "Fungi": 30})
    lines = [[f"{c}/{i:03}.jpg", f"night {i % 7}"] for c in ("Aves", "Fungi") for i in range(30)]
    manifest = scan(root, write_csv(tmp_path / "m.csv", ["path", "group"], lines))
    sides = defaultdict(set)
    for row in manifest.to_pylist():
        sides[row["group"]].add(row["split"])
    assert set(sides) == {f"night {i}" for i in range(7)} and all(len(s) == 1 for s in sides.values()) and set().union(*sides.values()) == {"train", "valid", "test"}


@examples(80)
@given(st.dictionaries(st.sampled_from("abcdefgh"), st.lists(st.integers(1, 9), min_size=1, max_size=60), min_size=1), st.integers(0, 10**6), st.booleans())
def test_dealing_is_whole_stratified_and_seeded(classes, seed, given_test):
    shares = {"train": 0.85, "valid": 0.15} if given_test else {"train": 0.7, "valid": 0.15, "test": 0.15}
    sizes_of = {f"{label}{i}": Counter({label: n}) for label, sizes in classes.items() for i, n in enumerate(sizes)}
    dealt = deal(sizes_of, shares, seed)
    assert dealt == deal(dict(reversed(sizes_of.items())), shares, seed) and set(dealt) == set(sizes_of)
    for label, sizes in classes.items():
        photos = Counter()
        for i, n in enumerate(sizes):
            photos[dealt[f"{label}{i}"]] += n
        if len(sizes) < 3:
            assert set(photos) == {"train"}
        else:
            assert set(photos) == set(shares)
            for split, share in shares.items():
                assert abs(photos[split] - share * sum(sizes)) <= max(sizes) + 1


def test_a_class_with_fewer_than_three_groups_stays_in_train_and_is_named(tmp_path):
    root = tree(tmp_path / "photos", {"Aves": 12, "Fungi": 2, "Insecta": 1, "Plantae": 3})
    manifest = scan(root)
    assert splits(manifest)["Fungi"] == {"train": 2} and splits(manifest)["Insecta"] == {"train": 1} and splits(manifest)["Plantae"] == {"train": 1, "valid": 1, "test": 1}
    told = findings(manifest)
    assert told["one_photo"] == ["Insecta"] and told["few_groups"] == ["Fungi", "Insecta"] and any("Fungi" in s and "not tested" in s for s in sentences(told))


def test_the_seed_and_nothing_else_decides(tmp_path):
    root = tree(tmp_path / "photos", {"Aves": 20, "Fungi": 20})
    first = scan(root, seed=1)
    assert scan(root, seed=1, workers=1).equals(first) and not scan(root, seed=2).equals(first)
    assert {label: dict(c) for label, c in splits(scan(root, seed=2)).items()} == {label: dict(c) for label, c in splits(first).items()}


def test_real_photos_are_split_whole_and_stratified(photos):
    for folder, shares in ((photos, {"train": 0.85, "valid": 0.15}), (photos / "train", {"train": 0.7, "valid": 0.15, "test": 0.15})):
        manifest = scan(folder)
        sides, counts = defaultdict(set), defaultdict(Counter)
        for path, row in rows(manifest).items():
            if row["status"] == "ok":
                sides[row["group"]].add(row["split"])
                if not path.startswith("test/"):
                    counts[row["label"]][row["split"]] += 1
        assert all(len(s) == 1 for s in sides.values())
        for count in counts.values():
            for split, share in shares.items():
                assert abs(count[split] - share * count.total()) <= 1.5
        assert len(require_trainable(manifest)) == 10


def test_what_was_copied_from_the_test_folder_into_train_is_left_out_and_named(tmp_path):
    root = tree(tmp_path / "photos", {"train/Aves": 10, "train/Fungi": 10, "val/Aves": 3, "val/Fungi": 3, "test/Aves": 4, "test/Fungi": 4})
    shutil.copy(root / "test/Aves/000.jpg", root / "train/Aves/copy.jpg")
    Image.open(root / "test/Fungi/001.jpg").resize((150, 150)).save(root / "train/Fungi/resized.jpg")
    shutil.copy(root / "val/Aves/002.jpg", root / "train/Aves/from val.jpg")
    shutil.copy(root / "test/Aves/003.jpg", root / "val/Aves/from test.jpg")
    manifest = scan(root)
    found = rows(manifest)
    for path, words in {"train/Aves/copy.jpg": "is a copy of test/Aves/000.jpg", "train/Fungi/resized.jpg": "is nearly the same picture as test/Fungi/001.jpg",
                        "train/Aves/from val.jpg": "is a copy of val/Aves/002.jpg", "val/Aves/from test.jpg": "is a copy of test/Aves/003.jpg"}.items():
        assert found[path]["split"] is None and words in found[path]["reason"], found[path]["reason"]
    assert found["test/Aves/000.jpg"]["split"] == "test" and found["val/Aves/002.jpg"]["split"] == "valid"
    assert len(findings(manifest)["leaks"]) == 4 and "left out of training" in sentences(findings(manifest))[1]


def test_a_test_photo_that_also_lies_in_train_is_spoken_of_without_contradiction(tmp_path):
    "Such a photo is left out. So no sentence says that it stays in the split of its copy, or that it is used."
    root = tree(tmp_path / "photos", {"train/Aves": 8, "train/Fungi": 8, "test/Aves": 3, "test/Fungi": 3})
    shutil.copy(root / "test/Aves/000.jpg", root / "train/Aves/copy.jpg")
    said = sentences(findings(scan(root)))
    reason = "train/Aves/copy.jpg is a copy of test/Aves/000.jpg, which is given for test: left out of training."
    assert [sentence for sentence in said if "copy.jpg" in sentence] == [reason]
    assert not any("same split" in sentence for sentence in said), said
    shutil.copy(root / "test/Aves/001.jpg", root / "train/Fungi/other.jpg")
    shutil.copy(root / "train/Fungi/000.jpg", root / "train/Fungi/again.jpg")
    said = sentences(findings(scan(root)))
    assert said[1].startswith("2 photos are left out of training, because") and said[1].endswith(f"For example: {reason}")
    assert [sentence for sentence in said if "other.jpg" in sentence] == [
        "1 set of identical files with different labels, so one label must be wrong: test/Aves/001.jpg (Aves · birds), "
            "train/Fungi/other.jpg (Fungi). "
        "A photo that is left out is not used, and the others are used as they are labelled: correct the wrong label and begin again."]
    assert [sentence for sentence in said if "same split" in sentence] == [
        "1 set of identical files: train/Fungi/000.jpg, train/Fungi/again.jpg. They stay in the same split."]


def test_a_photo_that_is_also_in_the_unlabelled_test_folder_is_spoken_of_once(trouble):
    said = sentences(findings(scan(trouble)))
    assert len([sentence for sentence in said if "seen.jpg" in sentence]) == 1
    assert not any("same split" in sentence for sentence in said), said


def test_test_photos_of_unknown_classes_are_not_scored(tmp_path):
    manifest = scan(tree(tmp_path / "photos", {"train/Aves": 10, "train/Fungi": 10, "test/Aves": 4, "test/Fungi": 4, "test/Reptilia": 3}))
    assert splits(manifest)["Reptilia"] == {None: 3} and findings(manifest)["unknown_classes"] == {"Reptilia": 3}
    assert "Reptilia" in rows(manifest)["test/Reptilia/000.jpg"]["reason"] and require_trainable(manifest) == ["Aves", "Fungi"]


# --- codes: what decides, whatever the sentences say ----------------------------------------------------------------------------


@pytest.fixture
def trouble(tmp_path) -> Path:
    "Photos with everything that can be said of one that opens, but for what a person says; and one that does not open."
    root = tree(tmp_path / "photos", {"train/Aves": 10, "train/Fungi": 10, "test": 2, "test/Aves": 4, "test/Fungi": 4, "test/Reptilia": 3, "spare/Aves": 1})
    shutil.copy(root / "test/Aves/000.jpg", root / "train/Aves/copy.jpg")
    shutil.copy(root / "test/001.jpg", root / "train/Fungi/seen.jpg")
    (root / "train/Aves/cut.jpg").write_bytes((root / "train/Aves/000.jpg").read_bytes()[:500])
    return root


FOUND = {"leaks": ["train/Aves/copy.jpg"], "seen_unlabelled": ["train/Fungi/seen.jpg"], "unknown_classes": {"Reptilia": 3}}


def told(manifest) -> dict:
    found = findings(manifest)
    return {**{name: found[name] for name in FOUND}, "leaks": [leak["path"] for leak in found["leaks"]]}


def reworded(manifest):
    "The same manifest, every sentence in other words."
    words = [None if reason is None else "As somebody else would say it." for reason in manifest["reason"].to_pylist()]
    return manifest.set_column(manifest.schema.names.index("reason"), "reason", pa.array(words, pa.string()))


def test_a_photo_that_opens_has_a_code_where_it_has_a_reason(trouble):
    manifest = scan(trouble)
    found = rows(manifest)
    assert {path: row["code"] for path, row in found.items() if row["code"]} == {
        "train/Aves/copy.jpg": "leak", "train/Fungi/seen.jpg": "seen-unlabelled", "spare/Aves/000.jpg": "unused", **{f"test/Reptilia/00{k}.jpg": "not-scored" for k in range(3)}}  # fmt: skip
    assert all((row["code"] is None) == (row["reason"] is None) for row in found.values() if row["status"] == "ok")
    assert found["train/Aves/cut.jpg"]["reason"] and found["train/Aves/cut.jpg"]["code"] is None  # its status says it
    assert manifest.schema.names[: len(MANIFEST)] == MANIFEST.names and manifest.schema.field("code").type == pa.string()
    assert scan(tree(trouble.parent / "plain", {"Aves": 5, "Fungi": 5})).schema.field("code").type == pa.string()  # also where nothing is said


def test_findings_do_not_change_with_the_wording(trouble, tmp_path):
    manifest = scan(trouble)
    other = reworded(manifest)
    assert told(manifest) == told(other) == FOUND and data_hash(other) == data_hash(manifest.drop_columns("code"))
    assert {**findings(other), "leaks": 0, "bad": 0} == {**findings(manifest), "leaks": 0, "bad": 0}
    write_table(other, tmp_path / "m.parquet")
    assert told(scan(tmp_path / "m.parquet")) == FOUND


EARLIER = {  # as they were worded when manifests had no codes
    "train/Aves/copy.jpg": "train/Aves/copy.jpg is a copy of test/Aves/000.jpg, which is given for test: left out of training.",
    "train/Fungi/seen.jpg": "train/Fungi/seen.jpg looks like test/001.jpg in the unlabelled test folder: used for training all the same.",
    "spare/Aves/000.jpg": "spare/Aves/000.jpg lies outside of the folders train, val and test: not used for training.",
    **{f"test/Reptilia/00{k}.jpg": f"test/Reptilia/00{k}.jpg is of the class Reptilia, of which there is no photo to train with: not scored." for k in range(3)},
}


@pytest.mark.parametrize("own", [False, True])
def test_a_manifest_of_before_there_were_codes_says_the_same(trouble, own):
    manifest = scan(trouble).drop_columns("code")
    words = [EARLIER.get(path, reason) for path, reason in zip(manifest["path"].to_pylist(), manifest["reason"].to_pylist(), strict=True)]
    manifest = manifest.set_column(manifest.schema.names.index("reason"), "reason", pa.array(words, pa.string()))
    if own:  # from a table of the person's own
        manifest = manifest.append_column("code", pa.array(["leak" if k % 2 else "B17" for k in range(len(manifest))]))
    assert told(manifest) == FOUND


def test_a_persons_own_column_called_code_is_kept_and_not_taken_for_ours(trouble, tmp_path):
    paths = ["train/Aves/000.jpg", "test/Aves/000.jpg", "train/Aves/copy.jpg"]
    table = write_csv(tmp_path / "more.csv", ["path", "code"], [[path, "not-scored"] for path in paths])
    manifest = scan(trouble, table)
    found = rows(manifest)
    assert told(manifest) == FOUND and {path for path, row in found.items() if row["code_given"] == "not-scored"} == set(paths)
    assert [found[path]["code"] for path in paths] == [None, None, "leak"] and set(manifest["code"].to_pylist()) <= {None, *CODES}


@pytest.mark.parametrize("codes, kept", [(["leak", None], None), (["B17", "leak"], ["B17", "leak"])])
def test_of_a_manifest_that_lies_with_the_photos_our_codes_are_dealt_anew_and_a_persons_are_kept(tmp_path, codes, kept):
    root = tree(tmp_path / "photos", {"Aves": 9, "Fungi": 9})
    write_table(manifest_table([{"path": f"Aves/00{k}.jpg", "status": "ok", "code": code} for k, code in enumerate(codes)], root), root / "manifest.parquet")
    manifest = scan(root)
    assert manifest["code"].null_count == len(manifest) and not findings(manifest)["leaks"]
    assert (manifest["code_given"].to_pylist()[:2] if "code_given" in manifest.schema.names else None) == kept


# --- the cache -----------------------------------------------------------------------------------------------------------------


def test_a_second_scan_reads_only_what_changed(tmp_path, monkeypatch):
    root = tree(tmp_path / "photos", {"Aves": 8, "Fungi": 8})
    first, read = scan(root), []
    real = species_wb.photos.inspection.read_bytes
    monkeypatch.setattr("species_wb.photos.inspection.read_bytes", lambda path, name: read.append(name) or real(path, name))
    assert scan(root).equals(first) and read == []
    before = os.stat(root / "Aves/001.jpg")
    data = encoded(picture(500))
    (root / "Aves/001.jpg").write_bytes(data + bytes(max(0, before.st_size - len(data))))
    (root / "Aves/002.jpg").unlink()
    (root / "Fungi/new.jpg").write_bytes(encoded(picture(501)))
    again = rows(scan(root))
    assert sorted(read) == ["Aves/001.jpg", "Fungi/new.jpg"] and "Aves/002.jpg" not in again
    assert again["Aves/001.jpg"]["sha256"] != rows(first)["Aves/001.jpg"]["sha256"]
    read.clear()
    assert rows(scan(root)) == again and read == []  # what was found of the changed ones is kept too
    swapped = tmp_path / "swapped.jpg"  # the same size and time, another inode
    swapped.write_bytes(b"x" * os.stat(root / "Fungi/003.jpg").st_size)
    os.utime(swapped, ns=(os.stat(root / "Fungi/003.jpg").st_mtime_ns,) * 2)
    swapped.rename(root / "Fungi/003.jpg")
    assert rows(scan(root))["Fungi/003.jpg"]["status"] == "not-a-photo"


def test_a_damaged_cache_is_ignored_and_made_again(tmp_path):
    root = tree(tmp_path / "photos", {"Aves": 5, "Fungi": 5})
    first = scan(root)
    (file,) = cache_folder("scans").glob("*.parquet")
    whole = file.read_bytes()
    for damage in (b"", whole[: len(whole) // 2], b"PAR1" + bytes(500) + b"PAR1"):
        file.write_bytes(damage)
        assert scan(root).equals(first) and len(pq.read_table(file)) == 10


def test_a_stopped_scan_keeps_what_it_has_seen(tmp_path, monkeypatch):
    root = tree(tmp_path / "photos", {"Aves": 20, "Fungi": 20})
    real, seen = species_wb.photos.inspection._look_at, []

    def look(root, path):
        seen.append(path)
        if path == "Fungi/010.jpg":
            raise KeyboardInterrupt
        return real(root, path)

    monkeypatch.setattr("species_wb.photos.inspection._look_at", look)
    with pytest.raises(KeyboardInterrupt):
        scan(root, workers=1)
    monkeypatch.setattr("species_wb.photos.inspection._look_at", lambda root, path: seen.append(path) or real(root, path))
    seen.clear()
    assert set(scan(root)["status"].to_pylist()) == {"ok"} and sorted(seen)[0] == "Fungi/010.jpg" and len(seen) == 10


def test_a_scan_needs_no_workspace(tmp_path, monkeypatch):
    root = tree(tmp_path / "photos", {"Aves": 5, "Fungi": 5})
    monkeypatch.setattr("species_wb.photos.inspection.cache_folder", lambda *parts: (_ for _ in ()).throw(UserError("No workspace found.")))
    assert len(scan(root)) == 10


# --- one sentence each ---------------------------------------------------------------------------------------------------------


def test_what_cannot_be_scanned_is_one_sentence(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts" / "a").mkdir(parents=True)
    (tmp_path / "texts" / "a" / "b.txt").write_text("text")
    root = tree(tmp_path / "photos", {"Aves": 2})
    write_csv(tmp_path / "nopath.csv", ["label", "x"], [["a", "b"]])
    write_csv(tmp_path / "nolabel.csv", ["path", "x"], [["a", "b"]])
    write_csv(tmp_path / "norows.csv", ["path", "label"], [])
    write_csv(tmp_path / "other.csv", ["path", "site"], [["nothing.jpg", "b"]])
    (tmp_path / "broken.parquet").write_bytes(b"x")
    for wrong, metadata, said in [("none", None, "is not there"), ("empty", None, "holds no files"), ("texts", None, "no photo that opens"), ("nopath.csv", None, "names the photos"),
                                  ("nolabel.csv", None, "names the classes"), ("norows.csv", None, "no rows"), ("broken.parquet", None, "Parquet"), ("texts/a/b.txt", None, "not a folder"),
                                  ("photos", "none.csv", "cannot be read"), ("photos", "nolabel.csv", "None of the 1 path"), ("photos", "nopath.csv", "names the photos")]:
        with pytest.raises(UserError) as caught:
            scan(tmp_path / wrong, metadata and tmp_path / metadata)
        assert said in str(caught.value) and "\n" not in str(caught.value), caught.value
    assert len(scan(root)) == 2


@pytest.mark.parametrize("folders, said", [
    ({"Aves": 12}, "only one class"), ({".": 3}, "has a class"), ({"Aves": 2, "Fungi": 2}, "nothing to test on"), ({"test/Aves": 3, "test/Fungi": 3}, "no photos to train with"),
    ({"A|B": 9, "Fungi": 9}, "'|'"), ({"train/Aves": 9, "train/Fungi": 9, "test/Mammalia": 9}, "")])
def test_what_cannot_be_trained_on_is_one_sentence(tmp_path, folders, said):
    (tmp_path / "photos").mkdir()
    for i, (folder, count) in enumerate(folders.items()):
        for j in range(count):
            (tmp_path / "photos" / folder).mkdir(parents=True, exist_ok=True)
            (tmp_path / "photos" / folder / f"{j}.jpg").write_bytes(encoded(picture(100 * i + j)))
    manifest = scan(tmp_path / "photos")
    if said:
        with pytest.raises(UserError) as caught:
            require_trainable(manifest)
        assert said in str(caught.value) and "\n" not in str(caught.value)
    else:  # a test folder that holds unknown classes alone is said, and a test is drawn from train
        assert require_trainable(manifest) == ["Aves", "Fungi"] and findings(manifest)["unknown_classes"] == {"Mammalia": 9}


def test_findings_survive_the_disk(tmp_path):
    root = tree(tmp_path / "photos", {"Aves": 5, "Fungi": 5, "Empty": 0})
    manifest = scan(root)
    write_table(manifest, tmp_path / "m.parquet")
    assert findings(read_manifest(tmp_path / "m.parquet")) == findings(manifest) and findings(manifest)["empty_folders"] == ["Empty"]


def test_the_table_of_sources_is_no_file_of_the_photos(tmp_path):
    root = tree(tmp_path / "photos", {"Aves": 6, "Fungi": 6})
    lines = [[f"{label}/{k:03d}.jpg", "github:one/birds"] for label in ("Aves", "Fungi") for k in range(6)]
    write_csv(root / "SOURCES.csv", ["file", "source"], lines)
    said = sentences(findings(scan(root)))
    assert "SOURCES.csv describes every photo." in said and said[0].startswith("12 photos of 2 classes in 12 files: ")
    assert not any("no photo" in sentence and "SOURCES.csv" in sentence for sentence in said)
    (root / "Aves" / "notes.txt").write_text("A heron.")
    said = sentences(findings(scan(root)))
    assert "SOURCES.csv matched 12 of 13 files." in said and "1 file is no photo: Aves/notes.txt." in said and "in 13 files" in said[0]
