//! The reports of an agent: a stream of them, and another one when the user wants other figures.
//!
//! An agent measures for a stream what its question asks for, so other figures are another question, and a session of its own. The
//! new stream begins before the old one ends. From then on nothing of the old one is shown. Its thread finds that out at its next
//! report, and closes the connection, which ends the old session.

use std::{
    io::{BufRead as _, BufReader},
    ops::ControlFlow,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, Receiver, Sender},
    },
    thread,
    time::Duration,
};

use pertask_agent::Reply;

use crate::{
    agent::{Agent, Question},
    error::Error,
    top::{Request, Source, Subject, Update, Updates},
};

use super::functions;

/// The most live tasks in a report, those with the most CPU time.
const MOST_TASKS: &str = "500";

/// What the reports are to have.
pub struct Wanted {
    pub interval_ms: u32,
    pub wake_latency: bool,
    pub blocked_ms: Option<String>,
    pub lives: bool,
}

/// The source of an agent's reports.
pub struct Reports {
    asking: Asking,
    pid: u32,
    first: Reply,
    /// Why the first stream has no lives, if they were wanted.
    refused: Option<Error>,
}

/// Asks the agent for streams.
struct Asking {
    agent: Arc<Agent>,
    wanted: Wanted,
}

/// A stream.
struct Stream {
    agent: Arc<Agent>,
    question: Question,
    reply: Reply,
    /// The least time of which a report is shown.
    least_ns: u64,
}

/// The way to the screen, which one stream at a time has.
#[derive(Clone)]
struct Stage {
    updates: Updates,
    /// The number of the stream that is shown.
    shown: Arc<Mutex<u64>>,
}

impl Wanted {
    fn question(&self) -> Question {
        Question::new("/v1/live")
            .with("interval_ms", &self.interval_ms.to_string())
            .with("max_tasks", MOST_TASKS)
            .with_flag("wake_latency", self.wake_latency)
            .with_flag("life", self.lives)
            .with_some("blocked_ms", self.blocked_ms.as_deref())
    }
}

impl Reports {
    /// Asks for the first stream. If the agent refuses lives, that has none.
    ///
    /// # Errors
    ///
    /// Returns [`Error::Agent`] if the agent does not answer, or refuses all else as well.
    pub fn begin(agent: Agent, pid: u32, wanted: Wanted) -> Result<Self, Error> {
        let mut asking = Asking { agent: Arc::new(agent), wanted };
        let (first, refused) = match asking.ask() {
            Err(why) if asking.wanted.lives => {
                asking.wanted.lives = false;
                (asking.ask()?, Some(why))
            }
            answer => (answer?, None),
        };
        Ok(Self { asking, pid, first, refused })
    }
}

impl Source for Reports {
    fn run(self, updates: Updates, requests: Receiver<Request>) {
        let Self { mut asking, pid, first, refused } = self;
        let stacks = begin_to_sample(pid, &updates);
        let stage = Stage { updates, shown: Arc::default() };
        asking.show(first, &stage);
        if let Some(why) = refused {
            let _ = stage.updates.send(Update::LivesRefused(why.to_string()));
        }
        // It ends when the screen does, which drops the other end.
        while let Ok(request) = requests.recv() {
            match request {
                // If sampling has ended, so has the screen.
                Request::Stacks { of } => _ = stacks.send(of),
                Request::Lives { measured } => asking.change(measured, &stage),
            }
        }
    }
}

/// Starts the thread that samples, which takes seconds.
fn begin_to_sample(pid: u32, updates: &Updates) -> Sender<Subject> {
    let (stacks, asked) = mpsc::channel();
    let updates = updates.clone();
    thread::spawn(move || functions::answer(pid, &asked, &updates));
    stacks
}

impl Asking {
    fn ask(&self) -> Result<Reply, Error> {
        self.agent.ask(&self.wanted.question(), Duration::ZERO)
    }

    /// Asks for another stream, and shows it. If the agent refuses, the old stream goes on.
    fn change(&mut self, lives: bool, stage: &Stage) {
        let before = std::mem::replace(&mut self.wanted.lives, lives);
        match self.ask() {
            Ok(reply) => self.show(reply, stage),
            Err(why) => {
                self.wanted.lives = before;
                let _ = stage.updates.send(Update::LivesRefused(why.to_string()));
            }
        }
    }

    /// Shows a stream in place of the one that is shown.
    fn show(&self, reply: Reply, stage: &Stage) {
        let stream = Stream {
            agent: Arc::clone(&self.agent),
            question: self.wanted.question(),
            reply,
            least_ns: u64::from(self.wanted.interval_ms) * 500_000,
        };
        let number = stage.begin(Update::Session { lives: self.wanted.lives });
        let stage = stage.clone();
        thread::spawn(move || stream.read(number, &stage));
    }
}

