"""What depth promises: a photo of 10, 12 or 14 bits in a file of 16 looks as it does with 8 bits, and a dark photo stays
dark."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from species_wb.photos.pixels import decode


def photo(bands: int = 1) -> np.ndarray:
    "A photo of 120 × 160 with 8 bits, from black to white."
    coarse = np.random.default_rng(0).integers(0, 256, (30, 40, bands)).astype(np.uint8)
    coarse[0, 0], coarse[0, 1] = 0, 255
    return np.kron(coarse, np.ones((4, 4, 1), np.uint8))


def widened(bits: int, bands: int = 1) -> np.ndarray:
    return np.rint(photo(bands) * ((2**bits - 1) / 255)).astype(np.uint16)


def save(values: np.ndarray, format: str, **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(values.squeeze()).save(file, format, **options)
    return file.getvalue()


def tiff(values: np.ndarray, order: str = ">", bits: int = 16, packed: bytes = b"") -> bytes:
    "A TIFF in one strip, grey or RGB; by default in the order of bytes of Motorola."
    height, width, bands = values.shape
    pixels = packed or values.astype(f"{order}u2").tobytes()
    at, sizes = 8 + len(pixels), struct.pack(f"{order}3H", *[bits] * 3)
    told = {256: width, 257: height, 258: bits, 259: 1, 262: 1 if bands == 1 else 2, 273: 8, 277: bands, 278: height,
            279: len(pixels)}
    entries = [struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in told.items()]
    if bands == 3:  # three numbers do not fit into the entry
        entries[2] = struct.pack(f"{order}HHII", 258, 3, 3, at)
    head = {">": b"MM\0*", "<": b"II*\0"}[order] + struct.pack(f"{order}I", at + 6)
    return head + pixels + sizes + struct.pack(f"{order}H", len(entries)) + b"".join(entries) + bytes(4)


def png(values: np.ndarray) -> bytes:
    "A PNG of 16 bits with colour, or with alpha: Pillow writes none."
    def part(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width, bands = values.shape
    head = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[bands], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", head) + part(b"IDAT", zlib.compress(rows)) + part(b"IEND", b"")


@pytest.mark.parametrize("bits", (10, 12, 14, 16))
@pytest.mark.parametrize("written", (
    lambda v: save(v, "PNG"), lambda v: save(v, "TIFF"), lambda v: save(v, "TIFF", compression="tiff_lzw"),
    tiff,
), ids=("PNG", "TIFF", "TIFF LZW", "TIFF big-endian"))
def test_grey_of_any_depth_in_16_bits_is_the_photo_of_8_bits(bits, written):
    assert (decode(written(widened(bits)), None) == photo()).all()


@pytest.mark.parametrize("bits", (10, 12, 14, 16))
@pytest.mark.parametrize("written", (png, tiff), ids=("PNG", "TIFF big-endian"))
def test_colour_of_any_depth_in_16_bits_is_the_photo_of_8_bits(bits, written):
    assert np.abs(decode(written(widened(bits, 3)), None).astype(int) - photo(3)).max() <= (bits == 16)


def test_colour_of_12_bits_in_a_compressed_tiff_and_with_alpha():
    deep, opaque = widened(12, 3), np.full((120, 160, 1), 65535, np.uint16)
    assert (decode(png(np.concatenate((deep, opaque), axis=2)), None) == photo(3)).all()
    assert (decode(png(np.concatenate((widened(12), opaque // 16), axis=2)), None) == photo()).all()  # grey and alpha
    glass = decode(png(np.concatenate((deep, opaque // 2), axis=2)), None)
    assert np.abs(glass.astype(int) - (photo(3) / 2 + 127.5)).max() <= 1  # on white


def test_a_photo_of_8_bits_times_16_is_that_photo_exactly():
    "As programs write 12 bits: the values are shifted, and white is 4080."
    assert (decode(save(photo().astype(np.uint16) * 16, "PNG"), None) == photo()).all()
    dim = photo() // 2 + 5
    assert (decode(save(dim.astype(np.uint16) * 16, "PNG"), None) == dim).all()


def test_a_tiff_of_12_packed_bits_says_its_depth():
    dark = (widened(12) // 8).astype(np.uint16)  # no value says that there are 12 bits
    a, b = dark.reshape(-1, 2).T.astype(int)
    packed = np.stack((a >> 4, (a & 15) << 4 | b >> 8, b & 255), axis=1).astype(np.uint8).tobytes()
    assert np.abs(decode(tiff(dark, "<", 12, packed), None).astype(int) - photo() / 8).max() <= 1


@pytest.mark.parametrize("tag, said, white", ((281, 4095, 4095), (341, 3000, 4095), (281, 65535, 65535), (281, 7, 1023)))
def test_what_a_tiff_says_of_its_largest_value_counts_where_the_values_fit(tag, said, white):
    dim = widened(12) // 10  # up to 409, so 10 bits by its values
    found = decode(save(dim, "TIFF", tiffinfo={tag: said}), None)
    assert np.abs(found[..., 0].astype(int) - dim[..., 0] * (255 / white)).max() <= 1


def test_what_a_png_says_of_its_bits_counts():
    said = PngInfo()
    said.add(b"sBIT", b"\x10")
    dim = widened(12) // 10
    assert decode(save(dim, "PNG", pnginfo=said), None).max() == round(409 * 255 / 65535)  # truly 16 bits, and dark
    twelve = PngInfo()
    twelve.add(b"sBIT", b"\x0c")
    assert decode(save(dim, "PNG", pnginfo=twelve), None).max() == round(409 * 255 / 4095)
    assert (decode(save(widened(12) * 16, "PNG", pnginfo=twelve), None).max()) == 255  # by the standard


def test_one_dead_pixel_changes_nothing():
    dead = widened(12)
    dead[60, 80] = 65535
    found = decode(save(dead, "PNG"), None).astype(int)
    assert found[60, 80].tolist() == [255] * 3 and (np.delete(found.reshape(-1, 3), 60 * 160 + 80, 0)
                                                     == np.delete(photo().repeat(3, 2).reshape(-1, 3), 60 * 160 + 80, 0)).all()


def test_a_dark_photo_is_not_made_bright():
    "Widened by the camera, or of 12 bits and dark: neither is stretched to its own lightest value."
    night = photo() // 32  # up to 7 of 255
    assert decode(save(night.astype(np.uint16) * 257, "PNG"), None).max() == 7
    assert decode(save(night.astype(np.uint16) * 256, "PNG"), None).max() == 7
    assert decode(save(widened(12) // 4 * 16, "TIFF"), None).max() == 64  # 12 bits in the upper 12 of 16
    assert decode(save(widened(12) // 3, "PNG"), None).max() == 85 and decode(save(night * np.uint16(0), "PNG"), None).max() == 0


def test_thermal_cameras_write_32_bits_and_floating_point():
    warm = photo()[..., 0] / 255 * 30 - 5  # degrees
    broken = warm.astype(np.float32)
    broken[3, 3], broken[5, 5], broken[7, 7] = np.nan, np.inf, 3e38
    found = decode(save(broken, "TIFF"), None)[..., 0].astype(int)
    whole = np.ones(found.shape, bool)
    whole[[3, 5, 7], [3, 5, 7]] = False
    assert np.abs(found - photo()[..., 0])[whole].max() <= 1
    counts = widened(14)[..., 0]
    for values in (counts.astype(np.int32), counts.astype(np.float32)):
        assert (decode(save(values, "TIFF"), None)[..., 0] == photo()[..., 0]).all()
    assert (decode(save(photo()[..., 0].astype(np.float32) / 255, "TIFF"), None)[..., 0] == photo()[..., 0]).all()
    kelvin = (photo()[..., 0].astype(np.int32) * 100) + 100_000
    assert (decode(save(kelvin, "TIFF"), None)[..., 0] == photo()[..., 0]).all()
