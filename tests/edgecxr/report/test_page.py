import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from edgecxr.bundle import Manifest
from edgecxr.decision import FindingResult
from edgecxr.errors import RefusalReason
from edgecxr.export.evaluation import evaluate
from edgecxr.export.gate import compare
from edgecxr.export.scored import Scored
from edgecxr.phantom import chest, write_dicom
from edgecxr.report import write_report
from edgecxr.report.content import chosen_models, merged_points, shipped_models, stages
from edgecxr.runtimes.screening import Screening
from edgecxr.scores import probabilities
from edgecxr.spec import Head, ModelSpec, OperatingPoint, PreprocessSpec

EVIL = "<script>alert('x')</script>"
HEAD = Head(name="finding", kind="softmax", classes=("covid", "normal", "pneumonia"), reference="normal")
THRESHOLDS = {"covid": 0.3, "pneumonia": 0.4}
VOID = {"meta", "img", "br", "link", "input"}


def points(precision):
    common = {"name": "screening", "precision": precision, "engine": "openvino-cpu", "rule": "sensitivity >= 0.9"}
    return tuple(
        OperatingPoint(finding=name, threshold=threshold, sensitivity=0.9, specificity=0.8, **common)
        for name, threshold in THRESHOLDS.items()
    )


SPEC = ModelSpec(
    name="covid3",
    version="1",
    heads=(HEAD,),
    preprocess=PreprocessSpec(size=64),
    temperatures={"int8": (1.0,)},
    operating_points=points("int8"),
    cam_shape=(4, 4),
    embedding_size=2,
)


def manifest(**provenance):
    members = dict.fromkeys(("model.int8.onnx", "golden.npz", "gates.npz", "evaluation.json", "card.md"), "0" * 64)
    return Manifest(model=SPEC, chain=SPEC.preprocess.digest, members=members, provenance=provenance, tolerance=0.02)


def screening(file, *, scores=None, **given):
    """A decided film where there are scores (covid, pneumonia), else a refused one."""
    origin = {"engine": "openvino-cpu", "precision": "int8", "kernel": "numpy", "bundle": "0" * 64}
    if scores is None:
        reason = RefusalReason.TRUNCATED
        return Screening(str(file), "refused", **origin, reason=reason, milliseconds={"read": 1.0}, **given)
    findings = tuple(
        FindingResult(name, score, limit, "positive" if score >= limit else "negative")
        for (name, limit), score in zip(THRESHOLDS.items(), scores, strict=True)
    )
    times = {"read": 4.0, "preprocess": 1.0, "infer": 2.0}
    cam = np.random.default_rng(0).normal(size=(3, 4, 4)).astype(np.float32)
    return Screening(str(file), "ok", **origin, findings=findings, milliseconds=times, cam=cam, **given)


@pytest.fixture
def screenings(tmp_path):
    films = [write_dicom(chest(number, size=64), tmp_path / f"film-{number}.dcm") for number in range(2)]
    return [
        screening(films[0], scores=(0.1, 0.2), notes=(f"odd {EVIL}",)),
        screening(films[1], scores=(0.8, 0.2)),
        screening(tmp_path / f"bad {EVIL.replace('/', '')}.dcm", detail=f"cut short {EVIL}"),
    ]


@pytest.fixture(scope="module")
def scored():
    generator = np.random.default_rng(1)
    labels = np.repeat([0, 1, 2], 12)
    logits = generator.normal(0, 1.2, (36, 3))
    logits[np.arange(36), labels] += 2
    names = ("student fp32 openvino-cpu", "student int8 openvino-cpu")
    models = [
        Scored(name, moved, probabilities(moved, [HEAD], (1.0,)), points=points(name.split()[1]))
        for name, moved in zip(names, (logits, logits + generator.normal(0, 0.3, logits.shape)), strict=True)
    ]
    return labels, models


