"""From a config and options to the whole config of one run: what mmengine's Runner is given and what is saved."""

import difflib
import os
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any
from uuid import uuid4

import torch
from mmseg.registry import DATASETS

from ffnet_deploy.core.contract import IGNORE_LABEL
from ffnet_deploy.core.errors import ConfigError, OptionError
from ffnet_deploy.core.label_sets import LabelSet
from ffnet_deploy.core.optional import optional
from ffnet_deploy.segmentor.config import SegmentorConfig, load_config
from ffnet_deploy.training.datasets import open_split
from ffnet_deploy.training.options import AmpType, Logger, TrainOptions
from ffnet_deploy.training.saving import BACKEND, iterations_of, newest_intact

LOADERS = ("train_dataloader", "val_dataloader", "test_dataloader")
READ_TYPES = ("ADE20KDataset", "CityscapesDataset", "FolderDataset")
"""Data set types of configs that are read by the toolkit's own reader."""
SETTINGS = (
    "model",
    "optim_wrapper",
    "param_scheduler",
    "train_cfg",
    "train_dataloader",
    "val_dataloader",
    "default_hooks",
    "custom_hooks",
    "val_evaluator",
    "val_cfg",
    "log_processor",
    "log_level",
    "env_cfg",
)
"""Parts of a config that a run uses as they are."""
INSTEAD = {
    "work_dir": "--work-dir",
    "randomness": "--seed",
    "load_from": "--load",
    "resume": "--resume",
    "data_root": "--data",
    "max_iters": "--iterations",
    "train_pipeline": "train_dataloader.dataset.pipeline",
    "test_pipeline": "val_dataloader.dataset.pipeline",
    "crop_size": "train_dataloader.dataset.pipeline and model.data_preprocessor.size",
    "visualizer": "--logger",
    "vis_backends": "--logger",
}
"""What has an effect in place of keys that a run does not use."""
SMALL_SET, PASSES, LEAST_STEPS = 400, 20, 200
"""Fine-tuning on at most so many images takes so many passes over them, in at least so many steps, unless --iterations
says otherwise: measured on 40 images of CamVid."""
MOST_WEIGHT = 10.0
"""Limit of `--class-weights auto`: a class that is nearly absent would otherwise decide the loss alone."""


