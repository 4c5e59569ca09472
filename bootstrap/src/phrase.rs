//! The recovery phrase: the next root key's seed as 24 words of BIP 39, written on paper.
//!
//! The words are the seed itself (256 bits and 8 of checksum), not a password from which one is derived: whoever has
//! the paper has the key, with any program that knows BIP 39. It is good for one rotation, which issues another.
//!
//! Here, too, are passphrases made of the same words.

use bip39::{Language, Mnemonic};
use zeroize::Zeroizing;

use crate::key::{Random, Secret};

/// Words in a phrase.
pub const PHRASE_WORDS: usize = 24;
/// Words in a generated passphrase: 66 bits, each guess at which costs one scrypt.
pub const PASSPHRASE_WORDS: usize = 6;
/// Near words that an unknown one is answered with, at most.
const NEAR_MAX: usize = 4;
/// The longest word of the list.
const WORD_LEN_MAX: usize = 8;

/// A phrase that was mistyped, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PhraseError {
    /// Too few or too many words.
    #[error("a recovery phrase has {PHRASE_WORDS} words, this has {found}")]
    Count {
        /// Words found.
        found: usize,
    },
    /// A word that is not in the list. The text does not repeat it: errors end up in logs.
    #[error("word {position} is not one of the words that recovery phrases are made of")]
    Unknown {
        /// Ordinal of the word, from 1.
        position: usize,
        /// What may have been meant, best first; for the screen only.
        near: Vec<&'static str>,
    },
    /// Only words of the list, but not in this combination.
    #[error(
        "every word is known, but together they are no recovery phrase: one is wrong or two are exchanged"
    )]
    Checksum,
}

/// A recovery phrase, wiped when dropped.
pub struct Phrase(Mnemonic);

impl Phrase {
    /// The phrase of a seed.
    pub fn from_secret(secret: &Secret) -> Self {
        Self(
            Mnemonic::from_entropy_in(Language::English, secret.seed())
                .expect("32 bytes make 24 words"),
        )
    }

    /// Reads a phrase as people type it: in any case, with any blanks, numbered or with commas between.
    ///
    /// # Errors
    /// [`PhraseError`]: the first word that is unknown, then their number, then the checksum.
    pub fn parse(text: &str) -> Result<Self, PhraseError> {
        let mut plain = Zeroizing::new(String::with_capacity(text.len() + 1));
        let mut count = 0;
        let separates =
            |c: char| c.is_whitespace() || c.is_ascii_punctuation() || c.is_ascii_digit();
        for word in text.split(separates).filter(|word| !word.is_empty()) {
            count += 1;
            let word = Zeroizing::new(word.to_lowercase());
            if Language::English.find_word(&word).is_none() {
                return Err(PhraseError::Unknown {
                    position: count,
                    near: near(&word),
                });
            }
            if count > 1 {
                plain.push(' ');
            }
            plain.push_str(&word);
        }
        if count != PHRASE_WORDS {
            return Err(PhraseError::Count { found: count });
        }
        Mnemonic::parse_in_normalized(Language::English, &plain)
            .map(Self)
            .map_err(|_| PhraseError::Checksum)
    }

    /// The words, in order.
    pub fn words(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.0.words()
    }

    /// The `n`th word, from 1; `None` beyond the last.
    pub fn word(&self, n: usize) -> Option<&'static str> {
        self.words().nth(n.checked_sub(1)?)
    }

    /// The seed that the words are.
    pub fn secret(&self) -> Secret {
        let entropy = Zeroizing::new(self.0.to_entropy_array().0);
        let mut seed = Zeroizing::new([0; 32]);
        seed.copy_from_slice(&entropy[..32]);
        Secret::from_seed(seed)
    }
}

/// Draws a passphrase: six words out of 2048, joined by hyphens.
///
/// # Errors
/// What the source of randomness reported.
pub fn generate_passphrase(random: &mut dyn Random) -> std::io::Result<Zeroizing<String>> {
    let words = Language::English.word_list();
    let mut drawn = Zeroizing::new([0; 2 * PASSPHRASE_WORDS]);
    random.fill(drawn.as_mut())?;
    let mut passphrase =
        Zeroizing::new(String::with_capacity(PASSPHRASE_WORDS * (WORD_LEN_MAX + 1)));
    for (i, pair) in drawn.chunks_exact(2).enumerate() {
        if i > 0 {
            passphrase.push('-');
        }
        // The list has 2^11 words: the remainder is uniform.
        let at = usize::from(u16::from_le_bytes([pair[0], pair[1]])) % words.len();
        passphrase.push_str(words[at]);
    }
    Ok(passphrase)
}

/// Words of the list that `word` may stand for: those it abbreviates, then those one or two slips away.
fn near(word: &str) -> Vec<&'static str> {
    if word.chars().count() > 2 * WORD_LEN_MAX {
        return Vec::new();
    }
    let mut found: Vec<(usize, &'static str)> = Language::English
        .word_list()
        .iter()
        .filter_map(|known| {
            let slips = if known.starts_with(word) || word.starts_with(known) {
                1
            } else {
                distance(word, known)
            };
            (slips <= 2).then_some((slips, *known))
        })
        .collect();
    found.sort();
    found.truncate(NEAR_MAX);
    found.into_iter().map(|(_, known)| known).collect()
}

