"""For every reason to keep a layer: which flag would include it, if any can."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from vfconvert.planning import Keep

Flag = Callable[[Keep], str | None]


def _always(flag: str) -> Flag:
    return lambda keep: flag


def _none(keep: Keep) -> str | None:
    return None


def _unselected(keep: Keep) -> str:
    return "--layer" if keep.reason.startswith("no --layer") else "--include"


def _excluded(keep: Keep) -> str:
    return "drop --layer" if keep.reason.startswith("--layer") else "drop --exclude"


def _shares(keep: Keep) -> str | None:
    if keep.geometry.group_inputs < 2 or keep.geometry.group_outputs < 2:
        return None  # no window is narrower than one channel, and one output shares with none
    return "--channel" if "--channel would" in keep.reason else "--windows, --channel-stride"


FLAGS: Mapping[str, Flag] = {
    "linear": _always("--linear"),
    "first": _always("--include-first"),
    "nothing-to-share": _shares,
    "excluded": _excluded,
    "not-included": _unselected,
    "budget": _always("tighter --target"),
    "plan": _always("edit --plan"),
    "not-in-plan": _always("edit --plan"),
    # What the layer is, or how the network uses it: the network would have to change, not the command.
    "root": _none,
    "parametrized": _none,
    "subclass": _none,
    "hooks": _none,
    "dtype": _none,
    "shared": _none,
    "tied": _none,
    "never-run": _none,
    "called-repeatedly": _none,
    "depthwise": _none,
    "would-not-shrink": _none,
    "too-large": _none,
    "moved-axes": _none,
}


def flag_of(keep: Keep) -> str | None:
    """The flag that would include a kept layer ("drop" stands before one to leave out); None where none can.

    Raises `KeyError` for a code that is in no rule.
    """
    return FLAGS[keep.code](keep)
