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
    relative = jax.jit(functools.partial(metrics.infidelity, f, is_relative=True))
    happened = (changes * w).sum((1, 2, 3))
    a = (changes * abs(w)).sum((1, 2, 3))
    expected = ((a * (a @ happened) / (a @ a) - happened) ** 2).sum() / (happened**2).sum()
    assert float(relative(x, abs(w), changes)) == pytest.approx(expected)
    assert np.isnan(relative(x, w, 0 * changes))  # nothing happens
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


@pytest.mark.parametrize("unit", [1e-25, 1e25])
def test_squares_of_tiny_and_huge_numbers_cancel_in_float32(unit):
    x, heatmap, changes = (each.astype(np.float32) for each in (drawn(14, 5), np.abs(drawn(15, 5)), drawn(16, 6, 5, 1)))
    tiny = np.float32(1e-25)
    relative = jax.jit(
        lambda phi, scale: metrics.infidelity(
            lambda x: scale * (x**2).sum(), x[:, None], phi, changes, is_relative=True
        )
    )
    expected = float(relative(heatmap, np.float32(1)))
    assert 0.1 < expected < 1
    assert float(relative(heatmap, np.float32(unit))) == pytest.approx(expected, rel=1e-4)
    assert float(relative(tiny * heatmap, np.float32(1))) == pytest.approx(expected, rel=1e-4)
    sensitivity = jax.jit(lambda scale: metrics.max_sensitivity(lambda x: scale * x[:, 0] ** 2, x[:, None], changes))
    assert float(sensitivity(np.float32(unit))) == pytest.approx(float(sensitivity(np.float32(1))), rel=1e-4)


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
    assert np.isnan(metrics.max_box_acc(np.zeros((1, 8, 8)), small)).all()


def test_a_box_without_area_is_none_and_a_picture_without_boxes_does_not_count():
    heatmap = np.zeros((1, 8, 8))
    heatmap[0, 1:3, 1:3] = 1
    own = np.asarray([[1, 1, 3, 3]])
    none = [np.asarray(each) for each in ([], [[2, 2, 2, 5]], [[3, 3, 1, 1]], [[1, 1, np.nan, 3]])]
    assert metrics.max_box_acc(np.repeat(heatmap, 5, 0), [own, *none]).tolist() == [100] * 3
    assert np.isnan(metrics.max_box_acc(np.repeat(heatmap, 4, 0), none)).all()


def components(above):
    """The boxes around the parts of a mask, by flooding from pixel to pixel through sides and corners."""
    left, boxes = {(int(i), int(j)) for i, j in np.argwhere(above)}, []
    while left:
        part, edge = set(), [left.pop()]
        while edge:
            i, j = edge.pop()
            part.add((i, j))
            near = {(i + a, j + b) for a in (-1, 0, 1) for b in (-1, 0, 1)} & left
            left -= near
            edge += near
        rows, columns = zip(*part, strict=True)
        boxes.append((len(part), min(columns), min(rows), max(columns) + 1, max(rows) + 1))
    return boxes


@pytest.mark.parametrize("largest", [False, True])
def test_max_box_acc_is_that_of_the_paper(largest):
    """Choe et al. 2020, Eq. 3 and section 4.2, pixel by pixel: one threshold for all pictures, the best at each δ."""
    draws = np.random.default_rng(30)
    heatmaps = np.round(draws.random((6, 7, 9)) ** 3, 2)  # ties, and several parts
    heatmaps[4, 2:6, 1:7] += 1
    corners = draws.integers(0, 4, (6, 2, 2))
    boxes = [np.concatenate([low, low + draws.integers(1, 4, (2, 2))], 1) for low in corners]
    boxes[4] = np.array([[1, 2, 7, 5]])

    def overlap(a, b):
        width, height = (min(a[i + 2], b[i + 2]) - max(a[i], b[i]) for i in (0, 1))
        both = max(width, 0) * max(height, 0)
        return both / (sum((x[2] - x[0]) * (x[3] - x[1]) for x in (a, b)) - both)

    expected = []
    for delta in (0.3, 0.5, 0.7):
        found = np.zeros(20)
        for t in range(20):
            for heatmap, own in zip(heatmaps, boxes, strict=True):
                parts = components(heatmap > heatmap.max() * t / 20)
                if largest:  # the first in reading order of the largest
                    parts = [max(parts, key=lambda part: (part[0], -part[2], -part[1]))]
                found[t] += max(overlap(part[1:], box) for part in parts for box in own) >= delta
        expected.append(100 * found.max() / len(heatmaps))
    assert 0 < expected[2] < expected[0] <= 100
    found = metrics.max_box_acc(heatmaps, boxes, num_thresholds=20, largest=largest)
    np.testing.assert_allclose(found, expected)
    with_empty = np.concatenate([heatmaps, np.zeros((1, 7, 9)), np.full((1, 7, 9), np.nan)])
    more = [*boxes, boxes[0], boxes[0]]
    np.testing.assert_array_equal(metrics.max_box_acc(with_empty, more, num_thresholds=20, largest=largest), found)


