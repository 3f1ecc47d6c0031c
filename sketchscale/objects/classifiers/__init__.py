"""Classifiers of objects by name (CLASSIFIERS): trained on annotated objects, applied to all, stored as a folder."""

from sketchscale.objects.classifiers.augmentation import AUGMENTS, AugmentOptions
from sketchscale.objects.classifiers.base import (
    CLASSIFIERS,
    Classifier,
    ClassifierConfig,
    ClassifierKind,
    NetworkOptions,
    find_classifier,
)
from sketchscale.objects.classifiers.files import load_classifier, save_classifier
from sketchscale.objects.classifiers.forests import ForestOptions
from sketchscale.objects.classifiers.light import LightNet
from sketchscale.objects.classifiers.options import TrainingOptions
from sketchscale.objects.classifiers.preparation import PatchOptions
from sketchscale.objects.classifiers.rows import feature_columns, feature_rows
from sketchscale.objects.classifiers.training import train_classifier

__all__ = [
    "AUGMENTS",
    "CLASSIFIERS",
    "AugmentOptions",
    "Classifier",
    "ClassifierConfig",
    "ClassifierKind",
    "ForestOptions",
    "LightNet",
    "NetworkOptions",
    "PatchOptions",
    "TrainingOptions",
    "feature_columns",
    "feature_rows",
    "find_classifier",
    "load_classifier",
    "save_classifier",
    "train_classifier",
]
