//! A strict reader of the metrics' text formats.

use pertask::metrics::MetricsAnswer;
use std::collections::{BTreeMap, BTreeSet};

/// A page that was read, and that keeps all the rules of its format.
#[derive(Debug, Default)]
pub struct Page {
    /// The families, by the name that their samples begin with, without `_total` and `_info`.
    pub families: BTreeMap<String, Family>,
    pub samples: BTreeMap<Series, f64>,
}

#[derive(Debug, Default, PartialEq)]
pub struct Family {
    pub kind: String,
    pub unit: Option<String>,
    pub help: String,
}

pub type Labels = BTreeMap<String, String>;

/// A sample's name and its labels.
pub type Series = (String, Labels);

impl Page {
    /// Reads an answer. Panics where it breaks a rule.
    pub fn of(answer: &MetricsAnswer) -> Self {
        let open = match answer.content_type {
            "text/plain; version=0.0.4; charset=utf-8" => false,
            "application/openmetrics-text; version=1.0.0; charset=utf-8" => true,
            other => panic!("{other}"),
        };
        let body = match open {
            true => answer.body.strip_suffix("# EOF\n").expect("an end"),
            false => &answer.body,
        };
        let mut page = Self::default();
        let mut closed = BTreeSet::new();
        let mut current = String::new();
        for line in body.strip_suffix('\n').expect("a last line that ends").split('\n') {
            if let Some(comment) = line.strip_prefix("# ") {
                let name = page.describe(comment, open);
                if name != current {
                    assert!(closed.insert(name.clone()), "described twice: {name}");
                    current = name;
                }
                assert!(!page.has_samples_of(&current), "described after its samples: {line}");
            } else {
                let (series, value) = sample(line);
                assert_eq!(page.family_of(&series.0), current, "{line}");
                let sum = page.samples.insert(series, value);
                assert!(sum.is_none(), "twice: {line}");
            }
        }
        page.check_histograms(open);
        page
    }

