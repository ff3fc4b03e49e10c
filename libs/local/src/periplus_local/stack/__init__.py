"""Everything of Periplus on one machine, started, watched and stopped together."""

from periplus_local.argo.token_file import TokenError
from periplus_local.stack.argo_alone import ArgoOptions, ServedArgo, serve
from periplus_local.stack.bucket import Bucket
from periplus_local.stack.cluster import Cluster, NoClusterError
from periplus_local.stack.detached import detach, down
from periplus_local.stack.doctor import Finding, doctor
from periplus_local.stack.foreground import RunningStack, print_change, stack, up
from periplus_local.stack.home import Home, HomeError, UntrustedHomeError, locate
from periplus_local.stack.lock import HeldError, Holder, start_afresh, trust
from periplus_local.stack.ports import PortTakenError
from periplus_local.stack.process import ProcessFailedError, ProcessSpec, ProcessState, StateChange
from periplus_local.stack.programs import ProgramMissingError

__all__ = [
    "ArgoOptions",
    "Bucket",
    "Cluster",
    "Finding",
    "HeldError",
    "Holder",
    "Home",
    "HomeError",
    "NoClusterError",
    "PortTakenError",
    "ProcessFailedError",
    "ProcessSpec",
    "ProcessState",
    "ProgramMissingError",
    "RunningStack",
    "ServedArgo",
    "StateChange",
    "TokenError",
    "UntrustedHomeError",
    "detach",
    "doctor",
    "down",
    "locate",
    "print_change",
    "serve",
    "stack",
    "start_afresh",
    "trust",
    "up",
]