@pytest.fixture(scope="module")
def evaluation(scored):
    labels, models = scored
    return {
        "models": [evaluate(model, {"finding": labels}, [HEAD], samples=50) for model in models],
        "gate": [compare(models[0], models[1], {"finding": labels}, [HEAD], samples=50).to_json()],
    }


class Page(HTMLParser):
    """Checks that tags are balanced and collects what could load or run."""

    def __init__(self, text):
        super().__init__()
        self.open, self.loads, self.tags = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.loads += [value for name, value in attributes if name in ("src", "href", "action", "data")]
        assert not [name for name, _ in attributes if name.startswith("on")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_a_page_stands_alone_and_escapes_everything(tmp_path, screenings, evaluation):
    origin = {"recipe": EVIL, "libraries": {EVIL: EVIL}, "recipe_text": f"name: {EVIL}"}
    path = write_report(
        tmp_path / "new" / "report.html",
        title=f"Day {EVIL}",
        screenings=screenings,
        evaluation=evaluation,
        engines=[{"family": "openvino-cpu", "passed over": [EVIL]}],
        manifest=manifest(**origin),
        history={EVIL: [{"epoch": 1, "train_loss": 0.5}, {"epoch": 2, "train_loss": 0.4, f"weight_{EVIL}": 0.5}]},
    )
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert "script" not in page.tags
    assert "<script" not in text
    assert text.count("&lt;script&gt;") >= 8
    assert all(value.startswith(("data:image/", "#")) for value in page.loads)
    assert "://" not in re.sub(r'content="[^"]*"', "", text)
    assert "Research use only" in text


def test_refused_files_have_a_reason_and_nothing_else(tmp_path, screenings):
    text = write_report(tmp_path / "r.html", title="t", screenings=screenings, manifest=manifest()).read_text("utf-8")
    refused = text[text.index('<section id="refused"') : text.index('<section id="engine"')]
    assert "truncated" in refused
    assert "none of them counts as negative" in refused
    assert 'class="finding"' not in refused
    assert text.count('class="film"') == 2


def test_positive_films_come_first_with_their_heatmap(tmp_path, screenings):
    text = write_report(tmp_path / "r.html", title="t", screenings=screenings, manifest=manifest()).read_text("utf-8")
    assert text.index("film-1.dcm</h3>") < text.index("film-0.dcm</h3>")
    assert text.count("data:image/jpeg;base64,") == 4
    assert 'alt="heatmap of covid on film-1.dcm"' in text


def test_pictures_are_capped_and_the_page_says_so(tmp_path, screenings):
    path = write_report(tmp_path / "r.html", title="t", screenings=screenings, manifest=manifest(), pictures=1)
    text = path.read_text("utf-8")
    assert text.count("data:image/jpeg;base64,") == 2
    assert "The first 1 films have pictures" in text


def test_a_film_that_is_gone_is_shown_without_a_picture(tmp_path):
    gone = screening(tmp_path / "gone.dcm", scores=(0.9, 0.9))
    text = write_report(tmp_path / "r.html", title="t", screenings=[gone], manifest=manifest()).read_text("utf-8")
    assert "gone.dcm</h3>" in text
    assert "data:image" not in text


def test_every_figure_has_its_interval(tmp_path, evaluation):
    text = write_report(tmp_path / "r.html", title="t", evaluation=evaluation).read_text("utf-8")
    figures = re.findall(r'class="figure">(.*?)</span>', text)
    assert len(figures) > 30
    assert all(re.fullmatch(r"(−?\d\.\d{3})?<small>(−?\d\.\d{3} to −?|≥ )\d\.\d{3}</small>", item) for item in figures)
    outside = re.sub(r'class="figure">.*?</span>', "", text[text.index('id="accuracy"') : text.index('id="gate"')])
    assert not re.search(r">\s*\d\.\d{2,3}\s*<", re.sub(r"<svg.*?</svg>", "", outside, flags=re.DOTALL))


def test_what_cannot_be_computed_is_said(tmp_path, scored):
    labels, models = scored
    few = evaluate(models[0], {"finding": np.where(labels == 0, -1, labels)}, [HEAD], samples=20)
    text = write_report(tmp_path / "r.html", title="t", evaluation=few).read_text("utf-8")
    assert "not computed" in text
    assert "student fp32 openvino-cpu: " in text
    Page(text)


def test_the_gate_may_come_as_reports(tmp_path, scored):
    labels, models = scored
    gate = compare(models[0], models[1], {"finding": labels}, [HEAD], samples=20)
    for given in (gate, [gate], gate.to_json()):
        text = write_report(tmp_path / "r.html", title="t", gate=given).read_text("utf-8")
        assert "student int8 openvino-cpu against student fp32 openvino-cpu" in text
        assert text.count('class="forest"') == sum(row.difference is not None for row in gate.rows)


def test_a_row_of_the_gate_names_its_operating_point(tmp_path, scored):
    labels, models = scored
    told = compare(models[0], models[1], {"finding": labels}, [HEAD], samples=20).to_json()
    finding = HEAD.findings[0]
    now = write_report(tmp_path / "r.html", title="t", gate=told).read_text("utf-8")
    assert now.count(f"<td>{finding}, screening</td>") == 3
    assert f"<td>{finding}</td>" in now
    for row in told["rows"]:
        del row["point"]  # as bundles have it that were built when one point was judged
    before = write_report(tmp_path / "r.html", title="t", gate=told).read_text("utf-8")
    assert f"<td>{finding}, screening</td>" not in before
    assert before.count('class="forest"') == now.count('class="forest"')


def test_an_empty_report_has_no_sections(tmp_path):
    text = write_report(tmp_path / "r.html", title="Nothing").read_text("utf-8")
    assert "<section" not in text
    assert "Research use only" in text
    Page(text)


def folded(text):
    """What a reader sees at once, and what is folded."""
    return re.sub(r"<details>.*?</details>", "", text, flags=re.DOTALL), "".join(
        re.findall(r"<details>.*?</details>", text, flags=re.DOTALL)
    )


def test_operating_points_with_one_threshold_are_one_row(tmp_path, scored):
    labels, models = scored
    twice = [point.model_copy(update={"name": "balanced"}) for point in models[0].points if point.finding == "covid"]
    moved = [
        point.model_copy(update={"name": "balanced", "threshold": 0.5})
        for point in models[0].points
        if point.finding == "pneumonia"
    ]
    model = replace(models[0], points=(*models[0].points, *twice, *moved))
    figures = evaluate(model, {"finding": labels}, [HEAD], samples=20)
    text = write_report(tmp_path / "r.html", title="t", evaluation=figures).read_text("utf-8")
    rows = re.findall(r"<td>(screening|balanced|screening and balanced) <span", text)
    assert rows == ["screening and balanced", "screening", "balanced"]
    assert text.count('<td rowspan="2">student fp32 openvino-cpu</td>') == 1  # two thresholds of one model: named once
    points = next(entry["operating_points"] for entry in figures["classes"] if entry["name"] == "covid")
    assert merged_points(points) == [{**points[0], "name": "screening and balanced"}]


def test_what_the_bundle_holds_comes_first_and_the_rest_is_folded(tmp_path, evaluation):
    precisions = [{"precision": "fp16", "packed": False}, {"precision": "int8", "packed": True}]
    path = write_report(tmp_path / "r.html", title="t", evaluation=evaluation | {"precisions": precisions})
    text = path.read_text("utf-8")
    Page(text)
    accuracy = text[text.index('id="accuracy"') : text.index('id="gate"')]
    seen, hidden = folded(accuracy)
    assert seen.count("<td>student int8 openvino-cpu</td>") == hidden.count("<td>student fp32 openvino-cpu</td>") == 3
    assert "<td>student fp32" not in seen
    assert "<td>student int8" not in hidden


def test_all_models_are_shown_where_nothing_says_what_was_packed(tmp_path, evaluation):
    text = write_report(tmp_path / "r.html", title="t", evaluation=evaluation).read_text("utf-8")
    assert "<td>student fp32 openvino-cpu</td>" in folded(text)[0]


def test_of_two_models_of_one_name_the_later_is_in_the_bundle():
    names = ["ensemble fp32 pytorch", "student fp32 a", "student int8 a", "student int8 a"]
    models = [{"name": name, "number": number} for number, name in enumerate(names)]
    packed = [{"precision": "int8", "packed": False}, {"precision": "int8", "packed": True}]
    assert shipped_models(models, {"precisions": packed}) == ([models[3]], models[:3])
    assert shipped_models(models, {"precisions": packed[:1]}) == (models, [])
    assert chosen_models(models) == [models[0], models[1], models[3]]


def test_what_was_trained_for_its_precision_takes_the_place_of_what_failed():
    names = [f"student {name} {engine}" for name in ("fp32", "fp16", "int8", "int8-qat") for engine in "ab"]
    models = [{"name": name} for name in ["ensemble fp32 pytorch", *names]]
    told = [("fp16", "fp16", True), ("int8", "int8", False), ("int8-qat", "int8", True)]
    packed = [{"name": name, "precision": precision, "packed": passed} for name, precision, passed in told]
    assert shipped_models(models, {"precisions": packed}) == ([*models[3:5], *models[7:]], [*models[:3], *models[5:7]])
    assert chosen_models(models) == [models[0], models[1], models[3], models[7]]


def test_no_row_that_the_gate_leaves_open_or_fails_is_folded(tmp_path, scored):
    labels, models = scored
    worse = replace(models[1], name="student fp16 openvino-cpu", probabilities=models[1].probabilities[::-1].copy())
    reports = [compare(models[0], side, {"finding": labels}, [HEAD], samples=20) for side in (models[1], worse)]
    text = write_report(tmp_path / "r.html", title="t", gate=reports).read_text("utf-8")
    Page(text)
    seen, hidden = folded(text)
    verdicts = [row.verdict for report in reports for row in report.rows]
    assert {"inferior", "inconclusive"} <= set(verdicts)
    for verdict in ("inferior", "inconclusive", "not_judged"):
        assert seen.count(f'class="pill {verdict}"') == verdicts.count(verdict)
        assert f'class="pill {verdict}"' not in hidden
    assert hidden.count('class="pill non_inferior"') == verdicts.count("non_inferior")
    assert all(seen.count(report.comparison) == 2 and report.reason in seen for report in reports)


def test_figures_say_which_films_they_are_of(tmp_path, evaluation):
    built = write_report(tmp_path / "a.html", title="t", evaluation=evaluation).read_text("utf-8")
    assert "<h3>covid, on the test films</h3>" in built
    assert "its test films: kept out of training, and out of the setting of thresholds" in built
    own = write_report(tmp_path / "b.html", title="t", evaluation=evaluation["models"][0]).read_text("utf-8")
    assert "<h3>covid, on the evaluated films</h3>" in own
    assert "test films" not in own


@pytest.mark.parametrize(("side", "said"), [(4, True), (7, False)])
def test_a_coarse_map_is_said_to_be_coarse(tmp_path, screenings, side, said):
    told = manifest()
    told = told.model_copy(update={"model": SPEC.model_copy(update={"cam_shape": (side, side)})})
    text = write_report(tmp_path / "r.html", title="t", screenings=screenings, manifest=told).read_text("utf-8")
    assert (f"maps have only {side} × {side} cells" in text) == said


def test_plots_show_each_artefact_once(evaluation):
    names = ["ensemble fp32 pytorch", "student int8 openvino-cpu", "student int8 onnxruntime-cpu"]
    assert [model["name"] for model in chosen_models([{"name": name} for name in names])] == names[:2]


def test_stages_count_the_films_that_reached_them(screenings):
    found = {stage.name: stage for stage in stages(screenings)}
    assert {name: stage.films for name, stage in found.items()} == {
        "read": 3,
        "preprocess": 2,
        "infer": 2,
        "total": 2,
    }
    assert found["total"].p50 == pytest.approx(7.0)
