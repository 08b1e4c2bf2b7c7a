//! `pertask ps`: the processes that have an agent.

use std::{thread, time::Duration};

use clap::Args;
use pertask_agent::{Found, find};
use pertask_text::{
    grid::{Cell, Column, Grid},
    human,
    ink::{Ink, Tint},
};
use serde::{Deserialize, Serialize};

use super::{Agent, Question};
use crate::{
    error::Error,
    output::{harmless_json, note, print, stdout_style},
};

/// The first line of the help.
pub const ABOUT: &str = "List the processes that have an agent";

/// The help.
pub const LONG_ABOUT: &str = "\
List the processes that have an agent: those whose program calls pertask::init().

`pertask top`, `stat`, `tasks` and `record` reach them by their PID. You see your own processes, and root sees all. Of a process in a container, the \
PID is the one outside.";

/// The options of `pertask ps`.
#[derive(Debug, Args)]
pub struct PsOptions {
    /// Write the list as JSON
    #[arg(long)]
    pub json: bool,
}

/// What an agent says of its process. What it says besides is left out.
#[derive(Deserialize)]
struct About {
    pertask: String,
    live_tasks: u64,
}

#[derive(Serialize)]
struct Row {
    pid: u32,
    program: String,
    pertask: Option<String>,
    live_tasks: Option<u64>,
    socket: String,
    /// Why the agent said nothing.
    error: Option<String>,
}

/// Lists the processes.
///
/// # Errors
///
/// Returns [`Error::Write`] if stdout does not take the list.
pub fn run(options: &PsOptions) -> Result<(), Error> {
    // One that does not answer does not keep the others waiting.
    let asked: Vec<_> = find().into_iter().map(|found| thread::spawn(|| row(found))).collect();
    let rows: Vec<_> = asked.into_iter().filter_map(|row| row.join().ok()).collect();
    if options.json {
        let json = serde_json::to_string_pretty(&rows).unwrap_or_default();
        return print(&(harmless_json(&json) + "\n"));
    }
    if rows.is_empty() {
        note(format_args!(
            "no process that you can reach has an agent; a program has one that calls pertask::init()"
        ));
        return Ok(());
    }
    print(&text(&rows))
}

fn row(found: Found) -> Row {
    let about = Agent::of(found.pid)
        .and_then(|agent| agent.json::<About>(&Question::new("/"), Duration::ZERO));
    let (pertask, live_tasks, error) = match about {
        Ok(about) => (Some(about.pertask), Some(about.live_tasks), None),
        Err(why) => (None, None, Some(why.to_string())),
    };
    let socket = found.path.display().to_string();
    Row { pid: found.pid, program: found.program, pertask, live_tasks, socket, error }
}

fn text(rows: &[Row]) -> String {
    let columns = [
        Column::Number { title: "PID", rank: None },
        Column::Text { title: "PROGRAM", least: 12, most: 40 },
        Column::Number { title: "TASKS", rank: Some(1) },
        Column::Number { title: "VERSION", rank: Some(0) },
        Column::Text { title: "SOCKET", least: 20, most: 100 },
    ];
    let cells = rows.iter().map(|row| {
        vec![
            Cell::new(&row.pid.to_string()),
            Cell::new(&row.program),
            Cell::new(&row.live_tasks.map_or_else(|| human::NONE.to_owned(), human::count)),
            Cell::new(row.pertask.as_deref().unwrap_or(human::NONE)),
            match &row.error {
                Some(why) => Cell::new(why).tint(Tint::Alarm),
                None => Cell::path(&row.socket).tint(Tint::Secondary),
            },
        ]
    });
    let style = stdout_style();
    let grid = Grid::new(&columns, cells.collect());
    grid.lines(style.width.map(usize::from), Ink { color: style.color }).join("\n") + "\n"
}
