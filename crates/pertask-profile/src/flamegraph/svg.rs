//! The tree as an SVG: what stands above it, a box for each node, and the style and script, which are always the same.
//!
//! Edges are worked out in whole hundredths of a pixel, so that boxes never overlap and callees are never wider than their caller.

use std::io::{self, Write};

use super::super::frames::short;
use super::super::{Profile, RootBy, State, Weight};
use super::color::{Kind, LEGEND};
use super::frame::Frames;
use super::options::FlamegraphOptions;
use super::text::{self, Escaped, percent};
use super::tree::{Amount, Node, Tree};
use pertask_text::human::{self, counted};

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

/// Pixels.
const MARGIN: u32 = 10;
const ROW: u32 = 18;
const LINE: u32 = 16;
/// Where the tools are, which the script shows, and what it says of the box under the mouse.
const TOOLS: u32 = 54;
/// A character of the small font, in hundredths.
const CHAR_CENTIPX: u32 = 725;

/// Bytes of all tooltips before names in them are cut short.
const TOOLTIP_BYTES: usize = 16 << 20;
const SHORT_NAME_CHARS: usize = 100;

pub(super) fn write(
    frames: &Frames<'_>,
    tree: &Tree,
    options: &FlamegraphOptions,
    writer: impl Write,
) -> io::Result<()> {
    let width = options.width();
    let head = Head::of(frames, tree, options, width);
    let mut picture = Picture {
        frames,
        tree,
        weight: options.weight(),
        width,
        top: head.height + TOOLS,
        tooltips_left: TOOLTIP_BYTES,
        out: io::BufWriter::new(writer),
    };
    picture.begin(&head)?;
    picture.head(&head)?;
    picture.boxes()?;
    picture.end()
}

/// What stands above the boxes.
struct Head {
    title: String,
    /// How the profile was taken, what was lost, and what is not drawn.
    lines: Vec<String>,
    legend: Vec<(Kind, &'static str)>,
    height: u32,
}

impl Head {
    fn of(frames: &Frames<'_>, tree: &Tree, options: &FlamegraphOptions, width: u32) -> Self {
        let chars = ((width - 2 * MARGIN) * 100 / CHAR_CENTIPX) as usize;
        let title = options.title.clone().unwrap_or_else(|| title(frames, options));
        let subtitle = options.subtitle.clone().unwrap_or_else(|| taken(frames));
        let mut lines = text::wrapped(&subtitle, chars, 3);
        let not_drawn = not_drawn(tree, options);
        lines.extend(not_drawn.iter().flat_map(|line| text::wrapped(line, chars, 2)));
        let drawn: Vec<_> = tree.nodes.iter().map(|node| Kind::of(node, frames)).collect();
        let is_drawn = |kind: &Kind| drawn.iter().any(|it| it.is_like(*kind));
        let legend: Vec<_> = LEGEND.into_iter().filter(|(kind, _)| is_drawn(kind)).collect();
        let height = 34 + LINE * (lines.len() as u32) + if legend.is_empty() { 0 } else { 22 };
        Self { title: text::beginning(&title, chars).into_owned(), lines, legend, height }
    }
}

/// What the picture shows, and what its widths are.
fn title(frames: &Frames<'_>, options: &FlamegraphOptions) -> String {
    let by = match options.root {
        RootBy::TaskName => "task",
        RootBy::Site => "spawn site",
        RootBy::Thread => "thread",
    };
    let what = match (frames.profile.state, options.weight()) {
        _ if frames.is_of_life => {
            return format!("Whole lives by {by}: time on the CPU, blocked, ready and waiting");
        }
        (State::OnCpu, Weight::Time) => "CPU time",
        (State::Blocked, Weight::Time) => "Blocked time",
        (State::Ready, Weight::Time) => "Ready time",
        (State::Waiting, Weight::Time) => "Waiting time",
        (State::Waiting, Weight::Samples) => "Waits",
        (_, Weight::Samples) => "Samples",
    };
    format!("{what} by {by}")
}

/// How the profile was taken, and what is not in it.
fn taken(frames: &Frames<'_>) -> String {
    let profile = frames.profile;
    let duration = human::duration_ns(profile.duration_ns);
    if frames.is_of_life {
        let times = profile.times();
        let sum = human::duration_ns(times.sum());
        return format!("{sum} over {duration}: {times}; {}; {}", mechanism(profile), profile.lost);
    }
    let whole = profile.whole();
    let noun = profile.state.counted().filter(|_| profile.has_counts);
    let count = noun.map(|noun| counted(whole.samples, noun));
    if profile.state == State::OnCpu {
        let count = count.map_or(String::new(), |count| format!("{count} in "));
        return format!("{count}{duration}, {}; {}", mechanism(profile), profile.lost);
    }
    // Time off the CPU is measured, not sampled.
    let time = human::duration_ns(whole.time_ns);
    let count = count.map_or(String::new(), |count| format!(" in {count}"));
    format!("{time} of {}{count} over {duration}", profile.state.time())
}

fn mechanism(profile: &Profile) -> &str {
    if profile.mechanism.is_empty() { "sampled" } else { &profile.mechanism }
}

/// What is in the profile and not in the picture.
fn not_drawn(tree: &Tree, options: &FlamegraphOptions) -> Vec<String> {
    let (weight, noun) = (options.weight(), noun(tree.root()));
    let whole = tree.root().total.by(weight);
    let of_all = |amount: Amount| {
        let part = amount.by(weight);
        format!("{}, {} of all", in_units(amount, weight, noun), percent(part, whole))
    };
    let mut lines = Vec::new();
    if tree.narrow.frames > 0 {
        let frames = counted(tree.narrow.frames as u64, "frame");
        let amount = of_all(tree.narrow.amount);
        lines.push(format!("not drawn: {frames} too narrow to be seen ({amount})"));
    }
    if tree.deep.frames > 0 {
        let frames = counted(tree.deep.frames as u64, "frame");
        let (row, amount) = (options.max_depth.max(1), of_all(tree.deep.amount));
        lines.push(format!("not drawn: what {frames} in row {row} called ({amount})"));
    }
    lines
}

/// What is counted in a box. Several states have nothing in common that is.
fn noun(node: &Node) -> &'static str {
    node.state.and_then(State::counted).unwrap_or("sample")
}

