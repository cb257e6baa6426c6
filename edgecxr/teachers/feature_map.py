"""The last feature map of a network, and what is read from it: class activation maps and Grad-CAM.

Zhou et al., CVPR 2016 (cam: the class's weights over the map, forward only, for a head that is one linear layer behind
a mean); Selvaraju et al., ICCV 2017 (Grad-CAM: the map's channels weighted by the mean gradient of the score; captum).
"""

import difflib
from collections.abc import Callable

import numpy as np
import torch
from captum.attr import LayerGradCam
from numpy.typing import NDArray
from torch import Tensor, fx, nn
from zennit.types import AvgPool, MaxPool

from edgecxr.errors import ChoiceError
from edgecxr.teachers.explained import ExplainedNetwork
from edgecxr.teachers.module_graph import ModuleGraph, module_of, shape_of

__all__ = ["FeatureMap"]

SAME = 1e-3  # largest difference between the mean of a class activation map and the logit, over max(1, logit)


class FeatureMap:
    """A feature map (1, K, h, w) of a network; `layer` is its name there."""

    def __init__(self, network: ExplainedNetwork, image: NDArray[np.float32], layer: str | None = None) -> None:
        """`image` is (1, 1, S, S) in [0, 1]; `layer` None takes the last map.

        Raises ChoiceError when there is none, when several end side by side, or when `layer` is no map.
        """
        self.network = network
        self.graph = ModuleGraph(network.body, network.values(image))
        if layer is None:
            self.node = self._last()
            self.layer = self._name(self.node)
        else:
            self.node, self.layer = self._named(layer), layer
        tap = self.graph.add(self.node, "explained_map", nn.Identity(), (self.node,))
        self.node.replace_all_uses_with(tap, delete_user_cb=lambda user: user is not tap)
        self.path = [(node, module_of(self.graph, node)) for node in self._after(tap)]
        self.graph.module.recompile()
        self._tap = self.graph.module.get_submodule("explained_map")

    def grad_cam(self, image: NDArray[np.float32], score: Callable[[Tensor], Tensor]) -> NDArray[np.float32]:
        """(h, w), at least 0, of `score`, which maps logits (N, C) in the teacher's order to (N,)."""

        def scored(values: Tensor) -> Tensor:
            return score(self.graph.module(values)[:, self.network.columns])[:, None]

        values = self.network.values(image).requires_grad_()
        maps = LayerGradCam(scored, self._tap).attribute(values, target=0, relu_attributions=True)
        found: NDArray[np.float32] = maps.detach()[0, 0].cpu().numpy()
        return found

    def cam(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """(C, h, w) class activation maps, whose means are the logits. Raises ChoiceError for another kind of head."""
        linear = self._pooled_linear()
        kept: list[Tensor] = []
        handle = self._tap.register_forward_hook(lambda *event: kept.append(event[2]))
        with torch.no_grad():
            logits = self.graph.module(self.network.values(image))[0]
        handle.remove()
        maps = kept[0][0]
        if linear is not None:
            with torch.no_grad():
                maps = torch.einsum("ck,khw->chw", linear.weight.flatten(1), maps)
                maps = maps if linear.bias is None else maps + linear.bias[:, None, None]
        if maps.shape[0] != len(logits) or (maps.mean(dim=(1, 2)) - logits).abs().max() > SAME * max(
            1.0, float(logits.abs().max())
        ):
            raise self._no_cam("the mean of its map is not the logit")
        found: NDArray[np.float32] = maps[list(self.network.columns)].cpu().numpy()
        return found

    def _pooled_linear(self) -> nn.Linear | None:
        """The linear layer behind the mean; None where the map itself is one of the classes (SqueezeNet)."""
        shapes = (nn.Flatten, nn.Identity)
        layers = [part for _, part in self.path if part is not None and not isinstance(part, shapes)]
        pool = layers[0] if layers else None
        if not isinstance(pool, nn.AdaptiveAvgPool2d) or pool.output_size not in (1, (1, 1)):
            raise self._no_cam(f"behind its last map comes {type(pool).__name__}")
        if len(layers) == 1:
            return None
        if len(layers) > 2 or not isinstance(layers[1], nn.Linear):
            raise self._no_cam(f"{len(layers) - 1} layers follow its mean")
        return layers[1]

    def _no_cam(self, why: str) -> ChoiceError:
        return ChoiceError(
            f"{self.network.name!r} has no class activation map, which takes a mean over the map and one linear layer: "
            f"{why}; gradcam, occlusion and lrp can explain it"
        )

    def _last(self) -> fx.Node:
        """The map behind which there are only pools and vectors."""
        found = self._ends()
        names = [self._name(node) for node in found]
        if not names:
            raise ChoiceError(f"{self.network.name!r} has no feature map of more than one cell at this size")
        if len(names) > 1:
            raise ChoiceError(
                f"{self.network.name!r} reads its score from {len(names)} feature maps ({', '.join(sorted(names))}); "
                "gradcam is told which by --layer NAME"
            )
        return found[0]

    def _ends(self) -> list[fx.Node]:
        """Every such map; networks that read several side by side have as many."""
        waiting, found = [node for node in self.graph.graph.nodes if node.op == "output"], dict[fx.Node, None]()
        while waiting:
            node = waiting.pop()
            shape = shape_of(node)
            is_map = len(shape) == 4 and shape[2] * shape[3] > 1
            if is_map and node.op == "placeholder":
                continue
            if is_map and not isinstance(module_of(self.graph, node), AvgPool | MaxPool):
                found[node] = None
            else:
                waiting += node.all_input_nodes
        return list(found)

    def _name(self, node: fx.Node) -> str:
        """The outermost module of the network that returns this node, else the node's own name."""
        names = [name for name, output in self.graph.layers.items() if output is node and name]
        return min(names, key=lambda name: (name.count("."), len(name)), default=str(node.name))

    def _named(self, layer: str) -> fx.Node:
        known = {node.name: node for node in self.graph.graph.nodes} | self.graph.layers
        if layer not in known:
            close = difflib.get_close_matches(layer, known, n=4, cutoff=0.4) or sorted(map(self._name, self._ends()))
            raise ChoiceError(f"no layer {layer!r} in {self.network.name!r}; the nearest are {', '.join(close)}")
        shape = shape_of(known[layer])
        if len(shape) != 4 or shape[2] * shape[3] < 2:
            raise ChoiceError(f"layer {layer!r} gives {shape or 'no tensor'}, and no map (N, K, h, w) of several cells")
        found: fx.Node = known[layer]
        return found

    def _after(self, tap: fx.Node) -> list[fx.Node]:
        """Every node that depends on the map, in order, without the output."""
        found = {tap: None}
        for node in self.graph.graph.nodes:
            if any(source in found for source in node.all_input_nodes):
                found[node] = None
        return [node for node in found if node.op != "output"]
