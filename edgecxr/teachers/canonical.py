"""The canonical form of a network, for which the rules of layer-wise relevance propagation were made.

Pahde et al., "Optimizing Explanations by Network Canonization and Hyperparameter Search" (2022): a batch norm is no
layer of its own, but part of the convolution beside it. zennit brings canonizers for VGG and torchvision's ResNets;
this one works on the graph of any network:

- convolution, batch norm: merged (`torch.nn.utils.fusion`);
- batch norm, ReLU, convolution (DenseNet): relu(s x + t) = s T(x) + t, with T(x) = x where s x + t > 0, else -t / s.
  The scale and the shift go into the convolution, and T is an activation;
- batch norm, ReLU, mean over the map, linear layer (the end of DenseNet): the same, with the linear layer as a 1×1
  convolution in front of the mean, so that the mean is over class scores;
- a factor after a convolution (Inception-ResNet): part of its weights;
- a map times an attention (sigmoid): all relevance follows the map, none the attention (the signal takes it all;
  Arras et al., "Explaining Recurrent Neural Network Predictions in Sentiment Analysis", 2017).

A batch norm that fits none of these stays, and its relevance passes through it (zennit's rule `Pass`).
"""

import copy
import operator
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval
from zennit.types import Activation, AvgPool, BatchNorm, MaxPool

from edgecxr.errors import StageError
from edgecxr.teachers.module_graph import ModuleGraph, module_of

__all__ = ["PooledHead", "Threshold", "canonize"]

PRODUCTS: tuple[Any, ...] = (operator.mul, operator.imul, torch.mul, "mul")
SHAPES: tuple[Any, ...] = (torch.cat, torch.flatten, torch.stack, torch.reshape, torch.unsqueeze, torch.squeeze)
SHAPES += (operator.getitem, getattr, torch.chunk, torch.split, "flatten", "view", "reshape", "size", "chunk", "split")
SHAPES += ("unsqueeze", "squeeze", "expand", "expand_as")
SMALLEST = 1e-8  # scale of a batch norm below which its channel counts as constant