def test_squares_are_boxes_of_the_lengths_that_are_said():
    masks = metrics.squares((16, 40), 300, seed=2)
    for mask in masks:
        (i, j), (a, b) = np.argwhere(mask).min(0), np.argwhere(mask).max(0) + 1
        assert mask[i:a, j:b].all()
        assert 2 <= a - i <= 8
        assert 5 <= b - j <= 20
    sides = [mask.any(1).sum() for mask in masks]
    assert {2, 8} <= set(sides)
    assert masks.any(0).all()
    np.testing.assert_array_equal(masks, metrics.squares((16, 40), 300, seed=2))


def test_pxap_by_hand():
    heat = np.asarray([[[0.9, 0.8], [0.8, 0.1]]])
    mask = np.asarray([[[True, True], [False, True]]])
    # Recall 1/3 at precision 1, then 2/3 at 2/3 (two pixels of 0.8 fall together), then 1 at 3/4.
    assert metrics.pxap(heat, mask) == pytest.approx(100 * (1 + 2 / 3 + 3 / 4) / 3)
    assert np.isnan(metrics.pxap(heat, mask & False))
    assert np.isnan(metrics.pxap(0 * heat, mask))
    both = np.concatenate([heat, 0 * heat, heat * np.nan]), np.concatenate([mask] * 3)
    assert metrics.pxap(*both) == metrics.pxap(heat, mask)  # an empty map is left out


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
        (ValueError, lambda: metrics.max_box_acc(drawn(0, 1, 4, 4), [np.ones((1, 2))]), "boxes must be [m, 4]"),
        (TypeError, lambda: metrics.max_box_acc(drawn(0, 1, 4, 4), [[]], deltas=0.5), "deltas must be a list"),
        (ValueError, lambda: metrics.max_box_acc(drawn(0, 1, 4, 4), [[]], deltas=()), "deltas is empty"),
        (
            ValueError,
            lambda: metrics.road(jnp.mean, drawn(0, 4, 4, 1), drawn(0, 4, 4), percentiles=(0,)),
            "percentiles must be above 0",
        ),
        (
            TypeError,
            lambda: metrics.max_sensitivity(lambda x: (x, x), drawn(0, 4, 1), drawn(0, 2, 4, 1)),
            "explain must return a map",
        ),
        (TypeError, lambda: metrics.pxap(drawn(0, 2, 4, 4), drawn(0, 2, 4, 4)), "masks must be a bool array"),
        (ValueError, lambda: metrics.pxap(drawn(0, 4, 4), drawn(0, 4, 4) > 0), "heatmaps must be [n, H, W]"),
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


@pytest.fixture(scope="module")
def quantus(torchvision):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("quantus")


