from typing import Any


def body(results: Any) -> list[str]:
    return []
