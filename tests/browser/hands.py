"""What a hand does with files and the mouse, for the page's tests."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any


def drop(page: Any, selector: str, path: Path, *, kind: str = "", x: float = 0.5) -> None:
    """Drops a file on an element, `x` of the way from its left to its right."""
    page.evaluate(
        """async ({selector, data, name, kind, x}) => {
            const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
            const transfer = new DataTransfer();
            transfer.items.add(new File([bytes], name, {type: kind}));
            const target = document.querySelector(selector);
            const box = target.getBoundingClientRect();
            const where = {clientX: box.left + x * box.width, clientY: box.top + box.height / 2};
            for (const type of ["dragenter", "dragover", "drop"]) {
                const facts = {bubbles: true, cancelable: true, dataTransfer: transfer, ...where};
                target.dispatchEvent(new DragEvent(type, facts));
            }
        }""",
        {
            "selector": selector,
            "data": base64.b64encode(path.read_bytes()).decode(),
            "name": path.name,
            "kind": kind,
            "x": x,
        },
    )
