//! The main thread: it takes what has happened out of the inbox, and draws the state if that has changed.

use std::{
    ops::ControlFlow,
    process::ExitCode,
    sync::{
        Arc,
        mpsc::{SyncSender, TrySendError},
    },
    time::{Duration, Instant},
};

use super::{
    TopOptions,
    error::Error,
    inbox::{Happening, Inbox},
    screen::Screen,
    signals,
    source::{Request, Update},
    state::{Action, Key, State},
    view::{self, Palette},
};

/// The least time between two frames: a slow connection to the terminal must not be flooded.
const FRAME: Duration = Duration::from_millis(100);

/// If nothing comes for so long, the user should know it.
const SILENCE: Duration = Duration::from_secs(3);

/// What the main thread works with.
pub struct EventLoop {
    pub state: State,
    pub screen: Screen,
    pub inbox: Arc<Inbox>,
    pub requests: SyncSender<Request>,
    pub options: TopOptions,
    pub palette: Palette,
}

/// When something is due.
struct Pace {
    /// When the last frame was drawn.
    drawn: Option<Instant>,
    /// Whether the last frame no longer shows the state.
    is_stale: bool,
    /// When the source was last heard of.
    heard: Instant,
    /// Whether nobody sees a frame, because the process is about to stop.
    is_hidden: bool,
}

impl EventLoop {
    /// Runs until the user leaves, or a signal comes. Returns the exit status.
    ///
    /// # Errors
    ///
    /// Returns an [`Error`] if the terminal cannot be used, or another thread has panicked.
    pub fn run(mut self) -> Result<ExitCode, Error> {
        let mut pace = Pace::new();
        loop {
            self.draw_if_due(&mut pace)?;
            for happening in self.inbox.wait(Some(pace.deadline())) {
                if let ControlFlow::Break(left) = self.take(happening, &mut pace)? {
                    return Ok(left);
                }
            }
            if self.screen.is_broken() {
                return Err(Error::Panicked);
            }
            pace.listen(&mut self.state);
        }
    }

    fn draw_if_due(&mut self, pace: &mut Pace) -> Result<(), Error> {
        if !pace.is_frame_due() {
            return Ok(());
        }
        let size = self.screen.size().map_err(Error::Terminal)?;
        self.state.set_height(view::rows(&self.state, &self.options, size));
        let drawn = self.screen.draw(&self.state, &self.options, self.palette);
        drawn.map_err(Error::Terminal)?;
        pace.note_frame();
        Ok(())
    }

    /// Deals with one thing. Returns `Break` with the exit status if it is the last one.
    fn take(
        &mut self,
        happening: Happening,
        pace: &mut Pace,
    ) -> Result<ControlFlow<ExitCode>, Error> {
        pace.is_stale = true;
        match happening {
            Happening::Key(key) => return self.press(key),
            Happening::Update(update) => {
                pace.heard = Instant::now();
                self.state.apply(update);
            }
            Happening::Resized => {}
            Happening::Suspend => {
                self.screen.leave();
                pace.is_hidden = true;
                signals::stop_self();
            }
            Happening::Resumed => {
                self.screen.enter_again().map_err(Error::Terminal)?;
                pace.is_hidden = false;
            }
            Happening::Stop(signal) => return Ok(ControlFlow::Break(status(signal))),
            Happening::InputEnded => return Ok(ControlFlow::Break(ExitCode::FAILURE)),
        }
        Ok(ControlFlow::Continue(()))
    }

    fn press(&mut self, key: Key) -> Result<ControlFlow<ExitCode>, Error> {
        match self.state.press(key) {
            Some(Action::Quit) => return Ok(ControlFlow::Break(ExitCode::SUCCESS)),
            Some(Action::Suspend) => signals::suspend_job(),
            Some(Action::Redraw) => self.screen.forget().map_err(Error::Terminal)?,
            Some(Action::Ask(request)) => self.ask(request),
            None => {}
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Hands the request to the source, or answers in its place if it is too busy.
    fn ask(&mut self, request: Request) {
        if let Err(refused) = self.requests.try_send(request) {
            let (TrySendError::Full(request) | TrySendError::Disconnected(request)) = refused;
            self.state.apply(match request {
                Request::Stacks { of } => {
                    let found = Err("nobody answers now: s asks again".to_owned());
                    Update::Stacks { of, found }
                }
                Request::Lives { .. } => {
                    Update::LivesRefused("nobody answers now: i asks again".to_owned())
                }
            });
        }
    }
}

impl Pace {
    fn new() -> Self {
        Self { drawn: None, is_stale: true, heard: Instant::now(), is_hidden: false }
    }

    fn is_frame_due(&self) -> bool {
        let is_early = self.drawn.is_some_and(|drawn| drawn.elapsed() < FRAME);
        self.is_stale && !is_early && !self.is_hidden
    }

    /// The time that a frame takes on a slow connection does not count.
    fn note_frame(&mut self) {
        self.drawn = Some(Instant::now());
        self.is_stale = false;
    }

    /// Returns when there is something to do even if nothing happens.
    fn deadline(&self) -> Instant {
        let silence = match self.heard.elapsed() < SILENCE {
            true => self.heard + SILENCE,
            false => Instant::now() + Duration::from_secs(1),
        };
        match self.drawn.filter(|_| self.is_stale && !self.is_hidden) {
            Some(drawn) => silence.min(drawn + FRAME),
            None => silence,
        }
    }

    /// Lets the state say for how long nothing was heard.
    fn listen(&mut self, state: &mut State) {
        let silent = self.heard.elapsed();
        let seconds = (silent >= SILENCE).then_some(silent.as_secs());
        self.is_stale |= state.note_silence(seconds);
    }
}

/// The status of a command that a signal has ended, as the shell has it.
fn status(signal: i32) -> ExitCode {
    ExitCode::from(u8::try_from(128 + signal).unwrap_or(u8::MAX))
}
