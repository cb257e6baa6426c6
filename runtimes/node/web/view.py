"""What the page and the API ask of a node."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal, Protocol

from fastapi import Depends, Request

from edgecxr.runtimes.node.spool import Image, Result, State

if TYPE_CHECKING:
    from edgecxr.runtimes.node.config import NodeConfig
    from edgecxr.runtimes.node.drawing_process import Picture
    from edgecxr.runtimes.node.spool import Spool

__all__ = ["HealthView", "Node", "NodeView", "ObjectKind", "result_of"]

ObjectKind = Literal["sr", "capture"]


class HealthView(Protocol):
    """How the node is, at one moment."""

    @property
    def engine(self) -> str:
        """Engine family, e.g. "openvino-cpu"; "" before one has opened."""

    @property
    def precision(self) -> str:
        """Of the model in use; "" before an engine has opened."""

    @property
    def model(self) -> str:
        """Name and version of the model in use."""

    @property
    def bundle(self) -> str:
        """SHA-256 of the manifest of the bundle in use."""

    @property
    def proved(self) -> float | None:
        """When the golden set was last reproduced (Unix seconds); None before that."""

    @property
    def temperature_c(self) -> float | None:
        """Of the warmest sensor; None where the machine tells none."""

    @property
    def clock_synchronised(self) -> bool | None:
        """Whether something keeps the clock right; None where the system does not tell."""

    @property
    def problems(self) -> Sequence[str]:
        """What a person should see to, a sentence each, without patient data; empty when all is well."""


class NodeView(Protocol):
    """A node as its page sees it. Every method may be called from any thread."""

    @property
    def spool(self) -> "Spool":
        """Where images, results and deliveries are."""

    @property
    def config(self) -> "NodeConfig":
        """What the node was told to do."""

    def health(self) -> HealthView:
        """How the node is now."""

    def ready(self) -> tuple[bool, list[str]]:
        """Whether images are taken and screened, and what stands in the way."""

    def metrics(self) -> bytes:
        """Prometheus text format 0.0.4."""

    def picture(self, image: Image) -> "Picture":
        """The film, at most `LARGEST` pixels a side. Raises Refusal, OSError (no longer kept), DrawingError."""

    def result_object(self, kind: ObjectKind, image: int) -> bytes:
        """The SR or the Secondary Capture of an image as a PS3.10 file. Raises ResultError where none can be made,
        and DrawingError where its picture cannot be drawn now.
        """


def result_of(node: NodeView, image: Image) -> Result | None:
    """The result that an image has now. What is in quarantine has none, even if it was decided on before."""
    return None if image.state is State.QUARANTINED else node.spool.result(image.id)


def _node(request: Request) -> NodeView:
    node: NodeView = request.app.state.node
    return node


Node = Annotated[NodeView, Depends(_node)]
