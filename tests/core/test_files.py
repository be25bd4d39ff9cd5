"""Files that are written whole or not at all."""

import os
import stat

import pytest

from otcache_core.errors import OTCacheError
from otcache_core.files import write_text, written_whole


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such rights")
@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_files_have_the_rights_of_any_new_file(tmp_path, mask):
    before = os.umask(mask)
    try:
        write_text(tmp_path / "ours.json", "{}")
        (tmp_path / "plain.json").write_text("{}")
    finally:
        os.umask(before)
    ours, plain = (stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("ours.json", "plain.json"))
    assert ours == plain == 0o666 & ~mask


def test_the_process_umask_is_never_touched(tmp_path, monkeypatch):
    """What other threads create in that moment would be writable for everyone."""
    asked = []
    monkeypatch.setattr(os, "umask", lambda mask: asked.append(mask) or 0o022)
    write_text(tmp_path / "some.json", "{}")
    assert not asked


def test_writers_of_one_file_do_not_share_a_temporary_one(tmp_path):
    path = tmp_path / "some.json"
    with written_whole(path) as first, written_whole(path) as second:
        assert first != second and first.parent == second.parent == tmp_path
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["a\0b", "x" * 300])
def test_a_name_that_cannot_be_is_our_error(tmp_path, name):
    with pytest.raises(OTCacheError, match="Cannot write"):
        write_text(tmp_path / "folder" / name, "")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
