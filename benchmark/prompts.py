"""Held-out problems of the tiny model, as requests for `bench_serving --dataset-name openai`.

python benchmark/prompts.py 32 > prompts.jsonl
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "test"))

from models import problems

if __name__ == "__main__":
    for seed in range(int(sys.argv[1]) if len(sys.argv) > 1 else 32):
        message = {"role": "user", "content": problems.generate(seed, "held-out").prompt}
        print(json.dumps({"messages": [message], "max_tokens": 1000, "temperature": 0}))
