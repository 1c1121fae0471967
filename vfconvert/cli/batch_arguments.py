"""What the conversions of a batch are told, by arguments and recipes, judged once and before any of them starts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from vfconvert.cli.convert import convert, options_of
from vfconvert.cli.recipe import is_stated, keys_of
from vfconvert.errors import VfconvertError

if TYPE_CHECKING:
    from vfconvert.batching.items import Item

# What would be one file or folder for all models, or would be lost: neither an argument nor a recipe may say it.
_SHARED = {
    "reports": "the batch writes a report of each model in its place, and this one would be lost",
    "dry_run": "a batch converts, and nothing would be written",
    "save_plan": "it would be one file for all models",
    "junit": "it would be one file for all models",
    "damage_cache": "it would be one file for all models",
    "training_checkpoints": "it would be one folder for all models",
    "training_tensorboard": "it would be one folder for all models",
    "training_finish": "which run to finish is said of one model",
}
# What the batch says to every conversion: in a recipe, which serves single runs too, it is overruled.
_OWN = ("output", "as_json", "quiet", "verbose", "config", "save_config", "training_resume", *_SHARED)
_CODE = ("trust_pickle", "trust_data_code")


def wrong_arguments(arguments: Sequence[str], own: bool) -> list[str]:
    """What a batch does not take among the arguments of conversions; those of a manifest (not `own`) run no code."""
    with convert.make_context("vfconvert", list(arguments), resilient_parsing=True) as context:
        flags = {parameter.name: parameter.opts[-1] for parameter in convert.params}
        given = [name for name in flags if name and context.get_parameter_source(name) is ParameterSource.COMMANDLINE]
        wrong = [f"{flags[name]} is the batch's own, or one file for many; drop it" for name in given if name in _OWN]
        wrong += ["--help converts nothing; say it as vfconvert --help"] if "--help" in arguments else []
        if (other := context.params.get("model")) is not None:
            wrong.append(f"got {str(other)!r}, expected options alone")
        if own:
            return wrong
        architecture = str(context.params.get("arch") or "")
        code = [name for name in given if name in _CODE]
        code += ["arch"] if architecture and not architecture.startswith(("torchvision:", "timm:")) else []
        return wrong + [f"{flags[name]} may run code, so it stands after -- and in no list; move it" for name in code]


def wrong_items(items: Sequence[Item]) -> list[str]:
    """What no conversion could do with its recipe and arguments: each said once, with the model where others differ."""
    first = {(item.config, item.arguments): item for item in reversed(items)}
    alike = len(first) == 1
    said = [line for item in reversed(first.values()) for line in _wrong(item, "every model" if alike else item.name)]
    return list(dict.fromkeys(said))


def _wrong(item: Item, where: str) -> Iterator[str]:
    from vfconvert.gating import check_gates  # which takes torch

    recipe = () if item.config is None else ("--config", str(item.config))
    try:
        with convert.make_context("vfconvert", [*item.arguments, *recipe, "--", str(item.model)]) as context:
            if item.config is not None:
                shared = tuple(_shared(context, item.config))
                yield from shared
                if shared:
                    return
            written = {"reports": (Path("report.json"),)}  # by every conversion of a batch
            check_gates(options_of(context, {**context.params, **written}))
    except click.UsageError as error:
        yield f"{where}: {' '.join(error.format_message().split())}"
    except VfconvertError as error:
        yield str(error)


def _shared(context: click.Context, recipe: Path) -> Iterator[str]:
    """The keys of a recipe that serve a single model only."""
    for key, parameter in keys_of(convert).items():
        reason = _SHARED.get(str(parameter.name))
        if reason is not None and is_stated(context, parameter):
            yield f"{recipe}: {key}: {reason}; take it out of the recipe of a batch"


def is_option_of_conversions(flag: str) -> bool:
    """Whether a flag stands after "--"."""
    options = [parameter for parameter in convert.params if parameter.name not in _OWN]
    return any(flag in (*option.opts, *option.secondary_opts) for option in options)
