"""ROAD, infidelity, max-sensitivity, MaxBoxAcc, PxAP and eMPRT: by hand, by dense algebra, by packages (parity)."""

import functools
import re
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcam import metrics

imputed = jax.jit(metrics.imputed)
noisy = jax.jit(lambda image, removed: metrics.imputed(image, removed, noise=0.5, key=jax.random.key(0)))


def drawn(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


# --- ROAD ------------------------------------------------------------------------------------------------------------


def filled_by_loops(image, removed):
    """The equations pixel by pixel, solved as a dense system."""
    height, width, depth = image.shape
    matrix, right = np.eye(height * width), image.reshape(-1, depth).copy()
    for i in range(height):
        for j in range(width):
            if removed[i, j]:
                near = [
                    (i + a, j + b, 1 if a == 0 or b == 0 else 0.5) for a in (-1, 0, 1) for b in (-1, 0, 1) if a or b
                ]
                near = [(y, x, w) for y, x, w in near if 0 <= y < height and 0 <= x < width]
                row = i * width + j
                right[row] = 0
                for y, x, w in near:
                    matrix[row, y * width + x] -= w / sum(each[2] for each in near)
    return np.linalg.solve(matrix, right).reshape(image.shape)


def test_removed_pixels_are_the_means_of_their_neighbours():
    image, removed = drawn(0, 7, 9, 2), np.random.default_rng(1).random((7, 9)) < 0.7
    removed[0, :4] = removed[-1, -3:] = True
    found = imputed(image, removed)
    np.testing.assert_allclose(found, filled_by_loops(image, removed), rtol=1e-8, atol=1e-9)
    np.testing.assert_array_equal(np.asarray(found)[~removed], image[~removed])


def test_a_single_pixel_by_hand():
    image = np.asarray([[1.0, 2, 3], [4, 99, 6], [7, 8, 10]])[..., None]
    removed = np.zeros((3, 3), bool)
    removed[1, 1] = True
    # (2 + 4 + 6 + 8) / 6 + (1 + 3 + 7 + 10) / 12, and in a corner (2 + 4) / 6 + 99 / 12 over 1 / 3 + 1 / 12.
    assert float(imputed(image, removed)[1, 1, 0]) == pytest.approx(20 / 6 + 21 / 12)
    corner = np.zeros((3, 3), bool)
    corner[0, 0] = True
    assert float(imputed(image, corner)[0, 0, 0]) == pytest.approx((1 + 99 / 12) / (5 / 12))


def test_noise_is_of_the_removed_pixels_and_its_size():
    image, removed = np.zeros((40, 40, 3)), np.random.default_rng(2).random((40, 40)) < 0.6
    found = np.asarray(noisy(image, removed))
    assert not found[~removed].any()
    assert found[removed].std() == pytest.approx(0.5, rel=0.05)
    assert np.isnan(noisy(image, np.ones((40, 40), bool))).all()


def test_road_by_hand():
    """f is the mean of a picture whose neighbours differ: removal by loops, most and least relevant first."""
    image, heatmap = drawn(3, 5, 6, 1), np.abs(drawn(4, 5, 6))
    f = lambda x: (x**2).mean()
    expected = []
    for p in (25.0, 50.0, 90.0):
        most, least = heatmap >= np.percentile(heatmap, p), -heatmap >= np.percentile(-heatmap, p)
        expected.append(f(filled_by_loops(image, least)) - f(filled_by_loops(image, most)))
    road = jax.jit(lambda i, h: metrics.road(f, i, h, percentiles=(25, 50, 90)))
    found = road(image, heatmap)
    assert np.isnan(road(image, np.zeros((5, 6))))
    assert float(found) == pytest.approx(np.mean(expected) / 2, rel=1e-7)


# --- Infidelity and max-sensitivity ----------------------------------------------------------------------------------


def test_infidelity_of_a_linear_function_is_zero_for_its_gradient():
    w, x, changes = drawn(5, 4, 3, 2), drawn(6, 4, 3, 2), drawn(7, 9, 4, 3, 2)
    f = lambda x: (w * x).sum()
    found = jax.jit(functools.partial(metrics.infidelity, f))
    assert float(found(x, w, changes)) == pytest.approx(0, abs=1e-25)
    assert float(found(x, 3 * w, changes)) == pytest.approx(0, abs=1e-25)
    said = (changes * w).sum((1, 2, 3))
    plain = jax.jit(functools.partial(metrics.infidelity, f, is_scaled=False))
    assert float(plain(x, 3 * w, changes)) == pytest.approx(4 * (said**2).mean())


def test_infidelity_of_a_map_by_hand():
    x, changes, heatmap = drawn(8, 4, 3, 2), drawn(9, 5, 4, 3, 2), np.abs(drawn(10, 4, 3))
    f = lambda x: (x**2).sum()
    a = (changes * heatmap[..., None]).sum((1, 2, 3))
    b = np.asarray([f(x) - f(x - change) for change in changes])
    best = (a * b).sum() / (a * a).sum()
    compiled = jax.jit(functools.partial(metrics.infidelity, f))
    found = compiled(x, heatmap, changes)
    assert np.isnan(compiled(x, 0 * heatmap, changes))
    assert float(found) == pytest.approx(((best * a - b) ** 2).mean(), rel=1e-12)


def test_max_sensitivity_by_hand():
    x, deltas = drawn(11, 4, 3, 2), 0.1 * drawn(12, 6, 4, 3, 2)
    explain = lambda x: (x**2).sum(-1)
    here = explain(x)
    expected = max(np.linalg.norm(explain(x + delta) - here) for delta in deltas) / np.linalg.norm(here)
    assert float(jax.jit(functools.partial(metrics.max_sensitivity, explain))(x, deltas)) == pytest.approx(expected)


# --- Thresholds ------------------------------------------------------------------------------------------------------


def test_max_box_acc_by_hand():
    """Two spots of heat, the smaller one on the object: the largest component never finds it, any component does."""
    heatmap = np.zeros((1, 8, 8))
    heatmap[0, 1:3, 1:3], heatmap[0, 4:8, 4:8] = 1.0, 0.8
    small, wide = [np.asarray([[1, 1, 3, 3]])], [np.asarray([[1, 1, 3, 4]])]
    np.testing.assert_array_equal(metrics.max_box_acc(heatmap, small), [100, 100, 100])
    np.testing.assert_array_equal(metrics.max_box_acc(heatmap, wide), [100, 100, 0])  # IoU 4 / 6
    # Above 0.8 the small spot is the only one: a threshold that the first version may choose too.
    np.testing.assert_array_equal(metrics.max_box_acc(heatmap, small, deltas=(0.5,), largest=True), [100])
    np.testing.assert_array_equal(
        metrics.max_box_acc(heatmap, small, deltas=(0.5,), largest=True, num_thresholds=1), [0]
    )
    # One threshold for all pictures: the second one needs a low one, at which the first is lost.
    second = np.zeros((8, 8))
    second[:4, :4], second[0, 0] = 0.3, 1.0
    both = np.stack([np.where(heatmap[0] == 1, 1.0, np.where(heatmap[0] > 0, 0.8, 0.5)), second])
    boxes = [*small, np.asarray([[0, 0, 4, 4]])]
    np.testing.assert_array_equal(metrics.max_box_acc(both, boxes, deltas=(0.9,)), [50])
    assert not metrics.max_box_acc(np.zeros((1, 8, 8)), small).any()


def test_pxap_by_hand():
    heat = np.asarray([[[0.9, 0.8], [0.8, 0.1]]])
    mask = np.asarray([[[True, True], [False, True]]])
    # Recall 1/3 at precision 1, then 2/3 at 2/3 (two pixels of 0.8 fall together), then 1 at 3/4.
    assert metrics.pxap(heat, mask) == pytest.approx(100 * (1 + 2 / 3 + 3 / 4) / 3)
    assert np.isnan(metrics.pxap(heat, mask & False))


def test_the_middle_finds_what_is_in_the_middle():
    centre = np.asarray(metrics.centre_map((20, 30)))
    assert centre.max() == 1
    assert centre[10, 15] == centre[9, 14] == 1
    assert centre[0, 0] == pytest.approx(
        np.exp(
            -0.5 * (4 * 9.5 / 20) ** 2 - 0.5 * (4 * 14.5 / 30) ** 2 + 0.5 * ((4 * 0.5 / 20) ** 2 + (4 * 0.5 / 30) ** 2)
        )
    )
    np.testing.assert_array_equal(metrics.max_box_acc(centre[None], [np.asarray([[5, 5, 25, 15]])]), [100, 100, 100])


# --- Random weights --------------------------------------------------------------------------------------------------


def test_entropy_and_emprt_by_hand():
    entropy = jax.jit(metrics.discrete_entropy)
    even = np.asarray([0.0, 0.3, 0.6, 1.0])
    assert float(entropy(even)) == pytest.approx(np.log(4))
    assert float(entropy(np.asarray([0.0, 0.0, 0.0, 1.0]))) == pytest.approx(-0.75 * np.log(0.75) - 0.25 * np.log(0.25))
    assert float(entropy(np.full(4, 2.0))) == 0
    values = np.abs(drawn(13, 30, 40))
    counts = np.histogram(values, bins=100)[0] / values.size
    assert float(entropy(values)) == pytest.approx(-(counts[counts > 0] * np.log(counts[counts > 0])).sum())
    half, emprt = np.asarray([0.0, 0.0, 1.0, 1.0]), jax.jit(metrics.emprt)
    assert float(emprt(half, even)) == pytest.approx(1)
    assert np.isnan(emprt(np.full(4, 2.0), even))
    assert np.isnan(emprt(np.zeros(4), even))


@pytest.mark.parametrize(
    ("error", "call", "message"),
    [
        (ValueError, lambda: metrics.imputed(drawn(0, 4, 2), np.ones(4, bool)), "only pictures are filled in"),
        (TypeError, lambda: metrics.imputed(drawn(0, 4, 4, 1), drawn(0, 4, 4)), "removed must be a bool array"),
        (
            ValueError,
            lambda: metrics.imputed(drawn(0, 4, 4, 1), np.ones((4, 3), bool)),
            "removed must be [H, W] of",
        ),
        (ValueError, lambda: metrics.road(jnp.mean, drawn(0, 4, 4, 1), drawn(0, 4, 4), percentiles=()), "is empty"),
        (ValueError, lambda: metrics.road(lambda x: x[0], drawn(0, 4, 4, 1), drawn(1, 4, 4)), "f must return a scalar"),
        (
            ValueError,
            lambda: metrics.infidelity(jnp.sum, drawn(0, 4, 1), drawn(0, 3), drawn(0, 2, 4, 1)),
            "attributions",
        ),
        (ValueError, lambda: metrics.max_sensitivity(jnp.sum, drawn(0, 4, 1), drawn(0, 4, 1)), "perturbations must be"),
        (ValueError, lambda: metrics.max_box_acc(drawn(0, 2, 4, 4), []), "heatmaps must be [n, H, W] and boxes"),
        (TypeError, lambda: metrics.pxap(drawn(0, 2, 4, 4), drawn(0, 2, 4, 4)), "masks must be a bool array"),
    ],
)
def test_wrong_arguments_are_named(unchecked, error, call, message):
    with pytest.raises(error, match=re.escape(message)):
        call()


# --- The packages ----------------------------------------------------------------------------------------------------


@pytest.mark.parity
def test_imputation_and_road_agree_with_the_grad_cam_package(torchvision):
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("pytorch_grad_cam")
        from pytorch_grad_cam.metrics import road as theirs

        image, heatmap = drawn(0, 11, 12, 3), np.abs(drawn(1, 11, 12))
        channels_first = torch.from_numpy(np.moveaxis(image, -1, 0).copy())
        # Theirs solves in double precision and hands out float32.
        for p in (10, 50, 80):
            kept = heatmap < np.percentile(heatmap, p)
            filled = theirs.NoisyLinearImputer(noise=0)(channels_first.float(), torch.from_numpy(np.float32(kept)))
            ours = metrics.imputed(image, ~kept)
            np.testing.assert_allclose(ours, np.moveaxis(filled.numpy(), 0, -1), atol=1e-5)

        class Network(torch.nn.Module):
            def forward(self, x):
                return (x**2).mean((1, 2, 3), keepdim=False)[:, None]

        class Quiet(theirs.NoisyLinearImputer):
            def __init__(self):
                super().__init__(noise=0)

        original, theirs.NoisyLinearImputer = theirs.NoisyLinearImputer, Quiet
        try:
            batch = (channels_first.float()[None], np.float32(heatmap)[None])
            found = theirs.ROADCombined()(*batch, [lambda o: o[0]], Network())
        finally:
            theirs.NoisyLinearImputer = original
    ours = metrics.road(lambda x: (x**2).mean(), image, heatmap)
    np.testing.assert_allclose(ours, found[0], rtol=1e-4)


@pytest.mark.parity
def test_entropy_agrees_with_quantus():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantus = pytest.importorskip("quantus.functions.complexity_func")
    values = np.abs(drawn(14, 17, 19))
    np.testing.assert_allclose(metrics.discrete_entropy(values), quantus.discrete_entropy(values, values), rtol=1e-12)


@pytest.mark.parity
def test_pxap_agrees_with_scikit_learn():
    sklearn = pytest.importorskip("sklearn.metrics")
    heat = np.round(np.random.default_rng(15).random((3, 9, 8)), 2)
    masks = np.random.default_rng(16).random((3, 9, 8)) < 0.3
    expected = 100 * sklearn.average_precision_score(masks.ravel(), heat.ravel())
    assert metrics.pxap(heat, masks) == pytest.approx(expected, rel=1e-12)
