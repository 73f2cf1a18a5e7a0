"""Compile what serving, training and the tests import of a new light environment.

Usage: ENV/bin/python scripts/warm.py

Python would do so at first use, but not where PYTHONDONTWRITEBYTECODE is set, as it is in many
containers: there every process would compile it all again. To compile everything takes 0.4 GB.
"""

from __future__ import annotations

import importlib
import logging
import sys
import warnings

MODULES = """
sglang.srt.entrypoints.http_server sglang.srt.managers.scheduler sglang.srt.models.registry
sglang.srt.managers.detokenizer_manager sglang.srt.models.llama sglang.srt.models.qwen2
transformers.models.llama.modeling_llama transformers.models.qwen2.modeling_qwen2
transformers.models.qwen3.modeling_qwen3 transformers.modeling_gguf_pytorch_utils
torch._dynamo torch._inductor torch.nn.attention.flex_attention torch.testing
accelerate datasets gguf hypothesis math_verify matplotlib.pyplot openai peft
playwright.sync_api pytest rapidfuzz reasoning_gym rich scipy.stats sentencex
""".split()


def main() -> None:
    sys.dont_write_bytecode = False
    warnings.simplefilter("ignore")
    logging.disable()
    for name in MODULES:
        importlib.import_module(name)


if __name__ == "__main__":
    main()
