"""A picture as text: what a page holds without a file beside it.

Contract: the same picture gives the same text.
"""

import base64
import io

from PIL import Image

__all__ = ["address"]

_QUALITY = 82


def address(picture: Image.Image, *, lossless: bool = False) -> str:
    """A `data:` address with the picture as WebP; `lossless`, as PNG, which is the shorter one for few colours."""
    buffer = io.BytesIO()
    if lossless:
        picture.save(buffer, "PNG", optimize=True)
    else:
        picture.save(buffer, "WEBP", quality=_QUALITY, method=4)
    kind = "png" if lossless else "webp"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
