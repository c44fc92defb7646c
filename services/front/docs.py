"""/docs without a network: Swagger UI from the assets that BentoML installs, served from here.

FastAPI's own page would load its script from a public server, which a hospital's network refuses.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from fastapi import APIRouter
from starlette.responses import FileResponse, HTMLResponse, Response

from models.errors import NotFound

_FILES = {
    "swagger-ui.css": "text/css",
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui-standalone-preset.js": "text/javascript",
    "favicon-light-32x32.png": "image/png",
}
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>LesionLens API</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="/docs/assets/favicon-light-32x32.png">
<link rel="stylesheet" href="/docs/assets/swagger-ui.css"></head>
<body><div id="swagger-ui"><p>The API is described in <a href="/openapi.json">/openapi.json</a>.</p>
</div>
<script src="/docs/assets/swagger-ui-bundle.js"></script>
<script src="/docs/assets/start.js"></script></body></html>
"""
_START = """window.onload = () => SwaggerUIBundle({
  url: "/openapi.json", dom_id: "#swagger-ui", deepLinking: true, docExpansion: "list",
  defaultModelsExpandDepth: 0, validatorUrl: null
});
"""


def build_router() -> APIRouter:
    """The page and its four assets."""
    router = APIRouter(include_in_schema=False)
    assets = _assets()

    @router.get("/docs")
    async def docs() -> HTMLResponse:
        return HTMLResponse(_PAGE)

    @router.get("/docs/assets/{name}")
    async def asset(name: str) -> Response:
        if name == "start.js":
            return Response(_START, media_type="text/javascript")
        if name not in _FILES or assets is None:
            raise NotFound("no such file", found=name[:60])
        return FileResponse(assets / name, media_type=_FILES[name])

    return router


def _assets() -> Path | None:
    """BentoML's folder of static files, found without importing BentoML; None where it moved."""
    found = importlib.util.find_spec("bentoml")
    if found is None or found.origin is None:
        return None
    folder = Path(found.origin).parent / "_internal" / "server" / "static_content"
    return folder if all((folder / name).is_file() for name in _FILES) else None
