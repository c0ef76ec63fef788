"""Picture files as a person sees them: turned upright, transparent parts over white, full depth scaled to 8 bits."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

UNREADABLE = (OSError, SyntaxError, ValueError, EOFError)  # what Pillow raises for a damaged file


def read_picture(file: str | Path) -> Image.Image:
    """The first frame of a picture file as RGB, upright by its EXIF orientation, with transparent parts white.

    Raises: one of `UNREADABLE` for a file that cannot be decoded.
    """
    with Image.open(file) as opened:
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
