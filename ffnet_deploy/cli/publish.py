"""``python -m ffnet_deploy.cli.publish WORK_DIR OUT.safetensors --data ROOT --command "ffnet-train ..."``."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ffnet_deploy.artifacts import Kind, Outputs
from ffnet_deploy.cli.console import console, make_app, progress_bar, run_command
from ffnet_deploy.core.files import write_bytes
from ffnet_deploy.segmentor.config import config_names, find_config, load_config
from ffnet_deploy.training.publish import Card, card_text, publish, score

app = make_app(
    "ffnet_deploy.cli.publish",
    "Write the best checkpoint of a run as float16 safetensors, score that file, and write its model card.",
    "WORK_DIR OUT",
)


@app.default
def command(
    work_dir: Annotated[Path, Parameter(help="Folder of the finished run.")],
    out: Annotated[Path, Parameter(help="File to write; its card goes beside it.")],
    /,
    *,
    data: Annotated[Path, Parameter(help="Folder of the data set to score on.")],
    config: Annotated[str | None, Parameter(help="Config; by default the one named like OUT.")] = None,
    split: Annotated[str, Parameter(help="Part of the data set.")] = "val",
    command_line: Annotated[str, Parameter(name="--command", help="That trained the network.")] = "",
    about_data: Annotated[str, Parameter(help="What it was trained on.")] = "",
    terms: Annotated[str, Parameter(help="Of the weights' use.")] = "",
    machine: Annotated[str, Parameter(help="It was trained on.")] = "",
    notes: Annotated[str, Parameter(help="What else one must know.")] = "",
) -> None:
    """Write the best checkpoint of a run as float16 safetensors, score that file, and write its model card."""
    outputs, card_file = Outputs(work_dir, config, data), out.with_suffix(".md")
    outputs.claim(out, Kind.WEIGHTS)
    outputs.claim(card_file, Kind.MARKDOWN)
    name = config or out.stem
    load_config(find_config(name) if name in config_names() else name)
    metadata = publish(work_dir, out)
    with progress_bar() as progress:
        evaluation = score(name, out, data, split, progress)
    card = Card(command_line, about_data, terms, machine, notes)
    text = card_text(Path(name).stem, out, work_dir, card, evaluation, metadata)
    write_bytes(card_file, text.encode())
    console.print(f"mIoU {evaluation.scores.mean_iou:.2f}; {out} and its card are written", soft_wrap=True)


if __name__ == "__main__":
    run_command(app)
