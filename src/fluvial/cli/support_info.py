"""What ``fluvial info`` shows of a run of ``fluvial support train``."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from fluvial.cli.folders import size_on_disk
from fluvial.cli.render import format_value
from fluvial.support.config import read_config


def describe_support_run(run: Path) -> dict[str, Any]:
    """What the table shows, as plain values; a run without a checkpoint yet is described as far as it goes.

    Raises:
        ValueError: If the folder holds no such run, or no checkpoint is intact.
    """
    from fluvial.training.checkpoints import list_checkpoints
    from fluvial.training.logs import read_metrics
    from fluvial.training.recovery import read_newest

    config = read_config(run)
    last, folders = read_newest(run), list_checkpoints(run)
    losses = read_metrics(run)
    step = 0 if last is None else last.step
    return {
        "run": str(run),
        "command": "support",
        "config": asdict(config),
        "dim": None if last is None else last.state.get("dim"),
        "parameters": None if last is None else sum(value.numel() for value in last.tensors("ema").values()),
        "step": step,
        "steps": config.steps,
        "finished": step >= config.steps,
        "checkpoints": [folder.name for folder in folders],
        "checkpoint_hash": None if last is None else last.hash,
        "first_loss": losses[0]["loss"] if losses else None,
        "last_loss": losses[-1]["loss"] if losses else None,
        "bytes": size_on_disk(run),
    }


def support_rows(values: dict[str, Any]) -> list[tuple[str, str]]:
    """The same as rows of a table."""
    config = values["config"]
    sizes = f"{config['m']}" if config["least_m"] is None else f"{config['least_m']} to {config['m']}"
    head = ", exact head" if config["exact_head"] else ""
    parameters = "no checkpoint yet" if values["parameters"] is None else f"{values['parameters']:,} parameters"
    resume = f"resumable: fluvial support train --resume {values['run']}"
    loss = ["none yet" if values[name] is None else format_value(values[name]) for name in ("first_loss", "last_loss")]
    return [
        ("tasks", f"{config['tasks']}, dimension {values['dim'] or config['dim'] or 'of the family'}"),
        ("support", f"{sizes} examples, sigma_min {config['sigma_min']:g}"),
        ("net", f"width {config['width']}, {config['blocks']} blocks, {config['heads']} heads{head}, {parameters}"),
        ("update", f"{config['batch_size']} tasks of {config['points']} points, bank {config['bank']}"),
        ("step", f"{values['step']:,} of {values['steps']:,}"),
        ("loss, first and last", " and ".join(loss)),
        ("checkpoints", ", ".join(values["checkpoints"]) or "none"),
        ("hash of the last", (values["checkpoint_hash"] or "none")[:16]),
        ("size on disk", f"{values['bytes'] / 1e6:.1f} MB"),
        ("state", "finished: every step is done" if values["finished"] else resume),
    ]
