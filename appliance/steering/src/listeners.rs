//! On which ports of a VIP its targets listen (R25): what a router core asks once per new connection.

use phalanx_wire::protocol;

/// A set of a VIP's targets: bit *n* is the target at place *n* of its [`Distribution`](crate::Distribution).
pub type Among = u32;

/// For each port who listens on it: two steps to look up, and room only for neighbourhoods in which somebody listens, at
/// most 257 KiB for one protocol of a VIP. Control makes it, for it takes memory.
#[derive(Clone, Debug)]
pub struct PortMasks {
    /// Of each 256 ports: which page.
    places: Box<[u16; 256]>,
    /// The first one: nobody.
    pages: Vec<[Among; 256]>,
}

impl Default for PortMasks {
    fn default() -> Self {
        PortMasks { places: Box::new([0; 256]), pages: vec![[0; 256]] }
    }
}

impl PortMasks {
    /// These targets listen on the port.
    pub fn add(&mut self, port: u16, who: Among) {
        let [high, low] = port.to_be_bytes().map(usize::from);
        if self.places[high] == 0 {
            self.places[high] = self.pages.len() as u16; // each of 256 places gets one page
            self.pages.push([0; 256]);
        }
        self.pages[usize::from(self.places[high])][low] |= who;
    }

    /// Who listens on the port.
    #[inline]
    pub fn who(&self, port: u16) -> Among {
        let [high, low] = port.to_be_bytes().map(usize::from);
        self.pages[usize::from(self.places[high])][low]
    }
}

/// What the targets of a VIP told.
#[derive(Clone, Debug, Default)]
pub struct Listeners {
    /// TCP ports with a listener.
    pub tcp: PortMasks,
    /// UDP ports that a socket is bound to.
    pub udp: PortMasks,
    /// Targets that told on which ports they listen.
    pub known: Among,
    /// Targets that are about to tell: they just attached, or their session was lost a moment ago.
    pub pending: Among,
}

impl Listeners {
    /// Those of an IP protocol.
    #[inline]
    pub fn of(&self, protocol: u8) -> &PortMasks {
        if protocol == protocol::UDP { &self.udp } else { &self.tcp }
    }

    /// Whether the answer of an ordinary host is due: of `members` some told, none of them listens on the port (those are
    /// `who`), and none is about to tell.
    #[inline]
    pub fn refuse(&self, members: Among, who: Among) -> bool {
        who & members == 0 && self.pending & members == 0 && self.known & members != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    #[test]
    fn a_table_of_all_ports_is_bounded() {
        let mut masks = PortMasks::default();
        (0..=u16::MAX).for_each(|port| masks.add(port, 1));
        assert!((0..=u16::MAX).all(|port| masks.who(port) == 1));
        assert_eq!(masks.pages.len(), 257);
    }

    #[test]
    fn a_refusal_is_due_only_when_all_that_count_are_heard_and_none_listens() {
        let told = |known, pending| Listeners { known, pending, ..Listeners::default() };
        assert!(told(0b11, 0).refuse(0b11, 0));
        assert!(!told(0b11, 0).refuse(0b11, 0b10), "somebody listens");
        assert!(told(0b11, 0b100).refuse(0b11, 0b100), "others do not count");
        assert!(!told(0b01, 0b10).refuse(0b11, 0), "one is about to tell");
        assert!(told(0b01, 0).refuse(0b11, 0), "the other is gone");
        assert!(!told(0, 0).refuse(0b11, 0), "nobody is there: that is not the answer of a host");
    }

    proptest! {
        #[test]
        fn masks_agree_with_a_map(added in prop::collection::vec((any::<u16>(), any::<u32>()), 0..200), asked: u16) {
            let (mut masks, mut model) = (PortMasks::default(), HashMap::<u16, u32>::new());
            for (port, who) in added {
                masks.add(port, who);
                *model.entry(port).or_default() |= who;
            }
            for port in model.keys().copied().chain([asked]) {
                prop_assert_eq!(masks.who(port), model.get(&port).copied().unwrap_or(0));
            }
        }
    }
}
