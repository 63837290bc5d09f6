"""The steps that run hooks in the container; loaded only when it has hooks."""

from __future__ import annotations

from . import hooks
from .hooks import BEFORE_PIVOT
from .steps import Step


class CreateContainerHooks(Step):
    name = "hooks before pivot_root"
    why = "prestart and createRuntime outside, then createContainer in here"
    clause = "config.md#posix-platform-hooks"
    lesson = "12"

    def __init__(self, configured: dict) -> None:
        self.hooks = configured

    def calls(self):
        return [
            f"execve({hook['path']!r})"
            for kind in BEFORE_PIVOT
            for hook in self.hooks.get(kind) or ()
        ]

    def apply(self, context):
        context.ask("hooks")
        hooks.run(self.hooks, "createContainer", context.state)


class StartContainerHooks(Step):
    name = "startContainer hooks"
    why = "in the container, as its process, before the command"
    clause = "config.md#posix-platform-hooks"
    lesson = "12"

    def __init__(self, configured: dict) -> None:
        self.hooks = configured

    def calls(self):
        return [f"execve({hook['path']!r})" for hook in self.hooks["startContainer"]]

    def apply(self, context):
        hooks.run(self.hooks, "startContainer", {**context.state, "status": "created"})
