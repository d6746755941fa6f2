"""What pixels, headers and reading promise: a photo gives the same upright RGB pixels everywhere, and a file that is
no photo gives a sentence."""

import io
import os
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import simplejpeg
from conftest import examples
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFile, ImageOps

from species_wb.fields import STATUSES
from species_wb.photos import headers
from species_wb.contracts import ModelSpec
from species_wb.photos.headers import header
from species_wb.photos.pixels import decode, encode_jpeg, load, prepare, thumbnail
from species_wb.photos.reading import BadPhoto, read_bytes

CORNERS = {
    "upper left": (255, 0, 0), "upper right": (0, 255, 0), "lower left": (0, 0, 255), "lower right": (250, 250, 0),
}  # fmt: skip


def corners() -> Image.Image:
    "A picture of 96 × 48 with a colour in each corner."
    a = np.zeros((48, 96, 3), np.uint8)
    a[:24, :48], a[:24, 48:], a[24:, :48], a[24:, 48:] = CORNERS.values()
    return Image.fromarray(a)


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 255, (-(-height // 16), -(-width // 16), 3), np.uint8)
    return np.kron(coarse, np.ones((16, 16, 1), np.uint8))[:height, :width]


def save(image: Image.Image, format: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def status(data: bytes, size: int | None = 256) -> str:
    with pytest.raises(BadPhoto) as caught:
        decode(data, size, "x.jpg")
    bad = caught.value
    assert bad.status in STATUSES and bad.reason.startswith("x.jpg ") and bad.reason.endswith(".")
    assert str(bad) == bad.reason
    return bad.status


@pytest.mark.parametrize("format, options", [
    ("JPEG", {"quality": 95, "subsampling": 0}), ("PNG", {}), ("WEBP", {"lossless": True}), ("AVIF", {"quality": 95}),
    ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"})])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_comes_out_upright(format, options, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = save(corners(), format, exif=exif, **options)
    reference = corners()
    reference.getexif()[0x0112] = orientation
    wanted = np.asarray(ImageOps.exif_transpose(reference)).astype(int)
    found, head = decode(data, None), header(data)
    assert found.shape == wanted.shape == (head.height, head.width, 3)
    for y, x in ((4, 4), (4, -5), (-5, 4), (-5, -5)):
        assert np.abs(found[y, x] - wanted[y, x]).max() < 30


@pytest.mark.parametrize("orientation", (1, 3, 6, 8))
def test_heic_comes_out_upright(orientation):
    heif = pytest.importorskip("pillow_heif")
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = heif.from_pillow(corners())
    image.info["exif"] = exif.tobytes()
    file = io.BytesIO()
    image.save(file, quality=95)
    reference = corners()
    reference.getexif()[0x0112] = orientation
    wanted, found = np.asarray(ImageOps.exif_transpose(reference)).astype(int), decode(file.getvalue(), None)
    assert header(file.getvalue()).format == "HEIC" and found.shape == wanted.shape
    assert np.abs(found[4, 4] - wanted[4, 4]).max() < 30


def test_a_missing_heic_package_is_one_sentence_with_the_install_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(BadPhoto) as caught:
        header(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100))
    assert caught.value.status == "unreadable" and "pip install '.[heic]'" in caught.value.reason


@examples(60)
@given(st.integers(1, 2100), st.integers(1, 2100), st.sampled_from((256, 384, 512)))
def test_the_canonical_photo_has_the_smallest_scale_that_is_large_enough(height, width, size):
    data = simplejpeg.encode_jpeg(np.full((height, width, 3), 90, np.uint8), 50)
    found = decode(data, size).shape[:2]
    scale = next((s for s in (8, 4, 2) if -(-min(height, width) // s) >= size), 1)
    assert found == (-(-height // scale), -(-width // scale))


def test_real_photos_decode_as_pillow_decodes_them(photos):
    for path in sorted(photos.glob("t*/*/*.jpg"))[::60]:
        wanted = np.asarray(Image.open(path).convert("RGB")).astype(int)
        assert np.abs(decode(read_bytes(path), None) - wanted).max() <= 4, path


def test_both_jpeg_decoders_agree_at_every_scale(monkeypatch):
    data = save(Image.fromarray(noise(1100, 1500)), "JPEG", quality=90)
    for size in (None, 512, 256, 130):
        fast = decode(data, size).astype(int)
        with monkeypatch.context() as patch:
            patch.setattr(simplejpeg, "decode_jpeg", lambda *a, **k: (_ for _ in ()).throw(ValueError("unsupported")))
            slow = decode(data, size)
        assert slow.shape == fast.shape and np.abs(slow - fast).max() <= 4


def test_a_jpeg_that_only_pillow_decodes_is_still_a_photo():
    data = save(corners(), "JPEG", quality=95, subsampling=0)
    padded = data[:-2] + b"\x12\x34" * 50 + data[-2:]  # harmless padding, at which simplejpeg stops
    with pytest.raises(ValueError):
        simplejpeg.decode_jpeg(padded)
    assert np.abs(decode(padded, None).astype(int) - decode(data, None)).max() <= 2


def test_modes_become_rgb_as_a_person_would_see_them():
    deep = Image.fromarray(np.array([[0, 257 * 7, 30000, 65535]], np.uint16))
    for format, options in (("PNG", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"})):
        assert decode(save(deep, format, **options), None)[0].tolist() == [[v] * 3 for v in (0, 7, 117, 255)]
    floats = save(Image.fromarray(np.array([[0, 0.5, 1]], np.float32)), "TIFF")
    assert decode(floats, None)[0, :, 0].tolist() == [0, 128, 255]
    assert decode(save(Image.new("RGBA", (2, 2), (200, 0, 0, 0)), "PNG"), None).min() == 255
    assert decode(save(Image.new("RGBA", (2, 2), (0, 0, 0, 51)), "PNG"), None)[0, 0].tolist() == [204] * 3
    assert decode(save(Image.new("LA", (2, 2), (10, 0)), "PNG"), None).min() == 255
    assert decode(save(Image.new("1", (2, 2), 1), "PNG"), None).min() == 255
    assert decode(save(Image.new("L", (2, 2), 9), "BMP"), None).max() == 9
    palette = Image.new("P", (2, 1))
    palette.putpalette([255, 0, 0, 0, 255, 0])
    palette.putpixel((1, 0), 1)
    assert decode(save(palette, "PNG"), None).tolist() == [[[255, 0, 0], [0, 255, 0]]]
    assert decode(save(palette, "PNG", transparency=0), None).tolist() == [[[255, 255, 255], [0, 255, 0]]]
    assert decode(save(Image.new("CMYK", (4, 4), (200, 30, 90, 40)), "TIFF"), None)[0, 0].tolist() == [46, 190, 139]


def test_cmyk_jpegs_have_the_colours_that_were_meant():
    image = Image.new("CMYK", (64, 64), (200, 30, 90, 40))
    adobe = save(image, "JPEG", quality=100)
    at = adobe.find(b"Adobe") - 4
    plain = adobe[:at] + adobe[at + 2 + int.from_bytes(adobe[at + 2 : at + 4], "big") :]
    for data in (adobe, plain):
        assert header(data).mode == "CMYK"
        assert np.abs(decode(data, None)[30, 30].astype(int) - image.convert("RGB").getpixel((0, 0))).max() <= 3


def test_an_animation_gives_its_first_frame():
    frames = [Image.new("RGB", (20, 10), colour) for colour in ("red", "lime", "blue")]
    for format, options in (("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {}), ("TIFF", {})):
        data = save(frames[0], format, save_all=True, append_images=frames[1:], **options)
        assert decode(data, None)[5, 5].tolist() == [255, 0, 0] and header(data).frames == 2, format
    assert header(save(frames[0], "GIF")).frames == 1


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_what_ends_early_is_told_from_what_is_damaged():
    image = Image.fromarray(noise(300, 400))
    plain = [(format, {}) for format in ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF")]
    for format, options in (*plain, ("JPEG", {"progressive": True}), ("TIFF", {"compression": "tiff_lzw"})):
        data = save(image, format, **options)
        assert status(data[: len(data) // 4]) == "cut-short", (format, options)  # of which more is left: test_damage
    data = bytearray(save(image, "JPEG"))
    data[len(data) // 4 : len(data) // 4 + 4] = b"\xff\x01\xff\x01"
    assert status(bytes(data)) == "unreadable"
    png = bytearray(save(image, "PNG"))
    png[len(png) // 2 : len(png) // 2 + 40] = bytes(40)
    assert status(bytes(png)) == "unreadable"
    assert status(save(image, "JPEG")[:1500] + bytes(9000)) == "cut-short"  # the card wrote zeros at the end


def png_of(width: int, height: int) -> bytes:
    data = bytearray(save(Image.new("L", (1, 1)), "PNG"))
    data[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


def jpeg_of(width: int, height: int, progressive: bool) -> bytes:
    data = save(Image.new("RGB", (16, 16)), "JPEG", progressive=progressive)
    at = data.find(b"\xff\xc2" if progressive else b"\xff\xc0")
    return data[: at + 5] + height.to_bytes(2, "big") + width.to_bytes(2, "big") + data[at + 9 :]


def test_bombs_are_refused_by_their_headers():
    gif = bytearray(save(Image.new("L", (1, 1)), "GIF"))
    gif[6:10] = b"\xff\xff\xff\xff"
    webp = b"RIFF" + (60).to_bytes(4, "little") + b"WEBPVP8X" + (10).to_bytes(4, "little")
    webp += b"\x02\0\0\0" + b"\xff\xff\0" * 2 + bytes(48)
    jpegs = jpeg_of(30_000, 30_000, False), jpeg_of(12_000, 12_000, True)
    for bomb in (png_of(50_000, 50_000), *jpegs, bytes(gif), webp):
        with pytest.raises(BadPhoto) as caught:
            header(bomb)
        assert caught.value.status == "too-large", caught.value.reason
    assert header(jpeg_of(16_320, 12_240, False)).width == 16_320  # a telephone's 200 megapixels are a photo


def test_a_photo_of_200_megapixels_is_decoded_in_little_memory():
    if not os.path.exists("/proc/self/status"):
        pytest.skip("the peak of memory is read from /proc, which only Linux has")
    code = (
        "import sys; from species_wb.photos.pixels import decode; print(decode(sys.stdin.buffer.read(), 256).shape); "
        "print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])"
    )
    data = save(Image.new("L", (16_320, 12_240), 128), "JPEG", quality=50)
    done = subprocess.run([sys.executable, "-c", code], input=data, capture_output=True, check=True)
    shape, kilobytes = done.stdout.decode().splitlines()
    assert shape == "(1530, 2040, 3)" and int(kilobytes) < 150_000  # decoded in full, it takes 600 MB


def test_a_jpeg_with_thousands_of_passes_is_refused():
    data = save(Image.fromarray(noise(64, 64)), "JPEG", progressive=True)
    assert headers._passes(data) == (True, 10) or headers._passes(data)[1] < 20
    last = data.rfind(b"\xff\xda")
    assert status(data[:last] + data[last:-2] * 200 + data[-2:]) == "too-large"
    assert headers._passes(save(Image.fromarray(noise(64, 64)), "JPEG"))[0] is False


def exif(**gps) -> Image.Exif:
    found = Image.Exif()
    london = {1: "N", 2: (51.0, 30.0, 36.0), 3: "W", 4: (0.0, 7.0, 30.0)}
    found.get_ifd(0x8825).update(london | {int(k[1:]): v for k, v in gps.items()})
    return found


@pytest.mark.parametrize("gps, wanted", [
    ({}, (51.51, -0.125)), ({"t1": "S"}, (-51.51, -0.125)), ({"t1": "?"}, None), ({"t2": (91.0, 0.0, 0.0)}, None),
    ({"t2": (0.0, 0.0, 0.0), "t4": (0.0, 0.0, 0.0)}, None), ({"t2": (51.0, 75.0, 0.0)}, None),
    ({"t4": (180.0, 30.0, 0.0)}, None), ({"t9": "V"}, None), ({"t2": (51.0, 30.6, 0.0)}, (51.51, -0.125))])
def test_a_place_is_kept_only_if_it_can_be_one(gps, wanted):
    head = header(save(corners(), "JPEG", exif=exif(**gps)))
    assert (head.lat, head.lon) == (wanted or (None, None))


@pytest.mark.parametrize("tags, wanted", [
    ({0x9003: "2026:05:04 13:07:55"}, "2026-05-04T13:07:55"),
    ({0x9003: "2026:05:04 13:07:55", 0x9011: "-03:30"}, "2026-05-04T13:07:55-03:30"),
    ({0x9004: "2026:05:04 13:07:55", 0x9011: "-03:30"}, "2026-05-04T13:07:55"),
    ({0x9003: "0000:00:00 00:00:00"}, "2031-01-01T00:00:01"), ({0x9003: "    :  :     :  :  "}, "2031-01-01T00:00:01"),
    ({0x9003: "2026:05:04 13:07:55", 0x9011: "Z+1"}, "2026-05-04T13:07:55"), ({0x9011: "+02:00"}, "2031-01-01T00:00:01")])
def test_a_time_is_the_cameras_and_its_offset_is_never_guessed(tags, wanted):
    found = Image.Exif()
    found.get_ifd(0x8769).update(tags)
    found[0x0132] = "2031:01:01 00:00:01"  # when a program changed the file: it counts only where nothing else is known
    for format in ("JPEG", "PNG", "WEBP", "TIFF"):
        assert header(save(corners(), format, exif=found.tobytes())).taken_at == wanted, format


@pytest.mark.filterwarnings("ignore:Corrupt EXIF", "ignore:Metadata Warning", "ignore:Image appears to be a malformed")
@examples(150)
@given(st.binary(max_size=200))
def test_garbage_in_exif_never_makes_a_photo_bad(garbage):
    data = save(corners(), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0" + garbage)
    assert decode(data, None).shape[2] == 3 and header(data).format == "JPEG"


@pytest.mark.filterwarnings("ignore::UserWarning")
@examples(300)
@given(st.sampled_from(("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF")), st.data())
def test_damaged_bytes_give_pixels_or_a_sentence(format, data):
    broken = bytearray(save(corners(), format))
    for _ in range(data.draw(st.integers(1, 8))):
        broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
    try:
        assert decode(bytes(broken), 256).dtype == np.uint8
    except BadPhoto as bad:
        assert bad.status in STATUSES and bad.reason


def test_reading_never_waits_and_says_what_is_wrong(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "gone.jpg").symlink_to("nowhere.jpg")
    (tmp_path / "circle.jpg").symlink_to("circle.jpg")
    with open(tmp_path / "sparse.jpg", "wb") as file:
        file.truncate(2**41)
    with open(tmp_path / "film.mp4", "wb") as file:
        file.write(b"\0\0\0\x20ftypisom")
        file.truncate(2**33)
    wanted = {"pipe.jpg": "not-a-file", "empty.jpg": "empty", "gone.jpg": "link-loop", "circle.jpg": "link-loop",
              "sparse.jpg": "too-large", "film.mp4": "not-a-photo", ".": "not-a-file",
              "none.jpg": "missing", "x\0.jpg": "missing", "y" * 300: "missing"}
    for name, word in wanted.items():
        with pytest.raises(BadPhoto) as caught:
            read_bytes(f"{tmp_path}/{name}")
        assert caught.value.status == word, caught.value.reason
        assert name[0] in "x." or name in caught.value.reason
    with pytest.raises(BadPhoto) as caught:
        read_bytes("/dev/zero")
    assert caught.value.status == "not-a-file"


def test_no_setting_of_pillow_is_touched():
    before = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
    for data in (save(corners(), "PNG"), jpeg_of(16_320, 12_240, False)[:400], b"junk"):
        try:
            decode(data, 256)
        except BadPhoto:
            pass
    assert before == (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES)
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


@pytest.mark.parametrize("interpolation", ("bilinear", "bicubic"))
def test_crop_is_resize_and_centre_crop_as_imagenet_code_does_it(interpolation):
    photo = noise(512, 700)
    spec = ModelSpec("any", 224, (0.5,) * 3, (0.5,) * 3, crop_fraction=0.875, interpolation=interpolation)
    whole = Image.fromarray(photo).resize((350, 256), Image.Resampling[interpolation.upper()])
    assert (prepare(photo, spec) == np.asarray(whole.crop((63, 16, 63 + 224, 16 + 224)))).all()


def test_squash_shows_the_whole_photo():
    found = prepare(np.asarray(corners()), ModelSpec("any", 32, (0.5,) * 3, (0.5,) * 3, resize="squash"))
    assert found.shape == (32, 32, 3)
    assert found[0, 0].tolist() == [255, 0, 0] and found[-1, -1].tolist() == [250, 250, 0]


def test_threads_give_the_same_pixels(photos, tmp_path):
    spec = ModelSpec("any", 64, (0.5,) * 3, (0.5,) * 3)
    paths = sorted(photos.glob("test/*/*.jpg"))[:80]
    for i in range(8):
        (tmp_path / f"{i}.png").write_bytes(save(Image.fromarray(noise(300, 500, i)), "PNG"))
    paths += sorted(tmp_path.iterdir())
    alone = [load(path, spec) for path in paths]
    with ThreadPoolExecutor(8) as pool:
        assert all((a == b).all() for a, b in zip(alone, pool.map(lambda path: load(path, spec), paths), strict=True))


def test_thumbnails_fit_and_never_grow():
    assert decode(thumbnail(noise(300, 600), 120), None).shape == (60, 120, 3)
    assert decode(thumbnail(noise(30, 60), 120), None).shape == (30, 60, 3)
    brown = decode(encode_jpeg(np.full((32, 48, 3), (200, 90, 30), np.uint8)), None)
    assert np.abs(brown.astype(int) - (200, 90, 30)).max() <= 3
