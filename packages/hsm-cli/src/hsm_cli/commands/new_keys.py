# SPDX-License-Identifier: MIT
"""Commands that create, derive, import and export keys."""

from __future__ import annotations

from typing import Final, TypedDict, Unpack

import click

from hsm_cli.invocation import Invocation
from hsm_cli.io.files import Source, decode_pem
from hsm_cli.io.output import print_note
from hsm_cli.io.results import deliver
from hsm_cli.options import ListOption, choice, with_options
from hsm_cli.parameters import (
    OAEP_OPTIONS,
    HSMCommand,
    NewKeyCommand,
    key_operand,
    one_of,
    text_or_hex,
    version_option,
)
from hsm_core.algorithms import (
    Algorithm,
    DerivationFunction,
    HashAlgorithm,
    KeyFormat,
    KeyUsage,
    WrapMechanism,
    parse_algorithm,
    spec,
)
from hsm_core.errors import PayloadTooLargeError, UnsupportedOperationError
from hsm_core.operations.keys import (
    MAX_WRAPPED_BYTES,
    CreateKey,
    DeriveKey,
    DescribeKey,
    ExportKey,
    GetPublicKey,
    ImportKey,
)


class NewKey(TypedDict):
    """Metadata of a new key, under the field names of the operations."""

    name: str
    owner: str
    description: str
    usages: tuple[KeyUsage, ...]
    tags: tuple[str, ...]
    exportable: bool


new_key_options: Final = with_options(
    click.option("--name", default="", metavar="NAME", help="Unique name."),
    click.option(
        "--owner", default="", metavar="NAME", help="Owner. Default: the caller."
    ),
    click.option("--description", default="", metavar="TEXT", help="Description."),
    click.option(
        "--usage",
        "usages",
        cls=ListOption,
        type=choice(KeyUsage),
        metavar="USAGES",
        help="Allowed usages, such as sign,verify; repeatable or comma-separated. "
        "Default: those of the algorithm.",
    ),
    click.option(
        "--tags",
        cls=ListOption,
        may_be_empty=True,
        metavar="TAGS",
        help="Tags for searches; repeatable or comma-separated.",
    ),
    click.option(
        "--exportable",
        is_flag=True,
        help="Allow wrapped export. Can't be changed later.",
    ),
)
"""Adds the options of new keys, the fields of `NewKey`, to a command."""


@click.command("create", cls=NewKeyCommand)
@click.argument("algorithm", required=False, metavar="[ALGORITHM]")
@click.option(
    "--algorithm",
    "algorithm_option",
    metavar="NAME",
    help="Algorithm, in place of the argument; `algorithms` lists the names.",
)
@click.option(
    "--staged",
    is_flag=True,
    help="Stage the key: only its public key is available until activate.",
)
@new_key_options
@click.pass_obj
def create(
    invocation: Invocation,
    algorithm: str | None,
    algorithm_option: str | None,
    staged: bool,
    **facts: Unpack[NewKey],
) -> None:
    """Create a key. Its first version is active unless --staged is given."""
    name = one_of(algorithm, algorithm_option, name="ALGORITHM", flag="--algorithm")
    invocation.change_key(CreateKey(algorithm=name, staged=staged, **facts))


