"""Training one network on cached films: AdamW, cosine schedule, weight averaging, early stopping, resume.

Every random draw of an epoch derives from (seed, epoch), so a run that was interrupted and resumed gives the same
weights as one that was not, bit for bit on the same machine and thread count.
"""

import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from timm.utils import ModelEmaV3
from torch import Generator, Tensor, nn

from edgecxr.errors import StageError
from edgecxr.sparse import Sparse
from edgecxr.spec import Head
from edgecxr.teachers.architecture import head_parameters
from edgecxr.teachers.augment import AugmentSettings, augment
from edgecxr.teachers.compute import Autocast, autocast, forward, pick_device
from edgecxr.teachers.joint import joint_factors, joint_weights
from edgecxr.teachers.losses import LossSettings, MixedLoss
from edgecxr.teachers.metrics import accuracy, macro_auroc
from edgecxr.teachers.names import HISTORY
from edgecxr.teachers.progress import Progress, Silent
from edgecxr.teachers.samples import Samples, check_samples, run_key
from edgecxr.teachers.sampling import Copies, FilmsPerClass, sampled
from edgecxr.teachers.weights import read_weights, write_atomic, write_weights

__all__ = ["Samples", "TrainResult", "TrainSettings", "train"]

Record = dict[str, float]


class TrainSettings(Sparse):
    """How one network is trained."""

    later: ClassVar[frozenset[str]] = frozenset({"copies", "films_per_class"})

    epochs: Annotated[int, Field(ge=1)] = 30
    batch: Annotated[int, Field(ge=2)] = 32
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    body_learning_rate: Annotated[float, Field(ge=0, description="factor for all but the last layer")] = 1.0
    warmup: Annotated[float, Field(ge=0, lt=1, description="share of the steps")] = 0.1
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    clip_norm: Annotated[float, Field(gt=0)] = 5.0
    mixup: Annotated[float, Field(ge=0, description="alpha of the beta distribution; 0 is off")] = 0.0
    average: Annotated[float, Field(ge=0, lt=1, description="decay of the weight average; 0 is off")] = 0.99
    metric: Literal["auroc", "loss"] = "auroc"
    patience: Annotated[int, Field(ge=1, description="epochs without improvement before stopping")] = 10
    seed: Annotated[int, Field(ge=0)] = 0
    device: str = "auto"
    autocast: Autocast = "auto"
    augment: AugmentSettings = AugmentSettings()
    loss: LossSettings = LossSettings()
    copies: Copies = Field(default={}, description="class to how often each of its films is shown in an epoch")
    films_per_class: FilmsPerClass = None


@dataclass(frozen=True)
class TrainResult:
    """What training reached: a record per epoch, and the epoch (from 1) whose weights were kept."""

    history: tuple[Record, ...]
    best_epoch: int
    best: float  # of settings.metric on the validation films
    stopped_early: bool


def train(
    module: nn.Module,
    samples: tuple[Samples, Samples],
    heads: Sequence[Head],
    settings: TrainSettings,
    folder: Path,
    *,
    progress: Progress | None = None,
    loss: nn.Module | None = None,
) -> TrainResult:
    """Train `module` in place on samples = (training, validation); it ends with the best epoch's weights, on the CPU.

    `folder` keeps checkpoint.pt (after every epoch), weights.safetensors (the best so far) and history.json; a run of
    the same settings, data and initial weights found there is continued. `loss` (logits, targets by name) replaces the
    one of settings.loss; what it needs beside the labels of the heads travels in the samples' targets. Raises
    StageError when the loss is not a number, when the labels cannot train these heads, or when the folder holds another
    run.
    """
    with torch.random.fork_rng():
        run = _Run(module, samples, heads, settings, folder)
        if loss is not None:
            run.loss, run.key = loss.to(run.device), f"{run.key} {loss!r}"
        run.restore()
        run.learn(progress or Silent())
    return run.finish()


