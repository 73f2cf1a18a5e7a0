"""The page at `/playground`: a static page, what it must be told, and one file that holds it all.

The page is in `static/`: plain HTML, CSS and ES modules. This room knows nothing of
SGLang; `engine.http.page` puts it on SGLang's server.
"""

from __future__ import annotations

from .bundle import offline_page
from .config import page_config
from .files import File, page_files

__all__ = ["File", "offline_page", "page_config", "page_files"]
