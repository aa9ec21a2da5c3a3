"""What the README shows, done as it says."""

import re
from pathlib import Path

import numpy as np
import pytest

README = Path(__file__).parents[1] / "README.md"
GUIDE = README.parent / "notebooks" / "reference" / "pages" / "guide.md"


BLOCKS = [
    block
    for page in (README, GUIDE)
    for block in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
]


def after(blocks):
    """The names defined after these Python blocks, run in order: those of the README and then those of the guide."""
    names = {}
    for block in blocks:
        exec(compile(block, str(README), "exec"), names)
    return names


def test_the_first_block_runs_and_means_what_it_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = after(BLOCKS[:1])
    assert (tmp_path / "overlay.png").exists()
    assert names["found"].heatmap.shape == (1, 64, 64)
    assert names["e"].shape == (64, 64, 3)


@pytest.mark.slow
def test_all_blocks_run_and_alphas_of_the_last_give_the_weights(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert len(BLOCKS) >= 3
    names = after(BLOCKS)
    assert (tmp_path / "overlay.png").exists()
    assert names["found"].heatmap.shape == (1, 64, 64)
    assert int(names["found"].class_idx[0]) == 3
    jaxcam, a, head = (names[name] for name in ("jaxcam", "activations", "head"))
    weights = (np.asarray(names["alphas"]) * np.maximum(np.asarray(names["d1"]), 0)).sum((0, 1))
    scaled = weights / np.exp(float(head(a)[2]))
    np.testing.assert_allclose(jaxcam.grad_cam_pp_weights(head, a, 2), scaled, rtol=1e-3, atol=1e-9)


def test_files_and_links_that_it_names_exist():
    text = README.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (README.parent / target).exists(), target  # those of the guide are checked by mkdocs


def test_it_is_short():
    lines = README.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 150
    assert max(map(len, lines)) <= 120


def test_two_commands_are_there_and_the_other_jaxcam_is_never_installed():
    text = README.read_text(encoding="utf-8")
    commands = [line.strip() for line in text.splitlines() if re.match(r" *pip install", line)]
    assert commands == ["pip install '.[photographs]' && python -m jaxcam", "pip install '.[test]' && pytest"]
    assert "pip install jaxcam" not in text
