"""Everything of Periplus on one machine, started, watched and stopped together."""

from periplus_local.stack.cluster import Cluster, NoClusterError
from periplus_local.stack.detached import detach, down
from periplus_local.stack.doctor import Finding, doctor
from periplus_local.stack.home import Home, HomeError, locate
from periplus_local.stack.lock import HeldError, Holder
from periplus_local.stack.part import Change, Part, PartFailedError, State
from periplus_local.stack.programs import ProgramMissingError
from periplus_local.stack.running import Running, print_change, stack, up

__all__ = [
    "Change",
    "Cluster",
    "Finding",
    "HeldError",
    "Holder",
    "Home",
    "HomeError",
    "NoClusterError",
    "Part",
    "PartFailedError",
    "ProgramMissingError",
    "Running",
    "State",
    "detach",
    "doctor",
    "down",
    "locate",
    "print_change",
    "stack",
    "up",
]
