# SPDX-License-Identifier: MIT
"""Who serves an algorithm, and what leaves the registry."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import pytest

from hsm_core._internal.crypto.providers import DeferredProvider, default_providers
from hsm_core._internal.crypto.registry import (
    CryptoRegistry,
    GeneratedKey,
    default_registry,
)
from hsm_core._internal.lib.entropy import SystemEntropy
from hsm_core._providers import oqs, pqcrypto
from hsm_core._providers.oqs.library import Absent
from hsm_core._providers.oqs.provider import OqsProvider
from hsm_core.algorithms import Algorithm, Family
from hsm_core.errors import (
    AlgorithmUnavailableError,
    ConfigurationError,
    SelfTestFailedError,
    UnavailableError,
)
from hsm_core.factory import open_hsm
from hsm_core.protocols import CryptoProvider, Entropy, KeyHandle, ProviderPlugin
from hsm_core.settings import KeyStoreKind, Settings
from tests.core.crypto_samples import PYCA
from tests.core.faulty_crypto import FaultyHandle, FaultyProvider, Partial


def partial(name: str, *served: Algorithm) -> Partial:
    """Return a good provider of some algorithms under a name."""
    return Partial(PYCA, *served, name=name)


class Exploding(FaultyProvider):
    """A provider that breaks down in a way of its own after its self-tests."""

    def __init__(self) -> None:
        super().__init__(PYCA, Algorithm.AES_256_GCM, "crash")
        self.broken = False

    def generate(self, algorithm: Algorithm, entropy: Entropy, /) -> bytes:
        """Break down."""
        raise OSError("a foreign error")

    def load_public(self, algorithm: Algorithm, public_der: bytes, /) -> KeyHandle:
        """Break down, but for the self-tests."""
        if public_der == b"explode":
            raise RuntimeError("a foreign error")
        return super().load_public(algorithm, public_der)


def registry(
    *providers: CryptoProvider, order: Mapping[str, tuple[str, ...]] | None = None
) -> CryptoRegistry:
    """Return a registry over the system's random generator."""
    return CryptoRegistry(providers, SystemEntropy(), order=order or {})


