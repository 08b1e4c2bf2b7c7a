//! The thread that reads keys from the terminal.

use std::{io, sync::Arc, thread};

use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::{
    inbox::{Happening, Inbox},
    state::Key,
};

/// Puts keys and changes of the terminal's size into the inbox, for the rest of the process.
///
/// # Errors
///
/// Returns the error if no thread can be started.
pub fn listen(inbox: &Arc<Inbox>) -> io::Result<()> {
    let inbox = Arc::clone(inbox);
    thread::Builder::new().name("top-input".to_owned()).spawn(move || read(&inbox))?;
    Ok(())
}

fn read(inbox: &Inbox) {
    loop {
        let pushed = match event::read() {
            Ok(event) => happening(&event).map(|happening| inbox.push(happening)),
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => {
                let _ = inbox.push(Happening::InputEnded);
                return;
            }
        };
        if pushed.is_some_and(|pushed| pushed.is_break()) {
            return;
        }
    }
}

fn happening(event: &Event) -> Option<Happening> {
    match event {
        Event::Key(key) if key.kind != KeyEventKind::Release => {
            Some(Happening::Key(self::key(*key)?))
        }
        Event::Resize(..) => Some(Happening::Resized),
        _ => None,
    }
}

fn key(KeyEvent { code, modifiers, .. }: KeyEvent) -> Option<Key> {
    if modifiers.contains(KeyModifiers::CONTROL) {
        return match code {
            KeyCode::Char('c') => Some(Key::Interrupt),
            KeyCode::Char('z') => Some(Key::Suspend),
            KeyCode::Char('l') => Some(Key::Redraw),
            // Some terminals send this for Backspace.
            KeyCode::Char('h') => Some(Key::Backspace),
            _ => None,
        };
    }
    Some(match code {
        KeyCode::Char(c) => Key::Char(c),
        KeyCode::F(n) => Key::Function(n),
        KeyCode::Enter => Key::Enter,
        KeyCode::Esc => Key::Escape,
        KeyCode::Backspace => Key::Backspace,
        KeyCode::Up => Key::Up,
        KeyCode::Down => Key::Down,
        KeyCode::Left => Key::Left,
        KeyCode::Right => Key::Right,
        KeyCode::PageUp => Key::PageUp,
        KeyCode::PageDown => Key::PageDown,
        KeyCode::Home => Key::Home,
        KeyCode::End => Key::End,
        _ => return None,
    })
}
