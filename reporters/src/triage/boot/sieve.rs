//! Most lines hold none of the words: a look at every second place says so, before each byte is followed.

use std::cmp::Reverse;
use std::collections::HashMap;

/// Bytes of a word that are looked at.
const PIECE: usize = 4;
/// Places from one look to the next.
const STEP: usize = 2;
/// Bits of the table, as a power of two: so many that two pieces seldom share one.
const BITS: u32 = 20;
/// What boots that go well print: pieces of it are poor signs of anything.
const ORDINARY: &[u8] = include_bytes!("ordinary.txt");

/// A table of pieces of words, two of each, one behind the other: wherever a word stands, a look at every second place
/// meets one of them.
#[derive(Debug)]
pub(super) struct Sieve {
    table: Vec<u64>,
    /// Whether a word is too short to be found so: then nothing is sieved out.
    open: bool,
}

impl Sieve {
    pub(super) fn new(words: &[&'static str]) -> Sieve {
        let mut sieve = Sieve { table: vec![0; 1 << (BITS - 6)], open: false };
        let pieces = || words.iter().flat_map(|word| word.as_bytes().windows(PIECE));
        let count = |pieces: &mut dyn Iterator<Item = &'static [u8]>| {
            let mut counts: HashMap<&[u8], usize> = HashMap::new();
            pieces.for_each(|piece| *counts.entry(piece).or_default() += 1);
            counts
        };
        let (common, shared) = (count(&mut ORDINARY.windows(PIECE)), count(&mut pieces()));
        for word in words {
            // What ordinary lines do not hold, and many words do.
            let pairs = word.as_bytes().windows(PIECE + STEP - 1);
            let of = |counts: &HashMap<&[u8], usize>, pair: &[u8]| -> usize {
                pair.windows(PIECE).map(|piece| counts.get(piece).copied().unwrap_or_default()).sum()
            };
            let rare = pairs.min_by_key(|pair| (of(&common, pair), Reverse(of(&shared, pair))));
            match rare {
                Some(pair) => pair.windows(PIECE).for_each(|piece| sieve.add(piece)),
                None => sieve.open = true,
            }
        }
        sieve
    }

    fn add(&mut self, piece: &[u8]) {
        let (at, bit) = place(piece);
        self.table[at] |= bit;
    }

    /// Whether a word may stand in the line.
    pub(super) fn holds(&self, line: &[u8]) -> bool {
        self.open
            || line.windows(PIECE).step_by(STEP).any(|piece| {
                let (at, bit) = place(piece);
                self.table[at] & bit != 0
            })
    }
}

/// Where in the table a piece is.
fn place(piece: &[u8]) -> (usize, u64) {
    let number = u32::from_le_bytes([piece[0], piece[1], piece[2], piece[3]]);
    let hash = number.wrapping_mul(0x9e37_79b1) >> (32 - BITS);
    ((hash >> 6) as usize, 1 << (hash & 63))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_word_is_sieved_out_wherever_it_stands() {
        let words = ["Kernel panic", "Run /", "login:", "Shell>"];
        let sieve = Sieve::new(&words);
        for word in words {
            for before in 0..9 {
                assert!(
                    sieve.holds(format!("{}{word}", &"[  1.23] x"[..before]).as_bytes()),
                    "{before} {word}"
                );
            }
        }
        assert!(
            !sieve.holds(b"[    1.2] pci 0000:00:00.0: BAR 0") && !sieve.holds(b"") && !sieve.holds(b"Ker")
        );
        assert!(Sieve::new(&["abc"]).holds(b"anything"));
    }
}
