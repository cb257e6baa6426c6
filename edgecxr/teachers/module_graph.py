"""A network as a flat graph in which every layer is a module of its own, so that each can be looked at or replaced.

torch.fx traces the network; functional layers (`relu`, `batch_norm`, pooling, `+`) become modules, a module that is
called twice becomes two, nothing works in place, and what evaluation leaves out (dropout, identities) is gone. The
arithmetic stays what it was. One form for timm, torchvision and networks of ours.
"""

import copy
import operator
from collections.abc import Callable
from typing import Any

import torch
from timm.layers import get_notrace_functions
from timm.models.vgg import ConvMlp
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp
from torch.nn import functional
from zennit.layer import Sum

from edgecxr.errors import StageError

__all__ = ["ModuleGraph", "module_of", "shape_of"]

SUMS: tuple[Any, ...] = (operator.add, operator.iadd, torch.add, "add", "add_")
RELUS: tuple[Any, ...] = (functional.relu, functional.relu_, torch.relu, torch.relu_, "relu", "relu_")
DROPOUTS: tuple[Any, ...] = (functional.dropout, functional.dropout2d, functional.alpha_dropout)
MEANS: tuple[Any, ...] = (torch.mean, "mean")
POOLS: dict[Any, tuple[type[nn.Module], tuple[str, ...]]] = {
    functional.avg_pool2d: (nn.AvgPool2d, ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad")),
    functional.max_pool2d: (nn.MaxPool2d, ("kernel_size", "stride", "padding", "dilation", "ceil_mode")),
}
UNTRACEABLE = (fx.proxy.TraceError, TypeError, ValueError, RuntimeError, NotImplementedError, AttributeError)
DROPPED = (nn.Identity, nn.Dropout, nn.Dropout2d, nn.AlphaDropout)


class ModuleGraph:
    """`module` maps what `network` maps to the same; `layers` has the output's node for each module of `network`."""

    def __init__(self, network: nn.Module, values: Tensor) -> None:
        """Trace `network`, which is left as it is, for inputs like `values`.

        Raises StageError when torch.fx cannot follow its code, because the way it takes depends on what it computes.
        """
        tracer = _Tracer()
        own = copy.deepcopy(network).eval()
        try:
            _settle(own, values)
            graph = tracer.trace(own)
            self.layers = tracer.layers
            self.module = fx.GraphModule(own, graph)
            self.graph = self.module.graph
            self._rewrite()
            self.finish()
            with torch.no_grad():
                ShapeProp(self.module).propagate(values)
        except UNTRACEABLE as error:
            raise StageError(
                f"torch.fx cannot follow {type(network).__name__} ({str(error).splitlines()[0][:200]}); "
                "explain it by occlusion, which only asks for scores"
            ) from error

    def add(self, after: fx.Node, name: str, module: nn.Module, inputs: tuple[fx.Node, ...]) -> fx.Node:
        """A new node behind `after` that calls `module` on `inputs`."""
        self.module.add_submodule(name, module)
        with self.graph.inserting_after(after):
            return self.graph.call_module(name, inputs)

    def replace(self, old: fx.Node, new: fx.Node) -> None:
        """Everyone who used `old` uses `new`, and `old` is gone."""
        old.replace_all_uses_with(new)
        self.layers = {name: new if node is old else node for name, node in self.layers.items()}
        self.graph.erase_node(old)

    def finish(self) -> None:
        """To call after changes: unused nodes and modules go, and the order of the modules is that of the calls."""
        self.graph.eliminate_dead_code()
        self.module = fx.GraphModule(self._flat(self.module, self.graph), self.graph).eval()
        self.graph = self.module.graph

    def _rewrite(self) -> None:
        for node in list(self.graph.nodes):
            made = _module_for(node, self.module)
            if node.op == "call_function" and getattr(node.target, "__name__", "") == "_assert":
                self.graph.erase_node(node)
            elif _is_dropped(node, self.module):
                self.replace(node, node.all_input_nodes[0])
            elif made is not None:
                self._call(node, made)

    def _call(self, node: fx.Node, made: nn.Module) -> None:
        """The node becomes a call of the module `made`."""
        with self.graph.inserting_before(node):
            source = node.all_input_nodes[0]
            if isinstance(made, Sum):
                source = self.graph.call_function(torch.stack, (list(node.args), -1))
        called = self.add(source, f"own_{node.name}", made, (source,))
        if node.target in MEANS and not _option(node, 2, "keepdim", False):
            with self.graph.inserting_after(called):
                called = self.graph.call_function(torch.flatten, (called, 1))
        self.replace(node, called)

    @staticmethod
    def _flat(own: nn.Module, graph: fx.Graph) -> nn.Module:
        """A module whose children are those that the graph calls, in the order of the calls."""
        root, called = nn.Module(), set[str]()
        for node in graph.nodes:
            if node.op == "call_module":
                part: Any = own.get_submodule(str(node.target))
                part = copy.deepcopy(part) if node.target in called else part
                called.add(str(node.target))
                if hasattr(part, "inplace"):
                    part.inplace = False
                node.target = node.name
                root.add_module(node.name, part)
            elif node.op == "get_attr":
                value = operator.attrgetter(str(node.target))(own)
                node.target = node.name
                root.register_buffer(node.name, value.detach().clone())
        return root


def module_of(graph: ModuleGraph, node: fx.Node) -> nn.Module | None:
    """The module that a node calls; None where it calls none."""
    return graph.module.get_submodule(str(node.target)) if node.op == "call_module" else None


def shape_of(node: fx.Node) -> tuple[int, ...]:
    """Shape of the node's output when the graph was made; empty where that is no tensor, or the node is newer."""
    found = node.meta.get("tensor_meta")
    return tuple(found.shape) if found is not None and hasattr(found, "shape") else ()


class _Tracer(fx.Tracer):
    """Remembers which node each module of the network returned."""

    def __init__(self) -> None:
        super().__init__(autowrap_functions=tuple(get_notrace_functions()))
        self.layers: dict[str, fx.Node] = {}

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        value = super().call_module(m, forward, args, kwargs)
        if isinstance(value, fx.Proxy):
            self.layers[self.path_of_module(m)] = value.node
        return value


def _settle(own: nn.Module, values: Tensor) -> None:
    """Replace, in place, blocks whose code asks for the size of a map by what they do at this size."""
    sizes: dict[str, tuple[int, int]] = {}
    for name, block in own.named_modules():
        if isinstance(block, ConvMlp):
            block.register_forward_pre_hook(lambda _, inputs, name=name: sizes.update({name: inputs[0].shape[-2:]}))
    with torch.no_grad():
        own(values)
    for name, (height, width) in sizes.items():
        found: Any = own.get_submodule(name)
        least = int(found.input_kernel_size)
        pool = nn.AdaptiveAvgPool2d((max(least, height), max(least, width)))
        layers = [*([pool] if min(height, width) < least else []), found.fc1, found.act1, found.fc2, found.act2]
        parent, _, leaf = name.rpartition(".")
        setattr(own.get_submodule(parent), leaf, nn.Sequential(*layers))


def _is_dropped(node: fx.Node, own: nn.Module) -> bool:
    if node.op == "call_module":
        return isinstance(own.get_submodule(str(node.target)), DROPPED)
    return (node.op == "call_function" and node.target in DROPOUTS) or (
        node.op == "call_method" and node.target == "contiguous"
    )


def _module_for(node: fx.Node, own: nn.Module) -> nn.Module | None:
    """A module that does what the node's function does; None where there is none, or it is a module already."""
    if node.op not in ("call_function", "call_method"):
        return None
    if node.target in SUMS and len(node.args) == 2 and all(isinstance(item, fx.Node) for item in node.args):
        return None if node.kwargs else Sum()
    if node.target in RELUS:
        return nn.ReLU()
    if node.target is functional.batch_norm:
        return _batch_norm(node, own)
    if node.target is functional.adaptive_avg_pool2d:
        return nn.AdaptiveAvgPool2d(_option(node, 1, "output_size"))
    if node.target in POOLS:
        kind, names = POOLS[node.target]
        return kind(
            **{name: _option(node, place, name) for place, name in enumerate(names, 1) if _has(node, place, name)}
        )
    if node.target in MEANS:
        axes = _option(node, 1, "dim")
        return nn.AdaptiveAvgPool2d(1) if axes in ([2, 3], (2, 3), [-2, -1], (-2, -1)) else None
    return None


def _has(node: fx.Node, place: int, name: str) -> bool:
    return len(node.args) > place or name in node.kwargs


def _option(node: fx.Node, place: int, name: str, default: Any = None) -> Any:
    """An argument of the node's function, wherever it was written."""
    return node.args[place] if len(node.args) > place else node.kwargs.get(name, default)


def _batch_norm(node: fx.Node, own: nn.Module) -> nn.Module | None:
    """`functional.batch_norm(x, mean, variance, weight, bias, training, momentum, eps)` in evaluation."""
    names = ("running_mean", "running_var", "weight", "bias")
    nodes = [_option(node, place, name) for place, name in enumerate(names, 1)]
    if not all(isinstance(item, fx.Node) and item.op == "get_attr" for item in nodes):
        return None
    values = [operator.attrgetter(str(item.target))(own) for item in nodes]
    norm = nn.BatchNorm2d(len(values[0]), eps=_option(node, 7, "eps", 1e-5))
    norm.load_state_dict(dict(zip(names, values, strict=True)), strict=False)
    return norm
