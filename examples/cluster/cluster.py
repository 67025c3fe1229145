# SPDX-License-Identifier: MIT
"""
Run an HSM of three nodes on loopback, and break it.

    python3 cluster.py [--seconds SECONDS]

It starts PostgreSQL with a synchronous replica, three nodes and HAProxy. While clients
sign through the proxy, it revokes a key, kills a node, and kills the primary database
and promotes the replica. Then it prints what the clients saw, and verifies the audit
logs. It needs hsm-server, hsm-client, and the programs of PostgreSQL 14 or newer and
HAProxy. All of it is in a temporary folder.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from places import Database, Site

import hsm_client
from hsm_core.errors import HSMError

_CLIENTS: Final = 4


class Load:
    """
    Clients that sign with two keys, one after the other, until they are stopped.

    Args:
        connect: Connects one client.
    """

    def __init__(self, connect: Callable[[], hsm_client.Connection]) -> None:
        self._connect = connect
        self._ends = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._sign) for _ in range(_CLIENTS)]
        self.answers: list[tuple[float, float, str, str]] = []
        """Key, instants of sending and answer, and what was answered."""

    def start(self) -> None:
        """Begin to sign."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Let each client finish what it sent."""
        self._ends.set()
        for thread in self._threads:
            thread.join()

    def between(self, begins: float, ends: float) -> Counter[str]:
        """Return how often each answer came to what was sent in a period."""
        return Counter(
            answer for sent, _, _, answer in self.answers if begins <= sent < ends
        )

    def first_after(self, instant: float) -> float:
        """Return the seconds until a use that was sent later succeeded."""
        ends = [
            done for sent, done, _, a in self.answers if sent >= instant and a == "ok"
        ]
        return min(ends, default=float("inf")) - instant

    def _sign(self) -> None:
        while not self._ends.is_set():
            try:
                with self._connect() as hsm:
                    self._use(hsm)
            except HSMError:
                time.sleep(0.05)

    def _use(self, hsm: hsm_client.Connection) -> None:
        keys = {name: hsm.key(name) for name in ("kept", "revoked")}
        while not self._ends.is_set():
            for name, key in keys.items():
                sent, answer = time.monotonic(), "ok"
                try:
                    key.sign(b"hello")
                except HSMError as error:
                    answer = error.code
                    time.sleep(0.02)
                with self._lock:
                    self.answers.append((sent, time.monotonic(), name, answer))


def main() -> None:
    """Run the cluster, and print what happened."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--seconds", type=float, default=3.0, help="time of each act")
    act_seconds: float = parser.parse_args().seconds
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.chmod(0o711)
        primary, replica = Database(folder / "1"), Database(folder / "2")
        stack.callback(primary.stop)
        primary.create()
        stack.callback(replica.stop)
        replica.follow(primary)
        private = folder / "hsm"
        private.mkdir(mode=0o700)
        site = Site(private, (primary, replica))
        stack.callback(site.stop)
        for name in "abc":
            site.start_node(name)
            print(f"node {name}: {site.url_of(name)}")
        site.start_proxy()
        print(f"proxy:  {site.endpoint}\n")
        run(site, primary, replica, act_seconds)


def run(site: Site, primary: Database, replica: Database, act_seconds: float) -> None:
    """Play the acts, with clients that sign meanwhile."""
    token = site.token()

    def connect(url: str = site.endpoint) -> hsm_client.Connection:
        return hsm_client.connect(
            url, token=token, ca_bundle=site.ca_bundle, timeout_seconds=5
        )

    with connect(site.url_of("a")) as hsm:
        kept, revoked = (hsm.create("Ed25519", name=n) for n in ("kept", "revoked"))
        load = Load(connect)
        load.start()
        begun = time.monotonic()
        time.sleep(act_seconds)

        revoked.revoke()
        over = time.monotonic()
        time.sleep(act_seconds)

        site.kill_node("b")
        killed = time.monotonic()
        time.sleep(act_seconds)

        primary.kill()
        gone = time.monotonic()
        replica.query("SELECT pg_promote()")
        promoted = time.monotonic()
        time.sleep(act_seconds)

        wait_until_served(lambda: kept.sign(b"last"))
        load.stop()
        ended = time.monotonic()
        show("Three nodes", load.between(begun, over))
        show("A key is revoked", load.between(over, killed))
        late = [a for a in load.answers if a[0] >= over and a[2:] == ("revoked", "ok")]
        print(f"  uses of it sent after the answer that succeeded: {len(late)}")
        show("A node is killed", load.between(killed, gone))
        print(f"  first success after {load.first_after(killed):.2f} s")
        show("The primary database is killed", load.between(gone, promoted))
        show("The replica is promoted", load.between(promoted, ended))
        print(f"  first success after {load.first_after(promoted):.2f} s")
        report = hsm.audit.verify()
        print(f"Audit logs of all nodes: {report}")
    if late:
        raise SystemExit("A revoked key was used.")


def wait_until_served(use: Callable[[], object]) -> None:
    """Repeat a use until it succeeds, for half a minute."""
    ends = time.monotonic() + 30
    while True:
        try:
            use()
        except HSMError:
            if time.monotonic() > ends:
                raise
            time.sleep(0.1)
        else:
            return


def show(title: str, answers: Counter[str]) -> None:
    """Print how often each answer came."""
    print(f"{title}: {', '.join(f'{n} {a}' for a, n in answers.most_common())}")


if __name__ == "__main__":
    main()
