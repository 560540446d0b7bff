"""`make up`: a cluster, something that runs on it, and the proof that it answers."""

from __future__ import annotations

import http.client
import re
import secrets
import subprocess
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from kybern.cli.tables import render
from lab import lifecycle
from lab.errors import LabError
from lab.kubectl import ensure_kubectl
from lab.names import DEFAULT, Names
from lab.paths import project_root
from lab.progress import Progress
from lab.state import Lab

QUESTIONS = 40
NODE_PORT = 30080
DNS_NAME = "hello.default.svc.cluster.local"
# What the pods of examples/hello.yaml answer.
_ANSWER = re.compile(r"hello \S+ from (?P<pod>\S+) on (?P<node>\S+)")
# (`timeout`, not wget's -T: in Debian 12's busybox-static that one ends in a segmentation fault.)
_ASK = f"""\
n=0
while [ $n -lt {QUESTIONS} ]; do
  timeout 5 wget -q -O - http://{DNS_NAME}/ || echo failed
  n=$((n+1))
done
"""

Answers = Counter[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Kubectl:
    """kubectl with a lab's kubeconfig. Its caches stay in the lab's folder."""

    program: Path
    lab: Lab

    def __call__(self, *arguments: str, timeout: float = 240.0) -> str:
        """A command's output.

        Raises:
            LabError: when it fails, with what it said.
        """
        command = [str(self.program), f"--kubeconfig={self.lab.kubeconfig}"]
        command += [f"--cache-dir={self.lab.folder / 'kubectl-cache'}", *arguments]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout)
        except subprocess.TimeoutExpired as error:
            raise LabError(f"`kubectl {' '.join(arguments[:3])}` did not end within {timeout:.0f} s") from error
        if done.returncode != 0:
            raise LabError(f"`kubectl {' '.join(arguments[:3])}` failed: {' '.join(done.stderr.split())}")
        return done.stdout


def demo(names: Names, masters: int, nodes: int, progress: Progress) -> str:
    """Bring a lab up, run examples/hello.yaml on it, ask it; returns what to show.

    Raises:
        LabError: when a step fails, a question gets no answer, or a pod or node never answers.
    """
    with progress.step("kubectl"):
        program = ensure_kubectl()
    lab = lifecycle.up(names, masters, nodes, progress)
    kubectl = Kubectl(program, lab)
    with progress.step("kubectl apply -f examples/hello.yaml"):
        kubectl("apply", "-f", str(project_root() / "examples" / "hello.yaml"))
    with progress.step("waiting until it is rolled out"):
        kubectl("rollout", "status", "deployment/hello", "--timeout=180s")
    asker = f"asker-{secrets.token_hex(3)}"
    with progress.step("a pod to ask from"):
        waits = ["/bin/sh", "-c", "trap 'exit 0' TERM; sleep 3600 & wait"]
        kubectl("run", asker, "--image=kybern/busybox:1", "--restart=Never", "--command", "--", *waits)
        kubectl("wait", "--for=condition=Ready", f"pod/{asker}", "--timeout=60s")
    try:
        with progress.step(f"asking {QUESTIONS} times by DNS name from a pod"):
            by_name = count(kubectl("exec", asker, "--", "/bin/sh", "-c", _ASK).splitlines())
    finally:
        kubectl("delete", "pod", asker, "--now", "--wait=false")
    with progress.step(f"asking {QUESTIONS} times by NodePort from outside"):
        by_port = count(ask_node_port([lab.subnet.host(n) for n in lab.file.nodes], QUESTIONS))
    pods = kubectl("get", "pods", "--selector=app=hello", "--output=jsonpath={.items[*].metadata.name}").split()
    check(by_name, by_port, pods, lab.file.nodes)
    return "\n".join((answers_table(by_name, by_port), "", times_table(progress), "", whats_next(names, lab)))


def count(lines: Iterable[str]) -> Answers:
    """Who answered how often, as (pod, node); what is no answer is counted as ("", "")."""
    found: Answers = Counter()
    for line in lines:
        match = _ANSWER.search(line)
        found[(match["pod"], match["node"]) if match else ("", "")] += 1
    return found


def check(by_name: Answers, by_port: Answers, pods: Sequence[str], nodes: Sequence[str]) -> None:
    """Check that every question got an answer, and that everyone answered.

    Raises:
        LabError: naming what is missing.
    """
    for how, found in (("by DNS name", by_name), ("by NodePort", by_port)):
        good = found.total() - found["", ""]
        if good != QUESTIONS:
            raise LabError(f"{QUESTIONS - good} of {QUESTIONS} questions {how} got no answer")
    everyone = by_name + by_port
    if silent := set(pods) - {pod for pod, _ in everyone}:
        raise LabError(f"pod {min(silent)} never answered")
    if silent := set(nodes) - {node for _, node in everyone}:
        raise LabError(f"no pod on {min(silent)} ever answered")


def answers_table(by_name: Answers, by_port: Answers) -> str:
    """Who answered how often."""
    rows = [("POD", "NODE", "BY DNS NAME", "BY NODEPORT")]
    rows += [(pod, node, str(by_name[pod, node]), str(by_port[pod, node])) for pod, node in sorted(by_name | by_port)]
    return render(rows)


def times_table(progress: Progress) -> str:
    """How long each step took."""
    rows = [("STEP", "SECONDS"), *((title, f"{seconds:.1f}") for title, seconds in progress.steps)]
    return render([*rows, ("all", f"{progress.seconds:.1f}")])


def whats_next(names: Names, lab: Lab) -> str:
    """What to type next."""
    name = "" if names.lab == DEFAULT else f" --name {names.lab}"
    node = lab.subnet.host(lab.file.nodes[0])
    return f"""\
Next:
  eval "$(.venv/bin/kybern-lab env{name})"       # kubectl, etcdctl, kybern and kybern-lab now know this cluster
  kubectl get nodes,pods,services --all-namespaces --output wide
  curl http://{node}:{NODE_PORT}/
  kubectl scale deployment hello --replicas 10
  kubectl set image deployment/hello hello=kybern/hello:2
  kybern-lab status{name}
  kybern-lab cut n1{name}; kubectl get nodes,pods --output wide --watch
  make down"""


def ask_node_port(addresses: Sequence[str], questions: int) -> list[str]:
    """Ask hello's NodePort on each address in turn; what was answered, or why not."""
    return [_get(addresses[n % len(addresses)], NODE_PORT) for n in range(questions)]


def _get(address: str, port: int) -> str:
    connection = http.client.HTTPConnection(address, port, timeout=5)
    try:
        connection.request("GET", "/", headers={"Connection": "close"})
        return connection.getresponse().read().decode(errors="replace").strip()
    except (OSError, http.client.HTTPException) as error:
        return f"failed: {error}"
    finally:
        connection.close()
