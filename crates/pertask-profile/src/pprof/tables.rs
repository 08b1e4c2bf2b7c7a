//! Everything in a pprof file except the samples, as it stands there. The strings are read; the rest still names them by number.

use std::collections::HashMap;
use std::sync::Arc;

use prost::Message;

use super::columns::Type;
use super::fields::{Field, Fields};
use super::limits::{Bound, Held, ReadLimits};
use super::{ReadError, message};

/// The most sample types, and the most comments that are looked at. No program writes as many.
const MOST_TYPES: usize = 64;
const MOST_COMMENTS: usize = 4_096;

pub(super) struct Tables<'a> {
    bytes: &'a [u8],
    limits: &'a ReadLimits,
    /// The samples and their labels so far.
    held: Held,
    strings: Vec<Arc<str>>,
    /// The indices of strings that were cut.
    pub(super) cut: Vec<usize>,
    pub(super) sample_types: Vec<message::ValueType>,
    pub(super) mappings: Ids<message::Mapping>,
    pub(super) functions: Ids<message::Function>,
    pub(super) locations: Ids<message::Location>,
    pub(super) comments: Vec<i64>,
    pub(super) head: Head,
}

/// What a file has once.
#[derive(Debug, Default)]
pub(super) struct Head {
    pub(super) time_nanos: Option<i64>,
    pub(super) duration_nanos: Option<i64>,
    pub(super) period: Option<i64>,
    pub(super) period_type: Option<message::ValueType>,
    pub(super) drop_frames: i64,
    pub(super) keep_frames: i64,
}

/// The items of a table, and the index of each by the file's own id.
pub(super) struct Ids<T> {
    index: HashMap<u64, u32>,
    pub(super) items: Vec<T>,
}

impl<'a> Tables<'a> {
    pub(super) fn read(bytes: &'a [u8], limits: &'a ReadLimits) -> Result<Self, ReadError> {
        let mut tables = Self {
            bytes,
            limits,
            held: Held::default(),
            strings: Vec::new(),
            cut: Vec::new(),
            sample_types: Vec::new(),
            mappings: Ids::new(),
            functions: Ids::new(),
            locations: Ids::new(),
            comments: Vec::new(),
            head: Head::default(),
        };
        for field in Fields(bytes) {
            match field.map_err(|why| malformed("the file", why))? {
                (tag, Field::Bytes(part)) => tables.part(tag, part)?,
                (tag, Field::Varint(number)) => tables.number(tag, number.cast_signed())?,
                (_, Field::Fixed) => (),
            }
        }
        Ok(tables)
    }

    fn part(&mut self, tag: u64, part: &[u8]) -> Result<(), ReadError> {
        match tag {
            1 => return self.sample_type(part),
            2 => return self.count_sample(part),
            6 => return self.add_string(part),
            13 => return self.packed_comments(part),
            _ => (),
        }
        if !matches!(tag, 3..=5 | 11) {
            return Ok(());
        }
        let limit = self.limits.part_bytes;
        Bound { what: "bytes in one part", name: "part_bytes", limit }.holds(part.len() as u64)?;
        let many = self.limits.locations;
        let bound = |what| Bound { what, name: "locations", limit: many };
        match tag {
            3 => {
                bound("mappings").has_room(self.mappings.items.len())?;
                let item: message::Mapping = decoded("mapping", self.mappings.items.len(), part)?;
                self.mappings.push("mapping", item.id, item)
            }
            4 => {
                bound("locations").has_room(self.locations.items.len())?;
                let at = self.locations.items.len();
                let item: message::Location = decoded("location", at, part)?;
                self.locations.push("location", item.id, item)
            }
            5 => {
                bound("functions").has_room(self.functions.items.len())?;
                let at = self.functions.items.len();
                let item: message::Function = decoded("function", at, part)?;
                self.functions.push("function", item.id, item)
            }
            _ => {
                self.head.period_type = Some(decoded("period type", 0, part)?);
                Ok(())
            }
        }
        .map_err(|why| self.several_or(why))
    }

    /// Counts samples and labels, so that a file with too many is refused before they are in memory.
    fn count_sample(&mut self, part: &[u8]) -> Result<(), ReadError> {
        let is_label = |field: &Result<_, _>| matches!(field, Ok((3, Field::Bytes(_))));
        self.held.add(0, Fields(part).filter(is_label).count() as u64, self.limits)
    }

    fn sample_type(&mut self, part: &[u8]) -> Result<(), ReadError> {
        let at = self.sample_types.len();
        if at == MOST_TYPES {
            return Err(malformed("the sample types", "there are more than 64"));
        }
        self.sample_types.push(decoded("sample type", at, part)?);
        Ok(())
    }