class _Run:
    """One training run: what changes between epochs is what `_save` writes and `restore` reads."""

    def __init__(
        self,
        module: nn.Module,
        samples: tuple[Samples, Samples],
        heads: Sequence[Head],
        settings: TrainSettings,
        folder: Path,
    ) -> None:
        self.training, self.validation = samples
        self.heads, self.settings, self.folder = tuple(heads), settings, folder
        for part, name in zip(samples, ("training", "validation"), strict=True):
            check_samples(part, heads, name)
        self.key = run_key(module, samples, settings, *heads)
        self.training = sampled(samples[0], heads, (settings.copies, settings.films_per_class), settings.augment)
        self.device = pick_device(settings.device)
        self.module = module.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.loss: nn.Module = MixedLoss(heads, self.training.targets, settings.loss).to(self.device)
        self.average = ModelEmaV3(module, decay=settings.average, use_warmup=True) if settings.average else None
        self.optimizer = torch.optim.AdamW(_groups(module, settings), lr=settings.learning_rate, fused=True)
        self.steps = max(1, len(self.training) // settings.batch)
        self.history: list[Record] = []

    @property
    def shipped(self) -> nn.Module:
        """The network whose weights are validated and kept: the average, where there is one."""
        kept: nn.Module = self.average.module if self.average is not None else self.module
        return kept

    def learn(self, progress: Progress) -> None:
        total = self.settings.epochs * self.steps
        while len(self.history) < self.settings.epochs and not self.exhausted:
            epoch = len(self.history)
            loss = self._epoch(epoch, progress)
            record = {
                "epoch": epoch + 1.0,
                "learning_rate": self._rate((epoch + 1) * self.steps - 1),
                "train_loss": loss,
            }
            self.history.append(record | self._validate())
            self._save()
            best = self.history[self.best]["score"]
            progress((epoch + 1) * self.steps, total, f"loss {loss:.4f}, {self.settings.metric} {best:.4f} at best")

    @property
    def best(self) -> int:
        """Index of the best epoch so far, the first of equals."""
        sign = 1 if self.settings.metric == "auroc" else -1
        return max(range(len(self.history)), key=lambda index: (sign * self.history[index]["score"], -index))

    @property
    def exhausted(self) -> bool:
        """Whether the last `patience` epochs brought nothing."""
        return len(self.history) > 0 and len(self.history) - 1 - self.best >= self.settings.patience

    def _rate(self, step: int) -> float:
        """Learning rate of a step: linear warm-up, then half a cosine down to 0."""
        total = self.steps * self.settings.epochs
        warm = self.settings.warmup * total
        if step + 1 < warm:
            return self.settings.learning_rate * (step + 1) / warm
        return self.settings.learning_rate * 0.5 * (1 + math.cos(math.pi * (step + 1 - warm) / (total - warm + 1)))

    def _epoch(self, epoch: int, progress: Progress) -> float:
        """One pass over the training films, the last incomplete batch left out; returns the mean loss."""
        seed = int(np.random.SeedSequence([self.settings.seed, epoch]).generate_state(1)[0])
        torch.manual_seed(seed)  # dropout and the like inside the module
        generator = Generator(device=self.device).manual_seed(seed)
        order = np.random.default_rng(seed).permutation(len(self.training))
        self.module.train()
        losses = []
        for index in range(self.steps):
            step = epoch * self.steps + index
            rows = np.sort(order[index * self.settings.batch : (index + 1) * self.settings.batch])
            losses.append(self._step(step, rows, generator))
            if not math.isfinite(losses[-1]):
                raise StageError(
                    f"the loss became {losses[-1]} in epoch {epoch + 1} at learning rate {self._rate(step):.3g}; "
                    "lower learning_rate, or look for broken films"
                )
            progress(step + 1, self.steps * self.settings.epochs, f"epoch {epoch + 1}, loss {losses[-1]:.4f}")
        return float(np.mean(losses))

    def _step(self, step: int, rows: NDArray[np.intp], generator: Generator) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate(step) * group["factor"]
        images, targets = self.training.tensors(rows, self.device)
        images = self._augmented(images, rows, generator)
        loss = self._batch_loss(images, targets, np.random.default_rng([self.settings.seed, step]))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.module.parameters(), self.settings.clip_norm)
        self.optimizer.step()
        if self.average is not None:
            self.average.update(self.module, step + 1)
        return loss.item()

    def _augmented(self, images: Tensor, rows: NDArray[np.intp], generator: Generator) -> Tensor:
        changed = augment(images, self.settings.augment, generator)
        if self.training.settled is None:
            return changed
        settled = torch.from_numpy(self.training.settled[rows]).to(self.device).view(-1, 1, 1, 1)
        return torch.where(settled, images, changed)

    def _batch_loss(self, images: Tensor, targets: dict[str, Tensor], chance: np.random.Generator) -> Tensor:
        """The loss, of films mixed in pairs where mixup is on (Zhang et al. 2018)."""
        share = float(chance.beta(self.settings.mixup, self.settings.mixup)) if self.settings.mixup else 1.0
        if share < 1:
            images = images * share + images.flip(0) * (1 - share)
        with autocast(self.device, self.settings.autocast):
            logits = self.module(images.contiguous(memory_format=torch.channels_last)).float()
        loss: Tensor = self.loss(logits, targets)
        if share < 1:
            loss = loss * share + self.loss(logits, {name: value.flip(0) for name, value in targets.items()}) * (
                1 - share
            )
        return loss

    def _validate(self) -> Record:
        logits = forward(self.shipped, self.validation.images, 2 * self.settings.batch, self.settings.autocast)
        targets = {name: torch.from_numpy(value).to(self.device) for name, value in self.validation.targets.items()}
        loss = float(self.loss(logits.to(self.device), targets))
        auroc = macro_auroc(logits.numpy(), self.validation.targets, self.heads)
        score = auroc if self.settings.metric == "auroc" else loss
        if not math.isfinite(score):
            raise StageError(f"the validation {self.settings.metric} is {score}: its films lack labels of both kinds")
        right = accuracy(logits.numpy(), self.validation.targets, self.heads)
        told = {"validation_loss": loss, "validation_auroc": auroc, "validation_accuracy": right, "score": score}
        return told | joint_weights(self.shipped)

    def _save(self) -> None:
        if self.best == len(self.history) - 1:
            write_weights(self.folder / "weights.safetensors", self.shipped.state_dict())
        state = {
            "key": self.key,
            "module": self.module.state_dict(),
            "average": self.average.module.state_dict() if self.average is not None else None,
            "optimizer": self.optimizer.state_dict(),
            "history": self.history,
        }
        content = io.BytesIO()
        torch.save(state, content)
        write_atomic(self.folder / "checkpoint.pt", content.getvalue())
        write_atomic(self.folder / HISTORY, json.dumps(self.history, indent=1).encode())

    def restore(self) -> None:
        """Take up the run that `folder` holds, if there is one."""
        path = self.folder / "checkpoint.pt"
        if not path.exists():
            return
        state = torch.load(path, map_location=self.device, weights_only=True)
        if state["key"] != self.key:
            raise StageError(
                f"{path} is of a run with other settings, films or initial weights; "
                "train into another folder, or delete it"
            )
        self.module.load_state_dict(state["module"])
        if self.average is not None:
            self.average.module.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.history = list(state["history"])

    def finish(self) -> TrainResult:
        self.module.load_state_dict(read_weights(self.folder / "weights.safetensors", ()))
        self.module.to("cpu").eval()
        early = len(self.history) < self.settings.epochs
        return TrainResult(tuple(self.history), self.best + 1, self.history[self.best]["score"], early)


def _groups(module: nn.Module, settings: TrainSettings) -> list[dict[str, Any]]:
    """Parameter groups: body or head (learning-rate factor), with weight decay on matrices only.

    What has factor 0 gets no gradient either: it would count when the gradients of the others are clipped.
    """
    own = dict.fromkeys(head_parameters(module), 1.0) | joint_factors(module)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, weight in module.named_parameters():
        factor = own.get(name, settings.body_learning_rate)
        decay = settings.weight_decay if weight.ndim > 1 else 0.0
        weight.requires_grad_(factor > 0)
        if factor > 0:
            groups.setdefault((factor, decay), []).append(weight)
    return [{"params": part, "factor": key[0], "weight_decay": key[1]} for key, part in groups.items()]
