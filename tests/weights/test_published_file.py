import hashlib
import os
import subprocess
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import torch
from authors_file import BUNDLE, write_checkpoint

from pulmozoo.bundle.errors import BadInput
from pulmozoo.weights.published import PUBLISHED, Published
from pulmozoo.weights.published_file import check_identity, fetch, git_blob_id, home, read_state_dict

LOBES = PUBLISHED[BUNDLE]
STATE = {"unet1.weight": torch.arange(6.0).reshape(2, 3), "unet1.count": torch.tensor(4)}
CONTENT = b"weights" * 1000

both_formats = pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])


class Harmful:
    """Calls a function when it is unpickled."""

    def __init__(self, function: Callable, argument: object) -> None:
        self.call = function, (argument,)

    def __reduce__(self) -> tuple:
        return self.call


@both_formats
def test_tensors_are_read_whatever_lies_beside_them(tmp_path, legacy):
    path = write_checkpoint(tmp_path / "best.pth", STATE, legacy=legacy)
    with pytest.raises(ModuleNotFoundError, match="program_that_is_gone"):
        torch.load(path, weights_only=False)
    registered = set(torch.serialization.get_safe_globals())
    state = read_state_dict(path, LOBES)
    assert list(state) == list(STATE)
    assert all(torch.equal(state[name], tensor) for name, tensor in STATE.items())
    assert set(torch.serialization.get_safe_globals()) == registered


@both_formats
@pytest.mark.parametrize("function", [exec, subprocess.call, os.mkdir])
def test_nothing_in_the_file_is_run(tmp_path, legacy, function):
    mark = tmp_path / "mark"
    argument = {exec: f"open({str(mark)!r}, 'w')", subprocess.call: ["touch", str(mark)], os.mkdir: str(mark)}[function]
    path = tmp_path / "best.pth"
    content = {"harmful": Harmful(function, argument), "model_dict": STATE}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    if function is os.mkdir:  # PyTorch blocks its module altogether
        with pytest.raises(BadInput, match="code in the file was not executed"):
            read_state_dict(path, LOBES)
    else:
        assert list(read_state_dict(path, LOBES)) == list(STATE)
    assert not mark.exists()
    torch.load(path, weights_only=False)
    assert mark.exists()


