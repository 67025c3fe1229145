# SPDX-License-Identifier: MIT
"""
Table of RPC calls: number, name, and the signatures of request and response.

A signature lists values: ``u`` CK_ULONG, ``y`` CK_BYTE, ``v`` CK_VERSION, ``s``
padded string, ``z`` string, ``M`` mechanism, ``P`` updated mechanism parameter, ``ay``
bytes, ``au`` CK_ULONGs, ``aA`` attributes, and with ``f`` the room for them.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

_VALUE: Final = re.compile("[af]?[uyvszMPA]")


class Call(msgspec.Struct, frozen=True):
    """
    One call.

    Attributes:
        number: Its number, from 1.
        name: Its function in PKCS#11.
        request: Signature of its arguments.
        response: Signature of its results.
    """

    number: int
    name: str
    request: str
    response: str

    @property
    def arguments(self) -> tuple[str, ...]:
        """Values of the request, in order."""
        return tuple(_VALUE.findall(self.request))

    @property
    def results(self) -> tuple[str, ...]:
        """Values of the response, in order."""
        return tuple(_VALUE.findall(self.response))


_TABLE: Final = """
1 Initialize ayyay -
2 Finalize - -
3 GetInfo - vsusv
4 GetSlotList yfu au
5 GetSlotInfo u ssuvv
6 GetTokenInfo u ssssuuuuuuuuuuuvvs
7 GetMechanismList ufu au
8 GetMechanismInfo uu uuu
9 InitToken uayz -
10 OpenSession uu u
11 CloseSession u -
12 CloseAllSessions u -
13 GetSessionInfo u uuuu
14 InitPIN uay -
15 SetPIN uayay -
16 GetOperationState ufy ay
17 SetOperationState uayuu -
18 Login uuay -
19 Logout u -
20 CreateObject uaA u
21 CopyObject uuaA u
22 DestroyObject uu -
23 GetObjectSize uu u
24 GetAttributeValue uufA aAu
25 SetAttributeValue uuaA -
26 FindObjectsInit uaA -
27 FindObjects ufu au
28 FindObjectsFinal u -
29 EncryptInit uMu -
30 Encrypt uayfy ay
31 EncryptUpdate uayfy ay
32 EncryptFinal ufy ay
33 DecryptInit uMu -
34 Decrypt uayfy ay
35 DecryptUpdate uayfy ay
36 DecryptFinal ufy ay
37 DigestInit uM -
38 Digest uayfy ay
39 DigestUpdate uay -
40 DigestKey uu -
41 DigestFinal ufy ay
42 SignInit uMu -
43 Sign uayfy ay
44 SignUpdate uay -
45 SignFinal ufy ay
46 SignRecoverInit uMu -
47 SignRecover uayfy ay
48 VerifyInit uMu -
49 Verify uayay -
50 VerifyUpdate uay -
51 VerifyFinal uay -
52 VerifyRecoverInit uMu -
53 VerifyRecover uayfy ay
54 DigestEncryptUpdate uayfy ay
55 DecryptDigestUpdate uayfy ay
56 SignEncryptUpdate uayfy ay
57 DecryptVerifyUpdate uayfy ay
58 GenerateKey uMaA u
59 GenerateKeyPair uMaAaA uu
60 WrapKey uMuufy ay
61 UnwrapKey uMuayaA u
62 DeriveKey uMuaA u
63 SeedRandom uay -
64 GenerateRandom ufy ay
65 WaitForSlotEvent u u
66 LoginUser uuayay -
67 SessionCancel uu -
68 MessageEncryptInit uMu -
69 EncryptMessage uayayayfy ay
70 EncryptMessageBegin uayay -
71 EncryptMessageNext uayayfyu ay
72 MessageEncryptFinal u -
73 MessageDecryptInit uMu -
74 DecryptMessage uayayayfy ay
75 DecryptMessageBegin uayay -
76 DecryptMessageNext uayayfyu ay
77 MessageDecryptFinal u -
78 MessageSignInit uMu -
79 SignMessage uayayfy ay
80 SignMessageBegin uay -
81 SignMessageNext uayayyfy ay
82 MessageSignFinal u -
83 MessageVerifyInit uMu -
84 VerifyMessage uayayay -
85 VerifyMessageBegin uay -
86 VerifyMessageNext uayayay -
87 MessageVerifyFinal u -
88 InitToken2 uays -
89 DeriveKey2 uMuaA uPu
"""


def _calls() -> dict[int, Call]:
    found = {}
    for line in _TABLE.split("\n")[1:-1]:
        number, name, *signatures = line.split(" ")
        request, response = (text.replace("-", "") for text in signatures)
        call = Call(int(number), f"C_{name}", request, response)
        found[call.number] = call
    return found


CALLS: Final = _calls()
"""Every call, by number."""

HANDSHAKE: Final = b"PRIVATE-GNOME-KEYRING-PKCS11-PROTOCOL-V-1"
"""First argument of C_Initialize."""
