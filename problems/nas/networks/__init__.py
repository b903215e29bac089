"""Discrete networks: what a genotype describes, trained from scratch."""

from __future__ import annotations

from problems.nas.networks.auxiliary import AuxiliaryHead
from problems.nas.networks.choices import STEMS, make_network
from problems.nas.networks.cifar import CifarNetwork
from problems.nas.networks.drop_path import check_drop_path, drop_path
from problems.nas.networks.imagenet import ImageNetNetwork
from problems.nas.networks.macro import MacroNetwork, refuse_drop_path

__all__ = [
    "STEMS",
    "AuxiliaryHead",
    "CifarNetwork",
    "ImageNetNetwork",
    "MacroNetwork",
    "check_drop_path",
    "drop_path",
    "make_network",
    "refuse_drop_path",
]
