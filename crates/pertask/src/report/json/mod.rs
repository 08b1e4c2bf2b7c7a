//! Reports and machines as JSON objects, whose fields have the names of the structs' fields.

#[cfg(test)]
mod tests;

use super::{Report, SCHEMA};
use serde::{Deserialize, Deserializer, de};
use std::borrow::Cow;

impl Report {
    /// Reads a report that [`to_json`](Self::to_json) has written, perhaps in another process and by another version.
    ///
    /// Fields that this version does not know are ignored.
    ///
    /// ```
    /// let report = pertask::Session::start()?.stop();
    /// assert_eq!(pertask::Report::from_json(&report.to_json())?, report);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Returns the error of the JSON reader if the text is no report, or one of another [`SCHEMA`].
    pub fn from_json(json: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(json)
    }

    /// Renders this report as indented JSON, in the schema that `docs/REPORT.md` describes.
    #[must_use]
    pub fn to_json(&self) -> String {
        // Serialisation cannot fail: the report is plain data, its keys are strings, and it is written to memory.
        serde_json::to_string_pretty(self).expect("a report is plain data")
    }
}

/// Reads the name of the schema, which must be this version's.
pub(super) fn schema<'a, D: Deserializer<'a>>(from: D) -> Result<Cow<'static, str>, D::Error> {
    let found = String::deserialize(from)?;
    match found == SCHEMA {
        true => Ok(SCHEMA.into()),
        false => Err(de::Error::invalid_value(de::Unexpected::Str(&found), &SCHEMA)),
    }
}
