//! A thread's record: what readers see of the task that runs there, in the layout of OTEP 4947.
//!
//! A reader has stopped the thread, so only the compiler's order of the writes counts.

use super::keys::{self, NAME, SITE};
use crate::tasks::accounts;
use pertask_core::Task;
use std::fmt::{self, Write as _};
use std::sync::atomic::{AtomicU64, Ordering, compiler_fence};

/// The most bytes that readers take.
const BYTES: usize = 640;

/// Trace and span, of which nothing is known here; then a word that begins with whether the record is valid, and the attributes' length.
const HEAD: usize = 28;
const VALID: usize = 24;
const LENGTH: usize = 26;

/// The word that has both, and the first attribute's beginning.
const MIDDLE: usize = VALID / 8;

/// The most bytes of a value.
const MOST_VALUE: usize = u8::MAX as usize;

/// A record. Only its own thread writes it.
///
/// INVARIANT: while it is valid, all that its length covers is whole.
#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct Record([AtomicU64; BYTES / 8]);

static LEFT_OUT: AtomicU64 = AtomicU64::new(0);

/// How many attributes found no room.
pub(super) fn left_out() -> u64 {
    // Relaxed: a figure.
    LEFT_OUT.load(Ordering::Relaxed)
}

impl Default for Record {
    fn default() -> Self {
        Self::new()
    }
}

impl Record {
    pub(super) const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; BYTES / 8])
    }

    /// Says whether what it has holds now.
    pub(super) fn set_valid(&self, valid: bool) {
        let mut bytes = self.middle().to_ne_bytes();
        bytes[VALID % 8] = u8::from(valid);
        compiler_fence(Ordering::Release);
        // Relaxed, here and below: see the file's head.
        self.0[MIDDLE].store(u64::from_ne_bytes(bytes), Ordering::Relaxed);
        compiler_fence(Ordering::Release);
    }

    fn middle(&self) -> u64 {
        self.0[MIDDLE].load(Ordering::Relaxed)
    }

    /// Takes a task's attributes, and is valid then.
    pub(super) fn write(&self, task: &Task) {
        let bytes = Attributes::of(task).bytes();
        self.set_valid(false);
        let words =
            bytes.chunks_exact(8).map(|word| u64::from_ne_bytes(word.try_into().unwrap_or([0; 8])));
        // Those behind the attributes' end are read by nobody.
        let used = (HEAD + length(&bytes)).div_ceil(8);
        for (word, to) in words.zip(&self.0).take(used) {
            to.store(word, Ordering::Relaxed);
        }
        self.set_valid(true);
    }
}

fn length(bytes: &[u8; BYTES]) -> usize {
    u16::from_ne_bytes([bytes[LENGTH], bytes[LENGTH + 1]]).into()
}

/// The attributes of a task, as they are written.
struct Attributes {
    bytes: [u8; BYTES],
    end: usize,
}

impl Attributes {
    fn of(task: &Task) -> Self {
        let mut attributes = Self { bytes: [0; BYTES], end: HEAD };
        let site = task.path().site();
        if let Some(name) = site.name() {
            attributes.add(NAME, start_of(name));
        }
        let mut place = Text::default();
        // It keeps what has room.
        let _ = write!(place, "{}:{}", end_of(site.location().file()), site.location().line());
        attributes.add(SITE, place.as_str());
        let tag = task.tag();
        if tag != accounts::NONE {
            for (key, value) in accounts::labels_of(tag).iter() {
                match keys::number_of(key) {
                    Some(number) => attributes.add(number, start_of(value)),
                    None => count_left_out(),
                }
            }
        }
        attributes
    }

    fn add(&mut self, key: u8, value: &str) {
        let end = self.end + 2 + value.len();
        let Some(place) = self.bytes.get_mut(self.end..end) else { return count_left_out() };
        place[0] = key;
        place[1] = value.len() as u8;
        place[2..].copy_from_slice(value.as_bytes());
        self.end = end;
    }

