"""Everything of Periplus on one machine, started, watched and stopped together."""

from periplus_local.argo.credential import TokenError
from periplus_local.stack.bucket import Bucket
from periplus_local.stack.cluster import Cluster, NoClusterError
from periplus_local.stack.detached import detach, down
from periplus_local.stack.doctor import Finding, doctor
from periplus_local.stack.home import Home, HomeError, locate
from periplus_local.stack.lock import HeldError, Holder
from periplus_local.stack.part import Change, Part, PartFailedError, State
from periplus_local.stack.ports import PortTakenError
from periplus_local.stack.programs import ProgramMissingError
from periplus_local.stack.running import Running, print_change, stack, up
from periplus_local.stack.serving import Alone, Serving, serve

__all__ = [
    "Alone",
    "Bucket",
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
    "PortTakenError",
    "ProgramMissingError",
    "Running",
    "Serving",
    "State",
    "TokenError",
    "detach",
    "doctor",
    "down",
    "locate",
    "print_change",
    "serve",
    "stack",
    "up",
]
