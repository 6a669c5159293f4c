//! What is distributed to targets and what the router keeps to itself (R11), as data.

/// The protocols that an SA (or a bundle of two) protects its packets with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Protection {
    /// Authentication header only: the payload is readable.
    Ah,
    /// ESP.
    Esp,
    /// ESP inside AH.
    AhEsp,
}

/// What R11's table asks of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Situation {
    /// What protects it.
    pub protection: Protection,
    /// ESP with a cipher, as opposed to ESP-NULL. Without meaning for AH alone.
    pub encrypted: bool,
    /// Tunnel mode, as opposed to transport mode.
    pub tunnel: bool,
    /// The payload is TCP, or what is steered as TCP is: UDP, and errors about either.
    pub tcp: bool,
    /// The local address of the outer header is a VIP.
    pub outer_is_vip: bool,
    /// The local address of the inner header is a VIP. Without meaning in transport mode, which has no inner header.
    pub inner_is_vip: bool,
}

/// What R11 says of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Connection and IPsec work go to the target: the packet is forwarded as it came.
    Distribute {
        /// The router must decrypt a prefix to see the connection (R9).
        peek: bool,
    },
    /// Only the connection is distributed: the router opens the packet and forwards it in clear over the trusted link.
    DistributeConnection,
    /// The router handles it itself, as an ordinary endpoint (R10).
    Local,
}

/// The verdict of R11's table; what it does not list is [`Verdict::Local`] ("and nothing else").
#[inline]
pub fn verdict(situation: &Situation) -> Verdict {
    let index = index(
        situation.protection,
        situation.tunnel,
        situation.tcp,
        situation.outer_is_vip,
        situation.tunnel && situation.inner_is_vip,
    );
    match VERDICTS[index] {
        Verdict::Distribute { peek } => Verdict::Distribute { peek: peek && situation.encrypted },
        other => other,
    }
}

/// One row of R11's table in which a connection is distributed; all other rows say "no, no".
struct Row {
    protection: Protection,
    tunnel: bool,
    outer_is_vip: bool,
    inner_is_vip: bool,
    verdict: Verdict,
}

const fn row(protection: Protection, tunnel: bool, outer_is_vip: bool, inner_is_vip: bool, verdict: Verdict) -> Row {
    Row { protection, tunnel, outer_is_vip, inner_is_vip, verdict }
}

/// The rows of R11 that say "yes": all of them are TCP.
const ROWS: [Row; 9] = {
    use Protection::{Ah, AhEsp, Esp};
    use Verdict::{Distribute, DistributeConnection};
    const TRANSPORT: bool = false;
    const TUNNEL: bool = true;
    [
        row(Ah, TRANSPORT, true, false, Distribute { peek: false }),
        row(Ah, TUNNEL, true, true, Distribute { peek: false }),
        row(Ah, TUNNEL, false, true, DistributeConnection),
        row(Esp, TRANSPORT, true, false, Distribute { peek: true }),
        row(Esp, TUNNEL, true, true, Distribute { peek: true }),
        row(Esp, TUNNEL, false, true, DistributeConnection),
        row(AhEsp, TRANSPORT, true, false, Distribute { peek: true }),
        row(AhEsp, TUNNEL, true, true, Distribute { peek: true }),
        row(AhEsp, TUNNEL, false, true, DistributeConnection),
    ]
};

/// The table spread out for one load per packet.
const VERDICTS: [Verdict; 64] = {
    let mut all = [Verdict::Local; 64];
    let mut at = 0;
    while at < ROWS.len() {
        let row = &ROWS[at];
        all[index(row.protection, row.tunnel, true, row.outer_is_vip, row.inner_is_vip)] = row.verdict;
        at += 1;
    }
    all
};

