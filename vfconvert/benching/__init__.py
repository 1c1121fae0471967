"""Latency and memory of model files, side by side, in the runtimes that deploy them."""

from vfconvert.benching.comparing import bench as bench
from vfconvert.benching.report import BenchedFile as BenchedFile
from vfconvert.benching.report import BenchReport as BenchReport
from vfconvert.benching.report import Machine as Machine
from vfconvert.benching.runners import open_model as open_model
