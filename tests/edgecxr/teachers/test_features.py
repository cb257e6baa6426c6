import numpy as np
import pytest
import torch

from edgecxr.teachers.architecture import build
from edgecxr.teachers.features import FeatureTap

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
