//! Small changes to bytes, drawn from a seed.

/// SplitMix64 (Steele, Lea, Flood, OOPSLA 2014): the same numbers for a seed.
pub struct Rng(u64);

impl Rng {
    pub fn new(target: u64) -> Self {
        let seed = std::env::var("ASL_TEST_SEED").ok();
        let seed: u64 = seed.and_then(|seed| seed.parse().ok()).unwrap_or(0);
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ target)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `n`, which is not 0.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.next() as u8)
    }
}

/// Numbers at which something changes.
pub fn interesting(rng: &mut Rng) -> u64 {
    let edges = [
        0,
        1,
        2,
        63,
        64,
        65,
        127,
        128,
        255,
        256,
        0xffff,
        1 << 31,
        1 << 32,
        u64::MAX,
    ];
    match rng.below(3) {
        0 => rng.next() >> rng.below(64),
        _ => *rng.pick(&edges),
    }
}

/// One to three changes of `bytes`, some of them borrowed from `other`.
pub fn mutate(rng: &mut Rng, bytes: &[u8], other: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..1 + rng.below(3) {
        change(rng, &mut bytes, other);
    }
    bytes
}

fn change(rng: &mut Rng, bytes: &mut Vec<u8>, other: &[u8]) {
    if bytes.is_empty() {
        bytes.push(rng.next() as u8);
        return;
    }
    let at = rng.below(bytes.len());
    let to = (at + rng.below(40)).min(bytes.len());
    match rng.below(12) {
        0 | 1 => bytes[at] ^= 1 << rng.below(8),
        2 => bytes[at] = rng.next() as u8,
        3 => bytes[at] = interesting(rng) as u8,
        // Lengths and numbers are varints: a little more, a little less, or a needless continuation.
        4 => bytes[at] = bytes[at].wrapping_add(1),
        5 => bytes[at] = bytes[at].wrapping_sub(1),
        6 => {
            bytes[at] |= 0x80;
            bytes.insert(at + 1, 0);
        }
        7 => bytes.truncate(at),
        8 => {
            bytes.drain(at..to);
        }
        9 => {
            let again = bytes[at..to].to_vec();
            bytes.splice(at..at, again);
        }
        10 if !other.is_empty() => {
            let from = rng.below(other.len());
            let end = (from + 1 + rng.below(48)).min(other.len());
            let to = match rng.one_in(2) {
                true => at,
                false => (at + end - from).min(bytes.len()),
            };
            bytes.splice(at..to, other[from..end].iter().copied());
        }
        _ => bytes.push(rng.next() as u8),
    }
}

/// Changes text by its lines and characters, as somebody with an editor would.
pub fn mutate_text(rng: &mut Rng, text: &str, other: &str) -> String {
    let mut lines: Vec<String> = text.split('\n').map(str::to_owned).collect();
    let at = rng.below(lines.len());
    match rng.below(9) {
        0 => {
            lines.remove(at);
        }
        1 => lines.insert(at, lines[at].clone()),
        2 => {
            let with = rng.below(lines.len());
            lines.swap(at, with);
        }
        3 => {
            let others: Vec<&str> = other.split('\n').collect();
            lines[at] = (*rng.pick(&others)).to_owned();
        }
        4 => lines[at].push(*rng.pick(&[' ', '0', '+', '\r', '\t', '\u{1b}', '\u{e9}', '/', '='])),
        5 => lines[at].insert(0, *rng.pick(&['0', ' ', '-', '+', '9', 'A'])),
        6 => lines[at] = interesting(rng).to_string(),
        7 => lines[at] = String::new(),
        _ => {
            let mut characters: Vec<char> = lines[at].chars().collect();
            if !characters.is_empty() {
                let at = rng.below(characters.len());
                let from = ['0', '1', '9', 'a', 'A', 'z', '/', '+', '=', ' '];
                characters[at] = *rng.pick(&from);
            }
            lines[at] = characters.into_iter().collect();
        }
    }
    lines.join("\n")
}
