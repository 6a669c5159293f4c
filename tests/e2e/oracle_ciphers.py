"""ESP's algorithms for scapy: its own where it has them, what it lacks by python's cryptography.

scapy 2.5 has neither AES-GMAC (RFC 4543) nor implicit IVs (RFC 8750), and leaves the half of a 64-bit number that is not sent out of
the HMAC (RFC 4303, section 2.8).
"""

import collections
import struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from scapy.compat import raw
from scapy.layers import ipsec

SALT = 4


class Aead(ipsec.CryptAlgo):
    """AES-GMAC, where the text is associated data; or an AEAD whose nonce is the packet's number."""

    def __init__(self, name, library, clear):
        super().__init__(name, cipher=None, mode=None, block_size=1, iv_size=8 if clear else 0, icv_size=16, salt_size=SALT)
        self.library, self.clear = library, clear

    def around(self, sa, esp, iv, esn_en, esn):
        """Nonce and associated data."""
        high = esn if esn_en else 0
        aad = struct.pack("!LLL", esp.spi, high, esp.seq) if esn_en else struct.pack("!LL", esp.spi, esp.seq)
        return sa.crypt_salt + (iv or struct.pack("!LL", high, esp.seq)), aad

    def encrypt(self, sa, esp, key, icv_size=None, esn_en=False, esn=0):
        text = esp.data_for_encryption()
        nonce, aad = self.around(sa, esp, esp.iv, esn_en, esn)
        if self.clear:
            text += self.library(key).encrypt(nonce, b"", aad + esp.iv + text)
        else:
            text = self.library(key).encrypt(nonce, text, aad)
        return ipsec.ESP(spi=esp.spi, seq=esp.seq, data=esp.iv + text)

    def decrypt(self, sa, esp, key, icv_size=None, esn_en=False, esn=0):
        iv, text, icv = esp.data[: self.iv_size], esp.data[self.iv_size : -16], esp.data[-16:]
        nonce, aad = self.around(sa, esp, iv, esn_en, esn)
        try:
            if self.clear:
                self.library(key).decrypt(nonce, icv, aad + iv + text)
            else:
                text = self.library(key).decrypt(nonce, text + icv, aad)
        except InvalidTag as error:
            raise ipsec.IPSecIntegrityError(error)
        pad, next_header = text[-2:]
        data, padding = text[: -2 - pad], text[-2 - pad : -2]
        return ipsec._ESPPlain(
            spi=esp.spi, seq=esp.seq, iv=iv, data=data, padding=padding, padlen=pad, nh=next_header, icv=icv
        )


class Extended(ipsec.AuthAlgo):
    """An HMAC over the high half of the number, too."""

    def __init__(self, algorithm, high):
        super().__init__(algorithm.name, algorithm.mac, algorithm.digestmod, algorithm.icv_size, algorithm.key_size)
        self.high = struct.pack("!L", high)

    def over(self, data, key):
        mac = self.new_mac(key)
        mac.update(data + self.high)
        return mac.finalize()[: self.icv_size]

    def sign(self, pkt, key, **_):
        pkt.data += self.over(raw(pkt), key)
        return pkt

    def verify(self, pkt, key, **_):
        if pkt.data[-self.icv_size :] != self.over(raw(pkt)[: -self.icv_size], key):
            raise ipsec.IPSecIntegrityError("HMAC")


# Scapy's name of the cipher or the cipher, bytes of its key and salt, bits of the hash; what a packet has of IV and ICV; what its text
# is a multiple of.
Algorithm = collections.namedtuple("Algorithm", "crypt key bits iv icv align")


def algorithms():
    gcm, chacha = "AES-GCM", "CHACHA20-POLY1305"
    rows = {"chacha20-poly1305": Algorithm(chacha, 32 + SALT, 0, 8, 16, 4)}
    rows["chacha20-poly1305-iiv"] = Algorithm(Aead("chacha-iiv", ChaCha20Poly1305, False), 32 + SALT, 0, 0, 16, 4)
    for aes in (128, 256):
        key = aes // 8
        rows[f"aes{aes}-gcm16"] = Algorithm(gcm, key + SALT, 0, 8, 16, 4)
        rows[f"aes{aes}-gcm16-iiv"] = Algorithm(Aead("gcm-iiv", AESGCM, False), key + SALT, 0, 0, 16, 4)
        rows[f"aes{aes}-gmac"] = Algorithm(Aead("gmac", AESGCM, True), key + SALT, 0, 8, 16, 4)
        # RFC 4868, section 2: half of the hash is sent.
        for sha in (256, 384, 512):
            rows[f"aes{aes}-cbc-sha{sha}"] = Algorithm("AES-CBC", key, sha, 16, sha // 16, 16)
    for sha in (256, 384, 512):
        rows[f"null-sha{sha}"] = Algorithm("NULL", 0, sha, 0, sha // 16, 4)
    return rows


ALGORITHMS = algorithms()


def material(name):
    """Bytes of key that an SA of that algorithm has in one direction: RFC 4868, section 2.1.1, has those of integrity."""
    return ALGORITHMS[name].key + ALGORITHMS[name].bits // 8


def association(name, key, high, **options):
    """One direction of an SA, for packets whose number has this high half; None where numbers have 32 bits."""
    row = ALGORITHMS[name]
    extended = high is not None
    auth = {"auth_algo": f"SHA2-{row.bits}-{row.bits // 2}", "auth_key": key[row.key :]} if row.bits else {}
    sa = ipsec.SecurityAssociation(ipsec.ESP, crypt_algo="NULL", **auth, **options, esn_en=extended, esn=high or 0)
    sa.crypt_algo = ipsec.CRYPT_ALGOS[row.crypt] if isinstance(row.crypt, str) else row.crypt
    salt = row.key - sa.crypt_algo.salt_size
    sa.crypt_key, sa.crypt_salt = key[:salt], key[salt : row.key]
    if extended and row.bits:
        sa.auth_algo = Extended(sa.auth_algo, high)
    return sa


def sealed(sa, number, iv, text):
    """From SPI to ICV around any text, padding and trailer included."""
    plain = ipsec._ESPPlain(
        spi=sa.spi, seq=number & 0xFFFFFFFF, iv=iv, data=text[:-2], padding=b"", padlen=text[-2], nh=text[-1]
    )
    esp = sa.crypt_algo.encrypt(sa, plain, sa.crypt_key, esn_en=sa.esn_en, esn=sa.esn)
    return raw(sa.auth_algo.sign(esp, sa.auth_key))
