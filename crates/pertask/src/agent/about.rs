//! What this process is, and what can be asked of it.

use super::asked::{Asked, Refusal};
use super::limits;
use super::route::Route;
use crate::Machine;
use pertask_agent::Answer;
use serde::Serialize;
use std::collections::BTreeMap;

/// The version of the paths and their answers. Within one, there are only additions.
const PROTOCOL: u32 = 1;

#[derive(Serialize)]
struct About {
    pertask: &'static str,
    protocol: u32,
    /// The process's number in its own namespace.
    pid: u32,
    program: String,
    live_tasks: usize,
    routes: Vec<RouteAbout>,
}

#[derive(Serialize)]
struct RouteAbout {
    method: &'static str,
    path: &'static str,
    what: &'static str,
    parameters: BTreeMap<&'static str, &'static str>,
}

pub(super) fn about(routes: &'static [Route]) -> Result<Answer, Refusal> {
    let routes = routes.iter().map(|route| RouteAbout {
        method: route.method,
        path: route.path,
        what: route.what,
        parameters: route
            .parameters
            .iter()
            .copied()
            .flatten()
            .map(|it| (it.name, it.meaning))
            .collect(),
    });
    let about = About {
        pertask: env!("CARGO_PKG_VERSION"),
        protocol: PROTOCOL,
        pid: std::process::id(),
        program: program(),
        live_tasks: pertask_core::System::global().live_tasks(),
        routes: routes.collect(),
    };
    json(&about)
}

/// What the machine offers. Each thing is tried, which takes some tens of milliseconds.
pub(super) fn machine(_: &Asked<'_>) -> Result<Answer, Refusal> {
    let _permit = limits::EXAMINATIONS.take()?;
    json(&Machine::examine())
}

fn program() -> String {
    let path = std::env::args_os().next().unwrap_or_default();
    let name = std::path::Path::new(&path).file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

fn json(what: &impl Serialize) -> Result<Answer, Refusal> {
    let json =
        serde_json::to_string_pretty(what).map_err(|why| Refusal::new(500, why.to_string()))?;
    Ok(Answer::json(json + "\n"))
}
