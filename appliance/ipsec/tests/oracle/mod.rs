//! A second implementation of ESP that shares nothing with ours: packets are put together byte by byte from the RFCs.

pub mod cipher;

use cipher::{Around, Cipher, Kind};
use std::net::IpAddr;

/// One SA as both ends know it.
#[derive(Clone, Debug)]
pub struct Sa {
    pub tunnel: bool,
    /// The sender's outer address.
    pub from: IpAddr,
    pub to: IpAddr,
    pub spi: u32,
    pub cipher: Cipher,
    /// Of encryption, then of integrity.
    pub key: Vec<u8>,
    pub salt: [u8; 4],
    pub esn: bool,
}

/// An IP packet in parts, so that nobody has to parse it.
#[derive(Clone, Debug)]
pub struct Packet {
    pub src: IpAddr,
    pub dst: IpAddr,
    /// DSCP and ECN.
    pub class: u8,
    pub ttl: u8,
    pub dont_fragment: bool,
    pub id: u16,
    pub flow_label: u32,
    /// IPv4 options; a multiple of 4 bytes.
    pub options: Vec<u8>,
    /// IPv6 extension headers that stay in front of ESP: number and body behind the two first bytes.
    pub before: Vec<(u8, Vec<u8>)>,
    /// IPv6 extension headers that ESP covers.
    pub after: Vec<(u8, Vec<u8>)>,
    pub protocol: u8,
    pub payload: Vec<u8>,
}

impl Packet {
    /// The packet's bytes.
    pub fn bytes(&self) -> Vec<u8> {
        let (first, covered) = self.covered();
        self.around(first, &covered)
    }

    /// What transport mode encrypts, and the protocol number it begins with.
    pub fn covered(&self) -> (u8, Vec<u8>) {
        chain(&self.after, self.protocol, &self.payload)
    }

    /// The packet with something else in place of what transport mode encrypts.
    pub fn around(&self, protocol: u8, covered: &[u8]) -> Vec<u8> {
        let (first, rest) = chain(&self.before, protocol, covered);
        match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                // RFC 791 §3.1.
                let header_len = 20 + self.options.len();
                let mut b = vec![0x40 | (header_len / 4) as u8, self.class];
                b.extend(((header_len + rest.len()) as u16).to_be_bytes());
                b.extend(self.id.to_be_bytes());
                b.extend([if self.dont_fragment { 0x40 } else { 0 }, 0, self.ttl, first, 0, 0]);
                b.extend(src.octets());
                b.extend(dst.octets());
                b.extend(&self.options);
                let sum = checksum(&b);
                b[10..12].copy_from_slice(&sum.to_be_bytes());
                b.extend(rest);
                b
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                // RFC 8200 §3.
                let word = 6u32 << 28 | u32::from(self.class) << 20 | self.flow_label;
                let mut b = word.to_be_bytes().to_vec();
                b.extend((rest.len() as u16).to_be_bytes());
                b.extend([first, self.ttl]);
                b.extend(src.octets());
                b.extend(dst.octets());
                b.extend(rest);
                b
            }
            _ => panic!("addresses of two families"),
        }
    }
}

/// Extension headers one after the other, then the payload; and the number of the first.
fn chain(headers: &[(u8, Vec<u8>)], last: u8, payload: &[u8]) -> (u8, Vec<u8>) {
    let mut numbers: Vec<u8> = headers.iter().map(|h| h.0).collect();
    numbers.push(last);
    let mut bytes = vec![];
    for ((_, body), next) in headers.iter().zip(&numbers[1..]) {
        assert!((body.len() + 2).is_multiple_of(8));
        bytes.extend([*next, ((body.len() + 2) / 8 - 1) as u8]);
        bytes.extend(body);
    }
    bytes.extend(payload);
    (numbers[0], bytes)
}

/// RFC 1071.
pub fn checksum(b: &[u8]) -> u16 {
    let mut sum: u32 = b.chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(*w.get(1).unwrap_or(&0))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

impl Sa {
    fn around<'a>(&'a self, seq: u64, iv: &'a [u8]) -> Around<'a> {
        Around { key: &self.key, salt: self.salt, spi: self.spi, seq, esn: self.esn, iv }
    }

    /// SPI to ICV around a payload. `pad` is the number of padding bytes, `extra` goes between payload and padding.
    pub fn esp(&self, payload: &[u8], next_header: u8, seq: u64, iv: [u8; 16], pad: u8, extra: &[u8]) -> Vec<u8> {
        let iv = &iv[..self.cipher.iv];
        let mut text = [payload, extra].concat();
        text.extend(1..=pad);
        text.extend([pad, next_header]);
        assert!(text.len().is_multiple_of(self.cipher.align));
        let mut esp = self.spi.to_be_bytes().to_vec();
        esp.extend((seq as u32).to_be_bytes());
        esp.extend(iv);
        esp.extend(self.cipher.seal(&self.around(seq, iv), &text));
        esp
    }

    /// The IV, the payload and the next header of what lies between IP header and end. Checks everything that the RFCs
    /// prescribe to the sender.
    pub fn open(&self, esp: &[u8], seq: u64) -> Result<(Vec<u8>, Vec<u8>, u8), &'static str> {
        if esp[..4] != self.spi.to_be_bytes() || esp[4..8] != (seq as u32).to_be_bytes() {
            return Err("SPI or number");
        }
        let (iv, sealed) = esp[8..].split_at(self.cipher.iv);
        let text = self.cipher.open(&self.around(seq, iv), sealed).ok_or("ICV")?;
        // RFC 4303 §2.4: right alignment, padding of 1, 2, 3 ..; no more than needed.
        let align = self.cipher.align;
        if !text.len().is_multiple_of(align) {
            return Err("alignment");
        }
        let [.., pad, next_header] = text[..] else { return Err("trailer") };
        let payload_len = text.len() - 2 - usize::from(pad);
        let padding: Vec<u8> = (1..=pad).collect();
        if usize::from(pad) >= align || text[payload_len..text.len() - 2] != padding {
            return Err("padding");
        }
        // RFC 3602 §3: nobody may foretell it, so it is not what everybody sees in the header.
        if self.cipher.kind == Kind::Cbc && iv[8..] == seq.to_be_bytes() {
            return Err("IV");
        }
        Ok((iv.to_vec(), text[..payload_len].to_vec(), next_header))
    }
}
