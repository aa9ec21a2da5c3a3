"""The benchmarks of an accelerator run here with small sizes, so that they are ready whenever one is at hand."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "benchmarks" / "accelerator.py"


@pytest.mark.thorough
def test_every_part_runs_with_small_sizes(tmp_path):
    out = tmp_path / "figures.json"
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--small", "--json", str(out)],
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(out.read_text())
    assert found["seconds"].keys() == {"tests", "networks", "derivatives", "classes", "evaluate"}
    rows = {row["what"]: row for row in found["rows"]}
    assert not any(row["failed"] for row in rows.values())
    assert {row["part"] for row in rows.values()} == found["seconds"].keys()
    assert all(row["milliseconds"] > 0 for row in rows.values() if not row["note"])
    for network in ("mini_resnet", "mini_vgg"):
        for dtype in ("float32", "bfloat16"):
            row = rows[f"explain, {network}, batch 4, {dtype}"]
            assert row["ratio"] > 0
            assert row["a_second"] == pytest.approx(4 / (1e-3 * row["milliseconds"]))
            bare = rows[f"forward, {network}, batch 4, {dtype}"]
            assert row["ratio"] == pytest.approx(row["milliseconds"] / bare["milliseconds"])
    ratios = {row["part"]: row["ratio"] for row in rows.values() if row["ratio"]}
    assert ratios.keys() >= {"networks", "derivatives", "classes"}
    assert min(ratios.values()) > 0
    assert next(row for row in rows.values() if row["part"] == "tests")["note"].endswith("passed")
    assert done.stdout.count("\n| ") == len(rows) + 1


@pytest.mark.thorough
def test_a_part_that_fails_says_so_and_the_others_run(tmp_path):
    code = (
        "import sys; sys.path.insert(0, sys.argv.pop(1)); import accelerator\n"
        "def broken(sizes):\n    raise RuntimeError('out of memory')\n"
        "accelerator.PARTS = {'classes': broken, 'evaluate': lambda _: [accelerator.Row('evaluate', 'fine', 1.0)]}\n"
        "sys.exit(accelerator.main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(SCRIPT.parent), "--small"],
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "| classes |  |  |  | **failed** RuntimeError: out of memory |" in done.stdout
    assert "| fine | 1.0 |" in done.stdout
