"""``fluvial info``: what is in the folder of a run."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import tyro

from fluvial.cli.classes import list_classes
from fluvial.cli.folders import size_on_disk
from fluvial.cli.render import console, format_value, json_text
from fluvial.cli.support_info import describe_support_run, support_rows
from fluvial.presets import net_options
from fluvial.support.config import is_support_run
from fluvial.training.config import TrainConfig, read_config


@dataclass(frozen=True)
class Info:
    """Show what a run is: data, objective, net, progress, losses, checkpoints and size."""

    EPILOGUE: ClassVar[str] = """\
examples:
  fluvial info runs/a
  fluvial info runs/a --json
"""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of the run."""
    json: bool = False
    """Print JSON on stdout instead of a table."""

    def validate(self, given: tuple[str, ...] = ()) -> None:
        """Refuses a folder that holds no run."""
        if not is_support_run(self.run):
            read_config(self.run)

    def execute(self) -> int:
        """Prints the table."""
        support = is_support_run(self.run)
        values = describe_support_run(self.run) if support else describe_run(self.run)
        if self.json:
            print(json_text(values))
            return 0
        from rich.table import Table

        table = Table(title=f"run {self.run}", show_header=False, title_justify="left")
        table.add_column(style="bold")
        table.add_column(overflow="fold")
        for name, text in support_rows(values) if support else _rows(values):
            table.add_row(name, text)
        console().print(table)
        return 0


def describe_run(run: Path) -> dict[str, Any]:
    """What the table shows, as plain values; a run without a checkpoint yet is described as far as it goes.

    Raises:
        ValueError: If the folder holds no run, or no checkpoint is intact.
    """
    from fluvial.training.checkpoints import list_checkpoints
    from fluvial.training.logs import read_metrics
    from fluvial.training.recovery import read_newest
    from fluvial.training.source import read_data_form

    config = read_config(run)
    last, folders = read_newest(run), list_checkpoints(run)
    form = None if last is None else read_data_form(last.state.get("data"), last.folder)
    table = None if form is None else form.table
    losses = read_metrics(run)
    parameters = None if last is None else sum(value.numel() for value in last.tensors("ema").values())
    step = 0 if last is None else last.step
    return {
        "run": str(run),
        "config": asdict(config),
        "class_names": [] if form is None else list(form.class_names),
        "columns": None if table is None else list(table.columns),
        "columns_left_out": None if table is None else list(table.dropped),
        "parameters": parameters,
        "step": step,
        "steps": config.steps,
        "finished": step >= config.steps,
        "checkpoints": [folder.name for folder in folders],
        "checkpoint_hash": None if last is None else last.hash,
        "first_loss": _point(losses[0]) if losses else None,
        "last_loss": _point(losses[-1]) if losses else None,
        "bytes": size_on_disk(run),
    }


def _point(row: dict[str, float]) -> dict[str, float]:
    return {"step": row["step"], "loss": row["loss"]}


def _rows(values: dict[str, Any]) -> list[tuple[str, str]]:
    config = TrainConfig(**values["config"])
    size = f", size {config.size}" if config.size else ""
    pairs = "" if config.objective == "likelihood" else f", path {config.path}, coupling {config.coupling}"
    objective = config.objective + pairs
    parameters = "no checkpoint yet" if values["parameters"] is None else f"{values['parameters']:,} parameters"
    if values["finished"]:
        state = "finished: every step is done"
    else:
        state = f"resumable: fluvial train --resume {values['run']}"
    columns = [] if values["columns"] is None else [("columns", ", ".join(values["columns"]))]
    if values["columns_left_out"]:
        columns += [("columns left out", f"{', '.join(values['columns_left_out'])} (not numeric)")]
    return [
        ("data", f"{config.data}{size}, split seed {config.seed}"),
        *columns,
        ("objective", objective + _objective_settings(config)),
        ("labels", _labels(config.labels, values["class_names"])),
        *_condition(config),
        ("net", f"{_net(config)}, {parameters}"),
        (
            "optimiser",
            f"AdamW, lr {config.lr:g} ({config.schedule}), batch size {config.batch_size}, EMA {config.ema:g}",
        ),
        ("step", f"{values['step']:,} of {values['steps']:,}"),
        ("loss, first", _loss(values["first_loss"])),
        ("loss, last", _loss(values["last_loss"])),
        ("checkpoints", ", ".join(values["checkpoints"]) or "none"),
        ("hash of the last", (values["checkpoint_hash"] or "none")[:16]),
        ("size on disk", f"{values['bytes'] / 1e6:.1f} MB"),
        ("state", state),
    ]


def _objective_settings(config: TrainConfig) -> str:
    settings = {
        "efm": f", bank of {config.bank_size}",
        "meanflow": f", share {config.mean_share:g}, power {config.mean_power:g}",
        "likelihood": f", {config.likelihood_steps} steps of {config.likelihood_method}",
    }
    return settings.get(config.objective, "")


def _net(config: TrainConfig) -> str:
    options = net_options(config.net_name, width=config.width, depth=config.depth)
    return f"{config.net_name}, width {options.width}, depth {options.depth}"


def _condition(config: TrainConfig) -> list[tuple[str, str]]:
    if config.captions:
        return [("captions", f"{config.captions}, encoder {config.encoder}")]
    if config.reference_size is not None:
        return [("references", f"{config.reference_size} others of the class")]
    return []


def _labels(used: bool, names: list[str]) -> str:
    known = list_classes(names)
    if used:
        return f"yes: {known}" if known else "yes"
    return f"no (the data have {known})" if known else "no"


def _loss(point: dict[str, float] | None) -> str:
    return "none yet" if point is None else f"{format_value(point['loss'])} (step {point['step']:,})"
