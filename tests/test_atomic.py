import subprocess
import sys

import pytest

from hsssl.atomic import atomic_path, refuse_existing, write_bytes_atomic, write_text_atomic


def test_atomic_path_replaces_whole_or_not_at_all(tmp_path):
    path = tmp_path / "file.txt"
    write_text_atomic(path, "µ one")
    assert path.read_text(encoding="utf-8") == "µ one"

    def write_half() -> None:
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            assert temporary.parent == tmp_path
            assert temporary.suffix == ".txt"
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert path.read_text(encoding="utf-8") == "µ one"
    write_bytes_atomic(path, b"two")
    assert path.read_bytes() == b"two"
    assert list(tmp_path.iterdir()) == [path]


def test_atomic_path_survives_a_kill_at_the_worst_moment(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("whole")
    program = (
        "import os, sys; from hsssl.atomic import atomic_path\n"
        "with atomic_path(sys.argv[1]) as temporary:\n"
        "    temporary.write_text('half'); os.kill(os.getpid(), 9)\n"
    )
    assert subprocess.run([sys.executable, "-c", program, str(path)], check=False).returncode != 0
    assert path.read_text() == "whole"


def test_atomic_path_says_what_is_wrong(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        write_text_atomic(tmp_path / "absent" / "file.txt", "")
    with pytest.raises(IsADirectoryError, match="is a folder"):
        write_text_atomic(tmp_path, "")
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "nothing"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_refuse_existing(tmp_path):
    path = tmp_path / "file.txt"
    refuse_existing(path, overwrite=False)
    path.write_text("")
    refuse_existing(path, overwrite=True)
    with pytest.raises(FileExistsError, match="pass --overwrite"):
        refuse_existing(path, overwrite=False)
