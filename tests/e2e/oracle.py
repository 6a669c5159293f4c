"""scapy's IPsec layer as an oracle for `phalanx explain`: what it seals we open, what we seal it opens, byte for byte.

    oracle.py PHALANX SEED

Every algorithm of ESP (`oracle_ciphers.py`). The replay window is modelled anew from RFC 4303, section 3.4.3 and appendix A
(`oracle_packets.py`). Says what was compared; ends with 1 at the first difference. Needs Debian's python3-scapy and python3-cryptography.
"""

import collections
import json
import os
import struct
import subprocess
import sys
import tempfile

from scapy.config import conf
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.ipsec import ESP
from scapy.utils import RawPcapReader, RawPcapWriter

from oracle_ciphers import ALGORITHMS, association, material, sealed as sealed_by
from oracle_packets import RANDOM, Window, inner, outer, parsed, readdressed, summed, sums_up, trailer

conf.verb = 0
RAW, ETHERNET = 101, 1
VIP = {4: "10.77.0.100", 6: "fd77::100"}
PHALANX = sys.argv[1]


class Sa:
    """A tunnel of the configuration, from the client's side."""

    def __init__(self, at, outer, inner, transport, udp, esn, algorithm, window):
        self.at, self.outer, self.inner, self.transport, self.esn, self.window = at, outer, inner, transport, esn, window
        # ESP in UDP: the peer is behind a NAT, whose address `peer` is.
        self.udp = udp
        self.spi_in, self.spi_out = 0x1000 + at, 0x2000 + at
        self.algorithm, self.row = algorithm, ALGORITHMS[algorithm]
        self.key_in, self.key_out = (RANDOM.randbytes(material(algorithm)) for _ in range(2))
        self.peer = f"10.77.1.{at + 1}" if outer == 4 else f"fd77::1:{at + 1:x}"
        inside = f"10.99.{at}." if inner == 4 else f"fd99:0:0:{at:x}::"
        self.remote = self.peer if transport else inside + ("0/24" if inner == 4 else "/64")
        self.client = self.peer if transport else inside + "9"
        if udp and transport:
            self.client, self.behind = f"10.97.0.{at + 1}", f"10.88.0.{at + 1}"
            self.remote = self.client
        self.local = VIP[inner]
        self.model = Window(window, esn)
        self.sent = 0

    def encapsulation(self):
        original = f'original = {{ remote = "{self.behind}" }}' if self.transport and self.udp else ""
        return f'encapsulation = "udp"\n{original}' if self.udp else ""

    def toml(self):
        half = lambda spi, key: f'{{ spi = {spi}, key = "{key.hex()}", window = {self.window} }}'
        return f"""
[[sa]]
name = "s{self.at}"
vip = "v{self.outer}"
peer = "{self.peer}"
mode = "{'transport' if self.transport else 'tunnel'}"
algorithm = "{self.algorithm}"
esn = {str(self.esn).lower()}
local = "{self.local}"
remote = "{self.remote}"
path_mtu = 1600
{self.encapsulation()}
inbound = {half(self.spi_in, self.key_in)}
outbound = {half(self.spi_out, self.key_out)}
"""

    def scapy(self, inbound, number):
        """scapy's end for a packet of this number: `inbound` seals towards the VIP, else opens what comes from there."""
        ends = (self.peer, VIP[self.outer]) if inbound else (VIP[self.outer], self.peer)
        header = None if self.transport else (IP if self.outer == 4 else IPv6)(src=ends[0], dst=ends[1])
        return association(
            self.algorithm,
            self.key_in if inbound else self.key_out,
            number >> 32 if self.esn else None,
            spi=self.spi_in if inbound else self.spi_out,
            seq_num=0,  # what scapy takes where the low half of the number it is given is 0
            tunnel_header=header,
            # The NAT may choose another port of its own now and then: who comes from there is believed for its ICV.
            nat_t_header=UDP(sport=RANDOM.choice([4500, 4500, 4500, RANDOM.randrange(1024, 65536)]), dport=4500) if self.udp else None,
        )

    def seal(self, packet, number):
        """What the client sends: `packet` with this 64-bit number."""
        if self.udp and self.transport:
            packet = readdressed(summed(packet, self.behind, self.local), self.peer, self.local)
        iv = RANDOM.randbytes(self.row.iv)
        sealed = bytes(self.scapy(True, number).encrypt(parsed(packet), seq_num=number & 0xFFFFFFFF, iv=iv))
        if self.udp and self.outer == 4:
            # scapy fills it in before there is a payload.
            sealed = sealed[:24] + struct.pack("!H", len(sealed) - 20) + sealed[26:]
        return sealed

    def forge(self, number, text):
        """An ESP packet with a valid ICV around any text, padding and trailer included."""
        esp = sealed_by(self.scapy(True, number), number, RANDOM.randbytes(self.row.iv), text)
        return outer(self.outer, self.peer, VIP[self.outer], 50, esp, ident=7)

    def trailer(self, payload, next_header, pad=None):
        return trailer(payload, next_header, self.row.align, pad)