@click.command("derive", cls=NewKeyCommand)
@click.argument("algorithm", metavar="ALGORITHM")
@click.option(
    "--from",
    "base_key_id",
    required=True,
    metavar="KEY",
    help="Key to derive from: an HKDF, EC or X25519 key.",
)
@click.option(
    "--peer",
    metavar="FILE",
    help="Public key of the other party (PEM or DER); EC and X25519 only.",
)
@click.option(
    "--function",
    type=choice(DerivationFunction),
    metavar="NAME",
    help="HKDF, X9.63 or none. X9.63 and none apply to EC and X25519 only; none takes "
    "the last bytes of the shared secret, which are not uniform. Default: HKDF.",
)
@click.option(
    "--hash",
    "hash_name",
    type=choice(HashAlgorithm),
    metavar="NAME",
    help="Hash of the function; EC and X25519 only. Default: SHA-256.",
)
@click.option(
    "--info",
    metavar="TEXT",
    help="HKDF info, or shared information of X9.63: context that is bound to the key.",
)
@click.option("--info-hex", metavar="HEX", help="The same context as hex digits.")
@click.option("--salt", metavar="TEXT", help="HKDF salt.")
@click.option("--salt-hex", metavar="HEX", help="HKDF salt as hex digits.")
@new_key_options
@click.pass_obj
def derive(
    invocation: Invocation,
    algorithm: str,
    base_key_id: str,
    peer: str | None,
    function: DerivationFunction | None,
    hash_name: HashAlgorithm | None,
    info: str | None,
    info_hex: str | None,
    salt: str | None,
    salt_hex: str | None,
    **facts: Unpack[NewKey],
) -> None:
    """
    Derive a symmetric key from an HSM key, with HKDF by default.

    For an EC or X25519 key, the input is the ECDH shared secret with --peer.
    """
    operation = DeriveKey(
        algorithm=algorithm,
        base_key_id=base_key_id,
        peer_public_key=_peer(peer),
        function=function,
        hash=hash_name,
        salt=text_or_hex(salt, salt_hex, name="--salt"),
        info=text_or_hex(info, info_hex, name="--info"),
        **facts,
    )
    invocation.change_key(operation)


def _peer(path: str | None) -> bytes | None:
    if path is None:
        return None
    return decode_pem(Source(what="public key", path=path).read(), "PUBLIC KEY")


class Wrapping(TypedDict):
    """Parameters of wrapping, under the field names of the operations."""

    mechanism: WrapMechanism | None
    format: KeyFormat | None
    hash: HashAlgorithm | None
    mgf_hash: HashAlgorithm | None


wrapping_options: Final = with_options(
    click.option(
        "--wrapping-key",
        "wrapping_key_id",
        required=True,
        metavar="KEY",
        help="HSM key to wrap with.",
    ),
    click.option(
        "--mechanism",
        type=choice(WrapMechanism),
        metavar="NAME",
        help="Wrapping mechanism: AES-KWP, AES-KW, RSA-OAEP+AES-KWP or KEM+AES-KWP. "
        "Default: the first that the wrapping key supports.",
    ),
    click.option(
        "--format",
        type=choice(KeyFormat),
        metavar="NAME",
        help="Key format: pkcs8, seed or raw. Default: pkcs8 for private keys, raw for "
        "symmetric keys.",
    ),
    *OAEP_OPTIONS,
)
"""Adds ``--wrapping-key`` and the fields of `Wrapping` to a command."""


def _wrap_here(
    invocation: Invocation,
    source: Source,
    algorithm: Algorithm,
    wrapping_key_id: str,
    passphrase_file: str | None,
    wrapping: Wrapping,
) -> tuple[bytes, int]:
    """
    Read a key and wrap it with the public key of an HSM key.

    Returns:
        The wrapped key, and the version of the wrapping key. The format in *wrapping*
        is set to that of *algorithm* if it is None.

    Raises:
        UnsupportedOperationError: The wrapping key is symmetric; only the HSM can wrap
            with it.
        InvalidInputError: The file holds no such key.
    """
    # It loads all of the cryptography.
    from hsm_cli.io.key_files import read_material
    from hsm_core.primitives import wrap_for_import

    kind = invocation.prepare(DescribeKey(key_id=wrapping_key_id)).algorithm
    if kind is not None and not spec(kind).is_asymmetric:
        raise UnsupportedOperationError(
            f"Only the HSM can wrap with {kind}. Pass an exported file with "
            "--wrapped, or an RSA, ML-KEM or composite wrapping key.",
            algorithm=kind,
            field="wrapping_key_id",
        )
    usual = KeyFormat.PKCS8 if spec(algorithm).is_asymmetric else KeyFormat.RAW
    wrapping["format"] = form = wrapping["format"] or usual
    if source.is_shared:
        print_note("warning: other users can read the key file (chmod 600).")
    material = read_material(source, form, passphrase_file)
    key = invocation.prepare(GetPublicKey(key_id=wrapping_key_id))
    data = wrap_for_import(
        key.algorithm,
        key.der,
        material,
        mechanism=wrapping["mechanism"],
        hash=wrapping["hash"],
        mgf_hash=wrapping["mgf_hash"],
    )
    return data, key.version


