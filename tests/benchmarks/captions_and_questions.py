"""How often captions and answers are right, with the picture and without it, and what their maps are worth.

    python tests/benchmarks/captions_and_questions.py [mini_captioner mini_vqa] [--num 2000] [--weights FOLDER]

Inputs that no network was trained on, drawn by `jaxcam.scenes` from a seed of its own. Captions: the share of sentences
that are right to the last word, greedily and by beams, and of words given the true ones before. Questions: the share of
right answers of each kind; of the language alone, which is asked about the picture of another question, or a grey one.
Then evaluate's table for the words that name something (their figures are the truth) and for true answers (what they
rest on), and for captions where the map of a word goes: to its own figures or to those of the other group; and what
becomes of a word and its map when its figures are painted over.
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from scipy import ndimage, stats

import jaxcam
from jaxcam import models, scenes, targets
from jaxcam.evaluation.shares import wilson
from jaxcam.scenes.words import PLURALS

SEED = 40_000
NOUNS = {scenes.VOCABULARY.index(word) for word in (*scenes.CLASS_NAMES, *PLURALS)}
METHODS = ("grad_cam", "grad_cam_positive", "hires_cam")
"""No Grad-CAM++: behind the layer stand an LSTM's gates, where its exact derivatives take 10,000 forward passes."""
PROTOCOL = jaxcam.Protocol(mask="input", baseline="zero", class_idx="true")


def share(right):
    """In percent, with Wilson's 95 % interval."""
    low, high = wilson(np.asarray(np.sum(right)), np.asarray(len(right)), level=0.95)
    return f"{100 * np.mean(right):.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def in_parts(function, *arrays, size=100):
    parts = [function(*(a[i : i + size] for a in arrays)) for i in range(0, len(arrays[0]), size)]
    return np.concatenate([np.asarray(part) for part in parts])


def table(model, examples, protocol=PROTOCOL, **options):
    found = jaxcam.evaluate(
        jaxcam.adapt(model, input="image"),
        examples,
        methods=list(METHODS),
        metrics=["confidence", "localisation", "sanity"],
        protocol=protocol,
        batch_size=32,
        **options,
    )
    print(found.markdown(), flush=True)


def said(logits, x):
    return targets.tokens(x["words"][1:], ignore=scenes.PAD)(logits, x)


def captions(model, num):
    drawn = jax.device_get(scenes.many(scenes.caption, SEED, num))
    greedy = in_parts(model.caption, drawn.image)
    beams = in_parts(lambda images: model.captions(images, width=3).words[:, 0], drawn.image)
    forced = jax.jit(lambda model, image, words: model({"image": image, "words": words}).argmax(-1))
    given_truth = in_parts(lambda *x: forced(model, *x), drawn.image, drawn.words) == drawn.words[:, 1:]
    print("| sentences, greedily, % | by beams of 3, % | words given those before, % |\n|---|---|---|")
    whole = (share((found == drawn.words).all(1)) for found in (greedy, beams))
    print("| " + " | ".join([*whole, share(given_truth[drawn.words[:, 1:] != scenes.PAD])]) + " |\n")

    naming = [(i, t) for i, t in np.argwhere(drawn.names.any(2)) if drawn.word_masks[i, t].any()]
    chosen = np.random.default_rng(0).permutation(len(naming))[:num]
    examples = [
        jaxcam.Example(
            {"image": drawn.image[i], "words": drawn.words[i], "at": np.int32(t - 1)},
            masks=drawn.word_masks[i, t][None],
            label=0,
        )
        for i, t in (naming[at] for at in chosen)
    ]
    # The maps of p are those of log p, but for their scale.
    of_target = jaxcam.Protocol(mask="input", baseline="zero", confidence="target")
    table(model, examples, of_target, target=lambda logits, x: jnp.exp(said(logits, x)[x["at"]]))

    print("| of words that name figures, two groups | energy on its own figures, % | on the others, % | own more, % |")
    print("|---|---|---|---|")
    own_masks = drawn.word_masks[:, 1:]
    other_masks = drawn.masks.any(1)[:, None] & ~own_masks
    counts = drawn.names[:, 1:].any(2) & other_masks.any((2, 3))
    for method in METHODS:
        explained = lambda image, words, method=method: (
            jaxcam.explain(model, {"image": image, "words": words}, target=said, method=method).heatmap
        )
        heat = in_parts(explained, drawn.image, drawn.words, size=50)[counts]
        total = heat.sum((1, 2))
        alive = total > 0
        own, other = ((heat * masks[counts]).sum((1, 2))[alive] / total[alive] for masks in (own_masks, other_masks))
        print(f"| {method} | {100 * own.mean():.1f} | {100 * other.mean():.1f} | {share(own > other)} |", flush=True)
    print()
    painted_over(model, drawn)


