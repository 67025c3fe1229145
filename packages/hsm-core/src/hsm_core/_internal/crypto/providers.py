# SPDX-License-Identifier: MIT
"""
Providers: discovery, order of preference, and installation hints.

A provider is opened when an algorithm first needs it, so that looking for libraries
costs nothing to a program that doesn't use them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, cast

from hsm_core._internal.lib.plugins import load_plugin
from hsm_core.algorithms import Algorithm, Family, parse_algorithm, spec
from hsm_core.errors import ConfigurationError, UnknownAlgorithmError
from hsm_core.protocols import CryptoProvider, Entropy, KeyHandle, ProviderPlugin

if TYPE_CHECKING:
    from hsm_core._internal.crypto.registry import CryptoRegistry

PLUGINS: Final = "hsm_core.crypto_providers"
"""Group of entry points, each of them a `ProviderPlugin`."""

_FIELD: Final = "providers"
_DISTRIBUTION: Final = "hsm-core"
_COMPOSITE: Final = "composite"


class DeferredProvider:
    """
    A `CryptoProvider` that is opened on first use.

    One that isn't installed supports no algorithm.

    Args:
        name: Its name, known before it is opened.

        open_provider: Opens it; None means that it is not installed.

        preferred: Families that it serves before other providers.

        is_enabled: Whether settings allow it; otherwise it supports no algorithm.
    """

    def __init__(
        self,
        name: str,
        open_provider: Callable[[], CryptoProvider | None],
        *,
        preferred: frozenset[Family] = frozenset(),
        is_enabled: bool = True,
    ) -> None:
        self.preferred = preferred
        self.is_enabled = is_enabled
        self._name = name
        self._open = open_provider if is_enabled else lambda: None
        self._lock = threading.Lock()
        self._is_open = False
        self._provider: CryptoProvider | None = None

    @property
    def name(self) -> str:
        """Short name, used in settings."""
        return self._name

    @property
    def version(self) -> str:
        """Version of the library underneath; empty if it isn't installed."""
        provider = self._opened()
        return provider.version if provider is not None else ""

    @property
    def absence(self) -> str:
        """Reason why it supports no algorithm, if known."""
        return str(getattr(self._opened(), "absence", ""))

    def algorithms(self) -> frozenset[Algorithm]:
        """Return what it serves; nothing if it isn't installed."""
        provider = self._opened()
        return provider.algorithms() if provider is not None else frozenset()

    def generate(self, algorithm: Algorithm, entropy: Entropy, /) -> bytes:
        """See `CryptoProvider.generate`."""
        return self._installed().generate(algorithm, entropy)

    def load(self, algorithm: Algorithm, material: bytes, /) -> KeyHandle:
        """See `CryptoProvider.load`."""
        return self._installed().load(algorithm, material)

    def load_foreign(self, algorithm: Algorithm, material: bytes, /) -> KeyHandle:
        """See `CryptoProvider.load_foreign`."""
        return self._installed().load_foreign(algorithm, material)

    def load_public(self, algorithm: Algorithm, public_der: bytes, /) -> KeyHandle:
        """See `CryptoProvider.load_public`."""
        return self._installed().load_public(algorithm, public_der)

    def _opened(self) -> CryptoProvider | None:
        if not self._is_open:
            with self._lock:
                if not self._is_open:
                    self._provider = self._open()
                    self._is_open = True
        return self._provider

    def _installed(self) -> CryptoProvider:
        """Return the opened provider; an absent one has no algorithms."""
        return cast("CryptoProvider", self._opened())


def _pyca() -> CryptoProvider:
    from hsm_core._internal.crypto.pyca import PycaCryptoProvider

    return PycaCryptoProvider()


def _libcrypto() -> CryptoProvider:
    from hsm_core._internal.crypto.libcrypto import LibcryptoProvider

    return LibcryptoProvider()


_BUILT_IN: Final[Mapping[str, Callable[[], CryptoProvider]]] = {
    "pyca": _pyca,
    "libcrypto": _libcrypto,
}
"""Providers without a plug-in, in the order they are asked in."""


class Plugin(NamedTuple):
    """A `ProviderPlugin`; one of this distribution is not loaded before it opens."""

    open: Callable[[], CryptoProvider | None]
    preferred: frozenset[Family] = frozenset()
    needs_enabling: bool = False


def _opener(name: str) -> Callable[[], CryptoProvider | None]:
    """Return a function that loads and opens a plug-in of this distribution."""

    def open_provider() -> CryptoProvider | None:
        # Reading metadata loads twenty modules, which most programs never need.
        from importlib.metadata import PackageNotFoundError, distribution

        try:
            points = distribution(_DISTRIBUTION).entry_points
        except PackageNotFoundError:
            return None
        for point in points.select(group=PLUGINS, name=name):
            return _checked(name, point.load()).open()
        return None

    return open_provider


