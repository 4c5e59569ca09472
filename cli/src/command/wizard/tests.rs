//! What the wizard judges by itself; what it asks is tried on terminals.

use super::*;
use asl_bootstrap::Secret;

#[test]
fn a_clock_that_cannot_be_right_is_asked_about_once() {
    let asked = |clock: i64, answers: &[&str]| {
        let mut answers = answers.iter();
        let (mut refused, mut said) = (Vec::new(), String::new());
        let time = wall_time(clock, &mut |words, check| {
            said = words.to_owned();
            loop {
                match check(answers.next().expect("an answer")) {
                    Ok(time) => return Ok(time),
                    Err(why) => refused.push(why),
                }
            }
        });
        (time.unwrap(), refused.len(), said)
    };
    let (time, refused, said) = asked(5, &["2026-11-21 14:30"]);
    assert_eq!((time, refused), (1_795_271_400_000_000_000, 0));
    assert!(said.contains("1970-01-01T00:00:00Z"), "{said}");
    let (time, refused, _) = asked(5, &["soon", "1970-01-02", "2026-11-21"]);
    assert_eq!((time, refused), (1_795_219_200_000_000_000, 2));
    let (time, _, said) = asked(-5, &[""]);
    assert_eq!(time, -5);
    assert!(said.contains("before 1970"), "{said}");
    let stopped = wall_time(5, &mut |_, _| Err(prompt::PromptError::Stopped));
    assert!(stopped.is_err());
}

#[test]
fn the_phrase_fits_a_screen_and_its_words_have_their_numbers() {
    for seed in [[0; 32], [0x7f; 32], [0xff; 32]] {
        let phrase = Phrase::from_secret(&Secret::from_seed(Zeroizing::new(seed)));
        let sheet = sheet(&phrase);
        assert!(sheet.capacity() >= PHRASE_WORDS * 20 && sheet.len() <= PHRASE_WORDS * 20);
        assert_eq!(sheet.lines().count(), 6);
        let widest = sheet.lines().map(|line| line.trim_end().len()).max();
        assert!(widest <= Some(79), "{}", *sheet);
        let cells: Vec<&str> = sheet.split_whitespace().collect();
        for (n, cell) in (1..).zip(cells.chunks(2)) {
            assert_eq!(cell, [n.to_string().as_str(), phrase.word(n).unwrap()]);
        }
        assert_eq!(cells.len(), 2 * PHRASE_WORDS);
    }
}

#[test]
fn words_are_asked_back_from_anywhere_and_no_word_twice() {
    let mut counts = [0; PHRASE_WORDS + 1];
    let mut random = |bytes: &mut [u8]| getrandom::fill(bytes).map_err(Into::into);
    for _ in 0..2000 {
        let places = places(&mut random).unwrap();
        assert_eq!(places.len(), ASKED_BACK);
        assert!(
            places.windows(2).all(|pair| pair[0] < pair[1]),
            "{places:?}"
        );
        places.iter().for_each(|place| counts[*place] += 1);
    }
    assert_eq!(counts[0], 0);
    // 250 are expected; ten standard deviations away would be 100.
    assert!(counts[1..].iter().all(|count| *count > 100), "{counts:?}");
    let mut broken = |_: &mut [u8]| Err(std::io::Error::from_raw_os_error(38));
    assert!(places(&mut broken).is_err());
}

#[test]
fn passphrases_are_judged_by_their_length_alone() {
    for (passphrase, word, short) in [
        ("x", "1 character: short", true),
        ("123456789", "9 characters: short", true),
        ("1234567890", "10 characters: fair", false),
        ("äöüäöüäöüäöüäöü", "15 characters: fair", false),
        ("sixteen letters!", "16 characters: long", false),
    ] {
        let (words, is_short) = judge_length(passphrase);
        assert!(words.starts_with(word), "{words}");
        assert_eq!(is_short, short, "{passphrase}");
    }
}

#[test]
fn names_are_short_and_printable() {
    assert_eq!(check_name("attic"), Ok("attic".to_owned()));
    for name in ["", "\u{1b}[2J", "a\u{202e}b", &"x".repeat(LABEL_MAX + 1)] {
        assert!(check_name(name).is_err(), "{name:?}");
    }
}
