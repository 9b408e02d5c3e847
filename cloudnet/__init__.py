"""cloudnet: compact, well-measured cloud masks for Sentinel-2, from training to the map.

>>> import cloudnet
>>> model = cloudnet.load_model()                           # doctest: +SKIP
>>> probability = model.predict(reflectance)                # doctest: +SKIP
>>> mask = model.mask(probability)                          # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from cloudnet._version import __version__
from cloudnet.errors import CloudnetError

if TYPE_CHECKING:
    from cloudnet.batch import predict_dataset
    from cloudnet.dataarray import open_dataarray, predict_dataarray
    from cloudnet.dataset import open_dataset
    from cloudnet.predict import predict_scene
    from cloudnet.runtime import CloudModel, load_model
    from cloudnet.scene import open_scene
    from cloudnet.shipped import ShippedModel, shipped_models
    from cloudnet.spec import Spec
    from cloudnet.surface import at_top

_HOME = {
    "CloudModel": "cloudnet.runtime",
    "ShippedModel": "cloudnet.shipped",
    "Spec": "cloudnet.spec",
    "at_top": "cloudnet.surface",
    "load_model": "cloudnet.runtime",
    "open_dataarray": "cloudnet.dataarray",
    "open_dataset": "cloudnet.dataset",
    "open_scene": "cloudnet.scene",
    "predict_dataset": "cloudnet.batch",
    "predict_dataarray": "cloudnet.dataarray",
    "predict_scene": "cloudnet.predict",
    "shipped_models": "cloudnet.shipped",
}

__all__ = [
    "CloudModel",
    "CloudnetError",
    "ShippedModel",
    "Spec",
    "__version__",
    "at_top",
    "load_model",
    "open_dataarray",
    "open_dataset",
    "open_scene",
    "predict_dataset",
    "predict_dataarray",
    "predict_scene",
    "shipped_models",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for, so that `import cloudnet` stays light."""
    if name not in _HOME:
        raise AttributeError(f"module 'cloudnet' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
