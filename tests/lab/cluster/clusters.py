"""A running cluster, as tests see it: through kubectl, kybern-lab and the nodes' engines."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.demo import Answers, ask_node_port, count
from lab.environment import environment
from lab.state import OUR_STORE, Lab
from tests.lab.labs import ROOT, LabCommand

# A test may wait long: what must hold is that it happens, and the time that it took is printed.
PATIENCE = 120.0


def chosen_store() -> str:
    """What the cluster's masters run on: KYBERN_TEST_STORE, or our store."""
    return os.environ.get("KYBERN_TEST_STORE") or OUR_STORE


@dataclass
class Cluster:
    """A lab with its kubectl."""

    command: LabCommand
    lab: Lab
    program: Path

    def kubectl(self, *words: str, stdin: str = "", environment: Mapping[str, str] | None = None) -> str:
        """Standard output; the command must succeed."""
        done = self.try_kubectl(*words, stdin=stdin, environment=environment)
        assert done.returncode == 0, f"kubectl {' '.join(words)}: {done.stderr}"
        return done.stdout

    def try_kubectl(
        self, *words: str, stdin: str = "", environment: Mapping[str, str] | None = None, timeout: float = 180.0
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl to its end."""
        command = [str(self.program), f"--cache-dir={self.lab.folder / 'kubectl-cache'}", *words]
        given = {**os.environ, "KUBECONFIG": str(self.lab.kubeconfig), **(environment or {})}
        return subprocess.run(
            command, cwd=ROOT, env=given, input=stdin, capture_output=True, text=True, check=False, timeout=timeout
        )

    def get(self, *words: str) -> Any:
        """An object or a list, as JSON."""
        return json.loads(self.kubectl("get", *words, "--output=json"))

    def pods(self, selector: str) -> list[dict[str, Any]]:
        """Pods by label."""
        items: list[dict[str, Any]] = self.get("pods", f"--selector={selector}")["items"]
        return items

    def live(self, selector: str) -> list[dict[str, Any]]:
        """Pods that are ready and not being deleted."""
        return [
            p
            for p in self.pods(selector)
            if "deletionTimestamp" not in p["metadata"]
            and any(c["type"] == "Ready" and c["status"] == "True" for c in p["status"].get("conditions", []))
        ]

    def placed(self, selector: str) -> Counter[str]:
        """How many live pods there are on each node."""
        return Counter(p["spec"]["nodeName"] for p in self.live(selector))

    def ask(self, questions: int = 20) -> Answers:
        """Ask hello's NodePort on both nodes, from outside; who answered."""
        return count(self._asked(questions))

    def unanswered(self, questions: int = 20) -> list[str]:
        """Ask likewise; why there were questions that got no answer."""
        return [said for said in self._asked(questions) if count([said])["", ""]]

    def _asked(self, questions: int) -> list[str]:
        return ask_node_port([self.lab.subnet.host(n) for n in self.lab.file.nodes], questions)

    def containers(self, image: str) -> list[str]:
        """Ids of the running containers of an image, on both nodes' engines."""
        found = []
        for node in self.lab.file.nodes:
            engine = ["docker", "-H", f"unix://{self.lab.run_folder / node / 'docker.sock'}"]
            command = [*engine, "ps", "--quiet", "--no-trunc", "--filter", f"ancestor={image}"]
            found += subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        return found

    def etcdctl(self, *words: str, timeout: float = 30.0) -> str:
        """Standard output of Debian's etcdctl with the lab's environment."""
        given = {**os.environ, **environment(self.lab)}
        done = subprocess.run(
            ["etcdctl", *words], env=given, capture_output=True, text=True, check=False, timeout=timeout
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def until(self, condition: Callable[[], object], what: str, seconds: float = PATIENCE) -> float:
        """Wait until something holds; the seconds that it took. Errors of `condition` count as "not yet"."""
        began = time.monotonic()
        problem = ""
        while True:
            try:
                if condition():
                    took = time.monotonic() - began
                    print(f"{what}: {took:.1f} s")
                    return took
                problem = "it does not hold"
            except (AssertionError, subprocess.TimeoutExpired) as error:
                problem = str(error)
            assert time.monotonic() - began < seconds, f"{what}: not within {seconds:.0f} s: {problem}"
            time.sleep(0.2)

    def repair(self) -> None:
        """Heal every host, start what does not run, wake what is stopped, and wait until all nodes are ready."""
        for (host, daemon), one in self.command.status().items():
            if one["link"] == "Cut":
                self.command("heal", host)
            if one["state"] == "Stopped":
                self.command("kill", host, daemon, "--signal", "CONT")
        self.command("up", timeout=300)
        self.until(lambda: set(self.ready_nodes()) == set(self.lab.file.nodes), "all nodes are ready")

    def ready_nodes(self) -> Sequence[str]:
        """Nodes that the API has as ready."""
        lines = self.kubectl("get", "nodes", "--no-headers").splitlines()
        return [line.split()[0] for line in lines if re.split(r"\s+", line)[1] == "Ready"]
