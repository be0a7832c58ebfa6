"""Fine-tuning: the whole encoder and a linear head learn from the labelled pixels, from where both stand."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from hsssl.cube import Cube
from hsssl.embed import embed, plain_patches
from hsssl.evaluate.classifiers import LINEAR_C, standardisation
from hsssl.evaluate.logistic import fit_softmax
from hsssl.evaluate.metrics import confusion_matrix
from hsssl.evaluate.protocol import Labels, draw_trials
from hsssl.evaluate.runner import FeatureSet, Protocol, Trial, audit_trial, summarise
from hsssl.evaluate.score import Score
from hsssl.memory import kept_memory
from hsssl.sampling import ResidentScene, load_resident
from hsssl.schedule import cosine_warmup
from hsssl.spec import fit_cube, spec_of
from hsssl.splits import Split
from hsssl_kernels.random import stream_key

__all__ = ["FROZEN", "finetune", "pooled_features"]

FROZEN = "encoder, frozen"
_TUNED = "encoder, fine-tuned"
_FINETUNE = 5  # name of a random stream


class Setting(NamedTuple):
    """How to train: numbers of `finetune`."""

    epochs: int
    batch_size: int
    lr: float
    weight_decay: float

    def checked(self) -> Setting:
        """Return these numbers, or raise ValueError for the first that is out of range."""
        for name, least in (("epochs", 1), ("batch_size", 2), ("weight_decay", 0)):
            if not getattr(self, name) >= least:
                raise ValueError(f"finetune: {name} must be at least {least}, got {getattr(self, name)}")
        if not self.lr > 0:
            raise ValueError(f"finetune: lr must be above 0, got {self.lr}")
        return self


def finetune(
    encoder: nn.Module,
    cube: Cube,
    labels: Labels,
    split: str = "block",
    per_class: int = 100,
    *,
    guard: int | None = None,
    windows: Sequence[int] | None = None,
    seeds: int | Sequence[int] = 5,
    epochs: int = 20,
    batch_size: int = 128,
    lr: float = 3e-4,
    weight_decay: float = 1e-2,
    device: str | torch.device | None = None,
    progress: bool | None = None,
) -> Score:
    """Train encoder and linear head on the training pixels of a split, and score the test pixels.

    Features are those of `hsssl.embed`: the embedding averaged over windows. The head starts as the
    linear classifier of `hsssl.evaluate` on the frozen features, so that the encoder is not torn away from
    what it knows by a random one (Kumar et al. 2022); both then descend on the cross-entropy by AdamW, a
    linear warm-up over the first tenth and a cosine to 0, without augmentations, for a fixed number of
    epochs. Nothing is chosen on test pixels. The encoder that is passed in stays as it is.

    Parameters
    ----------
    encoder : nn.Module
        As `hsssl.load_encoder` returns it, with ``.spec``.
    cube : Cube
        The scene; it and its features are held in memory.
    labels : ndarray, shape (rows, cols), integer, or a pair of them
        Class ids; 0 = unlabelled. For ``split="fixed"`` the maps (training, test).
    split, per_class, guard
        As in `hsssl.evaluate`; the guard is the radius of the footprint unless given.
    windows : sequence of int, optional
        Odd sides of the windows in pixels; None takes the encoder's own. An encoder of large patches
        sees as many of them a sample as the largest window has pixels: give (1,) there.
    seeds : int or sequence of int
        A training of its own for each, and except for a fixed split a split of its own.
    epochs : int
        Passes over the training pixels.
    batch_size : int
        Training pixels a step.
    lr : float
        Peak learning rate. A choice: on a fifth of the training pixels of Indian Pines' fixed split, held out
        from the others, .0003 kept what the frozen features score; .001 and .003 lost 3 and 4 % in 10 epochs.
    weight_decay : float
        Of AdamW.
    device : str or torch.device, optional
        Where to compute; None takes a GPU if there is one.
    progress : bool, optional
        Show a progress bar; None shows it on a terminal.

    Returns
    -------
    Score
        Of the fine-tuned encoder; ``baselines`` holds the frozen one on the same splits.

    Raises
    ------
    ValueError
        If a number is out of range, or as `hsssl.embed` and `hsssl.evaluate`.

    References
    ----------
    Kumar et al. 2022, Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution,
    arXiv 2202.10054.

    Examples
    --------
    >>> encoder = load_encoder("runs/ip")                                         # doctest: +SKIP
    >>> finetune(encoder, cube, labels, split="random", per_class=10).oa          # doctest: +SKIP
    """
    spec = spec_of(encoder)
    setting = Setting(epochs, batch_size, lr, weight_decay).checked()
    sides = tuple(spec.windows if windows is None else windows)
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    frozen = embed(encoder, cube, windows=sides, device=device, progress=progress)
    footprint = spec.patch_size + max(sides) - 1
    truth, trials = draw_trials(frozen, labels, None, footprint, [Protocol(split, per_class, guard)], seeds)
    trial = _one_split_a_seed(trials[0], seeds)
    fitted, sensor = fit_cube(spec, cube)
    scene = load_resident(fitted, sensor, device)
    before, after = [], []
    for seed, one in zip(trial.seeds, trial.splits, strict=True):
        with torch.random.fork_rng():
            torch.manual_seed(stream_key(seed, _FINETUNE))  # dropout and the like
            model = Classifier.fit(copy.deepcopy(encoder), frozen, truth, one).to(device)
            before.append(model.confusion(frozen, truth, one))
            with kept_memory():
                _train(model, scene, truth, one, sides, setting, seed, progress)
        tuned = embed(model.encoder, cube, windows=sides, device=device, progress=progress)
        after.append(model.confusion(tuned, truth, one))
    audits = audit_trial(trial, truth, [footprint])
    scores = [
        summarise(FeatureSet(name, frozen, footprint), classifier, trial, truth, confusions, audits)
        for name, classifier, confusions in ((_TUNED, "finetune", after), (FROZEN, "linear", before))
    ]
    return replace(scores[0], baselines={FROZEN: scores[1]})


class Classifier(nn.Module):
    """An encoder with a linear head on its standardised features, averaged over windows.

    Parameters
    ----------
    encoder : nn.Module
        What makes the features.
    mean, std : ndarray, shape (dim,)
        Of the frozen features over the training pixels.
    weights : ndarray, shape (dim, classes)
    intercept : ndarray, shape (classes,)
    classes : ndarray, shape (classes,), int64
        Ids of the head's columns.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        encoder: nn.Module,
        mean: NDArray[np.float64],
        std: NDArray[np.float64],
        weights: NDArray[np.float64],
        intercept: NDArray[np.float64],
        classes: NDArray[np.int64],
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.classes = classes
        self.register_buffer("mean", torch.from_numpy(mean).float())
        self.register_buffer("std", torch.from_numpy(std).float())
        self.head = nn.Linear(*weights.shape)
        with torch.no_grad():
            self.head.weight.copy_(torch.from_numpy(weights.T))
            self.head.bias.copy_(torch.from_numpy(intercept))

    @classmethod
    def fit(
        cls, encoder: nn.Module, features: NDArray[np.floating[Any]], truth: NDArray[Any], split: Split
    ) -> Classifier:
        """Return the classifier whose head is the linear one of `hsssl.evaluate` on frozen features."""
        train = features.reshape(-1, features.shape[2])[split.train].astype(np.float64)
        mean, std = standardisation(train)
        classes, targets = np.unique(truth.ravel()[split.train], return_inverse=True)
        weights, intercept = fit_softmax((train - mean) / std, targets, 1.0 / LINEAR_C)
        return cls(encoder, mean, std, weights, intercept, classes.astype(np.int64))

    def forward(self, features: Tensor) -> Tensor:
        """Return the logits (B, classes) of averaged embeddings (B, dim)."""
        logits: Tensor = self.head((features - self.mean) / self.std)
        return logits

    @torch.no_grad()
    def confusion(
        self, features: NDArray[np.floating[Any]], truth: NDArray[Any], split: Split
    ) -> NDArray[np.int64]:
        """Return the confusion matrix over the test pixels, by the ids that ``truth`` (rows, cols) has."""
        flat = truth.ravel().astype(np.int64)
        test = torch.from_numpy(features.reshape(-1, features.shape[2])[split.test])
        guess = self.forward(test.to(self.mean.device)).argmax(1).cpu().numpy()
        ids = np.unique(flat[flat > 0]).tolist()
        return confusion_matrix(flat[split.test], self.classes[guess], ids)


