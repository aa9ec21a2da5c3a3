"""What the README shows, done as it says."""

import re
from pathlib import Path

import numpy as np
import pytest

README = Path(__file__).parents[1] / "README.md"


@pytest.fixture(scope="module")
def after(tmp_path_factory):
    """The names defined after all of the README's Python blocks, run in order."""
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) >= 3
    names = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("readme"))
        for block in blocks:
            exec(compile(block, str(README), "exec"), names)
        names["files"] = {path.name for path in Path.cwd().iterdir()}
    return names


def test_python_blocks_run_and_mean_what_they_say(after):
    assert "overlay.png" in after["files"]
    assert after["found"].heatmap.shape == (1, 64, 64)
    assert int(after["found"].class_idx[0]) == 3


def test_alphas_of_the_last_block_give_the_weights(after):
    jaxcam, a, head = after["jaxcam"], after["activations"], after["head"]
    weights = (np.asarray(after["alphas"]) * np.maximum(np.asarray(after["d1"]), 0)).sum((0, 1))
    scaled = weights / np.exp(float(head(a)[2]))
    np.testing.assert_allclose(jaxcam.grad_cam_pp_weights(head, a, 2), scaled, rtol=1e-3, atol=1e-9)


def test_files_and_links_that_it_names_exist():
    text = README.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (README.parent / target).exists(), target


def test_two_commands_are_there_and_the_other_jaxcam_is_never_installed():
    text = README.read_text(encoding="utf-8")
    commands = [line.strip() for line in text.splitlines() if re.match(r" *pip install", line)]
    assert commands == ["pip install . && python -m jaxcam", "pip install '.[test]' && pytest"]
    assert "pip install jaxcam" not in text