    fn bytes(mut self) -> [u8; BYTES] {
        let length = (self.end - HEAD) as u16;
        self.bytes[LENGTH..LENGTH + 2].copy_from_slice(&length.to_ne_bytes());
        self.bytes
    }
}

fn count_left_out() {
    // Relaxed: a figure.
    LEFT_OUT.fetch_add(1, Ordering::Relaxed);
}

/// As much of a text as a value may have.
fn start_of(text: &str) -> &str {
    let mut end = text.len().min(MOST_VALUE);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// The end of a path that leaves room for a line number.
fn end_of(path: &str) -> &str {
    const MOST: usize = MOST_VALUE - 11;
    let mut start = path.len().saturating_sub(MOST);
    while !path.is_char_boundary(start) {
        start += 1;
    }
    &path[start..]
}

/// A short text without an allocation.
struct Text {
    bytes: [u8; MOST_VALUE],
    end: usize,
}

impl Default for Text {
    fn default() -> Self {
        Self { bytes: [0; MOST_VALUE], end: 0 }
    }
}

impl Text {
    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.end]).unwrap_or_default()
    }
}

impl fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.end + text.len();
        self.bytes.get_mut(self.end..end).ok_or(fmt::Error)?.copy_from_slice(text.as_bytes());
        self.end = end;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{LabelExt as _, TaskExt as _};
    use pertask_core::Cpu;

    /// What a reader finds in a record.
    fn attributes_of(bytes: &[u8; BYTES]) -> Vec<(String, String)> {
        let names: Vec<_> = keys::names().collect();
        let (mut rest, mut found) = (&bytes[HEAD..HEAD + length(bytes)], Vec::new());
        while let [key, length, after @ ..] = rest {
            let (value, after) = after.split_at((*length).into());
            found.push((
                names[usize::from(*key)].to_owned(),
                String::from_utf8(value.to_vec()).unwrap(),
            ));
            rest = after;
        }
        found
    }

    #[test]
    fn it_has_the_tasks_name_and_site_and_labels() {
        accounts::watch_new_labels(keys::learn);
        let look = async {
            let task = Cpu::with(|cpu| cpu.current()).unwrap();
            Attributes::of(&task).bytes()
        };
        let labeled = look.labels([("tenant", "a"), ("plan", "b")]);
        let (task, line) = (labeled.task("GET /"), line!());
        let bytes = futures::executor::block_on(task);
        let wanted = [
            ("pertask.task.name", "GET /"),
            ("pertask.task.site", &format!("{}:{line}", file!())),
            ("plan", "b"),
            ("tenant", "a"),
        ];
        assert_eq!(
            attributes_of(&bytes),
            wanted.map(|(key, value)| (key.to_owned(), value.to_owned()))
        );
        assert!(bytes[..VALID].iter().all(|byte| *byte == 0), "no trace, no span");
    }

    #[test]
    fn texts_are_cut_between_characters() {
        let long = "é".repeat(200);
        assert_eq!(start_of(&long).len(), 254);
        assert_eq!(start_of("short"), "short");
        assert_eq!(end_of(&long).len(), 244);
        assert!(end_of(&format!("{long}/main.rs")).ends_with("/main.rs"));
    }

    #[test]
    fn what_has_no_room_is_left_out_and_counted() {
        let mut attributes = Attributes { bytes: [0; BYTES], end: HEAD };
        let before = left_out();
        for key in 0..5 {
            attributes.add(key, start_of(&"x".repeat(300)));
        }
        attributes.add(9, "fits");
        // Another test may count one, too.
        assert!(left_out() >= before + 3);
        let bytes = attributes.bytes();
        assert_eq!(length(&bytes), 2 * 257 + 6);
        assert_eq!(bytes[HEAD..HEAD + 3], [0, 255, b'x']);
        assert_eq!(bytes[HEAD + 2 * 257..][..6], *b"\x09\x04fits");
    }
}
