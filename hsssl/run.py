"""The run directory: config.yaml, metrics.jsonl, checkpoint/state.pt, encoder.safetensors, encoder.json."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from hsssl.atomic import atomic_path, write_text_atomic
from hsssl.cube import Cube
from hsssl.encoders import PlainEncoder, build_encoder
from hsssl.messages import log
from hsssl.prepare import band_axis, read_parts
from hsssl.spec import EncoderSpec

__all__ = ["Run", "load_encoder", "save_encoder"]

# What a resumed run must find as it was, by its name in the record of an input.
_IDENTITY = {"values_sha256": "cubes", "bands_sha256": "bands or wavelengths", "mask_sha256": "valid pixels"}


@dataclass(frozen=True)
class Run:
    """A run directory and the files in it; a path itself, wherever one is taken.

    Parameters
    ----------
    path : Path
        The folder.
    """

    path: Path

    def __fspath__(self) -> str:
        return str(self.path)

    @property
    def config_file(self) -> Path:
        """Settings, versions and inputs, as YAML."""
        return self.path / "config.yaml"

    @property
    def metrics_file(self) -> Path:
        """One JSON object a logged step."""
        return self.path / "metrics.jsonl"

    @property
    def checkpoint_file(self) -> Path:
        """The whole state after the last saved step."""
        return self.path / "checkpoint" / "state.pt"

    @property
    def weights_file(self) -> Path:
        """Weights of the encoder."""
        return self.path / "encoder.safetensors"

    @property
    def spec_file(self) -> Path:
        """What the encoder is and how it is fed."""
        return self.path / "encoder.json"

    @property
    def config(self) -> dict[str, Any]:
        """The record in config.yaml."""
        import yaml

        try:
            record = yaml.safe_load(self.config_file.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise ValueError(f"{self.config_file}: is missing; pass --overwrite to train anew") from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ValueError(f"{self.config_file}: not readable as YAML; pass --overwrite") from error
        if not isinstance(record, dict):
            raise ValueError(f"{self.config_file}: not the record of a run; pass --overwrite")
        return record

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """The rows of metrics.jsonl."""
        return [json.loads(line) for line in self.metrics_file.read_text(encoding="utf-8").splitlines()]

    def encoder(self) -> nn.Module:
        """Return the trained encoder; see `load_encoder`."""
        return load_encoder(self.path)

    def claim(self, *, resume: bool, overwrite: bool) -> bool:
        """Make the folder ready, and return whether there is a run in it to go on with.

        Raises
        ------
        ValueError
            If the folder holds anything and neither ``resume`` nor ``overwrite`` is given, or both are.
        """
        if resume and overwrite:
            raise ValueError(
                "--resume and --overwrite exclude each other: go on with the run, or start it anew"
            )
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"{self.path}: is a file; give a folder as --out")
        if self.path.is_dir() and any(self.path.iterdir()) and not (resume or overwrite):
            raise ValueError(
                f"{self.path}: is not empty; pass --resume to go on, --overwrite, or another --out"
            )
        return resume and self.checkpoint_file.exists()

    def clear(self) -> None:
        """Create the folder and remove an earlier run's files from it; other files stay."""
        self.path.mkdir(parents=True, exist_ok=True)
        # the checkpoint goes first: without it nothing of a half-removed run can be resumed
        for file in (
            self.checkpoint_file,
            self.spec_file,
            self.weights_file,
            self.metrics_file,
            self.config_file,
        ):
            file.unlink(missing_ok=True)

    def sweep(self) -> None:
        """Remove what a killed process left under temporary names."""
        for folder in (self.path, self.checkpoint_file.parent):
            for file in folder.glob(".*.tmp*"):
                file.unlink(missing_ok=True)

    def cut_metrics(self, step: int) -> list[dict[str, Any]]:
        """Drop rows of ``step`` and later, and a half-written last line; return the rows kept."""
        kept = []
        lines = (
            self.metrics_file.read_text(encoding="utf-8").splitlines() if self.metrics_file.exists() else []
        )
        for line in lines:
            try:
                row = json.loads(line)
            except ValueError:
                break
            if row["step"] < step:
                kept.append(row)
        write_text_atomic(self.metrics_file, "".join(json.dumps(row) + "\n" for row in kept))
        return kept

    def write_config(self, record: Mapping[str, Any]) -> None:
        """Write config.yaml."""
        import yaml

        write_text_atomic(self.config_file, yaml.safe_dump(dict(record), sort_keys=False, allow_unicode=True))

    def check_same(self, settings: Mapping[str, Any], inputs: Sequence[Mapping[str, Any]]) -> None:
        """Raise ValueError naming the first setting or input in which a resumed run differs."""
        record = self.config
        for name, value in settings.items():
            before = record.get("settings", {}).get(name)
            if before != value:
                raise ValueError(
                    f"{self.path}: the run was made with {name}={before!r}, now it is {value!r}; resume with "
                    "the same settings, or pass --overwrite"
                )
        recorded = record.get("inputs", [])
        for name, what in _IDENTITY.items():
            before = [entry.get(name) for entry in recorded]
            if before != [entry[name] for entry in inputs] and None not in before:
                raise ValueError(
                    f"{self.path}: the run was made on other {what} (SHA-256 differs); resume with the same "
                    "cubes and options, or pass --overwrite"
                )


