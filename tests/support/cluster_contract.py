"""What hosts can agree on, whatever engine they share: the contract of `store.cluster`."""

from __future__ import annotations

from support.bindings_contract import BindingsContract
from support.followers_contract import FollowersContract
from support.hosts_contract import HostsContract
from support.segments_contract import SegmentsContract


class ClusterContract(HostsContract, SegmentsContract, BindingsContract, FollowersContract):
    """Every class that has a fixture `engine` and inherits this runs it."""
