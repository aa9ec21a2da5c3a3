import math

import pytest
from PIL import Image, ImageDraw

from jaxcam import progress
from jaxcam.commands import networks


@pytest.fixture(autouse=True, scope="session")
def quiet():
    """Progress has a test of its own; here standard error must hold nothing else, however slow the machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(progress, "QUIET", 3600.0)
        yield


@pytest.fixture(autouse=True)
def without_photographs(monkeypatch):
    """As without the extra `photographs`, installed or not: a network of photographs takes seconds to compile."""
    monkeypatch.setattr(networks, "_is_installed", lambda package: False)


@pytest.fixture(scope="session")
def picture(tmp_path_factory):
    """Two stars, as a file of 200 x 200 pixels; drawn by hand, since to draw a scene takes long to compile."""
    page = Image.new("RGB", (400, 400), "#c8b8a0")
    for x, y, radius, colour in ((130, 150, 80, "#3060d0"), (280, 270, 70, "#d04030")):
        reach = [radius if i % 2 else 0.45 * radius for i in range(10)]
        angles = [(i + 1) * math.pi / 5 for i in range(10)]
        tips = [(x + r * math.sin(a), y - r * math.cos(a)) for r, a in zip(reach, angles, strict=True)]
        ImageDraw.Draw(page).polygon(tips, fill=colour, outline="#202020", width=4)
    path = tmp_path_factory.mktemp("pictures") / "stars.png"
    page.resize((200, 200), Image.Resampling.LANCZOS).save(path)
    return path
