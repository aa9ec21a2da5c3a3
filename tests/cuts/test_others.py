"""Maps of models from other packages with no layer and no grid given, against those cut by hand."""

import os

import jax
import numpy as np
import pytest
from others import CASES, map_by_hand

import jaxcam

pytestmark = pytest.mark.parity


ALL = "JAXCAM_ALL_NETWORKS" in os.environ  # what Keras builds one operation at a time takes long
HAS = os.environ.get("JAXCAM_HAS", "").split()  # packages without which a case fails
HOW = {
    "transformers": "tests/transformers-requirements.txt installs it, in an environment of its own",
    "bonsai": "JAXCAM_CHECKOUTS names a folder with a checkout of github.com/jax-ml/bonsai",
    "big_vision": "JAXCAM_CHECKOUTS names a folder with a checkout of github.com/google-research/big_vision",
}


# bonsai annotates what NNX reads in a way of last year.
@pytest.mark.filterwarnings("ignore:'(Data|Static)' is deprecated:DeprecationWarning")
@pytest.mark.parametrize("name", [name for name in CASES if ALL or name != "MobileNetV3Small"])
def test_the_map_is_the_one_cut_by_hand(name):
    case = CASES[name]
    if case.package not in HAS:
        how = HOW.get(case.package, "tests/parity-requirements.txt installs it")
        pytest.importorskip(case.module, reason=f"no {case.package}: {how}")
    loose = jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"), jax.enable_x64(False)
    with loose[0], loose[1], loose[2], case.around():
        net, x, by_hand = case.make()
        default = next(row for row in jaxcam.layers(net, x) if row.default)  # several names may mean one value
        assert default.grid == case.grid
        for class_idx in (1, 3):  # one of the two is not zero everywhere
            expected, logits = map_by_hand(by_hand, case.place, class_idx)
            found = jaxcam.explain(net, x, class_idx=class_idx)
            np.testing.assert_allclose(found.value[0], logits[class_idx], rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(found.cam_map[0], expected, rtol=1e-3, atol=1e-5 * max(expected.max(), 1e-3))
