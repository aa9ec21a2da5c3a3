"""Modules of torch through torchax: what they compute, the names of their layers, what is refused (parity)."""

import copy
import functools
import gc
import importlib.util
import sys
import types
import weakref

import jax
import numpy as np
import pytest
from torch_networks import randomised

import jaxcam
from jaxcam.cuts import torch_modules

torch = pytest.importorskip("torch")
pytestmark = [pytest.mark.parity, pytest.mark.usefixtures("torchax")]
nn, functional = torch.nn, torch.nn.functional
COMPILED = sys.modules["jaxcam.explanation.explain"]._compiled
X = np.random.default_rng(0).normal(size=(2, 3, 12, 10))


@pytest.fixture(scope="module")
def torchax():
    if importlib.util.find_spec("torchax") is None:
        pytest.skip("torchax is not installed")


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1, groups=2)
        self.bn = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        return self.relu(x + self.drop(self.bn(self.conv(x))))


class Net(nn.Module):
    """A residual network with what modules do besides: in place, shared, made while they run, kept as an attribute."""

    def __init__(self, classes=5):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2)
        self.first, self.second = Block(8), Block(8)
        self.second.conv = self.first.conv  # shared
        self.scale = torch.full((8, 1, 1), 0.7)  # no buffer
        self.position = nn.Embedding(8, 8)
        self.fc = nn.Linear(8, classes)

    def forward(self, x):
        x = self.stem(x)
        x += self.position(torch.arange(x.shape[1])).mean(1)[:, None, None]  # on no device of its own
        x = self.second(self.first(functional.relu_(x)) * self.scale)
        return self.fc(x.mean((2, 3)))


class Dictionary(Net):
    def forward(self, x):
        return {"logits": super().forward(x), "twice": [super().forward(2 * x)]}


class Two(Net):
    def forward(self, image, gain):
        return super().forward(image) * gain[:, None]


def made(kind=Net, dtype=torch.float64):
    network = randomised(kind).to(dtype)
    network.scale = network.scale.to(dtype)
    return network


def in_torch(network, *inputs):
    with torch.no_grad():
        return network(*map(torch.tensor, inputs))


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-13), ("float32", 1e-5), ("bfloat16", 0.05)])
def test_outputs_are_torchs(dtype, tolerance):
    network = made(dtype=getattr(torch, dtype))
    x = torch.tensor(X).to(getattr(torch, dtype))
    with torch.no_grad():
        expected = network(x).double().numpy()
    found = jaxcam.adapt(network)(x)
    assert found.dtype == dtype
    np.testing.assert_allclose(np.asarray(found, np.float64), expected, atol=tolerance * np.abs(expected).max())