    /// Reads a comment, and returns its family's name.
    pub fn describe(&mut self, comment: &str, open: bool) -> String {
        let mut words = comment.splitn(3, ' ');
        let (keyword, name, text) =
            (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
        // The text format calls a family what its samples are called.
        let bare = ["_total", "_info"].iter().find_map(|suffix| name.strip_suffix(suffix));
        assert!(!open || bare.is_none(), "{comment}");
        let is_total = name.ends_with("_total");
        let name = bare.unwrap_or(name);
        assert!(is_name(name) && name.starts_with("pertask"), "{comment}");
        let family = self.families.entry(name.to_owned()).or_default();
        let text = text.to_owned();
        match keyword {
            "TYPE" => {
                let kinds = ["counter", "gauge", "histogram", "info"];
                assert!(kinds[..if open { 4 } else { 3 }].contains(&text.as_str()), "{comment}");
                assert!(family.kind.is_empty(), "{comment}");
                assert_eq!(is_total, !open && text == "counter", "{comment}");
                family.kind = text;
            }
            "HELP" => {
                assert!(family.help.is_empty() && text.ends_with('.'), "{comment}");
                assert!(!text.contains(['\\', '"']), "{comment}");
                family.help = text;
            }
            "UNIT" => {
                assert!(open && name.ends_with(&format!("_{text}")), "{comment}");
                assert!(family.unit.replace(text).is_none(), "{comment}");
            }
            _ => panic!("{comment}"),
        }
        name.to_owned()
    }

    /// The name of the family that a sample belongs to by its own name.
    pub fn family_of(&self, sample: &str) -> String {
        let of_kind = |kind: &str, suffix: &str| {
            let name = sample.strip_suffix(suffix)?;
            let family = self.families.get(name)?;
            let is_info = suffix == "_info" && family.kind == "gauge";
            (family.kind == kind || is_info).then(|| name.to_owned())
        };
        of_kind("counter", "_total")
            .or_else(|| of_kind("info", "_info"))
            .or_else(|| of_kind("histogram", "_bucket"))
            .or_else(|| of_kind("histogram", "_count"))
            .or_else(|| of_kind("gauge", ""))
            .unwrap_or_else(|| panic!("a sample of no family: {sample}"))
    }

    pub fn has_samples_of(&self, family: &str) -> bool {
        self.samples.keys().any(|(name, _)| self.family_of(name) == family)
    }

    pub fn check_histograms(&self, open: bool) {
        for name in self.families.iter().filter(|(_, it)| it.kind == "histogram").map(|(it, _)| it)
        {
            let mut all_bounds: BTreeSet<Vec<String>> = BTreeSet::new();
            for (labels, buckets) in self.histograms(name) {
                all_bounds.insert(buckets.iter().map(|(_, text, _)| text.clone()).collect());
                let counts: Vec<_> = buckets.iter().map(|(.., count)| *count).collect();
                assert!(counts.is_sorted(), "not cumulative: {labels:?} {buckets:?}");
                let (bound, text, all) = buckets.last().unwrap();
                assert!(bound.is_infinite() && text == "+Inf", "{buckets:?}");
                // OpenMetrics has a count only if it has a sum, and so has neither.
                let count = self.samples.get(&(format!("{name}_count"), labels));
                assert_eq!(count, if open { None } else { Some(all) });
            }
            assert!(all_bounds.len() <= 1, "{all_bounds:?}");
        }
        assert!(self.samples.keys().all(|(name, _)| !name.ends_with("_sum")), "not measured");
    }

    /// The buckets of each histogram: bound, its text, and count, in the order of the bounds.
    pub fn histograms(&self, name: &str) -> BTreeMap<Labels, Vec<(f64, String, f64)>> {
        let bucket = format!("{name}_bucket");
        let mut all: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for ((_, labels), count) in self.samples.iter().filter(|((it, _), _)| *it == bucket) {
            let mut labels = labels.clone();
            let text = labels.remove("le").expect("a bucket has a bound");
            all.entry(labels).or_default().push((text.parse::<f64>().unwrap(), text, *count));
        }
        all.values_mut().for_each(|buckets| buckets.sort_by(|a, b| a.0.total_cmp(&b.0)));
        all
    }

    /// A sample's value.
    #[track_caller]
    pub fn get(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let series = (name.to_owned(), labels.collect());
        *self.samples.get(&series).unwrap_or_else(|| panic!("no {series:?}: {self:#?}"))
    }

    /// The value of the one series of that name of tasks.
    #[track_caller]
    pub fn of_task(&self, name: &str, task: &str) -> f64 {
        let values = self.all_of_task(name, task);
        assert_eq!(values.len(), 1, "{name} of {task:?}: {self:#?}");
        values[0]
    }

    pub fn all_of_task(&self, name: &str, task: &str) -> Vec<f64> {
        let samples = self.samples.iter();
        let of_task = samples.filter(|((it, labels), _)| it == name && labels["name"] == task);
        of_task.map(|(_, value)| *value).collect()
    }

    pub fn sum(&self, name: &str) -> f64 {
        self.samples.iter().filter(|((it, _), _)| it == name).map(|(_, value)| value).sum()
    }

    /// What must not fall: counters, buckets, and the longest polls.
    pub fn rising(&self) -> impl Iterator<Item = (&Series, f64)> {
        let is_rising = |(name, _): &Series| {
            name.ends_with("_total") || name.ends_with("_bucket") || name.contains("longest")
        };
        self.samples
            .iter()
            .filter(move |it| is_rising(it.0))
            .map(|(series, value)| (series, *value))
    }
}

fn is_name(name: &str) -> bool {
    name.chars().all(|char| char.is_ascii_alphanumeric() || char == '_')
        && !name.starts_with(|char: char| char.is_ascii_digit())
}

/// Reads a line that is a sample.
fn sample(line: &str) -> (Series, f64) {
    let end = line.find(['{', ' ']).unwrap_or_else(|| panic!("{line}"));
    let (name, rest) = line.split_at(end);
    assert!(is_name(name), "{line}");
    let (labels, value) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest),
        None => (BTreeMap::new(), rest),
    };
    let value = value.strip_prefix(' ').unwrap_or_else(|| panic!("{line}"));
    assert!(value.chars().all(|char| char.is_ascii_digit() || char == '.'), "{line}");
    ((name.to_owned(), labels), value.parse().unwrap())
}

/// Reads labels up to their brace, and returns them and the rest.
fn labels(mut rest: &str) -> (Labels, &str) {
    let mut labels = BTreeMap::new();
    loop {
        let (name, after) = rest.split_once("=\"").expect("a label");
        assert!(is_name(name), "{name}");
        let mut value = String::new();
        let mut chars = after.char_indices();
        let end = loop {
            match chars.next().expect("a label's end") {
                (_, '\\') => value.push(match chars.next().expect("an escape").1 {
                    'n' => '\n',
                    char @ ('\\' | '"') => char,
                    other => panic!("no escape: {other:?}"),
                }),
                (at, '"') => break at,
                (_, char) => value.push(char),
            }
        };
        assert!(labels.insert(name.to_owned(), value).is_none(), "twice: {name}");
        rest = &after[end + 1..];
        match rest.strip_prefix(',') {
            Some(more) => rest = more,
            None => return (labels, rest.strip_prefix('}').expect("a brace")),
        }
    }
}
