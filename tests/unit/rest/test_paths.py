from __future__ import annotations

import pytest

from master.rest.paths import GroupPath, OtherPath, Path, ResourcePath, parse


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("/api", GroupPath(True)),
        ("/api/", GroupPath(True)),
        ("/apis", GroupPath(False)),
        ("/apis/apps", GroupPath(False, "apps")),
        ("/api/v1", GroupPath(True, "", "v1")),
        ("/apis/apps/v1", GroupPath(False, "apps", "v1")),
        ("/api/v1/pods", ResourcePath("", "v1", "pods")),
        ("/api/v1/nodes/n1", ResourcePath("", "v1", "nodes", "", "n1")),
        ("/api/v1/nodes/n1/status", ResourcePath("", "v1", "nodes", "", "n1", "status")),
        ("/api/v1/namespaces", ResourcePath("", "v1", "namespaces")),
        ("/api/v1/namespaces/x", ResourcePath("", "v1", "namespaces", "", "x")),
        ("/api/v1/namespaces/x/status", ResourcePath("", "v1", "namespaces", "", "x", "status")),
        ("/api/v1/namespaces/x/finalize", ResourcePath("", "v1", "namespaces", "", "x", "finalize")),
        ("/api/v1/namespaces/x/pods", ResourcePath("", "v1", "pods", "x")),
        ("/api/v1/namespaces/x/pods/p", ResourcePath("", "v1", "pods", "x", "p")),
        ("/api/v1/namespaces/x/pods/p/log", ResourcePath("", "v1", "pods", "x", "p", "log")),
        (
            "/apis/apps/v1/namespaces/x/deployments/d/scale",
            ResourcePath("apps", "v1", "deployments", "x", "d", "scale"),
        ),
        ("/apis/ex.io/v1/namespaces/x/status", ResourcePath("ex.io", "v1", "status", "x")),
        ("/api/v1/namespaces/x/events/a%2Fb", ResourcePath("", "v1", "events", "x", "a/b")),
        ("/api/v1/namespaces/x/pods/p/proxy/deep", None),
        ("/version/", OtherPath("/version")),
        ("/", OtherPath("/")),
        ("/openapi/v3/apis/apps/v1", OtherPath("/openapi/v3/apis/apps/v1")),
    ],
)
def test_paths(raw: str, expected: Path | None) -> None:
    assert parse(raw) == expected
