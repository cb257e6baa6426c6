import pytest
import torch

from edgecxr.errors import StageError
from edgecxr.teachers.architecture import build, head_parameters
from edgecxr.teachers.neurons import keep_neurons, without_classifier

pytestmark = pytest.mark.train


@pytest.mark.parametrize(
    "name", ["test_resnet", "torchvision:squeezenet1_1", "densenet121"], ids=["linear", "convolution", "densenet"]
)
def test_the_neurons_of_kept_classes_are_moved_and_no_others(name):
    torch.manual_seed(0)
    earlier, network = build(name, 6).state_dict(), build(name, 3)
    for key in head_parameters(network):
        torch.nn.init.normal_(earlier[key])
    before = {key: value.clone() for key, value in network.state_dict().items()}
    keep_neurons(earlier, network, {0: 5, 2: 1})
    after, head = network.state_dict(), head_parameters(network)
    assert {key.rpartition(".")[2] for key in head} == {"weight", "bias"}
    for key in head:
        assert torch.equal(after[key][0], earlier[key][5])
        assert torch.equal(after[key][2], earlier[key][1])
        assert torch.equal(after[key][1], before[key][1])
        assert not torch.equal(after[key][0], before[key][0])
    assert all(torch.equal(after[key], before[key]) for key in before if key not in head)


def test_another_classifier_is_refused():
    with pytest.raises(StageError, match=r"no output neurons to keep: body\.fc\.\w+ is absent in the earlier network"):
        keep_neurons(build("densenet121", 6).state_dict(), build("test_resnet", 3), {0: 1})
    with pytest.raises(StageError, match=r"of shape \(2,\) in the earlier network, \(3,\) here"):
        keep_neurons(build("test_resnet", 2).state_dict(), build("test_resnet", 3), {0: 5})


def test_a_network_without_its_classifier():
    network = build("test_resnet", 3)
    left = without_classifier(network.state_dict(), network)
    assert set(network.state_dict()) - set(left) == {"body.fc.weight", "body.fc.bias"}
