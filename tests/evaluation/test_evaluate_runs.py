"""Runs that are interrupted, killed, resumed, shared among devices and processes: the table is the same."""

import inspect
import json
import os
import signal
import socket
import subprocess
import sys
import time
import zlib
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcam
from jaxcam import scenes
from jaxcam.evaluation.journal import Journal, Record
from jaxcam.programs.hashes import program_hash

evaluate = partial(
    inspect.unwrap(jaxcam.evaluate), methods=["grad_cam", "grad_cam_pp"], show_progress=False, num_resamples=20
)


@pytest.fixture(scope="module")
def model():
    return jaxcam.models.mini_resnet()


@pytest.fixture(scope="module")
def whole(model, tmp_path_factory):
    """A run that nothing happened to."""
    results = tmp_path_factory.mktemp("whole") / "rows.jsonl"
    return evaluate(model, scenes.Dataset(13), results=results, batch_size=3), results


class Interrupted:
    """The same scenes, until somebody presses Ctrl-C."""

    def __init__(self, data, after):
        self.data, self.after, self.description = data, after, data.description

    def __len__(self):
        return len(self.data)

    def __getitem__(self, i):
        if i >= self.after:
            raise KeyboardInterrupt
        return self.data[i]


@pytest.mark.parametrize("after", [4, 10, 12])
@pytest.mark.sample(3)
def test_an_interrupted_run_goes_on_where_it_stopped(model, whole, tmp_path, after, monkeypatch):
    results = tmp_path / "rows.jsonl"
    with pytest.raises(KeyboardInterrupt):
        evaluate(model, Interrupted(scenes.Dataset(13), after), results=results, batch_size=3)
    assert [path.name for path in tmp_path.iterdir()] in ([], ["rows.jsonl.part"])
    part = tmp_path / "rows.jsonl.part"
    before = part.read_bytes().splitlines(keepends=True) if part.exists() else []
    begun = []
    begin = jaxcam.evaluation.run._begun
    monkeypatch.setattr(
        jaxcam.evaluation.run, "_begun", lambda job, blocks, views: begun.append(blocks) or begin(job, blocks, views)
    )
    found = evaluate(model, scenes.Dataset(13), results=results, batch_size=3)
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]
    assert results.read_bytes().splitlines(keepends=True)[: len(before)] == before
    assert len(begun) == 5 - max(len(before) - 1, 0) // 3
    assert found.json() == whole[0].json()
    assert list(found.rows()) == list(whole[0].rows())


def test_half_a_line_is_written_again(model, whole, tmp_path):
    lines = whole[1].read_bytes().splitlines(keepends=True)
    results = tmp_path / "rows.jsonl"
    (tmp_path / "rows.jsonl.part").write_bytes(b"".join(lines[:6]) + lines[6][:40])
    found = evaluate(model, scenes.Dataset(13), results=results, batch_size=3)
    assert found.json() == whole[0].json()
    assert sorted(results.read_bytes().splitlines()) == sorted(whole[1].read_bytes().splitlines())


def test_a_complete_file_is_only_read(model, whole, monkeypatch):
    monkeypatch.setattr(jaxcam.evaluation.run, "explained_blocks", None)
    before = whole[1].read_bytes()
    found = evaluate(model, scenes.Dataset(13), results=whole[1], batch_size=3)
    assert found.json() == whole[0].json()
    assert whole[1].read_bytes() == before


def test_without_a_file_the_table_is_the_same(model, whole):
    found = evaluate(model, scenes.Dataset(13), batch_size=3)
    assert found.json() == whole[0].json()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"protocol": jaxcam.Protocol(mask="input", baseline="mean")},
            "protocol.mask: 'pixels' and 'input'; protocol.baseline: 'black' and 'mean'",
        ),
        ({"methods": ["cam"]}, r"methods: \['grad_cam', 'grad_cam_pp'\] and \['cam'\]"),
        ({"batch_size": 4}, "batch_size: 3 and 4"),
        ({"seed": 1}, "seed: 0 and 1"),
        ({"layer": "layer2"}, "layer: None and 'layer2'"),
    ],
)
def test_a_file_of_another_evaluation_is_refused(model, whole, options, message):
    with pytest.raises(ValueError, match=f"holds another evaluation.*{message}.*Choose another file"):
        evaluate(model, scenes.Dataset(13), results=whole[1], **{"batch_size": 3, **options})


