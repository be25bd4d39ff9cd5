"""tools/calibrate_everywhere.py against stand-ins of ComfyUI's HTTP interface."""

import json
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

from tools import calibrate_everywhere
from tools.calibrate_everywhere import main

GRAPH = {
    "1": {"class_type": "UNETLoader", "inputs": {"unet_name": "a"}},
    "2": {"class_type": "OTReferenceSchedule", "inputs": {"model": ["1", 0]}},
    "3": {"class_type": "OTAnchorSearch", "inputs": {"reference": ["2", 0], "calibration": ["2", 1], "storage": ""}},
    "4": {"class_type": "SaveImage", "inputs": {"images": ["5", 0]}},
    "5": {"class_type": "OTCachedSampler", "inputs": {"model": ["1", 0], "schedule": ["3", 0]}},
}


@contextmanager
def server(history: list, refusal: dict | None = None):
    """The address of a server that tells of each prompt the entries of `history`, and what was queued there."""
    queued = []

    class Handler(BaseHTTPRequestHandler):
        def answer(self, status: int, told: dict) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(told).encode())

        def do_POST(self):
            queued.append(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["prompt"])
            self.answer(400, refusal) if refusal else self.answer(200, {"prompt_id": "p"})

        def do_GET(self):
            entry = history.pop(0) if history else {}
            self.answer(200, {"p": entry} if entry is not None else {})

        def log_message(self, *_):
            pass

    listening = HTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=listening.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listening.server_port}", queued
    finally:
        listening.shutdown()
        listening.server_close()


@pytest.fixture
def workflow(tmp_path, monkeypatch):
    monkeypatch.setattr(calibrate_everywhere, "POLL", 0.01)
    path = tmp_path / "workflow.json"
    path.write_text(json.dumps(GRAPH))
    return str(path)


def done() -> dict:
    return {"status": {"status_str": "success", "messages": []}}


def test_all_servers_get_what_calibrates_with_one_storage(workflow, capsys):
    with server([None, done()]) as (one, first), server([None, None, done()]) as (two, second):
        assert main(["--storage", "env:OTCACHE_STORAGE", "--workflow", workflow, one, two]) == 0
    assert first == second and set(first[0]) == {"1", "2", "3"}, "no picture is drawn"
    assert first[0]["3"]["inputs"]["storage"] == "env:OTCACHE_STORAGE"
    told = capsys.readouterr().out.splitlines()
    assert sorted(told) == sorted(f"{each}: {word}" for each in (one, two) for word in ("queued", "done"))


def test_what_a_server_has_against_it_is_said_and_the_others_are_waited_for(workflow, capsys):
    wrong = {"message": "m", "details": "The environment variable X is not set"}
    refusal = {"error": {"message": "invalid"}, "node_errors": {"3": {"class_type": "OTAnchorSearch", "errors": [wrong]}}}
    messages = [["execution_error", {"exception_message": "The storage failed.\n"}]]
    error = {"status": {"status_str": "error", "messages": messages}}
    with server([], refusal) as (one, _), server([error]) as (two, _), server([done()]) as (three, _):
        gone = "http://127.0.0.1:9"
        assert main(["--storage", "journal:/x", "--workflow", workflow, one, two, gone, three]) == 1
    told = capsys.readouterr().out
    assert f"{one}: OTAnchorSearch: The environment variable X is not set" in told
    assert f"{two}: The storage failed." in told and f"{gone}: " in told and f"{three}: done" in told


def test_a_workflow_without_a_search_and_a_password_are_refused(tmp_path, workflow, capsys):
    (tmp_path / "other.json").write_text(json.dumps({"1": GRAPH["1"]}))
    with server([]) as (one, queued):
        assert main(["--storage", "journal:/x", "--workflow", str(tmp_path / "other.json"), one]) == 1
        assert "no OT Anchor Search" in capsys.readouterr().out
        with pytest.raises(SystemExit):
            main(["--storage", "postgresql://a:s3cret@host/b", "--workflow", workflow, one])
    assert not queued and "s3cret" not in capsys.readouterr().err
