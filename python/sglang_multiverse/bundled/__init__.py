"""The package's own model: an adapter in the package, merged with its base at first use.

`python -m sglang_multiverse.bundled` prints where the merged model is. It is what
`launch_server` serves without `--model-path`, and what the demo asks.
"""

from .cache import model_path
from .manifest import BundledModelError, Manifest, packaged

__all__ = ["BundledModelError", "Manifest", "model_path", "packaged"]