def _train(
    model: Classifier,
    scene: ResidentScene,
    truth: NDArray[Any],
    split: Split,
    windows: Sequence[int],
    setting: Setting,
    seed: int,
    progress: bool | None,
) -> None:
    """Descend on the cross-entropy of the training pixels; ``seed`` orders them."""
    from tqdm import tqdm

    device = scene.values.device
    rows, cols = np.divmod(split.train, split.shape[1])
    centres = torch.from_numpy(np.stack([rows, cols], axis=1)).to(device)  # (n, 2)
    targets = torch.from_numpy(np.searchsorted(model.classes, truth.ravel()[split.train])).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=setting.lr, weight_decay=setting.weight_decay)
    patch_size = spec_of(model.encoder).patch_size
    batches = -(-len(centres) // setting.batch_size)
    steps = setting.epochs * batches
    model.train()
    hidden = None if progress is None else not progress
    for step in tqdm(range(steps), disable=hidden, unit="step", desc="finetune", leave=False):
        epoch, number = divmod(step, batches)
        generator = torch.Generator().manual_seed(stream_key(seed, epoch, _FINETUNE))
        order = torch.randperm(len(centres), generator=generator).to(device)
        # parts of nearly equal size: a last batch of one sample would break batch norms
        batch = torch.tensor_split(order, batches)[number]
        for group in optimizer.param_groups:
            group["lr"] = setting.lr * cosine_warmup(step, steps, max(1, steps // 10))
        features = pooled_features(model.encoder, scene, centres[batch], patch_size, windows)
        loss = F.cross_entropy(model(features), targets[batch])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    model.eval()


def pooled_features(
    encoder: nn.Module, scene: ResidentScene, centres: Tensor, patch_size: int, windows: Sequence[int]
) -> Tensor:
    """Return what `hsssl.embed` gives at ``centres``, with gradients.

    Parameters
    ----------
    encoder : nn.Module
        ``(x (B, C, H, W), wavelengths) -> (B, D)``.
    scene : ResidentScene
        Where the patches are cut.
    centres : Tensor, shape (B, 2), int64
        Row and column of valid pixels.
    patch_size : int
        Side of the patches in pixels.
    windows : sequence of int
        Odd sides of the windows in pixels.

    Returns
    -------
    Tensor, shape (B, D len(windows))
    """
    radius = max(windows) // 2
    rows, cols = scene.valid.shape
    offsets = torch.arange(-radius, radius + 1, device=centres.device)
    row = _mirrored(centres[:, :1] + offsets, rows)[:, :, None]  # (B, W, 1)
    col = _mirrored(centres[:, 1:] + offsets, cols)[:, None, :]  # (B, 1, W)
    known = scene.valid[row, col]  # (B, W, W)
    # neighbourhoods overlap: each pixel is embedded once
    needed, place = torch.unique((row * cols + col)[known], return_inverse=True)
    at = torch.stack([needed // cols, needed % cols], 1)
    single = encoder(plain_patches(scene, at, patch_size), scene.wavelengths)  # (pixels, D)
    around = single.new_zeros(*known.shape, single.shape[1])
    around[known] = single[place]
    averages = []
    for side in windows:
        near = slice(radius - side // 2, radius + side // 2 + 1)
        count = known[:, near, near].sum((1, 2))[:, None]
        averages.append(around[:, near, near].sum((1, 2)) / count)
    return torch.cat(averages, 1)


def _mirrored(index: Tensor, size: int) -> Tensor:
    """Return indices beyond 0 ... size - 1 mirrored about the outermost pixels, as `box_average` has it."""
    if size == 1:
        return torch.zeros_like(index)
    period = 2 * (size - 1)
    index = index.remainder(period)
    return torch.minimum(index, period - index)


def _one_split_a_seed(trial: Trial, seeds: int | Sequence[int]) -> Trial:
    """Return the trial with the one split of a fixed protocol repeated for every training seed."""
    if trial.protocol.split != "fixed":
        return trial
    numbers = [int(seed) for seed in (range(seeds) if isinstance(seeds, int | np.integer) else seeds)]
    return Trial(trial.protocol, numbers, trial.splits * len(numbers))
