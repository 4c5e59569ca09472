//! Numbers with their nouns, for messages.

/// So many of something: `1 record`, `2 records`.
pub(crate) fn count(number: u64, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

/// The same with its verb: `one block is`, `2 blocks are`.
pub(crate) fn are(number: u64, noun: &str) -> String {
    match number {
        1 => format!("one {noun} is"),
        number => format!("{} are", count(number, noun)),
    }
}

/// The verb of so many in the past.
pub(crate) fn were(number: u64) -> &'static str {
    match number {
        1 => "was",
        _ => "were",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_not_several() {
        assert_eq!(count(0, "record"), "0 records");
        assert_eq!(count(1, "record"), "1 record");
        assert_eq!(are(1, "block"), "one block is");
        assert_eq!(are(2, "block"), "2 blocks are");
        assert_eq!((were(1), were(2)), ("was", "were"));
    }
}
