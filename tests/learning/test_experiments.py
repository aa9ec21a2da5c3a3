"""What the experiments on losses keep, compare and write: tests/benchmarks/experiments and learning.md."""

import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
EXPERIMENTS = ("distillation", "shortcut", "agreement")


@pytest.fixture(scope="module")
def modules():
    sys.path.insert(0, str(BENCHMARKS / "experiments"))
    try:
        return {name: import_module(name) for name in ("trials", "student", *EXPERIMENTS)}
    finally:
        sys.path.pop(0)


def test_an_interval_is_that_of_the_paired_t_test(modules):
    draw = np.random.default_rng(0)
    first, second = draw.normal(size=(2, 10))
    expected = stats.ttest_rel(first, second).confidence_interval(0.95)
    value, low, high = modules["trials"].interval(first - second)
    assert (value, low, high) == pytest.approx(((first - second).mean(), *expected), rel=1e-12)


def test_a_run_goes_on_where_it_was_cut_off_and_refuses_other_settings(modules, tmp_path):
    path, made, arms = tmp_path / "rows.jsonl", [], {"plain": [0.0], "with": [1.0]}

    def of_seed(seed):
        def trial(arm):
            made.append((seed, arm[0]))
            return {"error": 10 * seed + arm[0]}

        return trial

    run = modules["trials"].run
    whole = run(path, [0, 1], arms, {"num": 5}, of_seed)
    text = path.read_text()
    path.write_text(text[:-3])  # in the middle of the last line
    made.clear()
    assert run(path, [0, 1], arms, {"num": 5}, of_seed) == whole
    assert made == [(1, 1.0)]
    assert path.read_text() == text
    assert modules["trials"].values(whole, "with", "error").tolist() == [1.0, 11.0]
    with pytest.raises(ValueError, match="remove it"):
        run(path, [0, 1], arms, {"num": 6}, of_seed)


def test_batches_take_every_example_once_in_an_epoch(modules):
    taken = np.concatenate(list(modules["student"].batches(0, 48, 6, 32)))  # four epochs, across the batches' ends
    for epoch in taken.reshape(4, 48):
        assert sorted(epoch) == list(range(48))


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_page_says_what_the_rows_say(modules, name):
    module, trials = modules[name], modules["trials"]
    seeds = range(10)
    assert not set(seeds) & set(trials.WEIGHED)
    # All rows are there and of these settings: nothing is trained, or `None` would be called.
    rows = trials.run(BENCHMARKS / "experiments" / f"{name}.jsonl", seeds, module.ARMS, module.SETTINGS, None)
    page = (BENCHMARKS / "learning.md").read_text(encoding="utf-8")
    _, _, rest = page.partition(f"<!-- begin of what {name}.py writes -->")
    assert rest.partition("<!-- end")[0].strip() == module.section(rows)