_SHIPPED: Final[Mapping[str, Plugin]] = {
    "oqs": Plugin(
        _opener("oqs"), frozenset({Family.ML_KEM, Family.ML_DSA}), needs_enabling=True
    ),
    "pqcrypto": Plugin(_opener("pqcrypto")),
}
"""Plug-ins of this distribution; their own facts, which a test compares."""


def default_providers(
    named: Iterable[str] = (), *, enabled: Collection[str] = ()
) -> tuple[CryptoProvider, ...]:
    """
    Return the providers to look for, in order of preference.

    These are the built-in ones, the plug-ins that this package ships, and plug-ins of
    other packages that settings name.

    Args:
        named: Names of providers in settings.

        enabled: Names of plug-ins that must be enabled, and are.

    Raises:
        ConfigurationError: A named plug-in can't be loaded.
    """
    plugins = dict(_SHIPPED)
    for name in named:
        if name not in plugins and name not in {*_BUILT_IN, _COMPOSITE}:
            loaded = load_plugin((PLUGINS,), name, field=_FIELD, noun="provider")
            if loaded is not None:
                plugins[name] = _plugin(name, loaded[1])
    return (
        *(DeferredProvider(name, opener) for name, opener in _BUILT_IN.items()),
        *(
            DeferredProvider(
                name,
                plugin.open,
                preferred=plugin.preferred,
                is_enabled=not plugin.needs_enabling or name in enabled,
            )
            for name, plugin in sorted(
                plugins.items(), key=lambda item: (item[1].needs_enabling, item[0])
            )
        ),
    )


def _plugin(name: str, loaded: object) -> Plugin:
    found = _checked(name, loaded)
    return Plugin(found.open, found.preferred, found.needs_enabling)


def _checked(name: str, loaded: object) -> ProviderPlugin:
    if not isinstance(loaded, ProviderPlugin):
        raise ConfigurationError(
            f"{_FIELD}: the entry point {name} must be a ProviderPlugin, got "
            f"{type(loaded).__name__}.",
            field=_FIELD,
        )
    return loaded


def composite_provider(components: CryptoRegistry) -> CryptoProvider:
    """Return the provider of composites over those that serve their components."""

    def open_provider() -> CryptoProvider:
        from hsm_core._internal.crypto.composite import CompositeProvider

        return CompositeProvider(components)

    return DeferredProvider(_COMPOSITE, open_provider)


def parse_order(
    order: Mapping[str, tuple[str, ...]], providers: Sequence[CryptoProvider]
) -> dict[Algorithm, list[CryptoProvider]]:
    """
    Return the providers that a setting names, by algorithm.

    Raises:
        ConfigurationError: It names an unknown algorithm or provider, no provider, or
            an algorithm twice.
    """
    by_name = {provider.name: provider for provider in providers}
    chosen: dict[Algorithm, list[CryptoProvider]] = {}
    for name, wanted in order.items():
        try:
            algorithm = parse_algorithm(name)
        except UnknownAlgorithmError as error:
            raise _bad_order(str(error)) from None
        if algorithm in chosen:
            raise _bad_order(f"{algorithm} is listed twice, also as {name!r}.")
        if not wanted:
            raise _bad_order(f"{algorithm} has no provider.")
        for provider in wanted:
            if provider not in by_name or not by_name[provider].algorithms():
                why = _why_absent(provider, by_name)
                there = ", ".join(n for n, p in by_name.items() if p.algorithms())
                raise _bad_order(
                    f"{provider!r} for {algorithm} {why} Available: {there}."
                )
        chosen[algorithm] = [by_name[provider] for provider in wanted]
    return chosen


def _why_absent(name: str, by_name: Mapping[str, CryptoProvider]) -> str:
    provider = by_name.get(name)
    if not getattr(provider, "is_enabled", True):
        return "is not enabled."
    reason = getattr(provider, "absence", "")
    return f"is not available. {reason}" if reason else "is not available."


def _bad_order(what: str) -> ConfigurationError:
    return ConfigurationError(f"{_FIELD}: {what}", field=_FIELD)


_FROM_PYPI: Final = "Install a wheel of cryptography 50 or newer from PyPI"


def what_to_install(algorithm: Algorithm) -> str:
    """Return the sentence that tells how to get an algorithm that nobody serves."""
    row = spec(algorithm)
    if row.family is Family.SLH_DSA or algorithm is Algorithm.ML_KEM_512:
        return "Install OpenSSL 3.5 or newer, or run: pip install pqcrypto."
    if row.family in {Family.ML_KEM, Family.ML_DSA}:
        return f"{_FROM_PYPI}, or OpenSSL 3.5 or newer."
    return f"{_FROM_PYPI}; this build leaves {algorithm} out."
