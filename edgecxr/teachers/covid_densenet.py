"""Covid-DenseNet: a DenseNet tapped at four scales, attention inside each scale, and one fused map under a pooled head.

After "COVID-19 recognition from chest X-ray images by combining deep learning with transfer learning", which describes
DenseNet features at several scales, weighted inside each scale by attention, joined by a multi-scale fusion. Names, for
`teachers.architecture.build` and `export.student.build_student`: ``covid_densenet`` (DenseNet-121),
``covid_densenet169`` and ``covid_densenet201``; they are entries of timm's registry like any other.

What the description leaves open, and what was chosen:

- *Scales*: the outputs of the four dense blocks, at strides 4, 8, 16 and 32 (the last after the final norm).
- *Attention*: channel, then spatial attention, as in CBAM (Woo et al., ECCV 2018, section 3; timm has it), after a
  1×1 convolution, batch norm and ReLU have brought the scale to `WIDTH` channels.
- *Fusion*: each scale is averaged down to stride 32, where the sides are equal for every input size; the four are
  concatenated, and a 1×1 convolution, batch norm and ReLU mix them into `FUSED` channels. Its weights weigh the scales.
- *Head*: mean over the fused map, then one linear layer, so that the map exists (Zhou et al., CVPR 2016).

Names of the backbone's weights are those of timm's DenseNet, so weight files of a plain DenseNet start it.
"""

from typing import Any

import torch
from timm.layers import ConvNormAct
from timm.layers.cbam import CbamModule
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.densenet import DenseNet
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["FUSED", "WIDTH", "CovidDenseNet", "covid_densenet", "covid_densenet169", "covid_densenet201"]

WIDTH = 128  # channels of a scale under attention
FUSED = 512  # channels of the fused map
TAPS = ("denseblock1", "denseblock2", "denseblock3", "norm5")  # layers of the backbone that end a scale


class CovidDenseNet(DenseNet):  # type: ignore[misc]
    """(N, channels, S, S) -> (N, C) logits; `forward_features` gives the fused map (N, 512, S/32, S/32).

    S is at least 32. Keywords as timm's DenseNet has them (`growth_rate`, `block_config`, `in_chans`, `num_classes` …).
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        channels = {item["module"].removeprefix("features."): item["num_chs"] for item in self.feature_info}
        self.projections = nn.ModuleList(ConvNormAct(channels[tap], WIDTH, 1) for tap in TAPS)
        self.attentions = nn.ModuleList(CbamModule(WIDTH) for _ in TAPS)
        self.fusion = ConvNormAct(WIDTH * len(TAPS), FUSED, 1)
        self.num_features = FUSED
        self.reset_classifier(self.num_classes)

    def forward_features(self, x: Tensor) -> Tensor:
        """The fused map, (N, 512, h, w), h and w those of the last dense block."""
        scales: list[Tensor] = []
        for name, layer in self.features.named_children():
            x = layer(x)
            if name in TAPS:
                place = len(scales)
                weighted = self.attentions[place](self.projections[place](x))
                scales.append(functional.avg_pool2d(weighted, 2 ** (len(TAPS) - 1 - place)))
        fused: Tensor = self.fusion(torch.cat(scales, dim=1))
        return fused


def covid_densenet(pretrained: bool = False, **options: Any) -> CovidDenseNet:
    """On DenseNet-121."""
    return _create("covid_densenet", (6, 12, 24, 16), pretrained, options)


def covid_densenet169(pretrained: bool = False, **options: Any) -> CovidDenseNet:
    """On DenseNet-169."""
    return _create("covid_densenet169", (6, 12, 32, 32), pretrained, options)


def covid_densenet201(pretrained: bool = False, **options: Any) -> CovidDenseNet:
    """On DenseNet-201."""
    return _create("covid_densenet201", (6, 12, 48, 32), pretrained, options)


def _create(name: str, blocks: tuple[int, ...], pretrained: bool, options: dict[str, Any]) -> CovidDenseNet:
    network: CovidDenseNet = build_model_with_cfg(
        CovidDenseNet,
        name,
        pretrained,
        pretrained_strict=False,
        pretrained_filter_fn=_backbone,
        feature_cfg={"flatten_sequential": True},
        **{"block_config": blocks, **options},
    )
    return network


def _backbone(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """A plain DenseNet's weights without its classifier, which has another width."""
    return {name: value for name, value in state.items() if not name.startswith("classifier.")}


def _source(repository: str) -> dict[str, Any]:
    """timm's record of where weights come from and how their images were normalized."""
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    place = {"hf_hub_id": repository, "num_classes": 1000, "input_size": (3, 224, 224), "pool_size": (7, 7)}
    return {**place, "mean": mean, "std": std, "first_conv": "features.conv0", "classifier": "classifier"}


default_cfgs = generate_default_cfgs(  # timm's registry looks for this name
    {
        "covid_densenet.densenet121": _source("timm/densenet121.ra_in1k"),
        "covid_densenet169.densenet169": _source("timm/densenet169.tv_in1k"),
        "covid_densenet201.densenet201": _source("timm/densenet201.tv_in1k"),
    }
)

for _entry in (covid_densenet, covid_densenet169, covid_densenet201):
    register_model(_entry)
