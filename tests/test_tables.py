import csv
import html
import io
import re

import jax
import numpy as np
import pytest

import jaxcam
from jaxcam import tables

HEADER = ("name", "share %\n(higher)", "n")
ROWS = [("a", "1.25", "7"), ("longer", "100.00", "1,000")]


def test_text_by_hand():
    assert tables.text(HEADER, ROWS, rule=True) == (
        "name     share %      n\n"
        "        (higher)\n"
        "-----------------------\n"
        "a           1.25      7\n"
        "longer    100.00  1,000"
    )
    assert tables.text(HEADER[::2], [row[::2] for row in ROWS], left=(0, 1)) == (
        "name    n\na       7\nlonger  1,000"
    )  # fmt: skip


def test_columns_that_do_not_fit_follow_below():
    """6 letters, and two spaces with 8 and with 5: 16 and 23; a second line over the columns that have one."""
    blocks = tables.text(HEADER, ROWS, width=22).split("\n\n")
    assert blocks == [
        "name     share %\n        (higher)\na           1.25\nlonger    100.00",
        "name        n\na           7\nlonger  1,000",
    ]
    assert tables.text(HEADER, ROWS, width=23) == tables.text(HEADER, ROWS)
    assert tables.text(HEADER, ROWS, width=3).split("\n\n") == blocks  # at least one beside the first
    assert tables.text(("name",), [("a",)], width=3) == "name\na"


def test_markdown_by_hand():
    assert tables.markdown(HEADER, ROWS) == (
        "| name | share % (higher) | n |\n| --- | ---: | ---: |\n| a | 1.25 | 7 |\n| longer | 100.00 | 1,000 |"
    )


HOSTILE = ["a|b", "c\\", "two\nlines", "\x1b[31mred\x07", "\r", "tab\tbed", "\\|"]


@pytest.mark.parametrize("cell", HOSTILE)
def test_no_cell_breaks_a_table(cell):
    rows = [(cell, "x", cell), ("y", cell, "z")]
    for line in tables.markdown(("h", cell, "h"), rows).splitlines():
        assert line.isprintable()
        assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) == 4
    text = tables.text(("h", "x", "h"), rows)
    assert len(text.split("\n")) == 3
    assert all(line.isprintable() for line in text.split("\n"))
    assert list(csv.reader(io.StringIO(tables.csv(("h", "x", "h"), rows), newline=""))) == [
        ["h", "x", "h"],
        *map(list, rows),
    ]


def test_what_escapes_look_like():
    assert tables.printable(" two\n lines\x1b[0m ") == "two lines?[0m"
    assert tables.escaped("a|b\\") == "a\\|b\\\\"
    assert tables.csv(("a", "b"), [(1 / 3, None), ("x,y", 'say "z"')]) == (
        'a,b\n0.3333333333333333,\n"x,y","say ""z"""\n'
    )


def test_html_by_hand_with_what_browsers_would_obey():
    found = tables.html(("layer", "grid"), [("<b>&", "7x7")], left=(0,))
    assert found == (
        '<table><tr><th style="text-align:left">layer</th><th style="text-align:right">grid</th></tr>'
        '<tr><td style="text-align:left">&lt;b&gt;&amp;</td><td style="text-align:right">7x7</td></tr></table>'
    )
    assert "a\n  &lt;script&gt;" in tables.preformatted("a\n  <script>")


@pytest.mark.thorough
def test_what_prints_as_a_table_shows_itself_in_notebooks():
    tagged = lambda x: jax.ad_checkpoint.checkpoint_name(jax.nn.relu(x), "rectified")
    spec = jax.ShapeDtypeStruct((1, 4, 4, 3), "float32")
    found = jaxcam.layers(lambda x: jax.nn.softmax(tagged(x).mean((1, 2))), spec)
    shown = found._repr_html_()
    cells = re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", shown)
    assert cells[:7] == ["layer", "kind", "shape", "dtype", "grid", "centres", "everything flows through"]
    assert len(cells) == 7 * (1 + len(found))
    assert all(f"{row.grid}</td>" in shown for row in found)
    assert shown.endswith("<small>cut before the softmax at its end</small>")
    head = lambda a: jax.nn.relu(a).mean((0, 1)) @ np.eye(2, 3)
    verified = jaxcam.verify(head, np.ones((2, 2, 2)), 0)
    assert html.unescape(verified._repr_html_()).removesuffix("</pre>").endswith(str(verified))
