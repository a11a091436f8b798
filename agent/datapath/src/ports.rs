//! The source ports of connections that borrow a client's address.
//!
//! A plain inbound connection of the same client is in the same namespace, between the same addresses and with the same
//! server port: would the agent's have the client's port too, the kernel could not tell them apart, and the program
//! would never hear of it. Linux clients take even ports from 32768 to 60999 (`__inet_hash_connect` begins at the lower
//! end's parity), so the agent takes the odd ones and those above.
//!
//! They come in an order that nobody can count on, who sees some of them: the next one is drawn by lot from
//! [`HELD`] that are held ready, and replaced by the next in turn. Would each be drawn from all, then half of those of a
//! busy pod would have been used within the last second, and the kernel would refuse them.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};

/// Odd ports from 32769 to 60999.
const ODD: u32 = 14_116;
/// All ports from 61000 to 65535.
const HIGH: u32 = 4_536;
/// How many are held ready to be drawn from.
const HELD: usize = 2_048;

/// The ports of one pod's namespace.
#[derive(Debug, Default)]
pub struct Ports {
    /// A secret of this pod's: what it makes of a number is not to be foretold.
    lot: RandomState,
    drawing: Mutex<Drawing>,
}

#[derive(Debug, Default)]
struct Drawing {
    /// Empty before the first draw: most pods are never drawn for.
    held: Vec<u16>,
    turn: u32,
    draws: u64,
}

impl Ports {
    /// The next port.
    pub fn draw(&self) -> u16 {
        let mut drawing = self.drawing.lock().unwrap_or_else(PoisonError::into_inner);
        if drawing.held.is_empty() {
            let first = self.lot.hash_one(u64::MAX) as u32 % (ODD + HIGH);
            drawing.held = (first..).take(HELD).map(in_turn).collect();
            drawing.turn = first + HELD as u32;
        }
        let drawn = self.lot.hash_one(drawing.draws) as usize % HELD;
        let port = drawing.held[drawn];
        drawing.held[drawn] = in_turn(drawing.turn);
        drawing.turn = drawing.turn.wrapping_add(1);
        drawing.draws += 1;
        port
    }
}

const fn in_turn(turn: u32) -> u16 {
    let turn = turn % (ODD + HIGH);
    if turn < ODD { (32_769 + 2 * turn) as u16 } else { (61_000 + turn - ODD) as u16 }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashMap};

    use super::*;

    #[test]
    fn borrowed_ports_are_not_those_of_clients() {
        let ports: BTreeSet<u16> = (0..20_000).map(in_turn).collect();
        assert_eq!(ports.len(), 18_652);
        assert!(ports.iter().all(|&port| port > 60_999 || (port >= 32_768 && port % 2 == 1)));
        assert_eq!((ports.first(), ports.last()), (Some(&32_769), Some(&65_535)));
    }

    #[test]
    fn who_has_seen_a_port_cannot_count_to_the_next() {
        let (here, there) = (Ports::default(), Ports::default());
        let draw = |ports: &Ports| -> Vec<u16> { (0..2_000).map(|_| ports.draw()).collect() };
        let (here, there) = (draw(&here), draw(&there));
        let steps: BTreeSet<i32> = here.windows(2).map(|two| i32::from(two[1]) - i32::from(two[0])).collect();
        assert!(steps.len() > 500, "only {} different steps from one to the next", steps.len());
        assert_ne!(here, there, "every pod has an order of its own");
    }

    #[test]
    fn a_port_comes_again_when_nearly_all_others_have() {
        let ports = Ports::default();
        let mut last: HashMap<u16, usize> = HashMap::new();
        let mut early = 0;
        for draw in 0..60_000 {
            if last.insert(ports.draw(), draw).is_some_and(|before| draw - before < 10_000) {
                early += 1;
            }
        }
        assert_eq!(last.len(), 18_652);
        assert!(early < 1_200, "{early} of 60,000 came again after less than 10,000 others");
    }
}
