"""Changes of a config from the command line: ``--cfg-options KEY=VALUE ...``, in mmengine's syntax."""

import ast
import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ffnet_deploy.core.errors import OptionError

_WORD = re.compile(r"[\w./:~+@=-]*")
"""Values that are taken as strings without quotes: names and paths."""
_KEYWORDS = {"true": True, "false": False, "none": None}
_NO_EFFECT = ("model.pretrained", "model.backbone.pretrained", "model.backbone.init_cfg.checkpoint")
"""Keys of published commands that name weights to start from: no command of the toolkit loads them from a config."""


def parse_override(text: str, option: str = "--set") -> tuple[str, Any]:
    """Key and value of `key=value`.

    The value is a Python literal (`3`, `1e-4`, `[1, 2]`, `True`), in which `dict(type="X")` may stand for a dictionary;
    a word or path without quotes; or a list of words (`a,b`, `[a,b]`, `(a,b)`), as mmengine's `DictAction` reads them.

    Raises:
        OptionError: there is no key or no `=`, or the value is neither.
    """
    key, sign, value = (part.strip() for part in text.partition("="))
    if not key or not sign:
        raise OptionError(f"{option} takes key=value, for instance optim_wrapper.optimizer.lr=1e-4: got {text!r}")
    if value.lower() in _KEYWORDS:
        return key, _KEYWORDS[value.lower()]
    try:
        found = _literal(ast.parse(value, mode="eval").body)
        return key, list(found) if isinstance(found, tuple) and not value.startswith("(") else found
    except (ValueError, SyntaxError, RecursionError, MemoryError) as error:
        if _WORD.fullmatch(value):
            return key, value
        inner = value[1:-1] if value[:1] + value[-1:] in ("[]", "()") else value
        words = [word.strip() for word in inner.split(",")]
        if all(word and _WORD.fullmatch(word) and "=" not in word for word in words):
            parts = [parse_override(f"{key}={word}", option)[1] for word in words]
            return key, tuple(parts) if value.startswith("(") else parts
        raise OptionError(
            f"{option} {key}: {value!r} is no Python literal.\n"
            "  to do    write numbers, quoted strings, [lists], {'type': 'X'} or dict(type='X'), quoted for the shell"
        ) from error


def _literal(node: ast.expr) -> Any:
    """The value of a literal, `dict(...)` calls included."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict" and not node.args:
        return {str(one.arg): _literal(one.value) for one in node.keywords if one.arg is not None}
    if isinstance(node, ast.List | ast.Tuple):
        parts = [_literal(part) for part in node.elts]
        return parts if isinstance(node, ast.List) else tuple(parts)
    if isinstance(node, ast.Dict) and all(key is not None for key in node.keys):
        keys = [ast.literal_eval(key) for key in node.keys if key is not None]
        return dict(zip(keys, (_literal(value) for value in node.values), strict=True))
    return ast.literal_eval(node)


def without_no_ops(overrides: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """`overrides` without those that ask a config for no initial weights, and a note for each of these.

    The published commands carry ``model.backbone.init_cfg.checkpoint=None``.
    """
    idle = [key for key, value in overrides.items() if key in _NO_EFFECT and value is None]
    notes = tuple(f"{key}=None changes nothing: no command reads initial weights from a config" for key in idle)
    return {key: value for key, value in overrides.items() if key not in idle}, notes


def apply_overrides(cfg: Any, overrides: Mapping[str, Any]) -> tuple[str, ...]:
    """Put `overrides` into the `mmengine.Config` `cfg`; notes for those that change nothing.

    Raises:
        OptionError: all parts of a key but the last must be in the config, and one is not.
    """
    effective, notes = without_no_ops(overrides)
    for key, value in effective.items():
        *parents, _ = key.split(".")
        node = cfg
        for part in parents:
            listed = isinstance(node, list | tuple)
            names = list(map(str, range(len(node)))) if listed else list(map(str, getattr(node, "keys", list)()))
            if part not in names:
                near = ", ".join(difflib.get_close_matches(part, names, n=3, cutoff=0.3) or names[:6]) or "nothing"
                raise OptionError(f"--cfg-options {key}: the config has no {part!r} there; nearest are {near}")
            node = node[int(part)] if listed else node[part]
        try:
            cfg.merge_from_dict({key: value}, allow_list_keys=True)
        except (KeyError, TypeError, IndexError, AttributeError) as error:
            raise OptionError(f"--cfg-options {key}: {value!r} does not fit there: {error}") from error
    return notes


def read_config(config: str, cfg_options: Sequence[str]) -> Any:
    """`config` itself, or where ``--cfg-options`` change it, what it then is: a `SegmentorConfig`.

    Raises:
        OptionError: an option cannot be read or does not fit the config.
        ConfigError, MissingPackageError: the config cannot be read.
    """
    if not cfg_options:
        return config
    from ffnet_deploy.segmentor.config import load_config

    return load_config(config, dict(parse_override(text, "--cfg-options") for text in cfg_options))
