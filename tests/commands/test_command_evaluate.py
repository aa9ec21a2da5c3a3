"""`python -m jaxcam evaluate` as its user runs it: a folder or scenes in, tables, files, errors and exit codes out."""

import csv
import functools
import inspect
import io
import json
import math
import os
from functools import partial

import numpy as np
import pytest
from as_typed import run as typed
from PIL import Image

import jaxcam
from jaxcam import models, scenes
from jaxcam.commands import evaluate as evaluate_command
from jaxcam.evaluation import run as evaluation_run

# Small and the same everywhere, so that what is compiled for one test serves the others.
SMALL = ("--resamples", 10, "--batch-size", 3)
SCENES = ("scenes", "--num", 6, *SMALL)
direct = partial(inspect.unwrap(jaxcam.evaluate), num_resamples=10, batch_size=3, show_progress=False)


run = partial(typed, "evaluate")


def files_in(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module", autouse=True)
def networks_are_read_once():
    """A process runs one command and reads one network; here 95 commands share three."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate_command, "network", functools.cache(evaluate_command.network))
        yield


@pytest.fixture(scope="module")
def model():
    return models.mini_resnet()


@pytest.fixture(scope="module")
def expected(model):
    return direct(model, scenes.Dataset(6))


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A complete results file of SCENES, so that the tests of --out need not evaluate again."""
    path = tmp_path_factory.mktemp("results") / "rows.jsonl"
    code, out, err = run(*SCENES, "--results", path)
    assert (code, err) == (0, "")
    return path, out


LEFT, RIGHT = 10, 22  # of a picture; the network sees the middle 64 of its 96 columns


@pytest.fixture
def photos(tmp_path):
    """Wide pictures with something black at either side, and what is known about them in another language."""
    folder = tmp_path / "photos"
    folder.mkdir()
    entries = []
    for name, example in zip(("a.png", "b.jpg", "c.png"), scenes.Dataset(3), strict=True):
        wide = np.pad(np.round(255 * example.image), ((0, 0), (LEFT, RIGHT), (0, 0)))
        Image.fromarray(np.uint8(wide)).save(folder / name, quality=95)
        boxes = (example.boxes + np.array([LEFT, 0, LEFT, 0], np.float32)).tolist()
        entries.append({"file": name, "label": f"Klasse {example.label}", "boxes": boxes})
    (tmp_path / "boxes.json").write_text(json.dumps(entries))
    names = {f"Klasse {i}": name if i % 2 else i for i, name in enumerate(scenes.CLASS_NAMES)}
    (tmp_path / "classes.json").write_text(json.dumps(names))
    return folder


def test_the_table_is_the_one_that_evaluate_returns(expected, results):
    code, out, err = run(*SCENES)
    assert (code, err) == (0, "")
    assert out == f"{expected}\n" == results[1]
    assert "\ngrad_cam_pp " in out  # the default methods


def test_every_option_reaches_evaluate(expected, photos, monkeypatch):
    given = {}

    def spy(model, dataset, **options):
        given.update(options, model=model, dataset=dataset)
        return expected

    monkeypatch.setattr(evaluate_command, "evaluate", spy)
    code, _, _ = run(
        photos, "--model", "mini_vgg", "--methods", " cam, grad_cam_pp:alphas=exact", "--metrics", "shape, sanity",
        "--layer", "relu4", "--annotations", "boxes.json", "--classes", photos.parent / "classes.json",
        "--confidence", "logit", "--mask", "input", "--class", "true", "--normalisation", "min_max",
        "--resize", "cubic", "--results", "rows.jsonl", "--batch-size", 5, "--workers", 0, "--resamples", 7,
        "--seed", 3,
    )  # fmt: skip
    assert code == 0
    assert isinstance(given.pop("model"), models.MiniVGG)
    assert given == {
        "dataset": str(photos),
        "methods": ["cam", "grad_cam_pp:alphas=exact"],
        "metrics": ["shape", "sanity"],
        "protocol": jaxcam.Protocol(
            confidence="logit", mask="input", baseline="mean", class_idx="true", normalisation="min_max", resize="cubic"
        ),
        "annotations": "boxes.json",
        "classes": json.loads((photos.parent / "classes.json").read_text()),
        "layer": "relu4",
        "results": "rows.jsonl",
        "batch_size": 5,
        "num_workers": 0,
        "num_resamples": 7,
        "seed": 3,
        "show_progress": True,
    }
    assert run("scenes", "--metrics", "all", "--baseline", "blur", "--num", 4, "--seed", 9, "--instances", 2)[0] == 0
    assert isinstance(given["model"], models.MiniResNet)
    assert given["dataset"] == scenes.Dataset(4, seed=9, num_instances=2)
    assert given["metrics"] == "all"
    assert given["protocol"] == jaxcam.Protocol(baseline="blur")
    assert run("scenes", "--pairs")[0] == 0
    assert given["dataset"] == scenes.Dataset(1000, kind="pair")
    # What --help promises where nothing is said.
    defaults = {name: p.default for name, p in inspect.signature(jaxcam.evaluate).parameters.items()}
    assert (given["methods"], given["metrics"]) == (defaults["methods"], list(defaults["metrics"]))
    assert given["protocol"] == jaxcam.Protocol()
    for name in ("batch_size", "num_workers", "num_resamples", "seed", "layer", "results", "classes"):
        assert given[name] == defaults[name]


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("options", "data"),
    [(["--instances", 4], {"num_instances": 4}), (["--pairs"], {"kind": "pair"}), (["--seed", 5], {"seed": 5})],
)
def test_scenes_as_asked_for(model, options, data, expected):
    code, out, err = run(*SCENES, *options)
    found = direct(model, scenes.Dataset(6, **data), seed=data.get("seed", 0))
    assert (code, err) == (0, "")
    assert out == f"{found}\n"
    assert [row["y"] for row in found.rows()] != [row["y"] for row in expected.rows()]