impl Stream {
    /// Reads reports until the connection ends, or another stream is shown.
    fn read(self, number: u64, stage: &Stage) {
        let Self { agent, question, reply, least_ns } = self;
        for line in BufReader::new(reply.body).lines().map_while(Result::ok) {
            let update = match agent.report(&question, &line) {
                // The first comes at once, and of no time there are no rates.
                Ok(report) if report.duration_ns < least_ns => continue,
                Ok(report) => Update::Report(Box::new(report)),
                Err(why) => Update::Ended(why.to_string()),
            };
            if stage.send(number, update).is_break() {
                return;
            }
        }
        let why = match agent.is_alive() {
            true => "the agent has ended the connection",
            false => "the process has ended",
        };
        let _ = stage.send(number, Update::Ended(why.to_owned()));
    }
}

impl Stage {
    /// Gives the way to another stream, which `first` announces. Returns its number.
    fn begin(&self, first: Update) -> u64 {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        *shown += 1;
        let _ = self.updates.send(first);
        *shown
    }

    /// Sends what a stream has told. Returns `Break` if another one is shown, or the user has left.
    ///
    /// The lock is held while it is sent, or a report of the old stream could come after the new one was announced.
    fn send(&self, number: u64, update: Update) -> ControlFlow<()> {
        let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        match *shown == number {
            true => self.updates.send(update),
            false => ControlFlow::Break(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::VecDeque,
        pin::pin,
        process,
        task::{Context, Waker},
        time::Instant,
    };

    use pertask::TaskExt;

    use crate::top::{Happening, Inbox};

    use super::*;

    /// What has come to the screen.
    struct Screen {
        inbox: Arc<Inbox>,
        unread: VecDeque<Happening>,
    }

    impl Screen {
        fn next(&mut self) -> Update {
            let deadline = Instant::now() + Duration::from_secs(30);
            while self.unread.is_empty() {
                self.unread.extend(self.inbox.wait(Some(deadline)));
                assert!(Instant::now() < deadline, "nothing comes");
            }
            match self.unread.pop_front() {
                Some(Happening::Update(update)) => update,
                other => panic!("{other:?}"),
            }
        }

        /// Skips reports up to the next session, and returns whether that measures lives.
        fn session(&mut self) -> bool {
            loop {
                match self.next() {
                    Update::Session { lives } => return lives,
                    Update::Report(_) => {}
                    other => panic!("{other:?}"),
                }
            }
        }

        /// Whether the task of this test has a life in the next reports.
        fn lives(&mut self) -> [bool; 3] {
            std::array::from_fn(|_| match self.next() {
                Update::Report(report) => {
                    let mut sites = report.sites.iter();
                    let site = sites.find(|site| site.site.name.as_deref() == Some("waits"));
                    site.expect("the task").life.is_some()
                }
                other => panic!("{other:?}"),
            })
        }
    }

    /// The agent is this process's own.
    #[test]
    fn streams_replace_each_other_and_an_agent_that_refuses_goes_on() {
        let _ = pertask::init();
        let mut waits = pin!(std::future::pending::<()>().task("waits"));
        assert!(waits.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        let pid = process::id();
        let wanted =
            Wanted { interval_ms: 100, wake_latency: false, blocked_ms: None, lives: false };
        let question = wanted.question();
        let reports = Reports::begin(Agent::of(pid).expect("an agent"), pid, wanted);
        let reports = reports.expect("a stream");
        let inbox = Arc::<Inbox>::default();
        let (requests, asked) = mpsc::sync_channel(8);
        let updates = Updates::new(Arc::clone(&inbox));
        let source = thread::spawn(move || reports.run(updates, asked));
        let mut screen = Screen { inbox, unread: VecDeque::new() };
        let ask = |measured| requests.send(Request::Lives { measured }).expect("the source");

        assert!(!screen.session());
        assert_eq!(screen.lives(), [false; 3]);
        ask(true);
        assert!(screen.session());
        assert_eq!(screen.lives(), [true; 3]);
        ask(false);
        assert!(!screen.session());
        assert_eq!(screen.lives(), [false; 3]);

        let agent = Agent::of(pid).expect("an agent");
        let others: Vec<_> =
            (0..16).map_while(|_| agent.ask(&question, Duration::ZERO).ok()).collect();
        assert!(others.len() < 16, "this stream is one of those that are allowed");
        ask(true);
        let why = loop {
            match screen.next() {
                Update::LivesRefused(why) => break why,
                Update::Report(_) => {}
                other => panic!("{other:?}"),
            }
        };
        assert!(why.contains("refuses"), "{why}");
        assert_eq!(screen.lives(), [false; 3]);
        drop(requests);
        source.join().expect("no panic");
    }
}
