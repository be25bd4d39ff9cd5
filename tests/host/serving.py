"""A ComfyUI server process with the pack in its custom_nodes."""

import importlib.util
import json
import os
import random
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

PORTS = range(8300, 8400)
BOOT_SECONDS = 180
ATTEMPTS = 3  # another process may have taken the port meanwhile


def free_port() -> int:
    """A loopback port that nobody listens on just now; another process may take it before we do."""
    for port in random.sample(PORTS, len(PORTS)):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError(f"no port of {PORTS.start} to {PORTS.stop - 1} is free")


def _templates(path: Path, base: Path) -> dict[str, str]:
    """Environment for a ComfyUI whose package of sample workflows is not of its time.

    ComfyUI 0.3 serves that package's folder "templates" and stops without; newer packages have none, so an empty one stands
    in. Later versions ask before they serve it.
    """
    spec = importlib.util.find_spec("comfyui_workflow_templates")
    old = '__version__ = "0.3.' in (path / "comfyui_version.py").read_text()
    if not old or spec is None or (Path(spec.origin).parent / "templates").is_dir():
        return {}
    package = base / "packages" / "comfyui_workflow_templates"
    (package / "templates").mkdir(parents=True)
    (package / "__init__.py").touch()
    return {"PYTHONPATH": os.pathsep.join(filter(None, (str(package.parent), os.environ.get("PYTHONPATH"))))}


def filled(server, nodes):
    """The API-format graph `nodes` with the widgets of a new node where nothing was said."""
    from tools.litegraph import default, input_specs, is_widget

    info = server.object_info()
    for node in nodes.values():
        widgets = {name: default(spec) for name, spec in input_specs(info[node["class_type"]]) if is_widget(spec)}
        node["inputs"] = widgets | node["inputs"]
    return nodes


class Server:
    """Runs while used as a context manager. base: its input, output, models and custom_nodes folders lie there."""

    def __init__(self, path: Path, repository: Path, base: Path, *arguments: str):
        self.base, self._log = base, base / "server.log"
        for folder in ("input", "output", "temp", "user", "custom_nodes", "models"):
            (base / folder).mkdir()
        (base / "custom_nodes" / "otcache").symlink_to(repository, target_is_directory=True)
        self._command = [
            sys.executable, str(path / "main.py"), "--cpu", "--listen", "127.0.0.1", "--base-directory", str(base),
            "--database-url", "sqlite:///:memory:", "--disable-auto-launch", "--disable-api-nodes", "--preview-method", "none",
            *arguments,
        ]  # fmt: skip
        self._environment = os.environ | {"PYTHONUTF8": "1"} | _templates(path, base)
        self._port, self._process = None, None

    def __enter__(self):
        for _ in range(ATTEMPTS):
            if self._start():
                return self
            if "already in use" not in self.log():
                break
        raise RuntimeError(f"the server did not start:\n{self.log()}")

    def _start(self) -> bool:
        self._port = free_port()
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*self._command, "--port", str(self._port)],
                stdout=log, stderr=subprocess.STDOUT, cwd=self.base, env=self._environment,
            )  # fmt: skip
        deadline = time.monotonic() + BOOT_SECONDS
        # Our own log, not an answer on the port, which could be another server's.
        while f"127.0.0.1:{self._port}" not in self.log().partition("To see the GUI go to:")[2]:
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.__exit__()
                return False
            time.sleep(0.2)
        return True

    def __exit__(self, *_):
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    @property
    def url(self) -> str:
        """Where a browser finds it."""
        return f"http://127.0.0.1:{self._port}"

    def get(self, path: str) -> bytes:
        """The body of a GET."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}{path}", timeout=60) as answer:
            return answer.read()

    def post(self, path: str, body: dict) -> dict:
        """The JSON answer (or {}) to a POST of JSON; an error's answer is returned too, under "http_error" its status."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._port}{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.loads(answer.read() or b"{}")
        except urllib.error.HTTPError as error:
            return json.loads(error.read() or b"{}") | {"http_error": error.code}

    def object_info(self) -> dict:
        """What the frontend knows of all nodes."""
        return json.loads(self.get("/object_info"))

    def queue(self, graph: dict) -> str:
        """Queue an API-format graph; raises AssertionError with the server's words when it is refused."""
        answer = self.post("/prompt", {"prompt": graph})
        assert "http_error" not in answer, f"the prompt was refused: {json.dumps(answer, indent=1)}"
        return answer["prompt_id"]

    def wait(self, prompt_id: str, seconds: float = 300) -> dict:
        """The history entry (outputs, status) once the prompt has ended, however it ended."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            entry = json.loads(self.get(f"/history/{prompt_id}")).get(prompt_id)
            if entry:
                return entry
            assert self._process.poll() is None, f"the server ended:\n{self.log()}"
            time.sleep(0.1)
        raise AssertionError(f"no result after {seconds} s:\n{self.log()}")

    def run(self, graph: dict, seconds: float = 300) -> dict:
        """`queue` and `wait`; raises AssertionError unless the prompt succeeded."""
        entry = self.wait(self.queue(graph), seconds)
        assert entry["status"]["status_str"] == "success", f"{json.dumps(entry['status'], indent=1)}\n{self.log()}"
        return entry

    def interrupt(self) -> None:
        """What the frontend's cancel button does."""
        self.post("/interrupt", {})

    def log(self) -> str:
        """All that the server has written so far."""
        return self._log.read_text(errors="replace")
