"""Images that strangers made either decode to the expected colours or are refused by name."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

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
