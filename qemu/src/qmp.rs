//! QEMU's control socket: orders, answers and events, one JSON object a line.
//!
//! Source: QEMU's documentation, "QMP Protocol Specification".

use std::{
    collections::VecDeque,
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::error::{Error, Result};

/// How long QEMU may take to answer.
const ANSWER: Duration = Duration::from_secs(30);

/// A connection to QEMU.
#[derive(Debug)]
pub(crate) struct Qmp {
    stream: UnixStream,
    reader: BufReader<UnixStream>,
    /// Part of a line that arrived before the time was up.
    partial: String,
    events: VecDeque<Value>,
}

impl Qmp {
    /// Connects and agrees on what is spoken.
    pub(crate) fn connect(socket: &Path) -> Result<Self> {
        let failed = || Error::host("cannot use", socket);
        let stream = UnixStream::connect(socket).map_err(failed())?;
        let reader = BufReader::new(stream.try_clone().map_err(failed())?);
        let mut qmp = Self {
            stream,
            reader,
            partial: String::new(),
            events: VecDeque::new(),
        };
        qmp.read("the greeting", Instant::now() + ANSWER)?;
        qmp.order("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// One message, whatever it is.
    fn read(&mut self, wanted: &str, until: Instant) -> Result<Value> {
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let timed_out = || Error::Timeout {
                wanted: wanted.to_owned(),
                waited: ANSWER,
                last: "QEMU's control socket says nothing".to_owned(),
            };
            if left.is_zero() {
                return Err(timed_out());
            }
            self.stream
                .set_read_timeout(Some(left))
                .map_err(Error::host("cannot use", "the control socket"))?;
            match self.reader.read_line(&mut self.partial) {
                Ok(0) => {
                    return Err(Error::Ended {
                        wanted: wanted.to_owned(),
                        last: "QEMU closed its control socket".to_owned(),
                    });
                }
                Ok(_) => {
                    let line = std::mem::take(&mut self.partial);
                    return serde_json::from_str(&line).map_err(|error| Error::Refused {
                        order: wanted.to_owned(),
                        answer: format!("{error}: {line}"),
                    });
                }
                Err(_) => continue,
            }
        }
    }

    /// Gives an order and waits for its answer.
    pub(crate) fn order(&mut self, name: &str, arguments: Value) -> Result<Value> {
        let line = json!({"execute": name, "arguments": arguments}).to_string() + "\n";
        self.stream
            .write_all(line.as_bytes())
            .map_err(Error::host("cannot write to", "the control socket"))?;
        let until = Instant::now() + ANSWER;
        loop {
            let message = self.read(name, until)?;
            if let Some(answer) = message.get("return") {
                return Ok(answer.clone());
            }
            if let Some(error) = message.get("error") {
                return Err(Error::Refused {
                    order: name.to_owned(),
                    answer: error.to_string(),
                });
            }
            self.events.push_back(message);
        }
    }

    /// Waits for an event of this name whose data fit, past or to come.
    pub(crate) fn event(
        &mut self,
        name: &str,
        within: Duration,
        fits: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let wanted = |message: &Value| message["event"] == name && fits(&message["data"]);
        if let Some(at) = self.events.iter().position(wanted)
            && let Some(event) = self.events.remove(at)
        {
            return Ok(event);
        }
        let until = Instant::now() + within;
        loop {
            let message = self.read(name, until)?;
            if wanted(&message) {
                return Ok(message);
            }
            self.events.push_back(message);
        }
    }
}
