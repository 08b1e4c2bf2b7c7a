//! A question to an agent, and its answer.

use std::{
    fmt::{Display, Write as _},
    io::Read as _,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use pertask::Report;
use pertask_agent::{Client, ClientError, Reply, connect, find};
use serde::{Deserialize, de::DeserializeOwned};

use crate::{error::Error, output::note};

/// The time in which an agent begins to answer, beyond the time that it is to measure.
const PATIENCE: Duration = Duration::from_secs(10);

/// The most bytes of an answer.
const MOST_BYTES: usize = 1 << 30;

/// A path with parameters.
pub struct Question(String);

/// The agent of a process.
#[derive(Debug)]
pub struct Agent(u32);

impl Question {
    pub fn new(path: &str) -> Self {
        Self(path.to_owned())
    }

    /// Adds a parameter.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.0.push(if self.0.contains('?') { '&' } else { '?' });
        self.0.push_str(name);
        self.0.push('=');
        for byte in value.bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                    self.0.push(char::from(byte));
                }
                // Writing to a string cannot fail.
                _ => _ = write!(self.0, "%{byte:02X}"),
            }
        }
        self
    }

    /// Adds a parameter, if it has a value.
    pub fn with_some(self, name: &str, value: Option<&str>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// Adds a parameter that is true or not there.
    pub fn with_flag(self, name: &str, value: bool) -> Self {
        self.with_some(name, value.then_some("true"))
    }

    pub fn path(&self) -> &str {
        &self.0
    }
}

impl Agent {
    /// The agent of a process.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Agent`] if it has none, or its agent does not answer this user.
    pub fn of(process: u32) -> Result<Self, Error> {
        let agent = Self(process);
        agent.connect().map(|_| agent)
    }

    /// The agent of a process, or `None` if it has none.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Agent`] if it has one that does not answer this user.
    pub fn find(process: u32) -> Result<Option<Self>, Error> {
        match connect(process) {
            Ok(_) => Ok(Some(Self(process))),
            Err(
                ClientError::NoAgent { .. }
                | ClientError::NotAllowed { .. }
                | ClientError::NoProcess { .. },
            ) => Ok(None),
            Err(why) => Err(Error::Agent(why.to_string())),
        }
    }

    /// Returns the process that the user has named, or else the only one that has an agent.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Agent`] if none or several have one.
    pub fn named_or_only(pid: Option<u32>) -> Result<u32, Error> {
        pid.map_or_else(only_one, Ok)
    }

