"""The published and bundled networks: which are here, and how far a measured mIoU is from theirs."""

from rich.box import SIMPLE_HEAD
from rich.table import Column, Table

from ffnet_deploy.evaluation.evaluate import Evaluation
from ffnet_deploy.evaluation.protocol import MULTI_SCALE
from ffnet_deploy.report.format import points
from ffnet_deploy.segmentor.config import config_names
from ffnet_deploy.segmentor.zoo import BUNDLED_FOLDER, PUBLISHED, SCORES, checkpoint_here


def zoo_table() -> Table:
    """The packaged configs: whose weights there are, whether they are here, and the mIoU published or in the card.

    TTA is test-time augmentation: the published scales, and mirroring.
    """
    names = config_names()
    table = Table(
        Column("config", no_wrap=True),
        "weights",
        "here",
        "data set",
        box=SIMPLE_HEAD,
        collapse_padding=True,
        pad_edge=False,
    )
    for heading in ("mIoU", "TTA"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name in names:
        path = checkpoint_here(name)
        bundled = path is not None and path.parent == BUNDLED_FOLDER
        weights = "bundled" if bundled else "published" if name in PUBLISHED else "-"
        here = "-" if weights == "-" else "yes" if bundled else "no" if path is None else "cached"
        known = SCORES.get(name)
        miou, augmented = (None, None) if known is None else (known.miou, known.augmented)
        scores = ("-" if score is None else f"{score:g}" for score in (miou, augmented))
        table.add_row(name, weights, here, "-" if known is None else known.dataset, *scores)
    return table


def beside_published(network: str, evaluation: Evaluation) -> str:
    """How far a measured mIoU is from the one that `network` is known to have; empty where none is known of this kind.

    Other scales, or mirroring alone, were not published.
    """
    known, predict = SCORES.get(network), evaluation.predict
    passes = (predict.ratios, predict.flip)
    if known is None or evaluation.scores is None or passes not in (((1.0,), False), (MULTI_SCALE, True)):
        return ""
    score = known.augmented if predict.flip else known.miou
    if score is None:
        return ""
    source = "published" if network in PUBLISHED else "known"
    reference = f"{source} mIoU {score:g} on {known.images} images of {known.dataset} {known.split}"
    if (evaluation.images, evaluation.split) != (known.images, known.split):
        return f"{reference}; these are {evaluation.images} of {evaluation.dataset} {evaluation.split}"
    return f"{reference}: measured {points(evaluation.scores.mean_iou - score)} points"
