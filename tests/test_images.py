"""Images that strangers made either decode to the expected colours or are refused by name."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from mia_bench import images
from mia_bench.errors import SampleError
from mia_bench.images import read_image, to_pixels

RED, GREEN, WHITE = (255, 0, 0), (0, 128, 0), (255, 255, 255)


def plain(mode: str = "RGB", colour: object = RED, size: tuple[int, int] = (16, 12)) -> Image.Image:
    return Image.new(mode, size, colour)


def saved(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


def corner(path: Path, x: int = 0, y: int = 0) -> tuple[int, ...]:
    image = read_image(path, "one")
    assert image.mode == "RGB"
    return image.getpixel((x, y))


def refused(source: object, reason: str) -> None:
    with pytest.raises(SampleError) as caught:
        read_image(source, "sample-7")
    message = str(caught.value)
    assert "'sample-7'" in message
    assert reason in message
    assert "\n" not in message
    assert caught.value.fix
    if isinstance(source, Path):
        assert message.count(str(source)) == 1


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "gif", "ppm"])
def test_lossless_formats_keep_their_colours(tmp_path, suffix):
    image = read_image(saved(tmp_path / f"a.{suffix}", plain()), "one")
    assert (image.mode, image.size, image.getpixel((3, 3))) == ("RGB", (16, 12), RED)


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [("CMYK", (0, 255, 255, 0), RED), ("L", 77, (77,) * 3), ("1", 1, WHITE), ("YCbCr", (128, 128, 128), (128,) * 3)],
)
def test_other_colour_modes_become_rgb(tmp_path, mode, colour, expected):
    assert corner(saved(tmp_path / "a.tiff", plain(mode, colour))) == expected


def test_a_cmyk_jpeg_decodes(tmp_path):
    got = corner(saved(tmp_path / "a.jpg", plain("CMYK", (0, 255, 255, 0)), quality=95))
    assert np.abs(np.subtract(got, RED)).max() <= 3


@pytest.mark.parametrize(("value", "expected"), [(0, 0), (257, 1), (128 * 257, 128), (65535, 255)])
@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_16_bit_grey_is_scaled_not_clipped(tmp_path, value, expected, suffix):
    image = Image.fromarray(np.full((12, 16), value, dtype=np.uint16))
    assert corner(saved(tmp_path / f"a.{suffix}", image)) == (expected,) * 3


@pytest.mark.parametrize(("value", "expected"), [(0.5, 128), (1.0, 255), (200.0, 200)])
def test_floating_point_grey(tmp_path, value, expected):
    assert corner(saved(tmp_path / "a.tiff", plain("F", 0.0).point(lambda v: v * 1 + value))) == (expected,) * 3


def test_pixels_that_are_not_numbers_are_refused(tmp_path):
    image = Image.fromarray(np.full((12, 16), np.nan, dtype=np.float32))
    refused(saved(tmp_path / "a.tiff", image), "not numbers")


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_an_animation_gives_its_first_frame(tmp_path, suffix):
    options = {"save_all": True, "append_images": [plain(colour=GREEN)], "duration": 50}
    if suffix == "webp":
        options["lossless"] = True
    path = saved(tmp_path / f"a.{suffix}", plain(), **options)
    with Image.open(path) as file:
        assert file.n_frames == 2
    assert corner(path) == RED


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("RGBA", (255, 0, 0, 255), RED),
        ("RGBA", (255, 0, 0, 0), WHITE),
        ("RGBA", (0, 0, 0, 127), (128, 128, 128)),
        ("LA", (0, 0), WHITE),
    ],
)
def test_transparency_is_laid_over_white(tmp_path, mode, colour, expected):
    assert corner(saved(tmp_path / "a.png", plain(mode, colour))) == expected


def test_a_palette_with_a_transparent_colour_is_laid_over_white(tmp_path):
    image = plain("P", 0)
    image.putpalette([10, 20, 30, 0, 128, 0])
    image.putpixel((5, 5), 1)
    for name in ("a.png", "a.gif"):
        path = saved(tmp_path / name, image, transparency=0)
        assert (corner(path), corner(path, 5, 5)) == (WHITE, GREEN)


def test_one_transparent_rgb_colour_is_laid_over_white(tmp_path):
    assert corner(saved(tmp_path / "a.png", plain(), transparency=RED)) == WHITE


@pytest.mark.parametrize(
    ("tag", "place", "size"),
    [(1, (0, 0), (16, 12)), (3, (15, 11), (16, 12)), (6, (11, 0), (12, 16)), (8, (0, 15), (12, 16))],
)
def test_the_orientation_tag_is_applied(tmp_path, tag, place, size):
    image = plain(colour=WHITE)
    image.putpixel((0, 0), RED)
    exif = Image.Exif()
    exif[0x0112] = tag
    got = read_image(saved(tmp_path / "a.png", image, exif=exif), "one")
    assert got.size == size
    assert got.getpixel(place) == RED


def whole(image: Image.Image) -> Image.Image:
    """What an image is in RGB, converted in one go."""
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image, dtype=np.float64)
        if image.mode == "F":
            values = values * (255.0 if values.max() <= 1.0 else 1.0)
        else:
            values = values / (257.0 if image.mode.startswith("I;16") or values.max() > 255 else 1.0)
        image = Image.fromarray(values.clip(0, 255).round().astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def noisy(mode: str) -> Image.Image:
    rng = np.random.default_rng(0)
    if mode == "F":
        return Image.fromarray(rng.random((31, 17), dtype=np.float32) * 300 - 20)
    if mode == "F to 1":
        return Image.fromarray(rng.random((31, 17), dtype=np.float32))
    if mode in ("I;16", "I;16B"):
        wide = rng.integers(0, 65536, (31, 17)).astype("<u2" if mode == "I;16" else ">u2")
        return Image.frombytes(mode, (17, 31), wide.tobytes())
    if mode.startswith("I"):
        return Image.fromarray(rng.integers(-9, 256 if mode == "I to 255" else 70_000, (31, 17), dtype=np.int32))
    image = Image.fromarray(rng.integers(0, 256, (31, 17, 4), dtype=np.uint8))
    if mode == "P":
        image = image.convert("RGB").quantize(50)
        image.info["transparency"] = bytes(range(0, 250, 5))
    elif mode in ("L keyed", "RGB keyed"):
        image = image.convert(mode.split()[0])
        image.info["transparency"] = image.getpixel((3, 29))
    return image if mode in ("RGBA", "P") or "keyed" in mode else image.convert(mode)


MODES = [
    "F",
    "F to 1",
    "I;16",
    "I;16B",
    "I",
    "I to 255",
    "RGBA",
    "LA",
    "PA",
    "RGBa",
    "P",
    "L keyed",
    "RGB keyed",
    "RGB",
]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("band", [1, 17 * 4, 2**20])
def test_converted_in_bands_it_is_what_it_is_converted_whole(monkeypatch, mode, band):
    monkeypatch.setattr(images, "BAND", band)
    image = noisy(mode)
    assert image.mode == mode.split()[0]
    got, expected = read_image(lambda: image, "one"), whole(image)
    assert (got.mode, got.tobytes()) == ("RGB", expected.tobytes()) and len(got.getcolors(999)) > 9


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tiff"])
def test_turned_and_in_bands_it_is_what_it_is_turned_whole(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(images, "BAND", 50)
    exif = Image.Exif()
    exif[0x0112] = 6
    image = noisy("RGBA") if suffix in ("png", "webp") else noisy("RGBA").convert("RGB")
    path = saved(tmp_path / f"a.{suffix}", image, exif=exif)
    with Image.open(path) as file:
        file.load()
        expected = whole(ImageOps.exif_transpose(file))
    got = read_image(path, "one")
    assert got.size == (31, 17) and got.tobytes() == expected.tobytes()


@pytest.mark.parametrize(("mode", "bytes_of_one"), [("I;16", 2), ("RGBA", 4)])
def test_a_large_image_takes_little_more_than_itself_and_the_result(tmp_path, mode, bytes_of_one):
    side = 3000
    path = saved(tmp_path / "a.png", Image.new(mode, (side, side)), compress_level=1)
    code = (
        "import sys\nfrom pathlib import Path\nfrom mia_bench.images import read_image\n"
        "def peak():\n    return int(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0]) * 1024\n"
        "read_image(Path(sys.argv[1]), 'small')\nbefore = peak()\n"
        "read_image(Path(sys.argv[2]), 'large')\nprint(peak() - before)"
    )
    small = saved(tmp_path / "b.png", Image.new(mode, (64, 64)))
    command = [sys.executable, "-c", code, str(small), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert int(done.stdout) < (bytes_of_one + 4) * side * side + 45e6, done.stderr


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_a_truncated_file_is_refused(tmp_path, suffix):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = saved(tmp_path / f"a.{suffix}", Image.fromarray(noise))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    refused(path, "")


def test_a_damaged_file_is_refused(tmp_path):
    path = saved(tmp_path / "a.png", plain())
    data = bytearray(path.read_bytes())
    middle = data.index(b"IDAT") + 6
    data[middle : middle + 8] = bytes(8)
    path.write_bytes(data)
    refused(path, "")


def test_what_is_no_image_is_refused(tmp_path):
    (tmp_path / "a.png").write_text("hello")
    refused(tmp_path / "a.png", "not an image in a known format")
    (tmp_path / "b.png").touch()
    refused(tmp_path / "b.png", "not an image in a known format")


def test_formats_that_run_programs_are_refused(tmp_path):
    refused(saved(tmp_path / "a.eps", plain()), "not an image in a known format")


def test_missing_files_folders_and_pipes_are_refused(tmp_path):
    refused(tmp_path / "a.png", "No such file")
    refused(tmp_path, "not a regular file")
    os.mkfifo(tmp_path / "pipe.png")
    refused(tmp_path / "pipe.png", "not a regular file")


def test_shapes_no_model_can_use_are_refused(tmp_path):
    refused(saved(tmp_path / "a.png", plain(size=(1, 1))), "1x1 px is too small")
    refused(saved(tmp_path / "b.png", plain(size=(7, 300))), "7x300 px is too small")
    refused(saved(tmp_path / "c.png", plain(size=(8, 401))), "8x401 px is too long")
    assert read_image(saved(tmp_path / "d.png", plain(size=(8, 400))), "one").size == (8, 400)


def test_a_decompression_bomb_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    path = saved(tmp_path / "a.png", plain())
    monkeypatch.setattr(images, "MAX_PIXELS", 100)
    monkeypatch.setattr(Image.Image, "load", lambda self: 1 / 0)
    refused(path, "16x12 px is more than 100 pixels")


@pytest.mark.parametrize(("side", "reason"), [(10_001, "more than 100,000,000 pixels"), (20_000, "decompression bomb")])
def test_the_header_of_a_bomb_is_enough(tmp_path, side, reason):
    path = saved(tmp_path / "a.bmp", plain())
    data = bytearray(path.read_bytes())
    data[18:26] = side.to_bytes(4, "little") * 2
    path.write_bytes(data)
    refused(path, reason)


def test_images_made_by_functions_obey_the_same_rules():
    assert read_image(lambda: plain("RGBA", (255, 0, 0, 0)), "one").getpixel((0, 0)) == WHITE
    refused(lambda: plain(size=(4, 4)), "4x4 px is too small")
    refused(lambda: 1 / 0, "division by zero")


def test_an_image_of_the_right_size_is_not_resampled():
    values = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    pixels = to_pixels(Image.fromarray(values), 16)
    assert (pixels.shape, pixels.dtype) == ((3, 16, 16), np.float32)
    assert np.array_equal(pixels, (values / np.float32(127.5) - np.float32(1)).transpose(2, 0, 1))
    extremes = to_pixels(plain(colour=(0, 128, 255), size=(16, 16)), 16)[:, 0, 0]
    assert extremes.tolist() == pytest.approx([-1, 128 / 127.5 - 1, 1], abs=1e-6)


@pytest.mark.parametrize("size", [(40, 20), (20, 40), (21, 20), (333, 100), (8, 400), (20, 20)])
def test_the_short_side_is_resized_and_the_centre_cropped(size):
    width, height = size
    ramp = np.linspace(0, 255, max(size)).astype(np.uint8)
    plane = np.tile(ramp, (height, 1)) if width >= height else np.tile(ramp[:, None], (1, width))
    pixels = to_pixels(Image.fromarray(plane).convert("RGB"), 10)
    assert pixels.shape == (3, 10, 10)
    assert -1 <= pixels.min() <= pixels.max() <= 1
    assert abs(pixels.mean()) < 0.06  # the centre of a ramp
    # The crop spans as much of the long side as of the short one.
    assert pixels.max() - pixels.min() == pytest.approx(2 * 0.9 * min(size) / max(size), abs=0.15)


def test_the_crop_is_rounded_as_torchvision_rounds():
    # torchvision: long side int(3 * 15 / 10) = 4; left edge int(round((4 - 3) / 2)) = 0.
    image = Image.fromarray(np.arange(150, dtype=np.uint8).reshape(10, 15)).convert("RGB")
    whole = np.asarray(image.resize((4, 3), Image.Resampling.BILINEAR), dtype=np.float32)
    assert np.array_equal(to_pixels(image, 3), (whole[:, :3] / np.float32(127.5) - 1).transpose(2, 0, 1))


def test_bytes_are_held_to_what_files_are(tmp_path, monkeypatch):
    path = saved(tmp_path / "a.png", plain())
    assert read_image(path.read_bytes, "one").getpixel((3, 3)) == RED
    rotated = plain()
    exif = rotated.getexif()
    exif[0x0112] = 6
    assert read_image(saved(tmp_path / "b.jpg", rotated, exif=exif).read_bytes, "one").size == (12, 16)
    refused(lambda: (tmp_path / "b.jpg").read_bytes()[:-40], "Truncated File Read")
    refused(lambda: b"%!PS-Adobe-3.0 EPSF-3.0", "not an image")
    monkeypatch.setattr(images, "MAX_PIXELS", 100)
    refused(path.read_bytes, "more than 100 pixels")
