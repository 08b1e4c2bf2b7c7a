//! A box's colour: a class that `style.css` paints. It says whose code a function is, and within that its crate; or in a picture of
//! whole lives, in which state its time was, and how strongly, whose code it is.

use super::super::frames::{OUTSIDE, UNKNOWN};
use super::super::whose::{is_of_std, package_of};
use super::super::{Function, State};
use super::frame::{Frame, Frames, Root};
use super::text;
use super::tree::Node;

/// Whose code a box is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    All,
    Task,
    Site,
    Thread,
    OutsideTasks,
    /// The program's own code, in the colour of a crate.
    Own(u64),
    /// A library's code, in the colour of a crate.
    Library(u64),
    Std,
    /// The C library, the kernel, and code without symbols.
    System,
    /// Words in the place of a function, such as `(no sample)`.
    Words,
    /// A state of tasks.
    State(State),
    /// Code in a state.
    InState(State, Shade),
    /// Code in any state, for the legend.
    Shade(Shade),
}

/// How strong the colour of a state is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shade {
    /// The program's own code.
    Own,
    /// A library's code.
    Library,
    /// All other code.
    Other,
    /// Words in the place of a function.
    Words,
}

/// Colours of crates in `style.css`.
const OWN_HUES: u64 = 4;
const LIBRARY_HUES: u64 = 6;

/// The kinds in the legend: one of each, and what it is called.
pub(super) const LEGEND: [(Kind, &str); 16] = [
    (Kind::Task, "task"),
    (Kind::Site, "spawn site"),
    (Kind::Thread, "thread"),
    (Kind::OutsideTasks, "outside tasks"),
    (Kind::Own(0), "this program, by crate"),
    (Kind::Library(0), "libraries, by crate"),
    (Kind::Std, "std, core, alloc"),
    (Kind::System, "C, kernel, no symbol"),
    (Kind::Words, "not a function"),
    (Kind::State(State::OnCpu), "on CPU"),
    (Kind::State(State::Blocked), "blocked"),
    (Kind::State(State::Ready), "ready"),
    (Kind::State(State::Waiting), "waiting"),
    (Kind::Shade(Shade::Own), "this program"),
    (Kind::Shade(Shade::Library), "libraries"),
    (Kind::Shade(Shade::Other), "std, C, kernel"),
];

impl Kind {
    pub(super) fn of(node: &Node, frames: &Frames<'_>) -> Self {
        let kind = Self::of_frame(node.frame, frames);
        match (node.state, node.frame.state()) {
            (Some(state), None) if frames.is_of_life => Self::InState(state, kind.shade()),
            _ => kind,
        }
    }

    fn of_frame(frame: Frame, frames: &Frames<'_>) -> Self {
        match frame {
            Frame::All => Self::All,
            Frame::Incomplete | Frame::Unknown => Self::Words,
            Frame::State(state) => Self::State(state),
            Frame::Code(_) => Self::System,
            Frame::Root(_) => frames.as_root(frame).map_or(Self::Words, of_root),
            Frame::Function(_) => match frames.as_function(frame) {
                Some(function) => of_function(&frames.name(frame), function),
                None => Self::Words,
            },
        }
    }

    fn shade(self) -> Shade {
        match self {
            Self::Own(_) => Shade::Own,
            Self::Library(_) => Shade::Library,
            Self::Words => Shade::Words,
            _ => Shade::Other,
        }
    }

    /// Whether the box belongs to this entry of the legend.
    pub(super) fn is_like(self, entry: Self) -> bool {
        match (self, entry) {
            (Self::State(state), Self::State(of_entry)) => state == of_entry,
            (Self::InState(_, shade), Self::Shade(of_entry)) => shade == of_entry,
            _ => std::mem::discriminant(&self) == std::mem::discriminant(&entry),
        }
    }

    /// Whether the end of the name tells more than its beginning, as it does of paths.
    pub(super) fn is_path(self) -> bool {
        match self {
            Self::Site | Self::Own(_) | Self::Library(_) | Self::Std => true,
            Self::InState(_, shade) => shade != Shade::Words,
            _ => false,
        }
    }

    /// The classes of its box.
    pub(super) fn classes(self) -> String {
        match self {
            Self::All => "all".into(),
            Self::Task => "root task".into(),
            Self::Site => "root task site".into(),
            Self::Thread => "root thread".into(),
            Self::OutsideTasks => "root outside".into(),
            Self::Own(hash) => format!("own{}", hash % OWN_HUES),
            Self::Library(hash) => format!("lib{}", hash % LIBRARY_HUES),
            Self::Std => "std".into(),
            Self::System => "sys".into(),
            Self::Words => "words".into(),
            Self::State(state) => format!("state {}", state.name()),
            Self::InState(state, shade) => format!("{} {}", state.name(), shade.class()),
            Self::Shade(shade) => format!("shade {}", shade.class()),
        }
    }
}

impl Shade {
    fn class(self) -> &'static str {
        match self {
            Self::Own => "own",
            Self::Library => "lib",
            Self::Other => "other",
            Self::Words => "other words",
        }
    }
}

fn of_root(root: Root<'_>) -> Kind {
    match root {
        Root::Task(_) => Kind::Task,
        Root::Site(..) => Kind::Site,
        Root::Thread(..) => Kind::Thread,
        Root::Outside(_) => Kind::OutsideTasks,
        Root::UnknownTask | Root::UnknownThread => Kind::Words,
    }
}

fn of_function(name: &str, function: &Function) -> Kind {
    if name == UNKNOWN || name == OUTSIDE || (name.starts_with('(') && name.ends_with(')')) {
        return Kind::Words;
    }
    // Of texts that are far too long, a part says as much.
    let file = text::end(&function.file, text::NAME_CHARS).replace('\\', "/");
    let name = text::beginning(name, text::NAME_CHARS);
    let by_name = crate_in(&name);
    if is_of_std(&file) || (file.is_empty() && by_name.is_some_and(is_std)) {
        return Kind::Std;
    }
    if is_native(&file) {
        return Kind::System;
    }
    if let Some(package) = package_of(&file) {
        return Kind::Library(hash(package));
    }
    match by_name {
        Some(name) if file.is_empty() => Kind::Library(hash(name)),
        Some(name) => Kind::Own(hash(name)),
        None if file.ends_with(".rs") => Kind::Own(hash(folder(&file))),
        // Another language's, of which the name says too little.
        None if !file.is_empty() => Kind::Library(hash(folder(&file))),
        None => Kind::System,
    }
}

/// `axum` of `<axum::Router<S> as tower::Service<R>>::call`: the first path's first component.
fn crate_in(name: &str) -> Option<&str> {
    name.match_indices("::").find_map(|(end, _)| {
        let before = &name[..end];
        let is_ident = |c: char| c.is_alphanumeric() || c == '_';
        let start = before
            .rfind(|c| !is_ident(c))
            .map_or(0, |at| at + before[at..].chars().next().map_or(0, char::len_utf8));
        (start < end).then_some(&before[start..])
    })
}

fn is_std(name: &str) -> bool {
    matches!(name, "std" | "core" | "alloc" | "test" | "proc_macro")
}

fn is_native(file: &str) -> bool {
    let ending = file.rsplit('.').next().unwrap_or_default();
    matches!(ending, "c" | "h" | "s" | "S" | "cc" | "cpp" | "cxx" | "hpp" | "hh")
}

fn folder(file: &str) -> &str {
    file.rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// FNV-1a: it is the same in each build, so that a crate has one colour in all pictures.
fn hash(name: &str) -> u64 {
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    // Its low bits alone say little of long names that end alike.
    hash ^ (hash >> 32)
}
