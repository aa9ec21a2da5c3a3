"""Names and claims that were mended stay mended: README, changelog, notebooks, the package, the benchmarks' pages."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "notebooks" / "reference" / "pages").glob("*.md")),
    *sorted((ROOT / "notebooks").glob("*.py")),
    *sorted((ROOT / "jaxcam").rglob("*.py")),
    *sorted((ROOT / "tests" / "benchmarks").glob("*.md")),
]
ALLOWED = (  # where the gradients are meant and not the method, and the title of its paper
    "equivalent to Grad-CAM with positive gradients",
    "Grad-CAM with positive gradients only",
    "Grad-CAM with its positive gradients only",
    "pass back only positive gradients",
)
BANNED = {  # a pattern, and what is said instead
    r"positive gradients": "the method is grad_cam_positive",
    r"positive gradient\b.{0,3}\(their mean\)": "the method is grad_cam_positive",
    r"told apart by themselves": "detected automatically",
    r"shared out among all devices": "distributed over all devices",
    r"a killed run goes on|killed runs go on": "an interrupted run resumes",
    r"misshapen": "of the wrong shape",
    r"what Grad-CAM\+\+ should be compared with": "the baseline for Grad-CAM++",
    r"use Grad-CAM there": "Grad-CAM has no alphas: that it is a remedy is not shown",
    r"tells classes apart better": "depends more on the class",
    r"thrown off by the dark": "black may be out of distribution",
    r"three of six\b": "five of six rows, in three the interval excludes zero",
    r"What helps is a larger map": "a larger map by itself lowers the drop",
    r"up to 1\.2 times as fast": "up to 1.16 times",
    r"before you bend it": "before applying the nonlinearity",
    r"is no zero at zero": "is not zero at 0",
    r"through which everything flows": "that every path from the input to the output passes through",
    r"leaves negative gradients out": "discards negative gradients",
    r"advantage that comes from several objects": "instance recall by their number: its lead grows with it",
    r"no larger than chance allows": "the interval includes zero",
    r"Heatmaps of what speaks for": "heatmaps of the evidence for",
}
LITERATURE = re.compile(r"Grad-CAM\+(?!\+)")


def plain(text: str) -> str:
    """In one line, without the # of comments, so that a phrase is found wherever its line ends."""
    text = " ".join(re.sub(r"\n\s*#? ?", " ", text).split())
    for phrase in ALLOWED:
        text = text.replace(phrase, "")
    return text


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    return {str(file.relative_to(ROOT)): plain(file.read_text(encoding="utf-8")) for file in FILES}


@pytest.mark.parametrize("pattern", BANNED)
def test_what_was_mended_does_not_come_back(texts, pattern):
    places = {name: match for name, text in texts.items() if (match := re.search(pattern, text))}
    found = {name: texts[name][max(0, match.start() - 40) : match.end() + 20] for name, match in places.items()}
    assert not found, f"say instead: {BANNED[pattern]}"


def test_the_name_in_the_literature_is_said_where_the_method_is_explained_and_nowhere_else(texts):
    counts = {name: len(LITERATURE.findall(text)) for name, text in texts.items()}
    assert {name: n for name, n in counts.items() if n} == {
        "notebooks/reference/pages/guide.md": 1,
        "jaxcam/methods/gradient.py": 1,
    }
