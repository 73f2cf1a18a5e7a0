"""SGLang-Multiverse: models that plan, fork and join inside their own answer."""

__version__ = "0.1.0"
