"""Fixtures shared by the tests: where the real scenes lie, and the one that a package brings."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest
from hypothesis import settings

from hsssl import messages
from hsssl.scenes import Scene, load_scene

# A test is right or wrong, whatever else the machine is doing.
settings.register_profile("hsssl", deadline=None)
settings.load_profile("hsssl")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of real scenes: HSSSL_DATA, or ../shared/data beside the project's root."""
    stated = os.environ.get("HSSSL_DATA")
    folder = Path(stated) if stated else Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real scenes at {folder}; set HSSSL_DATA to the folder that holds them")
    return folder


@pytest.fixture(scope="session")
def indian_pines() -> Scene:
    """The Indian Pines scene with its labels."""
    if importlib.util.find_spec("tensorly") is None:
        pytest.skip('the Indian Pines scene needs tensorly: pip install "hsssl[demo]"')
    return load_scene("indian_pines")


@pytest.fixture(autouse=True)
def _nothing_said_yet() -> None:
    """Let every test hear what is said once a process."""
    messages._said.clear()
