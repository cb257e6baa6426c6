import warnings

import numpy as np
import onnxruntime
import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from scipy.special import expit, log_softmax, softmax
from torch import nn

from edgecxr.errors import StageError
from edgecxr.spec import Head
from edgecxr.teachers.architecture import build
from edgecxr.teachers.foreign import ForeignSource, load_foreign
from edgecxr.teachers.weights import write_weights

pytestmark = pytest.mark.train
SOURCES = TypeAdapter(ForeignSource)
# Another order than ours, and one output that is not ours.
CLASSES = ["pneumonia", "mass", "fracture", "normal", "effusion", "covid"]
ORDER = [3, 5, 0, 4, 1]
FACTORY = """
import torch

def make():
    torch.manual_seed(3)
    return torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(4), torch.nn.Flatten(), torch.nn.Linear(48, 6))

def number():
    return 7
"""


class Small(nn.Module):
    """Takes (N, channels, 40, 40) in -1024 to 1024."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(4)
        self.last = nn.Linear(16 * channels, 6)
        nn.init.normal_(self.last.weight, std=1e-3, generator=torch.Generator().manual_seed(5))
        nn.init.constant_(self.last.bias, 0.25)

    def forward(self, images):
        return self.last(self.pool(images).flatten(1))


class Many(Small):
    def forward(self, images):
        return {"features": self.pool(images), "logits": super().forward(images)}


@pytest.fixture
def images():
    return np.random.default_rng(0).random((5, 1, 40, 40), dtype=np.float32)


def source(kind, **more):
    common = {"name": "guest", "size": 40, "channels": 3, "low": -1024, "high": 1024, "classes": CLASSES}
    return SOURCES.validate_python({"kind": kind, **common, **more})


def wanted(module, images, low=-1024.0, high=1024.0, channels=3):
    """What the module says, in our order, by the shortest way."""
    values = torch.from_numpy(np.repeat(low + images * (high - low), channels, axis=1))
    with torch.no_grad():
        return module(values).numpy()[:, ORDER]


def exported(path, module=None, batch=None):
    films = torch.rand(batch or 2, 3, 40, 40)
    shapes = None if batch else ({0: torch.export.Dim("films")},)
    torch.export.save(torch.export.export((module or Small()).eval(), (films,), dynamic_shapes=shapes), path)


def traced(path, module=None):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit.* is deprecated", category=FutureWarning)
        torch.jit.trace(module or Small(), torch.rand(2, 3, 40, 40)).save(path)


def onnx(path, module=None, batch=None):
    films = torch.rand(batch or 2, 3, 40, 40)
    shapes = None if batch else ({0: torch.export.Dim("films")},)
    torch.onnx.export((module or Small()).eval(), (films,), path, dynamo=True, verbose=False, dynamic_shapes=shapes)


@pytest.mark.parametrize("batch", [None, 2])
@pytest.mark.parametrize(
    ("kind", "key", "file", "write"),
    [
        ("program", "program", "m.pt2", exported),
        ("program", "program", "m.ts", traced),
        ("onnx", "onnx", "m.onnx", onnx),
    ],
    ids=["export", "torchscript", "onnx"],
)
def test_a_file_gives_the_logits_of_the_module(kind, key, file, write, batch, images, heads, tmp_path):
    write(tmp_path / file, **({} if batch is None or write is traced else {"batch": batch}))
    teacher = load_foreign(source(kind, **{key: file}), heads, base=tmp_path)
    assert teacher.classes == ("normal", "covid", "pneumonia", "effusion", "mass")
    np.testing.assert_allclose(teacher.logits(images), wanted(Small(), images), atol=1e-4)


@pytest.mark.parametrize("name", ["test_resnet", "torchvision:squeezenet1_1"])
def test_a_checkpoint_gives_the_logits_of_the_architecture(name, images, heads, tmp_path):
    torch.manual_seed(1)
    body = build(name, 6, channels=3).body.eval()
    torch.save({"state_dict": {f"module.{key}": value for key, value in body.state_dict().items()}}, tmp_path / "w.pt")
    told = source("checkpoint", checkpoint="w.pt", architecture=name, low=0, high=1, mean=[0.4, 0.5, 0.6], std=[0.2])
    logits = load_foreign(told, heads, base=tmp_path).logits(images)
    values = (torch.from_numpy(images) - torch.tensor([0.4, 0.5, 0.6]).view(1, 3, 1, 1)) / 0.2
    with torch.no_grad():
        np.testing.assert_allclose(logits, body(values).numpy()[:, ORDER], atol=1e-4)


def test_a_checkpoint_of_ours_is_taken_as_it_is(images, heads, tmp_path):
    network = build("test_resnet", 6).eval()
    write_weights(tmp_path / "w.safetensors", network.state_dict())
    told = source("checkpoint", checkpoint="w.safetensors", architecture="test_resnet", channels=1, low=0, high=1)
    logits = load_foreign(told, heads, base=tmp_path).logits(images)
    np.testing.assert_allclose(logits, wanted(network, images, 0.0, 1.0, 1), atol=1e-5)


def test_a_factory_beside_the_recipe_gives_its_module(images, heads, tmp_path):
    (tmp_path / "my_nets.py").write_text(FACTORY)
    teacher = load_foreign(source("factory", factory="my_nets:make"), heads, base=tmp_path)
    np.testing.assert_allclose(teacher.logits(images), wanted(teacher.session.module.cpu(), images), rtol=1e-3)
    with pytest.raises(StageError, match="returned int; wanted a torch"):
        load_foreign(source("factory", factory="my_nets:number"), heads, base=tmp_path)
    with pytest.raises(StageError, match="'my_nets:absent' cannot be had"):
        load_foreign(source("factory", factory="my_nets:absent"), heads, base=tmp_path)


def test_a_factory_takes_weights(images, heads, tmp_path):
    module = Small()
    nn.init.normal_(module.last.weight, std=1e-2)
    torch.save(module.state_dict(), tmp_path / "w.pt")
    (tmp_path / "other_nets.py").write_text(FACTORY.replace("return torch.nn.Sequential(", "return Wrapped(") + WRAPPED)
    teacher = load_foreign(source("factory", factory="other_nets:make", weights="w.pt"), heads, base=tmp_path)
    np.testing.assert_allclose(teacher.logits(images), wanted(module, images), rtol=1e-3, atol=1e-3)
    (tmp_path / "w.pt").unlink()
    torch.save({"first.weight": torch.ones(2)}, tmp_path / "w.pt")
    with pytest.raises(StageError, match="what 'other_nets:make' makes: 3 tensors, first: last"):
        load_foreign(source("factory", factory="other_nets:make", weights="w.pt"), heads, base=tmp_path)


WRAPPED = """
class Wrapped(torch.nn.Module):
    def __init__(self, pool, flat, last):
        super().__init__()
        self.pool, self.flat, self.last = pool, flat, last

    def forward(self, images):
        return self.last(self.flat(self.pool(images)))