def test_a_published_protocol_by_its_name(expected, monkeypatch):
    given = {}
    monkeypatch.setattr(evaluate_command, "evaluate", lambda *_, **options: given.update(options) or expected)
    assert run("scenes", "--protocol", "shapley_cam")[0] == 0
    assert given["protocol"] == jaxcam.Protocol(
        mask="input", baseline="mean", normalisation="min_max_twice", epsilon=1e-7, class_idx="true"
    )


@pytest.mark.thorough
def test_another_protocol_and_network():
    arguments = ("--model", "mini_vgg", "--methods", "grad_cam", "--metrics", "confidence", "--mask", "input")
    code, out, err = run(*SCENES, *arguments, "--class", "true")
    protocol = jaxcam.Protocol(mask="input", baseline="mean", class_idx="true")
    options = {"methods": ["grad_cam"], "metrics": ["confidence"], "protocol": protocol}
    assert (code, err) == (0, "")
    assert out == f"{direct(models.mini_vgg(), scenes.Dataset(6), **options)}\n"
    assert "mask on the normalised input" in out


def cells_of(markdown):
    """The first table of a Markdown text: for each row, its cells by their headers."""
    lines = [line.strip("| ").split(" | ") for line in markdown.splitlines() if line.startswith("|")]
    header, rule, *rows = lines
    assert set("".join(rule)) <= set("-: ")
    return [dict(zip(header, row, strict=True)) for row in rows[: [len(r) == len(header) for r in rows].count(True)]]


@pytest.mark.parametrize("suffix", [".json", ".csv", ".md", ".txt", ".JSON"])
@pytest.mark.sample(5)
def test_the_table_as_a_file(results, expected, tmp_path, suffix):
    out_file = tmp_path / f"table{suffix}"
    code, out, err = run(*SCENES, "--results", results[0], "--out", out_file)
    assert (code, err, out) == (0, "", results[1])
    assert files_in(tmp_path) == [out_file.name]
    written = out_file.read_text(encoding="utf-8")
    figures = {(m, k): expected[m, k] for m in expected.methods for k in expected.metrics}
    titles = {column.key: f"{column.title} {column.unit}".strip() for column in expected.table.columns}
    if suffix.lower() == ".json":
        read = json.loads(written)
        assert (read["images"], read["bad_images"], read["resamples"]) == (6, 0, 10)
        rows = {(row["method"], row["metric"]): row for row in read["rows"]}
        assert rows.keys() == figures.keys()
        for at, figure in figures.items():
            none = math.isnan(figure.value)
            assert (rows[at]["mean"], rows[at]["low"]) == ((None, None) if none else (figure.value, figure.low))
            assert rows[at]["count"] == figure.images
    elif suffix == ".csv":
        rows = {(row["method"], row["metric"]): row for row in csv.DictReader(io.StringIO(written))}
        assert rows.keys() == figures.keys()
        for at, figure in figures.items():
            read = [float(rows[at][name] or "nan") for name in ("mean", "low", "high")]
            np.testing.assert_array_equal(read, figure[:3])
    elif suffix == ".md":
        first = cells_of(written.split("- Win %")[0])
        assert [row["method"] for row in first] == list(expected.methods)
        ways = {column.key: f" ({column.better})" if column.better else "" for column in expected.table.columns}
        for row in first:
            for key, title in titles.items():
                shown = row[title + ways[key]].strip("*").split(" ")[0]
                digits = 2 if title.endswith("%") else 3
                assert float(shown) == pytest.approx(figures[row["method"], key].value, abs=0.501 * 10**-digits)
    else:
        assert written.strip() == out.strip()


