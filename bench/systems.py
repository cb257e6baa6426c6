"""The published systems: what each network weighs, computes and takes for one film, and how well a build of it decides.

Scenario: each network as a teacher in PyTorch FP32, and exported as a student in OpenVINO INT8, one film at a time on
the same cores, in rounds that take turns. Weights are random, for times and for INT8 sizes, and the table says so: the
INT8 graph of a trained network may keep other layers in floating point. Systems of several networks ("a+b") run one
after the other. The number: p50 in ms. Accuracy is read from the teachers that a build has trained: calibrated on its
validation folds, judged on its test folds, as `edgecxr build` judges its ensemble.

    python bench/systems.py --size 224 --threads 2
    python bench/systems.py --network resnet50 --network resnet101+resnet152
    python bench/systems.py --rounds 0 --recipe recipes/covid3.yaml --data FILMS --build work/covid3 --finding covid
"""

import argparse
import os
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import harness
import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from edgecxr.decision import OperatingRule
from edgecxr.export.bench import Bench
from edgecxr.export.films import gather_films
from edgecxr.export.fusion import fuse_members
from edgecxr.export.judgement import figures, score_ensemble
from edgecxr.export.members import ask_members
from edgecxr.export.recipe import Recipe, TrainedGroup, TrainedMember, load_recipe
from edgecxr.export.schooling import LOGITS, trained
from edgecxr.export.stages import Stage, Workshop, digest_of
from edgecxr.export.student import Student, build_student
from edgecxr.export.to_int8 import Method, quantize
from edgecxr.export.to_onnx import to_onnx
from edgecxr.runtimes.graph import GraphSession
from edgecxr.teachers.architecture import Network, build
from edgecxr.teachers.progress import Silent

SYSTEMS = (
    *("resnet18", "resnet50", "resnet101", "resnet152", "resnet101+resnet152"),
    *("torchvision:squeezenet1_1", "densenet121", "densenet201", "covid_densenet"),
    *("vgg16", "torchvision:alexnet", "inception_v3", "inception_resnet_v2"),
)
CLASSES = 3
SPECIFICITY = OperatingRule(name="specificity 90 %", specificity=0.9)
Row = dict[str, Any]


def main() -> None:
    arguments = parsed()
    torch.set_num_threads(arguments.threads)
    systems = tuple(arguments.network or SYSTEMS)
    timed = measured(systems, arguments) if arguments.rounds else {}
    rows = {"networks": timed, "accuracy": judged(arguments) if arguments.build else {}}
    path = harness.write_result("systems", vars(arguments), rows)
    table = "\n\n".join(part for part in (network_table(rows["networks"]), accuracy_table(rows["accuracy"])) if part)
    path.with_suffix(".md").write_text(table + "\n", encoding="utf-8")
    print(table, f"stored in {path} and {path.with_suffix('.md')}", sep="\n\n")


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", action="append", default=[], metavar="NAME[+NAME]", help="repeatable")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=30, help="0: no times")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--recipe", help="of the build whose teachers are judged")
    parser.add_argument("--data", help="the folder of films that it was built from")
    parser.add_argument("--build", help="its folder of stages, WORK/NAME of `edgecxr build --work WORK`")
    parser.add_argument("--finding", default="covid", help="the class whose sensitivity is shown")
    arguments = parser.parse_args()
    if arguments.build and not arguments.recipe:
        parser.error("--build is judged with the folds and heads of its --recipe; give both")
    return arguments


def measured(systems: tuple[str, ...], arguments: argparse.Namespace) -> dict[str, Row]:
    """Parameters, GFLOPs and times of each system."""
    names = tuple(dict.fromkeys(name for system in systems for name in system.split("+")))
    film = np.random.default_rng(0).random((1, 1, arguments.size, arguments.size), dtype=np.float32)
    teachers = {name: build(name, CLASSES, size=arguments.size).eval() for name in names}
    graphs = {name: exported(name, film) for name in names}
    sessions = {name: GraphSession(graph, "openvino", threads=arguments.threads) for name, graph in graphs.items()}
    image = torch.from_numpy(film)

    def in_pytorch(members: list[str]) -> None:
        with torch.inference_mode():
            for name in members:
                teachers[name](image)

    def in_openvino(members: list[str]) -> None:
        for name in members:
            sessions[name].infer(film)

    engines = {"pytorch": in_pytorch, "openvino": in_openvino}
    calls = {
        f"{system} {engine}": partial(run, system.split("+")) for system in systems for engine, run in engines.items()
    }
    times = harness.interleaved(calls, rounds=arguments.rounds)
    return {
        system: {
            "parameters": sum(parameters(teachers[name]) for name in system.split("+")),
            "gflops": sum(gflops(teachers[name], image) for name in system.split("+")),
            "student_parameters": sum(parameters(build_student(name, CLASSES)) for name in system.split("+")),
            "weights": "random",
            "int8_bytes": sum(len(graphs[name]) for name in system.split("+")),
            "ms": {engine: harness.summary(times[f"{system} {engine}"]) for engine in ("pytorch", "openvino")},
            "ratio": harness.ratio(times[f"{system} pytorch"], times[f"{system} openvino"]),
        }
        for system in systems
    }


