"""Classifiers of objects by name (CLASSIFIERS): trained on annotated objects, applied to all, kept as a folder."""

from sketchscale.objects.classifiers.base import (
    CLASSIFIERS,
    Classifier,
    ClassifierConfig,
    ClassifierKind,
    NetworkOptions,
    find_classifier,
)
from sketchscale.objects.classifiers.files import load_classifier, save_classifier
from sketchscale.objects.classifiers.light import LightNet
from sketchscale.objects.classifiers.training import TrainingOptions, train_classifier

__all__ = [
    "CLASSIFIERS",
    "Classifier",
    "ClassifierConfig",
    "ClassifierKind",
    "LightNet",
    "NetworkOptions",
    "TrainingOptions",
    "find_classifier",
    "load_classifier",
    "save_classifier",
    "train_classifier",
]
