"""Networks of standard modules: small ones, those of the published settings, and names for them."""

from __future__ import annotations

from problems.models.choices import CLASSIFIERS, ENCODERS, make_classifier, make_encoder
from problems.models.cifar_resnet import cifar_resnet
from problems.models.resnet import load_encoder_weights, resnet_classifier, resnet_encoder
from problems.models.sequence import SHORTEST, sequence_classifier, sequence_encoder
from problems.models.small import SMALLEST, conv_classifier, conv_encoder
from problems.models.vgg import vgg19_bn
from problems.models.wide_resnet import wide_resnet

__all__ = [
    "CLASSIFIERS",
    "ENCODERS",
    "SHORTEST",
    "SMALLEST",
    "cifar_resnet",
    "conv_classifier",
    "conv_encoder",
    "load_encoder_weights",
    "make_classifier",
    "make_encoder",
    "resnet_classifier",
    "resnet_encoder",
    "sequence_classifier",
    "sequence_encoder",
    "vgg19_bn",
    "wide_resnet",
]