@click.command("import", cls=NewKeyCommand)
@click.argument("path", metavar="FILE")
@click.option(
    "--algorithm", required=True, metavar="NAME", help="Algorithm of the key."
)
@wrapping_options
@click.option(
    "--wrapped", is_flag=True, help="FILE is already wrapped, as written by export."
)
@click.option(
    "--wrapping-version",
    type=click.IntRange(min=1),
    metavar="N",
    help="Version of the wrapping key; requires --wrapped. Default: the current one.",
)
@click.option(
    "--passphrase-file",
    metavar="FILE",
    help="File with the passphrase of an encrypted key on its first line; - is "
    "standard input. Default: prompt on the terminal.",
)
@click.option("--base64", "is_base64", is_flag=True, help="FILE is base64-encoded.")
@new_key_options
@click.pass_obj
def import_key(
    invocation: Invocation,
    path: str,
    algorithm: str,
    wrapping_key_id: str,
    mechanism: WrapMechanism | None,
    format: KeyFormat | None,
    hash: HashAlgorithm | None,
    mgf_hash: HashAlgorithm | None,
    wrapped: bool,
    wrapping_version: int | None,
    passphrase_file: str | None,
    is_base64: bool,
    **facts: Unpack[NewKey],
) -> None:
    """
    Import a key that was generated elsewhere.

    FILE is a PKCS#8 private key (PEM or DER, encrypted or not), a seed, or a raw
    symmetric key; - is standard input. The client wraps the key with an HSM key before
    it sends it.
    """
    source = Source(what="key", path=path, is_base64=is_base64)
    wrapping = Wrapping(
        mechanism=mechanism, format=format, hash=hash, mgf_hash=mgf_hash
    )
    if wrapped:
        if passphrase_file is not None:
            raise click.UsageError("--passphrase-file can't be used with --wrapped.")
        data = source.read()
    else:
        if wrapping_version is not None:
            raise click.UsageError("--wrapping-version requires --wrapped.")
        data, wrapping_version = _wrap_here(
            invocation,
            source,
            parse_algorithm(algorithm),
            wrapping_key_id,
            passphrase_file,
            wrapping,
        )
    if len(data) > MAX_WRAPPED_BYTES:
        raise PayloadTooLargeError("key", actual=len(data), maximum=MAX_WRAPPED_BYTES)
    operation = ImportKey(
        algorithm=algorithm,
        wrapping_key_id=wrapping_key_id,
        wrapped=data,
        wrapping_version=wrapping_version,
        **wrapping,
        **facts,
    )
    invocation.change_key(operation)


@click.command("export", cls=HSMCommand)
@key_operand
@wrapping_options
@version_option("Key version. Default: the current one.")
@click.option(
    "-o",
    "--out",
    "--output",
    "out",
    metavar="FILE",
    help="Write the wrapped key to a file; - is standard output.",
)
@click.pass_obj
def export_key(
    invocation: Invocation,
    key_id: str,
    wrapping_key_id: str,
    version: int | None,
    out: str | None,
    **wrapping: Unpack[Wrapping],
) -> None:
    """
    Export a key, wrapped with another HSM key. Prints it as base64.

    The key must be exportable, and the wrapping key must be at least as strong.
    """
    found = invocation.execute(
        ExportKey(
            key_id=key_id,
            wrapping_key_id=wrapping_key_id,
            version=version,
            **wrapping,
        )
    )
    deliver(invocation.output, found, found.wrapped, out, private=False)