class TestProviders:
    def test_order(self) -> None:
        """
        An order puts another provider first, for that algorithm alone.
        """
        first, second = (
            partial(name, Algorithm.AES_256_GCM, Algorithm.ED25519)
            for name in ("first", "second")
        )
        tested = registry(first, second, order={"ed-25519": ("second", "first")})

        assert first is tested.provider_of(Algorithm.AES_256_GCM)
        assert second is tested.provider_of(Algorithm.ED25519)

    def test_preferred(self) -> None:
        """
        A plug-in serves its preferred families before others, and the rest after them.
        """
        served = (
            Algorithm.ML_KEM_768,
            Algorithm.ML_DSA_65,
            Algorithm.SLH_DSA_SHA2_128F,
        )
        usual = partial("usual", *served)
        plugin = DeferredProvider(
            "plugin",
            lambda: partial("plugin", *served),
            preferred=frozenset({Family.ML_KEM, Family.ML_DSA}),
        )
        tested = registry(usual, plugin)

        assert [plugin, plugin, usual] == [tested.provider_of(a) for a in served]

    def test_no_substitute(self) -> None:
        """
        A provider that isn't in the order never steps in; the message says so.
        """
        other = partial("other", Algorithm.AES_256_GCM)
        tested = registry(other, PYCA, order={"Ed25519": ("other",)})

        with pytest.raises(
            AlgorithmUnavailableError, match="'providers' allows only other"
        ):
            tested.provider_of(Algorithm.ED25519)

    @pytest.mark.parametrize(
        ("order", "words"),
        [
            (
                {"Ed25519": ("oqs",)},
                "'oqs' for Ed25519 is not enabled. Available: ",
            ),
            ({"p256": ("pyca", "x")}, "'x' for EC-P256 is not available"),
            ({"DES": ("pyca",)}, "unknown algorithm"),
            ({"ML-DSA-135": ("pyca",)}, "ML-DSA-44, ML-DSA-65 and ML-DSA-87 only"),
            ({"Ed25519": ()}, "Ed25519 has no provider"),
            ({"p256": ("pyca",), "P-256": ("pyca",)}, "EC-P256 is listed twice"),
        ],
    )
    def test_bad_order(self, order: dict[str, tuple[str, ...]], words: str) -> None:
        """
        An order that names what isn't there is a configuration error.
        """
        with pytest.raises(ConfigurationError, match=words) as caught:
            default_registry(SystemEntropy(), order)

        assert "providers" == caught.value.facts["field"]
        if "Available:" in words:
            assert "pyca" in str(caught.value)

    def test_not_installed(self) -> None:
        """
        A provider that isn't installed serves nothing, and can't be named in an order.
        """
        absent = DeferredProvider("absent", lambda: None)

        assert ("absent", "", frozenset()) == (
            absent.name,
            absent.version,
            absent.algorithms(),
        )
        assert PYCA is registry(absent, PYCA).provider_of(Algorithm.ED25519)
        with pytest.raises(ConfigurationError, match="Available: pyca, composite"):
            registry(absent, PYCA, order={"Ed25519": ("absent",)})

    def test_enabled_but_absent(self) -> None:
        """
        A library that is looked for and not found is no error, unless it is named.
        """
        reason = "The shared library of liboqs was not found."
        oqs = DeferredProvider("oqs", lambda: OqsProvider(lambda: Absent(reason)))

        assert PYCA is registry(oqs, PYCA).provider_of(Algorithm.ML_KEM_768)
        with pytest.raises(
            ConfigurationError,
            match=f"'oqs' for ML-KEM-768 is not available. {reason}",
        ):
            registry(oqs, PYCA, order={"ML-KEM-768": ("oqs", "pyca")})

    def test_shipped_plugins(self) -> None:
        """
        Own plug-ins come last; oqs, once enabled, is first for its families.
        """
        off, on = default_providers(), default_providers(enabled=("oqs",))

        assert ["pyca", "libcrypto", "pqcrypto", "oqs"] == [p.name for p in off]
        assert [True, False] == [getattr(p, "is_enabled", None) for p in off[2:]]
        oqs = on[-1]
        assert isinstance(oqs, DeferredProvider)
        assert oqs.is_enabled
        assert {Family.ML_KEM, Family.ML_DSA} == oqs.preferred

    @pytest.mark.parametrize("plugin", [oqs.PLUGIN, pqcrypto.PLUGIN])
    def test_facts_of_shipped_plugins(self, plugin: ProviderPlugin) -> None:
        """
        What is known of a plug-in before it is loaded is what it says.
        """
        name = plugin.open.__module__.rpartition(".")[2]
        known = default_providers(enabled=("oqs",) if plugin.needs_enabling else ())
        (found,) = [p for p in known if p.name == name]

        assert isinstance(found, DeferredProvider)
        assert plugin.preferred == found.preferred
        assert found.is_enabled
        (off,) = [p for p in default_providers() if p.name == name]
        assert getattr(off, "is_enabled", None) is not plugin.needs_enabling

    def test_settings(self) -> None:
        """
        The settings of an HSM reach its providers, and a wrong one opens nothing.
        """
        settings = Settings(
            key_store=KeyStoreKind.MEMORY,
            audit_log=None,
            providers={"Ed25519": ("nobody",)},
        )

        with pytest.raises(ConfigurationError, match="'nobody' for Ed25519"):
            open_hsm(settings, master_key=bytes(32), hmac_key=bytes(range(32)))


PLUGIN_OF_OTHERS = """
from hsm_core._internal.crypto.pyca import PycaCryptoProvider
from hsm_core.protocols import ProviderPlugin

PLUGIN = ProviderPlugin(open=PycaCryptoProvider)
OPT_IN = ProviderPlugin(open=PycaCryptoProvider, needs_enabling=True)
WRONG = PycaCryptoProvider
"""


