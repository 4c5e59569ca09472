//! The bytes of a file of trust. What decodes encodes to the same bytes again, or does not decode.

use asl_store::StoreId;
use asl_store::id::{Digest, hex};
use asl_store::{Key, LogPosition};

use super::{FILE_LEN_MAX, LOGS_MAX, LogPin, Trusted, is_name};
use crate::id::sha256;
use crate::pin::Pin;

const HEAD: &str = "asl trust 1";

/// Writes a file.
pub(super) fn encode(trusted: &Trusted) -> Vec<u8> {
    let mut text = format!("{HEAD}\ndomain {}\n", trusted.domain);
    if let Some(name) = &trusted.name {
        text.push_str(&format!("name {name}\n"));
    }
    if let Some(pin) = &trusted.manifest {
        text.push_str(&format!(
            "manifest {} {} {} {}\n",
            pin.rotation, pin.version, pin.head, pin.epoch
        ));
    }
    for log in &trusted.logs {
        text.push_str(&format!(
            "log {} {} {}\n",
            log.store, log.position, log.chain
        ));
    }
    let sum = hex(&sha256(&[text.as_bytes()]));
    text.push_str(&format!("sum {sum}\n"));
    text.into_bytes()
}

/// Reads a file, or says which line is the first that is wrong.
pub(super) fn decode(bytes: &[u8]) -> Result<Trusted, usize> {
    if bytes.len() > FILE_LEN_MAX {
        return Err(1);
    }
    let text = std::str::from_utf8(bytes).map_err(|error| line_at(bytes, error.valid_up_to()))?;
    let mut lines = text.lines().zip(1..).peekable();
    let mut next = |word: &str| {
        let (line, number) = lines.peek().copied()?;
        let rest = line.strip_prefix(word)?.strip_prefix(' ')?;
        lines.next();
        Some((rest, number))
    };
    if next("asl") != Some(("trust 1", 1)) {
        return Err(1);
    }
    let domain = next("domain").ok_or(2_usize)?;
    let domain = domain.0.parse().map_err(|_| 2_usize)?;
    let name = match next("name") {
        Some((name, _)) if is_name(name) => Some(name.to_owned()),
        Some((_, number)) => return Err(number),
        None => None,
    };
    let manifest = match next("manifest") {
        Some((words, number)) => {
            let words: Vec<&str> = words.split(' ').collect();
            let pin = || {
                let [rotation, version, head, epoch] = words[..] else {
                    return None;
                };
                Some(Pin {
                    domain,
                    rotation: rotation.parse().ok()?,
                    version: version.parse().ok()?,
                    head: head.parse::<Key>().ok()?,
                    epoch: epoch.parse::<Key>().ok()?,
                })
            };
            Some(pin().ok_or(number)?)
        }
        None => None,
    };
    let mut logs: Vec<LogPin> = Vec::new();
    while let Some((words, number)) = next("log") {
        let words: Vec<&str> = words.split(' ').collect();
        let pin = || {
            let [store, position, chain] = words[..] else {
                return None;
            };
            Some(LogPin {
                store: store.parse::<StoreId>().ok()?,
                position: LogPosition(position.parse().ok()?),
                chain: chain.parse::<Digest>().ok()?,
            })
        };
        let pin = pin().ok_or(number)?;
        let ascends = logs.last().is_none_or(|last| last.store < pin.store);
        if !ascends || logs.len() == LOGS_MAX {
            return Err(number);
        }
        logs.push(pin);
    }
    let trusted = Trusted {
        domain,
        name,
        manifest,
        logs,
    };
    // Everything that the fields above read in more ways than one, and the sum.
    let expected = encode(&trusted);
    match expected == bytes {
        true => Ok(trusted),
        false => {
            let same = expected.iter().zip(bytes).take_while(|(a, b)| a == b);
            Err(line_at(bytes, same.count()))
        }
    }
}

/// The line that has the byte at `offset`, from 1.
fn line_at(bytes: &[u8], offset: usize) -> usize {
    1 + bytes[..offset]
        .iter()
        .filter(|byte| **byte == b'\n')
        .count()
}
