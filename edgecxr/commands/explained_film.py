"""One film under explanation: read once, and a picture and a file of numbers written for each finding."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from edgecxr.heatmap import colour_overlay, display_gray, relevance, signed_overlay, upsample
from edgecxr.kernels import preprocess
from edgecxr.radiograph import Radiograph
from edgecxr.read import read_radiograph
from edgecxr.spec import Box
from edgecxr.teachers.markings import find_markings, painted_over, share

if TYPE_CHECKING:
    from edgecxr.teachers.explanation import Explainer, Explanation
    from edgecxr.teachers.subject import Subject

__all__ = ["FilmOfSubject"]

LONGEST = 1024  # pixels of a picture's longer side; smaller films keep their own size
STRONGEST = 99.5  # percentile of |relevance| that gets full colour: a few pixels outshine all others


@dataclass(frozen=True)
class FilmOfSubject:
    """`image` is (1, 1, S, S) as the subject sees it, the film lying in `box`."""

    path: Path
    radiograph: Radiograph
    subject: "Subject"
    image: NDArray[Any]
    box: Box

    @classmethod
    def read(cls, path: Path, subject: "Subject") -> "FilmOfSubject":
        """Raises Refusal when the film cannot be read, or the subject does not judge films like this."""
        from edgecxr.runtimes.engine import check_size

        radiograph = read_radiograph(path, reduced_for=subject.reduced_for)
        check_size(radiograph, subject.preprocess)
        image = preprocess([radiograph], subject.preprocess)
        subject.admit(image)
        return cls(path, radiograph, subject, image, subject.preprocess.placement(*radiograph.shape))

    def write(self, explainer: "Explainer", finding: str, stem: Path, *, words: bool) -> dict[str, Any]:
        """Write `stem`.png and `stem`.npz; returns what they hold but for the map, ready for JSON."""
        found = explainer.explain(self.image, finding, self.box)
        full = _full_colour(found)
        row: dict[str, Any] = {
            "file": str(self.path),
            "finding": finding,
            "method": found.method,
            "probability": float(self.subject.probability(self.image, finding)[0]),
            "score": found.score,
            "score_kind": found.score_kind,
            "signed": found.signed,
            "full_colour": full,
            **{key: _finite(value) for key, value in found.facts.items()},
        }
        masks: dict[str, NDArray[np.bool_]] = {}
        if words:
            row["words"], masks = self._words(found)
        names = {"overlay": f"{stem}.png", "map": f"{stem}.npz"}
        Path(names["overlay"]).write_bytes(imagecodecs.png_encode(self._overlay(found, full)))
        self._save(Path(names["map"]), found, row, masks)
        return {**row, **names}

    def _overlay(self, found: "Explanation", full: float) -> NDArray[np.uint8]:
        """The film, at most LONGEST pixels, under the map."""
        height, width = self.radiograph.shape
        size = int(min(LONGEST, max(self.subject.preprocess.size, height, width)))
        spec = self.subject.preprocess.model_copy(update={"size": size, "aspect": "pad", "dtype": "float32"})
        place = spec.placement(height, width)
        shown = preprocess([self.radiograph], spec)[0, 0]
        gray = display_gray(shown, place, spec.range_low, spec.range_high)
        side, wide = self.subject.preprocess.size, (place.height, place.width)
        if found.method == "cam":
            threshold = dict(self.subject.thresholds).get(found.finding, 0.5)
            return colour_overlay(gray, upsample(relevance(found.values, threshold), self.box, side, wide))
        strength = upsample(found.values / full, self.box, side, wide)
        return (signed_overlay if found.signed else colour_overlay)(gray, strength)

    def _words(self, found: "Explanation") -> tuple[dict[str, Any], dict[str, NDArray[np.bool_]]]:
        """Shares of the map on words and borders, and the log-odds before and after painting over both."""
        spec = self.subject.preprocess
        reach = spec.range_high - spec.range_low
        film = (np.asarray(self.image[0, 0], np.float64) - spec.range_low) / reach
        markings = find_markings(film, self.box)
        clean = painted_over(film, markings.either) * reach + spec.range_low
        whole = upsample(found.values, Box(0, 0, spec.size, spec.size), spec.size, (spec.size, spec.size))
        films = np.stack([self.image[0], clean[None].astype(self.image.dtype)])
        before, after = self.subject.log_odds(films, found.finding).tolist()
        told = {
            "area_words": float(markings.words.mean()),
            "area_border": float(markings.border.mean()),
            "share_words": share(whole, markings.words),
            "share_border": share(whole, markings.border),
            "log_odds": before,
            "log_odds_painted_over": after,
            "change": after - before,
            "fill": "the nearest pixel outside",
        }
        return told, {"words_mask": markings.words, "border_mask": markings.border}

    def _save(self, path: Path, found: "Explanation", row: dict[str, Any], masks: dict[str, NDArray[np.bool_]]) -> None:
        """The map with everything that it takes to read it; docs/explain.md names the keys."""
        facts = {key: value for key, value in row.items() if key not in ("file", "words") and value is not None}
        words = {f"words_{key}": value for key, value in row.get("words", {}).items()}
        geometry = {"input_size": self.subject.preprocess.size, "box": list(self.box)}
        content: dict[str, Any] = {
            "map": found.values,
            "model": self.subject.name,
            "digest": self.subject.digest,
            "preprocess": self.subject.preprocess.digest,
            "film": str(self.path),
            "film_shape": self.radiograph.shape,
            **facts,
            **words,
            **geometry,
            **masks,
        }
        np.savez_compressed(path, allow_pickle=False, **{key: np.array(value) for key, value in content.items()})


def _full_colour(found: "Explanation") -> float:
    """The value that gets full colour, above 0."""
    size = np.abs(found.values)
    top = float(np.percentile(size, STRONGEST)) if found.method == "lrp" else float(size.max())
    return max(top, float(np.finfo(np.float32).tiny))


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
