"""A run in a process of its own, for tests that kill it or start several: `python -m tests.training.worker FOLDER`.

Goes on from the checkpoint in the folder where one is there; at the end `final.safetensors` and `losses.json` are
written by the first process. With `"dies": N` the last process is gone after N steps, without a word.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import safetensors.torch
import torch

from tests.training.samples import Kept, job
from vfconvert.training import loop
from vfconvert.training.checkpoint import read_checkpoint
from vfconvert.training.ranks import Ranks


def main() -> None:
    """Train to the end, one thread, a checkpoint after every step."""
    folder, given = Path(sys.argv[1]), json.loads(sys.argv[2]) if len(sys.argv) > 2 else {}
    torch.set_num_threads(1)
    loop._COUNTED = 1
    ranks, dies = Ranks.of_environment(), given.pop("dies", None)
    last = ranks.world > 1 and ranks.rank == ranks.world - 1
    told = Kept(dies, lambda: os._exit(7)) if dies is not None and last else Kept()
    with ranks.together(torch.device("cpu")):
        trained = loop.train(job(folder, ranks=ranks, **given), told, read_checkpoint(folder))
    if ranks.first:
        (folder / "losses.json").write_text(json.dumps(told.losses))
        safetensors.torch.save_file(trained.model.state_dict(), folder / "final.safetensors")


if __name__ == "__main__":
    main()
