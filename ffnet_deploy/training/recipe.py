"""From a config and options to the whole config of one run: what mmengine's Runner is given and what is saved."""

import difflib
import os
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch

from ffnet_deploy.core.errors import ConfigError, OptionError
from ffnet_deploy.core.label_sets import LabelSet, read_label_set
from ffnet_deploy.segmentor.config import SegmentorConfig, load_config
from ffnet_deploy.training.options import Precision, TrainOptions
from ffnet_deploy.training.saving import BACKEND, newest_intact

LOADERS = ("train_dataloader", "val_dataloader", "test_dataloader")
_DTYPES = {Precision.FP16: "float16", Precision.BF16: "bfloat16"}


def run_config(options: TrainOptions) -> Any:
    """The mmengine `Config` of the run that `options` ask for.

    Raises:
        ConfigError: the config cannot be read, or describes no training.
        OptionError: an option does not fit the config or the machine.
        DataError: the class list cannot be read.
        CheckpointError: there is nothing to resume.
    """
    source = load_config(options.config)
    cfg = source.cfg
    _check_recipe(source)
    _merge(cfg, options.overrides)
    labels = source.labels
    if options.classes is not None:
        labels = read_label_set(options.classes)
        use_own_data(cfg, labels)
    describe_data(cfg, options, labels)
    describe_schedule(cfg, options)
    describe_run(cfg, options, source.name)
    return cfg


def is_distributed() -> bool:
    """Whether torchrun started this process as one of several, or alone."""
    return "LOCAL_RANK" in os.environ and "WORLD_SIZE" in os.environ


def _check_recipe(source: SegmentorConfig) -> None:
    missing = [key for key in ("optim_wrapper", "train_cfg", "train_dataloader") if key not in source.cfg]
    if missing:
        raise ConfigError(
            f"config {source.path} describes no training: it lacks {', '.join(missing)}.\n"
            "  to do    use a packaged config, or take over their _base_ schedules and datasets"
        )


def _merge(cfg: Any, overrides: Mapping[str, Any]) -> None:
    for key, value in overrides.items():
        _check_key(cfg, key)
        cfg.merge_from_dict({key: value}, allow_list_keys=True)


def _check_key(cfg: Any, key: str) -> None:
    """Raise `OptionError` unless all but the last part of `key` is in the config; a last part may be new."""
    node, path = cfg, key.split(".")
    for part in path[:-1]:
        names = list(map(str, range(len(node)))) if isinstance(node, list | tuple) else list(map(str, node))
        if part not in names:
            near = difflib.get_close_matches(part, names, n=3, cutoff=0.3) or names[:6]
            raise OptionError(f"--set {key}: the config has no {part!r} there; nearest are {', '.join(near)}")
        node = node[int(part)] if isinstance(node, list | tuple) else node[part]
    if not isinstance(node, list | tuple) and not hasattr(node, "keys"):
        raise OptionError(f"--set {key}: {'.'.join(path[:-1])} is the value {node!r} and has no parts")


def use_own_data(cfg: Any, labels: LabelSet) -> None:
    """Turn the config's data set into a folder with classes of its own, and the heads to their number."""
    cfg.label_set, cfg.dataset_type = "custom", "FolderDataset"
    for split, loader in zip(("train", "val", "val"), LOADERS, strict=True):
        dataset = cfg[loader].dataset
        dataset.type = "FolderDataset"
        dataset.data_prefix = {"img_path": f"images/{split}", "seg_map_path": f"annotations/{split}"}
    for step in _pipeline_steps(cfg):
        step.pop("reduce_zero_label", None)
    for head in _heads(cfg):
        head.num_classes = len(labels.classes)
        if head.loss_decode.pop("class_weight", None):
            head.loss_decode.avg_non_ignore = True


def _heads(cfg: Any) -> list[Any]:
    return [cfg.model[name] for name in ("decode_head", "auxiliary_head") if cfg.model.get(name)]


def _pipeline_steps(cfg: Any) -> Iterator[Any]:
    for pipeline in (cfg.train_pipeline, cfg.test_pipeline, *(cfg[loader].dataset.pipeline for loader in LOADERS)):
        yield from pipeline


def describe_data(cfg: Any, options: TrainOptions, labels: LabelSet) -> None:
    """Put folder, class names, batch and checks of the labels into the loaders of `cfg`."""
    cfg.metainfo = {"classes": labels.classes, "palette": [list(colour) for colour in labels.palette]}
    for name in LOADERS:
        loader = cfg[name]
        if options.data is not None:
            loader.dataset.data_root = str(options.data)
        if options.workers is not None:
            loader.num_workers = options.workers
        loader.persistent_workers = loader.num_workers > 0
        loader.dataset.metainfo = dict(cfg.metainfo)
        _check_labels_in(loader.dataset, len(labels.classes))
    if options.data is not None:
        cfg.data_root = str(options.data)
    if options.batch is not None:
        cfg.train_dataloader.batch_size = options.batch


