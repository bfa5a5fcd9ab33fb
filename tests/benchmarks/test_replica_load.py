"""`maskgil bench serving` with replicas, on a tiny model."""

from pathlib import Path

import pytest
from app_fixtures import tiny_model

from app.core.request import GenerationRequest
from benchmarks.replica_load import report_replicas

pytest.importorskip("ray", reason="Ray Serve is in the extra maskgil[serve]")


@pytest.mark.journey
@pytest.mark.timeout(600)
def test_replicas_are_compared_with_one_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    tiny_model(tmp_path / "tiny")
    monkeypatch.setenv("MASKGIL_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("MASKGIL_MODEL", "tiny")
    monkeypatch.setenv("MASKGIL_RECOGNIZER", "none")
    report_replicas("tiny", [GenerationRequest("two cats", model="tiny", seed=seed) for seed in range(4)], [1])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    assert [row[0] for row in cells] == ["way", "one engine", "1 replica"] and cells[1][2] == "1.00x"
    for row in cells[1:]:
        assert float(row[1]) > 0 and 0 < float(row[3]) <= float(row[4])