def describe_inputs(cubes: Sequence[Cube]) -> list[dict[str, Any]]:
    """Return source, shape and SHA-256 of every cube: of values, row by row, of bands, mask and file."""
    inputs = []
    for cube in cubes:
        entry: dict[str, Any] = {"source": cube.source, "shape": list(cube.values.shape)}
        entry["dtype"] = str(cube.values.dtype)
        values = hashlib.sha256()
        for _, part in read_parts(cube, in_order=True):
            values.update(np.ascontiguousarray(part).data)
        entry["values_sha256"] = values.hexdigest()
        bands = [(int(n), float(nm)) for n, nm in zip(cube.source_index, band_axis(cube), strict=True)]
        entry["bands_sha256"] = hashlib.sha256(json.dumps(bands).encode()).hexdigest()
        mask = repr(cube.nodata).encode() + np.packbits(cube.valid).tobytes()
        entry["mask_sha256"] = hashlib.sha256(mask).hexdigest()
        if Path(cube.source).is_file():
            with open(cube.source, "rb") as file:
                entry["file_sha256"] = hashlib.file_digest(file, "sha256").hexdigest()
        inputs.append(entry)
    return inputs


def describe_software(device: torch.device) -> dict[str, Any]:
    """Return versions, commit, machine and device, for the record."""
    packages = ("hsssl", "torch", "triton", "numpy", "accelerate")
    return {
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in packages},
        "commit": _commit(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "machine": f"{platform.system()} {platform.machine()}, {torch.get_num_threads()} threads",
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """Return the commit of the source tree this package runs from; None if it is installed elsewhere."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def save_encoder(run: Run, encoder: nn.Module, spec: EncoderSpec) -> None:
    """Write the encoder's weights, then its specification: where encoder.json is, the weights are whole."""
    from safetensors.torch import save_file

    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in encoder.state_dict().items()}
    with atomic_path(run.weights_file) as temporary:
        save_file(weights, temporary)
    write_text_atomic(run.spec_file, spec.to_json())


def load_encoder(path: str | PathLike[str], module: nn.Module | None = None) -> nn.Module:
    """Return the trained encoder of a run directory, in evaluation mode, with its specification as ``.spec``.

    Parameters
    ----------
    path : path or Run
        The run directory.
    module : nn.Module, optional
        Only for a run whose encoder was a module of your own: such a module, to be filled with the weights.

    Returns
    -------
    nn.Module
        ``encoder(x (B, C, H, W), wavelengths (C,)) -> (B, D)``; ``encoder.spec`` is an `EncoderSpec`
        with the bands, wavelengths, normalisation and patch size.

    Raises
    ------
    ValueError
        If there is no finished run, or its files are damaged or do not fit each other.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    run = Run(Path(path))
    if not run.spec_file.is_file() or not run.weights_file.is_file():
        unfinished = run.checkpoint_file.exists()
        hint = (
            "its training has not finished: use --resume"
            if unfinished
            else "give the --out of hsssl pretrain"
        )
        raise ValueError(f"{run.path}: no trained encoder here (encoder.json, encoder.safetensors); {hint}")
    spec = EncoderSpec.read(run.spec_file)
    if spec.encoder == "module":
        if module is None:
            raise ValueError(f"{run.path}: the encoder was a module of your own; pass it as `module`")
        encoder: nn.Module = PlainEncoder(module, len(spec.sensors[0].wavelengths), spec.patch_size)
    else:
        encoder = build_encoder(spec.encoder, **spec.options)
    try:
        encoder.load_state_dict(load_file(run.weights_file))
    except (SafetensorError, RuntimeError) as error:
        raise ValueError(
            f"{run.weights_file}: does not hold the weights of encoder.json ({error}); train again"
        ) from error
    encoder.spec = spec  # type: ignore[assignment]
    log.debug("%s: %s, %d dimensions", run.path, spec.encoder, spec.embed_dim)
    return encoder.eval()
