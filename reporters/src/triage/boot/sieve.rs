//! All words in one pass: a look at every second place of a line says whether a word may stand there, and which.
//!
//! Of each word two pieces are known, one a place behind the other: wherever the word stands, one of them begins at a
//! place that is looked at. The pieces are those that ordinary lines do not hold.

use std::cmp::Reverse;
use std::collections::HashMap;

/// Bytes of a word that are looked at.
const PIECE: usize = 4;
/// Places from one look to the next.
const STEP: usize = 2;
/// Bits of the table, as a power of two: so many that two pieces seldom share one.
const BITS: u32 = 20;
/// Chains of pieces, as a power of two.
const CHAINS: u32 = 13;
/// The end of a chain.
const NOTHING: u32 = u32::MAX;
/// What boots that go well print: pieces of it are poor signs of anything.
const ORDINARY: &[u8] = include_bytes!("ordinary.txt");

/// A word that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Found {
    /// Behind its last byte.
    pub(super) end: usize,
    /// Its first byte.
    pub(super) start: usize,
    /// Which word it is.
    pub(super) word: usize,
}

/// A piece of a word.
#[derive(Debug)]
struct Piece {
    number: u32,
    word: u32,
    /// Where in the word it begins.
    offset: u32,
    /// The next one of its chain.
    next: u32,
}

/// The words, ready to be looked for.
#[derive(Debug)]
pub(super) struct Sieve {
    words: Vec<&'static [u8]>,
    /// A bit for what pieces are like.
    table: Vec<u64>,
    chains: Vec<u32>,
    pieces: Vec<Piece>,
}

impl Sieve {
    /// Words of at least five bytes.
    pub(super) fn new(words: &[&'static str]) -> Sieve {
        let mut sieve = Sieve {
            words: words.iter().map(|word| word.as_bytes()).collect(),
            table: vec![0; 1 << (BITS - 6)],
            chains: vec![NOTHING; 1 << CHAINS],
            pieces: Vec::new(),
        };
        let pieces = || words.iter().flat_map(|word| word.as_bytes().windows(PIECE));
        let count = |pieces: &mut dyn Iterator<Item = &'static [u8]>| {
            let mut counts: HashMap<&[u8], usize> = HashMap::new();
            pieces.for_each(|piece| *counts.entry(piece).or_default() += 1);
            counts
        };
        let (common, shared) = (count(&mut ORDINARY.windows(PIECE)), count(&mut pieces()));
        for (word, text) in words.iter().enumerate() {
            // What ordinary lines do not hold, and many words do.
            let of = |counts: &HashMap<&[u8], usize>, pair: &[u8]| -> usize {
                pair.windows(PIECE).map(|piece| counts.get(piece).copied().unwrap_or_default()).sum()
            };
            let pairs = text.as_bytes().windows(PIECE + STEP - 1).enumerate();
            let rare = pairs.min_by_key(|(_, pair)| (of(&common, pair), Reverse(of(&shared, pair))));
            #[expect(clippy::expect_used, reason = "the words are constants, and every test makes them")]
            let (at, pair) = rare.expect("a word of five bytes or more");
            for (offset, piece) in pair.windows(PIECE).enumerate() {
                sieve.add(piece, word, at + offset);
            }
        }
        sieve
    }

    #[expect(clippy::cast_possible_truncation, reason = "a few thousand words of a few bytes")]
    fn add(&mut self, piece: &[u8], word: usize, offset: usize) {
        let number = number(piece);
        let hash = hash(number);
        self.table[(hash >> 6) as usize] |= 1 << (hash & 63);
        let chain = &mut self.chains[(hash >> (BITS - CHAINS)) as usize];
        let next = std::mem::replace(chain, self.pieces.len() as u32);
        self.pieces.push(Piece { number, word: word as u32, offset: offset as u32, next });
    }

    /// Every word in the line, by where it ends, the longest first; also words within words.
    pub(super) fn find(&self, line: &[u8]) -> Vec<Found> {
        let mut found = Vec::new();
        for (place, piece) in line.windows(PIECE).step_by(STEP).enumerate() {
            let number = number(piece);
            let hash = hash(number);
            if self.table[(hash >> 6) as usize] & 1 << (hash & 63) != 0 {
                self.look(line, place * STEP, number, hash, &mut found);
            }
        }
        found.sort_unstable();
        found
    }

    /// Which words have the piece at a place, and stand there.
    fn look(&self, line: &[u8], place: usize, number: u32, hash: u32, found: &mut Vec<Found>) {
        let mut next = self.chains[(hash >> (BITS - CHAINS)) as usize];
        while let Some(piece) = self.pieces.get(next as usize) {
            next = piece.next;
            let word = self.words[piece.word as usize];
            let Some(start) = place.checked_sub(piece.offset as usize) else { continue };
            if piece.number == number && line[start..].starts_with(word) {
                found.push(Found { end: start + word.len(), start, word: piece.word as usize });
            }
        }
    }
}

fn number(piece: &[u8]) -> u32 {
    u32::from_le_bytes([piece[0], piece[1], piece[2], piece[3]])
}

/// `BITS` bits.
fn hash(number: u32) -> u32 {
    number.wrapping_mul(0x9e37_79b1) >> (32 - BITS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(sieve: &Sieve, line: &str) -> Vec<(usize, usize)> {
        sieve.find(line.as_bytes()).iter().map(|found| (found.word, found.start)).collect()
    }

    #[test]
    fn a_word_is_found_wherever_it_stands_and_once() {
        let all = ["Kernel panic", "Run /", "login:", "Shell>", "panic - not"];
        let sieve = Sieve::new(&all);
        for (number, word) in all.iter().enumerate() {
            for before in 0..9 {
                let line = format!("{}{word}", &"[  1.23] x"[..before]);
                assert_eq!(words(&sieve, &line), [(number, before)], "{line}");
            }
        }
        for line in ["[    1.2] pci 0000:00:00.0: BAR 0", "", "Ker", "Kernel pani"] {
            assert_eq!(words(&sieve, line), [], "{line}");
        }
        assert_eq!(words(&sieve, "Kernel panic - not syncing: login:"), [(0, 0), (4, 7), (2, 28)]);
        assert_eq!(words(&sieve, "login: login:"), [(2, 0), (2, 7)]);
    }
}