def run_config(options: TrainOptions) -> Any:
    """The mmengine `Config` of the run that `options` ask for.

    Raises:
        ConfigError: the config cannot be read, or describes no training.
        OptionError: an option does not fit the config or the machine.
        DataError: data set or class list cannot be read.
        CheckpointError: there is nothing to resume.
    """
    source = load_config(options.config)
    cfg = source.cfg
    missing = [key for key in ("optim_wrapper", "train_cfg", "train_dataloader") if key not in cfg]
    if missing:
        raise ConfigError(
            f"config {source.path} describes no training: it lacks {', '.join(missing)}.\n"
            "  to do    use a packaged config, or take over their _base_ schedules and datasets"
        )
    for key, value in options.overrides.items():
        _check_key(cfg, key)
        if options.data is not None and key.endswith(".dataset.data_root"):
            raise OptionError(f"--set {key} and --data both say where the data set is: leave one out")
        cfg.merge_from_dict({key: value}, allow_list_keys=True)
    if not isinstance(cfg.get("custom_hooks", []), list | tuple):
        raise OptionError(f"custom_hooks is a list of hooks: got {cfg.custom_hooks!r}")
    resumed = newest_intact(options.folder)[0] if options.resume else None
    pairs = describe_data(cfg, options, source)
    if options.iterations is not None:
        shorten(cfg, options.iterations)
    elif resumed is not None:
        shorten(cfg, iterations_of(resumed) or cfg.train_cfg.max_iters)
    elif options.load is not None and pairs is not None and pairs <= SMALL_SET:
        steps = PASSES * pairs * accumulated_steps(cfg.train_dataloader.batch_size, options)
        shorten(cfg, min(max(steps // cfg.train_dataloader.batch_size, LEAST_STEPS), cfg.train_cfg.max_iters))
    describe_schedule(cfg, options)
    name = options.name or source.name
    object.__setattr__(cfg, "_filename", f"{name}.py")  # what mmengine saves the config as
    # YAPF, run for every checkpoint, took seconds each time where the paths in the config are long
    object.__setattr__(cfg, "_format_python_code", False)
    describe_run(cfg, options, name)
    return cfg


def is_distributed() -> bool:
    """Whether torchrun started this process as one of several, or alone."""
    return "LOCAL_RANK" in os.environ and "WORLD_SIZE" in os.environ


def _check_key(cfg: Any, key: str) -> None:
    """Raise `OptionError` unless the run uses `key`, and all but its last part is in the config."""
    node, path = cfg, key.split(".")
    if path[0] not in SETTINGS:
        known = path[0] in cfg or path[0] in INSTEAD
        near = [one for one in difflib.get_close_matches(path[0], SETTINGS, n=3, cutoff=0.5) if one != path[0]]
        instead = INSTEAD.get(path[0]) or (", ".join(near) if near else f"a part of {', '.join(SETTINGS[:7])}, ...")
        reason = "training does not use it" if known else "the config has no such part"
        raise OptionError(f"--set {key}: {reason}.\n  to do    use {instead}")
    for part in path[:-1]:
        names = list(map(str, range(len(node)))) if isinstance(node, list | tuple) else list(map(str, node))
        if part not in names:
            near = difflib.get_close_matches(part, names, n=3, cutoff=0.3) or names[:6]
            raise OptionError(f"--set {key}: the config has no {part!r} there; nearest are {', '.join(near)}")
        node = node[int(part)] if isinstance(node, list | tuple) else node[part]
    if not isinstance(node, list | tuple) and not hasattr(node, "keys"):
        raise OptionError(f"--set {key}: {'.'.join(path[:-1])} is the value {node!r} and has no parts")


def describe_data(cfg: Any, options: TrainOptions, source: SegmentorConfig) -> int | None:
    """Put folder, class names, batch and checks of the labels into the loaders of `cfg`.

    A data set that the toolkit reads is read by its own reader; one that the config's code brings stays as it is.

    Returns:
        The number of training images; None where only mmseg reads the data set.
    """
    labels, pairs = source.labels, None
    own_type = options.classes is None and str(cfg.train_dataloader.dataset.type) not in READ_TYPES
    if own_type:
        labels = _labels_of_type(str(cfg.train_dataloader.dataset.type), labels)
    else:
        network = "custom" if options.classes is not None else source.dataset
        for split, name in zip(("train", "val", "val"), LOADERS, strict=True):
            _read_ourselves(cfg[name].dataset, split, network, options)
        dataset = open_split(cfg.train_dataloader.dataset)
        found, pairs = dataset.label_set, len(dataset)
        if found is not None and (options.classes is not None or found.classes != labels.classes):
            labels = found
            use_own_classes(cfg, labels)
    if len(labels.classes) > IGNORE_LABEL:
        raise OptionError(f"{len(labels.classes)} classes are too many: label {IGNORE_LABEL} means ignored in training")
    cfg.metainfo = {"classes": labels.classes, "palette": [list(colour) for colour in labels.palette]}
    for name in LOADERS:
        loader = cfg[name]
        if options.data is not None:
            loader.dataset.data_root = str(options.data)
        if options.workers is not None:
            loader.num_workers = options.workers
        loader.persistent_workers = loader.num_workers > 0
        if not own_type:
            loader.dataset.metainfo = dict(cfg.metainfo)
        steps = [step for step in loader.dataset.pipeline if step["type"] != "CheckLabels"]
        place = next(i for i, step in enumerate(steps) if step["type"] in ("LoadAnnotations", "LoadLabels")) + 1
        check = {"type": "CheckLabels", "classes": len(labels.classes)}
        loader.dataset.pipeline = [*steps[:place], check, *steps[place:]]
    if options.data is not None:
        cfg.data_root = str(options.data)
    if options.batch is not None:
        cfg.train_dataloader.batch_size = options.batch
    return pairs


def _labels_of_type(name: str, labels: LabelSet) -> LabelSet:
    """Names and colours of the data set class `name` of mmseg, where their number is that of `labels`."""
    about = getattr(DATASETS.get(name), "METAINFO", {})
    if len(about.get("classes", ())) != len(labels.classes) or "palette" not in about:
        return labels
    return LabelSet(tuple(about["classes"]), tuple((r, g, b) for r, g, b in about["palette"]))


def _read_ourselves(dataset: Any, split: str, network: str, options: TrainOptions) -> None:
    """Turn the loader's `dataset` into the `FolderDataset` of the same folder."""
    names = ("images_dir", "masks_dir", "mask_suffix")
    stored = dict(dataset.get("source") or {})
    stored.update({name: getattr(options, name) for name in names if getattr(options, name) is not None})
    prefix = dataset.pop("data_prefix", None) or {}
    images, masks = (str(prefix.get(key) or "") for key in ("img_path", "seg_map_path"))
    if "/" in images and "/" in masks and not stored and not images.startswith(("images/", "leftImg8bit/")):
        stored = {"images_dir": images.rpartition("/")[0], "masks_dir": masks.rpartition("/")[0]}
    if options.classes is not None:
        stored["classes"] = str(options.classes)
    dataset.type, dataset.split, dataset.network, dataset.source = "FolderDataset", split, network, stored
    if options.data is not None:
        dataset.data_root = str(options.data)
    load = {"type": "LoadLabels"}
    dataset.pipeline = [load if step["type"] == "LoadAnnotations" else step for step in dataset.pipeline]


def use_own_classes(cfg: Any, labels: LabelSet) -> None:
    """Fit the heads of `cfg` to the classes `labels`; weights that the recipe gives its own classes go."""
    cfg.label_set, cfg.dataset_type = "custom", "FolderDataset"
    for head in heads(cfg):
        head.num_classes = len(labels.classes)
        if head.loss_decode.pop("class_weight", None):
            head.loss_decode.avg_non_ignore = True


def describe_schedule(cfg: Any, options: TrainOptions) -> None:
    """Fit validation, averages and early stopping of `cfg` to its iterations, and its optimiser to the options."""
    loop, hooks = cfg.train_cfg, list(cfg.get("custom_hooks", []))
    # the last iteration is validated, whatever the config says of earlier ones
    loop.val_begin = max(min(loop.get("val_begin", 1), loop.max_iters), 1)
    if options.ema and not any(hook["type"] == "EMAHook" for hook in hooks):
        # the average spans a twentieth of the run, and begins once the first quarter is done
        average = {"momentum": min(20 / loop.max_iters, 0.1), "begin_iter": loop.max_iters // 4}
        hooks.append({"type": "EMAHook", "update_buffers": True, "priority": "NORMAL", **average})
    if options.patience is not None:
        stopping = {"monitor": "mIoU", "rule": "greater", "min_delta": 1e-6, "patience": options.patience}
        hooks.append({"type": "EarlyStoppingHook", **stopping})
    cfg.custom_hooks = hooks
    accumulate = accumulated_steps(cfg.train_dataloader.batch_size, options)
    if accumulate > 1:
        cfg.optim_wrapper.accumulative_counts = accumulate
    if options.amp is AmpType.BF16:
        cfg.optim_wrapper.type = "Bfloat16OptimWrapper"
    elif options.amp is AmpType.FP16:
        if not torch.cuda.is_available():
            raise OptionError("--amp fp16 needs a CUDA GPU; CPUs train with --amp bf16, or in float32 without --amp")
        cfg.optim_wrapper.update(type="AmpOptimWrapper", dtype="float16", loss_scale="dynamic")


def accumulated_steps(batch: int, options: TrainOptions) -> int:
    """Steps of `batch` images a process that are accumulated before the weights change.

    Raises:
        OptionError: `options.effective_batch` is no multiple of the images of one step.
    """
    if options.effective_batch is None:
        return options.accumulate
    processes = int(os.environ.get("WORLD_SIZE", "1")) if is_distributed() else 1
    images = batch * processes
    if options.effective_batch % images:
        below = max(options.effective_batch // images, 1) * images
        raise OptionError(
            f"--effective-batch {options.effective_batch} is no multiple of the {images} images of a step "
            f"({batch} in each of {processes} processes); the nearest are {below} and {below + images}"
        )
    return options.effective_batch // images


def weigh_classes(cfg: Any, pixels: Sequence[int]) -> tuple[float, ...]:
    """Weigh the classes in the losses of `cfg` by the inverse of their share of the training pixels.

    A class of average share weighs 1, a rare one at most `MOST_WEIGHT`, one without pixels 1. The loss is averaged over
    the weights, so that only their ratios count.

    Args:
        cfg: of the run.
        pixels: number of training pixels of each class.
    """
    total = max(sum(pixels), 1)
    shares = [count / total for count in pixels]
    weights = [round(min(1 / (len(shares) * share), MOST_WEIGHT), 4) if share else 1.0 for share in shares]
    for head in heads(cfg):
        # mmseg averages over the weights of the labelled pixels, as long as avg_non_ignore is False
        head.loss_decode.update(class_weight=weights, avg_non_ignore=False)
    return tuple(weights)


def heads(cfg: Any) -> list[Any]:
    """The settings of the heads of the network that `cfg` describes."""
    return [cfg.model[name] for name in ("decode_head", "auxiliary_head") if cfg.model.get(name)]


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
    cfg.train_cfg.val_begin = cfg.train_cfg.get("val_begin", 1) * iterations // before
    logger = cfg.default_hooks.logger
    logger.interval = min(logger.get("interval", 10), max(iterations // 20, 1))  # a curve needs points
    for hook in cfg.get("custom_hooks", []):
        if hook["type"] == "EMAHook":
            hook["begin_iter"] = min(hook.get("begin_iter", 0), iterations // 4)


def describe_run(cfg: Any, options: TrainOptions, name: str) -> None:
    """Where `cfg`'s run writes, from what it goes on, its seed, processes and records."""
    cfg.work_dir = str(options.folder)
    cfg.experiment_name = f"{name}_{uuid4().hex[:8]}"  # mmengine shares records between runs of one name
    cfg.launcher = "pytorch" if is_distributed() else "none"
    cfg.randomness = {"seed": options.seed}
    cfg.env_cfg.dist_cfg.backend = "nccl" if torch.cuda.is_available() else "gloo"
    if cfg.launcher == "pytorch":
        describe_processes(cfg)
    cfg.default_hooks.checkpoint.backend_args = {"backend": BACKEND}
    cfg.torch_compile, cfg.save_memory = options.compile, options.save_memory
    cfg.visualizer = {"type": "SegLocalVisualizer", "vis_backends": _records(options, name)}
    if options.resume:
        cfg.resume, cfg.load_from = True, str(newest_intact(options.folder)[0])
    elif cfg.get("resume"):  # the saved config of a resumed run: this one is another
        cfg.resume, cfg.load_from = False, None


def describe_processes(cfg: Any) -> None:
    """Batch norm over all processes, and the wrapper that averages their gradients."""
    on_gpu = torch.cuda.is_available()
    cfg.sync_bn = "torch" if on_gpu else None  # on CPUs: `SyncBatchNorm` of this package
    cfg.model_wrapper_cfg = {"type": "MMDistributedDataParallel", "broadcast_buffers": False}
    if not on_gpu:
        cfg.model_wrapper_cfg["device_ids"] = None


def _records(options: TrainOptions, name: str) -> list[dict[str, Any]]:
    """Settings of what records the run: its folder always, and the loggers asked for.

    Raises:
        MissingPackageError: a logger is not installed.
    """
    loggers = options.loggers or ((Logger.TENSORBOARD,) if find_spec("tensorboard") else ())
    for logger in loggers:
        extra = "train" if logger is Logger.TENSORBOARD else logger.value
        optional(logger.value, extra=extra, purpose=f"--logger {logger.value}")
    settings: dict[Logger, dict[str, Any]] = {
        Logger.TENSORBOARD: {"type": "TensorboardVisBackend"},
        Logger.WANDB: {"type": "WandbVisBackend", "init_kwargs": {"project": "ffnet-deploy", "name": name}},
        Logger.MLFLOW: {"type": "MLflowVisBackend", "exp_name": "ffnet-deploy", "run_name": name},
    }
    return [{"type": "LocalVisBackend"}, *(settings[logger] for logger in loggers)]
