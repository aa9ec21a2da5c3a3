"""Weights from a Hugging Face repo: a real HTTP server on loopback that speaks the endpoints needed (parity)."""

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from jaxcam import models
from jaxcam.models import weights

COMMIT = "1" * 40


class Server(http.server.ThreadingHTTPServer):
    """Serves `files`, by "owner/name/revision/file"; what is to go wrong is in `broken`, by the same key.

    That is a status to answer, with the Hub's name for it or without, or "truncated", or "hanging".
    """

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.broken, self.downloads = {}, {}, []
        self.is_hanging, self.stop = threading.Event(), threading.Event()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.answer(with_body=False)

    def do_GET(self):
        self.answer(with_body=True)

    def answer(self, *, with_body):
        parts = self.path.split("?")[0].strip("/").split("/")
        if parts[:2] == ["api", "models"] and parts[4:5] == ["tree"]:
            return self.list("/".join([*parts[2:4], parts[5], ""]))
        if len(parts) < 5 or parts[2] != "resolve":
            return self.refuse(404, "RepoNotFound")
        owner, name, _, revision, *rest = parts
        key = "/".join([owner, name, revision, *rest])
        broken = self.server.broken.get(key)
        if isinstance(broken, tuple):
            return self.refuse(*broken)
        if not any(k.startswith(f"{owner}/{name}/") for k in self.server.files):
            return self.refuse(404, "RepoNotFound")
        if not any(k.startswith(f"{owner}/{name}/{revision}/") for k in self.server.files):
            return self.refuse(404, "RevisionNotFound")
        if key not in self.server.files:
            return self.refuse(404, "EntryNotFound")
        body = self.server.files[key]
        start = int(self.headers["Range"].removeprefix("bytes=").split("-")[0]) if self.headers["Range"] else 0
        self.send_response(206 if start else 200)
        self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header(
            "X-HF-Warning", "unauthenticated; Warning: You are sending unauthenticated requests to the Hub."
        )
        self.send_header("Content-Length", str(len(body) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.end_headers()
        if with_body:
            self.server.downloads.append(key)
            self.wfile.write(body[start:] if broken is None else body[start : len(body) // 2])
            if broken == "hanging":
                self.server.is_hanging.set()
                self.server.stop.wait(60)
            self.close_connection = broken is not None
        return None

    def list(self, prefix):
        """The files of a repo at a revision."""
        files = [key.removeprefix(prefix) for key in self.server.files if key.startswith(prefix)]
        body = json.dumps([{"type": "file", "path": path, "size": 1, "oid": "0" * 40} for path in files]).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def refuse(self, status, code):
        self.send_response(status)
        if code is not None:
            self.send_header("X-Error-Code", code)
        if code == "EntryNotFound":
            self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_arguments):
        pass


@pytest.fixture
def server():
    server = Server()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def repo(server, tmp_path):
    """A small checkpoint, served as owner/small."""
    weights.save(models.resnet20(None, num_classes=3, seed=5), tmp_path / "w.safetensors")
    config = {"architecture": "resnet20", "pretrained_cfg": {"input_size": [3, 40, 40], "crop_pct": 0.8}}
    server.files["owner/small/main/model.safetensors"] = (tmp_path / "w.safetensors").read_bytes()
    server.files["owner/small/main/config.json"] = json.dumps(config).encode()
    return server


SCRIPT = """
import sys, numpy as np, jaxcam
model = jaxcam.models.resnet20(sys.argv[1])
print(model.preprocessing.resize, repr(float(np.asarray(model.stages["linear"].kernel[...]).sum(dtype=np.float64))))
"""


def process(server, cache, weights, **environment):
    """A fresh process, which knows of the server by environment variables only, as a user's does."""
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, weights],
        env=os.environ
        | {"HF_ENDPOINT": server.url, "HF_HOME": str(cache), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(server, cache, weights, **environment):
    """The process, done."""
    with process(server, cache, weights, **environment) as running:
        stdout, stderr = running.communicate(timeout=120)
    return subprocess.CompletedProcess(running.args, running.returncode, stdout, stderr)


def message(done):
    """The last line of the error: everything that a user needs."""
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ValueError: weights: "), done.stderr
    return last


def cached(cache, suffix=""):
    return sorted(path.name for path in cache.rglob(f"*{suffix}") if path.is_file())


pytestmark = pytest.mark.parity
huggingface_hub = pytest.importorskip("huggingface_hub")


def test_download_then_cache_then_offline(repo, tmp_path):
    expected = np.asarray(models.resnet20(None, num_classes=3, seed=5).stages["linear"].kernel[...]).sum(
        dtype=np.float64
    )
    for environment in ({}, {}, {"HF_HUB_OFFLINE": "1"}):
        done = run(repo, tmp_path / "cache", "owner/small", **environment)
        assert done.returncode == 0, done.stderr
        assert done.stdout.split() == ["50", repr(float(expected))]
        assert done.stderr == ""
    # Each file once: the second run asked whether it is still the same, the third did not ask.
    assert sorted(repo.downloads) == ["owner/small/main/config.json", "owner/small/main/model.safetensors"]
    repo.shutdown()
    repo.server_close()  # and without a network
    assert run(repo, tmp_path / "cache", "owner/small").stdout.split() == ["50", repr(float(expected))]


def test_a_repo_without_config_and_a_revision(repo, tmp_path):
    repo.files["owner/small/v2/model.safetensors"] = repo.files["owner/small/main/model.safetensors"]
    # Offline, too, it is known that there is no config.json.
    for environment in ({}, {"HF_HUB_OFFLINE": "1"}):
        done = run(repo, tmp_path / "cache", "owner/small@v2", **environment)
        assert done.stdout.split()[:1] == ["32"], done.stderr
    assert "the repo 'owner/small' has no revision 'v3'" in message(run(repo, tmp_path / "cache", "owner/small@v3"))


def test_what_is_not_there(repo, tmp_path):
    repo.files["owner/torch/main/.gitattributes"] = b"x"
    repo.files["owner/torch/main/pytorch_model.bin"] = b"x"
    found = message(run(repo, tmp_path, "owner/torch"))
    assert "the repo 'owner/torch' has no model.safetensors, but pytorch_model.bin; name another" in found
    assert "there is no repo 'owner/large' at Hugging Face" in message(run(repo, tmp_path, "owner/large"))
    assert "no name of a Hugging Face repo" in message(run(repo, tmp_path, "owner/a--b"))
    found = message(run(repo, tmp_path, "owner/small", HF_HUB_OFFLINE="1"))
    assert "'owner/small' is not in the cache and cannot be downloaded" in found
    assert "HF_HUB_OFFLINE" in found


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ((401, "GatedRepo"), "is only for those whom its owners let in; ask for access"),
        ((403, "GatedRepo"), "is only for those whom its owners let in; ask for access"),
        ((401, None), "or log in with `hf auth login` if it is private"),
    ],
)
def test_a_repo_that_is_not_open_to_all(repo, tmp_path, answer, expected):
    repo.broken["owner/small/main/model.safetensors"] = answer
    assert expected in message(run(repo, tmp_path / "cache", "owner/small"))


def test_what_does_not_come_leaves_nothing_behind(server, repo, tmp_path):
    """All at once, as huggingface_hub waits and tries again for some ten seconds each time."""
    away = Server()
    away.shutdown()
    away.server_close()
    body, config = (repo.files[f"owner/small/main/{name}"] for name in ("model.safetensors", "config.json"))
    for name in ("down", "short", "unconfigured"):
        repo.files[f"owner/{name}/main/model.safetensors"] = body
        repo.files[f"owner/{name}/main/config.json"] = config
    repo.broken["owner/down/main/model.safetensors"] = (503, None)
    repo.broken["owner/short/main/model.safetensors"] = "truncated"
    repo.broken["owner/unconfigured/main/config.json"] = (500, None)
    caches = {name: tmp_path / name for name in ("away", "down", "short", "unconfigured")}
    with ThreadPoolExecutor() as pool:
        done = pool.map(lambda name: run(away if name == "away" else repo, caches[name], f"owner/{name}"), caches)
        found = dict(zip(caches, map(message, done), strict=True))
    assert "'owner/away' is not in the cache and cannot be downloaded" in found["away"]
    assert "'owner/down' could not be downloaded (the server answers 503); try again" in found["down"]
    assert "'owner/short' could not be downloaded" in found["short"]
    # Never without its config: that would be another network's preprocessing.
    assert (
        "the config.json of 'owner/unconfigured' could not be downloaded (the server answers 500)"
        in (found["unconfigured"])
    )
    for name in ("away", "down", "short"):
        assert cached(caches[name], ".safetensors") == []
        assert cached(caches[name], ".incomplete") == []
    repo.broken.clear()
    for name in ("short", "unconfigured"):
        assert run(repo, caches[name], f"owner/{name}").stdout.split()[:1] == ["50"]


def test_a_download_that_was_killed_is_begun_again(repo, tmp_path):
    cache, key = tmp_path / "cache", "owner/small/main/model.safetensors"
    repo.broken[key] = "hanging"
    with process(repo, cache, "owner/small") as running:
        assert repo.is_hanging.wait(60)
        running.kill()
    repo.stop.set()
    repo.broken.clear()
    assert cached(cache, ".safetensors") == []
    assert run(repo, cache, "owner/small").stdout.split()[:1] == ["50"]
    (path,) = cache.rglob("model.safetensors")
    assert path.read_bytes() == repo.files[key]


def test_a_broken_file_in_the_repo_does_not_stay_in_the_cache(repo, tmp_path):
    whole = repo.files["owner/small/main/model.safetensors"]
    repo.files["owner/small/main/model.safetensors"] = whole[: len(whole) // 2]
    assert "the model.safetensors of 'owner/small' is not complete; try again" in message(
        run(repo, tmp_path / "cache", "owner/small")
    )
    assert cached(tmp_path / "cache", ".safetensors") == []
    repo.files["owner/small/main/model.safetensors"] = whole
    assert run(repo, tmp_path / "cache", "owner/small").returncode == 0


def test_checkpoints_of_another_architecture_are_recognised(repo, tmp_path):
    models_ = SCRIPT.replace("resnet20", "resnet56")
    done = subprocess.run(
        [sys.executable, "-c", models_, "owner/small"],
        env=os.environ | {"HF_ENDPOINT": repo.url, "HF_HOME": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "owner/small does not fit resnet56: 180 missing" in message(done)
    assert message(done).endswith("they look like those of resnet20: use jaxcam.models.resnet20")