class Threshold(nn.Module):
    """T(x) = x where scale x + shift > 0, else -shift / scale, channel by channel; an activation."""

    scale: Tensor
    shift: Tensor

    def __init__(self, scale: Tensor, shift: Tensor) -> None:
        super().__init__()
        self.register_buffer("scale", scale.view(1, -1, 1, 1))
        self.register_buffer("shift", shift.view(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) -> the same shape."""
        return torch.where(self.scale * x + self.shift > 0, x, -self.shift / self.scale)


class PooledHead(nn.Conv2d):
    """A linear layer in front of the mean over the map instead of behind it."""


class Gated(nn.Module):
    """map * attention, whose derivative by the map is 1: relevance goes through to the map whole."""

    def forward(self, signal: Tensor, gate: Tensor) -> Tensor:
        """(N, C, h, w) and what broadcasts to it -> (N, C, h, w)."""
        return signal + (signal * gate - signal).detach()


def canonize(graph: ModuleGraph) -> int:
    """Bring `graph` into canonical form, in place; returns how many batch norms had to stay.

    Raises StageError naming the first step between film and score that no rule is known for.
    """
    for step in (_merge_norm, _merge_factor, _gate, _threshold, _threshold_head):
        for node in list(graph.graph.nodes):
            step(graph, node)
        graph.finish()
    live = _live(graph)
    for node in live:
        _check(graph, node)
    return sum(isinstance(module_of(graph, node), BatchNorm) for node in live)


def _only_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _source(graph: ModuleGraph, node: fx.Node) -> tuple[fx.Node, nn.Module | None]:
    """The node's first input and its module, None where that has other users."""
    source = node.all_input_nodes[0]
    return source, module_of(graph, source) if _only_user(source) is node else None


def _merge_norm(graph: ModuleGraph, node: fx.Node) -> None:
    norm = module_of(graph, node)
    if not isinstance(norm, nn.BatchNorm2d | nn.BatchNorm1d):
        return
    source, linear = _source(graph, node)
    if isinstance(linear, nn.Conv2d):
        graph.module.add_submodule(str(source.target), fuse_conv_bn_eval(linear, norm))
    elif isinstance(linear, nn.Linear):
        graph.module.add_submodule(str(source.target), fuse_linear_bn_eval(linear, norm))
    else:
        return
    graph.replace(node, source)


def _merge_factor(graph: ModuleGraph, node: fx.Node) -> None:
    if node.target not in PRODUCTS or len(node.all_input_nodes) != 1:
        return
    source, linear = _source(graph, node)
    factor = next((item for item in node.args if isinstance(item, int | float)), None)
    if not isinstance(linear, nn.Conv2d | nn.Linear) or factor is None:
        return
    with torch.no_grad():
        linear.weight.mul_(factor)
        if linear.bias is not None:
            linear.bias.mul_(factor)
    graph.replace(node, source)


def _gate(graph: ModuleGraph, node: fx.Node) -> None:
    if node.target not in PRODUCTS or len(node.all_input_nodes) != 2:
        return
    gates = [item for item in node.all_input_nodes if _is_gate(graph, item)]
    if len(gates) == 1:
        signal = next(item for item in node.all_input_nodes if item is not gates[0])
        graph.replace(node, graph.add(node, f"gated_{node.name}", Gated(), (signal, gates[0])))


def _is_gate(graph: ModuleGraph, node: fx.Node) -> bool:
    """Whether the node is a sigmoid, perhaps in another shape."""
    while node.target in SHAPES and node.all_input_nodes:
        node = node.all_input_nodes[0]
    called = isinstance(module_of(graph, node), nn.Sigmoid | nn.Hardsigmoid)
    return called or node.target in (torch.sigmoid, "sigmoid", nn.functional.sigmoid, nn.functional.hardsigmoid)


def _threshold(graph: ModuleGraph, node: fx.Node) -> None:
    """Batch norm, ReLU, convolution without padding (a padded zero is no value of the threshold)."""
    parts = _norm_before(graph, node)
    convolution = module_of(graph, node)
    if parts is None or not isinstance(convolution, nn.Conv2d) or any(map(bool, convolution.padding)):
        return
    if convolution.groups != 1:
        return
    norm, relu, scale, shift = parts
    weight = convolution.weight.detach()
    moved = copy.deepcopy(convolution)
    moved.bias = nn.Parameter(weight.new_zeros(len(weight)))
    _fill(moved, weight, convolution.bias, (scale, shift))
    graph.module.add_submodule(str(node.target), moved)
    graph.replace(relu, graph.add(relu, f"threshold_{norm.name}", Threshold(scale, shift), (norm.all_input_nodes[0],)))


def _threshold_head(graph: ModuleGraph, node: fx.Node) -> None:
    """Batch norm, ReLU, mean over the map, flattened, linear layer."""
    linear = module_of(graph, node)
    if not isinstance(linear, nn.Linear):
        return
    flat = node.all_input_nodes[0]
    pool = flat.all_input_nodes[0] if flat.all_input_nodes else flat
    flattens = isinstance(module_of(graph, flat), nn.Flatten) or flat.target in (torch.flatten, "flatten")
    if not flattens or _only_user(flat) is not node or _only_user(pool) is not flat or not _is_mean(graph, pool):
        return
    parts = _norm_before(graph, pool)
    if parts is None:
        return
    norm, relu, scale, shift = parts
    head = PooledHead(linear.in_features, linear.out_features, 1)
    _fill(head, linear.weight.detach()[:, :, None, None], linear.bias, (scale, shift))
    threshold = graph.add(relu, f"threshold_{norm.name}", Threshold(scale, shift), (norm.all_input_nodes[0],))
    graph.replace(relu, graph.add(threshold, f"head_{node.name}", head, (threshold,)))
    graph.replace(node, flat)


def _is_mean(graph: ModuleGraph, node: fx.Node) -> bool:
    pool = module_of(graph, node)
    return isinstance(pool, nn.AdaptiveAvgPool2d) and pool.output_size in (1, (1, 1))


def _norm_before(graph: ModuleGraph, node: fx.Node) -> tuple[fx.Node, fx.Node, Tensor, Tensor] | None:
    """Batch norm and ReLU that only `node` follows, with the norm's scale and shift; None where that is not so."""
    if not node.all_input_nodes:
        return None
    relu, activation = _source(graph, node)
    if not isinstance(activation, nn.ReLU):
        return None
    before, norm = _source(graph, relu)
    if not isinstance(norm, nn.BatchNorm2d) or norm.running_var is None or norm.running_mean is None:
        return None
    with torch.no_grad():
        scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        scale = torch.where(scale.abs() < SMALLEST, torch.full_like(scale, SMALLEST), scale)
        return before, relu, scale, norm.bias - norm.running_mean * scale


def _fill(target: nn.Conv2d, weight: Tensor, bias: Tensor | None, affine: tuple[Tensor, Tensor]) -> None:
    """Weights of a convolution (O, I, k, k) that takes T(x) where the former took scale T(x) + shift."""
    scale, shift = affine
    with torch.no_grad():
        target.weight.copy_(weight * scale[None, :, None, None])
        moved = (weight * shift[None, :, None, None]).sum(dim=(1, 2, 3))
        target.bias.copy_(moved if bias is None else moved + bias)  # type: ignore[union-attr]


def _live(graph: ModuleGraph) -> list[fx.Node]:
    """The nodes through which relevance flows from the output: all that lead to it, but for attentions."""
    found: dict[fx.Node, None] = {}
    waiting = [node for node in graph.graph.nodes if node.op == "output"]
    while waiting:
        node = waiting.pop()
        if node not in found:
            found[node] = None
            inputs = node.all_input_nodes
            waiting += inputs[:1] if isinstance(module_of(graph, node), Gated) else inputs
    return [node for node in graph.graph.nodes if node in found]


def _check(graph: ModuleGraph, node: fx.Node) -> None:
    part = module_of(graph, node)
    known = (nn.Conv2d, nn.Linear, AvgPool, MaxPool, BatchNorm, Activation, nn.Flatten, Threshold, Gated)
    if node.op in ("placeholder", "output") or node.target in SHAPES:
        return
    own_sum = type(part).__name__ == "Sum"
    if part is None or not (own_sum or isinstance(part, known)) or isinstance(part, nn.MultiheadAttention):
        what = type(part).__name__ if part is not None else getattr(node.target, "__name__", str(node.target))
        raise StageError(
            f"lrp has no rule for {what!r} (at {node.name!r}); it explains networks of convolutions, linear layers, "
            "batch norms, activations, pooling, sums, concatenations and attention by a sigmoid; use another method"
        )
