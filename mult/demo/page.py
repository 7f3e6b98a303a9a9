"""The page and its server, by Gradio: the only module that needs the extra `demo`.

Nothing is fetched from elsewhere and nothing reported: the server listens on loopback, and the policy that it sends with every
page forbids the browser all other addresses, which the pages of some versions of Gradio name.
"""

# No `from __future__ import annotations`: Gradio reads the annotation of `place`, whose module is imported in a function.
import os
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from mult.demo.view import (
    Model,
    View,
    letter_models,
    list_tasks,
    look,
    render_attention,
    render_maps,
    render_mark,
    render_values,
    to_words,
)
from mult.draw.html import Html, join, tag
from mult.errors import UserError

POLICY = b"default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:"
"""What the page may load: what this server sends. Gradio compiles templates in the browser, which is an eval."""
ADDRESS = "127.0.0.1"
HOUR_S = 3600
"""For how long Gradio keeps a photograph in its temporary folder; not beyond the end of the command."""


def check_gradio() -> None:
    """Raise UserError where the extra `demo` is not installed. Gradio reports nothing to its makers from then on."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        import gradio  # noqa: F401
    except ImportError as error:
        raise UserError(f'demo: got no package {error.name}; expected it installed; pip install "mult-dense[demo]"') from error


def serve(models: Sequence[Model], port: int | None) -> Any:
    """Start the page of one model or two on a port, or on a free one; the `gradio.Blocks`, which has its `local_url`."""
    import gradio as gr
    from starlette.middleware import Middleware

    page = build_page(models)
    page.launch(
        server_name=ADDRESS,
        server_port=port,
        share=False,
        prevent_thread_lock=True,
        quiet=True,
        show_error=True,
        ssr_mode=False,
        footer_links=[],
        theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
        css=files("mult.demo").joinpath("page.css").read_text(encoding="utf-8"),
        app_kwargs={"middleware": [Middleware(_SendPolicy)]},
        state_session_capacity=4,  # tabs whose maps are in memory; a tab that is loaded anew is another
    )
    return page


class _SendPolicy:
    """Middleware that sends POLICY with every answer."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def send_with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", POLICY)]
            await send(message)

        await self.app(scope, receive, send_with_policy)


def build_page(models: Sequence[Model]) -> Any:
    """The `gradio.Blocks` of one model or two, with the endpoints /photograph (file) and /point (task, x, y)."""
    import gradio as gr

    def open_photograph(file: dict[str, Any] | None) -> tuple[View | None, Html, Any, Any]:
        if file is None:
            return None, Html(""), None, None
        try:
            view = look(models, Path(file["path"]))
        except UserError as error:
            return None, tag("p", f"error: {error}", class_="hint", role="alert"), None, None
        return view, render_maps(models, view), view.photograph.width // 2, view.photograph.height // 2

    def place(view: View, event: gr.EventData) -> tuple[int, int]:
        width, height = view.photograph.size
        return min(int(event.x * width), width - 1), min(int(event.y * height), height - 1)

    def show_values(view: View | None, x: int | None, y: int | None, event: gr.EventData) -> Html:
        if view is None or x is None or y is None:
            return Html("")
        return render_values(models, view, *((x, y) if event.x is None else place(view, event)))

    def show_point(view: View | None, task: str, x: int | None, y: int | None) -> tuple[Html, Html]:
        if view is None or x is None or y is None:
            return Html(""), Html("")
        width, height = view.photograph.size
        if not (0 <= x < width and 0 <= y < height):
            message = f"point: got ({x}, {y}); expected x below {width} and y below {height}, from 0"
            raise gr.Error(message, print_exception=False)
        return render_values(models, view, x, y), join(render_mark(view, x, y), render_attention(models, view, task, x, y))

    with gr.Blocks(title="mult", analytics_enabled=False, fill_width=True, delete_cache=(HOUR_S, HOUR_S)) as page:
        view = gr.State()
        gr.HTML(_render_head(models))
        with gr.Row():
            with gr.Column(scale=len(models), min_width=300 if len(models) == 1 else 440):
                file = gr.Image(
                    label="photograph", type="filepath", image_mode=None, sources=["upload", "clipboard"], height=220
                )
                with gr.Row():
                    x, y = (gr.Number(label=f"{axis} [pixel]", precision=0, minimum=0, min_width=80) for axis in "xy")
                values = gr.HTML(elem_classes="values")
            with gr.Column(scale=4, min_width=300):
                maps = gr.HTML(js_on_load=files("mult.demo").joinpath("point.js").read_text(encoding="utf-8"))
        tasks = [(to_words(each.name), each.name) for each in list_tasks(models)]
        have_own_maps = any(len(model.predictor.map_owners()) > 1 for model in models)
        task = gr.Radio(tasks, value=tasks[0][1], label="attention of", visible=have_own_maps)
        attention = gr.HTML()

        point = {"fn": show_point, "inputs": [view, task, x, y], "outputs": [values, attention], "show_progress": "hidden"}
        # Without Gradio's preprocessing, which opens the file itself: `look` says what is wrong with one, and what it takes.
        opened = file.change(open_photograph, file, [view, maps, x, y], preprocess=False, api_name="photograph")
        opened.then(**point, api_visibility="private")
        placed = maps.click(place, view, [x, y], show_progress="hidden", api_visibility="private")
        placed.then(**point, api_name="point")
        # A cursor moves faster than values come: of the places that it passes meanwhile, the last is asked for.
        cursor = {"show_progress": "hidden", "api_visibility": "private", "trigger_mode": "always_last"}
        maps.input(show_values, [view, x, y], values, **cursor)
        gr.on([x.submit, y.submit, task.change], **point, api_visibility="private")
    return page


def _render_head(models: Sequence[Model]) -> Html:
    lines = []
    for letter, model in zip(letter_models(models), models, strict=True):
        arguments, (height, width) = model.predictor.model.arguments, model.predictor.transform.size
        about = [arguments["backbone"], f"decoder {arguments['decoder']}"]
        if model.predictor.map_owners():
            about.append(f"attention {arguments['attention']}")
        about.append(f"images of {width} x {height}")
        lines.append(tag("div", letter, tag("b", model.path), f" {', '.join(about)}"))
    hint = "Drop a photograph; point at any picture to read the values there; click to see what the point attends to."
    return join(tag("h1", "mult"), *lines, tag("p", hint))
