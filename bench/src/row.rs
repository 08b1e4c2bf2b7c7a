//! A row of the table, as a program hands it to `compare`: a line with the row's name, a tab, and the value.

/// One measured value.
#[derive(Clone, Debug)]
pub struct Row {
    /// What was measured. Values are nanoseconds unless this says otherwise.
    pub name: String,
    /// What came out. NaN if it could not be measured.
    pub value: f64,
}

impl Row {
    /// Hands a value on.
    pub fn print(name: impl Into<String>, value: f64) {
        println!("{}\t{value}", name.into());
    }

    /// The row in a line, if there is one.
    pub fn parse(line: &str) -> Option<Self> {
        let (name, value) = line.split_once('\t')?;
        Some(Self { name: name.to_owned(), value: value.parse().ok()? })
    }
}
