"""Picture files as a person sees them: turned upright, transparent parts over white, full depth scaled to 8 bits."""

import struct
import warnings
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

# The only formats that are opened: others of Pillow start programs (EPS) or are rarely tried. MPO is what JPEG of two
# frames, as phones write them, becomes.
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF")
MAX_BYTES = 50 * 2**20  # of a file: a poster of 224 pixels has 12 kB, one above this limit is a mistake
MAX_PIXELS = 50_000_000  # decoded at three bytes per pixel: 150 MB, below the size at which Pillow warns
BOMB = (Image.DecompressionBombError, Image.DecompressionBombWarning)
UNREADABLE = (  # what Pillow raises for a damaged file
    *(OSError, SyntaxError, ValueError, EOFError, TypeError, KeyError, IndexError, AttributeError, OverflowError),
    *(MemoryError, NotImplementedError, RuntimeError, struct.error, zlib.error),
    *BOMB,
)


class TooLargeError(ValueError):
    """A picture of so many pixels that its decoding would fill the memory."""


def open_picture(source: str | Path | BytesIO) -> Image.Image:
    """A picture of one of `FORMATS` with its header read, to be used in `with`.

    Raises: one of `UNREADABLE` for another format or a damaged file; ValueError for more than `MAX_PIXELS`.
    """
    with warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning):
        opened = Image.open(source, formats=FORMATS)
    if opened.width * opened.height > MAX_PIXELS:
        size = f"{opened.width} x {opened.height}, more than {MAX_PIXELS} pixels"
        opened.close()
        raise TooLargeError(size)
    return opened


def read_picture(file: str | Path) -> Image.Image:
    """The first frame of a picture file as RGB, upright by its EXIF orientation, with transparent parts white.

    Raises: one of `UNREADABLE` for a file that cannot be decoded.
    """
    with open_picture(file) as opened:
        upright = ImageOps.exif_transpose(opened)  # decodes the first frame
        if upright.mode.startswith(("I", "F")):
            return _eight_bits(upright).convert("RGB")
        if not upright.has_transparency_data:
            return upright.convert("RGB")
        clear = upright.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear).convert("RGB")


def _eight_bits(deep: Image.Image) -> Image.Image:
    """A grey picture of 16 or 32 bits, or of floats, at 8 bits; Pillow would cut values above 255.

    Choice: 0 is black; white is 65535, for floats 1, and the brightest value if it is above that.
    """
    values = np.nan_to_num(np.asarray(deep).astype(np.float64)).clip(0)
    white = max(1.0 if deep.mode == "F" else 65535.0, float(values.max(initial=0)))
    return Image.fromarray((values * (255 / white)).round().astype(np.uint8))