class TestPluginsOfOthers:
    @pytest.fixture(autouse=True)
    def install(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> Iterator[None]:
        """Install a distribution with plug-ins."""
        info = tmp_path / "elsewhere-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            "Metadata-Version: 2.1\nName: elsewhere\nVersion: 1.0\n"
        )
        (info / "entry_points.txt").write_text(
            "[hsm_core.crypto_providers]\n"
            "fast = elsewhere:PLUGIN\n"
            "careful = elsewhere:OPT_IN\n"
            "wrong = elsewhere:WRONG\n"
            "missing = elsewhere:NOTHING\n"
            "pqcrypto = elsewhere:WRONG\n"
            "pyca = elsewhere:WRONG\n"
        )
        (tmp_path / "elsewhere.py").write_text(PLUGIN_OF_OTHERS)
        monkeypatch.syspath_prepend(tmp_path)
        yield
        sys.modules.pop("elsewhere", None)

    def test_named_in_settings(self) -> None:
        """
        A plug-in of another package serves the algorithms that settings give it.
        """
        tested = default_registry(SystemEntropy(), {"Ed25519": ("fast",)})

        assert "fast" == tested.provider_of(Algorithm.ED25519).name
        assert "pyca" == tested.provider_of(Algorithm.RSA_2048).name
        tested.generate(Algorithm.ED25519)

    @pytest.mark.parametrize(
        ("name", "words"),
        [
            ("wrong", "entry point wrong must be a ProviderPlugin, got type"),
            ("missing", r"missing of elsewhere can't be loaded \(AttributeError\)"),
            ("careful", "'careful' for Ed25519 is not enabled"),
        ],
    )
    def test_unusable(self, name: str, words: str) -> None:
        """
        A plug-in that can't be loaded or is not enabled is a configuration error.
        """
        with pytest.raises(ConfigurationError, match=words) as caught:
            default_registry(SystemEntropy(), {"Ed25519": (name,)})

        assert "providers" == caught.value.facts["field"]

    def test_names_taken(self) -> None:
        """
        No other package replaces a built-in provider or a plug-in of this one.
        """
        order = {"Ed25519": ("pyca",)}
        tested = default_registry(SystemEntropy(), order)
        tested.statuses()

        assert "pyca" == tested.provider_of(Algorithm.ED25519).name
        assert "elsewhere" not in sys.modules


class TestUnavailable:
    @pytest.mark.parametrize("algorithm", Algorithm)
    def test_says_what_to_install(self, algorithm: Algorithm) -> None:
        """
        Status and error say the same: which package or program brings the algorithm.
        """
        tested = registry(partial("none"))
        hint = {s.algorithm: s.hint for s in tested.statuses()}[algorithm]

        with pytest.raises(AlgorithmUnavailableError) as caught:
            tested.require(algorithm)

        assert f"No provider on this machine supports {algorithm}. {hint}" == str(
            caught.value
        )
        assert algorithm == caught.value.facts["algorithm"]
        by_wheel = algorithm.startswith("SLH") or algorithm is Algorithm.ML_KEM_512
        assert ("pip install pqcrypto" in hint) is by_wheel
        assert "OpenSSL 3.5 or newer" in hint or "cryptography 50 or newer" in hint

    def test_composite_needs_both(self) -> None:
        """
        A composite without a component is unavailable, and names what is missing.
        """
        served = PYCA.algorithms() - {Algorithm.X25519}
        tested = registry(partial("some", *served))
        composite = Algorithm.MLKEM768_X25519_SHA3_256

        with pytest.raises(AlgorithmUnavailableError, match="leaves X25519 out"):
            tested.require(composite)

        tested.require(Algorithm.MLKEM768_ECDH_P256_SHA3_256)