@both_formats
@pytest.mark.parametrize(
    "content",
    [STATE, {"model_dict": [1, 2]}, {"model_dict": {"unet1.weight": Harmful(print, "a")}}, [1]],
    ids=["bare", "list", "no tensor", "no dictionary"],
)
def test_file_without_the_state_dict(tmp_path, legacy, content):
    torch.save(content, tmp_path / "best.pth", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(BadInput, match=r"best\.pth holds no tensors under 'model_dict', expected those of https://.*"):
        read_state_dict(tmp_path / "best.pth", LOBES)


@both_formats
@pytest.mark.parametrize("kept", [0, 30, 300, -20])
def test_damaged_file(tmp_path, legacy, kept):
    path = write_checkpoint(tmp_path / "best.pth", STATE, legacy=legacy)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(BadInput, match=r"best\.pth (is|are) (damaged|truncated)"):
        read_state_dict(path, LOBES)


@pytest.mark.parametrize("content", [b"<html>404</html>", b"version https://git-lfs.github.com/spec/v1\n", b"PK\3\4"])
def test_file_that_is_no_checkpoint(tmp_path, content):
    (tmp_path / "best.pth").write_bytes(content)
    with pytest.raises(BadInput, match=r"best\.pth is damaged or no PyTorch checkpoint: download it again"):
        read_state_dict(tmp_path / "best.pth", LOBES)


@pytest.mark.parametrize(
    ("content", "blob"),
    [(b"", "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"), (b"hello\n", "ce013625030ba8dba906f756967f9e9ca394464a")],
)
def test_git_blob_id_is_what_git_hash_object_prints(tmp_path, content, blob):
    (tmp_path / "file").write_bytes(content)
    assert git_blob_id(tmp_path / "file") == blob


def test_identity_by_either_digest(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"hello\n")
    blob = ("git blob id", "ce013625030ba8dba906f756967f9e9ca394464a")
    check_identity(path, LOBES._replace(identity=blob), origin=path)
    check_identity(path, LOBES._replace(identity=("sha256", hashlib.sha256(b"hello\n").hexdigest())), origin=path)
    with pytest.raises(BadInput, match=rf"{path} has git blob id {blob[1]}, expected 4bf5a915\w{{32}}: .* http"):
        check_identity(path, LOBES, origin=path)
    with pytest.raises(BadInput, match="has sha256 5891b5b522d5"):
        check_identity(path, LOBES._replace(identity=("sha256", "0")), origin=path)


def test_home_is_a_place_of_the_user(monkeypatch, tmp_path):
    monkeypatch.setenv("PULMOZOO_HOME", str(tmp_path))
    assert home() == tmp_path
    monkeypatch.delenv("PULMOZOO_HOME")
    monkeypatch.setenv("HOME", "/homes/ada")
    assert home() == Path("/homes/ada/.cache/pulmozoo")


class Offers(BaseHTTPRequestHandler):
    """Gives ``/best.pth``, or only half of it where ``/cut/best.pth`` is asked for."""

    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if not self.path.endswith("/best.pth"):
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT[: len(CONTENT) // (2 if self.path.startswith("/cut") else 1)])

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def offered(monkeypatch, tmp_path) -> Iterator[Published]:
    """A published file on a server of this machine; downloads go to ``tmp_path / "home"``."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("PULMOZOO_HOME", str(tmp_path / "home"))
    Offers.asked = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Offers) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/best.pth"
        yield LOBES._replace(url=url, identity=("sha256", hashlib.sha256(CONTENT).hexdigest()))
        server.shutdown()


def test_file_is_downloaded_once(offered, tmp_path, caplog):
    caplog.set_level("INFO")
    path = fetch(BUNDLE, offered)
    assert path == tmp_path / "home" / f"{BUNDLE}_best.pth"
    assert path.read_bytes() == CONTENT
    assert f"downloading {offered.url} (7000 bytes)" in caplog.text
    assert fetch(BUNDLE, offered) == path
    assert Offers.asked == ["/best.pth"]
    assert list(path.parent.iterdir()) == [path]


def test_file_that_was_damaged_meanwhile_is_downloaded_again(offered):
    fetch(BUNDLE, offered).write_bytes(b"damaged")
    assert fetch(BUNDLE, offered).read_bytes() == CONTENT
    assert Offers.asked == ["/best.pth"] * 2


def test_download_that_is_not_the_published_file_leaves_nothing(offered, tmp_path):
    cut = offered._replace(url=offered.url.replace("/best", "/cut/best"))
    with pytest.raises(BadInput, match=rf"{cut.url} has sha256 \w+, expected {offered.identity[1]}: it is cut short"):
        fetch(BUNDLE, cut)
    with pytest.raises(BadInput, match="it is cut short, damaged or not the published checkpoint"):
        fetch(BUNDLE, offered._replace(identity=("sha256", "0")))
    assert list((tmp_path / "home").iterdir()) == []


def test_failed_download_says_how_to_do_without(offered, tmp_path):
    gone = offered._replace(url=offered.url.replace("best", "gone"))
    closed = offered._replace(url="http://127.0.0.1:9/best.pth")
    for published, reason in ((gone, "404"), (closed, "refused")):
        with pytest.raises(BadInput, match=rf"{published.url} could not be downloaded \(.*{reason}.*--checkpoint FILE"):
            fetch(BUNDLE, published)
    assert list((tmp_path / "home").iterdir()) == []


def test_download_needs_a_place(offered, tmp_path):
    (tmp_path / "home").write_text("a file where the folder should be")
    with pytest.raises(FileExistsError):
        fetch(BUNDLE, offered)
    assert Offers.asked == []