/// Characters to insert, remove, replace or exchange with their neighbour to get from one word to the other (optimal string
/// alignment: Boytsov, ACM JEA 16, 2011).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    rows[0] = (0..=b.len()).collect();
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn phrase(seed: [u8; 32]) -> Phrase {
        Phrase::from_secret(&Secret::from_seed(Zeroizing::new(seed)))
    }

    fn text(phrase: &Phrase) -> String {
        phrase.words().collect::<Vec<_>>().join(" ")
    }

    fn fails(text: &str) -> PhraseError {
        Phrase::parse(text).err().expect("this is no phrase")
    }

    /// Vectors of the reference implementation (trezor/python-mnemonic, vectors.json).
    #[test]
    fn words_are_those_of_bip39() {
        let legal = "legal winner thank year wave sausage worth useful legal winner thank year wave sausage worth useful \
                     legal winner thank year wave sausage worth title";
        assert_eq!(text(&phrase([0x7f; 32])), legal);
        let zoo = format!("{}vote", "zoo ".repeat(23));
        assert_eq!(text(&phrase([0xff; 32])), zoo);
        assert_eq!(Phrase::parse(&zoo).unwrap().secret().seed(), &[0xff; 32]);
    }

    #[test]
    fn any_usual_writing_is_read() {
        let seed: [u8; 32] = std::array::from_fn(|i| i as u8 * 7);
        let phrase = phrase(seed);
        let numbered: Vec<_> = (1..=24)
            .map(|n| format!("{n}. {}", phrase.word(n).unwrap().to_uppercase()))
            .collect();
        for written in [
            text(&phrase),
            numbered.join("\r\n"),
            text(&phrase).replace(' ', ", "),
        ] {
            let read = Phrase::parse(&written).expect("a phrase");
            assert_eq!(read.secret().seed(), &seed);
        }
        assert_eq!(phrase.word(0), None);
        assert_eq!(phrase.word(25), None);
        assert_eq!(phrase.words().count(), PHRASE_WORDS);
    }

    #[test]
    fn each_typing_error_is_told_apart() {
        let good = text(&phrase([0x7f; 32]));
        assert_eq!(fails(""), PhraseError::Count { found: 0 });
        assert_eq!(fails("legal winner"), PhraseError::Count { found: 2 });
        assert_eq!(
            fails(&format!("{good} zoo")),
            PhraseError::Count { found: 25 }
        );
        let unknown =
            |written: &str, meant: &str| match fails(&good.replacen("sausage", written, 1)) {
                PhraseError::Unknown { position, near } => {
                    assert_eq!(position, 6);
                    assert!(near.contains(&meant), "{near:?} lacks {meant}");
                }
                other => panic!("{other:?}"),
            };
        unknown("sausgae", "sausage");
        unknown("sausag", "sausage");
        unknown("saus", "sausage");
        unknown("savsage", "sausage");
        unknown("sausages", "sausage");
        assert_eq!(
            fails(&good.replacen("sausage", "würstchen", 1)),
            PhraseError::Unknown {
                position: 6,
                near: vec![]
            }
        );
        assert_eq!(
            fails(&good.replacen("sausage", "zoo", 1)),
            PhraseError::Checksum
        );
        assert_eq!(
            fails(&good.replacen("winner thank", "thank winner", 1)),
            PhraseError::Checksum
        );
        let told = fails(&good.replacen("sausage", "sausgae", 1)).to_string();
        assert!(!told.contains("saus"), "{told}");
    }

    #[test]
    fn passphrases_are_six_words_drawn_uniformly() {
        let mut counter = 0u16;
        let mut random = |bytes: &mut [u8]| {
            for pair in bytes.chunks_exact_mut(2) {
                pair.copy_from_slice(&counter.to_le_bytes());
                counter = counter.wrapping_add(1);
            }
            Ok(())
        };
        let passphrase = generate_passphrase(&mut random).unwrap();
        assert_eq!(*passphrase, "abandon-ability-able-about-above-absent");
        assert!(passphrase.capacity() >= 6 * 9, "never moved while it grew");
        // All values that can be drawn give every word equally often.
        let mut seen = std::collections::HashMap::new();
        counter = 0;
        for _ in 0..65536 / 2 {
            let mut random = |bytes: &mut [u8]| {
                bytes.fill(0);
                bytes[..2].copy_from_slice(&counter.to_le_bytes());
                counter = counter.wrapping_add(2);
                Ok(())
            };
            let drawn = generate_passphrase(&mut random).unwrap();
            let first = drawn.split('-').next().unwrap().to_owned();
            *seen.entry(first).or_insert(0) += 1;
        }
        assert_eq!(seen.len(), 1024, "every second word of the list");
        assert!(seen.values().all(|times| *times == 32));
        let mut broken = |_: &mut [u8]| Err(std::io::Error::from_raw_os_error(38));
        assert!(generate_passphrase(&mut broken).is_err());
    }
}