@pytest.mark.thorough
def test_a_table_is_written_whole_or_not_at_all(results, tmp_path, monkeypatch):
    out_file = tmp_path / "table.md"
    out_file.write_text("of last week")
    assert run(*SCENES, "--results", results[0], "--out", out_file, "--methods", "cam")[0] == 2  # another evaluation
    assert out_file.read_text() == "of last week"

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    code, out, err = run(*SCENES, "--results", results[0], "--out", out_file)
    assert (code, out) == (2, results[1])
    assert err == f"jaxcam: --out: [Errno 28] No space left on device: '{out_file}'\n"
    assert out_file.read_text() == "of last week"
    monkeypatch.undo()
    assert run(*SCENES, "--results", results[0], "--out", out_file)[0] == 0
    assert "| grad_cam_pp |" in out_file.read_text()
    assert files_in(tmp_path) == ["table.md"]


def test_damaged_pictures_are_named_and_the_others_evaluated(photos, model, tmp_path):
    good = str(direct(model, photos, num_workers=0))
    (photos / "cut.png").write_bytes((photos / "a.png").read_bytes()[:300])
    (photos / "empty.jpg").write_bytes(b"")
    (photos / "a\x1b[31m\nb.png").write_text("no picture")
    (photos / "notes.txt").write_text("left alone")
    code, out, err = run(photos, *SMALL, "--workers", 0, "--out", tmp_path / "table.json")
    assert code == 1
    note, *lines = err.splitlines()
    assert note.startswith("jaxcam: mini_resnet knows drawn figures only (disc, ")
    assert len(lines) == 3
    reasons = {r"a\x1b[31m\nb.png": "not a JPEG", "cut.png": "truncated", "empty.jpg": "is empty"}
    for line, (name, reason) in zip(lines, reasons.items(), strict=True):
        assert line.startswith(f"jaxcam: {name}: ")
        assert reason in line
    assert "\x1b" not in out + err
    # Only the count of the bad ones is another: intervals go by the number of a picture, and that moved.
    means = [line.split("[")[0] for line in good.splitlines() if line.startswith("grad_cam")]
    assert [line.split("[")[0] for line in out.splitlines() if line.startswith("grad_cam")] == means
    assert "Images: 3; bad images, in no figure: 3." in out
    assert json.loads((tmp_path / "table.json").read_text())["bad_images"] == 3
    # They are in the results file, and told again when it is read.
    with_file = (photos, *SMALL, "--workers", 0, "--results", tmp_path / "rows.jsonl")
    assert run(*with_file) == run(*with_file) == (code, out, err)


def test_a_long_list_of_damaged_pictures_is_cut(photos):
    for i in range(13):
        (photos / f"x{i:02}.png").write_text("")
    code, out, err = run(photos, *SMALL, "--workers", 0)
    assert code == 1
    lines = err.splitlines()[1:]
    assert [line.split(": ")[1] for line in lines[:-1]] == [f"x{i:02}.png" for i in range(10)]
    assert lines[-1] == "jaxcam: and 3 more; --results keeps the list"
    assert "bad images, in no figure: 13." in out


def test_workers_decode_the_same_pictures(photos):
    (photos / "cut.png").write_bytes((photos / "a.png").read_bytes()[:300])
    assert run(photos, *SMALL, "--workers", 1) == run(photos, *SMALL, "--workers", 0)


