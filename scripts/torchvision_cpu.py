"""Lets PyPI's torchvision be imported beside a CPU build of torch.

SGLang imports torchvision's Python half (transforms). The compiled half on PyPI is linked to
CUDA and cannot be loaded here; torchvision tolerates that except in one module, which describes
two operators without asking whether they exist. So they are declared before that module runs,
if they are not: declared only, and a call says that there is no implementation. The light
environment has this file as `multiverse_torchvision.py`, imported by a `.pth` at each start.
"""

from __future__ import annotations

import sys
from typing import Any

MODULE = "torchvision._meta_registrations"
OPERATORS = ("nms", "qnms")
_owned: list[Any] = []  # a torch.library.Library undoes what it declared when it is collected


class Declare:
    """A finder that finds nothing: it acts when `MODULE` is looked for, once."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name != MODULE:
            return
        sys.meta_path.remove(self)
        import torch

        for operator in OPERATORS:
            if not hasattr(torch.ops.torchvision, operator):
                library = torch.library.Library("torchvision", "FRAGMENT")
                library.define(
                    f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
                )
                _owned.append(library)


sys.meta_path.insert(0, Declare())