@pytest.mark.thorough
def test_other_weights_or_pictures_are_another_evaluation(whole):
    other = jaxcam.models.mini_resnet()
    other.stages["fc"].bias[...] += 1e-3
    with pytest.raises(ValueError, match=r"model\.sha256"):
        evaluate(other, scenes.Dataset(13), results=whole[1], batch_size=3)
    with pytest.raises(ValueError, match=r"dataset\.seed: 0 and 1"):
        evaluate(jaxcam.models.mini_resnet(), scenes.Dataset(13, seed=1), results=whole[1], batch_size=3)


def test_strange_files_are_left_alone(model, tmp_path, unchecked):
    other = tmp_path / "notes.txt"
    other.write_text("my notes\n")
    with pytest.raises(ValueError, match="is not a file that evaluate has written"):
        evaluate(model, scenes.Dataset(2), results=other)
    assert other.read_text() == "my notes\n"
    with pytest.raises(ValueError, match="existing folder"):
        evaluate(model, scenes.Dataset(2), results=tmp_path)


def test_a_run_that_fails_at_once_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match="global average pooling"):
        evaluate(jaxcam.models.mini_vgg(), scenes.Dataset(2), methods=["cam"], results=tmp_path / "rows.jsonl")
    assert not list(tmp_path.iterdir())


@pytest.mark.thorough
def test_other_programs_and_scores_are_another_evaluation(model, tmp_path):
    results, data = tmp_path / "rows.jsonl", scenes.Dataset(2)
    turned = lambda model, x: model(x)[:, ::-1]
    options = {"results": results, "methods": ["grad_cam"]}
    evaluate(jaxcam.adapt(model, apply=lambda model, x: model(x)), data, **options)
    evaluate(jaxcam.adapt(model, apply=lambda model, x: model(x)), data, **options)
    with pytest.raises(ValueError, match=r"model\.program"):
        evaluate(jaxcam.adapt(model, apply=turned), data, **options)
    scored = {"results": tmp_path / "scored.jsonl"}
    evaluate(model, data, **scored, methods={"m": {"method": "grad_cam", "score": lambda s, c: s[c]}})
    with pytest.raises(ValueError, match="requests"):
        evaluate(model, data, **scored, methods={"m": {"method": "grad_cam", "score": lambda s, c: -s[c]}})


@pytest.mark.parametrize(
    "wrapped", [lambda f: f, jax.jit, lambda f: jax.jit(lambda x: jax.jit(f)(x) + 1), jax.checkpoint]
)
def test_what_a_function_has_captured_is_part_of_its_program(wrapped):
    def scaled(last):
        by = jnp.array([1.0, 2.0, last])
        return program_hash(wrapped(lambda x: x * by), jax.ShapeDtypeStruct((3,), by.dtype))

    assert scaled(3.0) == scaled(3.0)
    assert scaled(3.0) != scaled(4.0)


@pytest.mark.thorough
def test_other_pictures_are_another_evaluation(model, tmp_path):
    pictures = [np.asarray(example.image) for example in scenes.Dataset(2)]
    evaluate(model, pictures, results=tmp_path / "rows.jsonl")
    with pytest.raises(ValueError, match=r"dataset\.content"):
        evaluate(model, [pictures[0], 1 - pictures[1]], results=tmp_path / "rows.jsonl")
    streams = [evaluate(model, iter(pictures)) for _ in range(2)]
    with pytest.raises(ValueError, match="nothing tells whether two iterables"):
        streams[0].compare(streams[1])


def test_a_file_changed_by_hand_is_refused(model, whole, tmp_path):
    lines = whole[1].read_bytes().splitlines(keepends=True)
    results = tmp_path / "rows.jsonl"
    results.write_bytes(b"".join(lines[:5] + lines[6:]))
    with pytest.raises(ValueError, match="has 12 of 13 pictures"):
        evaluate(model, scenes.Dataset(13), results=results, batch_size=3)
    results.write_bytes(b"".join([*lines[:5], lines[4], *lines[6:]]))
    with pytest.raises(ValueError, match="has picture 3 twice"):
        evaluate(model, scenes.Dataset(13), results=results, batch_size=3)


HEADER = {"jaxcam_evaluation": 1, "methods": ["a"], "metrics": ["x", "y"]}


def record(i, value=0.5):
    return Record(i, f"image {i}", 3, 2, 0.25, [value], [0], [[value, float("nan")]])