    fn add_string(&mut self, part: &[u8]) -> Result<(), ReadError> {
        let limit = self.limits.strings;
        Bound { what: "strings", name: "strings", limit }.has_room(self.strings.len())?;
        let most = usize::try_from(self.limits.string_bytes).unwrap_or(usize::MAX);
        if part.len() > most {
            self.cut.push(self.strings.len());
            self.strings.push(without_middle(part, most).into());
        } else {
            self.strings.push(String::from_utf8_lossy(part).into());
        }
        Ok(())
    }

    /// Packed numbers have no keys.
    fn packed_comments(&mut self, part: &[u8]) -> Result<(), ReadError> {
        let mut packed = Fields(part);
        while !packed.0.is_empty() {
            let number = packed.varint().map_err(|why| malformed("comments", why))?;
            self.number(13, number.cast_signed())?;
        }
        Ok(())
    }

    fn number(&mut self, tag: u64, number: i64) -> Result<(), ReadError> {
        let once = match tag {
            7 => {
                self.head.drop_frames = number;
                return Ok(());
            }
            8 => {
                self.head.keep_frames = number;
                return Ok(());
            }
            9 => &mut self.head.time_nanos,
            10 => &mut self.head.duration_nanos,
            12 => &mut self.head.period,
            13 => {
                if self.comments.len() < MOST_COMMENTS {
                    self.comments.push(number);
                }
                return Ok(());
            }
            _ => return Ok(()),
        };
        // To the format, files one after another are one file, in which a later field replaces an earlier one.
        if once.replace(number).is_some() { Err(ReadError::Several) } else { Ok(()) }
    }

    /// An id is taken in a damaged file, or because a second profile begins: then the table of strings begins anew as well.
    fn several_or(&self, why: ReadError) -> ReadError {
        let is_first = |field| matches!(field, Ok((6, Field::Bytes([]))));
        let tables_of_strings = Fields(self.bytes).filter(|field| is_first(*field)).take(2).count();
        match why {
            ReadError::Malformed { .. } if tables_of_strings == 2 => ReadError::Several,
            why => why,
        }
    }

    pub(super) fn string(&self, index: i64) -> Result<Arc<str>, String> {
        let string = usize::try_from(index).ok().and_then(|index| self.strings.get(index));
        match string {
            Some(string) => Ok(string.clone()),
            // Some writers leave out the empty string, which index 0 means.
            None if index == 0 => Ok("".into()),
            None => Err(format!("string {index} of {}", self.strings.len())),
        }
    }

    /// Whether a string was too long, and lost its middle.
    pub(super) fn is_cut(&self, index: i64) -> bool {
        usize::try_from(index).is_ok_and(|index| self.cut.binary_search(&index).is_ok())
    }

    pub(super) fn named(&self, of: &message::ValueType) -> Result<Type, String> {
        Ok((self.string(of.kind)?, self.string(of.unit)?))
    }
}

impl<T> Ids<T> {
    fn new() -> Self {
        Self { index: HashMap::new(), items: Vec::new() }
    }

    fn push(&mut self, what: &str, id: u64, item: T) -> Result<(), ReadError> {
        let next = self.items.len() as u32;
        if id == 0 || self.index.insert(id, next).is_some() {
            let part = format!("{what} {next}");
            return Err(malformed(&part, &format!("its id {id} is 0 or already taken")));
        }
        self.items.push(item);
        Ok(())
    }

    /// Returns the index of the item with this id.
    pub(super) fn get(&self, id: u64) -> Option<u32> {
        self.index.get(&id).copied()
    }
}

fn decoded<T: Message + Default>(what: &str, at: usize, part: &[u8]) -> Result<T, ReadError> {
    T::decode(part).map_err(|why| malformed(&format!("{what} {at}"), &why.to_string()))
}

pub(super) fn malformed(part: &str, why: &str) -> ReadError {
    ReadError::Malformed { part: part.to_owned(), why: why.to_owned() }
}

/// Returns the beginning and the end of a text, of that many bytes at most: long names differ at the end as often as at the
/// beginning.
fn without_middle(text: &[u8], most: usize) -> String {
    let half = most.saturating_sub('…'.len_utf8()) / 2;
    let (begin, end) = (&text[..half], &text[text.len() - half..]);
    // What is left of a character that was cut through.
    let is_rest = |byte: &&u8| **byte & 0xc0 == 0x80;
    let end = &end[end.iter().take(3).take_while(is_rest).count()..];
    let cut_through = begin.iter().rev().take(4).position(|byte| byte & 0xc0 == 0xc0);
    let begin = match cut_through {
        Some(back) if begin[begin.len() - back - 1].leading_ones() as usize > back + 1 => {
            &begin[..begin.len() - back - 1]
        }
        _ => begin,
    };
    format!("{}…{}", String::from_utf8_lossy(begin), String::from_utf8_lossy(end))
}
