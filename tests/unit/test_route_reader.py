"""The reader of routes follows an app through its source, and refuses what it cannot read, with file and line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from tools.route_reader import Reader
from tools.route_values import ReadError

APP = "from fastapi import FastAPI\napp = FastAPI(docs_url=None, openapi_url=None)\n"


def written(root: Path, files: Mapping[str, str]) -> Reader:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return Reader(root)


def routes(root: Path, text: str, **files: str) -> list[tuple[str, tuple[str, ...], tuple[str, ...]]]:
    """What is read of an app with this source; other modules of the package by name."""
    reader = written(root, {"e/server.py": APP + text, **{f"e/{name}.py": source for name, source in files.items()}})
    found = reader.app("e.server")
    reader.refuse_strays(found)
    return [(route.path, route.methods, route.when) for route in found]


@pytest.mark.parametrize(
    ("text", "path", "methods"),
    [
        ('@app.post("/x")\ndef f(): ...\n', "/x", ("POST",)),
        ('@app.api_route("/x")\ndef f(): ...\n', "/x", ("GET",)),
        ('@app.api_route("/x", methods=["put", "GET"])\ndef f(): ...\n', "/x", ("GET", "PUT")),
        ('@app.websocket("/x")\ndef f(): ...\n', "/x", ("WEBSOCKET",)),
        ('def f(): ...\napp.add_api_route("/x", f, methods=["POST"])\n', "/x", ("POST",)),
        ('def f(): ...\napp.add_route("/x", f)\n', "/x", ("GET", "HEAD")),
        ('app.mount("/x", other)\n', "/x", ("ANY",)),
        ('from starlette.routing import Mount\nm = Mount("/x", other)\napp.routes.append(m)\n', "/x", ("ANY",)),
        ('P = "/a"\n@app.get(P + "/b")\ndef f(): ...\n', "/a/b", ("GET",)),
        ('P = "/a"\n@app.get(f"{P}/{{id}}")\ndef f(): ...\n', "/a/{id}", ("GET",)),
        ('import os\n@app.get(os.environ.get("WHERE", "/x"))\ndef f(): ...\n', "/x", ("GET",)),
        ('import os\n@app.get(os.getenv("WHERE"))\ndef f(): ...\n', "$WHERE", ("GET",)),
        ("from x import Instrumentator\nInstrumentator().add().expose(app)\n", "/metrics", ("GET",)),
    ],
)  # fmt: skip
def test_each_way_to_add_a_route(tmp_path: Path, text: str, path: str, methods: tuple[str, ...]) -> None:
    assert routes(tmp_path, text) == [(path, methods, ())]


def test_routers_prefixes_and_conditions(tmp_path: Path) -> None:
    router = 'from fastapi import APIRouter\nr = APIRouter(prefix="/r")\n@r.get("/x")\ndef f(): ...\n'
    attached = (
        "def attach(app, on):\n"
        "    if not on:\n        return\n"
        "    from .router import r as mine\n    app.include_router(mine, prefix='/v1')\n"
    )
    text = "from e.attached import *\ndef launch(args):\n    if args.extra:\n        attach(app, True)\n"
    found = routes(tmp_path, text, router=router, attached=attached)
    assert found == [("/v1/r/x", ("GET",), ("args.extra", "on"))]


def test_routes_that_a_loop_repeats(tmp_path: Path) -> None:
    router = 'from fastapi import APIRouter\nr = APIRouter()\n@r.post("/x")\ndef f(): ...\n'
    text = (
        "from e.router import r\n"
        "def gone(): ...\n"
        "for route in (*r.routes,):\n    app.add_api_route(route.path, gone, methods=sorted(route.methods))\n"
    )
    assert routes(tmp_path, text, router=router) == [("/x", ("POST",), ())]


def test_the_app_that_a_function_returns_with_what_fastapi_serves_itself(tmp_path: Path) -> None:
    text = (
        "from fastapi import FastAPI\ndef build(args):\n    if args.quiet:\n        app = FastAPI(openapi_url=None)\n"
    )
    text += "    else:\n        app = FastAPI(redoc_url=None)\n    @app.get('/x')\n    def f(): ...\n    return app\n"
    found = written(tmp_path, {"e.py": text}).app("e", "build")
    assert [route.path for route in found] == ["/docs", "/docs/oauth2-redirect", "/openapi.json", "/x"]
    assert found[0].when == ("not (args.quiet)",)
    assert found[-1].source == "e.py:7"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("@app.get(chosen())\ndef f(): ...\n", r"e/server\.py:3: the path cannot be evaluated: chosen\(\)"),
        ("@app.api_route('/x', methods=some)\ndef f(): ...\n", r"e/server\.py:3: methods cannot be evaluated"),
        ("app.include_router(made())\n", r"e/server\.py:3: .* not known to be a router"),
        ("from away import decorate\ndecorate(app)\n", r"e/server\.py:4: away\.decorate is given the app"),
        ("app.add_magic('/x')\n", r"e/server\.py:3: unknown method \.add_magic\(\) of an app"),
        ("app.routes.append(made())\n", r"e/server\.py:3: a route is appended that is not a Mount"),
        ("app.host('a.example', other)\n", r"e/server\.py:3: routes by host name"),
    ],
)
def test_what_cannot_be_read_is_an_error_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ReadError, match=message):
        routes(tmp_path, text)


def test_a_route_that_no_app_was_seen_to_get_is_an_error(tmp_path: Path) -> None:
    lost = 'from fastapi import APIRouter\nr = APIRouter()\n@r.get("/x")\ndef f(): ...\n'
    with pytest.raises(ReadError, match=r"e/lost\.py:3: a route that no app of the engine was seen to get"):
        routes(tmp_path, "", lost=lost)
    own = 'from fastapi import FastAPI\nmine = FastAPI()\n@mine.get("/x")\ndef f(): ...\n'
    (tmp_path / "e/lost.py").unlink()
    assert routes(tmp_path, "", own=own) == []