class Case:
    """A small network of torch, float64, with layers that can be drawn anew; two inputs, one class of each."""

    def __init__(self):
        import torch

        torch.manual_seed(0)
        layers = [torch.nn.Conv2d(2, 4, 3, padding=1), torch.nn.Tanh(), torch.nn.Conv2d(4, 3, 3, padding=1)]

        class Network(torch.nn.Sequential):
            def forward(self, x):
                return super().forward(x.double())  # Quantus predicts in float32

        self.network = Network(*layers, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()).double().eval()
        self.x, self.classes = drawn(20, 2, 2, 8, 12), np.asarray([1, 2])

    def logit(self, x, c):
        """Of one input `[H, W, 2]`."""
        import torch

        with torch.no_grad():
            return float(self.network(torch.from_numpy(np.moveaxis(np.asarray(x), -1, 0).copy())[None])[0, c])

    @staticmethod
    def maps(model, inputs, targets, **_):
        """The squared gradient, `[n, 1, H, W]`, for Quantus: its explain_func."""
        import torch

        x = torch.from_numpy(np.array(inputs)).double().requires_grad_()
        scores = model(x)[torch.arange(len(x)), torch.from_numpy(np.array(targets))]
        (gradient,) = torch.autograd.grad(scores.sum(), x)
        return (gradient**2).sum(1, keepdim=True).detach().numpy()

    @property
    def given(self):
        return {"model": self.network, "x_batch": self.x.copy(), "y_batch": self.classes, "channel_first": True}


@pytest.mark.parity
def test_infidelity_agrees_with_quantus(quantus):
    """Its blocks of 4 x 4 turn black one after the other and stay so, which makes six changes of our kind."""
    case = Case()
    maps = case.maps(case.network, case.x, case.classes)
    theirs = quantus.Infidelity(n_perturb_samples=1, perturb_baseline=0.0, disable_warnings=True)
    expected = theirs(**case.given, a_batch=maps, device="cpu")
    for x, a, c, figure in zip(case.x, maps, case.classes, expected, strict=True):
        picture, gone = np.moveaxis(x, 0, -1), np.zeros((8, 12), bool)
        changes = []
        for i, j in np.ndindex(2, 3):
            gone[4 * i : 4 * i + 4, 4 * j : 4 * j + 4] = True
            changes.append(picture * gone[..., None])
        f = lambda x, c=c: jax.pure_callback(lambda x: np.float64(case.logit(x, c)), jax.ShapeDtypeStruct((), float), x,
                                             vmap_method="sequential")  # fmt: skip
        ours = metrics.infidelity(f, picture, a[0], np.stack(changes), is_scaled=False)
        np.testing.assert_allclose(ours, figure, rtol=1e-5)  # its predictions are float32


@pytest.mark.parity
def test_max_sensitivity_agrees_with_quantus(quantus):
    case, deltas = Case(), 0.1 * drawn(21, 5, 2, 2 * 8 * 12)
    steps = iter(deltas)
    theirs = quantus.MaxSensitivity(
        nr_samples=5, perturb_func=lambda arr, **_: arr + next(steps), disable_warnings=True, normalise=False
    )
    expected = theirs(**case.given, explain_func=case.maps, device="cpu")
    for i, (x, c) in enumerate(zip(case.x, case.classes, strict=True)):
        given = np.moveaxis(deltas[:, i].reshape(5, *x.shape), 1, -1)
        one = lambda x, c=c: case.maps(case.network, np.moveaxis(x, -1, 0)[None], [c])[0, 0]
        explain = lambda x, one=one: jax.pure_callback(one, jax.ShapeDtypeStruct((8, 12), float), x,
                                                       vmap_method="sequential")  # fmt: skip
        ours = metrics.max_sensitivity(explain, np.moveaxis(x, 0, -1), given)
        np.testing.assert_allclose(ours, expected[i], rtol=1e-6)


@pytest.mark.parity
def test_emprt_and_randomisation_from_the_bottom_agree_with_quantus(quantus):
    case = Case()
    options = {"layer_order": "bottom_up", "seed": 3, "disable_warnings": True, "normalise": False}
    given = {**case.given, "explain_func": case.maps, "device": "cpu"}
    emprt = quantus.EfficientMPRT(complexity_func_kwargs={"n_bins": 100}, **options)(**given)
    same = quantus.MPRT(similarity_func=quantus.similarity_func.correlation_spearman, **options)(**given)
    import torch

    before = case.maps(case.network, case.x, case.classes)[:, 0]
    for name, layer in case.network.named_children():
        if hasattr(layer, "reset_parameters"):
            torch.manual_seed(4)  # Quantus adds one
            layer.reset_parameters()
            after = case.maps(case.network, case.x, case.classes)[:, 0]
            np.testing.assert_allclose(jax.vmap(metrics.rank_correlation)(before, after), same[name], rtol=1e-9)
    np.testing.assert_allclose(jax.vmap(metrics.emprt)(before, after), emprt, rtol=1e-9)
