import pytest

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
