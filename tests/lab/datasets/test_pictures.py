"""Pictures are read as a person sees them, whatever the camera, the shop or the format did to them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from bbqrec_lab.datasets.pictures import read_picture


def arrow() -> Image.Image:
    """A red arrow that points up, with a blue shaft, on white."""
    image = Image.new("RGB", (60, 60), "white")
    draw = ImageDraw.Draw(image)
    draw.polygon([(30, 5), (55, 35), (5, 35)], fill="#c33")
    draw.rectangle((22, 35, 38, 56), fill="#339")
    return image


def clear() -> Image.Image:
    """The arrow with a transparent black ground."""
    pixels = np.array(arrow().convert("RGBA"))
    pixels[(pixels[..., :3] == 255).all(-1)] = 0
    return Image.fromarray(pixels)


def turned(file: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera lay on its side
    arrow().rotate(90).save(file, exif=exif, quality=95)


SAVED = {
    "turned.jpg": turned,
    "transparent.png": lambda file: clear().save(file),
    "palette.png": lambda file: clear().quantize(64).save(file),
    "indexed.png": lambda file: arrow().quantize(64).save(file),
    "cmyk.jpg": lambda file: arrow().convert("CMYK").save(file, quality=95),
    "still.webp": lambda file: arrow().save(file, lossless=True),
    "moving.gif": lambda file: arrow().save(file, save_all=True, append_images=[arrow().rotate(90)], duration=100),
}


@pytest.mark.parametrize("name", SAVED)
def test_every_form_of_a_picture_looks_like_the_plain_one(name: str, tmp_path: Path) -> None:
    SAVED[name](tmp_path / name)
    read = read_picture(tmp_path / name)
    assert read.mode == "RGB"
    assert np.abs(np.asarray(read, float) - np.asarray(arrow(), float)).mean() < 4


def test_an_ordinary_picture_keeps_every_pixel(tmp_path: Path) -> None:
    arrow().save(tmp_path / "plain.png")
    assert np.array_equal(np.asarray(read_picture(tmp_path / "plain.png")), np.asarray(arrow()))


@pytest.mark.parametrize(("name", "kind"), [("deep.png", np.uint16), ("deep.tif", np.uint16), ("real.tif", np.float32)])
def test_a_deep_grey_picture_is_scaled_and_not_cut(name: str, kind: type, tmp_path: Path) -> None:
    ramp = np.linspace(0, 1, 16).reshape(4, 4)
    values = ramp if kind is np.float32 else ramp * 65535
    Image.fromarray(values.astype(kind)).save(tmp_path / name)
    assert np.asarray(read_picture(tmp_path / name))[..., 0] == pytest.approx(ramp * 255, abs=1)


def test_half_transparent_grey_lies_over_white(tmp_path: Path) -> None:
    Image.new("LA", (3, 3), (0, 128)).save(tmp_path / "veil.png")
    assert np.asarray(read_picture(tmp_path / "veil.png")) == pytest.approx(127, abs=1)
