//! What can be asked for, and the functions that answer.

use super::asked::{Asked, Refusal};
use super::route::Route;
use super::{about, measure, metrics, pprof, profile, report, running, tasks};
use pertask_agent::{Answer, Request, Service};

pub(super) const ROUTES: &[Route] = &[
    Route {
        method: "GET",
        path: "/",
        what: "this program, and what can be asked for",
        parameters: &[],
        is_lenient: false,
        answer: |_| about::about(ROUTES),
    },
    Route {
        method: "GET",
        path: "/v1/machine",
        what: "what the machine offers to measure with",
        parameters: &[],
        is_lenient: false,
        answer: about::machine,
    },
    Route {
        method: "GET",
        path: "/v1/report",
        what: "which tasks spend the CPU, over some seconds",
        parameters: &[report::OF_ONE, measure::PARAMETERS, running::PARAMETERS],
        is_lenient: false,
        answer: report::one,
    },
    Route {
        method: "GET",
        path: "/v1/live",
        what: "a stream of such reports, one JSON object a line, each since the first",
        parameters: &[report::OF_MANY, measure::PARAMETERS, running::PARAMETERS],
        is_lenient: false,
        answer: report::many,
    },
    Route {
        method: "GET",
        path: "/v1/tasks",
        what: "the live tasks",
        parameters: &[tasks::PARAMETERS, running::PARAMETERS],
        is_lenient: false,
        answer: tasks::list,
    },
    Route {
        method: "GET",
        path: "/v1/profile",
        what: "a sampled profile, as gzip'd pprof",
        parameters: &[profile::PARAMETERS, running::PARAMETERS],
        is_lenient: false,
        answer: profile::profile,
    },
    Route {
        method: "GET",
        path: "/v1/profile/so_far",
        what: "what a profile that has an id has so far, as gzip'd pprof, while it is being sampled",
        parameters: &[running::PARAMETERS],
        is_lenient: false,
        answer: profile::so_far,
    },
    Route {
        method: "POST",
        path: "/v1/stop",
        what: "ends a request that has an id; its caller gets what was measured so far",
        parameters: &[running::PARAMETERS],
        is_lenient: false,
        answer: running::stop,
    },
    Route {
        method: "GET",
        path: "/metrics",
        what: "counters and histograms for Prometheus; the first scrape begins to measure, for good",
        parameters: &[],
        is_lenient: true,
        answer: metrics::scrape,
    },
    Route {
        method: "GET",
        path: "/debug/pprof/",
        what: "the paths of Go's net/http/pprof",
        parameters: &[],
        is_lenient: true,
        answer: pprof::index,
    },
    Route {
        method: "GET",
        path: "/debug/pprof/profile",
        what: "a sampled profile with the names of functions",
        parameters: &[pprof::OF_PROFILE],
        is_lenient: true,
        answer: pprof::profile,
    },
    Route {
        method: "GET",
        path: "/debug/pprof/allocs",
        what: "where tasks allocate, with the names of functions",
        parameters: &[pprof::OF_ALLOCS],
        is_lenient: true,
        answer: pprof::allocs,
    },
    Route {
        method: "GET",
        path: "/debug/pprof/tasks",
        what: "a report as text",
        parameters: &[pprof::OF_TASKS],
        is_lenient: true,
        answer: pprof::tasks,
    },
];

/// Answers what callers ask.
pub(super) struct Routes;

impl Service for Routes {
    fn answer(&self, request: &Request<'_>) -> Answer {
        try_answer(request).unwrap_or_else(Refusal::into_answer)
    }
}

fn try_answer(request: &Request<'_>) -> Result<Answer, Refusal> {
    let path = request.path();
    let Some(route) = ROUTES.iter().find(|route| route.path == path) else {
        return Err(Refusal::new(404, format!("there is no {path}; / lists what there is")));
    };
    if route.method != request.method() {
        let reason = format!("{path} takes {}, and not {}", route.method, request.method());
        return Err(Refusal::new(405, reason));
    }
    (route.answer)(&Asked::of(request, route.parameters, route.is_lenient)?)
}
