"""Where axes come from: networks of all kinds with no layer and no grid given, against maps cut by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.ad_checkpoint import checkpoint_name as tag
from small_vit import (
    DOWN,
    EMBED,
    IMAGES,
    LAST,
    OUT,
    QKV,
    TOKEN,
    UP,
    D,
    P,
    beside,
    block,
    by_hand,
    check,
    layer_weights,
    norm,
    patches,
    patches_by_convolution,
)
from support import drawn

import jaxcam
from jaxcam.cuts.cut import cut


@pytest.mark.parametrize("scanned", [False, True])
@pytest.mark.parametrize("first", [False, True])
@pytest.mark.sample(4)
def test_class_token(scanned, first):
    """The input of the last block: behind its attention the class token alone is read."""
    start = lambda x: beside(patches_by_convolution(x) if first else patches(x), 2, 1)
    read = lambda t: norm(t)[:, 0] @ LAST

    def model(x):
        t = start(x)
        if scanned:
            t, _ = jax.lax.scan(lambda t, w: (block(t, w), None), t, (QKV, OUT, UP, DOWN))
        else:
            for i in range(3):
                t = block(t, layer_weights(i))
        return read(t)

    images = IMAGES.transpose(0, 3, 1, 2) if first else IMAGES
    t = lambda x: block(block(start(x), layer_weights(0)), layer_weights(1))
    expected = by_hand(t, lambda t: read(block(t, layer_weights(2))), slice(2, -1), images=images)
    check(model, expected, images)
    (default,) = {row.grid for row in jaxcam.layers(model, images) if row.default}
    assert default == "3x4 (2 before, 1 after)"
    if scanned:
        t = lambda x: block(start(x), layer_weights(0))
        rest = lambda t: read(block(block(t, layer_weights(1)), layer_weights(2)))
        check(model, by_hand(t, rest, slice(2, -1), images=images), images, layer="scan[0]")


@pytest.mark.parametrize("read", [0, -1, (1, 2)])
@pytest.mark.sample(3)
def test_one_position_alone_is_read(read):
    """No class token, but one token of the grid: behind the last block that is no map of where the model looks."""
    head = lambda t: norm(t).reshape(len(t), 3, 4, D)[:, *read] @ LAST if read == (1, 2) else norm(t)[:, read] @ LAST
    start = lambda x: block(patches(x), layer_weights(0))
    expected = by_hand(start, lambda t: head(block(t, layer_weights(1))))
    check(lambda x: head(block(start(x), layer_weights(1))), expected)


def test_average_of_tokens():
    model = lambda x: norm(block(beside(patches(x), 1), layer_weights(0)))[:, 1:].mean(1) @ LAST
    t = lambda x: norm(block(beside(patches(x), 1), layer_weights(0)))
    check(model, by_hand(t, lambda t: t[:, 1:].mean(1) @ LAST, slice(1, None)))


@pytest.mark.parametrize("joint", [False, True])
@pytest.mark.parametrize("written", ["product", "sum"])
@pytest.mark.sample(4)
def test_attention_pooling(joint, written):
    """What keys and values are made of, also where they are made in one."""
    keys, values = drawn(9, D, D), drawn(10, D, D)

    def pool(t):
        if joint:
            k, v = jnp.split(t @ np.concatenate([keys, values], 1) + 0.1, 2, -1)
        else:
            k, v = t @ keys, t @ values
        weights = jax.nn.softmax(k @ TOKEN[0], -1)
        pooled = (weights[..., None] * v).sum(1) if written == "sum" else jnp.einsum("nt,ntk->nk", weights, v)
        return pooled @ LAST

    model = lambda x: pool(norm(block(patches(x), layer_weights(0))))
    check(model, by_hand(lambda x: norm(block(patches(x), layer_weights(0))), pool))


def test_windows_and_shifts():
    """Swin: windows of 2 x 2, shifted by a roll, then patches merged 2 x 2."""
    images = drawn(11, 2, 16, 16, 3)
    merge, shape = drawn(12, 4 * D, D), (4, 4)

    def start(x):
        x = x.reshape(-1, 4, P, 4, P, 3).transpose(0, 1, 3, 2, 4, 5)
        return x.reshape(-1, 4, 4, P * P * 3) @ EMBED

    def windowed(t, shift, i):
        u = jnp.roll(t, (-shift, -shift), (1, 2))
        u = u.reshape(-1, 2, 2, 2, 2, D).transpose(0, 1, 3, 2, 4, 5).reshape(-1, 4, D)
        u = block(norm(u), layer_weights(i))
        u = u.reshape(-1, 2, 2, 2, 2, D).transpose(0, 1, 3, 2, 4, 5).reshape(-1, 4, 4, D)
        return t + jnp.roll(u, (shift, shift), (1, 2))

    def merged(t):
        parts = [t[:, i::2, j::2] for j in (0, 1) for i in (0, 1)]
        return norm(jnp.concatenate(parts, -1)) @ merge

    body = lambda x: windowed(windowed(start(x), 0, 0), 1, 1)
    end = lambda t: t.mean((1, 2)) @ LAST
    average = lambda t: t.mean(1) @ LAST
    t = lambda x: norm(body(x)).reshape(2, 16, D)
    check(lambda x: end(norm(body(x))), by_hand(t, average, sizes=shape, images=images), images)
    model = lambda x: end(norm(windowed(merged(body(x)).repeat(2, 1).repeat(2, 2), 1, 2)))
    t = lambda x: norm(windowed(merged(body(x)).repeat(2, 1).repeat(2, 2), 1, 2)).reshape(2, 16, D)
    check(model, by_hand(t, average, sizes=shape, images=images), images)
    rows = jaxcam.layers(lambda x: end(tag(merged(tag(body(x), "a")), "b")), images)
    assert [(row.layer, row.grid) for row in rows if row.kind == "tag"] == [("a", "4x4"), ("b", "2x2")]


def test_mixer():
    """Products over the positions: the skip connection still knows them."""
    across, back = drawn(13, 12, 7), drawn(14, 7, 12)

    def mixed(t):
        t = t + (jax.nn.gelu(norm(t).swapaxes(1, 2) @ across) @ back).swapaxes(1, 2)
        return t + jax.nn.gelu(norm(t) @ UP[0]) @ DOWN[0]

    t = lambda x: norm(mixed(patches(x)))
    check(lambda x: norm(mixed(patches(x))).mean(1) @ LAST, by_hand(t, lambda t: t.mean(1) @ LAST))


@pytest.mark.thorough
@pytest.mark.parametrize("after", [0, 1])
def test_associative_scan_over_tokens(after):
    """Even and odd tokens go separate ways and meet again: beside the skip path that is the grid as before."""

    def swept(t, i):
        decay, new = jax.nn.sigmoid(t @ OUT[i]), t @ OUT[i - 1]
        both = lambda early, late: (early[0] * late[0], early[1] * late[0] + late[1])
        return jax.lax.associative_scan(both, (decay, new), axis=1)[1]

    start = lambda x: beside(patches(x), 0, after)
    a = lambda x: norm(start(x) + swept(norm(start(x)), 1) @ OUT[0])
    head = lambda t: t[:, :12].mean(1) @ LAST
    check(lambda x: head(a(x)), by_hand(a, head, slice(0, 12)))
    # Without it the even tokens alone were taken for a grid of 3 x 2.
    alone = lambda t: head(jnp.tanh(swept(t, 1)))
    check(lambda x: alone(start(x)), by_hand(start, alone, slice(0, 12)))


def test_tokens_before_the_batch_are_refused_with_the_way_on():
    """Unless they only stand in that order for a scan."""
    step = lambda h, u: (jnp.tanh(h @ OUT[0] + u @ OUT[1]), None)
    head = lambda t: jax.lax.scan(step, jnp.zeros((len(t), D)), t.swapaxes(0, 1))[0] @ LAST
    check(lambda x: head(patches(x)), by_hand(patches, head))

    def model(x):
        t = tag(beside(patches(x), 1).swapaxes(0, 1), "input")
        return norm(block(t.swapaxes(0, 1), layer_weights(0)))[:, 0] @ LAST

    with pytest.raises(ValueError, match=r"its shape is \[13, 1, 6\]: name another layer .* swapaxes\(0, 1\)"):
        jaxcam.explain(model, IMAGES, class_idx=0, layer="input")


@pytest.mark.thorough
def test_tokens_in_another_order():
    """By columns, turned round, and with a class token in their midst: the map is in the picture's order."""
    order = np.arange(12).reshape(3, 4).T.reshape(-1)[::-1]

    def scattered(t):
        t = t.reshape(-1, 3, 4, D).swapaxes(1, 2).reshape(-1, 12, D)[:, ::-1]
        token = jnp.broadcast_to(TOKEN[:1], (t.shape[0], 1, D))
        return jnp.concatenate([t[:, :5], token, t[:, 5:]], 1)

    last = layer_weights(0)
    model = lambda x: norm(block(scattered(patches(x)), last))[:, 5] @ LAST
    t = lambda x: jnp.concatenate([patches(x), jnp.broadcast_to(TOKEN[:1], (2, 1, D))], 1)
    rest = lambda t: norm(block(jnp.concatenate([t[:, order[:5]], t[:, 12:], t[:, order[5:]]], 1), last))[:, 5] @ LAST
    check(model, by_hand(t, rest, slice(0, 12)))
    # Picked by their numbers, as gathers do it.
    model = lambda x: norm(block(beside(jnp.take(patches(x), np.argsort(order), 1), 1), last))[:, 0] @ LAST
    check(model, by_hand(patches, lambda t: norm(block(beside(t[:, np.argsort(order)], 1), last))[:, 0] @ LAST))