@pytest.mark.thorough
def test_annotations_say_what_is_in_the_pictures(photos, model, tmp_path):
    (photos / "d.png").write_bytes((photos / "a.png").read_bytes())  # nothing is known about it
    rows_file = tmp_path / "rows.jsonl"
    about = ("--annotations", tmp_path / "boxes.json", "--classes", tmp_path / "classes.json", "--results", rows_file)
    code, out, err = run(photos, *SMALL, "--workers", 0, *about)
    assert (code, err) == (0, "")
    header, *rows = map(json.loads, rows_file.read_text().splitlines())
    assert [row["name"] for row in rows] == ["a.png", "b.jpg", "c.png"]
    energies = []
    for row, example in zip(rows, scenes.Dataset(3), strict=True):
        assert row["label"] == example.label
        seen = jaxcam.read_image(photos / row["name"])[:, 16:80]
        found = jaxcam.explain(model, model.preprocessing.normalise(seen)[None], method="grad_cam")
        assert row["class_idx"] == int(found.class_idx[0])
        assert row["y"] == pytest.approx(float(found.confidence[0]), abs=1e-5)
        inside = np.zeros((64, 64), bool)
        for x0, y0, x1, y1 in np.int64(example.boxes):
            inside[y0:y1, max(x0 + LEFT - 16, 0) : x1 + LEFT - 16] = True
        energies.append(float(found.heatmap[0][inside].sum() / found.heatmap[0].sum()))
        assert row["class_idx"] == row["label"]  # or its boxes would not count
        assert row["values"][0][header["metrics"].index("energy")] == pytest.approx(energies[-1], abs=1e-4)
    (line,) = [line for line in table_lines(out, "energy in box %") if line.startswith("grad_cam ")]
    assert f" {100 * np.mean(energies):.1f}" in line
    without = run(photos, *SMALL, "--workers", 0)[1]
    assert "energy in box %" not in without
    assert "Images: 4;" in without


def table_lines(text, header):
    """The lines of the block of a table with this header."""
    (block,) = [block for block in text.split("\n\n") if header in block]
    return block.splitlines()


def test_annotated_pictures_that_are_missing_are_bad(photos, tmp_path):
    (photos / "b.jpg").unlink()
    about = ("--annotations", tmp_path / "boxes.json", "--classes", tmp_path / "classes.json")
    code, out, err = run(photos, *SMALL, "--workers", 0, *about)
    assert code == 1
    assert err.startswith("jaxcam: b.jpg: 'b.jpg' is annotated (")
    assert "there is no such image file" in err
    assert err.count("\n") == 1
    assert "Images: 2; bad images, in no figure: 1." in out


def test_a_run_that_was_ended_goes_on(results, tmp_path, monkeypatch):
    path, out = results
    lines = path.read_bytes().splitlines(keepends=True)
    (tmp_path / "rows.jsonl.part").write_bytes(b"".join(lines[:4]) + lines[4][:20])
    begun = []
    begin = evaluation_run._begun

    def noted(job, blocks, views):
        begun.append(blocks)
        return begin(job, blocks, views)

    monkeypatch.setattr(evaluation_run, "_begun", noted)
    assert run(*SCENES, "--results", tmp_path / "rows.jsonl") == (0, out, "")
    assert begun == [[1]]  # the second block of three
    assert files_in(tmp_path) == ["rows.jsonl"]
    assert sorted((tmp_path / "rows.jsonl").read_bytes().splitlines()) == sorted(path.read_bytes().splitlines())


def test_a_complete_results_file_is_only_read(results, monkeypatch):
    path, out = results
    before = path.read_bytes()
    monkeypatch.setattr(evaluation_run, "_begun", None)
    assert run(*SCENES, "--results", path) == (0, out, "")
    assert path.read_bytes() == before


def test_other_intervals_from_the_same_file(results, model, monkeypatch):
    monkeypatch.setattr(evaluation_run, "_begun", None)
    code, out, _ = run(*SCENES, "--results", results[0], "--resamples", 0)
    assert code == 0
    assert "Without resamples means that are no shares have no intervals" in " ".join(out.split())
    assert "bootstrap" not in out


def test_ctrl_c_ends_with_130_and_keeps_what_is_there(tmp_path, results, monkeypatch):
    begin = evaluation_run._begun

    def begun(job, blocks, views):
        if blocks == [1]:  # the second of two
            raise KeyboardInterrupt
        return begin(job, blocks, views)

    monkeypatch.setattr(evaluation_run, "_begun", begun)
    code, out, _ = run(*SCENES, "--results", tmp_path / "rows.jsonl", "--out", tmp_path / "table.md")
    assert (code, out) == (130, "")
    monkeypatch.undo()
    assert "table.md" not in files_in(tmp_path)
    assert run(*SCENES, "--results", tmp_path / "rows.jsonl") == (0, results[1], "")


