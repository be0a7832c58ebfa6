"""Pretraining: the loop, visible in one function."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from hsssl.checkpoint import load_checkpoint, save_checkpoint
from hsssl.collapse import CollapseMonitor, feature_health
from hsssl.cube import Cube
from hsssl.encoders import PlainEncoder, build_encoder
from hsssl.memory import kept_memory
from hsssl.messages import log
from hsssl.methods import build_method
from hsssl.run import Run, describe_inputs, describe_software, save_encoder
from hsssl.sampling import Scene, draw_views
from hsssl.schedule import cosine_warmup
from hsssl.settings import check_patches, check_settings, open_cubes, plain_options
from hsssl.spec import EncoderSpec, Sensor
from hsssl.tiles import load_scenes
from hsssl.views import DEFAULT_VIEWS, ViewSpec
from hsssl_kernels.random import stream_key

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["pretrain"]

WINDOWS = (1, 3, 5, 9, 15)
_MODEL = 3  # name of a random stream


def pretrain(
    cubes: Cube | str | Path | Sequence[Cube | str | Path],
    method: str = "byol",
    encoder: str | nn.Module = "spectral_spatial",
    out: str | Path = "runs/pretrain",
    steps: int = 2000,
    seed: int = 0,
    *,
    patch_size: int = 1,
    batch_size: int = 1024,
    lr: float = 2e-3,
    weight_decay: float = 1e-4,
    views: ViewSpec = DEFAULT_VIEWS,
    windows: Sequence[int] = WINDOWS,
    method_options: Mapping[str, Any] | None = None,
    encoder_options: Mapping[str, Any] | None = None,
    precision: str | None = None,
    resident_gib: float | None = None,
    tracker: str | None = None,
    log_every: int = 10,
    checkpoint_every: int = 200,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool | None = None,
) -> Run:
    """Train an encoder on cubes without labels, and leave it in a run directory.

    Each step draws a batch of patches from one cube, makes two views of each and descends on the method's
    loss by AdamW with a cosine schedule. On a CPU a run that was killed and resumed ends
    bit-identical to an unbroken one. Under ``torchrun`` the processes share each batch.

    Parameters
    ----------
    cubes : Cube, path or scene name, or a sequence of them
        What to train on. Unprepared cubes are prepared by `hsssl.prepare`.
    method : str
        A name in `hsssl.methods.METHODS`.
    encoder : str or nn.Module
        A name in `hsssl.encoders.ENCODERS`, or any module from (B, C, H, W) to (B, D).
    out : path
        The run directory. It must be empty or absent, but for ``resume`` and ``overwrite``.
    steps : int
        Optimiser steps.
    seed : int
        Of weights, sampling and views. Streams are keyed by (seed, step).
    patch_size : int
        Side of the patches in pixels. With 1 a sample is a pixel, and
        ``views.jitter`` makes its neighbours positives.
    batch_size : int
        Patches a step, over all processes.
    lr : float
        Peak learning rate of AdamW: it rises over the first tenth (at most 100 steps), then falls to 0.
    weight_decay : float
        Of AdamW.
    views : ViewSpec
        Strengths of the augmentations.
    windows : sequence of int
        Odd sides of the windows over which `hsssl.embed` will average the embedding; kept with the encoder.
    method_options : mapping, optional
        Arguments of the method's class, by name.
    encoder_options : mapping, optional
        Arguments of the encoder's class, by name.
    precision : {"no", "bf16", "fp16"}, optional
        Mixed precision, by Hugging Face Accelerate; None takes what ``accelerate launch`` was told.
    resident_gib : float, optional
        GiB of the device's memory that the scenes may take. Larger scenes are trained on by strips
        of rows that take turns there. None is half of a GPU's free memory, and no limit on a CPU: a cube
        that is larger than memory needs a number.
    tracker : str, optional
        An Accelerate tracker, ``"tensorboard"`` or ``"wandb"`` for instance.
    log_every : int
        Steps between rows of metrics.jsonl, at most 10.
    checkpoint_every : int
        Steps between checkpoints.
    resume : bool
        Go on from the last checkpoint; from step 0 without one. A finished run is left as it is.
    overwrite : bool
        Replace the run that is in ``out``.
    progress : bool, optional
        Show a progress bar; None shows it on a terminal.

    Returns
    -------
    Run
        The run directory.

    Raises
    ------
    ValueError
        If a setting is out of range, ``out`` is not empty, a patch is larger than a scene, or a resumed
        run differs from the checkpoint's.

    Examples
    --------
    >>> run = pretrain(["indian_pines"], method="simclr", out="runs/ip", steps=500)  # doctest: +SKIP
    """
    settings = {
        "method": method,
        "encoder": encoder if isinstance(encoder, str) else "module",
        "steps": steps,
        "seed": seed,
        "patch_size": patch_size,
        "batch_size": batch_size,
        "lr": lr,
        "weight_decay": weight_decay,
        "views": asdict(views),
        "windows": [int(w) for w in windows],
        "method_options": plain_options("method_options", method_options),
        "encoder_options": plain_options("encoder_options", encoder_options),
        "precision": precision,
        "resident_gib": resident_gib,
        "log_every": log_every,
    }
    check_settings(settings, checkpoint_every)
    run = Run(Path(out))
    going_on = run.claim(resume=resume, overwrite=overwrite)
    opened = open_cubes(cubes)
    check_patches(opened, patch_size)
    inputs = describe_inputs(opened)
    state: dict[str, Any] | None = None
    if going_on:
        run.check_same(settings, inputs)
        state = load_checkpoint(run.checkpoint_file)
        if state["step"] == steps and run.spec_file.exists():
            log.info("%s: finished already", run.path)
            return run
    sensors = tuple(dict.fromkeys(Sensor.of(cube) for cube in opened))
    torch.manual_seed(stream_key(seed, _MODEL))
    model, spec = _build(settings, encoder, sensors)
    accelerator = _accelerator(precision, tracker, run.path)
    if batch_size % accelerator.num_processes:
        raise ValueError(
            f"batch_size must divide by the {accelerator.num_processes} processes, got {batch_size}"
        )
    margin = patch_size // 2 + views.jitter
    scenes = load_scenes(opened, accelerator.device, resident_gib=resident_gib, margin=margin, seed=seed)
    accelerator.wait_for_everyone()  # every process has looked at the folder before one writes to it
    if accelerator.is_main_process:
        run.sweep()
    if accelerator.is_main_process and state is None:
        software = describe_software(accelerator.device) | {"processes": accelerator.num_processes}
        run.clear()
        run.write_config({"settings": settings, **software, "inputs": inputs})
    _loop(
        run,
        model,
        scenes,
        accelerator,
        settings,
        views=views,
        state=state,
        checkpoint_every=checkpoint_every,
        tracker=tracker,
        progress=progress,
    )
    if accelerator.is_main_process:
        save_encoder(run, model.encoder, spec)  # type: ignore[arg-type]
    accelerator.wait_for_everyone()
    return run


def _loop(
    run: Run,
    model: nn.Module,
    scenes: Sequence[Scene],
    accelerator: Accelerator,
    settings: Mapping[str, Any],
    *,
    views: ViewSpec,
    state: Mapping[str, Any] | None,
    checkpoint_every: int,
    tracker: str | None,
    progress: bool | None,
) -> None:
    """Train ``model`` from ``state`` (or step 0) to the last step; only the main process writes."""
    from tqdm import tqdm

    steps, seed, batch_size, lr = (settings[key] for key in ("steps", "seed", "batch_size", "lr"))
    warmup = min(100, -(-steps // 10))
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=lr, weight_decay=settings["weight_decay"])
    wrapped, optimizer = accelerator.prepare(model, optimizer)
    start = _restore(state, model, optimizer, accelerator) if state else 0
    main, rank, ranks = accelerator.is_main_process, accelerator.process_index, accelerator.num_processes
    kept = run.cut_metrics(start) if main else []
    monitor = CollapseMonitor(kept)
    if tracker:
        accelerator.init_trackers("hsssl")
    hidden = not main or (None if progress is None else not progress)
    bar = tqdm(total=steps, initial=start, disable=hidden, unit="step", desc=settings["method"])
    record = run.metrics_file if main else os.devnull
    with kept_memory(), bar, open(record, "a", encoding="utf-8") as metrics:
        since, logged = time.perf_counter(), start - 1
        for step in range(start, steps):
            torch.manual_seed(stream_key(seed, step, rank, _MODEL))  # dropout and the like
            for group in optimizer.param_groups:
                group["lr"] = lr * cosine_warmup(step, steps, warmup)
            batch = draw_views(
                scenes,
                batch_size,
                patch_size=settings["patch_size"],
                spec=views,
                seed=seed,
                step=step,
                rank=rank,
                ranks=ranks,
            )
            loss = wrapped(batch)
            logs = step % settings["log_every"] == 0 or step == steps - 1
            saves = (step + 1) % checkpoint_every == 0 or step + 1 == steps
            if logs or saves:  # a state that is no number must not take the place of the last good one
                value = _finite(loss.item(), step)
            if logs:
                health = feature_health(_features(model, batch))
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
            model.after_step((step + 1) / steps)  # type: ignore[operator]
            bar.update()
            if logs:
                now = time.perf_counter()
                row = {
                    "step": step,
                    "loss": value,
                    "lr": optimizer.param_groups[0]["lr"],
                    "feature_std": health.std,
                    "effective_rank": health.effective_rank,
                    "patches_per_second": batch_size * (step - logged) / (now - since),
                }
                since, logged = now, step
                metrics.write(json.dumps(row) + "\n")
                metrics.flush()
                monitor.check(step, health)
                bar.set_postfix_str(f"loss {row['loss']:.3f}, {row['patches_per_second']:,.0f} patches/s")
                if tracker:
                    accelerator.log(row, step=step)
            if main and saves:
                _save(run, model, optimizer, accelerator, step + 1)
    if tracker:
        accelerator.end_training()


def _features(model: nn.Module, batch: Any) -> torch.Tensor:
    """Return the encoder's embedding of the first view, as it would be used: in evaluation mode."""
    encoder = model.encoder
    assert isinstance(encoder, nn.Module)
    encoder.eval()
    with torch.no_grad():
        features: torch.Tensor = encoder(batch.a, batch.wavelengths)
    encoder.train()  # as `_build` has left it
    return features


