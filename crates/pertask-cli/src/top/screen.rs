//! The real terminal, in raw mode and on its other screen, and how it becomes what it was.

use std::{
    io::{self, Write},
    panic,
    sync::{
        Once,
        atomic::{AtomicBool, Ordering},
    },
};

use ratatui::{
    Terminal,
    backend::CrosstermBackend,
    crossterm::{
        cursor::{Hide, Show},
        execute,
        terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode},
    },
    layout::{Position, Rect},
};

use super::{
    TopOptions,
    state::State,
    view::{self, Palette},
};

/// Whether the terminal is ours. Whoever changes it or writes a frame has stdout's lock, so that no frame is written after the
/// terminal was given back. So the lock orders it, and Relaxed suffices.
static IS_OURS: AtomicBool = AtomicBool::new(false);

/// Whether a thread of the process has panicked. Relaxed suffices: who sees it late draws one frame more, which [`IS_OURS`] forbids.
static PANICKED: AtomicBool = AtomicBool::new(false);

/// The terminal, which is given back when this is dropped.
pub struct Screen {
    terminal: Terminal<CrosstermBackend<Frames>>,
}

/// Collects a frame, and writes it as a whole.
#[derive(Default)]
struct Frames {
    frame: Vec<u8>,
}

impl Screen {
    /// Takes the terminal.
    ///
    /// # Errors
    ///
    /// Returns the error if the terminal does not do what is asked. It is as it was then.
    pub fn enter() -> io::Result<Self> {
        give_back_at_panics();
        take()?;
        let terminal = Terminal::new(CrosstermBackend::new(Frames::default()));
        terminal.map(|terminal| Self { terminal }).inspect_err(|_| give_back())
    }

    /// Gives the terminal back for a while.
    pub fn leave(&mut self) {
        give_back();
    }

    /// Takes the terminal again, and forgets what was on it.
    ///
    /// # Errors
    ///
    /// Returns the error if the terminal does not do what is asked.
    pub fn enter_again(&mut self) -> io::Result<()> {
        // If the process was stopped by surprise, the shell has changed the terminal meanwhile.
        give_back();
        take()?;
        self.forget()
    }

    /// Forgets what is on the terminal, so that the next frame is drawn as a whole.
    ///
    /// # Errors
    ///
    /// Returns the error if the terminal does not take it.
    pub fn forget(&mut self) -> io::Result<()> {
        // `Terminal::clear` would ask the terminal for its cursor, and the input's thread would take the answer.
        let size = self.terminal.size()?;
        self.terminal.resize(Rect::from((Position::ORIGIN, size)))
    }

    /// Returns the columns and lines of the terminal.
    ///
    /// # Errors
    ///
    /// Returns the error if the terminal does not tell.
    pub fn size(&self) -> io::Result<(u16, u16)> {
        self.terminal.size().map(|size| (size.width, size.height))
    }

    /// Draws the state.
    ///
    /// # Errors
    ///
    /// Returns the error if the terminal does not take the frame.
    pub fn draw(
        &mut self,
        state: &State,
        options: &TopOptions,
        palette: Palette,
    ) -> io::Result<()> {
        self.terminal.draw(|frame| view::draw(frame, state, options, palette)).map(|_| ())
    }

    /// Returns whether a thread has panicked, so that the terminal is given back for good.
    pub fn is_broken(&self) -> bool {
        PANICKED.load(Ordering::Relaxed)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

fn take() -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    enable_raw_mode()?;
    IS_OURS.store(true, Ordering::Relaxed);
    let entered = execute!(stdout, EnterAlternateScreen, Hide);
    drop(stdout);
    entered.inspect_err(|_| give_back())
}

fn give_back() {
    let mut stdout = io::stdout().lock();
    if IS_OURS.swap(false, Ordering::Relaxed) {
        // A terminal that is gone needs nothing.
        let _ = execute!(stdout, Show, LeaveAlternateScreen);
        let _ = disable_raw_mode();
    }
}

/// Makes the terminal usable without waiting for the main thread, which may hang in a frame.
pub fn abandon() {
    // Crossterm knows whether this is needed.
    let _ = disable_raw_mode();
}

/// Whichever thread panics, its message must not be written to a screen that vanishes.
fn give_back_at_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            PANICKED.store(true, Ordering::Relaxed);
            give_back();
            before(panic);
        }));
    });
}

impl Write for Frames {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.frame.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        let written = match IS_OURS.load(Ordering::Relaxed) {
            true => stdout.write_all(&self.frame).and_then(|()| stdout.flush()),
            false => Ok(()),
        };
        self.frame.clear();
        written
    }
}