def conv(x, kernel, stride=1):
    return jax.lax.conv_general_dilated(x, kernel, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def test_pooling_that_no_convolution_follows_belongs_to_the_head():
    kernel, dense = drawn(15, 3, 3, 3, 4), drawn(16, 3 * 4 * 4, 5)
    pooled = lambda a: jax.lax.reduce_window(a, -jnp.inf, jax.lax.max, (1, 4, 4, 1), (1, 4, 4, 1), "VALID")
    head = lambda a: pooled(a).reshape(len(a), -1) @ dense
    a = lambda x: jax.nn.relu(conv(x, kernel)).reshape(2, 192, 4)
    expected = by_hand(a, lambda t: head(t.reshape(-1, 12, 16, 4)), sizes=(12, 16))
    check(lambda x: head(jax.nn.relu(conv(x, kernel))), expected)
    # Before another convolution it is a layer like any other.
    second = drawn(39, 3, 3, 4, 6)
    last = lambda a: jax.nn.relu(conv(pooled(a), second))
    a = lambda x: last(jax.nn.relu(conv(x, kernel))).reshape(2, 12, 6)
    expected = by_hand(a, lambda t: t.mean(1) @ LAST)
    check(lambda x: last(jax.nn.relu(conv(x, kernel))).mean((1, 2)) @ LAST, expected)


GENERALISED = {
    "GeM": lambda a: jnp.mean(jnp.clip(a, 1e-6) ** 3.0, (1, 2)) ** (1 / 3),
    "GeM by windows": lambda a: jnp.squeeze(
        jnp.sqrt(jax.lax.reduce_window(jnp.square(a), 0.0, jax.lax.add, (1, 12, 16, 1), (1, 1, 1, 1), "VALID")), (1, 2)
    ),
    "log-sum-exp": lambda a: jax.nn.logsumexp(4.0 * a, (1, 2)) / 4.0,
    "L2": lambda a: jnp.sqrt((a * a).reshape(len(a), -1, D).mean(1) + 1e-6),
}


@pytest.mark.parametrize("kind", GENERALISED)
def test_generalised_means_are_taken_of_the_activation(kind):
    """The power belongs to the pooling; the rectifier before it does not, nor one that is pooled without a power."""
    kernel = drawn(40, 3, 3, 3, D)
    pool = GENERALISED[kind]
    last = lambda x: jax.nn.relu(conv(x, kernel))
    model = lambda x: pool(tag(last(x), "last")) @ LAST
    a = lambda x: last(x).reshape(2, 192, D)
    check(model, by_hand(a, lambda t: pool(t.reshape(-1, 12, 16, D)) @ LAST, sizes=(12, 16)))
    defaults = lambda model: [row.layer for row in jaxcam.layers(model, IMAGES) if row.default]
    assert defaults(model) == ["last"]
    # A square that nothing undoes is an activation like others.
    assert defaults(lambda x: tag(jnp.square(last(x)), "square").mean((1, 2)) @ LAST) == ["square"]


@pytest.mark.parametrize("up", ["resize", "repeat", "shuffle", "transposed"])
@pytest.mark.sample(2)
def test_finer_grids(up):
    kernel, after = drawn(18, 3, 3, 3, 16), drawn(19, 3, 3, 4 if up == "shuffle" else 16, D)

    def finer(a):
        n, h, w, k = a.shape
        if up == "resize":
            return jax.image.resize(a, (n, 2 * h, 2 * w, k), "bilinear")
        if up == "repeat":
            return a.repeat(2, 1).repeat(2, 2)
        if up == "shuffle":
            return a.reshape(n, h, w, 2, 2, k // 4).transpose(0, 1, 3, 2, 4, 5).reshape(n, 2 * h, 2 * w, k // 4)
        return jax.lax.conv_transpose(a, drawn(20, 2, 2, 16, 16), (2, 2), "SAME")

    def features(x):
        skip = conv(x, drawn(21, 3, 3, 3, D))
        return jax.nn.relu(skip + conv(finer(jax.nn.relu(conv(x, kernel, 2))), after))

    a = lambda x: features(x).reshape(2, 192, D)
    check(lambda x: features(x).mean((1, 2)) @ LAST, by_hand(a, lambda t: t.mean(1) @ LAST, sizes=(12, 16)))


@pytest.mark.parametrize("by", ["scan", "dense"])
def test_columns_with_channels_on_one_axis_are_no_finer_grid(by):
    """A line of text: what stands in a row goes as one vector into a recurrent cell or a dense layer."""
    kernel, into, back = drawn(40, 3, 3, 3, D), drawn(41, 4 * D, D) / 5, drawn(42, D, D) / 3

    def head(a):  # [n, 3, 4, k]
        rows = a.reshape(len(a), 3, -1) @ into
        if by == "dense":
            return jnp.tanh(rows).mean(1) @ LAST
        state, _ = jax.lax.scan(lambda c, row: (jnp.tanh(c @ back + row), None), rows[:, 0] * 0, rows.swapaxes(0, 1))
        return state @ LAST

    features = lambda x: jax.nn.relu(conv(x, kernel, 4))
    expected = by_hand(lambda x: features(x).reshape(2, 12, D), lambda t: head(t.reshape(-1, 3, 4, D)))
    check(lambda x: head(features(x)), expected)


def test_frames_in_the_batch():
    """A clip by frames: time on the axis of the batch, and a convolution over the picture alone."""
    clips, kernel = drawn(22, 2, 3, 8, 8, 3), drawn(23, 3, 3, 3, D)

    def features(x):
        n, t = x.shape[:2]
        return jnp.tanh(conv(x.reshape(n * t, *x.shape[2:]), kernel, 2))

    head = lambda a: (a.reshape(-1, 3, 4, 4, D).mean((2, 3)) * np.arange(1.0, 4)[None, :, None]).mean(1) @ LAST
    a = lambda x: features(x).reshape(2, 48, D)
    expected = by_hand(a, lambda t: head(t.reshape(-1, 4, 4, D)), sizes=(3, 4, 4), images=clips)
    check(lambda x: head(features(x)), expected, clips)


def test_what_does_not_come_from_the_picture_is_no_grid():
    """Pooled vectors, attention heads, features in rows: none is taken for a grid."""
    dense = drawn(24, D, 64)
    a = lambda x: jax.nn.relu(conv(x, drawn(25, 3, 3, 3, D)))

    def head(a):
        v = jnp.tanh(a.mean((1, 2)) @ dense).reshape(-1, 4, 4, 4)
        v = jax.nn.relu(conv(v, drawn(26, 3, 3, 4, 4)))
        return v.mean((1, 2)) @ LAST[:4]

    model = lambda x: head(a(x))
    check(model, by_hand(lambda x: a(x).reshape(2, 192, D), lambda t: head(t.reshape(-1, 12, 16, D)), sizes=(12, 16)))
    with pytest.raises(ValueError, match="no value with positions that everything flows through"):
        jaxcam.explain(lambda x: jax.nn.relu(x.reshape(len(x), -1) @ drawn(27, 576, 64)) @ drawn(28, 64, 5), IMAGES)


def test_a_sorted_axis_is_not_known():
    model = lambda x: tag(jnp.sort(patches(x), 1), "sorted").mean(1) @ LAST
    (row,) = (row for row in jaxcam.layers(model, IMAGES) if row.layer == "sorted")
    assert row.grid == "mixed"
    with pytest.raises(ValueError, match=r"does not show a grid in this layer's \[1, 12, 6\] \(mixed\)"):
        jaxcam.explain(model, IMAGES, layer="sorted")


@pytest.mark.parametrize(("kind", "kept"), [("convolution", 0), ("tokens", 0), ("class token", 1)])
def test_the_value_is_kept_beside_the_activations_only_where_they_leave_something_out(kind, kept):
    model = {
        "convolution": lambda x: jax.nn.relu(conv(x, drawn(30, 3, 3, 3, D))).mean((1, 2)) @ LAST,
        "tokens": lambda x: norm(patches(x)).mean(1) @ LAST,
        "class token": lambda x: norm(block(beside(patches(x), 1), layer_weights(0)))[:, 0] @ LAST,
    }[kind]
    halves = cut(model, IMAGES[0])
    activations, passing = jax.jit(halves.features)(IMAGES[0])
    assert len(jax.tree.leaves(passing)) == kept
    logits = jax.jit(lambda passing, a: halves.head(passing)(a))(passing, activations)
    np.testing.assert_allclose(logits, jax.jit(model)(IMAGES)[0], rtol=1e-12)


def test_blocks_that_begin_elsewhere_are_no_coarser_grid():
    grid = lambda first: {
        row.grid
        for row in jaxcam.layers(
            lambda x: (
                tag((x @ EMBED[:3])[:, first : first + 10].reshape(-1, 5, 2, 16, D).sum(2), "b").mean((1, 2)) @ LAST
            ),
            IMAGES,
        )
        if row.layer == "b"
    }
    assert grid(0) == {"a part of 6x16"}  # rows 0 and 1, 2 and 3 ... of twelve
    assert grid(1) == {"mixed"}  # rows 1 and 2, 3 and 4 ...


@pytest.mark.thorough
def test_one_function_in_several_ways_is_known_by_one_of_them():
    """A depthwise convolution as a sum of shifted pictures on CPUs, which shows no grid, and by XLA elsewhere."""
    kernel = drawn(31, 3, 1, 1, D)

    def shifted(x):
        rows = jnp.pad(x, [(0, 0), (1, 1), (0, 0), (0, 0)])
        return sum(rows[:, i : i + 12] * kernel[i][None] for i in range(3))

    by_xla = lambda x: jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=D
    )
    features = lambda x: jax.nn.relu(jax.lax.platform_dependent(x @ EMBED[:3], cpu=shifted, default=by_xla))
    a = lambda x: features(x).reshape(2, 192, D)
    check(lambda x: features(x).mean((1, 2)) @ LAST, by_hand(a, lambda t: t.mean(1) @ LAST, sizes=(12, 16)))
    rows = jaxcam.layers(lambda x: tag(shifted(x @ EMBED[:3]), "alone").mean((1, 2)) @ LAST, IMAGES)
    assert {row.grid for row in rows if row.layer == "alone"} == {"positions twice"}
