"""One film, one finding, one method: the map of what spoke for the finding, and the facts that belong to it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecxr.errors import StageError
from edgecxr.heatmap import evidence
from edgecxr.scores import columns
from edgecxr.spec import Box
from edgecxr.teachers.names import METHODS
from edgecxr.teachers.subject import Subject

__all__ = ["Explainer", "Explanation", "Settings"]

Images = NDArray[np.floating]


@dataclass(frozen=True)
class Settings:
    """`layer` is for gradcam, `composite` for lrp, `window` and `stride` (pixels of the input) for occlusion."""

    layer: str | None = None
    composite: str = "epsilon-plus-flat"
    window: int = 0
    stride: int = 0


@dataclass(frozen=True)
class Explanation:
    """`values` (h, w) over the whole model input: (S, S) for occlusion and lrp, cells for cam and gradcam.

    `signed`: values below 0 speak against the finding. `score` is what was explained, in units of `score_kind`:
    the calibrated log-odds, for lrp the logit. `facts` are the method's own: layer, composite, conservation …
    """

    finding: str
    method: str
    values: NDArray[np.float32]
    signed: bool
    score: float
    score_kind: str
    facts: dict[str, Any] = field(default_factory=dict)


class Explainer:
    """Explains films of one subject by one method; what costs time is made with the first film and kept."""

    def __init__(self, subject: Subject, method: str, settings: Settings | None = None) -> None:
        """Raises StageError for a method that there is not, or that this subject does not allow, with the reason."""
        if method not in METHODS:
            raise StageError(f"unknown method {method!r}; choose {', '.join(METHODS)}")
        if method in ("gradcam", "lrp") and subject.teacher is None:
            raise StageError(
                f"{method} goes back through the layers of a PyTorch network, which {subject.name} does not hold; it "
                "allows cam and occlusion, which only run it forward"
            )
        self.subject, self.method, self.settings = subject, method, settings or Settings()
        self._made: Any = None

    def explain(self, image: Images, finding: str, box: Box) -> Explanation:
        """Of `image` (1, 1, S, S), preprocessed under the subject's own spec, whose film lies in `box`.

        Raises StageError for a finding that the subject does not know, and when the method does not fit its network.
        """
        known = self.subject.classes
        if finding not in known:
            raise StageError(f"{self.subject.name} has no finding {finding!r}; choose {', '.join(known)}")
        made: dict[str, Callable[[Images, str, Box], Explanation]] = {
            "cam": self._cam,
            "gradcam": self._gradcam,
            "occlusion": self._occlusion,
            "lrp": self._lrp,
        }
        found = made[self.method](image, finding, box)
        if not np.isfinite(found.values).all():
            raise StageError(f"{self.method} gave NaN or infinity for {finding}")
        return found

    def _cam(self, image: Images, finding: str, box: Box) -> Explanation:
        subject, facts = self.subject, dict[str, Any]()
        if subject.cam is not None:
            maps = subject.cam(image)
        else:
            maps, facts = self._cam_of_network(image)
        split = evidence(maps, subject.heads, subject.temperatures)[subject.classes.index(finding)]
        return self._explained(finding, split.astype(np.float32), float(split.mean()), facts)

    def _cam_of_network(self, image: Images) -> tuple[NDArray[np.float32], dict[str, Any]]:
        from edgecxr.teachers.explained import lay_open
        from edgecxr.teachers.feature_map import FeatureMap
        from edgecxr.teachers.parts import parts_of, weighted_maps

        if self._made is None:
            parts = parts_of(lay_open(self._teacher()))
            self._made = [(part, FeatureMap(part.network, np.asarray(image, np.float32))) for part in parts]
        layers = ", ".join(part.prefix + found.layer for part, found in self._made)
        maps = weighted_maps([part.weight for part, _ in self._made], [found.cam(image) for _, found in self._made])
        return maps, {"layer": layers}

    def _gradcam(self, image: Images, finding: str, box: Box) -> Explanation:
        feature_map = self._feature_map(image)
        values = feature_map.grad_cam(image, self._torch_score(finding))
        score = float(self.subject.log_odds(image, finding)[0])
        return self._explained(finding, values, score, {"layer": feature_map.layer}, signed=False)

    def _occlusion(self, image: Images, finding: str, box: Box) -> Explanation:
        from edgecxr.teachers.occlusion import Occlusion

        film = image[0, 0, box.top : box.top + box.height, box.left : box.left + box.width]
        fill = float(np.asarray(film, np.float64).mean())
        occlusion = Occlusion(self.settings.window, self.settings.stride).placed(image.shape[-1])
        values = occlusion.fall(image, fill, lambda films: self.subject.log_odds(films, finding))
        facts = {"window": occlusion.window, "stride": occlusion.stride, "fill": fill}
        return self._explained(finding, values, float(self.subject.log_odds(image, finding)[0]), facts)

    def _lrp(self, image: Images, finding: str, box: Box) -> Explanation:
        from edgecxr.teachers.explained import lay_open
        from edgecxr.teachers.lrp import Canonical, Relevance
        from edgecxr.teachers.parts import parts_of

        film = np.asarray(image, np.float32)
        if self._made is None:
            parts = parts_of(lay_open(self._teacher()))
            self._made = [(part.weight, Canonical(part.network, film)) for part in parts]
        column, composite = self.subject.classes.index(finding), self.settings.composite
        told = [(weight, canonical.relevance(film, column, composite)) for weight, canonical in self._made]
        values = np.stack([weight * part.values for weight, part in told]).sum(axis=0)
        found = Relevance(values.astype(np.float32), sum(weight * part.logit for weight, part in told))
        facts = {
            "composite": composite,
            "relevance_sum": found.total,
            "conserved": found.conserved,
            "batch_norms_left": sum(canonical.norms_left for _, canonical in self._made),
        }
        return Explanation(finding, self.method, found.values, True, found.logit, "logit", facts)

    def _explained(
        self, finding: str, values: NDArray[np.float32], score: float, facts: dict[str, Any], *, signed: bool = True
    ) -> Explanation:
        return Explanation(finding, self.method, values, signed, score, "log-odds", facts)

    def _feature_map(self, image: Images) -> Any:
        from edgecxr.teachers.explained import lay_open
        from edgecxr.teachers.feature_map import FeatureMap

        if self._made is None:
            network = lay_open(self._teacher())
            self._made = FeatureMap(network, np.asarray(image, np.float32), self.settings.layer)
        return self._made

    def _teacher(self) -> Any:
        if self.subject.teacher is None:
            raise StageError(f"{self.subject.name} holds no PyTorch network")
        return self.subject.teacher

    def _torch_score(self, finding: str) -> Callable[[Any], Any]:
        """`Subject.log_odds` for tensors of logits."""
        import torch

        heads, temperatures = self.subject.heads, self.subject.temperatures
        place = self.subject.classes.index(finding)
        head, part, temperature = next(
            item for item in zip(heads, columns(heads), temperatures, strict=True) if finding in item[0].classes
        )

        def score(logits: torch.Tensor) -> torch.Tensor:
            if head.kind == "sigmoid":
                return logits[:, place] / temperature
            others = [index for index in range(part.start, part.stop) if index != place]
            return (
                logits[:, place] - temperature * torch.logsumexp(logits[:, others] / temperature, dim=1)
            ) / temperature

        return score