"""


@pytest.mark.parametrize("output", ["logits", 1])
@pytest.mark.parametrize(
    ("kind", "key", "file", "write"),
    [("program", "program", "m.pt2", exported), ("onnx", "onnx", "m.onnx", onnx)],
    ids=["export", "onnx"],
)
def test_one_output_of_many_is_named(kind, key, file, write, output, images, heads, tmp_path):
    write(tmp_path / file, Many())
    if kind == "onnx" and output == "logits":  # the exporter chose the name
        session = onnxruntime.InferenceSession(str(tmp_path / file), providers=["CPUExecutionProvider"])
        output = session.get_outputs()[1].name
    teacher = load_foreign(source(kind, **{key: file}, output=output), heads, base=tmp_path)
    np.testing.assert_allclose(teacher.logits(images), wanted(Small(), images), atol=1e-4)
    with pytest.raises(StageError, match=r"the model has 2 outputs \(.*\); output: says which, got None"):
        load_foreign(source(kind, **{key: file}), heads, base=tmp_path)


class Probable(Small):
    def forward(self, images):
        scores = super().forward(images)
        return torch.cat([scores[:, :1], scores[:, 1:2].sigmoid(), scores[:, 2:]], 1).softmax(1)


def test_probabilities_become_logits_of_the_same_probabilities(images, heads, tmp_path):
    exported(tmp_path / "m.pt2", Probable())
    teacher = load_foreign(source("program", program="m.pt2", outputs="probabilities"), heads, base=tmp_path)
    logits, told = teacher.logits(images), wanted(Probable(), images)
    np.testing.assert_allclose(expit(logits[:, 3:]), told[:, 3:], rtol=1e-4)
    three = told[:, :3] / told[:, :3].sum(axis=1, keepdims=True)  # given that it is one of the three
    np.testing.assert_allclose(softmax(logits[:, :3], axis=1), three, rtol=1e-4)


def test_logits_declared_probabilities_are_refused(heads, tmp_path):
    exported(tmp_path / "m.pt2")
    with pytest.raises(StageError, match=r"where outputs: probabilities promises \[0, 1\]; say outputs: logits"):
        load_foreign(source("program", program="m.pt2", outputs="probabilities"), heads, base=tmp_path)


def test_dropping_outputs_keeps_the_odds_of_the_rest(images, heads, tmp_path):
    exported(tmp_path / "m.pt2")
    logits = load_foreign(source("program", program="m.pt2"), heads, base=tmp_path).logits(images)
    odds = log_softmax(logits[:, :3], axis=1)
    np.testing.assert_allclose(odds[:, 0] - odds[:, 1], logits[:, 0] - logits[:, 1], atol=1e-5)


def test_the_same_answer_for_every_film_names_the_value_range(heads, tmp_path):
    exported(tmp_path / "m.pt2")
    with pytest.raises(StageError, match=r"'guest' says the same of every film \(.*value\s+range"):
        load_foreign(source("program", program="m.pt2", low=0, high=1e-6), heads, base=tmp_path)


def test_a_wrong_size_or_channel_count_is_refused(heads, tmp_path):
    onnx(tmp_path / "m.onnx")
    with pytest.raises(StageError, match=r"(?s)m.onnx failed on films \(4, 3, 48, 48\): .*; check size and channels"):
        load_foreign(source("onnx", onnx="m.onnx", size=48), heads, base=tmp_path)
    with pytest.raises(StageError, match="check size and channels"):
        load_foreign(source("onnx", onnx="m.onnx", channels=1), heads, base=tmp_path)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["normal", "covid", "a", "b", "c", "d"], "lacks pneumonia of head 'diagnosis'; it has normal, covid, a"),
        (["a", "b", "c", "d", "e", "f"], "none of normal, covid, .* is there"),
        (["normal", "normal", "covid", "d", "e", "f"], "names the output 'normal' twice"),
        (["normal", "covid", "pneumonia"], r"gave \(4, 6\) for 4 films; its classes want \(4, 3\)"),
    ],
)
def test_a_wrong_class_list_is_refused(classes, message, heads, tmp_path):
    exported(tmp_path / "m.pt2")
    with pytest.raises(StageError, match=message):
        load_foreign(source("program", program="m.pt2", classes=classes), heads, base=tmp_path)


def test_it_votes_on_the_heads_that_it_has(images, heads, tmp_path):
    exported(tmp_path / "m.pt2")
    told = source("program", program="m.pt2", classes=["_", "mass", "_", "_", "effusion", "_"])
    teacher = load_foreign(told, heads, base=tmp_path)
    assert teacher.heads == heads[1:]
    np.testing.assert_allclose(teacher.logits(images), wanted(Small(), images)[:, 3:], atol=1e-4)


@pytest.mark.parametrize(
    ("kind", "more", "message"),
    [
        ("checkpoint", {"checkpoint": "no.pt", "architecture": "test_resnet"}, "no weight file at .*no.pt"),
        ("checkpoint", {"checkpoint": "w.pt", "architecture": "resnet19"}, "no architecture 'resnet19'"),
        (
            "checkpoint",
            {"checkpoint": "w.pt", "architecture": "test_resnet"},
            "does not fit test_resnet with 6",
        ),
        ("program", {"program": "no.pt2"}, "no program at .*no.pt2"),
        ("program", {"program": "w.ts"}, "w.ts is not a program that torch"),
        ("onnx", {"onnx": "no.onnx"}, "no ONNX file at .*no.onnx"),
        ("onnx", {"onnx": "w.pt"}, "w.pt is not a model that ONNX Runtime"),
        ("factory", {"factory": "no_such_module:make"}, "'no_such_module:make' cannot be had"),
    ],
)
def test_what_cannot_be_opened_is_refused(kind, more, message, heads, tmp_path):
    torch.save(Small().state_dict(), tmp_path / "w.pt")
    torch.save(Small().state_dict(), tmp_path / "w.ts")
    with pytest.raises(StageError, match=message):
        load_foreign(source(kind, **more), heads, base=tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "keras"}, "does not match any of the expected tags: 'checkpoint', 'factory', 'program', 'onnx'"),
        ({"mean": [0.1, 0.2]}, r"mean has 2 values for 3 channel\(s\); give 1 or 3"),
        ({"low": 1, "high": 1}, "low and high are both 1"),
        ({"sise": 3}, "Extra inputs are not permitted"),
        ({"std": [0.0]}, "greater than 0"),
    ],
)
def test_a_source_says_what_is_wrong_with_it(change, message):
    told = {"kind": "onnx", "onnx": "m.onnx", "name": "guest", "channels": 3, "classes": CLASSES}
    with pytest.raises(ValidationError, match=message):
        SOURCES.validate_python(told | change)


def test_files_are_those_that_decide_the_answers():
    assert source("onnx", onnx="m.onnx").files == ("m.onnx",)
    assert source("factory", factory="a:b").files == ()
    assert source("factory", factory="a:b", weights="w.pt").files == ("w.pt",)
    assert source("onnx", onnx="m.onnx").preprocess.size == 40


def test_a_turned_range_turns_the_film(images, tmp_path):
    head = Head(name="h", kind="sigmoid", classes=("effusion",))
    exported(tmp_path / "m.pt2")
    turned = source("program", program="m.pt2", low=1024, high=-1024)
    logits = load_foreign(turned, [head], base=tmp_path).logits(images)
    np.testing.assert_allclose(logits[:, 0], wanted(Small(), 1 - images)[:, 3], atol=1e-3)
