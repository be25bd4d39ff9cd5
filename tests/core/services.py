"""Servers that keep studies, on this machine's loopback alone: Optuna's gRPC proxy and a PostgreSQL of our own."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

PROXY = """
import sys
import optuna
from otcache_core.calibration.storages import import_optuna
import_optuna()
from concurrent.futures import ThreadPoolExecutor
from optuna.storages._grpc.server import make_server
server = make_server(optuna.storages.get_storage(sys.argv[1]), "127.0.0.1", int(sys.argv[2]), ThreadPoolExecutor(4))
server.start()
print("ready", flush=True)
server.wait_for_termination()
"""


def free_port() -> int:
    """A loopback port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Address(str):
    """A server's URL that knows how to stop it."""

    process: subprocess.Popen

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def grpc_proxy(url: str):
    """The `Address` of a proxy of the storage `url`."""
    port = free_port()
    address = Address(f"grpc://127.0.0.1:{port}")
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": str(root)}
    with subprocess.Popen(
        [sys.executable, "-c", PROXY, url, str(port)], env=environment, stdout=subprocess.PIPE, text=True
    ) as address.process:
        try:
            assert address.process.stdout.readline() == "ready\n"
            yield address
        finally:
            address.stop()


def _programs() -> Path | None:
    """Where initdb and postgres lie; Debian does not put them on the path."""
    found = shutil.which("initdb")
    places = [Path(found).resolve().parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((place for place in places if (place / "initdb").exists() and (place / "postgres").exists()), None)


@contextmanager
def postgres(password: str):
    """The URL, password included, of a database on a server of our own; None where there is no PostgreSQL."""
    programs = _programs()
    # It refuses to run as root; its own package makes a user for it.
    root = os.name == "posix" and os.getuid() == 0
    if programs is None or root and not shutil.which("runuser"):
        yield None
        return
    prefix, port = ["runuser", "-u", "postgres", "--"] if root else [], free_port()
    with tempfile.TemporaryDirectory(prefix="otcache-postgres-") as base:  # pytest's own folders are closed to other users
        data, words = Path(base, "data"), Path(base, "password")
        words.write_text(password)
        if root:
            shutil.chown(base, "postgres")
            shutil.chown(words, "postgres")
        subprocess.run(
            [*prefix, programs / "initdb", "-D", data, "-U", "otcache", "-A", "scram-sha-256", f"--pwfile={words}", "-N",
             "-E", "UTF8", "--locale=C"], check=True, capture_output=True, cwd="/",
        )  # fmt: skip
        control = [*prefix, programs / "pg_ctl", "-D", data, "-l", Path(base, "log")]
        options = f"-c listen_addresses=127.0.0.1 -p {port} -c unix_socket_directories='' -c fsync=off"
        subprocess.run([*control, "-w", "-o", options, "start"], check=True, stdout=subprocess.DEVNULL, cwd="/")
        try:
            yield f"postgresql+psycopg://otcache:{password}@127.0.0.1:{port}/postgres"
        finally:
            subprocess.run([*control, "-m", "immediate", "-w", "stop"], check=True, stdout=subprocess.DEVNULL, cwd="/")
