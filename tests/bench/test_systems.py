"""Networks are judged by the finished stages of exactly their recipe and films, and by no other logits."""

import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.train
pytest.importorskip("torch")

from edgecxr.export.stages import Stage, Workshop  # noqa: E402

STAGE = Stage("teacher-a", lambda place: (place / "logits.npy").write_bytes(b"1"), {"films": "these"})


def test_only_finished_stages_of_the_same_inputs_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "bench")
    import systems

    with pytest.raises(SystemExit, match=r"has no stage teacher-a of this recipe and these films; build it first"):
        systems.Finished(tmp_path).run(STAGE)
    made = Workshop(tmp_path).run(STAGE)
    assert systems.Finished(tmp_path).run(STAGE) == made
    other = Stage("teacher-a", STAGE.run, {"films": "others"})
    with pytest.raises(SystemExit, match="has no stage teacher-a of this recipe"):
        systems.Finished(tmp_path).run(other)
    assert [path.name for path in tmp_path.iterdir()] == [made.name]
    sys.modules.pop("systems")