def some_sas(windows):
    """AES-GCM in every mode and family, bare and in UDP, with both kinds of numbers; every other algorithm in some of each."""
    tunnels = [(o, i, False) for o in (4, 6) for i in (4, 6)]
    # scapy does not open transport mode in UDP over IPv6.
    shapes = [(*shape, False) for shape in tunnels + [(4, 4, True), (6, 6, True)]]
    shapes += [(*shape, True) for shape in tunnels + [(4, 4, True)]]
    gcm = ["aes128-gcm16", "aes256-gcm16"]
    rows = [(*shape, esn, algorithm) for shape in shapes for esn in (False, True) for algorithm in gcm]
    others = [name for name in ALGORITHMS if name not in gcm]
    rows += [(*shape, esn, name) for name in others for esn in (False, True) for shape in RANDOM.sample(shapes, 3)]
    return [Sa(at, *row, RANDOM.choice(windows)) for at, row in enumerate(rows)]


def config(folder, sas):
    text = """
[node]
name = "oracle"
[cluster]
name = "oracle"
[[port]]
name = "net"
device = "net_af_packet,iface=nowhere0"
role = "network"
addresses = ["10.77.0.1/16", "fd77::1/64"]
mtu = 1600
[[port]]
name = "app"
device = "net_tap,iface=nowhere1"
role = "application"
[[core]]
cpu = 777
roles = ["router"]
ports = ["net", "app"]
[[vip]]
name = "v4"
address = "10.77.0.100/16"
owner = "oracle"
[[vip]]
name = "v6"
address = "fd77::100/64"
owner = "oracle"
"""
    path = os.path.join(folder, "oracle.toml")
    with open(path, "w", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(text + "".join(sa.toml() for sa in sas))
    return path


def explain(folder, sas, packets, link=RAW, *options):
    """The lines about the packets, and for each the packets that came of it."""
    into, out = os.path.join(folder, "in.pcap"), os.path.join(folder, "out.pcap")
    with RawPcapWriter(into, linktype=link) as writer:
        writer.write_header(None)
        for at, packet in enumerate(packets):
            frame = packet
            if link == ETHERNET and not isinstance(packet, Frame):
                kind = b"\x86\xdd" if packet[0] >> 4 == 6 else b"\x08\0"
                # Short frames are padded on a wire.
                frame = (b"\2\0\0\0\0\1\2\0\0\0\0\2" + kind + packet).ljust(60, b"\xa5")
            writer.write_packet(bytes(frame), sec=1_700_000_000 + at // 1000, usec=at % 1000)
    command = [PHALANX, "explain", "--config", config(folder, sas), into, "--out", out, *options]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, f"{command}: {run.returncode}\n{run.stderr}"
    lines = [json.loads(line) for line in run.stdout.splitlines()]
    assert [line["n"] for line in lines] == list(range(1, len(packets) + 1)), "one line for each packet, in order"
    strip = 14 if link == ETHERNET else 0
    outs = [bytes(data)[strip:] for data, _ in RawPcapReader(out)]
    return [(line, [outs[number - 1] for number in line["out"]]) for line in lines]


class Frame(bytes):
    """Not to be framed."""


def same(what, have, want, line):
    if have != want:
        have, want = (x.hex() if isinstance(x, bytes) else x for x in (have, want))
        sys.exit(f"{what}: {have}, not {want}\n{json.dumps(line, indent=1)}")


def opened(folder, link, each):
    """What scapy seals we open; numbers are judged as the model does."""
    sas = some_sas([32, 64, 128, 1024])
    packets, expected, counts = [], [], collections.Counter()
    for sa in sas:
        numbers = []
        if sa.esn and RANDOM.random() < 0.7:
            # Near the end of the low half, so that the window soon spans two subspaces.
            sa.model.judge(0xFFFFF000)
            numbers.append(0xFFFFF000)
            sa.model.judge(0xFFFFFFF0 - sa.window // 2)
            numbers.append(0xFFFFFFF0 - sa.window // 2)
        judged = [(None, number) for number in numbers]
        while len(numbers) < each:
            numbers.append(sa.model.next())
            judged.append(sa.model.judge(numbers[-1]))
        for number, (reason, taken) in zip(numbers, judged):
            size = RANDOM.choice([RANDOM.randrange(0, 1401), RANDOM.randrange(0, 64)])
            packet, ends = inner(sa.inner, sa.client, sa.local, size, sa.transport)
            if sa.udp and sa.transport:
                packet = summed(packet, sa.client, sa.local)
            packets.append((sa.seal(packet, number), sa, packet, ends, reason, taken))
    # The tunnels' packets among each other, each tunnel's in order.
    queues = collections.defaultdict(collections.deque)
    for one in packets:
        queues[one[1].at].append(one)
    mixed = []
    while queues:
        at = RANDOM.choice(list(queues))
        mixed.append(queues[at].popleft())
        if not queues[at]:
            del queues[at]
    for (line, outs), (_, sa, packet, ends, reason, taken) in zip(explain(folder, sas, [one[0] for one in mixed], link), mixed):
        same("direction", line["direction"], "inbound", line)
        same("SPI", line["spi"], f"0x{sa.spi_in:08x}", line)
        same("number", line["seq"], taken, line)
        same("reason", line["reason"], reason, line)
        same("verdict", line["verdict"], "drop" if reason else "open", line)
        same("packets", outs, [] if reason else [packet], line)
        if ends and not reason:
            same("connection", line["connection"], {**ends[0], "local": ends[2], "remote": ends[1]}, line)
        counts[reason or "open"] += 1
    in_udp = sum(one[1].udp for one in mixed)
    print(f"sealed by scapy, {'raw' if link == RAW else 'Ethernet'}: {len(mixed)} packets, {in_udp} in UDP:", dict(sorted(counts.items())))
    assert counts["open"] > len(mixed) // 2 and counts["replay"] and counts["too-old"] and counts["bad-icv"]


def sealed(folder, link, each, first=1):
    """What we seal scapy opens."""
    sas = [sa for sa in some_sas([64]) if sa.esn or first + each < 1 << 32]
    sent, ivs = [], set()
    for _ in range(each * len(sas)):
        sa = RANDOM.choice(sas)
        size = RANDOM.choice([RANDOM.randrange(0, 1401), RANDOM.randrange(0, 64)])
        sent.append((sa, *inner(sa.inner, sa.local, sa.client, size, sa.transport)))
    for (line, outs), (sa, packet, ends) in zip(explain(folder, sas, [one[1] for one in sent], link, "--first-seq", str(first)), sent):
        number, sa.sent = first + sa.sent, sa.sent + 1
        same("direction", line["direction"], "outbound", line)
        same("verdict", line["verdict"], "seal", line)
        same("SPI", line["spi"], f"0x{sa.spi_out:08x}", line)
        same("number", line["seq"], number, line)
        same("packets", len(outs), 1, line)
        if ends:
            same("connection", line["connection"], {**ends[0], "local": ends[1], "remote": ends[2]}, line)
        wire = parsed(outs[0])
        same("outer addresses", (wire.src, wire.dst), (VIP[sa.outer], sa.peer), line)
        if sa.udp:
            ports, valid = (wire[UDP].sport, wire[UDP].dport), wire[UDP].chksum == 0 if sa.outer == 4 else sums_up(outs[0])
            same("UDP", (ports, wire[UDP].len, valid), ((4500, 4500), len(outs[0]) - (20 if sa.outer == 4 else 40), True), line)
        same("number on the wire", wire[ESP].seq, number & 0xFFFFFFFF, line)
        iv = wire[ESP].data[: sa.row.iv]
        if sa.row.iv == 8:
            same("IV", iv, struct.pack("!Q", number), line)
        elif sa.row.iv:
            # RFC 3602, section 3: nobody can foretell it.
            same("IV as told before, or the number", iv in ivs or struct.pack("!Q", number) in iv, False, line)
            ivs.add(iv)
        back = bytes(sa.scapy(False, number).decrypt(wire))
        if sa.udp and sa.transport:
            packet = readdressed(packet, sa.local, sa.peer)
        same("what scapy opened", back, packet, line)
    print(f"sealed by us from {first} on, {'raw' if link == RAW else 'Ethernet'}: {len(sent)} packets, {sum(one[0].udp for one in sent)} in UDP")


def hostile(folder, link):
    """Each bad packet has its reason, and none of them changes what the next good one meets."""
    sas = [
        Sa(0, 4, 4, False, False, False, "aes128-gcm16", 64),
        Sa(1, 6, 6, False, False, True, "aes256-gcm16", 64),
        Sa(2, 4, 4, True, False, False, "aes128-gcm16", 64),
        Sa(3, 4, 4, False, False, False, "aes256-cbc-sha512", 64),
        Sa(4, 4, 4, True, False, True, "aes128-cbc-sha256", 64),
        Sa(5, 4, 4, True, False, False, "null-sha384", 64),
        Sa(6, 6, 6, False, False, True, "chacha20-poly1305-iiv", 64),
        Sa(7, 6, 4, False, False, False, "aes128-gmac", 64),
        Sa(8, 4, 4, True, False, False, "chacha20-poly1305", 64),
        Sa(9, 4, 6, False, False, True, "null-sha512", 64),
    ]
    cases = []
    case = lambda packet, reason, back=None: cases.append((packet, reason, back))

    def number(sa):
        sa.sent += 1
        return sa.sent

    def good(sa):
        packet, _ = inner(sa.inner, sa.client, sa.local, RANDOM.randrange(200), sa.transport)
        case(sa.seal(packet, number(sa)), None, packet)

    for sa in sas:
        good(sa)
        align = sa.row.align
        version, nh = sa.inner, 4 if sa.inner == 4 else 41
        packet, _ = inner(version, sa.client, sa.local, 33, sa.transport)
        whole = sa.seal(packet, 1_000_000)
        # Cut off anywhere; and cut off by a header that says so: then ESP itself is a runt, out of step, or not authentic.
        # (A frame is padded: there the header says what is cut off.)
        for length in range(len(whole) if link == RAW else 0):
            case(whole[:length], "runt")
        esp = whole[20 if sa.outer == 4 else 40 :]
        for length in range(len(esp)):
            text = length - 8 - sa.row.iv - sa.row.icv
            reason = "runt" if text < 2 else "bad-icv" if text % align == 0 else "bad-padding"
            case(outer(sa.outer, sa.peer, VIP[sa.outer], 50, esp[:length]), reason)
        # Any bit of number, IV, text or ICV.
        for _ in range(40):
            at = RANDOM.randrange(4, len(esp))
            broken = bytearray(esp)
            broken[at] ^= 1 << RANDOM.randrange(8)
            if broken[4:8] == bytes(4):
                continue
            case(outer(sa.outer, sa.peer, VIP[sa.outer], 50, bytes(broken)), "bad-icv")
        case(outer(sa.outer, sa.peer, VIP[sa.outer], 50, struct.pack("!L", 0xDEAD0000) + esp[4:]), "unknown-spi")
        stranger = "10.77.1.200" if sa.outer == 4 else "fd77::1:dead"
        case(outer(sa.outer, stranger, VIP[sa.outer], 50, esp), "wrong-peer")
        case(sa.forge(1 << 32 if sa.esn else 0, sa.trailer(packet, nh)), "sequence-wrap")
        # Padding, with a valid ICV.
        text = packet if not sa.transport else packet[20:]
        nh = packet[9] if sa.transport else nh
        case(sa.forge(number(sa), text[: 16 + -2 % align] + bytes([255, nh])), "bad-padding")
        case(sa.forge(number(sa), bytes([255, nh]) * (align // 2)), "bad-padding")
        zeros = -(len(text) + 2) % align or align
        case(sa.forge(number(sa), text + bytes(zeros) + bytes([zeros, nh])), "bad-padding")
        long = 255 - (len(text) + 257) % align
        back = outer(sa.outer, sa.peer, VIP[sa.outer], nh, text, ident=7) if sa.transport else packet
        case(sa.forge(number(sa), sa.trailer(text, nh, long)), None, back)
        wrong = bytearray(sa.trailer(text, nh, long))
        wrong[-3] ^= 1
        case(sa.forge(number(sa), bytes(wrong)), "bad-padding")
        # Nobody home, as RFC 4303 section 2.6 has it.
        case(sa.forge(number(sa), sa.trailer(bytes(30), 59)), "bad-next-header")
        if not sa.transport:
            case(sa.forge(number(sa), sa.trailer(packet, 17)), "bad-next-header")
            case(sa.forge(number(sa), sa.trailer(packet, 41 if version == 4 else 4)), "bad-inner")
            case(sa.forge(number(sa), sa.trailer(packet[:-1], nh)), "bad-inner")
            case(sa.forge(number(sa), sa.trailer(b"", nh)), "bad-inner")
            # RFC 4303 section 2.7: what hides the length stands behind the inner packet.
            case(sa.forge(number(sa), sa.trailer(packet + bytes(100), nh)), None, packet)
            neighbour = "10.98.0.9" if version == 4 else "fd98::9"
            case(sa.forge(number(sa), sa.trailer(inner(version, neighbour, sa.local, 9, False)[0], nh)), "wrong-tunnel")
            case(sa.forge(number(sa), sa.trailer(inner(version, sa.client, neighbour, 9, False)[0], nh)), "wrong-tunnel")
            case(sa.forge(number(sa), sa.trailer(inner(version, sa.local, sa.client, 9, False)[0], nh)), "wrong-tunnel")
        if version == 4 and not sa.transport:
            broken = bytearray(packet)
            broken[10] ^= 1
            case(sa.forge(number(sa), sa.trailer(bytes(broken), nh)), "bad-inner")
        good(sa)
        case(cases[-1][0], "replay")
    # In clear, to others, and damaged on the way.
    case(outer(4, "10.77.1.1", VIP[4], 17, struct.pack("!HHHH", 5, 5, 8, 0)), "clear-to-vip")
    case(outer(6, "fd77::1:1", VIP[6], 6, bytes(20)), "clear-to-vip")
    case(outer(4, "10.77.1.1", VIP[4], 132, bytes(40)), "clear-to-vip")
    # AH of no SA, and one that is shorter than itself (RFC 4302 §2.2).
    case(outer(4, "10.77.1.1", VIP[4], 51, struct.pack("!BBHII", 6, 4, 0, 5, 1) + bytes(32)), "unknown-spi")
    case(outer(4, "10.77.1.1", VIP[4], 51, bytes(40)), "runt")
    case(outer(4, "10.77.1.1", "10.77.0.101", 50, bytes(40)), "not-for-us")
    broken = bytearray(outer(4, "10.77.1.1", VIP[4], 50, bytes(60)))
    broken[11] ^= 1
    case(bytes(broken), "bad-checksum")
    # From the application, to where no tunnel leads.
    case(outer(4, VIP[4], "192.0.2.1", 17, struct.pack("!HHHH", 5, 5, 8, 0)), "no-filter")
    case(outer(6, VIP[6], "2001:db8::1", 17, struct.pack("!HHHH", 5, 5, 8, 0)), "no-filter")
    if link == ETHERNET:
        for length in range(14):
            case(Frame(bytes(length)), "runt")
        case(Frame(b"\2\0\0\0\0\1\2\0\0\0\0\2\x88\xcc" + bytes(46)), "not-for-us")
    for sa in sas:
        good(sa)
    counts = collections.Counter()
    for (line, outs), (packet, reason, back) in zip(explain(folder, sas, [one[0] for one in cases], link), cases):
        if (line["reason"], outs) != (reason, [back] if back else []):
            sys.exit(f"{reason} was expected of {packet.hex()}\nand came {json.dumps(line, indent=1)}\n{[out.hex() for out in outs]} {(back or b'').hex()}")
        counts[reason or "open"] += 1
    print(f"hostile, {'raw' if link == RAW else 'Ethernet'}: {len(cases)} packets:", dict(sorted(counts.items())))


def pieces(sa, packet, cuts, ident, last=True):
    """An outer packet in fragments that begin at these offsets of its payload, in units of 8 bytes."""
    payload, edges = packet[20 if sa.outer == 4 else 40 :], [cut * 8 for cut in cuts]
    out = []
    for begin, end in zip(edges, edges[1:] + [len(payload)]):
        more, data = int(end < len(payload) or not last), payload[begin:end]
        if sa.outer == 4:
            out.append(outer(4, sa.peer, VIP[4], 50, data, flags=more, offset=begin // 8, ident=ident))
        else:
            out.append(outer(6, sa.peer, VIP[6], 44, struct.pack("!BBHL", 50, 0, begin | more, ident) + data))
    return out


def fragments(folder, link):
    """Outer fragments are put together whatever their order; hostile ones have their reasons and open nothing."""
    sas = [Sa(0, 4, 4, False, False, False, "aes128-gcm16", 64), Sa(1, 6, 6, False, False, True, "aes256-gcm16", 64)]
    sent, wanted = [], []

    def case(frames, reason, back=None):
        """One of the frames becomes the packet, if there is one; all of them have the reason, if there is one."""
        wanted.append((range(len(sent), len(sent) + len(frames)), reason, back))
        sent.extend(frames)

    for n in range(40):
        sa = sas[n % 2]
        sa.sent += 1
        packet, _ = inner(sa.inner, sa.client, sa.local, RANDOM.randrange(300, 1400), False)
        sealed = sa.seal(packet, sa.sent)
        cuts = [0] + sorted(RANDOM.sample(range(1, 30), RANDOM.randrange(1, 6)))
        parts = pieces(sa, sealed, cuts, n)
        kind = ("whole", "overlap", "twice", "gap", "endless")[n // 2 % 5]
        if kind == "whole":
            RANDOM.shuffle(parts)
            case(parts, None, packet)
        elif kind == "overlap":
            # The second fragment begins 8 bytes early: RFC 5722 ends all of it.
            wrong = pieces(sa, sealed, [cuts[1] - 1] + cuts[2:], n)
            case([parts[0]] + wrong[:1], "fragment-overlap")
        elif kind == "twice":
            case(parts[:1], None, packet)
            case(parts[:1], "fragment-duplicate")
            wanted[-2] = ([*wanted[-2][0], *range(len(sent), len(sent) + len(parts) - 1)], None, packet)
            sent.extend(parts[1:])
        elif kind == "gap":
            case([part for part in parts if part is not parts[RANDOM.randrange(len(parts) - 1)]][:1] or parts[:1], "fragment-timeout")
        else:
            endless = pieces(sa, sealed[: 20 if sa.outer == 4 else 40] + bytes(320), list(range(40)), n, last=False)
            case(endless, "fragment-too-many")
    told = explain(folder, sas, sent, link)
    for places, reason, back in wanted:
        lines = [told[at][0] for at in places]
        opened = [outs for line, outs in (told[at] for at in places) if outs]
        if reason:
            bad = [line for line in lines if line["reason"] != reason]
            if bad or opened:
                sys.exit(f"{reason} was expected of all: {json.dumps(bad or lines, indent=1)}")
        else:
            same("packets", opened, [[back]], lines)
            same("verdicts", sorted(line["verdict"] for line in lines), ["hold"] * (len(lines) - 1) + ["open"], lines)
    print(f"fragments, {'raw' if link == RAW else 'Ethernet'}: {len(sent)} of {len(wanted)} packets")


def main():
    with tempfile.TemporaryDirectory() as folder:
        opened(folder, RAW, 30)
        opened(folder, ETHERNET, 20)
        sealed(folder, RAW, 30)
        sealed(folder, ETHERNET, 20)
        sealed(folder, RAW, 10, (1 << 32) - 4)
        hostile(folder, RAW)
        hostile(folder, ETHERNET)
        fragments(folder, RAW)
        fragments(folder, ETHERNET)


main()
