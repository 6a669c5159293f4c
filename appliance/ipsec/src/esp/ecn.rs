//! The ECN field through a tunnel (RFC 6040).

/// The two low bits of the traffic class. RFC 3168 §5.
pub(crate) const MASK: u8 = 0b11;

const NOT_ECT: u8 = 0b00;
const ECT_1: u8 = 0b01;
const CE: u8 = 0b11;

/// The outer traffic class of a packet that enters: DSCP copied or 0, ECN copied (normal mode) or Not-ECT
/// (compatibility mode). RFC 4301 §5.1.2.1, RFC 6040 §4.1.
#[inline]
pub(crate) const fn enter(inner: u8, copy_dscp: bool, copy_ecn: bool) -> u8 {
    let keep = if copy_dscp { !MASK } else { 0 } | if copy_ecn { MASK } else { 0 };
    inner & keep
}

/// The inner traffic class of a packet that leaves, `None` for the combination that must be dropped: the DSCP stays,
/// the ECN field is combined. RFC 6040 §4.2, figure 4.
#[inline]
pub(crate) const fn leave(inner: u8, outer: u8) -> Option<u8> {
    let ecn = match (inner & MASK, outer & MASK) {
        (NOT_ECT, CE) => return None,
        (NOT_ECT, _) => NOT_ECT,
        (_, CE) | (CE, _) => CE,
        // Both are ECT: ECT(1) wins, as PCN uses it.
        (_, ECT_1) => ECT_1,
        (inner, _) => inner,
    };
    Some(inner & !MASK | ecn)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn leaving_follows_every_cell_of_figure_4() {
        // RFC 6040 figure 4: rows are the inner field, columns the outer one: Not-ECT, ECT(0), ECT(1), CE.
        const D: u8 = 0xff;
        let figure: [(u8, [(u8, u8); 4]); 4] = [
            (0b00, [(0b00, 0b00), (0b10, 0b00), (0b01, 0b00), (0b11, D)]),
            (0b10, [(0b00, 0b10), (0b10, 0b10), (0b01, 0b01), (0b11, 0b11)]),
            (0b01, [(0b00, 0b01), (0b10, 0b01), (0b01, 0b01), (0b11, 0b11)]),
            (0b11, [(0b00, 0b11), (0b10, 0b11), (0b01, 0b11), (0b11, 0b11)]),
        ];
        for (inner, row) in figure {
            for (outer, expected) in row {
                let dscp = 0b1011_1000;
                let got = leave(dscp | inner, 0b0010_1000 | outer);
                assert_eq!(got, (expected != D).then_some(dscp | expected), "{inner:02b} {outer:02b}");
            }
        }
    }

    #[test]
    fn entering_copies_what_it_is_told_to() {
        assert_eq!(enter(0b1011_1011, true, true), 0b1011_1011);
        assert_eq!(enter(0b1011_1011, false, true), 0b11);
        assert_eq!(enter(0b1011_1011, true, false), 0b1011_1000);
        assert_eq!(enter(0b1011_1011, false, false), 0);
    }
}
