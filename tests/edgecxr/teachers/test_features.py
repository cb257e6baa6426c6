import numpy as np
import pytest
import torch

from edgecxr.teachers.architecture import build
from edgecxr.teachers.features import FeatureTap
from edgecxr.teachers.joint import join

pytestmark = pytest.mark.train


@pytest.mark.parametrize("name", ["resnet10t", "torchvision:squeezenet1_1"])
def test_the_classifier_of_the_features_gives_the_logits(name):
    torch.manual_seed(0)
    network = build(name, 3).eval()
    films = torch.rand(2, 1, 64, 64)
    with FeatureTap(network) as tap, torch.inference_mode():
        logits = network(films).numpy()
        seen = tap.take()
    assert len(seen) == 2
    last = [part for part in network.modules() if isinstance(part, torch.nn.Linear)]
    if last:
        with torch.inference_mode():
            assert np.allclose(last[-1](torch.from_numpy(seen)).numpy(), logits, atol=1e-5)
    else:
        assert seen.shape == (2, 512)  # in front of the last convolution, averaged over place
    network(films)
    with pytest.raises(ValueError, match="at least one array"):
        tap.take()  # nothing is kept after it is closed


def test_features_of_joined_networks_stand_side_by_side():
    torch.manual_seed(0)
    network = join({name: build(name, 3) for name in ("resnet10t", "test_resnet")}).eval()
    films = torch.rand(2, 1, 64, 64)
    with FeatureTap(network) as tap, torch.inference_mode():
        network(films)
        network(films[:1])
        seen = tap.take()
    one, other = (part.body for part in network.body.networks)
    assert seen.shape == (3, one.num_features + other.num_features)
    with torch.inference_mode():
        for part, own in ((one, seen[:2, : one.num_features]), (other, seen[:2, one.num_features :])):
            logits = part((films - 0.5) / 0.25)
            assert np.allclose(part.get_classifier()(torch.from_numpy(own)).numpy(), logits.numpy(), atol=1e-5)
