# SPDX-License-Identifier: MIT
"""The files for a cluster in containers, checked by the programs that read them."""

from __future__ import annotations

import subprocess
from typing import Any

import kubernetes_validate
import pytest
import yaml

from hsm_server.config.core import SINGLE_STORES, STORAGE
from tests.support import REPOSITORY, require_program

FOLDER = REPOSITORY / "examples" / "deploy" / "cluster"
OBJECTS: list[dict[str, Any]] = [
    *yaml.safe_load_all((FOLDER / "kubernetes.yaml").read_text())
]
IMAGE = (FOLDER.parent / "Containerfile").read_text()
NODE_IMAGE = (FOLDER / "Containerfile").read_text()


@pytest.mark.parametrize("found", OBJECTS, ids=lambda one: f"{one['kind']}")
def test_each_object_is_valid(found: dict[str, Any]) -> None:
    """It has all required fields, and no unknown one."""
    version = kubernetes_validate.latest_version()

    kubernetes_validate.validate(found, version, strict=True)


def test_an_unknown_field_is_not_valid() -> None:
    """The check finds a field that Kubernetes does not know."""
    (found,) = (one for one in OBJECTS if one["kind"] == "StatefulSet")
    wrong = {**found, "spec": {**found["spec"], "replica": 3}}
    version = kubernetes_validate.latest_version()

    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, version, strict=True)


def test_a_pod_keeps_its_name_and_its_mark() -> None:
    """Its name is the node's, and the mark lies on a volume of its own."""
    (found,) = (one for one in OBJECTS if one["kind"] == "StatefulSet")
    (server,) = found["spec"]["template"]["spec"]["containers"]
    mounts = {one["name"]: one["mountPath"] for one in server["volumeMounts"]}
    (claim,) = found["spec"]["volumeClaimTemplates"]

    assert ["--node-name", "$(POD_NAME)"] == server["args"]
    assert "/var/lib/ferrohsm" == mounts[claim["metadata"]["name"]]
    assert "FERROHSM_NODE_MARK=/var/lib/ferrohsm/" in NODE_IMAGE
    assert "/readyz" == server["readinessProbe"]["httpGet"]["path"]


def test_the_image_of_a_node_sets_no_single_store() -> None:
    """What the other image says of them would be refused beside --store."""
    for setting in map(STORAGE.__getitem__, SINGLE_STORES):
        is_set = f"{setting.variable}=" in IMAGE

        assert is_set is (f"{setting.variable}=" in NODE_IMAGE)
        assert f"{setting.variable}=/" not in NODE_IMAGE


def test_compose_reads_its_file() -> None:
    """Docker Compose knows every field, and finds every name that it refers to."""
    program = require_program("docker-compose")
    done = subprocess.run(
        [program, "--file", str(FOLDER / "compose.yaml"), "config", "--format", "json"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    found: dict[str, Any] = yaml.safe_load(done.stdout)

    assert 0 == done.returncode, done.stderr
    commands = [
        one["command"] for one in found["services"].values() if "command" in one
    ]
    assert ["--node-name", "a"] in commands
    assert ["--node-name", "b"] in commands


def test_haproxy_reads_its_file() -> None:
    """HAProxy knows every keyword; the nodes' names are resolved when they run."""
    program = require_program("haproxy")
    done = subprocess.run(
        [program, "-c", "-f", str(FOLDER / "haproxy.cfg")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert 0 == done.returncode, done.stderr