def test_journals_give_back_what_was_written(tmp_path):
    values = [float(np.float32(v)) for v in np.random.default_rng(0).normal(size=9)]
    journal = Journal(tmp_path / "j.jsonl", HEADER)
    journal.append([record(i, v) for i, v in enumerate(values)])
    journal.append([Record(9, "bad ü\n.png", error="cut off")])
    for chunk, bad in journal.rows():
        assert np.float32(chunk.values[:, 0, 0]).tolist() == values
        assert np.isnan(chunk.values[:, 0, 1]).all()
        assert [each.name for each in bad] == ["bad ü\n.png"]
    journal.finish()
    for line in (tmp_path / "j.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_two_runs_do_not_write_one_file(tmp_path):
    journal = Journal(tmp_path / "j.jsonl", HEADER)
    with pytest.raises(ValueError, match="another run is writing"):
        Journal(tmp_path / "j.jsonl", HEADER)
    journal.close()


def test_a_damaged_line_is_named(tmp_path):
    journal = Journal(tmp_path / "j.jsonl", HEADER)
    journal.append([record(0), record(1)])
    journal.close()
    part = tmp_path / "j.jsonl.part"
    lines = part.read_bytes().splitlines(keepends=True)
    part.write_bytes(lines[0] + b"{nonsense\n" + lines[2])
    with pytest.raises(ValueError, match=r"line 2 of .* is damaged"):
        Journal(tmp_path / "j.jsonl", HEADER)


def sealed(text):
    """A line as it is written: its checksum in the place of the last brace."""
    body = text.encode()
    return body[:-1] + f', "crc32": "{zlib.crc32(body):08x}"}}\n'.encode()


def journal_of(tmp_path, *lines):
    (tmp_path / "j.jsonl").write_bytes(b"".join([json.dumps(HEADER).encode() + b"\n", *lines]))
    return Journal(tmp_path / "j.jsonl", HEADER)


ROW = {
    "index": 0,
    "name": "a",
    "class_idx": 3,
    "label": 2,
    "y": 0.25,
    "o": [0.5],
    "status": [0],
    "values": [[0.5, None]],
}
BAD_ROW = {"index": 0, "name": "a", "label": -1, "error": "cut off"}


def test_what_a_line_may_say(tmp_path):
    journal = journal_of(tmp_path, sealed(json.dumps(ROW)), sealed(json.dumps({**BAD_ROW, "index": 1})))
    good, bad = journal.records()
    assert good._replace(values=None) == Record(0, "a", 3, 2, 0.25, [0.5], [0], None)
    np.testing.assert_array_equal(good.values, [[0.5, np.nan]])
    assert bad == Record(1, "a", label=-1, error="cut off", y=bad.y)
    journal.close()


@pytest.mark.parametrize(
    "text",
    [
        "[1, 2]", "3", "{}", "null", '"x"', "[" * 100_000, "{" * 100_000, "{nonsense}",
        *(
            json.dumps({**ROW, **changed})
            for changed in (
                {"index": -1}, {"index": 2.5}, {"index": True}, {"index": 10**30}, {"index": "0"}, {"index": None},
                {"name": 3}, {"name": None}, {"class_idx": 10**12}, {"class_idx": None}, {"label": -2}, {"label": [1]},
                {"y": "x"}, {"y": [1.0]}, {"y": 7}, {"y": float("nan")}, {"y": 1e39}, {"y": True},
                {"o": []}, {"o": [0.5, 0.5]}, {"o": 0.5}, {"o": [[0.5]]}, {"o": None},
                {"status": [10**12]}, {"status": [len(jaxcam.Status)]}, {"status": [-1]}, {"status": []},
                {"status": [0.0]},
                {"values": None}, {"values": [[]]}, {"values": [[0.5, 0.5], [0.5, 0.5]]}, {"values": [["x", 0.5]]},
                {"error": None}, {"more": 1},
            )
        ),
        *(json.dumps({name: value for name, value in ROW.items() if name != left_out}) for left_out in ROW),
        json.dumps({**BAD_ROW, "error": None}),
        json.dumps({**BAD_ROW, "error": ["x"]}),
    ],
    ids=lambda text: text[:20],
)  # fmt: skip
def test_lines_that_say_something_else_are_named(tmp_path, text):
    with pytest.raises(ValueError, match=r"^results: line 2 of .*j.jsonl' is damaged \(.*\): remove the file") as error:
        journal_of(tmp_path, sealed(text))
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 400 + len(str(tmp_path))


def test_every_flipped_bit_is_found(tmp_path):
    line = sealed(json.dumps(ROW))
    for at in range(8 * len(line)):
        changed = bytearray(line)
        changed[at // 8] ^= 1 << at % 8
        with pytest.raises(ValueError, match=r"^results: line [234] of .* is damaged"):
            journal_of(tmp_path, sealed(json.dumps({**ROW, "index": 1})), bytes(changed)).close()


def test_a_header_that_was_changed_is_shown_printable(tmp_path):
    (tmp_path / "j.jsonl").write_text(json.dumps({**HEADER, "x\x7f\n": "y" * 10_000}) + "\n")
    with pytest.raises(ValueError, match=r"holds another evaluation, there and here: x\?") as error:
        Journal(tmp_path / "j.jsonl", HEADER)
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 1000


def test_lines_that_are_missing(tmp_path):
    lines = [sealed(json.dumps({**ROW, "index": i})) for i in range(4)]
    journal_of(tmp_path, *lines).close()
    with pytest.raises(ValueError, match="is damaged"):
        journal_of(tmp_path, *lines[:2], lines[3])
    with pytest.raises(ValueError, match=r"line 5 of .* is damaged \(it has no end\)"):
        journal_of(tmp_path, *lines[:3], lines[3][:-1])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_devices_and_pipes_are_no_results_files(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    os.mkfifo(tmp_path / "j.jsonl.part")
    (tmp_path / "link").symlink_to("/dev/full")
    for path in (Path("/dev/full"), Path("/dev/zero"), tmp_path / "pipe", tmp_path / "link", tmp_path / "j.jsonl"):
        with pytest.raises(ValueError, match="results must be a regular file but"):
            Journal(path, HEADER)


def test_a_file_without_lines_is_not_read_into_memory(tmp_path):
    for start in (b"", b'{"jaxcam_evaluation"'):
        with (tmp_path / "j.jsonl").open("wb") as stream:
            stream.write(start)
            stream.truncate(2**40)
        with pytest.raises(ValueError, match="is not a file that evaluate has written"):
            Journal(tmp_path / "j.jsonl", HEADER)


def test_a_full_disk_is_told_with_the_files_name(tmp_path):
    class Full:
        def __init__(self, stream):
            self.stream = stream

        def __getattr__(self, name):
            return getattr(self.stream, name)

        def flush(self):
            raise OSError(28, "No space left on device")

    journal = Journal(tmp_path / "j.jsonl", HEADER)
    journal._stream = Full(journal._stream)
    with pytest.raises(OSError, match=r"No space left on device: .*j\.jsonl\.part"):
        journal.append([record(0)])
    journal.close()


# Real processes ------------------------------------------------------------------------------------------------------


def started(devices=1, **options):
    environment = {
        **os.environ,
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "JAX_PLATFORMS": "cpu",
    }
    script = Path(__file__).with_name("evaluate_process.py")
    return subprocess.Popen(
        [sys.executable, str(script), json.dumps(options)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def told(process):
    out, error = process.communicate(timeout=300)
    assert process.returncode == 0, error[-2000:]
    return json.loads(out.splitlines()[-1])


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_for_lines(path, number, process):
    end = time.monotonic() + 120
    while not path.exists() or path.read_bytes().count(b"\n") < number:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture(scope="module")
def alone():
    """101 scenes on one device: not a multiple of anything."""
    return told(started(num=101))


@pytest.mark.thorough
@pytest.mark.parametrize("devices", [3, 8])
def test_many_devices_give_the_same_table_to_the_last_digit(alone, devices):
    found = told(started(devices, num=101))
    assert found == {**alone, "devices": devices}


@pytest.mark.thorough
@pytest.mark.parametrize("devices", [1, 2])
def test_two_processes_give_the_same_table_to_the_last_digit(alone, devices, tmp_path):
    shared = {"num": 101, "num_processes": 2, "coordinator": f"127.0.0.1:{free_port()}"}
    results = str(tmp_path / "rows.jsonl")
    processes = [started(devices, **shared, process_id=i, results=results) for i in range(2)]
    found = [told(process) for process in processes]
    assert found[0] == {**alone, "devices": 2 * devices}
    assert found[1]["table"] == alone["table"]


@pytest.mark.thorough
@pytest.mark.parametrize("kind", ["inputs", "pictures"])
def test_other_inputs_and_metrics_give_the_same_table_on_many_devices_and_in_two_processes(kind):
    one = told(started(num=37, kind=kind, batch_size=4))
    assert told(started(3, num=37, kind=kind, batch_size=4)) == {**one, "devices": 3}
    shared = {"num": 37, "kind": kind, "batch_size": 4, "num_processes": 2}
    shared["coordinator"] = f"127.0.0.1:{free_port()}"
    found = [told(process) for process in [started(**shared, process_id=i) for i in range(2)]]
    assert found[0] == {**one, "devices": 2}
    assert found[1]["table"] == one["table"]


@pytest.mark.thorough
def test_a_killed_run_goes_on_to_the_same_table(tmp_path):
    uninterrupted = told(started(num=700))
    results = tmp_path / "rows.jsonl"
    process = started(num=700, results=str(results))
    wait_for_lines(tmp_path / "rows.jsonl.part", 100, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    written = (tmp_path / "rows.jsonl.part").read_bytes().count(b"\n")
    assert 100 <= written < 700
    assert told(started(num=700, results=str(results))) == uninterrupted


@pytest.mark.thorough
def test_a_lost_process_ends_the_run_with_an_error_and_the_next_one_completes_it(tmp_path):
    uninterrupted = told(started(num=1500))
    results = tmp_path / "rows.jsonl"
    shared = {
        "num": 1500, "num_processes": 2, "coordinator": f"127.0.0.1:{free_port()}", "results": str(results),
    }  # fmt: skip
    processes = [started(**shared, process_id=i) for i in range(2)]
    wait_for_lines(tmp_path / "rows.jsonl.part", 100, processes[0])
    processes[1].send_signal(signal.SIGKILL)
    processes[1].communicate()
    _, error = processes[0].communicate(timeout=120)
    assert processes[0].returncode != 0
    assert "RuntimeError: evaluate: process 0 lost the others: one of the 2 processes ended." in error
    assert "pictures are in the results file: start all processes again in the same way" in error
    assert not results.exists()
    # On another number of processes and devices.
    assert told(started(2, num=1500, results=str(results))) == {**uninterrupted, "devices": 2}


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_pictures(tmp_path):
    script = """
import json, sys
import jaxcam

def resident():
    for line in open("/proc/self/status"):
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024

seen = []
class Watched:
    def __init__(self, data): self.data, self.description = data, data.description
    def __len__(self): return len(self.data)
    def __getitem__(self, i):
        if i and i % 400 == 0: seen.append(resident())
        return self.data[i]

data = Watched(jaxcam.scenes.Dataset(2401))
jaxcam.evaluate(jaxcam.models.mini_resnet(), data, num_resamples=20, show_progress=False)
print(json.dumps(seen))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=600, check=True)
    resident = json.loads(done.stdout)
    assert len(resident) == 6
    # The pictures alone would be 75 MiB between the two, their heatmaps as much again; the allocator keeps some 10.
    assert resident[-1] - resident[1] < 30, resident


@pytest.mark.thorough
def test_a_score_and_a_grid_are_those_of_now_and_a_results_file_tells_them_apart(tmp_path):
    random = np.random.default_rng(0)
    kernel, weights = random.normal(size=(3, 5)).astype(np.float32), random.normal(size=(5, 4)).astype(np.float32)
    settings = {"other": 3, "flip": 1}

    def score(logits, class_idx):
        return logits[class_idx] - 2 * logits[settings["other"]]

    def grid(tokens):
        return tokens.reshape(-1, 8, 8, 5)[:, :: settings["flip"]]

    def network(x):
        return jax.nn.relu(x @ kernel).reshape(-1, 64, 5).mean(1) @ weights

    preprocessing = jaxcam.images.Preprocessing(resize=8, crop=8, mean=(0, 0, 0), std=(1, 1, 1))
    net = jaxcam.adapt(network, grid=grid, preprocessing=preprocessing)
    pictures = list(np.rint(255 * random.random((3, 8, 8, 3))).astype(np.float32) / 255)  # of 8 bits
    methods = {"here": {"method": "hires_cam", "score": score}}
    run = lambda results=None: evaluate(net, pictures, methods=methods, results=results)
    values = lambda: [row["here/o"] for row in run().rows()]
    run(tmp_path / "rows.jsonl")
    for name, value in (("other", 0), ("flip", -1)):
        before = values()
        settings[name] = value
        images = np.stack(pictures)
        found = jaxcam.explain(net, images, method="hires_cam", score=lambda *args: score(*args))
        masked = jax.nn.softmax(network(images * np.asarray(found.heatmap)[..., None]))
        expected = np.asarray(masked)[np.arange(3), np.asarray(found.class_idx)]
        after = values()
        np.testing.assert_allclose(after, np.where(np.asarray(found.status) == 0, expected, np.nan), rtol=1e-5)
        assert not np.allclose(after, before, equal_nan=True)
        with pytest.raises(ValueError, match="another evaluation"):
            run(tmp_path / "rows.jsonl")
        settings.update(other=3, flip=1)