def exported(name: str, film: np.ndarray) -> bytes:
    """The network as an INT8 student, calibrated on one film: enough for its time, not for its decisions."""
    torch.manual_seed(0)
    size = film.shape[-1]
    student = settled(build_student(name, CLASSES, size=size), size)
    return quantize(to_onnx(student, size), film, methods=[Method("minmax")], score=lambda _: 0.0).model


def settled(student: Student, size: int) -> Student:
    """Batch norms with statistics of their own, so that activations keep to a range."""
    with torch.no_grad():
        student.train()(torch.rand(4, 1, size, size))
    return student.eval()


def parameters(network: torch.nn.Module) -> int:
    return sum(part.numel() for part in network.parameters())


def gflops(network: Network, image: torch.Tensor) -> float:
    """10^9 operations for one film; a multiplication and an addition are two."""
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        network(image)
    return float(counter.get_total_flops()) / 1e9


def judged(arguments: argparse.Namespace) -> dict[str, Row]:
    """Every figure of each trained network of a build and of all fused, on the recipe's test folds."""
    recipe = load_recipe(Path(arguments.recipe), data=Path(arguments.data) if arguments.data else None)
    workshop = Finished(Path(arguments.build))
    films = gather_films(recipe, workshop)
    bench = Bench(recipe, workshop, films, Path(arguments.recipe).parent, lambda _: nullcontext(Silent()))
    logits = {member.name: np.load(trained(bench, member) / LOGITS) for member in candidates(recipe)}
    logits |= {vote.name: vote.logits for vote in ask_members(bench)} | {"all, fused": fuse_members(bench)}
    at = replace(bench, recipe=recipe.model_copy(update={"operating_points": (SPECIFICITY,)}))
    answers = [score_ensemble(at, values) for values in logits.values()]
    return {name: shown(answer, arguments.finding) for name, answer in zip(logits, figures(at, answers), strict=True)}


class Finished(Workshop):
    """The stages of a build of exactly this recipe on exactly these films; one that is not there is not made here."""

    def run(self, stage: Stage) -> Path:
        digest = digest_of(self._inputs(stage))
        if not (self.folder / f"{stage.name}-{digest[:12]}" / "done.json").is_file():
            raise SystemExit(f"{self.folder} has no stage {stage.name} of this recipe and these films; build it first")
        return super().run(stage)


def candidates(recipe: Recipe) -> list[TrainedMember]:
    """Networks that were trained so that one could be chosen; those that were not chosen have no vote."""
    return [member for group in recipe.teachers if isinstance(group, TrainedGroup) for member in group.members]


def shown(answer: Row, finding: str) -> Row:
    """Accuracy and macro AUROC of the head of `finding`, and the finding's sensitivity at 90 % specificity."""
    entry = next((item for item in answer["classes"] if item["name"] == finding and item["is_finding"]), None)
    if entry is None:
        names = ", ".join(item["name"] for item in answer["classes"] if item["is_finding"])
        raise SystemExit(f"no finding {finding!r} in the recipe; --finding is one of {names}")
    head = next(item for item in answer["heads"] if item["name"] == entry["head"])
    point = entry["operating_points"][0]
    figures_of = {"accuracy": head["accuracy"], "macro_auroc": head["macro_auroc"], "auroc": entry["auroc"]}
    return {"films": head["films"], **figures_of, **{key: point[key] for key in ("sensitivity", "specificity")}}


def network_table(rows: dict[str, Row]) -> str:
    if not rows:
        return ""
    kinds = "PyTorch FP32, ms | OpenVINO INT8, ms | ratio | INT8, MB"
    lines = ["Weights are random: no time and no size here is of a network that can decide anything.", ""]
    lines += [f"| system | parameters, M | as a student, M | GFLOPs | {kinds} |", "|---|---|---|---|---|---|---|---|"]
    for name, row in rows.items():
        sizes = f"{row['parameters'] / 1e6:.1f} | {row['student_parameters'] / 1e6:.1f} | {row['gflops']:.2f}"
        times = " | ".join(f"{row['ms'][engine]['p50']:.1f}" for engine in ("pytorch", "openvino"))
        lines.append(f"| {name} | {sizes} | {times} | {row['ratio']:.1f} | {row['int8_bytes'] / 1e6:.1f} |")
    return "\n".join(lines)


def accuracy_table(rows: dict[str, Row]) -> str:
    if not rows:
        return ""
    finding = "AUROC | sensitivity at 90 % specificity | specificity reached"
    lines = [f"| network | films | accuracy | macro AUROC | {finding} |", "|---|---|---|---|---|---|---|"]
    keys = ("accuracy", "macro_auroc", "auroc", "sensitivity", "specificity")
    for name, row in rows.items():
        lines.append(f"| {name} | {row['films']} | {' | '.join(interval(row[key]) for key in keys)} |")
    return "\n".join(lines)


def interval(value: Row | None) -> str:
    return "–" if value is None else f"{value['value']:.3f} ({value['low']:.3f} to {value['high']:.3f})"


if __name__ == "__main__":
    main()
