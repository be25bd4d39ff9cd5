"""No password in any log, error, workflow or picture: a real server whose storage has one, named by the node in both ways."""

import json
import warnings
from contextlib import nullcontext

import pytest
from services import free_port, postgres
from test_auto_cache_server import filled

PASSWORD, TYPED = "hunter2-s3cret", "typed-s3cret"


@pytest.fixture
def storage(tmp_path):
    """The URL, with a password, of a storage that works: PostgreSQL's, else SQLite's with an option that it does not know."""
    try:
        import psycopg  # noqa: F401

        driver = True
    except ImportError:
        driver = False
    with postgres(PASSWORD) if driver else nullcontext() as url:
        if url is None:
            warnings.warn("NO PostgreSQL WAS TESTED: install Debian's postgresql and pip's psycopg[binary]", stacklevel=1)
        yield url or f"sqlite:///file:{tmp_path}/study.db?uri=true&password={PASSWORD}"


@pytest.fixture
def own(make_server, tmp_path, monkeypatch, storage):
    """A server that has the storage in its environment and in a file of its user folder."""
    monkeypatch.setenv("OTCACHE_STORAGE", storage)
    monkeypatch.setenv("OTCACHE_NOBODY", f"postgresql+nosuch://otcache:{PASSWORD}@127.0.0.1:{free_port()}/trials")
    base = tmp_path / "server"
    base.mkdir()
    started = make_server(base)
    (base / "user" / "otcache").mkdir()
    (base / "user" / "otcache" / "storage.txt").write_text(f"{storage}\n")
    with started as running:
        yield running


def graph(server, where: str, **inputs):
    """A short calibration whose plot is saved as a picture."""
    return filled(server, {
        "demo": {"class_type": "OTDemoModel", "inputs": {}},
        "reference": {"class_type": "OTReferenceSchedule", "inputs": {
            "model": ["demo", 0], "positive": ["demo", 1], "negative": ["demo", 2], "latent_image": ["demo", 4], "steps": 12,
            "cases": 1, "budget": 5}},
        "search": {"class_type": "OTAnchorSearch", "inputs": {
            "model": ["demo", 0], "vae": ["demo", 3], "calibration": ["reference", 1], "reference": ["reference", 0],
            "budget": 3, "trials": 4, "storage": where} | inputs},
        "save": {"class_type": "SaveImage", "inputs": {"images": ["search", 1], "filename_prefix": "plot"}},
        "summary": {"class_type": "PreviewAny", "inputs": {"source": ["search", 2]}},
    })  # fmt: skip


def told(entry) -> str:
    """The exception's words of a prompt that failed."""
    [message] = [data for kind, data in entry["status"]["messages"] if kind == "execution_error"]
    return message["exception_message"]


def test_a_password_is_nowhere(own, storage):
    for number, where in enumerate(("env:OTCACHE_STORAGE", "file:storage.txt")):
        own.run(graph(own, where, trials=4 + number))
    failed = own.wait(own.queue(graph(own, "env:OTCACHE_NOBODY")))
    assert "The storage env:OTCACHE_NOBODY cannot be opened" in told(failed) and "\n" not in told(failed).strip()
    for where, words in (("env:HOME", "begins with OTCACHE_"), ("env:OTCACHE_MISSING", "OTCACHE_MISSING is not set"),
                         ("file:../storage.txt", "not allowed"), ("file:none.txt", "Cannot read")):  # fmt: skip
        answer = own.post("/prompt", {"prompt": graph(own, where)})
        assert answer["http_error"] == 400 and words in json.dumps(answer)

    files = [path for path in own.base.rglob("*") if path.is_file() and path.name != "storage.txt" and not path.is_symlink()]
    pictures = [path for path in files if path.suffix == ".png" and "output" in path.parts]
    assert len(pictures) == 2
    assert all(b"env:OTCACHE_STORAGE" in path.read_bytes() or b"file:storage.txt" in path.read_bytes() for path in pictures)
    assert not [path for path in files if PASSWORD.encode() in path.read_bytes()]
    assert PASSWORD not in own.log() + own.get("/history").decode() + own.get("/object_info").decode()
    assert "s3cret" not in own.log()


def test_a_password_in_the_widget_is_warned_of_and_not_repeated(own, tmp_path):
    typed = f"sqlite:///file:{tmp_path}/typed.db?uri=true&password={TYPED}"
    entry = own.run(graph(own, typed))
    assert "Warning: the storage holds a password" in json.dumps(entry["outputs"])
    assert TYPED not in json.dumps(entry["outputs"]) + own.log() and "the storage holds a password" in own.log()
    failed = own.wait(own.queue(graph(own, f"mysql+nosuch://otcache:{TYPED}@127.0.0.1/trials", trials=5)))
    assert "***" in told(failed) and TYPED not in told(failed) + own.log()