def painted_over(model, drawn):
    """The same words about pictures in which the figures of a noun are filled in from around them."""
    i, t = np.array([(i, t) for i, t in np.argwhere(drawn.names.any(2)) if drawn.words[i, t] in NOUNS]).T
    words = drawn.words[i]
    masks = np.stack([ndimage.binary_dilation(mask, iterations=2) for mask in drawn.word_masks[i, t]])
    filled = in_parts(jax.jit(jax.vmap(jaxcam.metrics.imputed)), drawn.image[i], masks)
    print(f"{len(i)} nouns; their figures, with a rim, take {100 * masks.mean():.1f} % of the picture\n")
    print("| | p of the noun, % | heat of its map there, % | maximum there, % | rank correlation with the map before |")
    print("|---|---|---|---|---|")
    for method in METHODS:

        def both(image, words, method=method):
            found = jaxcam.explain(model, {"image": image, "words": words}, target=said, method=method)
            return np.concatenate(
                [np.asarray(found.heatmap).reshape(*found.value.shape, -1), found.value[..., None]], 2
            )

        heats = []
        for name, images in (("as drawn", drawn.image[i]), ("painted over", filled)):
            found = in_parts(both, images, words, size=50)[np.arange(len(i)), t - 1]
            heat, p = found[:, :-1], np.exp(found[:, -1])
            heats.append(heat)
            alive = heat.max(1) > 0
            where = masks.reshape(heat.shape)
            there = (heat * where).sum(1)[alive] / heat.sum(1)[alive]
            top = where[np.arange(len(i)), heat.argmax(1)] & alive
            ranks = [stats.spearmanr(*pair).statistic for pair in zip(*heats, strict=True)] if len(heats) == 2 else [1]
            row = [f"{100 * p.mean():.1f}", f"{100 * there.mean():.1f}", share(top), f"{np.nanmean(ranks):.2f}"]
            print(f"| {method}, {name} | " + " | ".join(row) + " |", flush=True)


def questions(model, num):
    drawn = jax.device_get(scenes.many(scenes.question, SEED, num))
    answer = jax.jit(lambda model, image, words: model({"image": image, "words": words}).argmax(-1))
    pictures = {
        "the picture": drawn.image,
        "another question's": np.roll(drawn.image, 1, 0),
        "a grey one": np.full_like(drawn.image, 0.5),
    }
    print("| right answers, % | all | " + " | ".join(scenes.QUESTION_KINDS) + " |\n|---|" + "---|" * 5)
    for name, images in pictures.items():
        right = in_parts(lambda *x: answer(model, *x), images, drawn.words) == drawn.answer
        by_kind = [share(right[drawn.kind == kind]) for kind in range(len(scenes.QUESTION_KINDS))]
        print("| " + " | ".join([name, share(right), *by_kind]) + " |", flush=True)
    print()
    examples = [
        jaxcam.Example(
            {"image": drawn.image[i], "words": drawn.words[i]},
            label=int(drawn.answer[i]),
            masks=drawn.masks[i][drawn.rests_on[i] & drawn.masks[i].any((1, 2))],
        )
        for i in range(num)
    ]
    table(model, examples)


REPORTS = {"mini_captioner": captions, "mini_vqa": questions}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(REPORTS))
    parser.add_argument("--num", type=int, default=2000)
    parser.add_argument("--weights", type=Path, help="a folder with NAME.safetensors; those in the package if left out")
    given = parser.parse_args()
    print(f"jax {jax.__version__}, jaxcam {jaxcam.__version__}, seed {SEED}, {given.num} inputs\n")
    for name in given.names:
        print(f"## {name}\n")
        weights = models.EMBEDDED if given.weights is None else given.weights / f"{name}.safetensors"
        REPORTS[name](models.WORD_MODELS[name](weights), given.num)


if __name__ == "__main__":
    main()
