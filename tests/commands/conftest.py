import pytest

from jaxcam import progress


@pytest.fixture(autouse=True, scope="session")
def quiet():
    """Progress has a test of its own; here standard error must hold nothing else, however slow the machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(progress, "QUIET", 3600.0)
        yield
