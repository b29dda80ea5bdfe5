"""What a hand does with files and the mouse, for the page's tests."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any


def files(path: Path) -> str:
    """A file's content as a page takes it."""
    return base64.b64encode(path.read_bytes()).decode()


def paste(page: Any, path: Path, *, kind: str = "") -> None:
    """Pastes a file."""
    page.evaluate(
        """({data, name, kind}) => {
            const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
            const clipboardData = new DataTransfer();
            clipboardData.items.add(new File([bytes], name, {type: kind}));
            const facts = {bubbles: true, cancelable: true, clipboardData};
            document.body.dispatchEvent(new ClipboardEvent("paste", facts));
        }""",
        {"data": files(path), "name": path.name, "kind": kind},
    )


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
            "data": files(path),
            "name": path.name,
            "kind": kind,
            "x": x,
        },
    )
