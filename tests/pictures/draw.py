"""The guide's pictures of methods and of networks: python tests/pictures/draw.py.

Needs the extras `notebooks` and `photographs`.
notebooks/pictures/guided.webp: two classes in one scene by `mini_resnet`. notebooks/pictures/architectures.webp: the
first panel of notebooks/architectures.py.
"""

import runpy
from pathlib import Path
from unittest import mock

import jax
import numpy as np

import jaxcam

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
SIDE = 200
COLUMNS = {"grad_cam": "Grad-CAM", "guided_backprop": "Guided\nbackprop", "guided_grad_cam": "Guided\nGrad-CAM"}


def guided():
    """A row for each kind of figure in the scene."""
    model, drawn = jaxcam.models.mini_resnet(), jaxcam.scenes.pair(1, size=256)
    own = model.preprocessing
    enlarged = jaxcam.images.Preprocessing(resize=round(own.resize * SIDE / own.crop), crop=SIDE)
    view, images = enlarged.view(drawn.image), own(drawn.image)[None]
    probabilities = jax.nn.softmax(model(images))[0]
    rows = []
    for c in sorted({int(c) for c in drawn.instance_classes if c >= 0}):
        cells = [jaxcam.Cell(view)]
        for method in COLUMNS:
            found = jaxcam.explain(model, images, method=method, class_idx=c)
            assert int(found.status[0]) == jaxcam.Status.OK
            if found.gradient is None:
                heat = np.clip(jaxcam.maps.heatmap(found.cam_map[0], (SIDE, SIDE)), 0, 1)
                cells.append(jaxcam.Cell(jaxcam.overlay(view, heat)))
            else:
                cells.append(jaxcam.Cell(jaxcam.gradient_picture(found.gradient[0])))
        rows.append(jaxcam.Row(f"{model.class_names[c]}\n{float(probabilities[c]):.1%}", cells))
    return jaxcam.panel(rows, headings=["Input", *COLUMNS.values()], cell_size=SIDE / 2)


def architectures():
    """What the notebook shows first."""
    with mock.patch("jaxcam.panel", wraps=jaxcam.panel) as panel, mock.patch("IPython.display.display"):
        runpy.run_path(str(NOTEBOOKS / "architectures.py"))
    first = panel.call_args_list[0]
    return jaxcam.panel(*first.args, **first.kwargs)


def main():
    """Writes them."""
    for draw in (guided, architectures):
        place = NOTEBOOKS / "pictures" / f"{draw.__name__}.webp"
        draw().save(place, "WEBP", quality=80, method=6)
        print(place, place.stat().st_size)


if __name__ == "__main__":
    main()