WRONG = [
    (["nowhere"], "'nowhere' does not exist", "check the path"),
    (["photos/a.png"], "'photos/a.png' is a file", "give its folder"),
    (["empty"], "no images in the folder 'empty'", "looked for .jpg"),
    ([], "arguments are required", "FOLDER|scenes"),
    (["scenes", "more"], "there is no place for more", ""),
    (["scenes", "--colour"], "there is no option --colour", ""),
    (["scenes", "--num", "0"], "--num", "must be a whole number from 1, not '0'"),
    (["scenes", "--num", "many"], "--num", "must be a whole number from 1, not 'many'"),
    (["scenes", "--instances", "5"], "--instances", "must be a whole number from 1 to 4, not '5'"),
    (["photos", "--num", "5"], "--num, --instances and --pairs", "leave them out for a folder"),
    (["photos", "--instances", "2"], "--num, --instances and --pairs", "leave them out for a folder"),
    (["photos", "--pairs"], "--num, --instances and --pairs", "leave them out for a folder"),
    (["scenes", "--instances", "2", "--pairs"], "--instances", "leave --pairs out"),
    (["scenes", "--methods", "gradcam"], "--methods", "use one of 'grad_cam_pp', 'grad_cam', 'cam'"),
    (["scenes", "--methods", "grad_cam,"], "--methods", "use one of 'grad_cam_pp'"),
    (["scenes", "--methods", "cam,cam"], "--methods", "'cam' twice"),
    (["scenes", "--methods", "grad_cam_pp:alpha=exact"], "--methods", "did you mean alphas?"),
    (["scenes", "--methods", "grad_cam_pp:alphas=most"], "alphas='most'", "use one of 'auto', 'exact', 'closed_form'"),
    (["scenes", "--methods", "grad_cam_pp:alphas"], "--methods", "must look like grad_cam_pp:alphas=exact"),
    (["scenes", "--methods", "cam", "--model", "mini_vgg"], "MiniVGG has no cam_layer", 'use method="grad_cam"'),
    (["scenes", "--metrics", "iou"], "--metrics", "some of 'confidence', 'localisation'"),
    (["scenes", "--layer", "nowhere"], "--layer='nowhere'", "layer3"),
    (["scenes", "--layer", "fc"], "--layer='fc'", "layer3"),
    (["scenes", "--model", "vgg"], "--model: there is no network 'vgg'", "did you mean vgg"),
    (["scenes", "--model", "resnet18"], "--model resnet18 needs --weights", "a .safetensors or .pth file"),
    (["scenes", "--weights", "no.safetensors"], "--weights: there is no file", "give the path of a .safetensors file"),
    (["scenes", "--annotations", "boxes.json"], "--annotations", "are for folders"),
    (["scenes", "--classes", "classes.json"], "--classes", "are for folders"),
    (["photos", "--classes", "classes.json"], "--classes", "without annotations leave it out"),
    (["photos", "--annotations", "no.json"], "--annotations 'no.json' do not exist", "check the path"),
    (["photos", "--annotations", "broken.json"], "--annotations 'broken.json'", "not valid JSON"),
    (["photos", "--annotations", "empty"], "--annotations 'empty'", "for JSON name the file itself"),
    (["photos", "--annotations", "boxes.json"], "'Klasse ", "is with --classes FILE, in JSON: {"),
    (["photos", "--annotations", "others.json"], "'others.json' names", "is it the right folder?"),
    (["photos", "--annotations", "boxes.json", "--classes", "no.json"], "--classes: 'no.json'", "cannot be read"),
    (["photos", "--annotations", "boxes.json", "--classes", "broken.json"], "--classes: 'broken.json'", "not JSON"),
    (["photos", "--annotations", "boxes.json", "--classes", "boxes.json"], "--classes", 'object, as {"dog": 207}'),
    (["photos", "--annotations", "boxes.json", "--classes", "wrong.json"], "--classes['Klasse 6'] is 'Herz'", "index"),
    (["scenes", "--confidence", "log"], "--confidence", "choose from 'probability', 'logit'"),
    (["scenes", "--mask", "all"], "--mask", "choose from 'pixels', 'input'"),
    (["scenes", "--baseline", "white"], "--baseline", "choose from 'black', 'mean', 'blur'"),
    (["scenes", "--mask", "input", "--baseline", "black"], "--baseline black", "leave it out"),
    (["scenes", "--class", "heart"], "--class", "choose from 'predicted', 'true'"),
    (["scenes", "--normalisation", "sum"], "--normalisation", "choose from 'max', 'min_max'"),
    (["scenes", "--protocol", "ours"], "--protocol", "choose from 'paper', 'torch_cam'"),
    (["scenes", "--protocol", "torch_cam", "--mask", "pixels"], "--protocol torch_cam", "leave one of the two out"),
    (["scenes", "--resize", "area"], "--resize", "choose from 'linear', 'nearest', 'cubic'"),
    (["scenes", "--results", "notes.txt"], "--results: 'notes.txt' is not a file that evaluate", "choose another name"),
    (["scenes", "--results", "broken.json"], "--results: 'broken.json' is not a file that evaluate", "another name"),
    (["scenes", "--results", "nothing.txt"], "--results: 'nothing.txt' is not a file that evaluate", "another name"),
    (["scenes", "--results", "half"], "--results: 'half' is not a file that evaluate", "another name"),
    (["scenes", "--results", "notes.md", "--out", "notes.md"], "--out and --results are the same", "another name"),
    (["scenes", "--results", "no/rows.jsonl"], "--results", "a file in an existing folder, not 'no/rows.jsonl'"),
    (["scenes", "--results", "empty"], "--results", "must be a file in an existing folder, not 'empty'"),
    (["scenes", "--out", "table.png"], "--out", "must end in one of .txt, .md, .csv, .json, not 'table.png'"),
    (["scenes", "--out", "no/table.md"], "--out", "there is no folder 'no'"),
    (["scenes", "--out", "folder.md"], "--out", "'folder.md' is a folder"),
    (["scenes", "--batch-size", "0"], "--batch-size", "must be a whole number from 1"),
    (["scenes", "--workers", "-1"], "--workers", "must be a whole number from 0"),
    (["scenes", "--resamples", "1.5"], "--resamples", "must be a whole number from 0"),
    (["scenes", "--seed", "-1"], "--seed", "must be a whole number from 0"),
    (["scenes", "--seed", str(2**32)], "--seed", "4294967295"),
    (["scenes", "--coordinator", "localhost:1"], "--coordinator, --num-processes and --process-id", "give all three"),
    (
        ["scenes", "--coordinator", "localhost:1", "--num-processes", "2", "--process-id", "2"],
        "--process-id", "must be below --num-processes 2, not 2",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "what", "remedy"), WRONG, ids=[" ".join(a) or "nothing" for a, _, _ in WRONG])
