"""`edgecxr explain` as a user meets it: files, sentences, exit codes."""

import json
import shutil
from importlib.util import find_spec
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from typer.testing import CliRunner, Result

from edgecxr.cli import app
from edgecxr.phantom import chest, write_dicom

pytestmark = pytest.mark.skipif(find_spec("torch") is None, reason="pip install edgecxr[train]")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["explain", *map(str, arguments)], env={"COLUMNS": "160"})


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dicom(chest(2, "covid", 256), tmp_path_factory.mktemp("film") / "a b.dcm", monochrome1=True)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch

    from edgecxr.spec import Head, PreprocessSpec
    from edgecxr.teachers.architecture import build
    from edgecxr.teachers.teacher import MemberRecord, write_member

    torch.set_num_threads(1)
    torch.manual_seed(0)
    heads = (
        Head(name="diagnosis", kind="softmax", classes=("normal", "covid", "pneumonia"), reference="normal"),
        Head(name="signs", kind="sigmoid", classes=("effusion",)),
    )
    network = build("resnet10t", 4)
    torch.nn.init.normal_(network.body.fc.weight)
    folder = tmp_path_factory.mktemp("teacher")
    record = MemberRecord(name="t", architecture="resnet10t", heads=heads, preprocess=PreprocessSpec(size=64))
    write_member(folder, record, network)
    return folder


@pytest.mark.parametrize("method", ["cam", "gradcam", "occlusion", "lrp"])
def test_a_teacher_is_explained_by_every_method(method: str, teacher: Path, film: Path, tmp_path: Path) -> None:
    done = run(teacher, film, "--method", method, "--out", tmp_path, "--finding", "effusion", "--words", "--json")
    assert done.exit_code == 0, done.output
    row = json.loads(done.stdout)["explanations"][0]
    picture = imagecodecs.png_decode(Path(row["overlay"]).read_bytes())
    assert picture.shape == (256, 256, 3)
    assert Path(row["map"]).name == f"00001-a_b.effusion.{method}.npz"
    with np.load(row["map"], allow_pickle=False) as kept:
        assert kept["map"].shape == ((64, 64) if method in ("occlusion", "lrp") else (2, 2))
        assert kept["digest"] == json.loads((teacher / "teacher.json").read_text())["weights_sha256"]
        assert kept["film_shape"].tolist() == [256, 256]
        assert kept["box"].tolist() == [0, 0, 64, 64]
        assert kept["words_mask"].shape == (64, 64)
        if method == "lrp":
            assert kept["map"].sum() == pytest.approx(float(kept["conserved"]) * float(kept["score"]), rel=1e-3)
        if method == "cam":
            assert kept["map"].mean() == pytest.approx(float(kept["score"]), rel=1e-4)
    assert row["words"]["change"] == pytest.approx(row["words"]["log_odds_painted_over"] - row["words"]["log_odds"])


@pytest.mark.parametrize(("method", "engine"), [("cam", "openvino"), ("cam", "onnxruntime"), ("occlusion", "openvino")])
def test_a_bundle_is_explained_forward(method: str, engine: str, tiny_bundle: Path, film: Path, tmp_path: Path) -> None:
    done = run(
        tiny_bundle, film, "--method", method, "--out", tmp_path, "--engine", engine, "--precision", "fp32", "--json"
    )
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert [row["finding"] for row in told["explanations"]] == ["covid", "pneumonia"]
    row = told["explanations"][0]
    with np.load(row["map"], allow_pickle=False) as kept:
        odds = np.log(row["probability"] / (1 - row["probability"]))
        assert float(kept["score"]) == pytest.approx(odds, abs=1e-3)
        assert kept["map"].shape == ((8, 8) if method == "cam" else (64, 64))
        assert np.ptp(kept["map"]) > 0


@pytest.mark.parametrize("method", ["gradcam", "lrp"])
def test_a_bundle_says_which_methods_it_allows(method: str, tiny_bundle: Path, film: Path, tmp_path: Path) -> None:
    done = run(tiny_bundle, film, "--method", method, "--out", tmp_path)
    assert done.exit_code == 2
    assert "it allows cam and occlusion" in done.stderr


def test_a_refused_film_is_told_with_its_reason_and_ends_with_1(tiny_bundle: Path, film: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.dcm"
    broken.write_bytes(film.read_bytes()[:5000])
    thumbnail = tmp_path / "thumbnail.png"
    thumbnail.write_bytes(imagecodecs.png_encode(np.arange(64, dtype=np.uint8).reshape(8, 8)))
    done = run(tiny_bundle, film, broken, thumbnail, "--out", tmp_path / "maps", "--json")
    assert done.exit_code == 1
    told = json.loads(done.stdout)
    assert [row["reason"] for row in told["refused"]] == ["truncated", "too_small"]
    assert len(told["explanations"]) == 2


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--method", "magic"), "unknown method 'magic'; choose cam, gradcam, occlusion, lrp"),
        (("--finding", "gout"), "no finding 'gout'; choose normal, covid, pneumonia"),
        (("--layer", "layer4"), "--layer is for gradcam"),
        (("--composite", "alpha"), "choose epsilon-plus-flat, epsilon-plus, epsilon-gamma-box"),
        (("--teacher", "a"), "--teacher a chooses from a recipe"),
    ],
)
def test_a_wrong_choice_is_one_sentence(options: tuple[str, str], sentence: str, tiny_bundle: Path, film: Path) -> None:
    done = run(tiny_bundle, film, "--out", film.parent / "maps", *options)
    assert done.exit_code == 2
    assert sentence in done.stderr


