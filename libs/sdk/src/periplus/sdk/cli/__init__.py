"""The `periplus` command: one file per noun, and `main`, which every command ends in."""

from periplus.sdk.cli.entry import main

__all__ = ["main"]