fn in_units(amount: Amount, weight: Weight, noun: &str) -> String {
    match weight {
        Weight::Time => human::duration_ns(saturated(amount.time_ns)),
        Weight::Samples => counted(saturated(amount.samples), noun),
    }
}

fn saturated(sum: u128) -> u64 {
    sum.try_into().unwrap_or(u64::MAX)
}

struct Picture<'a, W> {
    frames: &'a Frames<'a>,
    tree: &'a Tree,
    weight: Weight,
    width: u32,
    /// Where the boxes begin.
    top: u32,
    tooltips_left: usize,
    out: W,
}

impl<W: Write> Picture<'_, W> {
    fn begin(&mut self, head: &Head) -> io::Result<()> {
        let rows = self.tree.nodes.iter().map(|node| node.depth as u32 + 1).max().unwrap_or(1);
        let (width, height) = (self.width, self.top + rows * ROW + MARGIN);
        let title = Escaped(&head.title);
        writeln!(self.out, r#"<?xml version="1.0" encoding="UTF-8"?>"#)?;
        writeln!(
            self.out,
            r#"<svg xmlns="http://www.w3.org/2000/svg" class="flamegraph" width="{width}" height="{height}">"#
        )?;
        writeln!(self.out, "<title>{title}</title>\n<style>{STYLE}</style>")?;
        writeln!(self.out, r#"<rect class="paper" width="100%" height="100%"/>"#)
    }

    fn head(&mut self, head: &Head) -> io::Result<()> {
        let middle = self.width / 2;
        let title = Escaped(&head.title);
        writeln!(self.out, r#"<text class="title" x="{middle}" y="24">{title}</text>"#)?;
        let mut y = 44;
        for line in &head.lines {
            let line = Escaped(line);
            writeln!(self.out, r#"<text class="subtitle" x="{middle}" y="{y}">{line}</text>"#)?;
            y += LINE;
        }
        self.legend(head, y)
    }

    fn legend(&mut self, head: &Head, y: u32) -> io::Result<()> {
        let mut x = MARGIN;
        writeln!(self.out, r#"<g class="legend">"#)?;
        for (kind, words) in &head.legend {
            let (classes, square) = (kind.classes(), y - 7);
            let (text_x, text_y) = (x + 16, y + 3);
            writeln!(
                self.out,
                r#"<g class="{classes}"><rect x="{x}" y="{square}" width="12" height="12"/></g><text x="{text_x}" y="{text_y}">{words}</text>"#
            )?;
            x += 30 + words.len() as u32 * CHAR_CENTIPX / 100;
        }
        writeln!(self.out, "</g>")
    }

    fn boxes(&mut self) -> io::Result<()> {
        if self.tree.root().total.by(self.weight) == 0 {
            return self.nothing();
        }
        writeln!(self.out, r#"<g class="boxes">"#)?;
        for node in self.tree.in_reading_order() {
            self.one_box(node)?;
        }
        writeln!(self.out, "</g>")
    }

    fn nothing(&mut self) -> io::Result<()> {
        let (x, y) = (self.width / 2, self.top);
        let time = match self.frames.is_of_life {
            true => "time in any state",
            false => self.frames.profile.state.time(),
        };
        let words = match self.weight {
            Weight::Time => format!("(no {time}: the profile has no samples that stand for any)"),
            Weight::Samples if !self.frames.profile.has_counts => {
                "(the profile does not say how many samples there are)".to_owned()
            }
            Weight::Samples => "(no samples)".to_owned(),
        };
        writeln!(self.out, r#"<text class="nothing" x="{x}" y="{y}">{words}</text>"#)
    }

    fn one_box(&mut self, node: &Node) -> io::Result<()> {
        let kind = Kind::of(node, self.frames);
        let total = node.total.by(self.weight);
        let (left, right) = (self.edge(node.start), self.edge(node.start + total));
        let (x, width) = (left + MARGIN * 100, right - left);
        let y = self.top + node.depth as u32 * ROW;
        let (classes, end) = (kind.classes(), if kind.is_path() { r#" data-end="1""# } else { "" });
        let (start, depth) = (node.start, node.depth);
        write!(
            self.out,
            r#"<g class="box {classes}" data-start="{start}" data-total="{total}" data-depth="{depth}"{end}>"#
        )?;
        let name = self.frames.name(node.frame);
        self.tooltip(node, &name)?;
        let (x_px, width_px, height) = (Px(x), Px(width), ROW - 1);
        write!(self.out, r#"<rect x="{x_px}" y="{y}" width="{width_px}" height="{height}"/>"#)?;
        self.label(&name, kind, x, y, width)?;
        writeln!(self.out, "</g>")
    }

    /// Where that much weight from the left ends, in hundredths of a pixel.
    fn edge(&self, weight: u128) -> u32 {
        let room = u128::from(self.width - 2 * MARGIN) * 100;
        (weight * room / self.tree.root().total.by(self.weight)) as u32
    }

    fn label(&mut self, name: &str, kind: Kind, x: u32, y: u32, width: u32) -> io::Result<()> {
        let chars = (width.saturating_sub(600) / CHAR_CENTIPX) as usize;
        if chars < 3 {
            return Ok(());
        }
        let is_long = name.chars().nth(chars).is_some();
        let short = if is_long { short(name) } else { name.into() };
        let shown =
            if kind.is_path() { text::end(&short, chars) } else { text::beginning(name, chars) };
        let (x, y, shown) = (Px(x + 300), y + 13, Escaped(&shown));
        write!(self.out, r#"<text x="{x}" y="{y}">{shown}</text>"#)
    }

    /// The first line is the name alone: the script takes it from here.
    fn tooltip(&mut self, node: &Node, name: &str) -> io::Result<()> {
        let is_room = self.tooltips_left > 0;
        let chars = if is_room { text::NAME_CHARS } else { SHORT_NAME_CHARS };
        let name = text::beginning(name, chars);
        let source = self.frames.source(node.frame).filter(|_| is_room);
        let source = source.map_or(String::new(), |source| format!("{}\n", Escaped(&source)));
        let told = format!("{}\n{source}{}", Escaped(&name), self.amounts(node));
        self.tooltips_left = self.tooltips_left.saturating_sub(told.len());
        write!(self.out, "<title>{told}</title>")
    }

    /// In the unit of the weight with percentages, then in the other.
    fn amounts(&self, node: &Node) -> String {
        let whole = self.tree.root().total.by(self.weight);
        let own = self.tree.own(node);
        let units = |amount, weight| in_units(amount, weight, noun(node));
        let share = |amount: Amount| {
            let part = percent(amount.by(self.weight), whole);
            format!("{} ({part})", units(amount, self.weight))
        };
        let other = match self.weight {
            Weight::Time => Weight::Samples,
            Weight::Samples => Weight::Time,
        };
        let mut told = format!("total {}, own {}", share(node.total), share(own));
        if self.has_counts(node) {
            let (total, own) = (units(node.total, other), units(own, other));
            told += &format!("\ntotal {total}, own {own}");
        }
        if node.hidden.by(self.weight) > 0 {
            let hidden = units(node.hidden, self.weight);
            told += &format!("\n{hidden} in callees that are not drawn");
        }
        told
    }

    /// Whether it is known how many samples or waits a box has.
    fn has_counts(&self, node: &Node) -> bool {
        let profile = self.frames.profile;
        node.state.is_some_and(|state| match state {
            State::Waiting if profile.state != state => node.total.samples > 0,
            state => profile.has_counts && state.counted().is_some(),
        })
    }

    fn end(&mut self) -> io::Result<()> {
        let (y, height) = (self.top - TOOLS, TOOLS);
        writeln!(
            self.out,
            r#"<foreignObject class="tools" x="0" y="{y}" width="100%" height="{height}"></foreignObject>"#
        )?;
        writeln!(self.out, "<script><![CDATA[\n{SCRIPT}]]></script>\n</svg>")?;
        self.out.flush()
    }
}

/// Hundredths of a pixel, as pixels.
struct Px(u32);

impl std::fmt::Display for Px {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{:02}", self.0 / 100, self.0 % 100)
    }
}
