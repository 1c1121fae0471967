"""`--config` and `--save-config`: a key for every option, of its name on the command line, which itself wins."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vfconvert.cli.group import ARGUMENTS, COMMAND_LINE, MAIN_JOB, SectionOption
from vfconvert.combinations import TRAINING_PREFIX
from vfconvert.errors import ConfigError, TrainingError
from vfconvert.json_fields import listed, near, shown
from vfconvert.training_options import TrainingOptions
from vfconvert.version import __version__

if TYPE_CHECKING:
    from vfconvert.config.document import Entry

RECIPE = "vfconvert.recipe"  # where a context keeps the texts of its recipe, by parameter
WITHOUT_A_KEY = ("config", "save_config", "help")
_WORDS = {"true": True, "false": False}
JOINED = {"numbers": ",", "shape": ",", "size": "x"}  # types of one value that a list may spell
_CODE = ("trust_pickle", "trust_data_code")
_NAMED = ("torchvision:", "timm:")  # networks that are built by no code but these packages' own
_FETCHING = ("pretrained", "checkpoint", "weights", "cache")  # arguments of theirs that open or fetch files
# What a recipe may have written, by the suffixes of such files: not one that a shell or another program goes by.
_SUFFIXES = {"save_plan": (".json",), "costs": (".json",), "damage_cache": (".json",), "junit": (".xml",)}
_PLACES = (*_SUFFIXES, "output", "reports", "checkpoints", "tensorboard")

Texts = dict[str, tuple[str, ...]]


def keys_of(command: click.Command) -> dict[str, click.Parameter]:
    """Every key of a recipe, in the order of help: the long flag of an option without its dashes."""
    found = {}
    for parameter in command.params:
        if parameter.name not in WITHOUT_A_KEY:
            flags = [flag[2:] for flag in parameter.opts if flag.startswith("--")]
            found[flags[0] if flags else str(parameter.name)] = parameter
    return found


def use_recipe(
    ctx: click.Context, _parameter: click.Parameter, path: Path | None, *, written_for: click.Command | None = None
) -> Path | None:
    """Take what the recipe says for what the command line does not say. Raises `ConfigError` with all that is wrong.

    The recipe may be `written_for` another command: keys that only that one knows are checked, and have no effect.
    """
    if path is None or ctx.resilient_parsing:
        return path
    from vfconvert.config.document import read_document

    own = keys_of(ctx.command)
    keys = {**keys_of(written_for), **own} if written_for is not None else own
    document = read_document(path)
    errors = list(document.errors)
    texts: Texts = {}
    values: dict[str, Any] = {}
    for entry in document.entries:
        try:
            if entry.key not in keys:
                raise ValueError(f"got an unknown key{near(entry.key, list(keys), errors)}")
            if entry.kind != "none":
                name, found = str(keys[entry.key].name), texts_of(entry, keys[entry.key])
                value = _value(ctx, keys[entry.key], found)
                if entry.key in own:
                    texts[name], values[name] = found, value
        except (ValueError, TrainingError) as error:
            errors.append((entry.line, f"{shown(entry.key)[1:-1]}: {error}"))
        except click.BadParameter as error:
            errors.append((entry.line, f"{shown(entry.key)[1:-1]}: {error.message}"))
    if errors:
        lines = [f"line {line}: {' '.join(said.split())}" for line, said in sorted(errors)]
        many = "s" if len(errors) > 1 else ""
        raise ConfigError(f"{path}: {len(errors)} error{many} in the recipe: {listed(lines)}")
    ctx.default_map = values
    ctx.meta[RECIPE] = texts
    return path


def is_stated(ctx: click.Context, parameter: click.Parameter) -> bool:
    """Whether the command line gives an option, or the recipe another value than its default."""
    source = ctx.get_parameter_source(str(parameter.name))
    if source is not click.core.ParameterSource.DEFAULT_MAP:
        return source is click.core.ParameterSource.COMMANDLINE
    return bool(ctx.params[str(parameter.name)] != _default(parameter))


def command_line(ctx: click.Context) -> str:
    """The line that a shell reads back; with a recipe, the one that says the same without it."""
    if RECIPE not in ctx.meta:
        return str(ctx.meta[COMMAND_LINE])
    given = {**ctx.meta[RECIPE], **_typed(ctx)}
    name = str(ctx.command.name)
    words = ["vfconvert", *([name] if name != MAIN_JOB else [])]
    for key, parameter in keys_of(ctx.command).items():
        for text in given.get(str(parameter.name), ()) if is_stated(ctx, parameter) else ():
            words += words_of(key, parameter, text)
    return shlex.join(words)


def words_of(key: str, parameter: click.Parameter, text: str) -> tuple[str, ...]:
    """The words of a command line that say one text of a key; raises `KeyError` for one that a flag does not have."""
    if isinstance(parameter, click.Argument):
        return (text,)
    if is_flag(parameter):
        return (f"--{key}" if _WORDS[text] else parameter.secondary_opts[0],)
    return f"--{key}", text


def recipe_text(ctx: click.Context) -> str:
    """A recipe of what is run: every key, those without a value as comments.

    What a recipe cannot say (it would let code run) is named on top.
    """
    from vfconvert.config.document import written

    given = {**ctx.meta.get(RECIPE, {}), **_typed(ctx)}
    sections: dict[str, list[str]] = {}
    again: list[str] = []
    for key, parameter in keys_of(ctx.command).items():
        texts = given.get(str(parameter.name), _as_texts(_default(parameter)))
        try:
            refuse_unsafe(parameter, texts)
        except ValueError:
            again += [f"--{key}"] if is_flag(parameter) else [word for text in texts for word in (f"--{key}", text)]
            texts = ("false",) if is_flag(parameter) else ()
        heading = parameter.section if isinstance(parameter, SectionOption) else "The network"
        value = texts if parameter.multiple else texts[0] if texts else None
        sections.setdefault(heading, []).append(written(key, value or None))
    head = [f"# What vfconvert {__version__} was asked for. Again: vfconvert --config THIS_FILE {shlex.join(again)}"]
    head = [_printable(line).rstrip() for line in head]
    blocks = ["\n".join([f"# {heading}", *lines]) for heading, lines in sections.items()]
    return "\n\n".join([*head, *blocks]) + "\n"


def _value(ctx: click.Context, parameter: click.Parameter, texts: Sequence[str]) -> Any:
    """What the command line would make of these texts. Raises `ValueError`, `click.BadParameter`, `TrainingError`."""
    refuse_unsafe(parameter, texts)
    if is_flag(parameter):
        return _WORDS[texts[0]]
    value = parameter.type_cast_value(ctx, list(texts) if parameter.multiple else texts[0])
    name = str(parameter.name)
    if name.startswith(TRAINING_PREFIX):
        TrainingOptions(**{name.removeprefix(TRAINING_PREFIX): value})  # its own checks, each of one option
    return value


def texts_of(entry: Entry, parameter: click.Parameter) -> tuple[str, ...]:
    """The texts of an entry as a command line would have them. Raises `ValueError`."""
    if is_flag(parameter):
        if entry.kind != "one" or entry.texts[0] not in _WORDS:
            raise ValueError(f"got {_got(entry)}, expected true or false")
        return entry.texts
    if entry.kind == "mapping" and parameter.multiple and "=" in str(parameter.metavar):
        return tuple(f"{name}={text}" for name, text in zip(entry.names, entry.texts, strict=True))
    joint = JOINED.get(parameter.type.name)
    whole = joint is None or any(joint in text for text in entry.texts)  # of several values each is spelled in full
    if entry.kind == "list" and parameter.multiple and whole and entry.texts:
        return entry.texts
    if entry.kind == "list" and joint is not None and entry.texts:
        return (joint.join(entry.texts),)
    if entry.kind != "one":
        raise ValueError(f"got {_got(entry)}, expected {'one value or a list' if parameter.multiple else 'one value'}")
    return entry.texts


def refuse_unsafe(parameter: click.Parameter, texts: Sequence[str]) -> None:
    """Raise `ValueError` where an option would let code run that neither this package nor its user chose.

    Or write where that could follow.
    """
    if parameter.name in _CODE and "true" in texts:
        raise ValueError("lets code run, and a recipe cannot allow that; say it on the command line")
    if parameter.name == "arch" and any(not text.startswith(_NAMED) for text in texts):
        raise ValueError(f"{texts[0]} would run code, expected torchvision:NAME or timm:NAME; say it by --arch")
    if parameter.name == "arch_args" and (names := [text for text in texts if text.startswith(_FETCHING)]):
        raise ValueError(f"{names[0].partition('=')[0]} fetches or opens files; say it by --arch-arg")
    name = str(parameter.name).removeprefix(TRAINING_PREFIX)
    for text in texts if name in _PLACES else ():
        hidden = any(part.startswith((".", "~")) and part not in (".", "..") for part in Path(text).parts)
        if hidden or not text.endswith(_SUFFIXES.get(name, "")):
            expected = " or ".join(_SUFFIXES.get(name, ())) or "no hidden file or folder"
            raise ValueError(
                f"{shown(text)} is no place that a recipe may write to, expected {expected}; say it by a flag"
            )


def _got(entry: Entry) -> str:
    return {"one": shown(entry.texts[0]) if entry.texts else "", "list": "a list"}.get(entry.kind, "a mapping")


def is_flag(parameter: click.Parameter) -> bool:
    """Whether an option takes no value."""
    return isinstance(parameter, click.Option) and bool(parameter.is_flag)


def _typed(ctx: click.Context) -> Texts:
    """What the command line itself gives, as it was typed."""
    raw: Mapping[str, Any] = ctx.command.make_parser(ctx).parse_args(args=list(ctx.meta[ARGUMENTS]))[0]
    return {
        name: _as_texts(raw[name])
        for name in ctx.params
        if ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE and name in raw
    }


def _default(parameter: click.Parameter) -> Any:
    """The value of an option that nothing gives: a number, a text, true or false, a tuple or None."""
    if isinstance(parameter.default, (bool, int, float, str, tuple)):
        return parameter.default
    if is_flag(parameter) and parameter.default is not None:  # None leaves both words open
        return False
    return () if parameter.multiple else None


def _as_texts(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    if isinstance(value, bool):
        return ("true" if value else "false",)
    return tuple(map(str, value)) if isinstance(value, (list, tuple)) else (str(value),)


def _printable(line: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in line)
