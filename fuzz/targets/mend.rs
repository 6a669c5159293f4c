//! What several targets do to arbitrary bytes before they are packets.

use phalanx_wire::checksum;

/// With a right IPv4 header checksum, which arbitrary bytes seldom have.
pub fn mend(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    let len = packet.first().map_or(0, |b| usize::from(b & 15) * 4);
    if packet.first().is_some_and(|b| b >> 4 == 4) && (20..=packet.len()).contains(&len) {
        packet[10..12].fill(0);
        let sum = checksum::internet(&packet[..len]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    packet
}