def test_layers_have_the_names_and_values_of_the_submodules():
    network, seen = made(), {}
    net = jaxcam.adapt(network)
    for name, part in network.named_modules():
        keep = lambda part, given, value, name=name: seen.setdefault(name, []).append(value.clone().numpy())
        part.register_forward_hook(keep)
    in_torch(network, X)
    table = jaxcam.layers(net, X)
    names = {row.layer for row in table if row.kind == "tag"}
    blocks = {f"{block}{part}" for block in ("first", "second") for part in ("", ".bn", ".relu")}
    assert names == {"stem", "first.conv:0", "first.conv:1", *blocks}  # dropout does nothing: it is no layer
    assert [row.layer for row in table if row.default] == ["second"]
    for name in names:
        features, head = jaxcam.split(net, name, X)
        of, _, which = name.partition(":")
        expected = seen[of][int(which or 0)]
        np.testing.assert_allclose(features(net, X), expected, rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(head(net, features(net, X), X), seen[""][0], rtol=1e-12)


def everything(network):
    """All that is in a module, by identity, and its values."""
    parts = {path: {**vars(part)} for path, part in network.named_modules()}
    inner = {
        (path, name): list(value.items())
        for path, held in parts.items()
        for name, value in held.items()
        if isinstance(value, dict)
    }
    return parts, inner, copy.deepcopy(network.state_dict())


def assert_untouched(network, before):
    parts, inner, values = before
    after = everything(network)
    assert parts.keys() == after[0].keys()
    for path, held in parts.items():
        assert held.keys() == after[0][path].keys()
        assert all(held[name] is after[0][path][name] for name in held)
    for place, items in inner.items():
        pairs = zip(items, after[1][place], strict=True)
        assert all(k == name and v is value for (k, v), (name, value) in pairs)
    assert all(torch.equal(value, after[2][name]) for name, value in values.items())


def test_the_module_is_left_as_it_was():
    network = made()
    before = everything(network)
    jaxcam.explain(network, X, class_idx=2)
    assert_untouched(network, before)
    with pytest.raises(ValueError, match="cannot be called"):
        jaxcam.explain(network, X[:, :2], class_idx=2)  # two colours: the stem refuses
    assert_untouched(network, before)
    assert torch.backends.mha.get_fastpath_enabled()
    assert torch.is_grad_enabled()
    assert torch.arange(2).device.type == "cpu"


def test_arrays_are_arguments_and_copies():
    network = made()
    net = jaxcam.adapt(network)
    assert not any(value.shape for value in jax.make_jaxpr(lambda net, x: net(x))(net, X).consts)
    assert net.state.keys() == {*dict(network.named_parameters()), *dict(network.named_buffers()), "scale"}
    whole = np.asarray(net(X))
    found = jaxcam.explain(net, X, class_idx=2)
    count = COMPILED._cache_size()
    with torch.no_grad():
        network.fc.weight *= 2
        network.fc.bias *= 2
    np.testing.assert_array_equal(net(X), whole)
    again = jaxcam.explain(network, X, class_idx=2)  # adapted anew, as it is now, and not compiled anew
    assert COMPILED._cache_size() == count
    np.testing.assert_allclose(again.value, 2 * found.value, rtol=1e-12)
    gradients = jax.grad(lambda net: net(X)[:, 2].sum(), allow_int=True)(net)
    network.double().zero_grad()
    network(torch.tensor(X))[:, 2].sum().backward()
    expected = network.first.conv.weight.grad.numpy()  # shared: the sum of both
    np.testing.assert_allclose(gradients.state["first.conv.weight"], expected / 2, rtol=1e-9)


def test_it_runs_once_for_each_shape_and_is_freed():
    calls = []

    class Counted(Net):
        def forward(self, x):
            calls.append(x.shape)
            return super().forward(x)

    network = made(Counted)
    net = jaxcam.adapt(network)
    jaxcam.layers(net, X)
    first = len(calls)
    jaxcam.layers(net, X + 1)
    assert (first, len(calls)) == (1, 1)
    held = [weakref.ref(network), *(weakref.ref(leaf) for leaf in jax.tree.leaves(net))]
    jaxcam.explain(net, X, class_idx=1)
    jaxcam.explain(network, X, class_idx=1)
    del net, network
    gc.collect()
    assert [ref() for ref in held if ref() is not None] == []


def test_every_function_takes_a_bare_module():
    network = made()
    expected = jaxcam.explain(jaxcam.adapt(network), X, class_idx=2)
    assert expected.heatmap.shape == (2, 12, 10)
    found = jaxcam.explain(network, torch.tensor(X, requires_grad=True), class_idx=2)
    np.testing.assert_array_equal(found.heatmap, expected.heatmap)
    features, head = jaxcam.split(network, "second", torch.tensor(X))
    logits = in_torch(network, X).numpy()
    np.testing.assert_allclose(head(network, features(network, torch.tensor(X)), X), logits, rtol=1e-12)
    assert str(jaxcam.layers(network, torch.tensor(X))) == str(jaxcam.layers(network, X))
    x = torch.tensor(X, requires_grad=True)
    network(x)[0, 2].backward()
    gradient = jax.grad(lambda x: jaxcam.adapt(network)(x)[0, 2])(X)
    np.testing.assert_allclose(gradient, x.grad.numpy(), rtol=1e-9, atol=1e-14)
    prepared = jaxcam.images.Preprocessing(resize=12, crop=12, mean=(0.5,) * 3, std=(0.5,) * 3)
    pictures = [np.random.default_rng(i).uniform(size=(20, 24, 3)) for i in range(3)]
    single = made(dtype=torch.float32)
    table = jaxcam.evaluate(jaxcam.adapt(single, preprocessing=prepared), pictures, methods=["grad_cam"])
    views = np.stack([np.moveaxis(np.asarray(prepared(p), np.float32), -1, 0) for p in pictures])
    assert [row["class_idx"] for row in table.rows()] == [*in_torch(single, views).numpy().argmax(1)]


def test_outputs_and_inputs_of_other_kinds():
    network = made(Dictionary)
    net, expected = jaxcam.adapt(network), in_torch(network, X)
    np.testing.assert_allclose(net(X)["twice"][0], expected["twice"][0], rtol=1e-12)
    with pytest.raises(TypeError, match="target="):
        jaxcam.explain(net, X, class_idx=2)
    plain = jaxcam.explain(made(), X, class_idx=2)
    by_target = jaxcam.explain(net, X, target=lambda outputs, inputs: outputs["logits"][2])
    np.testing.assert_allclose(by_target.heatmap, plain.heatmap, rtol=1e-9, atol=1e-12)
    picked = jaxcam.adapt(network, apply=lambda model, x: model(x)["logits"])
    np.testing.assert_allclose(jaxcam.explain(picked, X, class_idx=2).heatmap, plain.heatmap, rtol=1e-9, atol=1e-12)

    both = {"image": X, "gain": np.array([1.0, 3.0])}
    two = made(Two)
    with pytest.raises(ValueError, match="apply="):
        jaxcam.explain(two, both, class_idx=2)
    known = jaxcam.adapt(two, apply=lambda model, given: model(given["image"], given["gain"]))
    found = jaxcam.explain(known, both, class_idx=2)
    np.testing.assert_allclose(found.heatmap, plain.heatmap, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found.value, plain.value * both["gain"], rtol=1e-12)


class Writing(nn.Module):
    """y of x, written in torch, and what came of x meanwhile."""

    def __init__(self, write):
        super().__init__()
        self.write = write

    def forward(self, x):
        x = x + 0
        y = self.write(x)
        return torch.cat([x.reshape(len(x), -1), (y if torch.is_tensor(y) else x).reshape(len(x), -1)], 1)


def assigned(x):
    x[:, 1:, 2] = x[:, :2, 0]
    x[:, 0] = 7


FOLLOWED = [
    lambda x: x[:, 1:3].zero_(),
    lambda x: x[:, 1].mul_(2),
    lambda x: functional.silu(x[:, 1:], inplace=True),
    lambda x: functional.relu(x, inplace=True),
    lambda x: functional.hardswish(x, inplace=True),
    lambda x: functional.dropout(x, 0.5, training=False).mul_(2),
    lambda x: x[:, 1:].masked_fill_(x[:, 1:] > 0, 3.0),
    lambda x: (x.transpose(1, 2) + 1).add_(1),
    lambda x: x.clone().add_(1),
    lambda x: x.type_as(torch.zeros(1, dtype=torch.float32)).mul(2).double(),
    assigned,
]
LOST = [
    lambda x: x.view(-1).add_(1),
    lambda x: x.transpose(1, 2).zero_(),
    lambda x: x.flatten(1).mul_(2),
    lambda x: x.chunk(2, 1)[0].add_(1),
    lambda x: x.detach().add_(1),
    lambda x: x.unsqueeze(1)[:, :, 0].zero_(),
    lambda x: x.view(-1).__setitem__(0, 5.0),
    lambda x: [x.view(-1), x.mul_(2)][0],
]


@pytest.mark.parametrize("write", FOLLOWED)
def test_writes_in_place_are_followed(write):
    network = Writing(write).eval()
    np.testing.assert_allclose(jaxcam.adapt(network)(X), in_torch(network, X), rtol=1e-6)


@pytest.mark.parametrize("write", LOST)
def test_writes_that_would_be_lost_are_refused(write):
    found = vars(torch_modules._imported().tensor.Tensor).copy()
    with pytest.raises(ValueError, match=r"in place .* as another view.*x = x \+ y"):
        jaxcam.adapt(Writing(write).eval())(X)
    assert vars(torch_modules._imported().tensor.Tensor) == found


def scripted():
    return torch.jit.script(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).double().eval())


