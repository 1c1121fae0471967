"""Every error a user can cause, each with its own exit code.

A message is one line: what happened, where, what was got and what was expected, what to do next. Codes 0-2
are taken: 0 success, 1 an internal error, 2 a wrong command line (click's own). Codes are never reused.
"""

from __future__ import annotations

import typing

_LONGEST = 160  # characters of another library's message
_LONGEST_MESSAGE = 2000


class VfconvertError(Exception):
    """Base of the family; `exit_code` is what the command line returns for it."""

    exit_code = 1

    def __init__(self, message: str) -> None:
        """A message may quote a file's names, which may be of any length: its middle is left out then."""
        long = len(message) > _LONGEST_MESSAGE
        super().__init__(f"{message[:_LONGEST_MESSAGE]} … {message[-_LONGEST:]}" if long else message)


class GateError(VfconvertError):
    """A gate failed: the network was converted and measured, and a figure is not within the limit asked for.

    `report` is the `ConversionReport` with all gates and what each got.
    """

    exit_code = 3
    report: typing.Any = None


class ConfigError(VfconvertError):
    """A recipe (`--config`) that cannot be read, or that says what no option takes."""

    exit_code = 4


class UncheckableGateError(VfconvertError):
    """A gate that the run could not check, since it would not measure the figure, or that could never fail."""

    exit_code = 5


class BatchError(VfconvertError):
    """Some models of a batch failed, not by a gate alone; the others were converted, and the summary has all."""

    exit_code = 6


class ManifestError(VfconvertError):
    """A list of models that cannot be read, or arguments or a recipe by which a batch can convert none."""

    exit_code = 7


class NotAModelError(VfconvertError):
    """The file is none of the formats that hold a model."""

    exit_code = 10


class TruncatedModelError(VfconvertError):
    """The file starts like a model and then ends too soon or is damaged."""

    exit_code = 11


class EmptyModelError(VfconvertError):
    """The file has no bytes, or holds no weights."""

    exit_code = 12


class UntrustedModelError(VfconvertError):
    """The file wants to run code, to build what is not on the allow-list, or to take more than it holds."""

    exit_code = 13


class ArchitectureNeededError(VfconvertError):
    """The file holds only weights and no `--arch` says what network they belong to."""

    exit_code = 14


class ArchitectureError(VfconvertError):
    """`--arch` names nothing that builds a network."""

    exit_code = 15


class StateDictMismatchError(VfconvertError):
    """The keys or shapes of the weights do not match the architecture."""

    exit_code = 16


class NoConvolutionError(VfconvertError):
    """The network has no Conv2d at all."""

    exit_code = 17


class NothingEligibleError(VfconvertError):
    """The network has Conv2d layers, but none can or may be converted."""

    exit_code = 18


class UnwritableOutputError(VfconvertError):
    """An output cannot be written where the user wants it."""

    exit_code = 19


class InputShapeError(VfconvertError):
    """The network rejects an input of the given shape."""

    exit_code = 20


class NoImagesError(VfconvertError):
    """The data folder holds no (or too few) images."""

    exit_code = 21


class UnreadableImageError(VfconvertError):
    """An image file cannot be decoded."""

    exit_code = 22


class IllegalSpecError(VfconvertError):
    """A window count, channel stride, crop or other number that no layer can have."""

    exit_code = 23


class ParityError(VfconvertError):
    """The exported file does not compute what the converted network computes."""

    exit_code = 24


class ExportError(VfconvertError):
    """The converted network could not be written in the wanted format."""

    exit_code = 25


class UnsupportedModelError(VfconvertError):
    """The file holds a network of a kind that cannot be rewritten (a ScriptModule, a quantized one)."""

    exit_code = 26


class MissingPackageError(VfconvertError):
    """An optional package is needed; the message names the extra that installs it."""

    exit_code = 27


class DeviceError(VfconvertError):
    """The wanted device is not there."""

    exit_code = 28


class FitError(VfconvertError):
    """The closed-form fit met numbers it cannot work with (the network's outputs are not finite)."""

    exit_code = 29


class PreprocessingError(VfconvertError):
    """`--preset`, `--mean`, `--std` or `--size` do not describe a usable transform."""

    exit_code = 30


class SelectionError(VfconvertError):
    """`--include`, `--exclude` or `--layer` matches no layer."""

    exit_code = 31


class PlanFileError(VfconvertError):
    """A plan file that cannot be read, is no plan, or says what the network's layers cannot have."""

    exit_code = 32


class BudgetError(VfconvertError):
    """A `--target` that no plan reaches, or one that cannot be told (a latency that was not measured)."""

    exit_code = 33


class TrainingError(VfconvertError):
    """Fine-tuning cannot begin or go on: outputs, labels, the task or a setting do not go together."""

    exit_code = 34


class ResourceError(VfconvertError):
    """The machine, or what this user may have of it, does not suffice: memory, open files."""

    exit_code = 35


def first_line(error: BaseException) -> str:
    """The first line of a foreign error's message, printable and shortened, or its type where there is none."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    line = "".join(letter if letter.isprintable() else "?" for letter in lines[0])
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]} …"
