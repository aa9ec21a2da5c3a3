"""What treescope, the renderer that comes with Flax, makes of what jaxcam returns; with names that mean harm."""

import re

import jax
import numpy as np
import pytest
import treescope

import jaxcam
from jaxcam.evaluation.measures import Column
from jaxcam.evaluation.result import Evaluation
from jaxcam.evaluation.statistics import Rows, statistics
from jaxcam.evaluation.table import Table

HOSTILE = "</script><img src=x onerror=alert(1)>\x1b[31m'\"&"


def explanation():
    one = np.float32([0.25])
    heat = np.linspace(0, 1, 16, dtype=np.float32).reshape(1, 4, 4)
    return jaxcam.Explanation(heat, heat, np.array([0]), one, one, np.array([1])).with_names([HOSTILE])


def layers():
    named = lambda x: jax.ad_checkpoint.checkpoint_name(jax.nn.relu(x), HOSTILE)
    return jaxcam.layers(lambda x: named(x).mean((1, 2)), jax.ShapeDtypeStruct((1, 4, 4, 3), "float32"))


def evaluation():
    values = np.float64([[[0.5]], [[0.25]]])
    rows = Rows(y=np.ones(2), o=np.ones((2, 1)), values=values, status=np.zeros((2, 1), np.int32))
    columns = [Column("average_drop", HOSTILE, "%", "lower", 100.0)]
    table = Table([HOSTILE], columns, statistics([rows], 1, 1, shares=[False], num_resamples=0), {"model": HOSTILE})
    return Evaluation({"seed": 0}, table, [(3, HOSTILE, HOSTILE)], None)


def verification():
    return jaxcam.verify(lambda a: jax.nn.relu(a).mean((0, 1)) @ np.eye(2, 3), np.ones((2, 2, 2)), 0)


MADE = {"Explanation": explanation, "Layers": layers, "Evaluation": evaluation, "Verification": verification}
FIELDS = {
    "Explanation": r"class_idx=np\.array\(\[0\]\).*confidence=.*0\.25.*status=np\.array\(\[1\]\)",
    "Layers": r"Layer\(\s*layer=.*kind='tag'.*grid='4x4'",
    "Evaluation": r"num_images=2.*table=Table\(.*average_drop.*bad_images=\[\(3, ",
    "Verification": r"verdict=.Closed form exact.*closed_form_holds=True.*score='exp'.*shape=\(2, 2, 2\)",
}


@pytest.fixture(scope="module", params=MADE)
def kind(request):
    return request.param, MADE[request.param]()


def test_the_fields_unfold(kind):
    name, found = kind
    text = treescope.render_to_text(found)
    assert text.startswith(f"{name}(")
    assert re.search(FIELDS[name], text, re.DOTALL)
    assert "Rich HTML representation" in text


def test_what_is_not_given_is_not_shown():
    text = treescope.render_to_text(explanation())
    assert "gradient" not in text
    assert "gradient=" in treescope.render_to_text(explanation().__class__(*[np.zeros((1, 2, 2))] * 7))


def test_names_are_no_markup(kind):
    """The browser's test is in tests/pages: here the tags that a reader of HTML sees."""
    for shown in (treescope.render_to_html(kind[1]), kind[1]._repr_html_()):
        assert HOSTILE[: HOSTILE.index("\x1b")] not in shown
        assert "\x1b" not in shown


def test_inside_of_transformations():
    seen = []
    jax.jit(lambda e: seen.append(treescope.render_to_text(e)) or e.value)(explanation())
    assert re.search(r"heatmap=.*float32", seen[0])