def _save(run: Run, model: nn.Module, optimizer: Any, accelerator: Accelerator, step: int) -> None:
    state = {"step": step, "model": model.state_dict(), "optimizer": optimizer.state_dict()}
    if accelerator.scaler is not None:
        state["scaler"] = accelerator.scaler.state_dict()
    save_checkpoint(run.checkpoint_file, state)


def _restore(state: Mapping[str, Any], model: nn.Module, optimizer: Any, accelerator: Accelerator) -> int:
    """Fill model and optimizer from a checkpoint and return the step to go on with."""
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    if accelerator.scaler is not None and "scaler" in state:
        accelerator.scaler.load_state_dict(state["scaler"])
    return int(state["step"])


def _build(
    settings: Mapping[str, Any], encoder: str | nn.Module, sensors: tuple[Sensor, ...]
) -> tuple[nn.Module, EncoderSpec]:
    """Return the method around a new encoder, and the specification the encoder will be kept with."""
    patch_size, options = settings["patch_size"], dict(settings["encoder_options"])
    if isinstance(encoder, str):
        options = {"patch_size": patch_size, **options}
        net = build_encoder(encoder, **options)
    else:
        counts = {len(sensor.wavelengths) for sensor in sensors}
        if len(counts) > 1:
            raise ValueError(f"encoder: your module takes one band count, the cubes have {sorted(counts)}")
        net = PlainEncoder(encoder, counts.pop(), patch_size)
    net.train()  # a module may come in evaluation mode, and methods copy what they are given
    spec = EncoderSpec(
        encoder=settings["encoder"],
        options=options,
        embed_dim=int(net.embed_dim),  # type: ignore[arg-type]
        patch_size=patch_size,
        windows=tuple(settings["windows"]),
        sensors=sensors,
    )
    return build_method(settings["method"], net, **settings["method_options"]), spec


def _accelerator(precision: str | None, tracker: str | None, folder: Path) -> Accelerator:
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    # Accelerate keeps the first precision of a process for good; a second run may want another
    AcceleratorState._reset_state()
    # asked for the CPU it takes part in torchrun's group by gloo; left to itself it would train alone
    cpu = not torch.accelerator.is_available()
    return Accelerator(cpu=cpu, mixed_precision=precision, log_with=tracker, project_dir=folder)


def _finite(loss: float, step: int) -> float:
    if loss != loss or loss in (float("inf"), float("-inf")):
        raise FloatingPointError(f"step {step}: the loss is {loss}; lower the learning rate")
    return loss
