"""Inputs that atheris chooses by what code of poolzoo they reach, on top of the targets' own mutations."""

from __future__ import annotations


def run(*_: object) -> int:
    raise NotImplementedError