    /// Whether the process is still there.
    pub fn is_alive(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0)).unwrap_or_default();
        // The name of the program, in parentheses, may have any character.
        let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        // One that nobody has waited for is a zombie.
        state.is_some_and(|state| !['Z', 'X'].contains(&state))
    }

    /// A name for a question, which nobody else uses.
    pub fn id(what: &str) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        format!("{what}-{}-{}", std::process::id(), now.as_nanos())
    }

    fn connect(&self) -> Result<Client, Error> {
        connect(self.0).map_err(|why| Error::Agent(why.to_string()))
    }

    /// Asks, and returns the answer when it begins.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Agent`] if there is no answer within the time that the question takes, or if the agent refuses it.
    pub fn ask(&self, question: &Question, takes: Duration) -> Result<Reply, Error> {
        let reply = self.connect()?.get(question.path(), takes + PATIENCE);
        let reply = reply.map_err(|why| self.failed(&why))?;
        if reply.status == 200 { Ok(reply) } else { Err(self.refusal(reply)) }
    }

    /// Ends a question that has this `id`.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`ask`](Self::ask).
    pub fn stop(&self, id: &str) -> Result<(), Error> {
        let question = Question::new("/v1/stop").with("id", id);
        let reply = self.connect()?.post(question.path(), PATIENCE);
        let reply = reply.map_err(|why| Error::Agent(why.to_string()))?;
        if reply.status == 200 { Ok(()) } else { Err(self.refusal(reply)) }
    }

    /// Asks, and reads the whole answer.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`ask`](Self::ask).
    pub fn bytes(&self, question: &Question, takes: Duration) -> Result<Vec<u8>, Error> {
        let reply = self.ask(question, takes)?;
        reply.into_bytes(MOST_BYTES).map_err(|why| self.failed(&why))
    }

    /// Asks, and reads the answer as JSON.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`ask`](Self::ask), and [`Error::Agent`] if the answer is not what was asked for.
    pub fn json<T: DeserializeOwned>(
        &self,
        question: &Question,
        takes: Duration,
    ) -> Result<T, Error> {
        let bytes = self.bytes(question, takes)?;
        serde_json::from_slice(&bytes).map_err(|why| self.nonsense(question, &why))
    }

    /// Says that an answer was not understood.
    pub fn nonsense(&self, question: &Question, why: &serde_json::Error) -> Error {
        Error::Agent(format!(
            "process {} has answered {} in a way that this version does not understand: {why}; use the pertask of the version that the program was built with",
            self.0,
            question.path()
        ))
    }

    /// Says why there is no answer.
    fn failed(&self, why: &impl Display) -> Error {
        match self.is_alive() {
            true => Error::Agent(why.to_string()),
            false => Error::Agent(format!("process {} has ended before it had answered", self.0)),
        }
    }

    /// Takes a report from a line of an answer.
    ///
    /// # Errors
    ///
    /// Returns the agent's reason if the line says why no report follows.
    pub fn report(&self, question: &Question, line: &str) -> Result<Report, Error> {
        Report::from_json(line).map_err(|why| match reason(line.as_bytes()) {
            Some(reason) => self.refuses(&reason),
            None => self.nonsense(question, &why),
        })
    }

    fn refusal(&self, reply: Reply) -> Error {
        let (status, mut bytes) = (reply.status, Vec::new());
        // What was read of it is enough to say why.
        let _ = reply.body.take(64 << 10).read_to_end(&mut bytes);
        self.refuses(&reason(&bytes).unwrap_or_else(|| format!("status {status}")))
    }

    fn refuses(&self, reason: &str) -> Error {
        Error::Agent(format!("process {} refuses: {reason}", self.0))
    }
}

/// The reason in a refusal.
fn reason(json: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Refused {
        error: String,
    }
    serde_json::from_slice(json).ok().map(|Refused { error }| error)
}

fn only_one() -> Result<u32, Error> {
    match &find()[..] {
        [only] => Ok(only.pid),
        [] => Err(Error::Agent(
            "no process that you can reach has an agent; name one with --pid; `pertask top` and `pertask record` then sample it from outside".to_owned(),
        )),
        several => {
            let each = several.iter().map(|it| format!("  --pid {}  {}", it.pid, it.program));
            let each = each.collect::<Vec<_>>().join("\n");
            note(format_args!("several processes have an agent:\n{each}"));
            Err(Error::Agent("name one of them with --pid".to_owned()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_escaped() {
        let question =
            Question::new("/v1/report").with("site", "GET /a?b&c=ü").with_flag("no", false);
        assert_eq!(question.path(), "/v1/report?site=GET%20/a%3Fb%26c%3D%C3%BC");
        assert_eq!(
            question.with_flag("yes", true).path(),
            "/v1/report?site=GET%20/a%3Fb%26c%3D%C3%BC&yes=true"
        );
    }

    #[test]
    fn a_line_that_says_why_no_report_follows_is_told() {
        let told = |line| {
            let report = Agent(7).report(&Question::new("/v1/live"), line);
            report.expect_err("no report").to_string()
        };
        let why = told(r#"{"error":"no descriptors are left"}"#);
        assert!(why.contains("process 7 refuses: no descriptors are left"), "{why}");
        let why = told(r#"{"schema":7}"#);
        assert!(why.contains("/v1/live") && why.contains("version"), "{why}");
    }
}