def test_weights_without_a_record_are_refused(tmp_path: Path, film: Path) -> None:
    weights = tmp_path / "weights.pth"
    weights.write_bytes(b"0")
    done = run(weights, film, "--out", tmp_path / "maps")
    assert done.exit_code == 2
    assert "no teacher.json beside it" in done.stderr


@pytest.fixture(scope="module")
def joined(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher of two networks, with normalizations of their own."""
    import torch

    from edgecxr.spec import Head, PreprocessSpec
    from edgecxr.teachers.architecture import build
    from edgecxr.teachers.joint import join
    from edgecxr.teachers.teacher import MemberRecord, write_member

    torch.set_num_threads(1)
    torch.manual_seed(1)
    names = ("resnet10t", "test_resnet")
    heads = (Head(name="diagnosis", kind="softmax", classes=("normal", "covid"), reference="normal"),)
    networks = {name: build(name, 2) for name in names}
    for network in networks.values():
        torch.nn.init.normal_(network.body.get_classifier().weight)
    networks["resnet10t"].std.fill_(0.5)
    network = join(networks)
    network.body.theta.data = torch.tensor([1.0, 0.0])
    folder = tmp_path_factory.mktemp("joined")
    record = MemberRecord(name="both", architecture="-", joint=names, heads=heads, preprocess=PreprocessSpec(size=64))
    write_member(folder, record, network)
    return folder


@pytest.mark.parametrize("method", ["cam", "gradcam", "lrp"])
def test_joined_networks_are_explained_as_the_sum_that_they_are(
    method: str, joined: Path, film: Path, tmp_path: Path
) -> None:
    from edgecxr.kernels import preprocess
    from edgecxr.read import read_radiograph
    from edgecxr.teachers.teacher import open_member

    layer = ("--layer", "networks.1.body.layer4") if method == "gradcam" else ()
    done = run(joined, film, "--method", method, "--out", tmp_path, "--json", *layer)
    assert done.exit_code == 0, done.output
    row = json.loads(done.stdout)["explanations"][0]
    opened = open_member(joined, device="cpu")
    normal, covid = opened.logits(preprocess([read_radiograph(film)], opened.preprocess))[0]
    assert row["score"] == pytest.approx(covid if method == "lrp" else covid - normal, rel=1e-3)
    with np.load(row["map"], allow_pickle=False) as kept:
        if method == "cam":
            assert kept["map"].mean() == pytest.approx(covid - normal, rel=1e-3)
            assert row["layer"] == "networks.0.body.layer4, networks.1.body.layer4"
        if method == "lrp":
            assert kept["map"].sum() == pytest.approx(row["conserved"] * row["score"], rel=1e-3)


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        ((), "reads its score from 2 feature maps (networks.0.body.layer4, networks.1.body.layer4); gradcam is told"),
        (("--layer", "%"), "no layer '%' in 'both'; the nearest are networks.0.body.layer4, networks.1.body.layer4"),
    ],
)
def test_a_layer_that_does_not_fit_joined_networks_is_misuse(
    joined: Path, film: Path, tmp_path: Path, layer: tuple[str, ...], words: str
) -> None:
    done = run(joined, film, "--method", "gradcam", "--out", tmp_path, *layer)
    assert done.exit_code == 2
    assert words in done.stderr


def test_a_teacher_sees_jpeg_2000_as_it_did_in_training(teacher: Path, tmp_path: Path) -> None:
    from edgecxr.kernels import preprocess
    from edgecxr.read import read_radiograph
    from edgecxr.teachers.teacher import open_member

    film = write_dicom(chest(4, "covid", 512), tmp_path / "film.dcm", syntax="jpeg2000")
    spec = open_member(teacher).preprocess
    films = {"full": read_radiograph(film), "reduced": read_radiograph(film, reduced_for=spec)}
    assert films["reduced"].shape < films["full"].shape
    scores = set()
    for reading, radiograph in films.items():
        folder = tmp_path / reading
        shutil.copytree(teacher, folder)
        record = json.loads((folder / "teacher.json").read_text())
        (folder / "teacher.json").write_text(json.dumps(record | {"reading": {"jpeg2000": reading}}))
        done = run(folder, film, "--method", "cam", "--finding", "effusion", "--out", tmp_path / "maps", "--json")
        row = json.loads(done.stdout)["explanations"][0]
        logit = open_member(folder).logits(preprocess([radiograph], spec))[0, 3]
        assert row["score"] == pytest.approx(float(logit), rel=1e-5)
        scores.add(round(row["score"], 4))
    assert len(scores) == 2
