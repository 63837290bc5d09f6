"""A plugin of the guest's pytest: leaves out what cannot run there, and sends each result, one line
of JSON, through the port to the host.
"""

from __future__ import annotations

import json
import os
from collections import Counter

import pytest

from tests.v2_rig import selection


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Sender(config, os.environ["V2_RIG_PASS"]))


class Sender:
    def __init__(self, config: pytest.Config, name: str) -> None:
        self.config = config
        self.name = name
        self.port = os.open(os.environ["V2_RIG_PORT"], os.O_WRONLY | os.O_CLOEXEC)

    def send(self, **fields: object) -> None:
        line = json.dumps({"pass": self.name, **fields}) + "\n"
        data = line.encode()
        while data:
            data = data[os.write(self.port, data) :]

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        cases: Counter[str] = Counter()
        left_out = {}
        for item in items:
            test = item.nodeid.partition("[")[0]
            reason = selection.left_out(item, cases[test])
            cases[test] += 1
            if reason:
                left_out[item.nodeid] = reason
        items[:] = [item for item in items if item.nodeid not in left_out]
        self.send(collected=[item.nodeid for item in items], left_out=left_out)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.send(broken=report.nodeid, why=str(report.longrepr)[-4000:])

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Of a test that passes only its call: three in four reports say nothing else."""
        if report.passed and report.when != "call":
            return
        report.keywords = {}
        if not report.failed:
            report.sections = []
        hook = self.config.hook.pytest_report_to_serializable
        self.send(report=hook(config=self.config, report=report))