class TestDeferred:
    def test_opened_once_when_needed(self) -> None:
        """
        Providers are opened when an algorithm needs them, once for all threads.
        """
        opened: list[str] = []

        def deferred(name: str, inner: CryptoProvider) -> CryptoProvider:
            def open_provider() -> CryptoProvider:
                opened.append(name)
                return inner

            return DeferredProvider(name, open_provider)

        tested = registry(
            deferred("first", PYCA), deferred("second", partial("second"))
        )

        assert [] == opened
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(tested.require, 8 * [Algorithm.ED25519]))
        assert ["first"] == opened
        tested.statuses()
        assert ["first", "second"] == opened

    def test_registry_alone_loads_nothing(self) -> None:
        """
        Importing the primitives and building a registry looks for no library.
        """
        probe = (
            "import sys, hsm_core.primitives\n"
            "from hsm_core._internal.crypto.registry import default_registry\n"
            "from hsm_core._internal.lib.entropy import SystemEntropy\n"
            "default_registry(SystemEntropy(), enabled=['oqs'])\n"
            "heavy = {'ctypes', 'pqcrypto', 'oqs'}\n"
            "print(sorted(heavy & set(sys.modules)))\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", probe], check=True, capture_output=True, text=True
        )

        assert "[]\n" == done.stdout


class TestGenerate:
    def test_repr(self) -> None:
        """
        A generated key shows nothing of itself.
        """
        assert "GeneratedKey()" == repr(GeneratedKey(b"secret", b"public"))


class TestHandles:
    def test_repr(self) -> None:
        """
        A handle shows its algorithm only.
        """
        handle = registry(PYCA).load(Algorithm.AES_256_GCM, bytes(32))

        assert "<GuardedHandle AES-256-GCM>" == repr(handle)

    def test_first_reason_is_kept(self) -> None:
        """
        Stopping an algorithm stops handles loaded before; they tell the first reason.
        """
        tested = registry(PYCA)
        handle = tested.load(Algorithm.HMAC_SHA_256, bytes(32))
        tested.stop(Algorithm.HMAC_SHA_256, "The first reason.")
        tested.stop(Algorithm.HMAC_SHA_256, "Another one.")

        with pytest.raises(SelfTestFailedError) as caught:
            handle.mac(b"")

        assert "HMAC-SHA-256 is disabled: The first reason." == str(caught.value)

    def test_result_of_a_stopped_algorithm_is_dropped(self) -> None:
        """
        What was being computed when its algorithm was stopped is not handed out.
        """

        class Stopping(FaultyHandle):
            def mac(self, data: bytes, /) -> bytes:
                tested.stop(Algorithm.HMAC_SHA_256, "Stopped meanwhile.")
                return self._handle.mac(data)

        class Provider(Partial):
            def load(self, algorithm: Algorithm, material: bytes, /) -> KeyHandle:
                handle = super().load(algorithm, material)
                made = Stopping(handle, "none") if self.broken else handle
                return cast("KeyHandle", made)

        provider = Provider(PYCA, Algorithm.HMAC_SHA_256)
        provider.broken = False
        tested = registry(provider)
        tested.require(Algorithm.HMAC_SHA_256)
        provider.broken = True
        handle = tested.load(Algorithm.HMAC_SHA_256, bytes(32))

        with pytest.raises(SelfTestFailedError, match="Stopped meanwhile"):
            handle.mac(b"")


def test_nothing_foreign() -> None:
    """A provider that breaks down in whatever it does is an error of our own."""
    provider = Exploding()
    tested = registry(provider)
    tested.require(Algorithm.AES_256_GCM)
    provider.broken = True
    handle = tested.load(Algorithm.AES_256_GCM, bytes(32))

    for attempt in (
        lambda: tested.generate(Algorithm.AES_256_GCM),
        lambda: tested.load_public(Algorithm.AES_256_GCM, b"explode"),
        lambda: handle.seal(bytes(12), b"", b""),
    ):
        with pytest.raises(UnavailableError, match="failed unexpectedly") as caught:
            attempt()
        assert isinstance(caught.value.__cause__, Exception)
