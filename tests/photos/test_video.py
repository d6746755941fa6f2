"""Frames of films and streams: upright, in order, bounded, and honest about what is missing."""

import os
import resource
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from species_wb.core import UserError
from species_wb.photos.films import HEAD, MAX_FILM_PIXELS, film, is_film
from species_wb.photos.streams import Newest
from species_wb.photos.video import sampled
from species_wb.photos.addresses import source_name
from species_wb.photos.pixels import encode_jpeg
from species_wb.photos.reading import BadPhoto

av = pytest.importorskip("av")
COLOURS = ((220, 20, 20), (20, 220, 20), (20, 20, 220))


def write_film(path, seconds=4.0, fps=10, size=(160, 120), codec="libx264", rotation=None, noise=20, **options):
    "Write a film with another colour each second, noise (every packet has bytes) and a white upper left corner."
    rng = np.random.default_rng(0)
    with av.open(str(path), "w", options=options) as out:
        stream = out.add_stream(codec, rate=fps)
        stream.width, stream.height, stream.gop_size = *size, fps
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        if rotation is not None:
            stream.set_display_rotation(rotation)
        for k in range(round(seconds * fps)):
            pixels = np.zeros((size[1], size[0], 3), np.uint8)
            pixels[:] = COLOURS[k // fps % 3]
            if noise:
                lower = pixels[size[1] // 2 :]
                lower[:] = np.clip(lower.astype(int) + rng.integers(-noise, noise, lower.shape), 0, 255)
            pixels[: size[1] // 4, : size[0] // 4] = 255
            out.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        out.mux(stream.encode())
    return path


def colour(pixels: np.ndarray) -> int:
    return int(pixels.mean((0, 1)).argmax())


def read_until_bad(path, **options) -> tuple[list, BadPhoto | None]:
    seen = []
    try:
        for found in sampled(path, **options):
            seen.append(found)
    except BadPhoto as bad:
        return seen, bad
    return seen, None


KINDS = {"mp4": "libx264", "mov": "mpeg4", "avi": "mjpeg", "mkv": "libx264",
         "webm": "libvpx", "ts": "libx264", "flv": "libx264", "mpg": "mpeg2video"}


@pytest.mark.parametrize("ending", KINDS)
def test_every_common_container_is_known_by_its_first_bytes_and_read(tmp_path, ending):
    fps, size = (25, (320, 240)) if ending == "mpg" else (10, (160, 120))  # a small MPEG's length is badly estimated
    path = write_film(tmp_path / f"film.{ending}", fps=fps, size=size, codec=KINDS[ending])
    path = path.rename(tmp_path / "film.jpg")  # the name says nothing
    with path.open("rb") as file:
        assert is_film(file.read(HEAD))
    seen, bad = read_until_bad(path)
    assert bad is None and [colour(p) for _, p in seen] == [0, 1, 2, 0]
    assert np.allclose([t for t, _ in seen], [0, 1, 2, 3], atol=0.05)
    found = film(path)
    assert (found.width, found.height) == size and found.fps == fps
    assert found.duration and abs(found.duration - 4) < 0.5  # some containers only let it be estimated


def test_photos_and_texts_are_no_films():
    for head in (b"", b"\xff\xd8\xff\xe0" + bytes(600), b"\0\0\0\x1cftypavif\0\0\0\0avif",
                 b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", b"RIFF\0\0\0\0WEBPVP8 ", b"#EXTM3U\n", b"G" * 3,
                 b"ffconcat version 1.0\nfile /etc/passwd"):
        assert not is_film(head), head


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_frames_are_upright(tmp_path, rotation):
    path = write_film(tmp_path / "film.mp4", seconds=0.3, rotation=rotation)
    plain = next(sampled(write_film(tmp_path / "plain.mp4", seconds=0.3)))[1]
    expected = np.rot90(plain, rotation // 90)  # av turns counter-clockwise
    turned = next(sampled(path))[1]
    assert turned.shape == expected.shape and np.abs(turned.astype(int) - expected).mean() < 2


@pytest.mark.parametrize(("size", "canonical", "expected"), [
    ((320, 240), 256, (240, 320)), ((640, 480), 256, (480, 640)), ((1280, 1024), 256, (256, 320)),
    ((642, 514), 256, (257, 321)), ((1280, 1024), 512, (512, 640)), ((4096, 2304), 256, (288, 512))])
def test_frames_have_the_canonical_size(tmp_path, size, canonical, expected):
    path = write_film(tmp_path / "film.mp4", seconds=0.1, size=size, noise=0)
    assert next(sampled(path, canonical_size=canonical))[1].shape == (*expected, 3)


def test_colours_and_averages_are_those_of_a_photo(tmp_path):
    path = write_film(tmp_path / "film.avi", seconds=0.1, size=(1024, 1024), codec="mjpeg")
    full, small = next(sampled(path, canonical_size=1024))[1], next(sampled(path))[1]
    assert np.abs(full.reshape(256, 4, 256, 4, 3).mean((1, 3)) - small).mean() < 2
    assert np.abs(full[:256, 512:].mean((0, 1)) - COLOURS[0]).max() < 6


def test_one_frame_at_or_after_each_multiple(tmp_path):
    slow = write_film(tmp_path / "slow.mkv", seconds=6, fps=1)
    assert [t for t, _ in sampled(slow, every=0.25)] == [0, 1, 2, 3, 4, 5]  # never the same frame twice
    assert [t for t, _ in sampled(slow, every=2.5)] == [0, 3, 5]
    for every in (0, -1, float("nan"), float("inf")):
        with pytest.raises(UserError, match="above 0"):
            next(sampled(slow, every=every))


@pytest.mark.parametrize("ending", ["mp4", "avi", "mkv", "webm"])
def test_a_film_that_is_cut_short_gives_its_frames_first(tmp_path, ending):
    options = {"movflags": "faststart"} if ending == "mp4" else {}
    path = write_film(tmp_path / f"film.{ending}", codec=KINDS[ending], **options)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 7 // 10])
    seen, bad = read_until_bad(path, name="trap.x")
    assert bad and bad.status == "cut-short" and "trap.x is cut short after" in bad.reason
    assert [colour(p) for _, p in seen] in ([0, 1], [0, 1, 2])


def test_a_film_without_its_table_of_contents_is_cut_short(tmp_path):
    path = write_film(tmp_path / "film.mp4")
    path.write_bytes(path.read_bytes()[:-3000])
    seen, bad = read_until_bad(path)
    assert not seen and bad and bad.status == "cut-short" and "copy it again" in bad.reason


def test_a_film_damaged_in_the_middle_gives_the_frames_around_it_and_says_so(tmp_path):
    path = write_film(tmp_path / "film.mp4", movflags="faststart")
    data = bytearray(path.read_bytes())
    at = len(data) * 55 // 100
    data[at : at + 3000] = np.random.default_rng(1).bytes(3000)
    path.write_bytes(data)
    seen, bad = read_until_bad(path)
    assert bad and bad.status == "cut-short" and "damaged" in bad.reason
    assert [colour(p) for _, p in seen][:2] == [0, 1] and seen[-1][0] >= 3


@pytest.mark.parametrize("seed", range(12))
def test_noise_in_a_film_never_raises_anything_else(tmp_path, seed):
    rng = np.random.default_rng(seed)
    ending = ["mp4", "avi", "mkv", "ts", "webm", "mpg"][seed % 6]
    path = write_film(tmp_path / f"film.{ending}", codec=KINDS[ending], seconds=1)
    data = np.frombuffer(path.read_bytes(), np.uint8).copy()
    where = rng.integers(0, len(data), len(data) // 50)
    data[where] = rng.integers(0, 256, len(where))
    path.write_bytes(data.tobytes())
    seen, bad = read_until_bad(path, every=0.1)
    assert len(seen) <= 40 and (bad is None or bad.reason)
    try:
        film(path)
    except BadPhoto:
        pass


def test_what_is_no_film_is_a_sentence(tmp_path):
    (tmp_path / "list.mp4").write_bytes(b"#EXTM3U\nhttp://example.org/a.ts\n")
    (tmp_path / "empty.mp4").touch()
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "stub.mkv").write_bytes(b"\x1aE\xdf\xa3" + bytes(100))
    (tmp_path / "photo.mp4").write_bytes(encode_jpeg(np.zeros((9, 9, 3), np.uint8)))
    with av.open(str(tmp_path / "sound.mp4"), "w") as out:
        stream = out.add_stream("aac", rate=44100)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        sound.sample_rate = 44100
        out.mux(stream.encode(sound))
        out.mux(stream.encode())
    expected = {"list.mp4": "not-a-photo", "empty.mp4": "empty", "pipe.mp4": "not-a-file", "stub.mkv": "unreadable",
                "photo.mp4": "not-a-photo", "sound.mp4": "not-a-photo", "gone.mp4": "missing", ".": "not-a-file"}
    for name, status in expected.items():
        seen, bad = read_until_bad(tmp_path / name)
        assert not seen and bad and bad.status == status, (name, bad)
        assert bad.reason.endswith(".") and ":" in bad.reason or status == "not-a-photo"


def test_a_film_may_have_any_name(tmp_path):
    plain = write_film(tmp_path / "film.mp4", seconds=0.2)
    for name in (os.fsdecode(b"B\xe4r.mp4"), "a%03d.mp4", "http:x.mp4", "concat:a|b", "ü 'q' \"d\".mp4"):
        plain = plain.rename(tmp_path / name)
        assert len(list(sampled(plain))) == 1, name


def test_hostile_sizes_are_refused_before_they_are_decoded(tmp_path):
    path = tmp_path / "wide.mov"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("png", rate=1)
        stream.width, stream.height, stream.pix_fmt = 12000, 6000, "gray"
        out.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((6000, 12000), np.uint8), "gray")))
        out.mux(stream.encode())
    assert path.stat().st_size < 1_000_000 and 12000 * 6000 > MAX_FILM_PIXELS
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seen, bad = read_until_bad(path)
    assert not seen and bad and bad.status == "too-large", bad
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB


def test_times_that_stand_still_do_not_hang(tmp_path, monkeypatch):
    from species_wb.photos import video

    path = write_film(tmp_path / "film.mkv", seconds=3, fps=10)
    monkeypatch.setattr(video, "MAX_RATE", 3)
    seen, bad = read_until_bad(path, every=1.0)
    assert bad and bad.status == "too-large" and "more than 3 pictures in a second" in bad.reason


def test_memory_does_not_grow_with_the_film(tmp_path):
    path = write_film(tmp_path / "film.mp4", seconds=10, fps=10, size=(960, 720), codec="mpeg4", noise=0)
    list(sampled(path, every=5))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert sum(1 for _ in sampled(path, every=0.1)) == 100  # 207 MB, were they kept
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 60_000  # kB


def test_a_missing_library_is_a_sentence(tmp_path):
    path = write_film(tmp_path / "film.mp4", seconds=0.2)
    code = f"""
import sys; sys.modules['av'] = None
from species_wb.photos.reading import BadPhoto
from species_wb.photos.streams import Newest
from species_wb.photos.video import sampled
try: list(sampled({str(path)!r}))
except BadPhoto as bad: print(bad.status, bad)
try: Newest('rtsp://x')
except Exception as error: print(type(error).__name__, error)"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()
    assert said[0].startswith("unreadable") and said[1].startswith("UserError")
    assert all("pip install '.[video]'" in s for s in said)


SECRETS = [
    "rtsp://ada:s3cret@cam/1", "rtsp://ada:s3/cret@cam/1", "rtsp://ada:s3@cret@cam/1",
    "rtsp://ada:s3%40cret@[fe80::1]:554/x", "rtsp://cam/user=ada&password=s3cret&channel=1",
    "http://cam/v?user=ada&password=s3cret", "http://cam/v?pwd=s3cret&channel=2", "http://cam/v?access_token=s3cret",
]


@pytest.mark.parametrize("source", SECRETS)
def test_passwords_are_never_shown(source):
    name = source_name(source)
    assert "s3" not in name and "cret" not in name and "ada" not in name.replace("camada", "")


def test_passwords_are_in_no_sentence_of_a_stream_that_fails():
    said, told = [], threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]  # listens, and never answers
        source = f"rtsp://ada:s3cret@127.0.0.1:{port}/x?token=s3cret"
        with Newest(source, say=lambda sentence: (said.append(sentence), told.set()), patience=0.5) as newest:
            assert told.wait(30) and newest.get(0) is None
    assert said and all("s3cret" not in s and "ada" not in s for s in said) and "cannot be reached" in said[0]


class Broadcast:
    "A camera on the net: a film sent over HTTP again and again; it can be cut off and come back."

    def __init__(self, path):
        self.data, self.on, self.closed, self.port = path.read_bytes(), threading.Event(), False, 0
        self.sent_away = 0  # requests that came while it was cut off
        self.on.set()
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port = self.server.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while not self.closed:
            try:
                peer, _ = self.server.accept()
            except OSError:
                return
            threading.Thread(target=self.send, args=(peer,), daemon=True).start()

    def send(self, peer):
        with peer:
            try:
                if not self.on.is_set():
                    self.sent_away += 1
                    return
                peer.recv(4096)
                peer.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: video/mp2t\r\n\r\n")
                while True:
                    for at in range(0, len(self.data), 188 * 20):
                        if not self.on.is_set() or self.closed:
                            return
                        peer.sendall(self.data[at : at + 188 * 20])
                        time.sleep(0.01)
            except OSError:
                return

    def close(self):
        self.closed = True
        self.server.close()


@pytest.fixture(scope="module")
def live_film(tmp_path_factory):
    return write_film(tmp_path_factory.mktemp("live") / "film.ts", seconds=6, size=(320, 240))


@pytest.fixture
def broadcast(live_film):
    found = Broadcast(live_film)
    yield found
    found.close()


def test_a_stream_that_breaks_is_reached_again_and_says_so_once(broadcast):
    said = []
    with Newest(f"http://127.0.0.1:{broadcast.port}/live", say=said.append, patience=15, longest_wait=0.5) as newest:
        assert newest.get(40), said
        broadcast.on.clear()
        end = time.monotonic() + 60
        while broadcast.sent_away < 3 and time.monotonic() < end:  # two tries fail, and a third
            time.sleep(0.05)
        while newest.get(0):
            pass
        assert broadcast.sent_away >= 3 and len(said) == 2, said
        assert "is open: 320 × 240" in said[0] and "broke off" in said[1] and "trying again" in said[1]
        broadcast.on.set()
        assert newest.get(60), said
        assert len(said) == 3 and "answers" in said[2], said


def test_no_word_decides_whether_a_film_ended_well(tmp_path):
    (tmp_path / "has ended.mp4").write_text("no film at all")
    film = write_film(tmp_path / "it cannot be.mp4", seconds=0.5)
    for name, failed in ((film, False), (tmp_path / "has ended.mp4", True)):
        with Newest(name) as newest:
            while newest.get(10):
                assert not newest.failed
            assert newest.ended and newest.failed == failed


def test_a_slow_reader_gets_the_newest_frame_and_none_twice(tmp_path):
    path = write_film(tmp_path / "film.mp4", seconds=2, fps=10)
    with Newest(path) as newest:
        assert colour(newest.get(5)[1]) == 0
        time.sleep(1.3)
        assert colour(newest.get(5)[1]) != 0  # what was in between is gone
        seen = 0
        while newest.get(5):
            seen += 1
        assert 1 <= seen < 13 and newest.ended  # of 20


def test_closing_is_prompt_and_ends_the_thread(tmp_path, broadcast):
    path = str(write_film(tmp_path / "film.mp4", seconds=30, fps=1))
    for source in (path, f"http://127.0.0.1:{broadcast.port}/live", "rtsp://127.0.0.1:9/none"):
        told = threading.Event()
        newest = Newest(source, say=lambda _, told=told: told.set())
        assert told.wait(30)  # it is open, or cannot be reached
        assert newest.get(0 if source.endswith("none") else 30) or source.endswith("none")
        began = time.monotonic()
        newest.close()
        assert time.monotonic() - began < 1.5 and newest.get(1) is None and newest.ended
        assert not any(t.name == f"reads {newest.name}" for t in threading.enumerate())


def test_a_camera_that_is_not_there_is_a_sentence():
    said, told = [], threading.Event()
    with Newest(97, say=lambda sentence: (said.append(sentence), told.set())) as newest:
        assert told.wait(30) and newest.get(0) is None
    assert said and "camera 97 cannot be reached" in said[0]
