"""`/api/workers`: remote workers take jobs over HTTP."""

from __future__ import annotations

from fastapi import APIRouter

router = APIRouter(prefix="/api/workers", tags=["workers"])
