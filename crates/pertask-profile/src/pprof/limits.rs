//! How large a pprof file may be to be read: plain data.

use super::ReadError;

/// How large a pprof file may be to be read.
///
/// A name that is too long and a stack that is too deep are cut, and counted in [`Lost`](crate::Lost). Whatever else is too much
/// is [`ReadError::TooLarge`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadLimits {
    /// The most unpacked bytes of the file.
    pub bytes: u64,
    /// The most bytes of one location, function or other such part.
    pub part_bytes: u64,
    /// The most samples. One of the file counts as often as there are states in which it has any time.
    pub samples: u64,
    /// The most strings.
    pub strings: u64,
    /// The most bytes of one string. Of a longer one the middle is left out.
    pub string_bytes: u64,
    /// The most locations, and the most functions, and the most mappings.
    pub locations: u64,
    /// The most frames of one stack, inlined functions included. A deeper one loses its outermost callers.
    pub depth: u64,
    /// The most frames of all stacks together, inlined functions included. (A few bytes can repeat a long list of them.)
    pub frames: u64,
    /// The most labels of all samples together.
    pub labels: u64,
}

impl Default for ReadLimits {
    /// Returns limits that suffice for any profile that a program makes of itself, within some hundred megabytes of memory.
    fn default() -> Self {
        Self {
            bytes: 128 << 20,
            part_bytes: 1 << 20,
            samples: 1 << 20,
            strings: 1 << 20,
            string_bytes: 8 << 10,
            locations: 1 << 20,
            depth: 4_096,
            frames: 64 << 20,
            labels: 8 << 20,
        }
    }
}

impl ReadLimits {
    /// The names of the limits, which are those of the fields.
    pub const NAMES: [&'static str; 9] = [
        "bytes",
        "part_bytes",
        "samples",
        "strings",
        "string_bytes",
        "locations",
        "depth",
        "frames",
        "labels",
    ];

    /// Returns the limit with this name, one of [`NAMES`](Self::NAMES), to be changed.
    pub fn by_name(&mut self, name: &str) -> Option<&mut u64> {
        Some(match name {
            "bytes" => &mut self.bytes,
            "part_bytes" => &mut self.part_bytes,
            "samples" => &mut self.samples,
            "strings" => &mut self.strings,
            "string_bytes" => &mut self.string_bytes,
            "locations" => &mut self.locations,
            "depth" => &mut self.depth,
            "frames" => &mut self.frames,
            "labels" => &mut self.labels,
            _ => return None,
        })
    }
}

/// The samples so far, with the frames of their stacks and their labels.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Held {
    samples: u64,
    frames: u64,
    labels: u64,
}

impl Held {
    /// Adds a sample, or returns an error if there is no room for it.
    pub(super) fn add(
        &mut self,
        frames: u64,
        labels: u64,
        limits: &ReadLimits,
    ) -> Result<(), ReadError> {
        self.samples += 1;
        self.frames += frames;
        self.labels += labels;
        let bound = |what, name, limit| Bound { what, name, limit };
        bound("samples", "samples", limits.samples).holds(self.samples)?;
        bound("frames in all stacks", "frames", limits.frames).holds(self.frames)?;
        bound("labels", "labels", limits.labels).holds(self.labels)
    }
}

/// Something of which there may only be so much.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bound {
    /// The thing, in the plural.
    pub(super) what: &'static str,
    /// The limit's name.
    pub(super) name: &'static str,
    pub(super) limit: u64,
}

impl Bound {
    /// Returns an error if there is more than that.
    pub(super) fn holds(self, amount: u64) -> Result<(), ReadError> {
        let Self { what, name, limit } = self;
        if amount <= limit { Ok(()) } else { Err(ReadError::TooLarge { what, name, limit }) }
    }

    /// Returns an error if there is no room for one more.
    pub(super) fn has_room(self, amount: usize) -> Result<(), ReadError> {
        self.holds((amount as u64).saturating_add(1))
    }
}
