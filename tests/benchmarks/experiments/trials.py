"""Trainings that are repeated: a line for every seed and arm, what differs between arms, and a section of learning.md.

A line is written when its training has ended, and a run goes on where the last one was ended. Arms of one seed share
its training set, its initial parameters and the order of its batches, so that differences are paired: their intervals
are Student's t over the seeds, at 95 %, and are not widened for the number of comparisons.
"""

import argparse
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from jaxcam.progress import progress
from jaxcam.tables import markdown

PAGE = Path(__file__).parents[1] / "learning.md"
Row = dict[str, Any]
WEIGHED = (100, 101)
"""Seeds that weights are chosen by, and no others are."""


def main(
    script: str,
    description: str | None,
    arms: Mapping[str, Any],
    candidates: Mapping[str, Any],
    settings: Mapping[str, Any],
    of_seed: Callable[[int], Callable[[Any], Row]],
    section: Callable[[list[Row], Any], str],
) -> None:
    """Trains what is missing, and writes the section; of `candidates`, arms to choose weights among, prints it."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(10)), help="0 to 9 by default")
    parser.add_argument("--weigh", action="store_true", help="the candidates for the weights, on seeds of their own")
    options = parser.parse_args()
    path = Path(script).with_suffix(".jsonl")
    if options.weigh:
        print(section(run(path, WEIGHED, candidates, settings, of_seed), candidates))
        return
    text = section(run(path, options.seeds, arms, settings, of_seed), arms)
    write(path.stem, text)
    print(text)


def run(
    path: Path,
    seeds: Sequence[int],
    arms: Mapping[str, Any],
    settings: Mapping[str, Any],
    of_seed: Callable[[int], Callable[[Any], Row]],
) -> list[Row]:
    """The lines of every seed and arm, of which those that are not in the file are made and added to it.

    Args:
        path: of the file.
        seeds: in their order.
        arms: by name what an arm is, as JSON can hold it.
        settings: what all of them depend on besides.
        of_seed: what the arms of a seed share, as a function from what an arm is to what was measured.

    Raises:
        ValueError: the file has lines of an arm with other settings.
    """
    rows = [row for row in read(path) if row["seed"] in seeds and row["arm"] in arms]
    of = {name: json.loads(json.dumps({"arm": arm, **settings})) for name, arm in arms.items()}
    if unlike := [row for row in rows if row["of"] != of[row["arm"]]]:
        arm, seed = unlike[0]["arm"], unlike[0]["seed"]
        raise ValueError(f"{path} must be of {of[arm]} but has {unlike[0]['of']} for {arm!r}, seed {seed}: remove it")
    known, num = {(row["seed"], row["arm"]) for row in rows}, len(seeds) * len(arms)
    left = [(seed, arm) for seed in seeds for arm in arms if (seed, arm) not in known]
    drawn, trial = None, None
    for seed, arm in progress(left, total=num, label=path.stem, done=num - len(left)):
        if drawn != seed:
            drawn, trial = seed, of_seed(seed)
        found = {key: float(f"{value:.6g}") for key, value in trial(arms[arm]).items()}
        row = {"seed": seed, "arm": arm, "of": of[arm], **found}
        with path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        rows.append(row)
    return rows


def read(path: Path) -> list[Row]:
    """The lines of a file; none where it is not there. A line that was cut off in the middle is left out of it."""
    if not path.exists():
        return []
    text = path.read_text()
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        path.write_text(whole)
    return [json.loads(line) for line in whole.splitlines()]


def values(rows: Iterable[Row], arm: str, key: str) -> np.ndarray:
    """One figure of an arm, by the seeds in their order."""
    return np.asarray([row[key] for row in sorted(rows, key=lambda row: row["seed"]) if row["arm"] == arm])


def interval(each: np.ndarray) -> tuple[float, float, float]:
    """The mean, and the 95 % interval of Student's t."""
    half = stats.t.ppf(0.975, len(each) - 1) * each.std(ddof=1) / len(each) ** 0.5
    return each.mean(), each.mean() - half, each.mean() + half


def table(rows: list[Row], arms: Sequence[str], keys: dict[str, str], against: Sequence[str]) -> str:
    """A line for each arm: each figure's mean over the seeds with its deviation, and what it is above that of others.

    Args:
        rows: of the seeds and arms.
        arms: in their order.
        keys: what is shown, and how it is headed.
        against: the arms that each one is compared with.
    """
    head, lines = ["", *keys.values()], []
    for title in keys.values():
        head += [f"{title}: minus {other}" for other in against]
    for arm in arms:
        own = {key: values(rows, arm, key) for key in keys}
        cells = [f"{each.mean():.1f} ± {each.std(ddof=1):.1f}" for each in own.values()]
        for key, each in own.items():
            cells += ["" if arm == other else apart(each - values(rows, other, key)) for other in against]
        lines.append([arm, *cells])
    return markdown(head, lines)


def apart(differences: np.ndarray) -> str:
    """A paired difference with its interval, bold where that excludes zero."""
    value, low, high = interval(differences)
    text = f"{value:+.1f} [{low:+.1f}, {high:+.1f}]"
    return f"**{text}**" if low > 0 or high < 0 else text


def write(name: str, text: str) -> None:
    """Puts a text into the page in the place that is an experiment's, between two marks with its name."""
    begin, end = (f"<!-- {word} of what {name}.py writes -->" for word in ("begin", "end"))
    before, _, rest = PAGE.read_text().partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        raise ValueError(f"{PAGE} must have the lines {begin!r} and {end!r}, in this order, but has not: add them")
    PAGE.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}")
