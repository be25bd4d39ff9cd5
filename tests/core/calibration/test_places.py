"""Names that stand for storages, and no password in anything that is shown."""

import os

import pytest

from otcache_core.__main__ import main
from otcache_core.calibration.pipeline import Settings
from otcache_core.calibration.places import Place, find_place, has_password, without_passwords
from otcache_core.calibration.storages import open_storage
from otcache_core.errors import OTCacheError

SECRET = "hunter2-s3cret"
URLS = [
    f"postgresql://otcache:{SECRET}@127.0.0.1:1/trials",
    f"postgresql+psycopg2://otcache:{SECRET}@127.0.0.1:1/trials",
    f"mysql://otcache:{SECRET}@127.0.0.1:1/trials",
    f"mysql+pymysql://otcache:{SECRET}@127.0.0.1:1/trials",
    f"postgresql://127.0.0.1:1/trials?user=otcache&password={SECRET}",
    f"postgresql://127.0.0.1:1/trials?user=otcache&sslpassword={SECRET}&x=1",
    f"postgresql://otcache:a%40{SECRET}@127.0.0.1:1/trials",
    f"postgresql://otcache:a@{SECRET}@127.0.0.1:1/trials",
    f"postgresql://otcache:a/{SECRET}@127.0.0.1:1/trials",
    f"postgresql://otcache:1@127.0.0.1:{SECRET}@/trials",
    f"nosuch://otcache:{SECRET}@127.0.0.1/trials",
    f"no such://otcache:{SECRET}@127.0.0.1/trials",
    f"://otcache:{SECRET}@127.0.0.1/trials",
    f"grpc://otcache:{SECRET}@127.0.0.1/trials",
    f"sqlite://otcache:{SECRET}@127.0.0.1/trials",
]


@pytest.fixture
def named(monkeypatch, tmp_path):
    """named(url) -> the names of a storage that stand for it here."""

    def name(url: str) -> list[str]:
        monkeypatch.setenv("OTCACHE_STORAGE", url)
        (tmp_path / "storage.txt").write_text(f"{url}\n")
        return ["env:OTCACHE_STORAGE", "file:storage.txt"]

    return name


@pytest.mark.parametrize("url", URLS)
def test_no_error_shows_a_password(url, named, tmp_path):
    for storage in (url, *named(url)):
        place = find_place(storage, tmp_path)
        with pytest.raises(OTCacheError) as error:
            open_storage(place)
        assert SECRET not in str(error.value) and "\n" not in str(error.value)
        assert error.value.__cause__ is None and error.value.__suppress_context__
        assert storage == url or storage in str(error.value)
        assert SECRET not in repr(Settings(storage=place)) + repr(place) + str(place)


@pytest.mark.parametrize("url", URLS)
def test_a_password_is_noticed(url):
    assert has_password(url) and SECRET not in find_place(url).name


@pytest.mark.parametrize("storage", [
    "", "a.db", "C:\\a:b@c.db", "/tmp/a b@c:d.db", "sqlite:///a.db", "journal:/mnt/a.log", "grpc://127.0.0.1:13000",
    "postgresql://otcache@127.0.0.1/trials", "env:OTCACHE_STORAGE", "file:storage.txt", "sqlite:///file:a.db?mode=ro&uri=true",
])  # fmt: skip
def test_what_has_none_is_shown_as_it_is(storage):
    assert not has_password(storage)
    if not storage.startswith(("env:", "file:")):
        assert find_place(storage) == Place(storage, storage)


def test_names_lead_to_what_they_name(named, tmp_path):
    url = f"sqlite:///{tmp_path}/study.db"
    for name in named(url):
        assert find_place(name, tmp_path) == Place(name, url)
        assert find_place(find_place(name, tmp_path)) == Place(name, url)
    assert find_place(None) == Place()


@pytest.mark.parametrize("name", ["HOME", "PATH", "AWS_SECRET_ACCESS_KEY", "", "OTCACHE_", "otcache_storage", "OTCACHE_A=B"])
def test_only_our_own_variables_can_be_named(name, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    with pytest.raises(OTCacheError, match="begins with OTCACHE_") as error:
        find_place(f"env:{name}")
    assert SECRET not in str(error.value)


@pytest.mark.parametrize("value", [None, "", "  "])
def test_a_variable_that_is_not_set_is_named(value, monkeypatch):
    monkeypatch.delenv("OTCACHE_STORAGE", raising=False)
    if value is not None:
        monkeypatch.setenv("OTCACHE_STORAGE", value)
    with pytest.raises(OTCacheError, match="OTCACHE_STORAGE is not set"):
        find_place("env:OTCACHE_STORAGE")


@pytest.mark.parametrize("name", [
    "", ".", "..", "../out.txt", "a/../../out.txt", "/etc/passwd", "C:\\out.txt", "..\\out.txt", ".hidden", "a\0b", "a" * 101,
    "in/side.txt", "\x1b[2J",
])  # fmt: skip
def test_a_file_name_does_not_leave_the_folder(name, tmp_path):
    folder = tmp_path / "user"
    (folder / "in").mkdir(parents=True)
    for path in (tmp_path / "out.txt", folder / "in" / "side.txt", folder / ".hidden"):
        path.write_text(f"sqlite:///{SECRET}.db")
    with pytest.raises(OTCacheError, match="not allowed") as error:
        find_place(f"file:{name}", folder)
    assert SECRET not in str(error.value) and str(error.value).isprintable()


@pytest.mark.skipif(os.name == "nt", reason="links need a right there")
def test_a_link_does_not_leave_the_folder(tmp_path):
    (tmp_path / "user").mkdir()
    (tmp_path / "out.txt").write_text(SECRET)
    (tmp_path / "user" / "a.txt").symlink_to(tmp_path / "out.txt")
    with pytest.raises(OTCacheError, match="leads out of"):
        find_place("file:a.txt", tmp_path / "user")


@pytest.mark.parametrize("content", [
    None, b"", b"\n" + SECRET.encode(), b"\xff" + SECRET.encode(), b"a" * 5000 + SECRET.encode(), b"a\0" + SECRET.encode(),
])  # fmt: skip
def test_a_file_without_a_url_is_named_and_not_shown(content, tmp_path):
    if content is not None:
        (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(OTCacheError, match=r"a\.txt.*write") as error:
        find_place("file:a.txt", tmp_path)
    assert SECRET not in str(error.value)


def test_a_file_that_is_a_folder_is_our_error(tmp_path):
    (tmp_path / "a.txt").mkdir()
    with pytest.raises(OTCacheError, match=r"Cannot read .*a\.txt"):
        find_place("file:a.txt", tmp_path)


@pytest.mark.parametrize("url", URLS)
def test_the_command_line_prints_no_password(url, named, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    commands = [["search", "--budget", "5", "--storage", name] for name in (url, *named(url))]
    for command in [*commands, ["search", "--budget", "5", url], [url], ["search", "--budget", url]]:
        assert main(command) == 2
        out, error = capsys.readouterr()
        assert SECRET not in out + error and "Traceback" not in error
        assert error.splitlines()[-1].startswith("otcache: ")
        assert len(error.splitlines()) == 1 + (command == commands[0])  # one more: that a password can be seen there


def test_words_around_a_url_stay():
    text = "see https://example.org/a@b and b://u:p@h, c"
    assert without_passwords(text) == "see https://example.org/a@b and b://u:***@h, c"
