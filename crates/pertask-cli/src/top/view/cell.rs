//! Values as text.
//!
//! All text that comes from the program passes through here or through [`safe`], so that no name can steer the terminal.

use pertask::SpawnSite;
use pertask_text::{
    human,
    text::{cut_end, cut_path, harmless, width},
};

use crate::top::state::Value;

use super::{bars, palette::Palette};

/// Text from the program, as the terminal may have it.
pub fn safe(text: &str) -> String {
    harmless(text)
}

/// Returns a value as text at most so many columns wide.
pub fn text(value: &Value<'_>, most: usize) -> String {
    match value {
        Value::Nothing => String::new(),
        Value::Unknown => human::NONE.to_owned(),
        Value::Percent(percent) => decimal(*percent),
        Value::PerSecond(rate) if *rate < 99.95 => decimal(*rate),
        Value::PerSecond(rate) => human::count(rate.round() as u64),
        Value::Tasks(tasks) => average(*tasks),
        Value::Life(lived) => {
            let bar = bars::life(*lived, most, Palette { color: false });
            bar.iter().map(|span| &*span.content).collect()
        }
        Value::Share { ns: 0, .. } => human::NONE.to_owned(),
        Value::Share { ns, of_ns } => {
            let share = decimal(*ns as f64 / (*of_ns).max(1) as f64 * 100.0);
            format!("{} ({share}%)", human::duration_ns(*ns))
        }
        Value::Time(0) => human::NONE.to_owned(),
        Value::Time(ns) => aligned(human::duration_ns(*ns)),
        Value::Count(count) => human::count(*count),
        Value::Id(id) => id.to_string(),
        Value::Text(text) => cut_end(&safe(text), most),
        Value::Task(site) => match &site.name {
            Some(name) => cut_end(&safe(name), most),
            None => cut_path(&safe(&place(site)), most),
        },
        Value::Place(site) => cut_path(&safe(&place(site)), most),
        Value::History(history) => bars::history(history, most),
    }
}

/// Returns a value as text within a sentence, with its unit.
pub fn words(value: &Value<'_>) -> String {
    let text = text(value, usize::from(u16::MAX)).trim().to_owned();
    match value {
        Value::Percent(_) => text + "%",
        _ => text,
    }
}

/// Returns the name of a site's tasks and their place, as far as they are known.
pub fn name_and_place(site: &SpawnSite) -> String {
    let place = safe(&place(site));
    match &site.name {
        Some(name) => format!("{}  {place}", safe(name)).trim_end().to_owned(),
        None => place,
    }
}

/// Returns `file:line`, or the file alone where no line is known.
fn place(site: &SpawnSite) -> String {
    match (&*site.file, site.line) {
        ("", _) => String::new(),
        (file, 0) => file.to_owned(),
        (file, line) => format!("{file}:{line}"),
    }
}

/// One decimal, but none where there is something and it would be shown as nothing.
fn decimal(number: f64) -> String {
    match number {
        _ if number > 0.0 && number < 0.05 => "<0.1".to_owned(),
        _ if number >= 9_999.95 => human::count(number as u64),
        _ => format!("{number:.1}"),
    }
}

/// Two decimals of a small number: of one task's time, the share is what matters.
fn average(tasks: f64) -> String {
    match tasks {
        _ if tasks > 0.0 && tasks < 0.005 => "<0.01".to_owned(),
        _ if tasks < 9.995 => format!("{tasks:.2}"),
        _ if tasks < 999.95 => format!("{tasks:.1}"),
        _ => human::count(tasks.round() as u64),
    }
}

/// The blank aligns the digits of "1.23 s" with those of "1.23 ms".
fn aligned(time: String) -> String {
    if time.ends_with(" s") { time + " " } else { time }
}

/// Returns text moved to the right end of so many columns, or cut if it is wider.
pub fn right(text: &str, columns: usize) -> String {
    let text = cut_end(text, columns);
    " ".repeat(columns - width(&text)) + &text
}

/// Returns text with blanks up to so many columns, or cut if it is wider.
pub fn left(text: &str, columns: usize) -> String {
    let text = cut_end(text, columns);
    let blanks = " ".repeat(columns - width(&text));
    text + &blanks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_tell_little_from_nothing() {
        let percents = [0.0, 0.01, 12.34, 6_400.0, 123_456.0].map(Value::Percent);
        assert_eq!(percents.map(|it| text(&it, 6)), ["0.0", "<0.1", "12.3", "6400.0", "123k"]);
        let rates = [0.0, 0.02, 3.25, 120.4, 1_234_567.0].map(Value::PerSecond);
        assert_eq!(rates.map(|it| text(&it, 6)), ["0.0", "<0.1", "3.2", "120", "1.23M"]);
        assert_eq!(text(&Value::Percent(f64::NAN), 6), "NaN");
        let tasks = [0.0, 0.001, 0.876, 3.2, 12.34, 120.44, 9_999.6, 1e19].map(Value::Tasks);
        let shown = ["0.00", "<0.01", "0.88", "3.20", "12.3", "120.4", "10.0k", "10.0E"];
        assert_eq!(tasks.map(|it| text(&it, 6)), shown);
    }

    #[test]
    fn a_task_without_a_name_is_called_by_its_place() {
        let site = SpawnSite { name: None, file: "src/deep/main.rs".to_owned(), line: 7 };
        assert_eq!(text(&Value::Task(&site), 12), "…/main.rs:7");
        let named = SpawnSite { name: Some("a\u{1b}[2J".to_owned()), ..site };
        assert_eq!(text(&Value::Task(&named), 40), "a\\u{1b}[2J");
    }

    #[test]
    fn padded_text_has_its_width() {
        for text in ["", "a", "画像処理", "e\u{301}e\u{301}", "❤️❤️❤️"] {
            for columns in 0..12 {
                assert_eq!(width(&right(text, columns)), columns, "{text:?}");
                assert_eq!(width(&left(text, columns)), columns, "{text:?}");
            }
        }
    }
}