const fn index(protection: Protection, tunnel: bool, tcp: bool, outer_is_vip: bool, inner_is_vip: bool) -> usize {
    (protection as usize) << 4
        | (tunnel as usize) << 3
        | (tcp as usize) << 2
        | (outer_is_vip as usize) << 1
        | inner_is_vip as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    /// R11 restated line by line as the requirements print it (without the columns' frame); the notes in brackets stay.
    const R11: &str = "
        AH     | transport | TCP              | VIP     | -       | yes | yes | no
        AH     | transport | not TCP, not ESP | VIP     | -       | no  | no  | no
        AH     | tunnel    | TCP              | VIP     | VIP     | yes | yes | no
        AH     | tunnel    | TCP              | VIP     | not VIP | no  | no  | no
        AH     | tunnel    | TCP              | not VIP | VIP     | yes | no  | no (2)
        AH     | tunnel    | not TCP, not ESP | VIP     | not VIP | no  | no  | no
        ESP    | transport | TCP              | VIP     | -       | yes | yes | yes (1)
        ESP    | transport | not TCP          | VIP     | -       | no  | no  | yes
        ESP    | tunnel    | TCP              | VIP     | VIP     | yes | yes | yes (1)
        ESP    | tunnel    | TCP              | VIP     | not VIP | no  | no  | yes
        ESP    | tunnel    | TCP              | not VIP | VIP     | yes | no  | yes (2)
        ESP    | tunnel    | not TCP          | VIP     | not VIP | no  | no  | yes
        AH+ESP | transport | TCP              | VIP     | -       | yes | yes | yes (1)
        AH+ESP | transport | not TCP          | VIP     | -       | no  | no  | yes
        AH+ESP | tunnel    | TCP              | VIP     | VIP     | yes | yes | yes (1)
        AH+ESP | tunnel    | TCP              | VIP     | not VIP | no  | no  | yes
        AH+ESP | tunnel    | TCP              | not VIP | VIP     | yes | no  | yes (2)
        AH+ESP | tunnel    | not TCP          | VIP     | not VIP | no  | no  | yes";

    fn rows() -> impl Iterator<Item = ([&'static str; 8], Situation)> {
        R11.lines().skip(1).map(|line| {
            let mut cells = line.split('|').map(str::trim);
            let cells: [&str; 8] = std::array::from_fn(|_| cells.next().expect("eight cells"));
            let situation = Situation {
                protection: match cells[0] {
                    "AH" => Protection::Ah,
                    "ESP" => Protection::Esp,
                    _ => Protection::AhEsp,
                },
                encrypted: true,
                tunnel: cells[1] == "tunnel",
                tcp: cells[2] == "TCP",
                outer_is_vip: cells[3] == "VIP",
                inner_is_vip: cells[4] == "VIP",
            };
            (cells, situation)
        })
    }

    #[test]
    fn every_row_of_the_table_gets_the_verdict_it_states() {
        assert_eq!(rows().count(), 18);
        for (cells, situation) in rows() {
            let expected = match (cells[5], cells[6]) {
                ("yes", "yes") => Verdict::Distribute { peek: cells[7].starts_with("yes") },
                ("yes", "no") => Verdict::DistributeConnection,
                _ => Verdict::Local,
            };
            assert_eq!(verdict(&situation), expected, "{cells:?}");
        }
    }

    #[test]
    fn esp_null_is_distributed_without_a_peek() {
        for (cells, situation) in rows().filter(|(cells, _)| cells[7].ends_with("(1)")) {
            let null = Situation { encrypted: false, ..situation };
            assert_eq!(verdict(&null), Verdict::Distribute { peek: false }, "{cells:?}");
        }
    }

    #[test]
    fn in_transport_mode_there_is_no_inner_address_to_ask() {
        for (cells, situation) in rows().filter(|(_, s)| !s.tunnel) {
            let told = Situation { inner_is_vip: true, ..situation };
            assert_eq!(verdict(&told), verdict(&situation), "{cells:?}");
        }
    }

    #[test]
    fn what_the_table_does_not_list_stays_with_the_router() {
        for protection in [Protection::Ah, Protection::Esp, Protection::AhEsp] {
            for bits in 0..16u8 {
                let bit = |n: u8| bits >> n & 1 == 1;
                let situation = Situation {
                    protection,
                    encrypted: true,
                    tunnel: bit(0),
                    tcp: bit(1),
                    outer_is_vip: bit(2),
                    inner_is_vip: bit(0) && bit(3),
                };
                if rows().all(|(_, listed)| listed != situation) {
                    assert_eq!(verdict(&situation), Verdict::Local, "{situation:?}");
                }
            }
        }
    }
}
