"""One of the processes of test_ranks.py: trains each config of a JSON file in turn, as ``torchrun`` started it.

``ranks_worker.py CONFIGS.json OUT``: a list of ``{"name", "config", "resume", "stop", "late"}``, each to be trained
in ``OUT/name``. With ``stop``, the first process alone is sent SIGTERM when that step is reported, and the run is left
interrupted; with ``late``, the second begins that many seconds after the first. After each, a process writes what it
has seen: ``OUT/name.RANK.json``.
"""

import json
import os
import signal
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from torch.distributed.tensor import DTensor

from fluvial.training import Interrupted, TrainConfig, Trainer, read_config
from fluvial.training import state as training_state


def main(configs: str, out: str) -> None:
    torch.set_num_threads(1)
    for job in json.loads(Path(configs).read_text()):
        run = Path(out) / job["name"]
        found = train(job, run)
        (run.parent / f"{job['name']}.{os.environ['RANK']}.json").write_text(json.dumps(found))


def train(job: dict[str, Any], run: Path) -> dict[str, Any]:
    config = read_config(run) if job.get("resume") else TrainConfig(**job["config"])
    seen: dict[str, Any] = {"divided": 0, "parts": 0, "weights": 0, "rows": []}

    class Seeing(training_state.TrainState):
        def _batch(self, generator: Any) -> Any:
            batch = super()._batch(generator)
            seen["rows"].append(batch.index.tolist())
            return batch

        def update(self) -> None:
            super().update()
            seen["divided"] = sum(isinstance(p, DTensor) for p in self.net.parameters())
            seen["weights"] = len(list(self.net.parameters()))
            local = [p.to_local() if isinstance(p, DTensor) else p for p in self.net.parameters()]
            seen["parts"] = sum(p.numel() for p in local)

    def progress(report: Any) -> None:
        if report.step == job.get("stop"):
            os.kill(os.getpid(), signal.SIGTERM)

    if os.environ["RANK"] == "1":
        time.sleep(job.get("late", 0.0))
    from fluvial.training import trainer

    trainer.TrainState = Seeing  # type: ignore[misc]
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            result = Trainer(config, run, progress=progress).fit(resume=bool(job.get("resume")))
            seen.update(step=result.step, total=sum(p.numel() for p in result.net.parameters()))
        except Interrupted as stop:
            seen.update(step=stop.step, signum=stop.signum)
    return {**seen, "warnings": [str(w.message) for w in told if "update" in str(w.message)]}


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
    torch.distributed.destroy_process_group()
    os._exit(0)  # threads of gloo that still run would end the process with an error now and then
