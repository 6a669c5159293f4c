"""What the oracle knows by itself of IP, ESP and replay windows, made without scapy's help."""

import ipaddress
import random
import struct
import sys

from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6

RANDOM = random.Random(int(sys.argv[2]))


class Window:
    """RFC 4303: section 3.4.3, and appendix A2 for what a 32-bit number stands for."""

    def __init__(self, size, esn):
        self.size, self.esn, self.top, self.seen = size, esn, 0, set()

    def infer(self, low):
        if not self.esn:
            return low
        th, tl = divmod(self.top, 1 << 32)
        if tl >= self.size - 1:
            return (th if low >= tl - self.size + 1 else th + 1) << 32 | low
        return (th - 1 if low >= (tl - self.size + 1) % (1 << 32) else th) * (1 << 32) + low

    def judge(self, number):
        """What becomes of an authentic packet: reason and the number it is taken for."""
        taken = self.infer(number & 0xFFFFFFFF)
        if taken < 0:
            return "sequence-wrap", None
        if taken == 0:
            return "sequence-wrap", 0
        if taken <= self.top - self.size:
            return "too-old", taken
        if taken in self.seen:
            return "replay", taken
        if taken != number:
            return "bad-icv", taken
        self.seen.add(taken)
        self.top = max(self.top, taken)
        return None, taken

    def next(self):
        """A number that a sender, a bad network or an attacker could come with."""
        kind, size = RANDOM.random(), self.size
        if kind < 0.55:
            return self.top + 1 + (RANDOM.randrange(3) if kind < 0.2 else 0)
        if kind < 0.65:
            return self.top + RANDOM.randrange(1, 3 * size)
        if kind < 0.85:
            return max(1, self.top - RANDOM.randrange(size))
        if kind < 0.95:
            return max(1, self.top - size - RANDOM.randrange(2 * size))
        return max(1, self.top - size + RANDOM.randrange(-1, 2))


def parsed(packet):
    return (IP if packet[0] >> 4 == 4 else IPv6)(packet)


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def address(text):
    return ipaddress.ip_address(text).packed


def outer(version, src, dst, protocol, payload, ttl=64, tos=0, options=b"", flags=0, offset=0, ident=None):
    """An IP packet around a payload, made without scapy's help."""
    if version == 6:
        return struct.pack("!LHBB", 6 << 28 | tos << 20, len(payload), protocol, ttl) + address(src) + address(dst) + payload
    ident = RANDOM.randrange(1 << 16) if ident is None else ident
    length = 20 + len(options)
    head = struct.pack("!BBHHHBB", 4 << 4 | length // 4, tos, length + len(payload), ident, flags << 13 | offset, ttl, protocol)
    rest = address(src) + address(dst) + options
    return head + struct.pack("!H", checksum(head + b"\0\0" + rest)) + rest + payload


def inner(version, src, dst, size, transport):
    """A random packet with `size` bytes behind its transport header."""
    protocol = RANDOM.choice([6, 6, 17, 17, 1 if version == 4 else 58, 132, 253])
    data = RANDOM.randbytes(size)
    ports = RANDOM.randrange(1, 65536), RANDOM.randrange(1, 65536)
    head = b""
    if protocol == 6:
        head = struct.pack("!HHLLBBHHH", *ports, RANDOM.randrange(1 << 32), 0, 5 << 4, 0x10, 512, 0, 0)
    elif protocol == 17:
        # A checksum or none: over what addresses, is said later.
        head = struct.pack("!HHHH", *ports, 8 + size, RANDOM.randrange(2) if transport else 0)
    elif protocol in (1, 58):
        head = struct.pack("!BBHHH", 8 if protocol == 1 else 128, 0, 0, 7, 7)
    options = b"\1\1\1\0" if version == 4 and not transport and RANDOM.random() < 0.1 else b""
    tos = RANDOM.randrange(64) << 2
    packet = outer(version, src, dst, protocol, head + data, RANDOM.randrange(2, 256), tos, options, RANDOM.choice([0, 2]))
    ends = None
    if protocol in (6, 17):
        name = lambda host, port: f"{host}:{port}" if version == 4 else f"[{host}]:{port}"
        ends = {"protocol": "tcp" if protocol == 6 else "udp"}, name(src, ports[0]), name(dst, ports[1])
    return packet, ends


def readdressed(packet, src, dst):
    """An IPv4 packet without options, with these addresses and whatever checksum it has inside."""
    head = packet[:10] + b"\0\0" + address(src) + address(dst)
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + packet[20:]


def summed(packet, src, dst):
    """The same with its TCP or UDP checksum, if it has one, over these addresses."""
    at = {6: 36, 17: 26}.get(packet[9])
    if at is None or packet[9] == 17 and packet[at : at + 2] == b"\0\0":
        return packet
    text = packet[20:at] + b"\0\0" + packet[at + 2 :]
    sum = checksum(address(src) + address(dst) + struct.pack("!HH", packet[9], len(text)) + text + bytes(len(text) % 2))
    return packet[:at] + struct.pack("!H", sum or 0xFFFF if packet[9] == 17 else sum) + packet[at + 2 :]


def sums_up(packet):
    """Whether the checksum of UDP over IPv6 is right."""
    text = packet[8:40] + struct.pack("!LL", len(packet) - 40, 17) + packet[40:]
    return packet[46:48] != b"\0\0" and checksum(text + bytes(len(text) % 2)) == 0


def trailer(payload, next_header, align, pad=None):
    """RFC 4303 section 2.4: padding 1, 2, 3, ..., its length, next header."""
    pad = -(len(payload) + 2) % align if pad is None else pad
    return payload + bytes(range(1, pad + 1)) + bytes([pad, next_header])