def test_wrong_calls_are_one_line_and_exit_code_2(arguments, what, remedy, photos, tmp_path, monkeypatch, unchecked):
    monkeypatch.chdir(tmp_path)
    for folder in ("empty", "folder.md"):
        (tmp_path / folder).mkdir()
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "notes.txt").write_text("mine\n")
    (tmp_path / "nothing.txt").touch()
    (tmp_path / "half.part").write_text("mine, without an end of line")
    (tmp_path / "wrong.json").write_text('{"Klasse 6": "Herz"}')
    (tmp_path / "others.json").write_text('[{"file": "z.png", "label": "heart"}]')
    before = {path: path.is_dir() or path.read_bytes() for path in tmp_path.rglob("*")}
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert what in err
    assert remedy in err
    assert err.count("\n") == 1
    assert {path: path.is_dir() or path.read_bytes() for path in tmp_path.rglob("*")} == before


def test_help_names_every_option_and_fits_a_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = run("--help")
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    assert "Exit codes: 0; 1 if a picture could not be read" in out
    for option in {option for arguments, *_ in WRONG for option in arguments if option.startswith("--")} - {"--colour"}:
        assert f"{option} " in out.split("\n\n", 1)[1] or f"{option}\n" in out.split("\n\n", 1)[1]


@pytest.mark.thorough
def test_a_layer_by_its_number_is_that_convolution(model):
    code, out, _ = run("scenes", "--num", 3, "--layer", "-1", "--resamples", 10, "--batch-size", 3)
    assert code == 0
    assert "at layer -1" in out
    assert out.strip() == str(direct(model, scenes.Dataset(3), layer=-1)).strip()