def _check_labels_in(dataset: Any, classes: int) -> None:
    """Let every label map be checked as it is loaded."""
    steps = [step for step in dataset.pipeline if step["type"] != "CheckLabels"]
    place = next(i for i, step in enumerate(steps) if step["type"] == "LoadAnnotations") + 1
    dataset.pipeline = [*steps[:place], {"type": "CheckLabels", "classes": classes}, *steps[place:]]


def describe_schedule(cfg: Any, options: TrainOptions) -> None:
    """Fit the schedule of `cfg` to the number of iterations, and its optimiser to precision and accumulation."""
    if options.iterations is not None:
        shorten(cfg, options.iterations)
    if options.accumulate > 1:
        cfg.optim_wrapper.accumulative_counts = options.accumulate
    if options.amp is not None:
        if not torch.cuda.is_available():
            raise OptionError("--amp needs a CUDA GPU; leave it out to train in float32")
        cfg.optim_wrapper.type = "AmpOptimWrapper"
        cfg.optim_wrapper.dtype = _DTYPES[options.amp]
        if options.amp is Precision.FP16:
            cfg.optim_wrapper.loss_scale = "dynamic"


def shorten(cfg: Any, iterations: int) -> None:
    """Stretch or shorten a schedule by iterations to `iterations`: decay in proportion, warm-up at most a tenth."""
    before, warm_up = cfg.train_cfg.max_iters, min(max(iterations // 10, 2), iterations)
    for scheduler in cfg.param_scheduler:
        ends_with_run = scheduler.get("end", before) >= before
        end = scheduler.end - before + iterations if ends_with_run else min(scheduler.end, warm_up)
        scheduler.end, scheduler.begin = end, min(scheduler.get("begin", 0), warm_up)
    # a run so short that it only warms up has no decay
    cfg.param_scheduler = [scheduler for scheduler in cfg.param_scheduler if scheduler.begin < scheduler.end]
    cfg.train_cfg.max_iters = iterations
    cfg.train_cfg.val_interval = min(cfg.train_cfg.val_interval, iterations)
    for hook in cfg.get("custom_hooks", []):
        if hook["type"] == "EMAHook":
            hook["begin_iter"] = min(hook.get("begin_iter", 0), iterations // 4)


def describe_run(cfg: Any, options: TrainOptions, name: str) -> None:
    """Where `cfg`'s run writes, from what it goes on, its seed, processes and records."""
    cfg.work_dir = str(options.work_dir)
    cfg.experiment_name = f"{name}_{uuid4().hex[:8]}"  # mmengine shares records between runs of one name
    cfg.launcher = "pytorch" if is_distributed() else "none"
    cfg.randomness = {"seed": options.seed}
    cfg.env_cfg.dist_cfg.backend = "nccl" if torch.cuda.is_available() else "gloo"
    if cfg.launcher == "pytorch":
        describe_processes(cfg)
    cfg.default_hooks.checkpoint.backend_args = {"backend": BACKEND}
    cfg.torch_compile, cfg.save_memory = options.compile, options.save_memory
    cfg.visualizer = {"type": "SegLocalVisualizer", "vis_backends": _records()}
    if options.resume:
        cfg.resume, cfg.load_from = True, str(newest_intact(options.work_dir)[0])
    elif cfg.get("resume"):  # the saved config of a resumed run: this one is another
        cfg.resume, cfg.load_from = False, None


def describe_processes(cfg: Any) -> None:
    """Batch norm over all processes, and the wrapper that averages their gradients."""
    on_gpu = torch.cuda.is_available()
    cfg.sync_bn = "torch" if on_gpu else None  # on CPUs: `SyncBatchNorm` of this package
    cfg.model_wrapper_cfg = {"type": "MMDistributedDataParallel", "broadcast_buffers": False}
    if not on_gpu:
        cfg.model_wrapper_cfg["device_ids"] = None


def _records() -> list[dict[str, Any]]:
    names = ["LocalVisBackend"] + (["TensorboardVisBackend"] if find_spec("tensorboard") else [])
    return [{"type": name} for name in names]


def config_file(work_dir: Path, cfg: Any) -> Path:
    """Where the Runner saves the whole config of a run."""
    return work_dir / Path(cfg.filename).name
