"""A checkpoint gives back what was put in, or says that it is damaged and what to do."""

import errno
import zipfile

import numpy as np
import pytest
import torch

from hsssl.checkpoint import load_checkpoint, save_checkpoint


@pytest.fixture
def state():
    generator = torch.Generator().manual_seed(0)
    weights = {"w": torch.randn(400, generator=generator), "b": torch.zeros(3)}
    return {"step": 3, "model": weights, "optimizer": {"state": {}, "param_groups": [{"lr": 1e-3}]}}


def same(found, state):
    assert found["step"] == state["step"]
    assert found["optimizer"] == state["optimizer"]
    assert all(torch.equal(found["model"][name], state["model"][name]) for name in state["model"])


def test_one_flipped_bit_of_a_weight_is_refused(tmp_path, state):
    path = tmp_path / "run" / "state.pt"
    save_checkpoint(path, state)
    raw = bytearray(path.read_bytes())
    raw[raw.find(state["model"]["w"].numpy().tobytes()[:64]) + 3] ^= 0x40
    path.write_bytes(raw)
    with pytest.raises(ValueError, match=r"state\.pt: the checkpoint is damaged or truncated; delete it and"):
        load_checkpoint(path)


def test_damage_gives_the_state_or_one_line(tmp_path, state):
    path = tmp_path / "state.pt"
    save_checkpoint(path, state)
    raw, rng, refused = path.read_bytes(), np.random.default_rng(0), []
    for case in range(300):
        damaged = bytearray(raw)
        if case % 3 == 0:
            damaged = damaged[: rng.integers(0, len(raw))]
        # a third of the flips in the directory, which is at the end
        first = 0 if case % 3 == 1 else len(raw) - 700
        for at in rng.integers(first, len(raw), rng.integers(1, 9)) if case % 3 else ():
            damaged[at] = rng.integers(0, 256)
        path.write_bytes(damaged)
        try:
            same(load_checkpoint(path), state)
        except ValueError as error:
            refused.append(str(error))
    assert len(refused) > 200
    assert all(said.startswith(f"{path}: ") and "\n" not in said for said in refused)


@pytest.mark.parametrize("lacking", ["step", "model", "optimizer"])
def test_what_is_no_state_of_a_run_is_refused(tmp_path, state, lacking):
    path = tmp_path / "state.pt"
    save_checkpoint(path, {key: held for key, held in state.items() if key != lacking})
    with pytest.raises(ValueError, match=f"not a run's checkpoint, has no {lacking}; delete it"):
        load_checkpoint(path)
    torch.save([1, 2], path)
    with pytest.raises(ValueError, match="has no step, model, optimizer"):
        load_checkpoint(path)


def test_what_the_system_says_is_not_damage(tmp_path, state, monkeypatch):
    with pytest.raises(FileNotFoundError):
        load_checkpoint(tmp_path / "absent.pt")
    path = tmp_path / "state.pt"
    save_checkpoint(path, state)

    def fail(_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(zipfile.ZipFile, "testzip", fail)
    with pytest.raises(OSError, match="Input/output error"):
        load_checkpoint(path)
