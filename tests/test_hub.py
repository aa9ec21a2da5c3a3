"""Weights from a Hugging Face repo: a real HTTP server on loopback that speaks the endpoints needed (parity)."""

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from jaxcam import models
from jaxcam.models import weights
from jaxcam.models._checkpoint import opened

COMMIT = "1" * 40


class Server(http.server.ThreadingHTTPServer):
    """Serves `files`, by "owner/name/revision/file"; what is to go wrong is in `broken`, by the same key."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.broken, self.downloads = {}, {}, []
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
        if len(parts) < 5 or parts[2] != "resolve":
            return self.refuse(404, "RepoNotFound")
        owner, name, _, revision, *rest = parts
        key = "/".join([owner, name, revision, *rest])
        broken = self.server.broken.get(key)
        if broken == "500":
            return self.refuse(500, None)
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
        self.send_header("Content-Length", str(len(body) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.end_headers()
        if with_body:
            self.server.downloads.append(key)
            self.wfile.write(body[start : len(body) // 2] if broken == "truncated" else body[start:])
            if broken == "truncated":
                self.close_connection = True
        return None

    def refuse(self, status, code):
        self.send_response(status)
        if code is not None:
            self.send_header("X-Error-Code", code)
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


def run(server, cache, weights, **environment):
    """A fresh process, which knows of the server by environment variables only, as a user's does."""
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, weights],
        env=os.environ
        | {"HF_ENDPOINT": server.url, "HF_HOME": str(cache), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


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
    done = run(repo, tmp_path / "cache", "owner/small@v2")
    assert done.stdout.split()[0] == "32", done.stderr
    assert "the repo 'owner/small' has no revision 'v3'" in message(run(repo, tmp_path / "cache", "owner/small@v3"))


def test_what_is_not_there(repo, tmp_path):
    cache = tmp_path / "cache"
    assert "there is no repo 'owner/large' at Hugging Face" in message(run(repo, cache, "owner/large"))
    repo.files["owner/torch/main/pytorch_model.bin"] = b"x"
    assert "the repo 'owner/torch' has no model.safetensors" in message(run(repo, cache, "owner/torch"))
    found = message(run(repo, cache, "owner/small", HF_HUB_OFFLINE="1"))
    assert "'owner/small' is not in the cache and cannot be downloaded" in found
    assert "HF_HUB_OFFLINE" in found
    repo.shutdown()
    repo.server_close()
    assert "is not in the cache and cannot be downloaded" in message(run(repo, cache, "owner/small"))


def test_server_errors_and_truncated_downloads_leave_nothing_behind(repo, tmp_path):
    cache = tmp_path / "cache"
    for broken in ("500", "truncated"):
        repo.broken["owner/small/main/model.safetensors"] = broken
        found = message(run(repo, cache, "owner/small"))
        assert "'owner/small' could not be downloaded" in found or "cannot be downloaded" in found
        assert cached(cache, ".safetensors") == []
        assert cached(cache, ".incomplete") == []
    repo.broken.clear()
    assert run(repo, cache, "owner/small").returncode == 0


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


def test_without_huggingface_hub(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ValueError, match=r"'owner/small' is no file, and .* huggingface_hub is needed.* pip install"):
        opened("owner/small")
