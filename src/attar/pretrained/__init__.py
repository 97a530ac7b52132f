"""Models of other libraries: built by name or from a local folder, with weights from local files alone; nothing is downloaded."""

from attar.pretrained.backboned import Backboned, RawPixels
from attar.pretrained.vision import Backbone

__all__ = ["Backbone", "Backboned", "RawPixels"]