def inside(part):
    return nn.Sequential(nn.Conv2d(3, 3, 3), part).double().eval()


def hooked():
    network = made()
    network.first.conv.register_forward_hook(lambda part, given, value: None)
    return network


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("network", "error", "told"),
    [
        (lambda: made().train(), ValueError, r"training mode.*model\.eval\(\)"),
        (lambda: inside(nn.Dropout().train()).train(), ValueError, r"training mode"),
        (scripted, TypeError, "scripted.*made from"),
        (lambda: inside(scripted()), TypeError, "'1' in model is scripted"),
        (lambda: torch.compile(made()), TypeError, "compiled by torch.compile.*_orig_mod"),
        (hooked, ValueError, "'first.conv' in model has hooks.*remove"),
        (lambda: made().to("meta"), ValueError, "stem.weight.*must have values"),
        (lambda: inside(nn.LazyLinear(3)), TypeError, "is lazy: run it"),
        (lambda: nn.ParameterList([torch.zeros(2, 2).to_sparse()]).eval(), TypeError, "must be dense"),
        (Net, ValueError, "training mode"),
    ],
)
def test_what_is_refused(network, error, told):
    with pytest.raises(error, match=told):
        jaxcam.adapt(network())


def test_what_the_inputs_must_be():
    network = made()
    for x, told in (
        (X.transpose(0, 2, 3, 1), r"channels first: inputs\.transpose\(0, 3, 1, 2\)"),
        (X[0], "inputs"),
        (X.astype(np.float32), r'must be float64.*but are float32.*inputs\.astype\("float64"\)'),
        (X.astype(np.int32), "normalised as in training"),
    ):
        with pytest.raises((ValueError, TypeError), match=told):
            jaxcam.explain(network, x, class_idx=2)
    with pytest.raises(TypeError, match="instance"):
        jaxcam.adapt(Net)


def test_float64_needs_jaxs_float64():
    with jax.enable_x64(False):
        with pytest.raises(ValueError, match=r"'stem.weight' is float64.*model\.float\(\)"):
            jaxcam.adapt(made())
        single = made(dtype=torch.float32)
        found = np.asarray(jaxcam.adapt(single)(X.astype(np.float32)))
    np.testing.assert_allclose(found, in_torch(single, X.astype(np.float32)), rtol=1e-4, atol=1e-5)


def test_without_torchax_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchax", None)
    monkeypatch.setattr(torch_modules, "_imported", functools.cache(torch_modules._imported.__wrapped__))
    with pytest.raises(ImportError, match=r"pip install '.*\[torch\]'"):
        jaxcam.adapt(made())


def test_the_names_of_torchs_operators_are_asked_for_as_before(monkeypatch):
    """What lets torchax load is gone when it has loaded."""
    with pytest.raises(AttributeError):
        _ = torch.ops.aten.all.dimname
    with torch_modules._named_overloads(), pytest.raises(AttributeError):
        _ = torch.ops.aten.all.no_such_overload
    monkeypatch.setitem(sys.modules, "torch", types.ModuleType("torch"))
    assert not torch_modules.is_torch(made)
